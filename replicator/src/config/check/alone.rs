//! What members do by themselves: programs that they run, and where resources return to.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use hadrian_protocol::ids::MemberId;
use hadrian_protocol::node::Home;
use toml::Spanned;

use super::Checker;
use crate::config::file::{self, FenceTable};
use crate::config::model::Member;
use crate::hooks::Hook;

const ON_EVENT: Duration = Duration::from_secs(30);
const FENCE: Duration = Duration::from_secs(60);
const COMMAND: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);
const FAILBACK_AFTER: Duration = Duration::from_secs(60);
const STABLE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

impl Checker<'_> {
    /// A resource's own program, or else that of all.
    pub(super) fn on_event(&mut self, file: &file::File, raw: &file::Resource) -> Option<Hook> {
        let at = raw.on_event.as_ref().or(file.on_event.as_ref())?;
        let timeout = raw.on_event_timeout.as_ref().or(file.on_event_timeout.as_ref());
        let timeout = self.duration(timeout, ON_EVENT, COMMAND);
        self.absolute(at);
        Some(Hook { command: at.get_ref().clone(), timeout })
    }

    pub(super) fn fence<T>(&mut self, at: &Spanned<T>, table: &FenceTable) -> Hook {
        let timeout = self.time(at, table.timeout.as_deref(), FENCE);
        if !COMMAND.contains(&timeout) {
            let (least, most) = COMMAND.into_inner();
            let text = format!(
                "a fence command may take {least:?} to {most:?}, not {timeout:?}; change \
                 fencing.fence.timeout"
            );
            self.problem(at, text);
        }
        if !Path::new(&table.command).is_absolute() {
            let shown = table.command.display();
            self.problem(at, format!("{shown} is not absolute; write the whole path"));
        }
        Hook { command: table.command.clone(), timeout }
    }

    /// Where the resource returns to; nowhere, unless it says so.
    pub(super) fn home(
        &mut self,
        members: &[Member],
        raw: &file::Resource,
        primary: MemberId,
        takeovers_max: u32,
    ) -> Option<Home> {
        let after = self.duration(raw.failback_after.as_ref(), FAILBACK_AFTER, STABLE);
        let named = raw.home.as_ref().map(|name| self.find(members, name));
        let returns = match raw.failback.as_ref().map(|text| (text, text.get_ref().as_str())) {
            None | Some((_, "stay")) => false,
            Some((_, "home")) => true,
            Some((at, wrong)) => {
                let ways = "write \"stay\" or \"home\"";
                self.problem(at, format!("{wrong:?} is no kind of failback; {ways}"));
                false
            }
        };
        if let (Some(at), false) = (&raw.home, returns) {
            let text = "a resource with a home returns there with failback = \"home\" only; write \
                        that, or take the home out";
            self.problem(at, text.into());
        }
        let member = named.unwrap_or(Some(primary))?;
        returns.then_some(Home { member, after, takeovers_max })
    }
}

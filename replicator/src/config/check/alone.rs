//! What members do by themselves: programs that they run.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;

use super::Checker;
use crate::config::file::{self, FenceTable};
use crate::hooks::Hook;

const ON_EVENT: Duration = Duration::from_secs(30);
const FENCE: Duration = Duration::from_secs(60);
const COMMAND: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);

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
}

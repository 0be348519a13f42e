//! What keeps two members from being primary: markers, and the times of leases on them.

use std::collections::BTreeSet;
use std::time::Duration;

use hadrian_fencing::watchdog::{TIMEOUT_MIN, WatchdogSettings};
use hadrian_protocol::marks::lease::Timing;
use toml::Spanned;

use super::Checker;
use crate::config::file::{self, FencingTable, WatchdogTable};
use crate::config::model::{Fencing, Marks};

const WATCHDOG_DEVICE: &str = "/dev/watchdog";
const WATCHDOG_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than a boot nobody wants to wait before a takeover.
const WATCHDOG_TIMEOUT_MAX: Duration = Duration::from_secs(600);

impl Checker<'_> {
    pub(super) fn fencing(&mut self, raw: Option<&Spanned<file::Fencing>>) -> Fencing {
        let Some(at) = raw else { return Fencing::None { is_said: false } };
        match at.get_ref() {
            file::Fencing::Word(word) if word == "none" => Fencing::None { is_said: true },
            file::Fencing::Word(word) => {
                let ways = "write \"none\", or { marks = [\"/dev/…\"] }";
                self.problem(at, format!("{word:?} is no kind of fencing; {ways}"));
                Fencing::None { is_said: true }
            }
            file::Fencing::Table(table) => self.marks(at, table),
        }
    }

    fn marks<T>(&mut self, at: &Spanned<T>, table: &FencingTable) -> Fencing {
        let paths = &table.marks;
        match paths.len() {
            1 | 3 => {}
            2 => self.problem(
                at,
                "two markers are no better than one: with either lost there is no majority; name \
                 one or three"
                    .into(),
            ),
            count => self.problem(at, format!("fencing.marks names {count}; name one or three")),
        }
        for path in paths.iter().filter(|path| !path.is_absolute()) {
            let shown = path.display();
            self.problem(at, format!("{shown} is not absolute; write the whole path"));
        }
        if paths.iter().collect::<BTreeSet<_>>().len() < paths.len() {
            self.problem(at, "fencing.marks names one marker twice; each must differ".into());
        }
        let watchdog = table.watchdog.as_ref().map(|watchdog| self.watchdog(at, watchdog));
        let timing = Timing {
            watchdog: watchdog.as_ref().map_or(Duration::ZERO, |watchdog| watchdog.timeout),
            ..self.timing(at, table)
        };
        if let Err(error) = timing.check() {
            self.problem(at, format!("fencing: {error}"));
        }
        let fence = table.fence.as_ref().map(|fence| self.fence(at, fence));
        Fencing::Marks(Marks { paths: paths.clone(), timing, watchdog, fence })
    }

    fn watchdog<T>(&mut self, at: &Spanned<T>, table: &WatchdogTable) -> WatchdogSettings {
        let device = table.device.clone().unwrap_or_else(|| WATCHDOG_DEVICE.into());
        if !device.is_absolute() {
            let shown = device.display();
            self.problem(at, format!("{shown} is not absolute; write the whole path"));
        }
        let timeout = self.time(at, table.timeout.as_deref(), WATCHDOG_TIMEOUT);
        let whole = timeout.subsec_nanos() == 0;
        if !whole || !(TIMEOUT_MIN..=WATCHDOG_TIMEOUT_MAX).contains(&timeout) {
            let (least, most) = (TIMEOUT_MIN, WATCHDOG_TIMEOUT_MAX);
            let text = format!(
                "a watchdog of {timeout:?}; write {least:?} to {most:?}, in whole seconds, in \
                 fencing.watchdog.timeout"
            );
            self.problem(at, text);
        }
        WatchdogSettings { device, timeout }
    }

    fn timing<T>(&mut self, at: &Spanned<T>, table: &FencingTable) -> Timing {
        let Timing { lease, renew, io, watchdog, drift_ppm } = Timing::DEFAULT;
        Timing {
            lease: self.time(at, table.lease.as_deref(), lease),
            renew: self.time(at, table.renew_interval.as_deref(), renew),
            io: self.time(at, table.io_timeout.as_deref(), io),
            watchdog,
            drift_ppm,
        }
    }

    pub(super) fn time<T>(
        &mut self,
        at: &Spanned<T>,
        text: Option<&str>,
        default: Duration,
    ) -> Duration {
        let Some(text) = text else { return default };
        match humantime::parse_duration(text) {
            Ok(time) => time,
            Err(error) => {
                self.problem(at, format!("{text:?} is no duration ({error}); write 200ms or 10s"));
                default
            }
        }
    }

    /// Nobody takes over by itself who cannot be sure that he is the only one.
    pub(super) fn takeovers(&mut self, fencing: &Fencing, raw: &file::File) {
        if fencing.marks().is_some() {
            return;
        }
        for at in raw.resource.iter().filter_map(|resource| resource.on_lease_end.as_ref()) {
            let text = "on_lease_end needs ownership marks: without them there is no lease; set \
                        fencing = { marks = [\"/dev/…\"] }";
            self.problem(at, text.into());
        }
        let wants = raw.resource.iter().filter_map(|resource| resource.auto_takeover.as_ref());
        for at in wants.filter(|wants| *wants.get_ref()) {
            let text = "auto_takeover needs ownership marks, or two members could be primary; set \
                        fencing = { marks = [\"/dev/…\"] }";
            self.problem(at, text.into());
        }
    }
}

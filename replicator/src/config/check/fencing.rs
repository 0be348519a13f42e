//! What keeps two members from being primary: markers or etcd, and the times of leases on them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use hadrian_fencing::medium::{EtcdSource, HAS_ETCD};
use hadrian_fencing::watchdog::{TIMEOUT_MIN, WatchdogSettings};
use hadrian_protocol::marks::lease::Timing;
use toml::Spanned;

use super::Checker;
use crate::config::file::{self, FencingTable, WatchdogTable};
use crate::config::model::{Fencing, Marks};

const HTTP: &str = "http://";
const HTTPS: &str = "https://";
/// Most client addresses of one etcd; its own advice is seven members at most.
const ENDPOINTS_MAX: usize = 9;
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
                let ways = "write \"none\", { marks = [\"/dev/…\"] } or { etcd = [\"http://…\"] }";
                self.problem(at, format!("{word:?} is no kind of fencing; {ways}"));
                Fencing::None { is_said: true }
            }
            file::Fencing::Table(table) => self.marks(at, table),
        }
    }

    fn marks<T>(&mut self, at: &Spanned<T>, table: &FencingTable) -> Fencing {
        let watchdog = table.watchdog.as_ref().map(|watchdog| self.watchdog(at, watchdog));
        let timing = Timing {
            watchdog: watchdog.as_ref().map_or(Duration::ZERO, |watchdog| watchdog.timeout),
            ..self.timing(at, table)
        };
        if let Err(error) = timing.check() {
            self.problem(at, format!("fencing: {error}"));
        }
        let fence = table.fence.as_ref().map(|fence| self.fence(at, fence));
        let paths = table.marks.clone();
        if table.etcd.is_empty() {
            self.markers(at, table);
            return Fencing::Marks(Marks { paths, etcd: None, timing, watchdog, fence });
        }
        if !paths.is_empty() {
            let text = "fencing has marks and etcd; a cluster has one of the two, take one out";
            self.problem(at, text.into());
        }
        let etcd = Some(Box::new(self.etcd(at, table, timing.io)));
        Fencing::Marks(Marks { paths, etcd, timing, watchdog, fence })
    }

    fn markers<T>(&mut self, at: &Spanned<T>, table: &FencingTable) {
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
        if paths.iter().collect::<BTreeSet<_>>().len() < paths.len() {
            self.problem(at, "fencing.marks names one marker twice; each must differ".into());
        }
        self.all_absolute(at, paths.iter());
        let files = [&table.ca, &table.cert, &table.key, &table.password_file];
        if table.user.is_some() || files.into_iter().any(Option::is_some) {
            let text = "fencing.ca, cert, key, user and password_file are for etcd, and none is \
                        named; take them out";
            self.problem(at, text.into());
        }
    }

    fn all_absolute<'p, T>(&mut self, at: &Spanned<T>, paths: impl Iterator<Item = &'p PathBuf>) {
        for path in paths.filter(|path| !path.is_absolute()) {
            let shown = path.display();
            self.problem(at, format!("{shown} is not absolute; write the whole path"));
        }
    }

    fn etcd<T>(&mut self, at: &Spanned<T>, table: &FencingTable, limit: Duration) -> EtcdSource {
        let FencingTable { etcd: endpoints, ca, cert, key, .. } = table;
        if !HAS_ETCD {
            let text = "this program was built without etcd; build it with --features etcd, or \
                        name markers in fencing.marks";
            self.problem(at, text.into());
        }
        if endpoints.len() > ENDPOINTS_MAX {
            let count = endpoints.len();
            self.problem(at, format!("fencing.etcd names {count}; name {ENDPOINTS_MAX} at most"));
        }
        endpoints.iter().for_each(|endpoint| self.endpoint(at, endpoint));
        let secure = endpoints.iter().filter(|endpoint| endpoint.starts_with(HTTPS)).count();
        if secure > 0 && secure < endpoints.len() {
            let text = "fencing.etcd mixes http and https; write the same for all";
            self.problem(at, text.into());
        }
        if (secure > 0) != ca.is_some() {
            let text = "https wants fencing.ca, the certificate of the authority that etcd's are \
                        signed by, and http wants none";
            self.problem(at, text.into());
        }
        if cert.is_some() != key.is_some() || cert.is_some() && ca.is_none() {
            let text = "fencing.cert and fencing.key go together, and with fencing.ca";
            self.problem(at, text.into());
        }
        self.all_absolute(at, [ca, cert, key].into_iter().flatten());
        let (identity, login) = (cert.clone().zip(key.clone()), self.login(at, table));
        EtcdSource { endpoints: endpoints.clone(), ca: ca.clone(), identity, login, limit }
    }

    fn login<T>(&mut self, at: &Spanned<T>, table: &FencingTable) -> Option<(String, PathBuf)> {
        let FencingTable { user, password_file: file, .. } = table;
        if user.is_some() != file.is_some() {
            let text = "fencing.user and fencing.password_file go together: a name, and a file \
                        that holds its password";
            self.problem(at, text.into());
        }
        self.all_absolute(at, file.iter());
        user.clone().zip(file.clone())
    }

    fn endpoint<T>(&mut self, at: &Spanned<T>, endpoint: &str) {
        let rest = endpoint.strip_prefix(HTTP).or_else(|| endpoint.strip_prefix(HTTPS));
        let parts = rest.and_then(|rest| rest.rsplit_once(':'));
        let Some((host, _)) = parts.filter(|(host, port)| {
            let is_name = |c: char| c.is_ascii_alphanumeric() || "-.:[]".contains(c);
            !host.is_empty() && host.chars().all(is_name) && port.parse::<u16>().is_ok()
        }) else {
            let ways = "write http://HOST:PORT or https://HOST:PORT";
            return self.problem(at, format!("{endpoint:?} is no address of etcd; {ways}"));
        };
        let is_here = host == "localhost" || host == "[::1]" || host.starts_with("127.");
        if endpoint.starts_with(HTTP) && !is_here {
            let text = format!(
                "{endpoint} is spoken to without encryption: whoever reaches it, or hears the \
                 password on its way, can change who owns what"
            );
            self.warning(at, text);
        }
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

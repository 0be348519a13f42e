//! What the kernel tells of a watchdog, without opening it, which would start it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Where the kernel tells of its watchdogs.
pub const SYS: &str = "/sys/class/watchdog";
/// `/dev/watchdog`, which is the first of them by another name.
const OLD_NAME: (u32, u32) = (10, 130);
/// What the kernel's own calls itself.
const SOFTDOG: &str = "Software Watchdog";

/// A watchdog, as the kernel tells of it; what it does not tell is missing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Shown {
    /// The device, as it was named.
    pub device: PathBuf,
    /// What the kernel calls it.
    pub name: String,
    /// What its driver calls itself.
    pub identity: Option<String>,
    /// The time that it has now.
    pub timeout_s: Option<u64>,
    /// The longest that it can have.
    pub max_timeout_s: Option<u64>,
    /// Seconds until it resets this host, where it runs and the driver knows.
    pub left_s: Option<u64>,
    /// `active`: it runs. `inactive`: it does not.
    pub state: Option<String>,
    /// Once started, it cannot be stopped.
    pub nowayout: Option<bool>,
    /// It is a timer of the kernel, no device of its own.
    pub is_softdog: bool,
}

/// What is told of the watchdog at `path` under `sys`, most often [`SYS`].
///
/// # Errors
/// Where there is no such watchdog, or nothing is told of it.
pub fn look(path: &Path, sys: &Path) -> io::Result<Shown> {
    let (device, kind) = (fs::metadata(path)?.rdev(), io::ErrorKind::NotFound);
    let number = (rustix::fs::major(device), rustix::fs::minor(device));
    let name = name_of(number, sys)
        .ok_or_else(|| io::Error::new(kind, format!("no watchdog of {} is it", sys.display())))?;
    let dir = sys.join(&name);
    let text =
        |file: &str| fs::read_to_string(dir.join(file)).ok().map(|text| text.trim().to_owned());
    let seconds = |file| text(file).and_then(|text| text.parse().ok());
    let identity = text("identity");
    Ok(Shown {
        device: path.into(),
        is_softdog: identity.as_deref() == Some(SOFTDOG),
        timeout_s: seconds("timeout"),
        max_timeout_s: seconds("max_timeout").filter(|max| *max > 0),
        left_s: seconds("timeleft"),
        state: text("state"),
        nowayout: text("nowayout").map(|text| text == "1"),
        identity,
        name,
    })
}

fn name_of(number: (u32, u32), sys: &Path) -> Option<String> {
    if number == OLD_NAME {
        return sys.join("watchdog0").is_dir().then(|| "watchdog0".to_owned());
    }
    let wanted = format!("{}:{}", number.0, number.1);
    let entries = fs::read_dir(sys).ok()?.flatten();
    let mut found = entries.filter(|entry| {
        let told = fs::read_to_string(entry.path().join("dev"));
        told.is_ok_and(|told| told.trim() == wanted)
    });
    found.next().map(|entry| entry.file_name().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `/dev/null` stands for a watchdog with the number 1:3.
    fn sys(files: &[(&str, &str)]) -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        let dir = sys.path().join("watchdog4");
        fs::create_dir(&dir).unwrap();
        for (name, text) in [("dev", "1:3\n")].iter().chain(files) {
            fs::write(dir.join(name), text).unwrap();
        }
        sys
    }

    #[test]
    fn a_watchdog_is_found_by_its_number_and_shown_without_being_opened() {
        let sys = sys(&[
            ("identity", "Software Watchdog\n"),
            ("timeout", "60\n"),
            ("max_timeout", "65535\n"),
            ("state", "inactive\n"),
            ("nowayout", "0\n"),
        ]);
        let shown = look(Path::new("/dev/null"), sys.path()).unwrap();
        assert_eq!(
            (shown.name.as_str(), shown.timeout_s, shown.left_s),
            ("watchdog4", Some(60), None)
        );
        assert!(shown.is_softdog && shown.nowayout == Some(false));
        assert_eq!(shown.state.as_deref(), Some("inactive"));
    }

    #[test]
    fn what_the_driver_does_not_tell_is_missing_and_no_guess() {
        let sys = sys(&[("identity", "iTCO_wdt\n"), ("nowayout", "1\n")]);
        let shown = look(Path::new("/dev/null"), sys.path()).unwrap();
        assert!(!shown.is_softdog && shown.timeout_s.is_none() && shown.state.is_none());
        assert_eq!(shown.nowayout, Some(true));
    }

    #[test]
    fn what_is_no_watchdog_is_not_found() {
        let sys = sys(&[]);
        let error = look(Path::new("/dev/zero"), sys.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}

//! `hadrian watchdog`: what the kernel tells of the watchdog that the configuration names.

use std::path::Path;

use anyhow::bail;
use hadrian_fencing::watchdog::{SYS, Shown, WatchdogError, WatchdogSettings, look};

use super::args::Args;
use crate::config::Config;

/// Shows it; it is not opened, which would start it.
pub(super) fn watchdog(args: &Args) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    let settings = config.fencing.marks().and_then(|marks| marks.watchdog.as_ref());
    let Some(settings) = settings else {
        bail!(
            "the configuration has no watchdog; add watchdog = {{ device = \"/dev/watchdog\", \
             timeout = \"10s\" }} to fencing"
        );
    };
    let shown = look(&settings.device, Path::new(SYS))
        .map_err(|error| WatchdogError::opening(&settings.device, error))?;
    if args.json {
        let mut value = serde_json::to_value(&shown)?;
        value["configured_s"] = settings.timeout.as_secs().into();
        say!("{value}");
    } else {
        words(settings, &shown).iter().for_each(|line| say!("{line}"));
    }
    Ok(())
}

/// The watchdog in a line, and a line for each thing that its owner should know.
pub(super) fn words(settings: &WatchdogSettings, shown: &Shown) -> Vec<String> {
    let device = settings.device.display();
    let identity = shown.identity.as_deref().unwrap_or("a driver that does not say its name");
    let state = shown.state.as_deref().unwrap_or("state unknown");
    let time = |seconds: Option<u64>| seconds.map_or_else(|| "?".into(), |s| format!("{s} s"));
    let left = shown.left_s.map_or(String::new(), |left| format!(", {left} s left"));
    let mut lines = vec![format!(
        "watchdog {device}: {identity} ({}), {state}, time {} (configured {} s){left}",
        shown.name,
        time(shown.timeout_s),
        settings.timeout.as_secs(),
    )];
    if shown.is_softdog {
        lines.push(format!(
            "watchdog {device} is a timer of the kernel (softdog): it dies with the kernel, and \
             does not run while the host is suspended; a device of its own is better"
        ));
    }
    if shown.nowayout == Some(true) {
        lines.push(format!(
            "watchdog {device} cannot be stopped once it runs (nowayout): a host whose hadriand \
             is stopped in order is reset, too, unless it starts again in time"
        ));
    }
    if let Some(most) = shown.max_timeout_s.filter(|most| *most < settings.timeout.as_secs()) {
        lines.push(format!(
            "watchdog {device} takes {most} s at most; write that, or less, in \
             fencing.watchdog.timeout"
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings() -> WatchdogSettings {
        WatchdogSettings { device: "/dev/watchdog".into(), timeout: Duration::from_secs(10) }
    }

    fn shown() -> Shown {
        Shown {
            device: "/dev/watchdog".into(),
            name: "watchdog0".into(),
            identity: Some("iTCO_wdt".into()),
            timeout_s: Some(30),
            max_timeout_s: Some(613),
            left_s: Some(7),
            state: Some("active".into()),
            nowayout: Some(false),
            is_softdog: false,
        }
    }

    #[test]
    fn a_device_of_its_own_needs_one_line() {
        let lines = words(&settings(), &shown());
        assert_eq!(
            lines,
            ["watchdog /dev/watchdog: iTCO_wdt (watchdog0), active, time 30 s (configured 10 s), \
              7 s left"]
        );
    }

    #[test]
    fn what_a_watchdog_cannot_do_is_said() {
        let weak = Shown {
            is_softdog: true,
            nowayout: Some(true),
            max_timeout_s: Some(8),
            left_s: None,
            ..shown()
        };
        let lines = words(&settings(), &weak).join("\n");
        for word in ["dies with the kernel", "suspended", "nowayout", "8 s at most"] {
            assert!(lines.contains(word), "{word}: {lines}");
        }
    }
}

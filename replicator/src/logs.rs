//! Logs to standard error, as text or JSON.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Checks a filter: a level, or `TARGET=LEVEL` several times with commas between.
///
/// # Errors
/// With what to write instead.
pub fn check(filter: &str) -> Result<String, String> {
    let levels = "off, error, warn, info, debug or trace";
    for part in filter.split(',') {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        // Left to itself the filter would take a mistyped level for the name of a target.
        if level.is_empty() || level.parse::<LevelFilter>().is_err() {
            return Err(format!("{level:?} is no level; write {levels}, or TARGET=LEVEL"));
        }
    }
    EnvFilter::try_new(filter).map(|_| filter.into()).map_err(|error| error.to_string())
}

/// Begins to log. A filter that [`check`] refuses means `info`.
pub fn init(filter: &str, json: bool) {
    // The library tells of every step of its own; whoever names it gets that.
    let filter = EnvFilter::try_new(format!("libublk=warn,{filter}"))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A log on a disk that is full cannot be told of there: trying to would end the thread that
    // had something to say.
    let builder = builder.log_internal_errors(false);
    // A second call in one process changes nothing.
    let _ = if json { builder.json().try_init() } else { builder.with_ansi(false).try_init() };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_targets_with_levels_are_filters_and_typing_errors_are_not() {
        for good in ["info", "debug", "hadrian_replicator=debug", "warn,hadrian_blockdev=trace"] {
            assert_eq!(check(good).as_deref(), Ok(good));
        }
        for wrong in ["inof", "hadrian_replicator=loud", "info,", ""] {
            let told = check(wrong).unwrap_err();
            assert!(told.contains("error, warn, info"), "{wrong}: {told}");
        }
    }
}

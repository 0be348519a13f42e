//! Logs to standard error, as text or JSON.

use tracing_subscriber::EnvFilter;

/// Begins to log. A filter that cannot be read means `info`.
pub fn init(filter: &str, json: bool) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call in one process changes nothing.
    let _ = if json { builder.json().try_init() } else { builder.with_ansi(false).try_init() };
}

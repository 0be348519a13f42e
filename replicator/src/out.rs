//! Standard output, whose reader may go away before everything is said (`hadrian events | head`).
//! Then the rest is not said, and the command goes on and ends as it would have.

use std::fmt;
use std::io::{self, Write as _};
use std::sync::OnceLock;

/// Why nothing is written any more.
static FAILED: OnceLock<io::Error> = OnceLock::new();

/// As `println!`, which would panic where nobody reads any more.
macro_rules! say {
    ($($words:tt)*) => { $crate::out::line(format_args!($($words)*)) };
}

/// Writes a line.
pub(crate) fn line(words: fmt::Arguments<'_>) {
    bytes(format!("{words}\n").as_bytes());
}

/// Writes as it is.
pub(crate) fn bytes(bytes: &[u8]) {
    if is_over() {
        return;
    }
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(bytes).and_then(|()| out.flush()) {
        // One at a time writes, so it is the first.
        let _ = FAILED.set(error);
    }
}

/// Whether nothing is written any more: what goes on for ever may end.
pub(crate) fn is_over() -> bool {
    FAILED.get().is_some()
}

/// What went wrong, unless it is that nobody reads any more.
pub(crate) fn failure() -> Option<&'static io::Error> {
    FAILED.get().filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
}

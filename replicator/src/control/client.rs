//! The command line's end of the channel.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Envelope, RESPONSE_MAX, Request, Response, VERSION};

/// Longest wait for an answer that does not hang on other members for long.
pub const ANSWER: Duration = Duration::from_secs(180);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("no daemon listens on {}", .0.display())]
    NoDaemon(PathBuf),
    /// The socket is not for this user.
    #[error("{} is not for this user; try as root, or as hadriand's user", .0.display())]
    Permission(PathBuf),
    /// The daemon is there and says nothing.
    #[error(
        "hadriand has not answered for {} s; what was asked may still be carried out: see status \
         and its log", ANSWER.as_secs()
    )]
    Timeout,
    /// The daemon says something that cannot be read.
    #[error(
        "hadriand gave an answer that cannot be read ({0}); hadrian and hadriand are perhaps of \
         different releases: install the same on this host and start hadriand anew"
    )]
    Unreadable(String),
    /// The connection broke.
    #[error("the connection to hadriand broke: {0}; see its log")]
    Io(#[source] io::Error),
}

/// Asks the daemon behind `socket`, blocking, for [`ANSWER`] at most.
///
/// # Errors
/// [`AskError`]
pub fn ask(socket: &Path, request: Request) -> Result<Response, AskError> {
    ask_within(socket, request, Some(ANSWER))
}

/// The same for as long as the daemon runs, where `limit` is `None`: for what takes as long as an
/// operator lets it, such as a takeover that catches up first.
///
/// # Errors
/// [`AskError`]
pub fn ask_within(
    socket: &Path,
    request: Request,
    limit: Option<Duration>,
) -> Result<Response, AskError> {
    let mut stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            AskError::NoDaemon(socket.into())
        }
        io::ErrorKind::PermissionDenied => AskError::Permission(socket.into()),
        _ => AskError::Io(error),
    })?;
    stream.set_read_timeout(limit).map_err(AskError::Io)?;
    let mut bytes = serde_json::to_vec(&Envelope { version: VERSION, request })
        .map_err(|error| AskError::Io(error.into()))?;
    bytes.push(b'\n');
    stream.write_all(&bytes).map_err(AskError::Io)?;
    let mut line = Vec::new();
    let mut limited = BufReader::new(stream).take(RESPONSE_MAX);
    limited.read_until(b'\n', &mut line).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => AskError::Timeout,
        _ => AskError::Io(error),
    })?;
    if line.is_empty() {
        return Err(AskError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    serde_json::from_slice(&line).map_err(|error| AskError::Unreadable(error.to_string()))
}

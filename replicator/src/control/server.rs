//! The daemon's end of the channel.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

use super::{REQUEST_MAX, Request, Response, parse};

/// Clients at a time.
const CONNECTIONS_MAX: usize = 32;
/// A client that says nothing for so long gives its place to others.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Who carries out what is asked.
pub trait Handler {
    /// Answers one request.
    fn handle(&self, request: Request) -> impl Future<Output = Response>;
}

/// The open channel of a daemon, which no second daemon can open as long as it is kept.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    // Its lock goes with the process, however that ends.
    _lock: File,
}

/// Opens the socket at `path`, for its owner only. What a dead daemon left there is replaced.
///
/// # Errors
/// As the system says; [`io::ErrorKind::AddrInUse`] where a daemon listens already.
pub fn listen(path: &Path) -> io::Result<Listener> {
    let lock = path.with_extension("lock");
    let lock =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(lock)?;
    // Of two daemons that start together one gets the lock; only that one touches the socket.
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(io::ErrorKind::AddrInUse.into()),
        result => result?,
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let everybody_else = Mode::from_raw_mode(0o177);
    // Who binds makes the socket with what the mask leaves: there is no moment with other rights.
    let before = rustix::process::umask(everybody_else);
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    Ok(Listener { socket: bound?, _lock: lock })
}

/// Answers clients one line at a time, until the task is ended. Runs on a `LocalSet`.
pub async fn serve<H: Handler + 'static>(listener: Listener, handler: Arc<H>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = slots.clone().acquire_owned().await else { return };
        if let Ok((stream, _)) = listener.socket.accept().await {
            let handler = handler.clone();
            tokio::task::spawn_local(async move {
                if let Err(error) = converse(stream, handler.as_ref(), REQUEST_MAX).await {
                    tracing::debug!(%error, "a control connection ended");
                }
                drop(permit);
            });
        }
    }
}

/// Answers each line of `stream`, of at most `line_max` bytes, until the client leaves or says
/// nothing for half a minute. A longer line is refused and ends the conversation, because nobody
/// knows where the next one begins.
///
/// # Errors
/// As the stream says; [`io::ErrorKind::TimedOut`] for a silent client.
pub async fn converse<S, H>(stream: S, handler: &H, line_max: u64) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite,
    H: Handler,
{
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(line_max.saturating_add(1));
        let read = tokio::time::timeout(IDLE_MAX, limited.read_until(b'\n', &mut line));
        let len = read.await.map_err(|_| io::ErrorKind::TimedOut)?? as u64;
        if len == 0 {
            return Ok(());
        }
        let response = match parse(&line) {
            _ if len > line_max => {
                let text = format!("a request has at most {line_max} bytes in one line");
                Response::refused("request", text)
            }
            Ok(request) => handler.handle(request).await,
            Err(refusal) => refusal,
        };
        let mut bytes = serde_json::to_vec(&response)?;
        bytes.push(b'\n');
        // A client that takes no answers is as silent as one that sends no requests.
        let written = tokio::time::timeout(IDLE_MAX, writer.write_all(&bytes));
        written.await.map_err(|_| io::ErrorKind::TimedOut)??;
        if len > line_max {
            return Ok(());
        }
    }
}

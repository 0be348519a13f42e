//! The control channel: `hadrian` talks to `hadriand` over a unix socket, one JSON line each way.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hadrian_protocol::node::{Command, Denied, Done};
pub use hadrian_protocol::node::{NodeStatus, StandbyState};
use hadrian_protocol::replica::Mode;
use serde::{Deserialize, Serialize};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::UnixListener;

/// Version 1: the first.
pub const VERSION: u16 = 1;
/// Longest line, in bytes.
const LINE_MAX: u64 = 1 << 20;

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The state of every resource, or of one.
    Status {
        /// Which; none for all.
        resource: Option<String>,
    },
    /// Make this member the primary.
    Takeover {
        /// Of which resource.
        resource: String,
        /// Without the old primary's agreement.
        force: bool,
        /// Only say whether it would be granted.
        test: bool,
    },
    /// Change the mode; asked of the primary.
    Mode {
        /// Of which resource.
        resource: String,
        /// The new mode.
        mode: Mode,
    },
    /// Stop a resource in order.
    Stop {
        /// Which.
        resource: String,
    },
    /// Start a stopped resource, or open the start gate.
    Start {
        /// Which.
        resource: String,
        /// Open the gate without the members that cannot be heard.
        primary: bool,
    },
}

/// A request with the version that it is written in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// [`VERSION`]
    pub version: u16,
    /// What is asked.
    pub request: Request,
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Vec<ResourceStatus>),
    /// It is done.
    Done(Done),
    /// It is not, and what to do.
    Refused {
        /// A word for programs.
        code: String,
        /// A sentence for people.
        message: String,
    },
}

/// One resource on one member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResourceStatus {
    /// Its name.
    pub resource: String,
    /// The member that tells.
    pub member: String,
    /// Names of all members, by index.
    pub members: Vec<String>,
    /// NBD socket of this member.
    pub socket: PathBuf,
    /// Export names.
    pub exports: Vec<String>,
    /// What the node says; none while it is stopped.
    pub node: Option<NodeStatus>,
    /// Why it does not run, if so.
    pub stopped: Option<String>,
}

impl Response {
    /// A refusal.
    #[must_use]
    pub fn refused(code: &str, message: impl Into<String>) -> Self {
        Self::Refused { code: code.into(), message: message.into() }
    }

    /// The answer to a command.
    #[must_use]
    pub fn of(result: Result<Done, Denied>) -> Self {
        match result {
            Ok(done) => Self::Done(done),
            Err(denied) => {
                let code = serde_json::to_value(denied).ok();
                let code = code.and_then(|code| code.as_str().map(str::to_string));
                Self::Refused { code: code.unwrap_or_default(), message: denied.to_string() }
            }
        }
    }
}

impl Request {
    /// The command of the core that carries it out, where one does.
    #[must_use]
    pub fn command(&self) -> Option<Command> {
        match self {
            Self::Takeover { force, test, .. } => {
                Some(Command::Takeover { force: *force, test: *test })
            }
            Self::Mode { mode, .. } => Some(Command::SetMode(*mode)),
            Self::Stop { .. } => Some(Command::Stop),
            Self::Start { primary: true, .. } => Some(Command::StartPrimary),
            Self::Start { .. } | Self::Status { .. } => None,
        }
    }
}

/// Reads a request from a line.
///
/// # Errors
/// The refusal to send back.
pub fn parse(line: &[u8]) -> Result<Request, Response> {
    let envelope: Envelope = serde_json::from_slice(line)
        .map_err(|error| Response::refused("request", format!("not understood: {error}")))?;
    if envelope.version == VERSION {
        return Ok(envelope.request);
    }
    let found = envelope.version;
    let text = format!("control version {found} is not spoken here ({VERSION}); upgrade the older");
    Err(Response::refused("version", text))
}

/// Who carries out what is asked.
pub trait Handler {
    /// Answers one request.
    fn handle(&self, request: Request) -> impl Future<Output = Response>;
}

/// Opens the socket at `path`, for its owner only.
///
/// # Errors
/// As the system says; [`io::ErrorKind::AddrInUse`] where a daemon listens already.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Nobody can connect between bind and chmod: the socket is made under another name first.
    let hidden = path.with_extension("control-new");
    let _ = std::fs::remove_file(&hidden);
    let listener = UnixListener::bind(&hidden)?;
    std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&hidden, path)?;
    Ok(listener)
}

/// Answers clients one line at a time, until the task is ended. Runs on a `LocalSet`.
pub async fn serve<H: Handler + 'static>(listener: UnixListener, handler: Arc<H>) {
    let slots = Arc::new(tokio::sync::Semaphore::new(32));
    loop {
        let Ok(permit) = slots.clone().acquire_owned().await else { return };
        if let Ok((stream, _)) = listener.accept().await {
            let handler = handler.clone();
            tokio::task::spawn_local(async move {
                if let Err(error) = converse(stream, handler.as_ref(), LINE_MAX).await {
                    tracing::debug!(%error, "a control connection ended");
                }
                drop(permit);
            });
        }
    }
}

/// Answers each line of `stream`, of at most `line_max` bytes, until the client leaves. A longer
/// line is refused and ends the conversation, because nobody knows where the next one begins.
///
/// # Errors
/// As the stream says.
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
        let len = limited.read_until(b'\n', &mut line).await? as u64;
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
        writer.write_all(&bytes).await?;
        if len > line_max {
            return Ok(());
        }
    }
}

/// Asks the daemon behind `socket`, blocking.
///
/// # Errors
/// As the system says; `NotFound` and `ConnectionRefused` mean that no daemon runs.
pub fn ask(socket: &Path, request: Request) -> io::Result<Response> {
    use std::io::{BufRead as _, Write as _};
    let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
    let mut bytes = serde_json::to_vec(&Envelope { version: VERSION, request })?;
    bytes.push(b'\n');
    stream.write_all(&bytes)?;
    let mut line = String::new();
    std::io::BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back_and_another_version_is_refused() {
        let request = Request::Takeover { resource: "db".into(), force: true, test: false };
        let mut envelope = Envelope { version: VERSION, request: request.clone() };
        assert_eq!(parse(&serde_json::to_vec(&envelope).unwrap()), Ok(request));
        envelope.version = 9;
        let refused = parse(&serde_json::to_vec(&envelope).unwrap()).unwrap_err();
        assert!(matches!(refused, Response::Refused { code, .. } if code == "version"));
    }

    #[test]
    fn hostile_lines_are_refused_with_a_reason() {
        for line in [&b""[..], b"{}", b"null", b"{\"version\":1,\"request\":{\"boom\":{}}}", &[255]]
        {
            assert!(matches!(parse(line), Err(Response::Refused { .. })));
        }
    }

    struct Refuses;

    impl Handler for Refuses {
        async fn handle(&self, _: Request) -> Response {
            Response::refused("not_now", "")
        }
    }

    #[tokio::test]
    async fn a_line_over_the_limit_is_refused_once_and_ends_the_conversation() {
        let (mut client, server) = tokio::io::duplex(4096);
        let (mut input, mut output) = (vec![b'x'; 200], String::new());
        input.extend(b"\n{}\n");
        client.write_all(&input).await.unwrap();
        converse(server, &Refuses, 64).await.unwrap();
        client.read_to_string(&mut output).await.unwrap();
        assert_eq!(output.lines().count(), 1, "{output}");
        assert!(output.contains("at most 64 bytes"), "{output}");
    }

    #[tokio::test]
    async fn the_socket_is_for_its_owner_only_and_a_live_one_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alpha.control");
        let _listener = listen(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn a_dead_daemons_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alpha.control");
        drop(listen(&path).unwrap());
        assert!(path.exists());
        listen(&path).unwrap();
    }
}

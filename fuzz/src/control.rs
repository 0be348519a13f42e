//! What arrives on the control socket.
//!
//! Input: the lines. Lines are bounded far below the daemon's limit here, so that the bound is
//! reached.

use std::cell::Cell;
use std::path::PathBuf;

use hadrian_replicator::control::{
    Envelope, Handler, Request, ResourceStatus, Response, VERSION, converse, parse,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::memory::within;

const LINE_MAX: u64 = 512;
/// What a conversation may hold: a line, its parsed form, an answer, and both ends' buffers.
const HELD_MAX: usize = 64 << 10;
/// Bytes of answers that one byte of input can call forth, which the harness collects: an empty
/// line is refused with a sentence, and growing a `Vec` holds both copies.
const REPLY_PER_BYTE: usize = 512;

/// Sends `input` to a daemon that knows one resource.
///
/// # Panics
/// If a property breaks.
pub fn run(input: &[u8]) {
    let held_max = HELD_MAX + input.len() * REPLY_PER_BYTE;
    let (replies, handled) = within(held_max, || crate::block_on(exchange(input)));
    let lines: Vec<_> = replies.split_inclusive(|byte| *byte == b'\n').collect();
    for line in &lines {
        assert_eq!(line.last(), Some(&b'\n'), "an answer is a whole line");
        let answer = serde_json::from_slice::<Response>(line);
        assert!(answer.is_ok(), "{answer:?}");
    }
    let asked: Vec<_> = input.split_inclusive(|byte| *byte == b'\n').collect();
    let is_long = |line: &&[u8]| line.len() as u64 > LINE_MAX;
    let answered = asked.iter().position(is_long).map_or(asked.len(), |long| long + 1);
    assert_eq!(lines.len(), answered, "one answer to each line, and none behind one too long");
    let understood = asked.iter().take_while(|line| !is_long(line));
    assert_eq!(understood.filter(|line| check_line(line)).count(), handled);
}

/// Whether the line is a request; one that is says the same when it is written again.
fn check_line(line: &[u8]) -> bool {
    let Ok(request) = parse(line) else { return false };
    let _ = request.command();
    let again = Envelope { version: VERSION, request: request.clone() };
    let again = serde_json::to_vec(&again).expect("a request can be written");
    assert_eq!(parse(&again), Ok(request));
    true
}

async fn exchange(input: &[u8]) -> (Vec<u8>, usize) {
    let (mut client, server) = tokio::io::duplex(4096);
    let daemon = Daemon::default();
    let (mut receive, mut send) = tokio::io::split(&mut client);
    let mut replies = Vec::new();
    let serve = async {
        // A close in the middle is one of the two answers that a line may get.
        let _ = converse(server, &daemon, LINE_MAX).await;
    };
    let talk = async {
        // The daemon may have closed already.
        let _ = send.write_all(input).await;
        let _ = send.shutdown().await;
    };
    let listen = receive.read_to_end(&mut replies);
    let _ = tokio::join!(serve, talk, listen);
    (replies, daemon.handled.get())
}

#[derive(Default)]
struct Daemon {
    handled: Cell<usize>,
}

impl Handler for Daemon {
    async fn handle(&self, request: Request) -> Response {
        self.handled.set(self.handled.get() + 1);
        let known = |name: &str| name == "db";
        match request {
            Request::Status { resource } if resource.as_deref().is_none_or(known) => {
                Response::Status(vec![status()])
            }
            Request::Status { resource: Some(name) } => Response::refused("unknown", name),
            other => {
                tokio::task::yield_now().await;
                Response::refused("not_now", format!("{other:?}"))
            }
        }
    }
}

fn status() -> ResourceStatus {
    ResourceStatus {
        resource: "db".into(),
        member: "alpha".into(),
        members: vec!["alpha".into(), "beta".into()],
        socket: PathBuf::from("/run/hadrian/db.nbd"),
        segment_bytes: Some(1 << 20),
        opening_bytes: Some(7),
        withdrawn: true,
        right_us: Some(9_000_000),
        divergence: None,
        exports: vec!["db/data".into()],
        volumes: vec![1 << 30],
        copies: Vec::new(),
        companions: None,
        seed: None,
        history: None,
        quarantine: None,
        views: Vec::new(),
        node: None,
        stopped: Some("stopped in order".into()),
        fencing: None,
    }
}

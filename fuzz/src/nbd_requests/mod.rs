//! What an NBD client says after it has chosen an export.
//!
//! Input: a script. First the dialect, the export and its backend, then requests, each a few
//! bytes. The client sends them while it reads; every reply is taken apart and held against what
//! was asked. With raw bytes at the end the stream loses its step.

mod backend;
mod replies;
mod script;

use std::rc::Rc;
use std::time::Duration;

use arbitrary::Unstructured;
use hadrian_blockdev::export::CloseHandle;
use hadrian_blockdev::nbd::proto::{GREETING_LEN, MAGIC_OPTION, option};
use hadrian_blockdev::nbd::{Export, Exports, Headers, Limits, serve_connection};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::memory::within;
use backend::{Backend, CONTENT_LEN};
use replies::Expected;
use script::Script;

/// What a connection may hold beside the payloads in flight: its receive buffer, the client's
/// end, heads of replies, and the harness.
const HELD_MAX: usize = 1 << 20;

/// Serves the client of the script in `input`.
///
/// # Panics
/// If a property breaks.
pub fn run(input: &[u8]) {
    let mut bytes = Unstructured::new(input);
    let Ok(script) = Script::read(&mut bytes) else { return };
    // One request is always taken, however large.
    let payloads = script.limits.in_flight_bytes as usize + CONTENT_LEN;
    let sent = 2 * script.stream.capacity();
    within(HELD_MAX + payloads + sent, || crate::block_on(serve(&script)));
}

async fn serve(script: &Script) {
    let backend = Rc::new(Backend::new(script));
    let mut exports = Exports::new();
    exports.insert("db", Export::new(backend.clone()));
    let (client, server) = tokio::io::duplex(script.socket_len);
    let (mut receive, mut send) = tokio::io::split(client);
    let limits = Limits { negotiation: Duration::from_secs(3600), ..script.limits };
    let switch = CloseHandle::new();
    let served = async {
        let served = serve_connection(server, &exports, &switch, limits, None).await;
        backend.stop();
        served
    };
    let talk = async {
        // The server may have closed already, as it should where the stream lost its step.
        let _ = greet(&mut send, script).await;
        let _ = send.write_all(&script.stream).await;
        if script.hangs_up() {
            let _ = send.shutdown().await;
        } else {
            let _ = send.write_all(&script.goodbye()).await;
        }
    };
    let listen = async {
        let mut expected = Expected::new(script);
        skip_negotiation(&mut receive, script).await;
        expected.read_all(&mut receive).await;
        expected
    };
    let (served, (), expected, ()) = tokio::join!(served, talk, listen, backend.complete());
    assert_eq!(served.is_err(), script.ends_in_error, "{served:?}");
    // What was not accepted yet when the client hung up needs no answer.
    if !script.ends_in_error && !script.hangs_up() {
        expected.assert_all_answered();
    }
}

/// Agrees on the dialect and chooses the export, as a client does that does not wait.
async fn greet<S: AsyncWrite + Unpin>(send: &mut S, script: &Script) -> std::io::Result<()> {
    let mut bytes = vec![0, 0, 0, 3];
    let mut ask = |option: u32, data: &[u8]| {
        bytes.extend(MAGIC_OPTION.to_be_bytes());
        bytes.extend(option.to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
    };
    match script.headers {
        Headers::Simple => {}
        Headers::Structured => ask(option::STRUCTURED_REPLY, &[]),
        Headers::Extended => ask(option::EXTENDED_HEADERS, &[]),
    }
    if script.allocation {
        ask(option::SET_META_CONTEXT, b"\0\0\0\x02db\0\0\0\x01\0\0\0\x0fbase:allocation");
    }
    ask(option::EXPORT_NAME, b"db");
    send.write_all(&bytes).await
}

/// Reads past the greeting, the answers to the options, and size and flags of the export.
async fn skip_negotiation<S: AsyncRead + Unpin>(receive: &mut S, script: &Script) {
    let dialect = if script.headers == Headers::Simple { 0 } else { 20 };
    // One context and the acknowledgement.
    let context = if script.allocation { 20 + 4 + 15 + 20 } else { 0 };
    let mut answers = vec![0; GREETING_LEN + dialect + context + 10];
    receive.read_exact(&mut answers).await.expect("the negotiation is in order");
    assert_eq!(
        answers.last_chunk::<10>().map(|export| &export[..8]),
        Some(&script.size_bytes.to_be_bytes()[..])
    );
}

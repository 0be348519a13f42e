//! The channel from both ends, and hostile hands on it.

use std::io;
use std::os::unix::fs::PermissionsExt as _;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

#[test]
fn a_request_reads_back_and_another_version_is_refused() {
    let request =
        Request::Takeover { resource: "db".into(), how: How::Force, test: false, to: None };
    let mut envelope = Envelope { version: VERSION, request: request.clone() };
    assert_eq!(parse(&serde_json::to_vec(&envelope).unwrap()), Ok(request));
    envelope.version = 9;
    let refused = parse(&serde_json::to_vec(&envelope).unwrap()).unwrap_err();
    assert!(matches!(refused, Response::Refused { code, .. } if code == "version"));
}

#[test]
fn hostile_lines_are_refused_with_a_reason() {
    for line in [&b""[..], b"{}", b"null", b"{\"version\":1,\"request\":{\"boom\":{}}}", &[255]] {
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

#[tokio::test(start_paused = true)]
async fn a_silent_client_gives_its_place_to_others() {
    let (_client, server) = tokio::io::duplex(64);
    let ended = converse(server, &Refuses, 64).await;
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[test]
fn the_ways_in_which_nobody_answers_are_told_apart() {
    use std::io::{BufRead as _, Write as _};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alpha.control");
    let status = || Request::Status { resource: None };
    assert!(matches!(ask(&path, status()), Err(AskError::NoDaemon(_))));
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    for (answer, closes) in [("gibberish\n", false), ("", true)] {
        let answering = listener.try_clone().unwrap();
        let daemon = std::thread::spawn(move || {
            let (mut stream, _) = answering.accept().unwrap();
            // The whole question first: closing on an unread one would break the connection.
            let mut asked = String::new();
            std::io::BufReader::new(&stream).read_line(&mut asked).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let error = ask(&path, status()).unwrap_err();
        daemon.join().unwrap();
        assert_eq!(matches!(error, AskError::Io(_)), closes, "{error}");
        assert_eq!(matches!(error, AskError::Unreadable(_)), !closes, "{error}");
    }
    drop(listener);
    assert!(matches!(ask(&path, status()), Err(AskError::NoDaemon(_))));
}

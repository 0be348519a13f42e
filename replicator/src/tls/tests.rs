//! Two members over loopback, and strangers.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;
use tokio::net::TcpListener;

fn member(index: u8) -> MemberId {
    MemberId::new(index).unwrap()
}

fn keys(dir: &Path, name: &str, pins: &[(u8, Fingerprint)]) -> LinkKeys {
    let (key, certificate) = pair_paths(dir, name);
    let pinned = pins.iter().map(|(index, print)| (member(*index), *print)).collect();
    LinkKeys::load(&key, &certificate, pinned).unwrap()
}

async fn meet(
    caller: &LinkKeys,
    called: &LinkKeys,
) -> (Result<LinkStream, TlsError>, Result<LinkStream, TlsError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let resource = ResourceId::derive("orders", "db");
    let call = async {
        let stream = TcpStream::connect(address).await?;
        introduce_caller(stream, resource, member(0), member(1), caller).await
    };
    let take = async {
        let (mut stream, _) = listener.accept().await?;
        let mut first = [0; PREAMBLE_LEN];
        stream.read_exact(&mut first).await?;
        introduce_called(stream, resource, member(1), member(0), called).await
    };
    tokio::join!(call, take)
}

#[tokio::test]
async fn members_with_pinned_keys_find_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let alpha = generate(dir.path(), "alpha").unwrap();
    let beta = generate(dir.path(), "beta").unwrap();
    let (caller, called) =
        (keys(dir.path(), "alpha", &[(1, beta)]), keys(dir.path(), "beta", &[(0, alpha)]));
    let (a, b) = meet(&caller, &called).await;
    assert!(matches!((a.unwrap(), b.unwrap()), (LinkStream::Tls(_), LinkStream::Tls(_))));
}

#[tokio::test]
async fn a_key_that_is_not_pinned_is_turned_away() {
    let dir = tempfile::tempdir().unwrap();
    let alpha = generate(dir.path(), "alpha").unwrap();
    let beta = generate(dir.path(), "beta").unwrap();
    let thief = generate(dir.path(), "thief").unwrap();
    let caller = keys(dir.path(), "thief", &[(1, beta)]);
    let called = keys(dir.path(), "beta", &[(0, alpha)]);
    let (turned_away, refused) = meet(&caller, &called).await;
    let told = turned_away.unwrap_err();
    assert!(matches!(told, TlsError::TurnedAway { own } if own == thief), "{told}");
    let text = refused.unwrap_err().to_string();
    assert!(text.contains(&thief.to_string()) && text.contains(&alpha.to_string()), "{text}");
}

#[test]
fn a_fingerprint_reads_back_as_it_is_printed_and_keys_are_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let print = generate(dir.path(), "alpha").unwrap();
    assert_eq!(Fingerprint::parse(&print.to_string()).unwrap(), print);
    assert!(Fingerprint::parse("sha256:00").is_err());
    assert!(matches!(generate(dir.path(), "alpha"), Err(TlsError::Exists(_))));
    let mode = fs::metadata(dir.path().join("alpha.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn openssl_shows_the_same_fingerprint() {
    let dir = tempfile::tempdir().unwrap();
    let print = generate(dir.path(), "alpha").unwrap();
    let (_, certificate) = pair_paths(dir.path(), "alpha");
    let output = std::process::Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(certificate)
        .output()
        .expect("openssl; `make tools` installs it");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, shown) = text.trim().split_once('=').unwrap();
    assert_eq!(Fingerprint::parse(shown).unwrap(), print, "{text}");
}

#[test]
fn where_only_a_certificate_is_left_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (key, certificate) = pair_paths(dir.path(), "alpha");
    fs::write(&certificate, "").unwrap();
    assert!(matches!(generate(dir.path(), "alpha"), Err(TlsError::Exists(_))));
    assert!(!key.exists());
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    generate(dir.path(), "alpha").unwrap();
    let (key, certificate) = pair_paths(dir.path(), "alpha");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let told = LinkKeys::load(&key, &certificate, [].into()).unwrap_err().to_string();
    assert!(told.contains("mode 640") && told.contains("chmod 600"), "{told}");
}

//! Blocks in etcd: no write lands after a later one, whatever becomes of answers and connections,
//! and what is not ours is left alone.
#![allow(clippy::print_stdout)] // What is not tried is said, and what is measured.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use hadrian_fencing::making::{MakeError, Wanted, header_of, make};
use hadrian_fencing::medium::{Concern, EtcdSource, Medium, Source};
use hadrian_protocol::ids::{ClusterId, Incarnation, MemberId, ResourceId};
use hadrian_protocol::marks::block::{Block, Head, Kind};
use hadrian_protocol::marks::header::Label;
use hadrian_protocol::marks::layout::{BLOCK_LEN, BlockIndex, Run};
use hadrian_protocol::time::WallTime;
use hadrian_tests::etcd::{Etcd, missing};
use hadrian_tests::proxy::{Proxy, Way};
use hadrian_tests::tools::programs;

const AT: BlockIndex = BlockIndex::new(18);
const RUN: Run = Run { first: AT, count: 1 };
/// Long enough for a busy machine; what hangs takes as long.
const LIMIT: Duration = Duration::from_secs(2);
/// Longest that a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many are measured.
const ORDERS: u64 = 2000;

fn etcd() -> Option<Etcd> {
    if let Some(reason) = missing() {
        println!("etcd is not tried: {reason}");
        return None;
    }
    Some(Etcd::new().unwrap())
}

fn place(endpoints: Vec<String>) -> EtcdSource {
    EtcdSource { endpoints, ca: None, identity: None, login: None, limit: LIMIT }
}

fn source(endpoint: String) -> Source {
    Source::Etcd(place(vec![endpoint]))
}

fn open(endpoint: String) -> Box<dyn Medium> {
    source(endpoint).open("orders").unwrap()
}

/// An etcd, a way to it that can be held, and what writes over that way.
fn over_a_way() -> Option<(Etcd, Proxy, Box<dyn Medium>)> {
    let etcd = etcd()?;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::new(listener, etcd.address()).unwrap();
    let mut medium = open(format!("http://{}", proxy.address().unwrap()));
    // So that it is connected.
    medium.read(RUN).unwrap();
    Some((etcd, proxy, medium))
}

/// The block of this number of one life of a member.
fn block(life: u64, number: u64) -> Block {
    let head = Head {
        kind: Kind::Lease,
        cluster: ClusterId::derive("orders"),
        member: MemberId::new(1),
        sequence: number,
        incarnation: Incarnation::new(life),
        nonce: life,
    };
    Block::seal(&head, AT, b"body")
}

fn assert_holds(etcd: &Etcd, block: &Block) {
    let found = open(etcd.endpoint()).read(RUN).unwrap();
    assert!(found == block.as_bytes(), "another block stands there");
}

#[test]
fn a_block_reads_back_whole_and_what_was_never_written_is_zeroes() {
    let Some(etcd) = etcd() else { return };
    let mut medium = open(etcd.endpoint());
    assert_eq!(medium.read(RUN).unwrap(), vec![0; BLOCK_LEN]);
    let wide = Run { first: BlockIndex::new(16), count: 4 };
    let found = medium.order(Some(&(AT, block(1, 1))), wide).unwrap();
    assert_eq!(found.len(), wide.len());
    assert_eq!(&found[2 * BLOCK_LEN..3 * BLOCK_LEN], block(1, 1).as_bytes());
    assert!(found[..2 * BLOCK_LEN].iter().all(|byte| *byte == 0));
    assert_holds(&etcd, &block(1, 1));
}

#[test]
fn a_write_that_was_given_up_cannot_land_after_a_later_one() {
    let Some((etcd, proxy, mut medium)) = over_a_way() else { return };
    proxy.set(Way::Held);
    medium.write(AT, &block(1, 1)).unwrap_err();
    let late = proxy.take().unwrap();
    proxy.set(Way::Open);
    medium.write(AT, &block(1, 2)).unwrap();
    late.arrive().unwrap();
    assert_holds(&etcd, &block(1, 2));
    medium.write(AT, &block(1, 3)).unwrap();
    assert_holds(&etcd, &block(1, 3));
}

#[test]
fn a_write_that_was_given_up_and_lands_is_written_over() {
    let Some((etcd, proxy, mut medium)) = over_a_way() else { return };
    proxy.set(Way::Held);
    medium.write(AT, &block(1, 1)).unwrap_err();
    let late = proxy.take().unwrap();
    late.arrive().unwrap();
    assert_holds(&etcd, &block(1, 1));
    proxy.set(Way::Open);
    medium.write(AT, &block(1, 2)).unwrap();
    assert_holds(&etcd, &block(1, 2));
}

#[test]
fn a_write_whose_answer_was_lost_is_known_for_what_it_is() {
    let Some((etcd, proxy, mut medium)) = over_a_way() else { return };
    proxy.set(Way::Deaf);
    medium.write(AT, &block(1, 1)).unwrap_err();
    proxy.await_loss().unwrap();
    assert_holds(&etcd, &block(1, 1));
    proxy.set(Way::Open);
    // The same once more, and another one.
    medium.write(AT, &block(1, 1)).unwrap();
    medium.write(AT, &block(1, 2)).unwrap();
    assert_holds(&etcd, &block(1, 2));
}

#[test]
fn what_a_former_life_has_sent_ends_with_the_first_write_of_the_next() {
    let Some((etcd, proxy, mut medium)) = over_a_way() else { return };
    proxy.set(Way::Held);
    medium.write(AT, &block(1, 1)).unwrap_err();
    let late = proxy.take().unwrap();
    drop(medium);
    let mut reborn = open(etcd.endpoint());
    reborn.write(AT, &block(2, 1)).unwrap();
    late.arrive().unwrap();
    assert_holds(&etcd, &block(2, 1));
}

#[test]
fn what_a_former_life_has_sent_and_lands_before_that_fails_it_once() {
    let Some((etcd, proxy, mut medium)) = over_a_way() else { return };
    proxy.set(Way::Held);
    medium.write(AT, &block(1, 1)).unwrap_err();
    let late = proxy.take().unwrap();
    let mut reborn = open(etcd.endpoint());
    reborn.read(RUN).unwrap();
    late.arrive().unwrap();
    let error = reborn.write(AT, &block(2, 1)).unwrap_err().to_string();
    assert!(error.contains("another writer"), "{error}");
    assert_holds(&etcd, &block(1, 1));
    reborn.write(AT, &block(2, 1)).unwrap();
    assert_holds(&etcd, &block(2, 1));
}

#[test]
fn a_life_that_was_followed_writes_nothing_any_more() {
    let Some(etcd) = etcd() else { return };
    let (mut first, mut second) = (open(etcd.endpoint()), open(etcd.endpoint()));
    first.write(AT, &block(1, 1)).unwrap();
    second.write(AT, &block(2, 1)).unwrap();
    for number in [2, 3] {
        let error = first.write(AT, &block(1, number)).unwrap_err().to_string();
        assert!(error.contains("another one runs in this member's name"), "{error}");
    }
    assert_holds(&etcd, &block(2, 1));
    second.write(AT, &block(2, 2)).unwrap();
}

#[test]
fn an_etcd_that_was_emptied_is_not_written_to_by_those_who_knew_it() {
    let Some(etcd) = etcd() else { return };
    let mut medium = open(etcd.endpoint());
    medium.write(AT, &block(1, 1)).unwrap();
    etcd.ctl(&["del", "--prefix", "hadrian/"], b"").unwrap();
    let error = medium.write(AT, &block(1, 2)).unwrap_err().to_string();
    assert!(error.contains("lost what it had confirmed"), "{error}");
    assert_eq!(open(etcd.endpoint()).read(RUN).unwrap(), vec![0; BLOCK_LEN]);
}

#[test]
fn what_was_written_outlives_etcd_and_its_history() {
    let Some(mut etcd) = etcd() else { return };
    let mut medium = open(etcd.endpoint());
    medium.write(AT, &block(1, 1)).unwrap();
    etcd.kill().unwrap();
    let error = medium.write(AT, &block(1, 2)).unwrap_err().to_string();
    assert!(error.contains(&etcd.endpoint()), "{error}");
    etcd.start().unwrap();
    assert_holds(&etcd, &block(1, 1));
    medium.write(AT, &block(1, 2)).unwrap();
    let status = etcd.ctl(&["get", "none", "--write-out", "json"], b"").unwrap();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let revision = status["header"]["revision"].as_u64().unwrap().to_string();
    etcd.ctl(&["compact", &revision], b"").unwrap();
    assert_holds(&etcd, &block(1, 2));
    medium.write(AT, &block(1, 3)).unwrap();
    assert_holds(&etcd, &block(1, 3));
}

#[test]
fn another_member_of_etcd_is_asked_where_one_is_gone() {
    let Some(etcd) = etcd() else { return };
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoints = vec![format!("http://{}", gone.local_addr().unwrap()), etcd.endpoint()];
    let place = place(endpoints);
    // One that takes connections and never answers, and one that does not even do that.
    for gone in [Some(gone), None] {
        let mut medium = Source::Etcd(place.clone()).open("orders").unwrap();
        medium.write(AT, &block(3, u64::from(gone.is_none()))).unwrap();
    }
}

#[test]
fn what_was_written_is_there_whichever_member_of_etcd_is_lost() {
    if let Some(reason) = missing() {
        return println!("etcd is not tried: {reason}");
    }
    let mut members = Etcd::three().unwrap();
    let endpoints: Vec<_> = members.iter().map(Etcd::endpoint).collect();
    let place = place(endpoints);
    let mut medium = Source::Etcd(place).open("orders").unwrap();
    let mut number = 0;
    for lost in 0..3 {
        members[lost].kill().unwrap();
        number += 1;
        // Until the others have a leader it fails, and what becomes of such a write is not known.
        let began = Instant::now();
        while let Err(error) = medium.write(AT, &block(1, number)) {
            assert!(began.elapsed() < PATIENCE, "{error}");
            number += 1;
        }
        assert_holds(&members[(lost + 1) % 3], &block(1, number));
        members[lost].start().unwrap();
        assert_holds(&members[lost], &block(1, number));
    }
}

fn wanted(etcd: &Etcd, cluster: &str) -> Wanted {
    let resource = ResourceId::derive(cluster, "db");
    Wanted {
        cluster: cluster.into(),
        members: 2,
        places: 64,
        labels: vec![Label { resource, name: "db".into() }],
        set: [7; 16],
        made: WallTime::default(),
        markers: vec![source(etcd.endpoint())],
    }
}

#[test]
fn two_clusters_have_their_marks_side_by_side() {
    let Some(etcd) = etcd() else { return };
    for cluster in ["orders", "stock"] {
        assert!(make(&wanted(&etcd, cluster)).unwrap()[0].is_new);
    }
    for cluster in ["orders", "stock"] {
        let made = make(&wanted(&etcd, cluster)).unwrap();
        assert!(!made[0].is_new && made[0].added.is_empty());
        let (_, header) = header_of(&source(etcd.endpoint()), cluster).unwrap();
        assert_eq!(header.cluster_name, cluster);
    }
}

#[test]
fn what_somebody_else_has_put_there_is_never_touched() {
    for key in ["hadrian/orders/block/0000000003", "hadrian/orders/block/0000000003x"] {
        let Some(etcd) = etcd() else { return };
        etcd.ctl(&["put", key, "somebody's"], b"").unwrap();
        let error = make(&wanted(&etcd, "orders")).unwrap_err();
        let text = error.to_string();
        if let MakeError::NotBlank { .. } = error {
            assert!(text.contains("etcdctl del --prefix hadrian/orders/"), "{text}");
        } else {
            assert!(text.contains("0000000003x holds no block"), "{text}");
        }
        let all = etcd.ctl(&["get", "--prefix", "hadrian/"], b"").unwrap();
        assert_eq!(all, format!("{key}\nsomebody's\n"));
    }
}

/// What so many orders take, the median and the slowest of a hundred.
fn timed(medium: &mut dyn Medium, mut order: impl FnMut(&mut dyn Medium, u64)) -> String {
    let mut took: Vec<_> = (1..=ORDERS)
        .map(|number| {
            let began = Instant::now();
            order(medium, number);
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    format!(
        "{:?}, of a hundred the slowest {:?}",
        took[took.len() / 2],
        took[took.len() * 99 / 100]
    )
}

fn stored_bytes(etcd: &Etcd) -> u64 {
    let status = etcd.ctl(&["endpoint", "status", "--write-out", "json"], b"").unwrap();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    status[0]["Status"]["dbSize"].as_u64().unwrap()
}

#[test]
#[ignore = "measures, and wants a machine with nothing else to do"]
fn what_an_order_takes_in_etcd_and_on_a_file() {
    let Some(etcd) = etcd() else { return };
    let file = tempfile::NamedTempFile::new_in(programs()).unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let mut file = Source::File(file.path().to_owned()).open("orders").unwrap();
    let mut medium = open(etcd.endpoint());
    let before = stored_bytes(&etcd);
    let order = |medium: &mut dyn Medium, number| {
        medium.order(Some(&(AT, block(1, number))), Run::leases()).map(drop).unwrap();
    };
    println!("a write and a read, etcd: {}", timed(medium.as_mut(), order));
    let grown = (stored_bytes(&etcd) - before) / ORDERS;
    println!("etcd has grown by {grown} bytes for each");
    println!("the same, file: {}", timed(file.as_mut(), order));
    let apart = |medium: &mut dyn Medium, number| {
        medium.write(AT, &block(1, number)).unwrap();
        medium.read(Run::leases()).map(drop).unwrap();
    };
    println!("one after the other, etcd: {}", timed(medium.as_mut(), apart));
    let read = |medium: &mut dyn Medium, _| medium.read(Run::leases()).map(drop).unwrap();
    println!("a read, etcd: {}", timed(medium.as_mut(), read));
}

fn openssl(dir: &Path, args: &[&str]) {
    let made = Command::new("openssl").current_dir(dir).args(args).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[test]
fn with_certificates_etcd_is_reached_over_https_and_not_without() {
    if missing().is_some() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let name = ["-subj", "/CN=authority", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem"];
    openssl(dir.path(), &[&new[..], &name].concat());
    let name = ["-subj", "/CN=etcd", "-days", "2", "-keyout", "own.key", "-out", "own.pem"];
    let signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1"];
    let leaf = ["-addext", "basicConstraints=critical,CA:FALSE"];
    openssl(dir.path(), &[&new[..], &name, &signed, &leaf].concat());
    let [ca, certificate, key] = ["ca.pem", "own.pem", "own.key"].map(|name| dir.path().join(name));
    let etcd = Etcd::with_tls([&ca, &certificate, &key]).unwrap();
    let open = |identity| {
        let endpoints = vec![etcd.endpoint()];
        let place = EtcdSource { ca: Some(ca.clone()), identity, ..place(endpoints) };
        Source::Etcd(place).open("orders").unwrap()
    };
    open(None).read(RUN).unwrap_err();
    let mut medium = open(Some((certificate.clone(), key.clone())));
    medium.write(AT, &block(1, 1)).unwrap();
    assert_eq!(medium.read(RUN).unwrap(), block(1, 1).as_bytes());
}

#[test]
fn an_etcd_with_passwords_lets_in_who_knows_one_and_again_after_it_was_started_anew() {
    if missing().is_some() {
        return;
    }
    let mut etcd = Etcd::with_user(("hadrian", "of the marks"), "orders").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let open = |cluster: &str, password: Option<&str>| {
        let login = password.map(|password| {
            let path = dir.path().join(password);
            std::fs::write(&path, format!("{password}\n")).unwrap();
            ("hadrian".to_owned(), path)
        });
        let endpoints = vec![etcd.endpoint()];
        Source::Etcd(EtcdSource { login, ..place(endpoints) }).open(cluster).unwrap()
    };
    let refused = |mut medium: Box<dyn Medium>| medium.read(RUN).unwrap_err().to_string();
    let told = refused(open("orders", Some("a guess")));
    assert!(told.contains("invalid user ID or password"), "{told}");
    refused(open("orders", None));
    let told = refused(open("bills", Some("of the marks")));
    assert!(told.contains("permission denied"), "another cluster's: {told}");

    let mut medium = open("orders", Some("of the marks"));
    medium.write(AT, &block(1, 1)).unwrap();
    medium.try_write().unwrap().unwrap();
    assert_eq!(medium.concerns().unwrap(), [], "what it may not ask it leaves unasked");
    etcd.kill().unwrap();
    etcd.start().unwrap();
    medium.write(AT, &block(1, 2)).unwrap();
    assert_eq!(medium.read(RUN).unwrap(), block(1, 2).as_bytes());
    etcd.kill().unwrap();
    let told = medium.read(RUN).unwrap_err();
    assert!(!told.to_string().contains("password"), "{told}");
}

#[test]
fn an_etcd_that_is_full_says_so_and_takes_no_writes() {
    if missing().is_some() {
        return;
    }
    let etcd = Etcd::with_quota(8 << 20).unwrap();
    let mut medium = open(etcd.endpoint());
    medium.try_write().unwrap().unwrap();
    assert_eq!(medium.concerns().unwrap(), []);
    let large = vec![b'x'; 1 << 20];
    while etcd.ctl(&["put", "somebody/else"], &large).is_ok() {}
    let told = medium.try_write().unwrap().unwrap_err().to_string();
    assert!(told.contains("space exceeded"), "{told}");
    let concerns = medium.concerns().unwrap();
    let nospace =
        |concern: &Concern| matches!(concern, Concern::Problem(text) if text.contains("NOSPACE"));
    assert!(concerns.iter().any(nospace), "{concerns:?}");
}

//! Where the search begins: the golden bytes, and what real peers, clients and operators send.
//!
//! The corpus holds each as a file; `HADRIAN_BLESS=1 cargo test -p hadrian-fuzz --test seeds`
//! writes them anew after a change here.

use hadrian_golden::Golden;
use hadrian_protocol::frame::{Draft, HEAD_LEN, LogPosition, SealAs};
use hadrian_protocol::ids::{Epoch, MemberId, ResourceId, VolumeIndex};
use hadrian_protocol::node::How;
use hadrian_protocol::range::ByteRange;
use hadrian_protocol::replica::Mode;
use hadrian_protocol::time::WallTime;
use hadrian_protocol::wire::Envelope;
use hadrian_replicator::control::{self, At, Request};

use crate::mend::u32_at;

/// A named input.
pub type Seed = (String, Vec<u8>);

const FRAMES: [&str; 7] = ["epoch-start", "handover", "marker", "several", "trim", "write", "zero"];
const MESSAGES: [&str; 31] = [
    "ack",
    "ask_promise",
    "copying-compare",
    "copying-compared",
    "copying-content",
    "copying-content-zero",
    "copying-differs",
    "copying-differs-from-zero",
    "copying-fetch",
    "copying-mend",
    "copying-mend-end",
    "copying-mend-zero",
    "copying-mended",
    "copying-mine",
    "copying-mine-unknown",
    "copying-taken",
    "fetch",
    "goodbye",
    "grow-make-room",
    "grown-device-too-small",
    "grown-taken",
    "handed_over",
    "hello",
    "hello-grown",
    "join",
    "lead",
    "progress",
    "promised",
    "refuse",
    "refuse-overtaken",
    "takeover_ask",
];

fn golden(krate: &str, name: &str) -> Vec<u8> {
    let dir = format!("{}/../{krate}", env!("CARGO_MANIFEST_DIR"));
    Golden::new(&dir, "v1").read(name)
}

fn seed(name: &str, parts: &[&[u8]]) -> Seed {
    (name.to_owned(), parts.concat())
}

/// The part of a golden frame that goes over the wire.
fn wire_form(log: &[u8]) -> Vec<u8> {
    let (head_len, body_len) = (u32_at(log, 56) as usize, u32_at(log, 60) as usize);
    [&log[..head_len], &log[HEAD_LEN..HEAD_LEN + body_len]].concat()
}

pub(crate) fn frame() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for name in FRAMES {
        let log = golden("protocol", &format!("frame-{name}"));
        let wire = wire_form(&log);
        seeds.push(seed(&format!("wire-{name}"), &[&[0], &wire]));
        seeds.push(seed(&format!("mended-{name}"), &[&[6], &wire]));
    }
    let log = golden("protocol", "frame-marker");
    seeds.push(seed("log-marker", &[&[1], &log]));
    seeds
}

pub(crate) fn handshake() -> Vec<Seed> {
    let preamble = golden("protocol", "preamble");
    let message = |name: &&str| golden("protocol", &format!("message-{name}"));
    let mut seeds: Vec<_> =
        MESSAGES.iter().map(|name| seed(name, &[&[1], &preamble, &message(name)])).collect();
    let session: Vec<u8> = MESSAGES.iter().flat_map(message).collect();
    seeds.push(seed("whole-session", &[&[0], &preamble, &session]));
    let frame = wire_form(&golden("protocol", "frame-several"));
    let envelope = Envelope::for_frame(frame.len());
    let ack = message(&"ack");
    seeds.push(seed("frame-then-ack", &[&[3], &preamble, &envelope, &frame, &ack]));
    seeds
}

/// A record that stands `at` blocks behind the first of what is read.
fn on_marker(at: usize, record: &[u8]) -> Vec<u8> {
    [&vec![0; at * 512], record].concat()
}

pub(crate) fn marks() -> Vec<Seed> {
    let file = |name| golden("protocol", name);
    // The lease of the second member has the number 5, its control block the number 6.
    let (lease, control) =
        (on_marker(3, &file("marks-lease")), on_marker(6, &file("marks-control")));
    vec![
        seed("lease", &[&[1], &lease]),
        seed("control", &[&[3], &control]),
        seed("header", &[&[5], &file("marks-header")]),
        seed("label", &[&[7], &file("marks-label")]),
        seed("lease-unchanged", &[&[0], &lease]),
    ]
}

pub(crate) fn dirty_map() -> Vec<Seed> {
    let file = golden("blockdev", "dirty-map");
    vec![
        seed("golden", &[&[0], &file]),
        seed("sealed", &[&[1], &file]),
        seed("large", &[&[7], &file]),
        seed("cut-short", &[&[0], &file[..file.len() - 9]]),
    ]
}

/// Copies that are carried by hand.
pub(crate) fn carried() -> Vec<Seed> {
    let file = crate::seed::whole();
    let (header, rest) = file.split_at(4096);
    // The end of an empty one: its head, its state, and no digest.
    let end = file.len() - 32;
    let state = file.windows(4).rposition(|at| at == b"DONE").unwrap_or(4096);
    vec![
        seed("whole", &[&[0], &file]),
        seed("right-header", &[&[1], &[0; 4096], rest]),
        seed("mended", &[&[3], &file]),
        seed("only-the-end", &[&[7], header, &file[state..end]]),
        seed("cut-short", &[&[0], &file[..file.len() - 9]]),
    ]
}

pub(crate) fn history() -> Vec<Seed> {
    let file = |name| golden("blockdev", name);
    let (page, head) = (file("history-segment"), file("history-record"));
    let (page, head) = (without_end(&page), without_end(&head));
    let record = |number: u8, rest: &[u8]| -> Vec<u8> {
        let len = u16::try_from(head.len()).unwrap_or(u16::MAX).to_le_bytes();
        [&[number][..], &len, head, rest].concat()
    };
    let page_len = u16::try_from(page.len()).unwrap_or(u16::MAX).to_le_bytes();
    let all = |how: u8, rest: &[u8]| [&[how][..], &page_len, page, rest].concat();
    vec![
        seed("one", &[&all(7, &record(1, &[9; 64]))]),
        seed("two", &[&all(7, &[record(1, &[9; 64]), record(1, &[8; 64])].concat())]),
        seed("torn", &[&all(3, &record(1, &[9; 64]))]),
        seed("as-written", &[&all(0, &record(1, &[]))]),
        seed("empty", &[&all(7, &[])]),
    ]
}

/// Without the zeroes that fill up its page.
fn without_end(page: &[u8]) -> &[u8] {
    let len = page.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    // The checksum of a first page stands at its end.
    let len = if len == page.len() { page.len() - 4 } else { len };
    let len = page[..len].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &page[..len]
}

pub(crate) fn staging() -> Vec<Seed> {
    let header = crate::staging::right_header();
    let (len, digest) = ([u8::try_from(header.len()).unwrap_or(u8::MAX)], [9; 32]);
    vec![
        seed("of-this-volume", &[&[2], &len, &header, &digest]),
        seed("second-leaf", &[&[3, 0], &[0; 32], &digest]),
        seed("of-another", &[&[2], &len, &golden("blockdev", "staging-header"), &digest]),
        seed("short-digests", &[&[1, 0], &digest]),
    ]
}

/// A quarantine file as the target takes it.
fn in_quarantine(how: u8, page: &[u8], rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(page.len()).unwrap_or(u16::MAX).to_le_bytes();
    [&[how][..], &len, page, rest].concat()
}

pub(crate) fn quarantine() -> Vec<Seed> {
    let blocks = golden("blockdev", "quarantine-blocks");
    let (page, parts) = blocks.split_at(4096);
    let sheet = golden("blockdev", "sheet-quarantine");
    // From the position 0 on, so that the log below stands where it says.
    let mut ours = sheet.get(..92).unwrap_or_default().to_vec();
    crate::mend::put(&mut ours, 32, &[0; 8]);
    crate::mend::put(&mut ours, 72, &(3 * 8192_u64).to_le_bytes());
    let log = log_of_three();
    vec![
        ("blocks".into(), in_quarantine(0, page, parts)),
        ("blocks-on-a-store".into(), in_quarantine(6, page, parts)),
        ("blocks-cut-off".into(), in_quarantine(4, page, &parts[..parts.len() - 40])),
        ("frames".into(), in_quarantine(3, &ours, &log)),
        ("frames-on-a-store".into(), in_quarantine(7, &ours, &log)),
        ("frames-cut-off".into(), in_quarantine(5, &ours, &log[..8192])),
    ]
}

pub(crate) fn superblock() -> Vec<Seed> {
    let copy = golden("blockdev", "superblock");
    let used = 256 + u32_at(&copy, 12) as usize;
    let (copy, len) = (&copy[..used], (used as u16).to_le_bytes());
    let mut older = copy.to_vec();
    older[16] = 6;
    let state = golden("protocol", "state-full");
    vec![
        seed("both-copies", &[&[5], &len, copy, &older]),
        seed("second-lost", &[&[4 + 1 + 16], &len, copy]),
        seed("first-torn", &[&[4], &len, &older, copy]),
        seed("unchanged", &[&[0], &len, copy, copy]),
        seed("state-full", &[&[2], &state]),
        seed("state-created", &[&[2], &golden("protocol", "state-created")]),
    ]
}

pub(crate) fn journal() -> Vec<Seed> {
    let appends = |count| [[0, 0, 8].repeat(count), vec![2, 3, 4]].concat();
    let script = |steps: &[u8], end: &[u8]| {
        let head = [&[0, 3, 3][..], &[7; 7], &[24]].concat();
        [&head, steps, end].concat()
    };
    let synced = [appends(2), appends(3)].concat();
    vec![
        seed(
            "script-cut-off",
            &[&script(&[appends(4), vec![6, 2, 3], appends(2)].concat(), &[1, 3])],
        ),
        seed("segments", &[&[1], &log_of_three()]),
        seed("script-killed", &[&script(&synced, &[0, 0, 0, 0])]),
        seed("script-power-lost", &[&script(&[synced.clone(), vec![0; 9]].concat(), &[1, 2, 0])]),
        seed("script-flipped-byte", &[&script(&synced, &[0, 1, 1, 0, 9, 200, 0, 0, 1])]),
        seed("script-lost-page", &[&script(&synced, &[0, 1, 1, 1, 0, 0, 16, 0, 1])]),
        seed("script-moved-page", &[&script(&synced, &[0, 1, 1, 3, 1, 0, 32, 0, 1])]),
        seed(
            "script-recycled",
            &[&script(&[appends(4), vec![5, 2], appends(4)].concat(), &[1, 1])],
        ),
    ]
}

/// Three frames from the start of the log of the resource that `journal::fuzz` opens.
fn log_of_three() -> Vec<u8> {
    let resource = ResourceId::from_bytes([0; 16]);
    let mut before = LogPosition::genesis(resource);
    let mut log = Vec::new();
    for mark in 0..3_u8 {
        let mut draft = Draft::new(vec![0; HEAD_LEN + 4096]);
        let (volume, range) = (VolumeIndex::new(0), ByteRange::new(u64::from(mark) * 512, 512));
        let (Some(volume), Ok(range)) = (volume, range) else { unreachable!("both are in range") };
        draft.write(volume, range, &[mark; 512]).expect("an empty frame has room");
        let frame = draft.seal(SealAs {
            resource,
            epoch: Epoch::new(1),
            lsn: before.lsn,
            durable: before.lsn,
            wall: WallTime::from_micros(1),
            author: MemberId::new(0).expect("0 is a member"),
            before: before.chain,
        });
        before = frame.position_after();
        log.extend_from_slice(frame.log_bytes());
    }
    // Behind the payload there are only zeroes.
    log.truncate(log.len() - (4096 - 512));
    log
}

pub(crate) fn nbd_negotiation() -> Vec<Seed> {
    let option = |number: u8, data: &[u8]| {
        [&[number][..], &(data.len() as u16).to_be_bytes(), data].concat()
    };
    let info = |name: &[u8], wanted: &[u8]| {
        let front = (name.len() as u32).to_be_bytes();
        [&front[..], name, &(wanted.len() as u16 / 2).to_be_bytes(), wanted].concat()
    };
    let context = b"\0\0\0\x07db/data\0\0\0\x01\0\0\0\x0fbase:allocation";
    let (structured, extended) = (option(8, b""), option(11, b""));
    let go = option(7, &info(b"db/data", &[0, 3, 0, 1, 0, 2]));
    let raw =
        [&b"\0\0\0\x03IHAVEOPT\0\0\0\x03\0\0\0\0"[..], b"IHAVEOPT\0\0\0\x02\0\0\0\0"].concat();
    vec![
        seed("qemu", &[&[1], &structured, &option(10, context), &go]),
        seed(
            "libnbd",
            &[&[3], &extended, &structured, &option(9, context), &option(10, context), &go],
        ),
        seed("list-then-abort", &[&[7], &option(3, b""), &option(2, b"")]),
        seed("export-name", &[&[1], &option(1, b"db/data")]),
        seed("unknown-export", &[&[9], &option(6, &info(b"other", &[])), &option(5, b"")]),
        seed("ending-export", &[&[9], &option(7, &info(b"ending", &[]))]),
        seed("all-contexts", &[&[1], &extended, &option(9, b"\0\0\0\x07db/data\0\0\0\0")]),
        seed("raw", &[&[0], &raw]),
    ]
}

pub(crate) fn nbd_requests() -> Vec<Seed> {
    // Write, read back, flush, trim, zero, map, cache; the last byte of each is its offset.
    let commands = [1, 0, 3, 4, 6, 7, 5];
    let requests: Vec<u8> =
        commands.iter().flat_map(|command| [9, *command, 3, 8, *command]).collect();
    // Dialect, requests and bytes in flight, allocation, read-only, fast zero, block size, size,
    // socket, depth, order.
    let simple = [0, 3, 8, 7, 0, 0, 0, 8, 3, 0x55, 0xAA, 0x33, 0xCC, 1, 2, 3, 4];
    let with_context = |dialect| [&[dialect, 3, 8, 1][..], &simple[3..]].concat();
    let beyond = [9, 1, 3, 245, 255, 255, 9, 0, 3, 245, 0, 8];
    vec![
        seed("simple", &[&simple, &requests]),
        seed("structured", &[&with_context(1), &requests, &requests]),
        seed("extended", &[&with_context(2), &requests, &requests]),
        seed("beyond-the-end", &[&with_context(1), &beyond, &requests]),
        seed("loses-its-step", &[&with_context(2), &requests, &[0, 1, 2, 3, 4]]),
        seed("disconnects", &[&simple, &requests, &[9, 2, 3, 8, 0]]),
    ]
}

pub(crate) fn control() -> Vec<Seed> {
    let resource = || "db".to_owned();
    let requests = [
        ("status", Request::Status { resource: None }),
        ("status-of-one", Request::Status { resource: Some(resource()) }),
        (
            "takeover",
            Request::Takeover { resource: resource(), how: How::Force, test: false, to: None },
        ),
        (
            "take-back",
            Request::Takeover {
                resource: resource(),
                how: How::Force,
                test: true,
                to: Some(At::WallUs(7)),
            },
        ),
        ("find", Request::Find { resource: resource(), at: At::Applied }),
        ("mode", Request::Mode { resource: resource(), mode: Mode::Sync }),
        ("stop", Request::Stop { resource: resource() }),
        ("start", Request::Start { resource: resource(), primary: true }),
    ];
    let line = |request| {
        let envelope = control::Envelope { version: control::VERSION, request };
        let mut line = serde_json::to_vec(&envelope).unwrap_or_default();
        line.push(b'\n');
        line
    };
    let mut seeds: Vec<Seed> =
        requests.map(|(name, request)| (name.to_owned(), line(request))).into();
    let all: Vec<u8> = seeds.iter().flat_map(|(_, line)| line.clone()).collect();
    seeds.push(seed("all-and-a-half", &[&all, &all[..40]]));
    seeds.push(seed("line-too-long", &[&[b' '; 600], &all]));
    seeds
}

/// Configurations in order and out of it.
#[must_use]
pub fn configuration() -> Vec<Seed> {
    let texts = [
        ("two-hosts", include_str!("seeds/two-hosts.toml")),
        ("every-key", include_str!("seeds/every-key.toml")),
        ("every-mistake", include_str!("seeds/every-mistake.toml")),
        ("unfinished", "cluster = \"orders\"\n[[member]]\nname = \"alpha"),
    ];
    texts.map(|(name, text)| seed(name, &[text.as_bytes()])).into()
}

//! The bytes of version 1, as files in `golden/v1`: written by every release alike, and read by
//! every later one. The values are fixed; what the files hold decides.

use bytes::Bytes;
use hadrian_golden::Golden;

use crate::frame::{Began, ChainHash, Draft, Frame, HEAD_LEN, Record, SealAs};
use crate::ids::{ClusterId, Epoch, Incarnation, Lsn, MemberId, ResourceId, VolumeIndex};
use crate::range::ByteRange;
use crate::replica::ReplicaState;
use crate::time::WallTime;
use crate::wire::{ENVELOPE_LEN, Envelope, Message, Preamble};

fn golden() -> Golden {
    Golden::new(env!("CARGO_MANIFEST_DIR"), "v1")
}

fn resource() -> ResourceId {
    ResourceId::derive("orders", "db")
}

fn volume(index: u16) -> VolumeIndex {
    VolumeIndex::new(index).unwrap()
}

fn range(start: u64, len: u64) -> ByteRange {
    ByteRange::new(start, len).unwrap()
}

fn payload(len: usize) -> Vec<u8> {
    (0u8..251).cycle().take(len).collect()
}

fn sealed(fill: impl FnOnce(&mut Draft<Vec<u8>>)) -> Frame {
    let mut draft = Draft::new(vec![0; HEAD_LEN + 4096]);
    fill(&mut draft);
    draft.seal(SealAs {
        resource: resource(),
        epoch: Epoch::new(0x11),
        lsn: Lsn::new(0x1_0000_2000),
        durable: Lsn::new(0x1_0000_1000),
        wall: WallTime::from_micros(1_795_000_000_000_000),
        author: MemberId::new(1).unwrap(),
        before: ChainHash::genesis(resource()),
    })
}

/// One frame of every kind of record, and one of several.
fn frames() -> Vec<(&'static str, Frame)> {
    let ways = [Began::Birth, Began::Restart, Began::Planned, Began::InSync, Began::Forced];
    let start = |draft: &mut Draft<Vec<u8>>, began| {
        draft.epoch_start(began, Epoch::new(0x10), Incarnation::new(3)).unwrap();
    };
    let write = |draft: &mut Draft<Vec<u8>>, at, len| {
        draft.write(volume(2), range(at, len as u64), &payload(len)).unwrap();
    };
    let to = MemberId::new(0).unwrap();
    vec![
        ("frame-write", sealed(|draft| write(draft, 0x4000, 512))),
        ("frame-zero", sealed(|draft| draft.zero(volume(63), range(512, 1 << 40)).unwrap())),
        ("frame-trim", sealed(|draft| draft.trim(volume(0), range(0, 4096)).unwrap())),
        ("frame-epoch-start", sealed(|draft| ways.into_iter().for_each(|way| start(draft, way)))),
        ("frame-handover", sealed(|draft| draft.handover(to, Epoch::new(0x18)).unwrap())),
        ("frame-marker", sealed(|draft| draft.marker().unwrap())),
        ("frame-point", sealed(|draft| draft.point(&"monday".parse().unwrap()).unwrap())),
        (
            "frame-several",
            sealed(|draft| {
                start(draft, Began::Planned);
                write(draft, 0, 512);
                draft.zero(volume(0), range(512, 512)).unwrap();
                write(draft, 0x10_0000, 1024);
                draft.marker().unwrap();
            }),
        ),
    ]
}

/// Every fact that a frame states.
fn facts(frame: &Frame) -> (Vec<Record>, String) {
    let positions = (frame.lsn(), frame.end(), frame.durable(), frame.stamp());
    let author = (frame.resource(), frame.epoch(), frame.author(), frame.wall());
    (frame.records().collect(), format!("{positions:?} {author:?} {:?}", frame.chain()))
}

fn messages() -> Vec<(String, Message)> {
    let named = crate::wire::tests::one_of_each().into_iter();
    let mut all: Vec<_> =
        named.map(|(name, message)| (format!("message-{name}"), message)).collect();
    let refusals = crate::wire::tests::every_other_refusal().into_iter();
    all.extend(refusals.map(|(name, message)| (format!("message-refuse-{name}"), message)));
    let goodbyes = crate::wire::tests::other_goodbyes().into_iter();
    all.extend(goodbyes.map(|(name, message)| (format!("message-goodbye-{name}"), message)));
    let growths = crate::wire::tests::every_growth().into_iter();
    all.extend(growths.map(|(name, message)| (format!("message-{name}"), message)));
    let copying = crate::wire::tests::every_copying().into_iter();
    all.extend(copying.map(|(name, message)| (format!("message-copying-{name}"), message)));
    all
}

fn preamble() -> Preamble {
    Preamble {
        version_min: 1,
        version_max: 1,
        resource: resource(),
        member: MemberId::new(1).unwrap(),
    }
}

#[test]
fn frames_of_version_1_have_these_bytes_and_are_read_back_from_them() {
    for (name, frame) in frames() {
        let file = golden().check(name, frame.log_bytes());
        let read = Frame::open(Bytes::from(file), resource()).unwrap();
        assert_eq!(facts(&read), facts(&frame), "{name}");
        assert!(read.follows(ChainHash::genesis(resource())), "{name}");
    }
}

#[test]
fn messages_of_version_1_have_these_bytes_and_are_read_back_from_them() {
    for (name, message) in messages() {
        let file = golden().check(&name, &message.encode());
        let (head, body) = file.split_first_chunk::<ENVELOPE_LEN>().unwrap();
        let envelope = Envelope::parse(head).unwrap();
        assert_eq!(envelope.body_len(), body.len(), "{name}");
        assert_eq!(envelope.message(body), Ok(message), "{name}");
    }
}

#[test]
fn the_envelope_of_a_frame_has_these_bytes() {
    let file = golden().check("envelope-frame", &Envelope::for_frame(0x1234));
    let envelope = Envelope::parse(file.first_chunk().unwrap()).unwrap();
    assert!(envelope.is_frame());
    assert_eq!(envelope.body_len(), 0x1234);
    let file = golden().check("envelope-packed-frame", &Envelope::for_packed_frame(0x1234));
    let packed = Envelope::parse(file.first_chunk().unwrap()).unwrap();
    assert!(packed.is_frame() && packed.is_packed() && !envelope.is_packed());
}

#[test]
fn the_preamble_has_these_bytes_in_every_version() {
    let file = golden().check("preamble", &preamble().encode());
    assert_eq!(Preamble::parse(file.first_chunk().unwrap()), Ok(preamble()));
}

#[test]
fn the_state_of_a_replica_in_version_1_has_these_bytes_and_is_read_back_from_them() {
    for (name, state) in states() {
        let file = golden().check(name, &state.encode());
        assert_eq!(ReplicaState::decode(&file), Ok(state), "{name}");
    }
}

#[test]
fn what_stands_on_a_marker_in_version_1_has_these_bytes_and_is_read_back_from_them() {
    use crate::marks::block::RECORD_LEN;
    use crate::marks::control::{ControlBlock, tests::full as control};
    use crate::marks::header::{Header, Label, tests::full as header};
    use crate::marks::layout::{BlockIndex, Place};
    use crate::marks::lease::{LeaseBlock, tests::full as lease};
    let (cluster, place) = (ClusterId::derive("orders"), Place::new(0).unwrap());
    let file = |name: &str, block: crate::marks::block::Block| {
        assert!(block.as_bytes()[RECORD_LEN..].iter().all(|byte| *byte == 0), "{name}");
        golden().check(name, &block.as_bytes()[..RECORD_LEN])
    };
    let [first, _] = BlockIndex::HEADERS;
    let bytes = file("marks-header", header().seal(cluster, first));
    assert_eq!(Header::open(&bytes, cluster, first), Ok(header()));
    let label = Label { resource: resource(), name: "db".into() };
    let bytes = file("marks-label", label.seal(cluster, place));
    assert_eq!(Label::open(&bytes, cluster, place), Ok(label));
    let bytes = file("marks-lease", lease().seal(cluster));
    let read = LeaseBlock::open(&bytes, (cluster, lease().member), lease().index());
    assert_eq!(read, Ok(lease()));
    let (names, block) = ((cluster, resource()), control(2));
    let bytes = file("marks-control", block.seal(cluster, place));
    assert_eq!(ControlBlock::open(&bytes, names, block.member, block.index(place)), Ok(block));
}

/// Names of its files.
const MARKS: [&str; 4] = ["marks-header", "marks-label", "marks-lease", "marks-control"];

fn states() -> [(&'static str, ReplicaState); 5] {
    use crate::replica::tests::{full, grown, just_created, taken_back, verified};
    [
        ("state-full", full()),
        ("state-created", just_created()),
        ("state-verified", verified()),
        ("state-grown", grown()),
        ("state-taken-back", taken_back()),
    ]
}

#[test]
fn no_golden_file_is_left_uncompared() {
    let frames = frames().into_iter().map(|(name, _)| name.to_owned());
    let states = states().into_iter().map(|(name, _)| name.to_owned());
    let fixed = ["preamble", "envelope-frame", "envelope-packed-frame"].map(str::to_owned);
    let messages = messages().into_iter().map(|(name, _)| name);
    let fixed = fixed.into_iter().chain(MARKS.map(str::to_owned));
    let names: Vec<_> = frames.chain(states).chain(fixed).chain(messages).collect();
    golden().check_names(names.iter().map(String::as_str));
}

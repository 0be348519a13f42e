//! A frame survives the way to disk and to the peer, and nothing else passes for one.

use proptest::prelude::*;

use super::*;
use crate::ids::{EPOCH_MAX, Incarnation, VolumeIndex};
use crate::point::{POINT_NAME_MAX, PointName};
use crate::range::ByteRange;

fn resource() -> ResourceId {
    ResourceId::derive("orders", "db")
}

fn seal_as(lsn: u64) -> SealAs {
    SealAs {
        resource: resource(),
        epoch: Epoch::new(9),
        lsn: Lsn::new(lsn),
        durable: Lsn::new(4096),
        wall: WallTime::from_micros(1_700_000_000_000_000),
        author: MemberId::new(1).unwrap(),
        before: ChainHash::genesis(resource()),
    }
}

fn volume() -> VolumeIndex {
    VolumeIndex::new(0).unwrap()
}

fn range(offset: u64, len: u64) -> ByteRange {
    ByteRange::new(offset, len).unwrap()
}

fn name() -> PointName {
    "n".repeat(POINT_NAME_MAX).parse().unwrap()
}

fn sample() -> Frame {
    let mut draft = Draft::new(vec![0xEE; HEAD_LEN + 8192]);
    draft.write(volume(), range(4096, 512), &[7; 512]).unwrap();
    draft.zero(volume(), range(0, 1 << 30)).unwrap();
    draft.trim(volume(), range(8192, 4096)).unwrap();
    draft.marker().unwrap();
    draft.point(&name()).unwrap();
    draft.seal(seal_as(8192))
}

#[test]
fn records_come_back_as_they_were_added() {
    let frame = Frame::open(sample().log_bytes().clone(), resource()).unwrap();
    let records: Vec<_> = frame.records().collect();
    let payload = Bytes::from(vec![7; 512]);
    assert_eq!(
        records,
        [
            Record::Write { volume: volume(), range: range(4096, 512), payload },
            Record::Zero { volume: volume(), range: range(0, 1 << 30) },
            Record::Trim { volume: volume(), range: range(8192, 4096) },
            Record::Marker,
            Record::Point { name: name() },
        ]
    );
    assert_eq!((frame.lsn(), frame.end()), (Lsn::new(8192), Lsn::new(16384)));
}

#[test]
fn role_marks_come_back_as_they_were_added() {
    let (began, previous, incarnation) = (Began::Planned, Epoch::new(8), Incarnation::new(3));
    let mut draft = Draft::new(vec![0; HEAD_LEN]);
    draft.epoch_start(began, previous, incarnation).unwrap();
    draft.handover(MemberId::new(0).unwrap(), Epoch::new(17)).unwrap();
    let frame = draft.seal(seal_as(0));
    assert_eq!(frame.epoch_start(), Some(Began::Planned));
    let records: Vec<_> = frame.records().collect();
    assert_eq!(records[0], Record::EpochStart { began, previous, incarnation });
    let handover = Record::Handover { to: MemberId::new(0).unwrap(), epoch: Epoch::new(17) };
    assert_eq!(records[1], handover);
}

#[test]
fn the_peer_stores_the_bytes_that_it_received_and_its_own_stamp() {
    let frame = sample();
    let (head, body) = frame.wire_parts();
    let mut buffer = vec![0xAA; HEAD_LEN + 4096];
    buffer[..head.len()].copy_from_slice(&head);
    buffer[HEAD_LEN..HEAD_LEN + body.len()].copy_from_slice(&body);
    let received = Frame::receive(buffer, resource(), Lsn::new(12)).unwrap();
    assert_eq!(received.wire_parts(), frame.wire_parts());
    assert_eq!(received.chain(), frame.chain());
    assert_eq!(received.stamp(), Some(Stamp { durable: Lsn::new(12) }));
    assert_eq!(frame.stamp(), Some(Stamp { durable: Lsn::new(4096) }));
    let padding = &received.log_bytes()[head.len()..HEAD_LEN - 32];
    assert!(padding.iter().all(|byte| *byte == 0), "old bytes of the buffer must not be stored");
}

#[test]
fn the_chain_ties_a_frame_to_the_one_before() {
    let first = sample();
    let mut draft = Draft::new(vec![0; HEAD_LEN]);
    draft.marker().unwrap();
    let second = draft.seal(SealAs { before: first.chain(), ..seal_as(16384) });
    assert!(second.follows(first.chain()));
    assert!(!second.follows(ChainHash::genesis(resource())));
}

#[test]
fn every_flipped_byte_of_header_table_and_payload_is_noticed() {
    let frame = sample();
    let good = frame.log_bytes().to_vec();
    let meaningful = (0..HEADER_LEN + 5 * RECORD_LEN).chain(HEAD_LEN..HEAD_LEN + 512);
    for at in meaningful {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        let opened = Frame::open(Bytes::from(bad), resource());
        let chain_only = (92..124).contains(&at);
        assert!(opened.is_err(), "flipped byte {at} (chain field: {chain_only}) went unnoticed");
    }
}

#[test]
fn a_frame_of_another_resource_is_refused() {
    let bytes = sample().log_bytes().clone();
    let other = ResourceId::derive("orders", "web");
    let found = resource();
    assert_eq!(Frame::open(bytes, other).unwrap_err(), FrameError::Resource { found });
}

#[test]
fn an_epoch_that_leaves_no_next_one_is_refused_wherever_a_frame_names_it() {
    let (highest, beyond) = (Epoch::new(EPOCH_MAX), Epoch::new(EPOCH_MAX + 1));
    let marker = |epoch| {
        let mut draft = Draft::new(vec![0; HEAD_LEN]);
        draft.marker().unwrap();
        reopen(&draft.seal(SealAs { epoch, ..seal_as(0) }))
    };
    assert_eq!(marker(highest), None);
    assert_eq!(marker(beyond), Some(FrameError::Epoch { found: beyond.get() }));
    let cause = RecordError::Epoch(beyond.get());
    let refused = Some(FrameError::Record { index: 0, cause });
    let mut start = Draft::new(vec![0; HEAD_LEN]);
    start.epoch_start(Began::Forced, beyond, Incarnation::new(1)).unwrap();
    assert_eq!(reopen(&start.seal(seal_as(0))), refused);
    let mut handover = Draft::new(vec![0; HEAD_LEN]);
    handover.handover(MemberId::new(0).unwrap(), beyond).unwrap();
    assert_eq!(reopen(&handover.seal(seal_as(0))), refused);
}

/// Found by fuzzing: the log took a frame that a link refused, because the link clears the padding
/// in which the "payload" lay.
#[test]
fn a_record_that_brings_no_payload_cannot_speak_of_one_in_the_padding() {
    let mut draft = Draft::new(vec![0; HEAD_LEN + 4096]);
    draft.write(volume(), range(0, 512), &[0; 512]).unwrap();
    let mut bytes = draft.seal(seal_as(0)).log_bytes().to_vec();
    // The write becomes a marker whose payload lies behind the body; the head is sealed again.
    bytes[HEADER_LEN] = RecordKind::Marker.code();
    bytes[HEADER_LEN + 28..HEADER_LEN + 32].copy_from_slice(&512u32.to_le_bytes());
    let crc = crate::checksum::crc32c_of_two(
        &bytes[..HEADER_LEN - 4],
        &bytes[HEADER_LEN..HEADER_LEN + RECORD_LEN],
    );
    bytes[HEADER_LEN - 4..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
    let refused = FrameError::Record { index: 0, cause: RecordError::NoPayload };
    assert_eq!(Frame::open(Bytes::from(bytes.clone()), resource()).unwrap_err(), refused);
    assert_eq!(Frame::receive(bytes, resource(), Lsn::START).unwrap_err(), refused);
}

/// A recording holds heads only, and a name is part of the head.
#[test]
fn the_name_of_a_point_is_there_without_the_body() {
    let frame = Frame::hollow(sample().head()).unwrap();
    assert_eq!(frame.records().last(), Some(Record::Point { name: name() }));
    assert_eq!(frame.placed_records().last(), Some((Record::Point { name: name() }, None)));
}

#[test]
fn what_is_no_name_is_refused_and_a_name_is_written_in_one_way_only() {
    let with = |at: usize, byte: u8| {
        let mut draft = Draft::new(vec![0; HEAD_LEN]);
        draft.point(&"monday".parse().unwrap()).unwrap();
        let mut bytes = draft.seal(seal_as(0)).log_bytes().to_vec();
        bytes[HEADER_LEN + at] = byte;
        let table = &bytes[HEADER_LEN..HEADER_LEN + RECORD_LEN];
        let crc = crate::checksum::crc32c_of_two(&bytes[..HEADER_LEN - 4], table);
        bytes[HEADER_LEN - 4..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
        Frame::open(Bytes::from(bytes), resource()).err()
    };
    let refused = Some(FrameError::Record { index: 0, cause: RecordError::Point });
    assert_eq!(with(2, b'M'), None);
    assert_eq!(with(2, b'1'), refused, "a name begins with a letter");
    assert_eq!(with(1, 7), refused, "a zero is no letter");
    assert_eq!(with(1, 5), refused, "what is behind the name is zeroes");
    assert_eq!(with(1, 255), refused, "no name is longer than its room");
}

fn reopen(frame: &Frame) -> Option<FrameError> {
    Frame::open(frame.log_bytes().clone(), resource()).err()
}

#[test]
fn a_full_frame_takes_no_more() {
    let mut draft = Draft::new(vec![0; HEAD_LEN + 4096]);
    assert_eq!(draft.write(volume(), range(0, 8192), &[0; 8192]), Err(DraftFull));
    for _ in 0..RECORDS_MAX {
        draft.marker().unwrap();
    }
    assert_eq!(draft.marker(), Err(DraftFull));
    assert!(draft.seal(seal_as(0)).records().count() == RECORDS_MAX);
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..9000)) {
        let _ = Frame::open(Bytes::from(bytes.clone()), resource());
        let _ = Frame::receive(bytes, resource(), Lsn::START);
    }

    #[test]
    fn no_change_to_a_good_frame_makes_the_decoder_panic(
        edits in proptest::collection::vec((0usize..8192, any::<u8>()), 1..20)
    ) {
        let mut bytes = sample().log_bytes().to_vec();
        for (at, value) in edits {
            bytes[at] = value;
        }
        let _ = Frame::open(Bytes::from(bytes.clone()), resource());
        let _ = Frame::receive(bytes, resource(), Lsn::START);
    }
}

//! The frame decoder: what a peer sends and what a disk holds.
//!
//! Input: one byte of how, then the frame as it goes over the wire, or (how & 1) as it lies in
//! the log. With how & 2 checksums are computed, with how & 4 sizes and identity too.

use bytes::Bytes;
use hadrian_protocol::frame::{
    self, BODY_LEN_MAX, Draft, Frame, FrameError, HEAD_LEN, HEADER_LEN, Record, SealAs, peek_size,
};
use hadrian_protocol::ids::{EPOCH_MAX, Lsn};

use crate::memory::within;
use crate::mend;

/// What decoding one frame may hold: everything of any size shares the memory that came in.
const HELD_MAX: usize = 16 << 10;
const STAMPED: Lsn = Lsn::new(0x7000);

/// Runs the frame decoder on `input`.
///
/// # Panics
/// If it breaks a property.
pub fn run(input: &[u8]) {
    let Some((how, bytes)) = input.split_first() else { return };
    let mut bytes = bytes.to_vec();
    let in_log = how & 1 != 0;
    if how & 4 != 0 {
        let body_max = bytes.len().saturating_sub(if in_log { HEAD_LEN } else { HEADER_LEN });
        mend::identify(&mut bytes, body_max);
    }
    if !in_log && let Some(laid_out) = lay_out(&bytes) {
        bytes = laid_out;
    }
    if how & 2 != 0 {
        mend::seal_frame(&mut bytes, &[0; 32]);
    }
    check(bytes);
}

/// Puts the wire form of a frame into log layout, as the reader of a link does it.
pub(crate) fn lay_out(wire: &[u8]) -> Option<Vec<u8>> {
    let size = peek_size(wire).ok()?;
    let head = wire.get(..size.head_len())?;
    let body = wire.get(size.head_len()..size.wire_len())?;
    let mut bytes = vec![0xEE; size.log_len()];
    bytes.get_mut(..head.len())?.copy_from_slice(head);
    bytes.get_mut(HEAD_LEN..HEAD_LEN + body.len())?.copy_from_slice(body);
    Some(bytes)
}

/// Opens and receives `bytes`, and holds both to what is promised.
pub(crate) fn check(bytes: Vec<u8>) {
    let shared = Bytes::from(bytes.clone());
    let opened = within(HELD_MAX, || Frame::open(shared.clone(), mend::resource()));
    let received = within(HELD_MAX, || Frame::receive(bytes, mend::resource(), STAMPED));
    match (&opened, &received) {
        (Ok(opened), Ok(received)) => {
            assert!(facts(opened) == facts(received), "{opened:?} is not {received:?}");
            assert!(opened.wire_parts() == received.wire_parts(), "{opened:?}");
            check_frame(opened, &shared);
            let again = Frame::open(received.log_bytes().clone(), mend::resource());
            assert_eq!(again.map(|again| again.stamp()), Ok(received.stamp()));
        }
        (Err(opened), Err(received)) => assert_eq!(opened, received),
        _ => panic!("the log takes it {opened:?}, the link {received:?}"),
    }
}

fn check_frame(frame: &Frame, bytes: &Bytes) {
    let size = peek_size(bytes).expect("an open frame has sizes");
    let (head, body) = frame.wire_parts();
    assert_eq!((head.len(), body.len()), (size.head_len(), size.body_len()));
    assert_eq!(frame.log_bytes().len(), size.log_len());
    assert!(size.log_len() <= HEAD_LEN + BODY_LEN_MAX);
    assert_eq!(frame.end().since(frame.lsn()), frame.log_len());
    assert!(frame.epoch().get() <= EPOCH_MAX);
    let head = &bytes[..HEAD_LEN];
    assert_eq!(frame::peek_lsn(head, frame.resource()), Some(frame.lsn()));
    assert_eq!(frame::peek_stamp(head, frame.resource(), frame.lsn()), frame.stamp());
    let cut = Frame::open(bytes.slice(..size.log_len() - 1), frame.resource());
    assert!(matches!(cut, Err(FrameError::Short { .. })), "a byte is missing");
    write_again(frame);
}

/// A frame of the same records is the same frame again, whoever writes it.
fn write_again(frame: &Frame) {
    let mut draft = Draft::new(vec![0; HEAD_LEN + BODY_LEN_MAX]);
    // Payloads may share bytes of the body; apart they may be more than a frame takes.
    if frame.records().any(|record| add(&mut draft, &record).is_none()) || draft.is_empty() {
        return;
    }
    let again = draft.seal(SealAs {
        resource: frame.resource(),
        epoch: frame.epoch(),
        lsn: frame.lsn(),
        durable: frame.durable(),
        wall: frame.wall(),
        author: frame.author(),
        before: frame.chain(),
    });
    let again = Frame::open(again.log_bytes().clone(), frame.resource());
    let Ok(again) = again else { panic!("written again it is no frame: {again:?}") };
    assert!(again.follows(frame.chain()));
    assert!(again.records().eq(frame.records()));
    let same = |frame: &Frame| (frame.epoch(), frame.lsn(), frame.durable(), frame.wall());
    assert_eq!(same(&again), same(frame));
}

fn add(draft: &mut Draft<Vec<u8>>, record: &Record) -> Option<()> {
    let added = match record {
        Record::Write { volume, range, payload } => draft.write(*volume, *range, payload),
        Record::Zero { volume, range } => draft.zero(*volume, *range),
        Record::Trim { volume, range } => draft.trim(*volume, *range),
        Record::EpochStart { began, previous, incarnation } => {
            draft.epoch_start(*began, *previous, *incarnation)
        }
        Record::Handover { to, epoch } => draft.handover(*to, *epoch),
        Record::Marker => draft.marker(),
        Record::Point { name } => draft.point(name),
    };
    added.ok()
}

fn facts(frame: &Frame) -> (Vec<Record>, String) {
    let records: Vec<_> = frame.records().collect();
    for record in &records {
        if let Record::Write { range, payload, .. } = record {
            assert_eq!(range.len(), payload.len() as u64);
        }
    }
    let positions = (frame.lsn(), frame.end(), frame.durable());
    let author = (frame.epoch(), frame.author(), frame.wall(), frame.chain());
    (records, format!("{positions:?} {author:?}"))
}

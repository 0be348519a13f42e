//! Changes of volumes as they wait for their stores.

use bytes::Bytes;
use hadrian_protocol::checksum::crc32c;
use hadrian_protocol::frame::{Frame, LogPosition, Record};
use hadrian_protocol::ids::{Lsn, VolumeIndex};
use hadrian_protocol::point::PointName;
use hadrian_protocol::range::ByteRange;
use hadrian_protocol::time::WallTime;
use smallvec::SmallVec;

use super::Volume;
use crate::buffer::{ALIGNMENT, IoBuf};
use crate::engine::{FileId, Op};
use crate::journal::Spot;

/// Payloads shorter than this go through the page cache, longer ones past it: small direct writes
/// wait for the device one by one, large buffered ones cost several times a direct write.
pub(super) const BUFFERED_MAX: usize = 16 << 10;

/// What a change makes of its range.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// These bytes.
    Data(Bytes),
    /// The bytes that lie at this place of the log, whose CRC-32C this is.
    Logged(Spot, u32),
    Zero,
    Trim,
}

/// One change of one volume.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) volume: VolumeIndex,
    pub(super) range: ByteRange,
    pub(super) what: What,
}

/// The changes of one frame.
#[derive(Debug)]
pub(super) struct Queued {
    /// The point of the history behind the frame.
    pub(super) after: LogPosition,
    /// When it was written, by the clock of its author.
    pub(super) wall: WallTime,
    /// What an operator has called the point behind it.
    pub(super) name: Option<PointName>,
    /// Bytes of the frame in the log.
    pub(super) log_len: u64,
    /// In the order of the frame.
    pub(super) changes: SmallVec<[Change; 1]>,
    /// Operations under way.
    pub(super) missing: usize,
    /// Of a frame that is one large change: where in the log its payload begins, and the CRC.
    pub(super) large: Option<(Lsn, u32)>,
    /// Its payload is in the log alone.
    pub(super) is_left: bool,
}

impl Queued {
    /// Changes of at least `large_min` bytes in whole pages count as large.
    pub(super) fn new(frame: &Frame, large_min: usize) -> Self {
        let changes: SmallVec<[Change; 1]> = frame.records().filter_map(change).collect();
        let is_large = match changes.as_slice() {
            [Change { range, what: What::Data(bytes), .. }] => {
                bytes.len() >= large_min && is_whole(*range)
            }
            _ => false,
        };
        let place = frame.only_payload().filter(|(at, _)| is_large && is_aligned(at.get()));
        Self {
            after: frame.position_after(),
            wall: frame.wall(),
            name: frame.records().find_map(name),
            log_len: frame.log_len(),
            changes,
            missing: 0,
            large: place,
            is_left: false,
        }
    }

    /// The end of the frame.
    pub(super) fn end(&self) -> Lsn {
        self.after.lsn
    }

    /// Bytes of memory that its payloads hold.
    pub(super) fn memory(&self) -> u64 {
        if self.is_left { 0 } else { self.log_len }
    }
}

fn name(record: Record) -> Option<PointName> {
    match record {
        Record::Point { name } => Some(name),
        _ => None,
    }
}

fn change(record: Record) -> Option<Change> {
    let (volume, range, what) = match record {
        Record::Write { volume, range, payload } => (volume, range, What::Data(payload)),
        Record::Zero { volume, range } => (volume, range, What::Zero),
        Record::Trim { volume, range } => (volume, range, What::Trim),
        Record::EpochStart { .. }
        | Record::Handover { .. }
        | Record::Marker
        | Record::Point { .. } => return None,
    };
    Some(Change { volume, range, what })
}

/// What the engine is to do first for a change, and where it is to be written after that, if that
/// first is to fetch it from the log.
pub(super) fn operation(change: &Change, volumes: &[Volume]) -> Option<(Op, Option<Fetched>)> {
    let store = &volumes.get(usize::from(change.volume.index()))?.store;
    let (offset, len) = (change.range.start(), change.range.len());
    let op = match &change.what {
        What::Data(payload) if payload.len() >= BUFFERED_MAX && is_whole(change.range) => {
            Op::Write { file: store.direct(), offset, data: aligned(payload) }
        }
        What::Data(payload) => Op::Write { file: store.buffered(), offset, data: payload.clone() },
        What::Logged(spot, crc) => {
            let len = usize::try_from(len).ok()?;
            let (buffer, to) = (IoBuf::with_len(len), store.direct());
            let op = Op::Read { file: spot.file, offset: spot.offset, buffer, len };
            return Some((op, Some(Fetched { to, offset, crc: *crc })));
        }
        What::Trim => Op::Zero { file: store.buffered(), offset, len, punch: true },
        What::Zero => Op::Zero { file: store.buffered(), offset, len, punch: false },
    };
    Some((op, None))
}

/// Where the payload that is fetched from the log belongs, and what it must be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetched {
    to: FileId,
    offset: u64,
    crc: u32,
}

impl Fetched {
    /// The write of what `read` has brought; `None` where the log holds something else.
    pub(super) fn write(self, read: Op) -> Option<Op> {
        let Op::Read { buffer, len, .. } = read else {
            unreachable!("a read comes back as itself")
        };
        let data = buffer.freeze().slice(..len);
        let Self { to: file, offset, crc } = self;
        (crc32c(&data) == crc).then_some(Op::Write { file, offset, data })
    }
}

/// `payload` where the device can read it. Behind a small one in its frame it lies anywhere; a copy
/// costs far less than a large write through the page cache.
fn aligned(payload: &Bytes) -> Bytes {
    if payload.as_ptr().addr().is_multiple_of(ALIGNMENT) {
        return payload.clone();
    }
    let mut buffer = IoBuf::with_len(payload.len());
    // The buffer is a whole number of pages and so is the payload.
    buffer.copy_from_slice(payload);
    buffer.freeze()
}

fn is_aligned(position: u64) -> bool {
    position.is_multiple_of(ALIGNMENT as u64)
}

fn is_whole(range: ByteRange) -> bool {
    is_aligned(range.start()) && is_aligned(range.len())
}

/// The pages that `range` touches.
pub(super) fn whole_pages(range: ByteRange) -> ByteRange {
    let page = ALIGNMENT as u64;
    let start = range.start() / page * page;
    let end = range.end().checked_next_multiple_of(page).unwrap_or(u64::MAX);
    ByteRange::new(start, end - start).unwrap_or(range)
}

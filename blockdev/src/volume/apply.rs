//! Bringing frames into the stores, in the order of the log.
//!
//! Operations of several frames are under way together, but never two that touch the same page:
//! so overlapping writes land in the order of the log, and direct and buffered access to one page
//! never meet. `applied` is the end of the prefix of frames whose operations have all completed.

use std::collections::VecDeque;

use bytes::Bytes;
use hadrian_protocol::frame::{Frame, LogPosition, Record};
use hadrian_protocol::ids::{Lsn, VolumeIndex};
use hadrian_protocol::range::ByteRange;
use slab::Slab;
use smallvec::SmallVec;

use super::Volume;
use crate::buffer::{ALIGNMENT, IoBuf};
use crate::engine::{Engine, Op, Token};

/// Operations under way at most. Few on purpose: nobody waits for the stores, but answers wait for
/// log writes to the same device, and those stand in its queue behind these (measured: 64 instead
/// of 8 take a fifth off the rate of large writes and double their slowest answers).
const IN_FLIGHT_MAX: usize = 8;
/// Bytes of their ranges, for the same reason, while little waits; one operation is always let
/// through. The more waits, the more is let through: somebody waits for the stores in the end.
const IN_FLIGHT_BYTES_MIN: u64 = 1 << 20;
const IN_FLIGHT_BYTES_MAX: u64 = 8 << 20;
/// The part of what waits that may be under way.
const IN_FLIGHT_PART: u64 = 16;
/// Payloads shorter than this go through the page cache, longer ones past it: small direct writes
/// wait for the device one by one, large buffered ones cost several times a direct write.
const BUFFERED_MAX: usize = 16 << 10;

#[derive(Debug)]
pub(super) struct Apply {
    queue: VecDeque<Queued>,
    /// Index in the queue of the frame whose records are next, and of the next record in it.
    cursor: (usize, usize),
    limit: Lsn,
    applied: LogPosition,
    queued_bytes: u64,
    under_way: Slab<Flight>,
    under_way_bytes: u64,
    /// Frames taken off the queue so far: their numbers are below this.
    finished: u64,
}

#[derive(Debug)]
struct Queued {
    frame: Frame,
    /// Decoded once: a step to the next one must not walk the table again.
    records: SmallVec<[Record; 1]>,
    missing: usize,
}

#[derive(Debug)]
struct Flight {
    number: u64,
    volume: VolumeIndex,
    pages: ByteRange,
}

impl Apply {
    pub(super) fn new(applied: LogPosition) -> Self {
        Self {
            queue: VecDeque::new(),
            cursor: (0, 0),
            limit: applied.lsn,
            applied,
            queued_bytes: 0,
            under_way: Slab::new(),
            under_way_bytes: 0,
            finished: 0,
        }
    }

    pub(super) fn push(&mut self, frame: Frame) {
        self.queued_bytes += frame.log_len();
        let records = frame.records().collect();
        self.queue.push_back(Queued { frame, records, missing: 0 });
    }

    pub(super) fn allow(&mut self, limit: Lsn) {
        self.limit = self.limit.max(limit);
    }

    pub(super) fn applied(&self) -> LogPosition {
        self.applied
    }

    pub(super) fn limit(&self) -> Lsn {
        self.limit
    }

    pub(super) fn queue_end(&self) -> LogPosition {
        self.queue.back().map_or(self.applied, |queued| queued.frame.position_after())
    }

    pub(super) fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    pub(super) fn frames(&self) -> impl Iterator<Item = &Frame> {
        self.queue.iter().map(|queued| &queued.frame)
    }

    /// Begins as many operations as may be under way; returns the new watermark if frames without
    /// any operation moved it.
    pub(super) fn advance<E: Engine>(
        &mut self,
        engine: &mut E,
        volumes: &mut [Volume],
        token: impl Fn(usize) -> Token,
    ) -> Option<Lsn> {
        let bytes_max = self.under_way_bytes_max();
        while self.under_way.len() < IN_FLIGHT_MAX {
            let (index, record_index) = self.cursor;
            let Some(queued) = self.queue.get_mut(index) else { break };
            if queued.frame.end() > self.limit {
                break;
            }
            let Some(record) = queued.records.get(record_index) else {
                self.cursor = (index + 1, 0);
                continue;
            };
            if let Some((volume, range, op)) = operation(record, volumes) {
                let pages = whole_pages(range);
                let clash =
                    |flight: &Flight| flight.volume == volume && flight.pages.overlaps(pages);
                let bytes = self.under_way_bytes + pages.len();
                let full = !self.under_way.is_empty() && bytes > bytes_max;
                if full || self.under_way.iter().any(|(_, flight)| clash(flight)) {
                    break;
                }
                self.under_way_bytes = bytes;
                queued.missing += 1;
                let number = self.finished + index as u64;
                let key = self.under_way.insert(Flight { number, volume, pages });
                engine.submit(token(key), op);
            }
            self.cursor.1 += 1;
        }
        self.finish_prefix(volumes)
    }

    fn under_way_bytes_max(&self) -> u64 {
        (self.queued_bytes / IN_FLIGHT_PART).clamp(IN_FLIGHT_BYTES_MIN, IN_FLIGHT_BYTES_MAX)
    }

    pub(super) fn complete(&mut self, key: usize, volumes: &mut [Volume]) {
        let Some(flight) = self.under_way.try_remove(key) else { return };
        self.under_way_bytes -= flight.pages.len();
        let index = usize::try_from(flight.number - self.finished).unwrap_or(usize::MAX);
        if let Some(queued) = self.queue.get_mut(index) {
            queued.missing -= 1;
        }
        self.finish_prefix(volumes);
    }

    fn finish_prefix(&mut self, volumes: &mut [Volume]) -> Option<Lsn> {
        let before = self.applied.lsn;
        while self.cursor.0 > 0 {
            let Some(queued) = self.queue.pop_front_if(|queued| queued.missing == 0) else { break };
            self.cursor.0 -= 1;
            self.finished += 1;
            self.queued_bytes -= queued.frame.log_len();
            self.applied = queued.frame.position_after();
            forget(&queued, volumes);
        }
        (self.applied.lsn > before).then_some(self.applied.lsn)
    }

    pub(super) fn cut(&mut self, end: Lsn) {
        assert!(self.limit <= end, "what was allowed into the stores is never cut");
        while let Some(queued) = self.queue.pop_back_if(|queued| queued.frame.end() > end) {
            self.queued_bytes -= queued.frame.log_len();
        }
    }
}

/// The stores have this frame: the overlay need not answer for it any more.
fn forget(queued: &Queued, volumes: &mut [Volume]) {
    let end = queued.frame.end();
    for record in &queued.records {
        if let Record::Write { volume, range, .. }
        | Record::Zero { volume, range }
        | Record::Trim { volume, range } = record
            && let Some(volume) = volumes.get_mut(usize::from(volume.index()))
        {
            volume.overlay.remove_applied(*range, end);
        }
    }
}

fn operation(record: &Record, volumes: &[Volume]) -> Option<(VolumeIndex, ByteRange, Op)> {
    let (volume, range) = match record {
        Record::Write { volume, range, .. }
        | Record::Zero { volume, range }
        | Record::Trim { volume, range } => (*volume, *range),
        Record::EpochStart { .. } | Record::Handover { .. } | Record::Marker => return None,
    };
    let store = &volumes.get(usize::from(volume.index()))?.store;
    let (offset, len) = (range.start(), range.len());
    let op = match record {
        Record::Write { payload, .. } => {
            let page = ALIGNMENT as u64;
            let whole = offset.is_multiple_of(page) && len.is_multiple_of(page);
            if payload.len() >= BUFFERED_MAX && whole {
                Op::Write { file: store.direct(), offset, data: aligned(payload) }
            } else {
                Op::Write { file: store.buffered(), offset, data: payload.clone() }
            }
        }
        Record::Trim { .. } => Op::Zero { file: store.buffered(), offset, len, punch: true },
        _ => Op::Zero { file: store.buffered(), offset, len, punch: false },
    };
    Some((volume, range, op))
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

fn whole_pages(range: ByteRange) -> ByteRange {
    let page = ALIGNMENT as u64;
    let start = range.start() / page * page;
    let end = range.end().checked_next_multiple_of(page).unwrap_or(u64::MAX);
    ByteRange::new(start, end - start).unwrap_or(range)
}

//! Bringing frames into the stores, in the order of the log.
//!
//! Operations of several frames are under way together, but never two that touch the same page:
//! so overlapping writes land in the order of the log, and direct and buffered access to one page
//! never meet. `applied` is the end of the prefix of frames whose operations have all completed.
//!
//! A change is passed over where later ones that are allowed as well cover all of it. A crash
//! between the two is harmless: the image is made of the log again, from the last checkpoint to at
//! least the recorded limit, and both lie between.

use std::collections::VecDeque;

use hadrian_protocol::frame::{Frame, LogPosition};
use hadrian_protocol::ids::{Lsn, VolumeIndex};
use hadrian_protocol::range::ByteRange;
use hadrian_protocol::time::{WallTime, micros};
use slab::Slab;

use super::Volume;
use super::change::{Change, Fetched, Queued, What, operation, whole_pages};
use super::hold::{FindSpot, Hold, LEFT_COUNT_MAX, Worth};
use crate::engine::{Engine, Op, Token};
use crate::history::{BATCH_BYTES, BATCH_SPAN, Batch, Point};

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

#[derive(Debug)]
pub(super) struct Apply {
    queue: VecDeque<Queued>,
    /// Index in the queue of the frame whose changes are next, and of the next change in it.
    cursor: (usize, usize),
    limit: Lsn,
    applied: LogPosition,
    /// When the frame before that was written; zero where it was applied in an earlier life.
    applied_wall: WallTime,
    /// Memory that the frames in the queue hold.
    memory: u64,
    under_way: Slab<Flight>,
    under_way_bytes: u64,
    /// Frames taken off the queue so far: their numbers are below this.
    finished: u64,
    hold: Hold,
    worth: Worth,
    /// The number of the first frame that was not looked at for being left in the log, and how
    /// many are left there.
    left: (u64, usize),
    /// What of the stores is being changed, where somebody wants to know.
    touched: Option<Vec<(VolumeIndex, ByteRange)>>,
    /// Somebody waits for the stores to have everything that is allowed.
    is_hurried: bool,
}

#[derive(Debug)]
struct Flight {
    number: u64,
    volume: VolumeIndex,
    pages: ByteRange,
    /// It is being fetched from the log, to be written then.
    fetched: Option<Fetched>,
}

/// The log does not hold any more what was written to it.
#[derive(Debug, thiserror::Error)]
#[error("the log does not hold what was written to it, so the store cannot be given it")]
pub(super) struct NotWhatWasWritten;

impl Apply {
    pub(super) fn new(applied: LogPosition) -> Self {
        Self {
            queue: VecDeque::new(),
            cursor: (0, 0),
            limit: applied.lsn,
            applied,
            applied_wall: WallTime::default(),
            memory: 0,
            under_way: Slab::new(),
            under_way_bytes: 0,
            finished: 0,
            hold: Hold::default(),
            worth: Worth::default(),
            left: (0, 0),
            touched: None,
            is_hurried: false,
        }
    }

    /// Everything that is allowed is applied, and nothing is under way.
    pub(super) fn is_quiet(&self) -> bool {
        let waits = self.queue.front().is_some_and(|queued| queued.end() <= self.limit);
        self.under_way.is_empty() && !waits
    }

    pub(super) fn hurry(&mut self, on: bool) {
        self.is_hurried = on;
    }

    pub(super) fn note_touched(&mut self, on: bool) {
        match on {
            true => drop(self.touched.get_or_insert_default()),
            false => self.touched = None,
        }
    }

    pub(super) fn touched(&mut self) -> Vec<(VolumeIndex, ByteRange)> {
        self.touched.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Forgets every frame: the log begins anew, and so do the stores.
    pub(super) fn begin_anew(&mut self, at: LogPosition) {
        assert!(self.under_way.is_empty(), "nothing is applied under a switch");
        let (hold, touched) = (self.hold, self.touched.take().map(|_| Vec::new()));
        *self = Self { hold, touched, ..Self::new(at) };
    }

    pub(super) fn set_hold(&mut self, hold: Hold) {
        self.hold = hold;
    }

    pub(super) fn push(&mut self, frame: &Frame) -> &Queued {
        let queued = Queued::new(frame, self.hold.large_min);
        self.memory += queued.memory();
        self.queue.push_back(queued);
        &self.queue[self.queue.len() - 1]
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
        self.queue.back().map_or(self.applied, |queued| queued.after)
    }

    /// The point that the stores have, while they are quiet.
    pub(super) fn point(&self) -> Point {
        Point { at: self.applied, wall: self.applied_wall }
    }

    /// Whether a frame that ends at or before `limit` waits here.
    pub(super) fn has_to(&self, limit: Lsn) -> bool {
        self.queue.front().is_some_and(|queued| queued.end() <= limit)
    }

    /// The next frames that end at or before `limit`, and the ranges that they change; `size_of` a
    /// volume. None where none of them is here, or while the stores are not quiet.
    pub(super) fn next_batch(
        &self,
        limit: Lsn,
        size_of: impl Fn(VolumeIndex) -> u64,
    ) -> Option<Batch> {
        let from = Some(self.point()).filter(|_| self.is_quiet())?;
        let (mut to, mut ranges, mut bytes) = (from, Vec::new(), 0_u64);
        let (first, mut name) = (self.queue.front()?.wall.as_micros(), None);
        for queued in self.queue.iter().take_while(|queued| queued.end() <= limit) {
            let span = queued.wall.as_micros().saturating_sub(first);
            if to != from && (bytes >= BATCH_BYTES || span > micros(BATCH_SPAN)) {
                break;
            }
            let touched = queued.changes.iter().map(|c| (c.volume, whole_pages(c.range)));
            for (volume, range) in touched {
                let end = range.end().min(size_of(volume));
                let inside = ByteRange::new(range.start(), end.saturating_sub(range.start()));
                ranges.extend(inside.ok().map(|range| (volume, range)));
                bytes = bytes.saturating_add(range.len());
            }
            to = Point { at: queued.after, wall: queued.wall };
            name.clone_from(&queued.name);
            // A point with a name is one at which the image can be read.
            if name.is_some() {
                break;
            }
        }
        (to != from).then(|| Batch { from, to, name, ranges: joined(ranges) })
    }

    pub(super) fn memory(&self) -> u64 {
        self.memory
    }

    /// Bytes of log that wait for the stores.
    pub(super) fn waiting(&self) -> u64 {
        self.queue_end().lsn.since(self.applied.lsn)
    }

    /// Whether new changes are to wait a little, because the stores have to catch up.
    pub(super) fn is_slowed(&self) -> bool {
        self.worth.is_slowed(self.waiting())
    }

    pub(super) fn queued(&self) -> impl Iterator<Item = &Queued> {
        self.queue.iter()
    }

    /// Begins as many operations as may be under way; returns the new watermark if frames without
    /// any operation moved it.
    pub(super) fn advance<E: Engine>(
        &mut self,
        engine: &mut E,
        volumes: &mut [Volume],
        token: impl Fn(usize) -> Token,
    ) -> Option<Lsn> {
        let bytes_max =
            (self.memory / IN_FLIGHT_PART).clamp(IN_FLIGHT_BYTES_MIN, IN_FLIGHT_BYTES_MAX);
        let waits = self.may_wait();
        while self.under_way.len() < IN_FLIGHT_MAX {
            let (index, change_index) = self.cursor;
            let Some(queued) = self.queue.get_mut(index) else { break };
            if queued.end() > self.limit || (waits && queued.large.is_some()) {
                break;
            }
            let Some(change) = queued.changes.get(change_index) else {
                self.cursor = (index + 1, 0);
                continue;
            };
            let len = change.range.len();
            if is_covered(change, volumes, queued.end(), self.limit) {
                self.worth.covered(len);
            } else if let Some((op, fetched)) = operation(change, volumes) {
                let (volume, pages) = (change.volume, whole_pages(change.range));
                let clash =
                    |flight: &Flight| flight.volume == volume && flight.pages.overlaps(pages);
                let bytes = self.under_way_bytes + pages.len();
                let full = !self.under_way.is_empty() && bytes > bytes_max;
                if full || self.under_way.iter().any(|(_, flight)| clash(flight)) {
                    break;
                }
                self.worth.written(if queued.large.is_some() { len } else { 0 });
                self.under_way_bytes = bytes;
                queued.missing += 1;
                let number = self.finished + index as u64;
                self.touched.iter_mut().for_each(|touched| touched.push((volume, pages)));
                let key = self.under_way.insert(Flight { number, volume, pages, fetched });
                engine.submit(token(key), op);
            }
            self.cursor.1 += 1;
        }
        self.finish_prefix(volumes)
    }

    /// Whether a large change at the front stays in the log for now.
    fn may_wait(&self) -> bool {
        !self.is_hurried
            && self.waiting() <= self.hold.log_bytes
            && self.left.1 < LEFT_COUNT_MAX
            && !self.worth.is_given_up()
            && self.memory <= 2 * self.hold.memory_bytes
    }

    /// Takes the end of an operation: what was fetched from the log is written now.
    pub(super) fn complete<E: Engine>(
        &mut self,
        engine: &mut E,
        (key, token): (usize, Token),
        op: Op,
        volumes: &mut [Volume],
    ) -> Result<(), NotWhatWasWritten> {
        let Some(flight) = self.under_way.get_mut(key) else { return Ok(()) };
        if let Some(fetched) = flight.fetched.take() {
            engine.submit(token, fetched.write(op).ok_or(NotWhatWasWritten)?);
            return Ok(());
        }
        let flight = self.under_way.remove(key);
        self.under_way_bytes -= flight.pages.len();
        self.touched.iter_mut().for_each(|touched| touched.push((flight.volume, flight.pages)));
        let index = usize::try_from(flight.number - self.finished).unwrap_or(usize::MAX);
        if let Some(queued) = self.queue.get_mut(index) {
            queued.missing -= 1;
        }
        self.finish_prefix(volumes);
        Ok(())
    }

    fn finish_prefix(&mut self, volumes: &mut [Volume]) -> Option<Lsn> {
        let before = self.applied.lsn;
        while self.cursor.0 > 0 {
            let Some(queued) = self.queue.pop_front_if(|queued| queued.missing == 0) else { break };
            self.cursor.0 -= 1;
            self.finished += 1;
            self.memory -= queued.memory();
            self.left.1 -= usize::from(queued.is_left);
            (self.applied, self.applied_wall) = (queued.after, queued.wall);
            forget(&queued, volumes);
        }
        let moved = self.applied.lsn > before;
        if moved {
            let (bytes, waiting) = (self.applied.lsn.since(before), self.waiting());
            self.worth.advanced(bytes, waiting, self.hold.memory_bytes);
        }
        moved.then_some(self.applied.lsn)
    }

    /// Leaves large changes in the log alone, the oldest first, until the rest needs no more memory
    /// than it may. `written` is how far the log can be read.
    pub(super) fn leave(&mut self, volumes: &mut [Volume], written: Lsn, find: FindSpot<'_>) {
        if !self.worth.may_leave() {
            return;
        }
        // What is under way holds its memory anyway.
        self.left.0 = self.left.0.max(self.finished + self.cursor.0 as u64 + 1);
        while self.memory > self.hold.memory_bytes && self.left.1 < LEFT_COUNT_MAX {
            let index = usize::try_from(self.left.0 - self.finished).unwrap_or(usize::MAX);
            let Some(queued) = self.queue.get_mut(index) else { break };
            if queued.end() > written {
                break;
            }
            let memory = queued.memory();
            if leave_one(queued, volumes, find) {
                self.memory -= memory;
                self.left.1 += 1;
            }
            self.left.0 += 1;
        }
    }

    pub(super) fn cut(&mut self, end: Lsn) {
        assert!(self.limit <= end, "what was allowed into the stores is never cut");
        while let Some(queued) = self.queue.pop_back_if(|queued| queued.end() > end) {
            self.memory -= queued.memory();
            self.left.1 -= usize::from(queued.is_left);
        }
        self.left.0 = self.left.0.min(self.finished + self.queue.len() as u64);
    }
}

/// The same ranges in order, and those that overlap or touch as one.
fn joined(mut ranges: Vec<(VolumeIndex, ByteRange)>) -> Vec<(VolumeIndex, ByteRange)> {
    ranges.sort_by_key(|(volume, range)| (*volume, range.start()));
    let mut joined: Vec<(VolumeIndex, ByteRange)> = Vec::with_capacity(ranges.len());
    for (volume, range) in ranges {
        match joined.last_mut() {
            Some((of, last)) if *of == volume && range.start() <= last.end() => {
                let end = last.end().max(range.end());
                *last = ByteRange::new(last.start(), end - last.start()).unwrap_or(*last);
            }
            _ => joined.push((volume, range)),
        }
    }
    joined
}

/// Whether later changes that are allowed too cover all of `change`, which belongs to the frame
/// that ends at `end`.
fn is_covered(change: &Change, volumes: &[Volume], end: Lsn, limit: Lsn) -> bool {
    let volume = volumes.get(usize::from(change.volume.index()));
    volume.is_some_and(|volume| volume.overlay.is_covered(change.range, end, limit))
}

/// Gives up the memory of a large change, if its payload lies in one file of the log.
fn leave_one(queued: &mut Queued, volumes: &mut [Volume], find: FindSpot<'_>) -> bool {
    let (Some((at, crc)), end) = (queued.large, queued.end()) else { return false };
    let Some(change) = queued.changes.first_mut() else { return false };
    let len = usize::try_from(change.range.len()).unwrap_or(usize::MAX);
    let (Some(spot), Some(volume)) =
        (find(at, len), volumes.get_mut(usize::from(change.volume.index())))
    else {
        return false;
    };
    volume.overlay.leave(change.range, spot, end);
    change.what = What::Logged(spot, crc);
    queued.is_left = true;
    true
}

/// The stores have this frame: the overlay need not answer for it any more.
fn forget(queued: &Queued, volumes: &mut [Volume]) {
    for change in &queued.changes {
        if let Some(volume) = volumes.get_mut(usize::from(change.volume.index())) {
            volume.overlay.remove_applied(change.range, queued.end());
        }
    }
}

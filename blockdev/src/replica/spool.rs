//! What a replica has received and cannot apply yet, beyond what it keeps in memory.
//!
//! Every frame is in the log anyway. A standby that may not apply for long (a delay, a slow store)
//! keeps the oldest frames in memory, where the volumes apply them, and reads the rest back from
//! its log when there is room: so what it can receive is bounded by its log, not by its memory
//! (design §4, §10). While something is left in the log the overlay does not know it, so nobody
//! is served then.

use std::io;

use hadrian_protocol::frame::{Frame, LogPosition};
use hadrian_protocol::ids::Lsn;
use hadrian_protocol::node::FailedPart;

use super::{LOG_READ_MAX, Replica, ReplicaEvent};
use crate::engine::Engine;
use crate::journal::ReadError;
use crate::volume::Hold;

/// Bytes of frames that a replica which serves nobody keeps in memory.
pub(super) const MEMORY_MAX: u64 = 112 << 20;

/// Under this number the log is read for the spool; sessions count up from zero.
pub(super) const SPOOL_READ: u64 = u64::MAX;

impl<E: Engine> Replica<E> {
    /// How much may wait for the stores; see [`Hold`]. At most half of the log does.
    pub fn set_hold(&mut self, hold: Hold) {
        let log_bytes = hold.log_bytes.min(self.journal.capacity() / 2);
        let before = self.volumes.applied().lsn;
        self.volumes.set_hold(&mut self.engine, Hold { log_bytes, ..hold });
        self.tell_applied(before);
    }

    /// Whether new changes are to wait a little, because the stores have to catch up.
    #[must_use]
    pub fn is_slowed(&self) -> bool {
        self.volumes.is_slowed()
    }

    /// Bytes of log behind what the stores have: frames that are not allowed into them yet, that
    /// are on their way, or that wait.
    #[must_use]
    pub fn waiting_bytes(&self) -> u64 {
        self.volumes.waiting_bytes()
    }

    /// Whether frames that wait for the image may be left in the log, because nobody reads here.
    pub fn leave_in_log(&mut self, leave: bool) {
        self.spool.set_open(leave);
    }

    /// Most bytes of frames that are kept in memory while others may be left in the log.
    pub fn set_spool_memory(&mut self, bytes: u64) {
        self.spool.set_memory(bytes);
    }

    /// Bytes of frames that wait for the image in the log alone: until there are none, nothing
    /// can be read here.
    #[must_use]
    pub fn spooled_bytes(&self) -> u64 {
        self.spool.bytes(self.volumes.queue_end().lsn)
    }

    /// Brings back what was left in the log, when there is room for it in memory.
    pub(super) fn read_spool(&mut self) {
        let (from, in_memory) = (self.volumes.queue_end().lsn, self.volumes.unapplied_bytes());
        if !self.spool.wants(from, in_memory, self.journal.written()) {
            return;
        }
        // Refused where too many reads are under way: then it is tried again with the next event.
        if self.journal.read(&mut self.engine, from, LOG_READ_MAX, SPOOL_READ).is_ok() {
            self.spool.begun();
            self.engine.kick();
            self.take_journal_events();
        }
    }

    pub(super) fn spool_read(&mut self, result: Result<Vec<Frame>, ReadError>) {
        // The log was cut or begun anew since: whatever was wrong there is of the past.
        let frames = match result {
            Err(_) if self.spool.reading == Reading::Stale => Ok(Vec::new()),
            other => other.map_err(io::Error::other),
        };
        let memory = self.volumes.queue_end();
        let taken =
            frames.and_then(|frames| self.spool.take(frames, memory).map_err(io::Error::other));
        match taken {
            Ok(frames) => {
                frames.iter().for_each(|frame| self.volumes.push(frame));
                let limit = self.volumes.limit().max(self.history.wanted());
                self.apply_to(limit);
            }
            Err(error) => self.ready.push(ReplicaEvent::Failed(FailedPart::Log, error)),
        }
    }
}

/// The part of the log that memory does not hold: from the end of what it holds to `end`.
#[derive(Debug)]
pub(super) struct Spool {
    memory_max: u64,
    /// Frames may be left in the log: nobody reads.
    open: bool,
    /// None: memory holds everything.
    end: Option<Lsn>,
    reading: Reading,
}

/// The one read of the log that may be under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reading {
    No,
    Yes,
    /// The log was cut since it began: what it brings may be of the past.
    Stale,
}

/// Frames were read back that do not follow on what memory holds.
#[derive(Debug, thiserror::Error)]
#[error("the log at {at} does not hold what was written there")]
pub(super) struct NotWhatWasWritten {
    at: Lsn,
}

impl Default for Spool {
    fn default() -> Self {
        Self { memory_max: MEMORY_MAX, open: true, end: None, reading: Reading::No }
    }
}

impl Spool {
    pub(super) fn set_memory(&mut self, bytes: u64) {
        self.memory_max = bytes;
    }

    /// Whether frames may be left in the log from here on. What is there already is read back
    /// either way.
    pub(super) fn set_open(&mut self, open: bool) {
        self.open = open;
    }

    /// Bytes of log behind `memory_end`.
    pub(super) fn bytes(&self, memory_end: Lsn) -> u64 {
        self.end.map_or(0, |end| end.since(memory_end))
    }

    /// Leaves a new frame in the log, if it does not fit into memory beside `in_memory` bytes, or
    /// if frames before it do not. Says whether it did.
    pub(super) fn leaves(&mut self, frame: &Frame, in_memory: u64) -> bool {
        let full = self.open && in_memory + frame.log_len() > self.memory_max;
        let left = full || self.end.is_some();
        if left {
            self.end = Some(frame.end());
        }
        left
    }

    /// Whether a read is to begin at the end of what memory holds; `readable` is the end of the
    /// log that can be read.
    pub(super) fn wants(&self, memory_end: Lsn, in_memory: u64, readable: Lsn) -> bool {
        let room = in_memory <= self.memory_max / 2;
        self.end.is_some() && self.reading == Reading::No && room && readable > memory_end
    }

    pub(super) fn begun(&mut self) {
        self.reading = Reading::Yes;
    }

    /// The read has ended: which of its frames continue what memory holds.
    pub(super) fn take(
        &mut self,
        frames: Vec<Frame>,
        mut memory: LogPosition,
    ) -> Result<Vec<Frame>, NotWhatWasWritten> {
        let stale = std::mem::replace(&mut self.reading, Reading::No) == Reading::Stale;
        let Some(end) = self.end.filter(|_| !stale) else { return Ok(Vec::new()) };
        let mut taken = Vec::with_capacity(frames.len());
        for frame in frames.into_iter().take_while(|frame| frame.end() <= end) {
            if frame.lsn() != memory.lsn || !frame.follows(memory.chain) {
                return Err(NotWhatWasWritten { at: memory.lsn });
            }
            memory = frame.position_after();
            taken.push(frame);
        }
        if memory.lsn >= end {
            self.end = None;
        }
        Ok(taken)
    }

    /// The log was cut at `end`.
    pub(super) fn cut(&mut self, end: Lsn, memory_end: Lsn) {
        if self.reading == Reading::Yes {
            self.reading = Reading::Stale;
        }
        self.end = self.end.map(|old| old.min(end)).filter(|end| *end > memory_end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hadrian_protocol::frame::{Draft, HEAD_LEN, SealAs};
    use hadrian_protocol::ids::{Epoch, MemberId, ResourceId};
    use hadrian_protocol::time::WallTime;

    fn resource() -> ResourceId {
        ResourceId::derive("orders", "db")
    }

    /// Frames of one page each, from the start of a log.
    fn frames(count: usize) -> Vec<Frame> {
        let mut before = LogPosition::genesis(resource());
        let mut all = Vec::new();
        for _ in 0..count {
            let mut draft = Draft::new(vec![0; HEAD_LEN]);
            draft.marker().unwrap();
            let frame = draft.seal(SealAs {
                resource: resource(),
                epoch: Epoch::NONE_YET,
                lsn: before.lsn,
                durable: before.lsn,
                wall: WallTime::default(),
                author: MemberId::new(0).unwrap(),
                before: before.chain,
            });
            before = frame.position_after();
            all.push(frame);
        }
        all
    }

    fn spool(pages: u64) -> Spool {
        Spool { memory_max: pages * HEAD_LEN as u64, ..Spool::default() }
    }

    #[test]
    fn what_does_not_fit_into_memory_stays_in_the_log_and_everything_behind_it() {
        let (mut spool, all) = (spool(2), frames(4));
        let page = HEAD_LEN as u64;
        assert!(!spool.leaves(&all[0], 0) && !spool.leaves(&all[1], page));
        assert!(spool.leaves(&all[2], 2 * page));
        assert!(spool.leaves(&all[3], 0), "its turn comes after the one before it");
        assert_eq!(spool.bytes(all[1].end()), 2 * page);
    }

    #[test]
    fn a_replica_that_serves_leaves_nothing_in_the_log() {
        let (mut spool, all) = (spool(1), frames(1));
        spool.set_open(false);
        assert!(!spool.leaves(&all[0], 1 << 30));
    }

    #[test]
    fn frames_come_back_in_order_until_memory_holds_everything() {
        let (mut spool, all) = (spool(2), frames(4));
        assert!(spool.leaves(&all[2], 1 << 20) && spool.leaves(&all[3], 0));
        let (memory, end) = (all[1].position_after(), all[3].end());
        assert!(!spool.wants(memory.lsn, 1 << 20, end), "no room");
        assert!(!spool.wants(memory.lsn, 0, memory.lsn), "not written yet");
        assert!(spool.wants(memory.lsn, 0, end));
        spool.begun();
        assert!(!spool.wants(memory.lsn, 0, end), "one read at a time");
        assert_eq!(spool.take(vec![all[2].clone()], memory).unwrap().len(), 1);
        assert!(spool.end.is_some());
        spool.begun();
        assert_eq!(spool.take(vec![all[3].clone()], all[2].position_after()).unwrap().len(), 1);
        assert_eq!(spool.end, None);
    }

    #[test]
    fn what_was_read_before_a_cut_is_thrown_away() {
        let (mut spool, all) = (spool(2), frames(4));
        assert!(spool.leaves(&all[2], 1 << 20) && spool.leaves(&all[3], 0));
        let memory = all[1].position_after();
        spool.begun();
        spool.cut(all[2].end(), memory.lsn);
        assert!(spool.take(all[2..].to_vec(), memory).unwrap().is_empty());
        assert_eq!(spool.bytes(memory.lsn), HEAD_LEN as u64);
        spool.cut(memory.lsn, memory.lsn);
        assert_eq!(spool.end, None);
    }

    #[test]
    fn a_log_that_holds_something_else_is_noticed() {
        let (mut spool, all) = (spool(2), frames(4));
        assert!(spool.leaves(&all[2], 1 << 20) && spool.leaves(&all[3], 0));
        spool.begun();
        assert!(spool.take(vec![all[3].clone()], all[1].position_after()).is_err());
    }
}

//! The replica's own log as the core knows it: its end, its watermarks, its newest frames.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::NodeConfig;
use super::recording;
use super::trail::Trail;
use crate::frame::{Draft, Frame, FrameBuffer, LogPosition, SealAs};
use crate::ids::{Lsn, MemberId};
use crate::replica::ReplicaState;
use crate::resync::Span;
use crate::time::{Clock, Now, WallTime};

/// What recovery found in a replica's log (design §2.3).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recovered {
    /// The end of the readable log.
    pub end: LogPosition,
    /// How much of it is known to be durable now.
    pub durable: Lsn,
    /// The oldest position that the log still holds.
    pub start: Lsn,
    /// The first frame of every epoch that was found behind the checkpoint, with the point before
    /// it: the superblock may not know the newest ones.
    #[serde(with = "recording::as_placed_heads")]
    pub epoch_starts: Vec<(LogPosition, Frame)>,
    /// What the dirty maps of other members say (design §2.6).
    #[serde(default)]
    pub maps: Vec<(MemberId, Span)>,
}

/// The log: received ≥ written ≥ durable ≥ applied ≥ checkpointed (I9).
#[derive(Clone, Debug)]
pub(super) struct Log {
    end: LogPosition,
    start: Lsn,
    written: Lsn,
    durable: Lsn,
    applied: Lsn,
    /// Somebody waits until it is durable to here.
    wanted: Lsn,
    /// A sync was asked for when this much was written.
    sync_asked: Lsn,
    /// Since when something is unsynced.
    unsynced_since: Option<Now>,
    tail: VecDeque<Frame>,
    tail_bytes: u64,
    trail: Trail,
    newest_wall: Option<WallTime>,
}

impl Log {
    pub(super) fn new(state: &mut ReplicaState, recovered: Recovered, clock: Clock) -> Self {
        let Recovered { end, durable, start, epoch_starts, .. } = recovered;
        // The superblock may be ahead of the log (its epoch's start was lost) or behind it.
        state.history.truncate(end.lsn);
        for (position, frame) in &epoch_starts {
            state.history.note(*position, frame);
        }
        let applied = state.apply_limit.min(end.lsn);
        // What was there before counts as if it had come just now.
        let mut trail = Trail::default();
        trail.grow(end.lsn, clock.now, clock.wall);
        Self {
            end,
            start,
            written: end.lsn,
            durable: durable.min(end.lsn).max(applied),
            applied,
            wanted: Lsn::START,
            sync_asked: Lsn::START,
            unsynced_since: None,
            tail: VecDeque::new(),
            tail_bytes: 0,
            trail,
            newest_wall: None,
        }
    }

    pub(super) fn end(&self) -> LogPosition {
        self.end
    }

    /// When which part of it came.
    pub(super) fn trail(&self) -> &Trail {
        &self.trail
    }

    /// When the newest frame was written, by its author's wall clock.
    pub(super) fn wall(&self) -> Option<WallTime> {
        self.newest_wall
    }

    pub(super) fn start(&self) -> Lsn {
        self.start
    }

    pub(super) fn written(&self) -> Lsn {
        self.written
    }

    pub(super) fn durable(&self) -> Lsn {
        self.durable
    }

    pub(super) fn applied(&self) -> Lsn {
        self.applied
    }

    pub(super) fn wanted(&self) -> Lsn {
        self.wanted
    }

    pub(super) fn seal<B: FrameBuffer>(
        &self,
        state: &ReplicaState,
        clock: Clock,
        draft: Draft<B>,
    ) -> Frame {
        draft.seal(SealAs {
            resource: state.resource,
            epoch: state.promised,
            lsn: self.end.lsn,
            durable: self.durable,
            wall: clock.wall,
            author: state.member,
            before: self.end.chain,
        })
    }

    pub(super) fn push(&mut self, frame: &Frame, config: &NodeConfig, now: Now) {
        assert_eq!(frame.lsn(), self.end.lsn, "frames join at the end of the log");
        self.end = frame.position_after();
        self.newest_wall = Some(frame.wall());
        self.trail.grow(self.end.lsn, now, frame.wall());
        self.unsynced_since.get_or_insert(now);
        self.tail_bytes += frame.log_len();
        self.tail.push_back(frame.clone());
        while self.tail_bytes > config.tail_bytes && self.tail.len() > 1 {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(frame) = self.tail.pop_front() {
            self.tail_bytes -= frame.log_len();
        }
    }

    /// Bytes of the frames in memory.
    pub(super) fn recent_bytes(&self) -> u64 {
        self.tail_bytes
    }

    /// The newest frame.
    pub(super) fn newest(&self) -> Option<&Frame> {
        self.tail.back()
    }

    /// The frame at `lsn`, where it is still in memory.
    pub(super) fn recent(&self, lsn: Lsn) -> Option<&Frame> {
        let index = self.tail.partition_point(|frame| frame.lsn() < lsn);
        self.tail.get(index).filter(|frame| frame.lsn() == lsn)
    }

    pub(super) fn want(&mut self, lsn: Lsn) {
        self.wanted = self.wanted.max(lsn.min(self.end.lsn));
    }

    pub(super) fn written_to(&mut self, lsn: Lsn) {
        assert!(lsn <= self.end.lsn, "the log cannot be written past its end");
        self.written = self.written.max(lsn);
    }

    pub(super) fn durable_to(&mut self, lsn: Lsn, now: Now) {
        assert!(lsn <= self.end.lsn, "the log cannot be durable past its end");
        self.durable = self.durable.max(lsn);
        self.unsynced_since = (self.durable < self.end.lsn).then_some(now);
    }

    pub(super) fn applied_to(&mut self, lsn: Lsn) {
        assert!(lsn <= self.durable, "nothing is applied before it is durable (design §2.2)");
        self.applied = self.applied.max(lsn);
    }

    pub(super) fn released_to(&mut self, lsn: Lsn) {
        self.start = self.start.max(lsn);
    }

    /// The log was cut; only what was never applied can be.
    pub(super) fn cut(&mut self, end: LogPosition) {
        assert!(self.applied <= end.lsn, "what was applied is never cut (design §2.5)");
        self.end = end;
        self.trail.cut(end.lsn);
        self.written = self.written.min(end.lsn);
        self.durable = end.lsn;
        self.wanted = self.wanted.min(end.lsn);
        self.sync_asked = self.sync_asked.min(end.lsn);
        while self.tail.back().is_some_and(|frame| frame.end() > end.lsn) {
            if let Some(frame) = self.tail.pop_back() {
                self.tail_bytes -= frame.log_len();
            }
        }
    }

    /// Whether to sync now; a sync covers what is written when it is asked for.
    pub(super) fn sync_due(&mut self, config: &NodeConfig, now: Now) -> bool {
        let wanted = self.durable < self.wanted && self.written >= self.wanted;
        let big = self.written.since(self.durable.max(self.sync_asked)) >= config.sync_bytes;
        let old = self.deadline(config).is_some_and(|deadline| deadline <= now);
        let fresh = self.written > self.durable.max(self.sync_asked);
        let due = fresh && (wanted || big || old);
        if due {
            self.sync_asked = self.written;
        }
        due
    }

    pub(super) fn deadline(&self, config: &NodeConfig) -> Option<Now> {
        // A sync that is under way makes the rest wait for its end.
        let waiting = self.written > self.durable.max(self.sync_asked);
        self.unsynced_since.filter(|_| waiting).map(|since| since.after(config.log_sync_interval))
    }
}

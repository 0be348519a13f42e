//! Appending: any number of writes under way, three watermarks, and group sync.
//!
//! *Written* is the end of the longest prefix of frames whose writes have all completed. *Kept* is
//! the same, where a frame also counts that the tail has a copy of. *Durable*
//! is what was written when the last successful sync round was submitted: a round never speaks
//! for a write that completed after it began (I8). One round is under way at a time; requests
//! that come meanwhile share the next.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;

use hadrian_protocol::frame::{Frame, LogPosition};
use hadrian_protocol::ids::Lsn;

use super::layout::Segments;
use super::recovery::UNSYNCED_BYTES_MAX;
use super::tail::Tail;
use crate::engine::{Engine, FileId, Op, TokenSpace};

/// Why a frame was not appended. Nothing was changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The log has no room; ask [`super::Journal::room`] first, and release or sync to get some.
    #[error("the log has room for {room} bytes, the frame takes {need}")]
    Full {
        /// What is free, in bytes.
        room: u64,
        /// What the frame takes, in bytes.
        need: u64,
    },
    /// The frame is not the next of this history.
    #[error("the frame at {found} does not follow on the log, which ends at {end}")]
    NotNext {
        /// Where the frame says that it begins.
        found: Lsn,
        /// Where the log ends.
        end: Lsn,
    },
    /// The tail is being truncated; append when [`super::JournalEvent::Truncated`] was reported.
    #[error("the log's tail is being truncated")]
    Truncating,
    /// A write or sync of the log failed before; that is final (design §2.7).
    #[error("the log failed before; restart the replica once its disk is in order")]
    Failed,
}

/// A frame whose writes are under way.
#[derive(Debug)]
struct Pending {
    end: Lsn,
    parts_left: usize,
    bytes: Bytes,
}

#[derive(Debug)]
struct Round {
    target: Lsn,
    parts_left: usize,
}

/// The end of the log and what of it is written and durable.
#[derive(Debug)]
pub(super) struct Writer {
    tokens: TokenSpace,
    write_kind: u8,
    sync_kind: u8,
    pending: VecDeque<Pending>,
    /// The number of the first pending frame; the others follow.
    first_number: u64,
    end: LogPosition,
    written: Lsn,
    kept: Lsn,
    durable: Lsn,
    round: Option<Round>,
    rounds: u64,
    /// The earliest position that was asked to be durable and that no round covers.
    wanted: Option<Lsn>,
    /// The latest such position.
    wanted_last: Lsn,
}

impl Writer {
    /// A writer behind `end`, everything before it being durable.
    pub(super) fn new(tokens: TokenSpace, kinds: (u8, u8), end: LogPosition) -> Self {
        Self {
            tokens,
            write_kind: kinds.0,
            sync_kind: kinds.1,
            pending: VecDeque::new(),
            first_number: 0,
            end,
            written: end.lsn,
            kept: end.lsn,
            durable: end.lsn,
            round: None,
            rounds: 0,
            wanted: None,
            wanted_last: end.lsn,
        }
    }

    pub(super) fn end(&self) -> LogPosition {
        self.end
    }

    pub(super) fn written(&self) -> Lsn {
        self.written
    }

    /// Everything before this survives the end of the process.
    pub(super) fn kept(&self) -> Lsn {
        self.kept.max(self.written)
    }

    pub(super) fn durable(&self) -> Lsn {
        self.durable
    }

    /// Whether nothing is under way and everything is durable.
    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.round.is_none() && self.durable == self.end.lsn
    }

    /// Bytes that can be appended now.
    pub(super) fn room(&self, segments: &Segments) -> u64 {
        let unsynced = self.end.lsn.since(self.durable);
        let free = segments.end().since(self.end.lsn);
        free.min(UNSYNCED_BYTES_MAX.saturating_sub(unsynced))
    }

    pub(super) fn append<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        segments: &Segments,
        frame: &Frame,
    ) -> Result<(), AppendError> {
        let end = self.end.lsn;
        if frame.lsn() != end || !frame.follows(self.end.chain) {
            let found = frame.lsn();
            return Err(AppendError::NotNext { found, end });
        }
        let (room, need) = (self.room(segments), frame.log_len());
        let bytes = frame.log_bytes();
        let pieces = segments.pieces(end, bytes.len());
        let Some(pieces) = pieces.filter(|_| need <= room) else {
            return Err(AppendError::Full { room, need });
        };
        let number = self.first_number + self.pending.len() as u64;
        let parts_left = pieces.len();
        self.pending.push_back(Pending { end: frame.end(), parts_left, bytes: bytes.clone() });
        self.end = frame.position_after();
        for piece in pieces {
            let op = Op::Write {
                file: piece.file,
                offset: piece.offset,
                data: bytes.slice(piece.skip..piece.skip + piece.len),
            };
            engine.submit(self.tokens.token(self.write_kind, number), op);
        }
        Ok(())
    }

    /// Copies into the tail what it takes of the frames whose writes are under way, in order: up to
    /// the first that it does not take, for a later one alone would be worth nothing.
    pub(super) fn keep<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        tail: &Tail,
    ) -> io::Result<()> {
        let from = self.kept();
        let new = self.pending.partition_point(|frame| frame.end <= from);
        for frame in self.pending.range(new..) {
            if !tail.takes(&frame.bytes, frame.end, self.written, self.pending.len()) {
                break;
            }
            tail.keep(engine, self.kept.max(self.written), &frame.bytes)?;
            self.kept = frame.end;
        }
        Ok(())
    }

    /// One part of frame `number` is written; the new watermark, if it moved.
    pub(super) fn wrote(
        &mut self,
        segments: &mut Segments,
        number: u64,
        file: FileId,
    ) -> Option<Lsn> {
        // Only now, and not at submission: a round must not clear the mark of a write that
        // completes after it.
        segments.mark_dirty(file);
        let index = usize::try_from(number - self.first_number).unwrap_or(usize::MAX);
        let Some(pending) = self.pending.get_mut(index) else {
            unreachable!("a frame stays pending until all its writes have completed")
        };
        pending.parts_left -= 1;
        let before = self.written;
        while let Some(first) = self.pending.front().filter(|first| first.parts_left == 0) {
            self.written = first.end;
            self.first_number += 1;
            self.pending.pop_front();
        }
        (self.written > before).then_some(self.written)
    }

    /// Asks for everything appended so far to become durable.
    pub(super) fn want_sync(&mut self) -> Lsn {
        let end = self.end.lsn;
        if end > self.durable {
            self.wanted.get_or_insert(end);
            self.wanted_last = end;
        }
        end
    }

    /// Begins a sync round if one is asked for, none is under way, and what the first who asked
    /// wants is written. Later requests do not put that moment off.
    pub(super) fn sync_if_due<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        segments: &mut Segments,
    ) {
        let due = self.wanted.is_some_and(|wanted| wanted <= self.written);
        if !due || self.round.is_some() {
            return;
        }
        let target = self.written;
        self.wanted = (self.wanted_last > target).then_some(self.wanted_last);
        if target <= self.durable {
            return;
        }
        self.rounds += 1;
        let token = self.tokens.token(self.sync_kind, self.rounds);
        let mut parts_left = 0;
        for segment in segments.iter_mut().filter(|segment| segment.dirty) {
            segment.dirty = false;
            parts_left += 1;
            engine.submit(token, Op::Sync { file: segment.file });
        }
        assert!(parts_left > 0, "what is written and not durable is dirty");
        self.round = Some(Round { target, parts_left });
    }

    /// One file of the round is synced; the new watermark, if that was the last.
    pub(super) fn synced(&mut self) -> Option<Lsn> {
        let round = self.round.as_mut()?;
        round.parts_left -= 1;
        if round.parts_left > 0 {
            return None;
        }
        self.durable = round.target;
        self.round = None;
        Some(self.durable)
    }

    /// The log ends at `to` now, durably.
    pub(super) fn cut_back(&mut self, to: LogPosition) {
        assert!(self.is_settled(), "a tail is cut off when nothing moves");
        self.end = to;
        self.written = to.lsn;
        self.kept = to.lsn;
        self.durable = to.lsn;
        self.wanted = None;
        self.wanted_last = to.lsn;
    }
}

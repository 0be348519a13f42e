//! The journal: a replica's log on its disk.
//!
//! ```text
//! REPLICA/log/format                    how the log is laid out; there when creation is finished
//! REPLICA/log/0000000000000000.seg      preallocated segments, named by their first position
//! REPLICA/log/0000000004000000.seg
//! REPLICA/log/truncating, truncated     the record of a truncation, under way or done
//! ```
//!
//! [`Journal`] is a state machine over [`Engine`] operations: calls submit them, the owner hands
//! each [`Completion`] to [`Journal::complete`] and fetches what came of it with
//! [`Journal::poll_event`]. Nothing blocks but [`Journal::open`] and [`create`], so a test can
//! lose power between any two operations, and does.
//!
//! Order is what makes it safe, so each part says which crash its order survives: `writer` for
//! the watermarks, `recovery` for the end of the log, `truncate` for cutting off a tail.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod ahead;
mod create;
pub mod inspect;
mod layout;
mod open;
mod reader;
mod recovery;
mod reset;
mod sheet;
mod streams;
mod tail;
mod truncate;
mod writer;

pub use create::{CreateError, NewLog, create};
pub use layout::{
    ALIGN, LOG_DIR, SEGMENT_COUNT_MAX, SEGMENT_COUNT_MIN, SEGMENT_LEN_MAX, SEGMENT_LEN_MIN, Spot,
    parse_segment_name, segment_name,
};
pub use open::{KnownDurable, OpenError, OpenLog, Recovered, fuzz};
pub use reader::{BadFrame, CHUNK_LEN, ReadError};
pub use recovery::{Damage, UNSYNCED_BYTES_MAX, Witness};
pub(crate) use reset::reset;
pub use sheet::SheetError;
pub(crate) use sheet::quarantine_sheet;
pub use truncate::TruncateError;
pub use writer::AppendError;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use hadrian_protocol::frame::{Frame, LogPosition};
use hadrian_protocol::ids::{Lsn, ResourceId};

use crate::engine::{Completion, Engine, FileId, Op, TokenSpace};
use crate::resync::LogPart;
use layout::{Segment, Segments};
use reader::Ended;
use streams::{STREAMS_MAX, Streams};
use tail::Tail;
use truncate::{Progress, Truncation};
use writer::Writer;

const KIND_WRITE: u8 = 1;
const KIND_SYNC: u8 = 2;
const KIND_RENAME: u8 = 3;
const KIND_READ: u8 = 4;
const KIND_TRUNCATE: u8 = 5;

/// What came of an operation of the journal.
#[derive(Debug)]
pub enum JournalEvent {
    /// Everything before this position has left the process: it survives a `kill -9`.
    Written(Lsn),
    /// Everything before this position is on stable storage.
    Durable(Lsn),
    /// A recycled segment is ready ahead; [`Journal::room`] has grown.
    SegmentReady,
    /// A read has ended.
    ReadDone {
        /// The caller's number for it.
        number: u64,
        /// Frames that follow on each other, the first at the position asked for. Empty where the
        /// position is the end of what is written.
        result: Result<Vec<Frame>, ReadError>,
    },
    /// The log ends here now, durably.
    Truncated(LogPosition),
    /// The truncation was given up before it changed anything.
    NotTruncated(TruncateError),
    /// Final (design §2.7); reported once, and nothing but reads is done any more.
    Failed(JournalFailure),
}

/// A write, sync or rename of the log failed.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path} failed: {source}; the replica is detached, its log cannot be trusted")]
pub struct JournalFailure {
    /// What was done, as a verb.
    pub doing: &'static str,
    /// To which file.
    pub path: PathBuf,
    /// What the system says.
    pub source: io::Error,
}

/// A replica's log, open for writing.
#[derive(Debug)]
pub struct Journal {
    resource: ResourceId,
    tokens: TokenSpace,
    segments: Segments,
    log_dir: FileId,
    /// Where the history begins in this log: there is nothing in the first segment before it.
    origin: Lsn,
    writer: Writer,
    /// Where frames are kept until they are written, if there is such a place.
    tail: Option<Tail>,
    /// How far [`JournalEvent::Written`] was told.
    told: Lsn,
    /// Reads of what is not written to the log yet: from where, how much, and the number.
    late_reads: VecDeque<(Lsn, usize, u64)>,
    streams: Streams,
    /// What recovery no longer needs, as the owner says.
    released: Lsn,
    /// The segment that is being renamed ahead.
    moving: Option<Segment>,
    truncation: Option<Truncation>,
    truncations: u64,
    /// It begins anew at this position, see `reset`.
    resetting: Option<Lsn>,
    is_failed: bool,
    events: VecDeque<JournalEvent>,
}

impl Journal {
    /// Appends the next frame: its writes are submitted, and [`JournalEvent::Written`] follows.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was changed then. [`Journal::room`] tells before.
    pub fn append<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        frame: &Frame,
    ) -> Result<(), AppendError> {
        if self.is_failed {
            return Err(AppendError::Failed);
        }
        if self.truncation.is_some() || self.resetting.is_some() {
            return Err(AppendError::Truncating);
        }
        self.writer.append(engine, &self.segments, frame)
    }

    /// Asks that everything appended so far becomes durable; requests that come while a sync is
    /// under way share the next. Returns the position that [`JournalEvent::Durable`] will reach.
    pub fn request_sync<E: Engine + ?Sized>(&mut self, engine: &mut E) -> Lsn {
        let target = self.writer.want_sync();
        if !self.is_failed {
            self.writer.sync_if_due(engine, &mut self.segments);
        }
        target
    }

    /// Lets segments that lie wholly before `up_to` be used again, one after the other. What is
    /// not durable is never released.
    pub fn release<E: Engine + ?Sized>(&mut self, engine: &mut E, up_to: Lsn) {
        self.released = self.released.max(up_to.min(self.writer.durable()));
        self.recycle(engine);
    }

    /// Reads whole frames from `from` on, at most `max_bytes` of them but one at least;
    /// [`JournalEvent::ReadDone`] brings them under `number`. The log is read ahead of the calls
    /// under one number, so who goes on where the frames of its last call ended waits less.
    ///
    /// # Errors
    /// [`ReadError::Gone`], [`ReadError::Beyond`] and [`ReadError::Busy`] come at once.
    pub fn read<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        from: Lsn,
        max_bytes: usize,
        number: u64,
    ) -> Result<(), ReadError> {
        let Some(written) = self.readable_from(from, (max_bytes, number))? else { return Ok(()) };
        let limits = (from, written);
        let ended = self.streams.begin(engine, &self.segments, limits, max_bytes, number)?;
        self.read_ended(ended);
        Ok(())
    }

    /// Where a read that begins at `from` ends at the latest; None where that is at once, which was
    /// told then.
    fn readable_from(
        &mut self,
        from: Lsn,
        (max_bytes, number): (usize, u64),
    ) -> Result<Option<Lsn>, ReadError> {
        let (start, written) = (self.start(), self.readable_end());
        if from < start || self.resetting.is_some() {
            return Err(ReadError::Gone { start: self.resetting.unwrap_or(start) });
        }
        if from >= written && from < self.before_cut(self.writer.kept()) {
            if self.late_reads.len() >= STREAMS_MAX {
                return Err(ReadError::Busy);
            }
            self.late_reads.push_back((from, max_bytes, number));
            return Ok(None);
        }
        if from > written {
            return Err(ReadError::Beyond { written });
        }
        if from == written {
            let result = Ok(Vec::new());
            self.events.push_back(JournalEvent::ReadDone { number, result });
            return Ok(None);
        }
        Ok(Some(written))
    }

    /// Cuts the log off at `to`, a position between two frames: what is behind is first saved to
    /// the file `quarantine`, durably, then zeroed, durably (design §6.4). Appends are refused
    /// until [`JournalEvent::Truncated`] or [`JournalEvent::NotTruncated`].
    ///
    /// A crash on the way leaves the log either as it was, or cut off once it is opened again.
    /// Nothing that was applied or released may lie behind `to`.
    ///
    /// # Errors
    /// [`TruncateError`]; nothing was changed then.
    pub fn truncate<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        to: LogPosition,
        quarantine: &Path,
    ) -> Result<(), TruncateError> {
        if self.is_failed {
            return Err(TruncateError::Failed);
        }
        if self.truncation.is_some() || self.resetting.is_some() {
            return Err(TruncateError::Busy);
        }
        let (start, end) = (self.start().max(self.released), self.end().lsn);
        if !(start..=end).contains(&to.lsn) {
            let to = to.lsn;
            return Err(TruncateError::Outside { to, start, end });
        }
        let token = self.tokens.token(KIND_TRUNCATE, 0);
        let truncation = Truncation::new(
            self.resource,
            (to, end),
            self.truncations + 1,
            quarantine,
            token,
            self.log_dir,
        );
        self.truncation = Some(truncation);
        self.streams.cut(to.lsn);
        self.request_sync(engine);
        self.settle_truncation(engine);
        Ok(())
    }

    /// Takes the end of one of the journal's operations.
    ///
    /// # Panics
    /// If the token is not one of the journal's own.
    pub fn complete<E: Engine + ?Sized>(&mut self, engine: &mut E, completion: Completion) {
        assert!(self.tokens.owns(completion.token));
        let (kind, number) = TokenSpace::split(completion.token);
        if kind == KIND_READ {
            let ended = self.streams.complete(engine, &self.segments, completion);
            return self.read_ended(ended);
        }
        if self.is_failed {
            return;
        }
        let Completion { op, result, .. } = completion;
        if kind == KIND_TRUNCATE {
            return self.truncation_step(engine, op, result);
        }
        if let Err(error) = result {
            let doing = match kind {
                KIND_WRITE => "writing",
                KIND_SYNC => "syncing",
                _ => "renaming",
            };
            let path = self.segments.path_of(op.file());
            return self.fail(doing, path, error);
        }
        match kind {
            KIND_WRITE => {
                let written = self.writer.wrote(&mut self.segments, number, op.file());
                if written.is_some() {
                    self.tell_written();
                    self.read_late(engine);
                }
            }
            KIND_SYNC => {
                let durable = self.writer.synced();
                self.events.extend(durable.map(JournalEvent::Durable));
            }
            _ => self.moved(engine),
        }
        self.writer.sync_if_due(engine, &mut self.segments);
        self.settle_truncation(engine);
    }

    /// Puts what was appended where it survives a `kill -9`, without waiting for the disk.
    pub fn keep<E: Engine + ?Sized>(&mut self, engine: &mut E) {
        let behind = !self.is_failed && self.writer.kept() < self.writer.end().lsn;
        let Some(tail) = self.tail.as_ref().filter(|_| behind) else { return };
        if let Err(error) = self.writer.keep(engine, tail) {
            self.tail = tail::given_up(self.segments.dir(), Err(error));
        }
        self.tell_written();
    }

    fn tell_written(&mut self) {
        let kept = self.writer.kept();
        if kept > self.told {
            self.told = kept;
            self.events.push_back(JournalEvent::Written(kept));
        }
    }

    /// Begins the reads that waited for what is written now.
    fn read_late<E: Engine + ?Sized>(&mut self, engine: &mut E) {
        for _ in 0..self.late_reads.len() {
            let Some((from, max_bytes, number)) = self.late_reads.pop_front() else { break };
            if let Err(error) = self.read(engine, from, max_bytes, number) {
                let result = Err(error);
                self.events.push_back(JournalEvent::ReadDone { number, result });
            }
        }
    }

    /// What came of the operations that were completed, oldest first.
    pub fn poll_event(&mut self) -> Option<JournalEvent> {
        self.events.pop_front()
    }

    /// Behind the last frame that was appended.
    #[must_use]
    pub fn end(&self) -> LogPosition {
        self.writer.end()
    }

    /// Everything before this is written to the log, where it can be read. More may survive the
    /// end of the process by then, as [`JournalEvent::Written`] says.
    #[must_use]
    pub fn written(&self) -> Lsn {
        self.writer.written()
    }

    /// Everything before this is on stable storage.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        self.writer.durable()
    }

    /// What the superblock may remember about this log: to be given to [`Journal::open`] again.
    #[must_use]
    pub fn known_durable(&self) -> KnownDurable {
        KnownDurable { lsn: self.writer.durable(), truncations: self.truncations }
    }

    /// The oldest position that can be read.
    #[must_use]
    pub fn start(&self) -> Lsn {
        self.origin.max(self.segments.start())
    }

    /// Bytes that can be appended before something is released or synced.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.writer.room(&self.segments)
    }

    /// Where the `len` bytes at `at` lie, if they lie in one segment. It stays so until the log is
    /// released to behind them or cut before them.
    #[must_use]
    pub fn spot(&self, at: Lsn, len: usize) -> Option<Spot> {
        let pieces = self.segments.pieces(at, len)?;
        match pieces.as_slice() {
            [piece] => Some(Spot { file: piece.file, offset: piece.offset }),
            _ => None,
        }
    }

    /// Where the bytes from `from` to `end` lie, in pieces of at most [`CHUNK_LEN`]; none where the
    /// log does not hold all of them.
    pub(crate) fn parts(&self, from: Lsn, end: Lsn) -> Option<Vec<LogPart>> {
        let (mut at, mut parts) = (from, Vec::new());
        while at < end {
            let len = create::piece_len(crate::buffer::BODY_LEN_MAX, end.since(at));
            let pieces = self.segments.pieces(at, len)?;
            let part = |piece: &layout::Piece| {
                let (file, offset, len) = (piece.file, piece.offset, piece.len);
                LogPart { file, offset, len }
            };
            parts.extend(pieces.iter().map(part));
            at = at.checked_add(len as u64)?;
        }
        Some(parts)
    }

    /// Bytes of one segment.
    #[must_use]
    pub fn segment_len(&self) -> u64 {
        self.segments.segment_len()
    }

    /// Bytes of all segments together.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.segments.end().since(self.segments.start())
    }

    /// Whether a write or sync has failed; that is final (design §2.7).
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.is_failed
    }

    /// Where reads end: what is being cut off is not shown to anybody any more.
    fn readable_end(&self) -> Lsn {
        self.before_cut(self.written())
    }

    /// `end`, or where the log is being cut off before it.
    fn before_cut(&self, end: Lsn) -> Lsn {
        self.truncation.as_ref().map_or(end, |cut| cut.target().lsn.min(end))
    }

    fn recycle<E: Engine + ?Sized>(&mut self, engine: &mut E) {
        let idle = !self.is_failed && self.moving.is_none() && self.truncation.is_none();
        let idle = idle && self.resetting.is_none();
        // One rename at a time, the oldest first: whatever a crash keeps, the segments that are
        // left are contiguous.
        if !idle || self.segments.second_start() > self.released {
            return;
        }
        let from = layout::segment_name(self.segments.start());
        let to = layout::segment_name(self.segments.end());
        self.moving = self.segments.pop();
        let dir = self.log_dir;
        let op = Op::Rename { dir, from, to };
        engine.submit(self.tokens.token(KIND_RENAME, 0), op);
    }

    fn moved<E: Engine + ?Sized>(&mut self, engine: &mut E) {
        if let Some(segment) = self.moving.take() {
            self.segments.push(segment);
            self.events.push_back(JournalEvent::SegmentReady);
        }
        self.recycle(engine);
    }

    fn read_ended(&mut self, ended: Option<Ended>) {
        let Some(Ended { caller: number, from, mut result }) = ended else {
            return;
        };
        // Recycled or cut off while it was read: not damage.
        let (start, written) = (self.start(), self.readable_end());
        if from < start {
            result = Err(ReadError::Gone { start });
        } else if let Ok(frames) = &mut result {
            frames.retain(|frame| frame.end() <= written);
        } else if from >= written {
            result = Err(ReadError::Beyond { written });
        }
        self.events.push_back(JournalEvent::ReadDone { number, result });
    }

    /// Begins a truncation that has waited for the writes before it.
    fn settle_truncation<E: Engine + ?Sized>(&mut self, engine: &mut E) {
        let quiet = !self.is_failed && self.moving.is_none() && self.writer.is_settled();
        if let Some(truncation) = &mut self.truncation
            && truncation.is_settling()
            && quiet
        {
            let mut progress = truncation.begin(engine);
            // What is cut off must not come back from the tail. It is all in the log by now.
            if let (Progress::Going, Some(tail)) = (&progress, &self.tail)
                && let Err(error) = tail.end(engine)
            {
                progress = Progress::Failed("emptying the tail of", error);
            }
            self.truncation_progress(engine, progress);
        }
    }

    fn truncation_step<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        op: Op,
        result: io::Result<()>,
    ) {
        if let Some(truncation) = &mut self.truncation {
            let progress = truncation.complete(engine, &self.segments, op, result);
            self.truncation_progress(engine, progress);
        }
    }

    fn truncation_progress<E: Engine + ?Sized>(&mut self, engine: &mut E, progress: Progress) {
        match progress {
            Progress::Going => return,
            Progress::Failed(doing, error) => {
                let path = self.segments.dir().to_path_buf();
                return self.fail(doing, path, error);
            }
            Progress::GaveUp(error) => {
                self.truncation = None;
                self.begin_tail(engine);
                self.events.push_back(JournalEvent::NotTruncated(error));
            }
            Progress::Done => {
                if let Some(truncation) = self.truncation.take() {
                    self.cut_off(truncation.target());
                    self.begin_tail(engine);
                }
            }
        }
        self.recycle(engine);
    }

    fn begin_tail<E: Engine + ?Sized>(&mut self, engine: &mut E) {
        if let Some(mut tail) = self.tail.take() {
            let begun = tail.begin(engine, self.truncations).map(|()| Some(tail));
            self.tail = tail::given_up(self.segments.dir(), begun);
        }
    }

    fn cut_off(&mut self, to: LogPosition) {
        if to.lsn < self.end().lsn {
            self.writer.cut_back(to);
            self.told = to.lsn;
            self.truncations += 1;
        }
        self.events.push_back(JournalEvent::Truncated(to));
    }

    fn fail(&mut self, doing: &'static str, path: PathBuf, source: io::Error) {
        self.is_failed = true;
        let written = self.written();
        for (.., number) in self.late_reads.drain(..) {
            let result = Err(ReadError::Beyond { written });
            self.events.push_back(JournalEvent::ReadDone { number, result });
        }
        self.events.push_back(JournalEvent::Failed(JournalFailure { doing, path, source }));
    }
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod reset_tests;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod tail_tests;
#[cfg(test)]
mod tests;

//! Appending and group sync.
//!
//! Any number of frames may be under way to the disk; `written` is the end of the prefix whose
//! writes have completed. A sync covers what was written when it began, never more: a frame whose
//! write completes while a sync runs waits for the next one. That is the whole argument for
//! `durable` (I8).

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use hadrian_protocol::frame::{Frame, LogPosition};
use hadrian_protocol::ids::Lsn;

use super::segments::Segments;
use crate::buffer::{ALIGNMENT, IoBuf};
use crate::engine::{Completion, Engine, FileId, Op, Token};

/// No segment is free for this frame; release log first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log has no room for {need} bytes; {room} are free until a checkpoint releases more")]
pub struct LogFull {
    /// Bytes of the frame.
    pub need: u64,
    /// Bytes that are free.
    pub room: u64,
}

/// What a completion means.
#[derive(Debug)]
pub enum JournalEvent {
    /// Nothing that anybody waits for.
    Nothing,
    /// Written to here.
    Written(Lsn),
    /// Durable to here.
    Durable(Lsn),
    /// A write or sync failed; the journal takes nothing any more (design §2.7).
    Failed(io::Error),
}

/// A log that is being written.
#[derive(Debug)]
pub struct Journal {
    pub(super) segments: Segments,
    end: LogPosition,
    written: Lsn,
    durable: Lsn,
    needed: Lsn,
    /// Frames under way, oldest first, with the number of their parts that are.
    flights: VecDeque<Flight>,
    first_flight: u64,
    dirty: Vec<FileId>,
    sync: Option<Round>,
    sync_again: bool,
    recycling: bool,
    failed: bool,
    token_base: u64,
}

#[derive(Debug)]
struct Flight {
    end: Lsn,
    parts: usize,
}

#[derive(Debug)]
struct Round {
    covers: Lsn,
    files: usize,
}

/// Operations are told apart by the low bits of their tokens.
const KIND_BITS: u32 = 2;
const WRITE: u64 = 0;
const SYNC: u64 = 1;
const RENAME: u64 = 2;

impl Journal {
    /// A log that ends at `end`, as recovery found it; `durable` is what is known to be so. Tokens
    /// of its operations are `token_base` plus less than 2^48.
    #[must_use]
    pub fn new(segments: Segments, end: LogPosition, durable: Lsn, token_base: u64) -> Self {
        // What was read back may never have been synced: the first round covers every segment.
        let stretch = usize::try_from(end.lsn.since(segments.start())).unwrap_or(usize::MAX);
        let stretches = segments.stretches(segments.start(), stretch).unwrap_or_default();
        let dirty = stretches.iter().map(|stretch| stretch.file).collect();
        Self {
            needed: segments.start(),
            segments,
            end,
            written: end.lsn,
            durable: durable.min(end.lsn),
            flights: VecDeque::new(),
            first_flight: 0,
            dirty,
            sync: None,
            sync_again: false,
            recycling: false,
            failed: false,
            token_base,
        }
    }

    /// The segments, for reading.
    #[must_use]
    pub fn segments(&self) -> &Segments {
        &self.segments
    }

    /// Where the next frame goes.
    #[must_use]
    pub fn end(&self) -> LogPosition {
        self.end
    }

    /// The oldest position that can be read.
    #[must_use]
    pub fn start(&self) -> Lsn {
        self.segments.start()
    }

    /// Written to here.
    #[must_use]
    pub fn written(&self) -> Lsn {
        self.written
    }

    /// Durable to here.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        self.durable
    }

    /// Bytes that can be appended before more log is released.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.segments.limit().since(self.end.lsn)
    }

    /// Bytes of log that all segments hold.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.segments.capacity()
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.flights.is_empty() && self.sync.is_none() && !self.recycling
    }

    /// Begins to write a frame at the end of the log.
    ///
    /// # Panics
    /// If the frame does not begin there.
    ///
    /// # Errors
    /// [`LogFull`]; nothing happened then.
    pub fn append<E: Engine>(&mut self, engine: &mut E, frame: &Frame) -> Result<(), LogFull> {
        assert_eq!(frame.lsn(), self.end.lsn, "a frame is appended at the end of the log");
        let (need, room) = (frame.log_len(), self.room());
        let bytes = aligned(frame.log_bytes());
        let Some(stretches) = self.segments.stretches(frame.lsn(), bytes.len()) else {
            return Err(LogFull { need, room });
        };
        let number = self.first_flight + self.flights.len() as u64;
        let token = self.token(WRITE, number);
        self.flights.push_back(Flight { end: frame.end(), parts: stretches.len() });
        let mut at = 0;
        for stretch in stretches {
            let data = bytes.slice(at..at + stretch.len);
            at += stretch.len;
            if !self.dirty.contains(&stretch.file) {
                self.dirty.push(stretch.file);
            }
            engine.submit(token, Op::Write { file: stretch.file, offset: stretch.offset, data });
        }
        self.end = frame.position_after();
        Ok(())
    }

    /// Makes everything written durable; [`JournalEvent::Durable`] tells when. Asked again while
    /// a round runs, one more follows it.
    pub fn request_sync<E: Engine>(&mut self, engine: &mut E) {
        if self.sync.is_some() {
            self.sync_again = true;
        } else if self.durable < self.written {
            self.begin_round(engine);
        }
    }

    fn begin_round<E: Engine>(&mut self, engine: &mut E) {
        let files = std::mem::take(&mut self.dirty);
        assert!(!files.is_empty(), "what is written and not durable lies in some file");
        self.sync = Some(Round { covers: self.written, files: files.len() });
        // Frames still under way touch these files too: they stay dirty for the next round.
        if !self.flights.is_empty() {
            self.dirty.clone_from(&files);
        }
        let token = self.token(SYNC, 0);
        files.into_iter().for_each(|file| engine.submit(token, Op::Sync { file }));
    }

    /// The log before this is no longer needed; its segments may be used again.
    pub fn release<E: Engine>(&mut self, engine: &mut E, needed: Lsn) {
        self.needed = self.needed.max(needed.min(self.durable));
        self.recycle(engine);
    }

    fn recycle<E: Engine>(&mut self, engine: &mut E) {
        if self.recycling || self.failed {
            return;
        }
        if let Some(op) = self.segments.recycle(self.needed) {
            self.recycling = true;
            engine.submit(self.token(RENAME, 0), op);
        }
    }

    /// Takes the completion of one of its operations.
    pub fn complete<E: Engine>(&mut self, engine: &mut E, done: Completion) -> JournalEvent {
        let low = done.token.0 - self.token_base;
        let (kind, number) = (low & ((1 << KIND_BITS) - 1), low >> KIND_BITS);
        if let Err(error) = done.result {
            // Told once; what fails behind it changes nothing any more.
            let first = !std::mem::replace(&mut self.failed, true);
            return if first { JournalEvent::Failed(error) } else { JournalEvent::Nothing };
        }
        match kind {
            _ if self.failed => JournalEvent::Nothing,
            WRITE => self.part_written(number),
            SYNC => self.file_synced(engine),
            _ => {
                self.recycling = false;
                self.segments.recycled();
                self.recycle(engine);
                JournalEvent::Nothing
            }
        }
    }

    fn part_written(&mut self, number: u64) -> JournalEvent {
        let index = usize::try_from(number - self.first_flight).unwrap_or(usize::MAX);
        if let Some(flight) = self.flights.get_mut(index) {
            flight.parts -= 1;
        }
        let before = self.written;
        while let Some(flight) = self.flights.pop_front_if(|flight| flight.parts == 0) {
            self.first_flight += 1;
            self.written = flight.end;
        }
        if self.written > before {
            JournalEvent::Written(self.written)
        } else {
            JournalEvent::Nothing
        }
    }

    fn file_synced<E: Engine>(&mut self, engine: &mut E) -> JournalEvent {
        let Some(round) = &mut self.sync else { return JournalEvent::Nothing };
        round.files -= 1;
        if round.files > 0 {
            return JournalEvent::Nothing;
        }
        self.durable = self.durable.max(round.covers);
        self.sync = None;
        if std::mem::take(&mut self.sync_again) && self.durable < self.written {
            self.begin_round(engine);
        }
        JournalEvent::Durable(self.durable)
    }

    /// The log was cut at `end`, durably, while nothing was under way.
    ///
    /// # Panics
    /// If something was.
    pub fn cut(&mut self, end: LogPosition) {
        assert!(self.is_idle(), "a log is cut while nothing is under way");
        self.end = end;
        self.written = end.lsn;
        self.durable = end.lsn;
    }

    fn token(&self, kind: u64, number: u64) -> Token {
        Token(self.token_base + (number << KIND_BITS | kind))
    }
}

/// Direct I/O needs aligned memory. Frames from the data path lie in such already; the few that
/// the state machine makes itself are copied.
fn aligned(bytes: &Bytes) -> Bytes {
    if bytes.as_ptr().align_offset(ALIGNMENT) == 0 {
        return bytes.clone();
    }
    let mut buffer = IoBuf::with_len(bytes.len());
    buffer[..bytes.len()].copy_from_slice(bytes);
    buffer.freeze()
}

//! Cutting off a tail that another history has replaced (design §6.4).
//!
//! ```text
//! settle → copy the tail to a quarantine file, name it   (until here nothing has changed)
//!        → record the truncation in the log directory, name it
//!        → zero the tail → sync → rename the record: done
//! ```
//!
//! Each arrow waits for the step before to be durable. A crash before the record has its name
//! leaves the log as it was; after it, opening the log finishes the zeroing, however much of it
//! was lost, so no frame of the tail can come back behind new frames (holes, story 17), and a
//! half-zeroed tail is not taken for damage. The record also says that what the superblock
//! remembers as durable may lie behind the new end.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hadrian_protocol::frame::{FrameError, LogPosition};
use hadrian_protocol::ids::{Lsn, ResourceId};

use super::create::{piece_len, zeroes};
use super::layout::{ALIGN, Segments, TRUNCATED_NAME, TRUNCATING_NAME, TRUNCATING_PART_NAME};
use super::reader::{BadFrame, frame_at, head_at};
use super::sheet::{Kind, SHEET_LEN, Sheet};
use crate::buffer::{BODY_LEN_MAX, IoBuf};
use crate::engine::{Engine, FileId, Op, OpenAs, Token, run, run_read};

/// Why a truncation was not begun, or was given up before it changed anything.
#[derive(Debug, thiserror::Error)]
pub enum TruncateError {
    /// The position is not between the oldest position and the end.
    #[error("the log cannot be cut off at {to}: it holds {start} to {end}")]
    Outside {
        /// What was asked for.
        to: Lsn,
        /// The oldest position.
        start: Lsn,
        /// The end.
        end: Lsn,
    },
    /// No frame of this history begins at the position.
    #[error("the log cannot be cut off at {to}: no frame that follows on its hash begins there")]
    NotBetween {
        /// What was asked for.
        to: Lsn,
    },
    /// One is under way.
    #[error("the log's tail is being truncated already")]
    Busy,
    /// The log failed before (design §2.7).
    #[error("the log failed before; restart the replica once its disk is in order")]
    Failed,
    /// The quarantine file cannot be written; the log is as it was.
    #[error("saving the tail to {path}: {source}; make room there and try again")]
    Quarantine {
        /// The quarantine file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Settle,
    CopyHead,
    CopyRead,
    CopyWrite,
    CopySync,
    CopyName,
    RecordWrite,
    RecordSync,
    RecordName,
    Zero,
    ZeroSync,
    DoneName,
}

/// What a completed step led to.
#[derive(Debug)]
pub(super) enum Progress {
    Going,
    /// Nothing has changed and nothing will.
    GaveUp(TruncateError),
    /// Final for the log (design §2.7).
    Failed(&'static str, io::Error),
    Done,
}

/// A truncation under way. It has one operation under way at a time.
#[derive(Debug)]
pub(super) struct Truncation {
    resource: ResourceId,
    to: LogPosition,
    end: Lsn,
    number: u64,
    quarantine: PathBuf,
    token: Token,
    step: Step,
    at: Lsn,
    to_sync: VecDeque<FileId>,
    /// The quarantine file, then the record.
    file: Option<FileId>,
    quarantine_dir: Option<FileId>,
    log_dir: FileId,
}

impl Truncation {
    /// Of the log from `to` to `end`; `number` is its place among the log's truncations.
    pub(super) fn new(
        resource: ResourceId,
        (to, end): (LogPosition, Lsn),
        number: u64,
        quarantine: &Path,
        token: Token,
        log_dir: FileId,
    ) -> Self {
        Self {
            resource,
            to,
            end,
            number,
            quarantine: quarantine.into(),
            token,
            step: Step::Settle,
            at: to.lsn,
            to_sync: VecDeque::new(),
            file: None,
            quarantine_dir: None,
            log_dir,
        }
    }

    pub(super) fn target(&self) -> LogPosition {
        self.to
    }

    /// Whether it waits for the writes and syncs that were under way when it was asked for.
    pub(super) fn is_settling(&self) -> bool {
        self.step == Step::Settle
    }

    /// Begins, now that everything is written and durable.
    pub(super) fn begin<E: Engine + ?Sized>(&mut self, engine: &mut E) -> Progress {
        if self.end == self.to.lsn {
            return Progress::Done;
        }
        let opened = self.open_quarantine(engine);
        match opened {
            Ok(()) => {
                self.step = Step::CopyHead;
                let data = self.sheet(Kind::Quarantine).encode();
                self.write(engine, 0, data);
                Progress::Going
            }
            Err(source) => self.give_up(engine, source),
        }
    }

    /// Takes the end of its operation and does the next.
    pub(super) fn complete<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        segments: &Segments,
        op: Op,
        result: io::Result<()>,
    ) -> Progress {
        if let Err(error) = result {
            return self.broke(engine, error);
        }
        if self.step == Step::CopyRead && self.at == self.to.lsn && !self.is_between(&op) {
            self.close_files(engine);
            let to = self.to.lsn;
            return Progress::GaveUp(TruncateError::NotBetween { to });
        }
        match self.next(engine, segments, op) {
            Ok(true) => Progress::Done,
            Ok(false) => Progress::Going,
            Err(error) => self.broke(engine, error),
        }
    }

    /// Whether the tail begins with a frame that follows on the position: cut off anywhere else,
    /// the log could not be read any more.
    #[expect(clippy::indexing_slicing, reason = "the operation carries its own length")]
    fn is_between(&self, first_read: &Op) -> bool {
        let Op::Read { buffer, len, .. } = first_read else { unreachable!("the step was a read") };
        let bytes = Bytes::copy_from_slice(&buffer[..*len]);
        match frame_at(&bytes, self.resource, self.to.lsn, Some(self.to.chain)) {
            Ok(_) => true,
            // It goes on in the next segment; its head says enough.
            Err(BadFrame::Frame(FrameError::Short { .. })) => {
                head_at(&bytes, self.resource, self.to.lsn).is_some()
            }
            Err(_) => false,
        }
    }

    /// A failure is harmless before the record is begun, and final from there on.
    fn broke<E: Engine + ?Sized>(&mut self, engine: &mut E, error: io::Error) -> Progress {
        match self.step {
            Step::Settle
            | Step::CopyHead
            | Step::CopyRead
            | Step::CopyWrite
            | Step::CopySync
            | Step::CopyName => self.give_up(engine, error),
            Step::RecordWrite | Step::RecordSync | Step::RecordName => {
                Progress::Failed("recording a truncation", error)
            }
            Step::Zero | Step::ZeroSync | Step::DoneName => {
                Progress::Failed("zeroing the tail", error)
            }
        }
    }

    fn give_up<E: Engine + ?Sized>(&mut self, engine: &mut E, source: io::Error) -> Progress {
        self.close_files(engine);
        let path = self.quarantine.clone();
        Progress::GaveUp(TruncateError::Quarantine { path, source })
    }

    /// Submits what follows on the step that has just been done; `true` when nothing does.
    fn next<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        segments: &Segments,
        op: Op,
    ) -> io::Result<bool> {
        match self.step {
            Step::Settle => unreachable!("settling is not an operation"),
            Step::CopyHead => self.copy_next(engine, segments)?,
            Step::CopyRead => self.copy_write(engine, op),
            Step::CopyWrite => self.copy_next(engine, segments)?,
            Step::CopySync => self.name_copy(engine),
            Step::CopyName => {
                self.close_files(engine);
                let path = segments.dir().join(TRUNCATING_PART_NAME);
                self.step = Step::RecordWrite;
                self.file = Some(engine.create(&path, OpenAs::Direct)?);
                let data = self.sheet(Kind::Truncation).encode();
                self.write(engine, 0, data);
            }
            Step::RecordWrite => self.sync(engine, Step::RecordSync),
            Step::RecordSync => {
                let names = (TRUNCATING_PART_NAME, TRUNCATING_NAME);
                self.rename(engine, Step::RecordName, self.log_dir, names);
            }
            Step::RecordName => {
                self.close_files(engine);
                self.at = self.to.lsn;
                self.to_sync = segments.files_between(self.to.lsn, self.end).into();
                self.zero_next(engine, segments)?;
            }
            Step::Zero => self.zero_next(engine, segments)?,
            Step::ZeroSync => self.sync_next(engine),
            Step::DoneName => return Ok(true),
        }
        Ok(false)
    }

    fn open_quarantine<E: Engine + ?Sized>(&mut self, engine: &mut E) -> io::Result<()> {
        let parent = self.quarantine.parent().filter(|p| *p != Path::new(""));
        let parent = parent.unwrap_or(Path::new("."));
        self.quarantine_dir = Some(engine.open_dir(parent)?);
        let (unfinished, _) = self.quarantine_names()?;
        self.file = Some(engine.create(&parent.join(unfinished), OpenAs::Direct)?);
        Ok(())
    }

    fn quarantine_names(&self) -> io::Result<(String, String)> {
        let name = self.quarantine.file_name().and_then(|name| name.to_str());
        let name = name.ok_or(io::ErrorKind::InvalidFilename)?;
        Ok((format!("{name}.part"), name.to_owned()))
    }

    fn copy_next<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        segments: &Segments,
    ) -> io::Result<()> {
        if self.at == self.end {
            self.sync(engine, Step::CopySync);
            return Ok(());
        }
        let piece = first_piece(segments, self.at, self.end)?;
        self.step = Step::CopyRead;
        let op = Op::Read {
            file: piece.file,
            offset: piece.offset,
            buffer: IoBuf::with_len(piece.len),
            len: piece.len,
        };
        engine.submit(self.token, op);
        Ok(())
    }

    fn copy_write<E: Engine + ?Sized>(&mut self, engine: &mut E, op: Op) {
        let Op::Read { buffer, len, .. } = op else { unreachable!("the step was a read") };
        let offset = SHEET_LEN as u64 + self.at.since(self.to.lsn);
        self.at = Lsn::new(self.at.get().saturating_add(len as u64));
        self.step = Step::CopyWrite;
        self.write(engine, offset, buffer.freeze().slice(..len));
    }

    fn name_copy<E: Engine + ?Sized>(&mut self, engine: &mut E) {
        let (Ok((from, to)), Some(dir)) = (self.quarantine_names(), self.quarantine_dir) else {
            unreachable!("the file was opened by this name, in this directory")
        };
        self.rename(engine, Step::CopyName, dir, (&from, &to));
    }

    fn zero_next<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        segments: &Segments,
    ) -> io::Result<()> {
        if self.at == self.end {
            self.sync_next(engine);
            return Ok(());
        }
        let piece = first_piece(segments, self.at, self.end)?;
        self.at = Lsn::new(self.at.get().saturating_add(piece.len as u64));
        self.step = Step::Zero;
        // Written, not deallocated: the log's space stays reserved (design §2.6).
        let op =
            Op::Write { file: piece.file, offset: piece.offset, data: zeroes().slice(..piece.len) };
        engine.submit(self.token, op);
        Ok(())
    }

    fn sync_next<E: Engine + ?Sized>(&mut self, engine: &mut E) {
        let Some(file) = self.to_sync.pop_front() else {
            let names = (TRUNCATING_NAME, TRUNCATED_NAME);
            return self.rename(engine, Step::DoneName, self.log_dir, names);
        };
        self.step = Step::ZeroSync;
        engine.submit(self.token, Op::Sync { file });
    }

    fn sheet(&self, kind: Kind) -> Sheet {
        Sheet { kind, resource: self.resource, point: self.to, end: self.end, number: self.number }
    }

    fn write<E: Engine + ?Sized>(&self, engine: &mut E, offset: u64, data: Bytes) {
        let Some(file) = self.file else { unreachable!("the step before opened the file") };
        engine.submit(self.token, Op::Write { file, offset, data });
    }

    fn sync<E: Engine + ?Sized>(&mut self, engine: &mut E, step: Step) {
        let Some(file) = self.file else { unreachable!("the step before wrote the file") };
        self.step = step;
        engine.submit(self.token, Op::Sync { file });
    }

    fn rename<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        step: Step,
        dir: FileId,
        (from, to): (&str, &str),
    ) {
        self.step = step;
        let (from, to) = (from.to_owned(), to.to_owned());
        engine.submit(self.token, Op::Rename { dir, from, to });
    }

    fn close_files<E: Engine + ?Sized>(&mut self, engine: &mut E) {
        let files = [self.file.take(), self.quarantine_dir.take()];
        for file in files.into_iter().flatten() {
            engine.close(file);
        }
    }
}

/// The part of a range up to `end` that can be moved at once: inside one segment, one buffer long.
fn first_piece(segments: &Segments, at: Lsn, end: Lsn) -> io::Result<super::layout::Piece> {
    let len = piece_len(BODY_LEN_MAX, end.since(at));
    let pieces = segments.pieces(at, len);
    let first = pieces.and_then(|pieces| pieces.first().copied());
    first.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Zeroes the log from `from` to `to` durably, waiting for it; for opening a log.
pub(super) fn zero_now<E: Engine + ?Sized>(
    engine: &mut E,
    segments: &Segments,
    from: Lsn,
    to: Lsn,
) -> io::Result<()> {
    let mut at = from;
    while to.since(at) > 0 {
        let piece = first_piece(segments, at, to)?;
        let (file, offset) = (piece.file, piece.offset);
        let data = zeroes().slice(..piece.len);
        run(engine, Op::Write { file, offset, data })?;
        at = Lsn::new(at.get().saturating_add(piece.len as u64));
    }
    for file in segments.files_between(from, to) {
        run(engine, Op::Sync { file })?;
    }
    Ok(())
}

/// Writes what the log holds from `from` to `to` once more, waiting for it; for opening a log.
pub(super) fn write_again<E: Engine + ?Sized>(
    engine: &mut E,
    segments: &Segments,
    from: Lsn,
    to: Lsn,
) -> io::Result<()> {
    let mut at = Lsn::new(from.get() / ALIGN * ALIGN);
    while to.since(at) > 0 {
        let piece = first_piece(segments, at, to)?;
        let (file, offset, len) = (piece.file, piece.offset, piece.len);
        let data = run_read(engine, file, offset, len)?;
        run(engine, Op::Write { file, offset, data })?;
        at = Lsn::new(at.get().saturating_add(len as u64));
    }
    Ok(())
}

//! Reading a log or a quarantine file without changing anything.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use hadrian_protocol::frame::{Frame, LogPosition};
use hadrian_protocol::ids::{Lsn, ResourceId};

use super::layout::{LOG_DIR, Segments, parse_segment_name};
use super::open::{LastCut, OpenError, io_at, open_segments, read_format, read_sheet};
use super::reader::{BadFrame, Cursor, Step, read_range};
use super::sheet::{Kind, NO_CHAIN, SHEET_LEN};
use crate::engine::{Engine, FileId, OpenAs, run_read};

/// How a log is laid out.
#[derive(Clone, Debug)]
pub struct LogInfo {
    /// Whose log.
    pub resource: ResourceId,
    /// Where its history begins.
    pub origin: Lsn,
    /// Length of a segment, in bytes.
    pub segment_len: u64,
    /// Its segments by position; a gap between two is a missing file.
    pub segments: Vec<SegmentInfo>,
    /// Its last truncation.
    pub last_cut: Option<Cut>,
}

/// A file of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The file's name in the log directory.
    pub name: String,
    /// Its first position.
    pub first: Lsn,
}

/// A truncation, as its record has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where the log was cut off.
    pub to: LogPosition,
    /// Where it ended before.
    pub end: Lsn,
    /// Its place among the log's truncations, from 1.
    pub number: u64,
    /// Whether it may not be finished; the next start of the daemon finishes it.
    pub is_pending: bool,
}

/// Why a dump of frames ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InspectEnd {
    /// The files end here.
    EndOfFiles {
        /// Where.
        at: Lsn,
    },
    /// There is no further frame: the end of the log, a torn tail, or damage. Which of these, only
    /// a recovery can tell, because it knows what was durable.
    NoFrame {
        /// Where.
        at: Lsn,
        /// The file.
        path: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong with the bytes there.
        cause: BadFrame,
    },
}

impl fmt::Display for InspectEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndOfFiles { at } => write!(f, "the files end at {at}"),
            Self::NoFrame { at, path, offset, cause } => {
                let path = path.display();
                write!(f, "no further frame at {at} ({path}, byte {offset}): {cause}")
            }
        }
    }
}

/// The layout of the log in a replica's directory.
///
/// # Errors
/// [`OpenError`]
pub fn log<E: Engine + ?Sized>(engine: &mut E, replica_dir: &Path) -> Result<LogInfo, OpenError> {
    let dir = replica_dir.join(LOG_DIR);
    let names = names_in(engine, &dir)?;
    let format = read_format(engine, &dir, &names, None)?;
    let cut = LastCut::read(engine, &dir, &names, None)?;
    let segment = |name: &String| {
        let (name, first) = (name.clone(), parse_segment_name(name)?);
        Some(SegmentInfo { name, first })
    };
    Ok(LogInfo {
        resource: format.resource,
        origin: format.point.lsn,
        segment_len: format.number,
        segments: names.iter().filter_map(segment).collect(),
        last_cut: cut.sheet.map(|sheet| Cut {
            to: sheet.point,
            end: sheet.end,
            number: sheet.number,
            is_pending: cut.is_pending,
        }),
    })
}

/// The frames of the log in a replica's directory from `from` on, a position between two frames;
/// where none is given, from the oldest on, which is readable only if a frame begins there.
///
/// # Errors
/// [`OpenError`]
pub fn frames<E: Engine + ?Sized>(
    engine: &mut E,
    replica_dir: &Path,
    from: Option<Lsn>,
) -> Result<FrameDump, OpenError> {
    let info = log(engine, replica_dir)?;
    let dir = replica_dir.join(LOG_DIR);
    let names = names_in(engine, &dir)?;
    let oldest = info.segments.first().map_or(Lsn::START, |s| s.first);
    let from = from.unwrap_or(oldest.max(info.origin));
    let len = info.segment_len;
    let (segments, _) = open_segments(engine, OpenAs::ReadOnly, (&dir, &names), len, from)?;
    let cursor = Cursor::new(info.resource, from, None, segments.end());
    Ok(FrameDump { segments, cursor })
}

/// The frames of a log, one after the other.
#[derive(Debug)]
pub struct FrameDump {
    segments: Segments,
    cursor: Cursor,
}

impl FrameDump {
    /// Closes the files, which nobody reads any more.
    pub fn close<E: Engine + ?Sized>(mut self, engine: &mut E) {
        self.segments.iter_mut().for_each(|segment| engine.close(segment.file));
    }

    /// The next frame, or why there is none.
    ///
    /// # Errors
    /// As the system says.
    pub fn next<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
    ) -> io::Result<Result<Frame, InspectEnd>> {
        let segments = &self.segments;
        let step = self.cursor.next(|at, _, len| read_range(engine, segments, at, len))?;
        let (path, offset) = segments.locate(self.cursor.at());
        Ok(result_of(step, self.cursor.at(), path, offset))
    }
}

/// Opens a quarantine file: the tail that a truncation saved (design §6.4).
///
/// # Errors
/// [`OpenError`]
pub fn quarantine<E: Engine + ?Sized>(
    engine: &mut E,
    path: &Path,
) -> Result<QuarantineDump, OpenError> {
    let sheet = read_sheet(engine, path, Kind::Quarantine, None)?;
    let file = engine.open(path, OpenAs::ReadOnly).map_err(io_at(path))?;
    let len = engine.size(file).map_err(io_at(path))?;
    let LogPosition { lsn, chain } = sheet.point;
    Ok(QuarantineDump {
        resource: sheet.resource,
        from: sheet.point,
        end: sheet.end,
        path: path.into(),
        file,
        len,
        cursor: Cursor::new(sheet.resource, lsn, (chain != NO_CHAIN).then_some(chain), sheet.end),
    })
}

/// A saved tail, and its frames one after the other.
#[derive(Debug)]
pub struct QuarantineDump {
    /// Whose tail.
    pub resource: ResourceId,
    /// Where it was cut off.
    pub from: LogPosition,
    /// Where it ended.
    pub end: Lsn,
    path: PathBuf,
    file: FileId,
    len: u64,
    cursor: Cursor,
}

impl QuarantineDump {
    /// The position of the next frame.
    pub(crate) fn at(&self) -> Lsn {
        self.cursor.at()
    }

    /// The open file, and where in it the position lies, in bytes.
    pub(crate) fn place(&self, at: Lsn) -> (FileId, u64) {
        (self.file, (SHEET_LEN as u64).saturating_add(at.since(self.from.lsn)))
    }

    /// The next frame, or why there is none.
    ///
    /// # Errors
    /// As the system says.
    pub fn next<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
    ) -> io::Result<Result<Frame, InspectEnd>> {
        let (file, from) = (self.file, self.from.lsn);
        // The first page may say any position, and its frames any other.
        let offset_of = |at: Lsn| (SHEET_LEN as u64).saturating_add(at.since(from));
        let step = self.cursor.next(|at, least, most| {
            // A file that is shorter than its first page says is read as far as it goes.
            let (offset, left) = (offset_of(at), self.len.saturating_sub(offset_of(at)));
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(most);
            if len < least {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            run_read(engine, file, offset, len)
        })?;
        let at = self.cursor.at();
        Ok(result_of(step, at, self.path.clone(), offset_of(at)))
    }
}

fn result_of(step: Step, at: Lsn, path: PathBuf, offset: u64) -> Result<Frame, InspectEnd> {
    match step {
        Step::Frame(frame) => Ok(frame),
        Step::End => Err(InspectEnd::EndOfFiles { at }),
        Step::Bad(cause) => Err(InspectEnd::NoFrame { at, path, offset, cause }),
    }
}

fn names_in<E: Engine + ?Sized>(engine: &mut E, dir: &Path) -> Result<BTreeSet<String>, OpenError> {
    let names = engine.list(dir).map_err(io_at(dir))?;
    Ok(names.into_iter().collect())
}

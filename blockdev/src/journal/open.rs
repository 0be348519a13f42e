//! Opening a log: find its files, finish what a crash interrupted, recover.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use hadrian_protocol::frame::{Frame, LogPosition};
use hadrian_protocol::ids::{Lsn, ResourceId};

use super::layout::{
    ALIGN, FORMAT_NAME, LOG_DIR, SEGMENT_LEN_MAX, SEGMENT_LEN_MIN, Segment, Segments,
    TRUNCATED_NAME, TRUNCATING_NAME, UNFINISHED_NAME, parse_segment_name, segment_name,
};
use super::recovery::{Damage, Found, Start, Stopped, recover};
use super::sheet::{Kind, SHEET_LEN, Sheet, SheetError};
use super::streams::Streams;
use super::tail::{Tail, given_up};
use super::truncate::{write_again, zero_now};
use super::writer::Writer;
use super::{Journal, KIND_READ, KIND_SYNC, KIND_WRITE};
use crate::engine::double::{Double, Order, Unsynced};
use crate::engine::{Engine, FileId, Op, OpenAs, TokenSpace, run, run_read};

/// What the superblock remembers about how far a log is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownDurable {
    /// Everything before this was durable.
    pub lsn: Lsn,
    /// How often the log had been truncated then: a truncation ends what was known before it.
    pub truncations: u64,
}

/// Which log to open, and what is known about it.
#[derive(Clone, Copy, Debug)]
pub struct OpenLog<'a> {
    /// The replica's directory, in which [`LOG_DIR`] lies.
    pub replica_dir: &'a Path,
    /// Whose log.
    pub resource: ResourceId,
    /// Up to here the backing stores hold everything durably; replay begins here.
    pub checkpoint: LogPosition,
    /// As [`Journal::known_durable`] said last; `None` where nothing is known.
    pub known_durable: Option<KnownDurable>,
    /// The tokens of the journal's operations.
    pub tokens: TokenSpace,
}

/// What opening found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Behind the last good frame; everything before is durable now.
    pub end: LogPosition,
    /// Frames between the checkpoint and the end.
    pub frame_count: u64,
    /// Bytes behind the end that held remains of frames that were lost in a crash, never durable.
    pub discarded_bytes: u64,
    /// Whether a truncation that a crash had interrupted was finished.
    pub finished_truncation: bool,
    /// Segments below a missing one. They are not part of the log.
    pub stray_segments: Vec<String>,
}

/// Why a log cannot be opened. Nothing was changed, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refuses.
    #[error("{path}: {source}")]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no log.
    #[error("{path} holds no log; create one, or correct the directory in the configuration")]
    Missing {
        /// The log directory.
        path: PathBuf,
    },
    /// The creation was interrupted.
    #[error("the log in {path} was not finished when it was created; create it again")]
    Unfinished {
        /// The log directory.
        path: PathBuf,
    },
    /// A sheet beside the segments cannot be used.
    #[error("{path}: {cause}")]
    Sheet {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        cause: SheetError,
    },
    /// The format names a segment length that cannot be.
    #[error("{path} names segments of {found} bytes, which cannot be; restore it from a backup")]
    SegmentLen {
        /// The format file.
        path: PathBuf,
        /// What it says, in bytes.
        found: u64,
    },
    /// A segment is not as long as the format says.
    #[error("{path} has {found} bytes instead of {expected}; restore it from the peer's log")]
    SegmentSize {
        /// Which segment.
        path: PathBuf,
        /// Its size, in bytes.
        found: u64,
        /// What the format says, in bytes.
        expected: u64,
    },
    /// A segment is gone.
    #[error("{path} is missing; bring it back, or seed this replica anew from its peer")]
    SegmentMissing {
        /// Which segment.
        path: PathBuf,
    },
    /// The checkpoint lies behind an unfinished truncation.
    #[error(
        "the superblock's checkpoint {checkpoint} lies behind {to}, where the log was being cut \
         off; the superblock is not this log's"
    )]
    CheckpointCutOff {
        /// What the superblock says.
        checkpoint: Lsn,
        /// Where the log ends.
        to: Lsn,
    },
    /// Durable frames cannot be read.
    #[error(transparent)]
    Damage(#[from] Box<Damage>),
}

impl Journal {
    /// Opens the log: finishes a truncation that a crash interrupted, reads every frame from the
    /// checkpoint on (`visit` sees each once, in order), removes what a crash left behind the
    /// end, and makes durable what is there. Waits for all of it.
    ///
    /// # Errors
    /// [`OpenError`]; of these [`OpenError::Damage`] says that durable frames are lost.
    ///
    /// # Panics
    /// If the engine has other operations under way.
    pub fn open<E: Engine + ?Sized>(
        engine: &mut E,
        log: &OpenLog<'_>,
        visit: &mut dyn FnMut(&Frame),
    ) -> Result<(Self, Recovered), OpenError> {
        let dir = log.replica_dir.join(LOG_DIR);
        let listed = engine.list(&dir);
        let names: BTreeSet<String> = listed.map_err(io_at(&dir))?.into_iter().collect();
        let format = read_format(engine, &dir, &names, Some(log.resource))?;
        let checkpoint = log.checkpoint.lsn;
        let (mut segments, stray_segments) =
            open_segments(engine, OpenAs::Direct, (&dir, &names), format.number, checkpoint)?;
        let log_dir = engine.open_dir(&dir).map_err(io_at(&dir))?;
        let cut = LastCut::read(engine, &dir, &names, Some(log.resource))?;
        let start = cut.start(log)?;
        let truncations = cut.sheet.map_or(0, |sheet| sheet.number);
        let of = (segments.end().since(segments.start()), truncations);
        let tail = Tail::open(engine, (&dir, &names), log.resource, of).map_err(io_at(&dir))?;
        let found = recover(engine, &segments, (&start, tail.as_ref()), visit)
            .map_err(|stopped| open_error(stopped, &segments))?;
        mend(engine, &segments, log_dir, checkpoint, (&cut, &found)).map_err(io_at(&dir))?;
        for segment in segments.iter_mut() {
            segment.dirty = false;
        }
        let mut begun = |mut tail: Tail| tail.begin(engine, truncations).map(|()| Some(tail));
        let tail = tail.and_then(|tail| given_up(&dir, begun(tail)));
        let Found { end, frame_count, leftover_end, .. } = found;
        let recovered = Recovered {
            end,
            frame_count,
            discarded_bytes: leftover_end.since(end.lsn),
            finished_truncation: cut.is_pending,
            stray_segments,
        };
        let journal = Self {
            resource: log.resource,
            tokens: log.tokens,
            segments,
            log_dir,
            origin: format.point.lsn,
            writer: Writer::new(log.tokens, (KIND_WRITE, KIND_SYNC), end),
            tail,
            told: end.lsn,
            late_reads: VecDeque::new(),
            streams: Streams::new(log.resource, log.tokens, KIND_READ),
            released: Lsn::START,
            moving: None,
            truncation: None,
            truncations,
            resetting: None,
            is_failed: false,
            events: VecDeque::new(),
        };
        Ok((journal, recovered))
    }
}

/// The last truncation of a log, if there was one.
pub(super) struct LastCut {
    pub(super) sheet: Option<Sheet>,
    /// Whether the zeroing may not be finished.
    pub(super) is_pending: bool,
}

impl LastCut {
    pub(super) fn read<E: Engine + ?Sized>(
        engine: &mut E,
        dir: &Path,
        names: &BTreeSet<String>,
        resource: Option<ResourceId>,
    ) -> Result<Self, OpenError> {
        let is_pending = names.contains(TRUNCATING_NAME);
        let name = [TRUNCATING_NAME, TRUNCATED_NAME].into_iter().find(|name| names.contains(*name));
        let read = |name| read_sheet(engine, &dir.join(name), Kind::Truncation, resource);
        let sheet = name.map(read).transpose()?;
        Ok(Self { sheet, is_pending })
    }

    /// How far the log was durable, and where it has to end. Everything before the cut was
    /// durable when it was made; what an older superblock says beyond it is history.
    fn start(&self, log: &OpenLog<'_>) -> Result<Start, OpenError> {
        let checkpoint = log.checkpoint;
        let known = log.known_durable;
        let mut known_durable = known.map_or(Lsn::START, |known| known.lsn);
        let mut stop = None;
        if let Some(sheet) = &self.sheet {
            let to = sheet.point.lsn;
            let is_older = known.is_some_and(|known| known.truncations < sheet.number);
            known_durable = if is_older { to } else { known_durable.max(to) };
            stop = self.is_pending.then_some(to);
        }
        if let Some(to) = stop.filter(|to| checkpoint.lsn > *to) {
            let checkpoint = checkpoint.lsn;
            return Err(OpenError::CheckpointCutOff { checkpoint, to });
        }
        Ok(Start { resource: log.resource, checkpoint, known_durable, stop })
    }
}

fn write_now<E: Engine + ?Sized>(
    engine: &mut E,
    segments: &Segments,
    frame: &Frame,
) -> io::Result<()> {
    let bytes = frame.log_bytes();
    let pieces = segments.pieces(frame.lsn(), bytes.len());
    for piece in pieces.ok_or(io::ErrorKind::UnexpectedEof)? {
        let data = bytes.slice(piece.skip..piece.skip + piece.len);
        run(engine, Op::Write { file: piece.file, offset: piece.offset, data })?;
    }
    Ok(())
}

/// Makes the disk be what recovery says the log is: no remains behind the end, what the tail has
/// kept in its place, and everything durable that can be read, because a killed process leaves
/// frames that no sync covers. They are written again first: if it was killed after a failed sync,
/// they may be readable and yet be such that no later sync brings them to the disk. Writing the
/// same bytes harms in no crash.
fn mend<E: Engine + ?Sized>(
    engine: &mut E,
    segments: &Segments,
    log_dir: FileId,
    checkpoint: Lsn,
    (cut, found): (&LastCut, &Found),
) -> io::Result<()> {
    let end = found.end.lsn;
    for frame in &found.kept {
        write_now(engine, segments, frame)?;
    }
    write_again(engine, segments, found.durable.max(checkpoint), end)?;
    for file in segments.files_between(checkpoint, end) {
        run(engine, Op::Sync { file })?;
    }
    if let Some(sheet) = cut.sheet.filter(|_| cut.is_pending) {
        zero_now(engine, segments, end, sheet.end.min(segments.end()))?;
        // The record is done with only when the zeroes are durable.
        let (dir, from) = (log_dir, TRUNCATING_NAME.to_owned());
        let to = TRUNCATED_NAME.to_owned();
        run(engine, Op::Rename { dir, from, to })?;
    }
    zero_now(engine, segments, end, found.leftover_end)
}

pub(super) fn read_format<E: Engine + ?Sized>(
    engine: &mut E,
    dir: &Path,
    names: &BTreeSet<String>,
    resource: Option<ResourceId>,
) -> Result<Sheet, OpenError> {
    if !names.contains(FORMAT_NAME) {
        let path = dir.to_path_buf();
        return Err(if names.contains(UNFINISHED_NAME) {
            OpenError::Unfinished { path }
        } else {
            OpenError::Missing { path }
        });
    }
    let path = dir.join(FORMAT_NAME);
    let sheet = read_sheet(engine, &path, Kind::Format, resource)?;
    let found = sheet.number;
    let right = (SEGMENT_LEN_MIN..=SEGMENT_LEN_MAX).contains(&found) && found.is_multiple_of(ALIGN);
    if !right {
        return Err(OpenError::SegmentLen { path, found });
    }
    Ok(sheet)
}

/// Opens the segments around the checkpoint that follow each other without a gap.
pub(super) fn open_segments<E: Engine + ?Sized>(
    engine: &mut E,
    how: OpenAs,
    (dir, names): (&Path, &BTreeSet<String>),
    len: u64,
    checkpoint: Lsn,
) -> Result<(Segments, Vec<String>), OpenError> {
    let firsts = names.iter().filter_map(|name| parse_segment_name(name));
    let indexes: BTreeSet<u64> = firsts
        .filter(|first| first.get().is_multiple_of(len))
        .map(|first| first.get() / len)
        .collect();
    let needed = checkpoint.get() / len;
    let newest = indexes.last().copied().unwrap_or(needed);
    if let Some(gap) = (needed..=newest).find(|index| !indexes.contains(index)) {
        let path = dir.join(segment_name(Lsn::new(gap.saturating_mul(len))));
        return Err(OpenError::SegmentMissing { path });
    }
    let mut first = needed;
    while let Some(before) = first.checked_sub(1).filter(|i| indexes.contains(i)) {
        first = before;
    }
    let name_of = |index: u64| segment_name(Lsn::new(index * len));
    let strays = indexes.range(..first).copied().map(name_of).collect();
    let mut segments = Segments::new(dir.into(), len, first);
    for index in first..=newest {
        let path = dir.join(name_of(index));
        let file = engine.open(&path, how).map_err(io_at(&path))?;
        let found = engine.size(file).map_err(io_at(&path))?;
        if found != len {
            return Err(OpenError::SegmentSize { path, found, expected: len });
        }
        segments.push(Segment { file, dirty: false });
    }
    Ok((segments, strays))
}

/// Reads a sheet from a file of its own.
pub(super) fn read_sheet<E: Engine + ?Sized>(
    engine: &mut E,
    path: &Path,
    kind: Kind,
    resource: Option<ResourceId>,
) -> Result<Sheet, OpenError> {
    let page = read_page(engine, path).map_err(io_at(path))?;
    Sheet::decode_of(kind, &page, resource)
        .map_err(|cause| OpenError::Sheet { path: path.into(), cause })
}

pub(super) fn read_page<E: Engine + ?Sized>(
    engine: &mut E,
    path: &Path,
) -> io::Result<bytes::Bytes> {
    let file = engine.open(path, OpenAs::ReadOnly)?;
    let read = run_read(engine, file, 0, SHEET_LEN);
    engine.close(file);
    read
}

fn open_error(stopped: Stopped, segments: &Segments) -> OpenError {
    match stopped {
        Stopped::Damage(damage) => OpenError::Damage(damage),
        Stopped::Io(at, source) => {
            let (path, _) = segments.locate(at);
            OpenError::Io { path, source }
        }
    }
}

pub(super) fn io_at(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_path_buf();
    |source| OpenError::Io { path, source }
}

/// Opens arbitrary bytes as the segments of a log, twice; for fuzzing. Frames in them are found
/// where they name the resource of sixteen zero bytes.
///
/// # Panics
/// If the second recovery finds anything else than the first: recovery must be stable.
pub fn fuzz(bytes: &[u8]) {
    let resource = ResourceId::from_bytes([0; 16]);
    let dir = Path::new("/replica");
    let mut disk = Double::new(0, Order::AsSubmitted, Unsynced::Lost);
    let segment_len = SEGMENT_LEN_MIN;
    let segment_count = (bytes.len() as u64).div_ceil(segment_len).clamp(2, 64);
    let new = super::NewLog { resource, start: Lsn::START, segment_len, segment_count };
    let made = super::create(&mut disk, dir, &new, &mut |_, _| {});
    assert!(made.is_ok(), "an empty disk takes a log");
    for (chunk, first) in
        bytes.chunks(segment_len as usize).zip((0..segment_count).map(|n| n * segment_len))
    {
        let path = dir.join(LOG_DIR).join(segment_name(Lsn::new(first)));
        disk.tamper(&path, |file| {
            file.iter_mut().zip(chunk).for_each(|(byte, new)| *byte = *new);
        });
    }
    let log = OpenLog {
        replica_dir: dir,
        resource,
        checkpoint: LogPosition::genesis(resource),
        known_durable: None,
        tokens: TokenSpace::new(0),
    };
    let mut open = || Journal::open(&mut disk, &log, &mut |_| {}).map(|(_, recovered)| recovered);
    if let Ok(first) = open() {
        let second = open().map(|again| (again.end, again.discarded_bytes));
        assert!(matches!(second, Ok((end, 0)) if end == first.end));
    }
}

//! Which file holds which stretch of the log.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use hadrian_protocol::ids::Lsn;

use crate::buffer::{ALIGNMENT, IoBuf};
use crate::engine::{Engine, FileId, Op, OpenAs, run};

/// Shortest segment, in bytes: one frame of the largest size lies in at most two segments.
pub const SEGMENT_LEN_MIN: u64 = 4 << 20;
const SUFFIX: &str = ".seg";
const FILL_PIECE: usize = 1 << 20;

/// Why the segments of a log cannot be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The system refuses.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// There is a log already.
    #[error("{} is not empty; a log is never overwritten: move it away first", .0.display())]
    Exists(PathBuf),
    /// No segment is there.
    #[error("{} holds no log segment; the log of this replica is gone", .0.display())]
    Missing(PathBuf),
    /// Sizes differ or positions leave a hole: somebody touched the directory.
    #[error(
        "{}: the segments do not form one line at {at}; restore the missing file, \
         or make the replica again from the other member", .path.display()
    )]
    Broken {
        /// The directory.
        path: PathBuf,
        /// Where the line breaks.
        at: Lsn,
    },
    /// The sizes asked for make no log.
    #[error(
        "a log of {count} segments of {len} bytes is too small; \
         it needs at least 3 of at least {SEGMENT_LEN_MIN} bytes each, in whole pages"
    )]
    Size {
        /// Segments asked for.
        count: u64,
        /// Bytes of each.
        len: u64,
    },
}

/// The open segments, in order.
#[derive(Debug)]
pub struct Segments {
    dir: FileId,
    len: u64,
    open: VecDeque<Segment>,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    start: u64,
    file: FileId,
}

/// A stretch of one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stretch {
    pub(super) file: FileId,
    pub(super) offset: u64,
    pub(super) len: usize,
}

fn name(start: u64) -> String {
    format!("{start:016x}{SUFFIX}")
}

/// Makes `count` segments of `len` bytes in `dir`, really written, so that running out of space
/// is no state of a running log. `progress` hears the bytes written so far.
///
/// # Errors
/// [`SegmentError`]; what was made until then stays.
pub fn create<E: Engine>(
    engine: &mut E,
    dir: &Path,
    count: u64,
    len: u64,
    mut progress: impl FnMut(u64),
) -> Result<(), SegmentError> {
    if count < 3 || len < SEGMENT_LEN_MIN || !len.is_multiple_of(ALIGNMENT as u64) {
        return Err(SegmentError::Size { count, len });
    }
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| SegmentError::Io { path, source }
    };
    fs::create_dir_all(dir).map_err(io(dir))?;
    if fs::read_dir(dir).map_err(io(dir))?.next().is_some() {
        return Err(SegmentError::Exists(dir.into()));
    }
    for index in 0..count {
        let path = dir.join(name(index * len));
        OpenOptions::new().write(true).create_new(true).open(&path).map_err(io(&path))?;
        fill(engine, &path, len, |bytes| progress(index * len + bytes)).map_err(io(&path))?;
    }
    let dir_file = engine.open_dir(dir).map_err(io(dir))?;
    run(engine, Op::Sync { file: dir_file }).map_err(io(dir))?;
    engine.close(dir_file);
    Ok(())
}

fn fill<E: Engine>(
    engine: &mut E,
    path: &Path,
    len: u64,
    mut progress: impl FnMut(u64),
) -> io::Result<()> {
    let file = engine.open(path, OpenAs::Direct)?;
    let mut zeroes = IoBuf::with_len(FILL_PIECE);
    zeroes.fill(0);
    let zeroes = zeroes.freeze();
    let mut offset = 0;
    while offset < len {
        let piece = usize::try_from(len - offset).unwrap_or(FILL_PIECE).min(FILL_PIECE);
        run(engine, Op::Write { file, offset, data: zeroes.slice(..piece) })?;
        offset += piece as u64;
        progress(offset);
    }
    run(engine, Op::Sync { file })?;
    engine.close(file);
    Ok(())
}

impl Segments {
    /// Opens the segments in `dir`.
    ///
    /// # Errors
    /// [`SegmentError`]
    pub fn open<E: Engine>(engine: &mut E, dir: &Path) -> Result<Self, SegmentError> {
        let io = |source| SegmentError::Io { path: dir.into(), source };
        let mut starts = Vec::new();
        for entry in fs::read_dir(dir).map_err(io)? {
            let file_name = entry.map_err(io)?.file_name();
            let digits = file_name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            // Other files are none of the log's business.
            if let Some(start) = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()) {
                starts.push(start);
            }
        }
        starts.sort_unstable();
        let mut open = VecDeque::with_capacity(starts.len());
        let mut len = None;
        for start in starts {
            let path = dir.join(name(start));
            let io = |source| SegmentError::Io { path: path.clone(), source };
            let file = engine.open(&path, OpenAs::Direct).map_err(io)?;
            let size = engine.size(file).map_err(io)?;
            let expected = open.back().map(|last: &Segment| last.start + len.unwrap_or(size));
            let fits = len.is_none_or(|len| len == size) && expected.is_none_or(|e| e == start);
            if !fits || size < SEGMENT_LEN_MIN {
                return Err(SegmentError::Broken { path: dir.into(), at: Lsn::new(start) });
            }
            len = Some(size);
            open.push_back(Segment { start, file });
        }
        let len = len.ok_or_else(|| SegmentError::Missing(dir.into()))?;
        let dir = engine.open_dir(dir).map_err(io)?;
        Ok(Self { dir, len, open })
    }

    /// The oldest position that a segment holds.
    #[must_use]
    pub fn start(&self) -> Lsn {
        Lsn::new(self.open.front().map_or(0, |segment| segment.start))
    }

    /// The position behind the last segment.
    #[must_use]
    pub fn limit(&self) -> Lsn {
        Lsn::new(self.open.back().map_or(0, |segment| segment.start + self.len))
    }

    /// Bytes of log that all segments hold.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.len * self.open.len() as u64
    }

    /// The stretches of files that hold `len` bytes from `lsn`; `None` where they are not all
    /// inside the segments. At most two for anything as long as a frame.
    pub(super) fn stretches(&self, lsn: Lsn, len: usize) -> Option<Vec<Stretch>> {
        let end = lsn.checked_add(len as u64)?;
        if lsn < self.start() || end > self.limit() {
            return None;
        }
        let mut at = lsn.get();
        let mut stretches = Vec::with_capacity(2);
        while at < end.get() {
            let index = usize::try_from((at - self.start().get()) / self.len).ok()?;
            let segment = self.open.get(index)?;
            let stop = (segment.start + self.len).min(end.get());
            let len = usize::try_from(stop - at).ok()?;
            stretches.push(Stretch { file: segment.file, offset: at - segment.start, len });
            at = stop;
        }
        Some(stretches)
    }

    /// The rename that makes the oldest segment the newest, if nothing in it is needed: everything
    /// before `needed` may go. One at a time, so that the names always form one line.
    pub(super) fn recycle(&self, needed: Lsn) -> Option<Op> {
        let front = self.open.front()?;
        if self.open.len() < 2 || front.start + self.len > needed.get() {
            return None;
        }
        let (from, to) = (name(front.start), name(self.limit().get()));
        Some(Op::Rename { dir: self.dir, from, to })
    }

    /// The rename is durable.
    pub(super) fn recycled(&mut self) {
        let start = self.limit().get();
        if let Some(mut segment) = self.open.pop_front() {
            segment.start = start;
            self.open.push_back(segment);
        }
    }
}

//! Making the files of a log, once, before anything is written to it.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hadrian_protocol::frame::{ChainHash, LogPosition};
use hadrian_protocol::ids::{Lsn, ResourceId};

use super::layout::{
    ALIGN, FORMAT_NAME, LOG_DIR, SEGMENT_COUNT_MAX, SEGMENT_COUNT_MIN, SEGMENT_LEN_MAX,
    SEGMENT_LEN_MIN, UNFINISHED_NAME, parse_segment_name, segment_name,
};
use super::sheet::{Kind, SHEET_LEN, Sheet};
use crate::buffer::{BODY_LEN_MAX, IoBuf};
use crate::engine::{Engine, FileId, Op, OpenAs, run, run_read};

/// What a new log is to be.
#[derive(Clone, Copy, Debug)]
pub struct NewLog {
    /// Whose log.
    pub resource: ResourceId,
    /// Where its history begins: the start, or the position of a copy that was seeded.
    pub start: Lsn,
    /// Length of a segment in bytes, from [`SEGMENT_LEN_MIN`] to [`SEGMENT_LEN_MAX`], in pages.
    pub segment_len: u64,
    /// How many, from [`SEGMENT_COUNT_MIN`] to [`SEGMENT_COUNT_MAX`].
    pub segment_count: u64,
}

/// Why a log cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The segments have no allowed length.
    #[error(
        "a segment of {found} bytes cannot be; choose a multiple of {ALIGN} \
         from {SEGMENT_LEN_MIN} to {SEGMENT_LEN_MAX}"
    )]
    SegmentLen {
        /// What was asked for, in bytes.
        found: u64,
    },
    /// Too few segments or too many.
    #[error("{found} segments cannot be; choose {SEGMENT_COUNT_MIN} to {SEGMENT_COUNT_MAX}")]
    SegmentCount {
        /// What was asked for.
        found: u64,
    },
    /// The history cannot begin there.
    #[error("a log cannot begin at {found}: that is no whole page, or leaves no room behind it")]
    Start {
        /// What was asked for.
        found: Lsn,
    },
    /// There are segments, and they are not overwritten.
    #[error("{path} holds a log already; move it away to begin anew")]
    Exists {
        /// The log directory.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("{path}: {source}")]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Makes the log in the directory of a replica: every segment is really written with zeroes, so
/// that later no write needs space or changes an extent (design §2.6). `progress` is told the
/// bytes that are done and the bytes in all.
///
/// An interrupted creation can be begun again: until the format file has its name there is no log.
/// One that was made like this and was never opened is as good as new: the crash came between it
/// and what its replica has besides.
///
/// # Errors
/// [`CreateError`]
pub fn create<E: Engine + ?Sized>(
    engine: &mut E,
    replica_dir: &Path,
    new: &NewLog,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), CreateError> {
    check(new)?;
    let dir = replica_dir.join(LOG_DIR);
    let at_dir = |source| CreateError::Io { path: replica_dir.join(LOG_DIR), source };
    engine.create_dir(&dir).map_err(at_dir)?;
    let names = engine.list(&dir).map_err(at_dir)?;
    let first = new.start.get() / new.segment_len;
    if !may_begin(&names, first, new) {
        return match is_unused(engine, &dir, &names, new).map_err(at_dir)? {
            true => Ok(()),
            false => Err(CreateError::Exists { path: dir }),
        };
    }
    begin(engine, &dir, new).map_err(at_dir)?;
    let total = new.segment_count * new.segment_len;
    for number in 0..new.segment_count {
        let done = number * new.segment_len;
        let name = segment_name(Lsn::new((first + number) * new.segment_len));
        let path = dir.join(name);
        let mut tell = |bytes| progress(done + bytes, total);
        make_segment(engine, &path, new.segment_len, &mut tell)
            .map_err(|source| CreateError::Io { path, source })?;
    }
    finish(engine, &dir).map_err(at_dir)
}

fn check(new: &NewLog) -> Result<(), CreateError> {
    let NewLog { start, segment_len, segment_count, .. } = *new;
    let right_len = (SEGMENT_LEN_MIN..=SEGMENT_LEN_MAX).contains(&segment_len)
        && segment_len.is_multiple_of(ALIGN);
    if !right_len {
        return Err(CreateError::SegmentLen { found: segment_len });
    }
    if !(SEGMENT_COUNT_MIN..=SEGMENT_COUNT_MAX).contains(&segment_count) {
        return Err(CreateError::SegmentCount { found: segment_count });
    }
    let fits = start.checked_add(segment_len * (segment_count + 1));
    if !start.get().is_multiple_of(ALIGN) || fits.is_none() {
        return Err(CreateError::Start { found: start });
    }
    Ok(())
}

/// Whether nothing in the directory would be lost: it is empty, or holds what an interrupted
/// creation of this same log left. Segments without any sheet are a log that lost its format.
fn may_begin(names: &[String], first: u64, new: &NewLog) -> bool {
    let has = |name: &str| names.iter().any(|other| other == name);
    let mut segments = names.iter().filter_map(|name| parse_segment_name(name));
    let range = first * new.segment_len..(first + new.segment_count) * new.segment_len;
    let ours = segments.all(|begins| has(UNFINISHED_NAME) && range.contains(&begins.get()));
    ours && !has(FORMAT_NAME)
}

/// Whether the directory holds this very log, and nothing else: no segment has another name than
/// at its making, nothing was ever opened there, and no frame lies where the first would.
fn is_unused<E: Engine + ?Sized>(
    engine: &mut E,
    dir: &Path,
    names: &[String],
    new: &NewLog,
) -> io::Result<bool> {
    let first = new.start.get() / new.segment_len;
    let segments = (first..first + new.segment_count)
        .map(|number| segment_name(Lsn::new(number * new.segment_len)));
    let (mut wanted, mut found): (Vec<_>, Vec<_>) = (segments.collect(), names.to_vec());
    let first = wanted.first().cloned();
    wanted.push(FORMAT_NAME.to_owned());
    wanted.sort_unstable();
    found.sort_unstable();
    let Some(first) = first.filter(|_| wanted == found) else { return Ok(false) };
    let sheet = page(engine, &dir.join(FORMAT_NAME), 0)?;
    let frame = page(engine, &dir.join(first), new.start.get() % new.segment_len)?;
    Ok(sheet == sheet_of(new).encode() && frame.iter().all(|byte| *byte == 0))
}

fn page<E: Engine + ?Sized>(engine: &mut E, path: &Path, offset: u64) -> io::Result<Bytes> {
    let file = engine.open(path, OpenAs::ReadOnly)?;
    let read = run_read(engine, file, offset, SHEET_LEN);
    engine.close(file);
    read
}

fn sheet_of(new: &NewLog) -> Sheet {
    Sheet {
        kind: Kind::Format,
        resource: new.resource,
        point: LogPosition { lsn: new.start, chain: ChainHash::from_bytes([0; 32]) },
        end: Lsn::START,
        number: new.segment_len,
    }
}

/// Marks the directory as one in which a log is being made, before any segment is there.
fn begin<E: Engine + ?Sized>(engine: &mut E, dir: &Path, new: &NewLog) -> io::Result<()> {
    let file = engine.create(&dir.join(UNFINISHED_NAME), OpenAs::Direct)?;
    write_and_close(engine, file, &[(0, sheet_of(new).encode())])?;
    let dir = engine.open_dir(dir)?;
    run(engine, Op::Sync { file: dir })?;
    engine.close(dir);
    Ok(())
}

fn finish<E: Engine + ?Sized>(engine: &mut E, dir: &Path) -> io::Result<()> {
    let dir = engine.open_dir(dir)?;
    // The names of the segments first: the format's name says that they are all there.
    run(engine, Op::Sync { file: dir })?;
    let (from, to) = (UNFINISHED_NAME.to_owned(), FORMAT_NAME.to_owned());
    run(engine, Op::Rename { dir, from, to })?;
    engine.close(dir);
    Ok(())
}

fn make_segment<E: Engine + ?Sized>(
    engine: &mut E,
    path: &Path,
    len: u64,
    progress: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let file = engine.create(path, OpenAs::Direct)?;
    let zeroes = zeroes();
    let mut offset = 0;
    while offset < len {
        let data = zeroes.slice(..piece_len(zeroes.len(), len - offset));
        let written = data.len() as u64;
        run(engine, Op::Write { file, offset, data })?;
        offset += written;
        progress(offset);
    }
    write_and_close(engine, file, &[])
}

/// A megabyte of zeroes, shared by everybody who writes many.
pub(super) fn zeroes() -> Bytes {
    let mut buffer = IoBuf::with_len(BODY_LEN_MAX);
    buffer.fill(0);
    buffer.freeze()
}

/// The smaller of a buffer's length and what is left to do.
pub(super) fn piece_len(buffer_len: usize, left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(buffer_len)
}

fn write_and_close<E: Engine + ?Sized>(
    engine: &mut E,
    file: FileId,
    writes: &[(u64, Bytes)],
) -> io::Result<()> {
    for (offset, data) in writes {
        let (offset, data) = (*offset, data.clone());
        run(engine, Op::Write { file, offset, data })?;
    }
    run(engine, Op::Sync { file })?;
    engine.close(file);
    Ok(())
}

//! Cutting a tail that nobody was answered for (design §6.4), in two steps that each end durably.
//!
//! First the frames are saved to a quarantine file (I6). Then every byte from the cut on is
//! overwritten with zeroes and synced; only behind that may a new frame be written there, or a
//! crash could bring old frames back behind new ones (holes, story 17). A crash in between is
//! harmless: the log still ends where it did, or somewhere between, and the return begins again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use hadrian_protocol::frame::LogPosition;
use hadrian_protocol::ids::{Lsn, ResourceId};

use super::reader::read_frames;
use super::segments::Segments;
use crate::buffer::IoBuf;
use crate::engine::{Engine, Op, run};

const PIECE: usize = 1 << 20;

/// Why a tail could not be cut; the log is as it was.
#[derive(Debug, thiserror::Error)]
pub enum TruncateError {
    /// The quarantine file cannot be written.
    #[error("the tail cannot be saved to {}: {source}; nothing was cut", .path.display())]
    Quarantine {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The log cannot be read or overwritten.
    #[error("the log cannot be cut: {0}")]
    Log(#[from] io::Error),
    /// A frame of the tail does not check out.
    #[error("the tail cannot be read at {at}; nothing was cut")]
    Unreadable {
        /// Where.
        at: Lsn,
    },
}

/// Saves the frames from `from` to `end` in `dir`, durably, as the log holds them; returns the
/// file. A file of the same tail from an earlier try is written anew.
///
/// # Errors
/// [`TruncateError`]
pub fn quarantine<E: Engine>(
    engine: &mut E,
    segments: &Segments,
    from: LogPosition,
    end: Lsn,
    resource: ResourceId,
    dir: &Path,
) -> Result<PathBuf, TruncateError> {
    let path = dir.join(format!("tail-{:016x}-{:016x}.frames", from.lsn.get(), end.get()));
    let failed = |source| TruncateError::Quarantine { path: path.clone(), source };
    fs::create_dir_all(dir).map_err(failed)?;
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).open(&path).map_err(failed)?;
    let mut at = from;
    while at.lsn < end {
        let (frames, _) = read_frames(engine, segments, at, end, resource)?;
        if frames.is_empty() {
            return Err(TruncateError::Unreadable { at: at.lsn });
        }
        for frame in frames {
            file.write_all(frame.log_bytes()).map_err(failed)?;
            at = frame.position_after();
        }
    }
    file.sync_all().map_err(failed)?;
    // Both names must be there after a crash: the file's in the folder and the folder's above it.
    for folder in [Some(dir), dir.parent()].into_iter().flatten() {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    }
    Ok(path)
}

/// Overwrites the log from `from` to `end` with zeroes, durably.
///
/// # Errors
/// As the system says.
pub fn wipe<E: Engine>(engine: &mut E, segments: &Segments, from: Lsn, end: Lsn) -> io::Result<()> {
    let mut zeroes = IoBuf::with_len(PIECE);
    zeroes.fill(0);
    let zeroes = zeroes.freeze();
    let mut files = Vec::new();
    // From the end towards the cut: a crash leaves a shorter tail, never a hole in it.
    let mut at = end;
    while at > from {
        let len = usize::try_from(at.since(from)).unwrap_or(PIECE).min(PIECE);
        let start = Lsn::new(at.get() - len as u64);
        for stretch in segments.stretches(start, len).unwrap_or_default() {
            let data = zeroes.slice(..stretch.len);
            run(engine, Op::Write { file: stretch.file, offset: stretch.offset, data })?;
            files.push(stretch.file);
        }
        at = start;
    }
    files.sort_unstable();
    files.dedup();
    files.into_iter().try_for_each(|file| run(engine, Op::Sync { file }).map(drop))
}

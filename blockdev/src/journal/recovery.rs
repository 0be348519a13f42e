//! The end of the log after a crash (design §2.3).
//!
//! From the checkpoint on every frame is verified: header, payloads, link to the frame before. The
//! first that does not check out ends the log. If the log is known to have been durable beyond
//! that point, this is damage and never cut away in silence; else it is a tail that a crash has
//! torn. What is known comes from the stamps: those of the good frames, those of whole head pages
//! behind the bad one, and the superblock. A lost frame in front of a kept one is no damage as
//! long as no stamp says that it was durable (holes, story 16).

use std::io;

use hadrian_protocol::frame::{Frame, FrameError, HEAD_LEN, LogPosition, peek_stamp};
use hadrian_protocol::ids::{Lsn, ResourceId};

use super::reader::{read_at, read_frames};
use super::segments::Segments;
use crate::engine::Engine;

/// How far behind a bad frame whole head pages are looked for, in bytes. The frames that were
/// stamped after a sync lie within what is written between two syncs.
const SCAN_LEN: u64 = 64 << 20;
const SCAN_PIECE: usize = 1 << 20;

/// Why the log ends where it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The segments end.
    Limit,
    /// No valid frame begins here, and nothing says that one should.
    Tail(FrameError),
}

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The system refuses.
    #[error("the log cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A frame that was durable is not valid any more.
    #[error(
        "the log is damaged at {at} ({cause}): it is known to have been durable to {durable}. \
         Nothing was cut. Check the disk, then make this replica again from the other member"
    )]
    Damaged {
        /// Where.
        at: Lsn,
        /// What is wrong there.
        cause: FrameError,
        /// How far the log was durable.
        durable: Lsn,
    },
    /// The log does not hold the checkpoint.
    #[error("the log begins at {start}, behind the checkpoint at {checkpoint}; a segment is gone")]
    CheckpointGone {
        /// The oldest position in the log.
        start: Lsn,
        /// Where replay would begin.
        checkpoint: Lsn,
    },
}

/// Reads the log from `checkpoint` to its end, handing every frame to `each` in order.
///
/// # Errors
/// [`RecoveryError`]
pub fn recover<E: Engine>(
    engine: &mut E,
    segments: &Segments,
    checkpoint: LogPosition,
    known_durable: Lsn,
    resource: ResourceId,
    mut each: impl FnMut(Frame),
) -> Result<(LogPosition, Stop), RecoveryError> {
    let start = segments.start();
    if checkpoint.lsn < start || checkpoint.lsn > segments.limit() {
        return Err(RecoveryError::CheckpointGone { start, checkpoint: checkpoint.lsn });
    }
    let (mut end, mut durable) = (checkpoint, known_durable);
    loop {
        if end.lsn == segments.limit() {
            return Ok((end, Stop::Limit));
        }
        let (frames, error) = read_frames(engine, segments, end, segments.limit(), resource)?;
        let nothing = frames.is_empty();
        for frame in frames {
            end = frame.position_after();
            durable = durable.max(frame.stamp().map_or(Lsn::START, |stamp| stamp.durable));
            each(frame);
        }
        let cause = match error {
            Some(cause) => cause,
            None if nothing => return Ok((end, Stop::Limit)),
            None => continue,
        };
        // Where the superblock already says enough, the search behind is spared.
        if durable <= end.lsn {
            durable = durable.max(stamps_behind(engine, segments, end.lsn, resource)?);
        }
        if durable > end.lsn {
            return Err(RecoveryError::Damaged { at: end.lsn, cause, durable });
        }
        return Ok((end, Stop::Tail(cause)));
    }
}

/// The highest durable position that a whole head page behind `from` tells of.
fn stamps_behind<E: Engine>(
    engine: &mut E,
    segments: &Segments,
    from: Lsn,
    resource: ResourceId,
) -> io::Result<Lsn> {
    let mut highest = Lsn::START;
    let stop = segments.limit().since(from).min(SCAN_LEN);
    let mut at = 0;
    while at < stop {
        let len = usize::try_from(stop - at).unwrap_or(SCAN_PIECE).min(SCAN_PIECE);
        let lsn = Lsn::new(from.get() + at);
        let Some(bytes) = read_at(engine, segments, lsn, len)? else { return Ok(highest) };
        for (index, page) in bytes.chunks_exact(HEAD_LEN).enumerate() {
            let place = Lsn::new(lsn.get() + (index * HEAD_LEN) as u64);
            if let Some(stamp) = peek_stamp(page, resource, place) {
                highest = highest.max(stamp.durable);
            }
        }
        at += len as u64;
    }
    Ok(highest)
}

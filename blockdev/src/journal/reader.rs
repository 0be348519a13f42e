//! Reading frames back, one after the other, for recovery and tools. While the log is in use,
//! `streams` reads it.
//!
//! A frame is whole if its checksums match, it says its own position, and it follows on the frame
//! before it. Nothing else passes.

use std::io;

use bytes::Bytes;
use hadrian_protocol::frame::{self, ChainHash, Frame, FrameError, HEAD_LEN};
use hadrian_protocol::ids::{Lsn, ResourceId};

use super::layout::Segments;
use super::streams::STREAMS_MAX;
use crate::buffer::{BODY_LEN_MAX, IoBuf};
use crate::engine::{Engine, run_read};

/// Most bytes that are read at a time: whatever it is, the longest frame fits.
pub const CHUNK_LEN: usize = HEAD_LEN + BODY_LEN_MAX;
/// Why there is no frame at a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// The bytes are no whole frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A whole frame of another position: the segment's former life, or a write gone astray.
    #[error("the frame there says that it belongs at {found}")]
    Elsewhere {
        /// What it says.
        found: Lsn,
    },
    /// A whole frame of another history.
    #[error("the frame there does not follow on the one before it")]
    Chain,
}

/// Why a read gave no frames.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The position is no longer in the log.
    #[error("the log begins at {start} now; what is before must come from a resync")]
    Gone {
        /// The oldest position that can be read.
        start: Lsn,
    },
    /// The position is past what was written.
    #[error("the log is written up to {written} only")]
    Beyond {
        /// Where what was written ends.
        written: Lsn,
    },
    /// Too many readers at a time; try again after the next has what it waits for.
    #[error("{STREAMS_MAX} readers of the log wait already")]
    Busy,
    /// The position is not the beginning of a frame, or the frame was damaged since.
    #[error("no frame can be read at {at}: {cause}")]
    Bad {
        /// Where.
        at: Lsn,
        /// What is wrong there.
        cause: BadFrame,
    },
    /// The system refuses.
    #[error("reading the log at {at}: {source}")]
    Io {
        /// Where.
        at: Lsn,
        /// What the system says.
        source: io::Error,
    },
}

/// The frame at the front of `bytes`, which must be the one at `at` and follow on `before`.
pub(super) fn frame_at(
    bytes: &Bytes,
    resource: ResourceId,
    at: Lsn,
    before: Option<ChainHash>,
) -> Result<Frame, BadFrame> {
    let frame = Frame::open(bytes.clone(), resource)?;
    if frame.lsn() != at {
        let found = frame.lsn();
        return Err(BadFrame::Elsewhere { found });
    }
    if before.is_some_and(|before| !frame.follows(before)) {
        return Err(BadFrame::Chain);
    }
    Ok(frame)
}

/// Reads `len` bytes of the log at `at`, at most [`CHUNK_LEN`], and waits for them.
pub(super) fn read_range<E: Engine + ?Sized>(
    engine: &mut E,
    segments: &Segments,
    at: Lsn,
    len: usize,
) -> io::Result<Bytes> {
    let outside = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let pieces = segments.pieces(at, len).ok_or_else(outside)?;
    let mut parts = Vec::with_capacity(pieces.len());
    for piece in pieces {
        parts.push(run_read(engine, piece.file, piece.offset, piece.len)?);
    }
    Ok(join(parts, len))
}

/// One range of bytes out of its parts, in their order: a lone part as it is, without a copy;
/// of several, the first `len` bytes.
#[expect(clippy::indexing_slicing, reason = "no more is taken than there is")]
pub(super) fn join(mut parts: Vec<Bytes>, len: usize) -> Bytes {
    if parts.len() <= 1 {
        return parts.pop().unwrap_or_default();
    }
    let (mut whole, mut at) = (IoBuf::with_len(len), 0);
    for part in parts {
        let taken = part.len().min(len - at);
        whole[at..at + taken].copy_from_slice(&part[..taken]);
        at += taken;
    }
    whole.freeze().slice(..len)
}

/// One step of a [`Cursor`].
#[derive(Debug)]
pub(super) enum Step {
    /// The next frame.
    Frame(Frame),
    /// There is no frame here.
    Bad(BadFrame),
    /// The segments, or the limit, end here.
    End,
}

/// Walks over the frames of a log, waiting for each read.
#[derive(Debug)]
pub(super) struct Cursor {
    resource: ResourceId,
    at: Lsn,
    before: Option<ChainHash>,
    limit: Lsn,
    chunk: Bytes,
}

impl Cursor {
    /// From `at` to `limit`. The first frame has to follow on `before`, where that is known.
    pub(super) fn new(
        resource: ResourceId,
        at: Lsn,
        before: Option<ChainHash>,
        limit: Lsn,
    ) -> Self {
        let chunk = Bytes::new();
        Self { resource, at, before, limit, chunk }
    }

    pub(super) fn at(&self) -> Lsn {
        self.at
    }

    /// The next frame. `read` brings bytes from a position on: at least as many as the first number
    /// says, and no more than the second.
    pub(super) fn next(
        &mut self,
        mut read: impl FnMut(Lsn, usize, usize) -> io::Result<Bytes>,
    ) -> io::Result<Step> {
        if self.limit.since(self.at) == 0 {
            return Ok(Step::End);
        }
        let left = usize::try_from(self.limit.since(self.at)).unwrap_or(usize::MAX);
        let most = left.min(CHUNK_LEN);
        let mut opened = frame_at(&self.chunk, self.resource, self.at, self.before);
        // Its head may be in the chunk, and tell that the frame is longer than what is left of it.
        while let Err(BadFrame::Frame(FrameError::Short { need, .. })) = opened
            && self.chunk.len() < need.min(most)
        {
            self.chunk = read(self.at, need.min(most), most)?;
            opened = frame_at(&self.chunk, self.resource, self.at, self.before);
        }
        Ok(match opened {
            Ok(frame) => {
                self.chunk = self.chunk.slice(frame.log_bytes().len()..);
                self.at = frame.end();
                self.before = Some(frame.chain());
                Step::Frame(frame)
            }
            Err(cause) => Step::Bad(cause),
        })
    }
}

/// A read that has ended, by the caller's number for it.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) caller: u64,
    pub(super) from: Lsn,
    pub(super) result: Result<Vec<Frame>, ReadError>,
}

/// Whether `page` is the head of a whole frame at `at`, and how much of the log it then takes.
pub(super) fn head_at(page: &[u8], resource: ResourceId, at: Lsn) -> Option<u64> {
    (frame::peek_lsn(page, resource)? == at).then_some(())?;
    Some(frame::peek_size(page).ok()?.log_len() as u64)
}

//! Reading frames back: one after the other for recovery and tools, or some at a time while the
//! log is in use, for a standby that catches up.
//!
//! A frame is whole if its checksums match, it says its own position, and it follows on the frame
//! before it. Nothing else passes.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use hadrian_protocol::frame::{self, ChainHash, Frame, FrameError, HEAD_LEN};
use hadrian_protocol::ids::{Lsn, ResourceId};

use super::layout::{SEGMENT_LEN_MIN, Segments};
use crate::buffer::{BODY_LEN_MAX, IoBuf};
use crate::engine::{Completion, Engine, Op, TokenSpace, run};

/// Most bytes that are read at a time: whatever it is, the longest frame fits.
pub const CHUNK_LEN: usize = HEAD_LEN + BODY_LEN_MAX;
/// Most reads under way at a time (design §10); one more is refused.
pub const READS_MAX: usize = 64;

/// Bits of a read's token that number its parts.
const PART_BITS: u32 = 8;
const _: () = assert!(CHUNK_LEN as u64 / SEGMENT_LEN_MIN + 2 < 1 << PART_BITS);

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
    /// Too many reads at a time; try again after the next has ended.
    #[error("{READS_MAX} reads of the log are under way already")]
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
        let op = Op::Read {
            file: piece.file,
            offset: piece.offset,
            buffer: IoBuf::with_len(piece.len),
            len: piece.len,
        };
        match run(engine, op)? {
            Op::Read { buffer, .. } => parts.push(buffer.freeze().slice(..piece.len)),
            _ => unreachable!("an operation comes back as itself"),
        }
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

/// What a read under way needs to go on.
#[derive(Debug)]
struct Read {
    caller: u64,
    from: Lsn,
    len: usize,
    left: usize,
    /// With the number of each.
    parts: Vec<(u64, Bytes)>,
    error: Option<io::Error>,
}

/// A read that has ended, by the caller's number for it.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) caller: u64,
    pub(super) from: Lsn,
    pub(super) result: Result<Vec<Frame>, ReadError>,
}

/// The reads of a log in use.
#[derive(Debug)]
pub(super) struct Reads {
    resource: ResourceId,
    tokens: TokenSpace,
    kind: u8,
    next: u64,
    under_way: BTreeMap<u64, Read>,
}

impl Reads {
    pub(super) fn new(resource: ResourceId, tokens: TokenSpace, kind: u8) -> Self {
        Self { resource, tokens, kind, next: 0, under_way: BTreeMap::new() }
    }

    /// Begins to read `len` bytes at `from`, for the whole frames in them; more where the first
    /// frame is longer.
    pub(super) fn begin<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        segments: &Segments,
        from: Lsn,
        len: usize,
        caller: u64,
    ) -> Result<(), ReadError> {
        if self.under_way.len() >= READS_MAX {
            return Err(ReadError::Busy);
        }
        self.submit(engine, segments, from, len, caller)
    }

    fn submit<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        segments: &Segments,
        from: Lsn,
        len: usize,
        caller: u64,
    ) -> Result<(), ReadError> {
        let start = segments.start();
        let pieces = segments.pieces(from, len).ok_or(ReadError::Gone { start })?;
        let number = self.next;
        self.next += 1;
        let read = Read {
            caller,
            from,
            len,
            left: pieces.len(),
            parts: Vec::with_capacity(pieces.len()),
            error: None,
        };
        self.under_way.insert(number, read);
        for (part, piece) in (0..).zip(pieces) {
            let op = Op::Read {
                file: piece.file,
                offset: piece.offset,
                buffer: IoBuf::with_len(piece.len),
                len: piece.len,
            };
            let number = number << PART_BITS | part;
            engine.submit(self.tokens.token(self.kind, number), op);
        }
        Ok(())
    }

    /// Takes the end of one part; `Some` when the whole read has ended.
    pub(super) fn complete<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        segments: &Segments,
        completion: Completion,
    ) -> Option<Ended> {
        let (_, number) = TokenSpace::split(completion.token);
        let (number, part) = (number >> PART_BITS, number & ((1 << PART_BITS) - 1));
        let read = self.under_way.get_mut(&number)?;
        read.left -= 1;
        match (completion.result, completion.op) {
            (Ok(()), Op::Read { buffer, len, .. }) => {
                read.parts.push((part, buffer.freeze().slice(..len)));
            }
            (Err(error), _) => read.error = Some(error),
            (Ok(()), op) => unreachable!("a read came back as {op:?}"),
        }
        if read.left > 0 {
            return None;
        }
        let read = self.under_way.remove(&number)?;
        self.finish(engine, segments, read)
    }

    fn finish<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        segments: &Segments,
        read: Read,
    ) -> Option<Ended> {
        let Read { caller, from, len, mut parts, .. } = read;
        let ended = |result| Some(Ended { caller, from, result });
        if let Some(source) = read.error {
            return ended(Err(ReadError::Io { at: from, source }));
        }
        parts.sort_unstable_by_key(|(part, _)| *part);
        let bytes = join(parts.into_iter().map(|(_, bytes)| bytes).collect(), len);
        match whole_frames(&bytes, self.resource, from) {
            Err(BadFrame::Frame(FrameError::Short { need, .. })) if need > len => {
                // One frame that is longer than was asked for: now its length is known.
                match self.submit(engine, segments, from, need, caller) {
                    Ok(()) => None,
                    Err(error) => ended(Err(error)),
                }
            }
            Err(cause) => ended(Err(ReadError::Bad { at: from, cause })),
            Ok(frames) => ended(Ok(frames)),
        }
    }
}

/// The whole frames at the front of `bytes`, each following on the one before; the error of the
/// first where there is none.
fn whole_frames(bytes: &Bytes, resource: ResourceId, from: Lsn) -> Result<Vec<Frame>, BadFrame> {
    let (mut frames, mut rest, mut at, mut before) = (Vec::new(), bytes.clone(), from, None);
    while !rest.is_empty() {
        match frame_at(&rest, resource, at, before) {
            Ok(frame) => {
                rest = rest.slice(frame.log_bytes().len()..);
                (at, before) = (frame.end(), Some(frame.chain()));
                frames.push(frame);
            }
            Err(cause) if frames.is_empty() => return Err(cause),
            // The next read begins there, and says what is wrong if it still is.
            Err(_) => break,
        }
    }
    Ok(frames)
}

/// Whether `page` is the head of a whole frame at `at`, and how much of the log it then takes.
pub(super) fn head_at(page: &[u8], resource: ResourceId, at: Lsn) -> Option<u64> {
    (frame::peek_lsn(page, resource)? == at).then_some(())?;
    Some(frame::peek_size(page).ok()?.log_len() as u64)
}

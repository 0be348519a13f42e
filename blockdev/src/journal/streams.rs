//! Frames of a log in use, one after the other, for whoever reads a long stretch of it: a standby
//! that catches up, or a replica that brings back what it has left in the log.
//!
//! A stream reads ahead of its reader, so what it holds may be older than what the log holds by
//! then. Positions are never used twice but after a cut: [`Streams::cut`] takes that part away.

use std::io;

use hadrian_protocol::frame::{ChainHash, Frame, FrameError, HEAD_LEN};
use hadrian_protocol::ids::{Lsn, ResourceId};

use super::ahead::Ahead;
use super::layout::Segments;
use super::reader::{BadFrame, Ended, ReadError, frame_at};
use crate::engine::{Completion, Engine, TokenSpace};

/// Most streams at a time (design §10): one for each other member, two for the replica itself, and
/// some that nobody uses any more, of which the oldest makes room for a new one.
pub(super) const STREAMS_MAX: usize = 16;

/// Bits of a token that number the reads of one stream.
const READ_BITS: u32 = 32;

#[derive(Debug)]
struct Stream {
    number: u64,
    caller: u64,
    /// The next frame begins here.
    at: Lsn,
    /// Where reading ends, as the log was at the last call.
    limit: Lsn,
    /// Bytes that the caller waits for.
    wanted: Option<usize>,
    ahead: Ahead,
}

/// The streams out of one log.
#[derive(Debug)]
pub(super) struct Streams {
    resource: ResourceId,
    tokens: TokenSpace,
    kind: u8,
    next: u64,
    /// The one that was called last is last.
    open: Vec<Stream>,
}

impl Streams {
    pub(super) fn new(resource: ResourceId, tokens: TokenSpace, kind: u8) -> Self {
        Self { resource, tokens, kind, next: 0, open: Vec::new() }
    }

    /// Begins to read whole frames at `from` for `caller`, at most `max_bytes` of them but one at
    /// least. Where they are at hand already, they come at once.
    pub(super) fn begin<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        segments: &Segments,
        (from, limit): (Lsn, Lsn),
        max_bytes: usize,
        caller: u64,
    ) -> Result<Option<Ended>, ReadError> {
        let own = self.open.iter().position(|stream| stream.caller == caller);
        let idle = || self.open.iter().position(|stream| stream.wanted.is_none());
        let mut stream = match own {
            Some(index) => self.open.remove(index),
            None => {
                if self.open.len() >= STREAMS_MAX {
                    self.open.remove(idle().ok_or(ReadError::Busy)?);
                }
                self.next += 1;
                let (number, ahead) = (self.next, Ahead::default());
                Stream { number, caller, at: from, limit, wanted: None, ahead }
            }
        };
        (stream.at, stream.limit, stream.wanted) = (from, limit, Some(max_bytes));
        self.open.push(stream);
        Ok(self.go_on(engine, segments, self.open.len() - 1))
    }

    /// Takes the end of one read; `Some` when a caller has what it waits for.
    pub(super) fn complete<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        segments: &Segments,
        completion: Completion,
    ) -> Option<Ended> {
        let (_, number) = TokenSpace::split(completion.token);
        let (number, read) = (number >> READ_BITS, number & ((1 << READ_BITS) - 1));
        let index = self.open.iter().position(|stream| stream.number == number)?;
        let stream = self.open.get_mut(index)?;
        stream.ahead.complete(read, completion.op, completion.result);
        self.go_on(engine, segments, index)
    }

    /// The log ends at `to`, or soon will: what was read behind it is of the past.
    pub(super) fn cut(&mut self, to: Lsn) {
        for stream in &mut self.open {
            stream.limit = stream.limit.min(to);
            stream.ahead.cut(to);
        }
    }

    /// Ends every stream, because the log begins anew. Returns who waits.
    pub(super) fn forget(&mut self) -> Vec<u64> {
        let ended = std::mem::take(&mut self.open).into_iter();
        ended.filter(|stream| stream.wanted.is_some()).map(|stream| stream.caller).collect()
    }

    /// Reads ahead, and takes frames for a caller that waits.
    fn go_on<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        segments: &Segments,
        index: usize,
    ) -> Option<Ended> {
        let Self { resource, tokens, kind, open, .. } = self;
        let stream = open.get_mut(index)?;
        let number = stream.number << READ_BITS;
        let token = |read: u64| tokens.token(*kind, number | read);
        let from = stream.at;
        stream.ahead.fill(engine, segments, (from, stream.limit), token);
        let result = stream.take(*resource, stream.wanted?)?;
        let caller = stream.caller;
        stream.wanted = None;
        match &result {
            // The next ones are read while these are on their way.
            Ok(_) => stream.ahead.fill(engine, segments, (stream.at, stream.limit), token),
            // Whoever tries again sees what the disk says then.
            Err(_) => drop(open.remove(index)),
        }
        Some(Ended { caller, from, result })
    }
}

impl Stream {
    /// Frames from the front on; None while the first is not there.
    fn take(
        &mut self,
        resource: ResourceId,
        max_bytes: usize,
    ) -> Option<Result<Vec<Frame>, ReadError>> {
        let (mut frames, mut before, mut bytes) = (Vec::new(), None, 0);
        while frames.is_empty() || self.at < self.limit {
            let at = self.at;
            let frame = match self.frame(resource, before) {
                Some(Ok(frame)) => frame,
                None if frames.is_empty() => return None,
                // Cut off meanwhile, here or a little further on: no error, there is nothing left.
                Some(Err(Cause::Bad(BadFrame::Frame(FrameError::Short { .. })))) => break,
                Some(Err(cause)) if frames.is_empty() => return Some(Err(cause.at(at))),
                // The next call begins there, and says what is wrong if it still is.
                _ => break,
            };
            bytes += frame.log_bytes().len();
            if bytes > max_bytes && !frames.is_empty() {
                break;
            }
            (self.at, before) = (frame.end(), Some(frame.chain()));
            frames.push(frame);
        }
        Some(Ok(frames))
    }

    /// The next frame; None while it is not there.
    fn frame(
        &mut self,
        resource: ResourceId,
        before: Option<ChainHash>,
    ) -> Option<Result<Frame, Cause>> {
        let mut least = HEAD_LEN;
        loop {
            let bytes = match self.ahead.bytes(self.at, least)? {
                Ok(bytes) => bytes,
                Err(error) => return Some(Err(Cause::Io(error))),
            };
            match frame_at(&bytes, resource, self.at, before) {
                // Its head tells how long it is, and there is more to be read.
                Err(BadFrame::Frame(FrameError::Short { need, .. }))
                    if need > least && bytes.len() >= least =>
                {
                    least = need;
                }
                result => return Some(result.map_err(Cause::Bad)),
            }
        }
    }
}

/// Why there is no frame.
enum Cause {
    Io(io::Error),
    Bad(BadFrame),
}

impl Cause {
    fn at(self, at: Lsn) -> ReadError {
        match self {
            Self::Io(source) => ReadError::Io { at, source },
            Self::Bad(cause) => ReadError::Bad { at, cause },
        }
    }
}

#[cfg(test)]
mod tests;

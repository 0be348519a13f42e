//! Whole, verified frames from a position of the log.

use std::io;

use bytes::Bytes;
use hadrian_protocol::frame::{Frame, FrameError, HEAD_LEN, LogPosition, peek_size};
use hadrian_protocol::ids::{Lsn, ResourceId};

use super::segments::Segments;
use crate::buffer::{BODY_LEN_MAX, IoBuf};
use crate::engine::{Completion, Engine, Op, Token, run};

/// Bytes that one read asks for: any frame fits.
const WINDOW: usize = HEAD_LEN + BODY_LEN_MAX;

/// A read of the log that is under way beside other work.
#[derive(Debug)]
pub struct LogRead {
    from: Lsn,
    limit: Lsn,
    parts: Vec<Option<IoBuf>>,
    lens: Vec<usize>,
    failed: Option<io::Error>,
    missing: usize,
    token_base: u64,
}

impl LogRead {
    /// Begins to read from `from`, not beyond `limit` (the end of what is written). Tokens of its
    /// operations are `token_base` and the next. `None` where the log does not hold `from`.
    pub fn begin<E: Engine>(
        engine: &mut E,
        segments: &Segments,
        from: Lsn,
        limit: Lsn,
        token_base: u64,
    ) -> Option<Self> {
        let len = usize::try_from(limit.since(from)).unwrap_or(WINDOW).min(WINDOW);
        let stretches = segments.stretches(from, len).filter(|_| len > 0)?;
        let lens = stretches.iter().map(|stretch| stretch.len).collect();
        let missing = stretches.len();
        for (index, stretch) in stretches.into_iter().enumerate() {
            let buffer = IoBuf::with_len(stretch.len);
            let (file, offset, len) = (stretch.file, stretch.offset, stretch.len);
            let token = Token(token_base + index as u64);
            engine.submit(token, Op::Read { file, offset, buffer, len });
        }
        let parts = (0..missing).map(|_| None).collect();
        Some(Self { from, limit, parts, lens, failed: None, missing, token_base })
    }

    /// Takes the completion of one of its operations; true when all are there.
    pub fn complete(&mut self, done: Completion) -> bool {
        self.missing -= 1;
        let index = usize::try_from(done.token.0 - self.token_base).unwrap_or(usize::MAX);
        if let Err(error) = done.result {
            self.failed = Some(error);
        }
        if let (Op::Read { buffer, .. }, Some(part)) = (done.op, self.parts.get_mut(index)) {
            *part = Some(buffer);
        }
        self.missing == 0
    }

    /// The whole frames that were read, in order.
    ///
    /// # Errors
    /// As the system says. A frame that does not check out ends the list.
    pub fn frames(self, resource: ResourceId) -> io::Result<Vec<Frame>> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let bytes = join(self.parts, &self.lens);
        let (frames, _) = parse(bytes, self.from, self.limit, resource);
        Ok(frames)
    }
}

/// One buffer is used as it is; two are put together.
fn join(parts: Vec<Option<IoBuf>>, lens: &[usize]) -> Bytes {
    let mut parts: Vec<IoBuf> = parts.into_iter().flatten().collect();
    if parts.len() == 1 {
        return parts.pop().map(IoBuf::freeze).unwrap_or_default();
    }
    let mut whole = IoBuf::with_len(lens.iter().sum());
    let mut at = 0;
    for (part, len) in parts.iter().zip(lens) {
        whole[at..at + len].copy_from_slice(&part[..*len]);
        at += len;
    }
    whole.freeze()
}

/// Takes frames from the front of `bytes` until one is not whole or not valid.
fn parse(
    bytes: Bytes,
    from: Lsn,
    limit: Lsn,
    resource: ResourceId,
) -> (Vec<Frame>, Option<FrameError>) {
    let mut frames = Vec::new();
    let (mut at, mut lsn) = (0, from);
    while lsn < limit {
        let rest = bytes.slice(at.min(bytes.len())..);
        let frame = match Frame::open(rest, resource) {
            Ok(frame) if frame.lsn() == lsn => frame,
            Ok(_) => return (frames, Some(FrameError::Magic)),
            Err(error) => return (frames, Some(error)),
        };
        at += frame.log_bytes().len();
        lsn = frame.end();
        frames.push(frame);
    }
    (frames, None)
}

/// Reads frames from `from` on, blocking: at least one, as many as a window holds, none beyond
/// `limit`. The frames follow on `from.chain`.
///
/// The second value says why the list ends, where it is not for the window or the limit.
///
/// # Errors
/// As the system says.
pub fn read_frames<E: Engine>(
    engine: &mut E,
    segments: &Segments,
    from: LogPosition,
    limit: Lsn,
    resource: ResourceId,
) -> io::Result<(Vec<Frame>, Option<FrameError>)> {
    let limit = limit.min(segments.limit());
    let len = usize::try_from(limit.since(from.lsn)).unwrap_or(WINDOW).min(WINDOW);
    let Some(bytes) = read_at(engine, segments, from.lsn, len)? else {
        return Ok((Vec::new(), None));
    };
    let (mut frames, mut error) = parse(bytes.clone(), from.lsn, limit, resource);
    // A frame that only the window cuts is no bad frame, unless it is the first.
    if let Some(FrameError::Short { .. } | FrameError::Magic) = error
        && !frames.is_empty()
        && is_cut(&bytes, &frames, from.lsn)
    {
        error = None;
    }
    let mut chain = from.chain;
    let linked = frames.iter().position(|frame| {
        let follows = frame.follows(chain);
        chain = frame.chain();
        !follows
    });
    if let Some(bad) = linked {
        frames.truncate(bad);
        error = Some(FrameError::HeadChecksum);
    }
    Ok((frames, error))
}

/// Whether the frame behind `frames` begins inside `bytes` and ends outside.
fn is_cut(bytes: &Bytes, frames: &[Frame], from: Lsn) -> bool {
    let done = frames.last().map_or(0, |frame| frame.end().since(from));
    let at = usize::try_from(done).unwrap_or(usize::MAX);
    let rest = bytes.get(at..).unwrap_or_default();
    rest.len() < HEAD_LEN || peek_size(rest).is_ok_and(|size| size.log_len() > rest.len())
}

/// Reads raw bytes of the log, blocking. `None` where the segments do not hold them.
pub(super) fn read_at<E: Engine>(
    engine: &mut E,
    segments: &Segments,
    lsn: Lsn,
    len: usize,
) -> io::Result<Option<Bytes>> {
    let Some(stretches) = segments.stretches(lsn, len).filter(|_| len > 0) else {
        return Ok(None);
    };
    let lens: Vec<_> = stretches.iter().map(|stretch| stretch.len).collect();
    let mut parts = Vec::with_capacity(stretches.len());
    for stretch in stretches {
        let buffer = IoBuf::with_len(stretch.len);
        let (file, offset, len) = (stretch.file, stretch.offset, stretch.len);
        if let Op::Read { buffer, .. } = run(engine, Op::Read { file, offset, buffer, len })? {
            parts.push(Some(buffer));
        }
    }
    Ok(Some(join(parts, &lens)))
}

//! Reading a log on and on, some pieces ahead of whoever takes its frames: a disk is fast only if
//! it is asked for more before it has answered.
//!
//! Pieces are as they lie on the disk, so a frame may begin in one and end in another; only such a
//! frame is copied. What is read here is not checked yet: that is done where frames are taken out.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use hadrian_protocol::ids::Lsn;

use super::layout::Segments;
use super::reader::join;
use crate::buffer::{BODY_LEN_MAX, IoBuf};
use crate::engine::{Engine, Op, Token};

/// Bytes of a piece; one at the end of a segment is shorter.
const PIECE_LEN: usize = BODY_LEN_MAX;
/// Bytes that are being read or wait to be taken (design §10), not counting the last piece; the
/// longest frame fits several times.
const AHEAD_MAX: u64 = 8 << 20;

/// A stretch of the log in memory, or on its way there.
#[derive(Debug)]
struct Piece {
    number: u64,
    at: Lsn,
    len: usize,
    /// None while the disk has not answered.
    read: Option<io::Result<Bytes>>,
}

impl Piece {
    fn end(&self) -> Lsn {
        Lsn::new(self.at.get().saturating_add(self.len as u64))
    }
}

/// The pieces that follow on a position.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Each begins where the one before it ends.
    pieces: VecDeque<Piece>,
    next_number: u64,
    /// Reads that the disk has not answered, also those that nobody needs any more.
    under_way: usize,
}

impl Ahead {
    /// Forgets what lies before `at`, and asks for what comes next, up to `limit`.
    pub(super) fn fill<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        segments: &Segments,
        (at, limit): (Lsn, Lsn),
        token: impl Fn(u64) -> Token,
    ) {
        while self.pieces.pop_front_if(|piece| piece.end() <= at).is_some() {}
        // Somewhere else than where it was read on.
        if self.pieces.front().is_some_and(|piece| piece.at > at) {
            self.pieces.clear();
        }
        loop {
            let next = self.pieces.back().map_or(at, Piece::end);
            if next.since(at) >= AHEAD_MAX {
                return;
            }
            let in_segment = segments.segment_len() - next.get() % segments.segment_len();
            let left = in_segment.min(limit.since(next));
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_LEN);
            let Some(pieces) = segments.pieces(next, len).filter(|_| len > 0) else { return };
            let [place] = pieces.as_slice() else { return };
            let op = Op::Read {
                file: place.file,
                offset: place.offset,
                buffer: IoBuf::with_len(len),
                len,
            };
            let number = self.next_number;
            self.next_number += 1;
            self.under_way += 1;
            self.pieces.push_back(Piece { number, at: next, len, read: None });
            engine.submit(token(number), op);
        }
    }

    /// Takes the end of the read of this number.
    pub(super) fn complete(&mut self, number: u64, op: Op, result: io::Result<()>) {
        self.under_way -= 1;
        let Some(piece) = self.pieces.iter_mut().find(|piece| piece.number == number) else {
            return;
        };
        let Op::Read { buffer, .. } = op else { unreachable!("a read came back as {op:?}") };
        piece.read = Some(result.map(|()| buffer.freeze()));
    }

    /// Reads that are under way.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Nothing behind `to` is what it was.
    pub(super) fn cut(&mut self, to: Lsn) {
        while self.pieces.pop_back_if(|piece| piece.at >= to).is_some() {}
        if let Some(last) = self.pieces.back_mut() {
            let left = usize::try_from(to.since(last.at)).unwrap_or(usize::MAX);
            last.len = last.len.min(left);
        }
    }

    /// The bytes at `at`, where [`Ahead::fill`] has been: at least `least` of them, fewer only
    /// where no more was to be read. None while the disk has not answered.
    pub(super) fn bytes(&mut self, at: Lsn, least: usize) -> Option<io::Result<Bytes>> {
        let (mut parts, mut len) = (Vec::new(), 0);
        for piece in &mut self.pieces {
            match &mut piece.read {
                None => return None,
                Some(Err(error)) => {
                    let kind = error.kind();
                    return Some(Err(std::mem::replace(error, kind.into())));
                }
                Some(Ok(bytes)) => {
                    let skip = usize::try_from(at.since(piece.at)).unwrap_or(usize::MAX);
                    let rest = bytes.slice(skip.min(piece.len)..piece.len);
                    len += rest.len();
                    parts.push(rest);
                }
            }
            if len >= least {
                break;
            }
        }
        Some(Ok(join(parts, least.min(len))))
    }
}

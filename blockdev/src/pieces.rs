//! A volume in pieces, without overlaps, each with where its bytes are; between them are gaps.

use std::collections::BTreeMap;
use std::ops::Bound;

use hadrian_protocol::range::ByteRange;

/// Where the bytes of a piece are.
pub(crate) trait Source: Copy {
    /// Whether `next`, which begins at byte `at` of the volume, only goes on with this.
    fn goes_on(self, next: Self, at: u64) -> bool;
}

#[derive(Clone, Copy, Debug)]
struct Piece<S> {
    end: u64,
    source: S,
}

/// The pieces of one volume, by first byte.
#[derive(Debug)]
pub(crate) struct Pieces<S>(BTreeMap<u64, Piece<S>>);

impl<S> Default for Pieces<S> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<S: Source> Pieces<S> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Bytes of all of them.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.iter().map(|(start, piece)| piece.end - start).sum()
    }

    /// Puts a piece where there is none yet.
    pub(crate) fn put_under(&mut self, start: u64, end: u64, source: S) {
        let mut at = start;
        while at < end {
            let (to, found) = self.at(at, end);
            if found.is_none() {
                self.insert(at, to, source);
            }
            at = to;
        }
    }

    /// Puts a piece over whatever is there.
    pub(crate) fn put_over(&mut self, range: ByteRange, source: S) {
        let (start, end) = (range.start(), range.end());
        // What begins before and reaches in keeps its front, and its back where it reaches out.
        let before = self.0.range(..start).next_back().map(|(at, piece)| (*at, *piece));
        if let Some((at, piece)) = before.filter(|(_, piece)| piece.end > start) {
            self.0.insert(at, Piece { end: start, ..piece });
            if piece.end > end {
                self.0.insert(end, piece);
            }
        }
        while let Some((at, piece)) = self.0.range(start..end).next() {
            let (at, piece) = (*at, *piece);
            self.0.remove(&at);
            if piece.end > end {
                self.0.insert(end, piece);
            }
        }
        self.insert(start, end, source);
    }

    fn insert(&mut self, start: u64, end: u64, source: S) {
        if let Some((_, before)) = self.0.range_mut(..start).next_back()
            && before.end == start
            && before.source.goes_on(source, start)
        {
            before.end = end;
            return;
        }
        self.0.insert(start, Piece { end, source });
    }

    /// Where the stretch of one kind that begins at `at` ends, at most `end`, and what it is of.
    pub(crate) fn at(&self, at: u64, end: u64) -> (u64, Option<S>) {
        let before = self.0.range(..=at).next_back();
        if let Some((_, piece)) = before.filter(|(_, piece)| piece.end > at) {
            return (piece.end.min(end), Some(piece.source));
        }
        let behind = (Bound::Excluded(at), Bound::Unbounded);
        let next = self.0.range(behind).next().map_or(end, |(start, _)| *start);
        (next.min(end), None)
    }
}

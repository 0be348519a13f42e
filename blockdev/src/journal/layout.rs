//! Where a position of the log lies: which segment, and where in it.
//!
//! Segment `k` holds the positions from `k × segment_len` on, whatever position the log began at,
//! so that the file's name says everything. The segments of a log are contiguous; a frame that
//! crosses from one to the next is written in two parts.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use hadrian_protocol::ids::Lsn;
use smallvec::SmallVec;

use crate::engine::FileId;

/// The directory of the log in the replica's directory.
pub const LOG_DIR: &str = "log";
/// Unit of positions, in bytes: a page, for direct I/O.
pub const ALIGN: u64 = 4096;
/// Shortest segment, in bytes.
pub const SEGMENT_LEN_MIN: u64 = 16 << 10;
/// Longest segment, in bytes.
pub const SEGMENT_LEN_MAX: u64 = 1 << 32;
/// Fewest segments of a log: one that is written to, and one ready ahead.
pub const SEGMENT_COUNT_MIN: u64 = 2;
/// Most segments of a log; each is an open file.
pub const SEGMENT_COUNT_MAX: u64 = 4096;

/// How the log is laid out; there once the creation is finished.
pub(super) const FORMAT_NAME: &str = "format";
/// The same while the segments are being made.
pub(super) const UNFINISHED_NAME: &str = "format.part";
/// A truncation that has begun to zero the tail.
pub(super) const TRUNCATING_NAME: &str = "truncating";
/// The same while it is being written.
pub(super) const TRUNCATING_PART_NAME: &str = "truncating.part";
/// The last truncation that was done.
pub(super) const TRUNCATED_NAME: &str = "truncated";

/// The name of the segment that begins at `first`.
#[must_use]
pub fn segment_name(first: Lsn) -> String {
    format!("{:016x}.seg", first.get())
}

/// The position at which the segment called `name` begins; `None` where that is no segment's name.
#[must_use]
pub fn parse_segment_name(name: &str) -> Option<Lsn> {
    let digits = name.strip_suffix(".seg")?;
    let first = Lsn::new(u64::from_str_radix(digits, 16).ok()?);
    // Only the one spelling: signs, capitals and other lengths are somebody else's files.
    (segment_name(first) == name).then_some(first)
}

/// A part of a range of the log that lies in one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub(super) file: FileId,
    /// Where in the file, in bytes.
    pub(super) offset: u64,
    /// How many bytes.
    pub(super) len: usize,
    /// Bytes of the range before this piece.
    pub(super) skip: usize,
}

/// A place in a file of the log. What lies there stays as long as the log is not released to
/// behind its frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spot {
    /// Which segment; its number in the engine stays when the segment is renamed.
    pub file: FileId,
    /// Where in it, in bytes.
    pub offset: u64,
}

impl Spot {
    /// The place `bytes` further on.
    #[must_use]
    pub fn behind(self, bytes: u64) -> Self {
        Self { offset: self.offset.saturating_add(bytes), ..self }
    }
}

/// One segment: an open file, and whether it holds writes that no sync covers.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) file: FileId,
    pub(super) dirty: bool,
}

/// The contiguous segments of a log.
#[derive(Debug)]
pub(super) struct Segments {
    dir: PathBuf,
    len: u64,
    first: u64,
    files: VecDeque<Segment>,
}

impl Segments {
    /// Segments of `len` bytes in the log directory `dir`, the first being number `first`.
    pub(super) fn new(dir: PathBuf, len: u64, first: u64) -> Self {
        assert!(len > 0, "a segment is not empty");
        Self { dir, len, first, files: VecDeque::new() }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn segment_len(&self) -> u64 {
        self.len
    }

    /// Where the oldest segment begins.
    pub(super) fn start(&self) -> Lsn {
        self.boundary(self.first)
    }

    /// Where the newest segment ends: nothing can be written there or later.
    pub(super) fn end(&self) -> Lsn {
        self.boundary(self.first.saturating_add(self.files.len() as u64))
    }

    fn boundary(&self, index: u64) -> Lsn {
        Lsn::new(index.saturating_mul(self.len))
    }

    /// Where the segment after the oldest begins.
    pub(super) fn second_start(&self) -> Lsn {
        self.boundary(self.first.saturating_add(1))
    }

    pub(super) fn push(&mut self, segment: Segment) {
        self.files.push_back(segment);
    }

    /// Takes the oldest away; the log begins one segment later then.
    pub(super) fn pop(&mut self) -> Option<Segment> {
        let segment = self.files.pop_front()?;
        self.first += 1;
        Some(segment)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Segment> {
        self.files.iter_mut()
    }

    pub(super) fn mark_dirty(&mut self, file: FileId) {
        // Writes go to the newest segments mostly.
        if let Some(segment) = self.files.iter_mut().rev().find(|s| s.file == file) {
            segment.dirty = true;
        }
    }

    /// The files that hold any of the positions from `from` to `to`.
    pub(super) fn files_between(&self, from: Lsn, to: Lsn) -> Vec<FileId> {
        let (from, to) = (from.get() / self.len, to.get().div_ceil(self.len));
        let indexed = self.files.iter().zip(self.first..);
        indexed
            .filter(|(_, index)| (from..to).contains(index))
            .map(|(segment, _)| segment.file)
            .collect()
    }

    /// Where the `len` bytes at `at` lie; `None` where the log does not hold all of them.
    pub(super) fn pieces(&self, at: Lsn, len: usize) -> Option<SmallVec<[Piece; 2]>> {
        let mut pieces = SmallVec::new();
        let mut skip = 0;
        while skip < len {
            let here = at.checked_add(skip as u64)?;
            let index = (here.get() / self.len).checked_sub(self.first)?;
            let file = self.files.get(usize::try_from(index).ok()?)?.file;
            let offset = here.get() % self.len;
            let room = usize::try_from(self.len - offset).unwrap_or(usize::MAX);
            let piece_len = room.min(len - skip);
            pieces.push(Piece { file, offset, len: piece_len, skip });
            skip += piece_len;
        }
        Some(pieces)
    }

    /// The file in which `at` lies, and where in it, for messages.
    pub(super) fn locate(&self, at: Lsn) -> (PathBuf, u64) {
        let first = self.boundary(at.get() / self.len);
        (self.dir.join(segment_name(first)), at.get() % self.len)
    }

    /// The path of an open segment, for messages.
    pub(super) fn path_of(&self, file: FileId) -> PathBuf {
        let place = self.files.iter().position(|s| s.file == file);
        place.map_or_else(
            || self.dir.clone(),
            |place| {
                let index = self.first.saturating_add(place as u64);
                self.dir.join(segment_name(self.boundary(index)))
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segments(len: u64, first: u64, count: u32) -> Segments {
        let mut segments = Segments::new(PathBuf::from("/log"), len, first);
        for number in 0..count {
            segments.push(Segment { file: FileId(number), dirty: false });
        }
        segments
    }

    #[test]
    fn names_and_positions_are_the_same_thing() {
        let first = Lsn::new(0x1_2345_0000);
        assert_eq!(segment_name(first), "0000000123450000.seg");
        assert_eq!(parse_segment_name("0000000123450000.seg"), Some(first));
        for other in [
            "format",
            "123450000.seg",
            "+000000123450000.seg",
            "00000001234A0000.seg",
            "0000000123450000.seg.old",
        ] {
            assert_eq!(parse_segment_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_range_that_the_log_does_not_hold_has_no_place() {
        let segments = segments(16384, 2, 3);
        assert_eq!((segments.start(), segments.end()), (Lsn::new(32768), Lsn::new(81920)));
        assert!(segments.pieces(Lsn::new(28672), 4096).is_none());
        assert!(segments.pieces(Lsn::new(77824), 8192).is_none());
        assert!(segments.pieces(Lsn::new(u64::MAX - 4095), 8192).is_none());
        assert_eq!(segments.pieces(Lsn::new(77824), 4096).unwrap().len(), 1);
    }

    proptest! {
        #[test]
        fn pieces_cover_a_range_once_and_in_order(
            first in 0u64..5, at in 0u64..40, pages in 1usize..20
        ) {
            let segments = segments(16384, first, 8);
            let (at, len) = (Lsn::new(at * 4096), pages * 4096);
            let inside = at >= segments.start()
                && at.get() + len as u64 <= segments.end().get();
            let pieces = segments.pieces(at, len);
            prop_assert_eq!(pieces.is_some(), inside);
            let mut next = at.get();
            for piece in pieces.into_iter().flatten() {
                let base = (first + u64::from(piece.file.0)) * 16384;
                prop_assert_eq!(base + piece.offset, next);
                prop_assert_eq!(at.get() + piece.skip as u64, next);
                next += piece.len as u64;
                prop_assert!(piece.offset + piece.len as u64 <= 16384);
            }
            prop_assert!(!inside || next == at.get() + len as u64);
        }
    }
}

//! Ranges of bytes on a volume: never empty, never past what a number can say.

use std::fmt;

/// A non-empty range of bytes of one volume whose end fits in 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRange {
    start: u64,
    end: u64,
}

/// Why two numbers are no range of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// The length is zero.
    #[error("a range of 0 bytes at offset {offset} touches nothing")]
    Empty {
        /// Where it would begin, in bytes.
        offset: u64,
    },
    /// The range ends past the volume (or past 64 bits).
    #[error("{len} bytes at offset {offset} end past the volume's {size} bytes")]
    PastEnd {
        /// Where it begins, in bytes.
        offset: u64,
        /// Its length in bytes.
        len: u64,
        /// The volume's size in bytes.
        size: u64,
    },
    /// Offset or length is not a multiple of the volume's block size.
    #[error("{len} bytes at offset {offset} are not whole blocks of {block_size} bytes")]
    Misaligned {
        /// Where it begins, in bytes.
        offset: u64,
        /// Its length in bytes.
        len: u64,
        /// The volume's block size in bytes.
        block_size: u32,
    },
}

impl ByteRange {
    /// `len` bytes at `offset`.
    ///
    /// # Errors
    /// [`RangeError::Empty`] for no bytes, [`RangeError::PastEnd`] where the end does not fit.
    pub fn new(offset: u64, len: u64) -> Result<Self, RangeError> {
        if len == 0 {
            return Err(RangeError::Empty { offset });
        }
        let end =
            offset.checked_add(len).ok_or(RangeError::PastEnd { offset, len, size: u64::MAX })?;
        Ok(Self { start: offset, end })
    }

    /// `len` bytes at `offset` of a volume of `size` bytes in blocks of `block_size`.
    ///
    /// # Errors
    /// As [`ByteRange::new`], and [`RangeError::Misaligned`] for parts of blocks.
    pub fn on_volume(
        offset: u64,
        len: u64,
        size: u64,
        block_size: u32,
    ) -> Result<Self, RangeError> {
        let range = Self::new(offset, len)?;
        if range.end > size {
            return Err(RangeError::PastEnd { offset, len, size });
        }
        let block = u64::from(block_size.max(1));
        if !offset.is_multiple_of(block) || !len.is_multiple_of(block) {
            return Err(RangeError::Misaligned { offset, len, block_size });
        }
        Ok(range)
    }

    /// First byte.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// One past the last byte.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.end
    }

    /// Number of bytes, at least 1.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// Whether the two share a byte.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// The bytes that both hold; `None` where they share none.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start < end).then_some(Self { start, end })
    }

    /// Cuts into pieces of at most `len` bytes, in order.
    pub fn pieces(self, len: u64) -> impl Iterator<Item = Self> {
        let step = len.max(1);
        let count = self.len().div_ceil(step);
        (0..count).map(move |index| {
            let start = self.start + index * step;
            Self { start, end: start.saturating_add(step).min(self.end) }
        })
    }
}

impl fmt::Debug for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_refused_where_it_is_empty_past_the_end_or_off_the_blocks() {
        assert_eq!(ByteRange::new(5, 0), Err(RangeError::Empty { offset: 5 }));
        assert!(matches!(ByteRange::new(u64::MAX, 2), Err(RangeError::PastEnd { .. })));
        assert!(matches!(
            ByteRange::on_volume(512, 1024, 1024, 512),
            Err(RangeError::PastEnd { size: 1024, .. })
        ));
        assert!(matches!(
            ByteRange::on_volume(100, 512, 4096, 512),
            Err(RangeError::Misaligned { .. })
        ));
        assert!(ByteRange::on_volume(3584, 512, 4096, 512).is_ok());
    }

    #[test]
    fn pieces_cover_the_range_once_and_in_order() {
        let range = ByteRange::new(10, 25).unwrap();
        let pieces: Vec<_> = range.pieces(10).map(|p| (p.start(), p.len())).collect();
        assert_eq!(pieces, [(10, 10), (20, 10), (30, 5)]);
    }

    #[test]
    fn ranges_that_only_touch_do_not_overlap() {
        let (a, b) = (ByteRange::new(0, 10).unwrap(), ByteRange::new(10, 5).unwrap());
        assert!(!a.overlaps(b));
        assert_eq!(a.intersection(b), None);
        let c = ByteRange::new(9, 2).unwrap();
        assert_eq!(a.intersection(c), ByteRange::new(9, 1).ok());
    }
}

//! Large changes that stay in the log for a while before they are brought into the stores.
//!
//! A large write is stored in the log, and once more in the store. While it waits it is stored once
//! only, so a burst of large writes runs at the speed of one copy; and what is written again before
//! it was brought into the store need never be brought there. Nothing of design §2.2 changes: a
//! store still gets nothing that is not durable in the log and allowed; it gets it later, or, where
//! an allowed later change covers all of it, not at all.
//!
//! What waits longer than memory lasts is left in the log alone, and read from there. The log is
//! not released before the stores have it and are durable, so it stays where it is.

use hadrian_protocol::ids::Lsn;

use crate::journal::Spot;

/// How much may wait, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hold {
    /// Bytes of log that may wait, counted from the first frame that the stores lack. Zero:
    /// everything that is allowed is brought into the stores at once.
    pub log_bytes: u64,
    /// Bytes of memory that may be used for it; what is more is left in the log alone.
    pub memory_bytes: u64,
    /// Changes from this length on are large, in bytes. Small ones do not wait: they cost a frame
    /// of the log each, and an entry in memory.
    pub large_min: usize,
}

/// Most frames that are left in the log alone, each an entry of about a hundred bytes in memory.
pub(super) const LEFT_COUNT_MAX: usize = 1 << 16;

impl Default for Hold {
    fn default() -> Self {
        Self { log_bytes: 0, memory_bytes: 48 << 20, large_min: 16 << 10 }
    }
}

/// Whether it pays that changes wait.
///
/// Where hardly anything is written again while it waits, to bring it into the stores later means
/// to read it from the log once more for nothing. Then waiting is given up until the stores have
/// everything. What is in the log alone by then must be brought in while new changes come, so these
/// are slowed down: one byte is let in for each two that the stores get, until memory holds all.
#[derive(Debug, Default)]
pub(super) struct Worth {
    covered_bytes: u64,
    written_bytes: u64,
    gave_up: bool,
    /// Most bytes that may wait at the moment; none: as many as there is room for.
    cap: Option<u64>,
}

/// So many bytes are looked at before it is judged.
const JUDGED_BYTES: u64 = 64 << 20;
/// One byte in so many must have been written again.
const COVERED_PART: u64 = 8;

impl Worth {
    /// A change was not brought in, because a later one covers it.
    pub(super) fn covered(&mut self, bytes: u64) {
        self.covered_bytes += bytes;
    }

    /// A large change was brought in.
    pub(super) fn written(&mut self, bytes: u64) {
        self.written_bytes += bytes;
    }

    /// The stores have `bytes` of log more; `waiting` bytes still wait, and memory may hold
    /// `memory` of them.
    pub(super) fn advanced(&mut self, bytes: u64, waiting: u64, memory: u64) {
        if waiting == 0 {
            return *self = Self::default();
        }
        let all = self.covered_bytes + self.written_bytes;
        if all >= JUDGED_BYTES {
            if !self.gave_up && self.covered_bytes < all / COVERED_PART {
                self.gave_up = true;
                self.cap = Some(waiting);
            }
            (self.covered_bytes, self.written_bytes) = (0, 0);
        }
        self.cap = self.cap.map(|cap| cap.saturating_sub(bytes / 2)).filter(|_| waiting > memory);
    }

    /// Nothing waits for the sake of waiting.
    pub(super) fn is_given_up(&self) -> bool {
        self.gave_up
    }

    /// Frames may be left in the log alone.
    pub(super) fn may_leave(&self) -> bool {
        !self.gave_up || self.cap.is_some()
    }

    /// Whether new changes are to wait until fewer than `waiting` bytes do.
    pub(super) fn is_slowed(&self, waiting: u64) -> bool {
        self.cap.is_some_and(|cap| waiting > cap)
    }
}

/// Finds the place of `len` bytes of the log; none where they lie in two files.
pub(super) type FindSpot<'a> = &'a dyn Fn(Lsn, usize) -> Option<Spot>;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn waiting_is_given_up_where_nothing_is_written_again_until_nothing_waits() {
        let mut worth = Worth::default();
        worth.written(JUDGED_BYTES - 1);
        worth.advanced(MIB, 500 * MIB, 48 * MIB);
        assert!(!worth.is_given_up(), "too little was seen");
        worth.written(1);
        worth.advanced(MIB, 500 * MIB, 48 * MIB);
        assert!(worth.is_given_up());
        worth.advanced(MIB, 0, 48 * MIB);
        assert!(!worth.is_given_up());
    }

    #[test]
    fn waiting_goes_on_where_an_eighth_is_written_again() {
        let mut worth = Worth::default();
        worth.covered(JUDGED_BYTES / COVERED_PART);
        worth.written(JUDGED_BYTES - JUDGED_BYTES / COVERED_PART);
        worth.advanced(MIB, 500 * MIB, 48 * MIB);
        assert!(!worth.is_given_up());
    }

    #[test]
    fn what_is_in_the_log_alone_is_brought_in_twice_as_fast_as_new_changes_come() {
        let mut worth = Worth::default();
        worth.written(JUDGED_BYTES);
        worth.advanced(0, 500 * MIB, 48 * MIB);
        assert!(worth.may_leave() && !worth.is_slowed(500 * MIB));
        worth.advanced(100 * MIB, 400 * MIB, 48 * MIB);
        assert!(!worth.is_slowed(450 * MIB) && worth.is_slowed(451 * MIB));
        // Memory holds the rest: from here on nothing has to be read from the log.
        worth.advanced(MIB, 48 * MIB, 48 * MIB);
        assert!(worth.is_given_up() && !worth.may_leave() && !worth.is_slowed(500 * MIB));
    }
}

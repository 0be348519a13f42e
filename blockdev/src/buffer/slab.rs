//! Memory of many large buffers at once, in huge pages.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use super::{HEAD_LEN, Memory, class_len};

/// What all bodies of a slab have together, in bytes: a huge page.
const HUGE_PAGE: usize = 2 << 20;

/// One mapping. Its buffers each hold it; the last one to go unmaps it.
pub(super) struct Slab {
    mapped: NonNull<c_void>,
    len: usize,
}

// SAFETY: a slab is a range of addresses; nothing is read or written through it.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

/// How many buffers with bodies of `body_len` bytes a slab has.
pub(super) const fn count(body_len: usize) -> usize {
    HUGE_PAGE / body_len
}

impl Slab {
    /// Zeroed memory of all buffers of a new slab, for the most part in huge pages; `None` where
    /// the system has no such range.
    pub(super) fn cut(class: usize) -> Option<Vec<Memory>> {
        let len = class_len(class);
        let count = count(len - HEAD_LEN);
        let used = len * count;
        // Huge pages begin at their own size; the room for that is never touched.
        let mapped_len = used + HUGE_PAGE;
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping touches no memory that is in use.
        let mapped = unsafe { mmap_anonymous(ptr::null_mut(), mapped_len, access, flags) }.ok()?;
        let slab = Arc::new(Self { mapped: NonNull::new(mapped)?, len: mapped_len });
        let first = mapped.cast::<u8>();
        // SAFETY: less than a huge page further on, `used` bytes of the mapping are left.
        let first = unsafe { first.add(first.align_offset(HUGE_PAGE)) };
        // What is no whole huge page is left to ordinary ones; so is everything where the system
        // has no huge pages, and says so here.
        let whole = used / HUGE_PAGE * HUGE_PAGE;
        // SAFETY: the range lies in the new mapping.
        let _ = unsafe { madvise(first.cast(), whole, Advice::LinuxHugepage) };
        // SAFETY: each piece lies in the mapping, and no two overlap.
        let piece = |at| NonNull::new(unsafe { first.add(at * len) });
        let memory = |ptr| Memory { ptr, class, slab: Some(slab.clone()) };
        (0..count).map(|at| piece(at).map(memory)).collect()
    }

    /// Takes a piece that nobody uses any more. Its memory goes to the system at once, its
    /// addresses with those of the whole slab.
    pub(super) fn give_back(self: Arc<Self>, piece: NonNull<u8>, len: usize) {
        // SAFETY: the caller gives up the piece, and nobody else has it. Where the system does not
        // take the memory now, it does when the slab ends.
        let _ = unsafe { madvise(piece.as_ptr().cast(), len, Advice::LinuxDontNeed) };
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: whoever had a piece of this mapping has given it up. A range that was mapped can
        // be unmapped; if not, it stays, which harms nobody.
        let _ = unsafe { munmap(self.mapped.as_ptr(), self.len) };
    }
}

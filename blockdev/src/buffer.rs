//! Page-aligned buffers for direct I/O, and the per-thread lists that recycle them.
//!
//! A payload is read from the socket into one of these, becomes part of a frame, and that same
//! memory is then written to the log, sent to the peer, read by clients and applied to the
//! backing store. Nothing on the way copies it, so its alignment must suit the strictest reader:
//! the disk.
//!
//! Buffers come in size classes of one head page plus a power-of-two body, because that is what
//! a frame is ([`HEAD_LEN`] + payload). A dropped buffer goes to a list of the dropping thread;
//! the data path is one thread per resource, so there is no lock and nothing is shared. Each list
//! is bounded by [`FREE_BYTES_MAX`].
//!
//! They come from slabs of huge pages, where the system has those: for direct I/O the kernel looks
//! up and holds each page of a buffer, and the disk gets it as one piece where it is one. Of a MiB
//! that is written, this saves two thirds of the processor time. What is given up goes back to the
//! system from the middle of a slab, which a general allocator would keep.
#![allow(unsafe_code, reason = "allocates with the alignment that disks want")]

mod slab;

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use bytes::Bytes;
use hadrian_protocol::frame::FrameBuffer;
use slab::Slab;

/// Alignment of every buffer, in bytes; no block device asks for more than its page.
pub const ALIGNMENT: usize = 4096;
/// Room for the head of a frame in front of its body, in bytes.
pub const HEAD_LEN: usize = 4096;
/// Largest body that a buffer can hold, in bytes.
pub const BODY_LEN_MAX: usize = 1 << 20;
/// Most bytes that one thread keeps in its free lists; what is dropped beyond goes to the system.
pub const FREE_BYTES_MAX: usize = 64 << 20;

const CLASS_COUNT: usize = 9;
/// A thread that keeps fewer bytes uses no slabs: they are bought by the dozen.
const SLAB_KEPT_MIN: usize = 24 << 20;

/// An exclusively owned, page-aligned buffer of initialised bytes.
///
/// `len` is what the caller asked for, rounded up to [`ALIGNMENT`]; the capacity is that of its
/// size class. A recycled buffer holds the bytes of its former life: whoever pads must zero.
pub struct IoBuf {
    memory: ManuallyDrop<Memory>,
    len: usize,
}

/// Memory of one buffer, of a size class; a piece of a slab, or by itself. Goes to the system at
/// its end.
struct Memory {
    ptr: NonNull<u8>,
    class: usize,
    slab: Option<Arc<Slab>>,
}

/// From here on this thread keeps at most so many bytes of buffers for the next ones, and no more
/// than [`FREE_BYTES_MAX`]: for a process with many threads.
pub fn keep_at_most(bytes: usize) {
    FREE.with_borrow_mut(|free| free.bytes_max = bytes.min(FREE_BYTES_MAX));
}

impl IoBuf {
    /// A buffer of at least `len` bytes, recycled where the thread has one.
    ///
    /// # Panics
    /// If `len` is larger than a head plus [`BODY_LEN_MAX`]; callers split before they ask.
    #[must_use]
    pub fn with_len(len: usize) -> Self {
        let class = class_of(len);
        let taken = FREE.with_borrow_mut(|free| free.take(class));
        let memory = taken.unwrap_or_else(|| allocate(class));
        Self { memory: ManuallyDrop::new(memory), len: round_up(len) }
    }

    /// A buffer for a frame whose body has room for `body_len` bytes behind its head page.
    #[must_use]
    pub fn for_body(body_len: usize) -> Self {
        Self::with_len(HEAD_LEN + body_len)
    }

    /// Bytes that the buffer's memory holds beyond `len`, without another allocation.
    #[must_use]
    pub fn capacity(&self) -> usize {
        class_len(self.memory.class)
    }

    /// Changes the visible length, within the capacity.
    ///
    /// # Panics
    /// If `len`, rounded up to a page, is over the capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(round_up(len) <= self.capacity(), "length {len} is over the buffer's capacity");
        self.len = round_up(len);
    }

    /// Gives up write access; the bytes are shared from here on and recycled at the last drop.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

// SAFETY: an `IoBuf` owns its memory exclusively, like a `Vec<u8>`; no thread holds a part of it.
unsafe impl Send for IoBuf {}
// SAFETY: shared access is only by `&[u8]`.
unsafe impl Sync for IoBuf {}

impl Deref for IoBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `ptr` is valid for `class_len` ≥ `len` bytes, which were zeroed at allocation.
        unsafe { std::slice::from_raw_parts(self.memory.ptr.as_ptr(), self.len) }
    }
}

impl DerefMut for IoBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` proves that nobody else looks.
        unsafe { std::slice::from_raw_parts_mut(self.memory.ptr.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for IoBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for IoBuf {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl FrameBuffer for IoBuf {
    fn freeze(self) -> Bytes {
        IoBuf::freeze(self)
    }
}

impl Drop for IoBuf {
    fn drop(&mut self) {
        // SAFETY: the field is not used again: this is its end.
        let memory = unsafe { ManuallyDrop::take(&mut self.memory) };
        // The list is gone while the thread ends; then the memory goes straight back.
        let _ = FREE.try_with(|free| free.borrow_mut().put(memory));
    }
}

impl fmt::Debug for IoBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoBuf({} of {} bytes)", self.len, self.capacity())
    }
}

thread_local! {
    static FREE: RefCell<FreeLists> = const { RefCell::new(FreeLists::new()) };
}

struct FreeLists {
    lists: [Vec<Memory>; CLASS_COUNT],
    bytes: usize,
    bytes_max: usize,
    /// When each class was asked for last, counted in requests.
    asked: [u64; CLASS_COUNT],
    requests: u64,
}

impl FreeLists {
    const fn new() -> Self {
        let lists = [const { Vec::new() }; CLASS_COUNT];
        let asked = [0; CLASS_COUNT];
        Self { lists, bytes: 0, bytes_max: FREE_BYTES_MAX, asked, requests: 0 }
    }

    fn take(&mut self, class: usize) -> Option<Memory> {
        self.requests += 1;
        self.asked[class] = self.requests;
        if self.lists[class].is_empty() {
            self.add_slab(class);
        }
        let memory = self.lists[class].pop()?;
        self.bytes -= class_len(class);
        Some(memory)
    }

    /// Keeps the memory where there is room for it.
    fn put(&mut self, memory: Memory) {
        let len = class_len(memory.class);
        if self.make_room(memory.class, len) {
            self.bytes += len;
            self.lists[memory.class].push(memory);
        }
    }

    /// Fills an empty list from a new slab, where the thread may keep as much.
    fn add_slab(&mut self, class: usize) {
        let bytes = slab::count(class_len(class) - HEAD_LEN) * class_len(class);
        if self.bytes_max >= SLAB_KEPT_MIN
            && self.make_room(class, bytes)
            && let Some(pieces) = Slab::cut(class)
        {
            self.lists[class].extend(pieces);
            self.bytes += bytes;
        }
    }

    /// Gives up buffers of those classes that nobody has asked for the longest. Without that, what
    /// small writes have left would keep out the large buffers of the writes that follow, and each
    /// of those would be bought and zeroed anew.
    fn make_room(&mut self, class: usize, bytes: usize) -> bool {
        while self.bytes + bytes > self.bytes_max {
            let others = (0..CLASS_COUNT)
                .filter(|other| self.asked[*other] < self.asked[class])
                .filter(|other| !self.lists[*other].is_empty());
            let Some(oldest) = others.min_by_key(|other| self.asked[*other]) else { return false };
            self.lists[oldest].pop();
            self.bytes -= class_len(oldest);
        }
        true
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        match self.slab.take() {
            Some(slab) => slab.give_back(self.ptr, class_len(self.class)),
            // SAFETY: every pointer that is in no slab came from `allocate` with the layout of its
            // class, and this is the only copy of it.
            None => unsafe { dealloc(self.ptr.as_ptr(), layout(self.class)) },
        }
    }
}

fn class_of(len: usize) -> usize {
    let body_pages = round_up(len.max(HEAD_LEN + 1)) / ALIGNMENT - 1;
    let class = body_pages.next_power_of_two().trailing_zeros() as usize;
    assert!(class < CLASS_COUNT, "a buffer of {len} bytes is over the largest frame");
    class
}

const fn class_len(class: usize) -> usize {
    HEAD_LEN + (ALIGNMENT << class)
}

const fn round_up(len: usize) -> usize {
    len.next_multiple_of(ALIGNMENT)
}

fn layout(class: usize) -> Layout {
    match Layout::from_size_align(class_len(class), ALIGNMENT) {
        Ok(layout) => layout,
        Err(_) => unreachable!("class sizes are small constants"),
    }
}

fn allocate(class: usize) -> Memory {
    let layout = layout(class);
    // SAFETY: the layout has a non-zero size.
    let ptr = unsafe { alloc_zeroed(layout) };
    let ptr = NonNull::new(ptr).unwrap_or_else(|| handle_alloc_error(layout));
    Memory { ptr, class, slab: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_as_long_as_asked_rounded_to_pages() {
        for (asked, seen) in
            [(1, 4096), (4096, 4096), (4097, 8192), (HEAD_LEN + BODY_LEN_MAX, 1_052_672)]
        {
            let buffer = IoBuf::with_len(asked);
            assert_eq!(buffer.len(), seen);
            assert_eq!(buffer.as_ptr() as usize % ALIGNMENT, 0);
        }
    }

    #[test]
    fn a_dropped_buffer_is_used_again_by_the_same_thread() {
        let first = IoBuf::for_body(65536);
        let address = first.as_ptr();
        drop(first.freeze());
        assert_eq!(IoBuf::for_body(65536).as_ptr(), address);
    }

    #[test]
    fn a_thread_keeps_no_more_than_it_may() {
        keep_at_most(100_000);
        drop([IoBuf::for_body(65536), IoBuf::for_body(65536)]);
        assert_eq!(FREE.with_borrow(|free| free.bytes), class_len(4));
    }

    #[test]
    fn large_writes_after_small_ones_find_room_in_the_lists() {
        keep_at_most(1 << 20);
        drop((0..64).map(|_| IoBuf::for_body(16 << 10)).collect::<Vec<_>>());
        let before = FREE.with_borrow(|free| free.bytes);
        drop(IoBuf::for_body(256 << 10));
        FREE.with_borrow(|free| {
            assert_eq!(free.lists[class_of(HEAD_LEN + (256 << 10))].len(), 1);
            assert!(before > 900_000 && free.bytes <= 1 << 20);
            assert!(!free.lists[class_of(HEAD_LEN + (16 << 10))].is_empty(), "no more than needed");
        });
    }

    #[test]
    fn large_buffers_share_a_slab_and_no_byte_of_it() {
        let number = |at: usize| u8::try_from(at).unwrap();
        let mut buffers: Vec<_> = (0..40).map(|_| IoBuf::for_body(64 << 10)).collect();
        assert!(buffers.iter().all(|buffer| buffer.iter().all(|byte| *byte == 0)));
        buffers.iter_mut().enumerate().for_each(|(at, buffer)| buffer.fill(number(at)));
        for (at, buffer) in buffers.iter().enumerate() {
            assert_eq!(buffer.as_ptr() as usize % ALIGNMENT, 0);
            assert!(buffer.iter().all(|byte| *byte == number(at)), "buffer {at}");
        }
        let slabs: Vec<_> =
            buffers.iter().filter_map(|buffer| buffer.memory.slab.as_ref()).collect();
        assert_eq!(slabs.len(), 40);
        assert!(Arc::ptr_eq(slabs[0], slabs[1]) && !Arc::ptr_eq(slabs[0], slabs[39]));
    }

    #[test]
    fn a_buffer_outlives_the_thread_that_made_it_and_its_neighbours() {
        let fill = || {
            let [mut kept, other] = [(); 2].map(|()| IoBuf::for_body(BODY_LEN_MAX / 2));
            kept.fill(7);
            (kept.freeze(), Arc::downgrade(other.memory.slab.as_ref().unwrap()))
        };
        let (kept, slab) = std::thread::spawn(fill).join().unwrap();
        assert!(slab.upgrade().is_some() && kept.iter().all(|byte| *byte == 7));
        keep_at_most(0);
        drop(kept);
        assert!(slab.upgrade().is_none(), "the last one takes the slab along");
    }

    #[test]
    #[should_panic(expected = "over the largest frame")]
    fn a_buffer_over_the_largest_frame_is_refused() {
        drop(IoBuf::with_len(HEAD_LEN + BODY_LEN_MAX + 1));
    }
}

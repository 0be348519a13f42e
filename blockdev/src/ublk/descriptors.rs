//! Requests as the kernel describes them: one descriptor for each tag of a queue, in memory that
//! it writes and this program only reads.
#![allow(unsafe_code, reason = "memory that the kernel shares is mapped and read")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};

use libublk::sys;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A device is mapped in pieces of so many descriptors, however deep its queues are.
const STRIDE_COUNT: usize = sys::UBLK_MAX_QUEUE_DEPTH as usize;
const SECTOR_LEN: u64 = 512;

/// What the kernel asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Read,
    Write,
    Flush,
    Discard,
    WriteZeroes,
    /// Nothing that this device has announced.
    Other,
}

/// One request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Described {
    pub(super) kind: Kind,
    /// In bytes.
    pub(super) offset: u64,
    /// In bytes.
    pub(super) len: u64,
    /// Answer only when it is durable.
    pub(super) fua: bool,
    /// Zeroes must be allocated.
    pub(super) no_unmap: bool,
}

/// The descriptors of one queue.
pub(super) struct Descriptors {
    first: NonNull<sys::ublksrv_io_desc>,
    depth: u16,
    len: usize,
}

impl Descriptors {
    /// Maps those of `queue`.
    ///
    /// # Errors
    /// As the system says.
    pub(super) fn map(device: &OwnedFd, queue: u16, depth: u16) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let size = size_of::<sys::ublksrv_io_desc>();
        let len = (usize::from(depth) * size).next_multiple_of(page);
        let stride = (STRIDE_COUNT * size).next_multiple_of(page) as u64;
        let at = u64::from(sys::UBLKSRV_CMD_BUF_OFFSET) + u64::from(queue) * stride;
        let (access, how) = (ProtFlags::READ, MapFlags::SHARED | MapFlags::POPULATE);
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing.
        let memory = unsafe { mmap(ptr::null_mut(), len, access, how, device.as_fd(), at)? };
        let first = NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { first, depth, len })
    }

    /// The request that came for `tag`.
    pub(super) fn read(&self, tag: u16) -> Described {
        assert!(tag < self.depth, "a tag of this queue");
        // SAFETY: the mapping holds `depth` descriptors, aligned to a page. The kernel wrote this
        // one before it said so in the ring, and writes it again only after the answer.
        let raw = unsafe { self.first.add(usize::from(tag)).as_ptr().read_volatile() };
        let has = |flag: u32| raw.op_flags & flag != 0;
        Described {
            kind: kind(raw.op_flags & 0xFF),
            offset: raw.start_sector.saturating_mul(SECTOR_LEN),
            len: u64::from(raw.nr_sectors) * SECTOR_LEN,
            fua: has(sys::UBLK_IO_F_FUA),
            no_unmap: has(sys::UBLK_IO_F_NOUNMAP),
        }
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nobody reads it any more.
        let _ = unsafe { munmap(self.first.as_ptr().cast(), self.len) };
    }
}

const fn kind(op: u32) -> Kind {
    match op {
        sys::UBLK_IO_OP_READ => Kind::Read,
        sys::UBLK_IO_OP_WRITE => Kind::Write,
        sys::UBLK_IO_OP_FLUSH => Kind::Flush,
        sys::UBLK_IO_OP_DISCARD => Kind::Discard,
        sys::UBLK_IO_OP_WRITE_ZEROES => Kind::WriteZeroes,
        _ => Kind::Other,
    }
}

//! The io_uring engine: many operations under way, one system call for a batch.
//!
//! An operation moves into the slab when it is submitted and comes out with its completion, so
//! the kernel never holds a pointer to memory that safe code can free. Small buffered writes are
//! done in place: through the ring the kernel hands them to worker threads, which costs more than
//! the copy into the page cache itself.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use io_uring::{IoUring, Probe, opcode, squeue, types};
use slab::Slab;

use super::files::Files;
use super::{Completion, Engine, FileId, Op, OpenAs, Token};

/// Operations under way at most; what is submitted beyond waits in the engine.
const ENTRIES: u32 = 256;
/// Buffered writes up to this many bytes are done in place.
const IN_PLACE_MAX: usize = 64 << 10;

/// Why there is no ring; the portable engine does without.
#[derive(Debug, thiserror::Error)]
pub enum NoRing {
    /// The kernel or its settings refuse io_uring.
    #[error("io_uring cannot be set up ({0}); see the sysctl kernel.io_uring_disabled")]
    Setup(io::Error),
    /// An operation that this program needs is missing.
    #[error("this kernel's io_uring has no {0}; Linux 5.6 or newer has it")]
    Missing(&'static str),
}

/// An engine over one ring.
// Fields are dropped in order: the ring, and with it every operation under way, before the
// buffers that the kernel may still write into.
pub struct UringEngine {
    ring: IoUring,
    under_way: Slab<Flight>,
    waiting: std::collections::VecDeque<usize>,
    done: Vec<Completion>,
    files: Files,
    in_ring: usize,
}

struct Flight {
    token: Token,
    op: Op,
    /// Bytes of a read or write that are done.
    progress: usize,
}

impl std::fmt::Debug for UringEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UringEngine({} under way)", self.under_way.len())
    }
}

impl UringEngine {
    /// Sets up a ring and makes sure that it can do what is asked of it.
    ///
    /// # Errors
    /// [`NoRing`]
    pub fn new() -> Result<Self, NoRing> {
        let ring = IoUring::builder().build(ENTRIES).map_err(NoRing::Setup)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe).map_err(NoRing::Setup)?;
        let needed = [
            (opcode::Read::CODE, "read"),
            (opcode::Write::CODE, "write"),
            (opcode::Fsync::CODE, "fsync"),
        ];
        for (code, name) in needed {
            if !probe.is_supported(code) {
                return Err(NoRing::Missing(name));
            }
        }
        Ok(Self {
            ring,
            under_way: Slab::with_capacity(ENTRIES as usize),
            waiting: std::collections::VecDeque::new(),
            done: Vec::new(),
            files: Files::default(),
            in_ring: 0,
        })
    }

    fn goes_in_place(&self, op: &Op) -> bool {
        match op {
            Op::Write { file, data, .. } => {
                data.len() <= IN_PLACE_MAX && !self.files.is_direct(*file)
            }
            Op::Zero { .. } | Op::Rename { .. } => true,
            Op::Read { .. } | Op::Sync { .. } => false,
        }
    }

    /// Builds the ring's entry for what is left of an operation.
    fn entry(&mut self, key: usize) -> io::Result<squeue::Entry> {
        let Some(flight) = self.under_way.get_mut(key) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let at = flight.progress;
        let entry = match &mut flight.op {
            Op::Read { file, offset, buffer, len } => {
                let part = buffer.get_mut(at..*len).ok_or(io::ErrorKind::InvalidInput)?;
                let fd = types::Fd(self.files.raw(*file)?);
                let count = u32::try_from(part.len()).unwrap_or(u32::MAX);
                opcode::Read::new(fd, part.as_mut_ptr(), count).offset(*offset + at as u64).build()
            }
            Op::Write { file, offset, data } => {
                let part = data.get(at..).unwrap_or_default();
                let fd = types::Fd(self.files.raw(*file)?);
                let count = u32::try_from(part.len()).unwrap_or(u32::MAX);
                opcode::Write::new(fd, part.as_ptr(), count).offset(*offset + at as u64).build()
            }
            Op::Sync { file } => {
                let fd = types::Fd(self.files.raw(*file)?);
                opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build()
            }
            Op::Zero { .. } | Op::Rename { .. } => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(entry.user_data(key as u64))
    }

    fn finish(&mut self, key: usize, result: io::Result<()>) {
        let Flight { token, op, .. } = self.under_way.remove(key);
        self.done.push(Completion { token, op, result });
    }

    /// Takes one result from the kernel: done, an error, or a part, of which the rest goes again.
    fn landed(&mut self, key: usize, result: i32) {
        let Some(flight) = self.under_way.get_mut(key) else { return };
        let code = -result;
        if code == libc::EINTR || code == libc::EAGAIN {
            return self.waiting.push_back(key);
        }
        let Ok(count) = usize::try_from(result) else {
            return self.finish(key, Err(io::Error::from_raw_os_error(code)));
        };
        let (total, eof) = match &flight.op {
            Op::Read { len, .. } => (*len, io::ErrorKind::UnexpectedEof),
            Op::Write { data, .. } => (data.len(), io::ErrorKind::WriteZero),
            _ => (0, io::ErrorKind::Other),
        };
        flight.progress += count;
        if flight.progress >= total {
            self.finish(key, Ok(()));
        } else if count == 0 {
            self.finish(key, Err(eof.into()));
        } else {
            self.waiting.push_back(key);
        }
    }

    fn fill(&mut self) {
        while self.in_ring < ENTRIES as usize {
            let Some(key) = self.waiting.pop_front() else { return };
            let entry = match self.entry(key) {
                Ok(entry) => entry,
                Err(error) => {
                    self.finish(key, Err(error));
                    continue;
                }
            };
            // SAFETY: the entry points into the operation's own buffer, which stays in
            // `under_way`, unmoved on the heap, until its completion has been taken.
            let pushed = unsafe { self.ring.submission().push(&entry) };
            if pushed.is_err() {
                self.waiting.push_front(key);
                return;
            }
            self.in_ring += 1;
        }
    }
}

impl Engine for UringEngine {
    fn open(&mut self, path: &Path, how: OpenAs) -> io::Result<FileId> {
        self.files.open(path, how)
    }

    fn open_dir(&mut self, path: &Path) -> io::Result<FileId> {
        self.files.open_dir(path)
    }

    fn close(&mut self, file: FileId) {
        // The kernel holds its own reference while an operation is under way.
        self.files.close(file);
    }

    fn size(&mut self, file: FileId) -> io::Result<u64> {
        self.files.size(file)
    }

    fn submit(&mut self, token: Token, mut op: Op) {
        if self.goes_in_place(&op) {
            let result = self.files.do_now(&mut op);
            self.done.push(Completion { token, op, result });
            return;
        }
        let key = self.under_way.insert(Flight { token, op, progress: 0 });
        self.waiting.push_back(key);
    }

    fn kick(&mut self) {
        self.fill();
        // A busy ring is tried again at the next kick; nothing is lost meanwhile.
        if let Err(error) = self.ring.submit()
            && !matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN | libc::EINTR))
        {
            tracing::error!(%error, "io_uring does not take operations any more");
        }
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        loop {
            let Some(entry) = self.ring.completion().next() else { break };
            self.in_ring -= 1;
            let key = usize::try_from(entry.user_data()).unwrap_or(usize::MAX);
            self.landed(key, entry.result());
        }
        if !self.waiting.is_empty() {
            self.kick();
        }
        done.append(&mut self.done);
    }

    fn wait(&mut self) -> io::Result<()> {
        self.fill();
        if self.done.is_empty() && self.in_ring > 0 {
            self.ring.submit_and_wait(1)?;
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.under_way.len() + self.done.len()
    }

    fn descriptor(&self) -> Option<OwnedFd> {
        // SAFETY: the ring is open for as long as `self` is borrowed, and the copy is its own.
        let ring = unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) };
        ring.try_clone_to_owned().ok()
    }

    fn try_read_cached(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> bool {
        self.files.try_read_cached(file, offset, into)
    }
}

impl Drop for UringEngine {
    fn drop(&mut self) {
        // Buffers must outlive the kernel's use of them: wait for everything that is in the ring.
        while self.in_ring > 0 {
            if self.ring.submit_and_wait(1).is_err() {
                // Leaking is safe, freeing is not.
                std::mem::forget(std::mem::take(&mut self.under_way));
                return;
            }
            let mut done = Vec::new();
            self.waiting.clear();
            self.reap(&mut done);
        }
    }
}

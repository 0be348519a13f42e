//! An io_uring of one thread, and a bell that tells of what it has done.
//!
//! By default the kernel interrupts a thread for what its ring has done, also out of a wait for
//! something else. A ring that leaves its work to the thread only rings the bell, and the thread
//! does that work when it looks.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd as _, OwnedFd};

use io_uring::IoUring;
use rustix::event::{EventfdFlags, eventfd};

/// When a ring's thread does what the kernel has for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WorkIs {
    /// When it looks.
    LeftToIt,
    /// At once, whatever it does. Commands of a ublk device need that: a request that is left to a
    /// thread which ends meanwhile is given back to nobody, and the device waits for it for ever
    /// (Linux 6.12: `ublk_wait_tagset_rqs_idle`, when a daemon under load is replaced).
    #[cfg_attr(not(feature = "ublk"), allow(dead_code, reason = "only such devices ask for it"))]
    Urgent,
}

/// A ring and its bell.
pub(crate) struct Ring {
    ring: IoUring,
    /// Tells of answers, and of work that is left to this thread: of the latter the ring's own
    /// descriptor does not tell.
    bell: OwnedFd,
    /// It answers to the thread that made it alone.
    _one_thread: PhantomData<*const ()>,
}

impl Ring {
    /// A ring with room for `depth` entries and `answers` answers, where it is to have more of
    /// them than twice its depth. On kernels before 6.1 it is one of the other kind.
    ///
    /// # Errors
    /// As the system says.
    pub(crate) fn new(depth: u32, answers: Option<u32>, work: WorkIs) -> io::Result<Self> {
        let build = |left: bool| {
            let mut builder = IoUring::builder();
            builder.setup_clamp();
            answers.into_iter().for_each(|answers| {
                builder.setup_cqsize(answers);
            });
            if left {
                builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
            }
            builder.build(depth)
        };
        let ring = match build(work == WorkIs::LeftToIt) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => build(false),
            ring => ring,
        }?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        ring.submitter().register_eventfd(bell.as_raw_fd())?;
        Ok(Self { ring, bell, _one_thread: PhantomData })
    }

    /// Whether work is left to this thread: the next call into the kernel does it.
    pub(crate) fn has_work(&mut self) -> bool {
        self.ring.submission().taskrun()
    }

    /// A descriptor that becomes readable again whenever there is something to look at.
    pub(crate) fn bell(&self) -> io::Result<OwnedFd> {
        self.bell.try_clone()
    }
}

impl std::ops::Deref for Ring {
    type Target = IoUring;

    fn deref(&self) -> &IoUring {
        &self.ring
    }
}

impl std::ops::DerefMut for Ring {
    fn deref_mut(&mut self) -> &mut IoUring {
        &mut self.ring
    }
}

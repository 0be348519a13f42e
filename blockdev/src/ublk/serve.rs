//! The queues of one device, served by one task: requests to the backend, answers to the kernel.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::io::unix::AsyncFd;

use super::commands::{Came, Commands, Slot};
use super::control::Shape;
use super::descriptors::{Described, Descriptors, Kind};
use crate::buffer::BODY_LEN_MAX;
use crate::export::{
    Answer, Backend, Close, CloseHandle, Expects, FrontEnd, Piece, Reply, Request, RequestError,
    SMALL_WRITE_MAX, Ticket, Watch, WriteData,
};

/// How serving a device ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The kernel has taken the device away.
    Gone,
    /// The switch was thrown: nothing is answered any more, and requests wait in the kernel.
    Cut,
}

/// A device's queues, from the opened device to its end.
pub struct Queues {
    backend: Rc<dyn Backend>,
    watch: Watch,
    answers: Rc<Answers>,
    descriptors: Vec<Descriptors>,
    commands: Commands,
    ready: AsyncFd<OwnedFd>,
    /// Requests that the backend has no room for yet: their payloads stay with the kernel.
    pending: VecDeque<Slot>,
    /// Slots that nothing will come to any more.
    gone: usize,
    slots: usize,
    /// Where small payloads are lent from.
    small: Box<[u8]>,
}

/// Answers on their way to the kernel.
struct Answers {
    device: Rc<OwnedFd>,
    given: RefCell<Vec<(Slot, i32)>>,
    waker: RefCell<Waker>,
    /// The task runs, or is about to, and will look at what was given.
    awake: Cell<bool>,
    /// Nobody may be answered any more.
    cut: Cell<bool>,
    close: CloseHandle,
}

impl Queues {
    /// Asks for the first requests of every queue of `device`; they come once it is started.
    /// Throwing `close` with [`Close::Cut`] leaves all requests unanswered, from that moment on.
    ///
    /// # Errors
    /// As the system says.
    pub fn open(
        device: OwnedFd,
        shape: &Shape,
        backend: Rc<dyn Backend>,
        close: &CloseHandle,
    ) -> io::Result<Self> {
        let device = Rc::new(device);
        let depth = shape.queue_depth;
        let map = |queue| Descriptors::map(&device, queue, depth);
        let descriptors = (0..shape.queues).map(map).collect::<io::Result<_>>()?;
        let slots = usize::from(shape.queues) * usize::from(depth);
        let mut commands = Commands::new(&device, u32::try_from(slots).unwrap_or(u32::MAX))?;
        for queue in 0..shape.queues {
            (0..depth).try_for_each(|tag| commands.fetch(Slot { queue, tag }))?;
        }
        commands.enter()?;
        let ready = commands.ready()?;
        let answers = Answers {
            device,
            given: RefCell::default(),
            waker: RefCell::new(Waker::noop().clone()),
            awake: Cell::new(false),
            cut: Cell::new(false),
            close: close.clone(),
        };
        let (answers, watch) = (Rc::new(answers), close.watch());
        let small = vec![0; SMALL_WRITE_MAX].into_boxed_slice();
        let pending = VecDeque::new();
        Ok(Self {
            backend,
            watch,
            answers,
            descriptors,
            commands,
            ready,
            pending,
            gone: 0,
            slots,
            small,
        })
    }

    /// Serves until the kernel takes the device away, or the switch is thrown.
    ///
    /// # Errors
    /// As the system says: the kernel takes no commands.
    pub async fn serve(mut self) -> io::Result<End> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<End>> {
        self.answers.waker.borrow_mut().clone_from(cx.waker());
        self.answers.awake.set(true);
        loop {
            if self.watch.poll(cx) == Some(Close::Cut) {
                self.answers.cut.set(true);
                return Poll::Ready(Ok(End::Cut));
            }
            self.collect()?;
            self.submit_pending(cx);
            self.commit()?;
            if self.gone == self.slots {
                return Poll::Ready(Ok(End::Gone));
            }
            match self.ready.poll_read_ready(cx) {
                Poll::Pending => {
                    self.answers.awake.set(false);
                    return Poll::Pending;
                }
                Poll::Ready(ready) => ready?.clear_ready(),
            }
        }
    }

    fn collect(&mut self) -> io::Result<()> {
        while let Some(came) = self.commands.next() {
            match came {
                Came::Request(slot) => self.pending.push_back(slot),
                Came::Gone => self.gone += 1,
                Came::Refused(errno) => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
        Ok(())
    }

    fn submit_pending(&mut self, cx: &mut Context<'_>) {
        while !self.pending.is_empty() && self.backend.poll_ready(cx).is_ready() {
            if let Some(slot) = self.pending.pop_front() {
                self.submit(slot);
            }
        }
    }

    fn submit(&mut self, slot: Slot) {
        let asked = self.descriptors[usize::from(slot.queue)].read(slot.tag);
        let Described { offset, len, fua, .. } = asked;
        let expects = match (asked.kind, u32::try_from(len)) {
            (Kind::Read, Ok(len)) => Expects::Data { len },
            _ => Expects::Nothing,
        };
        let ticket = Ticket { cookie: slot.number(), offset, expects, bytes: len };
        let reply = Reply::new(self.answers.clone(), ticket);
        let request = match (asked.kind, expects) {
            (Kind::Read, Expects::Data { len }) => Request::Read { offset, len },
            (Kind::Write, _) => return self.write(slot, asked, reply),
            (Kind::Flush, _) => Request::Flush,
            (Kind::Discard, _) => Request::Trim { offset, len, fua },
            (Kind::WriteZeroes, _) => {
                let no_hole = asked.no_unmap;
                Request::WriteZeroes { offset, len, fua, no_hole, fast: false }
            }
            _ => return reply.done(Err(RequestError::NotSupported)),
        };
        self.backend.submit(request, reply);
    }

    fn write(&mut self, slot: Slot, asked: Described, reply: Reply) {
        let Described { offset, len, fua, .. } = asked;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let device = &self.answers.device;
        let data = if len <= SMALL_WRITE_MAX {
            let small = &mut self.small[..len];
            take(device, slot, 0, small).map(|()| WriteData::Lent(small))
        } else {
            let pieces = (0..len).step_by(BODY_LEN_MAX).map(|from| {
                let mut piece = Piece::with_len(len - from);
                take(device, slot, from, piece.payload_mut()).map(|()| piece)
            });
            pieces.collect::<io::Result<_>>().map(WriteData::Owned)
        };
        match data {
            Ok(data) => self.backend.submit(Request::Write { offset, data, fua }, reply),
            Err(error) => {
                tracing::error!(%error, "a payload could not be taken from the kernel");
                reply.done(Err(RequestError::from(&error)));
            }
        }
    }

    fn commit(&mut self) -> io::Result<()> {
        for (slot, result) in self.answers.given.borrow_mut().drain(..) {
            self.commands.commit(slot, result)?;
        }
        self.commands.enter()
    }
}

impl Drop for Queues {
    /// What is still with the backend belongs to whoever serves the device next.
    fn drop(&mut self) {
        self.answers.cut.set(true);
    }
}

impl FrontEnd for Answers {
    fn answer(&self, ticket: Ticket, answer: Result<Answer, RequestError>) {
        if self.cut.get() || self.close.is_cut() {
            return;
        }
        let slot = Slot::of(ticket.cookie);
        let done = i32::try_from(ticket.bytes).unwrap_or(i32::MAX);
        let result = match answer {
            Ok(Answer::Data(parts)) => {
                let mut from = 0;
                let given = parts.iter().try_for_each(|part| {
                    give(&self.device, slot, from, part)?;
                    from += part.len();
                    Ok::<_, io::Error>(())
                });
                given.map_or(-libc::EIO, |()| done)
            }
            Ok(_) => done,
            Err(error) => -errno(error),
        };
        self.given.borrow_mut().push((slot, result));
        // One wake-up for all answers until the task runs.
        if !self.awake.replace(true) {
            self.waker.borrow().wake_by_ref();
        }
    }
}

/// Copies part of a write's payload out of the kernel's pages.
fn take(device: &OwnedFd, slot: Slot, from: usize, into: &mut [u8]) -> io::Result<()> {
    match rustix::io::pread(device, &mut *into, slot.payload_at(from))? {
        taken if taken == into.len() => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Copies part of what was read into the kernel's pages.
fn give(device: &OwnedFd, slot: Slot, from: usize, part: &[u8]) -> io::Result<()> {
    match rustix::io::pwrite(device, part, slot.payload_at(from))? {
        given if given == part.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

const fn errno(error: RequestError) -> i32 {
    match error {
        RequestError::NotPermitted => libc::EPERM,
        RequestError::NoMemory => libc::ENOMEM,
        RequestError::Invalid => libc::EINVAL,
        RequestError::NoSpace => libc::ENOSPC,
        RequestError::NotSupported => libc::EOPNOTSUPP,
        RequestError::Io | RequestError::Overflow | RequestError::Shutdown => libc::EIO,
    }
}

//! Answers on their way to one client, and the accounts of what it has in flight.
//!
//! Shared between a connection's task, which writes, and its [`Reply`] handles, which push from
//! wherever the backend completes. All on one thread: cells, no locks.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;
use std::task::{Context, Waker};

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use crate::export::{Answer, Expects, FrontEnd, Parts, Reply, RequestError, Ticket};

use super::extents::describe;
use super::proto::{Echo, Head, Headers};
use super::request::number;

/// Slices handed to one vectored write; far below `IOV_MAX` (1024), far above a burst of answers.
const SLICE_COUNT_MAX: usize = 128;

/// The slices of one vectored write.
pub(super) type Slices<'a> = SmallVec<[IoSlice<'a>; SLICE_COUNT_MAX]>;

/// One encoded answer.
struct Outgoing {
    head: Head,
    body: Parts,
    /// What is reserved for the request from its header until this is written, in bytes.
    charge: u64,
}

impl Outgoing {
    fn slices(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.head.as_bytes()).chain(self.body.iter().map(AsRef::as_ref))
    }

    fn len(&self) -> usize {
        self.slices().map(<[u8]>::len).sum()
    }
}

/// The queue of answers and the accounts.
pub(super) struct Outbox {
    headers: Headers,
    queue: RefCell<VecDeque<Outgoing>>,
    /// Bytes of the front answer that the socket has taken already.
    front_written_bytes: Cell<usize>,
    in_flight_count: Cell<usize>,
    in_flight_bytes: Cell<u64>,
    /// The connection is gone: answers are dropped on arrival.
    closed: Cell<bool>,
    /// The connection's task runs right now and will look at the queue before it sleeps.
    awake: Cell<bool>,
    waker: RefCell<Waker>,
    /// Whatever must live until the last answer, such as the slot under the connection limit.
    _permit: Option<Box<dyn std::any::Any>>,
}

impl Outbox {
    pub(super) fn new(headers: Headers, permit: Option<Box<dyn std::any::Any>>) -> Self {
        Self {
            headers,
            queue: RefCell::default(),
            front_written_bytes: Cell::new(0),
            in_flight_count: Cell::new(0),
            in_flight_bytes: Cell::new(0),
            closed: Cell::new(false),
            awake: Cell::new(false),
            waker: RefCell::new(Waker::noop().clone()),
            _permit: permit,
        }
    }

    pub(super) fn in_flight_count(&self) -> usize {
        self.in_flight_count.get()
    }

    pub(super) fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes.get()
    }

    /// Opens the account of a request; its answer and the socket close it.
    pub(super) fn begin(self: &Rc<Self>, ticket: Ticket) -> Reply {
        self.in_flight_count.set(self.in_flight_count.get() + 1);
        self.in_flight_bytes.set(self.in_flight_bytes.get() + ticket.bytes);
        Reply::new(self.clone(), ticket)
    }

    fn finish(&self, charge: u64) {
        self.in_flight_count.set(self.in_flight_count.get() - 1);
        self.in_flight_bytes.set(self.in_flight_bytes.get() - charge);
    }

    /// Queues an answer and wakes the connection, unless it is awake or gone.
    fn push(&self, answer: Outgoing) {
        if self.closed.get() {
            self.finish(answer.charge);
            return;
        }
        self.queue.borrow_mut().push_back(answer);
        if !self.awake.get() {
            // One wake-up for all answers until the task runs.
            self.awake.set(true);
            self.waker.borrow().wake_by_ref();
        }
    }

    /// The task runs: pushes need not wake it.
    pub(super) fn enter(&self, cx: &Context<'_>) {
        self.awake.set(true);
        self.waker.borrow_mut().clone_from(cx.waker());
    }

    /// The task goes to sleep; it must have seen an empty or unwritable queue just before.
    pub(super) fn leave(&self) {
        self.awake.set(false);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.borrow().is_empty()
    }

    /// Calls `write` with the front of the queue, and accounts for what it says was taken.
    pub(super) fn write_front<T>(
        &self,
        write: impl FnOnce(&[IoSlice<'_>]) -> T,
        taken_bytes: impl FnOnce(&T) -> usize,
    ) -> T {
        let queue = self.queue.borrow();
        let result = write(&front_slices(&queue, self.front_written_bytes.get()));
        drop(queue);
        self.advance(taken_bytes(&result));
        result
    }

    fn advance(&self, taken_bytes: usize) {
        let mut queue = self.queue.borrow_mut();
        let mut written_bytes = self.front_written_bytes.get() + taken_bytes;
        while let Some(front) = queue.front() {
            let len = front.len();
            if written_bytes < len {
                break;
            }
            written_bytes -= len;
            self.finish(front.charge);
            queue.pop_front();
        }
        self.front_written_bytes.set(written_bytes);
    }

    /// Nobody will write any more: drops what is queued and what is still to come.
    pub(super) fn close(&self) {
        self.closed.set(true);
        for answer in self.queue.take() {
            self.finish(answer.charge);
        }
    }
}

impl FrontEnd for Outbox {
    fn answer(&self, ticket: Ticket, answer: Result<Answer, RequestError>) {
        let Ticket { cookie, offset, expects, bytes: charge } = ticket;
        let echo = Echo { headers: self.headers, cookie, offset };
        let (head, body) = match (answer, expects) {
            (Err(error), _) => (echo.error(number(error)), Parts::new()),
            (Ok(Answer::Data(parts)), Expects::Data { len }) => (echo.data(len), parts),
            (Ok(Answer::Extents(extents)), Expects::Status { len, one }) => {
                let descriptors = describe(&extents, len, one, self.headers);
                let count = u32::try_from(descriptors.len()).unwrap_or(0);
                let mut body = Vec::with_capacity(16 * descriptors.len());
                descriptors.iter().for_each(|one| one.encode(self.headers, &mut body));
                (echo.status(count), smallvec![Bytes::from(body)])
            }
            (Ok(_), _) => (echo.ok(), Parts::new()),
        };
        self.push(Outgoing { head, body, charge });
    }
}

fn front_slices(queue: &VecDeque<Outgoing>, mut skip_bytes: usize) -> Slices<'_> {
    let mut slices = Slices::new();
    for slice in queue.iter().flat_map(Outgoing::slices) {
        if skip_bytes >= slice.len() {
            skip_bytes -= slice.len();
            continue;
        }
        slices.push(IoSlice::new(&slice[skip_bytes..]));
        skip_bytes = 0;
        if slices.len() == SLICE_COUNT_MAX {
            break;
        }
    }
    slices
}

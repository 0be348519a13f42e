//! A volume whose content never changes and whose answers come late and out of order.
//!
//! Every byte follows from its place, and writes bring just these bytes: whatever arrives at the
//! wrong place, in a request or in an answer, is seen at once.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use hadrian_blockdev::export::{
    self, ExportInfo, Extent, PAYLOAD_LEN_MAX, Reply, Request, RequestError,
};
use hadrian_blockdev::nbd::Limits;

use smallvec::smallvec;

use super::script::Script;

/// Size of the volume, in bytes.
pub(super) const CONTENT_LEN: usize = 256 << 10;

/// The byte at `offset`.
pub(super) fn content(offset: u64) -> u8 {
    (offset ^ offset >> 8 ^ offset >> 16) as u8
}

thread_local! {
    static CONTENT: Bytes = (0..CONTENT_LEN as u64).map(content).collect::<Vec<_>>().into();
}

enum Answer {
    Done(Result<(), RequestError>),
    Data(Bytes),
    Status(Vec<Extent>),
    /// The reply is forgotten.
    Nothing,
}

struct Held {
    reply: Reply,
    answer: Answer,
    charge: u64,
}

/// Keeps requests until the harness completes one.
pub(super) struct Backend {
    info: ExportInfo,
    limits: Limits,
    depth: usize,
    held: RefCell<Vec<Held>>,
    held_back: RefCell<Option<Waker>>,
    order: Cell<u64>,
    stopped: Cell<bool>,
    content: Bytes,
}

impl Backend {
    pub(super) fn new(script: &Script) -> Self {
        let mut info = ExportInfo::new(script.size_bytes, script.block_size);
        (info.read_only, info.fast_zero) = (script.read_only, script.fast_zero);
        Self {
            info,
            limits: script.limits,
            depth: script.depth,
            held: RefCell::default(),
            held_back: RefCell::default(),
            order: Cell::new(script.order),
            stopped: Cell::new(false),
            content: CONTENT.with(Clone::clone),
        }
    }

    /// The connection has ended; nobody waits for answers.
    pub(super) fn stop(&self) {
        self.stopped.set(true);
        self.held.take();
    }

    /// Answers what is held, one at each look, until the connection has ended.
    pub(super) async fn complete(&self) {
        while !self.stopped.get() {
            let order = self.order.get();
            self.order.set(order.rotate_right(5));
            let count = self.held.borrow().len();
            if count > 0 && order & 1 == 0 {
                let next = self.held.borrow_mut().remove((order >> 1) as usize % count);
                next.answer();
                if let Some(waker) = self.held_back.take() {
                    waker.wake();
                }
            } else if order & 1 != 0 {
                // A little later; orders of ones only would never answer.
                self.order.set(order & !(order & order.wrapping_neg()));
            }
            tokio::task::yield_now().await;
        }
    }

    fn judge(&self, request: &Request<'_>) -> (Answer, u64) {
        match request {
            Request::Read { offset, len } => {
                self.assert_range(*offset, u64::from(*len));
                let start = *offset as usize;
                let data = self.content.slice(start..start + *len as usize);
                (Answer::Data(data), u64::from(*len))
            }
            Request::Write { offset, data, .. } => {
                assert!(!self.info.read_only, "a change of a read-only export");
                let len = data.len() as u64;
                self.assert_range(*offset, len);
                let arrived = data.slices().flatten();
                assert!((*offset..).zip(arrived).all(|(at, byte)| *byte == content(at)));
                (Answer::Done(Ok(())), len)
            }
            Request::Trim { offset, len, .. } | Request::WriteZeroes { offset, len, .. } => {
                assert!(!self.info.read_only, "a change of a read-only export");
                self.assert_range(*offset, *len);
                (Answer::Done(Err(RequestError::NoSpace)), 0)
            }
            Request::BlockStatus { offset, len, .. } => {
                self.assert_range(*offset, *len);
                (Answer::Status(extents(*len)), 0)
            }
            Request::Cache { offset, len } => {
                self.assert_range(*offset, *len);
                (Answer::Nothing, 0)
            }
            Request::Flush => (Answer::Done(Ok(())), 0),
        }
    }

    fn assert_range(&self, offset: u64, len: u64) {
        let block_size = u64::from(self.info.block_size);
        assert!(len > 0 && len.is_multiple_of(block_size) && offset.is_multiple_of(block_size));
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.info.size_bytes));
        assert!(len <= u64::from(PAYLOAD_LEN_MAX));
    }
}

impl export::Backend for Backend {
    fn info(&self) -> ExportInfo {
        self.info.clone()
    }

    fn submit(&self, request: Request<'_>, reply: Reply) {
        let (answer, charge) = self.judge(&request);
        let mut held = self.held.borrow_mut();
        held.push(Held { reply, answer, charge });
        assert!(held.len() <= self.limits.in_flight_count, "{} in flight", held.len());
        let bytes: u64 = held.iter().map(|held| held.charge).sum();
        assert!(held.len() == 1 || bytes <= self.limits.in_flight_bytes, "{bytes} in flight");
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.held.borrow().len() < self.depth {
            return Poll::Ready(());
        }
        *self.held_back.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Held {
    fn answer(self) {
        match self.answer {
            Answer::Done(result) => self.reply.done(result),
            Answer::Data(data) => {
                let middle = data.len() / 3;
                self.reply.data(smallvec![data.slice(..middle), data.slice(middle..)]);
            }
            Answer::Status(extents) => self.reply.status(extents),
            Answer::Nothing => drop(self.reply),
        }
    }
}

/// Extents of all states, some empty, one longer than what was asked for.
fn extents(len: u64) -> Vec<Extent> {
    let extent = |len, state: u64| Extent { len, hole: state & 1 != 0, zero: state & 2 != 0 };
    let mut extents: Vec<_> = (0..9).map(|state| extent(len / 16 * (state % 3), state)).collect();
    extents.push(extent(u64::MAX, 0));
    extents
}

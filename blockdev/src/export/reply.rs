//! The one-shot handle by which a backend answers a request.

use std::rc::Rc;

use bytes::Bytes;
use hadrian_protocol::time::Now;
use smallvec::SmallVec;
use tracing::error;

use super::request::RequestError;

/// Most extents that are worth asking for: a longer map is cut, the client asks on from there.
pub const EXTENT_COUNT_MAX: usize = 4096;

/// The data of a read, in order.
pub type Parts = SmallVec<[Bytes; 1]>;

/// A run of bytes with one allocation state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// In bytes. Extents of length zero are left out.
    pub len: u64,
    /// Not allocated.
    pub hole: bool,
    /// Known to read as zeroes.
    pub zero: bool,
}

/// The form of a successful answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expects {
    /// That it is done.
    Nothing,
    /// Exactly so much data.
    Data {
        /// In bytes.
        len: u32,
    },
    /// Extents.
    Status {
        /// Of how many bytes.
        len: u64,
        /// Only the first is wanted.
        one: bool,
    },
}

/// By what a front end knows one of its requests again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The front end's name for it.
    pub cookie: u64,
    /// The request's offset, in bytes.
    pub offset: u64,
    /// The form of a successful answer.
    pub expects: Expects,
    /// Largest payload of request or answer, in bytes: what it is charged while it is under way.
    pub bytes: u64,
}

/// What a request brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// A read's data, as much as was asked for.
    Data(Parts),
    /// Consecutive extents from the request's offset on.
    Extents(Vec<Extent>),
}

/// Whoever takes requests from a client and brings the answers back.
pub trait FrontEnd {
    /// Takes the answer, exactly once for each ticket. Never blocks; where the client has gone the
    /// answer goes nowhere.
    fn answer(&self, ticket: Ticket, answer: Result<Answer, RequestError>);
}

/// Answers one request, exactly once; dropped unanswered it answers [`RequestError::Io`].
#[must_use = "dropping a reply answers an error"]
pub struct Reply {
    /// `None` once answered.
    open: Option<(Rc<dyn FrontEnd>, Ticket)>,
    asked_at: Option<Now>,
}

impl Reply {
    /// The handle that brings the answer of `ticket` to `front_end`.
    pub fn new(front_end: Rc<dyn FrontEnd>, ticket: Ticket) -> Self {
        Self { open: Some((front_end, ticket)), asked_at: None }
    }

    /// Notes when the request came, for a backend that wants to know how long it took.
    pub fn asked_at(mut self, now: Now) -> Self {
        self.asked_at = Some(now);
        self
    }

    /// When the request came, where that was noted.
    #[must_use]
    pub fn when_asked(&self) -> Option<Now> {
        self.asked_at
    }

    /// Answers any request with an error, or one without data with success.
    ///
    /// Success for a `Read` or `BlockStatus` is the backend's mistake and becomes an error.
    pub fn done(self, result: Result<(), RequestError>) {
        let fits = |expects| expects == Expects::Nothing;
        match result {
            Ok(()) => self.give(Answer::Done, fits, "success without the data that was asked for"),
            Err(error) => self.refuse(error),
        }
    }

    /// Answers a `Read`. The parts go out as they are, in order.
    ///
    /// A total that is not the request's length is the backend's mistake and becomes an error.
    pub fn data(self, parts: Parts) {
        let total: usize = parts.iter().map(Bytes::len).sum();
        let fits = |expects| match expects {
            Expects::Data { len } => u32::try_from(total) == Ok(len),
            _ => false,
        };
        self.give(Answer::Data(parts), fits, "data of another length than was asked for");
    }

    /// Answers a `BlockStatus` with consecutive extents from the request's offset on.
    ///
    /// They are cut to what the request and the client allow; at least one must not be empty.
    pub fn status(self, extents: Vec<Extent>) {
        let some = extents.iter().any(|extent| extent.len > 0);
        let fits = |expects| some && matches!(expects, Expects::Status { .. });
        self.give(Answer::Extents(extents), fits, "no extents, or such as nobody asked for");
    }

    fn give(mut self, answer: Answer, fits: impl FnOnce(Expects) -> bool, else_: &'static str) {
        let Some((front_end, ticket)) = self.open.take() else { return };
        if fits(ticket.expects) {
            return front_end.answer(ticket, Ok(answer));
        }
        error!(?ticket, "the backend answered {else_}");
        front_end.answer(ticket, Err(RequestError::Io));
    }

    fn refuse(mut self, error: RequestError) {
        if let Some((front_end, ticket)) = self.open.take() {
            front_end.answer(ticket, Err(error));
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some((front_end, ticket)) = self.open.take() {
            front_end.answer(ticket, Err(RequestError::Io));
        }
    }
}

//! The one-shot handle by which a backend answers a request.

use std::rc::Rc;

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};
use tracing::error;

use super::outbox::{Charge, Outbox, Outgoing};
use super::proto::{Descriptor, Echo, Headers, STATE_HOLE, STATE_ZERO};
use super::request::NbdError;

/// Most extents in one block status answer; a longer map is cut, the client asks on from there.
pub const EXTENT_COUNT_MAX: usize = 4096;

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

/// Answers one request, exactly once; dropped unanswered it answers `EIO`.
///
/// Answering never blocks: it queues the encoded answer and wakes the connection. After the
/// connection has ended, answers go nowhere.
#[must_use = "dropping a reply answers EIO"]
pub struct Reply {
    /// `None` once answered.
    open: Option<Open>,
}

struct Open {
    outbox: Rc<Outbox>,
    echo: Echo,
    expects: Expects,
    charge: Charge,
}

/// The form of a successful answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expects {
    Nothing,
    Data { len: u32 },
    Status { len: u64, one: bool },
}

impl Reply {
    pub(super) fn new(outbox: Rc<Outbox>, echo: Echo, expects: Expects, charge: Charge) -> Self {
        outbox.begin(charge);
        Self { open: Some(Open { outbox, echo, expects, charge }) }
    }

    /// Answers any request with an error, or one without data with success.
    ///
    /// Success for a `Read` or `BlockStatus` is the backend's mistake and is answered `EIO`.
    pub fn done(mut self, result: Result<(), NbdError>) {
        let Some(open) = self.open.take() else { return };
        match (result, open.expects) {
            (Ok(()), Expects::Nothing) => open.ok(),
            (Ok(()), _) => open.mistake("success without the data that was asked for"),
            (Err(error), _) => open.error(error),
        }
    }

    /// Answers a `Read`. The parts are written as they are, in order.
    ///
    /// A total that is not the request's length is the backend's mistake and is answered `EIO`.
    pub fn data(mut self, parts: SmallVec<[Bytes; 1]>) {
        let Some(open) = self.open.take() else { return };
        let total: usize = parts.iter().map(Bytes::len).sum();
        match open.expects {
            Expects::Data { len } if u32::try_from(total) == Ok(len) => {
                open.push(open.echo.data(len), parts);
            }
            _ => open.mistake("data of another length than was asked for"),
        }
    }

    /// Answers a `BlockStatus` with consecutive extents from the request's offset on.
    ///
    /// They are cut to what the request and the dialect allow; at least one must not be empty.
    pub fn status(mut self, extents: Vec<Extent>) {
        let Some(open) = self.open.take() else { return };
        let Expects::Status { len, one } = open.expects else {
            return open.mistake("extents that nobody asked for");
        };
        let descriptors = describe(&extents, len, one, open.echo.headers);
        let Ok(count @ 1..) = u32::try_from(descriptors.len()) else {
            return open.mistake("no extents");
        };
        let mut body = Vec::with_capacity(16 * descriptors.len());
        for descriptor in descriptors {
            descriptor.encode(open.echo.headers, &mut body);
        }
        open.push(open.echo.status(count), smallvec![Bytes::from(body)]);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            open.error(NbdError::Io);
        }
    }
}

impl Open {
    fn ok(&self) {
        self.push(self.echo.ok(), SmallVec::new());
    }

    fn error(&self, error: NbdError) {
        self.push(self.echo.error(error.number()), SmallVec::new());
    }

    fn mistake(&self, what: &'static str) {
        error!(cookie = self.echo.cookie, expects = ?self.expects, "the backend answered {what}");
        self.error(NbdError::Io);
    }

    fn push(&self, head: super::proto::Head, body: SmallVec<[Bytes; 1]>) {
        self.outbox.push(Outgoing { head, body, charge: self.charge });
    }
}

/// Extents as the wire wants them: not empty, joined where alike, ending with the request, in
/// lengths that fit, and not too many.
fn describe(extents: &[Extent], len: u64, one: bool, headers: Headers) -> Vec<Descriptor> {
    let count_max = if one { 1 } else { EXTENT_COUNT_MAX };
    let mut out: Vec<Descriptor> = Vec::with_capacity(extents.len().min(count_max));
    let mut left = len;
    for extent in extents {
        let taken = extent.len.min(left);
        left -= taken;
        let state = state(extent);
        if taken == 0 {
            continue;
        }
        let full = out.len() == count_max;
        match out.last_mut() {
            Some(last) if last.state == state => last.len += taken,
            _ if full => break,
            _ => out.push(Descriptor { len: taken, state }),
        }
    }
    if headers != Headers::Extended {
        fit_compact(&mut out);
    }
    out
}

/// A compact descriptor has 32 bits of length. The map may end early, but not have gaps: the first
/// extent that does not fit is cut to a whole number of large blocks and becomes the last.
fn fit_compact(descriptors: &mut Vec<Descriptor>) {
    const COMPACT_LEN_MAX: u64 = (u32::MAX as u64) & !((1 << 16) - 1);
    let too_long = |descriptor: &Descriptor| descriptor.len > COMPACT_LEN_MAX;
    if let Some(at) = descriptors.iter().position(too_long) {
        descriptors.truncate(at + 1);
        if let Some(last) = descriptors.last_mut() {
            last.len = COMPACT_LEN_MAX;
        }
    }
}

fn state(extent: &Extent) -> u32 {
    let bit = |set, bit| if set { bit } else { 0 };
    bit(extent.hole, STATE_HOLE) | bit(extent.zero, STATE_ZERO)
}

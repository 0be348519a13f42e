//! One connection: negotiation, then requests in and answers out until one side has enough.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::export::{
    Close, CloseHandle, Expects, PAYLOAD_LEN_MAX, Reply, Request, RequestError, SMALL_WRITE_MAX,
    Ticket, Watch, WriteData,
};

use super::export::ExportTable;
use super::negotiate::{Negotiation, NegotiationError, Next, Transmission};
use super::outbox::Outbox;
use super::proto::{BadMagic, RequestHeader};
use super::receive::{Pieces, ReceiveBuffer};
use super::request::{self, Verdict, WriteHead};

/// Requests taken before their answers are looked at again.
const BURST_MAX: usize = 64;

/// What one client may hold of this host.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests that are not answered yet.
    pub in_flight_count: usize,
    /// Bytes of their payloads; at least one request is always taken.
    pub in_flight_bytes: u64,
    /// Options in one negotiation.
    pub option_count: u32,
    /// Longest negotiation.
    pub negotiation: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight_count: 256,
            in_flight_bytes: 2 * u64::from(PAYLOAD_LEN_MAX),
            option_count: 64,
            negotiation: Duration::from_secs(30),
        }
    }
}

/// Why a connection ended without a goodbye.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The client does not know the protocol.
    #[error(transparent)]
    Negotiation(#[from] NegotiationError),
    /// The negotiation took too long.
    #[error("the client did not choose an export in time")]
    TooSlow,
    /// The stream lost its step.
    #[error(transparent)]
    Magic(#[from] BadMagic),
    /// A payload that is refused is longer than anybody would send.
    #[error("the client announced a payload over every limit")]
    Absurd,
}

/// Serves one client until it disconnects or a switch is thrown.
///
/// `permit` is held until the last answer is out of the backend's hands.
///
/// # Errors
/// [`ConnectionError`]; nothing but this connection is touched by it.
pub async fn serve_connection<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    table: &dyn ExportTable,
    server: &CloseHandle,
    limits: Limits,
    permit: Option<Box<dyn std::any::Any>>,
) -> Result<(), ConnectionError> {
    let mut received = ReceiveBuffer::new();
    let negotiation = negotiate(&mut stream, &mut received, table, limits.option_count);
    let chosen = tokio::time::timeout(limits.negotiation, negotiation).await;
    let Some(chosen) = chosen.map_err(|_| ConnectionError::TooSlow)?? else { return Ok(()) };
    let mut connection = Connection {
        watches: [chosen.export.close_handle().watch(), server.watch()],
        stream,
        received,
        outbox: Rc::new(Outbox::new(chosen.agreed.headers, permit)),
        chosen: *chosen,
        limits,
        incoming: Incoming::Header,
        reading: true,
    };
    poll_fn(|cx| connection.poll(cx)).await
}

/// Talks until the client has chosen an export; `None` if it went away.
async fn negotiate<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    received: &mut ReceiveBuffer,
    table: &dyn ExportTable,
    option_count: u32,
) -> Result<Option<Box<Transmission>>, ConnectionError> {
    stream.write_all(&Negotiation::greeting()).await?;
    let mut negotiation = Negotiation::new(option_count);
    let mut output = Vec::new();
    let mut chunk = [0; 4096];
    let mut pending = Vec::new();
    loop {
        let step = negotiation.step(table, &pending, &mut output)?;
        pending.drain(..step.consumed);
        stream.write_all(&output).await?;
        output.clear();
        match step.next {
            Next::Continue => {}
            Next::Abort => return Ok(None),
            Next::Transmit(transmission) => {
                received.put_back(&pending);
                return Ok(Some(transmission));
            }
            Next::NeedMore => match stream.read(&mut chunk).await? {
                0 => return Ok(None),
                len => pending.extend_from_slice(chunk.get(..len).unwrap_or_default()),
            },
        }
    }
}

struct Connection<S> {
    stream: S,
    received: ReceiveBuffer,
    chosen: Transmission,
    outbox: Rc<Outbox>,
    limits: Limits,
    watches: [Watch; 2],
    incoming: Incoming,
    reading: bool,
}

impl<S> Drop for Connection<S> {
    /// However it ends, also by being dropped: answers that are still to come find nobody, and
    /// hold nothing.
    fn drop(&mut self) {
        self.outbox.close();
    }
}

/// Where in the stream of requests the connection is.
enum Incoming {
    Header,
    /// A large payload is on its way in.
    Payload {
        head: WriteHead,
        pieces: Pieces,
        reply: Reply,
    },
    /// The payload of a refused write is passed over.
    Skip {
        left: u64,
        reply: Option<(Reply, RequestError)>,
    },
}

/// What one look at the stream of requests brought.
enum Taken {
    Something,
    /// Nothing more may be read now: limits, or the backend holds back.
    Held,
    End,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Runs until nothing moves; answers before requests, because they make room for them.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        let outbox = self.outbox.clone();
        outbox.enter(cx);
        loop {
            // Before anything is written: what was unanswered at the cut stays unanswered.
            match self.watches.iter().filter_map(|watch| watch.poll(cx)).max() {
                Some(Close::Cut) => return Poll::Ready(Ok(())),
                Some(Close::Drain) => self.stop_reading(),
                None => {}
            }
            let wrote = self.poll_write(cx)?;
            let took = self.poll_requests(cx)?;
            if !self.reading && outbox.in_flight_count() == 0 && outbox.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if !took && (outbox.is_empty() || !wrote) {
                outbox.leave();
                return Poll::Pending;
            }
        }
    }

    /// Writes what the socket takes; whether it took something.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut wrote = false;
        while !self.outbox.is_empty() {
            let stream = &mut self.stream;
            let write =
                |slices: &[io::IoSlice<'_>]| Pin::new(stream).poll_write_vectored(cx, slices);
            let taken = |result: &Poll<io::Result<usize>>| match result {
                Poll::Ready(Ok(len)) => *len,
                _ => 0,
            };
            match self.outbox.write_front(write, taken) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(_)) => wrote = true,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        Ok(wrote)
    }

    fn stop_reading(&mut self) {
        self.reading = false;
        // What was half received was not accepted: the backend never heard of it.
        match std::mem::replace(&mut self.incoming, Incoming::Header) {
            Incoming::Header => {}
            Incoming::Payload { reply, .. } => reply.done(Err(RequestError::Shutdown)),
            Incoming::Skip { reply, .. } => {
                if let Some((reply, error)) = reply {
                    reply.done(Err(error));
                }
            }
        }
    }

    /// Takes what has come, so that the answers to all of it go out together; whether anything did.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Result<bool, ConnectionError> {
        let mut took = false;
        for _ in 0..BURST_MAX {
            if !self.reading || !self.poll_request(cx)? {
                break;
            }
            took = true;
        }
        Ok(took)
    }

    /// Takes at most one request; whether it is worth looking again.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Result<bool, ConnectionError> {
        match self.poll_incoming(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(Taken::Held)) => self.poll_hang_up(cx),
            Poll::Ready(Ok(Taken::Something)) => Ok(true),
            Poll::Ready(Ok(Taken::End)) => {
                self.stop_reading();
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(error),
        }
    }

    /// While requests are held back nobody reads, and a client that leaves would keep its place for
    /// ever. So what it sends is still taken into the receive buffer, as far as that goes.
    fn poll_hang_up(&mut self, cx: &mut Context<'_>) -> Result<bool, ConnectionError> {
        while self.received.has_room() {
            match self.received.poll_fill(&mut self.stream, cx, 0)? {
                Poll::Pending => break,
                Poll::Ready(0) => {
                    self.stop_reading();
                    return Ok(true);
                }
                Poll::Ready(_) => {}
            }
        }
        Ok(false)
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Result<Taken, ConnectionError>> {
        match &mut self.incoming {
            Incoming::Header => self.poll_header(cx),
            Incoming::Payload { pieces, .. } => {
                let whole = ready!(pieces.poll_fill(&mut self.received, &mut self.stream, cx))?;
                if !whole {
                    return Poll::Ready(Ok(Taken::End));
                }
                self.submit_pieces();
                Poll::Ready(Ok(Taken::Something))
            }
            Incoming::Skip { left, .. } => {
                let here = self.received.unread().len();
                let passed = here.min(usize::try_from(*left).unwrap_or(usize::MAX));
                self.received.consume(passed);
                *left -= passed as u64;
                if *left > 0 {
                    return self.poll_more(cx, 1);
                }
                if let Incoming::Skip { reply: Some((reply, error)), .. } =
                    std::mem::replace(&mut self.incoming, Incoming::Header)
                {
                    reply.done(Err(error));
                }
                Poll::Ready(Ok(Taken::Something))
            }
        }
    }

    fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        message_len: usize,
    ) -> Poll<Result<Taken, ConnectionError>> {
        let len = ready!(self.received.poll_fill(&mut self.stream, cx, message_len))?;
        Poll::Ready(Ok(if len == 0 { Taken::End } else { Taken::Something }))
    }

    fn submit_pieces(&mut self) {
        let incoming = std::mem::replace(&mut self.incoming, Incoming::Header);
        if let Incoming::Payload { head, pieces, reply } = incoming {
            let data = WriteData::Owned(pieces.into_pieces());
            let request = Request::Write { offset: head.offset, data, fua: head.fua };
            self.chosen.export.backend().submit(request, reply);
        }
    }

    fn poll_header(&mut self, cx: &mut Context<'_>) -> Poll<Result<Taken, ConnectionError>> {
        let headers = self.chosen.agreed.headers;
        let Some(header) = RequestHeader::decode(headers, self.received.unread())? else {
            return self.poll_more(cx, headers.request_len());
        };
        if self.chosen.export.backend().poll_ready(cx).is_pending() {
            return Poll::Ready(Ok(Taken::Held));
        }
        let verdict = request::check(&header, &self.chosen.agreed);
        let (expects, bytes) = expects(&verdict);
        if !self.has_room(bytes) {
            return Poll::Ready(Ok(Taken::Held));
        }
        let header_len = headers.request_len();
        let ticket = Ticket { cookie: header.cookie, offset: header.offset, expects, bytes };
        let outbox = self.outbox.clone();
        let reply = || outbox.begin(ticket);
        match verdict {
            Verdict::Receive(head) if head.len as usize <= SMALL_WRITE_MAX => {
                return self.poll_small_write(cx, header_len, head, reply);
            }
            Verdict::Receive(head) => {
                self.received.consume(header_len);
                self.received.expect_large(true);
                let pieces = Pieces::new(head.len as usize);
                self.incoming = Incoming::Payload { head, pieces, reply: reply() };
            }
            Verdict::Submit(request) => {
                self.received.consume(header_len);
                self.chosen.export.backend().submit(request, reply());
            }
            Verdict::Refuse { error, skip_len } => {
                self.received.consume(header_len);
                let reply = Some((reply(), error));
                self.incoming = Incoming::Skip { left: skip_len, reply };
            }
            Verdict::Disconnect => return Poll::Ready(Ok(Taken::End)),
            Verdict::Absurd => return Poll::Ready(Err(ConnectionError::Absurd)),
        }
        Poll::Ready(Ok(Taken::Something))
    }

    /// A small payload is lent from the receive buffer once all of it is there.
    fn poll_small_write(
        &mut self,
        cx: &mut Context<'_>,
        header_len: usize,
        head: WriteHead,
        reply: impl FnOnce() -> Reply,
    ) -> Poll<Result<Taken, ConnectionError>> {
        let message_len = header_len + head.len as usize;
        let Some(payload) = self.received.unread().get(header_len..message_len) else {
            return self.poll_more(cx, message_len);
        };
        let data = WriteData::Lent(payload);
        let request = Request::Write { offset: head.offset, data, fua: head.fua };
        self.chosen.export.backend().submit(request, reply());
        self.received.consume(message_len);
        self.received.expect_large(false);
        Poll::Ready(Ok(Taken::Something))
    }

    /// Whether one more request with `bytes` of payload keeps to the limits. One alone always does.
    fn has_room(&self, bytes: u64) -> bool {
        let count = self.outbox.in_flight_count();
        let total = self.outbox.in_flight_bytes().saturating_add(bytes);
        let fits = count < self.limits.in_flight_count && total <= self.limits.in_flight_bytes;
        count == 0 || fits
    }
}

/// The form of the answer, and the bytes that are reserved for request or answer.
fn expects(verdict: &Verdict) -> (Expects, u64) {
    match verdict {
        Verdict::Submit(Request::Read { len, .. }) => {
            (Expects::Data { len: *len }, u64::from(*len))
        }
        Verdict::Submit(Request::BlockStatus { len, one, .. }) => {
            (Expects::Status { len: *len, one: *one }, 0)
        }
        Verdict::Receive(head) => (Expects::Nothing, u64::from(head.len)),
        _ => (Expects::Nothing, 0),
    }
}

//! A connection's incoming bytes: the receive buffer, and payloads too large for it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::buffer::BODY_LEN_MAX;
use crate::export::Piece;

/// Size of a connection's receive buffer, in bytes: many small requests, or the longest option.
pub(super) const RECEIVE_LEN: usize = 128 << 10;
/// Bytes that are taken at a time behind a large payload, where the next one is likely: a header
/// and a small payload. More would have to be copied once more.
const SHORT_LEN: usize = (4 << 10) + 64;

/// A linear buffer between the socket and the parser. Unread bytes are moved to the front only
/// when the room behind them has become too small for what is awaited.
pub(super) struct ReceiveBuffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    /// Most bytes that a read takes, unless more than that is awaited.
    reach: usize,
}

impl ReceiveBuffer {
    pub(super) fn new() -> Self {
        let bytes = vec![0; RECEIVE_LEN].into_boxed_slice();
        Self { bytes, start: 0, end: 0, reach: RECEIVE_LEN }
    }

    /// Whether the next request is likely to have a large payload.
    pub(super) fn expect_large(&mut self, large: bool) {
        self.reach = if large { SHORT_LEN } else { RECEIVE_LEN };
    }

    /// What was received and not yet consumed.
    pub(super) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Whether more bytes could be received before any are consumed.
    pub(super) fn has_room(&self) -> bool {
        self.end - self.start < RECEIVE_LEN
    }

    /// Takes bytes that were received before the buffer was used, in front of all others.
    pub(super) fn put_back(&mut self, bytes: &[u8]) {
        assert_eq!((self.start, self.end), (0, 0), "the buffer is fresh");
        self.bytes[..bytes.len()].copy_from_slice(bytes);
        self.end = bytes.len();
    }

    pub(super) fn consume(&mut self, len: usize) {
        assert!(len <= self.end - self.start, "consuming what is not there");
        self.start += len;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Moves up to `target.len()` unread bytes into `target`; returns how many.
    pub(super) fn take(&mut self, target: &mut [u8]) -> usize {
        let len = target.len().min(self.end - self.start);
        target[..len].copy_from_slice(&self.unread()[..len]);
        self.consume(len);
        len
    }

    /// Reads once from `stream`, after making room for a message of `message_len` bytes in all.
    /// Zero is the end of the stream.
    pub(super) fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        message_len: usize,
    ) -> Poll<io::Result<usize>> {
        assert!(message_len <= RECEIVE_LEN, "a message over the buffer");
        if self.start + message_len > RECEIVE_LEN || self.end == RECEIVE_LEN {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let reach = self.reach.max(message_len.saturating_sub(self.end - self.start));
        let to = RECEIVE_LEN.min(self.end + reach);
        let len = ready!(poll_read(stream, cx, &mut self.bytes[self.end..to]))?;
        self.end += len;
        Poll::Ready(Ok(len))
    }
}

/// A large payload on its way in: filled piece by piece, so that a client that stalls holds one
/// buffer at most beyond what it has really sent.
#[derive(Debug)]
pub(super) struct Pieces {
    done: Vec<Piece>,
    filling: Option<(Piece, usize)>,
    left: usize,
}

impl Pieces {
    /// Awaits `len` bytes.
    pub(super) fn new(len: usize) -> Self {
        Self { done: Vec::with_capacity(len.div_ceil(BODY_LEN_MAX)), filling: None, left: len }
    }

    /// Takes from the buffer, then from the stream, until all is there (`Ok(true)`) or the stream
    /// has ended (`Ok(false)`).
    pub(super) fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        buffer: &mut ReceiveBuffer,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        while self.left > 0 {
            let fresh = || (Piece::with_len(self.left), 0);
            let (piece, filled) = self.filling.get_or_insert_with(fresh);
            let room = &mut piece.payload_mut()[*filled..];
            let len = match buffer.take(room) {
                0 => ready!(poll_read(stream, cx, room))?,
                len => len,
            };
            if len == 0 {
                return Poll::Ready(Ok(false));
            }
            *filled += len;
            self.left -= len;
            if *filled == piece.len {
                self.done.extend(self.filling.take().map(|(piece, _)| piece));
            }
        }
        Poll::Ready(Ok(true))
    }

    /// The whole payload.
    pub(super) fn into_pieces(self) -> Vec<Piece> {
        assert_eq!(self.left, 0, "a payload is handed over whole");
        self.done
    }
}

/// One read into initialised memory.
fn poll_read<S: AsyncRead + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    target: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut target = ReadBuf::new(target);
    ready!(Pin::new(stream).poll_read(cx, &mut target))?;
    Poll::Ready(Ok(target.filled().len()))
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn fill(buffer: &mut ReceiveBuffer, mut stream: &[u8], message_len: usize) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        match buffer.poll_fill(&mut stream, &mut cx, message_len) {
            Poll::Ready(Ok(len)) => len,
            other => panic!("memory is always ready: {other:?}"),
        }
    }

    #[test]
    fn behind_a_large_payload_little_of_the_next_one_is_copied_twice() {
        let stream = vec![7; RECEIVE_LEN];
        let mut buffer = ReceiveBuffer::new();
        buffer.expect_large(true);
        assert_eq!(fill(&mut buffer, &stream, 28), SHORT_LEN);
        assert_eq!(fill(&mut buffer, &stream, 3 * SHORT_LEN), 2 * SHORT_LEN, "what is awaited");
        buffer.expect_large(false);
        let rest = RECEIVE_LEN - 3 * SHORT_LEN;
        assert_eq!(fill(&mut buffer, &stream, 28), rest, "many small requests at once");
    }
}

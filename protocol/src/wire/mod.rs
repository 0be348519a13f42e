//! What two members say to each other, as bytes.
//!
//! A connection begins with a [`Preamble`] from each side, whose layout never changes, so that
//! any two releases can tell each other which versions they speak. Then come envelopes:
//!
//! ```text
//! 0        2      3         4        8          12
//! +--------+------+---------+--------+----------+------------------
//! | "HW"   | kind | version | length | checksum | body …
//! +--------+------+---------+--------+----------+------------------
//! ```
//!
//! The checksum covers the first eight bytes and the body; for a frame only the first eight
//! bytes, because a frame brings stronger checksums of its own. A packed frame is a frame that its
//! sender has compressed; what its body holds is the driver's affair, and the frame inside is
//! checked like any other.

mod body;
mod message;
mod preamble;

pub use message::{
    Ack, AskPromise, AskResync, CannotGrow, Goodbye, Grow, GrowStep, Grown, Hello, Join, Landed,
    Lead, Message, Progress, Promised, Refusal, Refuse, TakeoverAsk,
};
pub use preamble::{PREAMBLE_LEN, Preamble, PreambleError};

use crate::checksum::{crc32c, crc32c_of_two};
use crate::codec::CodecError;
use crate::frame::{BODY_LEN_MAX, HEAD_LEN};
use crate::resync::CONTENT_MAX;

/// Length of an envelope's head, in bytes.
pub const ENVELOPE_LEN: usize = 12;
/// Longest body of anything but a frame and the data of a resync, in bytes.
pub const MESSAGE_LEN_MAX: usize = 64 << 10;
/// Longest body of the latter, in bytes.
pub const COPYING_LEN_MAX: usize = CONTENT_MAX + 64;
/// Versions of the wire format that this program speaks, lowest and highest.
///
/// - 1: the first.
pub const VERSIONS: (u16, u16) = (1, 1);

const MAGIC: [u8; 2] = *b"HW";
const FRAME_KIND: u8 = 1;
const PACKED_FRAME_KIND: u8 = 14;
const COPYING_KIND: u8 = 19;
const FORMAT: u8 = 1;

/// The head of an envelope: what comes, and how much of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Envelope {
    kind: u8,
    len: usize,
    crc: u32,
}

/// Why bytes are no envelope; the connection cannot be trusted further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The first bytes are not those of an envelope.
    #[error("the stream lost its step: no message begins here")]
    Magic,
    /// An envelope format that this program does not know.
    #[error("message format {0} is not known here")]
    Format(u8),
    /// Longer than anything may be.
    #[error("a message of {len} bytes is over the limit of {limit}")]
    TooLong {
        /// What the head says, in bytes.
        len: usize,
        /// What it may say at most, in bytes.
        limit: usize,
    },
    /// Changed on the way.
    #[error("the checksum of a message does not match")]
    Checksum,
    /// A kind of message that this version does not have.
    #[error("messages of kind {0} are not known here")]
    Kind(u8),
    /// A body that cannot be read.
    #[error("a message cannot be read: {0}")]
    Body(#[from] CodecError),
}

impl Envelope {
    /// Reads the head of an envelope and checks its limits.
    ///
    /// # Errors
    /// [`WireError`]
    pub fn parse(head: &[u8; ENVELOPE_LEN]) -> Result<Self, WireError> {
        let [m0, m1, kind, format, l0, l1, l2, l3, c0, c1, c2, c3] = *head;
        if [m0, m1] != MAGIC {
            return Err(WireError::Magic);
        }
        if format != FORMAT {
            return Err(WireError::Format(format));
        }
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let is_frame = matches!(kind, FRAME_KIND | PACKED_FRAME_KIND);
        let limit = match kind {
            _ if is_frame => HEAD_LEN + BODY_LEN_MAX,
            COPYING_KIND => COPYING_LEN_MAX,
            _ => MESSAGE_LEN_MAX,
        };
        if len > limit {
            return Err(WireError::TooLong { len, limit });
        }
        let crc = u32::from_le_bytes([c0, c1, c2, c3]);
        if is_frame && crc != crc32c(&head[..8]) {
            return Err(WireError::Checksum);
        }
        Ok(Self { kind, len, crc })
    }

    /// The head of an envelope around the wire parts of a frame, `len` bytes in all.
    #[must_use]
    pub fn for_frame(len: usize) -> [u8; ENVELOPE_LEN] {
        Self::head(FRAME_KIND, len, &[])
    }

    /// The head of an envelope around a compressed frame, `len` bytes long as it is sent.
    #[must_use]
    pub fn for_packed_frame(len: usize) -> [u8; ENVELOPE_LEN] {
        Self::head(PACKED_FRAME_KIND, len, &[])
    }

    /// Whether a frame follows, as it is or packed.
    #[must_use]
    pub fn is_frame(&self) -> bool {
        matches!(self.kind, FRAME_KIND | PACKED_FRAME_KIND)
    }

    /// Whether the frame that follows was compressed.
    #[must_use]
    pub fn is_packed(&self) -> bool {
        self.kind == PACKED_FRAME_KIND
    }

    /// Length of what follows, in bytes.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.len
    }

    /// Reads the body of anything but a frame.
    ///
    /// # Errors
    /// [`WireError`]
    pub fn message(&self, body: &[u8]) -> Result<Message, WireError> {
        if Self::head(self.kind, body.len(), body)[8..] != self.crc.to_le_bytes() {
            return Err(WireError::Checksum);
        }
        Message::get(self.kind, body)
    }

    fn head(kind: u8, len: usize, body: &[u8]) -> [u8; ENVELOPE_LEN] {
        // Frames and messages are far below 4 GiB.
        let [l0, l1, l2, l3] = u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
        let start = [MAGIC[0], MAGIC[1], kind, FORMAT, l0, l1, l2, l3];
        let crc = crc32c_of_two(&start, body).to_le_bytes();
        let mut head = [0; ENVELOPE_LEN];
        head[..8].copy_from_slice(&start);
        head[8..].copy_from_slice(&crc);
        head
    }
}

impl Message {
    /// The message with its envelope, ready to be sent.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "the head was put first")]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; ENVELOPE_LEN];
        self.put(&mut out);
        let head = Envelope::head(self.kind(), out.len() - ENVELOPE_LEN, &out[ENVELOPE_LEN..]);
        out[..ENVELOPE_LEN].copy_from_slice(&head);
        out
    }
}

#[cfg(test)]
pub(crate) mod tests;

//! Requests as a backend sees them: checked, so that it need not look again.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

use crate::buffer::{BODY_LEN_MAX, HEAD_LEN, IoBuf};

/// Largest write whose payload is lent for the time of the call, in bytes.
pub const SMALL_WRITE_MAX: usize = 16 << 10;

/// One checked request. Offsets and lengths are in bytes, inside the export, multiples of its
/// block size, and lengths are not zero.
#[derive(Debug)]
pub enum Request<'a> {
    /// Answer by [`Reply::data`](super::Reply::data) with exactly `len` bytes.
    Read {
        /// First byte.
        offset: u64,
        /// At most [`PAYLOAD_LEN_MAX`](super::PAYLOAD_LEN_MAX).
        len: u32,
    },
    /// Store the payload.
    Write {
        /// First byte.
        offset: u64,
        /// At most [`PAYLOAD_LEN_MAX`](super::PAYLOAD_LEN_MAX) bytes in all.
        data: WriteData<'a>,
        /// Answer only when durable as the resource's mode promises (design §3).
        fua: bool,
    },
    /// Answer when all that was answered before is durable as the mode promises (design §3).
    Flush,
    /// The range is no longer needed; what it reads as afterwards is the backend's choice.
    Trim {
        /// First byte.
        offset: u64,
        /// Any length inside the export.
        len: u64,
        /// As for `Write`.
        fua: bool,
    },
    /// The range reads as zeroes afterwards.
    WriteZeroes {
        /// First byte.
        offset: u64,
        /// Any length inside the export.
        len: u64,
        /// As for `Write`.
        fua: bool,
        /// Allocate instead of punching a hole.
        no_hole: bool,
        /// Fail with [`RequestError::NotSupported`] at once where this is not faster than writing.
        fast: bool,
    },
    /// Answer by [`Reply::status`](super::Reply::status) with extents from `offset` on.
    BlockStatus {
        /// First byte.
        offset: u64,
        /// Any length inside the export.
        len: u64,
        /// Only the first extent is wanted.
        one: bool,
    },
    /// The range will be read soon.
    Cache {
        /// First byte.
        offset: u64,
        /// Any length inside the export.
        len: u64,
    },
}

/// The payload of a write.
#[derive(Debug)]
pub enum WriteData<'a> {
    /// Up to [`SMALL_WRITE_MAX`] bytes, only for the time of the call: to be copied into a frame.
    Lent(&'a [u8]),
    /// More than that, in buffers that can be written to a log or a disk as they are. All pieces
    /// but the last hold [`BODY_LEN_MAX`] bytes.
    Owned(Vec<Piece>),
}

impl WriteData<'_> {
    /// Payload bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            WriteData::Lent(bytes) => bytes.len(),
            WriteData::Owned(pieces) => pieces.iter().map(|piece| piece.len).sum(),
        }
    }

    /// Never true for a checked request.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The payload in order, slice by slice.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let (lent, pieces) = match self {
            WriteData::Lent(bytes) => (Some(*bytes), [].as_slice()),
            WriteData::Owned(pieces) => (None, pieces.as_slice()),
        };
        lent.into_iter().chain(pieces.iter().map(Piece::payload))
    }
}

/// A part of a large payload, behind the head room of its buffer.
#[derive(Debug)]
pub struct Piece {
    /// The payload begins at [`HEAD_LEN`]; the bytes in front and behind are of a former life.
    pub buf: IoBuf,
    /// Payload bytes, at most [`BODY_LEN_MAX`].
    pub len: usize,
}

impl Piece {
    /// A buffer for the next `len` bytes of payload, at most [`BODY_LEN_MAX`].
    pub(crate) fn with_len(len: usize) -> Self {
        let len = len.min(BODY_LEN_MAX);
        Self { buf: IoBuf::for_body(len), len }
    }

    /// The payload bytes.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "a body is made as long as its payload")]
    pub fn payload(&self) -> &[u8] {
        &self.buf[HEAD_LEN..HEAD_LEN + self.len]
    }

    #[expect(clippy::indexing_slicing, reason = "a body is made as long as its payload")]
    pub(crate) fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.buf[HEAD_LEN..HEAD_LEN + self.len]
    }
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A change to a read-only export.
    #[error("the export is read-only")]
    NotPermitted,
    /// The device failed, or the backend dropped the request.
    #[error("input/output error")]
    Io,
    /// No memory for the request now.
    #[error("out of memory")]
    NoMemory,
    /// The request breaks the rules that were agreed.
    #[error("invalid request")]
    Invalid,
    /// A write beyond the end, or no space behind the export.
    #[error("no space left on the export")]
    NoSpace,
    /// Too long to be answered in one piece.
    #[error("too large for one reply")]
    Overflow,
    /// Possible, but not in the way that was asked for.
    #[error("not supported")]
    NotSupported,
    /// The resource does not serve (any more): the client should disconnect.
    #[error("the resource is not serving")]
    Shutdown,
}

impl From<&std::io::Error> for RequestError {
    /// The nearest error for one of the operating system; `Io` for the rest.
    fn from(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                RequestError::NotPermitted
            }
            ErrorKind::OutOfMemory => RequestError::NoMemory,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                RequestError::NoSpace
            }
            ErrorKind::Unsupported => RequestError::NotSupported,
            _ => RequestError::Io,
        }
    }
}

//! From a header on the wire to a checked request, and errors as NBD numbers.
//!
//! [`check`] is the only door: what leaves it is in range, aligned and allowed, so that a backend
//! need not look again. Range arithmetic is checked; a client chooses all three numbers.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

use crate::buffer::{BODY_LEN_MAX, HEAD_LEN, IoBuf};

use super::export::{ExportInfo, PAYLOAD_LEN_MAX};
use super::proto::{Headers, RequestHeader, command, command_flag as flag};

/// Largest write whose payload is lent from the connection's receive buffer, in bytes.
pub const SMALL_WRITE_MAX: usize = 16 << 10;
/// Longest payload that is read and thrown away behind a refused request, in bytes; a client that
/// announces more is disconnected.
pub const SKIP_LEN_MAX: u64 = 2 * PAYLOAD_LEN_MAX as u64;

/// One checked request. Offsets and lengths are in bytes, inside the export, multiples of its
/// block size, and lengths are not zero.
#[derive(Debug)]
pub enum Request<'a> {
    /// Answer by [`Reply::data`](super::Reply::data) with exactly `len` bytes.
    Read {
        /// First byte.
        offset: u64,
        /// At most [`PAYLOAD_LEN_MAX`].
        len: u32,
    },
    /// Store the payload.
    Write {
        /// First byte.
        offset: u64,
        /// At most [`PAYLOAD_LEN_MAX`] bytes in all.
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
        /// Fail with [`NbdError::NotSupported`] at once where this is not faster than writing.
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
    /// More than that, read straight from the socket into buffers that can be written to a log
    /// or a disk as they are. All pieces but the last hold [`BODY_LEN_MAX`] bytes.
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
    pub(super) fn with_len(len: usize) -> Self {
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
    pub(super) fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.buf[HEAD_LEN..HEAD_LEN + self.len]
    }
}

/// Why a request failed, in the words that NBD has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NbdError {
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

impl NbdError {
    /// The number on the wire ("Error values" of the NBD document).
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            NbdError::NotPermitted => 1,
            NbdError::Io => 5,
            NbdError::NoMemory => 12,
            NbdError::Invalid => 22,
            NbdError::NoSpace => 28,
            NbdError::Overflow => 75,
            NbdError::NotSupported => 95,
            NbdError::Shutdown => 108,
        }
    }
}

impl From<&std::io::Error> for NbdError {
    /// The nearest number for an error of the operating system; `EIO` for the rest.
    fn from(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => NbdError::NotPermitted,
            ErrorKind::OutOfMemory => NbdError::NoMemory,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                NbdError::NoSpace
            }
            ErrorKind::Unsupported => NbdError::NotSupported,
            _ => NbdError::Io,
        }
    }
}

/// What the negotiation settled for a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// Dialect of the transmission phase.
    pub headers: Headers,
    /// `base:allocation` was chosen for this export: block status may be asked.
    pub allocation: bool,
    /// What the client was told about the export; requests are held to it.
    pub info: ExportInfo,
}

/// What to do about a header.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Hand over; no payload follows.
    Submit(Request<'static>),
    /// Read this much payload, then hand over a write.
    Receive(WriteHead),
    /// Read and forget this much payload, then answer with the error.
    Refuse {
        /// To answer.
        error: NbdError,
        /// Payload bytes behind the header.
        skip_len: u64,
    },
    /// The client is done.
    Disconnect,
    /// More payload than anybody sane would send to be refused.
    Absurd,
}

/// A checked write whose payload is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WriteHead {
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) fua: bool,
}

/// Judges a header. Pure; says nothing about limits of memory or of requests in flight.
pub(super) fn check(header: &RequestHeader, agreed: &Agreed) -> Verdict {
    if header.command == command::DISC {
        return Verdict::Disconnect;
    }
    let payload_len = payload_len(header, agreed.headers);
    let error = match judge(header, agreed) {
        Ok(verdict) => return verdict,
        Err(error) => error,
    };
    if payload_len > SKIP_LEN_MAX {
        return Verdict::Absurd;
    }
    Verdict::Refuse { error, skip_len: payload_len }
}

/// Bytes that follow the header, whatever is wrong with it.
fn payload_len(header: &RequestHeader, headers: Headers) -> u64 {
    // A write has a payload even where an extended client forgot the flag: nothing else could be
    // meant by its length.
    let flagged = headers == Headers::Extended && header.flags & flag::PAYLOAD_LEN != 0;
    if header.command == command::WRITE || flagged { header.len } else { 0 }
}

fn judge(header: &RequestHeader, agreed: &Agreed) -> Result<Verdict, NbdError> {
    if header.flags & !allowed_flags(header.command, agreed.headers) != 0 {
        return Err(NbdError::Invalid);
    }
    let has = |bit| header.flags & bit != 0;
    let (offset, len, fua) = (header.offset, header.len, has(flag::FUA));
    let request = match header.command {
        command::READ => {
            check_range(header, &agreed.info, NbdError::Invalid)?;
            let len = payload(len)?;
            Request::Read { offset, len }
        }
        command::WRITE => {
            check_change(header, &agreed.info, NbdError::NoSpace)?;
            let len = payload(len)?;
            return Ok(Verdict::Receive(WriteHead { offset, len, fua }));
        }
        command::FLUSH if offset == 0 && len == 0 => Request::Flush,
        command::TRIM => {
            check_change(header, &agreed.info, NbdError::Invalid)?;
            Request::Trim { offset, len, fua }
        }
        command::WRITE_ZEROES => {
            check_change(header, &agreed.info, NbdError::NoSpace)?;
            let (no_hole, fast) = (has(flag::NO_HOLE), has(flag::FAST_ZERO));
            if fast && !agreed.info.fast_zero {
                return Err(NbdError::NotSupported);
            }
            Request::WriteZeroes { offset, len, fua, no_hole, fast }
        }
        command::BLOCK_STATUS if agreed.allocation => {
            check_range(header, &agreed.info, NbdError::Invalid)?;
            let one = has(flag::REQ_ONE);
            Request::BlockStatus { offset, len, one }
        }
        command::CACHE => {
            check_range(header, &agreed.info, NbdError::Invalid)?;
            Request::Cache { offset, len }
        }
        _ => return Err(NbdError::Invalid),
    };
    Ok(Verdict::Submit(request))
}

/// Flags that are documented for a command; `FUA` is to be taken on all of them.
fn allowed_flags(command: u16, headers: Headers) -> u16 {
    flag::FUA
        | match command {
            command::READ if headers != Headers::Simple => flag::DF,
            command::WRITE if headers == Headers::Extended => flag::PAYLOAD_LEN,
            command::WRITE_ZEROES => flag::NO_HOLE | flag::FAST_ZERO,
            command::BLOCK_STATUS => flag::REQ_ONE,
            _ => 0,
        }
}

fn check_change(
    header: &RequestHeader,
    info: &ExportInfo,
    beyond: NbdError,
) -> Result<(), NbdError> {
    if info.read_only {
        return Err(NbdError::NotPermitted);
    }
    check_range(header, info, beyond)
}

fn check_range(
    header: &RequestHeader,
    info: &ExportInfo,
    beyond: NbdError,
) -> Result<(), NbdError> {
    let block_size = u64::from(info.block_size);
    let unaligned =
        !header.offset.is_multiple_of(block_size) || !header.len.is_multiple_of(block_size);
    if header.len == 0 || unaligned {
        return Err(NbdError::Invalid);
    }
    match header.offset.checked_add(header.len) {
        Some(end) if end <= info.size_bytes => Ok(()),
        _ => Err(beyond),
    }
}

fn payload(len: u64) -> Result<u32, NbdError> {
    match u32::try_from(len) {
        Ok(len) if len <= PAYLOAD_LEN_MAX => Ok(len),
        _ => Err(NbdError::Invalid),
    }
}

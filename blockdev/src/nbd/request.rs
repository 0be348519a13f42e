//! From a header on the wire to a checked request, and errors as NBD numbers.
//!
//! [`check`] is the only door: what leaves it is in range, aligned and allowed, so that a backend
//! need not look again. Range arithmetic is checked; a client chooses all three numbers.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

use crate::export::{ExportInfo, PAYLOAD_LEN_MAX, Request, RequestError};

use super::proto::{Headers, RequestHeader, command, command_flag as flag};

/// Longest payload that is read and thrown away behind a refused request, in bytes; a client that
/// announces more is disconnected.
pub const SKIP_LEN_MAX: u64 = 2 * PAYLOAD_LEN_MAX as u64;

/// The number of an error on the wire ("Error values" of the NBD document).
pub(super) const fn number(error: RequestError) -> u32 {
    match error {
        RequestError::NotPermitted => 1,
        RequestError::Io => 5,
        RequestError::NoMemory => 12,
        RequestError::Invalid => 22,
        RequestError::NoSpace => 28,
        RequestError::Overflow => 75,
        RequestError::NotSupported => 95,
        RequestError::Shutdown => 108,
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
        error: RequestError,
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

fn judge(header: &RequestHeader, agreed: &Agreed) -> Result<Verdict, RequestError> {
    if header.flags & !allowed_flags(header.command, agreed.headers) != 0 {
        return Err(RequestError::Invalid);
    }
    let has = |bit| header.flags & bit != 0;
    let (offset, len, fua) = (header.offset, header.len, has(flag::FUA));
    let request = match header.command {
        command::READ => {
            check_range(header, &agreed.info, RequestError::Invalid)?;
            let len = payload(len)?;
            Request::Read { offset, len }
        }
        command::WRITE => {
            check_change(header, &agreed.info, RequestError::NoSpace)?;
            let len = payload(len)?;
            return Ok(Verdict::Receive(WriteHead { offset, len, fua }));
        }
        command::FLUSH if offset == 0 && len == 0 => Request::Flush,
        command::TRIM => {
            check_change(header, &agreed.info, RequestError::Invalid)?;
            Request::Trim { offset, len, fua }
        }
        command::WRITE_ZEROES => {
            check_change(header, &agreed.info, RequestError::NoSpace)?;
            let (no_hole, fast) = (has(flag::NO_HOLE), has(flag::FAST_ZERO));
            if fast && !agreed.info.fast_zero {
                return Err(RequestError::NotSupported);
            }
            Request::WriteZeroes { offset, len, fua, no_hole, fast }
        }
        command::BLOCK_STATUS if agreed.allocation => {
            check_range(header, &agreed.info, RequestError::Invalid)?;
            let one = has(flag::REQ_ONE);
            Request::BlockStatus { offset, len, one }
        }
        command::CACHE => {
            check_range(header, &agreed.info, RequestError::Invalid)?;
            Request::Cache { offset, len }
        }
        _ => return Err(RequestError::Invalid),
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
    beyond: RequestError,
) -> Result<(), RequestError> {
    if info.read_only {
        return Err(RequestError::NotPermitted);
    }
    check_range(header, info, beyond)
}

fn check_range(
    header: &RequestHeader,
    info: &ExportInfo,
    beyond: RequestError,
) -> Result<(), RequestError> {
    let block_size = u64::from(info.block_size);
    let unaligned =
        !header.offset.is_multiple_of(block_size) || !header.len.is_multiple_of(block_size);
    if header.len == 0 || unaligned {
        return Err(RequestError::Invalid);
    }
    match header.offset.checked_add(header.len) {
        Some(end) if end <= info.size_bytes => Ok(()),
        _ => Err(beyond),
    }
}

fn payload(len: u64) -> Result<u32, RequestError> {
    match u32::try_from(len) {
        Ok(len) if len <= PAYLOAD_LEN_MAX => Ok(len),
        _ => Err(RequestError::Invalid),
    }
}

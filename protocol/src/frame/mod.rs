//! Frames: the unit of group commit, of shipping, of the ack and of the hash chain (design §1).
//!
//! One layout serves the wire and the log. In the log a frame is padded so that every part of it
//! can be written and read with direct I/O:
//!
//! ```text
//! 0        128            head_len              4064      4096                    log_len
//! +--------+--------------+---------------------+---------+------------------+-----+
//! | header | record table | zeroes              | stamp   | payloads         | 0 … |
//! +--------+--------------+---------------------+---------+------------------+-----+
//! |<------ on the wire -->|                               |<- on the wire -->|
//! ```
//!
//! The bytes on the wire are the frame; they are the same on every replica (I1). The stamp is a
//! replica's own note in the padding: how far *its* log was durable when it stored the frame.
//! Without it a standby could not tell damage from a lost unsynced tail (design §2.3), because
//! the header speaks of the primary's disk.
//!
//! Three checksums guard a frame: a CRC-32C over header and record table, so that the table can
//! be trusted before the payloads are there; a CRC-32C per payload; and the blake3 chain over
//! header, table and the chain value of the frame before, which ties a frame to its history.

mod draft;
mod layout;
mod record;

pub use draft::{Draft, DraftFull, FrameBuffer, SealAs};
pub use layout::{ChainHash, FrameError, FrameSize, RecordError, Stamp};
pub use record::{Began, Record, RecordKind};

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, Lsn, MemberId, ResourceId};
use crate::time::WallTime;
use layout::{FrameHeader, RecordEntry};

/// A point of a history: a position between two frames, and the hash of everything before it.
/// Two replicas that agree on both hold the same bytes up to there (I1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogPosition {
    /// Where.
    pub lsn: Lsn,
    /// What came before.
    pub chain: ChainHash,
}

impl LogPosition {
    /// Before the first frame of `resource`.
    #[must_use]
    pub fn genesis(resource: ResourceId) -> Self {
        Self { lsn: Lsn::START, chain: ChainHash::genesis(resource) }
    }
}

/// Length of the head page in the log, in bytes: header, record table, padding and stamp.
pub const HEAD_LEN: usize = 4096;
/// Length of the fixed header, in bytes.
pub const HEADER_LEN: usize = 128;
/// Length of one entry of the record table, in bytes.
pub const RECORD_LEN: usize = 32;
/// Most records of one frame; the table, the header and the stamp share one page.
pub const RECORDS_MAX: usize = 120;
/// Most payload bytes of one frame.
pub const BODY_LEN_MAX: usize = 1 << 20;
/// Unit of padding in the log, in bytes.
pub const PAGE: usize = 4096;

/// A frame whose checksums have been verified. Cheap to clone: the bytes are shared.
#[derive(Clone)]
pub struct Frame {
    resource: ResourceId,
    epoch: Epoch,
    lsn: Lsn,
    durable: Lsn,
    wall: WallTime,
    author: MemberId,
    chain: ChainHash,
    size: FrameSize,
    record_count: usize,
    bytes: Bytes,
}

impl Frame {
    /// Takes over bytes that came from a peer: checks them, clears the padding, and stamps them
    /// with the durable position of this replica's own log.
    ///
    /// `buffer` has the log layout: head at 0, payloads at [`HEAD_LEN`], at least `log_len` long.
    ///
    /// # Errors
    /// Any [`FrameError`]: the connection that sent it cannot be trusted further.
    pub fn receive<B: FrameBuffer>(
        mut buffer: B,
        resource: ResourceId,
        own_durable: Lsn,
    ) -> Result<Self, FrameError> {
        let header = FrameHeader::parse(buffer.as_ref())?;
        let size = header.size()?;
        layout::clear_padding(buffer.as_mut(), size)?;
        Stamp { durable: own_durable }.write(buffer.as_mut(), header.lsn());
        Self::open(buffer.freeze(), resource)
    }

    /// Checks the bytes of a frame in log layout; `bytes` may be longer than the frame.
    ///
    /// # Errors
    /// Any [`FrameError`]; whether that is a torn tail or damage is for recovery to say.
    pub fn open(bytes: Bytes, resource: ResourceId) -> Result<Self, FrameError> {
        let header = FrameHeader::parse(&bytes)?;
        let size = header.size()?;
        if bytes.len() < size.log_len() {
            return Err(FrameError::Short { have: bytes.len(), need: size.log_len() });
        }
        header.check(&bytes, resource)?;
        let frame = Self::assemble(&header, size, bytes.slice(..size.log_len()))?;
        frame.check_records(true)?;
        Ok(frame)
    }

    /// A frame of which only the head is left: every position, hash and mark in it is right, and
    /// the payloads read as zeroes. For recordings of a node's events, which need no more and
    /// shall not hold what clients wrote.
    ///
    /// # Errors
    /// Any [`FrameError`] of a head.
    pub fn hollow(head: &[u8]) -> Result<Self, FrameError> {
        let header = FrameHeader::parse(head)?;
        let size = header.size()?;
        let (have, need) = (head.len(), size.head_len());
        if have != need {
            return Err(FrameError::Short { have, need });
        }
        header.check(head, header.resource())?;
        let mut bytes = head.to_vec();
        bytes.resize(size.log_len(), 0);
        let frame = Self::assemble(&header, size, Bytes::from(bytes))?;
        frame.check_records(false)?;
        Ok(frame)
    }

    fn assemble(header: &FrameHeader, size: FrameSize, bytes: Bytes) -> Result<Self, FrameError> {
        Ok(Self {
            resource: header.resource(),
            epoch: header.epoch()?,
            lsn: header.lsn(),
            durable: header.durable(),
            wall: header.wall(),
            author: header.author()?,
            chain: header.chain(),
            size,
            record_count: header.record_count(),
            bytes,
        })
    }

    fn check_records(&self, with_payloads: bool) -> Result<(), FrameError> {
        for index in 0..self.record_count {
            let entry = self.entry(index)?;
            entry
                .decode(&self.bytes, self.size)
                .map_err(|cause| FrameError::Record { index, cause })?;
            if with_payloads && !entry.check_payload(&self.bytes) {
                return Err(FrameError::PayloadChecksum { index });
            }
        }
        Ok(())
    }

    fn entry(&self, index: usize) -> Result<RecordEntry, FrameError> {
        RecordEntry::parse(&self.bytes, index)
    }

    /// The resource that this frame belongs to.
    #[must_use]
    pub fn resource(&self) -> ResourceId {
        self.resource
    }

    /// The epoch in which it was written.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Where it begins in the log.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Where the next frame begins.
    #[must_use]
    pub fn end(&self) -> Lsn {
        // `size` checked that the end fits in the number space.
        Lsn::new(self.lsn.get().saturating_add(self.size.log_len() as u64))
    }

    /// The durable position of its author's log when it was written.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        self.durable
    }

    /// When its author wrote it.
    #[must_use]
    pub fn wall(&self) -> WallTime {
        self.wall
    }

    /// The member that wrote it, primary at that time.
    #[must_use]
    pub fn author(&self) -> MemberId {
        self.author
    }

    /// The hash of the history up to and with this frame.
    #[must_use]
    pub fn chain(&self) -> ChainHash {
        self.chain
    }

    /// The point of the history right behind it.
    #[must_use]
    pub fn position_after(&self) -> LogPosition {
        LogPosition { lsn: self.end(), chain: self.chain }
    }

    /// Bytes that it takes in the log.
    #[must_use]
    pub fn log_len(&self) -> u64 {
        self.size.log_len() as u64
    }

    /// Whether it follows directly on the history whose last chain value is `before`.
    #[must_use]
    pub fn follows(&self, before: ChainHash) -> bool {
        layout::chain_after(before, &self.bytes, self.size) == self.chain
    }

    /// The frame as the log stores it, padding and stamp included.
    #[must_use]
    pub fn log_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The two parts that go on the wire: header with record table, and payloads.
    #[must_use]
    pub fn wire_parts(&self) -> (Bytes, Bytes) {
        let body = HEAD_LEN..HEAD_LEN + self.size.body_len();
        (self.bytes.slice(..self.size.head_len()), self.bytes.slice(body))
    }

    /// Header and record table: all of it but what clients wrote.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        self.bytes.get(..self.size.head_len()).unwrap_or_default()
    }

    /// The note of the replica that stored it; `None` where the stamp does not check out.
    #[must_use]
    pub fn stamp(&self) -> Option<Stamp> {
        Stamp::read(&self.bytes, self.lsn)
    }

    /// Its records, in order. Payloads share the frame's memory.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        (0..self.record_count).filter_map(|index| {
            // Both were checked when the frame was opened.
            let entry = self.entry(index).ok()?;
            entry.decode(&self.bytes, self.size).ok()
        })
    }

    /// Its records, each with where in the frame its payload begins, in bytes, where it has one:
    /// for whoever reads that payload again later.
    pub fn placed_records(&self) -> impl Iterator<Item = (Record, Option<u64>)> + '_ {
        (0..self.record_count).filter_map(|index| {
            let entry = self.entry(index).ok()?;
            let record = entry.decode(&self.bytes, self.size).ok()?;
            Some((record, entry.payload_place().map(|(at, _)| at)))
        })
    }

    /// Where in the log the payload of its only record begins, and that payload's CRC-32C. None
    /// for a frame of several records, or of one without payload.
    #[must_use]
    pub fn only_payload(&self) -> Option<(Lsn, u32)> {
        let entry = self.entry(0).ok().filter(|_| self.record_count == 1)?;
        let (at, crc) = entry.payload_place()?;
        Some((self.lsn.checked_add(at)?, crc))
    }

    /// How its epoch began, where this is the first frame of one.
    #[must_use]
    pub fn epoch_start(&self) -> Option<Began> {
        self.records().find_map(|record| match record {
            Record::EpochStart { began, .. } => Some(began),
            _ => None,
        })
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (epoch, lsn, end) = (self.epoch, self.lsn, self.end());
        write!(f, "Frame(epoch {epoch}, {lsn}..{end}, {} records)", self.record_count)
    }
}

/// Sizes of the frame whose header begins in `head`, for a reader that has the header only and
/// must know how much follows. Only the bounds have been checked yet.
///
/// # Errors
/// [`FrameError`] where this is no header of a version that this program reads.
pub fn peek_size(head: &[u8]) -> Result<FrameSize, FrameError> {
    FrameHeader::parse(head)?.size()
}

/// The position that the header in `head` claims, where the header is whole and of `resource`.
/// Recovery uses it to look for frames behind an unreadable one (design §2.3).
#[must_use]
pub fn peek_lsn(head: &[u8], resource: ResourceId) -> Option<Lsn> {
    let header = FrameHeader::parse(head).ok()?;
    header.check(head, resource).ok()?;
    Some(header.lsn())
}

/// The stamp in the head page `head`, where that page is a whole header of `resource` at `lsn`.
#[must_use]
pub fn peek_stamp(head: &[u8], resource: ResourceId, lsn: Lsn) -> Option<Stamp> {
    (peek_lsn(head, resource)? == lsn).then(|| Stamp::read(head, lsn)).flatten()
}

#[cfg(test)]
mod tests;

//! The bytes of a frame: header, record table, stamp; sizes and checksums.

use std::fmt;

use serde::{Deserialize, Serialize};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::record::{Began, Record, RecordKind};
use super::{BODY_LEN_MAX, HEAD_LEN, HEADER_LEN, PAGE, RECORD_LEN, RECORDS_MAX};
use crate::checksum::{crc32c, crc32c_of_two};
use crate::ids::{EPOCH_MAX, Epoch, Incarnation, Lsn, MemberId, ResourceId, VolumeIndex};
use crate::point::{POINT_NAME_MAX, PointName};
use crate::range::{ByteRange, RangeError};
use crate::time::WallTime;
use bytes::Bytes;

const MAGIC: [u8; 4] = *b"HDRF";
/// Version 1: the first.
const VERSION: u16 = 1;
const STAMP_AT: usize = HEAD_LEN - STAMP_LEN;
const STAMP_LEN: usize = 32;
const STAMP_MAGIC: [u8; 4] = *b"HDST";

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Fewer bytes than the frame needs.
    #[error("a frame of {need} bytes has only {have}")]
    Short {
        /// Bytes that are there.
        have: usize,
        /// Bytes that the frame needs.
        need: usize,
    },
    /// The first bytes are not those of a frame.
    #[error("no frame begins here")]
    Magic,
    /// A version that this program does not read.
    #[error("frame format {found} is not known here (this program reads {VERSION}); upgrade it")]
    Version {
        /// The version in the header.
        found: u16,
    },
    /// A size in the header is over its limit or does not fit the others.
    #[error("the frame's sizes do not fit: head {head_len}, body {body_len}, in the log {log_len}")]
    Size {
        /// Header and record table, in bytes.
        head_len: u32,
        /// Payloads, in bytes.
        body_len: u32,
        /// With padding, in bytes.
        log_len: u32,
    },
    /// Header or record table were changed on the way.
    #[error("the checksum of the frame's head does not match")]
    HeadChecksum,
    /// A payload was changed on the way.
    #[error("the checksum of record {index}'s payload does not match")]
    PayloadChecksum {
        /// Which record.
        index: usize,
    },
    /// It belongs to another resource.
    #[error("the frame belongs to resource {found}, not to this one")]
    Resource {
        /// Whose it is.
        found: ResourceId,
    },
    /// The author is no member index.
    #[error("the frame's author {found} is no member index")]
    Author {
        /// What the header says.
        found: u8,
    },
    /// Its epoch is beyond [`EPOCH_MAX`], which no member can have begun.
    #[error("the frame's epoch {found} is over the limit of {EPOCH_MAX}")]
    Epoch {
        /// What the header says.
        found: u64,
    },
    /// A record says what no record may say.
    #[error("record {index} of the frame is not valid: {cause}")]
    Record {
        /// Which record.
        index: usize,
        /// What is wrong with it.
        cause: RecordError,
    },
}

/// Why an entry of the record table is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A kind that this version does not have.
    #[error("kind {0} is not known")]
    Kind(u8),
    /// How an epoch began, in a code that this version does not have.
    #[error("code {0} for how an epoch began is not known")]
    Began(u8),
    /// A volume index beyond the limit.
    #[error("volume {0} is beyond the limit")]
    Volume(u16),
    /// A member index beyond the limit.
    #[error("member {0} is beyond the limit")]
    Member(u64),
    /// An epoch beyond [`EPOCH_MAX`].
    #[error("epoch {0} is over the limit of {EPOCH_MAX}")]
    Epoch(u64),
    /// A range that is empty or does not fit.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// The payload is not inside the body, or its length is not the range's.
    #[error("its payload is not inside the frame")]
    Payload,
    /// It speaks of a payload, and its kind brings none.
    #[error("records of its kind bring no payload")]
    NoPayload,
    /// What stands for a name is none.
    #[error("the name of a point in it is none")]
    Point,
}

/// The hash of a history up to one frame; equal hashes mean equal histories.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChainHash([u8; 32]);

impl ChainHash {
    /// The value before the first frame of `resource`.
    #[must_use]
    pub fn genesis(resource: ResourceId) -> Self {
        Self(blake3::derive_key("hadrian chain genesis v1", resource.as_bytes()))
    }

    /// The value with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, as frames and messages carry them.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The lengths of a frame, checked against one another and against their limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameSize {
    head_len: usize,
    body_len: usize,
}

impl FrameSize {
    pub(super) fn new(record_count: usize, body_len: usize) -> Option<Self> {
        let head_len = HEADER_LEN + record_count * RECORD_LEN;
        (record_count <= RECORDS_MAX && body_len <= BODY_LEN_MAX)
            .then_some(Self { head_len, body_len })
    }

    /// Header and record table, in bytes.
    #[must_use]
    pub const fn head_len(self) -> usize {
        self.head_len
    }

    /// Payloads, in bytes.
    #[must_use]
    pub const fn body_len(self) -> usize {
        self.body_len
    }

    /// What the frame takes in the log, padding included, in bytes.
    #[must_use]
    pub const fn log_len(self) -> usize {
        HEAD_LEN + self.body_len.next_multiple_of(PAGE)
    }

    /// What the frame takes on the wire, in bytes.
    #[must_use]
    pub const fn wire_len(self) -> usize {
        self.head_len + self.body_len
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct FrameHeader {
    magic: [u8; 4],
    version: U16,
    record_count: U16,
    resource: [u8; 16],
    epoch: U64,
    lsn: U64,
    durable: U64,
    wall_us: U64,
    head_len: U32,
    body_len: U32,
    log_len: U32,
    author: u8,
    reserved: [u8; 23],
    chain: [u8; 32],
    head_crc: U32,
}

const _: () = assert!(size_of::<FrameHeader>() == HEADER_LEN);
const _: () = assert!(size_of::<RecordEntry>() == RECORD_LEN);
const _: () = assert!(HEADER_LEN + RECORDS_MAX * RECORD_LEN <= STAMP_AT);
const CHAIN_AT: usize = 92;
const CHAINED_TO: usize = HEADER_LEN - 4;
/// Where in an entry the name of a point begins.
const NAME_AT: usize = 2;
const _: () = assert!(NAME_AT + POINT_NAME_MAX == RECORD_LEN);

pub(super) struct NewHeader {
    pub(super) resource: ResourceId,
    pub(super) epoch: Epoch,
    pub(super) lsn: Lsn,
    pub(super) durable: Lsn,
    pub(super) wall: WallTime,
    pub(super) author: MemberId,
    pub(super) size: FrameSize,
    pub(super) record_count: usize,
}

impl FrameHeader {
    pub(super) fn new(new: &NewHeader) -> Self {
        // Every length is at most a little over BODY_LEN_MAX, every count at most RECORDS_MAX.
        let narrow = |len: usize| U32::new(u32::try_from(len).unwrap_or(u32::MAX));
        Self {
            magic: MAGIC,
            version: U16::new(VERSION),
            record_count: U16::new(u16::try_from(new.record_count).unwrap_or(u16::MAX)),
            resource: *new.resource.as_bytes(),
            epoch: U64::new(new.epoch.get()),
            lsn: U64::new(new.lsn.get()),
            durable: U64::new(new.durable.get()),
            wall_us: U64::new(new.wall.as_micros()),
            head_len: narrow(new.size.head_len()),
            body_len: narrow(new.size.body_len()),
            log_len: narrow(new.size.log_len()),
            author: new.author.index(),
            reserved: [0; 23],
            chain: [0; 32],
            head_crc: U32::new(0),
        }
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, FrameError> {
        let (header, _) = Self::read_from_prefix(bytes)
            .map_err(|_| FrameError::Short { have: bytes.len(), need: HEADER_LEN })?;
        if header.magic != MAGIC {
            return Err(FrameError::Magic);
        }
        match header.version.get() {
            VERSION => Ok(header),
            found => Err(FrameError::Version { found }),
        }
    }

    pub(super) fn size(&self) -> Result<FrameSize, FrameError> {
        let (head_len, body_len, log_len) =
            (self.head_len.get(), self.body_len.get(), self.log_len.get());
        let wrong = FrameError::Size { head_len, body_len, log_len };
        let Some(size) = FrameSize::new(self.record_count(), body_len as usize) else {
            return Err(wrong);
        };
        let fits = size.head_len() == head_len as usize
            && size.log_len() == log_len as usize
            && self.lsn().checked_add(u64::from(log_len)).is_some();
        if fits { Ok(size) } else { Err(wrong) }
    }

    /// Checks what the head alone can show: checksum over header and table, resource and epoch.
    pub(super) fn check(&self, bytes: &[u8], resource: ResourceId) -> Result<(), FrameError> {
        let size = self.size()?;
        if head_crc(bytes, size)? != self.head_crc.get() {
            return Err(FrameError::HeadChecksum);
        }
        if self.resource() != resource {
            return Err(FrameError::Resource { found: self.resource() });
        }
        self.epoch().map(drop)
    }

    pub(super) fn record_count(&self) -> usize {
        usize::from(self.record_count.get())
    }

    pub(super) fn resource(&self) -> ResourceId {
        ResourceId::from_bytes(self.resource)
    }

    /// Bounded like every epoch from outside: whoever noted a higher one could never begin the
    /// next.
    pub(super) fn epoch(&self) -> Result<Epoch, FrameError> {
        let found = self.epoch.get();
        Epoch::from_outside(found).ok_or(FrameError::Epoch { found })
    }

    pub(super) fn lsn(&self) -> Lsn {
        Lsn::new(self.lsn.get())
    }

    pub(super) fn durable(&self) -> Lsn {
        Lsn::new(self.durable.get())
    }

    pub(super) fn wall(&self) -> WallTime {
        WallTime::from_micros(self.wall_us.get())
    }

    pub(super) fn author(&self) -> Result<MemberId, FrameError> {
        MemberId::new(self.author).ok_or(FrameError::Author { found: self.author })
    }

    pub(super) fn chain(&self) -> ChainHash {
        ChainHash(self.chain)
    }
}

/// Writes header, chain value and head checksum into `buffer`, whose table and payloads are done.
#[expect(clippy::indexing_slicing, reason = "a draft owns a whole head")]
pub(super) fn seal(buffer: &mut [u8], new: &NewHeader, before: ChainHash) -> ChainHash {
    let header = FrameHeader::new(new);
    buffer[..HEADER_LEN].copy_from_slice(header.as_bytes());
    let chain = chain_after(before, buffer, new.size);
    buffer[CHAIN_AT..CHAINED_TO].copy_from_slice(chain.as_bytes());
    let crc = head_crc(buffer, new.size).unwrap_or_default();
    buffer[CHAINED_TO..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
    chain
}

/// The chain value after the frame in `bytes`: the value before, the header up to its chain field
/// and the record table, which holds the payloads' checksums.
#[expect(clippy::indexing_slicing, reason = "only frames with a whole head get here")]
pub(super) fn chain_after(before: ChainHash, bytes: &[u8], size: FrameSize) -> ChainHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&before.0);
    hasher.update(&bytes[..CHAIN_AT]);
    hasher.update(&bytes[HEADER_LEN..size.head_len()]);
    ChainHash(*hasher.finalize().as_bytes())
}

fn head_crc(bytes: &[u8], size: FrameSize) -> Result<u32, FrameError> {
    let short = FrameError::Short { have: bytes.len(), need: size.head_len() };
    let header = bytes.get(..CHAINED_TO).ok_or(short.clone())?;
    let table = bytes.get(HEADER_LEN..size.head_len()).ok_or(short)?;
    Ok(crc32c_of_two(header, table))
}

/// Zeroes all that is neither on the wire nor stamp, so that a recycled buffer tells no secrets.
#[expect(clippy::indexing_slicing, reason = "the length was looked at")]
pub(super) fn clear_padding(buffer: &mut [u8], size: FrameSize) -> Result<(), FrameError> {
    let (have, need) = (buffer.len(), size.log_len());
    if have < need {
        return Err(FrameError::Short { have, need });
    }
    buffer[size.head_len()..HEAD_LEN].fill(0);
    buffer[HEAD_LEN + size.body_len()..need].fill(0);
    Ok(())
}

/// A replica's own note in the padding of a frame in its log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// How far this replica's log was durable when it stored the frame. A frame below the highest
    /// stamp that cannot be read is damage; above it, a lost unsynced tail (design §2.3).
    pub durable: Lsn,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StampBytes {
    magic: [u8; 4],
    crc: U32,
    durable: U64,
    lsn: U64,
    reserved: [u8; 8],
}

const _: () = assert!(size_of::<StampBytes>() == STAMP_LEN);

impl Stamp {
    #[expect(clippy::indexing_slicing, reason = "fixed places in a whole head")]
    pub(super) fn write(self, buffer: &mut [u8], lsn: Lsn) {
        let (durable, lsn) = (U64::new(self.durable.get()), U64::new(lsn.get()));
        let mut stamp =
            StampBytes { magic: STAMP_MAGIC, crc: U32::new(0), durable, lsn, reserved: [0; 8] };
        stamp.crc = U32::new(crc32c(&stamp.as_bytes()[8..]));
        buffer[STAMP_AT..HEAD_LEN].copy_from_slice(stamp.as_bytes());
    }

    #[expect(clippy::indexing_slicing, reason = "a fixed place in a structure")]
    pub(super) fn read(bytes: &[u8], lsn: Lsn) -> Option<Self> {
        let stamp = StampBytes::read_from_bytes(bytes.get(STAMP_AT..HEAD_LEN)?).ok()?;
        let whole = stamp.magic == STAMP_MAGIC
            && stamp.crc.get() == crc32c(&stamp.as_bytes()[8..])
            && stamp.lsn.get() == lsn.get();
        whole.then(|| Self { durable: Lsn::new(stamp.durable.get()) })
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct RecordEntry {
    kind: u8,
    flags: u8,
    volume: U16,
    payload_len: U32,
    offset: U64,
    length: U64,
    payload_crc: U32,
    payload_at: U32,
}

impl RecordEntry {
    /// An entry for a change of `range`; `payload` is where its bytes lie in the body, and they.
    pub(super) fn change(
        kind: RecordKind,
        volume: VolumeIndex,
        range: ByteRange,
        payload: Option<(usize, &[u8])>,
    ) -> Self {
        let (at, bytes) = payload.unwrap_or((0, &[]));
        // Draft keeps payloads inside BODY_LEN_MAX.
        let narrow = |len: usize| U32::new(u32::try_from(len).unwrap_or(u32::MAX));
        Self {
            kind: kind.code(),
            flags: 0,
            volume: U16::new(volume.index()),
            payload_len: narrow(bytes.len()),
            offset: U64::new(range.start()),
            length: U64::new(range.len()),
            payload_crc: U32::new(crc32c(bytes)),
            payload_at: narrow(at),
        }
    }

    /// An entry that changes no volume: two numbers and a code.
    pub(super) fn mark(kind: RecordKind, flags: u8, first: u64, second: u64) -> Self {
        Self {
            kind: kind.code(),
            flags,
            volume: U16::new(0),
            payload_len: U32::new(0),
            offset: U64::new(first),
            length: U64::new(second),
            payload_crc: U32::new(0),
            payload_at: U32::new(0),
        }
    }

    /// An entry for the name of a point: kind, length of the name, the name, zeroes.
    pub(super) fn point(name: &PointName) -> Self {
        let name = name.as_str().as_bytes();
        let mut entry = Self::mark(RecordKind::Point, u8::try_from(name.len()).unwrap_or(0), 0, 0);
        let places = entry.as_mut_bytes().iter_mut().skip(NAME_AT);
        places.zip(name).for_each(|(place, byte)| *place = *byte);
        entry
    }

    fn point_name(&self) -> Option<PointName> {
        let room = self.as_bytes().get(NAME_AT..)?;
        let (name, rest) = room.split_at_checked(usize::from(self.flags))?;
        // One name is written in one way only.
        rest.iter().all(|byte| *byte == 0).then(|| PointName::from_bytes(name)).flatten()
    }

    pub(super) fn parse(bytes: &[u8], index: usize) -> Result<Self, FrameError> {
        let start = HEADER_LEN + index * RECORD_LEN;
        bytes
            .get(start..start + RECORD_LEN)
            .and_then(|entry| Self::read_from_bytes(entry).ok())
            .ok_or(FrameError::Short { have: bytes.len(), need: start + RECORD_LEN })
    }

    #[expect(clippy::indexing_slicing, reason = "a draft counts its records")]
    pub(super) fn write(&self, buffer: &mut [u8], index: usize) {
        let start = HEADER_LEN + index * RECORD_LEN;
        buffer[start..start + RECORD_LEN].copy_from_slice(self.as_bytes());
    }

    fn payload(&self) -> std::ops::Range<usize> {
        let start = HEAD_LEN + self.payload_at.get() as usize;
        start..start + self.payload_len.get() as usize
    }

    /// Where in the frame the payload begins, in bytes, and its checksum, where there is one.
    pub(super) fn payload_place(&self) -> Option<(u64, u32)> {
        let at = HEAD_LEN as u64 + u64::from(self.payload_at.get());
        self.has_payload().then_some((at, self.payload_crc.get()))
    }

    pub(super) fn check_payload(&self, bytes: &[u8]) -> bool {
        let crc = || bytes.get(self.payload()).map(crc32c);
        !self.has_payload() || crc() == Some(self.payload_crc.get())
    }

    pub(super) fn decode(&self, bytes: &Bytes, size: FrameSize) -> Result<Record, RecordError> {
        let kind = RecordKind::from_code(self.kind).ok_or(RecordError::Kind(self.kind))?;
        if kind != RecordKind::Write && self.has_payload() {
            // It could lie in the padding, which is another on every replica.
            return Err(RecordError::NoPayload);
        }
        Ok(match kind {
            RecordKind::Write => {
                let (volume, range) = self.place()?;
                let payload = self.payload();
                let inside = payload.end <= HEAD_LEN + size.body_len()
                    && range.len() == u64::from(self.payload_len.get());
                if !inside {
                    return Err(RecordError::Payload);
                }
                Record::Write { volume, range, payload: bytes.slice(payload) }
            }
            RecordKind::Zero => {
                let (volume, range) = self.place()?;
                Record::Zero { volume, range }
            }
            RecordKind::Trim => {
                let (volume, range) = self.place()?;
                Record::Trim { volume, range }
            }
            RecordKind::EpochStart => Record::EpochStart {
                began: Began::from_code(self.flags).ok_or(RecordError::Began(self.flags))?,
                previous: epoch(self.offset.get())?,
                incarnation: Incarnation::new(self.length.get()),
            },
            RecordKind::Handover => {
                Record::Handover { to: self.member()?, epoch: epoch(self.length.get())? }
            }
            RecordKind::Marker => Record::Marker,
            RecordKind::Point => {
                Record::Point { name: self.point_name().ok_or(RecordError::Point)? }
            }
        })
    }

    fn has_payload(&self) -> bool {
        // A name takes the room of the fields.
        self.kind != RecordKind::Point.code()
            && (self.payload_len.get(), self.payload_crc.get(), self.payload_at.get()) != (0, 0, 0)
    }

    fn place(&self) -> Result<(VolumeIndex, ByteRange), RecordError> {
        let index = self.volume.get();
        let volume = VolumeIndex::new(index).ok_or(RecordError::Volume(index))?;
        Ok((volume, ByteRange::new(self.offset.get(), self.length.get())?))
    }

    fn member(&self) -> Result<MemberId, RecordError> {
        let index = self.offset.get();
        u8::try_from(index).ok().and_then(MemberId::new).ok_or(RecordError::Member(index))
    }
}

fn epoch(number: u64) -> Result<Epoch, RecordError> {
    Epoch::from_outside(number).ok_or(RecordError::Epoch(number))
}

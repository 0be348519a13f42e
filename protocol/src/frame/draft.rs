//! Building a frame in place: records are added to a buffer that later goes to disk as it is.

use bytes::Bytes;

use super::layout::{self, FrameSize, NewHeader, RecordEntry, Stamp};
use super::record::{Began, RecordKind};
use super::{BODY_LEN_MAX, ChainHash, Frame, HEAD_LEN, RECORDS_MAX};
use crate::ids::{Epoch, Incarnation, Lsn, MemberId, ResourceId, VolumeIndex};
use crate::point::PointName;
use crate::range::ByteRange;
use crate::time::WallTime;

/// Memory in which a frame is built: exclusive while it grows, shared once it is sealed.
pub trait FrameBuffer: AsRef<[u8]> + AsMut<[u8]> {
    /// Gives up write access.
    fn freeze(self) -> Bytes;
}

impl FrameBuffer for Vec<u8> {
    fn freeze(self) -> Bytes {
        Bytes::from(self)
    }
}

/// The frame has no room for one more record; seal it and begin the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frame is full")]
pub struct DraftFull;

/// A frame that is being filled. Payloads lie one behind the other from [`HEAD_LEN`] on.
#[derive(Debug)]
pub struct Draft<B> {
    buffer: B,
    record_count: usize,
    body_len: usize,
}

/// Everything about a frame that its writer decides when it is sealed.
#[derive(Clone, Copy, Debug)]
pub struct SealAs {
    /// Whose log it joins.
    pub resource: ResourceId,
    /// The writer's epoch.
    pub epoch: Epoch,
    /// Where it begins in the log.
    pub lsn: Lsn,
    /// How far the writer's log is durable.
    pub durable: Lsn,
    /// When.
    pub wall: WallTime,
    /// The writer.
    pub author: MemberId,
    /// The chain value of the frame before.
    pub before: ChainHash,
}

impl<B: FrameBuffer> Draft<B> {
    /// An empty frame in `buffer`, whose first [`HEAD_LEN`] bytes are for the head.
    ///
    /// # Panics
    /// If the buffer has no room for a head.
    pub fn new(buffer: B) -> Self {
        assert!(buffer.as_ref().len() >= HEAD_LEN, "a frame's buffer has at least a head");
        Self { buffer, record_count: 0, body_len: 0 }
    }

    /// Whether nothing has been added yet.
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Payload bytes so far.
    pub fn body_len(&self) -> usize {
        self.body_len
    }

    /// Whether a write of `len` bytes still fits.
    pub fn has_room(&self, len: usize) -> bool {
        self.record_count < RECORDS_MAX && self.body_len + len <= self.body_room()
    }

    fn body_room(&self) -> usize {
        (self.buffer.as_ref().len() - HEAD_LEN).min(BODY_LEN_MAX)
    }

    /// Adds a write, copying its payload behind the others.
    ///
    /// # Errors
    /// [`DraftFull`] where it does not fit; nothing was added then.
    ///
    /// # Panics
    /// If the payload is not as long as the range.
    #[expect(clippy::indexing_slicing, reason = "has_room has looked")]
    pub fn write(
        &mut self,
        volume: VolumeIndex,
        range: ByteRange,
        payload: &[u8],
    ) -> Result<(), DraftFull> {
        if !self.has_room(payload.len()) {
            return Err(DraftFull);
        }
        let start = HEAD_LEN + self.body_len;
        self.buffer.as_mut()[start..start + payload.len()].copy_from_slice(payload);
        self.write_in_place(volume, range, payload.len())
    }

    /// Adds a write whose payload is in the buffer already, right behind the others: a large
    /// payload is received there and never copied.
    ///
    /// # Errors
    /// [`DraftFull`] where it does not fit; nothing was added then.
    ///
    /// # Panics
    /// If the payload is not as long as the range.
    #[expect(clippy::indexing_slicing, reason = "has_room has looked")]
    pub fn write_in_place(
        &mut self,
        volume: VolumeIndex,
        range: ByteRange,
        len: usize,
    ) -> Result<(), DraftFull> {
        assert_eq!(range.len(), len as u64, "a write's payload is as long as its range");
        if !self.has_room(len) {
            return Err(DraftFull);
        }
        let start = HEAD_LEN + self.body_len;
        let payload = &self.buffer.as_ref()[start..start + len];
        let entry =
            RecordEntry::change(RecordKind::Write, volume, range, Some((self.body_len, payload)));
        self.body_len += len;
        self.push(entry)
    }

    /// Adds write-zeroes over `range`.
    ///
    /// # Errors
    /// [`DraftFull`]
    pub fn zero(&mut self, volume: VolumeIndex, range: ByteRange) -> Result<(), DraftFull> {
        self.push(RecordEntry::change(RecordKind::Zero, volume, range, None))
    }

    /// Adds a trim of `range`.
    ///
    /// # Errors
    /// [`DraftFull`]
    pub fn trim(&mut self, volume: VolumeIndex, range: ByteRange) -> Result<(), DraftFull> {
        self.push(RecordEntry::change(RecordKind::Trim, volume, range, None))
    }

    /// Adds the mark that begins an epoch.
    ///
    /// # Errors
    /// [`DraftFull`]
    pub fn epoch_start(
        &mut self,
        began: Began,
        previous: Epoch,
        incarnation: Incarnation,
    ) -> Result<(), DraftFull> {
        let (first, second) = (previous.get(), incarnation.get());
        self.push(RecordEntry::mark(RecordKind::EpochStart, began.code(), first, second))
    }

    /// Adds the mark that ends an epoch by handing over.
    ///
    /// # Errors
    /// [`DraftFull`]
    pub fn handover(&mut self, to: MemberId, epoch: Epoch) -> Result<(), DraftFull> {
        let (first, second) = (u64::from(to.index()), epoch.get());
        self.push(RecordEntry::mark(RecordKind::Handover, 0, first, second))
    }

    /// Adds a mark that carries only its place.
    ///
    /// # Errors
    /// [`DraftFull`]
    pub fn marker(&mut self) -> Result<(), DraftFull> {
        self.push(RecordEntry::mark(RecordKind::Marker, 0, 0, 0))
    }

    /// Adds an operator's name for the point behind this frame.
    ///
    /// # Errors
    /// [`DraftFull`]
    pub fn point(&mut self, name: &PointName) -> Result<(), DraftFull> {
        self.push(RecordEntry::point(name))
    }

    fn push(&mut self, entry: RecordEntry) -> Result<(), DraftFull> {
        if self.record_count == RECORDS_MAX {
            return Err(DraftFull);
        }
        entry.write(self.buffer.as_mut(), self.record_count);
        self.record_count += 1;
        Ok(())
    }

    /// Closes the frame: header, chain, checksums, stamp. From here on nobody can change it.
    ///
    /// # Panics
    /// If nothing was added: an empty frame has no meaning.
    pub fn seal(mut self, seal: SealAs) -> Frame {
        assert!(!self.is_empty(), "a frame holds at least one record");
        let Some(size) = FrameSize::new(self.record_count, self.body_len) else {
            unreachable!("push and write_in_place keep to the limits")
        };
        let SealAs { resource, epoch, lsn, durable, wall, author, before } = seal;
        let buffer = self.buffer.as_mut();
        let cleared = layout::clear_padding(buffer, size);
        assert!(cleared.is_ok(), "a frame's buffer is a whole number of pages");
        let record_count = self.record_count;
        let new = NewHeader { resource, epoch, lsn, durable, wall, author, size, record_count };
        let chain = layout::seal(buffer, &new, before);
        Stamp { durable }.write(buffer, lsn);
        let bytes = self.buffer.freeze().slice(..size.log_len());
        Frame { resource, epoch, lsn, durable, wall, author, chain, size, record_count, bytes }
    }
}

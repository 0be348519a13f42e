//! Reading and writing of small binary bodies: messages and the superblock's content.
//!
//! Everything is little endian, every length is checked before it is used, and every list has a
//! limit. A reader never panics whatever the bytes.

use bytes::BufMut;

use crate::frame::{ChainHash, LogPosition};
use crate::ids::{Epoch, Incarnate, Incarnation, Lsn, MemberId, ResourceId, VolumeIndex};

/// Why a body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The body ends inside a field.
    #[error("the body ends inside {field}")]
    Short {
        /// Which field.
        field: &'static str,
    },
    /// A field holds what it may not.
    #[error("{field} holds {value}, which means nothing here")]
    Value {
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
    /// A text is not UTF-8.
    #[error("{field} is no text from its byte {at} on")]
    Text {
        /// Which field.
        field: &'static str,
        /// Where it stops being text.
        at: u64,
    },
    /// A list or text is over its limit.
    #[error("{field} has {count} entries or bytes, over the limit of {limit}")]
    TooMany {
        /// Which field.
        field: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Bytes are left over.
    #[error("{count} bytes are left over at the end of the body")]
    TooLong {
        /// How many.
        count: usize,
    },
}

/// Takes a body apart from the front.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the front of `body`.
    #[must_use]
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`CodecError::TooLong`] where bytes are left.
    pub fn finish(self) -> Result<(), CodecError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(CodecError::TooLong { count }),
        }
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub(crate) fn text(&mut self, field: &'static str, limit: usize) -> Result<String, CodecError> {
        let bytes = self.list(field, limit, |r| r.u8(field))?;
        String::from_utf8(bytes).map_err(|error| {
            let value = u64::try_from(error.utf8_error().valid_up_to()).unwrap_or(u64::MAX);
            CodecError::Text { field, at: value }
        })
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], CodecError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(CodecError::Short { field })?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, CodecError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, CodecError> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, CodecError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, CodecError> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub(crate) fn flag(&mut self, field: &'static str) -> Result<bool, CodecError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(CodecError::Value { field, value: u64::from(other) }),
        }
    }

    pub(crate) fn lsn(&mut self, field: &'static str) -> Result<Lsn, CodecError> {
        self.u64(field).map(Lsn::new)
    }

    pub(crate) fn epoch(&mut self, field: &'static str) -> Result<Epoch, CodecError> {
        let value = self.u64(field)?;
        Epoch::from_outside(value).ok_or(CodecError::Value { field, value })
    }

    pub(crate) fn incarnation(&mut self, field: &'static str) -> Result<Incarnation, CodecError> {
        self.u64(field).map(Incarnation::new)
    }

    pub(crate) fn member(&mut self, field: &'static str) -> Result<MemberId, CodecError> {
        let index = self.u8(field)?;
        MemberId::new(index).ok_or(CodecError::Value { field, value: u64::from(index) })
    }

    pub(crate) fn volume(&mut self, field: &'static str) -> Result<VolumeIndex, CodecError> {
        let index = self.u16(field)?;
        VolumeIndex::new(index).ok_or(CodecError::Value { field, value: u64::from(index) })
    }

    pub(crate) fn incarnate(&mut self, field: &'static str) -> Result<Incarnate, CodecError> {
        Ok(Incarnate { member: self.member(field)?, incarnation: self.incarnation(field)? })
    }

    pub(crate) fn resource(&mut self, field: &'static str) -> Result<ResourceId, CodecError> {
        self.array(field).map(ResourceId::from_bytes)
    }

    pub(crate) fn hash(&mut self, field: &'static str) -> Result<[u8; 32], CodecError> {
        self.array(field)
    }

    pub(crate) fn position(&mut self, field: &'static str) -> Result<LogPosition, CodecError> {
        let lsn = self.lsn(field)?;
        Ok(LogPosition { lsn, chain: ChainHash::from_bytes(self.hash(field)?) })
    }

    pub(crate) fn option<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Option<T>, CodecError> {
        if self.flag(field)? { read(self).map(Some) } else { Ok(None) }
    }

    pub(crate) fn list<T>(
        &mut self,
        field: &'static str,
        limit: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        let count = usize::from(self.u16(field)?);
        if count > limit {
            return Err(CodecError::TooMany { field, count, limit });
        }
        (0..count).map(|_| read(self)).collect()
    }
}

/// Puts a body together at the end of a `Vec`.
pub(crate) trait Put: BufMut {
    fn put_flag(&mut self, flag: bool) {
        self.put_u8(u8::from(flag));
    }

    fn put_lsn(&mut self, lsn: Lsn) {
        self.put_u64_le(lsn.get());
    }

    fn put_epoch(&mut self, epoch: Epoch) {
        self.put_u64_le(epoch.get());
    }

    fn put_incarnate(&mut self, life: Incarnate) {
        self.put_u8(life.member.index());
        self.put_u64_le(life.incarnation.get());
    }

    fn put_text(&mut self, text: &str) {
        self.put_list(text.as_bytes(), |out, byte| out.put_u8(*byte));
    }

    fn put_position(&mut self, position: LogPosition) {
        self.put_lsn(position.lsn);
        self.put_slice(position.chain.as_bytes());
    }

    fn put_option<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Self, T)) {
        self.put_flag(value.is_some());
        if let Some(value) = value {
            put(self, value);
        }
    }

    fn put_list<T>(&mut self, items: &[T], mut put: impl FnMut(&mut Self, &T)) {
        // Every list here has a limit far below 65536, kept by whoever builds it.
        let count = u16::try_from(items.len()).unwrap_or(u16::MAX);
        self.put_u16_le(count);
        items.iter().take(usize::from(count)).for_each(|item| put(self, item));
    }
}

impl Put for Vec<u8> {}

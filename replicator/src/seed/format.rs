//! The bytes of a seed's header, records and end. All numbers are little-endian.

use bytes::{Buf as _, BufMut as _};
use hadrian_protocol::checksum::{crc32c, crc32c_of_two};
use hadrian_protocol::ids::{ResourceId, VOLUMES_MAX, VolumeIndex};
use hadrian_protocol::replica::VolumeGeometry;
use hadrian_protocol::resync::{CONTENT_MAX, LEAF, ZEROES_MAX};

use super::SeedError;

/// Length of the header, in bytes.
pub const HEADER_LEN: usize = 4096;
const MAGIC: [u8; 8] = *b"HDRNSEED";
/// Version 1: the first.
pub(super) const VERSION: u16 = 1;
/// Length of the head of a record and of the end, in bytes.
pub(super) const HEAD_LEN: usize = 32;
/// Longest state in the end, in bytes.
pub(super) const STATE_MAX: usize = 64 << 10;
/// Length of the digest behind the end, in bytes.
pub(super) const DIGEST_LEN: usize = 32;

const BYTES: [u8; 4] = *b"SEED";
const ZEROES: [u8; 4] = *b"ZERO";
const END: [u8; 4] = *b"DONE";

/// What a seed says of itself at its beginning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Of which resource it is.
    pub resource: ResourceId,
    /// Its volumes, in order.
    pub volumes: Vec<VolumeGeometry>,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.put_slice(&MAGIC);
        out.put_u16_le(VERSION);
        out.put_slice(self.resource.as_bytes());
        out.put_u16_le(u16::try_from(self.volumes.len()).unwrap_or(u16::MAX));
        for volume in &self.volumes {
            out.put_u64_le(volume.size_bytes);
            out.put_u32_le(volume.block_size);
        }
        out.resize(HEADER_LEN - 4, 0);
        let crc = crc32c(&out);
        out.put_u32_le(crc);
        out
    }

    pub(super) fn decode(page: &[u8; HEADER_LEN]) -> Result<Self, SeedError> {
        let damaged = || SeedError::Damaged { at: 0 };
        let (body, crc) = page.split_last_chunk::<4>().ok_or_else(damaged)?;
        let mut rest = body.strip_prefix(&MAGIC).ok_or(SeedError::Magic)?;
        if crc32c(body) != u32::from_le_bytes(*crc) {
            return Err(damaged());
        }
        // A page is longer than what is read of it here.
        let found = rest.get_u16_le();
        if found != VERSION {
            return Err(SeedError::Newer { found });
        }
        let mut resource = [0; 16];
        rest.copy_to_slice(&mut resource);
        let count = rest.get_u16_le();
        if count == 0 || count > VOLUMES_MAX {
            return Err(damaged());
        }
        let mut volume =
            || VolumeGeometry { size_bytes: rest.get_u64_le(), block_size: rest.get_u32_le() };
        let volumes = (0..count).map(|_| volume()).collect();
        Ok(Self { resource: ResourceId::from_bytes(resource), volumes })
    }

    pub(super) fn size(&self, volume: VolumeIndex) -> u64 {
        self.volumes.get(usize::from(volume.index())).map_or(0, |volume| volume.size_bytes)
    }
}

/// What a head stands before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// What leaves hold.
    Bytes,
    /// That they hold zeroes.
    Zeroes,
    /// The end; its offset is the count of records.
    End,
}

/// The head of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) volume: VolumeIndex,
    pub(super) offset: u64,
    /// Bytes of the volume.
    pub(super) len: u64,
    /// Bytes that follow in the file.
    pub(super) stored: usize,
    crc: u32,
}

impl Head {
    /// A head and what follows on it.
    pub(super) fn encode(
        kind: Kind,
        volume: VolumeIndex,
        (offset, len): (u64, u64),
        stored: &[u8],
    ) -> [u8; HEAD_LEN] {
        let mut out = Vec::with_capacity(HEAD_LEN);
        out.put_slice(match kind {
            Kind::Bytes => &BYTES,
            Kind::Zeroes => &ZEROES,
            Kind::End => &END,
        });
        out.put_u16_le(volume.index());
        out.put_u16_le(0);
        out.put_u64_le(offset);
        // Records are far below 4 GiB.
        out.put_u32_le(u32::try_from(len).unwrap_or(u32::MAX));
        out.put_u32_le(u32::try_from(stored.len()).unwrap_or(u32::MAX));
        out.resize(HEAD_LEN - 4, 0);
        let crc = crc32c_of_two(&out, stored);
        out.put_u32_le(crc);
        let mut head = [0; HEAD_LEN];
        head.copy_from_slice(&out);
        head
    }

    /// Reads a head and checks its limits, before anything is allocated by what it says.
    pub(super) fn decode(bytes: &[u8; HEAD_LEN], header: &Header) -> Option<Self> {
        let mut rest = bytes.as_slice();
        let mut magic = [0; 4];
        rest.copy_to_slice(&mut magic);
        let kind = match magic {
            BYTES => Kind::Bytes,
            ZEROES => Kind::Zeroes,
            END => Kind::End,
            _ => return None,
        };
        let (volume, zero) = (VolumeIndex::new(rest.get_u16_le())?, rest.get_u16_le());
        let (offset, len) = (rest.get_u64_le(), u64::from(rest.get_u32_le()));
        let (stored, spare) = (rest.get_u32_le(), rest.get_u32_le());
        let crc = rest.get_u32_le();
        let head = Self { kind, volume, offset, len, stored: usize::try_from(stored).ok()?, crc };
        (zero == 0 && spare == 0 && head.is_within(header.size(volume))).then_some(head)
    }

    fn is_within(&self, size: u64) -> bool {
        let end = self.offset.checked_add(self.len);
        let inside = end.is_some_and(|end| {
            let whole = end.is_multiple_of(LEAF) || end == size;
            self.len > 0 && end <= size && self.offset.is_multiple_of(LEAF) && whole
        });
        let stored = self.stored as u64;
        match self.kind {
            Kind::Bytes => {
                inside && self.len <= CONTENT_MAX as u64 && (1..=self.len).contains(&stored)
            }
            Kind::Zeroes => inside && self.len <= ZEROES_MAX && stored == 0,
            Kind::End => self.len == 0 && self.stored <= STATE_MAX,
        }
    }

    /// Whether this is what was stored.
    pub(super) fn fits(&self, bytes: &[u8; HEAD_LEN], stored: &[u8]) -> bool {
        let (head, _) = bytes.split_at(HEAD_LEN - 4);
        crc32c_of_two(head, stored) == self.crc
    }
}

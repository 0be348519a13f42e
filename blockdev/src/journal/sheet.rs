//! Sheets: the small one-page files beside the segments, and the first page of a quarantine file.
//!
//! All kinds share one layout: what it is, whose it is, one point of the history, one
//! further position, one number, and a checksum over all of it.

use bytes::Bytes;
use hadrian_protocol::checksum::crc32c;
use hadrian_protocol::frame::{ChainHash, LogPosition};
use hadrian_protocol::ids::{Lsn, ResourceId};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::buffer::IoBuf;

/// Length of a sheet, in bytes: what direct I/O takes.
pub(super) const SHEET_LEN: usize = 4096;
/// Version 1: the first.
const VERSION: u16 = 1;

/// What a sheet says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// How a log is laid out: where its history begins in it, and the length of a segment.
    Format,
    /// A truncation: where to, what the end was, how many there were.
    Truncation,
    /// A saved tail: the frames from the point to the end follow.
    Quarantine,
    /// The newest frames, for the start after a kill.
    Tail,
}

impl Kind {
    const fn magic(self) -> [u8; 8] {
        match self {
            Self::Format => *b"HDRNLOGF",
            Self::Truncation => *b"HDRNTRUN",
            Self::Quarantine => *b"HDRNQUAR",
            Self::Tail => *b"HDRNTAIL",
        }
    }
}

/// Why bytes are no sheet of the kind that is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SheetError {
    /// The first bytes are not those of such a file.
    #[error("it is no such file")]
    Magic,
    /// A version that this program does not read.
    #[error("its version is {found}, this program reads {VERSION}; install the later program")]
    Newer {
        /// The version in the file.
        found: u16,
    },
    /// Written in part, or changed since.
    #[error("its checksum does not match")]
    Checksum,
    /// It belongs to another resource.
    #[error("it belongs to resource {found}; correct the directory in the configuration")]
    Foreign {
        /// Whose it is.
        found: ResourceId,
    },
}

/// The content of a sheet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sheet {
    pub(super) kind: Kind,
    pub(super) resource: ResourceId,
    pub(super) point: LogPosition,
    pub(super) end: Lsn,
    pub(super) number: u64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct SheetBytes {
    magic: [u8; 8],
    version: U16,
    reserved: [u8; 6],
    resource: [u8; 16],
    lsn: U64,
    chain: [u8; 32],
    end: U64,
    number: U64,
    crc: U32,
}

const CRC_AT: usize = size_of::<SheetBytes>() - 4;

impl SheetBytes {
    #[expect(clippy::indexing_slicing, reason = "a fixed place in a structure")]
    fn head_crc(&self) -> u32 {
        crc32c(&self.as_bytes()[..CRC_AT])
    }
}

/// The first page of a quarantine file whose frames follow on what nobody knows any more.
pub(crate) fn quarantine_sheet(resource: ResourceId, from: Lsn, end: Lsn) -> Bytes {
    let point = LogPosition { lsn: from, chain: NO_CHAIN };
    Sheet { kind: Kind::Quarantine, resource, point, end, number: 0 }.encode()
}

/// In the place of a chain that is not known.
pub(super) const NO_CHAIN: ChainHash = ChainHash::from_bytes([0; 32]);

impl Sheet {
    #[expect(clippy::indexing_slicing, reason = "a page is longer than a sheet")]
    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = SheetBytes {
            magic: self.kind.magic(),
            version: U16::new(VERSION),
            reserved: [0; 6],
            resource: *self.resource.as_bytes(),
            lsn: U64::new(self.point.lsn.get()),
            chain: *self.point.chain.as_bytes(),
            end: U64::new(self.end.get()),
            number: U64::new(self.number),
            crc: U32::new(0),
        };
        bytes.crc = U32::new(bytes.head_crc());
        let mut page = IoBuf::with_len(SHEET_LEN);
        page.fill(0);
        page[..size_of::<SheetBytes>()].copy_from_slice(bytes.as_bytes());
        page.freeze().slice(..SHEET_LEN)
    }

    pub(super) fn decode(kind: Kind, page: &[u8]) -> Result<Self, SheetError> {
        let (bytes, _) = SheetBytes::read_from_prefix(page).map_err(|_| SheetError::Magic)?;
        if bytes.magic != kind.magic() {
            return Err(SheetError::Magic);
        }
        if bytes.version.get() > VERSION {
            let found = bytes.version.get();
            return Err(SheetError::Newer { found });
        }
        if bytes.head_crc() != bytes.crc.get() {
            return Err(SheetError::Checksum);
        }
        Ok(Self {
            kind,
            resource: ResourceId::from_bytes(bytes.resource),
            point: LogPosition {
                lsn: Lsn::new(bytes.lsn.get()),
                chain: ChainHash::from_bytes(bytes.chain),
            },
            end: Lsn::new(bytes.end.get()),
            number: bytes.number.get(),
        })
    }

    /// As [`Sheet::decode`], of `resource` and no other, where one is named.
    pub(super) fn decode_of(
        kind: Kind,
        page: &[u8],
        resource: Option<ResourceId>,
    ) -> Result<Self, SheetError> {
        let sheet = Self::decode(kind, page)?;
        if resource.is_some_and(|resource| sheet.resource != resource) {
            let found = sheet.resource;
            return Err(SheetError::Foreign { found });
        }
        Ok(sheet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Sheet {
        Sheet {
            kind: Kind::Truncation,
            resource: ResourceId::from_bytes([3; 16]),
            point: LogPosition { lsn: Lsn::new(0x1_0000), chain: ChainHash::from_bytes([9; 32]) },
            end: Lsn::new(0x2_0000),
            number: 4,
        }
    }

    #[test]
    fn a_sheet_reads_back_as_what_it_is_and_nothing_else() {
        let page = sample().encode();
        assert_eq!(Sheet::decode(Kind::Truncation, &page), Ok(sample()));
        assert_eq!(Sheet::decode(Kind::Format, &page), Err(SheetError::Magic));
        assert_eq!(Sheet::decode(Kind::Format, &[]), Err(SheetError::Magic));
        let other = ResourceId::from_bytes([4; 16]);
        let foreign = Sheet::decode_of(Kind::Truncation, &page, Some(other));
        let found = sample().resource;
        assert_eq!(foreign, Err(SheetError::Foreign { found }));
    }

    #[test]
    fn no_change_to_a_sheet_goes_unnoticed() {
        let page = sample().encode();
        for at in 0..size_of::<SheetBytes>() {
            let mut bad = page.to_vec();
            bad[at] ^= 1;
            assert!(Sheet::decode(Kind::Truncation, &bad).is_err(), "byte {at}");
        }
    }

    /// The bytes of version 1. They may never change.
    #[test]
    fn the_bytes_of_version_1_sheets_are_these_and_are_read_back() {
        let golden = hadrian_golden::Golden::new(env!("CARGO_MANIFEST_DIR"), "v1");
        let kinds = [
            ("sheet-format", Kind::Format),
            ("sheet-truncation", Kind::Truncation),
            ("sheet-quarantine", Kind::Quarantine),
        ];
        for (name, kind) in kinds {
            let sheet = Sheet { kind, ..sample() };
            let file = golden.check(name, &sheet.encode());
            assert_eq!(Sheet::decode(kind, &file), Ok(sheet));
        }
    }
}

//! The first bytes of a connection, in a layout that never changes.

use zerocopy::byteorder::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ids::{MemberId, ResourceId};

/// Length of a preamble, in bytes.
pub const PREAMBLE_LEN: usize = 32;
const MAGIC: [u8; 8] = *b"HADRIAN\n";

/// A preamble as it is sent.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct PreambleBytes {
    magic: [u8; 8],
    version_min: U16,
    version_max: U16,
    resource: [u8; 16],
    member: u8,
    reserved: [u8; 3],
}

/// Who calls, about which resource, and which versions of the wire format it speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Preamble {
    /// Lowest version that the sender speaks.
    pub version_min: u16,
    /// Highest version that the sender speaks.
    pub version_max: u16,
    /// The resource that this connection is about.
    pub resource: ResourceId,
    /// The sender; under TLS its key must be that member's.
    pub member: MemberId,
}

/// Why a connection cannot begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PreambleError {
    /// The other side is no Hadrian daemon.
    #[error("the other side does not speak Hadrian's protocol; check the address and port")]
    Magic,
    /// The sender's index is out of range.
    #[error("the other side calls itself member {0}, which no cluster has")]
    Member(u8),
    /// No version is common.
    #[error(
        "the other side speaks wire versions {} to {}, this one {} to {}; upgrade the older",
        theirs.0, theirs.1, ours.0, ours.1
    )]
    Version {
        /// Lowest and highest of the other side.
        theirs: (u16, u16),
        /// Lowest and highest of this side.
        ours: (u16, u16),
    },
}

impl Preamble {
    /// What this program says about itself.
    #[must_use]
    pub fn ours(resource: ResourceId, member: MemberId) -> Self {
        let (version_min, version_max) = super::VERSIONS;
        Self { version_min, version_max, resource, member }
    }

    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; PREAMBLE_LEN] {
        zerocopy::transmute!(PreambleBytes {
            magic: MAGIC,
            version_min: U16::new(self.version_min),
            version_max: U16::new(self.version_max),
            resource: *self.resource.as_bytes(),
            member: self.member.index(),
            reserved: [0; 3],
        })
    }

    /// Reads the bytes of the other side. Reserved bytes are for later versions and not looked at.
    ///
    /// # Errors
    /// [`PreambleError::Magic`] and [`PreambleError::Member`]
    pub fn parse(bytes: &[u8; PREAMBLE_LEN]) -> Result<Self, PreambleError> {
        let found: PreambleBytes = zerocopy::transmute!(*bytes);
        if found.magic != MAGIC {
            return Err(PreambleError::Magic);
        }
        let member = MemberId::new(found.member).ok_or(PreambleError::Member(found.member))?;
        Ok(Self {
            version_min: found.version_min.get(),
            version_max: found.version_max.get(),
            resource: ResourceId::from_bytes(found.resource),
            member,
        })
    }

    /// The highest version that both sides speak.
    ///
    /// # Errors
    /// [`PreambleError::Version`] where there is none.
    pub fn negotiate(&self, other: &Self) -> Result<u16, PreambleError> {
        let version = self.version_max.min(other.version_max);
        let lowest = self.version_min.max(other.version_min);
        if version >= lowest {
            return Ok(version);
        }
        let range = |side: &Self| (side.version_min, side.version_max);
        Err(PreambleError::Version { theirs: range(other), ours: range(self) })
    }
}

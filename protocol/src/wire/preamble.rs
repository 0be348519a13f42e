//! The first bytes of a connection, in a layout that never changes.

use crate::ids::{MemberId, ResourceId};

/// Length of a preamble, in bytes.
pub const PREAMBLE_LEN: usize = 32;
const MAGIC: [u8; 8] = *b"HADRIAN\n";

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
        let mut out = [0; PREAMBLE_LEN];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&self.version_min.to_le_bytes());
        out[10..12].copy_from_slice(&self.version_max.to_le_bytes());
        out[12..28].copy_from_slice(self.resource.as_bytes());
        out[28] = self.member.index();
        out
    }

    /// Reads the bytes of the other side. Reserved bytes are for later versions and not looked at.
    ///
    /// # Errors
    /// [`PreambleError::Magic`] and [`PreambleError::Member`]
    pub fn parse(bytes: &[u8; PREAMBLE_LEN]) -> Result<Self, PreambleError> {
        let (magic, rest) = bytes.split_at(8);
        if magic != MAGIC {
            return Err(PreambleError::Magic);
        }
        let u16_at = |at: usize| u16::from_le_bytes([rest[at], rest[at + 1]]);
        let mut resource = [0; 16];
        resource.copy_from_slice(&rest[4..20]);
        let index = rest[20];
        Ok(Self {
            version_min: u16_at(0),
            version_max: u16_at(2),
            resource: ResourceId::from_bytes(resource),
            member: MemberId::new(index).ok_or(PreambleError::Member(index))?,
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

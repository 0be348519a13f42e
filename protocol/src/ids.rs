//! The numbers that name things: members, epochs, positions, incarnations.
//!
//! Every one is a type of its own with a private field, so that a position cannot be passed for
//! an epoch and "none" is an `Option`, never a magic value.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::time::WallTime;

/// Most members of one cluster (design §1).
pub const MEMBERS_MAX: u8 = 8;
/// Most volumes of one resource (design §10).
pub const VOLUMES_MAX: u16 = 64;
/// Highest epoch that anything from outside may name; so an epoch can always grow.
pub const EPOCH_MAX: u64 = 1 << 60;
/// Bits of an epoch that hold the member's index where there are no marks (design §1).
const EPOCH_MEMBER_BITS: u32 = 3;

/// A byte position in a resource's log; never reused, never goes back inside a history
/// (design §1). Zero is the position of the first frame ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lsn(u64);

impl Lsn {
    /// Where every history begins.
    pub const START: Lsn = Lsn(0);

    /// The position `bytes` from the start of the history.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes from the start of the history.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position `len` bytes later; `None` past the end of the number space.
    #[must_use]
    pub fn checked_add(self, len: u64) -> Option<Self> {
        self.0.checked_add(len).map(Self)
    }

    /// Bytes from `earlier` to here; 0 where `earlier` is later. A gap is never negative.
    #[must_use]
    pub fn since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:08X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no position.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseLsnError {
    /// The text has no slash; write it as status shows it, for example `0/0001F000`.
    #[error("a log position is written HIGH/LOW in hexadecimal, for example 0/0001F000")]
    Form,
    /// One half is not a hexadecimal number of at most 32 bits.
    #[error("one half of the log position is not a hexadecimal number of 32 bits: {0}")]
    Number(#[from] ParseIntError),
}

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (high, low) = text.split_once('/').ok_or(ParseLsnError::Form)?;
        let high = u32::from_str_radix(high, 16)?;
        let low = u32::from_str_radix(low, 16)?;
        Ok(Self(u64::from(high) << 32 | u64::from(low)))
    }
}

/// The fencing token of a resource: grows on every change of primary and on every new
/// incarnation of the same primary (design §1). Epoch 0 is before the first primary.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(u64);

impl Epoch {
    /// Before any member was primary.
    pub const NONE_YET: Epoch = Epoch(0);

    /// The epoch with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The epoch that a frame or a message names; `None` beyond [`EPOCH_MAX`].
    #[must_use]
    pub const fn from_outside(number: u64) -> Option<Self> {
        if number <= EPOCH_MAX { Some(Self(number)) } else { None }
    }

    /// The number, as frames and messages carry it.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The lowest epoch above this one that `member` may begin without marks: its low bits are
    /// the member's index, so that no other member can make the same one (holes, story 8).
    #[must_use]
    pub fn next_for(self, member: MemberId) -> Self {
        let turn = (self.0 >> EPOCH_MEMBER_BITS) + 1;
        Self(turn << EPOCH_MEMBER_BITS | u64::from(member.index()))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A member's index: its place in the configuration file, 0 to 7.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberId(u8);

impl MemberId {
    /// The member at `index`; `None` beyond [`MEMBERS_MAX`].
    #[must_use]
    pub const fn new(index: u8) -> Option<Self> {
        if index < MEMBERS_MAX { Some(Self(index)) } else { None }
    }

    /// Place in the configuration file.
    #[must_use]
    pub const fn index(self) -> u8 {
        self.0
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "member {}", self.0)
    }
}

/// Counts the lives of one replica: one more at each start of its daemon, durable before it is
/// spoken. What an earlier incarnation held in memory is gone (design §5.4).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Incarnation(u64);

impl Incarnation {
    /// The incarnation with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number, as messages carry it.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The next life, which begins at `wall`: above the last, and no lower than the wall clock in
    /// microseconds. A replica that was put back from an older copy, or made anew, has forgotten
    /// numbers that it had; it takes none of them again, unless its clock was set back as well.
    #[must_use]
    pub fn next_at(self, wall: WallTime) -> Self {
        Self(self.0.saturating_add(1).max(wall.as_micros()))
    }
}

/// One life of one member: the entry of an in-sync set (design §1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Incarnate {
    /// Which member.
    pub member: MemberId,
    /// Which of its lives.
    pub incarnation: Incarnation,
}

/// The place of a volume in its resource, 0 to 63.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VolumeIndex(u16);

impl VolumeIndex {
    /// The volume at `index`; `None` beyond [`VOLUMES_MAX`].
    #[must_use]
    pub const fn new(index: u16) -> Option<Self> {
        if index < VOLUMES_MAX { Some(Self(index)) } else { None }
    }

    /// Place in the resource's list of volumes.
    #[must_use]
    pub const fn index(self) -> u16 {
        self.0
    }
}

/// What identities of 16 bytes have in common.
macro_rules! identity {
    ($name:ident) => {
        impl $name {
            /// The identity with these bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The bytes, as frames, messages and marks carry them.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

identity!(ResourceId);
identity!(ClusterId);

/// Names a resource across hosts and time: frames of another resource are refused by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResourceId([u8; 16]);

impl ResourceId {
    /// The identity of resource `name` in `cluster`. Both names are in the configuration that all
    /// members share, so every member derives the same one without having spoken to another.
    #[must_use]
    pub fn derive(cluster: &str, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("hadrian resource identity v1");
        hasher.update(&u64::try_from(cluster.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(cluster.as_bytes());
        hasher.update(name.as_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }
}

/// Names a cluster: marks of another one are never touched (design §7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId([u8; 16]);

impl ClusterId {
    /// The identity of the cluster of this name, the same on every member.
    #[must_use]
    pub fn derive(name: &str) -> Self {
        let mut id = [0; 16];
        let mut hasher = blake3::Hasher::new_derive_key("hadrian cluster identity v1");
        hasher.update(name.as_bytes()).finalize_xof().fill(&mut id);
        Self(id)
    }
}

/// One connection between two members, as the driver counts them; never on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(u64);

impl SessionId {
    /// The session with this number. The driver never uses a number twice in one incarnation.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number, for log lines.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_of_two_members_never_meet() {
        let (a, b) = (MemberId::new(0).unwrap(), MemberId::new(1).unwrap());
        for number in 0..200 {
            let epoch = Epoch::new(number);
            assert!(epoch.next_for(a) > epoch);
            assert!(epoch.next_for(b) > epoch);
            assert_ne!(epoch.next_for(a), epoch.next_for(b));
        }
    }

    #[test]
    fn a_position_reads_back_as_it_is_shown() {
        let lsn = Lsn::new(0x12_3456_7890);
        assert_eq!(lsn.to_string(), "12/34567890");
        assert_eq!("12/34567890".parse(), Ok(lsn));
        assert_eq!("12345".parse::<Lsn>(), Err(ParseLsnError::Form));
        assert!("1/100000000".parse::<Lsn>().is_err());
    }

    #[test]
    fn names_that_join_to_the_same_text_give_different_resources() {
        assert_ne!(ResourceId::derive("ab", "c"), ResourceId::derive("a", "bc"));
    }
}

//! Where things lie on a marker device, in blocks of 4 KiB.
//!
//! ```text
//! 0, 1                 header, twice
//! 16 + 2 m + k         lease of member m, copies k = 0, 1
//! 64 + 64 r            label of place r
//! 64 + 64 r + 2 + 4 m + k   control block of member m in place r, copies k = 0 … 3
//! ```
//!
//! A block has one writer, and is 4 KiB on every disk: one that emulates smaller blocks may tear
//! what shares a physical one.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{MEMBERS_MAX, MemberId};

/// Length of a block, in bytes.
pub const BLOCK_LEN: usize = 4096;
/// Most places for resources on a marker.
pub const PLACES_MAX: u16 = 1024;
/// Copies of a lease: one is whole while the other is written.
pub const LEASE_COPIES: u64 = 2;
/// Copies of a control block: a write of a former life that lands late hits one that is old.
pub const CONTROL_COPIES: u64 = 4;

const LEASES_AT: u64 = 16;
const PLACES_AT: u64 = 64;
const PLACE_LEN: u64 = 64;
const CONTROL_AT: u64 = 2;

// Every block of every member has room.
const _: () = assert!(LEASES_AT + LEASE_COPIES * MEMBERS_MAX as u64 <= PLACES_AT);
const _: () = assert!(CONTROL_AT + CONTROL_COPIES * MEMBERS_MAX as u64 <= PLACE_LEN);

/// The number of a block on a marker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlockIndex(u64);

impl BlockIndex {
    /// The two copies of the header; the first is written last when a marker is made, and makes it
    /// one.
    pub const HEADERS: [Self; 2] = [Self(0), Self(1)];

    /// The block with this number.
    #[must_use]
    pub const fn new(index: u64) -> Self {
        Self(index)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Where it begins, in bytes.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.0 * BLOCK_LEN as u64
    }

    /// Where the lease of `member` with this sequence number goes.
    #[must_use]
    pub fn lease(member: MemberId, sequence: u64) -> Self {
        let first = LEASES_AT + LEASE_COPIES * u64::from(member.index());
        Self(first + sequence % LEASE_COPIES)
    }

    /// Where the control block of `member` with this sequence number goes.
    #[must_use]
    pub fn control(place: Place, member: MemberId, sequence: u64) -> Self {
        let first = CONTROL_AT + CONTROL_COPIES * u64::from(member.index());
        Self(place.first() + first + sequence % CONTROL_COPIES)
    }
}

impl fmt::Display for BlockIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {}", self.0)
    }
}

/// A place for one resource on a marker, the same on every marker of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Place(u16);

impl Place {
    /// The place with this number; `None` beyond [`PLACES_MAX`].
    #[must_use]
    pub const fn new(index: u16) -> Option<Self> {
        if index < PLACES_MAX { Some(Self(index)) } else { None }
    }

    /// Its number.
    #[must_use]
    pub const fn index(self) -> u16 {
        self.0
    }

    const fn first(self) -> u64 {
        PLACES_AT + PLACE_LEN * self.0 as u64
    }

    /// The block that names the resource.
    #[must_use]
    pub const fn label(self) -> BlockIndex {
        BlockIndex(self.first())
    }
}

/// Blocks that lie one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// The first.
    pub first: BlockIndex,
    /// How many.
    pub count: u64,
}

impl Run {
    /// Both copies of the header and everything before the first place: what a member reads to see
    /// the others' leases.
    #[must_use]
    pub const fn leases() -> Self {
        let count = LEASE_COPIES * MEMBERS_MAX as u64;
        Self { first: BlockIndex(LEASES_AT), count }
    }

    /// The control blocks of the first `members` members in a place.
    #[must_use]
    pub fn controls(place: Place, members: u8) -> Self {
        let first = BlockIndex(place.first() + CONTROL_AT);
        Self { first, count: CONTROL_COPIES * u64::from(members) }
    }

    /// Its blocks.
    pub fn blocks(self) -> impl Iterator<Item = BlockIndex> {
        (self.first.0..self.first.0 + self.count).map(BlockIndex)
    }

    /// Its length, in bytes.
    #[must_use]
    pub const fn len(self) -> usize {
        self.count as usize * BLOCK_LEN
    }

    /// Whether it holds no block.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.count == 0
    }
}

/// Length of a marker with room for so many resources, in bytes.
#[must_use]
pub const fn marker_len(places: u16) -> u64 {
    (PLACES_AT + PLACE_LEN * places as u64) * BLOCK_LEN as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_writers_share_a_block() {
        let mut taken: BTreeSet<_> = BlockIndex::HEADERS.into();
        let mut take = |index| assert!(taken.insert(index), "{index} is taken twice");
        let members = || (0..MEMBERS_MAX).filter_map(MemberId::new);
        members().for_each(|member| (0..2).for_each(|n| take(BlockIndex::lease(member, n))));
        for place in (0..3).filter_map(Place::new) {
            take(place.label());
            for member in members() {
                (0..4).for_each(|n| take(BlockIndex::control(place, member, n)));
            }
        }
        let last = taken.iter().map(|index| index.offset()).max().unwrap();
        assert!(last < marker_len(3));
    }

    #[test]
    fn what_is_read_at_once_holds_every_copy_of_every_member() {
        let (place, member) = (Place::new(5).unwrap(), MemberId::new(1).unwrap());
        let controls: Vec<_> = Run::controls(place, 2).blocks().collect();
        (0..4).for_each(|n| assert!(controls.contains(&BlockIndex::control(place, member, n))));
        let leases: Vec<_> = Run::leases().blocks().collect();
        let last = MemberId::new(MEMBERS_MAX - 1).unwrap();
        (0..2).for_each(|n| assert!(leases.contains(&BlockIndex::lease(last, n))));
    }
}

//! What brings a copy up that the log alone cannot: what is compared, and what is said about it
//! (design §8).
//!
//! A primary is the *source*, a standby the *sink*. The source compares digests of its image with
//! those of the image that the sink would have, sends what differs and what clients change
//! meanwhile, and in the end holds its image still for a moment to send the last of it: then the
//! sink has all of one point of the primary's history, the landing. Nothing here is a decision of
//! the core, which says only that a resync is under way, when the image is held, and when the sink
//! goes over to the landing ([`crate::node`]).
//!
//! An image is compared as a tree: a volume in regions, a region in leaves. Regions that are equal
//! cost one digest on the way, and a run of equal digests, such as of zeroes, only one of them.

mod copying;
pub mod digest;
mod leaves;
mod map;
pub mod seed;
mod throttle;

pub use copying::{COMPARED_MAX, CONTENT_MAX, Copying, MINE_MAX, Numbered, ZEROES_MAX};
pub use leaves::{LeafBits, LeafSet, RegionId};
pub use map::BlockMap;
pub use throttle::{Speed, Throttle};

use serde::{Deserialize, Serialize};

use crate::ids::{Lsn, MemberId};

/// Bytes of a leaf, the unit that is sent; the last of a volume may be shorter.
pub const LEAF: u64 = 16 << 10;
/// Bytes of a region, the unit that is compared first; the last of a volume may be shorter.
pub const REGION: u64 = 4 << 20;
/// Leaves of a region.
pub const LEAVES: usize = (REGION / LEAF) as usize;

/// By what it is known which parts of two images may differ, the shortest way first (design §8.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// The log reaches back to where the two parted.
    Log,
    /// The log does not, but what it has lost is in the standby's dirty map.
    Map,
    /// Nothing is known: everything is compared.
    Digests,
}

impl Way {
    /// As status writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Map => "map",
            Self::Digests => "digests",
        }
    }
}

/// Where a source looks for differences, beside what the sink says that it changed itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scope {
    /// By what.
    pub way: Way,
    /// Whose dirty map counts, where `way` is [`Way::Map`].
    pub map_of: MemberId,
    /// Changes in the log from here on count, unless everything is compared anyway.
    pub log_from: Lsn,
}

/// How a sink takes what it is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Takes {
    /// Beside the image, which stays what it is until the landing.
    Staged,
    /// Into the image, which is no point of any history till then.
    InPlace,
}

/// Whose bytes are right where two images differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// The primary's: the standby is repaired.
    Primary,
    /// The standby's: the primary is repaired.
    Standby,
}

/// How far a resync is, for people. In bytes of the volumes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CopyProgress {
    /// To be looked at, as far as is known.
    pub total: u64,
    /// Looked at.
    pub done: u64,
    /// Found to differ, and sent or taken; zeroes count.
    pub copied: u64,
    /// Of these, bytes that really went over the link.
    pub sent: u64,
}

/// What a standby's dirty map says (design §2.6): every change of the log from `since` to `to` is
/// marked in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Span {
    /// From here on; a standby that ends before is not helped by it.
    pub since: Lsn,
    /// To here.
    pub to: Lsn,
}

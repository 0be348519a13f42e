//! Records: the changes that a frame carries, in the order of the log.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, Incarnation, MemberId, VolumeIndex};
use crate::point::PointName;
use crate::range::ByteRange;

/// One change, or one mark, in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The range now holds these bytes.
    Write {
        /// Which volume.
        volume: VolumeIndex,
        /// Which bytes of it.
        range: ByteRange,
        /// The new content; exactly as long as the range.
        payload: Bytes,
    },
    /// The range now reads as zeroes and stays allocated.
    Zero {
        /// Which volume.
        volume: VolumeIndex,
        /// Which bytes of it.
        range: ByteRange,
    },
    /// The range now reads as zeroes and need not stay allocated. A trim reads as zeroes on every
    /// replica, because two replicas that may each return what they like would differ.
    Trim {
        /// Which volume.
        volume: VolumeIndex,
        /// Which bytes of it.
        range: ByteRange,
    },
    /// A member became primary: first record of the first frame of its epoch.
    EpochStart {
        /// How it came to that.
        began: Began,
        /// The epoch before.
        previous: Epoch,
        /// The life of the author in which it began the epoch.
        incarnation: Incarnation,
    },
    /// The author hands the resource over (design §6.1): the last frame of its epoch.
    Handover {
        /// To whom.
        to: MemberId,
        /// The epoch that the other will begin.
        epoch: Epoch,
    },
    /// Carries nothing but its place in the log: a flush point, or the primary's durable word to
    /// the standbys while no client writes.
    Marker,
    /// An operator's name for the point of the history right behind its frame (design §8.5).
    Point {
        /// The name; it need not be the only one of its kind.
        name: PointName,
    },
}

/// The kinds of record, as the record table names them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordKind {
    /// [`Record::Write`]
    Write,
    /// [`Record::Zero`]
    Zero,
    /// [`Record::Trim`]
    Trim,
    /// [`Record::EpochStart`]
    EpochStart,
    /// [`Record::Handover`]
    Handover,
    /// [`Record::Marker`]
    Marker,
    /// [`Record::Point`]
    Point,
}

impl RecordKind {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Write => 1,
            Self::Zero => 2,
            Self::Trim => 3,
            Self::EpochStart => 4,
            Self::Handover => 5,
            Self::Marker => 6,
            Self::Point => 7,
        }
    }

    pub(super) const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Write,
            2 => Self::Zero,
            3 => Self::Trim,
            4 => Self::EpochStart,
            5 => Self::Handover,
            6 => Self::Marker,
            7 => Self::Point,
            _ => return None,
        })
    }
}

/// How an epoch began (design §6.4); a returning replica decides by it what its tail is worth.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Began {
    /// The first epoch of a resource.
    Birth,
    /// A new incarnation of the same primary.
    Restart,
    /// A planned takeover: the old primary handed over.
    Planned,
    /// A takeover without the old primary, by a member of its in-sync set.
    InSync,
    /// A takeover by an operator's word that may have lost writes.
    Forced,
}

impl Began {
    /// The code of it in records, messages and superblocks.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Birth => 1,
            Self::Restart => 2,
            Self::Planned => 3,
            Self::InSync => 4,
            Self::Forced => 5,
        }
    }

    /// The way that `code` names; `None` where this version has none.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Birth,
            2 => Self::Restart,
            3 => Self::Planned,
            4 => Self::InSync,
            5 => Self::Forced,
            _ => return None,
        })
    }
}

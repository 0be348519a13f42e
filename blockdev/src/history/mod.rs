//! Before-images: what parts of the image held before frames were brought into it, so that the
//! image can be read as it was at points of the past (design §8.5).
//!
//! ```text
//! REPLICA/history/begin                    whose history it is; without it there is none
//! REPLICA/history/0000000000000001.undo    segments, counted up, the oldest removed first
//!
//! 0        4096
//! | header | record | record | …           in whole pages
//!
//! record:  | head, 160 B | entries, 24 B each | to a whole page | bytes | to a whole page |
//! ```
//!
//! A *batch* is one record or several in a row: the ranges that the frames from one position to
//! another change, and what they held at the first. Ranges that held zeroes are noted and not
//! stored. A batch ends behind a frame that gives a point its name. Each batch begins where the one
//! before ended, so the image at a point is, byte by byte, what the first batch from there on says
//! that covers it, and the store where none does.
//!
//! # Order
//!
//! ```text
//! stores are exactly at `from`, and nothing is on its way → read what the batch will change
//!   → write the records → sync → readers are told → frames to `to` may go into the stores
//! ```
//!
//! - A crash before the sync has ended: the tail of the last segment may be there in part. It is
//!   passed over, and what it was for is recorded again, because the stores are at `from` still: a
//!   new segment begins at each start, so nothing is ever written over what was there.
//! - A crash behind it: the log is applied again from the checkpoint. The frames up to the end of
//!   the last batch are let through without being recorded, as the stores may have some of them
//!   already, and what they held before is on record.
//! - History that does not end between checkpoint and apply limit, at a position that the log
//!   knows, is of another image: it is forgotten.
//!
//! What changes the image otherwise than by the log (the switch of a resync, a seed in place)
//! forgets history first, durably: `begin` goes before the segments, so a crash in between leaves
//! all of it, of an image that has not changed, or nothing that counts. So does whatever ends
//! history: an error, a full disk, a start without it. Replication never waits for history to be
//! repaired.
//!
//! Where the image goes back to a point of its own history, that is cut there instead (`cut`): what
//! was before stays true.
//!
//! What no order of writes can find out: a last record that was durable and was damaged later,
//! while the host was also stopped by a crash, is taken for a torn one. After a stop in order the
//! checkpoint tells.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod backend;
mod book;
mod cut;
mod door;
pub mod fuzz;
mod keeper;
mod layout;
mod names;
mod past;
mod resolve;
mod scan;
mod scratch;
mod view;

use std::io;
use std::time::Duration;

use hadrian_protocol::ids::VolumeIndex;
use hadrian_protocol::point::PointName;
use hadrian_protocol::range::ByteRange;

pub use backend::VolumeView;
pub use book::Reach;
pub(crate) use book::Shelf;
pub(crate) use cut::cut;
pub use door::Door;
pub(crate) use keeper::{Keeper, Kept, forget};
pub use layout::Point;
pub use names::NamedPoints;
pub(crate) use past::{Past, PastFault};
pub use resolve::{Resolved, Target, Unresolved};
pub use view::{View, ViewError, clear_scratch};

/// Name of the directory in that of a replica.
pub(crate) const DIR: &str = "history";
/// Name of the directory of what is written to clones, in that of a replica.
const SCRATCH_DIR: &str = "clones";
/// Bytes of a segment, from which on the next one begins.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Most bytes of ranges of one batch, unless a single frame has more.
pub(crate) const BATCH_BYTES: u64 = 16 << 20;
/// Longest time between the frames of one batch: points lie no further apart, where there are
/// frames.
pub(crate) const BATCH_SPAN: Duration = Duration::from_secs(1);

/// How much history is kept: what exceeds either is removed, the oldest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// How far back it goes, at least where the bytes suffice; none: as far as they do.
    pub age: Option<Duration>,
    /// Bytes of it on disk; one segment more is possible.
    pub bytes: u64,
    /// Bytes of one segment.
    pub segment_bytes: u64,
    /// Bytes of content of one record, from which on the batch goes on in the next.
    pub record_bytes: u64,
}

impl Limits {
    /// Limits with segments of the usual length.
    #[must_use]
    pub fn new(age: Option<Duration>, bytes: u64) -> Self {
        let segment_bytes = SEGMENT_BYTES.min(bytes / 4).max(layout::PAGE as u64);
        Self { age, bytes, segment_bytes, record_bytes: BATCH_BYTES }
    }
}

/// Frames that are to be brought into the stores, and which parts of these they change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Batch {
    /// Where the stores are.
    pub(crate) from: Point,
    /// Where they will be.
    pub(crate) to: Point,
    /// What an operator has called that.
    pub(crate) name: Option<PointName>,
    /// In order, without overlaps, in whole pages where the volume has them.
    pub(crate) ranges: Vec<(VolumeIndex, ByteRange)>,
}

/// Why a batch is not on record.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The image cannot be read: that is no matter of history.
    #[error("the backing store of volume {} cannot be read: {source}", .volume.index())]
    Store { volume: VolumeIndex, source: io::Error },
    /// History ends.
    #[error("{0}")]
    History(#[from] io::Error),
}

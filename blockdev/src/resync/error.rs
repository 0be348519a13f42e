//! What goes wrong in a resync.

use std::io;
use std::path::PathBuf;

use hadrian_protocol::ids::VolumeIndex;

/// Why a sink cannot go on, or has to be sent something again.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The staging does not fit.
    #[error(
        "{dir} has no room for what a resync stages: at least {bytes} bytes more are needed \
         there; make room, or write resync = \"in_place\" for the resource, which needs none"
    )]
    NoRoom {
        /// Which directory.
        dir: PathBuf,
        /// Bytes that could not be written.
        bytes: u64,
    },
    /// A file beside the image fails.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A backing store cannot be read.
    #[error("the backing store of volume {} cannot be read: {source}", .volume.index())]
    Unreadable {
        /// Of which volume.
        volume: VolumeIndex,
        /// What the system says.
        source: io::Error,
    },
    /// A backing store cannot be written or synced: it has failed for good (design §2.7).
    #[error("the backing store of volume {} fails under a resync: {source}", .volume.index())]
    Store {
        /// Of which volume.
        volume: VolumeIndex,
        /// What the system says.
        source: io::Error,
    },
    /// What is staged is not what was sent. That part counts as not staged from here on.
    #[error(
        "what was staged of volume {} at byte {offset} is not what was sent; the resync is \
         repeated, which sends it again", .volume.index()
    )]
    Verify {
        /// Of which volume.
        volume: VolumeIndex,
        /// The first byte of the leaf.
        offset: u64,
    },
    /// The image went on while it was repaired. What was written is right all the same.
    #[error("the image is not held still any more, so nothing more of it is repaired")]
    Moved,
    /// The other side cannot read or repair its image.
    #[error("the other member could not read or repair its image; its log says why")]
    NotMended,
    /// The connection brought less or more than was sent.
    #[error("not everything that was sent has come; the resync is repeated")]
    Lost,
    /// The part of the log that is not the primary's cannot be read, and so not be saved.
    #[error("the diverged part of the log cannot be saved: {source}")]
    Log {
        /// What the journal says.
        source: io::Error,
    },
}

/// How a message of the other side breaks the protocol; its session is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadCopying {
    /// It is about something that the volumes do not have.
    #[error("it names byte {at} of volume {}, which is not there", .volume.index())]
    Outside {
        /// Which volume.
        volume: VolumeIndex,
        /// Where.
        at: u64,
    },
    /// It does not keep to leaves.
    #[error("it names byte {at} of volume {}, where no leaf begins", .volume.index())]
    Unaligned {
        /// Which volume.
        volume: VolumeIndex,
        /// Where.
        at: u64,
    },
    /// It answers what was not asked, or comes where nothing of its kind can.
    #[error("nobody has asked for it")]
    Unasked,
    /// The connection has lost, swapped or doubled something.
    #[error("it is not the next message of its session")]
    OutOfOrder,
    /// More of its kind are under way than may be.
    #[error("more is sent than was allowed to be under way")]
    TooMuch,
}

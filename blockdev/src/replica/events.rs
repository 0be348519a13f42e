//! What goes wrong when a replica is made or opened, and what it tells when it is open.

use std::io;
use std::path::PathBuf;

use hadrian_protocol::codec::CodecError;
use hadrian_protocol::divergence::Changed;
use hadrian_protocol::frame::{Frame, LogPosition};
use hadrian_protocol::ids::{Lsn, MemberId};
use hadrian_protocol::node::FailedPart;
use hadrian_protocol::resync::{Numbered, Span};
use hadrian_protocol::wire::CannotGrow;

use crate::engine::UringError;
use crate::journal::{CreateError, OpenError, TruncateError};
use crate::resync::{RewindError, SinkError};
use crate::superblock::SuperblockError;
use crate::volume::{ReadDone, StoreError};

/// Why a replica cannot be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// No engine.
    #[error(transparent)]
    Engine(#[from] UringError),
    /// The superblock.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// The superblock's content.
    #[error("the superblock in {} cannot be understood: {source}", .dir.display())]
    State {
        /// The replica's directory.
        dir: PathBuf,
        /// What is wrong.
        source: CodecError,
    },
    /// The log cannot be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The log cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A backing store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The configured sizes are not those that it was made for.
    #[error(
        "the replica has {has}, the configuration says {says}; correct the sizes and block sizes \
         in the configuration: volumes only grow, by hadrian grow"
    )]
    Geometry {
        /// The volumes in the superblock, in words.
        has: String,
        /// The volumes in the configuration, in words.
        says: String,
    },
    /// The member has another place in the configuration than it had.
    #[error(
        "the replica was made for member number {} of the configuration, and this is number {}; \
         put the members back in the order that they had", .has.index() + 1, .says.index() + 1
    )]
    Member {
        /// The member in the superblock.
        has: MemberId,
        /// This one.
        says: MemberId,
    },
    /// The number of stores is not that of the volumes.
    #[error("the replica has {has} volumes, the configuration names {named}; they must agree")]
    Volumes {
        /// Volumes in the superblock.
        has: usize,
        /// Stores in the configuration.
        named: usize,
    },
    /// A copy is to be written into it, and it is more than begun.
    #[error(
        "the replica in {} holds an image, or is getting one over the link; move it away first if \
         a seed is to take its place", .0.display()
    )]
    Used(PathBuf),
    /// Another daemon runs it.
    #[error("the replica in {} is in use by another process; stop that first", .0.display())]
    Busy(PathBuf),
    /// A resync had landed, and what it staged cannot be brought into the image.
    #[error("the end of a resync cannot be finished: {0}")]
    Switch(#[source] io::Error),
    /// The system refuses.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

/// Something that the disks have done.
#[derive(Debug)]
pub enum ReplicaEvent {
    /// The log is written to here.
    Written(Lsn),
    /// The log is durable to here.
    Durable(Lsn),
    /// The image holds every frame to here.
    Applied(Lsn),
    /// The image is durable to here.
    Checkpointed(LogPosition),
    /// The state with this number is durable.
    Persisted(u64),
    /// Frames for a standby; none where the log cannot be read there.
    LogRead {
        /// The caller's name for it.
        id: u64,
        /// What was read.
        frames: Vec<Frame>,
    },
    /// A client's read is done.
    Read(ReadDone),
    /// The log was cut and ends here now; its tail was saved.
    Truncated(LogPosition),
    /// It was not, and is as it was.
    NotTruncated(TruncateError),
    /// A part failed for good.
    Failed(FailedPart, io::Error),
    /// A message of a resync, to be sent over the session `id`.
    Copying {
        /// Which session.
        id: u64,
        /// What to send.
        message: Numbered,
    },
    /// Little is left to be sent: the core is to hold the image still for the rest.
    SourceNearEnd {
        /// Which session.
        id: u64,
    },
    /// A piece of the volumes was compared.
    Compared {
        /// Which session.
        id: u64,
        /// Bytes compared since the beginning.
        done: u64,
        /// Bytes of the volumes.
        total: u64,
        /// Where the two differ in this piece, or did.
        differs: Vec<Changed>,
        /// Bytes that were repaired in this piece, durably.
        repaired: u64,
    },
    /// A piece cannot be compared, or not repaired.
    CompareFailed {
        /// Which session.
        id: u64,
        /// Why.
        error: io::Error,
    },
    /// Everything of one position was sent.
    SourceDone {
        /// Which session.
        id: u64,
        /// Which position.
        at: LogPosition,
        /// Messages that were sent in this session.
        said: u64,
    },
    /// The image cannot be read for a resync; the core ends the session.
    SourceFailed {
        /// Which session.
        id: u64,
        /// What the system says.
        error: io::Error,
    },
    /// What was sent is here, verified and durable; or it cannot be, which comes at any time.
    SinkDone {
        /// Which session.
        id: u64,
        /// Why not.
        result: Result<(), SinkError>,
    },
    /// The stores have room for the sizes that were asked for, durably; or why not.
    RoomMade(Option<CannotGrow>),
    /// What the image held at a point is staged beside it, whole and durable, and what is given up
    /// for it is in quarantine; or it cannot be.
    Rewound(Result<(), RewindError>),
    /// The image is that of this position, and the log begins there.
    Switched(LogPosition),
    /// The dirty map of a standby was written.
    Folded {
        /// Whose.
        peer: MemberId,
        /// What it says, durably. None: it could not be written, and there is none any more.
        span: Option<Span>,
    },
}

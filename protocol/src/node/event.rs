//! What goes into a node and what comes out of it.

use serde::{Deserialize, Serialize};

use super::command::{Command, Denied, Done};
use super::note::Note;
use super::recording;
use crate::frame::{Frame, LogPosition};
use crate::ids::{Epoch, Lsn, MemberId, SessionId};
use crate::marks::watch::Sight;
use crate::record::ControlRecord;
use crate::replica::ReplicaState;
use crate::time::Now;
use crate::wire::Message;

/// Something that happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A connection to `peer` stands and its preambles agree.
    Linked {
        /// A number never used before.
        session: SessionId,
        /// Who is at the other end.
        peer: MemberId,
    },
    /// A connection ended, whoever ended it.
    Unlinked {
        /// Which.
        session: SessionId,
    },
    /// A message came in.
    Heard {
        /// On which connection.
        session: SessionId,
        /// What.
        #[serde(with = "recording::as_sent")]
        message: Message,
    },
    /// A frame came in whose checksums are right.
    FrameIn {
        /// On which connection.
        session: SessionId,
        /// What.
        #[serde(with = "recording::as_head")]
        frame: Frame,
    },
    /// The driver takes nothing more from this connection until there is room again; said again
    /// and again while it lasts. Silence proves nothing meanwhile.
    Full {
        /// Which.
        session: SessionId,
    },
    /// Every frame up to here was given to the connection's socket.
    Handed {
        /// Which connection.
        session: SessionId,
        /// Up to where.
        lsn: Lsn,
    },
    /// A client waits until the log is durable to here.
    DurableWanted(Lsn),
    /// The log is written to here: it survives the end of this process.
    Written(Lsn),
    /// The log is durable to here.
    Durable(Lsn),
    /// The image holds every frame to here.
    Applied(Lsn),
    /// The image is durable to here.
    Checkpointed(LogPosition),
    /// The state with this number, and all before it, is durable.
    Persisted(u64),
    /// Frames that were asked for by [`Action::ReadLog`], in order, first at the position asked.
    /// None: the log cannot be read there.
    LogRead {
        /// For whom.
        session: SessionId,
        /// What.
        #[serde(with = "recording::as_heads")]
        frames: Vec<Frame>,
    },
    /// The log was cut, durably, after its tail was saved; this is its end now.
    Truncated(LogPosition),
    /// The driver takes no more requests and has appended those that it had ([`Action::Hold`]).
    Held,
    /// What the control record holds; the answer to [`Action::ReadRecord`]. None: nothing yet.
    RecordRead(Option<ControlRecord>),
    /// What the control record holds after [`Action::Propose`] was decided: the proposal, if it
    /// won. While the record cannot be reached there is no such event, however long it takes.
    Decided(Option<ControlRecord>),
    /// This member's lease on the marks is good until then, or not at all.
    Lease(Option<Now>),
    /// What the marks show of another member, as of that moment by this host's clock.
    Sighted {
        /// Of whom.
        member: MemberId,
        /// What.
        sight: Sight,
        /// When the oldest read was begun that it rests on.
        as_of: Now,
    },
    /// [`Action::Fence`] has come to an end, or an operator has had it done.
    FenceEnded {
        /// Who was to be fenced.
        owner: MemberId,
        /// As the owner of this epoch.
        epoch: Epoch,
        /// Whether it is, for certain: it serves nothing in that epoch any more.
        fenced: bool,
    },
    /// What [`Action::Announce`] has announced may begin.
    Prepared {
        /// From whom.
        owner: MemberId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// A part of the replica failed for good (design §2.7).
    Failed(FailedPart),
    /// An operator asks for something.
    Command {
        /// The answer carries it.
        id: u64,
        /// What.
        command: Command,
    },
    /// Time passed.
    Tick,
}

/// Which part of a replica failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailedPart {
    /// The log could not be written or synced.
    Log,
    /// The superblock could not be written.
    Superblock,
    /// A backing store could not be read, written or synced.
    Store,
}

impl FailedPart {
    /// What people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Superblock => "superblock",
            Self::Store => "backing store",
        }
    }
}

/// Something to be done. The driver may do actions of one batch in any order, but frames are
/// appended, and messages and frames of one session are sent, in the order of their actions.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send a message.
    Send {
        /// On which connection.
        session: SessionId,
        /// What.
        message: Message,
    },
    /// Send a frame, behind everything that was sent before.
    Ship {
        /// On which connection.
        session: SessionId,
        /// What.
        frame: Frame,
    },
    /// End a connection after what was sent.
    Close {
        /// Which.
        session: SessionId,
    },
    /// Append to the log. Reads see it from here on; the image does not (design §2.2).
    Append(Frame),
    /// Make the log durable.
    SyncLog,
    /// Write the superblock. A later state replaces an earlier one that was not begun.
    Persist {
        /// Its number.
        number: u64,
        /// Its content.
        state: Box<ReplicaState>,
    },
    /// Bring every appended frame that ends at or before this into the image.
    Apply(Lsn),
    /// Make the image durable and say to where.
    Checkpoint,
    /// The log before this is no longer needed.
    ReleaseLog(Lsn),
    /// Read frames from the log.
    ReadLog {
        /// For whom; comes back with the frames.
        session: SessionId,
        /// From where.
        from: Lsn,
    },
    /// Save everything beyond this to quarantine, then cut the log there, durably. The log must
    /// hold this very point: the hash is that of the primary's history.
    Truncate(LogPosition),
    /// Take no more requests from clients, or take them again. When it begins to hold, the driver
    /// appends what it has and says [`Event::Held`].
    Hold(bool),
    /// Begin or end serving clients. At the end, what is unanswered stays unanswered.
    Serve(bool),
    /// Read the control record, and say [`Event::RecordRead`].
    ReadRecord,
    /// Change the control record, if its number is still one less than that of `record`; then say
    /// [`Event::Decided`]. One at a time. Whether it was done may become known late, or never.
    Propose(ControlRecord),
    /// Fence this owner by force, and say [`Event::FenceEnded`], however it ends.
    Fence {
        /// Whom.
        owner: MemberId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// A takeover by itself is about to begin: do what is to be done before, and say
    /// [`Event::Prepared`], however that ends.
    Announce {
        /// From whom.
        owner: MemberId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// Answer an operator.
    Reply {
        /// The number of the command.
        id: u64,
        /// How it went.
        result: Result<Done, Denied>,
    },
    /// Everything is in place for the end of the process.
    Stopped,
    /// Tell people.
    Note(Note),
}

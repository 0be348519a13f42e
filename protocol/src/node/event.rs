//! What goes into a node and what comes out of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::frame::{Frame, LogPosition};
use crate::ids::{Epoch, Lsn, MemberId, SessionId};
use crate::replica::{Mode, ReplicaState};
use crate::wire::Message;

/// Settings of a resource that the core decides by. All members have the same.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Every member that has a replica, this one included, in the order of the file.
    pub members: Vec<MemberId>,
    /// The first of the list: runs in the resource's mode, the others in superasync (design §1).
    pub principal: Option<MemberId>,
    /// When a write is answered.
    pub mode: Mode,
    /// Whether every write is a commit: answered as a flush is (`commit = "write"`, design §3).
    pub commit_on_write: bool,
    /// How long answers are held after an in-sync standby was lost; zero: not at all.
    pub peer_window: Duration,
    /// Silence that ends a session.
    pub timeout: Duration,
    /// Longest that the log stays unsynced while no client asks (design §2.5).
    pub log_sync_interval: Duration,
    /// Bytes of log that may be unsynced before a sync is begun.
    pub sync_bytes: u64,
    /// Bytes that are allowed into the image before the limit is recorded, unless time is up.
    pub apply_bytes: u64,
    /// Longest that an allowed frame waits for the image.
    pub apply_interval: Duration,
    /// Bytes applied since the last checkpoint that ask for the next.
    pub checkpoint_bytes: u64,
    /// Bytes of log kept for a standby that lacks them (design §2.6).
    pub retention_bytes: u64,
    /// Bytes of recent frames kept in memory for shipping.
    pub tail_bytes: u64,
    /// Bytes under way to a standby that catches up.
    pub ship_window_bytes: u64,
}

impl NodeConfig {
    /// The defaults of design §3 and §4 for these members.
    #[must_use]
    pub fn new(members: Vec<MemberId>, mode: Mode) -> Self {
        Self {
            members,
            principal: None,
            mode,
            commit_on_write: false,
            peer_window: Duration::ZERO,
            timeout: Duration::from_secs(10),
            log_sync_interval: Duration::from_millis(200),
            sync_bytes: 32 << 20,
            apply_bytes: 32 << 20,
            apply_interval: Duration::from_millis(50),
            checkpoint_bytes: 128 << 20,
            retention_bytes: 512 << 20,
            tail_bytes: 32 << 20,
            ship_window_bytes: 16 << 20,
        }
    }

    /// Heartbeat interval: a quarter of the timeout and of the window, 30 s at most (design §4).
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        let window = match self.peer_window {
            Duration::ZERO => Duration::MAX,
            window => window,
        };
        (self.timeout.min(window) / 4).min(Duration::from_secs(30))
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
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
        message: Message,
    },
    /// A frame came in whose checksums are right.
    FrameIn {
        /// On which connection.
        session: SessionId,
        /// What.
        frame: Frame,
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
        frames: Vec<Frame>,
    },
    /// The log was cut, durably, after its tail was saved; this is its end now.
    Truncated(LogPosition),
    /// The driver takes no more requests and has appended those that it had ([`Action::Hold`]).
    Held,
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

/// What an operator can ask of a resource.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Become primary.
    Takeover {
        /// Without the old primary's agreement; may lose writes (design §6.2).
        force: bool,
        /// Only answer whether it would be granted.
        test: bool,
    },
    /// Leave the start gate without the members it waits for (design §6.3).
    StartPrimary,
    /// Change the mode.
    SetMode(Mode),
    /// Stop in order.
    Stop,
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

/// What became of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    /// This member is primary, in this epoch.
    Leading(Epoch),
    /// The takeover would be granted.
    WouldLead,
    /// The mode is changed.
    ModeSet,
    /// The resource is stopped.
    Stopped,
    /// The resource is started again.
    Started,
}

/// Why a command was not carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Denied {
    /// It is primary already.
    #[error("this member is primary already")]
    AlreadyPrimary,
    /// A planned takeover needs the primary, in `peer`.
    #[error(
        "this standby is not in peer with a primary; wait until status shows peer, \
         or use takeover --force, which says first what it may lose"
    )]
    NotInPeer,
    /// The old primary went on.
    #[error("the takeover was given up and the old primary goes on; ask again when it is stable")]
    GivenUp,
    /// Another command of this kind is under way, or the log is just being cut.
    #[error("another takeover, or a cut of the log, is under way; wait for its end")]
    Busy,
    /// Only a primary can do this.
    #[error("only the primary can do this; ask there")]
    NotPrimary,
    /// It does not wait in the start gate.
    #[error("this member does not wait to become primary; use takeover on a standby")]
    NotInGate,
    /// The replica has failed.
    #[error("this replica has failed and cannot lead; see the log, mend its disk, start it again")]
    Unfit,
    /// It has not said hello yet.
    #[error("this resource is just starting; ask again in a moment")]
    Starting,
    /// The daemon stops.
    #[error("this resource is stopping")]
    Stopping,
}

/// Something that people should know; the driver logs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Note {
    /// This member leads.
    Leads(Epoch),
    /// This member no longer leads, and who made it stop.
    SteppedDown(Epoch),
    /// A standby entered `peer`.
    PeerEntered(MemberId),
    /// A standby was left out of the in-sync set.
    LeftOut(MemberId),
    /// Answers are held for a lost in-sync standby.
    Holding(MemberId),
    /// A tail that nobody was answered for is saved and cut.
    TailCut {
        /// From.
        from: Lsn,
        /// To.
        to: Lsn,
    },
    /// A session cannot go on.
    Refused {
        /// Who said so to whom does not matter: this peer.
        peer: MemberId,
        /// Why.
        refusal: crate::wire::Refusal,
    },
    /// This replica follows a primary.
    Follows(MemberId, Epoch),
}

//! What goes into a node and what comes out of it.

use serde::{Deserialize, Serialize};

use super::command::{Command, Denied, Done};
use super::note::Note;
use super::recording;
use crate::divergence::Changed;
use crate::frame::{Frame, LogPosition};
use crate::ids::{Epoch, Lsn, MemberId, SessionId};
use crate::marks::watch::Sight;
use crate::record::ControlRecord;
use crate::replica::{ReplicaState, VolumeGeometry};
use crate::resync::{Right, Scope, Span, Takes};
use crate::time::Now;
use crate::wire::{CannotGrow, Message};

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
    /// The source of this session has little left to send.
    SourceNearEnd {
        /// For whom.
        session: SessionId,
    },
    /// Everything of this point was sent ([`Action::FinishSource`]).
    SourceDone {
        /// For whom.
        session: SessionId,
        /// What the image holds.
        at: LogPosition,
        /// Messages with data that were sent in this session.
        said: u64,
    },
    /// The image cannot be read for the standby of this session.
    SourceFailed {
        /// For whom.
        session: SessionId,
    },
    /// What was sent is whole and durable ([`Action::FinishSink`]); or, at any time, it is not.
    SinkDone {
        /// From whom.
        session: SessionId,
        /// Whether it is.
        whole: bool,
    },
    /// The image is the landing, durably, and the log is empty and begins there.
    Switched(LogPosition),
    /// What differs at the point of [`Action::Rewind`] is whole and durable beside the image, and
    /// what is given up is in quarantine; or one of them could not be.
    Rewound {
        /// Whether they are.
        whole: bool,
    },
    /// The dirty map of a member says this, durably ([`Action::Fold`]). None: it could not be
    /// written.
    Folded {
        /// Whose.
        peer: MemberId,
        /// What it says.
        span: Option<Span>,
    },
    /// A piece of the volumes was compared ([`Action::Compare`]).
    Compared {
        /// With whose.
        session: SessionId,
        /// Bytes compared since [`Action::BeginCompare`].
        done: u64,
        /// Bytes of the volumes.
        total: u64,
        /// Where the two differ in this piece, or did, where they were repaired.
        differs: Vec<Changed>,
        /// Bytes that were repaired in this piece, durably.
        #[serde(default)]
        repaired: u64,
    },
    /// The stores have room for the sizes that were asked for last ([`Action::MakeRoom`]), durably;
    /// or why not.
    RoomMade(Option<CannotGrow>),
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
    /// Begin to send the standby of this session what differs, beside the log.
    Source {
        /// For whom.
        session: SessionId,
        /// Where to look.
        scope: Scope,
    },
    /// The image rests: send what is left, and say [`Event::SourceDone`].
    FinishSource {
        /// For whom.
        session: SessionId,
    },
    /// Forget that source; what it still tells is nobody's affair.
    EndSource {
        /// For whom.
        session: SessionId,
    },
    /// Take what the primary of this session sends beside the log. The image rests.
    Sink {
        /// From whom.
        session: SessionId,
        /// Beside the image or into it.
        takes: Takes,
        /// The log beyond here is not the primary's: it, and what it changed, is saved to
        /// quarantine before anything of it is lost (I6).
        apart: Option<Lsn>,
    },
    /// Everything was sent: look whether it is whole, make it durable, and what it rests on, and
    /// say [`Event::SinkDone`].
    FinishSink {
        /// From whom.
        session: SessionId,
        /// Messages with data that were sent in this session.
        said: u64,
    },
    /// Take no more. What is staged stays for the next time.
    EndSink,
    /// Bring what is staged into the image and begin the log anew here; then say
    /// [`Event::Switched`].
    SwitchImage(LogPosition),
    /// The image rests. Stage beside it what it held at this point, save to quarantine what the log
    /// has behind it, and what that has changed (I6), durably; then say [`Event::Rewound`].
    Rewind(LogPosition),
    /// Do not go on with that.
    EndRewind,
    /// Nothing that is staged is needed any more.
    DropStaging,
    /// Add what the log changed from `from` to `to`, or to the end of the frame there, to the dirty
    /// map of a member, durably; then say [`Event::Folded`]. From `None`: the map begins anew at
    /// `to`, empty.
    Fold {
        /// Whose.
        peer: MemberId,
        /// Where the map ends.
        from: Option<Lsn>,
        /// Where it is to end.
        to: Lsn,
    },
    /// The volumes are to be compared with those of the standby of this session, from their start.
    BeginCompare {
        /// With whose.
        session: SessionId,
        /// What differs is repaired, and whose bytes are right; none: it is only told.
        right: Option<Right>,
    },
    /// Both images rest at one position: compare the next piece, and say [`Event::Compared`].
    Compare {
        /// With whose.
        session: SessionId,
    },
    /// Nothing more is to be compared.
    EndCompare {
        /// With whose.
        session: SessionId,
    },
    /// The image rests: say what it holds where the primary of this session asks.
    AnswerCompare {
        /// To whom.
        session: SessionId,
    },
    /// It goes on: say nothing more.
    EndAnswers {
        /// To whom.
        session: SessionId,
    },
    /// Make every backing store at least as large as these, with zeroes in what is beyond the
    /// volume as it is now, durably, and say [`Event::RoomMade`]. Nothing else changes.
    MakeRoom(Vec<VolumeGeometry>),
    /// The volumes have these sizes from here on, none of them smaller than before: for frames, for
    /// what is kept of them beside the image, for whatever is begun from here on.
    Resize(Vec<VolumeGeometry>),
    /// Clients may use the volumes to there.
    Offer(Vec<VolumeGeometry>),
    /// The export of a seed came to nothing; its source is ended.
    SeedEnded {
        /// Its number.
        session: SessionId,
        /// Why.
        why: Denied,
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

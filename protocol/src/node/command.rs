//! What operators ask of a resource, and what they hear.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::frame::LogPosition;
use crate::ids::{Epoch, MemberId, SessionId, VolumeIndex};
use crate::replica::Mode;
use crate::wire::CannotGrow;

/// What an operator can ask of a resource.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Become primary.
    Takeover {
        /// By which right.
        how: How,
        /// Only answer whether it would be granted.
        test: bool,
    },
    /// Become primary by force, at a point of this replica's own history: what everybody has
    /// written since is given up, and goes to quarantine (design §6.2, §8.5).
    GoBack {
        /// With a control record: the owner and the epoch that it holds; the operator answers for
        /// both.
        over: Option<(MemberId, Epoch)>,
        /// The point, one of those at which the image can be read.
        to: LogPosition,
        /// Only answer whether it would be granted.
        test: bool,
    },
    /// Give up a takeover that is under way; the old primary goes on (design §6.1).
    CancelTakeover,
    /// Leave the start gate without the members it waits for (design §6.3); or, as a primary that
    /// holds its answers after the peer window, go on alone (design §5.3).
    StartPrimary,
    /// Change the mode.
    SetMode(Mode),
    /// Compare a standby's image with this primary's; any standby's, if none is named.
    Verify(Option<MemberId>),
    /// The same, and what differs is repaired on the other side.
    Repair {
        /// With which standby; any, if none is named.
        standby: Option<MemberId>,
        /// Whose bytes are right: this primary, or the standby.
        from: MemberId,
    },
    /// Send the image as of one position to the driver's sink of this number, which is a file; with
    /// a member that will be created from it, on the primary, to note what that one lacks then.
    Seed {
        /// The number.
        session: SessionId,
        /// Who will be created from it.
        absent: Option<MemberId>,
    },
    /// Make a volume larger on every member.
    Grow {
        /// Which.
        volume: VolumeIndex,
        /// How large, in bytes.
        size_bytes: u64,
        /// Only make room for it, and answer whether it could be done.
        test: bool,
    },
    /// A diverged replica returns to its primary: what it holds of its own goes to quarantine
    /// (design §6.4).
    Rejoin,
    /// Stop in order.
    Stop,
}

/// By which right a standby takes over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// The old primary hands over (design §6.1).
    Planned(Limits),
    /// Only while this standby can prove that the primary still holds its answers; loses nothing
    /// that was answered (design §5.3). With a control record the record decides instead.
    PeerWindowOnly,
    /// With a control record: as a member of the in-sync set. Without: whatever may be lost.
    Force,
    /// With a control record, and not in its set: the operator names the owner and the epoch that
    /// the record holds, and answers for both (design §6.2).
    Override {
        /// Who owns the resource by the record.
        owner: MemberId,
        /// In which epoch.
        epoch: Epoch,
    },
}

/// How long a planned takeover may take (design §6.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Longest that clients are held.
    pub max_quiesce: Duration,
    /// Longest until the old primary is asked to hold them; the standby catches up meanwhile.
    pub max_total: Duration,
}

impl Limits {
    /// 10 s with clients held, 120 s in all.
    pub const DEFAULT: Self =
        Self { max_quiesce: Duration::from_secs(10), max_total: Duration::from_secs(120) };
    /// Longest that a standby can ask to hold clients, whatever it says.
    pub const QUIESCE_MAX: Duration = Duration::from_secs(600);
    /// Longest that a command line lets a standby catch up.
    pub const TOTAL_MAX: Duration = Duration::from_secs(24 * 60 * 60);
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Command {
    /// A planned takeover within the default limits.
    #[must_use]
    pub const fn planned() -> Self {
        Self::Takeover { how: How::Planned(Limits::DEFAULT), test: false }
    }

    /// A takeover by force.
    #[must_use]
    pub const fn forced() -> Self {
        Self::Takeover { how: How::Force, test: false }
    }
}

/// What became of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    /// This member is primary, in this epoch.
    Leading(Epoch),
    /// The takeover would be granted.
    WouldLead,
    /// The takeover is given up, unless the old primary has handed over already.
    CancelAsked,
    /// The primary goes on without the standbys that it has lost.
    GoesOnAlone,
    /// The owner is fenced for certain.
    Fenced,
    /// The mode is changed.
    ModeSet,
    /// The comparison has begun; status tells how far it is and what it finds.
    Verifies,
    /// The export of a seed has begun; status tells how far it is.
    Seeds,
    /// The volume is larger, on every member that is connected.
    Grown,
    /// Every member has room for it.
    CouldGrow,
    /// It returns to the primary as soon as that is heard.
    Rejoins,
    /// The resource is stopped.
    Stopped,
    /// The resource is started again.
    Started,
}

impl Denied {
    /// One word for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::AlreadyPrimary => "already_primary",
            Self::NotFollowing => "not_following",
            Self::TookTooLong => "took_too_long",
            Self::Cancelled => "cancelled",
            Self::NothingToCancel => "nothing_to_cancel",
            Self::NoProof => "no_proof",
            Self::Incomplete => "incomplete",
            Self::NothingToRejoin => "nothing_to_rejoin",
            Self::NobodyFollows => "nobody_follows",
            Self::Delayed => "delayed_standby",
            Self::NotOfTheTwo => "not_of_the_two",
            Self::RestedTooLong => "rested_too_long",
            Self::Grows => "grows",
            Self::NoSuchVolume => "no_such_volume",
            Self::NotLarger { .. } => "not_larger",
            Self::NoSize { .. } => "no_size",
            Self::CopyUnderWay => "copy_under_way",
            Self::DoesNotFollow { .. } => "does_not_follow",
            Self::CannotGrow { .. } => "cannot_grow",
            Self::RoomTakesLong { .. } => "room_takes_long",
            Self::InGate => "in_gate",
            Self::WindowRuns { .. } => "window_runs",
            Self::NotInSet { .. } => "not_in_set",
            Self::NoRecord => "no_record",
            Self::LeadsYet => "leads_yet",
            Self::NoSuchPoint => "no_such_point",
            Self::NotRewound => "not_rewound",
            Self::GivesUpSet { .. } => "gives_up_set",
            Self::OwnerLives { .. } => "owner_lives",
            Self::GivenUp => "given_up",
            Self::Busy => "busy",
            Self::NotPrimary => "not_primary",
            Self::NotInGate => "not_in_gate",
            Self::Unfit => "unfit",
            Self::Starting => "starting",
            Self::Stopping => "stopping",
        }
    }
}

/// Why a command was not carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Denied {
    /// It is primary already.
    #[error("this member is primary already; there is nothing to do")]
    AlreadyPrimary,
    /// A planned takeover needs a session with the primary.
    #[error(
        "this standby follows no primary at the moment; wait until status shows that it is \
         connected, or use takeover --force, which says first what it may lose"
    )]
    NotFollowing,
    /// It did not come near enough to the primary in time.
    #[error(
        "the standby did not catch up within --max-total, and the old primary goes on; wait until \
         the gap is smaller, or allow more time"
    )]
    TookTooLong,
    /// The operator gave it up.
    #[error("the takeover was cancelled and the old primary goes on; ask again when it suits")]
    Cancelled,
    /// There is no takeover that could be cancelled.
    #[error(
        "no takeover is under way here that could still be cancelled; see hadrian status for who \
         is primary"
    )]
    NothingToCancel,
    /// The primary's word is too old, was never given, or was taken back.
    #[error(
        "this standby cannot prove that the primary still holds its answers: the peer window is \
         over, or the primary left it out; takeover --force says first what it may lose"
    )]
    NoProof,
    /// A resync in place has not come to its end.
    #[error(
        "the image here is incomplete: a copy of the primary's is being made in its place, and no \
         point of any history is whole; let the resync come to its end, or create this replica anew"
    )]
    Incomplete,
    /// There is no standby to compare with.
    #[error(
        "no such standby follows this primary at the moment; wait until status shows that it is \
         connected and catches up or is in peer"
    )]
    NobodyFollows,
    /// A standby that applies late is never where the primary is.
    #[error(
        "standbys of this resource apply later than they receive (replay_delay), so there is no \
         position at which both images could be compared; set replay_delay to 0 and start it again"
    )]
    Delayed,
    /// More changes than can be read while the image rests.
    #[error(
        "more of the image changed than could be read while it was held still, for half a minute; \
         ask again when less is written"
    )]
    RestedTooLong,
    /// A volume is just being made larger.
    #[error("a volume of this resource is just being made larger; wait for the end of that")]
    Grows,
    /// There is no such volume.
    #[error("the replica has no such volume; see the volumes of the resource in hadrian status")]
    NoSuchVolume,
    /// Volumes do not shrink.
    #[error(
        "the volume has {has} bytes already, and volumes are only made larger; for a smaller one \
         create another resource, and copy what is to be kept"
    )]
    NotLarger {
        /// Its size.
        has: u64,
    },
    /// It cannot have that size.
    #[error(
        "a volume has whole blocks of {block} bytes, and at most 1PiB; ask again for such a size"
    )]
    NoSize {
        /// Its block size.
        block: u32,
    },
    /// Something counts on the sizes.
    #[error(
        "a resync, a comparison or the export of a seed is under way, and counts on the sizes; ask \
         again when it has ended, as status shows"
    )]
    CopyUnderWay,
    /// A member is away, or not yet fed by the log.
    #[error(
        "{member} does not follow this primary by the log at the moment, and a volume is made \
         larger on all members or on none; nothing was changed: wait until status shows that \
         member in catch-up or in peer"
    )]
    DoesNotFollow {
        /// Which.
        member: MemberId,
    },
    /// A member cannot make room.
    #[error("{member} has no room, and nothing was changed: {why}")]
    CannotGrow {
        /// Which.
        member: MemberId,
        /// Why.
        why: CannotGrow,
    },
    /// Making room takes its time.
    #[error(
        "{member} has not made room within a minute, and nothing was changed; a device is \
         overwritten with zeroes there, which goes on: ask again in a while"
    )]
    RoomTakesLong {
        /// Which.
        member: MemberId,
    },
    /// The bytes of a third member cannot be had.
    #[error(
        "the right bytes can only be those of this primary or of the standby that is compared with \
         it; name one of the two with --from"
    )]
    NotOfTheTwo,
    /// It has not diverged.
    #[error(
        "this replica holds nothing that its primary does not have; see hadrian status for what \
         keeps it from following"
    )]
    NothingToRejoin,
    /// It was primary, and members that it cannot hear may have more than it has.
    #[error(
        "this member was the primary, and the members that it waits for may hold writes that it \
         has lost; let it hear them, or use start --primary --force, which goes on without them"
    )]
    InGate,
    /// A lost standby may still take over by its proof.
    #[error(
        "the peer window runs for {ms} ms more, and until then the lost standby may take over by \
         proof of it; ask again after that"
    )]
    WindowRuns {
        /// For how long, in milliseconds.
        ms: u64,
    },
    /// The control record does not name this life of this member in its in-sync set.
    #[error(
        "the control record does not count this standby as in sync; the resource belongs to \
         {owner} in epoch {epoch}; make sure that this one is down, and name both with --override"
    )]
    NotInSet {
        /// Who owns the resource by the record.
        owner: MemberId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// The owner may be serving, and cannot be told to stop.
    #[error(
        "{owner} owns the resource in epoch {epoch}, is not connected, and its lease on the marks \
         is not over; ask again when it is, or make sure that it is down and name both with \
         --override"
    )]
    OwnerLives {
        /// Who owns the resource by the record.
        owner: MemberId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// A primary's clients may use what it would take from under them.
    #[error(
        "this member is primary, or was when it was stopped, and goes back to no point under its \
         clients; let another member take over with: hadrian takeover, then go back on a standby \
         that keeps history"
    )]
    LeadsYet,
    /// It lies behind the end of the log.
    #[error(
        "the log of this member does not reach to that point; see hadrian history for the points \
         that there are, and ask again"
    )]
    NoSuchPoint,
    /// Something is in the way of it; nothing was changed.
    #[error(
        "the image could not be brought to that point, and is as it was; the log of hadriand says \
         why. Where the image has moved past the point since it was chosen, ask again"
    )]
    NotRewound,
    /// The lives in the set have promised to keep what is to be given up.
    #[error(
        "to go back gives up what the in-sync set of {owner} in epoch {epoch} has promised to \
         keep; make sure that this one is down, and name both with --override"
    )]
    GivesUpSet {
        /// Who owns the resource by the record.
        owner: MemberId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// The control record was not heard yet.
    #[error("the control record cannot be read; see that the marks can be reached, and ask again")]
    NoRecord,
    /// The old primary went on.
    #[error("the takeover was given up and the old primary goes on; ask again when it is stable")]
    GivenUp,
    /// Another command of this kind is under way, or the log is just being cut.
    #[error(
        "another takeover, a cut of the log, or a copy or comparison of the image is under way; \
         wait for its end"
    )]
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
    #[error("this resource is stopping; when it has stopped, start it with: hadrian start")]
    Stopping,
}

//! The messages, one type each. A sentence on every one says when it is sent and what it promises.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::frame::LogPosition;
use crate::history::History;
use crate::ids::{Epoch, Incarnate, Lsn, MemberId};
use crate::replica::{Base, Image, Mode, Release, Role, Sizes};
use crate::resync::Numbered;
use crate::time::Now;

/// Anything but a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Both sides, once, first of all.
    Hello(Box<Hello>),
    /// A primary, to every member that it has a session with, when it leads or begins to.
    Lead(Box<Lead>),
    /// A standby's answer to [`Lead`]: it follows from here on.
    Join(Join),
    /// Either side: it cannot go on, and why.
    Refuse(Refuse),
    /// Who wants to begin an epoch asks the others for their promise.
    AskPromise(AskPromise),
    /// The answer; the promise is durable.
    Promised(Promised),
    /// Who is about to lead asks a replica with a later log for its tail from here on.
    Fetch(LogPosition),
    /// A standby: how far it is.
    Ack(Ack),
    /// A primary: how far it is. Both double as heartbeats.
    Progress(Progress),
    /// Either side, where there is nothing else to say: it is there.
    Alive,
    /// A standby asks its primary to hand over (design §6.1).
    TakeoverAsk(TakeoverAsk),
    /// The asker has changed its mind: the primary goes on, unless it is a standby already.
    TakeoverCancel(Epoch),
    /// The old primary is a standby, durably; the other may begin the epoch.
    HandedOver(Release),
    /// An orderly end of the session.
    Goodbye(Goodbye),
    /// A standby that the log alone cannot bring up asks for what differs (design §8).
    AskResync(AskResync),
    /// A primary: everything of this point was sent.
    Landed(Box<Landed>),
    /// A primary wants a volume to be larger: first whether it can be, then that it is to be.
    Grow(Box<Grow>),
    /// A standby's answer.
    Grown(Grown),
    /// The data of a resync, which is not the core's affair.
    Copying(Numbered),
}

/// What a replica is, at the start of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// This life of the sender; durable.
    pub life: Incarnate,
    /// The role that its superblock holds.
    pub role: Role,
    /// Whether it serves clients at this moment.
    pub leading: bool,
    /// It accepts no session of a lower epoch; durable.
    pub promised: Epoch,
    /// The newest epoch that it began itself; durable.
    pub owned: Epoch,
    /// The epochs of its log.
    pub history: History,
    /// The end of its log, as received.
    pub end: LogPosition,
    /// The oldest position that its log still holds.
    pub log_start: Lsn,
    /// What its image is; durable.
    pub image: Image,
    /// Content at the start of its history.
    pub base: Base,
    /// Its volumes; durable.
    pub sizes: Sizes,
    /// Its durable note of a handover that nobody has followed up.
    pub release: Option<Release>,
}

/// The word of a primary that it leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lead {
    /// In which epoch; owned, durably.
    pub epoch: Epoch,
    /// Which life of it.
    pub life: Incarnate,
    /// The epochs of its log.
    pub history: History,
    /// The end of its log when it was sent.
    pub end: LogPosition,
    /// The mode of the resource.
    pub mode: Mode,
}

/// The word of a standby that it follows; its promise of that epoch is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Join {
    /// Whom it follows.
    pub epoch: Epoch,
    /// The end of its log, whose history is the primary's.
    pub from: LogPosition,
    /// How far its log is durable.
    pub durable: Lsn,
}

/// The wish of a standby to be brought up otherwise than by the log; its promise of that epoch is
/// durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AskResync {
    /// Whom it follows.
    pub epoch: Epoch,
    /// Where its history, which the primary shares up to there, ends or parts; `None` where the two
    /// have none in common, so that everything has to be compared.
    pub from: Option<Lsn>,
}

/// The word of a primary that everything of one point of its history was sent: the *landing*.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Landed {
    /// In which epoch.
    pub epoch: Epoch,
    /// How many messages with data were sent for it in this session.
    pub said: u64,
    /// Which point; durable on the primary, and nobody takes it back (design §2.5).
    pub at: LogPosition,
    /// The epochs before it.
    pub history: History,
    /// Content at the start of that history.
    pub base: Base,
}

/// The word of a primary about the sizes that volumes are to have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grow {
    /// In which epoch.
    pub epoch: Epoch,
    /// Which attempt of this life of the primary.
    pub number: u64,
    /// What is wanted.
    pub step: GrowStep,
    /// The sizes.
    pub sizes: Sizes,
}

/// A standby's answer to [`Grow`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grown {
    /// Whom it follows.
    pub epoch: Epoch,
    /// To which attempt.
    pub number: u64,
    /// To which question.
    pub step: GrowStep,
    /// Why not, if so.
    pub cannot: Option<CannotGrow>,
}

/// The two questions of a growth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GrowStep {
    /// Make room in the stores, and change nothing else. Answered when the room is durable.
    MakeRoom,
    /// The primary has these sizes, durably: have them, too. Answered when they are durable.
    Take,
}

/// Why a member cannot have larger volumes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum CannotGrow {
    /// A backing store is a device, and smaller.
    #[error(
        "its backing store is a device of {has} bytes, and {missing} are missing; make that larger \
         there first (lvextend, or a larger disk), and ask again"
    )]
    DeviceTooSmall {
        /// Its bytes.
        has: u64,
        /// How many more it needs.
        missing: u64,
    },
    /// The file system of a backing store, or the device under it, refuses.
    #[error(
        "its backing store cannot be made larger, with error {errno} of the system; see the log of \
         hadriand there"
    )]
    System {
        /// What the system says; zero where that is no number.
        errno: i32,
    },
    /// Something that counts on the size is under way there.
    #[error(
        "a resync, a comparison or the export of a seed is under way there, or it makes its \
         stores larger for an earlier question; ask again when that has ended"
    )]
    Busy,
}

/// Why a session cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "code")]
pub enum Refusal {
    /// The sender's applied history parted from the receiver's.
    #[error(
        "the histories of the two parted at {fork}, and nothing was discarded; decide which to keep"
    )]
    Diverged {
        /// Where.
        fork: Lsn,
    },
    /// The two have no epoch in common.
    #[error(
        "the two replicas have no history in common; to let this one have the primary's content: \
         hadrian rejoin"
    )]
    Unrelated,
    /// They did not begin with the same content.
    #[error(
        "the two did not begin with the same content; to let the standby have the primary's: \
         hadrian rejoin"
    )]
    BaseDiffers,
    /// Their volumes differ in number, size or block size.
    #[error(
        "their volumes differ in number, size or block size; make the configurations alike, and \
         create the one anew that was made with the wrong ones"
    )]
    GeometryDiffers,
    /// One of the two was away when a volume was grown.
    #[error(
        "a volume was grown while one of the two was away; that one makes its backing store larger \
         now, and this ends by itself, unless the store is a device that is too small: its log \
         says so then"
    )]
    Growing,
    /// The sender's log does not reach back to where the receiver is.
    #[error(
        "the primary's log begins at {start} and what is needed is older; the standby asks for \
         what differs instead; this ends by itself"
    )]
    LogGone {
        /// The oldest position that it holds.
        start: Lsn,
    },
    /// The sender has promised a higher epoch.
    #[error("it has promised epoch {promised}; this ends when that epoch begins, or a higher one")]
    Overtaken {
        /// Its promise.
        promised: Epoch,
        /// Whether somebody owns that epoch, as far as the sender knows: a primary that is told so
        /// steps down. Otherwise it begins a higher one (design §6.0).
        owned: bool,
    },
    /// The sender is not in a state to do what was asked.
    #[error("it cannot do this now; it goes on by itself, or ask again in a moment")]
    NotNow,
    /// The receiver broke the protocol.
    #[error("it says that the protocol was broken; see that both run the same version")]
    Protocol,
}

impl Refusal {
    /// One word for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Diverged { .. } => "diverged",
            Self::Unrelated => "unrelated",
            Self::BaseDiffers => "base_differs",
            Self::GeometryDiffers => "geometry_differs",
            Self::Growing => "growing",
            Self::LogGone { .. } => "log_gone",
            Self::Overtaken { .. } => "overtaken",
            Self::NotNow => "not_now",
            Self::Protocol => "protocol",
        }
    }
}

/// A refusal, and the epoch that the sender had promised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refuse {
    /// Why.
    pub refusal: Refusal,
}

/// A wish to begin an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AskPromise {
    /// Which.
    pub epoch: Epoch,
    /// An operator's forced takeover: a primary that hears it stops answering first.
    pub force: bool,
}

/// A promise: the sender accepts nothing of a lower epoch any more. Durable before it is spoken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Promised {
    /// The epoch promised.
    pub epoch: Epoch,
    /// The end of the sender's log.
    pub end: LogPosition,
    /// The epochs of it, so that the asker can tell whose log is later.
    pub history: History,
}

/// How far a standby is. Each of the three only grows within a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack {
    /// Of the primary that it follows. A standby that has gone over to another primary counts
    /// positions of another history, which say nothing to the first.
    pub epoch: Epoch,
    /// Received, in order and checked.
    pub received: Lsn,
    /// On stable storage of the standby.
    pub durable: Lsn,
    /// In the image of the standby.
    pub applied: Lsn,
    /// Number of the newest [`Progress`] of this session that it has heard.
    pub heard: u64,
    /// When it was sent, by the standby's own clock; means nothing to anybody else, and comes back
    /// in [`Progress::echo`] (design §5.3).
    pub stamp: Now,
}

/// How far a primary is, and what it holds of the receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// The epoch it leads in.
    pub epoch: Epoch,
    /// The end of its log.
    pub end: Lsn,
    /// The receiver may apply to here: the primary has it on stable storage, and every other member
    /// of the in-sync set has received it (design §2.5).
    pub may_apply: Lsn,
    /// The receiver shall make its log durable to here and say so.
    pub wanted: Lsn,
    /// Whether the receiver is in `peer`.
    pub peer: bool,
    /// Whether the receiver, in this life, is in the in-sync set (design §5.3).
    pub in_set: bool,
    /// The mode of the resource.
    pub mode: Mode,
    /// The receiver's image shall come to rest here, to be compared, until it hears otherwise.
    pub hold: Option<Lsn>,
    /// One more than in the last of this session.
    pub number: u64,
    /// The newest [`Ack::stamp`] that came in this session. Where `in_set` is set, the primary
    /// holds answers for the peer window from the arrival of that ack on (design §5.3).
    pub echo: Option<Now>,
}

/// A wish to take over, planned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TakeoverAsk {
    /// The epoch that the asker would begin; above all that it has seen.
    pub epoch: Epoch,
    /// Who asks.
    pub by: MemberId,
    /// Longest that clients may be held for it (`--max-quiesce`).
    pub max_quiesce: Duration,
}

/// Why a session ends in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goodbye {
    /// The sender's daemon or resource stops; a standby that says so leaves the in-sync set at
    /// once, without the peer window (design §4).
    Stopping,
    /// A part of the sender's replica has failed: it neither receives nor sends any more. To its
    /// primary it is lost, and the peer window begins.
    Failed,
    /// The sender has a newer connection to the receiver.
    Replaced,
}

//! What people should know: the ordered stream of events (design §9).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Denied, FailedPart, TakeoverPhase};
use crate::ids::{Epoch, Lsn, MemberId};
use crate::replica::Mode;
use crate::resync::{Takes, Way};
use crate::wire::{CannotGrow, Refusal};

/// Something that people should know; the driver logs it and keeps the newest of them. Members are
/// named by number; who prints it knows their names and tells with [`Note::in_words`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// This member leads.
    Leads(Epoch),
    /// This member no longer leads.
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
        refusal: Refusal,
    },
    /// This replica follows a primary.
    Follows(MemberId, Epoch),
    /// A standby took longer than `peer_wait_limit` and is dropped from the set.
    TooSlow(MemberId),
    /// The window is over, and answers are held until an operator says go on.
    HoldsOn(MemberId),
    /// The mode was changed, by an operator or because a standby is slow or fast again.
    ModeChanged {
        /// From.
        from: Mode,
        /// To.
        to: Mode,
        /// By the policy `degrade`.
        by_policy: bool,
    },
    /// The control record names another owner.
    Deposed {
        /// Who.
        owner: MemberId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// The right to serve is about to end: clients are held.
    LeaseOver,
    /// It was won again.
    LeaseBack,
    /// Clients are thrown out until then.
    Withdrawn,
    /// The owner's lease is over, and this member of its in-sync set takes over by itself.
    TakesOverAlone,
    /// The owner is silent: it is to be fenced by force.
    Fences(MemberId),
    /// It is.
    Fenced(MemberId),
    /// It is not, or nobody knows; its lease is waited out.
    NotFenced(MemberId),
    /// This member is the resource's home, and takes over in order.
    GoesHome,
    /// Another member is connected and has introduced itself.
    LinkUp(MemberId),
    /// The connection with another member ended, in order or not.
    LinkLost(MemberId),
    /// The connection with a standby is alive and takes nothing more.
    Congested(MemberId),
    /// What had waited for that connection has gone out.
    Flows(MemberId),
    /// A takeover, or the beginning of an epoch, came into this phase here.
    Phase(TakeoverPhase),
    /// A takeover came to nothing here.
    GivenUp(Denied),
    /// This standby has received as much as `spool_limit` lets it, and takes no more.
    SpoolFull {
        /// Received and not applied.
        bytes: u64,
    },
    /// Half of that is applied.
    SpoolHasRoom,
    /// A standby is brought up otherwise than by the log.
    Resyncs {
        /// Which.
        member: MemberId,
        /// By what it is known what differs.
        way: Way,
    },
    /// This standby asks its primary for that.
    AsksForResync {
        /// Whom.
        member: MemberId,
        /// Beside its image or into it.
        takes: Takes,
    },
    /// This standby has gone over to that point of its primary's history.
    Landed(Lsn),
    /// This member is to go back, by force: what was written since is given up.
    GoesBack {
        /// To where.
        to: Lsn,
        /// Where its log ends.
        from: Lsn,
    },
    /// Its image and its log are there.
    WentBack(Lsn),
    /// What a member lacks of the log that is given up could not be noted.
    MapLost(MemberId),
    /// The image of a standby was compared with this one.
    Verified {
        /// Whose.
        member: MemberId,
        /// Bytes that differ, in whole leaves.
        differs: u64,
        /// Bytes of these that were repaired.
        #[serde(default)]
        repaired: u64,
    },
    /// The comparison ended before everything was compared.
    VerifyCutShort(MemberId),
    /// The volumes here are larger than they were.
    Grew,
    /// They were grown while this member was away, and it cannot follow.
    CannotGrow(CannotGrow),
    /// A part of this replica failed for good.
    Failed(FailedPart),
    /// Stopped in order.
    Stopped,
}

impl Note {
    /// One word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Leads(_) => "leads",
            Self::SteppedDown(_) => "stepped_down",
            Self::PeerEntered(_) => "peer_entered",
            Self::LeftOut(_) => "left_out",
            Self::Holding(_) => "holding",
            Self::TailCut { .. } => "tail_cut",
            Self::Refused { .. } => "refused",
            Self::Follows(..) => "follows",
            Self::TooSlow(_) => "too_slow",
            Self::HoldsOn(_) => "holds_on",
            Self::ModeChanged { .. } => "mode_changed",
            Self::Deposed { .. } => "deposed",
            Self::LeaseOver => "lease_over",
            Self::LeaseBack => "lease_back",
            Self::Withdrawn => "withdrawn",
            Self::TakesOverAlone => "takes_over_alone",
            Self::Fences(_) => "fences",
            Self::Fenced(_) => "fenced",
            Self::NotFenced(_) => "not_fenced",
            Self::GoesHome => "goes_home",
            Self::LinkUp(_) => "link_up",
            Self::LinkLost(_) => "link_lost",
            Self::Congested(_) => "congested",
            Self::Flows(_) => "flows",
            Self::Phase(_) => "phase",
            Self::GivenUp(_) => "given_up",
            Self::SpoolFull { .. } => "spool_full",
            Self::SpoolHasRoom => "spool_has_room",
            Self::Resyncs { .. } => "resyncs",
            Self::AsksForResync { .. } => "asks_for_resync",
            Self::Landed(_) => "landed",
            Self::GoesBack { .. } => "goes_back",
            Self::WentBack(_) => "went_back",
            Self::MapLost(_) => "map_lost",
            Self::Verified { .. } => "verified",
            Self::VerifyCutShort(_) => "verify_cut_short",
            Self::Grew => "grew",
            Self::CannotGrow(_) => "cannot_grow",
            Self::Failed(_) => "failed",
            Self::Stopped => "stopped",
        }
    }

    /// Whether somebody may have to do something.
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        !matches!(
            self,
            Self::Leads(_)
                | Self::PeerEntered(_)
                | Self::Follows(..)
                | Self::LinkUp(_)
                | Self::GoesHome
                | Self::LeaseBack
                | Self::Flows(_)
                | Self::Phase(_)
                | Self::SpoolHasRoom
                | Self::Resyncs { .. }
                | Self::Landed(_)
                | Self::Verified { differs: 0, .. }
                | Self::Grew
                | Self::Stopped
        )
    }

    /// Which other member it is about.
    #[must_use]
    pub const fn member(&self) -> Option<MemberId> {
        match self {
            Self::PeerEntered(member)
            | Self::LeftOut(member)
            | Self::Holding(member)
            | Self::Refused { peer: member, .. }
            | Self::Follows(member, _)
            | Self::TooSlow(member)
            | Self::HoldsOn(member)
            | Self::Deposed { owner: member, .. }
            | Self::Fences(member)
            | Self::Fenced(member)
            | Self::NotFenced(member)
            | Self::LinkUp(member)
            | Self::LinkLost(member)
            | Self::Congested(member)
            | Self::Flows(member)
            | Self::Resyncs { member, .. }
            | Self::AsksForResync { member, .. }
            | Self::MapLost(member)
            | Self::Verified { member, .. }
            | Self::VerifyCutShort(member) => Some(*member),
            _ => None,
        }
    }

    /// The sentence for people, where `name` says what they call a member.
    #[must_use]
    pub fn in_words(&self, name: &dyn Fn(MemberId) -> String) -> String {
        match self.member() {
            Some(member) => self.of_member(&name(member)),
            None => self.of_this(name),
        }
    }

    /// What it says of another member.
    fn of_member(&self, who: &str) -> String {
        match self {
            Self::PeerEntered(_) => format!("{who} is in peer"),
            Self::LeftOut(_) => {
                format!("{who} is out of the in-sync set; answers go on without it")
            }
            Self::Holding(_) => format!("{who} is lost; answers are held for the peer window"),
            Self::Refused { refusal, .. } => format!("{who}: {refusal}"),
            Self::Follows(_, epoch) => format!("follows {who} in epoch {epoch}"),
            Self::TooSlow(_) => format!(
                "{who} took longer than peer_wait_limit and leaves the in-sync set until it \
                 catches up"
            ),
            Self::HoldsOn(_) => format!(
                "the peer window of {who} is over; answers are held until it is back or an \
                 operator says: hadrian start --primary --force"
            ),
            Self::Deposed { epoch, .. } => {
                format!("the control record gives the resource to {who} in epoch {epoch}")
            }
            Self::Fences(_) => format!("{who} is silent; the fence command is to stop it"),
            Self::Fenced(_) => format!("{who} is fenced: it serves nothing any more"),
            Self::NotFenced(_) => {
                format!("{who} is not fenced for certain; its lease is waited out")
            }
            Self::LinkUp(_) => format!("connected with {who}"),
            Self::LinkLost(_) => format!("the connection with {who} ended"),
            Self::Congested(_) => {
                format!("the connection with {who} is alive and takes nothing more")
            }
            Self::Flows(_) => format!("the connection with {who} takes everything again"),
            Self::Resyncs { way: Way::Log, .. } => {
                format!("{who} is brought up: what differs is known from the log")
            }
            Self::Resyncs { way: Way::Map, .. } => {
                format!("{who} is brought up: what differs is known from its dirty map and the log")
            }
            Self::Resyncs { way: Way::Digests, .. } => {
                format!("{who} is brought up: everything is compared")
            }
            Self::AsksForResync { takes: Takes::Staged, .. } => format!(
                "{who} is to send what differs; it is kept beside this image, which stays as it is \
                 until everything is there"
            ),
            Self::AsksForResync { takes: Takes::InPlace, .. } => format!(
                "{who} is to send what differs, into this image, which is incomplete until then"
            ),
            Self::Verified { differs: 0, .. } => {
                format!("the image of {who} was compared with this one, and is the same")
            }
            Self::Verified { differs, repaired: 0, .. } => format!(
                "the image of {who} differs from this one in {differs} bytes; status lists where"
            ),
            Self::Verified { repaired, .. } => format!(
                "the image of {who} differed from this one, and {repaired} bytes were repaired; \
                 what they replaced is in quarantine where it was replaced"
            ),
            Self::VerifyCutShort(_) => {
                format!("the comparison with the image of {who} was cut short; begin it again")
            }
            Self::MapLost(_) => format!(
                "what {who} lacks of the log that is given up could not be noted; it will be \
                 brought up by comparing everything"
            ),
            _ => String::new(),
        }
    }

    /// What it says of this one.
    fn of_this(&self, name: &dyn Fn(MemberId) -> String) -> String {
        match self {
            Self::Leads(epoch) => format!("primary now, in epoch {epoch}"),
            Self::SteppedDown(epoch) => format!("no longer primary of epoch {epoch}"),
            Self::TailCut { from, to } => format!(
                "the log from {from} to {to}, which nobody was answered for, is saved and cut"
            ),
            Self::ModeChanged { from, to, by_policy } => {
                let by = if *by_policy { ", by the policy degrade" } else { "" };
                format!("the mode changed from {} to {}{by}", from.name(), to.name())
            }
            Self::LeaseOver => {
                "neither the marks nor every in-sync standby can be reached; clients \
                                are held before this member's lease ends, until it has one again"
                    .into()
            }
            Self::Landed(lsn) => {
                format!("the image and the log of this standby are those of its primary at {lsn}")
            }
            Self::GoesBack { to, from } => format!(
                "this member goes back to {to}, to take over there by force; what its log has \
                 from there to {from} goes to quarantine"
            ),
            Self::WentBack(lsn) => {
                format!("the image and the log of this member are those of {lsn}")
            }
            Self::LeaseBack => "this member has a lease again; clients go on".into(),
            Self::Withdrawn => {
                "requests fail, and exports and block devices are withdrawn until then \
                 (on_lease_end)"
                    .into()
            }
            Self::TakesOverAlone => {
                "the owner's lease is over; this in-sync member takes over by itself".into()
            }
            Self::GoesHome => {
                "this member is the resource's home and in peer: it takes over in order".into()
            }
            Self::Phase(phase) => phase.in_words(name),
            Self::GivenUp(why) => format!("no takeover: {why}"),
            Self::SpoolFull { bytes } => format!(
                "{bytes} bytes are received and not applied, as much as spool_limit lets them; \
                 the primary waits until some are applied"
            ),
            Self::SpoolHasRoom => "half of the spool is applied; there is room again".into(),
            Self::Grew => "a volume is larger than before; status shows the sizes".into(),
            Self::CannotGrow(why) => format!(
                "a volume was made larger while this member was away, and cannot be here: {why}; \
                 it is tried again by itself"
            ),
            Self::Failed(part) => {
                format!("the {} failed for good; see the log of hadriand", part.name())
            }
            Self::Stopped => "stopped in order; everything is in the image".into(),
            _ => String::new(),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_words(&|member| member.to_string()))
    }
}

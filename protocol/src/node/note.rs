//! What people should know: the ordered stream of events (design §9).

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, Lsn, MemberId};
use crate::replica::Mode;
use crate::wire::Refusal;

/// Something that people should know; the driver logs it and keeps the newest of them. Members are
/// named by number; who prints it knows their names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// This member leads.
    #[error("primary now, in epoch {0}")]
    Leads(Epoch),
    /// This member no longer leads.
    #[error("no longer primary of epoch {0}")]
    SteppedDown(Epoch),
    /// A standby entered `peer`.
    #[error("{0} is in peer")]
    PeerEntered(MemberId),
    /// A standby was left out of the in-sync set.
    #[error("{0} is out of the in-sync set; answers go on without it")]
    LeftOut(MemberId),
    /// Answers are held for a lost in-sync standby.
    #[error("{0} is lost; answers are held for the peer window")]
    Holding(MemberId),
    /// A tail that nobody was answered for is saved and cut.
    #[error("the log from {from} to {to}, which nobody was answered for, is saved and cut")]
    TailCut {
        /// From.
        from: Lsn,
        /// To.
        to: Lsn,
    },
    /// A session cannot go on.
    #[error("{peer}: {refusal}")]
    Refused {
        /// Who said so to whom does not matter: this peer.
        peer: MemberId,
        /// Why.
        refusal: Refusal,
    },
    /// This replica follows a primary.
    #[error("follows {0} in epoch {1}")]
    Follows(MemberId, Epoch),
    /// A standby took longer than `peer_wait_limit` and is dropped from the set.
    #[error("{0} took longer than peer_wait_limit and leaves the in-sync set until it catches up")]
    TooSlow(MemberId),
    /// The window is over, and answers are held until an operator says go on.
    #[error(
        "the peer window of {0} is over; answers are held until it is back or an operator says: \
         hadrian start --primary --force"
    )]
    HoldsOn(MemberId),
    /// The mode was changed, by an operator or because a standby is slow or fast again.
    #[error("the mode changed from {} to {}{}", .from.name(), .to.name(), by(*.by_policy))]
    ModeChanged {
        /// From.
        from: Mode,
        /// To.
        to: Mode,
        /// By the policy `degrade`.
        by_policy: bool,
    },
    /// The control record names another owner.
    #[error("the control record gives the resource to {owner} in epoch {epoch}")]
    Deposed {
        /// Who.
        owner: MemberId,
        /// In which epoch.
        epoch: Epoch,
    },
}

const fn by(policy: bool) -> &'static str {
    if policy { ", by the policy degrade" } else { "" }
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
        }
    }

    /// Whether somebody may have to do something.
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        !matches!(self, Self::Leads(_) | Self::PeerEntered(_) | Self::Follows(..))
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
            | Self::Deposed { owner: member, .. } => Some(*member),
            _ => None,
        }
    }
}

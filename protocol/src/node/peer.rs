//! What a node knows of each other member.

use crate::frame::LogPosition;
use crate::ids::{Epoch, Incarnate, Lsn, MemberId, SessionId};
use crate::time::Now;
use crate::wire::{Hello, Lead, Refusal};

use super::StandbyState;
use super::proof::Word;
use super::resync::{Sinking, Sourcing};

/// Another member, connected or not.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) member: MemberId,
    pub(super) session: Option<Session>,
    /// Its state when it was last looked at.
    pub(super) shown: Option<StandbyState>,
    /// When the last session began or ended.
    pub(super) session_at: Now,
    /// Furthest durable position of its log that it has told in any session of this life.
    pub(super) kept: Option<Lsn>,
    /// And how far its image came with that; it counts as far as `kept` does.
    pub(super) kept_applied: Lsn,
    /// When the last session ended, while it was in the in-sync set.
    pub(super) lost_at: Option<Now>,
    /// It is to be left out of the set, as soon as it can prove nothing any more.
    pub(super) leaving: bool,
    /// Its window is over, and people were told that answers are still held.
    pub(super) held_on: bool,
    /// Until when it can prove that it is in the set (design §5.3).
    pub(super) word_until: Option<Now>,
    /// It was dropped as too slow, and must hold this before it may enter again.
    pub(super) must_reach: Option<Lsn>,
    /// The last refusal, from either side, until the next session.
    pub(super) refusal: Option<Refusal>,
}

/// One connection.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) hello: Option<Box<Hello>>,
    pub(super) phase: Phase,
    pub(super) heard_at: Now,
    pub(super) sent_at: Now,
    /// The other side's last word that it leads.
    pub(super) lead: Option<Box<Lead>>,
    pub(super) word: Word,
}

/// What a session is for at the moment.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// Hellos are under way, or were exchanged and neither side leads.
    Idle,
    /// The other side follows this one.
    Feeding(Feed),
    /// This side has promised and cuts its tail before it joins.
    Joining(Joining),
    /// This side follows the other.
    Following,
    /// The other side sends its tail, up to here, to a candidate.
    Fetching(LogPosition),
    /// The other side is brought up by this one.
    Sourcing(Sourcing),
    /// This side is brought up by the other.
    Sinking(Sinking),
    /// Refused; kept open so that a changed state can be told.
    Refused,
}

/// A standby's side of joining.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joining {
    pub(super) epoch: Epoch,
    pub(super) point: Option<LogPosition>,
}

/// A primary's side of shipping.
#[derive(Clone, Debug)]
pub(super) struct Feed {
    /// The life that is fed.
    pub(super) life: Incarnate,
    /// First position not shipped yet.
    pub(super) next: Lsn,
    /// The standby's end when it joined, until the first frame has shown that it fits.
    pub(super) joined: Option<LogPosition>,
    /// A read of the log for it is under way.
    pub(super) reading: bool,
    /// Given to the socket.
    pub(super) handed: Lsn,
    /// Since when the socket has taken nothing of what waits for it.
    pub(super) stuck_since: Option<Now>,
    /// People were told that it is congested, and not yet that everything went out.
    pub(super) congested: bool,
    pub(super) received: Lsn,
    pub(super) durable: Lsn,
    pub(super) applied: Lsn,
    /// The last durable position that it was asked for.
    pub(super) wanted: Lsn,
    /// The primary's durable position that it was told.
    pub(super) told: Lsn,
    pub(super) entry: Entry,
}

/// How far a standby is on its way to `peer`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    /// Catching up: nobody waits for it.
    CatchUp,
    /// Counted for answers and for applying from here on; enters when it has reached these.
    Proposed {
        /// Every answered write.
        received: Lsn,
        /// Every commit; only sync asks for it (holes, story 7).
        durable: Lsn,
    },
    /// Reached; the larger set is being recorded under this number.
    Recording(u64),
    /// In `peer`.
    Peer,
}

impl Feed {
    pub(super) fn counts(&self) -> bool {
        self.entry != Entry::CatchUp
    }
}

impl Peer {
    pub(super) fn new(member: MemberId, now: Now) -> Self {
        Self {
            member,
            session: None,
            shown: None,
            session_at: now,
            kept: None,
            kept_applied: Lsn::START,
            lost_at: None,
            leaving: false,
            held_on: false,
            word_until: None,
            must_reach: None,
            refusal: None,
        }
    }

    pub(super) fn feed(&self) -> Option<&Feed> {
        match &self.session.as_ref()?.phase {
            Phase::Feeding(feed) => Some(feed),
            _ => None,
        }
    }

    pub(super) fn feed_mut(&mut self) -> Option<(SessionId, &mut Feed)> {
        let session = self.session.as_mut()?;
        match &mut session.phase {
            Phase::Feeding(feed) => Some((session.id, feed)),
            _ => None,
        }
    }

    pub(super) fn is_sourced(&self) -> bool {
        self.session.as_ref().is_some_and(|open| matches!(open.phase, Phase::Sourcing(_)))
    }

    pub(super) fn is_following(&self) -> bool {
        self.session.as_ref().is_some_and(|session| matches!(session.phase, Phase::Following))
    }

    pub(super) fn hello(&self) -> Option<&Hello> {
        self.session.as_ref()?.hello.as_deref()
    }
}

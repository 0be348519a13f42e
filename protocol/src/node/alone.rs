//! What a member does by itself: it takes over when the owner's lease is over (design §7), and it
//! takes a resource home (design §6.5). Nobody has asked for either, so both are counted: two
//! members that fall again and again must not hand a resource to and fro for ever.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Action, LeaseConfig, Limits, Node, Note, Part, StandbyState};
use crate::ids::{Epoch, MemberId};
use crate::marks::watch::Sight;
use crate::time::Now;

/// Over which takeovers are counted.
const HOUR: Duration = Duration::from_secs(3600);

/// Where a resource is at home, if it is to return there by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Home {
    /// The member that is to lead whenever it can.
    pub member: MemberId,
    /// How long it must have been in peer before it takes over.
    pub after: Duration,
    /// How often within an hour, takeovers from an owner whose lease was over included. Zero:
    /// without limit.
    pub takeovers_max: u32,
}

/// One owner in one epoch. A later life of that member begins a higher epoch before it serves
/// anybody, so what is known of this one says nothing of that.
type Owner = (MemberId, Epoch);

/// How far things are that a member does by itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Alone {
    /// Whom the driver was asked to fence.
    fencing: Option<Owner>,
    /// Who is fenced for certain.
    fenced: Option<Owner>,
    /// From whom a takeover was announced, and whether the driver has said that it may begin.
    announced: Option<(Owner, bool)>,
    /// Since when this standby could go home.
    fit_since: Option<Now>,
}

impl Node {
    /// The driver's fencing of this owner has come to an end.
    pub(super) fn fence_ended(&mut self, owner: Owner, is_fenced: bool) {
        if is_fenced {
            self.alone.fenced = Some(owner);
        }
        let note = if is_fenced { Note::Fenced(owner.0) } else { Note::NotFenced(owner.0) };
        self.out.push_back(Action::Note(note));
    }

    /// The driver has nothing against a takeover from this owner.
    pub(super) fn prepared(&mut self, owner: Owner) {
        if let Some((_, ready)) = self.alone.announced.as_mut().filter(|(who, _)| *who == owner) {
            *ready = true;
        }
    }

    /// It lives: what was prepared for its end is of no use any more.
    pub(super) fn seen_alive(&mut self, member: MemberId) {
        let other = |owner: &Owner| owner.0 != member;
        self.alone.fencing = self.alone.fencing.filter(other);
        self.alone.announced = self.alone.announced.filter(|(owner, _)| other(owner));
    }

    /// Whether this owner was fenced for certain. One that is connected was not, whoever says so.
    pub(super) fn is_fenced(&self, owner: Owner) -> bool {
        self.alone.fenced == Some(owner) && !self.connected().contains(&owner.0)
    }

    /// Whether it has taken over by itself as often within an hour as it may.
    pub(super) fn takes_over_too_often(&self) -> bool {
        self.has_taken(self.config.lease.map_or(0, |config| config.takeovers_max))
    }

    fn has_taken(&self, most: u32) -> bool {
        let count = u32::try_from(self.lease.taken.len()).unwrap_or(u32::MAX);
        most > 0 && count >= most
    }

    fn count_takeover(&mut self) {
        self.lease.taken.push_back(self.clock.now);
    }

    fn forget_old_takeovers(&mut self) {
        let now = self.clock.now;
        self.lease.taken.retain(|at| at.after(HOUR) > now);
    }

    /// A member of the in-sync set takes over by itself, and by that right alone: nothing that was
    /// answered is lost (design §5.2).
    pub(super) fn settle_auto_takeover(&mut self) {
        self.forget_old_takeovers();
        let Some(config) = self.config.lease.filter(|config| config.auto_takeover) else { return };
        let Some(owner) = self.owner_to_follow() else { return };
        if !self.record().is_some_and(|record| self.owner_is_out(record)) {
            return self.ask_to_fence(config, owner);
        }
        if self.is_announced(config, owner) {
            self.lease.try_at = self.clock.now.after(self.config.heartbeat());
            self.count_takeover();
            self.out.push_back(Action::Note(Note::TakesOverAlone));
            self.stand_by_force(true, None, None);
        }
    }

    /// Whom this member could follow by itself, once that one serves nothing any more.
    fn owner_to_follow(&self) -> Option<Owner> {
        let idle = matches!(self.standing, Part::Standby(None)) && !self.follow.cutting;
        if !idle || self.clock.now < self.lease.try_at || !self.register.is_fresh() {
            return None;
        }
        let me = self.state.life();
        let record = self.record().filter(|record| {
            let owner = record.owner.member;
            record.release.is_none()
                && owner != me.member
                && record.counts(me)
                && !self.connected().contains(&owner)
        })?;
        let may = self.lease_holds() && !self.takes_over_too_often();
        may.then_some((record.owner.member, record.epoch))
    }

    /// An owner that has missed a few renewals and is not connected either is fenced, instead of
    /// waited for; once, until it was seen alive again. That begins before its lease is over, so
    /// that a command which takes its time still saves some.
    fn ask_to_fence(&mut self, config: LeaseConfig, owner: Owner) {
        let sight = self.lease.sights.get(&owner.0).map(|(sight, _)| *sight);
        let silent = sight.is_some_and(Sight::is_silent);
        if config.fences && silent && self.alone.fencing != Some(owner) {
            self.alone.fencing = Some(owner);
            self.out.push_back(Action::Note(Note::Fences(owner.0)));
            self.out.push_back(Action::Fence { owner: owner.0, epoch: owner.1 });
        }
    }

    /// Whether the driver has been told of the takeover, and lets it begin; it always does in the
    /// end.
    fn is_announced(&mut self, config: LeaseConfig, owner: Owner) -> bool {
        match self.alone.announced {
            _ if !config.announces => true,
            Some((who, ready)) if who == owner => ready,
            _ => {
                self.alone.announced = Some((owner, false));
                self.out.push_back(Action::Announce { owner: owner.0, epoch: owner.1 });
                false
            }
        }
    }

    /// Whether nothing but its limit keeps this standby from taking the resource home.
    pub(super) fn goes_home_too_often(&self) -> bool {
        let home = self.config.home.filter(|home| home.member == self.state.member);
        let in_peer = self.shown == Some(StandbyState::Peer);
        in_peer && home.is_some_and(|home| self.has_taken(home.takeovers_max))
    }

    /// The resource returns to its home, once that member has been in peer for long enough: by a
    /// planned takeover, as if an operator had asked.
    pub(super) fn settle_home(&mut self) {
        let Some(home) = self.config.home.filter(|home| home.member == self.state.member) else {
            return;
        };
        self.forget_old_takeovers();
        let me = self.state.life();
        let counts = !self.has_register() || self.record().is_some_and(|it| it.counts(me));
        let fit = matches!(self.standing, Part::Standby(None))
            && self.shown == Some(StandbyState::Peer)
            && self.state.in_set_of.is_some()
            && counts;
        if !fit {
            self.alone.fit_since = None;
            return;
        }
        let now = self.clock.now;
        let since = *self.alone.fit_since.get_or_insert(now);
        if now < since.after(home.after) || self.has_taken(home.takeovers_max) {
            return;
        }
        // Where it comes to nothing, it waits as long again.
        self.alone.fit_since = None;
        self.count_takeover();
        self.out.push_back(Action::Note(Note::GoesHome));
        if let Some(Err(why)) = self.planned_takeover(None, Limits::DEFAULT, false) {
            self.out.push_back(Action::Note(Note::GivenUp(why)));
        }
    }
}

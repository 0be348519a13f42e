//! The right to serve (design §7): this member's lease on the marks or, while those cannot be
//! reached, the word of every other member of the in-sync set.
//!
//! A standby that has heard its primary takes nothing over for as long as a lease is waited out
//! from then on, and tells it what it has heard. So a primary is sure of its resource for the time
//! of a lease from when it sent what all of them have heard; the loss of the marks alone stops
//! nobody, nor does the loss of the links.
//!
//! Where both are gone, clients are held before the lease ends. They are let in again only after
//! the control record was changed once more: a takeover that is about to be decided knows the
//! record as it was before, and cannot win any more. Acknowledged writes do not rest on any of
//! this, but on the in-sync set in the record (design §5.2); reads do, and that one host at most
//! shows a device that can be written.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Not;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Action, Denied, Node, Note, Part};
use crate::ids::{Incarnate, MemberId};
use crate::marks::lease::Timing;
use crate::marks::watch::Sight;
use crate::record::ControlRecord;
use crate::time::{Now, micros};

/// How leases bound what a node does; none where there are no marks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaseConfig {
    /// How long a renewal, or a word of a standby, is good for.
    pub lease: Duration,
    /// How long before its end clients are held.
    pub guard: Duration,
    /// How long others wait until it is over for certain.
    pub wait_out: Duration,
    /// Whether a member of the in-sync set takes over by itself when the owner's lease is over.
    pub auto_takeover: bool,
    /// How often it does so within an hour; then it waits for an operator. Zero: without limit.
    pub takeovers_max: u32,
    /// What becomes of clients when the right to serve ends.
    #[serde(default, skip_serializing_if = "OnLeaseEnd::is_hold")]
    pub on_end: OnLeaseEnd,
    /// Whether the driver can fence an owner by force.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub fences: bool,
    /// Whether the driver is told of a takeover by itself, and asked to let it begin.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub announces: bool,
}

/// What becomes of a primary's clients when both sources of its right to serve are gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLeaseEnd {
    /// Their requests wait, and go on when there is a lease again.
    #[default]
    Hold,
    /// Their requests fail, and exports are withdrawn until there is a lease again.
    Fail,
}

impl OnLeaseEnd {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
    fn is_hold(&self) -> bool {
        *self == Self::Hold
    }
}

impl LeaseConfig {
    /// What follows from the times of a lease.
    #[must_use]
    pub fn new(timing: &Timing, auto_takeover: bool) -> Self {
        let (lease, guard, wait_out) = (timing.lease, timing.guard(), timing.wait_out());
        let (takeovers_max, on_end) = (0, OnLeaseEnd::Hold);
        let (fences, announces) = (false, false);
        Self { lease, guard, wait_out, auto_takeover, takeovers_max, on_end, fences, announces }
    }
}

/// What is known of leases.
#[derive(Clone, Debug, Default)]
pub(super) struct Lease {
    /// The end of the own one on the marks.
    until: Option<Now>,
    gate: Gate,
    /// Clients were thrown out because the gate was shut.
    withdrawn: bool,
    /// The others', and as of when.
    pub(super) sights: BTreeMap<MemberId, (Sight, Now)>,
    /// When this primary sent what each life of a standby has heard last: its promise counts from
    /// there.
    grants: BTreeMap<Incarnate, Now>,
    /// When this standby last heard a primary: it tells that one, which relies on it.
    granted_at: BTreeMap<MemberId, Now>,
    /// The next attempt to take over by itself.
    pub(super) try_at: Now,
    /// When it has taken over by itself, within the last hour.
    pub(super) taken: VecDeque<Now>,
}

/// Whether clients are let through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Gate {
    #[default]
    Open,
    /// Since then.
    Shut(Now),
    /// There is a lease again; it opens when the record has a higher number than this.
    Opening(u64, Now),
}

impl Lease {
    /// This standby hears a primary, and will say so.
    pub(super) fn granted(&mut self, member: MemberId, now: Now) {
        self.granted_at.insert(member, now);
    }

    /// This primary was told so, of what it had sent then. Of each member one life counts.
    pub(super) fn hears(&mut self, life: Incarnate, sent: Now) {
        self.grants.retain(|known, _| known.member != life.member || *known == life);
        self.grants.insert(life, sent);
    }
}

impl Node {
    pub(super) fn lease_told(&mut self, until: Option<Now>) {
        self.lease.until = until;
    }

    pub(super) fn sighted(&mut self, member: MemberId, sight: Sight, as_of: Now) {
        if sight == Sight::Live {
            self.seen_alive(member);
        }
        self.lease.sights.insert(member, (sight, as_of));
    }

    /// Whether this member may serve what it owns.
    pub(super) fn lease_holds(&self) -> bool {
        self.lease_holds_at(self.clock.now)
    }

    fn lease_holds_at(&self, now: Now) -> bool {
        let Some(config) = self.config.lease else { return true };
        let guarded = now.after(config.guard);
        let holds = |end: Option<Now>| end.is_some_and(|end| guarded < end);
        // The set is looked through only where the marks do not do.
        holds(self.lease.until) || holds(self.grants_end())
    }

    /// Until when the right to serve lasts, from either source.
    #[must_use]
    pub fn lease_end(&self) -> Option<Now> {
        self.lease.until.max(self.grants_end())
    }

    /// Until when every other member of the set has promised not to take over.
    fn grants_end(&self) -> Option<Now> {
        let lease = self.config.lease?.lease;
        self.granted_since().map(|sent| sent.after(lease))
    }

    /// Every other member of the set, and there is one, has heard what was sent then.
    fn granted_since(&self) -> Option<Now> {
        let grants = self.blockers().map(|life| self.lease.grants.get(&life).copied());
        grants.reduce(|one, other| Some(one?.min(other?)))?
    }

    /// Whether answers are held because the right to serve has ended, or is about to.
    #[must_use]
    pub fn is_gate_shut(&self) -> bool {
        self.is_gate_shut_at(self.clock.now)
    }

    /// The same by the clock of whoever is about to answer, which may have stood still since this
    /// node was settled.
    #[must_use]
    pub fn is_gate_shut_at(&self, now: Now) -> bool {
        self.lease.gate != Gate::Open || !self.lease_holds_at(now)
    }

    pub(super) fn lease_deadline(&self) -> Option<Now> {
        let config = self.config.lease?;
        let end = self.lease_end().filter(|_| self.leads_or_ends())?;
        // Before its end, by as much as is needed to hold everybody.
        let hold_at = end.as_micros().saturating_sub(micros(config.guard));
        Some(Now::from_micros(hold_at)).filter(|at| *at > self.clock.now)
    }

    pub(super) fn settle_lease(&mut self) {
        if self.config.lease.is_none() {
            return;
        }
        if !self.leads_or_ends() {
            (self.lease.gate, self.lease.withdrawn) = (Gate::Open, false);
            return self.settle_auto_takeover();
        }
        match (self.lease.gate, self.lease_holds()) {
            (Gate::Open, false) => {
                self.lease.gate = Gate::Shut(self.clock.now);
                self.out.push_back(Action::Hold(true));
                self.out.push_back(Action::Note(Note::LeaseOver));
                self.withdraw();
            }
            // A handover may come to nothing; only then it matters that there is a lease again.
            _ if !matches!(self.standing, Part::Leading) => {}
            (Gate::Shut(since), true) => self.begin_to_open(since),
            (Gate::Opening(_, since), false) => self.lease.gate = Gate::Shut(since),
            (Gate::Opening(number, _), true) => {
                // Whoever it names otherwise was obeyed before.
                match self.record().is_some_and(|record| record.number > number) {
                    true => self.open_gate(),
                    false => self.wish_to_stay(),
                }
            }
            (Gate::Open, true) | (Gate::Shut(_), false) => {}
        }
    }

    fn begin_to_open(&mut self, since: Now) {
        // They follow still, each in the life that could have taken over: none of them has.
        if self.granted_since().is_some_and(|sent| sent > since) {
            return self.open_gate();
        }
        if let Some(number) = self.record().map(|record| record.number) {
            self.lease.gate = Gate::Opening(number, since);
            self.wish_to_stay();
        }
    }

    /// Clients that shall hear an error do so before the end: the gate is shut by a guard ahead of
    /// it, and this is part of that.
    fn withdraw(&mut self) {
        let fails = self.config.lease.is_some_and(|config| config.on_end == OnLeaseEnd::Fail);
        if fails && self.serving {
            self.lease.withdrawn = true;
            self.end_service();
            self.out.push_back(Action::Note(Note::Withdrawn));
        }
    }

    /// Whether clients were thrown out, and come back when there is a lease again.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.lease.withdrawn
    }

    /// A handover came to nothing: its clients go on, unless there was no lease meanwhile.
    pub(super) fn let_in_again(&mut self) {
        if self.lease.gate == Gate::Open {
            self.out.push_back(Action::Hold(false));
        }
    }

    fn open_gate(&mut self) {
        self.lease.gate = Gate::Open;
        if std::mem::take(&mut self.lease.withdrawn) {
            self.serving = true;
            self.out.push_back(Action::Serve(true));
        } else {
            self.out.push_back(Action::Hold(false));
        }
        self.out.push_back(Action::Note(Note::LeaseBack));
    }

    /// Whether whom the record names serves nothing any more, so that another may propose itself:
    /// it has said so, its lease is over, it was fenced, or an operator answers for it.
    pub(super) fn owner_is_out(&self, record: &ControlRecord) -> bool {
        let owner = record.owner.member;
        let (Some(config), false) = (self.config.lease, owner == self.state.member) else {
            return true;
        };
        let answered_for = match &self.standing {
            Part::Candidate(candidate) => {
                let promised = candidate.promises.contains_key(&owner);
                promised || candidate.over == Some((owner, record.epoch))
            }
            _ => false,
        };
        let released = record.release.is_some();
        // What was seen before this record was known may have been seen before it was made: then
        // the owner may have come back in it.
        let seen = self.lease.sights.get(&owner);
        let over = seen.is_some_and(|(sight, as_of)| {
            sight.is_over() && self.register.known_since().is_some_and(|since| *as_of >= since)
        });
        let grant = self.lease.granted_at.get(&owner);
        let lapsed = grant.is_none_or(|at| at.after(config.wait_out) <= self.clock.now);
        let fenced = self.is_fenced((owner, record.epoch));
        answered_for || released || fenced || over && lapsed
    }

    /// Why nobody else may own the resource now: whom the record names may be serving.
    pub(super) fn owner_lives(&self) -> Option<Denied> {
        let record = self.record().filter(|record| !self.owner_is_out(record))?;
        Some(Denied::OwnerLives { owner: record.owner.member, epoch: record.epoch })
    }

    /// Why a forced takeover is not even begun: the owner lives, and nobody can tell it to stop.
    pub(super) fn owner_is_out_of_reach(&self) -> Option<Denied> {
        let owner = self.record()?.owner.member;
        self.owner_lives().filter(|_| !self.connected().contains(&owner))
    }
}

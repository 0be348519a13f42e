//! The control record as the core sees it: read it, obey it, and change it by proposals (design
//! §5, §7).
//!
//! Nothing rests on when a read or a decision arrives: each settling compares what is known of the
//! record with what this member is and wishes. Of a proposal under way both outcomes are
//! possible, so it counts as if it had won wherever that is the careful side.

use std::collections::BTreeSet;

use super::lead::Candidate;
use super::{Action, Denied, Node, Note, Part};
use crate::frame::Began;
use crate::ids::{Epoch, Incarnate, MemberId};
use crate::node::RecordKind;
use crate::record::ControlRecord;
use crate::replica::Release;
use crate::time::Now;

/// What is known of the record, and what is under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Register {
    /// None: never heard in this life. Some(None): it is empty.
    known: Option<Option<ControlRecord>>,
    reading: bool,
    /// What is known was heard since this member last became a standby.
    fresh: bool,
    /// The read under way may have been answered before that.
    stale_read: bool,
    read_at: Option<Now>,
    /// When the number that is known was heard for the first time.
    known_since: Option<Now>,
    pending: Option<ControlRecord>,
    wish: Option<Wish>,
}

/// A change that the owner wants; durable in its superblock already.
#[derive(Clone, Debug)]
enum Wish {
    Set(Vec<Incarnate>),
    Release(Release),
    /// Nothing but a higher number than this: whoever was about to take over has to begin again.
    Stay(u64),
}

/// Whether a candidate may begin.
pub(super) enum Verdict {
    /// The record names it.
    Begin(Began),
    /// Not known yet.
    Wait,
    /// The record's epoch is no lower than the candidate's: again, above it (design I4).
    Higher,
    /// No, and this is why.
    No(Denied),
}

impl Register {
    fn record(&self) -> Option<&ControlRecord> {
        self.known.as_ref()?.as_ref()
    }

    /// A newer number wins; reads and decisions may cross each other.
    fn learn(&mut self, record: Option<ControlRecord>, now: Now) {
        let number = |record: Option<&ControlRecord>| record.map_or(0, |record| record.number);
        let (before, after) = (number(self.record()), number(record.as_ref()));
        if self.known.is_none() || after > before {
            self.known_since = Some(now);
        }
        if self.known.is_none() || after >= before {
            self.known = Some(record);
        }
        self.read_at = Some(now);
    }

    /// Nothing may be concluded from what was heard before this moment.
    pub(super) fn outdate(&mut self) {
        self.fresh = false;
        self.stale_read = self.reading;
        self.wish = None;
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    pub(super) fn known_since(&self) -> Option<Now> {
        self.known_since
    }

    /// Lives that a proposal under way may have put into the set.
    pub(super) fn pending_set(&self) -> &[Incarnate] {
        self.pending.as_ref().map_or(&[], |record| &record.in_sync)
    }

    /// Lives that the record has in the set of this owner. A larger set may be decided when a
    /// smaller one is wished already; until that is decided, too, the larger one is the set.
    pub(super) fn set_of(&self, owner: Incarnate) -> &[Incarnate] {
        let record = self.record().filter(|record| record.owner == owner);
        record.map_or(&[], |record| &record.in_sync)
    }
}

impl Node {
    pub(super) fn has_register(&self) -> bool {
        self.config.record == RecordKind::Register
    }

    /// What is known of the record.
    pub(super) fn record(&self) -> Option<&ControlRecord> {
        self.register.record()
    }

    pub(super) fn record_read(&mut self, record: Option<ControlRecord>) {
        self.register.reading = false;
        self.register.learn(record, self.clock.now);
        self.register.fresh |= !std::mem::take(&mut self.register.stale_read);
    }

    pub(super) fn decided(&mut self, record: Option<ControlRecord>) {
        self.register.pending = None;
        self.register.learn(record, self.clock.now);
    }

    pub(super) fn settle_register(&mut self) {
        let silent = matches!(
            self.standing,
            Part::Waking(_) | Part::Unfit(_) | Part::Stopping(_) | Part::Stopped
        );
        if !self.has_register() || silent {
            return;
        }
        self.read_record_if_due();
        self.obey_record();
        self.settle_wish();
    }

    fn read_record_if_due(&mut self) {
        let (now, beat) = (self.clock.now, self.config.heartbeat());
        let old = self.register.read_at.is_none_or(|at| at.after(beat) <= now);
        if (old || !self.register.fresh) && !self.register.reading {
            self.register.reading = true;
            self.out.push_back(Action::ReadRecord);
        }
    }

    /// The record decides who leads, whatever this member thinks of itself.
    fn obey_record(&mut self) {
        let me = self.state.life();
        let Some(record) = self.register.record() else {
            return;
        };
        let (owner, epoch, release) = (record.owner, record.epoch, record.release);
        let released = release.is_some();
        let (mine, fresh) = (owner.member == me.member, self.register.fresh);
        match self.standing {
            Part::Leading | Part::Releasing(_) if owner != me => {
                self.out.push_back(Action::Note(Note::Deposed { owner: owner.member, epoch }));
                self.step_down();
            }
            Part::Beginning(_) if owner != me => self.give_up(Denied::GivenUp),
            Part::Gate if fresh && (!mine || released) => self.become_standby(),
            Part::Candidate(Candidate { force: false, .. }) if fresh && !mine => {
                self.give_up(Denied::GivenUp);
                self.hear_leads_again();
            }
            // It names another life of this member, or this one that has given up meanwhile: who
            // owns the resource begins again, before anything else (design §6.0; holes, story 13).
            Part::Standby(None)
                if fresh && mine && !released && !self.follow.cutting && self.is_complete() =>
            {
                self.stop_following();
                self.go(Part::Gate);
            }
            // The named one goes on, whether it has heard the owner or not.
            Part::Standby(None) if fresh && !mine => {
                if let Some(release) = release.filter(|release| release.to == me.member) {
                    self.accept_release(release);
                }
            }
            _ => {}
        }
    }

    fn propose(&mut self, record: ControlRecord) {
        self.register.pending = Some(record.clone());
        self.out.push_back(Action::Propose(record));
    }

    /// The owner's changes, one at a time; each ends when the record says what was wished.
    fn settle_wish(&mut self) {
        if self.register.pending.is_some() {
            return;
        }
        let (Some(record), Some(wish)) = (self.register.record(), self.register.wish.clone())
        else {
            return;
        };
        let number = record.number + 1;
        match (&self.standing, wish) {
            (Part::Leading | Part::Releasing(_), Wish::Set(set)) if record.in_sync == set => {
                self.register.wish = None;
                self.set_recorded(set);
            }
            (Part::Leading | Part::Releasing(_), Wish::Set(in_sync)) => {
                self.propose(ControlRecord { number, in_sync, ..record.clone() });
            }
            (Part::Leading, Wish::Stay(above)) if record.number > above => {
                self.register.wish = None;
            }
            (Part::Leading, Wish::Stay(_)) => {
                self.propose(ControlRecord { number, ..record.clone() })
            }
            (Part::Releasing(_), Wish::Release(release)) if record.release == Some(release) => {
                self.register.wish = None;
                self.released(release);
            }
            (Part::Releasing(_), Wish::Release(release)) => {
                self.propose(ControlRecord { number, release: Some(release), ..record.clone() });
            }
            _ => self.register.wish = None,
        }
    }

    /// The set is durable in the superblock; with a record that is not enough.
    pub(super) fn set_persisted(&mut self, set: Vec<Incarnate>) {
        if self.has_register() {
            self.register.wish = Some(Wish::Set(set));
        } else {
            self.set_recorded(set);
        }
    }

    /// The owner wants the record changed, whatever else it wants of it.
    pub(super) fn wish_to_stay(&mut self) {
        let number = self.record().map(|record| record.number);
        if let (None, Some(number)) = (&self.register.wish, number) {
            self.register.wish = Some(Wish::Stay(number));
            self.settle_wish();
        }
    }

    pub(super) fn release_persisted(&mut self, release: Release) {
        if self.has_register() {
            self.register.wish = Some(Wish::Release(release));
        } else {
            self.released(release);
        }
    }

    /// Whom a restarted primary must hear before it begins (design §6.3): with a record the set of
    /// its epoch, without one everybody. None: it is not known yet.
    pub(super) fn gate_needs(&self) -> Option<BTreeSet<MemberId>> {
        let everybody = || self.peers.keys().copied().collect();
        if !self.has_register() {
            return Some(everybody());
        }
        let me = self.state.member;
        Some(match self.register.known.as_ref().filter(|_| self.register.fresh)? {
            None => everybody(),
            Some(record) => {
                let members = record.in_sync.iter().map(|life| life.member);
                members.filter(|member| *member != me).collect()
            }
        })
    }

    /// By which right this member may take the resource; `by_proof`, only by one that loses
    /// nothing.
    pub(super) fn right_to_own(
        &self,
        by_proof: bool,
        over: Option<(MemberId, Epoch)>,
        heard: impl Fn(MemberId) -> bool,
    ) -> Result<Began, Denied> {
        let began = self.right_by_record(over, heard)?;
        let owns = self.record().is_some_and(|record| record.owner.member == self.state.member);
        match began {
            Began::Forced if by_proof && owns => Err(Denied::InGate),
            Began::Forced if by_proof => Err(Denied::NoProof),
            _ => Ok(began),
        }
    }

    fn right_by_record(
        &self,
        over: Option<(MemberId, Epoch)>,
        heard: impl Fn(MemberId) -> bool,
    ) -> Result<Began, Denied> {
        let me = self.state.life();
        let Some(known) = &self.register.known else { return Err(Denied::NoRecord) };
        let Some(record) = known else { return Ok(self.began_or_birth(Began::Forced)) };
        let others = record.in_sync.iter().filter(|life| life.member != me.member);
        let released = record.release.filter(|release| release.to == me.member);
        let named = (record.owner.member, record.epoch);
        let begun = self.state.history.epoch() >= record.epoch;
        Ok(match record.release {
            None if record.owner == me && begun => Began::Restart,
            // It won an epoch that it could not begin: the right is still the one it had then.
            None if record.owner == me => record.began,
            None if record.is_of_another_life(me) => {
                let all = others.into_iter().all(|life| heard(life.member));
                match (all, begun) {
                    (false, _) => Began::Forced,
                    (true, true) => Began::Restart,
                    // A life of this member won the epoch, and died before it began it.
                    (true, false) => record.began,
                }
            }
            _ if released.is_some_and(|release| self.log.durable() >= release.lsn) => {
                Began::Planned
            }
            _ if record.counts(me) => Began::InSync,
            _ if over == Some(named) => Began::Forced,
            _ => {
                let (owner, epoch) = named;
                return Err(Denied::NotInSet { owner, epoch });
            }
        })
    }

    /// A candidate that lacks nothing else asks the record.
    pub(super) fn ask_record(&mut self) -> Verdict {
        let Part::Candidate(candidate) = &self.standing else {
            return Verdict::Wait;
        };
        if self.register.pending.is_some() || !self.register.fresh {
            return Verdict::Wait;
        }
        let (epoch, me) = (candidate.epoch, self.state.life());
        // Heard is whoever has promised and given all that it has.
        let heard = |member| {
            candidate.promises.contains_key(&member) && !candidate.unwilling.contains(&member)
        };
        let known = self.register.record();
        let number = known.map_or(0, |record| record.number);
        let lower = known.is_some_and(|record| epoch <= record.epoch);
        let won = known.filter(|record| {
            record.owner == me && record.epoch == epoch && record.release.is_none()
        });
        if let Some(record) = won {
            return Verdict::Begin(record.began);
        }
        let right = self.right_to_own(candidate.by_proof, candidate.over, heard);
        match (right, self.owner_lives()) {
            (Err(why), _) => Verdict::No(why),
            // A change of a former life came late, and names members that were not heard: back to
            // the gate. Nobody goes on without them but by an operator's word (design §6.3).
            (Ok(Began::Forced), _) if !candidate.force => Verdict::No(Denied::GivenUp),
            (Ok(_), Some(why)) => Verdict::No(why),
            // Promises do not pass through the record, nor every epoch of it through a promise.
            (Ok(_), None) if lower => Verdict::Higher,
            (Ok(began), None) => {
                let in_sync = vec![me];
                let (number, owner, release) = (number + 1, me, None);
                self.propose(ControlRecord { number, epoch, began, owner, in_sync, release });
                Verdict::Wait
            }
        }
    }
}

//! Answers: who may give them, and which of them may ever be forgotten (design §3, §5, I2–I4).

use std::collections::{BTreeMap, BTreeSet};

use hadrian_protocol::frame::{Began, ChainHash, LogPosition};
use hadrian_protocol::ids::{Epoch, Incarnate, Lsn, MemberId};
use hadrian_protocol::node::Node;
use hadrian_protocol::record::ControlRecord;
use hadrian_protocol::replica::Mode;

use super::{Oracle, Witness};
use crate::Micros;
use crate::host::{Ask, BLOCK};

/// Everything about requests.
#[derive(Debug, Default)]
pub(super) struct Answered {
    asks: BTreeMap<u64, Ask>,
    taken: BTreeMap<u64, Taken>,
    pub(super) kept: Vec<Kept>,
    begun: BTreeMap<Epoch, Begun>,
    /// Commands with force that may still come to something.
    forced: BTreeMap<MemberId, u32>,
    /// Whom an operator has told to use force, in any life.
    told_to_force: BTreeSet<MemberId>,
    /// Commands that rest on a proof.
    proofs: BTreeMap<MemberId, u32>,
    /// Whose an epoch is, by the control record.
    owners: BTreeMap<Epoch, Incarnate>,
    /// Which of them were won over the head of whoever the record had named, whether or not the
    /// winner lived to serve in them.
    won_by_force: BTreeSet<Epoch>,
    was_forced: bool,
    restarted_by_record: bool,
    force_was_tried: bool,
    /// Clocks stood still with their host: time says nothing any more.
    frozen: bool,
    /// Who has answered in an epoch.
    voices: BTreeMap<Epoch, Incarnate>,
    pub(super) writes: u64,
    pub(super) lost: u64,
}

/// A request that a member has taken.
#[derive(Debug)]
struct Taken {
    point: LogPosition,
    epoch: Epoch,
    by: MemberId,
    at: Micros,
    /// Answers given before it came: a flush commits these, and a read sees them.
    before: usize,
}

/// A change that was answered: it may not be lost.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) point: LogPosition,
    pub(super) by: MemberId,
    pub(super) epoch: Epoch,
    pub(super) committed: bool,
    /// It was given while another primary stood beside this one by force, or force has thrown it
    /// away: nobody promises anything any more.
    pub(super) excused: bool,
    pub(super) set: Vec<MemberId>,
    pub(super) power_losses: Vec<u64>,
    pub(super) deaths: Vec<u64>,
}

/// An epoch that somebody served in.
#[derive(Debug)]
struct Begun {
    forced: bool,
}

impl Oracle {
    pub(crate) fn client_asks(&mut self, id: u64, ask: Ask) {
        self.answered.asks.insert(id, ask);
    }

    pub(crate) fn uses_force(&mut self, member: MemberId) {
        self.answered.force_was_tried = true;
        self.answered.told_to_force.insert(member);
        *self.answered.forced.entry(member).or_default() += 1;
    }

    /// Somebody owns an epoch by force.
    pub(super) fn force_has_won(&mut self) {
        self.answered.was_forced = true;
    }

    /// The command came to nothing.
    pub(crate) fn force_refused(&mut self, member: MemberId) {
        if let Some(count) = self.answered.forced.get_mut(&member) {
            *count -= 1;
        }
    }

    /// A takeover that must lose nothing; but nobody keeps the old primary from going on.
    pub(crate) fn uses_proof(&mut self, member: MemberId) {
        self.answered.force_was_tried = true;
        *self.answered.proofs.entry(member).or_default() += 1;
    }

    pub(crate) fn proof_refused(&mut self, member: MemberId) {
        if let Some(count) = self.answered.proofs.get_mut(&member) {
            *count -= 1;
        }
    }

    /// The control record is changed: no epoch is ever won twice, and none by a lower one (I4).
    pub(crate) fn record_changes(&mut self, record: &ControlRecord) {
        let (epoch, owner) = (record.epoch, record.owner);
        let last = self.answered.owners.last_key_value().map(|(epoch, owner)| (*epoch, *owner));
        let grows = last.is_none_or(|last| epoch > last.0 || (epoch, owner) == last);
        self.answered.owners.insert(epoch, owner);
        if record.began == Began::Forced && self.answered.won_by_force.insert(epoch) {
            // Thrown away from here on, even if the winner dies before it serves.
            self.nothing_is_lost(owner.member, epoch, Some(Began::Forced), true);
        }
        self.demand(grows, "I4", || format!("{owner:?} wins epoch {epoch}, after {last:?}"));
    }

    /// Whether a restarted owner has begun without members that nothing depended on: what only
    /// those have is not its history (design §6.3, §6.4).
    pub(super) fn went_on_without_hearing(&self) -> bool {
        self.answered.restarted_by_record
    }

    pub(super) fn was_forced(&self) -> bool {
        self.answered.was_forced
    }

    /// Whether an operator has used force at all, successfully or not.
    pub(crate) fn force_was_tried(&self) -> bool {
        self.answered.force_was_tried
    }

    pub(crate) fn clocks_freeze(&mut self) {
        self.answered.frozen = true;
    }

    /// Whether two may be open at the same time: an operator has answered for the old owner, or
    /// clocks were frozen.
    pub(crate) fn are_excused(&self) -> bool {
        self.answered.force_was_tried || self.answered.frozen
    }

    /// Whether anybody has served in this epoch.
    pub(super) fn has_begun(&self, epoch: Epoch) -> bool {
        self.answered.begun.contains_key(&epoch)
    }

    /// How many writes were answered, and how many of them force has thrown away.
    pub(crate) fn tally(&self) -> (u64, u64) {
        (self.answered.writes, self.answered.lost)
    }

    /// A request was taken; its place is the end of the log.
    pub(crate) fn asked(&mut self, member: MemberId, id: u64, end: Lsn, node: &Node) {
        let point = self.point(member, end);
        let (epoch, before) = (node.state().owned, self.answered.kept.len());
        let taken = Taken { point, epoch, by: member, at: self.now, before };
        self.answered.taken.insert(id, taken);
    }

    /// A member begins to serve.
    pub(crate) fn leads(&mut self, member: MemberId, node: &Node) {
        let (epoch, life) = (node.state().owned, node.state().life());
        let began = node.state().history.last().map(|entry| entry.began);
        let previous = node.state().history.entries().iter().rev().nth(1).map(|entry| entry.epoch);
        let mut force = self.answered.forced.remove(&member).is_some_and(|count| count > 0);
        let mut proof = self.answered.proofs.remove(&member).is_some_and(|count| count > 0);
        if self.by_record {
            // Whoever wins by the record has everything, unless the operator overrode it.
            (force, proof) = (began == Some(Began::Forced), false);
            let told = self.answered.told_to_force.contains(&member);
            self.demand(told || !force, "§6.3", || {
                format!("{member} begins epoch {epoch} by force, and no operator said so")
            });
            self.answered.restarted_by_record |= began == Some(Began::Restart);
            let owner = self.answered.owners.get(&epoch).copied();
            self.demand(owner == Some(life), "I4", || {
                format!("{life:?} serves in epoch {epoch}, which the record gave to {owner:?}")
            });
        }
        let inherits =
            began == Some(Began::Restart) && previous.is_some_and(|epoch| self.is_by_force(epoch));
        let forced = force || proof || inherits;
        self.answered.was_forced |= forced;
        let again = self.answered.begun.insert(epoch, Begun { forced });
        self.demand(again.is_none(), "I4", || format!("epoch {epoch} begins twice"));
        let owned = self.see(member).state.as_ref().map(|state| state.owned);
        self.demand(owned == Some(epoch), "I4", || format!("{life:?} serves without owning"));
        let start = node.state().history.last().map(|entry| entry.start.lsn);
        let durable = self.see(member).durable;
        self.demand(start.is_some_and(|start| durable > start), "§6.0", || {
            format!("{member} leads from {start:?}, durable to {durable} only")
        });
        let told = self.see(member).told_owned.filter(|told| *told < epoch);
        let follows =
            |told: &Epoch| node.state().history.entries().iter().any(|e| e.epoch == *told);
        let overtaken = told.filter(|told| !follows(told));
        let by_itself = began == Some(Began::Restart) && !force;
        self.demand(!(by_itself && overtaken.is_some()), "§6.0", || {
            format!(
                "{member} was told that epoch {overtaken:?} is owned, and begins {epoch} over it"
            )
        });
        if force {
            // Over whoever that was.
            self.of(member).told_owned = None;
        }
        self.of(member).leads = true;
        self.alone(member, epoch);
        self.nothing_is_lost(member, epoch, began, force);
        self.of(member).went_back = false;
    }

    /// Nobody else serves, unless somebody has used force.
    fn alone(&mut self, member: MemberId, epoch: Epoch) -> bool {
        let others = self.members.iter().enumerate();
        let other = others
            .filter(|(index, witness)| *index != usize::from(member.index()) && witness.leads)
            .filter_map(|(_, witness)| Some(witness.state.as_ref()?.owned))
            .next();
        let Some(other) = other else { return true };
        if self.by_record {
            // One of the two has not heard yet that it is deposed; what it answers is looked at.
            return false;
        }
        let by_force = |epoch| self.answered.begun.get(&epoch).is_some_and(|b: &Begun| b.forced);
        let excused = by_force(epoch) || by_force(other);
        self.demand(excused, "two primaries", || {
            format!("{member} serves in epoch {epoch} beside epoch {other}, and nobody used force")
        });
        false
    }

    /// Its clients are thrown out; it is still whom the resource belongs to.
    pub(crate) fn throws_out(&mut self, member: MemberId) {
        self.answers_nobody(member);
    }

    /// A member stops serving.
    pub(crate) fn stands_down(&mut self, member: MemberId) {
        self.of(member).leads = false;
        self.answers_nobody(member);
    }

    /// What it was asked and has not answered, it never will.
    pub(super) fn answers_nobody(&mut self, member: MemberId) {
        self.answered.taken.retain(|_, taken| taken.by != member);
    }

    /// A read that failed.
    pub(crate) fn cannot_read(&mut self, id: u64) {
        self.answered.taken.remove(&id);
    }

    /// Since when the oldest change or commit waits at a member.
    pub(super) fn waits_since(&self, member: MemberId) -> Option<Micros> {
        let is_read = |id: &u64| matches!(self.answered.asks.get(id), Some(Ask::Read { .. }));
        let waits = self.answered.taken.iter();
        let waits = waits.filter(|(id, taken)| taken.by == member && !is_read(id));
        waits.map(|(_, taken)| taken.at).min()
    }

    /// An answer goes out to a client.
    pub(crate) fn answered(&mut self, member: MemberId, id: u64, node: &Node) {
        let (Some(taken), Some(ask)) =
            (self.answered.taken.remove(&id), self.answered.asks.get(&id).cloned())
        else {
            return self.broken("I2", format!("{member} answers request {id}, which nobody sent"));
        };
        let commit = matches!(ask, Ask::Flush | Ask::Write { fua: true, .. });
        self.only_voice(member, &taken, node);
        let alone = self.alone(member, taken.epoch);
        let set = self.whole_set_has_it(member, &taken, commit, node);
        if commit {
            self.commits(member, &taken);
        }
        if matches!(ask, Ask::Write { .. }) {
            self.answered.writes += 1;
            let deposed = self.deposed_by_force(taken.epoch);
            let excused = match self.by_record {
                // The one that force has made may be dead again, and the old one not know of it.
                true if alone => deposed,
                true => self.overridden(member, &taken),
                // Nobody keeps an old primary from going on beside one that force has made.
                false => !alone || deposed,
            };
            let power_losses = self.members.iter().map(|w| w.power_losses).collect();
            // The copy of one that has died since it acknowledged is gone already.
            let lives = self.see(member).state.as_ref().map_or(Vec::new(), |s| s.in_sync.clone());
            let gone = |(index, witness): (usize, &Witness)| {
                let named = lives.iter().find(|life| usize::from(life.member.index()) == index);
                let another = named.is_some_and(|life| life.incarnation != witness.life);
                witness.deaths - u64::from(another || !witness.runs)
            };
            let deaths = self.members.iter().enumerate().map(gone).collect();
            let (point, by, epoch, committed) = (taken.point, member, taken.epoch, commit);
            let kept = Kept { point, by, epoch, committed, excused, set, power_losses, deaths };
            self.answered.kept.push(kept);
        }
    }

    /// Whether somebody has begun a later epoch by force, or by a proof, or the record gave one.
    fn deposed_by_force(&self, epoch: Epoch) -> bool {
        let mut begun = self.answered.begun.keys().chain(&self.answered.won_by_force);
        begun.any(|later| *later > epoch && self.is_by_force(*later))
    }

    fn is_by_force(&self, epoch: Epoch) -> bool {
        let begun = self.answered.begun.get(&epoch);
        begun.is_some_and(|begun| begun.forced) || self.answered.won_by_force.contains(&epoch)
    }

    /// A deposed primary may still give an answer for what its successor has; for nothing else,
    /// unless the successor came by force. Returns whether it did, and lacks it.
    fn overridden(&mut self, member: MemberId, taken: &Taken) -> bool {
        let owned = |witness: &Witness| witness.state.as_ref().map(|state| state.owned);
        let lacks = self.members.iter().enumerate().filter(|(index, witness)| {
            let other = *index != usize::from(member.index());
            other
                && witness.leads
                && owned(witness) > Some(taken.epoch)
                && !witness.path.holds(taken.point)
        });
        let forced = |witness: &Witness| {
            let begun = owned(witness).and_then(|epoch| self.answered.begun.get(&epoch));
            begun.is_some_and(|begun| begun.forced)
        };
        let (by_force, deposed): (Vec<_>, Vec<_>) =
            lacks.map(|(index, witness)| (index, forced(witness))).partition(|(_, forced)| *forced);
        let lsn = taken.point.lsn;
        self.demand(deposed.is_empty(), "I3", || {
            format!("{member} is deposed and answers {lsn}, which {deposed:?} lack")
        });
        !by_force.is_empty()
    }

    /// Without a word from the operator only what nobody was answered for may be cut.
    pub(super) fn never_answered(&mut self, member: MemberId, chain: ChainHash) {
        let answered = self.answered.kept.iter().find(|kept| kept.point.chain == chain);
        let lsn = answered.map(|kept| kept.point.lsn);
        self.demand(lsn.is_none(), "§6.4", || {
            format!("{member} cuts its tail, with the answered write at {lsn:?}")
        });
    }

    /// A standby is in the in-sync set from here on: whatever was promised before holds for it,
    /// too (design §4; holes, story 7).
    pub(crate) fn entered(&mut self, primary: MemberId, standby: MemberId, mode: Mode) {
        let (own, other) = (self.see(primary), self.see(standby));
        let in_set = own.state.as_ref().is_some_and(|state| {
            state
                .in_sync
                .iter()
                .any(|life| life.member == standby && life.incarnation == other.life)
        });
        let kept = self.answered.kept.iter().filter(|kept| own.path.holds(kept.point));
        let lacks = kept.filter(|kept| {
            let durable = mode != Mode::Sync || !kept.committed || other.durable >= kept.point.lsn;
            !(other.path.holds(kept.point) && durable)
        });
        let first = lacks.map(|kept| kept.point.lsn).next();
        self.demand(!in_set || first.is_none(), "§4", || {
            format!(
                "{standby} enters the set of {primary} and lacks what was answered at {first:?}"
            )
        });
    }

    /// I4: one incarnation answers in an epoch, its own.
    fn only_voice(&mut self, member: MemberId, taken: &Taken, node: &Node) {
        let life = node.state().life();
        let voice = *self.answered.voices.entry(taken.epoch).or_insert(life);
        self.demand(voice == life, "I4", || {
            format!("{life:?} and {voice:?} both answer in epoch {}", taken.epoch)
        });
        let own = node.state().owned;
        let leads = self.see(member).leads;
        self.demand(leads && own >= taken.epoch, "I2", || {
            format!("{member} answers for epoch {} without serving in it", taken.epoch)
        });
    }

    /// I2: every member of the recorded set has what the mode asks. Returns the others in it.
    fn whole_set_has_it(
        &mut self,
        member: MemberId,
        taken: &Taken,
        commit: bool,
        node: &Node,
    ) -> Vec<MemberId> {
        let own = self.see(member);
        let state = own.state.as_ref();
        let in_sync = state.map_or(Vec::new(), |state| state.in_sync.clone());
        let sync =
            node.state().mode == Mode::Sync && state.is_some_and(|state| state.mode == Mode::Sync);
        let (lsn, durable) = (taken.point.lsn, own.durable);
        self.demand(!commit || durable >= lsn, "I2", || {
            format!("{member} answers a commit at {lsn}, durable to {durable} only")
        });
        let others: Vec<_> = in_sync.into_iter().filter(|life| life.member != member).collect();
        for life in &others {
            let other = self.see(life.member);
            let another_life = other.life != life.incarnation;
            let has = another_life || other.path.holds(taken.point);
            let synced = another_life || !(commit && sync) || other.durable >= lsn;
            self.demand(has, "I2", || {
                format!("{member} answers at {lsn}, which in-sync {} does not have", life.member)
            });
            self.demand(synced, "I2", || {
                format!("{member} answers a commit at {lsn}, not durable on {}", life.member)
            });
        }
        others.into_iter().map(|life| life.member).collect()
    }

    /// A commit makes every write permanent that was answered before it was asked for.
    fn commits(&mut self, member: MemberId, taken: &Taken) {
        let path = &self.members[usize::from(member.index())].path;
        let before = self.answered.kept.iter_mut().take(taken.before);
        let open = before.filter(|kept| !kept.committed && path.holds(kept.point));
        open.for_each(|kept| kept.committed = true);
    }

    /// A read sees every write that anybody was answered for before it was asked, at whichever
    /// member. Without leases, not where its member was overtaken and does not know yet: reads go
    /// on there until it does (design §4), and who moves clients must see to it that they are not
    /// left behind. Nor where an operator has answered for the old owner.
    fn sees_every_answer(&mut self, member: MemberId, taken: &Taken, from: Lsn) {
        let newest = self.answered.begun.last_key_value().map(|(epoch, _)| *epoch);
        let overtaken = newest > Some(taken.epoch);
        if overtaken && (!self.with_leases || self.are_excused()) {
            return;
        }
        let path = &self.members[usize::from(member.index())].path;
        let mut before = self.answered.kept.iter().take(taken.before).filter(|kept| !kept.excused);
        let unseen = before.find(|kept| kept.point.lsn > from || !path.holds(kept.point));
        let unseen = unseen.map(|kept| (kept.point.lsn, kept.by));
        self.demand(unseen.is_none(), "linearizable", || {
            format!("{member} reads as of {from}, without the answered write {unseen:?}")
        });
    }

    /// A read shows what the history held between its beginning and its end.
    pub(crate) fn read(&mut self, member: MemberId, id: u64, content: &[u8], node: &Node) {
        let (Some(taken), Some(Ask::Read { block, count })) =
            (self.answered.taken.remove(&id), self.answered.asks.get(&id).cloned())
        else {
            return self.broken("I2", format!("{member} answers a read that nobody sent"));
        };
        let (from, to) = (taken.point.lsn, node.log_end());
        self.sees_every_answer(member, &taken, from);
        for at in 0..count {
            let bytes = &content[(at * BLOCK) as usize..][..BLOCK as usize];
            let is = bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            let path = &self.members[usize::from(member.index())].path;
            let may = self.ledger.values(path, block + at, from, to);
            let whole = bytes.chunks(8).all(|chunk| chunk == is.to_le_bytes());
            let rotten = self.rot.is_on(member);
            self.demand(rotten || whole && may.contains(&is), "linearizable", || {
                format!("{member} reads {is} in block {}, not one of {may:?}", block + at)
            });
        }
    }
}

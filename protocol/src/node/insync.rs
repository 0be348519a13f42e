//! The in-sync set: the replicas without which no write may be answered (design §5).
//!
//! Entering: from the proposal on, a standby counts for answers and for applying; it has entered
//! when it holds every write that was answered before, and the larger set is recorded. Leaving is
//! a decision of its own: after the peer window the smaller set is recorded, and only then may an
//! answer be given without the one that was left out. The record is the superblock here; the
//! marks take its place where there are marks.

use super::peer::Entry;
use super::persist::After;
use super::{Action, Denied, Done, Node, Note, Part};
use crate::ids::{Incarnate, MemberId};
use crate::node::OnWindowEnd;
use crate::replica::{Mode, ReplicaState};
use crate::time::{Now, micros};

/// Gap up to which a standby is proposed: answers wait for it from then on.
const PROPOSE_GAP_BYTES: u64 = 4 << 20;

/// The set as it is recorded, which may be behind the set as it is wished.
#[derive(Clone, Debug)]
pub(super) struct InSync {
    pub(super) recorded: Vec<Incarnate>,
}

impl InSync {
    pub(super) fn new(state: &ReplicaState) -> Self {
        Self { recorded: state.in_sync.clone() }
    }

    pub(super) fn reset(&mut self, state: &ReplicaState) {
        self.recorded.clone_from(&state.in_sync);
    }
}

impl Node {
    /// The lives that hold answers: recorded, or wished, or proposed.
    pub(super) fn blockers(&self) -> impl Iterator<Item = Incarnate> + '_ {
        let (me, life) = (self.state.member, self.state.life());
        let wished = self.state.in_sync.iter().filter(|life| !self.insync.recorded.contains(life));
        let proposed = self.peers.values().filter_map(|peer| {
            let feed = peer.feed()?;
            let waits = feed.counts() && self.mode_of(peer.member).waits_for_standby();
            let known = self.state.in_sync.contains(&feed.life)
                || self.insync.recorded.contains(&feed.life);
            (waits && !known).then_some(feed.life)
        });
        let recorded = self.insync.recorded.iter();
        let recorded =
            recorded.chain(self.register.set_of(life)).chain(self.register.pending_set());
        recorded.chain(wished).copied().chain(proposed).filter(move |life| life.member != me)
    }

    /// The standby that runs in the resource's mode: the first of the list (design §1).
    pub(super) fn principal(&self) -> Option<MemberId> {
        let preferred = self.config.standbys.iter().chain(&self.config.members);
        preferred.copied().find(|member| self.peers.contains_key(member))
    }

    /// The mode that a standby runs in: the principal in the resource's, the others in superasync.
    pub(super) fn mode_of(&self, member: MemberId) -> Mode {
        if self.principal() == Some(member) { self.state.mode } else { Mode::Superasync }
    }

    pub(super) fn settle_insync(&mut self) {
        if !self.is_leading() {
            return;
        }
        let members: Vec<_> = self.peers.keys().copied().collect();
        for member in members {
            self.settle_entry(member);
            self.settle_window(member);
            self.settle_leaving(member);
        }
    }

    fn settle_entry(&mut self, member: MemberId) {
        let mode = self.mode_of(member);
        let (end, answers) = (self.log.end().lsn, self.answers);
        let Some(peer) = self.peers.get_mut(&member) else { return };
        let (leaving, must_reach) = (peer.leaving, peer.must_reach);
        let Some((_, feed)) = peer.feed_mut() else {
            return;
        };
        let (entry, life) = (feed.entry, feed.life);
        let behind = must_reach.is_some_and(|lsn| feed.received < lsn);
        match entry {
            Entry::CatchUp if leaving || behind => {}
            Entry::CatchUp if mode == Mode::Superasync || feed.reading => {}
            Entry::CatchUp if mode == Mode::Async && feed.next < end => {}
            Entry::CatchUp
                if mode == Mode::Async && end.since(feed.received) <= PROPOSE_GAP_BYTES =>
            {
                feed.entry = Entry::Peer;
                self.entered(member);
            }
            Entry::CatchUp
                if mode != Mode::Async && end.since(feed.received) <= PROPOSE_GAP_BYTES =>
            {
                let durable = match mode {
                    Mode::Sync => self.promised_commits,
                    _ => crate::ids::Lsn::START,
                };
                feed.entry = Entry::Proposed { received: answers.writes, durable };
            }
            Entry::Proposed { received, durable }
                if feed.received >= received && feed.durable >= durable =>
            {
                feed.entry = Entry::Recording(0);
                if !self.state.in_sync.contains(&life) {
                    self.state.in_sync.push(life);
                }
                self.persist_then(After::SetRecorded(self.state.in_sync.clone()));
            }
            _ => {}
        }
    }

    pub(super) fn set_recorded(&mut self, set: Vec<Incarnate>) {
        let before = std::mem::replace(&mut self.insync.recorded, set);
        let recorded = &self.insync.recorded;
        let named = |member| recorded.iter().any(|life| life.member == member);
        for out in before.iter().filter(|life| !named(life.member)) {
            self.out.push_back(Action::Note(Note::LeftOut(out.member)));
        }
        let entering = self.peers.values_mut().filter_map(|peer| {
            let member = peer.member;
            let (_, feed) = peer.feed_mut()?;
            let enters = matches!(feed.entry, Entry::Recording(_)) && recorded.contains(&feed.life);
            enters.then(|| {
                feed.entry = Entry::Peer;
                member
            })
        });
        let entering: Vec<_> = entering.collect();
        entering.into_iter().for_each(|member| self.entered(member));
    }

    fn entered(&mut self, member: MemberId) {
        if let Some(peer) = self.peers.get_mut(&member) {
            (peer.lost_at, peer.must_reach) = (None, None);
        }
        self.out.push_back(Action::Note(Note::PeerEntered(member)));
        self.say_progress(member);
    }

    fn is_in_set(&self, member: MemberId) -> bool {
        self.state.in_sync.iter().any(|life| life.member == member)
    }

    /// The session with a member is lost. Where it was in the set, the window begins.
    pub(super) fn lost(&mut self, member: MemberId) {
        let (now, in_set) = (self.clock.now, self.is_in_set(member));
        let leading = matches!(self.standing, Part::Leading | Part::Releasing(_));
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        if leading && in_set && peer.session.is_some() && peer.lost_at.is_none() {
            peer.lost_at = Some(now);
            self.out.push_back(Action::Note(Note::Holding(member)));
        }
    }

    /// An orderly stop of a standby skips the window (design §4).
    pub(super) fn left_in_order(&mut self, member: MemberId) {
        if self.is_leading() && self.is_in_set(member) {
            self.leave_out(member);
        }
    }

    /// A new life of a member takes the place of the old one, which is gone for good (story 3).
    pub(super) fn life_seen(&mut self, life: Incarnate) {
        let older =
            |entry: &Incarnate| entry.member == life.member && entry.incarnation < life.incarnation;
        if self.is_leading() && self.state.in_sync.iter().any(older) {
            self.word_died(life);
            self.leave_out(life.member);
        }
    }

    fn settle_window(&mut self, member: MemberId) {
        let Some(deadline) = self.window_end(member) else {
            return;
        };
        let holds_on = self.holds_on();
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        if peer.session.is_some() && peer.feed().is_some() {
            // Reconnected: the window is over and the standby catches up as a member of the set.
            (peer.lost_at, peer.held_on) = (None, false);
        } else if deadline <= self.clock.now && !holds_on {
            self.leave_out(member);
        } else if deadline <= self.clock.now && !std::mem::replace(&mut peer.held_on, true) {
            self.out.push_back(Action::Note(Note::HoldsOn(member)));
        }
    }

    /// Whether a primary never goes on alone without an operator's word (design §5.3).
    pub(super) fn holds_on(&self) -> bool {
        self.config.on_window_end == OnWindowEnd::Hold && !self.has_register()
    }

    /// The operator lets a primary go on that holds its answers after the window.
    pub(super) fn go_on_alone(&mut self) -> Result<Done, Denied> {
        let held = self.peers.values().filter(|peer| peer.lost_at.is_some());
        let held: Vec<_> = held.map(|peer| peer.member).collect();
        if held.is_empty() {
            return Err(Denied::AlreadyPrimary);
        }
        // By its proof the standby may take over till then, and nothing answered shall be missing.
        let left = held.iter().filter_map(|member| self.proof_left(*member)).max();
        if let Some(left) = left {
            return Err(Denied::WindowRuns { ms: micros(left).div_ceil(1000) });
        }
        held.into_iter().for_each(|member| self.leave_out(member));
        Ok(Done::GoesOnAlone)
    }

    /// A standby that is connected shall leave the set: it is told, and is left out when it has
    /// heard that, or when it can prove nothing any more.
    pub(super) fn begin_leaving(&mut self, member: MemberId) {
        let Some(peer) = self.peers.get_mut(&member) else { return };
        peer.leaving = true;
        if let Some((_, feed)) = peer.feed_mut() {
            feed.entry = Entry::CatchUp;
        }
        self.say_progress(member);
    }

    /// A primary that begins a higher epoch over its own is rid of nobody: who can prove that it is
    /// in the set stays in it until it cannot (design §5.1). With a record, that one has decided.
    pub(super) fn set_of_new_epoch(&self) -> Vec<Incarnate> {
        let me = self.state.life();
        let own = self.state.in_sync.contains(&me);
        let carried = self
            .state
            .in_sync
            .iter()
            .filter(|life| own && **life != me && !self.word_is_void(life.member));
        [me].into_iter().chain(carried.copied()).collect()
    }

    /// Whoever was carried over leaves as soon as that is safe, and enters again like the others.
    pub(super) fn carry_on_leaving(&mut self) {
        let now = self.clock.now;
        let carried: Vec<_> = self.state.in_sync.iter().map(|life| life.member).collect();
        for member in carried {
            if let Some(peer) = self.peers.get_mut(&member) {
                peer.leaving = true;
                // Connected or not, it does not follow this epoch yet.
                peer.lost_at.get_or_insert(now);
            }
        }
    }

    fn settle_leaving(&mut self, member: MemberId) {
        let leaving = self.peers.get(&member).is_some_and(|peer| peer.leaving);
        if leaving && self.word_is_void(member) {
            self.leave_out(member);
        }
    }

    fn window_end(&self, member: MemberId) -> Option<Now> {
        Some(self.peers.get(&member)?.lost_at?.after(self.config.peer_window))
    }

    pub(super) fn window_deadline(&self) -> Option<Now> {
        self.peers.keys().filter_map(|member| self.window_end(*member)).min()
    }

    /// Records the smaller set; until that is durable the old one holds the answers.
    fn leave_out(&mut self, member: MemberId) {
        if let Some(peer) = self.peers.get_mut(&member) {
            (peer.lost_at, peer.leaving) = (None, false);
            (peer.word_until, peer.held_on) = (None, false);
        }
        if !self.is_in_set(member) {
            return;
        }
        self.state.in_sync.retain(|life| life.member != member);
        self.persist_then(After::SetRecorded(self.state.in_sync.clone()));
    }
}

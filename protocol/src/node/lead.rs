//! Coming to lead: the start gate, forced takeover, and the beginning of an epoch (design §6).
//!
//! Every way leads through a candidate that first promises the new epoch to itself, then asks the
//! others to promise it, fetches a later log where one of them has it, and makes its own log
//! durable. Only then the epoch begins: its first frame durable, its ownership durable, service.

use std::collections::{BTreeMap, BTreeSet};

use super::persist::After;
use super::register::Verdict;
use super::{Action, Denied, Done, How, Node, Note, Part};
use crate::frame::{Began, Draft, HEAD_LEN};
use crate::history::EpochEntry;
use crate::ids::{Epoch, Lsn, MemberId, SessionId};
use crate::replica::{Role, WentBack};
use crate::time::Now;
use crate::wire::{AskPromise, Lead, Message, Promised};

/// Wants to lead and collects what it needs for it.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) epoch: Epoch,
    pub(super) began: Began,
    /// By an operator's word: does not wait for members that cannot be heard.
    pub(super) force: bool,
    /// Only if nothing can be lost: while the old primary holds its answers for certain (design
    /// §5.3), or because the record has it in the set.
    pub(super) by_proof: bool,
    /// The owner and epoch that the operator answers for.
    pub(super) over: Option<(MemberId, Epoch)>,
    /// Its own promise is durable.
    pub(super) promised_self: bool,
    /// Members whose promise it waits for.
    pub(super) need: BTreeSet<MemberId>,
    pub(super) promises: BTreeMap<MemberId, Promised>,
    /// Whose later tail is under way.
    pub(super) fetching: Option<MemberId>,
    /// Members that have refused to send theirs.
    pub(super) unwilling: BTreeSet<MemberId>,
    /// Members that could not promise just then, and when they are asked again.
    pub(super) later: BTreeMap<MemberId, Now>,
    pub(super) command: Option<u64>,
}

/// Makes the start of its epoch durable.
#[derive(Clone, Debug)]
pub(super) struct Beginning {
    pub(super) epoch: Epoch,
    /// What it owned before.
    owned_before: Epoch,
    /// Where it had gone back to, if it begins there.
    went_back: Option<WentBack>,
    recording: bool,
    by_proof: bool,
    pub(super) command: Option<u64>,
}

/// What a candidate wants.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) began: Began,
    pub(super) force: bool,
    pub(super) by_proof: bool,
    pub(super) over: Option<(MemberId, Epoch)>,
    pub(super) need: BTreeSet<MemberId>,
    pub(super) command: Option<u64>,
}

impl Candidate {
    /// Members that have not promised yet, or hold more than they can send.
    pub(super) fn lacks(&self) -> Vec<MemberId> {
        let unwilling = self.unwilling.iter().filter(|member| self.promises.contains_key(member));
        self.waits_for().into_iter().chain(unwilling.copied()).collect()
    }

    pub(super) fn waits_for(&self) -> Vec<MemberId> {
        let waits = self.need.iter().filter(|member| !self.promises.contains_key(member));
        waits.copied().collect()
    }

    /// Who has promised and holds the latest log of all, if it is later than `mine`: by epoch,
    /// then by length (design §6.3).
    pub(super) fn later_than(&self, mine: (Epoch, Lsn)) -> Option<(MemberId, &Promised)> {
        let of = |promised: &Promised| (promised.history.epoch(), promised.end.lsn);
        let later = self.promises.iter().filter(|(member, promised)| {
            of(promised) > mine && !(self.force && self.unwilling.contains(member))
        });
        let latest = later.max_by_key(|(_, promised)| of(promised));
        latest.map(|(member, promised)| (*member, promised))
    }
}

impl Node {
    /// A restarted primary waits in the gate until it has heard every other member (design §6.3).
    /// It promises nothing before: a promise that leads to no epoch only stands in the way.
    pub(super) fn settle_gate(&mut self) {
        let Some(need) = self.gate_needs() else { return };
        let connected = self.connected();
        if need.is_subset(&connected) {
            // Whoever else is there is asked too: it may have a later log.
            let need = need.into_iter().chain(connected).collect();
            let began = self.began_or_birth(Began::Restart);
            let (force, by_proof, over, command) = (false, false, None, None);
            self.stand(self.next_epoch(), Wish { began, force, by_proof, over, need, command });
        }
    }

    pub(super) fn began_or_birth(&self, began: Began) -> Began {
        let born = self.state.history.epoch() > Epoch::NONE_YET;
        if born { began } else { Began::Birth }
    }

    pub(super) fn connected(&self) -> BTreeSet<MemberId> {
        self.greeted_sessions().into_iter().map(|(member, _)| member).collect()
    }

    /// An operator's word opens the gate without the members that cannot be heard.
    pub(super) fn start_primary(&mut self, id: u64) -> Option<Result<Done, Denied>> {
        match &mut self.standing {
            Part::Gate => {
                self.stand_by_force(false, None, Some(id));
                None
            }
            Part::Candidate(candidate) if candidate.command.is_none() && !candidate.force => {
                candidate.force = true;
                candidate.command = Some(id);
                if candidate.began == Began::Restart {
                    candidate.began = Began::Forced;
                }
                self.need_only_connected();
                // Who has said "not now" to a mere restart is asked again.
                self.ask_promises();
                None
            }
            Part::Candidate(_) | Part::Beginning(_) => Some(Err(Denied::Busy)),
            Part::Leading => Some(self.go_on_alone()),
            _ => Some(Err(Denied::NotInGate)),
        }
    }

    /// A takeover without the old primary's word (design §6.2).
    pub(super) fn forced_takeover(
        &mut self,
        id: u64,
        how: How,
        test: bool,
    ) -> Option<Result<Done, Denied>> {
        let by_proof = how == How::PeerWindowOnly;
        let over = match how {
            How::Override { owner, epoch } => Some((owner, epoch)),
            _ => None,
        };
        if let (Part::Standby(None), Some(went)) = (&self.standing, self.went_back()) {
            // The way there may not have come to its end.
            return match by_proof {
                true => Some(Err(Denied::NoProof)),
                false => self.go_back(id, over, went.to, test),
            };
        }
        match &self.standing {
            Part::Leading | Part::Releasing(_) => return Some(Err(Denied::AlreadyPrimary)),
            Part::Beginning(_) => return Some(Err(Denied::Busy)),
            // It waits for members without which it cannot know what it lacks.
            Part::Gate | Part::Candidate(_) if by_proof => return Some(Err(Denied::InGate)),
            Part::Gate | Part::Candidate(_) if test => return Some(Ok(Done::WouldLead)),
            Part::Gate | Part::Candidate(_) => return self.start_primary(id),
            _ if self.follow.cutting => return Some(Err(Denied::Busy)),
            _ => {}
        }
        if let Some(why) = self.owner_is_out_of_reach().filter(|_| over.is_none()) {
            return Some(Err(why));
        }
        let right = match (by_proof, self.has_register()) {
            (true, false) => self.prove(),
            (_, true) if test => self.right_to_own(by_proof, over, |_| false).map(|_| ()),
            _ => Ok(()),
        };
        match right {
            Err(why) => return Some(Err(why)),
            Ok(()) if test => return Some(Ok(Done::WouldLead)),
            Ok(()) => {}
        }
        self.stand_by_force(by_proof, over, Some(id));
        None
    }

    /// Whether the old primary went on without this member, nobody here can know.
    pub(super) fn stand_by_force(
        &mut self,
        by_proof: bool,
        over: Option<(MemberId, Epoch)>,
        command: Option<u64>,
    ) {
        let (began, need) = (self.began_or_birth(Began::Forced), self.connected());
        let wish = Wish { began, force: true, by_proof, over, need, command };
        self.stand(self.next_epoch(), wish);
    }

    /// Becomes a candidate: its own promise comes first, so that nothing of an older epoch is
    /// accepted from here on (design §6.0).
    pub(super) fn stand(&mut self, epoch: Epoch, wish: Wish) {
        let Wish { began, force, by_proof, over, need, command } = wish;
        let candidate = Candidate {
            epoch,
            began,
            force,
            by_proof,
            over,
            promised_self: false,
            need,
            promises: BTreeMap::new(),
            fetching: None,
            unwilling: BTreeSet::new(),
            later: BTreeMap::new(),
            command,
        };
        self.go(Part::Candidate(candidate));
        // What the record said before may have been changed meanwhile.
        self.register.outdate();
        self.follow.diverged = None;
        self.state.rejoin = false;
        self.state.promised = epoch;
        self.log.want(self.log.end().lsn);
        self.persist_then(After::SelfPromised(epoch));
    }

    /// Above everything that this member has promised or heard of.
    pub(super) fn next_epoch(&self) -> Epoch {
        let heard = self.peers.values().filter_map(|peer| Some(peer.hello()?.promised));
        let recorded = self.record().map(|record| record.epoch);
        let own = self.state.promised.max(self.state.history.epoch());
        let others = heard.chain(recorded).chain(self.owner_heard());
        let highest = others.fold(own, Epoch::max);
        highest.next_for(self.state.member)
    }

    /// The highest epoch that somebody else is known to have owned, by its own words.
    pub(super) fn owner_heard(&self) -> Option<Epoch> {
        let hellos = self.peers.values().filter_map(|peer| peer.hello());
        let owned = hellos.map(|hello| hello.owned).filter(|owned| *owned > Epoch::NONE_YET);
        owned.max().max(self.follow.owner)
    }

    pub(super) fn self_promised(&mut self, epoch: Epoch) {
        let Part::Candidate(candidate) = &mut self.standing else {
            return;
        };
        if candidate.epoch != epoch {
            return;
        }
        candidate.promised_self = true;
        self.ask_promises();
    }

    /// Asks everybody for their promise, once the own one is durable.
    fn ask_promises(&mut self) {
        let Part::Candidate(Candidate { epoch, force, promised_self: true, .. }) = self.standing
        else {
            return;
        };
        for (_, session) in self.greeted_sessions() {
            self.send(session, Message::AskPromise(AskPromise { epoch, force }));
        }
    }

    /// Whether this member began an epoch that it never came to own: nobody was served in it.
    pub(super) fn began_in_vain(&self, entry: &EpochEntry) -> bool {
        entry.leader.member == self.state.member && entry.epoch > self.state.owned
    }

    /// What a hello means for who leads.
    pub(super) fn greeted(&mut self, session: SessionId, member: MemberId) {
        let Some(hello) = self.peers.get(&member).and_then(|peer| peer.hello()) else {
            return;
        };
        let (theirs, their_role, leading) = (hello.owned, hello.role, hello.leading);
        let (their_promise, release) = (hello.promised, hello.release);
        // With a record, that one says who owns.
        let owns = their_role == Role::Primary && !self.has_register();
        match &self.standing {
            Part::Leading if (leading || owns) && theirs > self.state.owned => self.step_down(),
            Part::Leading => self.say_lead(session),
            // An epoch that was owned may not be overtaken by a restart (design §6.0).
            Part::Gate if leading || (owns && theirs > self.state.owned) => self.become_standby(),
            Part::Candidate(candidate) if !candidate.force => {
                if leading {
                    self.give_up(Denied::GivenUp);
                } else if their_promise >= candidate.epoch {
                    self.stand_higher();
                } else if candidate.promised_self {
                    let ask = AskPromise { epoch: candidate.epoch, force: false };
                    self.send(session, Message::AskPromise(ask));
                }
            }
            Part::Candidate(candidate) if candidate.promised_self => {
                let ask = AskPromise { epoch: candidate.epoch, force: true };
                self.send(session, Message::AskPromise(ask));
            }
            // With a record it counts from when the record has it: till then it may be taken back.
            Part::Standby(_) if !self.has_register() => {
                if let Some(release) = release.filter(|r| r.to == self.state.member) {
                    self.accept_release(release);
                }
            }
            _ => {}
        }
    }

    /// Somebody has promised as much already: ask again, above it.
    pub(super) fn stand_higher(&mut self) {
        let Part::Candidate(candidate) = &self.standing else {
            return;
        };
        let Candidate { began, force, by_proof, over, command, .. } = *candidate;
        let need = candidate.need.clone();
        self.stand(self.next_epoch(), Wish { began, force, by_proof, over, need, command });
    }

    pub(super) fn settle_candidate(&mut self) {
        self.settle_fetching();
        self.ask_again();
        let mine = (self.state.history.epoch(), self.log.end().lsn);
        let Part::Candidate(candidate) = &self.standing else {
            return;
        };
        let ready = self.lease_holds()
            && candidate.promised_self
            && (candidate.later_than(mine).is_none() || self.went_back().is_some())
            && candidate.fetching.is_none()
            && candidate.waits_for().is_empty()
            && self.log.durable() == self.log.end().lsn;
        if !ready {
            return;
        }
        let (epoch, began, command) = (candidate.epoch, candidate.began, candidate.command);
        if self.has_register() {
            return match self.ask_record() {
                Verdict::Begin(began) => self.begin(epoch, began, false, command),
                Verdict::Wait => {}
                Verdict::Higher => self.stand_higher(),
                Verdict::No(why) => self.give_up(why),
            };
        }
        let by_proof = candidate.by_proof;
        match self.prove() {
            Err(why) if by_proof => self.give_up(why),
            _ => self.begin(epoch, began, by_proof, command),
        }
    }

    fn begin(&mut self, epoch: Epoch, began: Began, by_proof: bool, command: Option<u64>) {
        let previous = self.state.history.epoch();
        let mut draft = Draft::new(vec![0; HEAD_LEN]);
        let added = draft.epoch_start(began, previous, self.state.incarnation);
        assert!(added.is_ok(), "an empty frame has room for one record");
        let (owned_before, went_back) = (self.state.owned, self.state.went_back);
        self.go(Part::Beginning(Beginning {
            epoch,
            owned_before,
            went_back,
            recording: false,
            by_proof,
            command,
        }));
        let end = self.append_own(draft);
        self.log.want(end);
    }

    /// The first frame of the epoch is durable before its ownership is, and that before service:
    /// a crash in between leaves a promise without ownership, which anybody may overtake.
    pub(super) fn settle_beginning(&mut self) {
        let Part::Beginning(beginning) = &mut self.standing else {
            return;
        };
        if beginning.recording || self.log.durable() < self.log.end().lsn {
            return;
        }
        beginning.recording = true;
        let (epoch, by_proof) = (beginning.epoch, beginning.by_proof);
        // The last moment at which the old primary's answers must all be here.
        if let (true, Err(why)) = (by_proof, self.prove()) {
            return self.give_up(why);
        }
        self.state.role = Role::Primary;
        self.state.owned = epoch;
        self.state.mode = self.config.mode;
        self.state.in_sync = self.set_of_new_epoch();
        self.state.in_set_of = None;
        self.state.release = None;
        self.state.went_back = None;
        self.persist_then(After::Owned(epoch));
    }

    pub(super) fn owned(&mut self, epoch: Epoch) {
        let Part::Beginning(beginning) = &self.standing else {
            return;
        };
        let command = beginning.command;
        if let (true, Err(why)) = (beginning.by_proof, self.prove()) {
            // The disk was too slow: the old primary may have gone on. Nobody was served here.
            return self.give_up(why);
        }
        self.insync.reset(&self.state);
        self.go(Part::Leading);
        self.carry_on_leaving();
        // A primary that began a higher epoch over its own has held its clients meanwhile.
        let again = std::mem::replace(&mut self.serving, true);
        self.out.push_back(if again { Action::Hold(false) } else { Action::Serve(true) });
        self.out.push_back(Action::Note(Note::Leads(epoch)));
        if let Some(id) = command {
            self.out.push_back(Action::Reply { id, result: Ok(Done::Leading(epoch)) });
        }
        for (_, session) in self.greeted_sessions() {
            self.say_lead(session);
        }
        self.begin_refused_anew();
    }

    pub(super) fn say_lead(&mut self, session: SessionId) {
        let state = &self.state;
        let lead = Lead {
            epoch: state.owned,
            life: state.life(),
            history: state.history.clone(),
            end: self.log.end(),
            mode: state.mode,
        };
        self.send(session, Message::Lead(Box::new(lead)));
    }

    /// Stops serving because a higher epoch exists. What is unanswered stays unanswered. The
    /// in-sync set is kept: it says later whether the tail is worth anything (design §6.4).
    pub(super) fn step_down(&mut self) {
        self.out.push_back(Action::Note(Note::SteppedDown(self.state.owned)));
        self.become_standby();
        self.stop_feeding();
    }

    pub(super) fn become_standby(&mut self) {
        self.overtaken = None;
        self.register.outdate();
        self.end_service();
        self.state.role = Role::Standby;
        self.persist.touch();
        self.go(Part::Standby(None));
    }

    /// A candidate gives up and is a standby again.
    pub(super) fn give_up(&mut self, why: Denied) {
        if !matches!(self.standing, Part::Candidate(_) | Part::Beginning(_)) {
            return;
        }
        if self.drop_command(why) {
            self.out.push_back(Action::Note(Note::GivenUp(why)));
        }
        if let Part::Beginning(beginning) = &self.standing {
            // Nobody was served in it: it was never this member's.
            self.state.owned = beginning.owned_before;
            self.state.went_back = beginning.went_back;
        }
        self.become_standby();
    }

    /// An operator's word replaces the members that cannot be heard.
    fn need_only_connected(&mut self) {
        let connected = self.connected();
        if let Part::Candidate(candidate) = &mut self.standing {
            candidate.need.retain(|member| connected.contains(member));
        }
    }
}

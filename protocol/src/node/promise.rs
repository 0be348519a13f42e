//! Promises: giving them, collecting them, and fetching what those who gave them know better
//! (design §6.0, §6.3, I7).

use super::peer::Phase;
use super::persist::After;
use super::{Denied, Node, Part};
use crate::frame::LogPosition;
use crate::history::Parting;
use crate::ids::{Epoch, MemberId, SessionId};
use crate::wire::{AskPromise, Message, Promised, Refusal};

impl Node {
    pub(super) fn on_ask_promise(&mut self, session: SessionId, ask: AskPromise) {
        let Some(member) = self.member_of(session) else {
            return;
        };
        let promised = self.state.promised;
        let overtaken = ask.epoch <= promised;
        let follows_other = self.follows_other_than(member);
        let busy = match &self.standing {
            Part::Standby(_) => follows_other && !ask.force,
            Part::Gate => !ask.force,
            Part::Candidate(candidate) => candidate.force || !ask.force,
            Part::Leading | Part::Releasing(_) => !ask.force,
            _ => true,
        };
        if overtaken {
            return self.say_overtaken(session);
        }
        if busy || self.follow.cutting {
            let refusal = Refusal::NotNow;
            return self.send(session, Message::Refuse(crate::wire::Refuse { refusal }));
        }
        match self.standing {
            Part::Leading | Part::Releasing(_) => self.step_down(),
            Part::Gate => self.become_standby(),
            _ => self.give_up(Denied::GivenUp),
        }
        self.stop_following();
        // Whoever asks may answer clients from now on: what the old primary's word proves about
        // its own answers is worth nothing any more.
        self.follow.proof = None;
        self.state.promised = ask.epoch;
        self.persist_then(After::SayPromised(session, ask.epoch));
    }

    /// Whether this replica follows another than `member`, for all that it has heard. A primary
    /// that handed over, or was overtaken, tells those whom it led nothing of it; whoever has owned
    /// a later epoch since shows it.
    fn follows_other_than(&self, member: MemberId) -> bool {
        let owned = self.peers.get(&member).and_then(|peer| Some(peer.hello()?.owned));
        self.peers.values().any(|peer| {
            let led_in = peer.session.as_ref().and_then(|open| Some(open.lead.as_ref()?.epoch));
            peer.is_following() && peer.member != member && led_in >= owned
        })
    }

    pub(super) fn say_promised(&mut self, session: SessionId, epoch: Epoch) {
        if self.state.promised != epoch {
            return;
        }
        let (end, history) = (self.log.end(), self.state.history.clone());
        self.send(session, Message::Promised(Promised { epoch, end, history }));
        self.tell_former_leaders(session);
    }

    pub(super) fn on_promised(&mut self, member: MemberId, promised: Promised) {
        if let Part::Candidate(candidate) = &mut self.standing
            && candidate.epoch == promised.epoch
        {
            candidate.promises.insert(member, promised);
        }
    }

    /// Of all that have promised, the latest log is fetched, where it continues this one; then
    /// the latest of the rest, if it is later still.
    pub(super) fn settle_fetching(&mut self) {
        let end = self.log.end();
        let mine = (self.state.history.epoch(), end.lsn);
        let Part::Candidate(candidate) = &self.standing else {
            return;
        };
        if candidate.fetching.is_some() || !candidate.waits_for().is_empty() {
            return;
        }
        if self.went_back().is_some() {
            // What others hold beyond the point is what it is to be without.
            return;
        }
        let Some((member, promised)) = candidate.later_than(mine) else {
            return;
        };
        let parting = self.state.history.parting(end.lsn, &promised.history, promised.end.lsn);
        let (continues, to) = (parting == Parting::At { point: end.lsn }, promised.end);
        let force = candidate.force;
        let willing = !candidate.unwilling.contains(&member);
        let session = self.peers.get(&member).and_then(|peer| Some(peer.session.as_ref()?.id));
        match session {
            Some(session) if continues && willing => self.fetch(session, member, to),
            // A restart waits for whoever has more, and says for whom.
            _ if continues && !force => {}
            _ if force => self.leave_unfetched(member),
            _ => self.give_up(Denied::GivenUp),
        }
    }

    fn fetch(&mut self, session: SessionId, member: MemberId, to: LogPosition) {
        self.send(session, Message::Fetch(self.log.end()));
        if let Some(open) = self.session_mut(session) {
            open.phase = Phase::Fetching(to);
        }
        if let Part::Candidate(candidate) = &mut self.standing {
            candidate.fetching = Some(member);
        }
    }

    fn leave_unfetched(&mut self, member: MemberId) {
        if let Part::Candidate(candidate) = &mut self.standing {
            candidate.unwilling.insert(member);
        }
    }

    /// The tail that was fetched is here.
    pub(super) fn fetched(&mut self, member: MemberId) {
        self.log.want(self.log.end().lsn);
        if let Part::Candidate(candidate) = &mut self.standing
            && candidate.fetching == Some(member)
        {
            candidate.fetching = None;
        }
    }

    pub(super) fn candidate_lost(&mut self, member: MemberId) {
        let set = self.gate_needs().unwrap_or_else(|| self.peers.keys().copied().collect());
        if let Part::Candidate(candidate) = &mut self.standing {
            candidate.promises.remove(&member);
            candidate.later.remove(&member);
            if candidate.fetching == Some(member) {
                candidate.fetching = None;
            }
            if candidate.force || !set.contains(&member) {
                candidate.need.remove(&member);
            }
        }
    }

    pub(super) fn candidate_refused(&mut self, member: MemberId, refusal: Refusal) {
        if let (Part::Leading, Refusal::Overtaken { promised, owned }) = (&self.standing, refusal) {
            match promised > self.state.owned {
                true if owned => self.step_down(),
                true => self.overtaken_by(promised),
                false => {}
            }
            return;
        }
        let set = self.gate_needs().unwrap_or_else(|| self.peers.keys().copied().collect());
        let again = self.clock.now.after(self.config.heartbeat());
        let Part::Candidate(candidate) = &mut self.standing else {
            return;
        };
        match refusal {
            // What it has promised to this candidate overtakes nobody.
            Refusal::Overtaken { promised, .. }
                if promised > candidate.epoch
                    || promised == candidate.epoch && !candidate.promises.contains_key(&member) =>
            {
                self.state.promised = promised;
                self.stand_higher();
            }
            _ => {
                // It has promised, and then could not send what it has.
                if candidate.fetching == Some(member) {
                    candidate.fetching = None;
                    candidate.unwilling.insert(member);
                } else if candidate.force || !set.contains(&member) {
                    candidate.need.remove(&member);
                } else {
                    candidate.later.insert(member, again);
                }
            }
        }
    }

    /// Whoever could not promise just then may be able to a little later.
    pub(super) fn ask_again(&mut self) {
        let now = self.clock.now;
        let Part::Candidate(candidate) = &mut self.standing else {
            return;
        };
        let (epoch, force) = (candidate.epoch, candidate.force);
        let due = candidate.later.iter().find(|(_, at)| **at <= now).map(|(member, _)| *member);
        let Some(member) = due else { return };
        candidate.later.remove(&member);
        if let Some(session) = self.greeted_sessions().into_iter().find(|(of, _)| *of == member) {
            self.send(session.1, Message::AskPromise(AskPromise { epoch, force }));
        }
    }
}

//! A standby's side: joining a primary, cutting a tail that nobody was answered for, taking
//! frames, and telling how far it is.

use super::peer::{Joining, Phase};
use super::persist::After;
use super::proof::Proof;
use super::trail::Trail;
use super::{Action, Denied, Node, Note, Part};
use crate::frame::{Began, Frame, LogPosition};
use crate::history::Parting;
use crate::ids::{Epoch, Lsn, MemberId, SessionId};
use crate::replica::InSetOf;
use crate::wire::{Ack, Join, Lead, Message, Progress, Refusal, Refuse};

/// What a standby knows of the primary that it follows.
#[derive(Clone, Debug, Default)]
pub(super) struct Follow {
    /// The primary and the rest of the in-sync set keep what is before: this replica may apply it,
    /// once it is durable here (design §2.5).
    pub(super) may_apply: Lsn,
    /// The end of the primary's log, as last told.
    pub(super) primary_end: Lsn,
    /// When it was told how far that is.
    pub(super) ahead: Trail,
    /// Where the history of this replica parted from that of a primary which it met, and it could
    /// not be cut there; until it follows or leads.
    pub(super) diverged: Option<Lsn>,
    /// Who leads, as it said itself.
    pub(super) owner: Option<Epoch>,
    /// A cut of the log is under way; nothing may join it meanwhile.
    pub(super) cutting: bool,
    /// The image is to come to rest here, to be compared.
    pub(super) hold: Option<Lsn>,
    /// The primary counts this replica as `peer`.
    pub(super) peer: bool,
    /// What it can prove of the primary's window (design §5.3).
    pub(super) proof: Option<Proof>,
    /// Number of the newest progress message of this session.
    pub(super) heard: u64,
    /// The primary waits for a word that this was heard.
    pub(super) must_ack: bool,
    /// People were told that the spool is full.
    pub(super) spool_full: bool,
    said: Option<[Lsn; 3]>,
}

impl Follow {
    /// Of a replica that has promised this epoch to its leader.
    pub(super) fn of(epoch: Epoch) -> Self {
        Self { owner: Some(epoch), ..Self::default() }
    }

    /// The session is over. What the primary said of its disk stays true, and so does, for a while,
    /// that it holds its answers (design §5.3).
    pub(super) fn forget_word(&mut self) {
        self.peer = false;
        (self.said, self.hold) = (None, None);
        (self.heard, self.must_ack) = (0, false);
    }
}

impl Node {
    pub(super) fn hear_lead(&mut self, session: SessionId, member: MemberId, lead: Box<Lead>) {
        if let Some(open) = self.session_mut(session) {
            open.lead = Some(lead.clone());
        }
        self.on_lead(session, member, &lead);
    }

    fn on_lead(&mut self, session: SessionId, member: MemberId, lead: &Lead) {
        if lead.epoch < self.state.promised {
            return self.say_overtaken(session);
        }
        if self.follow.cutting {
            // Looked at again when the log has its new end.
            return;
        }
        match self.standing {
            Part::Leading | Part::Beginning(_) if lead.epoch <= self.state.promised => return,
            Part::Leading | Part::Releasing(_) => self.step_down(),
            Part::Gate => self.become_standby(),
            Part::Candidate(_) | Part::Beginning(_) => self.give_up(Denied::GivenUp),
            Part::Standby(_) => {}
            _ => return,
        }
        self.stop_following();
        self.follow.owner = Some(lead.epoch);
        if self.went_back().is_some() {
            // To follow would undo what an operator has asked for, and not taken back.
            return;
        }
        if self.asks_instead(session, member, lead) {
            return;
        }
        let end = self.log.end();
        match self.state.history.parting(end.lsn, &lead.history, lead.end.lsn) {
            Parting::Unrelated if self.rejoins(session, member, lead.epoch, None) => {}
            Parting::Unrelated => self.refuse(session, Refusal::Unrelated),
            Parting::At { point } if point == end.lsn => self.join(session, member, lead),
            Parting::At { point } => self.part(session, member, lead, point),
        }
    }

    /// The log goes on beyond the point where the histories part (design §6.4).
    fn part(&mut self, session: SessionId, member: MemberId, lead: &Lead, point: Lsn) {
        let beyond = lead.history.first_beyond(point);
        let untouched = self.state.apply_limit <= point;
        // An old primary knows without whom it answered nothing: if that was the one who took over,
        // in that very life, nobody was answered for the tail. A set that was shrunk since is not
        // that set any more. A standby knows only what the new leader says of itself.
        let (set, by_record) = (&self.state.in_sync, self.has_register());
        let unanswered = beyond.is_some_and(|entry| match set.is_empty() {
            true => entry.began == Began::InSync,
            false => set.contains(&entry.leader) || by_record && entry.began == Began::InSync,
        });
        // Nor for an epoch that this member began itself and never came to own.
        let never_owned =
            self.state.history.first_beyond(point).filter(|own| self.began_in_vain(own));
        let at = never_owned.or(beyond).map_or(lead.end, |entry| entry.start);
        let worthless = unanswered || never_owned.is_some();
        if !(untouched && worthless && at.lsn == point) {
            if !self.rejoins(session, member, lead.epoch, Some(point)) {
                self.diverge(session, point);
            }
            return;
        }
        if let Some(open) = self.session_mut(session) {
            open.phase = Phase::Joining(Joining { epoch: lead.epoch, point: Some(at) });
        }
        let (from, to) = (point, self.log.end().lsn);
        self.out.push_back(Action::Note(Note::TailCut { from, to }));
        self.follow.cutting = true;
        self.out.push_back(Action::Truncate(at));
    }

    /// Tells the other side that this one has promised more than it leads in.
    pub(super) fn say_overtaken(&mut self, session: SessionId) {
        let promised = self.state.promised;
        let newest = self.state.history.last().filter(|entry| !self.began_in_vain(entry));
        let owned = promised == self.persist.words().owned
            || newest.is_some_and(|entry| entry.epoch == promised)
            || self.follow.owner == Some(promised);
        let refusal = Refusal::Overtaken { promised, owned };
        self.send(session, Message::Refuse(Refuse { refusal }));
    }

    /// Whoever led this replica in a lower epoch must hear that it is over, at once: it may be
    /// holding answers for a standby that has gone (design §6.0). Not the one that this replica has
    /// just promised to.
    pub(super) fn tell_former_leaders(&mut self, but: SessionId) {
        let promised = self.state.promised;
        let former = |(_, session): &(MemberId, SessionId)| {
            if *session == but {
                return false;
            }
            let lead = self.session(*session).and_then(|open| open.lead.as_ref());
            lead.is_some_and(|lead| lead.epoch < promised)
        };
        let former: Vec<_> = self.greeted_sessions().into_iter().filter(former).collect();
        for (_, session) in former {
            self.say_overtaken(session);
        }
    }

    /// Where the history of this replica parts from that of its primary, if it has diverged.
    #[must_use]
    pub fn diverged_at(&self) -> Option<Lsn> {
        self.follow.diverged
    }

    /// Nothing is discarded and nothing is applied: the replica stays as it is, promises what it is
    /// asked to promise, and can still be made primary by force where its history is wanted.
    fn diverge(&mut self, session: SessionId, fork: Lsn) {
        let from = self.place();
        self.follow.diverged = Some(fork);
        self.tell_former_leaders(session);
        self.refuse(session, Refusal::Diverged { fork });
        self.moved_from(from);
    }

    /// The tail is saved and gone, durably, before anything is written in its place (I6).
    pub(super) fn truncated(&mut self, end: LogPosition) {
        self.log.cut(end);
        self.state.history.truncate(end.lsn);
        if self.back_arrived() {
            return;
        }
        self.follow.cutting = false;
        let joining = self.peers.values().find_map(|peer| {
            let open = peer.session.as_ref()?;
            match open.phase {
                Phase::Joining(joining) => Some((peer.member, open.id, joining)),
                _ => None,
            }
        });
        // Without the session, the next hello finds a log that ends at the fork.
        let Some((member, session, joining)) = joining else {
            self.persist.touch();
            return self.hear_leads_again();
        };
        if joining.point.is_some_and(|point| point != end) {
            return self.diverge(session, end.lsn);
        }
        self.promise_and_join(session, member, joining.epoch);
    }

    fn join(&mut self, session: SessionId, member: MemberId, lead: &Lead) {
        let same_end = lead.end.lsn == self.log.end().lsn;
        if same_end && lead.end.chain != self.log.end().chain {
            return self.diverge(session, lead.end.lsn);
        }
        if let Some(open) = self.session_mut(session) {
            open.phase = Phase::Joining(Joining { epoch: lead.epoch, point: None });
        }
        self.promise_and_join(session, member, lead.epoch);
    }

    fn promise_and_join(&mut self, session: SessionId, member: MemberId, epoch: Epoch) {
        // Whoever leads had won the record before: what was read until now may be older.
        self.register.outdate();
        self.state.promised = epoch;
        self.state.in_sync.clear();
        self.state.in_set_of = None;
        self.state.release = None;
        let from = self.place();
        self.follow = Follow::of(epoch);
        self.moved_from(from);
        self.forget_refusal(member);
        self.out.push_back(Action::Note(Note::Follows(member, epoch)));
        self.persist_then(After::Join(session, epoch));
    }

    /// What was said while this replica could not follow.
    pub(super) fn hear_leads_again(&mut self) {
        let leads: Vec<_> = self
            .greeted_sessions()
            .into_iter()
            .filter_map(|(member, session)| {
                let lead = self.session(session)?.lead.clone()?;
                Some((member, session, lead))
            })
            .collect();
        for (member, session, lead) in leads {
            self.on_lead(session, member, &lead);
        }
    }

    pub(super) fn say_join(&mut self, session: SessionId, epoch: Epoch) {
        if self.state.promised != epoch || !matches!(self.standing, Part::Standby(_)) {
            return;
        }
        let (from, durable) = (self.log.end(), self.log.durable());
        let Some(open) = self.session_mut(session) else {
            return;
        };
        if !matches!(open.phase, Phase::Joining(_)) {
            return;
        }
        open.phase = Phase::Following;
        self.send(session, Message::Join(Join { epoch, from, durable }));
        self.tell_former_leaders(session);
    }

    /// Whether frames that come in now go into the log. If not, they are dropped, there is always
    /// room for them, and what comes behind them must be heard.
    #[must_use]
    pub fn keeps_frames(&self) -> bool {
        let mut open = self.peers.values().filter_map(|peer| peer.session.as_ref());
        open.any(|session| matches!(session.phase, Phase::Following | Phase::Fetching(_)))
    }

    /// Whether a standby has room for more. Its spool is full only while there is something in it
    /// that may be applied: the primary's word about the rest comes behind the next frames. A
    /// candidate that fetches always has room.
    #[must_use]
    pub fn takes_frames(&self) -> bool {
        let (end, applied) = (self.log.end().lsn, self.log.applied());
        let allowed = self.log.durable().min(self.follow.may_apply);
        let full = end.since(applied) >= self.config.spool_limit && applied < allowed;
        !(full && matches!(self.standing, Part::Standby(_)))
    }

    pub(super) fn frame_in(&mut self, session: SessionId, frame: Frame) {
        let now = self.clock.now;
        let Some(member) = self.member_of(session) else {
            return;
        };
        let Some(open) = self.session_mut(session) else {
            return;
        };
        open.heard_at = now;
        let fetch_end = match open.phase {
            Phase::Following => None,
            Phase::Fetching(end) => Some(end.lsn),
            // What was under way when a promise ended the session's purpose.
            _ => return,
        };
        if self.state.history.check_next(self.log.end(), &frame).is_err() {
            return self.refuse(session, Refusal::Protocol);
        }
        self.keep(&frame);
        if fetch_end.is_some_and(|end| self.log.end().lsn >= end) {
            if let Some(open) = self.session_mut(session) {
                open.phase = Phase::Idle;
            }
            self.fetched(member);
        }
    }

    pub(super) fn on_progress(&mut self, session: SessionId, member: MemberId, progress: Progress) {
        let following =
            self.session_mut(session).is_some_and(|open| matches!(open.phase, Phase::Following));
        if !following || progress.epoch != self.state.promised {
            return;
        }
        self.hear_word(member, &progress);
        let clock = self.clock;
        let follow = &mut self.follow;
        follow.may_apply = follow.may_apply.max(progress.may_apply);
        if progress.end > follow.primary_end {
            follow.primary_end = progress.end;
            follow.ahead.grow(progress.end, clock.now, clock.wall);
        }
        (follow.peer, follow.hold) = (progress.peer, progress.hold);
        self.log.want(progress.wanted);
        let (epoch, incarnation) = (progress.epoch, self.state.incarnation);
        let word = progress.in_set.then_some(InSetOf { epoch, incarnation });
        if self.state.in_set_of != word || self.state.mode != progress.mode {
            self.state.in_set_of = word;
            self.state.mode = progress.mode;
            self.persist.touch();
        }
    }

    pub(super) fn stop_following(&mut self) {
        self.follow.forget_word();
        for peer in self.peers.values_mut() {
            if let Some(session) = &mut peer.session
                && matches!(session.phase, Phase::Following | Phase::Joining(_) | Phase::Sinking(_))
            {
                session.phase = Phase::Idle;
            }
        }
    }

    fn ack(&self) -> Ack {
        let applied = self.log.applied();
        let (epoch, received) = (self.state.promised, self.log.end().lsn);
        let (heard, stamp) = (self.follow.heard, self.clock.now);
        Ack { epoch, received, durable: self.log.durable(), applied, heard, stamp }
    }

    pub(super) fn say_ack_if_due(&mut self, session: SessionId, quiet: bool) {
        let ack = self.ack();
        let positions = Some([ack.received, ack.durable, ack.applied]);
        if quiet || self.follow.must_ack || self.follow.said != positions {
            (self.follow.said, self.follow.must_ack) = (positions, false);
            self.send(session, Message::Ack(ack));
        }
    }
}

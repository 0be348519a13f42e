//! Planned takeover (design §6.1): the primary hands over, the standby begins.
//!
//! The old primary holds its clients, appends the handover, waits until that is durable on both
//! sides, records that it is a standby, and only then says so. A failure before the record leaves
//! the old primary in service; a failure after it leaves two standbys, of which the named one goes
//! on as soon as they meet (holes, story 11). Two primaries are no outcome.

use std::collections::BTreeSet;

use super::lead::{Candidate, Wish};
use super::peer::Peer;
use super::persist::After;
use super::{Action, Denied, Done, Limits, Node, Note, Part};
use crate::frame::{Began, Draft, HEAD_LEN};
use crate::ids::{Epoch, Lsn, MemberId, SessionId};
use crate::replica::{Release, Role};
use crate::time::Now;
use crate::wire::{Message, Refusal, Refuse, TakeoverAsk};

/// A gap that is closed while clients are held; above it, the standby catches up first.
const PRECOPY_GAP_BYTES: u64 = 4 << 20;

/// A standby that has asked its primary to hand over.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    /// The operator's; none: it does so by itself.
    pub(super) command: Option<u64>,
    pub(super) primary: MemberId,
    limits: Limits,
    /// When it gives up catching up.
    deadline: Now,
    /// What it asked for; nothing while it still catches up.
    pub(super) asked: Option<Epoch>,
    /// The operator wants it no more.
    cancelled: bool,
}

/// An old primary on its way out.
#[derive(Clone, Debug)]
pub(super) struct Releasing {
    pub(super) to: MemberId,
    epoch: Epoch,
    deadline: Now,
    pub(super) step: Step,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// The driver appends what it has taken from clients.
    Holding,
    /// The handover is in the log, up to here.
    Draining(Lsn),
    /// The record is being written; there is no way back.
    Recording,
}

impl Releasing {
    pub(super) fn takes_appends(&self) -> bool {
        self.step == Step::Holding
    }
}

impl Node {
    /// The standby catches up first, then asks its primary to hand over.
    pub(super) fn planned_takeover(
        &mut self,
        command: Option<u64>,
        limits: Limits,
        test: bool,
    ) -> Option<Result<Done, Denied>> {
        match &self.standing {
            Part::Leading | Part::Releasing(_) => return Some(Err(Denied::AlreadyPrimary)),
            Part::Standby(None) => {}
            Part::Gate | Part::Waking(_) => return Some(Err(Denied::NotFollowing)),
            _ => return Some(Err(Denied::Busy)),
        }
        let fits = |refusal: Option<Refusal>| refusal.is_none_or(|why| why == Refusal::NotNow);
        let fit = |peer: &&Peer| peer.is_following() && fits(peer.refusal);
        let primary = self.peers.values().find(fit);
        let Some(primary) = primary.map(|peer| peer.member) else {
            return Some(Err(Denied::NotFollowing));
        };
        if test {
            return Some(Ok(Done::WouldLead));
        }
        let deadline = self.clock.now.after(limits.max_total);
        let (asked, cancelled) = (None, false);
        let asking = Asking { command, primary, limits, deadline, asked, cancelled };
        self.go(Part::Standby(Some(asking)));
        None
    }

    /// Near enough: the primary is asked. Too late: it is not.
    pub(super) fn settle_asking(&mut self) {
        let (now, end) = (self.clock.now, self.log.end().lsn);
        let gap = self.follow.primary_end.since(end);
        let epoch = self.next_epoch();
        let Part::Standby(Some(asking)) = &mut self.standing else { return };
        let (primary, max_quiesce) = (asking.primary, asking.limits.max_quiesce);
        if asking.asked.is_some() {
            return;
        }
        if now >= asking.deadline {
            return self.end_asking(Denied::TookTooLong);
        }
        let session = self.peers.get(&primary).filter(|peer| peer.is_following());
        let session = session.and_then(|peer| Some(peer.session.as_ref()?.id));
        if let Some(session) = session.filter(|_| gap <= PRECOPY_GAP_BYTES) {
            asking.asked = Some(epoch);
            let by = self.state.member;
            self.send(session, Message::TakeoverAsk(TakeoverAsk { epoch, by, max_quiesce }));
        }
    }

    pub(super) fn asking_deadline(&self) -> Option<Now> {
        match &self.standing {
            Part::Standby(Some(asking)) if asking.asked.is_none() => Some(asking.deadline),
            _ => None,
        }
    }

    fn end_asking(&mut self, why: Denied) {
        if let Part::Standby(asking) = &mut self.standing
            && let Some(asking) = asking.take()
        {
            let why = if asking.cancelled { Denied::Cancelled } else { why };
            self.out.push_back(Action::Note(Note::GivenUp(why)));
            if let Some(id) = asking.command {
                self.out.push_back(Action::Reply { id, result: Err(why) });
            }
        }
    }

    /// The operator gives a takeover up. Once the primary was asked, the primary decides.
    pub(super) fn cancel_takeover(&mut self) -> Result<Done, Denied> {
        match &mut self.standing {
            Part::Standby(Some(asking)) => {
                asking.cancelled = true;
                let (asked, primary) = (asking.asked, asking.primary);
                let session = self.peers.get(&primary).and_then(|peer| peer.session.as_ref());
                match (asked, session.map(|session| session.id)) {
                    (Some(epoch), Some(session)) => {
                        self.send(session, Message::TakeoverCancel(epoch));
                    }
                    _ => self.end_asking(Denied::Cancelled),
                }
                Ok(Done::CancelAsked)
            }
            // Once the old primary has handed over, there is no way back.
            Part::Candidate(Candidate { began, command: Some(_), .. })
                if *began != Began::Planned =>
            {
                self.give_up(Denied::Cancelled);
                Ok(Done::CancelAsked)
            }
            _ => Err(Denied::NothingToCancel),
        }
    }

    /// The old primary's side of a cancel.
    pub(super) fn on_takeover_cancel(&mut self, member: MemberId, epoch: Epoch) {
        if let Part::Releasing(releasing) = &self.standing
            && releasing.to == member
            && releasing.epoch == epoch
            && releasing.step != Step::Recording
        {
            self.go_on(member);
        }
    }

    /// The old primary's side begins.
    pub(super) fn on_takeover_ask(
        &mut self,
        session: SessionId,
        member: MemberId,
        ask: TakeoverAsk,
    ) {
        let peer = self.peers.get(&member).and_then(|peer| peer.feed());
        let end = self.log.end().lsn;
        let near = peer.is_some_and(|feed| end.since(feed.received) <= 2 * PRECOPY_GAP_BYTES);
        let fits = self.is_leading() && near && ask.by == member && ask.epoch > self.state.owned;
        if !fits {
            let refusal = Refusal::NotNow;
            return self.send(session, Message::Refuse(Refuse { refusal }));
        }
        let deadline = self.clock.now.after(ask.max_quiesce.min(Limits::QUIESCE_MAX));
        let (to, epoch) = (member, ask.epoch);
        self.go(Part::Releasing(Releasing { to, epoch, deadline, step: Step::Holding }));
        self.out.push_back(Action::Hold(true));
    }

    /// Every request that was taken is in the log; the handover goes behind them.
    pub(super) fn held(&mut self) {
        let Part::Releasing(releasing) = &mut self.standing else {
            return;
        };
        if releasing.step != Step::Holding {
            return;
        }
        let (to, epoch) = (releasing.to, releasing.epoch);
        let mut draft = Draft::new(vec![0; HEAD_LEN]);
        let added = draft.handover(to, epoch);
        assert!(added.is_ok(), "an empty frame has room for one record");
        let end = self.append_own(draft);
        self.log.want(end);
        if let Part::Releasing(releasing) = &mut self.standing {
            releasing.step = Step::Draining(end);
        }
    }

    /// Up to where the standby shall be durable before the handover is recorded.
    pub(super) fn handover_end(&self) -> Option<Lsn> {
        match &self.standing {
            Part::Releasing(Releasing { step: Step::Draining(end), .. }) => Some(*end),
            _ => None,
        }
    }

    pub(super) fn settle_releasing(&mut self) {
        let Part::Releasing(releasing) = &self.standing else {
            return;
        };
        let (to, epoch, late) =
            (releasing.to, releasing.epoch, releasing.deadline <= self.clock.now);
        let feed = self.peers.get(&to).and_then(|peer| peer.feed());
        let there = feed.map(|feed| feed.durable);
        match releasing.step {
            Step::Recording => {}
            _ if there.is_none() || late => self.go_on(to),
            Step::Draining(end)
                if self.log.durable() >= end
                    && there >= Some(end)
                    && self.answers.writes >= end =>
            {
                let release = Release { to, epoch, lsn: end };
                self.state.role = Role::Standby;
                self.state.release = Some(release);
                self.state.in_sync.clear();
                if let Part::Releasing(releasing) = &mut self.standing {
                    releasing.step = Step::Recording;
                }
                self.persist_then(After::Released(release));
            }
            _ => {}
        }
    }

    /// The handover is given up: the old primary goes on as if nobody had asked.
    fn go_on(&mut self, to: MemberId) {
        self.go(Part::Leading);
        self.out.push_back(Action::Note(Note::GivenUp(Denied::GivenUp)));
        self.let_in_again();
        self.greet_latecomers();
        if let Some(session) = self.peers.get(&to).and_then(|peer| Some(peer.session.as_ref()?.id))
        {
            let refusal = Refusal::NotNow;
            self.send(session, Message::Refuse(Refuse { refusal }));
        }
    }

    /// Whoever introduced itself while the handover was under way has not heard who leads.
    fn greet_latecomers(&mut self) {
        for (member, session) in self.greeted_sessions() {
            let peer = self.peers.get(&member);
            let life = peer.and_then(|peer| Some(peer.hello()?.life));
            let fed = peer.is_some_and(|peer| peer.feed().is_some());
            if let Some(life) = life.filter(|_| !fed) {
                self.life_seen(life);
                self.say_lead(session);
            }
        }
    }

    pub(super) fn released(&mut self, release: Release) {
        if !matches!(self.standing, Part::Releasing(_)) {
            return;
        }
        self.go(Part::Standby(None));
        self.out.push_back(Action::Note(Note::SteppedDown(self.state.owned)));
        self.insync.reset(&self.state);
        self.end_service();
        self.stop_feeding();
        let session = self.peers.get(&release.to).and_then(|peer| Some(peer.session.as_ref()?.id));
        if let Some(session) = session {
            self.send(session, Message::HandedOver(release));
        }
    }

    pub(super) fn on_handed_over(&mut self, member: MemberId, release: Release) {
        if release.to == self.state.member && member != self.state.member {
            self.accept_release(release);
        }
    }

    /// The old primary is a standby, durably: this member begins, unless it has promised more
    /// meanwhile or lacks the end of the log.
    pub(super) fn accept_release(&mut self, release: Release) {
        let newest = self.state.history.epoch();
        // An epoch that this member began for this very release, and died before it owned it,
        // stands in the log and is nobody's.
        let in_vain = self.state.history.last().is_some_and(|entry| self.began_in_vain(entry));
        // Somebody has taken over since by force, and owns a higher epoch: what the old primary
        // had to hand over is no longer its own (design §6.0).
        let void = !self.has_register() && self.owner_heard().is_some_and(|owned| owned > newest);
        let Part::Standby(asking) = &mut self.standing else {
            return;
        };
        let command = asking.take().and_then(|asking| asking.command);
        let fits = !self.follow.cutting
            && !void
            && self.log.end().lsn >= release.lsn
            && (newest < release.epoch || in_vain);
        if !fits {
            if let Some(id) = command {
                self.out.push_back(Action::Note(Note::GivenUp(Denied::GivenUp)));
                self.out.push_back(Action::Reply { id, result: Err(Denied::GivenUp) });
            }
            return;
        }
        self.stop_following();
        let epoch = match release.epoch > self.state.promised {
            true => release.epoch,
            false => self.next_epoch(),
        };
        let (began, need) = (Began::Planned, BTreeSet::new());
        let (force, by_proof, over) = (true, false, None);
        self.stand(epoch, Wish { began, force, by_proof, over, need, command });
    }

    pub(super) fn asking_refused(&mut self, member: MemberId) {
        if let Part::Standby(Some(asking)) = &self.standing
            && asking.primary == member
        {
            self.end_asking(Denied::GivenUp);
        }
    }

    pub(super) fn asking_lost(&mut self, member: MemberId) {
        self.asking_refused(member);
    }
}

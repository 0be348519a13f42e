//! Comparing a standby's image with the primary's while clients write, and repairing what differs
//! (design §8.4).
//!
//! Both images are brought to one and the same position and held there for as long as it takes to
//! compare a piece of the volumes; clients go on meanwhile, into the log. Then both go on, and
//! later comes the next piece. So every piece is compared as of one position, and what differs does
//! differ: there is no false report, and no write between two looks that could hide a fault.
//!
//! A repair is made while both images are held, too: so what it writes is what the wrong side would
//! hold at that very position, and its image only comes nearer to what its log says.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::{Action, Denied, Done, Node, Note};
use crate::divergence::Changed;
use crate::ids::{Lsn, MemberId, SessionId};
use crate::resync::{MINE_MAX, Right};
use crate::time::{Now, WallTime};

/// Longest that both sides take to come to rest; then clients may have more room first.
const SETTLE_MAX: Duration = Duration::from_secs(5);
/// Longest that both images are held for one piece: meanwhile clients fill the log.
const COMPARE_MAX: Duration = Duration::from_secs(30);

/// What a primary compares, and what it compared last.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Verify {
    running: Option<Running>,
    last: Option<VerifyStatus>,
    /// None is begun by schedule before.
    pub(super) not_before: Now,
}

#[derive(Clone, Debug)]
struct Running {
    session: SessionId,
    hold: Option<Hold>,
    /// When the next piece is begun.
    next_at: Now,
    status: VerifyStatus,
}

/// Both images are at this position, or come to it.
#[derive(Clone, Copy, Debug)]
struct Hold {
    at: Lsn,
    since: Now,
    compares: bool,
}

/// What a comparison of two images has found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VerifyStatus {
    /// With whose image that of this primary is compared.
    pub member: MemberId,
    /// Bytes compared.
    pub done: u64,
    /// Bytes to be compared in all; none before the first piece was.
    pub total: u64,
    /// Where the two differ, in whole leaves; the first of them, if there are many.
    pub differs: Vec<Changed>,
    /// More differs than is listed.
    pub differs_more: bool,
    /// Whose bytes are right, where what differs is repaired.
    #[serde(default)]
    pub right: Option<MemberId>,
    /// Bytes of what differed that were repaired.
    #[serde(default)]
    pub repaired: u64,
    /// When it began, by this member's wall clock.
    pub began_us: u64,
    /// Microseconds that it has taken.
    pub took_us: u64,
    /// Whether it is under way, has come to its end, or was cut short.
    pub state: VerifyState,
}

/// Where a comparison stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyState {
    /// Under way.
    Running,
    /// Everything was compared.
    Done,
    /// The standby was lost, or the primary leads no more: the rest was not compared.
    CutShort,
}

impl Hold {
    const fn limit(&self) -> Duration {
        if self.compares { COMPARE_MAX } else { SETTLE_MAX }
    }
}

impl Node {
    /// An operator wants to know whether a standby holds what it should; or to have what differs
    /// made what it is `from` that member.
    pub(in super::super) fn begin_verify(
        &mut self,
        member: Option<MemberId>,
        from: Option<MemberId>,
    ) -> Result<Done, Denied> {
        if !self.is_leading() {
            return Err(Denied::NotPrimary);
        }
        if self.verify.running.is_some() {
            return Err(Denied::Busy);
        }
        if self.growing.is_under_way() {
            return Err(Denied::Grows);
        }
        if !self.config.replay_delay.is_zero() {
            return Err(Denied::Delayed);
        }
        let (member, right) = match from {
            None => (member, None),
            Some(from) if from == self.state.member => (member, Some(Right::Primary)),
            Some(from) if member.is_none_or(|member| member == from) => {
                (Some(from), Some(Right::Standby))
            }
            Some(_) => return Err(Denied::NotOfTheTwo),
        };
        let wanted = |of: &MemberId| member.is_none_or(|wanted| wanted == *of);
        let fed = self.peers.values().find(|peer| wanted(&peer.member) && peer.feed().is_some());
        let Some((member, session)) = fed.and_then(|p| Some((p.member, p.session.as_ref()?.id)))
        else {
            return Err(Denied::NobodyFollows);
        };
        let status = VerifyStatus {
            member,
            done: 0,
            total: 0,
            differs: Vec::new(),
            differs_more: false,
            right: from,
            repaired: 0,
            began_us: WallTime::as_micros(self.clock.wall),
            took_us: 0,
            state: VerifyState::Running,
        };
        let next_at = self.clock.now;
        self.verify.running = Some(Running { session, hold: None, next_at, status });
        self.out.push_back(Action::BeginCompare { session, right });
        Ok(Done::Verifies)
    }

    /// What is compared, or was last.
    pub(in super::super) fn verify_status(&self) -> Option<VerifyStatus> {
        let running = self.verify.running.as_ref().map(|running| &running.status);
        running.or(self.verify.last.as_ref()).cloned()
    }

    pub(super) fn is_comparing(&self) -> bool {
        self.verify.running.is_some()
    }

    /// To where a primary's image may go while it is compared.
    pub(in super::super) fn compared_at(&self) -> Option<Lsn> {
        Some(self.verify.running.as_ref()?.hold?.at)
    }

    /// The same, for what a standby is told.
    pub(in super::super) fn held_for(&self, member: MemberId) -> Option<Lsn> {
        let running = self.verify.running.as_ref().filter(|run| run.status.member == member)?;
        Some(running.hold?.at)
    }

    pub(in super::super) fn verify_deadline(&self) -> Option<Now> {
        let running = self.verify.running.as_ref()?;
        Some(running.hold.map_or(running.next_at, |hold| hold.since.after(hold.limit())))
    }

    pub(super) fn settle_verify(&mut self) {
        let Some(running) = &self.verify.running else { return };
        let (session, member) = (running.session, running.status.member);
        let peer = self.peers.get(&member);
        let feed = peer.and_then(|peer| peer.feed()).filter(|_| self.is_leading());
        let same = peer.and_then(|peer| peer.session.as_ref()).is_some_and(|s| s.id == session);
        let Some((told, applied)) = feed.filter(|_| same).map(|feed| (feed.told, feed.applied))
        else {
            return self.end_verify(VerifyState::CutShort);
        };
        let now = self.clock.now;
        match running.hold {
            None if running.next_at <= now => {
                let at = told.max(self.state.apply_limit);
                self.hold_compared(Some(Hold { at, since: now, compares: false }));
                // Both may be there already.
                self.settle_verify();
            }
            Some(hold) if !hold.compares => {
                let here = self.log.applied() == hold.at && self.state.apply_limit == hold.at;
                if here && applied == hold.at {
                    self.hold_compared(Some(Hold { compares: true, ..hold }));
                    self.out.push_back(Action::Compare { session });
                } else if now >= hold.since.after(SETTLE_MAX) {
                    self.let_go(SETTLE_MAX);
                }
            }
            Some(hold) if now >= hold.since.after(hold.limit()) => {
                self.end_verify(VerifyState::CutShort);
            }
            _ => {}
        }
    }

    /// The image cannot be read.
    pub(super) fn compare_failed(&mut self, session: SessionId) {
        if self.verify.running.as_ref().is_some_and(|running| running.session == session) {
            self.end_verify(VerifyState::CutShort);
        }
    }

    fn hold_compared(&mut self, hold: Option<Hold>) {
        let Some(running) = &mut self.verify.running else { return };
        let changed = running.hold.map(|hold| hold.at) != hold.map(|hold| hold.at);
        running.hold = hold;
        let member = running.status.member;
        if changed {
            self.say_progress(member);
        }
    }

    /// Both images go on, for at least so long.
    fn let_go(&mut self, pause: Duration) {
        let now = self.clock.now;
        if let Some(running) = &mut self.verify.running {
            running.next_at = now.after(pause);
        }
        self.hold_compared(None);
    }

    /// A piece is compared; clients get as much time as that took before the next.
    pub(in super::super) fn compared(
        &mut self,
        session: SessionId,
        (done, total): (u64, u64),
        (differs, repaired): (&[Changed], u64),
    ) {
        let (now, wall) = (self.clock.now, self.clock.wall);
        let Some(running) = self.verify.running.as_mut().filter(|run| run.session == session)
        else {
            return;
        };
        let Some(hold) = running.hold.filter(|hold| hold.compares) else { return };
        let status = &mut running.status;
        (status.done, status.total) = (done, total);
        status.took_us = wall.as_micros().saturating_sub(status.began_us);
        let room = MINE_MAX.saturating_sub(status.differs.len());
        status.differs.extend(differs.iter().take(room));
        status.differs_more |= differs.len() > room;
        status.repaired += repaired;
        let pause = now.since(hold.since);
        if done >= total {
            self.end_verify(VerifyState::Done);
        } else {
            self.let_go(pause);
        }
    }

    fn end_verify(&mut self, state: VerifyState) {
        self.hold_compared(None);
        let Some(Running { session, mut status, .. }) = self.verify.running.take() else { return };
        status.state = state;
        let (member, differs) = (status.member, bytes_of(&status.differs));
        let (repaired, began_us) = (status.repaired, status.began_us);
        self.verify.last = Some(status);
        self.out.push_back(Action::EndCompare { session });
        let note = match state {
            VerifyState::CutShort => {
                self.verify_failed();
                Note::VerifyCutShort(member)
            }
            _ => {
                self.verify_ended(member, began_us, (differs, repaired));
                Note::Verified { member, differs, repaired }
            }
        };
        self.out.push_back(Action::Note(note));
    }

    /// A standby's side: while its image is held at one position, it answers what it is asked.
    pub(super) fn settle_compared(&mut self) {
        let following = self.peers.values().find(|peer| peer.is_following());
        let session = following.and_then(|peer| Some(peer.session.as_ref()?.id));
        let wanted = session.filter(|_| self.follow.hold.is_some());
        if self.resync.compared == wanted {
            return;
        }
        if let Some(session) = self.resync.compared.take() {
            self.out.push_back(Action::EndAnswers { session });
        }
        if let Some(session) = wanted {
            self.out.push_back(Action::AnswerCompare { session });
        }
        self.resync.compared = wanted;
    }
}

fn bytes_of(ranges: &[Changed]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

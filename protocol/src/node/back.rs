//! Going back: a takeover by force whose history goes on from a point of the past (design §6.2,
//! §8.5), to undo what was replicated to everybody.
//!
//! ```text
//! the image rests, nobody is followed → what differs at the point is staged, and what is given up
//!   is in quarantine, durably → one record: a new life, "went back", and the image switches
//!   → image and log are at the point → a takeover by force, which fetches nothing
//! ```
//!
//! A point that is not in the image yet needs no staging: after the same record the log is cut
//! there.
//!
//! - A crash before the record leaves everything as it was: this member follows again.
//! - A crash behind it leaves a standby at the point, or on its way there, that follows nobody and
//!   says so. Whether it still is to lead, only an operator knows: meanwhile the others may have
//!   gone on. The command is given again, or `rejoin` gives it up.
//!
//! The record makes this member a new life, because what the old one has acknowledged is here no
//! more (design §5.4). So no in-sync set counts it, and the tail of whoever has gone on beyond the
//! point is never taken for one that nobody was answered for: they come back by a rejoin.

use super::follow::Follow;
use super::persist::After;
use super::{Action, Answers, Denied, Done, Node, Note, Part};
use crate::frame::LogPosition;
use crate::ids::{Epoch, Lsn, MemberId};
use crate::replica::{Image, WentBack};
use crate::wire::Goodbye;

/// A member on its way back.
#[derive(Clone, Debug)]
pub(super) struct Back {
    command: u64,
    /// The owner and epoch that the operator answers for.
    over: Option<(MemberId, Epoch)>,
    to: LogPosition,
    step: Step,
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// The image comes to rest.
    Settling,
    /// What differs at the point is staged, and what is given up goes to quarantine.
    Staging,
    /// The new life is being recorded, with where it begins. Nothing is said meanwhile.
    Recording,
    /// Image and log follow.
    Moving,
}

impl Node {
    /// Takes over by force at a point of this replica's own history.
    pub(super) fn go_back(
        &mut self,
        id: u64,
        over: Option<(MemberId, Epoch)>,
        to: LogPosition,
        test: bool,
    ) -> Option<Result<Done, Denied>> {
        if let Err(why) = self.may_go_back(over, to) {
            return Some(Err(why));
        }
        if test {
            return Some(Ok(Done::WouldLead));
        }
        let from = self.log.end().lsn;
        self.out.push_back(Action::Note(Note::GoesBack { to: to.lsn, from }));
        // In order: nobody waits for this member from here on.
        self.say_goodbye(Goodbye::Stopping);
        self.stop_following();
        let place = self.place();
        (self.follow.diverged, self.follow.proof) = (None, None);
        self.moved_from(place);
        // Nothing joins the log, and nothing is promised, until it has its new end.
        self.follow.cutting = true;
        self.log.want(self.log.end().lsn);
        self.back = Some(Back { command: id, over, to, step: Step::Settling });
        None
    }

    fn may_go_back(&self, over: Option<(MemberId, Epoch)>, to: LogPosition) -> Result<(), Denied> {
        match &self.standing {
            Part::Standby(None) => {}
            Part::Standby(Some(_)) | Part::Candidate(_) | Part::Beginning(_) => {
                return Err(Denied::Busy);
            }
            _ => return Err(Denied::LeadsYet),
        }
        let copied = self.is_sinking() || self.resync.is_compared() || self.seeding.is_some();
        // A growth changes what the sizes of everything staged would be.
        if self.follow.cutting || copied || self.growing.is_under_way() {
            return Err(Denied::Busy);
        }
        if to.lsn > self.log.end().lsn {
            return Err(Denied::NoSuchPoint);
        }
        if let Some(why) = self.owner_is_out_of_reach().filter(|_| over.is_none()) {
            return Err(why);
        }
        match self.record() {
            _ if !self.has_register() => Ok(()),
            // Its life will be one that no set counts: only an operator can answer for that.
            Some(record) if over != Some((record.owner.member, record.epoch)) => {
                let (owner, epoch) = (record.owner.member, record.epoch);
                Err(Denied::GivesUpSet { owner, epoch })
            }
            Some(_) => Ok(()),
            None if self.register.is_fresh() => Ok(()),
            None => Err(Denied::NoRecord),
        }
    }

    /// The point that this member has gone back to, and has not led from yet.
    pub(super) fn went_back(&self) -> Option<WentBack> {
        self.state.went_back
    }

    /// The point that it is going back to.
    pub(super) fn goes_back_to(&self) -> Option<LogPosition> {
        self.back.as_ref().map(|back| back.to)
    }

    /// Whether it is nobody at the moment: its old life is over, and the new one not durable.
    pub(super) fn is_between_lives(&self) -> bool {
        self.back.as_ref().is_some_and(|back| back.step == Step::Recording)
    }

    pub(super) fn settle_back(&mut self) {
        let Some(back) = &self.back else { return };
        let (to, step) = (back.to, back.step);
        if !matches!(self.standing, Part::Standby(None)) {
            return self.leave_back();
        }
        let durable = self.log.durable() == self.log.end().lsn;
        let rests = self.image_rests() && durable && self.persist.is_quiet();
        if step != Step::Settling || !rests {
            return;
        }
        if to.lsn < self.state.apply_limit {
            self.back_at(Step::Staging);
            self.out.push_back(Action::Rewind(to));
        } else {
            self.record_back();
        }
    }

    fn back_at(&mut self, step: Step) {
        if let Some(back) = &mut self.back {
            back.step = step;
        }
    }

    /// What differs at the point is whole and durable beside the image, and nothing that is given
    /// up is lost; or not.
    pub(super) fn rewound(&mut self, whole: bool) {
        match self.back.as_ref().map(|back| back.step) {
            Some(Step::Staging) if whole => self.record_back(),
            Some(Step::Staging) => {
                self.out.push_back(Action::DropStaging);
                self.end_back(Denied::NotRewound);
            }
            _ => {}
        }
    }

    /// The one write that everything hangs on.
    fn record_back(&mut self) {
        let Some(to) = self.goes_back_to() else { return };
        // Whoever has come since the last goodbye knows the life that ends here.
        self.say_goodbye(Goodbye::Stopping);
        self.back_at(Step::Recording);
        let from = self.state.went_back.map_or(self.log.end().lsn, |went| went.from);
        let from = from.max(self.log.end().lsn);
        let in_image = to.lsn < self.state.apply_limit;
        // What was said in the old history, and answered in it, holds for that one only.
        (self.answers, self.promised_commits) = (Answers::default(), Lsn::START);
        self.peers.values_mut().for_each(|peer| peer.kept = None);
        let owner = self.follow.owner;
        self.follow = Follow::default();
        (self.follow.owner, self.follow.cutting) = (owner, true);
        let state = &mut self.state;
        state.incarnation = state.incarnation.next_at(self.clock.wall);
        state.went_back = Some(WentBack { to, from });
        state.in_sync.clear();
        (state.in_set_of, state.rejoin) = (None, false);
        if in_image {
            state.history.truncate(to.lsn);
            (state.checkpoint, state.apply_limit, state.image) = (to, to.lsn, Image::Switching);
            self.resync.switching = true;
            self.begin_at(to);
        }
        self.persist_then(After::WentBack(to));
    }

    /// The new life is durable: it introduces itself, and image and log go where it begins.
    pub(super) fn back_recorded(&mut self, to: LogPosition) {
        if !self.is_between_lives() {
            return;
        }
        self.back_at(Step::Moving);
        self.greet_everyone();
        if self.resync.switching {
            self.out.push_back(Action::SwitchImage(to));
        } else if to.lsn < self.log.end().lsn {
            self.out.push_back(Action::Truncate(to));
        } else {
            self.back_arrived();
        }
    }

    /// Image and log end at the point: the takeover. Whether that is what they were moved for.
    pub(super) fn back_arrived(&mut self) -> bool {
        let moving = |back: &mut Back| back.step == Step::Moving;
        let Some(back) = self.back.take_if(moving) else { return false };
        self.follow.cutting = false;
        self.out.push_back(Action::Note(Note::WentBack(back.to.lsn)));
        if matches!(self.standing, Part::Standby(None)) {
            self.stand_by_force(false, back.over, Some(back.command));
        } else {
            let (id, result) = (back.command, Err(Denied::Stopping));
            self.out.push_back(Action::Reply { id, result });
        }
        true
    }

    /// An operator gives it up, as long as nothing was recorded.
    pub(super) fn cancel_back(&mut self) -> Option<Result<Done, Denied>> {
        let step = self.back.as_ref()?.step;
        if !matches!(step, Step::Settling | Step::Staging) {
            return Some(Err(Denied::NothingToCancel));
        }
        self.drop_rewind(step);
        self.end_back(Denied::Cancelled);
        Some(Ok(Done::CancelAsked))
    }

    /// Another part has begun for this member, such as its end. What was recorded stays so.
    fn leave_back(&mut self) {
        let Some(step) = self.back.as_ref().map(|back| back.step) else { return };
        let unfit = matches!(self.standing, Part::Unfit(_));
        match step {
            _ if unfit => self.end_back(Denied::Unfit),
            Step::Settling | Step::Staging => {
                self.drop_rewind(step);
                self.end_back(Denied::Stopping);
            }
            // They go on to the end of what was recorded, and hear of it there.
            Step::Recording | Step::Moving => {}
        }
    }

    fn drop_rewind(&mut self, step: Step) {
        if step == Step::Staging {
            self.out.push_back(Action::EndRewind);
            self.out.push_back(Action::DropStaging);
        }
    }

    /// It comes to nothing, and this member is the standby that it was.
    fn end_back(&mut self, why: Denied) {
        let Some(back) = self.back.take() else { return };
        self.follow.cutting = false;
        self.out.push_back(Action::Note(Note::GivenUp(why)));
        self.out.push_back(Action::Reply { id: back.command, result: Err(why) });
        self.hear_leads_again();
    }

    /// A member that went back and did not lead is to follow again, after all.
    pub(super) fn give_up_back(&mut self) -> bool {
        let was = self.state.went_back.take().is_some();
        if was {
            self.persist.touch();
            self.hear_leads_again();
        }
        was
    }
}

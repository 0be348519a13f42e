//! An image that is written into a file, to be carried to another host (design §8.1): the driver
//! reads it beside everything else and again what changes, and the core holds it still for the last
//! of it. It is that of one position then, like what a standby is sent.

use super::super::{Action, Denied, Done, Node, Part};
use super::source::{REST_MAX, Rest};
use crate::frame::LogPosition;
use crate::ids::{Lsn, MemberId, SessionId};
use crate::resync::{Scope, Way};
use crate::time::Now;

/// The export under way.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Seeding {
    /// The driver's number for it.
    session: SessionId,
    rest: Rest,
    /// Who will be created from it: what it lacks then is noted from here on.
    absent: Option<MemberId>,
}

impl Node {
    /// An operator wants the image in a file.
    pub(in super::super) fn begin_seed(
        &mut self,
        session: SessionId,
        absent: Option<MemberId>,
    ) -> Result<Done, Denied> {
        if absent.is_some() && !self.is_leading() {
            return Err(Denied::NotPrimary);
        }
        if self.seeding.is_some() {
            return Err(Denied::Busy);
        }
        if self.growing.is_under_way() {
            return Err(Denied::Grows);
        }
        self.can_seed()?;
        self.seeding = Some(Seeding { session, rest: Rest::Far, absent });
        let scope = Scope { way: Way::Digests, map_of: self.state.member, log_from: Lsn::START };
        self.out.push_back(Action::Source { session, scope });
        Ok(Done::Seeds)
    }

    /// Whether the image is one that can be exported: a point of a history, and one that stays.
    fn can_seed(&self) -> Result<(), Denied> {
        match self.standing {
            Part::Unfit(_) => Err(Denied::Unfit),
            Part::Stopping(_) | Part::Stopped => Err(Denied::Stopping),
            _ if !self.is_complete() || self.is_sinking() => Err(Denied::Incomplete),
            _ => Ok(()),
        }
    }

    pub(in super::super) fn seed_near_end(&mut self, session: SessionId) {
        let seeding = self.seeding.as_mut().filter(|seeding| seeding.session == session);
        if let Some(seeding) = seeding.filter(|seeding| seeding.rest == Rest::Far) {
            seeding.rest = Rest::Wanted;
        }
    }

    /// The image rests when it is to, and goes on when that takes too long.
    pub(super) fn settle_seed(&mut self) {
        let Some(Seeding { session, rest, .. }) = self.seeding else { return };
        if let Err(why) = self.can_seed() {
            return self.end_seed(Some(why));
        }
        let now = self.clock.now;
        match rest {
            Rest::Wanted if self.image_rests() => {
                self.set_rest(Rest::Begun(now));
                self.out.push_back(Action::FinishSource { session });
            }
            Rest::Begun(since) if now >= since.after(REST_MAX) => {
                self.end_seed(Some(Denied::RestedTooLong));
            }
            _ => {}
        }
    }

    fn set_rest(&mut self, rest: Rest) {
        self.seeding.iter_mut().for_each(|seeding| seeding.rest = rest);
    }

    fn end_seed(&mut self, why: Option<Denied>) {
        let Some(Seeding { session, .. }) = self.seeding.take() else { return };
        self.out.push_back(Action::EndSource { session });
        if let Some(why) = why {
            self.out.push_back(Action::SeedEnded { session, why });
        }
    }

    /// Everything of `at` is read.
    pub(super) fn seed_done(&mut self, session: SessionId, at: LogPosition) {
        let of = self.seeding.filter(|seeding| seeding.session == session);
        let Some(Seeding { rest: Rest::Begun(_), absent, .. }) = of else { return };
        self.end_seed(None);
        if let Some(member) = absent.filter(|_| self.is_leading()) {
            self.kept_from(member, at.lsn);
        }
    }

    /// The image cannot be read, or the file not be written.
    pub(super) fn seed_failed(&mut self, session: SessionId) {
        if self.seeding.is_some_and(|seeding| seeding.session == session) {
            self.end_seed(None);
        }
    }

    /// Whether the image has to come to rest for it.
    pub(super) fn seed_wants_rest(&self) -> bool {
        self.seeding.is_some_and(|seeding| seeding.rest != Rest::Far)
    }

    pub(super) fn seed_deadline(&self) -> Option<Now> {
        match self.seeding?.rest {
            Rest::Begun(since) => Some(since.after(REST_MAX)),
            Rest::Far | Rest::Wanted => None,
        }
    }
}

//! Comparisons that nobody asks for (design §8.4): a primary compares each standby's image with its
//! own every so often, by its wall clock.
//!
//! When the last one began, and what it found, is in the superblock: a restart neither forgets nor
//! repeats it. One that was cut short does not count and is begun again, after a pause.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::Node;
use super::super::peer::Phase;
use crate::ids::MemberId;
use crate::replica::{Found, Verified};
use crate::time::{WallTime, micros};

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Pause after one that could not be begun or was cut short: a link that comes and goes must not
/// make the disks read from the start again and again.
const AGAIN: Duration = Duration::from_secs(10 * 60);
/// How long after its time of day one may begin; later, the next day is waited for.
const WINDOW: Duration = HOUR;

/// When a primary compares by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VerifyPlan {
    /// From the beginning of one to the beginning of the next.
    pub every: Duration,
    /// At which time of day it begins, since midnight UTC; none: at any.
    pub at: Option<Duration>,
}

impl VerifyPlan {
    /// Whether the next one after one that began at `last_us` may begin now. Where there is a time
    /// of day, half a day less will do: else each would slip to the day behind the right one.
    fn is_due(self, last_us: u64, wall: WallTime) -> bool {
        let passed = wall.as_micros().saturating_sub(last_us);
        let Some(at) = self.at else { return passed >= micros(self.every) };
        let of_day = wall.as_micros() % micros(DAY);
        let behind = (of_day + micros(DAY) - micros(at) % micros(DAY)) % micros(DAY);
        passed >= micros(self.every.saturating_sub(DAY / 2)) && behind < micros(WINDOW)
    }
}

impl Node {
    /// Begins what is due, unless something else moves the images.
    pub(super) fn settle_schedule(&mut self) {
        let Some(plan) = self.config.verify.filter(|_| self.is_leading()) else { return };
        let standbys = self.peers.values().filter(|peer| peer.feed().is_some());
        let mut due: Vec<_> = standbys.map(|peer| peer.member).collect();
        due.retain(|member| self.is_verify_due(*member, plan));
        let waits = self.is_comparing() || self.clock.now < self.verify.not_before;
        if waits || self.is_sourcing() {
            return;
        }
        if let Some(member) = due.first()
            && self.begin_verify(Some(*member), None).is_err()
        {
            self.verify_failed();
        }
    }

    /// The next one by schedule waits a while.
    pub(super) fn verify_failed(&mut self) {
        self.verify.not_before = self.clock.now.after(AGAIN);
    }

    fn is_verify_due(&mut self, member: MemberId, plan: VerifyPlan) -> bool {
        let wall = self.clock.wall;
        let last = self.state.verified.iter().find(|last| last.member == member).copied();
        match last {
            Some(last) if last.began_us <= wall.as_micros() => plan.is_due(last.began_us, wall),
            // It begins to count now. So it does where the clock was ahead when it last began:
            // otherwise there would be none until that time comes.
            _ => {
                let found = last.and_then(|last| last.found);
                self.note_verified(Verified { member, began_us: wall.as_micros(), found });
                false
            }
        }
    }

    /// One has come to its end.
    pub(super) fn verify_ended(&mut self, member: MemberId, began_us: u64, found: (u64, u64)) {
        let (ended_us, (differs, repaired)) = (self.clock.wall.as_micros(), found);
        let found = Some(Found { ended_us, differs, repaired });
        self.note_verified(Verified { member, began_us, found });
    }

    fn note_verified(&mut self, verified: Verified) {
        self.state.verified.retain(|last| last.member != verified.member);
        self.state.verified.push(verified);
        self.persist.touch();
    }

    /// Whether another member is brought up by this one.
    fn is_sourcing(&self) -> bool {
        let mut open = self.peers.values().filter_map(|peer| peer.session.as_ref());
        open.any(|open| matches!(open.phase, Phase::Sourcing(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONDAY: Duration = Duration::from_secs(4 * 24 * 60 * 60);

    fn wall(time: Duration) -> WallTime {
        WallTime::from_micros(micros(MONDAY + time))
    }

    fn us(time: Duration) -> u64 {
        wall(time).as_micros()
    }

    #[test]
    fn without_a_time_of_day_it_is_due_when_its_time_has_passed() {
        let plan = VerifyPlan { every: 7 * DAY, at: None };
        assert!(!plan.is_due(us(HOUR), wall(7 * DAY)));
        assert!(plan.is_due(us(HOUR), wall(7 * DAY + HOUR)));
    }

    #[test]
    fn with_a_time_of_day_it_stays_on_its_day_and_in_its_hour() {
        let plan = VerifyPlan { every: 7 * DAY, at: Some(2 * HOUR) };
        let last = us(2 * HOUR + HOUR / 2);
        let due: Vec<_> =
            (0..10 * 24).filter(|hour| plan.is_due(last, wall(*hour * HOUR))).collect();
        assert_eq!(due, [7 * 24 + 2, 8 * 24 + 2, 9 * 24 + 2]);
        assert!(plan.is_due(last, wall(7 * DAY + 3 * HOUR - HOUR / 60)));
    }

    #[test]
    fn an_hour_that_reaches_over_midnight_is_one_hour() {
        let plan = VerifyPlan { every: DAY, at: Some(DAY - HOUR / 2) };
        assert!(plan.is_due(us(Duration::ZERO), wall(2 * DAY + HOUR / 4)));
        assert!(!plan.is_due(us(Duration::ZERO), wall(2 * DAY + HOUR)));
    }
}

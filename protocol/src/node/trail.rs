//! When which part of the log came: from positions to times, in bounded space.
//!
//! Every gap in seconds, the wait of answers and the delay of replay ask the same question: since
//! when has the log gone on beyond this position? The trail keeps a limited number of stretches;
//! when it is full, neighbours become one, so that hours are remembered more coarsely than
//! seconds, and nothing is forgotten that somebody may still ask for.

use std::collections::VecDeque;
use std::time::Duration;

use crate::ids::Lsn;
use crate::time::{Now, WallTime};

/// Stretches kept; the error of a time is at most about 1/64 of what the trail spans.
pub(super) const STRETCHES_MAX: usize = 128;
/// Appends within this time of each other are one stretch.
const GRAIN: Duration = Duration::from_millis(2);

/// A part of the log that came within a short time; it begins where the one before it ends.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    end: Lsn,
    first: Now,
    last: Now,
    /// When the primary wrote its first frame, by the primary's wall clock.
    wall: WallTime,
}

/// The log's newest part, with times.
#[derive(Clone, Debug, Default)]
pub(super) struct Trail {
    stretches: VecDeque<Stretch>,
}

impl Trail {
    /// How many stretches there are.
    pub(super) fn len(&self) -> usize {
        self.stretches.len()
    }

    /// The log was appended to, up to `end`.
    pub(super) fn grow(&mut self, end: Lsn, now: Now, wall: WallTime) {
        if let Some(newest) = self.stretches.back_mut()
            && now.since(newest.first) < GRAIN
        {
            (newest.end, newest.last) = (end, now);
            return;
        }
        if self.stretches.len() >= STRETCHES_MAX {
            self.thin();
        }
        self.stretches.push_back(Stretch { end, first: now, last: now, wall });
    }

    /// Makes one of every two neighbours in the older half.
    fn thin(&mut self) {
        let half = self.stretches.len() / 2;
        let newer = self.stretches.split_off(half);
        let older = std::mem::take(&mut self.stretches);
        let mut older = older.into_iter();
        while let Some(first) = older.next() {
            let one = older.next().map_or(first, |second| Stretch {
                end: second.end,
                last: second.last,
                ..first
            });
            self.stretches.push_back(one);
        }
        self.stretches.extend(newer);
    }

    /// The log was cut.
    pub(super) fn cut(&mut self, end: Lsn) {
        while self.stretches.len() > 1
            && self.stretches.iter().rev().nth(1).is_some_and(|before| before.end >= end)
        {
            self.stretches.pop_back();
        }
        if let Some(newest) = self.stretches.back_mut() {
            newest.end = newest.end.min(end);
        }
    }

    fn beyond(&self, lsn: Lsn) -> Option<&Stretch> {
        let index = self.stretches.partition_point(|stretch| stretch.end <= lsn);
        self.stretches.get(index)
    }

    /// How long ago the log went on beyond `lsn`; nothing where it does not. Never too short.
    pub(super) fn age(&self, lsn: Lsn, now: Now) -> Option<Duration> {
        self.beyond(lsn).map(|stretch| now.since(stretch.first))
    }

    /// Since when the log goes on beyond `lsn`.
    pub(super) fn since(&self, lsn: Lsn) -> Option<Now> {
        self.beyond(lsn).map(|stretch| stretch.first)
    }

    /// When the primary wrote what follows `lsn`, by its own wall clock.
    pub(super) fn wall(&self, lsn: Lsn) -> Option<WallTime> {
        self.beyond(lsn).map(|stretch| stretch.wall)
    }

    /// The furthest position that came at least `delay` ago; never too far.
    pub(super) fn older_than(&self, delay: Duration, now: Now) -> Option<Lsn> {
        let index = self.stretches.partition_point(|stretch| stretch.last.after(delay) <= now);
        self.stretches.get(index.checked_sub(1)?).map(|stretch| stretch.end)
    }

    /// When the next stretch beyond `lsn` will be `delay` old.
    pub(super) fn due(&self, lsn: Lsn, delay: Duration) -> Option<Now> {
        self.beyond(lsn).map(|stretch| stretch.last.after(delay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Now {
        Now::from_micros(count * 1000)
    }

    fn grown(appends: u64) -> Trail {
        let mut trail = Trail::default();
        for number in 1..=appends {
            trail.grow(Lsn::new(number * 64), ms(number * 10), WallTime::from_micros(number));
        }
        trail
    }

    #[test]
    fn it_says_since_when_the_log_goes_on() {
        let trail = grown(5);
        assert_eq!(trail.age(Lsn::new(128), ms(50)), Some(Duration::from_millis(20)));
        assert_eq!(trail.age(Lsn::new(130), ms(50)), Some(Duration::from_millis(20)));
        assert_eq!(trail.age(Lsn::new(320), ms(50)), None);
        assert_eq!(trail.wall(Lsn::new(128)), Some(WallTime::from_micros(3)));
    }

    #[test]
    fn it_says_what_is_old_enough() {
        let trail = grown(5);
        let delay = Duration::from_millis(15);
        assert_eq!(trail.older_than(delay, ms(50)), Some(Lsn::new(192)));
        assert_eq!(trail.older_than(delay, ms(20)), None);
        assert_eq!(trail.due(Lsn::new(192), delay), Some(ms(55)));
    }

    #[test]
    fn hours_fit_and_no_age_is_ever_too_short() {
        let count = 100_000;
        let trail = grown(count);
        assert!(trail.stretches.len() <= STRETCHES_MAX);
        for number in [0, 1, 777, 50_000, 99_999] {
            let true_age = Duration::from_millis((count - number - 1) * 10);
            let age = trail.age(Lsn::new(number * 64), ms(count * 10)).unwrap();
            assert!(age >= true_age, "{age:?} for {true_age:?}");
            let old = trail.older_than(true_age, ms(count * 10));
            assert!(old.is_none_or(|lsn| lsn <= Lsn::new((number + 1) * 64)));
        }
    }

    #[test]
    fn a_cut_takes_away_what_came_last() {
        let mut trail = grown(5);
        trail.cut(Lsn::new(200));
        assert_eq!(trail.age(Lsn::new(192), ms(50)), Some(Duration::from_millis(10)));
        assert_eq!(trail.age(Lsn::new(200), ms(50)), None);
    }
}

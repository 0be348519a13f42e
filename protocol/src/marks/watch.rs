//! What a member sees of another's lease, by its own clock alone.
//!
//! Of each marker it notes when it first showed the lease as it is. Once it has waited as long as
//! the lease asks for, and a majority of the markers, read after that, still show the same, the
//! other's lease is over, wherever the other's clock stands: a lease needs renewals on a majority.
//! That the other still writes to the markers that are left says nothing.

use serde::{Deserialize, Serialize};

use super::lease::{LeaseBlock, LeaseState};
use crate::ids::Incarnation;
use crate::time::Now;

/// What is known of another member by its lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sight {
    /// It was not watched for long enough.
    #[default]
    Unknown,
    /// Its lease is renewed.
    Live,
    /// It has missed a few renewals, and may yet come to make one.
    Late,
    /// Its lease was not renewed for as long as it is good for; it may serve for a little longer.
    Stalled,
    /// Its lease is over: it serves nothing.
    Over,
    /// It has left in order, or never came.
    Down,
}

impl Sight {
    /// As it is shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Live => "live",
            Self::Late => "late",
            Self::Stalled => "stalled",
            Self::Over => "over",
            Self::Down => "down",
        }
    }

    /// Whether nothing was heard of it for longer than one renewal may be held up.
    #[must_use]
    pub const fn is_silent(self) -> bool {
        matches!(self, Self::Late | Self::Stalled | Self::Over)
    }

    /// Whether it serves nothing for certain.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Over | Self::Down)
    }
}

/// One other member, on each marker.
#[derive(Clone, Debug)]
pub struct Watch {
    markers: Vec<Option<Shown>>,
}

/// What one marker shows of it.
#[derive(Clone, Debug)]
struct Shown {
    block: LeaseBlock,
    /// When it was first seen to show that.
    since: Now,
    /// When the newest read of it was begun.
    read: Now,
    /// It showed something else before.
    moved: bool,
}

impl Shown {
    fn is_down(&self) -> bool {
        self.block.lease.state == LeaseState::Down
    }

    /// Nothing newer was there when it was read after so many renewals.
    fn is_late(&self) -> bool {
        self.read >= self.since.after(self.block.lease.timing.late())
    }

    /// Nothing newer was there when it was read after the wait.
    fn is_over(&self) -> bool {
        self.read >= self.since.after(self.block.lease.timing.wait_out())
    }
}

fn age(block: &LeaseBlock) -> (Incarnation, u64, u64) {
    (block.incarnation, block.nonce, block.sequence)
}

impl Watch {
    /// Watches over so many markers.
    #[must_use]
    pub fn new(markers: usize) -> Self {
        Self { markers: vec![None; markers] }
    }

    /// `marker` was read, from `began` until `now`, and showed this.
    pub fn saw(&mut self, marker: usize, block: &LeaseBlock, (began, now): (Now, Now)) {
        let Some(shown) = self.markers.get_mut(marker) else { return };
        match shown {
            Some(shown) if age(&shown.block) == age(block) => shown.read = began,
            _ => {
                let moved = shown.is_some();
                *shown = Some(Shown { block: block.clone(), since: now, read: began, moved });
            }
        }
    }

    /// The newest that any marker shows.
    #[must_use]
    pub fn newest(&self) -> Option<&LeaseBlock> {
        self.shown().map(|shown| &shown.block).max_by_key(|block| age(block))
    }

    /// What is known of it now, and as of when.
    #[must_use]
    pub fn sight(&self, now: Now) -> (Sight, Now) {
        let all = self.majority(|_| true);
        let Some(as_of) = all else { return (Sight::Unknown, Now::default()) };
        let over = self.majority(Shown::is_over);
        let down = self.majority(Shown::is_down);
        let stalled = |shown: &Shown| now >= shown.since.after(shown.block.lease.timing.lease);
        match (down, over) {
            (Some(as_of), _) => (Sight::Down, as_of),
            (None, Some(as_of)) => (Sight::Over, as_of),
            _ if self.majority(stalled).is_some() => (Sight::Stalled, as_of),
            _ if !self.shown().any(|shown| shown.moved) => (Sight::Unknown, as_of),
            _ => match self.majority(Shown::is_late) {
                Some(as_of) => (Sight::Late, as_of),
                None => (Sight::Live, as_of),
            },
        }
    }

    /// Whether a majority of the markers is like that: then a lease has no majority that is not.
    /// As of when: each of the majority was read from that moment on.
    fn majority(&self, is_so: impl Fn(&Shown) -> bool) -> Option<Now> {
        let mut reads: Vec<_> =
            self.shown().filter(|shown| is_so(shown)).map(|shown| shown.read).collect();
        reads.sort_unstable();
        reads.reverse();
        reads.get(self.markers.len() / 2).copied()
    }

    fn shown(&self) -> impl Iterator<Item = &Shown> {
        self.markers.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::marks::lease::Timing;
    use crate::marks::lease::tests::full;

    fn block(sequence: u64) -> LeaseBlock {
        let mut block = LeaseBlock { sequence, ..full() };
        block.lease.timing = Timing::DEFAULT;
        block
    }

    fn at(ms: u64) -> Now {
        Now::default().after(Duration::from_millis(ms))
    }

    fn saw(watch: &mut Watch, marker: usize, sequence: u64, ms: u64) -> Sight {
        watch.saw(marker, &block(sequence), (at(ms), at(ms + 5)));
        watch.sight(at(ms + 5)).0
    }

    #[test]
    fn a_lease_is_over_only_when_it_was_read_again_after_the_wait() {
        let mut watch = Watch::new(1);
        assert_eq!(saw(&mut watch, 0, 1, 0), Sight::Unknown);
        assert_eq!(saw(&mut watch, 0, 2, 2000), Sight::Live);
        assert_eq!(saw(&mut watch, 0, 2, 8004), Sight::Live, "two renewals, and a little more");
        assert_eq!(saw(&mut watch, 0, 2, 8005), Sight::Late, "three were missed");
        assert_eq!(saw(&mut watch, 0, 2, 11_999), Sight::Late);
        assert_eq!(saw(&mut watch, 0, 2, 12_005), Sight::Stalled);
        assert_eq!(watch.sight(at(60_000)).0, Sight::Stalled, "nobody has looked since");
        assert_eq!(saw(&mut watch, 0, 2, 12_704), Sight::Stalled, "a moment too early");
        assert_eq!(saw(&mut watch, 0, 2, 12_705), Sight::Over);
        assert_eq!(saw(&mut watch, 0, 3, 20_000), Sight::Live, "it is back");
    }

    #[test]
    fn one_of_three_markers_shows_nothing() {
        let mut watch = Watch::new(3);
        for ms in [0, 20_000] {
            assert_eq!(saw(&mut watch, 0, 1, ms), Sight::Unknown);
        }
        assert_eq!(saw(&mut watch, 1, 2, 20_000), Sight::Unknown, "the other one is news");
        assert_eq!(saw(&mut watch, 0, 1, 40_000), Sight::Stalled);
        assert_eq!(saw(&mut watch, 1, 2, 40_000), Sight::Over, "two of three, after the wait");
    }

    #[test]
    fn a_member_that_still_writes_to_one_marker_of_three_has_no_lease() {
        let mut watch = Watch::new(3);
        for marker in 0..3 {
            saw(&mut watch, marker, 1, 0);
        }
        let mut last = Sight::Unknown;
        for second in 1..12 {
            for marker in 0..2 {
                saw(&mut watch, marker, 1, second * 1000);
            }
            last = saw(&mut watch, 2, second + 1, second * 1000);
        }
        assert_eq!(last, Sight::Over);
    }

    #[test]
    fn a_member_that_left_in_order_is_not_waited_for() {
        let mut watch = Watch::new(1);
        let mut gone = block(7);
        gone.lease.state = LeaseState::Down;
        watch.saw(0, &gone, (at(0), at(5)));
        assert!(watch.sight(at(5)).0.is_over());
    }

    #[test]
    fn a_new_life_is_watched_anew_whatever_its_numbers() {
        let mut watch = Watch::new(1);
        saw(&mut watch, 0, 9, 0);
        assert_eq!(saw(&mut watch, 0, 9, 10_500), Sight::Stalled);
        let mut reborn = block(1);
        reborn.incarnation = Incarnation::new(reborn.incarnation.get() + 1);
        watch.saw(0, &reborn, (at(11_500), at(11_505)));
        assert_eq!(watch.sight(at(12_000)).0, Sight::Live);
    }
}

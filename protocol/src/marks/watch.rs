//! What a member sees of another's lease, by its own clock alone.
//!
//! It notes when it first saw the lease as it is. Once it has waited as long as the lease asks
//! for, and a majority of the markers, read after that, still shows nothing newer, the other's
//! lease is over, wherever the other's clock stands: a renewal that had counted would be on one of
//! them.

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
            Self::Stalled => "stalled",
            Self::Over => "over",
            Self::Down => "down",
        }
    }

    /// Whether it serves nothing for certain.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Over | Self::Down)
    }
}

/// One other member.
#[derive(Clone, Debug)]
pub struct Watch {
    newest: Option<LeaseBlock>,
    /// When a majority showed nothing newer than that for the first time.
    since: Option<Now>,
    /// It was seen to change.
    moved: bool,
    /// When the newest read of each marker was begun.
    reads: Vec<Option<Now>>,
}

fn age(block: &LeaseBlock) -> (Incarnation, u64, u64) {
    (block.incarnation, block.nonce, block.sequence)
}

impl Watch {
    /// Watches over so many markers.
    #[must_use]
    pub fn new(markers: usize) -> Self {
        Self { newest: None, since: None, moved: false, reads: vec![None; markers] }
    }

    /// `marker` was read, from `began` until `now`, and showed this.
    pub fn saw(&mut self, marker: usize, block: &LeaseBlock, (began, now): (Now, Now)) {
        if let Some(read) = self.reads.get_mut(marker) {
            *read = Some(began);
        }
        if self.newest.as_ref().is_none_or(|newest| age(newest) < age(block)) {
            self.moved |= self.newest.is_some();
            self.newest = Some(block.clone());
            self.since = Some(now);
        }
    }

    /// What its lease says.
    #[must_use]
    pub fn newest(&self) -> Option<&LeaseBlock> {
        self.newest.as_ref()
    }

    /// Since when it has not changed.
    #[must_use]
    pub fn unchanged_since(&self) -> Option<Now> {
        self.since
    }

    /// What is known of it now.
    #[must_use]
    pub fn sight(&self, now: Now) -> Sight {
        let (Some(newest), Some(since)) = (&self.newest, self.since) else {
            return Sight::Unknown;
        };
        let Some(read) = self.read_since() else { return Sight::Unknown };
        if newest.lease.state == LeaseState::Down {
            return Sight::Down;
        }
        let timing = newest.lease.timing;
        let over = since.after(timing.wait_out());
        match () {
            () if read >= over && now >= over => Sight::Over,
            () if now >= since.after(timing.lease) => Sight::Stalled,
            () if self.moved => Sight::Live,
            () => Sight::Unknown,
        }
    }

    /// A majority of the markers was read, each from this moment on or later: so old is what is
    /// known.
    #[must_use]
    pub fn read_since(&self) -> Option<Now> {
        let mut reads = self.reads.clone();
        reads.sort_unstable();
        reads.reverse();
        *reads.get(reads.len() / 2)?
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
        watch.sight(at(ms + 5))
    }

    #[test]
    fn a_lease_is_over_only_when_it_was_read_again_after_the_wait() {
        let mut watch = Watch::new(1);
        assert_eq!(saw(&mut watch, 0, 1, 0), Sight::Unknown);
        assert_eq!(saw(&mut watch, 0, 2, 2000), Sight::Live);
        assert_eq!(saw(&mut watch, 0, 2, 11_999), Sight::Live);
        assert_eq!(saw(&mut watch, 0, 2, 12_005), Sight::Stalled);
        assert_eq!(watch.sight(at(60_000)), Sight::Stalled, "nobody has looked since");
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
        assert_eq!(saw(&mut watch, 1, 2, 20_000), Sight::Live, "the other one is newer");
        assert_eq!(saw(&mut watch, 0, 1, 40_000), Sight::Stalled);
        assert_eq!(saw(&mut watch, 1, 2, 40_000), Sight::Over, "two of three, after the wait");
    }

    #[test]
    fn a_member_that_left_in_order_is_not_waited_for() {
        let mut watch = Watch::new(1);
        let mut gone = block(7);
        gone.lease.state = LeaseState::Down;
        watch.saw(0, &gone, (at(0), at(5)));
        assert!(watch.sight(at(5)).is_over());
    }

    #[test]
    fn a_new_life_is_watched_anew_whatever_its_numbers() {
        let mut watch = Watch::new(1);
        saw(&mut watch, 0, 9, 0);
        assert_eq!(saw(&mut watch, 0, 9, 10_500), Sight::Stalled);
        let mut reborn = block(1);
        reborn.incarnation = Incarnation::new(reborn.incarnation.get() + 1);
        watch.saw(0, &reborn, (at(11_500), at(11_505)));
        assert_eq!(watch.sight(at(12_000)), Sight::Live);
    }
}

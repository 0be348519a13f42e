//! When to call again somebody who did not answer: pauses that double, each with a jitter, so that
//! members that lost each other at the same moment do not call at the same moment.
//!
//! The jitter comes from a seed; the same seed gives the same pauses.

use std::time::Duration;

/// Pauses between calls.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    last: Duration,
    next: Duration,
    seed: u64,
}

impl Backoff {
    /// Pauses from `first` to `last`, before the jitter.
    #[must_use]
    pub const fn new(first: Duration, last: Duration, seed: u64) -> Self {
        Self { first, last, next: first, seed }
    }

    /// The call was answered: the next pause is short again.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }

    /// The next pause: three to five quarters of a time that doubles up to the last.
    #[must_use]
    pub fn pause(&mut self) -> Duration {
        let middle = self.next;
        self.next = (self.next * 2).min(self.last);
        let span = u64::try_from(middle.as_micros() / 2).unwrap_or(u64::MAX / 2);
        let jitter = Duration::from_micros(draw(&mut self.seed) % (span + 1));
        middle - middle / 4 + jitter
    }
}

/// A step of the splitmix64 sequence.
pub(crate) const fn draw(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_with_a_jitter_and_stay_within_their_bounds() {
        let (first, last) = (Duration::from_millis(50), Duration::from_secs(2));
        for seed in 0..50 {
            let mut backoff = Backoff::new(first, last, seed);
            let mut middle = first;
            for _ in 0..12 {
                let pause = backoff.pause();
                assert!(pause >= middle * 3 / 4 && pause <= middle * 5 / 4, "{pause:?}");
                middle = (middle * 2).min(last);
            }
            backoff.reset();
            assert!(backoff.pause() <= first * 5 / 4);
        }
    }

    #[test]
    fn one_seed_is_one_row_of_pauses_and_two_seeds_are_two() {
        let row = |seed| -> Vec<_> {
            let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2), seed);
            (0..8).map(|_| backoff.pause()).collect()
        };
        assert_eq!(row(7), row(7));
        assert_ne!(row(7), row(8));
    }
}

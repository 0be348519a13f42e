//! How a member keeps its own lease.
//!
//! A renewal is good from before its write was begun, and only where it is done on a majority of
//! the markers: so whoever reads a majority later sees it. A lease that has ended is not mended by
//! a write that was late; what comes then is a new term, and its holder must look at the control
//! record again before it serves anybody.

use super::lease::{Lease, LeaseBlock};
use super::proposer::{Overwritten, Writer};
use crate::time::{Clock, Now};

/// Until when a member may serve what it owns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Term {
    /// One more each time that the lease had ended before it was renewed.
    pub number: u64,
    /// The end of the lease, by the holder's own clock.
    pub until: Now,
}

/// One marker, as far as the own lease is concerned.
#[derive(Clone, Copy, Debug, Default)]
struct Marker {
    next_at: Now,
    /// It is not what it was, and is not written to any more.
    is_forgotten: bool,
    /// The write under way: when it was begun, and its sequence number.
    under_way: Option<(Now, u64)>,
    /// When the newest write that is done was begun.
    since: Option<Now>,
    /// Which of the copies is written next.
    turn: u64,
}

/// The own lease.
#[derive(Clone, Debug)]
pub struct Tenure {
    writer: Writer,
    lease: Lease,
    sequence: u64,
    markers: Vec<Marker>,
    term: Option<Term>,
}

impl Tenure {
    /// The lease of a life that goes on from `sequence`, the last number of the life before.
    #[must_use]
    pub fn new(writer: Writer, lease: Lease, sequence: u64, markers: usize) -> Self {
        let markers = vec![Marker::default(); markers];
        Self { writer, lease, sequence, markers, term: None }
    }

    /// What is to be written to `marker` now, if anything is.
    pub fn job(&mut self, marker: usize, clock: Clock) -> Option<LeaseBlock> {
        let renew = self.lease.timing.renew;
        let marker = self.markers.get_mut(marker)?;
        if marker.under_way.is_some() || marker.is_forgotten || clock.now < marker.next_at {
            return None;
        }
        // Each write has a number of its own, and the copies of a marker take turns.
        self.sequence += 1;
        if self.sequence % super::layout::LEASE_COPIES != marker.turn {
            self.sequence += 1;
        }
        marker.turn = (self.sequence + 1) % super::layout::LEASE_COPIES;
        marker.under_way = Some((clock.now, self.sequence));
        marker.next_at = clock.now.after(renew);
        self.lease.wall = clock.wall;
        let Writer { member, incarnation, nonce } = self.writer;
        let lease = self.lease.clone();
        Some(LeaseBlock { member, sequence: self.sequence, incarnation, nonce, lease })
    }

    /// The write to `marker` is done, and this own block was read there behind it.
    ///
    /// # Errors
    /// [`Overwritten`]
    pub fn done(
        &mut self,
        marker: usize,
        own: Option<&LeaseBlock>,
        now: Now,
    ) -> Result<(), Overwritten> {
        let nonce = self.writer.nonce;
        let Some(marker) = self.markers.get_mut(marker) else { return Ok(()) };
        let Some((began, expected)) = marker.under_way.take() else { return Ok(()) };
        let found = own.filter(|own| own.nonce == nonce).map_or(0, |own| own.sequence);
        if found != expected {
            return Err(Overwritten { expected, found });
        }
        marker.since = Some(began);
        self.settle(now);
        Ok(())
    }

    /// The write failed; whether it is there nobody knows.
    pub fn failed(&mut self, marker: usize) {
        if let Some(marker) = self.markers.get_mut(marker) {
            marker.under_way = None;
        }
    }

    /// The marker is not what it was: nothing on it counts, and nothing is written there any more.
    pub fn forget(&mut self, marker: usize) {
        if let Some(marker) = self.markers.get_mut(marker) {
            *marker = Marker { is_forgotten: true, ..Marker::default() };
        }
    }

    /// The next renewals say this.
    pub fn say(&mut self, change: impl FnOnce(&mut Lease)) {
        change(&mut self.lease);
    }

    /// Every marker is written to again at once.
    pub fn hurry(&mut self) {
        self.markers.iter_mut().for_each(|marker| marker.next_at = Now::default());
    }

    /// The term that holds now, if one does.
    #[must_use]
    pub fn term(&self, now: Now) -> Option<Term> {
        self.term.filter(|term| now < term.until)
    }

    /// It holds no longer, whatever was written.
    pub fn end(&mut self) {
        self.markers.iter_mut().for_each(|marker| marker.since = None);
        if let Some(term) = &mut self.term {
            term.until = Now::default();
        }
    }

    /// When the next renewal is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Now> {
        let idle = |marker: &&Marker| marker.under_way.is_none() && !marker.is_forgotten;
        self.markers.iter().filter(idle).map(|marker| marker.next_at).min()
    }

    /// A majority of the markers holds a renewal that was begun at or after this.
    #[must_use]
    pub fn held_since(&self) -> Option<Now> {
        let mut since: Vec<_> = self.markers.iter().map(|marker| marker.since).collect();
        since.sort_unstable();
        since.reverse();
        *since.get(self.markers.len() / 2)?
    }

    fn settle(&mut self, now: Now) {
        let Some(since) = self.held_since() else { return };
        let until = since.after(self.lease.timing.lease);
        if until <= now || self.term.is_some_and(|term| term.until >= until) {
            return;
        }
        let number = match self.term {
            Some(term) if now < term.until => term.number,
            term => term.map_or(0, |term| term.number) + 1,
        };
        self.term = Some(Term { number, until });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ids::{Incarnation, MemberId};
    use crate::time::WallTime;

    fn tenure(markers: usize) -> Tenure {
        let member = MemberId::new(0).unwrap();
        let writer = Writer { member, incarnation: Incarnation::new(1), nonce: 1 };
        Tenure::new(writer, Lease::blank(), 0, markers)
    }

    fn at(ms: u64) -> Clock {
        let now = Now::default().after(Duration::from_millis(ms));
        Clock { now, wall: WallTime::from_micros(ms) }
    }

    fn renew(tenure: &mut Tenure, marker: usize, (from, to): (u64, u64)) {
        let block = tenure.job(marker, at(from)).expect("a renewal is due");
        tenure.done(marker, Some(&block), at(to).now).unwrap();
    }

    #[test]
    fn a_lease_counts_from_before_the_write_and_not_from_its_end() {
        let mut tenure = tenure(1);
        renew(&mut tenure, 0, (1000, 2500));
        assert_eq!(tenure.term(at(2500).now), Some(Term { number: 1, until: at(11_000).now }));
        assert_eq!(tenure.term(at(11_000).now), None, "it ends with its last instant");
    }

    #[test]
    fn one_of_three_markers_makes_no_lease_and_two_do() {
        let mut tenure = tenure(3);
        renew(&mut tenure, 1, (0, 10));
        assert_eq!(tenure.term(at(20).now), None);
        renew(&mut tenure, 2, (500, 510));
        let until = at(10_000).now;
        assert_eq!(tenure.term(at(520).now), Some(Term { number: 1, until }));
        renew(&mut tenure, 2, (2500, 2510));
        assert_eq!(
            tenure.term(at(2520).now).unwrap().until,
            until,
            "the other is as old as it was"
        );
        renew(&mut tenure, 0, (2600, 2610));
        assert_eq!(tenure.term(at(2620).now).unwrap().until, at(12_500).now);
    }

    #[test]
    fn a_write_that_is_done_after_the_end_begins_a_new_term_and_mends_no_old_one() {
        let mut tenure = tenure(1);
        renew(&mut tenure, 0, (0, 10));
        renew(&mut tenure, 0, (9000, 10_000));
        let term = tenure.term(at(10_001).now).unwrap();
        assert_eq!((term.number, term.until), (2, at(19_000).now));
        renew(&mut tenure, 0, (11_000, 18_000));
        assert_eq!(tenure.term(at(18_000).now).unwrap().number, 2);
        renew(&mut tenure, 0, (20_000, 31_000));
        assert_eq!(tenure.term(at(31_000).now), None, "it was over when it was written");
    }

    #[test]
    fn the_two_copies_of_every_marker_take_turns() {
        let mut tenure = tenure(3);
        let mut last = [None; 3];
        for round in 0..6 {
            for (marker, last) in last.iter_mut().enumerate() {
                let block = tenure.job(marker, at(round * 2000)).unwrap();
                assert_ne!(Some(block.index()), *last);
                *last = Some(block.index());
                tenure.done(marker, Some(&block), at(round * 2000).now).unwrap();
            }
        }
    }

    #[test]
    fn a_block_of_somebody_else_in_the_own_place_is_an_error() {
        let mut tenure = tenure(1);
        let block = tenure.job(0, at(0)).unwrap();
        let other = LeaseBlock { nonce: 2, ..block };
        assert!(tenure.done(0, Some(&other), at(1).now).is_err());
        assert_eq!(tenure.term(at(2).now), None);
    }
}

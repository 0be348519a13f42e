//! What a diverged replica holds that the primary's history does not: what a return to that
//! history would lose (design §6.4).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::frame::{Frame, Record};
use crate::ids::{Lsn, VolumeIndex};
use crate::range::ByteRange;
use crate::time::WallTime;

/// Ranges that are told apart at most; above, they are rounded to larger units.
const RANGES_MAX: usize = crate::resync::MINE_MAX;
/// The smallest unit to which ranges are rounded, in bytes.
const UNIT_MIN: u64 = 512;

/// The frames behind the point where two histories part.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Divergence {
    /// Where they begin; later than the fork where the log no longer holds the first of them.
    pub from: Lsn,
    /// How far they were read.
    pub to: Lsn,
    /// The end of the log: behind `to` as long as they are being read.
    pub end: Lsn,
    /// How many there are.
    pub frames: u64,
    /// When the first was written, by its author's wall clock.
    pub first: Option<WallTime>,
    /// When the last was.
    pub last: Option<WallTime>,
    /// Ranges are rounded to whole units of so many bytes.
    pub unit: u64,
    /// What they changed, in order, without overlaps.
    ranges: Vec<Changed>,
}

/// A range of a volume that was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Changed {
    /// Which volume.
    pub volume: VolumeIndex,
    /// The first byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

/// Adds up frames.
#[derive(Clone, Debug)]
pub struct Survey {
    found: Divergence,
    /// By volume and first byte: one past the last byte.
    changed: BTreeMap<(VolumeIndex, u64), u64>,
}

impl Divergence {
    /// Bytes of the volumes that they changed; each counts once.
    #[must_use]
    pub fn changed_bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// What they changed.
    #[must_use]
    pub fn ranges(&self) -> &[Changed] {
        &self.ranges
    }
}

impl Survey {
    /// Nothing yet, of the frames from `from` to `end`.
    #[must_use]
    pub fn new(from: Lsn, end: Lsn) -> Self {
        let (to, frames, first, last, ranges) = (from, 0, None, None, Vec::new());
        let found = Divergence { from, to, end, frames, first, last, unit: UNIT_MIN, ranges };
        Self { found, changed: BTreeMap::new() }
    }

    /// The next frame.
    pub fn add(&mut self, frame: &Frame) {
        self.found.frames += 1;
        self.found.to = frame.end();
        self.found.first.get_or_insert(frame.wall());
        self.found.last = Some(frame.wall());
        for record in frame.records() {
            if let Record::Write { volume, range, .. }
            | Record::Zero { volume, range }
            | Record::Trim { volume, range } = record
            {
                self.change(volume, range);
            }
        }
    }

    /// Where the next frame begins, and where the last ends.
    #[must_use]
    pub fn left(&self) -> (Lsn, Lsn) {
        (self.found.to, self.found.end)
    }

    /// What was found so far.
    #[must_use]
    pub fn found(&self) -> Divergence {
        let ranges = self.changed.iter();
        let ranges = ranges.map(|((volume, start), end)| Changed {
            volume: *volume,
            start: *start,
            end: *end,
        });
        Divergence { ranges: ranges.collect(), ..self.found.clone() }
    }

    /// A range that was changed, by whatever.
    pub fn change(&mut self, volume: VolumeIndex, range: ByteRange) {
        let unit = self.found.unit;
        let end = range.end().checked_next_multiple_of(unit).unwrap_or(u64::MAX);
        self.put(volume, range.start() / unit * unit, end);
        while self.changed.len() > RANGES_MAX {
            self.coarsen();
        }
    }

    /// Joins the range with all that it touches.
    fn put(&mut self, volume: VolumeIndex, mut start: u64, mut end: u64) {
        while let Some((&(_, first), &last)) = self
            .changed
            .range((volume, 0)..=(volume, end))
            .next_back()
            .filter(|(_, last)| **last >= start)
        {
            self.changed.remove(&(volume, first));
            (start, end) = (start.min(first), end.max(last));
        }
        self.changed.insert((volume, start), end);
    }

    fn coarsen(&mut self) {
        self.found.unit = self.found.unit.saturating_mul(2);
        for ((volume, start), end) in std::mem::take(&mut self.changed) {
            let unit = self.found.unit;
            let end = end.checked_next_multiple_of(unit).unwrap_or(u64::MAX);
            self.put(volume, start / unit * unit, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn volume() -> VolumeIndex {
        VolumeIndex::new(0).unwrap()
    }

    fn survey(ranges: &[(u64, u64)]) -> Divergence {
        let mut survey = Survey::new(Lsn::START, Lsn::START);
        for (start, len) in ranges {
            survey.change(volume(), ByteRange::new(*start, *len).unwrap());
        }
        survey.found()
    }

    #[test]
    fn ranges_that_meet_are_one_and_count_once() {
        let found = survey(&[(4096, 4096), (0, 512), (8192, 512), (4096, 512)]);
        let starts: Vec<_> = found.ranges().iter().map(|range| (range.start, range.end)).collect();
        assert_eq!(starts, [(0, 512), (4096, 8704)]);
        assert_eq!(found.changed_bytes(), 512 + 4608);
    }

    #[test]
    fn very_many_ranges_are_rounded_and_none_is_left_out() {
        let many: Vec<_> = (0..20_000).map(|number| (number * 8192, 512)).collect();
        let found = survey(&many);
        assert!(found.ranges().len() <= RANGES_MAX && found.unit > UNIT_MIN, "{}", found.unit);
        let holds = |at: u64| found.ranges().iter().any(|r| (r.start..r.end).contains(&at));
        assert!(many.iter().step_by(97).all(|(start, _)| holds(*start)));
    }

    proptest! {
        #[test]
        fn every_changed_byte_is_in_exactly_one_range(
            ranges in prop::collection::vec((0_u64..64, 1_u64..16), 1..40),
        ) {
            let ranges: Vec<_> =
                ranges.into_iter().map(|(start, len)| (start * 512, len * 512)).collect();
            let found = survey(&ranges);
            for block in 0..80 {
                let at = block * 512;
                let changed = ranges.iter().any(|(start, len)| (*start..start + len).contains(&at));
                let holds = found.ranges().iter().filter(|r| (r.start..r.end).contains(&at));
                prop_assert_eq!(holds.count(), usize::from(changed), "byte {}", at);
            }
        }
    }
}

//! Sets of leaves of the volumes of a resource.

use std::collections::BTreeMap;

use super::{LEAF, LEAVES, REGION};
use crate::divergence::Changed;
use crate::frame::{Frame, Record};
use crate::ids::VolumeIndex;
use crate::replica::VolumeGeometry;

/// A region of a volume.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RegionId {
    /// Of which volume.
    pub volume: VolumeIndex,
    /// Which one.
    pub region: u32,
}

impl RegionId {
    /// Its first byte.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.region as u64 * REGION
    }
}

/// Which leaves of one region.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeafBits([u64; LEAVES / 64]);

impl LeafBits {
    /// So many neighbours.
    fn run(first: usize, count: usize) -> Self {
        let mut bits = Self::default();
        for (word, at) in bits.0.iter_mut().zip((0..).step_by(64)) {
            let from = first.clamp(at, at + 64) - at;
            let to = (first + count).clamp(at, at + 64) - at;
            let below = |end: usize| if end == 64 { u64::MAX } else { (1 << end) - 1 };
            *word = below(to) & !below(from);
        }
        bits
    }

    /// Runs of neighbours: the first, and how many.
    pub fn runs(self) -> impl Iterator<Item = (usize, usize)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let first = self.next(at, true)?;
            let end = self.next(first, false).unwrap_or(LEAVES);
            at = end;
            Some((first, end - first))
        })
    }

    /// The first leaf from `from` on that is in it, or is not.
    fn next(self, from: usize, is_in: bool) -> Option<usize> {
        let mut at = from;
        while let Some(word) = self.0.get(at / 64) {
            let word = if is_in { *word } else { !*word } >> (at % 64);
            if word != 0 {
                return Some(at + word.trailing_zeros() as usize);
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }

    /// Whether leaf `leaf` of the region is in it.
    #[must_use]
    pub fn has(&self, leaf: usize) -> bool {
        self.0.get(leaf / 64).is_some_and(|word| word >> (leaf % 64) & 1 == 1)
    }

    /// Puts a leaf in; whether it was not there.
    pub fn set(&mut self, leaf: usize) -> bool {
        let bit = 1 << (leaf % 64);
        let Some(word) = self.0.get_mut(leaf / 64) else { return false };
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// Takes a leaf out; whether it was there.
    pub fn unset(&mut self, leaf: usize) -> bool {
        let had = self.has(leaf);
        if let Some(word) = self.0.get_mut(leaf / 64) {
            *word &= !(1 << (leaf % 64));
        }
        had
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// They, in order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..LEAVES).filter(move |leaf| self.has(*leaf))
    }
}

/// A set of leaves. What it needs of memory grows with the regions that have any.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LeafSet {
    sizes: Vec<u64>,
    regions: BTreeMap<RegionId, LeafBits>,
    count: u64,
}

impl LeafSet {
    /// None of the leaves of these volumes.
    #[must_use]
    pub fn new(volumes: &[VolumeGeometry]) -> Self {
        let sizes = volumes.iter().map(|volume| volume.size_bytes).collect();
        Self { sizes, ..Self::default() }
    }

    /// Size of a volume in bytes; none is empty.
    #[must_use]
    pub fn size(&self, volume: VolumeIndex) -> u64 {
        self.sizes.get(usize::from(volume.index())).copied().unwrap_or(0)
    }

    /// Bytes of a region: fewer at the end of a volume, none behind it.
    #[must_use]
    pub fn region_len(&self, at: RegionId) -> u64 {
        self.size(at.volume).saturating_sub(at.start()).min(REGION)
    }

    /// Puts in every leaf that the bytes from `start` to `end` touch.
    pub fn mark(&mut self, volume: VolumeIndex, start: u64, end: u64) {
        let (mut at, end) = (start / LEAF, end.min(self.size(volume)).div_ceil(LEAF));
        while at < end {
            let (region, first) = place(at);
            let count = (LEAVES - first).min(usize::try_from(end - at).unwrap_or(LEAVES));
            self.or(RegionId { volume, region }, LeafBits::run(first, count));
            at += count as u64;
        }
    }

    /// Puts in leaves that the region has.
    fn or(&mut self, at: RegionId, new: LeafBits) {
        let bits = self.regions.entry(at).or_default();
        let before = bits.count();
        bits.0.iter_mut().zip(new.0).for_each(|(word, new)| *word |= new);
        self.count += bits.count() - before;
    }

    /// Puts in everything that a frame changes.
    pub fn mark_frame(&mut self, frame: &Frame) {
        for record in frame.records() {
            if let Record::Write { volume, range, .. }
            | Record::Zero { volume, range }
            | Record::Trim { volume, range } = record
            {
                self.mark(volume, range.start(), range.end());
            }
        }
    }

    /// Puts in one leaf of a region.
    pub fn set(&mut self, at: RegionId, leaf: usize) {
        if (leaf as u64) * LEAF < self.region_len(at) {
            self.count += u64::from(self.regions.entry(at).or_default().set(leaf));
        }
    }

    /// Takes out one leaf of a region; whether it was there.
    pub fn unset(&mut self, at: RegionId, leaf: usize) -> bool {
        let Some(bits) = self.regions.get_mut(&at) else { return false };
        let had = bits.unset(leaf);
        self.count -= u64::from(had);
        if bits.count() == 0 {
            self.regions.remove(&at);
        }
        had
    }

    /// Which leaves of a region are in it.
    #[must_use]
    pub fn bits(&self, at: RegionId) -> LeafBits {
        self.regions.get(&at).copied().unwrap_or_default()
    }

    /// Takes out all of a region.
    pub fn take(&mut self, at: RegionId) -> LeafBits {
        let bits = self.regions.remove(&at).unwrap_or_default();
        self.count -= bits.count();
        bits
    }

    /// The first region from `from` on that has any.
    #[must_use]
    pub fn next(&self, from: RegionId) -> Option<(RegionId, LeafBits)> {
        self.regions.range(from..).next().map(|(at, bits)| (*at, *bits))
    }

    /// All regions that have any, in order.
    pub fn regions(&self) -> impl Iterator<Item = (RegionId, LeafBits)> + '_ {
        self.regions.iter().map(|(at, bits)| (*at, *bits))
    }

    /// How many leaves.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Puts in all of another set.
    pub fn union(&mut self, other: &Self) {
        other.regions.iter().for_each(|(at, bits)| self.or(*at, *bits));
    }

    /// They as at most `limit` ranges in order, rounded to larger units where they are more.
    #[must_use]
    pub fn ranges(&self, limit: usize) -> Vec<Changed> {
        let mut unit = LEAF;
        loop {
            let ranges = self.ranges_of(unit);
            if ranges.len() <= limit || unit > u64::MAX / 4 {
                return ranges;
            }
            unit *= 2;
        }
    }

    fn ranges_of(&self, unit: u64) -> Vec<Changed> {
        let mut ranges: Vec<Changed> = Vec::new();
        let runs = self.regions().flat_map(|(at, bits)| bits.runs().map(move |run| (at, run)));
        for (at, (first, count)) in runs {
            let start = at.start() + first as u64 * LEAF;
            let end = start + count as u64 * LEAF;
            let start = start / unit * unit;
            let end = end.checked_next_multiple_of(unit).unwrap_or(u64::MAX);
            let end = end.min(self.size(at.volume));
            match ranges.last_mut() {
                Some(last) if last.volume == at.volume && last.end >= start => {
                    last.end = last.end.max(end);
                }
                _ => ranges.push(Changed { volume: at.volume, start, end }),
            }
        }
        ranges
    }
}

/// The region of a leaf of a volume, and which of its leaves it is.
fn place(leaf: u64) -> (u32, usize) {
    let region = u32::try_from(leaf / LEAVES as u64).unwrap_or(u32::MAX);
    (region, usize::try_from(leaf % LEAVES as u64).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set() -> LeafSet {
        LeafSet::new(&[VolumeGeometry { size_bytes: 3 * REGION + 512, block_size: 512 }])
    }

    fn volume() -> VolumeIndex {
        VolumeIndex::new(0).unwrap()
    }

    #[test]
    fn a_mark_takes_every_leaf_it_touches_and_none_behind_the_volume() {
        let mut leaves = set();
        leaves.mark(volume(), LEAF - 1, LEAF + 1);
        assert_eq!(leaves.count(), 2);
        leaves.mark(volume(), 3 * REGION, u64::MAX);
        assert_eq!(leaves.count(), 3);
        assert_eq!(leaves.region_len(RegionId { volume: volume(), region: 3 }), 512);
        let last = leaves.ranges(9).pop().unwrap();
        assert_eq!((last.start, last.end), (3 * REGION, 3 * REGION + 512));
    }

    #[test]
    fn too_many_ranges_are_rounded_and_none_is_left_out() {
        let mut leaves = set();
        (0..128).for_each(|leaf| leaves.mark(volume(), leaf * 2 * LEAF, leaf * 2 * LEAF + 1));
        assert_eq!(leaves.ranges(1000).len(), 128);
        let few = leaves.ranges(5);
        assert!(few.len() <= 5);
        assert!((0..128).all(|leaf| few.iter().any(|r| (r.start..r.end).contains(&(leaf * LEAF)))));
    }

    proptest! {
        #[test]
        fn runs_are_the_leaves_that_are_in_it(first in 0..LEAVES, count in 0..LEAVES) {
            let count = count.min(LEAVES - first);
            let mut bits = LeafBits::run(first, count);
            prop_assert!(bits.iter().eq(first..first + count));
            bits.set(0);
            bits.set(LEAVES - 1);
            let of_runs = bits.runs().flat_map(|(first, count)| first..first + count);
            prop_assert_eq!(of_runs.collect::<Vec<_>>(), bits.iter().collect::<Vec<_>>());
        }

        #[test]
        fn the_count_is_that_of_the_leaves_whatever_goes_in_and_out(
            changes in prop::collection::vec((any::<bool>(), 0_u32..3, 0_usize..LEAVES), 0..200),
        ) {
            let mut leaves = set();
            for (put, region, leaf) in changes {
                let at = RegionId { volume: volume(), region };
                if put { leaves.set(at, leaf) } else { leaves.unset(at, leaf); }
            }
            let real: u64 = leaves.regions().map(|(_, bits)| bits.iter().count() as u64).sum();
            prop_assert_eq!(leaves.count(), real);
            prop_assert!(leaves.regions().all(|(_, bits)| bits.count() > 0));
        }
    }
}

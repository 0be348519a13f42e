//! Dirty maps: which parts of a resource's volumes the log has changed, in bounded space however
//! long a standby is away (design §2.6).

use bytes::BufMut;

use crate::checksum::crc32c;
use crate::codec::{CodecError, Reader};
use crate::frame::{Frame, Record};
use crate::ids::{VOLUMES_MAX, VolumeIndex};
use crate::range::ByteRange;
use crate::replica::VolumeGeometry;

/// Most units of one volume.
const UNITS_MAX: u64 = 1 << 22;
/// The smallest unit, in bytes.
const UNIT_MIN: u64 = super::LEAF;

/// Marks parts of volumes, in units that grow with the volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockMap {
    volumes: Vec<Units>,
}

/// The units of one volume.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Units {
    size: u64,
    unit: u64,
    /// Up to the last word that has a mark.
    words: Vec<u64>,
}

impl Units {
    fn new(size: u64) -> Self {
        let unit = size.div_ceil(UNITS_MAX).max(UNIT_MIN);
        Self { size, unit: unit.checked_next_power_of_two().unwrap_or(1 << 63), words: Vec::new() }
    }

    fn count(&self) -> u64 {
        self.size.div_ceil(self.unit)
    }

    fn has(&self, index: u64) -> bool {
        let word = usize::try_from(index / 64).ok().and_then(|word| self.words.get(word));
        word.is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    fn set(&mut self, index: u64) {
        let word = usize::try_from(index / 64).unwrap_or(usize::MAX);
        if index >= self.count() {
            return;
        }
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        if let Some(word) = self.words.get_mut(word) {
            *word |= 1 << (index % 64);
        }
    }

    /// Runs of marked units: the first, and one past the last.
    fn runs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let end = (self.words.len() as u64 * 64).min(self.count());
        let mut at = 0;
        std::iter::from_fn(move || {
            while at < end && !self.has(at) {
                // Whole words without a mark are passed over at once.
                let word = usize::try_from(at / 64).ok().and_then(|word| self.words.get(word));
                at = if at.is_multiple_of(64) && word == Some(&0) { at + 64 } else { at + 1 };
            }
            let first = at;
            while at < end && self.has(at) {
                at += 1;
            }
            (at > first).then_some((first, at))
        })
    }
}

impl BlockMap {
    /// Without a mark, for these volumes.
    #[must_use]
    pub fn new(volumes: &[VolumeGeometry]) -> Self {
        let volumes = volumes.iter().take(usize::from(VOLUMES_MAX));
        Self { volumes: volumes.map(|volume| Units::new(volume.size_bytes)).collect() }
    }

    /// The same marks for volumes of these sizes, none of them smaller; none where it is of others.
    #[must_use]
    pub fn grown_to(&self, volumes: &[VolumeGeometry]) -> Option<Self> {
        let mut sizes = self.volumes.iter().zip(volumes);
        let fits =
            self.volumes.len() == volumes.len() && sizes.all(|(own, of)| own.size <= of.size_bytes);
        let mut grown = Self::new(volumes);
        self.runs().filter(|_| fits).for_each(|(volume, range)| grown.mark(volume, range));
        fits.then_some(grown)
    }

    /// Marks a range; what lies behind the volume is left out.
    pub fn mark(&mut self, volume: VolumeIndex, range: ByteRange) {
        if let Some(units) = self.volumes.get_mut(usize::from(volume.index())) {
            let end = range.end().min(units.size).div_ceil(units.unit);
            (range.start() / units.unit..end).for_each(|index| units.set(index));
        }
    }

    /// Marks everything that a frame changes.
    pub fn mark_frame(&mut self, frame: &Frame) {
        for record in frame.records() {
            if let Record::Write { volume, range, .. }
            | Record::Zero { volume, range }
            | Record::Trim { volume, range } = record
            {
                self.mark(volume, range);
            }
        }
    }

    /// What is marked, as ranges in order.
    pub fn runs(&self) -> impl Iterator<Item = (VolumeIndex, ByteRange)> + '_ {
        self.volumes.iter().zip(0..).flat_map(|(units, index)| {
            units.runs().filter_map(move |(first, end)| {
                let (start, end) = (first * units.unit, end.saturating_mul(units.unit));
                let end = end.min(units.size);
                let range = ByteRange::new(start, end.saturating_sub(start)).ok()?;
                Some((VolumeIndex::new(index)?, range))
            })
        })
    }

    /// Bytes that are marked.
    #[must_use]
    pub fn marked_bytes(&self) -> u64 {
        self.runs().map(|(_, range)| range.len()).sum()
    }

    /// Takes every mark away.
    pub fn clear(&mut self) {
        self.volumes.iter_mut().for_each(|units| units.words.clear());
    }

    /// Puts in every mark of a map of the same volumes.
    pub fn union(&mut self, other: &Self) {
        for (own, other) in self.volumes.iter_mut().zip(&other.volumes) {
            let of_unit = own.unit == other.unit && own.size == other.size;
            let runs = other.runs().filter(|_| of_unit);
            runs.for_each(|(first, end)| (first..end).for_each(|index| own.set(index)));
        }
    }

    /// Its bytes: of each volume the size, and the runs or the words, whichever is less; then a
    /// checksum. Without a mark it is short.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u16_le(u16::try_from(self.volumes.len()).unwrap_or(u16::MAX));
        for units in &self.volumes {
            out.put_u64_le(units.size);
            // A volume has at most UNITS_MAX units, so all of these numbers fit.
            let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
            let runs = units.runs().count();
            let is_dense = runs > units.words.len();
            out.put_u8(u8::from(is_dense));
            out.put_u32_le(narrow(if is_dense { units.words.len() } else { runs }));
            if is_dense {
                units.words.iter().for_each(|word| out.put_u64_le(*word));
                continue;
            }
            for (first, end) in units.runs() {
                out.put_u32_le(u32::try_from(first).unwrap_or(u32::MAX));
                out.put_u32_le(u32::try_from(end - first).unwrap_or(u32::MAX));
            }
        }
        let crc = crc32c(&out);
        out.put_u32_le(crc);
        out
    }

    /// Reads what [`BlockMap::encode`] wrote.
    ///
    /// # Errors
    /// [`CodecError`] for whatever that never writes: runs out of order, that touch, or that lie
    /// behind their volume.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let (body, crc) =
            bytes.split_last_chunk::<4>().ok_or(CodecError::Short { field: "dirty map" })?;
        let crc = u32::from_le_bytes(*crc);
        if crc32c(body) != crc {
            return Err(CodecError::Value { field: "checksum", value: u64::from(crc) });
        }
        let mut reader = Reader::new(body);
        let volumes = reader.list("dirty map", usize::from(VOLUMES_MAX), |reader| {
            let mut units = Units::new(reader.u64("size of a volume")?);
            let is_dense = reader.flag("kind of a dirty map")?;
            let count = u64::from(reader.u32("length of a dirty map")?);
            if count > units.count().div_ceil(64) {
                return Err(CodecError::Value { field: "length of a dirty map", value: count });
            }
            if is_dense {
                get_words(reader, &mut units, count)?;
                return Ok(units);
            }
            let mut free = 0;
            for _ in 0..count {
                let first = u64::from(reader.u32("run")?);
                let len = u64::from(reader.u32("length of a run")?);
                if first < free || len == 0 || first + len > units.count() {
                    return Err(CodecError::Value { field: "run", value: first });
                }
                (first..first + len).for_each(|index| units.set(index));
                free = first + len + 1;
            }
            Ok(units)
        })?;
        reader.finish()?;
        Ok(Self { volumes })
    }
}

fn get_words(reader: &mut Reader<'_>, units: &mut Units, count: u64) -> Result<(), CodecError> {
    for _ in 0..count {
        let word = reader.u64("words of a dirty map")?;
        units.words.push(word);
    }
    let end = units.count();
    let behind = (end..end.next_multiple_of(64)).any(|index| units.has(index));
    if behind || units.words.last() == Some(&0) {
        return Err(CodecError::Value { field: "words of a dirty map", value: end });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn volumes() -> Vec<VolumeGeometry> {
        let of = |size_bytes| VolumeGeometry { size_bytes, block_size: 512 };
        vec![of(1 << 20), of((1 << 45) + 512)]
    }

    fn mark(map: &mut BlockMap, (volume, start, len): (u16, u64, u64)) {
        map.mark(VolumeIndex::new(volume).unwrap(), ByteRange::new(start, len).unwrap());
    }

    #[test]
    fn every_volume_has_at_most_four_million_units_of_at_least_a_leaf() {
        let map = BlockMap::new(&volumes());
        assert_eq!(map.volumes[0].unit, UNIT_MIN);
        assert!(map.volumes[1].count() <= UNITS_MAX && map.volumes[1].unit.is_power_of_two());
        assert!(map.encode().len() < 64, "an empty map is small");
    }

    #[test]
    fn marks_are_rounded_outward_and_end_with_the_volume() {
        let mut map = BlockMap::new(&volumes());
        mark(&mut map, (0, UNIT_MIN - 1, 2));
        mark(&mut map, (0, (1 << 20) - 512, 4096));
        mark(&mut map, (1, 1 << 45, 512));
        let runs: Vec<_> = map.runs().map(|(v, r)| (v.index(), r.start(), r.end())).collect();
        let last = (1 << 20) - UNIT_MIN;
        assert_eq!(runs[..2], [(0, 0, 2 * UNIT_MIN), (0, last, 1 << 20)]);
        assert_eq!(runs[2], (1, 1 << 45, (1 << 45) + 512));
        map.clear();
        assert_eq!(map.marked_bytes(), 0);
    }

    #[test]
    fn a_map_grows_with_its_volumes_and_loses_no_mark() {
        let of = |size_bytes| VolumeGeometry { size_bytes, block_size: 512 };
        let mut map = BlockMap::new(&[of(UNIT_MIN / 2), of(1 << 20)]);
        mark(&mut map, (0, 0, 512));
        mark(&mut map, (1, 3 * UNIT_MIN, 1));
        let mut grown = map.grown_to(&[of(1 << 20), of(1 << 45)]).unwrap();
        // The last leaf of the small volume was a short one.
        assert!(grown.marked_bytes() >= map.marked_bytes());
        mark(&mut grown, (0, (1 << 20) - 512, 512));
        let runs: Vec<_> = grown.runs().map(|(v, r)| (v.index(), r.start())).collect();
        assert_eq!(runs, [(0, 0), (0, (1 << 20) - UNIT_MIN), (1, 0)]);
        assert!(grown.grown_to(&[of(1 << 20), of(1 << 20)]).is_none(), "nothing shrinks");
        assert!(grown.grown_to(&[of(1 << 20)]).is_none(), "no volume goes away");
    }

    proptest! {
        #[test]
        fn a_map_reads_back_as_it_was_written_and_a_union_has_all_marks(
            marks in prop::collection::vec((0_u16..2, 0_u64..1 << 46, 1_u64..1 << 30), 0..20),
        ) {
            let (mut map, mut other) = (BlockMap::new(&volumes()), BlockMap::new(&volumes()));
            for (number, change) in marks.iter().enumerate() {
                mark(if number % 2 == 0 { &mut map } else { &mut other }, *change);
            }
            prop_assert_eq!(BlockMap::decode(&map.encode()).unwrap().encode(), map.encode());
            map.union(&other);
            let mut all = BlockMap::new(&volumes());
            marks.iter().for_each(|change| mark(&mut all, *change));
            prop_assert_eq!(map.encode(), all.encode());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = BlockMap::decode(&bytes);
            let crc = crc32c(&bytes);
            bytes.extend(crc.to_le_bytes());
            let _ = BlockMap::decode(&bytes);
        }

        #[test]
        fn a_map_with_a_changed_byte_is_refused(at in 0_usize..30, bit in 0_u8..8) {
            let mut map = BlockMap::new(&volumes());
            mark(&mut map, (0, 0, 1));
            let mut bytes = map.encode();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(BlockMap::decode(&bytes).is_err());
        }
    }
}

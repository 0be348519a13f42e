//! The bytes of before-images on disk; `mod.rs` draws them. Version 1; golden files freeze it.

use bytes::{Buf, BufMut};
use hadrian_protocol::checksum::{crc32c, crc32c_of_two};
use hadrian_protocol::frame::{ChainHash, LogPosition};
use hadrian_protocol::ids::{Lsn, ResourceId, VolumeIndex};
use hadrian_protocol::point::{POINT_NAME_MAX, PointName};
use hadrian_protocol::replica::VolumeGeometry;
use hadrian_protocol::time::WallTime;

/// Everything in a segment begins at a multiple of this, in bytes.
pub(super) const PAGE: usize = 4096;
/// Length of the fixed part of a record, in bytes; its table follows.
pub(super) const HEAD_LEN: usize = 160;
const _: () = assert!(4 + 2 + 2 + 4 + 4 + 8 + 2 * 48 + 1 + POINT_NAME_MAX + 4 <= HEAD_LEN);
/// Length of one entry of a record's table, in bytes.
pub(super) const ENTRY_LEN: usize = 24;
/// Most entries of one record; a batch that needs more is several records.
pub(super) const ENTRIES_MAX: usize = 8192;
/// Most bytes of one entry: so much is read to check any part of it.
pub(super) const PIECE_MAX: u64 = 64 << 10;
/// Longest file `begin`: that of the most volumes.
pub(super) const BEGIN_LEN_MAX: u64 = 4096;

const BEGIN_MAGIC: [u8; 8] = *b"HDRNHIST";
const SEGMENT_MAGIC: [u8; 8] = *b"HDRNUNDO";
const RECORD_MAGIC: [u8; 4] = *b"UNDO";
/// Version 1: the first.
const VERSION: u16 = 1;
/// The last record of its batch.
const LAST: u16 = 1;
const BYTES: u16 = 0;
const ZEROES: u16 = 1;

/// A point of a resource's history: where, and when the frame before it was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Point {
    /// Where.
    pub at: LogPosition,
    /// When, by the clock of the primary of that time. The start of the epoch: nobody knows any
    /// more, because the frame is not in the log.
    pub wall: WallTime,
}

/// What the first page of a segment says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    pub(super) number: u64,
    /// The batch that begins it.
    pub(super) batch: u64,
    /// Where that begins.
    pub(super) from: Point,
}

/// The place of a record: its batch, counted from 1, and which of the batch's records it is, from
/// 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) batch: u64,
    pub(super) part: u32,
}

impl Place {
    /// Where a batch begins.
    pub(super) fn first_of(batch: u64) -> Self {
        Self { batch, part: 0 }
    }

    /// The place of the record behind one that is the last of its batch, or is not.
    pub(super) fn after(self, is_last: bool) -> Self {
        match is_last {
            true => Self { batch: self.batch.saturating_add(1), part: 0 },
            false => Self { batch: self.batch, part: self.part.saturating_add(1) },
        }
    }
}

/// A record: what part of the image was at `from`, before the frames up to `to` were brought in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) place: Place,
    pub(super) is_last: bool,
    pub(super) from: Point,
    pub(super) to: Point,
    /// What an operator has called `to`.
    pub(super) name: Option<PointName>,
    pub(super) entries: Vec<Entry>,
}

/// What a range held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) volume: VolumeIndex,
    pub(super) offset: u64,
    pub(super) len: u64,
    /// The CRC-32C of its bytes; none: zeroes, of which nothing is stored.
    pub(super) crc: Option<u32>,
}

impl Entry {
    /// Bytes that it has in the file.
    pub(super) fn stored(&self) -> u64 {
        if self.crc.is_some() { self.len } else { 0 }
    }
}

impl Record {
    /// Bytes from its first to those of its first entry.
    pub(super) fn head_len(count: usize) -> u64 {
        ((HEAD_LEN + count * ENTRY_LEN) as u64).next_multiple_of(PAGE as u64)
    }

    /// Bytes of it in the file, with what fills up its last page.
    pub(super) fn len(&self) -> u64 {
        let stored: u64 = self.entries.iter().map(Entry::stored).sum();
        Self::head_len(self.entries.len()) + stored.next_multiple_of(PAGE as u64)
    }

    /// Head and table, filled up to whole pages.
    pub(super) fn encode_head(&self) -> Vec<u8> {
        let mut table = Vec::with_capacity(self.entries.len() * ENTRY_LEN);
        for entry in &self.entries {
            table.put_u16_le(entry.volume.index());
            table.put_u16_le(if entry.crc.is_some() { BYTES } else { ZEROES });
            table.put_u32_le(entry.crc.unwrap_or(0));
            table.put_u64_le(entry.offset);
            table.put_u64_le(entry.len);
        }
        let mut out = Vec::with_capacity(HEAD_LEN + table.len() + PAGE);
        out.put_slice(&RECORD_MAGIC);
        out.put_u16_le(if self.is_last { LAST } else { 0 });
        out.put_u16_le(0);
        out.put_u32_le(self.place.part);
        out.put_u32_le(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        out.put_u64_le(self.place.batch);
        put_point(&mut out, self.from);
        put_point(&mut out, self.to);
        let name = self.name.as_ref().map_or("", PointName::as_str);
        out.put_u8(u8::try_from(name.len()).unwrap_or(0));
        out.put_slice(name.as_bytes());
        out.resize(HEAD_LEN - 4, 0);
        let crc = crc32c_of_two(&out, &table);
        out.put_u32_le(crc);
        out.extend(table);
        out.resize(out.len().next_multiple_of(PAGE), 0);
        out
    }
}

/// How many entries the table of a record has; none where `page` does not begin one.
pub(super) fn entry_count(page: &[u8]) -> Option<usize> {
    let mut rest = page.get(..HEAD_LEN)?.strip_prefix(&RECORD_MAGIC)?;
    rest.advance(8);
    let count = usize::try_from(rest.get_u32_le()).ok()?;
    (count <= ENTRIES_MAX).then_some(count)
}

/// The record whose head and table `bytes` begin with; none where that is not what was written.
pub(super) fn decode_record(bytes: &[u8], volumes: &[VolumeGeometry]) -> Option<Record> {
    let count = entry_count(bytes)?;
    let (head, rest) = bytes.split_at_checked(HEAD_LEN)?;
    let mut table = rest.get(..count.checked_mul(ENTRY_LEN)?)?;
    let (body, crc) = head.split_last_chunk::<4>()?;
    if crc32c_of_two(body, table) != u32::from_le_bytes(*crc) {
        return None;
    }
    let mut rest = body.strip_prefix(&RECORD_MAGIC)?;
    let (flags, zero, part) = (rest.get_u16_le(), rest.get_u16_le(), rest.get_u32_le());
    rest.advance(4);
    let batch = rest.get_u64_le();
    let (from, to) = (get_point(&mut rest), get_point(&mut rest));
    let name = get_name(rest)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let (volume, kind) = (VolumeIndex::new(table.get_u16_le())?, table.get_u16_le());
        let (crc, offset, len) = (table.get_u32_le(), table.get_u64_le(), table.get_u64_le());
        let size = volumes.get(usize::from(volume.index()))?.size_bytes;
        let inside = offset.checked_add(len).is_some_and(|end| end <= size);
        let crc = match kind {
            BYTES if len <= PIECE_MAX => Some(crc),
            ZEROES if crc == 0 => None,
            _ => return None,
        };
        if len == 0 || !inside {
            return None;
        }
        entries.push(Entry { volume, offset, len, crc });
    }
    let right = flags & !LAST == 0 && zero == 0 && batch > 0 && from.at.lsn < to.at.lsn;
    let place = Place { batch, part };
    right.then_some(Record { place, is_last: flags & LAST != 0, from, to, name, entries })
}

/// The name that a head has at its end; `None` where what is there is none.
fn get_name(mut rest: &[u8]) -> Option<Option<PointName>> {
    let len = usize::from(rest.try_get_u8().ok()?);
    let (name, zeroes) = rest.split_at_checked(len)?;
    let is_filled = zeroes.iter().all(|byte| *byte == 0);
    match name.is_empty() {
        true => is_filled.then_some(None),
        false => PointName::from_bytes(name).filter(|_| is_filled).map(Some),
    }
}

fn put_point(out: &mut Vec<u8>, point: Point) {
    out.put_u64_le(point.at.lsn.get());
    out.put_slice(point.at.chain.as_bytes());
    out.put_u64_le(point.wall.as_micros());
}

fn get_point(rest: &mut &[u8]) -> Point {
    let lsn = Lsn::new(rest.get_u64_le());
    let mut chain = [0; 32];
    rest.copy_to_slice(&mut chain);
    let wall = WallTime::from_micros(rest.get_u64_le());
    Point { at: LogPosition { lsn, chain: ChainHash::from_bytes(chain) }, wall }
}

impl SegmentHeader {
    pub(super) fn encode(&self, resource: ResourceId) -> Vec<u8> {
        let mut out = SEGMENT_MAGIC.to_vec();
        out.put_u16_le(VERSION);
        out.put_slice(resource.as_bytes());
        out.put_u64_le(self.number);
        out.put_u64_le(self.batch);
        put_point(&mut out, self.from);
        out.resize(PAGE - 4, 0);
        let crc = crc32c(&out);
        out.put_u32_le(crc);
        out
    }

    /// What a first page says; none where it is not what was written for this resource under this
    /// number.
    pub(super) fn decode(page: &[u8], resource: ResourceId, number: u64) -> Option<Self> {
        let (body, crc) = page.get(..PAGE)?.split_last_chunk::<4>()?;
        if crc32c(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut rest = body.strip_prefix(&SEGMENT_MAGIC)?;
        let version = rest.get_u16_le();
        let rest = &mut rest.strip_prefix(resource.as_bytes())?;
        let found = rest.get_u64_le();
        let batch = rest.get_u64_le();
        let from = get_point(rest);
        let right = version == VERSION && found == number && batch > 0;
        right.then_some(Self { number, batch, from })
    }
}

/// The whole file `begin`: whose history it is, of volumes of which sizes. There is nothing else to
/// be said, so it either is this or is none that can be used.
pub(super) fn begin(resource: ResourceId, volumes: &[VolumeGeometry]) -> Vec<u8> {
    let mut out = BEGIN_MAGIC.to_vec();
    out.put_u16_le(VERSION);
    out.put_slice(resource.as_bytes());
    out.put_u32_le(u32::try_from(volumes.len()).unwrap_or(u32::MAX));
    for volume in volumes {
        out.put_u64_le(volume.size_bytes);
        out.put_u32_le(volume.block_size);
    }
    let crc = crc32c(&out);
    out.put_u32_le(crc);
    out
}

/// Whether a file `begin` is of this replica: of the same volumes, which may have been smaller.
pub(super) fn begin_fits(bytes: &[u8], resource: ResourceId, volumes: &[VolumeGeometry]) -> bool {
    let mut then = volumes.to_vec();
    let sizes = bytes.get(BEGIN_MAGIC.len() + 2 + 16 + 4..).unwrap_or_default().chunks_exact(12);
    for (volume, mut size) in then.iter_mut().zip(sizes) {
        volume.size_bytes = volume.size_bytes.min(size.get_u64_le());
    }
    // Whatever else it says has to be what would be written.
    begin(resource, &then) == bytes
}

pub(super) fn segment_name(number: u64) -> String {
    format!("{number:016x}.undo")
}

pub(super) fn parse_segment_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".undo").filter(|digits| digits.len() == 16)?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    (segment_name(number) == name).then_some(number)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resource() -> ResourceId {
        ResourceId::from_bytes([3; 16])
    }

    fn volumes() -> Vec<VolumeGeometry> {
        vec![VolumeGeometry { size_bytes: 1 << 20, block_size: 512 }; 2]
    }

    fn point(lsn: u64) -> Point {
        let chain = ChainHash::from_bytes([lsn.to_le_bytes()[1]; 32]);
        let wall = WallTime::from_micros(lsn * 1000);
        Point { at: LogPosition { lsn: Lsn::new(lsn), chain }, wall }
    }

    pub(in super::super) fn sample() -> Record {
        let volume = |index| VolumeIndex::new(index).unwrap();
        let bytes = Entry { volume: volume(0), offset: 4096, len: 4096, crc: Some(7) };
        let zeroes = Entry { volume: volume(1), offset: 0, len: 1 << 20, crc: None };
        Record {
            place: Place { batch: 5, part: 1 },
            is_last: true,
            from: point(4096),
            to: point(12288),
            name: Some("before-upgrade".parse().unwrap()),
            entries: vec![bytes, zeroes],
        }
    }

    /// The bytes of version 1. They may never change.
    #[test]
    fn the_bytes_of_version_1_are_these_and_are_read_back() {
        let golden = hadrian_golden::Golden::new(env!("CARGO_MANIFEST_DIR"), "v1");
        golden.check("history-begin", &begin(resource(), &volumes()));
        let header = SegmentHeader { number: 9, batch: 5, from: point(4096) };
        let page = golden.check("history-segment", &header.encode(resource()));
        assert_eq!(SegmentHeader::decode(&page, resource(), 9), Some(header));
        let record = golden.check("history-record", &sample().encode_head());
        assert_eq!(decode_record(&record, &volumes()), Some(sample()));
    }

    #[test]
    fn a_beginning_is_of_the_same_volumes_which_may_have_grown() {
        let then = begin(resource(), &volumes());
        let mut grown = volumes();
        grown[1].size_bytes *= 2;
        assert!(begin_fits(&then, resource(), &volumes()) && begin_fits(&then, resource(), &grown));
        assert!(!begin_fits(&begin(resource(), &grown), resource(), &volumes()), "nothing shrinks");
        assert!(!begin_fits(&then, ResourceId::from_bytes([4; 16]), &volumes()));
        assert!(!begin_fits(&then, resource(), &volumes()[..1]));
        for at in 0..then.len() {
            let mut bad = then.clone();
            bad[at] ^= 1;
            assert!(!begin_fits(&bad, resource(), &grown), "byte {at}");
        }
    }

    #[test]
    fn a_segment_is_of_one_resource_and_under_its_own_number() {
        let header = SegmentHeader { number: 9, batch: 1, from: point(0) };
        let page = header.encode(resource());
        assert!(SegmentHeader::decode(&page, resource(), 9).is_some());
        assert!(SegmentHeader::decode(&page, resource(), 8).is_none());
        let other = ResourceId::from_bytes([4; 16]);
        assert!(SegmentHeader::decode(&page, other, 9).is_none());
    }

    #[test]
    fn only_names_of_segments_are_taken_for_such() {
        assert_eq!(parse_segment_name(&segment_name(0x1f)), Some(0x1f));
        let others = ["begin", "1f.undo", "000000000000001F.undo", "+00000000000001f.undo"];
        assert!(others.iter().all(|name| parse_segment_name(name).is_none()));
    }

    #[test]
    fn a_table_that_names_what_the_volumes_do_not_have_is_none() {
        let small = [VolumeGeometry { size_bytes: 4096, block_size: 512 }; 2];
        assert!(decode_record(&sample().encode_head(), &small).is_none());
        assert!(decode_record(&sample().encode_head(), &small[..1]).is_none());
    }

    proptest! {
        #[test]
        fn no_changed_byte_of_a_record_goes_unnoticed(
            at in 0_usize..HEAD_LEN + 2 * ENTRY_LEN, bit in 0_u8..8
        ) {
            let mut bytes = sample().encode_head();
            bytes[at] ^= 1 << bit;
            prop_assert!(decode_record(&bytes, &volumes()).is_none());
        }

        #[test]
        fn no_bytes_make_the_readers_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode_record(&bytes, &volumes());
            let mut bytes = [&RECORD_MAGIC[..], &bytes].concat();
            let _ = decode_record(&bytes, &volumes());
            bytes.resize(PAGE, 0);
            let _ = SegmentHeader::decode(&bytes, resource(), 1);
        }
    }
}

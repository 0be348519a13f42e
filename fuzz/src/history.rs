//! A history that a disk may hold: a segment after damage and crashes, and the view of its oldest
//! point.
//!
//! Input: one byte of how, then the first page without the zeroes that fill it up (two bytes of its
//! length, then these), then records: one byte of how many pages of content follow its head, two
//! bytes of the length of that head, the head, and up to 64 bytes that its content repeats. With
//! how & 1 the first page is made right; with how & 2 the checksums of the records are computed and
//! each follows on the one before; with how & 4 those of the entries, too.

use std::path::{Path, PathBuf};

use hadrian_blockdev::engine::Engine as _;
use hadrian_blockdev::engine::double::{Double, Order, Unsynced};
use hadrian_blockdev::history::fuzz;
use hadrian_golden::Golden;
use hadrian_protocol::checksum::{crc32c, crc32c_of_two};
use hadrian_protocol::ids::ResourceId;
use hadrian_protocol::replica::VolumeGeometry;

use crate::memory::within;
use crate::mend;

const PAGE: usize = 4096;
const HEAD: usize = 160;
const ENTRY: usize = 24;
/// Size of each of the two volumes, as in the golden file.
const SIZE: usize = 1 << 20;
/// What a reader may hold beside the files: both images, twice, and what it reads at a time.
const HELD_MAX: usize = 16 << 20;
const PAGES_MAX: usize = 16;

/// Opens `input` as a history, and reads the oldest point.
///
/// # Panics
/// If a property breaks.
pub fn run(input: &[u8]) {
    let Some((Ok(images), contents)) = read(input) else { return };
    for (index, image) in images.iter().enumerate() {
        let store = u8::try_from(index + 1).expect("there are two");
        let known = |byte: &u8| *byte == store || *byte == 0 || contents.contains(byte);
        assert!(image.len() == SIZE && image.iter().all(known), "a byte comes from nowhere");
    }
}

/// What is found in an input, and the bytes that its records may hold.
fn read(input: &[u8]) -> Option<(fuzz::Found, Vec<u8>)> {
    let [how, low, high, rest @ ..] = input else { return None };
    let page_len = usize::from(u16::from_le_bytes([*low, *high])).min(PAGE).min(rest.len());
    let (page, rest) = rest.split_at(page_len);
    let mut file = page.to_vec();
    file.resize(PAGE, 0);
    if how & 1 != 0 {
        file[8..10].copy_from_slice(&1_u16.to_le_bytes());
        mend::put(&mut file, 10, &[3; 16]);
        mend::put(&mut file, 26, &1_u64.to_le_bytes());
        let crc = crc32c(&file[..PAGE - 4]);
        mend::put(&mut file, PAGE - 4, &crc.to_le_bytes());
    }
    let contents = add_records(&mut file, rest, *how);
    let disk = disk_with(&file);
    let found = within(HELD_MAX, || {
        let volumes = [VolumeGeometry { size_bytes: SIZE as u64, block_size: 512 }; 2];
        let stores = [PathBuf::from("/store0"), PathBuf::from("/store1")];
        let of = (ResourceId::from_bytes([3; 16]), volumes.as_slice());
        fuzz::history(disk, Path::new("/replica"), of, &stores)
    });
    let found = found.expect("a double does what it is asked for");
    Some((found.expect("there is a history, whatever it is worth"), contents))
}

/// A disk with one segment, and two stores that are full of ones and of twos.
fn disk_with(segment: &[u8]) -> Double {
    let mut disk = Double::new(1, Order::AsSubmitted, Unsynced::Lost);
    let dir = Path::new("/replica/history");
    let made = [Path::new("/replica"), dir].map(|dir| disk.create_dir(dir).is_ok());
    assert_eq!(made, [true; 2], "an empty disk takes directories");
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../blockdev");
    let begin = Golden::new(golden, "v1").read("history-begin");
    let name = dir.join("0000000000000001.undo");
    for (path, bytes) in [(dir.join("begin"), begin.as_slice()), (name, segment)] {
        disk.put_file(&path, bytes.len());
        disk.tamper(&path, |file| file.copy_from_slice(bytes));
    }
    for (store, byte) in [("/store0", 1), ("/store1", 2)] {
        disk.put_file(Path::new(store), SIZE);
        disk.tamper(Path::new(store), |file| file.fill(byte));
    }
    disk
}

/// Adds the records of an input; the bytes that their entries may hold.
fn add_records(file: &mut Vec<u8>, mut rest: &[u8], how: u8) -> Vec<u8> {
    let (mut place, mut at) = (first_place(file), point(file, 42));
    let mut held = Vec::new();
    while let [pages, low, high, more @ ..] = rest {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(more.len());
        let (head, behind) = more.split_at(len);
        let content = behind.get(..64.min(behind.len())).unwrap_or_default();
        rest = &behind[content.len()..];
        let begin = file.len();
        file.extend(head);
        file.resize(begin + len.max(HEAD).next_multiple_of(PAGE), 0);
        let content_len = usize::from(*pages).min(PAGES_MAX) * PAGE;
        let filled = content.iter().cycle().take(if content.is_empty() { 0 } else { content_len });
        let (first, filled): (usize, Vec<u8>) = (file.len(), filled.copied().collect());
        file.extend(filled);
        held.extend(content);
        if how & 2 != 0 {
            seal(file, (begin, first), (&mut place, &mut at), how & 4 != 0);
        }
    }
    held.sort_unstable();
    held.dedup();
    held
}

/// The place of the first record: its batch, and that it is the first of that.
fn first_place(file: &[u8]) -> (u64, u32) {
    let batch = file[34..42].first_chunk().map_or(1, |bytes| u64::from_le_bytes(*bytes));
    (batch, 0)
}

fn point(file: &[u8], at: usize) -> Vec<u8> {
    file[at..at + 48].to_vec()
}

/// Makes a record follow on the one before, with right checksums.
fn seal(
    file: &mut [u8],
    (begin, first): (usize, usize),
    (place, from): (&mut (u64, u32), &mut Vec<u8>),
    entries: bool,
) {
    mend::put(file, begin, b"UNDO");
    mend::put(file, begin + 8, &place.1.to_le_bytes());
    mend::put(file, begin + 16, &place.0.to_le_bytes());
    mend::put(file, begin + 24, from);
    let (lsn, to) = (mend::u32_at(from, 0), mend::u32_at(&file[begin..], 72));
    if to <= lsn {
        mend::put(file, begin + 72, &lsn.saturating_add(4096).to_le_bytes());
    }
    let room = (first - begin - HEAD) / ENTRY;
    let count = (mend::u32_at(&file[begin..], 12) as usize).min(room);
    mend::put(file, begin + 12, &u32::try_from(count).unwrap_or(0).to_le_bytes());
    let mut content = first;
    for entry in (0..count).map(|number| begin + HEAD + number * ENTRY).filter(|_| entries) {
        let len = mend::u32_at(&file[entry..], 16) as usize;
        if file[entry + 2..entry + 4] == [0, 0]
            && let Some(bytes) = file.get(content..content.saturating_add(len))
        {
            let crc = crc32c(bytes);
            mend::put(file, entry + 4, &crc.to_le_bytes());
            content += len;
        }
    }
    let table = begin + HEAD + count * ENTRY;
    let crc = crc32c_of_two(&file[begin..begin + HEAD - 4], &file[begin + HEAD..table]);
    mend::put(file, begin + HEAD - 4, &crc.to_le_bytes());
    if file[begin + 4] & 1 != 0 {
        *from = point(file, begin + 72);
        *place = (place.0.saturating_add(1), 0);
    } else {
        place.1 = place.1.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_get_as_far_as_their_names_say() {
        let seed = |wanted: &str| {
            let seeds = crate::seeds::history();
            let (_, input) = seeds.into_iter().find(|(name, _)| name == wanted).unwrap();
            read(&input).unwrap().0
        };
        let images = seed("one").unwrap();
        assert!(images[0][4096..8192].iter().all(|byte| *byte == 9), "as it was before");
        assert!(images[0][8192..].iter().all(|byte| *byte == 1), "as the store has it");
        assert!(images[1].iter().all(|byte| *byte == 0), "zeroes are kept without bytes");
        assert_eq!(seed("two").unwrap(), images, "the first counts");
        let bare = seed("empty").unwrap();
        assert!(bare[0].iter().all(|byte| *byte == 1) && bare[1].iter().all(|byte| *byte == 2));
        assert!(seed("as-written").is_err(), "of its first page the checksum is missing");
    }
}

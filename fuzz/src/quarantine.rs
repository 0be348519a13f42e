//! A quarantine file of either kind, and the view of a volume that is made of it.
//!
//! Input: one byte of how, then the file without the zeroes that fill up its first page: two bytes
//! of how many bytes of that page there are, these, and what follows. With how & 1 it holds frames,
//! else blocks; with how & 2 checksums are computed; with how & 4 there is a store beneath.

use std::path::Path;

use hadrian_blockdev::engine::double::{Double, Order, Unsynced};
use hadrian_blockdev::engine::{Engine as _, OpenAs};
use hadrian_blockdev::quarantine::{Part, View, Walk};
use hadrian_protocol::checksum::{crc32c, crc32c_of_two};
use hadrian_protocol::frame::{HEAD_LEN, Record};
use hadrian_protocol::ids::VolumeIndex;

use crate::memory::within;
use crate::mend;

const PAGE: usize = 4096;
/// Size of the volume that is looked at.
const SIZE: usize = 256 << 10;
/// What a walk and a view may hold beside the file: a chunk of the log, twice, and buffers that are
/// kept for the next.
const HELD_MAX: usize = 16 << 20;
/// Length of the head of a block.
const BLOCK_HEAD: usize = 32;

/// Goes through `input`, and compares the view with what was gone through.
///
/// # Panics
/// If a property breaks.
pub fn run(input: &[u8]) {
    let [how, low, high, rest @ ..] = input else { return };
    let page_len = usize::from(u16::from_le_bytes([*low, *high])).min(PAGE).min(rest.len());
    let (page, rest) = rest.split_at(page_len);
    let mut file = page.to_vec();
    file.resize(PAGE, 0);
    file.extend(rest);
    let is_frames = how & 1 != 0;
    if how & 2 != 0 {
        if is_frames { seal_frames(&mut file) } else { seal_blocks(&mut file) }
    }
    let mut disk = Double::new(1, Order::AsSubmitted, Unsynced::Lost);
    let path = Path::new(if is_frames { "/q.frames" } else { "/q.blocks" });
    disk.put_file(path, file.len());
    disk.tamper(path, |bytes| bytes.copy_from_slice(&file));
    let mut wanted = vec![0; SIZE];
    let beneath = (how & 4 != 0).then(|| {
        disk.put_file(Path::new("/store"), SIZE);
        disk.tamper(Path::new("/store"), |bytes| bytes.fill(1));
        wanted.fill(1);
        disk.open(Path::new("/store"), OpenAs::ReadOnly).expect("it is there")
    });
    within(HELD_MAX, || {
        model(&mut disk, path, &mut wanted);
        let Ok(mut walk) = Walk::open(&mut disk, path) else { return };
        let volume = VolumeIndex::new(0).expect("there is a first volume");
        let mut view = View::new(SIZE as u64, beneath);
        view.add(&mut disk, &mut walk, volume).expect("a small file is not too much");
        let found = view.read(&mut disk, 0, SIZE).expect("what was checked can be read again");
        assert!(found == wanted, "the view is what the parts say");
        check_extents(&mut disk, &view, &wanted);
    });
}

/// What lies over what, byte by byte: of blocks the first, of frames the last.
fn model(disk: &mut Double, path: &Path, wanted: &mut [u8]) {
    let Ok(mut walk) = Walk::open(disk, path) else { return };
    let mut seen = vec![false; wanted.len()];
    while let Ok(part) = walk.next(disk).expect("a double reads what is there") {
        match part {
            Part::Block(block, _) if block.volume.index() == 0 => {
                let first = usize::try_from(block.offset).unwrap_or(usize::MAX);
                for (at, byte) in (first..wanted.len()).zip(&block.content) {
                    if !std::mem::replace(&mut seen[at], true) {
                        wanted[at] = *byte;
                    }
                }
            }
            Part::Block(..) => {}
            Part::Frame(frame, _) => frame.records().for_each(|record| write(record, wanted)),
        }
    }
}

fn write(record: Record, wanted: &mut [u8]) {
    let (range, payload) = match record {
        Record::Write { volume, range, payload } if volume.index() == 0 => (range, Some(payload)),
        Record::Zero { volume, range } | Record::Trim { volume, range } if volume.index() == 0 => {
            (range, None)
        }
        _ => return,
    };
    let narrow = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(SIZE);
    let (start, end) = (narrow(range.start()), narrow(range.end()));
    match payload {
        Some(payload) => wanted[start..end].copy_from_slice(&payload[..end - start]),
        None => wanted[start..end].fill(0),
    }
}

fn check_extents(disk: &mut Double, view: &View, wanted: &[u8]) {
    let mut at = 0;
    for extent in view.extents(disk, (0, SIZE as u64), usize::MAX) {
        let end = at + usize::try_from(extent.len).expect("an extent lies in the volume");
        let is_zero = wanted[at..end].iter().all(|byte| *byte == 0);
        assert!(extent.len > 0 && (is_zero || !extent.zero), "a hole at {at} holds something");
        at = end;
    }
    assert_eq!(at, SIZE, "the extents are those of the whole volume");
}

/// The checksum of the first page, of the header of a file of blocks.
fn seal_blocks(file: &mut [u8]) {
    let crc = crc32c(&file[..PAGE - 4]);
    mend::put(file, PAGE - 4, &crc.to_le_bytes());
    let mut at = PAGE;
    while let Some(rest) = file.get(at..).filter(|rest| rest.len() >= BLOCK_HEAD) {
        // The length stands behind magic, volume, zeroes and offset.
        let len = (mend::u32_at(rest, 16) as usize).min(rest.len() - BLOCK_HEAD);
        mend::put(file, at + 16, &u32::try_from(len).unwrap_or(0).to_le_bytes());
        let block = &file[at..at + BLOCK_HEAD + len];
        let crc = crc32c_of_two(&block[..BLOCK_HEAD - 4], &block[BLOCK_HEAD..]);
        mend::put(file, at + BLOCK_HEAD - 4, &crc.to_le_bytes());
        at += BLOCK_HEAD + len;
    }
}

/// The checksum of the sheet; and each frame made to follow on the one before, from the position
/// that the sheet says, whose chain is not known.
fn seal_frames(file: &mut Vec<u8>) {
    const SHEET_LEN: usize = 92;
    mend::put(file, 40, &[0; 32]);
    mend::put(file, 16, mend::resource().as_bytes());
    let crc = crc32c(&file[..SHEET_LEN - 4]);
    mend::put(file, SHEET_LEN - 4, &crc.to_le_bytes());
    let (mut at, mut before) = (PAGE, [0; 32]);
    let from = file[32..40].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    while file.len() > at + 128 {
        let room = file.len().saturating_sub(at + HEAD_LEN);
        mend::identify(&mut file[at..], room);
        let lsn = from.saturating_add((at - PAGE) as u64);
        mend::put(file, at + LSN_AT, &lsn.to_le_bytes());
        let len = HEAD_LEN + (mend::u32_at(&file[at..], 60) as usize).next_multiple_of(4096);
        let end = at + len;
        if file.len() < end {
            file.resize(end, 0);
        }
        mend::seal_frame(&mut file[at..end], &before);
        before.copy_from_slice(&file[at + 92..at + 124]);
        at = end;
    }
}

/// Where in a frame's header its position stands.
const LSN_AT: usize = 32;

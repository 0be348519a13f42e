//! Views of files of both kinds, over stores and over nothing.

use std::path::Path;

use hadrian_protocol::frame::{Draft, HEAD_LEN as FRAME_HEAD, LogPosition, SealAs};
use hadrian_protocol::ids::{Epoch, Lsn, MemberId, ResourceId};
use hadrian_protocol::replica::VolumeGeometry;
use hadrian_protocol::time::WallTime;

use super::super::walk::{Kind, summarize};
use super::super::{BLOCK_MAGIC, END_MAGIC, encode_head, encode_header};
use super::*;
use crate::engine::OpenAs;
use crate::engine::double::{Double, Order, Unsynced};
use crate::journal::quarantine_sheet;

const SIZE: u64 = 8 * LEAF;

fn resource() -> ResourceId {
    ResourceId::derive("a", "b")
}

fn volume(index: u16) -> VolumeIndex {
    VolumeIndex::new(index).unwrap()
}

/// A file of blocks: volume, leaf, and the byte that fills it.
fn blocks(of: &[(u16, u64, u8)]) -> Vec<u8> {
    let volumes = [VolumeGeometry { size_bytes: SIZE, block_size: 512 }; 2];
    let mut file = encode_header(resource(), (Lsn::new(4096), Lsn::new(12288)), &volumes);
    for (volume, leaf, byte) in of {
        let content = vec![*byte; LEAF as usize];
        file.extend(encode_head(BLOCK_MAGIC, *volume, leaf * LEAF, &content));
        file.extend(content);
    }
    file.extend(encode_head(END_MAGIC, 0, of.len() as u64, &[]));
    file
}

/// A file of frames with one write each: first byte, length, and what fills it; zeroes are zeroed.
fn frames(of: &[(u64, usize, u8)]) -> Vec<u8> {
    let mut before = LogPosition::genesis(resource());
    let mut log = Vec::new();
    for (offset, len, byte) in of {
        let range = ByteRange::new(*offset, *len as u64).unwrap();
        let mut draft = Draft::new(vec![0; FRAME_HEAD + len.next_multiple_of(4096)]);
        match byte {
            0 => draft.zero(volume(0), range).unwrap(),
            byte => draft.write(volume(0), range, &vec![*byte; *len]).unwrap(),
        }
        let frame = draft.seal(SealAs {
            resource: resource(),
            epoch: Epoch::new(1),
            lsn: before.lsn,
            durable: before.lsn,
            wall: WallTime::from_micros(before.lsn.get() + 1),
            author: MemberId::new(0).unwrap(),
            before: before.chain,
        });
        before = frame.position_after();
        log.extend_from_slice(frame.log_bytes());
    }
    [&quarantine_sheet(resource(), Lsn::START, before.lsn)[..], &log].concat()
}

struct Rig {
    disk: Double,
    view: View,
}

impl Rig {
    fn new(has_store: bool) -> Self {
        let mut disk = Double::new(1, Order::AsSubmitted, Unsynced::Lost);
        let path = Path::new("/store");
        disk.put_file(path, SIZE as usize);
        disk.tamper(path, |bytes| bytes.fill(1));
        let store = has_store.then(|| disk.open(path, OpenAs::ReadOnly).unwrap());
        Self { disk, view: View::new(SIZE, store) }
    }

    fn open(&mut self, name: &str, bytes: &[u8]) -> Walk {
        let path = Path::new("/").join(name);
        self.disk.put_file(&path, bytes.len());
        self.disk.tamper(&path, |file| file.copy_from_slice(bytes));
        Walk::open(&mut self.disk, &path).unwrap()
    }

    fn add(&mut self, name: &str, bytes: &[u8]) -> Ending {
        let mut walk = self.open(name, bytes);
        self.view.add(&mut self.disk, &mut walk, volume(0)).unwrap()
    }

    fn all(&mut self) -> Vec<u8> {
        self.view.read(&mut self.disk, 0, SIZE as usize).unwrap()
    }

    fn leaves(&mut self) -> Vec<u8> {
        self.all().chunks(LEAF as usize).map(|leaf| leaf[0]).collect()
    }
}

#[test]
fn blocks_lie_over_the_store_and_the_first_of_a_place_counts() {
    let mut rig = Rig::new(true);
    let ending = rig.add("a.blocks", &blocks(&[(0, 2, 7), (1, 5, 6), (0, 3, 8), (0, 2, 9)]));
    assert_eq!(ending, Ending::Whole);
    assert_eq!(rig.leaves(), [1, 1, 7, 8, 1, 1, 1, 1]);
    let _ = rig.add("b.blocks", &blocks(&[(0, 2, 4), (0, 6, 5)]));
    assert_eq!(rig.leaves(), [1, 1, 7, 8, 1, 1, 5, 1]);
    assert_eq!(rig.view.quarantined_bytes(), 3 * LEAF);
}

#[test]
fn blocks_in_a_row_are_one_piece() {
    let mut rig = Rig::new(false);
    let row: Vec<_> = (0..6).map(|leaf| (0, leaf, 10 + leaf as u8)).collect();
    let _ = rig.add("a.blocks", &blocks(&row));
    assert_eq!(rig.view.pieces.len(), 1);
    assert_eq!(rig.leaves(), [10, 11, 12, 13, 14, 15, 0, 0]);
    // Reads that begin and end anywhere find the bytes between the heads.
    let all = rig.all();
    for (at, len) in [(LEAF - 1, 2), (3 * LEAF + 5, LEAF), (0, SIZE), (SIZE - 3 * LEAF, 2 * LEAF)] {
        let read = rig.view.read(&mut rig.disk, at, len as usize).unwrap();
        assert!(read == all[at as usize..(at + len) as usize], "{at} {len}");
    }
}

#[test]
fn frames_lie_over_all_before_them_and_cut_it_where_they_must() {
    let mut rig = Rig::new(true);
    let _ = rig.add("a.blocks", &blocks(&[(0, 0, 7), (0, 1, 8), (0, 2, 9)]));
    let written = [(512, 1024, 20), (LEAF - 512, 1024, 0), (512, 512, 21), (5 * LEAF, 9000, 22)];
    assert_eq!(rig.add("a.frames", &frames(&written)), Ending::Whole);
    let mut wanted = [7, 8, 9, 1, 1, 1, 1, 1].map(|byte| vec![byte; LEAF as usize]).concat();
    for (offset, len, byte) in written {
        wanted[offset as usize..][..len].fill(byte);
    }
    assert!(rig.all() == wanted);
}

#[test]
fn extents_tell_holes_and_only_where_nothing_is() {
    let mut rig = Rig::new(false);
    let _ = rig.add("a.blocks", &blocks(&[(0, 1, 7)]));
    let _ = rig.add("a.frames", &frames(&[(4 * LEAF, 512, 0), (5 * LEAF, 512, 3)]));
    let extents = rig.view.extents(&mut rig.disk, (0, SIZE), 100);
    let told: Vec<_> = extents.iter().map(|extent| (extent.len, extent.zero)).collect();
    let (leaf, block) = (LEAF, 512);
    let ends = [(2 * leaf, true), (block, true), (leaf - block, true), (block, false)];
    assert_eq!(told[..2], [(leaf, true), (leaf, false)]);
    assert_eq!(told[2..6], ends);
    assert_eq!(rig.view.extents(&mut rig.disk, (0, SIZE), 1).len(), 1);
}

#[test]
fn what_a_crash_or_damage_has_ended_is_used_up_to_there() {
    let whole = blocks(&[(0, 2, 7), (0, 3, 8)]);
    let mut rig = Rig::new(true);
    let ending = rig.add("a.blocks", &whole[..whole.len() - 100]);
    assert!(matches!(ending, Ending::CutOff { .. }), "{ending:?}");
    assert_eq!(rig.leaves()[2..4], [7, 1]);

    let written = frames(&[(0, 512, 5), (512, 512, 6)]);
    let mut rig = Rig::new(true);
    let ending = rig.add("a.frames", &written[..written.len() - 4096]);
    assert!(matches!(ending, Ending::CutOff { .. }), "{ending:?}");
    assert!(rig.all()[..1024] == [vec![5; 512], vec![1; 512]].concat());

    let mut changed = written;
    let at = changed.len() - 4096;
    changed[at] ^= 1;
    let ending = Rig::new(true).add("a.frames", &changed);
    assert!(matches!(ending, Ending::Damaged { .. }), "{ending:?}");
}

#[test]
fn a_summary_counts_and_joins() {
    let mut rig = Rig::new(true);
    let mut walk = rig.open("a.frames", &frames(&[(0, 512, 5), (512, 512, 6), (4096, 512, 0)]));
    let mut seen = 0;
    let found = summarize(&mut rig.disk, &mut walk, &mut |_| seen += 1).unwrap();
    assert_eq!((walk.kind, found.count, seen), (Kind::Frames, 3, 3));
    assert_eq!(found.changed.ranges().len(), 2);
    assert_eq!(found.changed.first, Some(WallTime::from_micros(1)));
    let mut walk = rig.open("a.blocks", &blocks(&[(0, 2, 7), (0, 3, 8)]));
    let found = summarize(&mut rig.disk, &mut walk, &mut |_| {}).unwrap();
    assert_eq!((found.count, found.changed.changed_bytes()), (2, 2 * LEAF));
}

#[test]
fn only_names_of_a_kind_are_opened() {
    assert_eq!(Kind::of_name("tail-1-2.frames"), Some((Kind::Frames, false)));
    assert_eq!(Kind::of_name("image-1-2.blocks.part"), Some((Kind::Blocks, true)));
    assert!(["frames", "a.part", "", "a.frames.bak"].iter().all(|n| Kind::of_name(n).is_none()));
}

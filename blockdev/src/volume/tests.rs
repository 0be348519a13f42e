//! Volumes against a plain array of bytes: reads see every pushed write, the stores hold exactly
//! what was allowed.

use std::path::Path;

use hadrian_protocol::frame::{Draft, SealAs};
use hadrian_protocol::ids::{Epoch, MemberId, ResourceId};
use hadrian_protocol::replica::{Base, VolumeGeometry};
use hadrian_protocol::time::WallTime;
use proptest::prelude::*;

mod device;

use super::*;
use crate::buffer::IoBuf;
use crate::engine::Uring;

const SIZE: usize = 256 << 10;

fn resource() -> ResourceId {
    ResourceId::derive("orders", "db")
}

fn volume() -> VolumeIndex {
    VolumeIndex::new(0).unwrap()
}

fn geometry(block_size: u32) -> VolumeGeometry {
    VolumeGeometry { size_bytes: SIZE as u64, block_size }
}

struct Bench {
    engine: Uring,
    volumes: Volumes,
    position: LogPosition,
    /// What a reader must see.
    model: Vec<u8>,
    applied: Vec<Lsn>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(u8),
    Zero,
    Trim,
}

fn bench(dir: &Path) -> Bench {
    let path = dir.join("store");
    create_store(&path, SIZE as u64).unwrap();
    bench_on(&path)
}

fn bench_on(path: &Path) -> Bench {
    let mut engine = Uring::new(64).unwrap();
    let store = Store::open(&mut engine, path, geometry(512)).unwrap();
    let position = LogPosition::genesis(resource());
    let volumes = Volumes::new(vec![store], position, 1 << 56);
    Bench { engine, volumes, position, model: vec![0; SIZE], applied: Vec::new() }
}

impl Bench {
    fn change(&mut self, offset: usize, len: usize, change: &Change) -> Lsn {
        let range = ByteRange::new(offset as u64, len as u64).unwrap();
        let mut draft = Draft::new(IoBuf::for_body(len));
        let new = match change {
            Change::Write(byte) => {
                draft.write(volume(), range, &vec![*byte; len]).unwrap();
                *byte
            }
            Change::Zero => {
                draft.zero(volume(), range).unwrap();
                0
            }
            Change::Trim => {
                draft.trim(volume(), range).unwrap();
                0
            }
        };
        self.model[offset..offset + len].fill(new);
        let frame = draft.seal(SealAs {
            resource: resource(),
            epoch: Epoch::new(8),
            lsn: self.position.lsn,
            durable: Lsn::START,
            wall: WallTime::default(),
            author: MemberId::new(0).unwrap(),
            before: self.position.chain,
        });
        self.position = frame.position_after();
        assert!(self.volumes.holds(&frame));
        self.volumes.push(&frame);
        self.position.lsn
    }

    /// Everything under way completes; returns the reads among it.
    fn settle(&mut self) -> Vec<ReadDone> {
        let mut reads = Vec::new();
        let mut done = Vec::new();
        while self.engine.in_flight() > 0 {
            self.engine.kick();
            self.engine.wait().unwrap();
            self.engine.reap(&mut done);
            for completion in done.drain(..) {
                match self.volumes.complete(&mut self.engine, completion) {
                    VolumesEvent::Read(read) => reads.push(read),
                    VolumesEvent::Applied(lsn) => self.applied.push(lsn),
                    VolumesEvent::Failed(error) => panic!("{error}"),
                    VolumesEvent::Nothing | VolumesEvent::Checkpointed(_) => {}
                }
            }
        }
        reads
    }

    fn read(&mut self, offset: usize, len: usize) -> Vec<u8> {
        let range = ByteRange::new(offset as u64, len as u64).unwrap();
        let done = self.volumes.read(&mut self.engine, 7, volume(), range);
        let done = done.unwrap_or_else(|| self.settle().pop().expect("the read ends"));
        done.result.unwrap().iter().flat_map(|bytes| bytes.to_vec()).collect()
    }
}

#[test]
fn a_pushed_write_is_read_back_before_and_after_it_is_applied() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = bench(dir.path());
    let end = bench.change(4096, 512, &Change::Write(7));
    assert_eq!(bench.read(0, 8192), bench.model[..8192]);
    assert!(std::fs::read(dir.path().join("store")).unwrap().iter().all(|byte| *byte == 0));
    bench.volumes.apply_to(&mut bench.engine, end);
    bench.settle();
    assert_eq!(bench.volumes.applied().lsn, end);
    assert_eq!(bench.volumes.unapplied_bytes(), 0);
    assert_eq!(bench.read(0, 8192), bench.model[..8192]);
    assert_eq!(std::fs::read(dir.path().join("store")).unwrap(), bench.model);
}

#[test]
fn what_is_not_allowed_is_not_applied_and_can_be_cut() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = bench(dir.path());
    let kept = bench.change(0, 4096, &Change::Write(1));
    let before = bench.model.clone();
    bench.change(0, 4096, &Change::Write(2));
    bench.volumes.apply_to(&mut bench.engine, kept);
    bench.settle();
    assert_eq!(std::fs::read(dir.path().join("store")).unwrap(), before);
    bench.volumes.cut(kept);
    assert_eq!(bench.read(0, 4096), before[..4096]);
    assert_eq!(bench.volumes.unapplied_bytes(), 0);
}

#[test]
fn a_store_has_one_user_and_is_as_large_as_its_volume_or_larger() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let _bench = bench(dir.path());
    let mut engine = Uring::new(64).unwrap();
    assert!(matches!(Store::open(&mut engine, &path, geometry(512)), Err(StoreError::Busy(_))));
    drop(_bench);
    let size = |size_bytes| VolumeGeometry { size_bytes, block_size: 512 };
    let error = Store::open(&mut engine, &path, size(1 << 20)).unwrap_err().to_string();
    assert!(error.contains("262144") && error.contains("1048576"), "{error}");
    let error = check_store(&path, size(4096)).unwrap_err().to_string();
    assert!(error.contains("262144") && error.contains("4096"), "{error}");
    assert!(check_store_in_use(&path, size(4096)).is_ok());
    assert_eq!(Store::open(&mut engine, &path, size(4096)).unwrap().size_bytes(), 4096);
}

#[test]
fn regions_tell_data_from_holes_and_overlay_from_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = bench(dir.path());
    let end = bench.change(0, 65536, &Change::Write(1));
    bench.volumes.apply_to(&mut bench.engine, end);
    bench.settle();
    bench.change(131_072, 4096, &Change::Write(2));
    let all = ByteRange::new(0, SIZE as u64).unwrap();
    let regions = bench.volumes.regions(volume(), all, 100);
    let kinds: Vec<_> = regions.iter().map(|region| (region.len, region.hole)).collect();
    let rest = (SIZE - 131_072 - 4096) as u64;
    assert_eq!(kinds, [(65536, false), (65536, true), (4096, false), (rest, true)]);
    assert_eq!(bench.volumes.regions(volume(), all, 2).len(), 2);
}

#[test]
fn the_base_of_a_store_depends_on_its_content_only() {
    let dir = tempfile::tempdir().unwrap();
    let paths = [dir.path().join("sparse"), dir.path().join("written")];
    create_store(&paths[0], 3 << 20).unwrap();
    std::fs::write(&paths[1], vec![0; 3 << 20]).unwrap();
    let base = |path: &Path| base_of(&[path.to_path_buf()], |_| {}).unwrap();
    assert_eq!(base(&paths[0]), Base::Zero);
    assert_eq!(base(&paths[1]), Base::Zero);
    for path in &paths {
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"x", 2_500_000).unwrap();
    }
    assert!(matches!(base(&paths[0]), Base::Digest(_)));
    assert_eq!(base(&paths[0]), base(&paths[1]));
}

fn change() -> impl Strategy<Value = (usize, usize, Change, bool)> {
    let kind = prop_oneof![
        4 => (1u8..).prop_map(Change::Write),
        1 => Just(Change::Zero),
        1 => Just(Change::Trim)
    ];
    (0..SIZE / 512, 1usize..80, kind, any::<bool>()).prop_map(|(block, blocks, kind, apply)| {
        let offset = block * 512;
        (offset, (blocks * 512).min(SIZE - offset), kind, apply)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn volumes_hold_what_an_array_would(
        changes in proptest::collection::vec(change(), 1..60)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = bench(dir.path());
        let mut image = bench.model.clone();
        for (offset, len, kind, apply) in &changes {
            let end = bench.change(*offset, *len, kind);
            if *apply {
                bench.volumes.apply_to(&mut bench.engine, end);
                image.clone_from(&bench.model);
            }
            prop_assert_eq!(&bench.read(*offset, *len), &bench.model[*offset..*offset + *len]);
        }
        bench.settle();
        prop_assert_eq!(std::fs::read(dir.path().join("store")).unwrap(), image);
        prop_assert!(bench.applied.is_sorted());
        prop_assert_eq!(bench.read(0, SIZE), bench.model.clone());
    }
}

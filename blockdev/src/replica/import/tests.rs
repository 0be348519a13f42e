//! Power lost at every operation of an import, and of the one that begins it again.

use hadrian_protocol::frame::{Began, ChainHash, LogPosition};
use hadrian_protocol::history::EpochEntry;
use hadrian_protocol::ids::{Epoch, Incarnate, Lsn, MemberId};
use hadrian_protocol::replica::{Base, Mode, Role};

use super::super::resync::tests::{SharedDisk, dir, resource, volume, whose};
use super::super::{Replica, create_in};
use super::*;
use crate::engine::double::{Double, Order, Unsynced};
use crate::superblock::Label;

const ALL: [Unsynced; 4] = [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn, Unsynced::Mixed];
const MIB: u64 = 1 << 20;
const SIZES: [u64; 2] = [MIB / 2 + 1536, MIB / 8];
/// What a seed brings: volume, first byte, length, and the byte that is there.
type Pieces = &'static [(u16, u64, u64, u8)];
/// Of what was read twice, the last one counts.
const UNDER_LOAD: Pieces = &[
    (0, 0, 98_304, 7),
    (1, 65_536, 16_384, 8),
    (1, 0, 16_384, 6),
    (0, 32_768, 16_384, 0),
    (0, MIB / 2, 1536, 9),
    (0, 81_920, 16_384, 5),
    (1, 0, 16_384, 0),
];
/// The same image of the same position, from another export: it names no zeroes.
const AT_REST: Pieces = &[
    (0, 0, 32_768, 7),
    (0, 49_152, 32_768, 7),
    (0, 81_920, 16_384, 5),
    (0, MIB / 2, 1536, 9),
    (1, 65_536, 16_384, 8),
];

fn paths() -> [PathBuf; 2] {
    ["/store0", "/store1"].map(PathBuf::from)
}

fn at() -> LogPosition {
    LogPosition { lsn: Lsn::new(10 << 12), chain: ChainHash::from_bytes([9; 32]) }
}

fn created() -> ReplicaState {
    let volumes = SIZES.map(|size_bytes| VolumeGeometry { size_bytes, block_size: 512 });
    let (member, mode) = (MemberId::new(1).unwrap(), Mode::Nearsync);
    ReplicaState::created(resource(), member, Role::Standby, mode, Base::Zero, volumes.to_vec())
}

/// The state in the end of a seed.
fn seeded() -> ReplicaState {
    let mut state = created();
    let (began, start) = (Began::Planned, LogPosition::genesis(resource()));
    let (member, incarnation) = (MemberId::new(0).unwrap(), Incarnation::new(1));
    let leader = Incarnate { member, incarnation };
    state.history.push(EpochEntry { epoch: Epoch::new(1), began, leader, start });
    state.seeded_at(at())
}

fn disk(seed: u64, unsynced: Unsynced) -> SharedDisk {
    let mut disk = Double::new(seed, Order::Scattered, unsynced);
    disk.create_dir(dir()).unwrap();
    paths().iter().zip(SIZES).for_each(|(path, size)| disk.put_file(path, size as usize));
    SharedDisk::new(disk)
}

fn images(disk: &SharedDisk) -> [Vec<u8>; 2] {
    paths().map(|path| disk.0.borrow().contents(&path).unwrap().to_vec())
}

fn expected() -> [Vec<u8>; 2] {
    let mut images = SIZES.map(|size| vec![0; size as usize]);
    for (volume, offset, len, byte) in UNDER_LOAD {
        let (from, to) = (*offset as usize, (offset + len) as usize);
        images[usize::from(*volume)][from..to].fill(*byte);
    }
    images
}

/// What the superblock says, if there is one.
fn state_of(disk: &mut SharedDisk) -> Result<Option<ReplicaState>, ReplicaError> {
    let io = |source| ReplicaError::Io { path: dir().into(), source };
    let names = Engine::list(disk, dir()).map_err(io)?;
    if !names.iter().any(|name| name == superblock::FILE_NAME) {
        return Ok(None);
    }
    open_state(disk, dir(), &whose()).map(|(_, state)| Some(state))
}

/// Imports as the command line does, from wherever an import before has ended.
fn import(disk: &mut SharedDisk, pieces: Pieces) -> Result<(), ReplicaError> {
    let is_again = match state_of(disk)? {
        Some(state) if !is_begun(&state) => return Ok(()),
        found => found.is_some(),
    };
    if !is_again {
        assert!(images(disk) == SIZES.map(|size| vec![0; size as usize]), "nothing said so");
        let new = (&Label::default(), &begun(created()));
        create_in(disk, dir(), new, MIB / 4, &mut |_| {})?;
    }
    let mut import = Import::open_over(disk.clone(), dir(), &whose(), &paths(), Store::open_in)?;
    let io = |source| ReplicaError::Io { path: dir().into(), source };
    if is_again {
        import.clear(|_| {}).map_err(io)?;
    }
    for (index, offset, len, byte) in pieces {
        let data = (*byte > 0).then(|| vec![*byte; *len as usize].into());
        import.put(volume(*index), (*offset, *len), data).map_err(io)?;
    }
    import.finish(&seeded())
}

/// Opens what was imported: it is the copy, and its log begins at the position of that.
fn check(disk: &SharedDisk) {
    let open = |disk: &SharedDisk| {
        Replica::open_over(disk.clone(), dir(), &whose(), &paths(), Store::open_in).unwrap()
    };
    let (replica, state, recovered) = open(disk);
    assert_eq!((state.checkpoint, state.apply_limit), (at(), at().lsn));
    assert_ne!(state.image, Image::Incomplete);
    assert_eq!((recovered.start, recovered.end), (at().lsn, at()));
    assert!(images(disk) == expected(), "the image is not that of the copy");
    drop(replica);
}

#[test]
fn a_power_loss_at_any_operation_is_mended_by_the_next_import() {
    for (seed, unsynced) in (0..).zip(ALL) {
        let mut cuts = 0;
        for cut in 1.. {
            let mut disk = disk(seed, unsynced);
            disk.0.borrow_mut().cut_power_at(cut);
            let is_whole = import(&mut disk, UNDER_LOAD).is_ok();
            disk.0.borrow_mut().power_on();
            if is_whole {
                break;
            }
            // The one that begins it again is cut short, too, each time elsewhere.
            disk.0.borrow_mut().cut_power_at(1 + cut * 7 % 31);
            let _ = import(&mut disk, UNDER_LOAD);
            disk.0.borrow_mut().power_on();
            import(&mut disk, AT_REST).unwrap();
            check(&disk);
            cuts += 1;
        }
        assert!(cuts > 40, "{cuts} cuts");
    }
}

#[test]
fn what_is_more_than_begun_is_not_written_over() {
    let mut disk = disk(1, Unsynced::Lost);
    import(&mut disk, AT_REST).unwrap();
    check(&disk);
    let again = Import::open_over(disk.clone(), dir(), &whose(), &paths(), Store::open_in);
    assert!(matches!(again, Err(ReplicaError::Used(_))));
    let mut state = begun(created());
    assert!(is_begun(&state));
    state.incarnation = Incarnation::new(5);
    assert!(!is_begun(&state), "a daemon has run it");
    assert!(!is_begun(&created()), "its image is whole");
}

#[test]
fn a_copy_of_other_sizes_is_refused_before_anything_counts() {
    let mut disk = disk(1, Unsynced::Lost);
    let new = (&Label::default(), &begun(created()));
    create_in(&mut disk, dir(), new, MIB / 4, &mut |_| {}).unwrap();
    let open = |disk: &SharedDisk| {
        Import::open_over(disk.clone(), dir(), &whose(), &paths(), Store::open_in)
    };
    let mut other = seeded();
    other.volumes[0].size_bytes += 512;
    let refused = open(&disk).unwrap().finish(&other);
    assert!(matches!(refused, Err(ReplicaError::Geometry { .. })));
    assert!(is_begun(&state_of(&mut disk).unwrap().unwrap()));
}

//! Volumes made larger: room, sizes, and power lost at every operation in between.

use hadrian_protocol::wire::CannotGrow;

use super::*;
use crate::engine::double::Fault;

const ALL: [Unsynced; 4] = [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn, Unsynced::Mixed];
/// Sizes after a growth of the first volume; what is left of a leaf at the old end becomes whole.
const LARGER: [u64; 2] = [MIB + 512, MIB / 8];
/// What lies behind the end of a volume before it grows.
const LITTER: u8 = 0xEE;

fn sizes(of: [u64; 2]) -> Vec<VolumeGeometry> {
    of.map(|size_bytes| VolumeGeometry { size_bytes, block_size: 512 }).into()
}

fn new(seed: u64, unsynced: Unsynced) -> Member {
    Member::of(0, (seed, unsynced), SMALL)
}

/// The same over stores that are larger than the volumes, as a device is that was just enlarged.
fn littered(seed: u64, unsynced: Unsynced) -> Member {
    let member = new(seed, unsynced);
    let mut disk = member.into_disk();
    disk.tamper(&store(0), |file| file.resize(2 * MIB as usize, LITTER));
    disk.make_device(&store(0));
    disk.power_on();
    Member::open(disk, 0).unwrap()
}

/// What was said of room last; none: nothing, because the power is gone.
fn make_room(member: &mut Member, of: [u64; 2]) -> Option<Option<CannotGrow>> {
    member.events.clear();
    member.replica.make_room(&sizes(of));
    member.settle();
    member.events.iter().rev().find_map(|event| match event {
        ReplicaEvent::RoomMade(cannot) => Some(*cannot),
        _ => None,
    })
}

/// What the core does when room is made; false where the power went.
fn take(member: &mut Member, of: [u64; 2]) -> bool {
    member.replica.resize(&sizes(of));
    member.persist(|state| (state.volumes, state.growths) = (sizes(of), state.growths + 1))
}

fn is_larger(member: &Member) -> bool {
    assert!([sizes(SMALL), sizes(LARGER)].contains(&member.state.volumes));
    member.state.volumes == sizes(LARGER)
}

/// Applies everything, with a checkpoint; false where the power went.
fn apply(member: &mut Member) -> bool {
    let end = member.end;
    member.replica.sync_log();
    member.settle();
    if !member.persist(|state| state.apply_limit = end.lsn) {
        return false;
    }
    member.replica.apply_to(end.lsn);
    member.settle();
    member.replica.checkpoint();
    member.settle();
    let done = |e: &ReplicaEvent| matches!(e, ReplicaEvent::Checkpointed(at) if *at == end);
    member.events.iter().any(done) && member.persist(|state| state.checkpoint = end)
}

/// Before the growth, in it, and behind it; false where the power went.
fn grow(member: &mut Member) -> bool {
    let near_the_end = [(0, SMALL[0] - 512, 512, 3), (1, 0, 4096, 4)];
    member.append(&near_the_end);
    if !apply(member) || make_room(member, LARGER) != Some(None) || !take(member, LARGER) {
        return false;
    }
    let over_the_old_end = [(0, SMALL[0] - 1024, 4096, 5), (0, LARGER[0] - 512, 512, 6)];
    member.append(&over_the_old_end);
    apply(member)
}

/// What is in the first volume once the growth has come to its end.
fn expected() -> Vec<u8> {
    let mut image = vec![0; LARGER[0] as usize];
    let at = |offset: u64, len: u64| offset as usize..(offset + len) as usize;
    image[at(SMALL[0] - 1024, 4096)].fill(5);
    image[at(LARGER[0] - 512, 512)].fill(6);
    image
}

fn volume_of(member: &Member) -> Vec<u8> {
    let size = member.state.volumes[0].size_bytes as usize;
    member.image()[0][..size].to_vec()
}

#[test]
fn the_new_part_reads_as_zeroes_whatever_a_device_held_there() {
    for make in [new, littered] {
        let mut member = make(1, Unsynced::Lost);
        assert!(grow(&mut member));
        assert!(volume_of(&member) == expected());
        let member = member.power_cycle().unwrap();
        assert!(is_larger(&member) && volume_of(&member) == expected());
    }
}

#[test]
fn room_alone_changes_nothing() {
    let mut member = littered(2, Unsynced::Lost);
    assert_eq!(make_room(&mut member, LARGER), Some(None));
    let member = member.power_cycle().unwrap();
    assert!(!is_larger(&member));
    assert_eq!(member.replica.volumes.stores().len(), 2);
}

#[test]
fn a_device_that_is_too_small_is_told_with_what_is_missing() {
    let mut member = new(3, Unsynced::Lost);
    member.disk().make_device(&store(0));
    let (has, missing) = (SMALL[0], LARGER[0] - SMALL[0]);
    let too_small = CannotGrow::DeviceTooSmall { has, missing };
    assert_eq!(make_room(&mut member, LARGER), Some(Some(too_small)));
    assert_eq!(member.image()[0].len() as u64, SMALL[0]);
    member.disk().tamper(&store(0), |file| file.resize(LARGER[0] as usize, LITTER));
    assert_eq!(make_room(&mut member, LARGER), Some(None), "the operator has made it larger");
}

#[test]
fn where_the_device_cannot_be_zeroed_the_replica_lives_on_and_may_be_asked_again() {
    let mut member = littered(4, Unsynced::Lost);
    member.disk().fail_at(1, Fault::Eio);
    let answer = make_room(&mut member, LARGER);
    assert_eq!(answer, Some(Some(CannotGrow::System { errno: libc::EIO })));
    let failed = |e: &ReplicaEvent| matches!(e, ReplicaEvent::Failed(..));
    assert!(!member.events.iter().any(failed));
    assert!(grow(&mut member) && volume_of(&member) == expected());
}

#[test]
fn a_sync_that_fails_is_final() {
    let mut member = littered(5, Unsynced::Lost);
    member.disk().fail_at(2, Fault::Eio);
    assert!(matches!(make_room(&mut member, LARGER), Some(Some(CannotGrow::System { .. }))));
    let failed = |e: &ReplicaEvent| matches!(e, ReplicaEvent::Failed(FailedPart::Store, _));
    assert!(member.events.iter().any(failed));
}

#[test]
fn a_frame_beyond_the_end_is_no_frame_of_this_replica_until_that_has_grown() {
    let mut member = new(6, Unsynced::Lost);
    let mut draft = Draft::new(IoBuf::for_body(0));
    draft.zero(volume(0), ByteRange::new(SMALL[0], 512).unwrap()).unwrap();
    let frame = draft.seal(SealAs {
        resource: resource(),
        epoch: Epoch::new(8),
        lsn: member.end.lsn,
        durable: Lsn::START,
        wall: WallTime::from_micros(1),
        author: FIRST,
        before: member.end.chain,
    });
    assert!(!member.replica.holds(&frame));
    assert_eq!(make_room(&mut member, LARGER), Some(None));
    assert!(!member.replica.holds(&frame), "room alone is no size");
    assert!(take(&mut member, LARGER) && member.replica.holds(&frame));
}

/// A cut at each operation; the recovery is cut short, too, and then the growth is begun again, if
/// it had not come as far as the superblock.
#[test]
fn a_cut_at_any_operation_leaves_the_old_sizes_or_the_new_ones_and_all_that_was_written() {
    for (seed, unsynced) in (10..).zip(ALL) {
        let (mut cut, mut larger, mut smaller) = (1, 0, 0);
        loop {
            let mut member = littered(seed, unsynced);
            member.disk().cut_power_at(cut);
            let is_over = grow(&mut member);
            let (took, end) = (is_larger(&member), member.end);
            let mut disk = member.into_disk();
            disk.power_on();
            disk.cut_power_at(1 + cut % 7);
            let kept = disk.copy();
            let mut member = match Member::open(disk, 0) {
                Ok(member) => member.power_cycle().unwrap(),
                Err(_) => {
                    let mut disk = Double::new(seed, Order::Scattered, unsynced);
                    disk.put_back(&kept);
                    Member::open(disk, 0).unwrap()
                }
            };
            member.settle();
            assert!(took || !is_larger(&member), "cut {cut}: sizes out of nowhere");
            assert!(!is_over || is_larger(&member), "cut {cut}: what was durable is lost");
            match is_larger(&member) {
                true => larger += 1,
                false => smaller += 1,
            }
            // What the log holds beyond the old end, it holds behind the new size.
            let beyond = member.end == end && is_over;
            if !beyond {
                assert!(grow(&mut member), "cut {cut}: {:?}", member.events);
            }
            assert!(is_larger(&member) && volume_of(&member) == expected(), "cut {cut}");
            let member = member.power_cycle().unwrap();
            assert!(volume_of(&member) == expected(), "cut {cut}, again");
            if is_over {
                break;
            }
            cut += 1;
        }
        assert!(cut > 20 && larger > 5 && smaller > 5, "{cut} cuts: {larger} {smaller}");
    }
}

#[test]
fn a_dirty_map_outlives_a_growth_and_notes_what_is_written_in_the_new_part() {
    let (peer, mut member) = (MemberId::new(1).unwrap(), new(7, Unsynced::Lost));
    let first = member.write(&[(0, 0, 512, 1)]);
    member.replica.fold(peer, None, Lsn::START);
    member.settle();
    member.replica.fold(peer, Some(Lsn::START), first.lsn);
    member.settle();
    assert_eq!(make_room(&mut member, LARGER), Some(None));
    assert!(take(&mut member, LARGER));
    // Once in this life, and once in the next, which finds the map of the smaller volume.
    for life in 0..2 {
        let from = member.end;
        let to = member.write(&[(0, LARGER[0] - 512 - life * 128 * 1024, 512, 2)]);
        member.replica.fold(peer, Some(from.lsn), to.lsn);
        member.settle();
        let marked = member.replica.copies.maps[&peer].map.marked_bytes();
        assert_eq!(marked, (16 << 10) + 512 + life * (16 << 10), "life {life}");
        assert!(apply(&mut member));
        member = member.power_cycle().unwrap();
    }
}

#[test]
fn history_goes_on_over_a_growth_and_shows_the_new_part_empty_before_it() {
    let disk = new(8, Unsynced::Lost).into_disk();
    let mut member = Member::open_as(disk, 0, true).unwrap();
    member.settle();
    assert!(grow(&mut member));
    for _ in 0..2 {
        let oldest = member.oldest_image().expect("history is kept");
        assert_eq!(oldest[0].len() as u64, LARGER[0]);
        assert!(oldest.iter().flatten().all(|byte| *byte == 0));
        member = member.power_cycle().unwrap();
        member.settle();
    }
}

#[test]
fn a_resync_after_a_growth_brings_the_new_part_and_forgets_what_was_staged_before() {
    let mut pair = Pairing::of(9, Unsynced::Lost, SMALL);
    pair.primary.write(&[(0, 0, 60_000, 7)]);
    pair.primary.apply();
    pair.begin(DIGESTS, Takes::Staged, None);
    for _ in 0..20 {
        pair.step();
    }
    pair.primary.replica.end_source(1);
    pair.standby.replica.end_sink();
    for member in [&mut pair.primary, &mut pair.standby] {
        member.settle();
        assert_eq!(make_room(member, LARGER), Some(None));
        assert!(take(member, LARGER));
    }
    pair.primary.write(&[(0, LARGER[0] - 4096, 4096, 8)]);
    pair.primary.apply();
    pair.resync(DIGESTS, Takes::Staged, None);
}

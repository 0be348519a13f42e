//! Repairs: what differs is made equal where both images rest, and what it held before is kept.

use hadrian_protocol::divergence::Changed;
use hadrian_protocol::resync::{LeafSet, Right};

use super::*;
use crate::engine::double::Fault;
use crate::quarantine::BlocksWriter;
use crate::resync::mend::{MENDED_MAX, within_one_piece};

const LEAF: u64 = hadrian_protocol::resync::LEAF;

/// What a comparison of one piece has come to.
type Ended = Result<(Vec<Changed>, u64), io::Error>;

fn wrong_side(pair: &mut Pairing, right: Right) -> &mut Member {
    match right {
        Right::Primary => &mut pair.standby,
        Right::Standby => &mut pair.primary,
    }
}

fn begin(pair: &mut Pairing, right: Option<Right>) {
    pair.to_standby.clear();
    pair.to_primary.clear();
    let _ = ended(pair);
    for member in [&mut pair.primary, &mut pair.standby] {
        member.replica.copies.counts = Counts::default();
    }
    pair.primary.replica.begin_compare(1, right);
    pair.standby.replica.answer_compare(1);
    pair.primary.replica.compare(1);
}

/// What the primary hears of it, if it has come to its end.
fn ended(pair: &mut Pairing) -> Option<Ended> {
    let events = &mut pair.primary.events;
    let is_end = |event: &ReplicaEvent| {
        matches!(event, ReplicaEvent::Compared { .. } | ReplicaEvent::CompareFailed { .. })
    };
    let at = events.iter().position(is_end)?;
    Some(match events.remove(at) {
        ReplicaEvent::Compared { done, total, differs, repaired, .. } => {
            assert_eq!(done, total, "the volumes are one piece");
            Ok((differs, repaired))
        }
        ReplicaEvent::CompareFailed { error, .. } => Err(error),
        other => unreachable!("{other:?}"),
    })
}

fn run(pair: &mut Pairing, right: Option<Right>) -> Ended {
    begin(pair, right);
    for _ in 0..100_000 {
        pair.step();
        if let Some(ended) = ended(pair) {
            return ended;
        }
    }
    panic!("it does not come to its end: {pair:?}")
}

/// Both have the same, of the same position.
fn equal(seed: u64) -> Pairing {
    let mut pair = Pairing::new(seed, Unsynced::Mixed);
    for member in [&mut pair.primary, &mut pair.standby] {
        let end = member.write(&[(0, 0, MIB / 2, 5), (1, 512, 70_000, 6)]);
        member.apply();
        member.replica.checkpoint();
        member.settle();
        member.persist(|state| (state.checkpoint, state.apply_limit) = (end, end.lsn));
    }
    pair
}

/// What the blocks files of a member hold, in order: volume, offset and the first byte.
fn kept(member: &mut Member) -> Vec<(u16, u64, u8)> {
    let folder = dir().join("quarantine");
    let disk = member.disk();
    let mut names = Engine::list(disk, &folder).unwrap();
    names.sort();
    let mut all = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(".blocks")) {
        // Of one that a crash has ended there may not even be the first page.
        let Ok(mut dump) = crate::quarantine::blocks(disk, &folder.join(name)) else { continue };
        assert_eq!(dump.header.from, dump.header.end, "of one position");
        while let Ok(Some(block)) = dump.next(disk) {
            all.push((block.volume.index(), block.offset, block.content[0]));
        }
    }
    all.sort_unstable();
    all
}

#[test]
fn what_differs_is_repaired_from_the_right_side_and_kept_on_the_other() {
    for right in [Right::Primary, Right::Standby] {
        let mut pair = equal(70);
        let before = pair.primary.image();
        let wrong = wrong_side(&mut pair, right);
        wrong.fill((0, 3 * LEAF, 1, 77));
        wrong.fill((0, 9 * MIB + 1024, 512, 78));
        wrong.fill((1, 20 * LEAF, 3 * LEAF, 79));
        let (differs, repaired) = run(&mut pair, Some(right)).unwrap();
        assert_eq!(differs.len(), 3);
        // The last leaf of the first volume is a short one.
        assert_eq!(repaired, 4 * LEAF + 1536);
        assert!(pair.primary.image() == before && pair.standby.image() == before, "{right:?}");
        let of_others = [(0, 3 * LEAF, 77), (0, 9 * MIB, 0)];
        let kept = kept(wrong_side(&mut pair, right));
        assert_eq!(kept[..2], of_others);
        assert_eq!(kept[2..], [20, 21, 22].map(|leaf| (1, leaf * LEAF, 79)));
        assert_eq!(run(&mut pair, None).unwrap(), (Vec::new(), 0));
    }
}

#[test]
fn what_is_not_to_be_repaired_is_only_told() {
    let mut pair = equal(71);
    pair.standby.fill((0, 3 * LEAF, 1, 77));
    let (differs, repaired) = run(&mut pair, None).unwrap();
    assert_eq!((differs.len(), repaired), (1, 0));
    assert_eq!(pair.standby.image()[0][3 * LEAF as usize], 77);
    assert_eq!(kept(&mut pair.standby), []);
}

#[test]
fn a_whole_volume_is_repaired_through_a_window() {
    for right in [Right::Primary, Right::Standby] {
        let mut pair = equal(72);
        let before = pair.primary.image();
        wrong_side(&mut pair, right).fill((0, 0, 9 * MIB, 77));
        let (_, repaired) = run(&mut pair, Some(right)).unwrap();
        assert_eq!(repaired, 9 * MIB);
        assert!(pair.primary.image() == before && pair.standby.image() == before, "{right:?}");
        assert_eq!(kept(wrong_side(&mut pair, right)).len(), (9 * MIB / LEAF) as usize);
    }
}

#[test]
fn a_power_loss_at_any_moment_leaves_each_old_byte_in_the_store_or_in_quarantine() {
    for right in [Right::Primary, Right::Standby] {
        for change in 1..60 {
            let mut pair = equal(1000 + change);
            let before = pair.primary.image();
            let wrong = wrong_side(&mut pair, right);
            let places = [0, 1, 2, 40].map(|leaf| leaf * LEAF);
            places.iter().for_each(|at| wrong.fill((0, *at, LEAF, 77)));
            wrong.disk().cut_power_at(change);
            begin(&mut pair, Some(right));
            for _ in 0..400 {
                pair.step();
            }
            let whole = !wrong_side(&mut pair, right).disk().is_cut();
            if whole {
                let ended = ended(&mut pair);
                assert!(matches!(ended, Some(Ok((_, 65_536)))), "{ended:?}");
                let (primary, standby) = (pair.primary.image(), pair.standby.image());
                assert!(primary == before && standby == before);
            }
            let Pairing { primary, standby, .. } = pair;
            let mut pair = Pairing::new(9, Unsynced::Mixed);
            match right {
                Right::Primary => {
                    (pair.primary, pair.standby) = (primary, standby.power_cycle().unwrap())
                }
                Right::Standby => {
                    (pair.primary, pair.standby) = (primary.power_cycle().unwrap(), standby)
                }
            }
            let wrong = wrong_side(&mut pair, right);
            let (image, kept) = (wrong.image(), kept(wrong));
            for at in places {
                let there =
                    image[0][at as usize..(at + LEAF) as usize].iter().all(|byte| *byte == 77);
                let saved = kept.contains(&(0, at, 77));
                assert!(there || saved, "{right:?}, change {change}: byte {at} is lost");
            }
            let (_, repaired) = run(&mut pair, Some(right)).unwrap();
            assert!(pair.primary.image() == before && pair.standby.image() == before);
            if whole {
                assert_eq!(repaired, 0, "{right:?}, change {change}: it was whole before");
                break;
            }
            assert!(change < 59, "the sweep ends before the repair does");
        }
    }
}

#[test]
fn an_image_that_goes_on_waits_for_what_a_repair_has_under_way() {
    let mut under_way = 0;
    for seed in 0..60 {
        let right = if seed % 2 == 0 { Right::Primary } else { Right::Standby };
        let mut pair = equal(seed);
        wrong_side(&mut pair, right).fill((0, 0, MIB / 2, 77));
        // Clients write meanwhile, into the log, at the same places.
        for member in [&mut pair.primary, &mut pair.standby] {
            member.write(&[(0, 0, MIB / 2, 9)]);
        }
        begin(&mut pair, Some(right));
        for _ in 0..seed % 30 {
            pair.step();
        }
        // What comes next is begun, and not waited for: the hold ends, and the log goes into both.
        let wrong = wrong_side(&mut pair, right);
        wrong.replica.poll(&mut wrong.events);
        under_way += usize::from(wrong.replica.copies.comparing.is_mending());
        pair.primary.replica.end_compare(1);
        pair.standby.replica.end_answers(1);
        for member in [&mut pair.primary, &mut pair.standby] {
            let end = member.end.lsn;
            member.replica.apply_to(end);
            member.settle();
            assert_eq!(member.replica.volumes.applied().lsn, end, "seed {seed}");
            let image = member.image();
            assert!(image[0][..(MIB / 2) as usize].iter().all(|byte| *byte == 9), "seed {seed}");
        }
    }
    assert!(under_way > 10, "{under_way}");
}

#[test]
fn nothing_is_repaired_at_another_position_than_that_of_the_image() {
    let mut pair = equal(74);
    pair.standby.fill((0, 0, LEAF, 77));
    pair.primary.write(&[(1, 0, 512, 1)]);
    pair.primary.apply();
    let error = run(&mut pair, Some(Right::Primary)).unwrap_err();
    assert!(error.to_string().contains("the other member"), "{error}");
    assert_eq!(pair.standby.image()[0][0], 77);
    let mut pair = equal(75);
    pair.primary.fill((0, 0, LEAF, 77));
    pair.standby.write(&[(1, 0, 512, 1)]);
    pair.standby.apply();
    assert!(run(&mut pair, Some(Right::Standby)).is_err());
    assert_eq!(pair.primary.image()[0][0], 77);
}

#[test]
fn without_room_for_what_would_be_replaced_nothing_is_replaced() {
    for right in [Right::Primary, Right::Standby] {
        let mut pair = equal(76);
        let wrong = wrong_side(&mut pair, right);
        wrong.fill((0, 0, LEAF, 77));
        wrong.disk().fail_at(1, Fault::Full);
        assert!(run(&mut pair, Some(right)).is_err());
        let wrong = wrong_side(&mut pair, right);
        assert_eq!(wrong.image()[0][0], 77);
        let failed = |event: &ReplicaEvent| matches!(event, ReplicaEvent::Failed(..));
        assert!(!wrong.events.iter().any(failed), "the replica is as good as before");
    }
}

#[test]
fn a_store_that_cannot_be_written_has_failed() {
    for right in [Right::Primary, Right::Standby] {
        let mut failed = false;
        for change in 1..12 {
            let mut pair = equal(77);
            let wrong = wrong_side(&mut pair, right);
            wrong.fill((0, 0, LEAF, 77));
            wrong.disk().fail_at(change, Fault::Eio);
            if run(&mut pair, Some(right)).is_ok() {
                break;
            }
            let wrong = wrong_side(&mut pair, right);
            failed |= wrong
                .events
                .iter()
                .any(|event| matches!(event, ReplicaEvent::Failed(FailedPart::Store, _)));
        }
        assert!(failed, "{right:?}");
    }
}

#[test]
fn a_resync_of_a_third_member_looks_again_at_what_was_repaired() {
    let mut pair = equal(78);
    pair.primary.fill((0, 0, LEAF, 77));
    let scope = Scope { way: Way::Log, log_from: pair.primary.end.lsn, ..DIGESTS };
    pair.primary.replica.source(2, scope);
    hear(&mut pair.primary.replica, 2, Copying::Mine(Some(Vec::new()))).unwrap();
    run(&mut pair, Some(Right::Standby)).unwrap();
    pair.primary.settle();
    let sent = pair.primary.events.iter().any(|event| {
        let ReplicaEvent::Copying { id: 2, message } = event else { return false };
        matches!(&message.copying, Copying::Content { offset: 0, .. })
    });
    assert!(sent, "{:?}", pair.primary.events);
}

#[test]
fn what_one_piece_repairs_is_bounded_and_the_rest_is_looked_at_again() {
    let volumes = [VolumeGeometry { size_bytes: 64 * MIB, block_size: 512 }];
    let none = LeafSet::new(&volumes);
    let mut found = none.clone();
    found.mark(volume(0), 5 * MIB, 60 * MIB);
    let (first, rest) = within_one_piece(&found, none.clone());
    let rest = rest.unwrap();
    assert!((MENDED_MAX..MENDED_MAX + 256).contains(&first.count()), "{}", first.count());
    assert_eq!(first.next(rest), None);
    assert!(found.next(rest).is_some());
    assert_eq!(within_one_piece(&first, none), (first, None));
}

#[test]
fn a_block_is_durable_in_quarantine_also_when_it_fills_what_is_written_at_once() {
    let mut member = Member::new(0, 79, Unsynced::Lost);
    let copies = &member.replica.copies;
    let (io, whole) = (copies.tasks.io(), vec![1; LEAF as usize]);
    let (folder, volumes) = (dir().join("quarantine"), copies.volumes.clone());
    let of = (resource(), (Lsn::START, Lsn::START), true);
    let task = Task::new(async move {
        let mut blocks = BlocksWriter::begin(&io, &folder, of, &volumes).await.unwrap();
        for leaf in 0..64 {
            blocks.add(volume(0), leaf * LEAF, &whole).await.unwrap();
            blocks.sync().await.unwrap();
        }
        blocks.sync().await.unwrap();
        for leaf in 64..256 {
            blocks.add(volume(0), leaf * LEAF, &whole).await.unwrap();
        }
        blocks.sync().await.unwrap();
    });
    let Replica { copies, engine, .. } = &mut member.replica;
    copies.tasks.run(task, engine).unwrap();
    let mut member = member.power_cycle().unwrap();
    assert_eq!(kept(&mut member).len(), 256);
}

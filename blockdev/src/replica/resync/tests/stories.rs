//! What a resync costs, and what it brings.

use super::*;
use crate::volume::Hold;

#[test]
fn equal_images_cost_digests_and_nothing_else() {
    let mut pair = Pairing::new(1, Unsynced::Lost);
    for member in [&mut pair.primary, &mut pair.standby] {
        member.fill((0, 100, 5000, 7));
        member.fill((1, 0, MIB, 3));
    }
    pair.resync(DIGESTS, Takes::Staged, None);
    assert_eq!((pair.traffic.content_bytes, pair.traffic.zero_bytes), (0, 0));
    assert_eq!(pair.traffic.differs, 0);
    assert!(pair.traffic.compares <= 4, "{:?}", pair.traffic);
}

#[test]
fn a_seed_of_a_sparse_image_sends_only_what_is_filled() {
    let mut pair = Pairing::new(2, Unsynced::Lost);
    pair.primary.fill((0, 5 * MIB, 40_000, 9));
    pair.primary.fill((0, 9 * MIB + 1024, 512, 4));
    pair.resync(DIGESTS, Takes::Staged, None);
    let Traffic { content_bytes, zero_bytes, .. } = pair.traffic;
    assert_eq!((content_bytes, zero_bytes), (3 * (16 << 10) + 1536, 0));
}

#[test]
fn what_only_the_sink_has_becomes_zeroes_that_cost_nothing_on_the_link() {
    let mut pair = Pairing::new(3, Unsynced::Lost);
    pair.standby.fill((0, 0, 8 * MIB, 9));
    pair.resync(DIGESTS, Takes::Staged, None);
    assert_eq!((pair.traffic.content_bytes, pair.traffic.zero_bytes), (0, 8 * MIB));
}

#[test]
fn by_the_log_only_what_it_changed_is_looked_at() {
    let mut pair = Pairing::new(4, Unsynced::Lost);
    for member in [&mut pair.primary, &mut pair.standby] {
        member.fill((0, 0, 8 * MIB, 9));
    }
    let from = pair.primary.end.lsn;
    pair.primary.write(&[(0, 512, 512, 1), (1, 4096, 70_000, 2)]);
    pair.primary.apply();
    let scope = Scope { way: Way::Log, log_from: from, ..DIGESTS };
    pair.resync(scope, Takes::Staged, None);
    assert_eq!((pair.traffic.compares, pair.traffic.content_bytes), (0, 6 * (16 << 10)));
}

#[test]
fn everything_that_is_written_meanwhile_is_in_the_landing() {
    for seed in 10..30 {
        let mut pair = Pairing::new(seed, Unsynced::Lost);
        for _ in 0..30 {
            let (one, other) = (pair.random_edit(), pair.random_edit());
            pair.primary.fill(one);
            pair.standby.fill(other);
        }
        let takes = if seed % 3 == 0 { Takes::InPlace } else { Takes::Staged };
        pair.begin(DIGESTS, takes, None);
        pair.copy(|pair| {
            if pair.rng.random_bool(0.3) && pair.primary.replica.log_room() > 2 * MIB {
                let edits = [pair.random_edit(), pair.random_edit()];
                pair.primary.append(&edits);
                pair.primary.replica.sync_log();
            }
            // What is durable is applied, beside everything else.
            let durable = pair.primary.replica.journal.durable();
            pair.primary.replica.apply_to(durable);
        });
        assert!(pair.finish());
        pair.result.take().unwrap().unwrap();
        let landing = pair.landing.unwrap();
        assert_eq!(landing, pair.primary.end);
        assert!(pair.standby.switch(landing));
        assert!(pair.standby.image() == pair.primary.image(), "seed {seed}");
        assert_eq!(pair.standby.replica.journal.end(), landing);
        // And it follows the primary's log from there on.
        let end = pair.primary.write(&[(0, 0, 512, 77)]);
        pair.standby.append(&[]);
        assert!(end.lsn > landing.lsn);
    }
}

#[test]
fn a_sink_that_was_interrupted_goes_on_with_what_it_has() {
    for power_loss in [false, true] {
        let mut pair = Pairing::new(5, Unsynced::Kept);
        pair.primary.fill((0, 0, 9 * MIB, 5));
        pair.begin(DIGESTS, Takes::Staged, None);
        while pair.standby.replica.copy_progress(1).is_none_or(|done| done.sent < 5 * MIB) {
            pair.step();
        }
        pair.primary.replica.end_source(1);
        pair.standby.replica.end_sink();
        pair.standby.settle();
        if power_loss {
            pair.standby = pair.standby.power_cycle().unwrap();
        }
        pair.resync(DIGESTS, Takes::Staged, None);
        assert!(pair.traffic.content_bytes <= 4 * MIB, "{:?}", pair.traffic);
    }
}

#[test]
fn staging_of_another_history_does_not_get_into_a_landing() {
    let mut pair = Pairing::new(6, Unsynced::Lost);
    pair.primary.fill((0, 0, MIB, 5));
    pair.begin(DIGESTS, Takes::Staged, None);
    while pair.traffic.content_bytes < MIB / 2 {
        pair.step();
    }
    pair.primary.replica.end_source(1);
    pair.standby.replica.end_sink();
    // Another primary, whose log has nothing that differs from the standby.
    pair.primary.fill((0, 0, MIB, 0));
    let scope = Scope { way: Way::Log, log_from: pair.primary.end.lsn, ..DIGESTS };
    pair.resync(scope, Takes::Staged, None);
}

#[test]
fn a_diverged_sink_has_its_frames_and_the_blocks_before_in_quarantine() {
    for takes in [Takes::Staged, Takes::InPlace] {
        let mut pair = Pairing::new(40, Unsynced::Lost);
        for member in [&mut pair.primary, &mut pair.standby] {
            member.write(&[(0, 0, MIB / 2, 1)]);
            member.apply();
        }
        let fork = pair.primary.end.lsn;
        let own = pair.standby.write(&[(0, 0, 20_000, 66), (1, 512, 512, 67)]);
        pair.standby.apply();
        pair.primary.write(&[(0, MIB, 512, 2)]);
        pair.primary.apply();
        let scope = Scope { way: Way::Log, log_from: fork, ..DIGESTS };
        pair.resync(scope, takes, Some(fork));
        let (from, end) = (fork.get(), own.lsn.get());
        let folder = dir().join("quarantine");
        let disk = pair.standby.disk();
        let path = folder.join(format!("tail-{from:016x}-{end:016x}.frames"));
        let mut tail = crate::inspect::quarantine(disk, &path).unwrap();
        let frame = tail.next(disk).unwrap().unwrap();
        assert_eq!((frame.lsn(), frame.end()), (fork, own.lsn));
        let path = folder.join(format!("image-{from:016x}-{end:016x}.blocks"));
        let mut dump = crate::quarantine::blocks(disk, &path).unwrap();
        assert_eq!((dump.header.from, dump.header.end), (fork, own.lsn));
        let mut seen = Vec::new();
        while let Some(block) = dump.next(disk).unwrap() {
            seen.push((block.volume.index(), block.offset));
            if (block.volume.index(), block.offset) == (1, 0) {
                assert!(block.content[512..1024].iter().all(|byte| *byte == 67));
            }
        }
        seen.sort_unstable();
        // What the primary alone changed was other than here, too.
        assert_eq!(seen, [(0, 0), (0, 16 << 10), (0, MIB), (1, 0)]);
    }
}

#[test]
fn a_sink_whose_log_does_not_reach_back_has_everything_compared() {
    let mut pair = Pairing::new(41, Unsynced::Lost);
    // The log holds four megabytes: its first frames are recycled.
    for round in 0..20 {
        let end = pair.standby.write(&[(0, 0, MIB / 2, round + 1)]);
        pair.standby.apply();
        pair.standby.replica.checkpoint();
        pair.standby.settle();
        pair.standby.persist(|state| (state.checkpoint, state.apply_limit) = (end, end.lsn));
        pair.standby.replica.release_log(end.lsn);
        pair.standby.settle();
    }
    pair.standby.write(&[(1, 0, 512, 200)]);
    pair.standby.apply();
    let scope = Scope { way: Way::Log, log_from: pair.primary.end.lsn, ..DIGESTS };
    pair.resync(scope, Takes::Staged, Some(Lsn::new(4096)));
    let names = Engine::list(pair.standby.disk(), &dir().join("quarantine")).unwrap();
    assert!(names.iter().any(|name| name.ends_with(".blocks")));
    let tail = names.iter().find(|name| name.ends_with(".frames")).unwrap();
    let path = dir().join("quarantine").join(tail);
    let disk = pair.standby.disk();
    let mut dump = crate::inspect::quarantine(disk, &path).unwrap();
    assert!(dump.next(disk).unwrap().is_ok(), "a frame begins there");
}

#[test]
fn a_rate_limits_what_is_read_and_time_lets_it_go_on() {
    let mut pair = Pairing::new(43, Unsynced::Lost);
    pair.primary.fill((0, 0, 9 * MIB, 5));
    pair.primary.replica.set_copy_rate(Some(10 * MIB));
    pair.begin(DIGESTS, Takes::Staged, None);
    (0..500).for_each(|_| pair.step());
    assert_eq!(pair.traffic.compares, 0, "no time has passed");
    let mut now = Now::from_micros(5);
    let mut ticks = 0;
    while !pair.held {
        now = pair.primary.replica.tick_copy(now).unwrap();
        (0..50).for_each(|_| pair.step());
        ticks += 1;
    }
    // Nine megabytes are compared and then sent.
    assert!((60..200).contains(&ticks), "{ticks}");
}

#[test]
fn a_held_image_is_not_kept_up_by_a_rate() {
    let mut pair = Pairing::new(45, Unsynced::Lost);
    pair.primary.fill((0, 0, 9 * MIB, 5));
    pair.primary.replica.set_copy_rate(Some(1));
    pair.begin(DIGESTS, Takes::Staged, None);
    (0..50).for_each(|_| pair.step());
    assert_eq!(pair.traffic, Traffic::default());
    pair.held = true;
    pair.copy(|_| {});
    assert!(pair.finish());
    assert_eq!(pair.traffic.content_bytes, 9 * MIB);
}

#[test]
fn what_does_not_become_less_by_half_is_near_its_end_all_the_same() {
    let big = VolumeGeometry { size_bytes: 1 << 30, block_size: 512 };
    let applied = LogPosition::genesis(resource());
    let mut state = SourceState::new(1, DIGESTS, &[big], None, applied);
    for (changed, near) in [(1024, false), (512, false), (200, false), (101, true)] {
        state.mark(volume(0), 0, changed << 20);
        assert_eq!(state.round_for_test(), (true, near), "{changed} MiB");
    }
}

#[test]
fn nothing_is_read_while_the_image_is_switched() {
    let mut pair = Pairing::new(47, Unsynced::Lost);
    pair.primary.fill((0, 0, MIB, 5));
    pair.begin(DIGESTS, Takes::Staged, None);
    pair.copy(|_| {});
    assert!(pair.finish());
    let landing = pair.landing.unwrap();
    let standby = &mut pair.standby;
    standby.persist(|state| (state.image, state.checkpoint) = (Image::Switching, landing));
    standby.replica.switch_image(landing);
    let range = ByteRange::new(0, 4096).unwrap();
    let refused = |events: &[ReplicaEvent], id| {
        let read = events.iter().find_map(|event| match event {
            ReplicaEvent::Read(done) if done.id == id => Some(done.result.is_err()),
            _ => None,
        });
        read.unwrap()
    };
    standby.replica.read(1, volume(0), range);
    standby.settle();
    standby.replica.read(2, volume(0), range);
    standby.settle();
    assert!(refused(&standby.events, 1) && !refused(&standby.events, 2));
}

#[test]
fn changes_that_wait_in_the_log_for_a_better_time_are_in_the_landing() {
    let mut pair = Pairing::new(53, Unsynced::Lost);
    let hold = Hold { log_bytes: MIB, memory_bytes: MIB, large_min: 4096 };
    for member in [&mut pair.primary, &mut pair.standby] {
        member.replica.set_hold(hold);
        let end = member.write(&[(0, 0, MIB / 2, 5)]).lsn;
        member.replica.apply_to(end);
        member.settle();
        assert!(member.replica.volumes.applied().lsn < end, "it waits");
    }
    pair.begin(DIGESTS, Takes::Staged, None);
    while !pair.held {
        pair.step();
    }
    pair.primary.replica.finish_source(1);
    while pair.landing.is_none() || !pair.to_standby.is_empty() {
        pair.step();
    }
    assert_eq!(pair.landing, Some(pair.primary.end));
    assert!(pair.finish());
    assert!(pair.standby.switch(pair.primary.end));
    assert!(pair.standby.image() == pair.primary.image());
}

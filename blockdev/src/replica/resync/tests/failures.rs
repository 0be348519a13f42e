//! What fails, what is damaged, and what is refused.

use hadrian_protocol::node::FailedPart;

use super::*;
use crate::engine::double::Fault;

#[test]
fn a_leaf_that_was_damaged_in_the_staging_is_found_and_sent_again() {
    let mut pair = Pairing::new(7, Unsynced::Lost);
    pair.primary.fill((0, 0, MIB, 5));
    pair.begin(DIGESTS, Takes::Staged, None);
    pair.copy(|_| {});
    pair.standby.settle();
    let content = dir().join("staging/0.content");
    pair.standby.disk().tamper(&content, |file| file[40_000] = 1);
    assert!(pair.finish());
    let result = pair.result.take().unwrap();
    assert!(matches!(result, Err(SinkError::Verify { offset: 32768, .. })), "{result:?}");
    pair.resync(DIGESTS, Takes::Staged, None);
    assert_eq!(pair.traffic.content_bytes, 16 << 10);
}

#[test]
fn a_damaged_or_foreign_staging_is_begun_anew() {
    for damage in 0..3 {
        let mut pair = Pairing::new(8, Unsynced::Lost);
        pair.primary.fill((0, 0, MIB, 5));
        pair.begin(DIGESTS, Takes::Staged, None);
        pair.copy(|_| {});
        pair.primary.replica.end_source(1);
        pair.standby.replica.end_sink();
        pair.standby.settle();
        let path = dir().join("staging");
        let disk = pair.standby.disk();
        match damage {
            0 => disk.tamper(&path.join("header"), |file| file[20] ^= 1),
            1 => disk.tamper(&path.join("1.leaves"), |file| file.truncate(100)),
            _ => Double::remove(disk, &path.join("0.content")),
        }
        pair.resync(DIGESTS, Takes::Staged, None);
        assert_eq!(pair.traffic.content_bytes, MIB);
    }
}

#[test]
fn a_staging_without_room_says_so_and_harms_nothing() {
    let mut pair = Pairing::new(9, Unsynced::Lost);
    pair.primary.fill((0, 0, MIB, 5));
    let before = pair.standby.image();
    pair.begin(DIGESTS, Takes::Staged, None);
    while pair.traffic.content_bytes == 0 {
        pair.step();
    }
    pair.standby.disk().fail_at(1, Fault::Full);
    while pair.result.is_none() {
        pair.step();
    }
    let result = pair.result.take().unwrap();
    assert!(matches!(result, Err(SinkError::NoRoom { .. })), "{result:?}");
    assert!(result.unwrap_err().to_string().contains("in_place"));
    pair.standby.disk().make_room();
    pair.primary.replica.end_source(1);
    assert!(pair.standby.image() == before);
    pair.standby.write(&[(0, 0, 512, 1)]);
    pair.standby.apply();
}

#[test]
fn messages_that_break_the_protocol_are_refused() {
    let mut pair = Pairing::new(42, Unsynced::Lost);
    let content = |offset, len, data: Option<usize>| Copying::Content {
        volume: volume(0),
        offset,
        len,
        data: data.map(|len| vec![1; len].into()),
    };
    pair.begin(DIGESTS, Takes::Staged, None);
    let early = hear(&mut pair.standby.replica, 1, content(0, 16384, None));
    assert_eq!(early, Err(BadCopying::Unasked));
    // The session is over for a daemon; here it goes on as if nothing had been said.
    pair.standby.replica.copies.counts = Counts::default();
    while pair.to_primary.is_empty() {
        pair.step();
        pair.standby.replica.poll(&mut pair.standby.events);
        if pair.traffic != Traffic::default() {
            break;
        }
    }
    let sink = &mut pair.standby.replica;
    for (bad, why) in [
        (content(512, 16384, None), "not on a leaf"),
        (content(0, 512, None), "not a whole leaf"),
        (content(0, 9 * MIB, Some(9 << 20)), "too long"),
        (content(0, 1 << 40, None), "behind the volume"),
        (content(u64::MAX - 16383, 16384, None), "behind everything"),
        (content(0, 16384, Some(512)), "another length"),
        (Copying::Compared(1), "not from a source"),
        (
            Copying::Compare { number: 9, volume: volume(0), first: 0, runs: vec![] },
            "nothing is compared",
        ),
    ] {
        assert!(hear(sink, 1, bad).is_err(), "{why}");
    }
    let source = &mut pair.primary.replica;
    for bad in [
        Copying::Taken(1 << 40),
        Copying::Compared(77),
        Copying::Differs { volume: volume(1), region: 9, leaves: None },
        content(0, 16384, None),
    ] {
        assert!(hear(source, 1, bad).is_err());
    }
    let late = hear(&mut pair.standby.replica, 99, content(0, 1, None));
    assert_eq!(late, Ok(()), "a session that has ended is passed over");
}

#[test]
fn a_store_that_cannot_be_read_ends_the_source() {
    let mut pair = Pairing::new(44, Unsynced::Lost);
    pair.primary.fill((0, 0, MIB, 5));
    pair.begin(DIGESTS, Takes::Staged, None);
    pair.primary.disk().fail_read_at(1);
    (0..100).for_each(|_| pair.step());
    let failed = |event: &ReplicaEvent| matches!(event, ReplicaEvent::SourceFailed { id: 1, .. });
    assert!(pair.primary.events.iter().any(failed));
}

fn failed(member: &Member) -> Option<FailedPart> {
    member.events.iter().find_map(|event| match event {
        ReplicaEvent::Failed(part, _) => Some(*part),
        _ => None,
    })
}

#[test]
fn a_switch_that_fails_fails_the_store_or_the_log_and_is_finished_by_the_next_opening() {
    let (mut of_store, mut of_log) = (0, 0);
    for at in 1.. {
        let mut pair = Pairing::of(48, Unsynced::Kept, SMALL);
        pair.primary.fill((0, 0, MIB / 4, 5));
        pair.begin(DIGESTS, Takes::Staged, None);
        pair.copy(|_| {});
        assert!(pair.finish());
        let (landing, new) = (pair.landing.unwrap(), pair.primary.image());
        let standby = &mut pair.standby;
        standby.persist(|state| (state.image, state.checkpoint) = (Image::Switching, landing));
        standby.disk().fail_at(at, Fault::Eio);
        standby.replica.switch_image(landing);
        standby.settle();
        match failed(standby) {
            Some(FailedPart::Store) => of_store += 1,
            Some(FailedPart::Log) => of_log += 1,
            _ => break,
        }
        assert!(!standby.events.iter().any(|event| matches!(event, ReplicaEvent::Switched(_))));
        let standby = pair.standby.power_cycle().unwrap();
        assert_eq!(standby.end, landing);
        assert!(standby.image() == new);
    }
    assert!(of_store >= 2 && of_log >= 10, "{of_store} {of_log}");
}

#[test]
fn a_store_that_cannot_be_synced_fails_the_replica_and_a_full_staging_only_the_sink() {
    let mut stores = 0;
    for at in 1..40 {
        let mut pair = Pairing::of(49, Unsynced::Kept, SMALL);
        pair.primary.fill((0, 0, MIB / 4, 5));
        pair.begin(DIGESTS, Takes::Staged, None);
        pair.copy(|_| {});
        pair.standby.settle();
        pair.standby.disk().fail_at(at, Fault::Eio);
        pair.finish();
        pair.standby.settle();
        let result = pair.result.take().unwrap();
        let of_store = matches!(result, Err(SinkError::Store { .. }));
        stores += u64::from(of_store);
        assert_eq!(failed(&pair.standby) == Some(FailedPart::Store), of_store);
        if result.is_ok() {
            break;
        }
    }
    assert_eq!(stores, 2, "one for each store");
}

#[test]
fn a_kill_anywhere_in_a_switch_leaves_the_landing() {
    for steps in (0..150).step_by(3) {
        let mut pair = Pairing::of(51, Unsynced::Kept, SMALL);
        pair.standby.write(&[(0, 0, 20_000, 66)]);
        pair.standby.write(&[(0, 0, 512, 67)]);
        pair.standby.apply();
        pair.primary.write(&[(0, 0, 20_000, 1)]);
        pair.primary.write(&[(0, 8192, 20_000, 2)]);
        pair.primary.apply();
        pair.begin(DIGESTS, Takes::Staged, Some(Lsn::START));
        pair.copy(|_| {});
        assert!(pair.finish());
        let (landing, new) = (pair.landing.unwrap(), pair.primary.image());
        let standby = &mut pair.standby;
        standby.persist(|state| {
            (state.image, state.checkpoint) = (Image::Switching, landing);
            state.apply_limit = landing.lsn;
        });
        standby.replica.switch_image(landing);
        for _ in 0..steps {
            standby.replica.kick();
            standby.disk().advance();
            standby.replica.poll(&mut standby.events);
        }
        let author = standby.author;
        let mut disk = pair.standby.into_disk();
        disk.restart_process();
        let standby = Member::open(disk, author).unwrap();
        assert_eq!((standby.end, standby.replica.journal.start()), (landing, landing.lsn));
        assert!(standby.image() == new, "after {steps} operations");
    }
}

#[test]
fn what_was_durable_in_the_old_log_is_not_asked_of_the_new_one() {
    for truncated in [false, true] {
        let mut pair = Pairing::of(52, Unsynced::Kept, SMALL);
        let fork = pair.standby.end;
        if truncated {
            pair.standby.write(&[(0, 0, 512, 1)]);
            pair.standby.replica.truncate(fork);
            pair.standby.settle();
            pair.standby.end = fork;
        }
        // Its own log is longer than the primary's.
        for _ in 0..5 {
            pair.standby.write(&[(0, 0, 20_000, 66)]);
        }
        pair.standby.apply();
        pair.primary.write(&[(0, 0, 512, 1)]);
        pair.primary.apply();
        pair.begin(DIGESTS, Takes::Staged, Some(fork.lsn));
        pair.copy(|_| {});
        assert!(pair.finish());
        let landing = pair.landing.unwrap();
        assert!(landing.lsn < pair.standby.end.lsn);
        let switching = |state: &mut ReplicaState| {
            (state.image, state.checkpoint) = (Image::Switching, landing);
            state.apply_limit = landing.lsn;
        };
        assert!(pair.standby.persist(switching));
        let mut standby = pair.standby.power_cycle().unwrap();
        assert_eq!((standby.state.durable, standby.state.truncations), (landing.lsn, 0));
        assert!(standby.persist(|state| state.image = Image::Whole));
        let end = standby.write(&[(1, 0, 512, 9)]);
        let standby = standby.power_cycle().unwrap();
        assert_eq!(standby.end, end);
    }
}

#[test]
fn what_was_taken_in_place_before_a_crash_is_compared_whatever_the_way() {
    for cut in (1..40).step_by(2) {
        let mut pair = Pairing::of(54, Unsynced::Mixed, SMALL);
        pair.primary.fill((0, 0, MIB / 4, 5));
        assert!(pair.standby.persist(|state| state.image = Image::Incomplete));
        pair.begin(DIGESTS, Takes::InPlace, None);
        pair.standby.disk().cut_power_at(cut);
        while !pair.standby.disk().is_cut() && !pair.held {
            pair.step();
        }
        pair.primary.replica.end_source(1);
        pair.standby = pair.standby.power_cycle().unwrap();
        // Another primary, which has none of that, and whose log tells of no change.
        pair.primary.fill((0, 0, MIB / 4, 0));
        let scope = Scope { way: Way::Log, log_from: pair.primary.end.lsn, ..DIGESTS };
        pair.resync(scope, Takes::InPlace, None);
    }
}

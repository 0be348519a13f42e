//! A superblock survives every crash, and says clearly when it did not survive something worse.

use hadrian_golden::Golden;
use proptest::prelude::*;

use super::*;
use crate::engine::double::{Double, Fault, Order, Unsynced};

const DIR: &str = "/replica";

fn resource() -> ResourceId {
    ResourceId::derive("orders", "db")
}

fn whose() -> Whose {
    Whose { resource: resource(), label: Label::new("orders", "alpha").unwrap() }
}

fn path() -> PathBuf {
    Path::new(DIR).join(FILE_NAME)
}

fn fresh(seed: u64, unsynced: Unsynced) -> Double {
    let mut disk = Double::new(seed, Order::Scattered, unsynced);
    disk.create_dir(Path::new(DIR)).unwrap();
    SuperblockWriter::create(&mut disk, Path::new(DIR), &whose(), b"body 2").unwrap();
    disk
}

fn open(disk: &mut Double) -> Result<Opened, SuperblockError> {
    SuperblockWriter::open(disk, Path::new(DIR), &whose(), TokenSpace::new(1))
}

fn body(sequence: u64) -> Vec<u8> {
    format!("body {sequence}").into_bytes()
}

/// Runs until nothing is under way or the power is gone; returns the last sequence stored.
fn settle(disk: &mut Double, writer: &mut SuperblockWriter) -> Option<u64> {
    let (mut stored, mut done) = (None, Vec::new());
    while disk.in_flight() > 0 && disk.wait().is_ok() {
        disk.reap(&mut done);
        for completion in done.drain(..) {
            if let Some(SuperblockEvent::Stored { sequence }) = writer.complete(disk, completion) {
                stored = Some(sequence);
            }
        }
    }
    stored
}

#[test]
fn the_newest_body_is_found_again_and_sequences_grow() {
    let mut disk = fresh(1, Unsynced::Lost);
    let mut opened = open(&mut disk).unwrap();
    assert_eq!((opened.sequence, &opened.body[..]), (2, &b"body 2"[..]));
    for sequence in 3..10 {
        let given = opened.writer.write(&mut disk, &body(sequence)).unwrap();
        assert_eq!(given, sequence);
        assert_eq!(settle(&mut disk, &mut opened.writer), Some(sequence));
        disk.power_on();
        opened = open(&mut disk).unwrap();
        assert_eq!(opened.body, body(sequence));
        assert_eq!(opened.other_copy, None);
    }
}

#[test]
fn of_bodies_that_wait_only_the_last_is_written() {
    let mut disk = fresh(1, Unsynced::Lost);
    let mut writer = open(&mut disk).unwrap().writer;
    for sequence in 3..=8 {
        writer.write(&mut disk, &body(sequence)).unwrap();
    }
    assert!(writer.is_busy());
    let before = disk.changes_done();
    assert_eq!(settle(&mut disk, &mut writer), Some(8));
    assert_eq!(disk.changes_done() - before, 4);
    assert_eq!(open(&mut disk).unwrap().body, body(8));
}

#[test]
fn a_crash_at_any_operation_leaves_the_last_body_or_the_one_under_way() {
    for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn, Unsynced::Mixed] {
        for (cut, seed) in (1..=8).flat_map(|cut| (0..25).map(move |seed| (cut, seed))) {
            let mut disk = fresh(seed, unsynced);
            let mut writer = open(&mut disk).unwrap().writer;
            disk.cut_power_at(cut);
            let (mut stored, mut begun) = (2, 2);
            while !disk.is_cut() {
                begun = writer.write(&mut disk, &body(begun + 1)).unwrap();
                stored = settle(&mut disk, &mut writer).unwrap_or(stored);
            }
            disk.power_on();
            let found = open(&mut disk).unwrap();
            assert!((stored..=begun).contains(&found.sequence), "seed {seed}");
            assert_eq!(found.body, body(found.sequence));
        }
    }
}

#[test]
fn a_body_that_a_killed_process_left_unsynced_is_durable_before_the_one_before_is_touched() {
    for seed in 0..50 {
        let mut disk = fresh(seed, Unsynced::Mixed);
        let mut writer = open(&mut disk).unwrap().writer;
        writer.write(&mut disk, &body(3)).unwrap();
        // The write is done, the sync is not.
        disk.wait().unwrap();
        disk.restart_process();
        let mut writer = open(&mut disk).unwrap().writer;
        let begun = writer.write(&mut disk, &body(4)).unwrap();
        disk.cut_power_at(1);
        settle(&mut disk, &mut writer);
        disk.power_on();
        assert!(open(&mut disk).unwrap().sequence + 1 >= begun, "seed {seed}");
    }
}

#[test]
fn a_crash_at_any_operation_of_creation_can_be_begun_again() {
    for (cut, seed) in (1..=4).flat_map(|cut| (0..20).map(move |seed| (cut, seed))) {
        let mut disk = Double::new(seed, Order::Scattered, Unsynced::Mixed);
        disk.create_dir(Path::new(DIR)).unwrap();
        disk.cut_power_at(cut);
        let dir = Path::new(DIR);
        assert!(SuperblockWriter::create(&mut disk, dir, &whose(), b"a").is_err());
        disk.power_on();
        match SuperblockWriter::create(&mut disk, dir, &whose(), b"b") {
            Ok(()) => assert_eq!(open(&mut disk).unwrap().body, &b"b"[..]),
            Err(SuperblockError::Exists { .. }) => {
                assert_eq!(open(&mut disk).unwrap().body, &b"a"[..]);
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_failed_write_or_sync_is_reported_once_and_ends_all_writing() {
    for failing in [1, 2] {
        let mut disk = fresh(1, Unsynced::Kept);
        let mut writer = open(&mut disk).unwrap().writer;
        disk.fail_at(failing, Fault::Eio);
        writer.write(&mut disk, b"x").unwrap();
        let (mut done, mut failures) = (Vec::new(), 0);
        while disk.in_flight() > 0 {
            disk.wait().unwrap();
            disk.reap(&mut done);
            for completion in done.drain(..) {
                let event = writer.complete(&mut disk, completion);
                failures += usize::from(matches!(event, Some(SuperblockEvent::Failed { .. })));
            }
        }
        assert_eq!(failures, 1);
        assert_eq!(writer.write(&mut disk, b"y"), Err(WriteError::Failed));
    }
}

#[test]
fn one_bad_copy_is_reported_and_two_are_refused() {
    let mut disk = fresh(1, Unsynced::Lost);
    disk.tamper(&path(), |bytes| bytes[COPY_LEN + HEADER_LEN + 100] ^= 1);
    // Beyond the body there is only padding, which nothing rests on.
    assert_eq!(open(&mut disk).unwrap().other_copy, None);
    disk.tamper(&path(), |bytes| bytes[COPY_LEN + HEADER_LEN] ^= 1);
    let opened = open(&mut disk).unwrap();
    assert_eq!(opened.sequence, 1);
    assert_eq!(opened.other_copy, Some(CopyFault::Checksum));
    disk.tamper(&path(), |bytes| bytes[0] = 0);
    let seen = inspect(&mut disk, Path::new(DIR)).unwrap();
    assert_eq!(seen, [Err(CopyFault::Magic), Err(CopyFault::Checksum)]);
    let error = open(&mut disk).unwrap_err().to_string();
    assert!(error.contains("both copies") && error.contains("no superblock"));
}

/// Found by fuzzing: the number of the next write overflowed.
#[test]
fn a_copy_whose_sequence_leaves_no_next_one_is_not_used() {
    for (sequence, usable) in [(SEQUENCE_MAX, true), (SEQUENCE_MAX + 1, false), (u64::MAX, false)] {
        let mut disk = fresh(1, Unsynced::Lost);
        let copy = encode(&whose(), sequence, b"far ahead").unwrap();
        disk.tamper(&path(), |bytes| bytes[..COPY_LEN].copy_from_slice(&copy));
        let mut opened = open(&mut disk).unwrap();
        assert_eq!(opened.sequence, if usable { sequence } else { 2 });
        let fault = CopyFault::Sequence { found: sequence };
        assert_eq!(opened.other_copy, (!usable).then_some(fault));
        let next = opened.sequence + 1;
        assert_eq!(opened.writer.write(&mut disk, b"next"), Ok(next));
    }
}

#[test]
fn what_belongs_to_somebody_else_is_refused_with_both_labels_and_not_written() {
    let others = [
        (ResourceId::derive("orders", "web"), "orders", "alpha"),
        (ResourceId::derive("bills", "db"), "bills", "alpha"),
        (resource(), "orders", "beta"),
    ];
    for (resource, cluster, member) in others {
        let mut disk = fresh(1, Unsynced::Lost);
        let before = disk.contents(&path()).unwrap().to_vec();
        let label = Label::new(cluster, member).unwrap();
        let expected = Whose { resource, label };
        let error =
            SuperblockWriter::open(&mut disk, Path::new(DIR), &expected, TokenSpace::new(1));
        let error = error.unwrap_err().to_string();
        let told = [whose().to_string(), expected.to_string(), "nothing was written".into()];
        assert!(told.iter().all(|told| error.contains(told)), "{error}");
        assert_eq!(disk.contents(&path()).unwrap(), before);
    }
}

#[test]
fn a_later_version_is_refused_and_what_exists_is_not_made_again() {
    let mut disk = fresh(1, Unsynced::Lost);
    disk.tamper(&path(), |bytes| bytes[8] = 9);
    let error = open(&mut disk).unwrap_err();
    assert!(matches!(error, SuperblockError::Newer { found: 9, .. }));
    let again = SuperblockWriter::create(&mut disk, Path::new(DIR), &whose(), b"");
    assert!(matches!(again, Err(SuperblockError::Exists { .. })));
}

#[test]
fn a_body_over_the_limit_is_refused_with_both_numbers() {
    let mut disk = fresh(1, Unsynced::Lost);
    let mut writer = open(&mut disk).unwrap().writer;
    let largest = vec![1; BODY_LEN_MAX];
    writer.write(&mut disk, &largest).unwrap();
    settle(&mut disk, &mut writer);
    assert_eq!(open(&mut disk).unwrap().body, largest);
    let error = writer.write(&mut disk, &[0; COPY_LEN]).unwrap_err();
    let len = COPY_LEN;
    assert_eq!(error, WriteError::TooLong(BodyTooLong { len }));
}

/// The bytes of version 1. They may never change: a file of today must open in every release.
#[test]
fn the_bytes_of_version_1_are_these_and_are_read_back() {
    let golden = Golden::new(env!("CARGO_MANIFEST_DIR"), "v1");
    let resource = ResourceId::from_bytes([0xAB; 16]);
    let state = Golden::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol"), "v1");
    let bodies =
        [("superblock-body", b"hadrian".to_vec()), ("superblock", state.read("state-full"))];
    for (name, body) in bodies {
        let label = Label::new("orders", "beta").unwrap();
        let whose = Whose { resource, label };
        let file = golden.check(name, &encode(&whose, 7, &body).unwrap());
        assert_eq!(file.len(), COPY_LEN);
        assert_eq!(decode(&file), Ok(Copy { sequence: 7, whose, body: body.into() }));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        fuzz(&bytes);
        let mut file = vec![0; 2 * COPY_LEN];
        file[..8].copy_from_slice(&MAGIC);
        file[8..8 + bytes.len()].copy_from_slice(&bytes);
        fuzz(&file);
    }

    #[test]
    fn no_change_to_a_good_copy_goes_unnoticed(at in 0..HEADER_LEN + 32, bit in 0u8..8) {
        let mut copy = encode(&whose(), 3, &[5; 32]).unwrap().to_vec();
        copy[at] ^= 1 << bit;
        prop_assert!(decode(&copy).is_err());
    }
}

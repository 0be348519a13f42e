//! The journal by its stories: what it keeps, what it refuses, and what it says.

use proptest::prelude::*;

use super::rig::*;
use super::*;
use crate::engine::double::{Double, Fault, Order, Unsynced};
use crate::engine::{Engine, Plain, Uring};

fn lsns(frames: &[Frame]) -> Vec<u64> {
    frames.iter().map(|frame| frame.lsn().get()).collect()
}

/// Flips a bit of every page of the log from `from` to `to`.
fn damage(rig: &mut Rig, from: u64, to: u64) {
    for page in (from..to).step_by(4096) {
        let offset = usize::try_from(page % SEGMENT_LEN).unwrap();
        let path = segment_path(page / SEGMENT_LEN * SEGMENT_LEN);
        rig.disk.tamper(&path, |bytes| bytes[offset + 20] ^= 1);
    }
}

fn open_damaged(rig: &mut Rig) -> Box<Damage> {
    match rig.power_cycle() {
        Err(OpenError::Damage(damage)) => damage,
        other => panic!("the log opened as {other:?}"),
    }
}

#[test]
fn frames_that_cross_segments_come_back_after_a_power_loss() {
    let mut rig = Rig::new(8);
    rig.append_synced(&[10_000, 20_000, 0, 30_000]);
    let written = bytes_of(&rig.frames);
    let recovered = rig.power_cycle().unwrap();
    assert!(bytes_of(&rig.frames) == written);
    assert_eq!((recovered.frame_count, recovered.discarded_bytes), (4, 0));
    assert_eq!(recovered.end, rig.journal.end());
    assert_eq!(rig.journal.durable(), recovered.end.lsn);
}

#[test]
fn recovery_begins_at_the_checkpoint_and_what_is_before_stays_readable() {
    let mut rig = Rig::new(8);
    rig.append_synced(&[4096, 4096, 4096]);
    let checkpoint = rig.frames[1].position_after();
    let recovered = rig.reopen(checkpoint).unwrap();
    assert_eq!(recovered.frame_count, 1);
    assert_eq!(rig.journal.start(), Lsn::START);
    assert_eq!(lsns(&rig.read_to_end(Lsn::START)), [0, 8192, 16384]);
}

#[test]
fn a_log_can_begin_anywhere_on_a_page() {
    let mut disk = Double::new(1, Order::AsSubmitted, Unsynced::Lost);
    let start = LogPosition { lsn: Lsn::new(5 * SEGMENT_LEN + 8192), ..genesis() };
    let new = NewLog { start: start.lsn, ..new_log(3) };
    create(&mut disk, Path::new(DIR), &new, &mut |_, _| {}).unwrap();
    let (journal, _) = Journal::open(&mut disk, &open_log(start), &mut |_| {}).unwrap();
    assert_eq!(journal.start(), start.lsn);
    assert_eq!(journal.end(), start);
    assert_eq!(journal.room(), 3 * SEGMENT_LEN - 8192);
}

#[test]
fn a_frame_that_is_not_the_next_is_refused_with_both_positions() {
    let mut rig = Rig::new(4);
    let skipped = frame_after(LogPosition { lsn: Lsn::new(4096), ..genesis() }, Lsn::START, 0, 1);
    let error = rig.journal.append(&mut rig.disk, &skipped).unwrap_err();
    let (found, end) = (Lsn::new(4096), Lsn::START);
    assert_eq!(error, AppendError::NotNext { found, end });
    rig.append_synced(&[0]);
    let forked = frame_after(LogPosition { lsn: Lsn::new(4096), ..genesis() }, Lsn::START, 0, 1);
    let error = rig.journal.append(&mut rig.disk, &forked).unwrap_err();
    assert!(matches!(error, AppendError::NotNext { .. }));
}

#[test]
fn a_full_log_refuses_and_takes_again_what_was_released() {
    let mut rig = Rig::new(4);
    while rig.journal.room() >= 8192 {
        rig.append_synced(&[4096]);
    }
    let room = rig.journal.room();
    let error = rig.append(4096).unwrap_err();
    assert_eq!(error, AppendError::Full { room, need: 8192 });
    let up_to = Lsn::new(2 * SEGMENT_LEN + 4096);
    rig.journal.release(&mut rig.disk, up_to);
    rig.settle();
    assert_eq!(rig.journal.room(), room + 2 * SEGMENT_LEN);
    assert_eq!(rig.journal.start(), Lsn::new(2 * SEGMENT_LEN));
    rig.append_synced(&[4096, 20_000]);
    let gone = rig.read(Lsn::START, 4096).unwrap_err();
    assert!(matches!(gone, ReadError::Gone { start } if start.get() == 2 * SEGMENT_LEN));
}

#[test]
fn what_is_not_durable_is_never_released() {
    let mut rig = Rig::new(4);
    rig.append(3 * 4096).unwrap();
    rig.append(0).unwrap();
    rig.settle();
    assert_eq!(rig.journal.written(), rig.journal.end().lsn);
    let end = rig.journal.end().lsn;
    rig.journal.release(&mut rig.disk, end);
    rig.settle();
    assert_eq!(rig.journal.start(), Lsn::START);
}

#[test]
fn requests_that_come_during_a_sync_share_the_next_one() {
    let mut rig = Rig::new(8);
    rig.append(0).unwrap();
    rig.settle();
    let before = rig.disk.changes_done();
    rig.journal.request_sync(&mut rig.disk);
    for _ in 0..3 {
        rig.append(0).unwrap();
        for _ in 0..10 {
            rig.journal.request_sync(&mut rig.disk);
        }
    }
    rig.settle();
    // Three writes, the sync that was under way, and at most two for all that came meanwhile: one
    // for the first of them, one for those that were not written when it began.
    let changes = rig.disk.changes_done() - before;
    assert!((5..=6).contains(&changes), "{changes}");
    assert_eq!(rig.journal.durable(), rig.journal.end().lsn);
}

#[test]
fn nothing_is_reported_durable_that_was_not_written_when_the_sync_began() {
    let mut rig = Rig::new(8);
    rig.append(0).unwrap();
    rig.settle();
    let first = rig.journal.request_sync(&mut rig.disk);
    rig.append(0).unwrap();
    rig.settle();
    assert_eq!(rig.journal.durable(), first);
    assert!(rig.journal.written() > first);
}

#[test]
fn a_failed_write_or_sync_is_final_and_said_once() {
    for (failing, doing) in [(1, "writing"), (2, "syncing")] {
        let mut rig = Rig::new(4);
        rig.disk.fail_at(failing, Fault::Eio);
        rig.append(0).unwrap();
        rig.journal.request_sync(&mut rig.disk);
        rig.settle();
        rig.sync();
        let mut failures = rig.events.iter().filter_map(|event| match event {
            JournalEvent::Failed(failure) => Some(failure.to_string()),
            _ => None,
        });
        let said = failures.next().unwrap();
        assert!(said.contains(doing) && said.contains(".seg"), "{said}");
        assert_eq!(failures.next(), None);
        assert!(rig.journal.is_failed());
        assert_eq!(rig.journal.durable(), Lsn::START);
        assert_eq!(rig.append(0), Err(AppendError::Failed));
        let to = rig.journal.end();
        let refused = rig.journal.truncate(&mut rig.disk, to, Path::new("/q"));
        assert!(matches!(refused, Err(TruncateError::Failed)));
    }
}

#[test]
fn reads_give_whole_frames_within_the_bytes_asked_for_but_one_at_least() {
    let mut rig = Rig::new(16);
    rig.append_synced(&[0, 0, 40_000, 0]);
    let all = lsns(&rig.frames);
    assert_eq!(lsns(&rig.read_to_end(Lsn::START)), all);
    assert_eq!(lsns(&rig.read(Lsn::START, 9000).unwrap()), all[..2]);
    assert_eq!(lsns(&rig.read(Lsn::START, 20_000).unwrap()), all[..2]);
    let long = rig.read(Lsn::new(all[2]), 1).unwrap();
    assert!(bytes_of(&long) == bytes_of(&rig.frames[2..3]));
    let end = rig.journal.end().lsn;
    assert_eq!(rig.read(end, 4096).unwrap().len(), 0);
    let beyond = rig.read(Lsn::new(end.get() + 4096), 4096).unwrap_err();
    assert!(matches!(beyond, ReadError::Beyond { .. }));
    let inside = rig.read(Lsn::new(all[2] + 4096), 4096).unwrap_err();
    assert!(matches!(inside, ReadError::Bad { at, .. } if at.get() == all[2] + 4096));
}

#[test]
fn a_lost_frame_before_one_that_survived_is_no_damage() {
    let mut rig = Rig::new(8);
    rig.append_synced(&[0, 0]);
    // Neither is synced: the disk may keep the second and lose the first (holes, story 16).
    rig.append(0).unwrap();
    rig.append(5000).unwrap();
    rig.settle();
    rig.disk.restart_process();
    let (first, second) = (rig.frames[2].lsn().get(), rig.frames[3].lsn().get());
    damage(&mut rig, first, second);
    let recovered = rig.reopen(genesis()).unwrap();
    assert_eq!(recovered.end.lsn.get(), first);
    assert_eq!(recovered.discarded_bytes, second + 4096 + 8192 - first);
    // And it is gone for good.
    assert_eq!(rig.power_cycle().unwrap().discarded_bytes, 0);
}

#[test]
fn a_bad_frame_below_a_stamp_behind_it_is_damage_and_nothing_is_changed() {
    let mut rig = Rig::new(8);
    rig.append_synced(&[0, 5000, 0]);
    let (at, next) = (rig.frames[1].lsn(), rig.frames[2].lsn());
    damage(&mut rig, at.get(), at.get() + 4096);
    let before = rig.disk.changes_done();
    let found = open_damaged(&mut rig);
    assert_eq!((found.at, found.durable), (at, next));
    assert_eq!(found.witness, Witness::FrameBehind(next));
    let said = found.to_string();
    assert!(said.contains("0000000000000000.seg") && said.contains("byte 4096"), "{said}");
    assert_eq!(rig.disk.changes_done(), before);
}

#[test]
fn a_bad_last_frame_is_damage_only_where_the_superblock_knows_that_it_was_durable() {
    let mut rig = Rig::new(8);
    rig.append_synced(&[0, 0]);
    let mut log = open_log(genesis());
    log.known_durable = Some(rig.journal.known_durable());
    damage(&mut rig, 4096, 8192);
    rig.disk.power_on();
    let known = Journal::open(&mut rig.disk, &log, &mut |_| {}).unwrap_err();
    assert!(known.to_string().contains("says the superblock"), "{known}");
    assert_eq!(rig.reopen(genesis()).unwrap().end.lsn.get(), 4096);
}

#[test]
fn a_frame_head_inside_a_payload_is_no_witness() {
    let mut rig = Rig::new(8);
    rig.append(0).unwrap();
    // A client stores what looks like a frame that was durable far ahead, at the very position
    // at which its payload will lie.
    let at = rig.journal.end();
    let fake_position = LogPosition { lsn: Lsn::new(at.lsn.get() + 4096), ..at };
    let fake = frame_after(fake_position, Lsn::new(1 << 30), 0, 9);
    let mut draft = hadrian_protocol::frame::Draft::new(crate::buffer::IoBuf::with_len(8192));
    let volume = hadrian_protocol::ids::VolumeIndex::new(0).unwrap();
    let range = hadrian_protocol::range::ByteRange::new(0, 4096).unwrap();
    draft.write(volume, range, fake.log_bytes()).unwrap();
    let frame = draft.seal(hadrian_protocol::frame::SealAs {
        resource: resource(),
        epoch: fake.epoch(),
        lsn: at.lsn,
        durable: Lsn::START,
        wall: fake.wall(),
        author: fake.author(),
        before: at.chain,
    });
    rig.journal.append(&mut rig.disk, &frame).unwrap();
    rig.settle();
    rig.disk.restart_process();
    // The frame before it is lost, so it is a remnant; what its payload says does not count.
    damage(&mut rig, 0, 4096);
    assert_eq!(rig.reopen(genesis()).unwrap().end, genesis());
}

#[test]
fn a_tail_is_saved_cut_off_and_replaced() {
    let mut rig = Rig::new(8);
    rig.append_synced(&[0, 9000, 9000]);
    let tail = bytes_of(&rig.frames[1..]);
    let to = rig.frames[0].position_after();
    let quarantine = Path::new(DIR).join("tail");
    rig.append(0).unwrap();
    let unsynced = bytes_of(&rig.frames[3..]);
    rig.journal.truncate(&mut rig.disk, to, &quarantine).unwrap();
    assert_eq!(rig.append(0), Err(AppendError::Truncating));
    let again = rig.journal.truncate(&mut rig.disk, to, &quarantine);
    assert!(matches!(again, Err(TruncateError::Busy)));
    rig.settle();
    assert!(matches!(rig.events.last(), Some(JournalEvent::Truncated(at)) if *at == to));
    let saved = rig.disk.contents(&quarantine).unwrap();
    assert!(saved[4096..] == [tail, unsynced].concat());
    assert_eq!((rig.journal.end(), rig.journal.durable()), (to, to.lsn));
    rig.frames.truncate(1);
    rig.append_synced(&[4096]);
    let expected = bytes_of(&rig.frames);
    rig.power_cycle().unwrap();
    assert!(bytes_of(&rig.frames) == expected);
    assert_eq!(rig.journal.known_durable().truncations, 1);
}

#[test]
fn a_tail_that_cannot_be_saved_is_not_cut_off() {
    let mut rig = Rig::new(8);
    rig.append_synced(&[0, 0]);
    let to = rig.frames[0].position_after();
    let nowhere = Path::new("/nowhere/tail");
    rig.journal.truncate(&mut rig.disk, to, nowhere).unwrap();
    rig.settle();
    let Some(JournalEvent::NotTruncated(error)) = rig.events.last() else {
        panic!("{:?}", rig.events)
    };
    assert!(error.to_string().contains("/nowhere/tail"));
    assert_eq!(rig.journal.end().lsn.get(), 8192);
    rig.append_synced(&[0]);
    assert_eq!(rig.power_cycle().unwrap().frame_count, 3);
}

#[test]
fn a_log_is_cut_off_only_between_two_frames_of_its_own_history() {
    let mut rig = Rig::new(8);
    rig.append_synced(&[9000, 0]);
    let between = rig.frames[0].position_after();
    let inside = LogPosition { lsn: Lsn::new(4096), ..between };
    let foreign = LogPosition { lsn: between.lsn, ..genesis() };
    for to in [inside, foreign] {
        let quarantine = Path::new(DIR).join("tail");
        rig.journal.truncate(&mut rig.disk, to, &quarantine).unwrap();
        rig.settle();
        let last = rig.events.last();
        let refused = TruncateError::NotBetween { to: to.lsn }.to_string();
        assert!(
            matches!(last, Some(JournalEvent::NotTruncated(e)) if e.to_string() == refused),
            "{last:?}"
        );
    }
    let beyond = LogPosition { lsn: Lsn::new(1 << 20), ..between };
    let refused = rig.journal.truncate(&mut rig.disk, beyond, Path::new("/q"));
    assert!(matches!(refused, Err(TruncateError::Outside { .. })));
}

#[test]
fn a_log_that_was_made_and_never_opened_is_as_good_as_new_and_one_with_a_frame_is_not() {
    let (dir, mut disk) = (Path::new(DIR), Double::new(1, Order::Scattered, Unsynced::Mixed));
    disk.create_dir(dir).unwrap();
    let make = |disk: &mut Double, count| create(disk, dir, &new_log(count), &mut |_, _| {});
    make(&mut disk, 3).unwrap();
    make(&mut disk, 3).unwrap();
    let other = make(&mut disk, 4);
    assert!(matches!(other, Err(CreateError::Exists { .. })), "it has another length");
    disk.tamper(&segment_path(0), |bytes| bytes[8] = 1);
    let written = make(&mut disk, 3);
    assert!(matches!(written, Err(CreateError::Exists { .. })), "something was written to it");
}

#[test]
fn a_creation_that_a_power_loss_interrupted_is_begun_again() {
    for (cut, seed) in (1..40).flat_map(|cut| (0..4).map(move |seed| (cut, seed))) {
        let mut disk = Double::new(seed, Order::Scattered, Unsynced::Mixed);
        let dir = Path::new(DIR);
        disk.create_dir(dir).unwrap();
        disk.cut_power_at(cut);
        let mut told = (0, 0);
        let made = create(&mut disk, dir, &new_log(3), &mut |done, total| told = (done, total));
        let done = made.is_ok();
        disk.power_on();
        let opened = Journal::open(&mut disk, &open_log(genesis()), &mut |_| {});
        if done || opened.is_ok() {
            assert!(opened.is_ok());
            // It was opened: that is somebody's log.
            let again = create(&mut disk, dir, &new_log(3), &mut |_, _| {});
            assert!(matches!(again, Err(CreateError::Exists { .. })));
            continue;
        }
        create(&mut disk, dir, &new_log(3), &mut |_, _| {}).unwrap();
        Journal::open(&mut disk, &open_log(genesis()), &mut |_| {}).unwrap();
    }
}

#[test]
fn a_log_that_cannot_be_is_refused_with_the_limits() {
    let mut disk = Double::new(0, Order::AsSubmitted, Unsynced::Lost);
    let wrong = [
        (4096, 4, 0, "multiple of 4096"),
        (SEGMENT_LEN + 512, 4, 0, "multiple of 4096"),
        (SEGMENT_LEN, 1, 0, "choose 2 to 4096"),
        (SEGMENT_LEN, 4, 100, "whole page"),
        (SEGMENT_LEN, 4, u64::MAX - 4095, "no room"),
    ];
    for (segment_len, segment_count, start, part) in wrong {
        let new =
            NewLog { resource: resource(), start: Lsn::new(start), segment_len, segment_count };
        let error = create(&mut disk, Path::new(DIR), &new, &mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_log_with_a_missing_or_short_segment_or_of_another_resource_does_not_open() {
    let said = |change: &dyn Fn(&mut Rig)| {
        let mut rig = Rig::new(4);
        rig.append_synced(&[20_000]);
        change(&mut rig);
        rig.power_cycle().unwrap_err().to_string()
    };
    let missing = said(&|rig| rig.disk.remove(&segment_path(SEGMENT_LEN)));
    assert!(missing.contains("0000000000004000.seg is missing"), "{missing}");
    let short = said(&|rig| rig.disk.tamper(&segment_path(0), |bytes| bytes.truncate(4096)));
    assert!(short.contains("4096 bytes instead of 16384"), "{short}");
    let format = Path::new(DIR).join(LOG_DIR).join("format");
    let changed = said(&|rig| rig.disk.tamper(&format, |bytes| bytes[20] ^= 1));
    assert!(changed.contains("checksum"), "{changed}");
    let gone = said(&|rig| rig.disk.remove(&format));
    assert!(gone.contains("holds no log"), "{gone}");
    let mut rig = Rig::new(4);
    let mut foreign = open_log(genesis());
    foreign.resource = ResourceId::derive("orders", "web");
    let error = Journal::open(&mut rig.disk, &foreign, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("belongs to resource"), "{error}");
}

#[test]
fn tools_see_the_log_and_a_saved_tail_without_changing_anything() {
    let mut rig = Rig::new(4);
    rig.append_synced(&[0, 5000, 9000]);
    let (to, end) = (rig.frames[1].position_after(), rig.journal.end().lsn);
    let tail = Path::new(DIR).join("tail");
    rig.journal.truncate(&mut rig.disk, to, &tail).unwrap();
    rig.settle();
    let before = rig.disk.changes_done();
    let info = inspect::log(&mut rig.disk, Path::new(DIR)).unwrap();
    assert_eq!((info.resource, info.segment_len), (resource(), SEGMENT_LEN));
    assert_eq!(info.segments.len(), 4);
    let cut = info.last_cut.unwrap();
    assert_eq!((cut.to, cut.end, cut.number), (to, end, 1));
    assert!(!cut.is_pending);
    let mut dump = inspect::frames(&mut rig.disk, Path::new(DIR), None).unwrap();
    for frame in &rig.frames[..2] {
        let found = dump.next(&mut rig.disk).unwrap().unwrap();
        assert_eq!(found.chain(), frame.chain());
    }
    let ended = dump.next(&mut rig.disk).unwrap().unwrap_err();
    assert!(ended.to_string().contains("no frame begins here"), "{ended}");
    let mut saved = inspect::quarantine(&mut rig.disk, &tail).unwrap();
    assert_eq!((saved.from, saved.end), (to, end));
    let found = saved.next(&mut rig.disk).unwrap().unwrap();
    assert_eq!(found.chain(), rig.frames[2].chain());
    let ended = saved.next(&mut rig.disk).unwrap().unwrap_err();
    assert_eq!(ended, inspect::InspectEnd::EndOfFiles { at: end });
    assert_eq!(rig.disk.changes_done(), before);
}

fn writes_and_reopens(engine: &mut dyn Engine) {
    let keep = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let mut log = open_log(genesis());
    log.replica_dir = keep.path();
    create(engine, keep.path(), &new_log(8), &mut |_, _| {}).unwrap();
    let (mut journal, _) = Journal::open(engine, &log, &mut |_| {}).unwrap();
    let mut done = Vec::new();
    for mark in 0..30 {
        let body_len = [0, 4096, 20_000][usize::try_from(mark % 3).unwrap()];
        let frame = frame_after(journal.end(), journal.durable(), body_len, mark);
        let released = journal.durable();
        journal.append(engine, &frame).unwrap();
        journal.request_sync(engine);
        journal.release(engine, released);
        engine.kick();
        while engine.in_flight() > 0 {
            engine.wait().unwrap();
            engine.reap(&mut done);
            for completion in done.drain(..) {
                journal.complete(engine, completion);
            }
        }
        assert_eq!(journal.durable(), frame.end());
        log.checkpoint = frame.position_after();
    }
    let end = journal.end();
    let (_, recovered) = Journal::open(engine, &log, &mut |_| {}).unwrap();
    assert_eq!(recovered.end, end);
    assert!(end.lsn.get() > 8 * SEGMENT_LEN, "segments were used again");
}

#[test]
fn the_journal_runs_over_real_files_with_every_engine() {
    writes_and_reopens(&mut Plain::new());
    if let Ok(mut ring) = Uring::new(32) {
        writes_and_reopens(&mut ring);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_make_recovery_panic_or_change_its_mind(
        lens in proptest::collection::vec(0usize..12_000, 0..6),
        edits in proptest::collection::vec((0usize..60_000, any::<u8>()), 0..12),
    ) {
        let resource = ResourceId::from_bytes([0; 16]);
        let mut frames: Vec<Frame> = Vec::new();
        for (mark, len) in (1..).zip(lens) {
            let genesis = LogPosition::genesis(resource);
            let before = frames.last().map_or(genesis, Frame::position_after);
            frames.push(frame_of(resource, before, Lsn::START, len, mark));
        }
        let mut bytes = bytes_of(&frames);
        for (at, value) in edits {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        fuzz(&bytes);
    }
}

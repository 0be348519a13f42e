//! The tail by its stories: what a killed process leaves in it, and what never comes out of it.

use std::path::PathBuf;

use super::rig::*;
use super::*;

fn told(rig: &mut Rig) -> Option<Lsn> {
    let events = std::iter::from_fn(|| rig.journal.poll_event());
    let written = events.filter_map(|event| match event {
        JournalEvent::Written(lsn) => Some(lsn),
        _ => None,
    });
    written.last()
}

/// Appends a frame and keeps it; its write to the log is never begun.
fn keep(rig: &mut Rig, body_len: usize) -> Option<Lsn> {
    rig.append(body_len).unwrap();
    rig.journal.keep(&mut rig.disk);
    told(rig)
}

fn kill(rig: &mut Rig) -> Recovered {
    rig.disk.restart_process();
    rig.reopen(genesis()).unwrap()
}

fn quarantine() -> PathBuf {
    Path::new(DIR).join("tail.frames")
}

#[test]
fn a_kept_frame_is_written_at_once_and_is_there_after_a_kill() {
    let mut rig = Rig::new(8);
    rig.append_synced(&[4096]);
    assert!(keep(&mut rig, 4096).is_some());
    assert_eq!(keep(&mut rig, 0), Some(rig.journal.end().lsn));
    let (end, written) = (rig.journal.end(), bytes_of(&rig.frames));
    let recovered = kill(&mut rig);
    assert_eq!((recovered.end, recovered.frame_count), (end, 3));
    assert!(bytes_of(&rig.frames) == written);
    // From here on the log itself has it.
    assert_eq!(rig.power_cycle().unwrap().end, end);
}

#[test]
fn a_frame_that_is_whole_in_the_log_follows_on_one_that_only_the_tail_has() {
    let mut rig = Rig::new(8);
    rig.append_synced(&[4096]);
    keep(&mut rig, 4096);
    let (file, behind) = (segment_path(0), rig.next_frame(4096));
    rig.journal.append(&mut rig.disk, &behind).unwrap();
    // Of two writes under way, the later one was done before the kill.
    rig.disk.restart_process();
    let at = usize::try_from(behind.lsn().get()).unwrap();
    assert!(at as u64 + behind.log_len() > SEGMENT_LEN, "it begins in the first segment");
    let bytes = behind.log_bytes();
    let (first, second) = bytes.split_at(SEGMENT_LEN as usize - at);
    rig.disk.tamper(&file, |log| log[at..].copy_from_slice(first));
    rig.disk.tamper(&segment_path(SEGMENT_LEN), |log| log[..second.len()].copy_from_slice(second));
    assert_eq!(rig.reopen(genesis()).unwrap().end, behind.position_after());
}

#[test]
fn after_a_loss_of_power_nothing_is_taken_from_the_tail() {
    let mut rig = Rig::new(8);
    rig.append_synced(&[4096]);
    let end = rig.journal.end();
    keep(&mut rig, 4096);
    assert_eq!(rig.power_cycle().unwrap().end, end);
}

#[test]
fn what_was_cut_off_does_not_come_back_from_the_tail() {
    let mut rig = Rig::new(8);
    rig.append_synced(&[4096]);
    let to = rig.journal.end();
    keep(&mut rig, 4096);
    rig.sync();
    rig.journal.truncate(&mut rig.disk, to, &quarantine()).unwrap();
    rig.settle();
    assert_eq!(rig.journal.end(), to);
    assert_eq!(kill(&mut rig).end, to);
    // And what is appended then is kept as before.
    keep(&mut rig, 512);
    let end = rig.journal.end();
    assert_eq!(kill(&mut rig).end, end);
}

#[test]
fn a_kill_in_the_midst_of_a_cut_leaves_nothing_of_what_is_cut_off() {
    for steps in 0..40 {
        let mut rig = Rig::new(8);
        rig.append_synced(&[4096]);
        let to = rig.journal.end();
        keep(&mut rig, 4096);
        let whole = rig.journal.end();
        rig.sync();
        rig.journal.truncate(&mut rig.disk, to, &quarantine()).unwrap();
        let mut done = Vec::new();
        for _ in 0..steps {
            rig.disk.kick();
            rig.disk.advance();
            rig.disk.reap(&mut done);
            for completion in done.drain(..) {
                rig.journal.complete(&mut rig.disk, completion);
            }
        }
        let end = kill(&mut rig).end;
        assert!(end == to || end == whole, "after {steps} steps: {end:?}");
        assert_eq!(kill(&mut rig).end, end, "after {steps} steps");
    }
}

#[test]
fn a_frame_behind_one_that_is_too_long_waits_for_it() {
    let mut rig = Rig::new(64);
    rig.append_synced(&[4096]);
    assert_eq!(keep(&mut rig, 200 << 10), None);
    assert_eq!(keep(&mut rig, 4096), None);
    rig.settle();
    assert_eq!(rig.journal.written(), rig.journal.end().lsn);
    assert!(keep(&mut rig, 4096).is_some());
}

#[test]
fn more_than_the_ring_holds_waits_for_the_log() {
    let mut rig = Rig::new(64);
    rig.append_synced(&[4096]);
    let kept = (0..64).filter_map(|_| keep(&mut rig, 4096)).last().unwrap();
    let left = rig.journal.end().lsn.since(kept);
    assert!(left > 0, "the ring is shorter than that");
    assert_eq!(kill(&mut rig).end.lsn, kept);
}

#[test]
fn frames_around_the_end_of_the_ring_come_back() {
    let mut rig = Rig::new(16);
    for _ in 0..12 {
        rig.append_synced(&[4096]);
    }
    // 64 KiB of ring: the second of these frames lies around its end.
    rig.append_synced(&[0]);
    keep(&mut rig, 12 << 10);
    keep(&mut rig, 12 << 10);
    let end = rig.journal.end();
    assert_eq!(kill(&mut rig).end, end);
}

#[test]
fn a_read_of_what_is_only_kept_waits_until_it_is_in_the_log() {
    let mut rig = Rig::new(8);
    rig.append_synced(&[4096]);
    let from = rig.journal.end().lsn;
    keep(&mut rig, 4096);
    rig.journal.read(&mut rig.disk, from, 1 << 20, 77).unwrap();
    assert!(rig.journal.poll_event().is_none());
    rig.settle();
    let read = rig.events.iter().find_map(|event| match event {
        JournalEvent::ReadDone { number: 77, result } => Some(result.as_ref().unwrap().len()),
        _ => None,
    });
    assert_eq!(read, Some(1));
}

#[test]
fn a_durable_frame_that_is_gone_is_damage_though_the_tail_has_it() {
    let mut rig = Rig::new(8);
    rig.append_synced(&[4096]);
    let at = usize::try_from(rig.journal.end().lsn.get()).unwrap();
    keep(&mut rig, 4096);
    rig.sync();
    rig.append_synced(&[0]);
    rig.disk.restart_process();
    rig.disk.tamper(&segment_path(0), |bytes| bytes[at + 20] ^= 1);
    let opened = rig.reopen(genesis());
    let Err(OpenError::Damage(damage)) = opened else { panic!("the log opened as {opened:?}") };
    assert_eq!(damage.at.get(), at as u64);
}

#[test]
fn a_tail_that_cannot_be_read_is_no_start_and_nothing_is_lost_by_trying() {
    let mut rig = Rig::new(8);
    rig.append_synced(&[4096]);
    keep(&mut rig, 4096);
    let end = rig.journal.end();
    let failed = (1..40).filter(|read| {
        rig.disk.restart_process();
        rig.disk.fail_read_at(*read);
        rig.reopen(genesis()).is_err()
    });
    assert!(failed.count() > 4, "the sheet, and the frame");
    // Where all reads were done before the one that fails, the frame is in the log by now.
    assert_eq!(kill(&mut rig).end, end);
}

#[test]
fn a_tail_whose_sheet_is_not_whole_is_not_looked_at() {
    let mut rig = Rig::new(8);
    keep(&mut rig, 4096);
    rig.disk.restart_process();
    let tail = Path::new(DIR).join(LOG_DIR).join("tail");
    rig.disk.tamper(&tail, |bytes| bytes[30] ^= 1);
    assert_eq!(rig.reopen(genesis()).unwrap().end, genesis());
}

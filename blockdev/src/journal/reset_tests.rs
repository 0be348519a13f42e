//! A log that begins anew: at any position, after any life, and after a kill in between.

use std::path::Path;

use hadrian_protocol::frame::LogPosition;
use hadrian_protocol::ids::Lsn;

use super::rig::{DIR, Rig, bytes_of, frame_after, genesis, resource};
use super::*;
use crate::engine::double::Double;
use crate::resync::task::{Task, Tasks};

/// Between two frames of another history.
fn position(lsn: u64) -> LogPosition {
    let chain = frame_after(genesis(), Lsn::START, 512, 99).chain();
    LogPosition { lsn: Lsn::new(lsn), chain }
}

/// A log of eight segments, most of which have had several lives.
fn worn() -> Rig {
    let mut rig = Rig::new(8);
    for _ in 0..60 {
        rig.append_synced(&[3000, 9000]);
        let unneeded = Lsn::new(rig.journal.end().lsn.get().saturating_sub(60_000));
        rig.journal.release(&mut rig.disk, unneeded);
        rig.settle();
    }
    rig
}

fn reset_closed(disk: &mut Double, to: Lsn) {
    let tasks = Tasks::new(TokenSpace::new(9));
    let work = reset(tasks.io(), Path::new(DIR).into(), resource(), to);
    tasks.run(Task::new(work), disk).unwrap().unwrap();
}

fn reset_running(rig: &mut Rig, to: LogPosition) {
    let tasks = Tasks::new(TokenSpace::new(9));
    let plan = rig.journal.plan_reset(&mut rig.disk, to).unwrap();
    let refused = rig.append(100);
    assert!(matches!(refused, Err(AppendError::Truncating)), "{refused:?}");
    let files = tasks.run(Task::new(plan.carry_out(tasks.io())), &mut rig.disk);
    rig.journal.was_reset(&mut rig.disk, to, files.unwrap().unwrap());
}

/// Positions before, in, and behind the log. For the second, segments that are ready ahead get
/// the names back that they had in their last life, the frames of which they still hold.
fn positions(rig: &Rig) -> Vec<u64> {
    let (start, end) = (rig.journal.start().get(), rig.journal.end().lsn.get());
    let ahead = rig.journal.segments.end().get() - 16384 - end;
    vec![0, start - ahead / 16384 * 16384, start, start + 8192, end - 4096, end, end * 7]
}

/// It is empty, takes frames, and is the same after a loss of power.
fn check(rig: &mut Rig, to: LogPosition) {
    assert_eq!((rig.journal.start(), rig.journal.end()), (to.lsn, to));
    assert_eq!(rig.journal.known_durable(), KnownDurable { lsn: to.lsn, truncations: 0 });
    assert_eq!(rig.journal.segments.end().since(rig.journal.segments.start()), 8 * (16 << 10));
    rig.frames.clear();
    rig.append_synced(&[512, 20_000, 4096]);
    let written = std::mem::take(&mut rig.frames);
    assert_eq!(bytes_of(&rig.read_to_end(to.lsn)), bytes_of(&written));
    rig.disk.power_on();
    let recovered = rig.reopen(to).unwrap();
    assert_eq!(bytes_of(&rig.frames), bytes_of(&written));
    assert_eq!(recovered.discarded_bytes, 0);
    assert!(recovered.stray_segments.is_empty());
}

#[test]
fn a_log_begins_anew_anywhere_and_nothing_of_its_lives_is_seen_again() {
    for index in 0..7 {
        let mut rig = worn();
        let to = position(positions(&rig)[index]);
        reset_running(&mut rig, to);
        check(&mut rig, to);
        let mut rig = worn();
        rig.disk.power_on();
        reset_closed(&mut rig.disk, to.lsn);
        // And once more, as after a crash right behind it.
        reset_closed(&mut rig.disk, to.lsn);
        let recovered = rig.reopen(to).unwrap();
        assert_eq!((recovered.end, recovered.discarded_bytes), (to, 0));
        check(&mut rig, to);
    }
}

#[test]
fn a_kill_in_the_middle_brings_nothing_back_from_the_tail() {
    for steps in 0..200 {
        let mut rig = Rig::new(8);
        rig.append_synced(&[512, 4096]);
        // Kept in the tail, and in flight to the log.
        rig.append(600).unwrap();
        rig.journal.keep(&mut rig.disk);
        rig.settle();
        let to = position(rig.frames[1].end().get());
        let tasks = Tasks::new(TokenSpace::new(9));
        let mut plan = None;
        while plan.is_none() {
            plan = rig.journal.plan_reset(&mut rig.disk, to);
            rig.settle();
        }
        let mut task = Task::new(plan.unwrap().carry_out(tasks.io()));
        let mut done = Vec::new();
        for _ in 0..steps {
            if tasks.poll(&mut task, &mut rig.disk).is_some() {
                break;
            }
            rig.disk.kick();
            rig.disk.advance();
            rig.disk.reap(&mut done);
            done.drain(..).for_each(|completion| tasks.complete(completion));
        }
        rig.disk.restart_process();
        reset_closed(&mut rig.disk, to.lsn);
        let recovered = rig.reopen(to).unwrap();
        assert_eq!(recovered.end, to, "after {steps} operations");
        check(&mut rig, to);
    }
}

#[test]
fn a_log_that_was_truncated_before_forgets_that_when_it_begins_anew() {
    let mut rig = Rig::new(8);
    rig.append_synced(&[512, 4096, 512]);
    let to = rig.frames[0].position_after();
    rig.journal.truncate(&mut rig.disk, to, &Path::new(DIR).join("tail-x")).unwrap();
    rig.settle();
    assert_eq!(rig.journal.known_durable().truncations, 1);
    let to = position(3 << 20);
    reset_running(&mut rig, to);
    check(&mut rig, to);
}

#[test]
fn a_read_that_waits_when_the_log_begins_anew_ends_with_an_error() {
    let mut rig = Rig::new(8);
    rig.append_synced(&[512]);
    rig.journal.read(&mut rig.disk, Lsn::START, 4096, 5).unwrap();
    reset_running(&mut rig, position(1 << 20));
    let event = std::iter::from_fn(|| rig.journal.poll_event());
    let ended = event.filter(|e| matches!(e, JournalEvent::ReadDone { number: 5, result: Err(_) }));
    assert_eq!(ended.count(), 1);
    let again = rig.journal.read(&mut rig.disk, Lsn::START, 4096, 5);
    assert!(matches!(again, Err(ReadError::Gone { .. })));
}

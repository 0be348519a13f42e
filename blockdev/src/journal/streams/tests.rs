//! Streams by their stories: they bring what a single read would bring.

use std::path::Path;

use super::*;
use crate::journal::JournalEvent;
use crate::journal::rig::*;

/// The next frames of a stream, under number 5.
fn read_on(rig: &mut Rig, from: Lsn, max_bytes: usize) -> Result<Vec<Frame>, ReadError> {
    rig.events.clear();
    rig.journal.read(&mut rig.disk, from, max_bytes, 5)?;
    rig.settle();
    match rig.events.pop() {
        Some(JournalEvent::ReadDone { number: 5, result }) => result,
        other => panic!("a read ended as {other:?}"),
    }
}

/// Everything from `from` to the end, in calls of at most `max_bytes`.
fn read_all(rig: &mut Rig, from: Lsn, max_bytes: usize) -> Vec<Frame> {
    let (mut all, mut at) = (Vec::new(), from);
    loop {
        let frames = read_on(rig, at, max_bytes).unwrap();
        let Some(last) = frames.last() else { return all };
        let bytes: usize = frames.iter().map(|frame| frame.log_bytes().len()).sum();
        assert!(bytes <= max_bytes || frames.len() == 1, "more than was asked for");
        at = last.end();
        all.extend(frames);
    }
}

#[test]
fn a_stream_brings_every_frame_once_and_in_order_across_segments() {
    let mut rig = Rig::new(64);
    rig.append_synced(&[0, 40_000, 100, 0, 90_000, 4096, 4096, 30_000, 0]);
    let written = bytes_of(&rig.frames);
    for max_bytes in [1, 4096, 10_000, 64 << 10, 1 << 20] {
        assert!(bytes_of(&read_all(&mut rig, Lsn::START, max_bytes)) == written);
    }
    let third = rig.frames[2].lsn();
    assert!(bytes_of(&read_all(&mut rig, third, 8192)) == bytes_of(&rig.frames[2..]));
}

#[test]
fn a_stream_goes_on_with_what_was_appended_meanwhile() {
    let mut rig = Rig::new(16);
    rig.append_synced(&[0, 5000]);
    let first = read_on(&mut rig, Lsn::START, 1 << 20).unwrap();
    assert_eq!(first.len(), 2);
    let end = rig.journal.end().lsn;
    assert!(read_on(&mut rig, end, 1 << 20).unwrap().is_empty());
    rig.append_synced(&[9000]);
    assert!(bytes_of(&read_on(&mut rig, end, 1 << 20).unwrap()) == bytes_of(&rig.frames[2..]));
}

#[test]
fn what_was_read_ahead_of_a_cut_is_never_brought_after_it() {
    let mut rig = Rig::new(16);
    rig.append_synced(&[0, 5000, 5000, 5000]);
    assert_eq!(read_on(&mut rig, Lsn::START, 4096).unwrap().len(), 1);
    let to = rig.frames[1].position_after();
    rig.journal.truncate(&mut rig.disk, to, &Path::new(DIR).join("tail")).unwrap();
    rig.settle();
    rig.frames.truncate(2);
    rig.append_synced(&[5001, 5002]);
    let rest = read_all(&mut rig, Lsn::new(4096), 1 << 20);
    assert!(bytes_of(&rest) == bytes_of(&rig.frames[1..]));
}

#[test]
fn a_cut_under_a_read_leaves_the_frames_before_it() {
    let mut rig = Rig::new(16);
    rig.append_synced(&[0, 5000, 5000]);
    let to = rig.frames[0].position_after();
    rig.journal.read(&mut rig.disk, Lsn::START, 1 << 20, 5).unwrap();
    rig.journal.read(&mut rig.disk, rig.frames[1].lsn(), 1 << 20, 6).unwrap();
    rig.journal.truncate(&mut rig.disk, to, &Path::new(DIR).join("tail")).unwrap();
    rig.settle();
    let ended = |number: u64| {
        rig.events.iter().find_map(|event| match event {
            JournalEvent::ReadDone { number: found, result } if *found == number => Some(result),
            _ => None,
        })
    };
    assert!(matches!(ended(5), Some(Ok(frames)) if bytes_of(frames) == bytes_of(&rig.frames[..1])));
    // An error would be final for a replica that brings back what it left in its log.
    assert!(matches!(ended(6), Some(Ok(frames)) if frames.is_empty()));
}

#[test]
fn what_is_no_longer_in_the_log_and_what_is_no_frame_is_told() {
    let mut rig = Rig::new(4);
    rig.append_synced(&[8000, 8000]);
    let inside = read_on(&mut rig, Lsn::new(4096), 1 << 20).unwrap_err();
    assert!(matches!(inside, ReadError::Bad { at, .. } if at.get() == 4096));
    let beyond = read_on(&mut rig, Lsn::new(1 << 20), 4096).unwrap_err();
    assert!(matches!(beyond, ReadError::Beyond { .. }));
    let end = rig.journal.end().lsn;
    rig.journal.release(&mut rig.disk, end);
    rig.settle();
    let gone = read_on(&mut rig, Lsn::START, 4096).unwrap_err();
    assert!(matches!(gone, ReadError::Gone { .. }));
}

#[test]
fn a_new_stream_takes_the_place_of_one_that_nobody_waits_for() {
    let mut rig = Rig::new(4);
    rig.append_synced(&[0]);
    for number in 0..STREAMS_MAX as u64 {
        rig.journal.read(&mut rig.disk, Lsn::START, 4096, 100 + number).unwrap();
    }
    let more = rig.journal.read(&mut rig.disk, Lsn::START, 4096, 5);
    assert!(matches!(more, Err(ReadError::Busy)), "all of them are waited for");
    rig.settle();
    assert_eq!(read_on(&mut rig, Lsn::START, 4096).unwrap().len(), 1);
}

//! The journal over real files: what was appended is recovered, what was torn is told from what
//! was damaged.

use std::path::Path;

use hadrian_protocol::frame::{Draft, Frame, LogPosition, SealAs};
use hadrian_protocol::ids::{Epoch, Lsn, MemberId, ResourceId, VolumeIndex};
use hadrian_protocol::range::ByteRange;
use hadrian_protocol::time::WallTime;

use super::*;
use crate::buffer::IoBuf;
use crate::engine::{Engine as _, PlainEngine};

fn resource() -> ResourceId {
    ResourceId::derive("orders", "db")
}

struct Log {
    engine: PlainEngine,
    journal: Journal,
}

/// A log of three segments of 4 MiB.
fn fresh(dir: &Path) -> Log {
    let mut engine = PlainEngine::new();
    create(&mut engine, dir, 3, SEGMENT_LEN_MIN, |_| {}).unwrap();
    open(dir, LogPosition::genesis(resource()), Lsn::START).unwrap().0
}

fn open(
    dir: &Path,
    checkpoint: LogPosition,
    durable: Lsn,
) -> Result<(Log, Vec<Frame>), RecoveryError> {
    let mut engine = PlainEngine::new();
    let segments = Segments::open(&mut engine, dir).unwrap();
    let mut frames = Vec::new();
    let (end, _) = recover(&mut engine, &segments, checkpoint, durable, resource(), |frame| {
        frames.push(frame);
    })?;
    let journal = Journal::new(segments, end, durable, 0);
    Ok((Log { engine, journal }, frames))
}

impl Log {
    fn append(&mut self, body_len: usize) -> Frame {
        let mut draft = Draft::new(IoBuf::for_body(body_len));
        let range = ByteRange::new(0, body_len as u64).unwrap();
        let volume = VolumeIndex::new(0).unwrap();
        draft.write(volume, range, &vec![body_len as u8; body_len]).unwrap();
        let frame = draft.seal(SealAs {
            resource: resource(),
            epoch: Epoch::new(8),
            lsn: self.journal.end().lsn,
            durable: self.journal.durable(),
            wall: WallTime::default(),
            author: MemberId::new(0).unwrap(),
            before: self.journal.end().chain,
        });
        self.journal.append(&mut self.engine, &frame).unwrap();
        frame
    }

    fn settle(&mut self) {
        let mut done = Vec::new();
        loop {
            self.engine.reap(&mut done);
            let Some(completion) = done.pop() else { return };
            let event = self.journal.complete(&mut self.engine, completion);
            assert!(!matches!(event, JournalEvent::Failed(_)));
        }
    }

    fn sync(&mut self) {
        self.settle();
        self.journal.request_sync(&mut self.engine);
        self.settle();
    }
}

fn chains(frames: &[Frame]) -> Vec<hadrian_protocol::frame::ChainHash> {
    frames.iter().map(Frame::chain).collect()
}

/// Flips one byte of the log at `lsn`.
fn damage(dir: &Path, lsn: Lsn) {
    use std::os::unix::fs::FileExt as _;
    let segment = lsn.get() / SEGMENT_LEN_MIN * SEGMENT_LEN_MIN;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(dir.join(format!("{segment:016x}.seg")))
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, lsn.get() - segment).unwrap();
    file.write_all_at(&[byte[0] ^ 1], lsn.get() - segment).unwrap();
}

#[test]
fn what_was_appended_is_recovered_in_order_across_segments() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = fresh(&dir.path().join("log"));
    let frames: Vec<_> =
        (0..12).map(|index| log.append(if index % 2 == 0 { 4096 } else { 1 << 20 })).collect();
    log.settle();
    assert_eq!(log.journal.written(), frames.last().unwrap().end());
    assert!(log.journal.end().lsn.get() > SEGMENT_LEN_MIN, "frames lie across segments");
    let start = LogPosition::genesis(resource());
    let (again, found) = open(&dir.path().join("log"), start, Lsn::START).unwrap();
    assert_eq!(chains(&found), chains(&frames));
    assert_eq!(again.journal.end(), log.journal.end());
}

#[test]
fn a_sync_covers_what_was_written_when_it_began() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = fresh(&dir.path().join("log"));
    let first = log.append(4096);
    log.settle();
    log.journal.request_sync(&mut log.engine);
    log.append(4096);
    log.settle();
    assert_eq!(log.journal.durable(), first.end());
    log.sync();
    assert_eq!(log.journal.durable(), log.journal.end().lsn);
}

#[test]
fn a_full_log_refuses_until_log_is_released() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = fresh(&dir.path().join("log"));
    while log.journal.room() >= 8192 + (1 << 20) {
        log.append(1 << 20);
    }
    while log.journal.room() >= 8192 {
        log.append(4096);
    }
    log.sync();
    let checkpoint = log.journal.end();
    log.journal.release(&mut log.engine, checkpoint.lsn);
    log.settle();
    assert!(log.journal.room() >= 2 * SEGMENT_LEN_MIN, "two segments are free again");
    let frame = log.append(1 << 20);
    log.settle();
    let (_, found) = open(&dir.path().join("log"), checkpoint, checkpoint.lsn).unwrap();
    assert_eq!(chains(&found), chains(&[frame]), "old frames in used segments do not come back");
}

#[test]
fn an_unreadable_frame_that_was_never_durable_is_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = fresh(&path);
    let first = log.append(4096);
    log.sync();
    let lost = log.append(4096);
    log.append(4096);
    log.settle();
    // Story 16: a power loss kept a later frame and lost this one.
    damage(&path, Lsn::new(lost.lsn().get() + 4096));
    let start = LogPosition::genesis(resource());
    let (again, found) = open(&path, start, first.end()).unwrap();
    assert_eq!(chains(&found), chains(&[first]));
    assert_eq!(again.journal.end().lsn, lost.lsn());
}

#[test]
fn an_unreadable_frame_that_was_durable_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = fresh(&path);
    log.append(4096);
    let bad = log.append(4096);
    log.sync();
    // Its stamp says how far the log was durable.
    log.append(4096);
    log.settle();
    damage(&path, Lsn::new(bad.lsn().get() + 100));
    let error = open(&path, LogPosition::genesis(resource()), Lsn::START).err().unwrap();
    assert!(matches!(error, RecoveryError::Damaged { at, .. } if at == bad.lsn()), "{error}");
}

#[test]
fn the_superblocks_word_alone_is_enough_to_know_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = fresh(&path);
    let bad = log.append(4096);
    log.sync();
    damage(&path, bad.lsn());
    let start = LogPosition::genesis(resource());
    assert!(matches!(open(&path, start, bad.end()), Err(RecoveryError::Damaged { .. })));
}

#[test]
fn a_cut_tail_is_saved_and_never_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = fresh(&path);
    let kept = log.append(4096);
    let tail: Vec<_> = (0..5).map(|_| log.append(1 << 20)).collect();
    log.sync();
    let (cut, end) = (kept.position_after(), log.journal.end().lsn);
    let segments = &log.journal.segments;
    let saved_in = dir.path().join("quarantine");
    let saved = quarantine(&mut log.engine, segments, cut, end, resource(), &saved_in).unwrap();
    wipe(&mut log.engine, segments, cut.lsn, end).unwrap();
    log.journal.cut(cut);
    let bytes: usize = tail.iter().map(|frame| frame.log_bytes().len()).sum();
    assert_eq!(std::fs::metadata(saved).unwrap().len(), bytes as u64);
    let new = log.append(512);
    log.settle();
    let start = LogPosition::genesis(resource());
    let (_, found) = open(&path, start, Lsn::START).unwrap();
    assert_eq!(chains(&found), chains(&[kept, new]));
}

#[test]
fn a_log_is_never_made_over_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fresh(&path);
    let again = create(&mut PlainEngine::new(), &path, 3, SEGMENT_LEN_MIN, |_| {});
    assert!(matches!(again, Err(SegmentError::Exists(_))));
}

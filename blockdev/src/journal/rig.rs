//! What the tests of the journal share: a disk, a log on it, and frames that differ from all
//! others.

use std::path::{Path, PathBuf};

use hadrian_protocol::frame::{Draft, Frame, HEAD_LEN, LogPosition, SealAs};
use hadrian_protocol::ids::{Epoch, Lsn, MemberId, ResourceId, VolumeIndex};
use hadrian_protocol::range::ByteRange;
use hadrian_protocol::time::WallTime;

use super::*;
use crate::buffer::IoBuf;
use crate::engine::double::{Double, Order, Unsynced};

pub(super) const DIR: &str = "/replica";
pub(super) const SEGMENT_LEN: u64 = SEGMENT_LEN_MIN;

pub(super) fn resource() -> ResourceId {
    ResourceId::derive("orders", "db")
}

pub(super) fn genesis() -> LogPosition {
    LogPosition::genesis(resource())
}

/// The frame after `before` with `body_len` payload bytes; `mark` makes it differ from all others.
pub(super) fn frame_after(before: LogPosition, durable: Lsn, body_len: usize, mark: u64) -> Frame {
    frame_of(resource(), before, durable, body_len, mark)
}

pub(super) fn frame_of(
    resource: ResourceId,
    before: LogPosition,
    durable: Lsn,
    body_len: usize,
    mark: u64,
) -> Frame {
    let mut draft = Draft::new(IoBuf::with_len(HEAD_LEN + body_len.max(1)));
    let volume = VolumeIndex::new(0).unwrap();
    draft.marker().unwrap();
    if body_len > 0 {
        let range = ByteRange::new(mark * 4096, body_len as u64).unwrap();
        let payload: Vec<u8> = mark.to_le_bytes().into_iter().cycle().take(body_len).collect();
        draft.write(volume, range, &payload).unwrap();
    }
    draft.seal(SealAs {
        resource,
        epoch: Epoch::new(1),
        lsn: before.lsn,
        durable,
        wall: WallTime::from_micros(mark),
        author: MemberId::new(0).unwrap(),
        before: before.chain,
    })
}

pub(super) fn segment_path(first: u64) -> PathBuf {
    Path::new(DIR).join(LOG_DIR).join(segment_name(Lsn::new(first)))
}

pub(super) fn open_log(checkpoint: LogPosition) -> OpenLog<'static> {
    OpenLog {
        replica_dir: Path::new(DIR),
        resource: resource(),
        checkpoint,
        known_durable: None,
        tokens: TokenSpace::new(2),
    }
}

pub(super) fn new_log(segment_count: u64) -> NewLog {
    NewLog { resource: resource(), start: Lsn::START, segment_len: SEGMENT_LEN, segment_count }
}

/// A log on a double, driven to rest after each call.
pub(super) struct Rig {
    pub(super) disk: Double,
    pub(super) journal: Journal,
    pub(super) frames: Vec<Frame>,
    pub(super) events: Vec<JournalEvent>,
    mark: u64,
}

impl Rig {
    pub(super) fn new(segment_count: u64) -> Self {
        let mut disk = Double::new(5, Order::Scattered, Unsynced::Lost);
        disk.create_dir(Path::new(DIR)).unwrap();
        create(&mut disk, Path::new(DIR), &new_log(segment_count), &mut |_, _| {}).unwrap();
        let (journal, _) = Journal::open(&mut disk, &open_log(genesis()), &mut |_| {}).unwrap();
        Self { disk, journal, frames: Vec::new(), events: Vec::new(), mark: 0 }
    }

    pub(super) fn next_frame(&mut self, body_len: usize) -> Frame {
        self.mark += 1;
        let (end, durable) = (self.journal.end(), self.journal.durable());
        frame_after(end, durable, body_len, self.mark)
    }

    pub(super) fn append(&mut self, body_len: usize) -> Result<(), AppendError> {
        let frame = self.next_frame(body_len);
        self.journal.append(&mut self.disk, &frame)?;
        self.frames.push(frame);
        Ok(())
    }

    pub(super) fn sync(&mut self) {
        self.journal.request_sync(&mut self.disk);
        self.settle();
    }

    pub(super) fn append_synced(&mut self, body_lens: &[usize]) {
        for body_len in body_lens {
            self.append(*body_len).unwrap();
            self.sync();
        }
    }

    /// Runs until nothing is under way.
    pub(super) fn settle(&mut self) {
        let mut done = Vec::new();
        while self.disk.in_flight() > 0 && self.disk.wait().is_ok() {
            self.disk.reap(&mut done);
            for completion in done.drain(..) {
                self.journal.complete(&mut self.disk, completion);
            }
            while let Some(event) = self.journal.poll_event() {
                self.events.push(event);
            }
        }
        while let Some(event) = self.journal.poll_event() {
            self.events.push(event);
        }
    }

    /// Cuts the power and opens the log again from the beginning of what it holds.
    pub(super) fn power_cycle(&mut self) -> Result<Recovered, OpenError> {
        self.disk.power_on();
        self.reopen(genesis())
    }

    pub(super) fn reopen(&mut self, checkpoint: LogPosition) -> Result<Recovered, OpenError> {
        self.frames.clear();
        let frames = &mut self.frames;
        let log = open_log(checkpoint);
        let opened = Journal::open(&mut self.disk, &log, &mut |f| frames.push(f.clone()));
        let (journal, recovered) = opened?;
        self.journal = journal;
        Ok(recovered)
    }

    pub(super) fn read(&mut self, from: Lsn, max_bytes: usize) -> Result<Vec<Frame>, ReadError> {
        self.events.clear();
        self.journal.read(&mut self.disk, from, max_bytes, 77)?;
        self.settle();
        match self.events.pop() {
            Some(JournalEvent::ReadDone { number: 77, result }) => result,
            other => panic!("a read ended as {other:?}"),
        }
    }
}

impl Rig {
    /// Every frame from `from` on. A read brings what is there, and need not wait for the rest.
    pub(super) fn read_to_end(&mut self, from: Lsn) -> Vec<Frame> {
        let (mut all, mut at) = (Vec::new(), from);
        loop {
            let frames = self.read(at, 1 << 20).unwrap();
            let Some(last) = frames.last() else { return all };
            at = last.end();
            all.extend(frames);
        }
    }
}

pub(super) fn bytes_of(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(|f| f.log_bytes().to_vec()).collect()
}

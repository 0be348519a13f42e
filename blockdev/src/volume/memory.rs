//! An engine over memory for the tests of this part: does what is under way in an order that a
//! seed draws, refuses what a disk would refuse, and fails on demand.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use hadrian_protocol::frame::{Draft, Frame, LogPosition, SealAs};
use hadrian_protocol::ids::{Epoch, Lsn, MemberId, ResourceId, VolumeIndex};
use hadrian_protocol::range::ByteRange;
use hadrian_protocol::time::WallTime;

use super::{Store, Volumes, VolumesEvent as Event};
use crate::buffer::{ALIGNMENT, IoBuf};
use crate::engine::{Completion, Engine, FileId, Op, OpenAs, Token};
use hadrian_protocol::replica::VolumeGeometry;

pub(super) const SIZE: usize = 128 << 10;

/// File `2n` is the buffered, file `2n + 1` the direct descriptor of disk `n`.
pub(super) struct Memory {
    pub(super) disks: Vec<Disk>,
    queue: Vec<(Token, Op, Vec<u8>)>,
    random: u64,
    pub(super) opens: u32,
    /// Fails every write and zeroing, every sync, every read.
    pub(super) fails: (bool, bool, bool),
    /// Whether everything is in the page cache.
    pub(super) is_warm: bool,
    /// Lengths of the direct writes so far.
    pub(super) direct_writes: Vec<usize>,
    /// The log, all of it, as file [`LOG`].
    pub(super) log: Vec<u8>,
}

/// The file of the log; read directly.
pub(super) const LOG: FileId = FileId(1001);

#[derive(Clone)]
pub(super) struct Disk {
    pub(super) image: Vec<u8>,
    /// What a sync that was answered has promised.
    pub(super) synced: Vec<u8>,
}

impl Memory {
    pub(super) fn new(disk_count: usize, seed: u64) -> Self {
        let disk = Disk { image: vec![0; SIZE], synced: vec![0; SIZE] };
        Self {
            disks: vec![disk; disk_count],
            queue: Vec::new(),
            random: seed | 1,
            opens: 0,
            fails: (false, false, false),
            is_warm: false,
            direct_writes: Vec::new(),
            log: Vec::new(),
        }
    }

    pub(super) fn draw(&mut self, below: usize) -> usize {
        // xorshift: any order will do, the same one for the same seed.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % below.max(1) as u64) as usize
    }

    /// Ends one operation, any one.
    pub(super) fn step(&mut self) -> Option<Completion> {
        if self.queue.is_empty() {
            return None;
        }
        let index = self.draw(self.queue.len());
        let (token, mut op, at_submission) = self.queue.swap_remove(index);
        let result = self.perform(&mut op, at_submission);
        Some(Completion { token, op, result })
    }

    fn perform(&mut self, op: &mut Op, at_submission: Vec<u8>) -> io::Result<()> {
        let eio = || io::Error::from_raw_os_error(libc::EIO);
        let (writes_fail, syncs_fail, reads_fail) = self.fails;
        match op {
            Op::Read { .. } if reads_fail => return Err(eio()),
            Op::Sync { .. } if syncs_fail => return Err(eio()),
            Op::Write { .. } | Op::Zero { .. } if writes_fail => return Err(eio()),
            Op::Read { file: LOG, offset, buffer, len } => {
                let at = *offset as usize;
                buffer[..*len].copy_from_slice(&self.log[at..at + *len]);
            }
            Op::Read { file, offset, buffer, len } => {
                let at = *offset as usize;
                buffer[..*len].copy_from_slice(&self.disk(*file).image[at..at + *len]);
            }
            Op::Write { file, offset, data } => {
                let at = *offset as usize;
                self.disk(*file).image[at..at + data.len()].copy_from_slice(data);
            }
            Op::Zero { file, offset, len, .. } => {
                let at = *offset as usize;
                self.disk(*file).image[at..at + *len as usize].fill(0);
            }
            Op::Sync { file } => self.disk(*file).synced = at_submission,
            Op::Rename { .. } => unreachable!("volumes rename nothing"),
        }
        Ok(())
    }

    fn disk(&mut self, file: FileId) -> &mut Disk {
        &mut self.disks[file.0 as usize / 2]
    }

    /// Loses power: of what was not synced, each block is there or not.
    pub(super) fn crash(&mut self) {
        self.queue.clear();
        for place in 0..self.disks.len() {
            for at in (0..SIZE).step_by(512) {
                if self.draw(2) == 0 {
                    let Disk { image, synced } = &mut self.disks[place];
                    image[at..at + 512].copy_from_slice(&synced[at..at + 512]);
                }
            }
            self.disks[place].synced = self.disks[place].image.clone();
        }
    }

    fn check(&mut self, op: &Op) {
        if let Some((file, pages)) = pages(op) {
            let meets = self
                .queue
                .iter()
                .filter_map(|(_, op, _)| pages_of_write(op))
                .any(|(other, theirs)| other.0 / 2 == file.0 / 2 && theirs.overlaps(pages));
            let is_write = pages_of_write(op).is_some();
            assert!(!(is_write && meets), "two writes of one page are under way: {op:?}");
            if file.0 % 2 == 1 {
                let (offset, len) = match op {
                    Op::Write { offset, data, .. } => (*offset, data.len()),
                    Op::Read { offset, len, .. } => (*offset, *len),
                    _ => unreachable!("only reads and writes are direct"),
                };
                assert!(offset % 4096 == 0 && len % 4096 == 0, "off the blocks: {op:?}");
            }
        }
        if let Op::Write { file, data, .. } = op
            && file.0 % 2 == 1
        {
            assert_eq!(data.as_ptr().addr() % 4096, 0, "the device cannot read from there");
            self.direct_writes.push(data.len());
        }
    }
}

fn pages_of_write(op: &Op) -> Option<(FileId, ByteRange)> {
    (!matches!(op, Op::Read { .. })).then(|| pages(op)).flatten()
}

fn pages(op: &Op) -> Option<(FileId, ByteRange)> {
    let (file, offset, len) = match op {
        Op::Write { file, offset, data } => (*file, *offset, data.len() as u64),
        Op::Zero { file, offset, len, .. } => (*file, *offset, *len),
        Op::Read { file, offset, len, .. } => (*file, *offset, *len as u64),
        Op::Sync { .. } | Op::Rename { .. } => return None,
    };
    let page = ALIGNMENT as u64;
    let start = offset / page * page;
    let end = (offset + len).next_multiple_of(page);
    ByteRange::new(start, end - start).ok().map(|range| (file, range))
}

impl Engine for Memory {
    fn open(&mut self, _: &Path, how: OpenAs) -> io::Result<FileId> {
        Ok(FileId(2 * self.opens + u32::from(how == OpenAs::Direct)))
    }

    fn open_dir(&mut self, _: &Path) -> io::Result<FileId> {
        unreachable!("volumes open no directory")
    }

    fn close(&mut self, _: FileId) {}

    fn size(&mut self, _: FileId) -> io::Result<u64> {
        Ok(SIZE as u64)
    }

    fn submit(&mut self, token: Token, op: Op) {
        self.check(&op);
        let at_submission = match &op {
            Op::Sync { file } => self.disk(*file).image.clone(),
            _ => Vec::new(),
        };
        self.queue.push((token, op, at_submission));
    }

    fn kick(&mut self) {}

    fn has_done(&self) -> bool {
        !self.queue.is_empty()
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        done.extend(std::iter::from_fn(|| self.step()));
    }

    fn wait(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.queue.len()
    }

    fn try_read_cached(&mut self, file: FileId, offset: u64, buffer: &mut [u8]) -> bool {
        assert_eq!(file.0 % 2, 0, "the page cache is not behind the direct descriptor");
        let at = offset as usize;
        if self.is_warm {
            let len = buffer.len();
            buffer.copy_from_slice(&self.disk(file).image[at..at + len]);
        }
        self.is_warm
    }

    fn descriptor(&self) -> Option<OwnedFd> {
        None
    }
}

pub(super) fn volumes(disk_count: usize, position: LogPosition) -> Volumes {
    let list = (0..disk_count as u32).map(|n| {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(SIZE as u64).unwrap();
        let mut opener = Memory::new(0, 1);
        opener.opens = n;
        let geometry = VolumeGeometry { size_bytes: SIZE as u64, block_size: 512 };
        Store::open(&mut opener, file.path(), geometry).unwrap()
    });
    Volumes::new(list.collect(), position, 3 << 56)
}

/// Ends operations until none is left.
pub(super) fn drain(volumes: &mut Volumes, engine: &mut Memory) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(completion) = engine.step() {
        events.push(volumes.complete(engine, completion));
    }
    events
}

/// One change of a test: volume, first byte, length, and the byte written; `None` for a trim.
pub(super) type Edit = (u16, u64, u64, Option<u8>);

pub(super) fn start() -> LogPosition {
    LogPosition::genesis(ResourceId::derive("test", "r"))
}

/// What a test writes for `byte`: never zero, and another byte in each block, so that what is taken
/// from a wrong place shows.
pub(super) fn payload(byte: u8, len: u64) -> Vec<u8> {
    (0..len).map(|at| byte.wrapping_add(((at / 512) as u8).wrapping_mul(6)) | 1).collect()
}

/// The frame behind `before` that makes `edits`; a zero byte is written as write-zeroes.
pub(super) fn frame(before: LogPosition, edits: &[Edit]) -> Frame {
    let mut draft = Draft::new(IoBuf::for_body(256 << 10));
    if edits.is_empty() {
        draft.marker().unwrap();
    }
    for &(volume, offset, len, byte) in edits {
        let volume = VolumeIndex::new(volume).unwrap();
        let range = ByteRange::new(offset, len).unwrap();
        match byte {
            None => draft.trim(volume, range),
            Some(0) => draft.zero(volume, range),
            Some(byte) => draft.write(volume, range, &payload(byte, len)),
        }
        .unwrap();
    }
    draft.seal(SealAs {
        resource: ResourceId::derive("test", "r"),
        epoch: Epoch::new(8),
        lsn: before.lsn,
        durable: Lsn::START,
        wall: WallTime::from_micros(1),
        author: MemberId::new(0).unwrap(),
        before: before.chain,
    })
}

//! Recovery of a log: after crashes, and after damage that no crash can do.
//!
//! Input: one byte of how. With how & 1 the rest is the segments' bytes, without their zeroes at
//! the end. Otherwise it is a script: how many segments, then steps, then a crash, then damage.

use std::path::{Path, PathBuf};

use arbitrary::Unstructured;
use hadrian_blockdev::buffer::IoBuf;
use hadrian_blockdev::engine::double::{Double, Order, Unsynced};
use hadrian_blockdev::engine::{Engine as _, TokenSpace};
use hadrian_blockdev::journal::{
    self, Journal, JournalEvent, KnownDurable, LOG_DIR, NewLog, OpenError, OpenLog, Recovered,
    SEGMENT_LEN_MIN, segment_name,
};
use hadrian_protocol::frame::{Draft, Frame, HEAD_LEN, LogPosition, SealAs};
use hadrian_protocol::ids::{Epoch, Lsn, MemberId, VolumeIndex};
use hadrian_protocol::range::ByteRange;
use hadrian_protocol::time::WallTime;

use crate::mend;

const DIR: &str = "/replica";
const STEPS_MAX: usize = 48;
const DAMAGES_MAX: usize = 8;
const PAGE: usize = 4096;

/// Recovers the log that `input` describes.
///
/// # Panics
/// If a property breaks.
pub fn run(input: &[u8]) {
    let Some((how, bytes)) = input.split_first() else { return };
    if how & 1 != 0 {
        return journal::fuzz(bytes);
    }
    let mut script = Unstructured::new(bytes);
    // A script that ends early is a script that ends.
    let _ = play(&mut script);
}

fn play(script: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let mut world = World::new(script.int_in_range(2..=6)?, script.arbitrary()?);
    for _ in 0..script.int_in_range(0..=STEPS_MAX)? {
        world.step(script)?;
    }
    world.crash(script)?;
    let damaged = world.damage(script)?;
    // A superblock may be older than the log, or there may be none that knows.
    let known = script.choose(&world.known).copied().unwrap_or(None);
    match world.open(known) {
        Ok((recovered, frames)) => {
            let bound = if damaged { world.bound(known) } else { world.durable };
            assert!(recovered.end.lsn >= bound, "{recovered:?} is behind {bound}");
            check_history(&frames, &world.frames, world.checkpoint);
            let (again, same) = world.open(known).expect("recovery is stable");
            assert_eq!((again.end, again.discarded_bytes), (recovered.end, 0));
            assert_eq!(same.len(), frames.len());
            world.goes_on(&frames);
        }
        Err(error) => assert!(damaged, "a crash alone is no reason to refuse: {error}"),
    }
    Ok(())
}

/// What was recovered is what was written, from the checkpoint on without a gap.
fn check_history(found: &[Frame], written: &[Frame], checkpoint: LogPosition) {
    let behind = written.iter().filter(|frame| frame.lsn() >= checkpoint.lsn);
    for (found, written) in found.iter().zip(behind) {
        assert!(found.wire_parts() == written.wire_parts(), "{found:?} is not {written:?}");
    }
    assert!(found.len() <= written.len(), "frames that nobody wrote");
}

struct World {
    disk: Double,
    journal: Journal,
    frames: Vec<Frame>,
    /// What a superblock could have noted on the way.
    known: Vec<Option<KnownDurable>>,
    checkpoint: LogPosition,
    durable: Lsn,
    segment_count: u64,
    /// A truncation that is under way: where to, and how many frames it leaves.
    cutting: Option<(LogPosition, usize)>,
    cuts: u64,
}

impl World {
    fn new(segment_count: u64, seed: u64) -> Self {
        let unsynced = [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn, Unsynced::Mixed];
        let unsynced = unsynced[usize::from(seed as u8 % 4)];
        let mut disk = Double::new(seed, Order::Scattered, unsynced);
        disk.create_dir(Path::new(DIR)).expect("an empty disk takes a directory");
        let (resource, start, segment_len) = (mend::resource(), Lsn::START, SEGMENT_LEN_MIN);
        let new = NewLog { resource, start, segment_len, segment_count };
        journal::create(&mut disk, Path::new(DIR), &new, &mut |_, _| {}).expect("room for a log");
        let checkpoint = LogPosition::genesis(resource);
        let (journal, _) = open(&mut disk, checkpoint, None, &mut |_| {}).expect("a fresh log");
        let (frames, known) = (Vec::new(), vec![None]);
        let (durable, cutting, cuts) = (Lsn::START, None, 0);
        Self { disk, journal, frames, known, checkpoint, durable, segment_count, cutting, cuts }
    }

    fn step(&mut self, script: &mut Unstructured<'_>) -> arbitrary::Result<()> {
        match script.int_in_range(0..=6)? {
            0 | 1 => self.append(usize::from(script.arbitrary::<u16>()?) % 20_000),
            2 => {
                self.journal.request_sync(&mut self.disk);
            }
            3 => self.settle(),
            4 => self.known.push(Some(self.journal.known_durable())),
            5 => self.release(script.arbitrary()?),
            _ => self.cut(script.arbitrary()?),
        }
        Ok(())
    }

    fn append(&mut self, body_len: usize) {
        let (end, mark) = (self.journal.end(), self.frames.len() as u64);
        let mut draft = Draft::new(IoBuf::with_len(HEAD_LEN + body_len.max(1)));
        draft.marker().expect("an empty frame has room");
        if let Ok(range) = ByteRange::new(mark << 20, body_len as u64) {
            let volume = VolumeIndex::new(0).expect("0 is a volume");
            draft.write(volume, range, &vec![mark as u8; body_len]).expect("the buffer has room");
        }
        let frame = draft.seal(SealAs {
            resource: mend::resource(),
            epoch: Epoch::new(1),
            lsn: end.lsn,
            durable: self.journal.durable(),
            wall: WallTime::from_micros(mark),
            author: MemberId::new(0).expect("0 is a member"),
            before: end.chain,
        });
        // A full log refuses; nothing was changed then.
        if self.journal.append(&mut self.disk, &frame).is_ok() {
            self.frames.push(frame);
        }
    }

    fn release(&mut self, choice: u8) {
        let durable = self.journal.durable();
        let mut safe = self.frames.iter().filter(|frame| frame.end() <= durable);
        let count = safe.clone().count().max(1);
        let Some(frame) = safe.nth(usize::from(choice) % count) else { return };
        if frame.end() > self.checkpoint.lsn && self.cutting.is_none() {
            // First the checkpoint is durable in the superblock, then the log lets go.
            self.checkpoint = frame.position_after();
            self.journal.release(&mut self.disk, self.checkpoint.lsn);
        }
    }

    /// Begins to cut the log off before a frame that nobody has applied.
    fn cut(&mut self, choice: u8) {
        let index = usize::from(choice) % self.frames.len().max(1);
        let before = index.checked_sub(1).and_then(|before| self.frames.get(before));
        let genesis = LogPosition::genesis(mend::resource());
        let to = before.map_or(genesis, Frame::position_after);
        let quarantine = Path::new(DIR).join(format!("quarantine-{}", self.cuts));
        let is_free = to.lsn >= self.checkpoint.lsn && self.cutting.is_none();
        if is_free && self.journal.truncate(&mut self.disk, to, &quarantine).is_ok() {
            self.cutting = Some((to, index));
            // Where there is nothing to cut off it is done already.
            self.hear();
        }
    }

    fn settle(&mut self) {
        let mut done = Vec::new();
        while self.disk.in_flight() > 0 && self.disk.wait().is_ok() {
            self.disk.reap(&mut done);
            for completion in done.drain(..) {
                self.journal.complete(&mut self.disk, completion);
            }
            self.hear();
        }
        self.hear();
    }

    fn hear(&mut self) {
        while let Some(event) = self.journal.poll_event() {
            match event {
                JournalEvent::Truncated(_) => {
                    let left = self.cutting.take().map_or(self.frames.len(), |(_, left)| left);
                    self.frames.truncate(left);
                    self.cuts = self.journal.known_durable().truncations;
                }
                JournalEvent::NotTruncated(_) => self.cutting = None,
                _ => {}
            }
        }
    }

    /// The power goes, or only the process, somewhere in what is under way.
    fn crash(&mut self, script: &mut Unstructured<'_>) -> arbitrary::Result<()> {
        if script.arbitrary()? {
            self.disk.cut_power_at(script.int_in_range(1..=8)?);
            self.settle();
        }
        self.durable = self.journal.durable().min(self.cut_at());
        if self.disk.is_cut() || script.arbitrary()? {
            self.disk.power_on();
        } else {
            self.disk.restart_process();
        }
        Ok(())
    }

    /// Where an unfinished truncation may end the log.
    fn cut_at(&self) -> Lsn {
        self.cutting.map_or(Lsn::new(u64::MAX), |(to, _)| to.lsn)
    }

    /// How far the log reaches at least, damaged as it may be, by what its superblock knew.
    fn bound(&self, known: Option<KnownDurable>) -> Lsn {
        let current = known.filter(|known| known.truncations == self.cuts);
        current.map_or(Lsn::START, |known| known.lsn.min(self.cut_at()))
    }

    /// What was recovered is a log that takes the next frame and holds it.
    fn goes_on(&mut self, recovered: &[Frame]) {
        self.frames = recovered.to_vec();
        self.cutting = None;
        self.append(4096);
        self.journal.request_sync(&mut self.disk);
        self.settle();
        self.disk.power_on();
        let (_, again) = self.open(None).expect("nothing was hurt since");
        assert_eq!(again.len(), self.frames.len());
    }

    /// Changes bytes behind everybody's back; whether there was anything to change.
    fn damage(&mut self, script: &mut Unstructured<'_>) -> arbitrary::Result<bool> {
        let count = script.int_in_range(0..=DAMAGES_MAX)?;
        if count > 0 {
            // What a disk has not written yet cannot be damaged on it.
            self.disk.power_on();
        }
        let first = self.first_segment();
        for _ in 0..count {
            let (kind, value): (u8, u8) = (script.arbitrary()?, script.arbitrary()?);
            let at = usize::from(script.arbitrary::<u16>()?) % SEGMENT_LEN_MIN as usize;
            let number = script.int_in_range(0..=self.segment_count - 1)?;
            let path = segment(first + number);
            if self.disk.contents(&path).is_some() {
                self.disk.tamper(&path, |bytes| hurt(bytes, kind, at, value));
            }
        }
        Ok(count > 0)
    }

    /// The number of the oldest segment that is there.
    fn first_segment(&self) -> u64 {
        let is_there = |number: &u64| self.disk.contents(&segment(*number)).is_some();
        (0..10_000).find(is_there).unwrap_or(0)
    }

    fn open(&mut self, known: Option<KnownDurable>) -> Result<(Recovered, Vec<Frame>), OpenError> {
        let mut frames = Vec::new();
        let mut visit = |frame: &Frame| frames.push(frame.clone());
        let (journal, recovered) = open(&mut self.disk, self.checkpoint, known, &mut visit)?;
        self.journal = journal;
        Ok((recovered, frames))
    }
}

fn open(
    disk: &mut Double,
    checkpoint: LogPosition,
    known_durable: Option<KnownDurable>,
    visit: &mut dyn FnMut(&Frame),
) -> Result<(Journal, Recovered), OpenError> {
    let log = OpenLog {
        replica_dir: Path::new(DIR),
        resource: mend::resource(),
        checkpoint,
        known_durable,
        tokens: TokenSpace::new(2),
    };
    Journal::open(disk, &log, visit)
}

fn segment(number: u64) -> PathBuf {
    Path::new(DIR).join(LOG_DIR).join(segment_name(Lsn::new(number * SEGMENT_LEN_MIN)))
}

/// A flipped byte, a lost page, or a page that landed where another belongs.
fn hurt(bytes: &mut [u8], kind: u8, at: usize, value: u8) {
    let page = at / PAGE * PAGE;
    match kind % 4 {
        0 => bytes[at] ^= value.max(1),
        1 => bytes[page..page + PAGE].fill(0),
        2 => bytes[page..page + PAGE].fill(value),
        _ => {
            let from = usize::from(value) * PAGE % bytes.len();
            bytes.copy_within(from..from + PAGE, page);
        }
    }
}

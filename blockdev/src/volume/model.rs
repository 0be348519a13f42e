//! Volumes against a model: byte arrays, one per frame of the history. Operations end in drawn
//! orders, power is lost at drawn moments.

use proptest::prelude::*;

use super::VolumesEvent as Event;
use super::memory::{Edit, LOG, Memory, SIZE, drain, frame, payload, start, volumes};
use super::*;

const DISKS: usize = 2;
const BLOCK: u64 = 512;

#[derive(Clone, Debug)]
enum Move {
    Push(Vec<(u16, u64, u64, u8)>),
    Limit(usize),
    End(usize),
    Read(u16, u64, u64),
    Warm(bool),
    Checkpoint,
    Truncate(usize),
    Crash,
    /// So many bytes may wait, so many of them in memory.
    Hold(u64, u64),
    /// What memory has no room for is left in the log, if it is one piece there.
    Leave(bool),
}

/// Many whole pages.
fn large() -> impl Strategy<Value = (u16, u64, u64, u8)> {
    let blocks = SIZE as u64 / BLOCK;
    (0..DISKS as u16, 0..8u64, 2..12u64, 0..4u8)
        .prop_map(|(disk, page, pages, kind)| (disk, page * 8, pages * 8, kind))
        .prop_filter("on the disk", move |(_, at, len, _)| at + len <= blocks)
}

fn edits() -> impl Strategy<Value = Vec<(u16, u64, u64, u8)>> {
    // Mostly a few blocks within a few pages, so that ranges meet; sometimes many whole pages.
    let small = (0..DISKS as u16, 0..48u64, 1..6u64, 0..4u8);
    prop::collection::vec(prop_oneof![4 => small, 1 => large()], 0..5)
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        6 => edits().prop_map(Move::Push),
        3 => large().prop_map(|edit| Move::Push(vec![edit])),
        4 => (0..6usize).prop_map(Move::Limit),
        6 => (1..6usize).prop_map(Move::End),
        4 => (0..DISKS as u16, 0..160u64, 1..96u64).prop_map(|(d, at, len)| Move::Read(d, at, len)),
        1 => any::<bool>().prop_map(Move::Warm),
        2 => Just(Move::Checkpoint),
        1 => (0..4usize).prop_map(Move::Truncate),
        1 => Just(Move::Crash),
        2 => (0..4u64, 0..3u64).prop_map(|(log, memory)| Move::Hold(log << 15, memory << 14)),
        3 => any::<bool>().prop_map(Move::Leave),
    ];
    prop::collection::vec(one, 1..80)
}

type Image = Vec<Vec<u8>>;

/// A read under way: what its range held at any moment since it began.
struct Pending {
    tag: u64,
    volume: usize,
    range: std::ops::Range<usize>,
    seen: Vec<Vec<u8>>,
}

struct World {
    engine: Memory,
    volumes: Volumes,
    end: LogPosition,
    checkpointed: LogPosition,
    // The frames of the log and the images behind them; the first image is that of the start.
    frames: Vec<Frame>,
    images: Vec<Image>,
    // How many frames may be applied; recorded, so that it outlives a crash.
    limit: usize,
    pending: Vec<Pending>,
    tag: u64,
    hold: Hold,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            engine: Memory::new(DISKS, seed),
            volumes: volumes(DISKS, start()),
            end: start(),
            checkpointed: start(),
            frames: Vec::new(),
            images: vec![vec![vec![0; SIZE]; DISKS]],
            limit: 0,
            pending: Vec::new(),
            tag: 0,
            hold: Hold::default(),
        }
    }

    fn play(&mut self, one: Move) {
        match one {
            Move::Push(edits) => self.push(&edits),
            Move::Limit(more) => self.raise_limit(more),
            Move::End(count) => (0..count).for_each(|_| self.end_one()),
            Move::Read(volume, at, len) => self.read(volume, at * BLOCK, len * BLOCK),
            Move::Warm(is_warm) => self.engine.is_warm = is_warm,
            Move::Checkpoint => {
                self.volumes.checkpoint(&mut self.engine);
            }
            Move::Truncate(count) => self.truncate(count),
            Move::Crash => self.crash(),
            Move::Hold(log_bytes, memory_bytes) => {
                self.hold = Hold { log_bytes, memory_bytes, large_min: 4096 };
                self.volumes.set_hold(&mut self.engine, self.hold);
            }
            Move::Leave(one_piece) => self.leave(one_piece),
        }
        self.check();
    }

    fn push(&mut self, edits: &[(u16, u64, u64, u8)]) {
        self.tag += 1;
        // Never zero, and another one for each of many frames.
        let fill = (self.tag % 251) as u8 + 1;
        let edits: Vec<Edit> = edits
            .iter()
            .map(|&(volume, at, len, kind)| {
                let byte = [None, Some(0), Some(fill), Some(fill)][usize::from(kind)];
                (volume, at * BLOCK, len * BLOCK, byte)
            })
            .collect();
        let mut image = self.newest().clone();
        for &(volume, at, len, byte) in &edits {
            let part = &mut image[usize::from(volume)][at as usize..(at + len) as usize];
            match byte {
                Some(byte) if byte > 0 => part.copy_from_slice(&payload(byte, len)),
                _ => part.fill(0),
            }
            // A frame is many clients' writes: a read beside them may fall between two.
            self.note_for_reads(&image);
        }
        let frame = frame(self.end, &edits);
        self.end = frame.position_after();
        let place = frame.lsn().get() as usize..frame.end().get() as usize;
        self.engine.log.resize(place.end, 0);
        self.engine.log[place].copy_from_slice(frame.log_bytes());
        self.volumes.push(&frame);
        self.frames.push(frame);
        self.images.push(image);
        // More waits now: perhaps too much.
        self.raise_limit(0);
    }

    fn leave(&mut self, one_piece: bool) {
        let spot = |at: Lsn, _| one_piece.then_some(Spot { file: LOG, offset: at.get() });
        self.volumes.leave_in_log(self.end.lsn, spot);
    }

    fn newest(&self) -> &Image {
        &self.images[self.frames.len()]
    }

    fn note_for_reads(&mut self, image: &Image) {
        for read in &mut self.pending {
            read.seen.push(image[read.volume][read.range.clone()].to_vec());
        }
    }

    fn raise_limit(&mut self, more: usize) {
        self.limit = (self.limit + more).min(self.frames.len());
        let limit = self.position(self.limit).lsn;
        self.volumes.apply_to(&mut self.engine, limit);
    }

    fn position(&self, count: usize) -> LogPosition {
        count.checked_sub(1).map_or(start(), |last| self.frames[last].position_after())
    }

    fn end_one(&mut self) {
        if let Some(completion) = self.engine.step() {
            let event = self.volumes.complete(&mut self.engine, completion);
            self.take(vec![event]);
        }
    }

    fn read(&mut self, volume: u16, at: u64, len: u64) {
        let place = usize::from(volume);
        let span = at as usize..(at + len) as usize;
        let newest = self.newest()[place][span.clone()].to_vec();
        let (index, range) = (VolumeIndex::new(volume).unwrap(), ByteRange::new(at, len).unwrap());
        self.tag += 1;
        match self.volumes.read(&mut self.engine, self.tag, index, range) {
            Some(done) => {
                assert_eq!(done.result.unwrap().concat(), newest, "a read at once is of now")
            }
            None => self.pending.push(Pending {
                tag: self.tag,
                volume: place,
                range: span,
                seen: vec![newest],
            }),
        }
    }

    fn take(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Read(done) => self.check_read(done.id, done.result.unwrap()),
                Event::Applied(at) => assert_eq!(at, self.volumes.applied().lsn),
                Event::Checkpointed(at) => self.checkpointed = at,
                Event::Failed(failure) => panic!("nothing fails here: {failure}"),
                Event::Nothing => {}
            }
        }
    }

    fn check_read(&mut self, tag: u64, parts: smallvec::SmallVec<[bytes::Bytes; 1]>) {
        let place = self.pending.iter().position(|read| read.tag == tag);
        let read = self.pending.swap_remove(place.expect("a read is answered once"));
        let bytes = parts.concat();
        assert_eq!(bytes.len(), read.range.len());
        for (at, byte) in bytes.iter().enumerate() {
            let is_one_of = read.seen.iter().any(|seen| seen[at] == *byte);
            assert!(is_one_of, "byte {at} of {:?} was never {byte} since", read.range);
        }
    }

    /// Takes `count` frames off the end, as far as they are not within the limit.
    fn truncate(&mut self, count: usize) {
        if self.volumes.oldest_log_read().is_some() {
            // Who cuts the log serves nobody.
            self.settle();
        }
        let stay = self.frames.len().saturating_sub(count).max(self.limit);
        let to = self.position(stay);
        self.volumes.cut(to.lsn);
        self.end = to;
        self.frames.truncate(stay);
        self.images.truncate(stay + 1);
    }

    /// Loses power and comes back as recovery does: from the checkpoint, with the log, to the
    /// recorded limit.
    fn crash(&mut self) {
        let checkpoint = self.checkpointed;
        self.engine.crash();
        self.pending.clear();
        self.volumes = volumes(DISKS, checkpoint);
        for frame in self.frames.iter().filter(|frame| frame.lsn() >= checkpoint.lsn) {
            self.volumes.push(frame);
        }
        self.hold = Hold::default();
        self.raise_limit(0);
        self.settle();
    }

    fn settle(&mut self) {
        while self.engine.in_flight() > 0 {
            self.end_one();
        }
    }

    fn check(&self) {
        let (applied, limit) = (self.volumes.applied(), self.position(self.limit));
        assert!(self.checkpointed.lsn <= applied.lsn && applied.lsn <= limit.lsn);
        assert_eq!(self.end, self.position(self.frames.len()));
        let waits = self.end.lsn.since(applied.lsn);
        assert!(self.volumes.unapplied_bytes() <= waits, "memory holds what is not applied");
        if self.engine.in_flight() > 0 {
            return;
        }
        assert!(self.pending.is_empty());
        assert!(applied == limit || waits <= self.hold.log_bytes, "only what may wait does");
        if applied != limit {
            // What a later change covers was passed over already; that one waits for the store.
            return;
        }
        for (disk, expected) in self.engine.disks.iter().zip(&self.images[self.limit]) {
            assert!(disk.image == *expected, "the image is the history at its position");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_image_is_the_history_and_reads_see_its_end(seed: u64, moves in moves()) {
        let mut world = World::new(seed);
        moves.into_iter().for_each(|one| world.play(one));
        world.play(Move::Hold(0, 0));
        world.raise_limit(usize::MAX >> 1);
        world.settle();
        world.check();
        for (volume, overlay) in world.volumes.volumes.iter().map(|v| &v.overlay).enumerate() {
            assert!(overlay.is_empty(), "the store of volume {volume} has everything");
        }
    }
}

fn applied_on(engine: &mut Memory, edits: &[Edit]) -> Volumes {
    let mut volumes = volumes(1, start());
    let frame = frame(start(), edits);
    volumes.push(&frame);
    volumes.apply_to(engine, frame.end());
    drain(&mut volumes, engine);
    volumes
}

#[test]
fn after_a_failed_sync_no_read_brings_back_old_bytes() {
    let mut engine = Memory::new(1, 1);
    let mut volumes = applied_on(&mut engine, &[(0, 0, 512, Some(9))]);
    engine.fails.1 = true;
    volumes.checkpoint(&mut engine);
    let events = drain(&mut volumes, &mut engine);
    assert!(matches!(events[..], [Event::Failed(_)]));
    let (index, range) = (VolumeIndex::new(0).unwrap(), ByteRange::new(0, 512).unwrap());
    let answer = volumes.read(&mut engine, 1, index, range).unwrap();
    assert!(answer.result.is_err());
}

#[test]
fn a_large_payload_behind_a_small_one_still_goes_past_the_page_cache() {
    let mut engine = Memory::new(1, 1);
    applied_on(&mut engine, &[(0, 0, 512, Some(9)), (0, 4096, 65_536, Some(1))]);
    assert_eq!(engine.direct_writes, [65_536]);
    assert_eq!(engine.disks[0].image[4096..69_632], payload(1, 65_536));
}

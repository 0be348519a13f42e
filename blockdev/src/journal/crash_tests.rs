//! Power cut at every operation of a workload of appends, syncs, recycling, superblock writes and
//! truncations; and then the same log goes on, and is cut again.
//!
//! After every cut the log must be exactly a prefix of what was appended: with everything that was
//! reported durable, and without anything that was cut off. The superblock must hold the last body
//! that was reported stored, or a later one that was under way.

use std::path::{Path, PathBuf};

use hadrian_protocol::frame::{ChainHash, Frame, LogPosition};
use hadrian_protocol::ids::Lsn;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::rig::{DIR, bytes_of, frame_after, genesis, new_log, open_log};
use super::*;
use crate::engine::double::{Double, Order, Unsynced};
use crate::superblock::{Label, SuperblockEvent, SuperblockWriter, Whose};

const ALL: [Unsynced; 4] = [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn, Unsynced::Mixed];
const STEPS: usize = 200;

/// What the superblock of this test says.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Body {
    checkpoint: LogPosition,
    known: KnownDurable,
}

impl Body {
    fn encode(&self) -> Vec<u8> {
        let numbers = [self.checkpoint.lsn.get(), self.known.lsn.get(), self.known.truncations];
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        bytes.extend(self.checkpoint.chain.as_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Self {
        let number = |at: usize| u64::from_le_bytes(bytes[at * 8..at * 8 + 8].try_into().unwrap());
        Self {
            checkpoint: LogPosition {
                lsn: Lsn::new(number(0)),
                chain: ChainHash::from_bytes(bytes[24..56].try_into().unwrap()),
            },
            known: KnownDurable { lsn: Lsn::new(number(1)), truncations: number(2) },
        }
    }
}

struct World {
    disk: Double,
    journal: Journal,
    superblock: SuperblockWriter,
    rng: SmallRng,
    /// Everything that was appended and not cut off, from the beginning.
    history: Vec<Frame>,
    /// What the last crash took, oldest first: a standby is sent the same frames again.
    lost: Vec<Frame>,
    durable: Lsn,
    /// Bodies by sequence number, from the last stored one on.
    bodies: Vec<(u64, Body)>,
    cutting: Option<Lsn>,
    quarantine: PathBuf,
    mark: u64,
    truncations_done: u64,
}

impl World {
    fn new(seed: u64, unsynced: Unsynced) -> Self {
        let mut disk = Double::new(seed, Order::Scattered, unsynced);
        let dir = Path::new(DIR);
        disk.create_dir(dir).unwrap();
        create(&mut disk, dir, &new_log(16), &mut |_, _| {}).unwrap();
        let known = KnownDurable { lsn: Lsn::START, truncations: 0 };
        let body = Body { checkpoint: genesis(), known };
        SuperblockWriter::create(&mut disk, dir, &whose(), &body.encode()).unwrap();
        let (journal, _) = Journal::open(&mut disk, &open_log(genesis()), &mut |_| {}).unwrap();
        let tokens = TokenSpace::new(1);
        let opened = SuperblockWriter::open(&mut disk, dir, &whose(), tokens).unwrap();
        Self {
            disk,
            journal,
            superblock: opened.writer,
            rng: SmallRng::seed_from_u64(seed),
            history: Vec::new(),
            lost: Vec::new(),
            durable: Lsn::START,
            bodies: vec![(opened.sequence, body)],
            cutting: None,
            quarantine: dir.join("tail-0"),
            mark: 0,
            truncations_done: 0,
        }
    }

    fn act_for(&mut self, steps: usize) {
        for _ in 0..steps {
            if !self.disk.is_cut() {
                self.act();
            }
        }
    }

    fn run(&mut self, steps: usize) {
        self.act_for(steps);
        while self.disk.in_flight() > 0 && !self.disk.is_cut() {
            self.pump();
        }
    }

    fn act(&mut self) {
        match self.rng.random_range(0..100) {
            0..34 => self.append(),
            34..50 => {
                self.journal.request_sync(&mut self.disk);
            }
            50..60 => self.store_body(),
            60..68 => self.release(),
            68..72 => self.truncate(),
            _ => self.pump(),
        }
    }

    fn append(&mut self) {
        let body_len = [0, 512, 4096, 9000, 20000][self.rng.random_range(0..5)];
        self.mark += 1;
        // The stamp may be as new as can be, or older: both happen.
        let end = self.journal.end();
        let mut frame = frame_after(end, self.journal.durable(), body_len, self.mark);
        let again = self.lost.iter().find(|lost| lost.lsn() == end.lsn);
        if let Some(again) = again.filter(|again| again.follows(end.chain))
            && self.rng.random_bool(0.8)
        {
            frame = again.clone();
        }
        match self.journal.append(&mut self.disk, &frame) {
            Ok(()) => self.history.push(frame),
            Err(AppendError::Full { room, need }) => assert!(room < need),
            Err(AppendError::Truncating) => assert!(self.cutting.is_some()),
            Err(other) => panic!("{other}"),
        }
    }

    /// Positions between frames from `from` to `to`.
    fn points(&self, from: Lsn, to: Lsn) -> Vec<LogPosition> {
        let all = self.history.iter().map(Frame::position_after);
        let all = std::iter::once(genesis()).chain(all);
        all.filter(|point| (from..=to).contains(&point.lsn)).collect()
    }

    /// The newest checkpoint that any body names, stored or under way.
    fn last_checkpoint(&self) -> Lsn {
        let checkpoints = self.bodies.iter().map(|(_, body)| body.checkpoint.lsn);
        checkpoints.max().unwrap_or(Lsn::START)
    }

    fn store_body(&mut self) {
        // A checkpoint is durable, and nobody cuts off what was applied.
        let limit = self.cutting.unwrap_or(self.durable).min(self.durable);
        let points = self.points(self.last_checkpoint(), limit);
        let Some(count) = Some(points.len()).filter(|count| *count > 0) else {
            return;
        };
        let body = Body {
            checkpoint: points[self.rng.random_range(0..count)],
            known: self.journal.known_durable(),
        };
        let written = self.superblock.write(&mut self.disk, &body.encode());
        self.bodies.push((written.unwrap(), body));
    }

    fn release(&mut self) {
        let stored = self.bodies[0].1.checkpoint.lsn;
        self.journal.release(&mut self.disk, stored);
    }

    fn truncate(&mut self) {
        if self.cutting.is_some() {
            return;
        }
        let points = self.points(self.last_checkpoint(), self.journal.end().lsn);
        if points.is_empty() {
            return;
        }
        let to = points[self.rng.random_range(0..points.len())];
        self.quarantine = Path::new(DIR).join(format!("tail-{}", self.mark));
        self.cutting = Some(to.lsn);
        let begun = self.journal.truncate(&mut self.disk, to, &self.quarantine.clone());
        begun.unwrap();
        self.hear();
    }

    fn pump(&mut self) {
        let mut done = Vec::new();
        if self.disk.wait().is_err() {
            return;
        }
        self.disk.reap(&mut done);
        for completion in done {
            if TokenSpace::new(1).owns(completion.token) {
                let event = self.superblock.complete(&mut self.disk, completion);
                if let Some(SuperblockEvent::Stored { sequence }) = event {
                    self.bodies.retain(|(number, _)| *number >= sequence);
                }
            } else {
                self.journal.complete(&mut self.disk, completion);
            }
        }
        self.hear();
    }

    fn hear(&mut self) {
        while let Some(event) = self.journal.poll_event() {
            match event {
                JournalEvent::Durable(lsn) => self.durable = lsn,
                JournalEvent::Truncated(to) => self.was_cut(to.lsn),
                JournalEvent::Written(lsn) => assert!(lsn <= self.journal.end().lsn),
                JournalEvent::SegmentReady => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn was_cut(&mut self, to: Lsn) {
        let count = self.history.iter().filter(|f| f.end() <= to).count();
        let tail = self.history.split_off(count);
        if !tail.is_empty() {
            let saved = self.disk.contents(&self.quarantine).unwrap();
            assert!(saved[4096..] == bytes_of(&tail), "the tail is in quarantine");
        }
        self.cutting = None;
        self.durable = to;
        self.truncations_done += 1;
    }

    /// The power comes back; everything that may be expected is checked.
    fn recover(&mut self) {
        self.disk.power_on();
        let dir = Path::new(DIR);
        let tokens = TokenSpace::new(1);
        let opened = SuperblockWriter::open(&mut self.disk, dir, &whose(), tokens).unwrap();
        let known = self.bodies.iter().find(|(number, _)| *number == opened.sequence);
        let body = known.expect("the last stored body, or one under way").1;
        assert_eq!(Body::decode(&opened.body), body);
        let mut log = open_log(body.checkpoint);
        log.known_durable = Some(body.known);
        let mut frames = Vec::new();
        let visit = &mut |frame: &Frame| frames.push(frame.clone());
        let (journal, recovered) = Journal::open(&mut self.disk, &log, visit)
            .unwrap_or_else(|error| panic!("{error} (cutting {:?})", self.cutting));
        let end = recovered.end.lsn;
        let complete = end >= self.durable;
        assert!(
            complete || self.cutting == Some(end),
            "{end} is short of {}, which was reported durable",
            self.durable
        );
        if complete {
            let count = self.history.iter().filter(|f| f.end() <= end).count();
            self.lost = self.history.split_off(count);
        } else {
            self.was_cut(end);
        }
        let from = body.checkpoint.lsn;
        let count = self.history.iter().filter(|f| f.lsn() < from).count();
        let expected = self.history.split_off(count);
        assert_eq!(wire_of(&frames), wire_of(&expected));
        // A tear can have taken a frame's stamp, which is padding, and left the frame whole.
        self.history.extend(frames);
        let last = self.history.last().map_or(genesis(), Frame::position_after);
        assert_eq!(recovered.end, last);
        self.durable = end;
        self.cutting = None;
        self.journal = journal;
        self.superblock = opened.writer;
        self.bodies = vec![(opened.sequence, body)];
    }
}

/// What identifies frames, short enough to be shown: the chain covers every byte on the wire.
fn whose() -> Whose {
    Whose { resource: rig::resource(), label: Label::default() }
}

fn wire_of(frames: &[Frame]) -> Vec<(Lsn, ChainHash)> {
    frames.iter().map(|f| (f.lsn(), f.chain())).collect()
}

/// Operations of a whole workload that is never cut.
fn changes(seed: u64, unsynced: Unsynced) -> u64 {
    let mut world = World::new(seed, unsynced);
    let before = world.disk.changes_done();
    world.run(STEPS);
    world.disk.changes_done() - before
}

fn sweep(unsynced: Unsynced, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        for cut in 1..=changes(seed, unsynced) {
            let mut world = World::new(seed, unsynced);
            world.disk.cut_power_at(cut);
            world.run(STEPS);
            world.recover();
            // The log goes on after the crash, and the next one comes at some other place.
            for next in [7, 23] {
                world.disk.cut_power_at(next + cut % 5);
                world.run(STEPS);
                world.recover();
            }
        }
    }
}

#[test]
fn a_cut_at_any_operation_leaves_a_prefix_when_unsynced_writes_are_lost() {
    sweep(Unsynced::Lost, 0..6);
}

#[test]
fn a_cut_at_any_operation_leaves_a_prefix_when_unsynced_writes_are_kept() {
    sweep(Unsynced::Kept, 10..16);
}

#[test]
fn a_cut_at_any_operation_leaves_a_prefix_when_unsynced_writes_are_torn() {
    sweep(Unsynced::Torn, 20..26);
}

#[test]
fn a_cut_at_any_operation_leaves_a_prefix_when_each_write_has_its_own_fate() {
    sweep(Unsynced::Mixed, 30..36);
}

#[test]
fn a_cut_in_the_middle_of_a_recovery_is_recovered_from() {
    for (unsynced, seed) in ALL.into_iter().flat_map(|u| (0..12).map(move |seed| (u, seed))) {
        for again in 1..12 {
            let mut world = World::new(seed, unsynced);
            world.disk.cut_power_at(20 + seed * 5);
            world.run(STEPS);
            world.disk.power_on();
            world.disk.cut_power_at(again);
            let checkpoint = world.bodies[0].1.checkpoint;
            let mut log = open_log(checkpoint);
            log.known_durable = Some(world.bodies[0].1.known);
            // Cut off or not, the next recovery must find the same prefix.
            drop(Journal::open(&mut world.disk, &log, &mut |_| {}));
            world.recover();
        }
    }
}

#[test]
fn a_killed_process_loses_nothing_that_was_written() {
    for (seed, steps) in (0..8).flat_map(|seed| (5..60).map(move |steps| (seed, steps))) {
        let mut world = World::new(seed, Unsynced::Lost);
        world.act_for(steps);
        let written = world.journal.written();
        world.disk.restart_process();
        let body = world.bodies[0].1;
        let mut log = open_log(body.checkpoint);
        log.known_durable = Some(body.known);
        let (_, recovered) = Journal::open(&mut world.disk, &log, &mut |_| {}).unwrap();
        let end = recovered.end.lsn;
        assert!(end >= written || world.cutting == Some(end));
        // And what recovery reports is durable from then on, without any further sync.
        world.durable = end;
        world.recover();
    }
}

/// A sweep over workloads that never truncate or recycle would prove nothing.
#[test]
fn the_workload_truncates_once_and_recycles_twice_on_average() {
    let (mut truncations, mut recycled) = (0, 0);
    for seed in 0..6 {
        let mut world = World::new(seed, Unsynced::Lost);
        world.run(STEPS);
        truncations += world.truncations_done;
        recycled += world.journal.start().get() / SEGMENT_LEN_MIN;
    }
    assert!(truncations >= 6 && recycled >= 12, "{truncations} {recycled}");
}

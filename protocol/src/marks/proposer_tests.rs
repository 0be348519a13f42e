//! Members that change one record over markers which fail, in random orders of everything.

use std::collections::BTreeMap;

use super::*;
use crate::backoff::draw;
use crate::frame::Began;
use crate::ids::{Epoch, Incarnate};

const MEMBERS: usize = 3;

/// Numbers by chance, the same for one seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(draw(&mut self.0) % limit as u64).unwrap()
    }

    fn half(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// A job under way on one marker: first its write lands, then it reads.
struct UnderWay {
    member: usize,
    marker: usize,
    write: Option<ControlBlock>,
}

struct Member {
    proposer: Proposer,
    life: u64,
    /// The highest number that anybody had heard of when its read was asked for.
    read_from: Option<u64>,
    changing: Option<u64>,
    known: u64,
}

/// Markers, members, and what they were told.
struct World {
    /// Repeats it.
    seed: u64,
    draw: Draw,
    now: Now,
    /// The newest block of each member on each marker.
    markers: Vec<BTreeMap<MemberId, ControlBlock>>,
    members: Vec<Member>,
    jobs: Vec<UnderWay>,
    decided: BTreeMap<u64, ControlRecord>,
    heard: u64,
    changes: usize,
}

fn resource() -> ResourceId {
    ResourceId::derive("orders", "db")
}

fn id(member: usize) -> MemberId {
    MemberId::new(u8::try_from(member).unwrap()).unwrap()
}

fn record(number: u64, member: usize, life: u64) -> ControlRecord {
    let owner = Incarnate { member: id(member), incarnation: Incarnation::new(life) };
    let (epoch, began) = (Epoch::new(number), Began::Forced);
    ControlRecord { number, epoch, began, owner, in_sync: vec![owner], release: None }
}

fn newborn(member: usize, life: u64, markers: usize) -> Member {
    let incarnation = Incarnation::new(life);
    let writer = Writer { member: id(member), incarnation, nonce: life };
    let proposer = Proposer::new(resource(), writer, markers);
    Member { proposer, life, read_from: None, changing: None, known: 0 }
}

impl World {
    fn new(seed: u64, markers: usize) -> Self {
        let blank = |member| (id(member), ControlBlock::blank(resource(), id(member)));
        let formatted: BTreeMap<_, _> = (0..MEMBERS).map(blank).collect();
        Self {
            seed,
            draw: Draw(seed),
            now: Now::default(),
            markers: vec![formatted; markers],
            members: (0..MEMBERS).map(|member| newborn(member, 1, markers)).collect(),
            jobs: Vec::new(),
            decided: BTreeMap::new(),
            heard: 0,
            changes: 0,
        }
    }

    fn step(&mut self) {
        let (member, marker) = (self.draw.below(MEMBERS), self.draw.below(self.markers.len()));
        match self.draw.below(100) {
            0 => self.restart(member),
            1..8 => self.wish(member),
            8..14 => {
                self.now = self.now.after(Duration::from_millis(20));
                let now = self.now;
                self.members.iter_mut().for_each(|member| member.proposer.tick(now));
            }
            14..45 => {
                if let Some(Job { write }) = self.members[member].proposer.job(marker) {
                    self.jobs.push(UnderWay { member, marker, write });
                }
            }
            _ => self.go_on_with_a_job(),
        }
        self.hear();
    }

    /// Its jobs die with it: what they were to write is on the marker, or never will be.
    fn restart(&mut self, member: usize) {
        let (own, others) = self.jobs.drain(..).partition(|job: &UnderWay| job.member == member);
        self.jobs = others;
        for job in own {
            if self.draw.half() {
                self.land(&job);
            }
        }
        let life = self.members[member].life + 1;
        self.members[member] = newborn(member, life, self.markers.len());
    }

    fn wish(&mut self, index: usize) {
        let (floor, reads) = (self.heard, self.draw.half());
        let member = &mut self.members[index];
        if reads && member.read_from.is_none() {
            member.read_from = Some(floor);
            member.proposer.read();
        } else if !reads && member.changing.is_none() {
            let number = member.known + 1;
            member.changing = Some(number);
            member.proposer.change(record(number, index, member.life));
        }
    }

    fn land(&mut self, job: &UnderWay) {
        if let Some(block) = &job.write {
            self.markers[job.marker].insert(block.member, block.clone());
        }
    }

    fn go_on_with_a_job(&mut self) {
        if self.jobs.is_empty() {
            return;
        }
        let at = self.draw.below(self.jobs.len());
        let mut job = self.jobs.swap_remove(at);
        let (member, marker, now) = (job.member, job.marker, self.now);
        if self.draw.below(20) == 0 {
            if self.draw.half() {
                self.land(&job);
            }
            self.members[member].proposer.failed(marker, now);
        } else if job.write.is_some() {
            self.land(&job);
            job.write = None;
            self.jobs.push(job);
        } else {
            let blocks: Vec<_> = self.markers[marker].values().cloned().collect();
            self.members[member].proposer.done(marker, &blocks, now).unwrap();
        }
    }

    /// Nobody hears another record of one number, nor an older one than was heard before it asked.
    fn hear(&mut self) {
        for member in &mut self.members {
            for said in member.proposer.said() {
                let (record, least) = match said {
                    Said::Read(record) => (record, member.read_from.take().unwrap()),
                    Said::Decided(record) => (record, member.changing.take().unwrap()),
                };
                let number = record.as_ref().map_or(0, |record| record.number);
                assert!(number >= least, "seed {}: {number} was heard after {least}", self.seed);
                member.known = member.known.max(number);
                self.heard = self.heard.max(number);
                if let Some(record) = record {
                    let first = self.decided.entry(number).or_insert_with(|| record.clone());
                    assert_eq!(*first, record, "seed {}: two records were decided", self.seed);
                    self.changes += 1;
                }
            }
        }
    }
}

#[test]
fn nobody_hears_two_records_of_one_number_or_an_older_one_after_a_newer() {
    let mut decided = 0;
    for seed in 0..400 {
        for markers in [1, 3] {
            let mut world = World::new(seed, markers);
            (0..1500).for_each(|_| world.step());
            decided += world.decided.len();
        }
    }
    assert!(decided > 4000, "only {decided} changes were made");
}

/// One member alone on markers that do what they are told.
fn alone(markers: usize) -> World {
    let mut world = World::new(0, markers);
    settle(&mut world, 0, &(0..markers).collect::<Vec<_>>());
    world
}

/// Does the jobs of one member on these markers until there are none.
fn settle(world: &mut World, member: usize, markers: &[usize]) -> usize {
    let mut count = 0;
    loop {
        let before = count;
        for marker in markers {
            let proposer = &mut world.members[member].proposer;
            let Some(Job { write }) = proposer.job(*marker) else { continue };
            world.land(&UnderWay { member, marker: *marker, write });
            let blocks: Vec<_> = world.markers[*marker].values().cloned().collect();
            world.members[member].proposer.done(*marker, &blocks, world.now).unwrap();
            count += 1;
        }
        if count == before {
            return count;
        }
    }
}

#[test]
fn a_change_that_nobody_disturbs_takes_three_steps() {
    let mut world = alone(1);
    world.members[0].proposer.change(record(1, 0, 1));
    assert_eq!(settle(&mut world, 0, &[0]), 3, "a ballot, a value, and the decision");
    let said = world.members[0].proposer.said();
    assert_eq!(said, [Said::Decided(Some(record(1, 0, 1)))]);
}

#[test]
fn two_of_three_markers_decide_and_one_does_not() {
    let mut world = alone(3);
    world.members[0].proposer.change(record(1, 0, 1));
    settle(&mut world, 0, &[2]);
    assert_eq!(world.members[0].proposer.said(), []);
    settle(&mut world, 0, &[0, 2]);
    assert_eq!(world.members[0].proposer.said().len(), 1);
    // Whoever reads the other two hears of it from one of them.
    settle(&mut world, 1, &[0, 1]);
    world.members[1].proposer.read();
    settle(&mut world, 1, &[0, 1]);
    assert_eq!(world.members[1].proposer.said(), [Said::Read(Some(record(1, 0, 1)))]);
}

/// A cluster in which the first member stood for a change on the only marker, and died before it
/// could say so.
fn stood_and_died() -> World {
    let mut world = alone(1);
    world.members[0].proposer.change(record(1, 0, 1));
    for _ in 0..2 {
        let job = world.members[0].proposer.job(0).unwrap();
        world.land(&UnderWay { member: 0, marker: 0, write: job.write });
        let blocks: Vec<_> = world.markers[0].values().cloned().collect();
        world.members[0].proposer.done(0, &blocks, world.now).unwrap();
    }
    world.restart(0);
    world
}

#[test]
fn what_a_dead_life_stood_for_is_decided_by_whoever_comes_next_be_it_the_same_member() {
    for next in [0, 1] {
        let mut world = stood_and_died();
        settle(&mut world, next, &[0]);
        world.members[next].proposer.change(record(1, next, 2));
        settle(&mut world, next, &[0]);
        let said = world.members[next].proposer.said();
        assert_eq!(said, [Said::Decided(Some(record(1, 0, 1)))], "member {next}");
    }
}

#[test]
fn a_wish_for_another_number_is_not_decided_under_this_one() {
    let mut world = alone(1);
    world.members[0].proposer.change(record(1, 0, 1));
    let job = world.members[0].proposer.job(0).unwrap();
    // Whoever wished that has gone, and the next one wishes from what it read elsewhere.
    world.members[0].proposer.change(record(2, 0, 1));
    world.land(&UnderWay { member: 0, marker: 0, write: job.write });
    let blocks: Vec<_> = world.markers[0].values().cloned().collect();
    world.members[0].proposer.done(0, &blocks, world.now).unwrap();
    settle(&mut world, 0, &[0]);
    assert_eq!(world.members[0].proposer.said(), [Said::Decided(None)], "nothing was decided");
}

#[test]
fn a_marker_that_went_back_in_time_counts_for_nothing() {
    let mut world = alone(1);
    let old = world.markers[0].clone();
    world.members[0].proposer.change(record(1, 0, 1));
    settle(&mut world, 0, &[0]);
    world.markers[0] = old;
    world.members[0].proposer.read();
    assert!(world.members[0].proposer.job(0).is_some());
    let blocks: Vec<_> = world.markers[0].values().cloned().collect();
    let error = world.members[0].proposer.done(0, &blocks, world.now).unwrap_err();
    assert_eq!((error.expected, error.found), (3, 0));
    assert_eq!(world.members[0].proposer.said().len(), 1, "the change alone");
}

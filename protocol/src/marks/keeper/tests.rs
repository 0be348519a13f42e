//! Members over markers in memory, on simulated time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::frame::Began;
use crate::ids::{Epoch, Incarnate};
use crate::marks::header::{Header, Label, MARKERS_MAX};
use crate::marks::layout::{BLOCK_LEN, marker_len};
use crate::marks::making;
use crate::time::WallTime;

const MS: u64 = 1000;

/// A marker, and what happens to orders on it.
struct Disk {
    bytes: Vec<u8>,
    hangs: bool,
    fails: bool,
}

/// An order under way: it lands and is answered after a millisecond.
struct Pending {
    member: usize,
    marker: usize,
    write: Option<(BlockIndex, Block)>,
    read: Run,
    at: u64,
}

struct Cluster {
    now: u64,
    disks: Vec<Disk>,
    keepers: Vec<Option<Keeper>>,
    pending: Vec<Pending>,
    said: BTreeMap<usize, Vec<Action>>,
    lives: u64,
    /// Its orders come through to no marker.
    cut: Option<usize>,
}

fn id(member: usize) -> MemberId {
    MemberId::new(u8::try_from(member).unwrap()).unwrap()
}

fn cluster_id() -> ClusterId {
    ClusterId::derive("orders")
}

fn resource() -> ResourceId {
    ResourceId::derive("orders", "db")
}

fn made(markers: usize) -> Vec<Disk> {
    let count = u8::try_from(markers).unwrap();
    assert!(count <= MARKERS_MAX);
    let disk = |marker| {
        let mut bytes = vec![0; usize::try_from(marker_len(1)).unwrap()];
        let (set, cluster_name) = ([1; 16], "orders".into());
        let (markers, members, places, made) = (count, 2, 1, WallTime::default());
        let header = Header { set, marker, markers, members, places, made, cluster_name };
        let label = Label { resource: resource(), name: "db".into() };
        let place = making::place(cluster_id(), (Place::new(0).unwrap(), &label), 2);
        for (index, block) in making::marker(cluster_id(), &header).into_iter().chain(place) {
            put(&mut bytes, index, &block);
        }
        Disk { bytes, hangs: false, fails: false }
    };
    (0..count).map(disk).collect()
}

fn put(bytes: &mut [u8], index: BlockIndex, block: &Block) {
    let at = usize::try_from(index.offset()).unwrap();
    bytes[at..at + BLOCK_LEN].copy_from_slice(block.as_bytes());
}

impl Cluster {
    fn new(markers: usize) -> Self {
        let (disks, keepers, said) = (made(markers), vec![None, None], BTreeMap::new());
        let mut cluster =
            Self { now: MS, disks, keepers, pending: Vec::new(), said, lives: 1, cut: None };
        cluster.start(0, 7);
        cluster.start(1, 8);
        cluster
    }

    fn clock(&self) -> Clock {
        Clock { now: Now::from_micros(self.now), wall: WallTime::from_micros(self.now) }
    }

    fn start(&mut self, member: usize, host_id: u64) {
        self.lives += 1;
        let setup = Setup {
            cluster: cluster_id(),
            me: id(member),
            members: 2,
            markers: self.disks.len(),
            timing: Timing::DEFAULT,
            places: vec![(resource(), Place::new(0)), (ResourceId::derive("orders", "new"), None)],
            incarnation: Incarnation::new(self.lives),
            nonce: self.lives,
            host_id,
            host: format!("host-{host_id}"),
        };
        self.keepers[member] = Some(Keeper::new(setup, self.clock()));
    }

    /// What it had under way is gone with it.
    fn kill(&mut self, member: usize) {
        self.keepers[member] = None;
        self.pending.retain(|order| order.member != member);
    }

    fn tell(&mut self, member: usize, event: Event<'_>) {
        let clock = self.clock();
        self.keepers[member].as_mut().unwrap().handle(clock, event);
    }

    fn collect(&mut self) {
        for (member, keeper) in self.keepers.iter_mut().enumerate() {
            let Some(keeper) = keeper else { continue };
            while let Some(action) = keeper.poll() {
                if let Action::Order { marker, write, read } = action {
                    let at = self.now + MS;
                    self.pending.push(Pending { member, marker, write, read, at });
                } else {
                    self.said.entry(member).or_default().push(action);
                }
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + u64::try_from(time.as_micros()).unwrap();
        while self.now < end {
            self.collect();
            self.now += MS;
            let (due, rest) = self.pending.drain(..).partition(|order: &Pending| {
                let stuck = self.disks[order.marker].hangs || self.cut == Some(order.member);
                order.at <= self.now && !stuck
            });
            self.pending = rest;
            due.into_iter().for_each(|order| self.land(order));
            for member in 0..self.keepers.len() {
                let clock = self.clock();
                if let Some(keeper) = &mut self.keepers[member]
                    && keeper.deadline().is_some_and(|at| at <= clock.now)
                {
                    keeper.handle(clock, Event::Tick);
                }
            }
        }
        self.collect();
    }

    fn land(&mut self, order: Pending) {
        let disk = &mut self.disks[order.marker];
        if disk.fails {
            return self.tell(order.member, Event::Failed { marker: order.marker });
        }
        if let Some((index, block)) = &order.write {
            put(&mut disk.bytes, *index, block);
        }
        let from = usize::try_from(order.read.first.offset()).unwrap();
        let bytes = disk.bytes[from..from + order.read.len()].to_vec();
        self.tell(order.member, Event::Done { marker: order.marker, bytes: &bytes });
    }

    fn seconds(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    /// What a member has said since it was asked last.
    fn heard(&mut self, member: usize) -> Vec<Action> {
        self.said.remove(&member).unwrap_or_default()
    }

    fn holds(&self, member: usize) -> bool {
        self.keepers[member].as_ref().is_some_and(|keeper| keeper.term().is_some())
    }

    fn sights(&mut self, member: usize) -> Vec<Sight> {
        let said = self.heard(member);
        let sights = said.into_iter().filter_map(|action| match action {
            Action::Sight(_, sight, _) => Some(sight),
            _ => None,
        });
        let mut sights: Vec<_> = sights.collect();
        sights.dedup();
        sights
    }

    /// The answers that a resource got.
    fn answers(&mut self, member: usize) -> Vec<Said> {
        let said = self.heard(member);
        let answers = said.into_iter().filter_map(|action| match action {
            Action::Said(_, said) => Some(said),
            _ => None,
        });
        answers.collect()
    }
}

fn record(number: u64, member: usize) -> ControlRecord {
    let owner = Incarnate { member: id(member), incarnation: Incarnation::new(number) };
    let (epoch, began) = (Epoch::new(number), Began::Forced);
    ControlRecord { number, epoch, began, owner, in_sync: vec![owner], release: None }
}

#[test]
fn two_members_join_hold_their_leases_and_see_each_other() {
    for markers in [1, 3] {
        let mut cluster = Cluster::new(markers);
        cluster.seconds(6);
        assert!(cluster.holds(0) && cluster.holds(1));
        for member in [0, 1] {
            let heard = cluster.heard(member);
            assert!(heard.iter().any(|said| matches!(said, Action::Joined(_))));
            let lives = |said: &Action| matches!(said, Action::Sight(_, Sight::Live, _));
            assert!(heard.iter().any(lives));
        }
        cluster.seconds(600);
        assert!(!cluster.heard(0).contains(&Action::LeaseLost));
    }
}

#[test]
fn a_member_that_was_killed_is_over_after_its_lease_and_not_before() {
    let mut cluster = Cluster::new(1);
    cluster.seconds(20);
    cluster.kill(0);
    cluster.heard(1);
    cluster.seconds(3);
    assert_eq!(cluster.sights(1), [], "its last renewal may be two seconds old");
    cluster.seconds(5);
    assert_eq!(cluster.sights(1), [Sight::Late]);
    cluster.seconds(5);
    assert_eq!(cluster.sights(1), [Sight::Stalled, Sight::Over]);
}

#[test]
fn a_member_that_leaves_is_down_at_once() {
    let mut cluster = Cluster::new(3);
    cluster.seconds(20);
    cluster.tell(0, Event::Leave);
    cluster.seconds(3);
    assert!(cluster.heard(0).contains(&Action::Left));
    assert_eq!(cluster.sights(1).last(), Some(&Sight::Down));
}

/// When a member that is cut off from its markers holds its lease for the last time, and when the
/// other takes it for over.
fn ends(markers: usize) -> (u64, u64) {
    let mut cluster = Cluster::new(markers);
    cluster.seconds(20);
    cluster.heard(1);
    cluster.cut = Some(0);
    let mut held_at = cluster.now;
    for _ in 0..200 {
        cluster.run(Duration::from_millis(100));
        if cluster.holds(0) {
            held_at = cluster.now;
        }
        if cluster.sights(1).contains(&Sight::Over) {
            return (held_at, cluster.now);
        }
    }
    panic!("it never ended");
}

#[test]
fn a_lease_ends_before_anybody_may_take_it_for_over() {
    for markers in [1, 3] {
        let (held_at, over_at) = ends(markers);
        assert!(held_at < over_at, "{markers} markers");
    }
}

#[test]
fn one_marker_of_three_may_hang_or_fail_and_two_may_not() {
    for hangs in [true, false] {
        let mut cluster = Cluster::new(3);
        cluster.seconds(10);
        (cluster.disks[1].hangs, cluster.disks[1].fails) = (hangs, !hangs);
        cluster.seconds(60);
        assert!(cluster.holds(0) && cluster.holds(1));
        let health = if hangs { Health::Late } else { Health::Failed };
        assert!(cluster.heard(0).contains(&Action::Marker(1, health)));
        (cluster.disks[2].hangs, cluster.disks[2].fails) = (hangs, !hangs);
        cluster.seconds(20);
        assert!(!cluster.holds(0) && !cluster.holds(1));
        (cluster.disks[2].hangs, cluster.disks[2].fails) = (false, false);
        cluster.seconds(5);
        assert!(cluster.holds(0), "and it comes back, in a term of its own");
        assert!(cluster.heard(0).contains(&Action::LeaseLost));
    }
}

#[test]
fn a_second_member_of_one_name_on_another_host_writes_nothing() {
    let mut cluster = Cluster::new(1);
    cluster.seconds(10);
    let other = cluster.keepers[0].take();
    cluster.start(0, 99);
    let impostor = std::mem::replace(&mut cluster.keepers[0], other);
    cluster.keepers.push(impostor);
    cluster.seconds(20);
    let refused =
        |said: &Action| matches!(said, Action::Refused(block) if block.lease.host_id == 7);
    assert!(cluster.heard(2).iter().any(refused));
    assert!(cluster.holds(0));
}

#[test]
fn a_member_that_moved_to_another_host_waits_until_its_old_lease_is_over() {
    let mut cluster = Cluster::new(1);
    cluster.seconds(10);
    cluster.kill(0);
    cluster.start(0, 99);
    cluster.seconds(8);
    assert!(!cluster.holds(0));
    cluster.seconds(5);
    assert!(cluster.holds(0));
}

#[test]
fn a_restart_on_the_same_host_does_not_wait() {
    let mut cluster = Cluster::new(1);
    cluster.seconds(10);
    cluster.kill(0);
    cluster.start(0, 7);
    cluster.seconds(1);
    assert!(cluster.holds(0));
    cluster.tell(0, Event::Read(0));
    cluster.seconds(2);
    assert_eq!(cluster.answers(0), [], "what the dead life had under way may still land");
    cluster.seconds(3);
    assert_eq!(cluster.answers(0), [Said::Read(None)]);
}

#[test]
fn a_resource_without_a_place_hears_nothing_and_harms_nobody() {
    let mut cluster = Cluster::new(1);
    cluster.seconds(10);
    cluster.tell(0, Event::Read(1));
    cluster.tell(0, Event::Read(0));
    cluster.seconds(60);
    assert_eq!(cluster.answers(0), [Said::Read(None)], "of the first alone");
    assert!(cluster.holds(0));
}

#[test]
fn of_two_changes_of_one_record_one_wins_and_both_hear_which() {
    for markers in [1, 3] {
        let mut cluster = Cluster::new(markers);
        cluster.seconds(10);
        cluster.tell(0, Event::Change(0, record(1, 0)));
        cluster.tell(1, Event::Change(0, record(1, 1)));
        cluster.seconds(5);
        let (first, second) = (cluster.answers(0), cluster.answers(1));
        assert_eq!(first.len(), 1);
        assert_eq!(first, second);
    }
}

#[test]
fn a_wiped_marker_is_not_used_any_more_and_the_only_one_ends_the_lease_at_once() {
    let mut cluster = Cluster::new(1);
    cluster.seconds(10);
    let blank = made(1).remove(0).bytes;
    cluster.disks[0].bytes = blank;
    cluster.disks[0].hangs = false;
    // The next read-only order finds the own control block gone; the next renewal is whole again.
    cluster.tell(0, Event::Change(0, record(1, 0)));
    cluster.run(Duration::from_millis(20));
    assert!(matches!(cluster.answers(0)[..], [Said::Decided(_)]));
    cluster.disks[0].bytes = made(1).remove(0).bytes;
    cluster.heard(0);
    cluster.tell(0, Event::Read(0));
    cluster.run(Duration::from_millis(20));
    let heard = cluster.heard(0);
    assert!(heard.contains(&Action::LeaseLost), "{heard:?}");
    assert!(heard.iter().any(|said| matches!(said, Action::Marker(0, Health::Overwritten(_)))));
}

#[test]
fn after_an_error_no_control_block_is_written_before_that_one_would_have_landed() {
    let mut cluster = Cluster::new(1);
    cluster.seconds(10);
    cluster.disks[0].fails = true;
    cluster.tell(0, Event::Change(0, record(1, 0)));
    cluster.run(Duration::from_millis(10));
    cluster.disks[0].fails = false;
    cluster.run(Timing::DEFAULT.settle() - Duration::from_millis(50));
    assert_eq!(cluster.answers(0), []);
    assert!(cluster.holds(0), "the lease is renewed meanwhile");
    cluster.seconds(1);
    assert_eq!(cluster.answers(0), [Said::Decided(Some(record(1, 0)))]);
}

//! Volumes made larger: who is asked, what may come in between, and what is made up for.

use std::time::Duration;

use super::super::*;
use super::cluster::{Cluster, member};
use crate::ids::{SessionId, VolumeIndex};
use crate::replica::Mode;
use crate::wire::{CannotGrow, Refusal};

const HAS: u64 = 1 << 20;
const WANTED: u64 = 3 << 20;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn grow(size_bytes: u64) -> Command {
    Command::Grow { volume: VolumeIndex::new(0).unwrap(), size_bytes, test: false }
}

fn pair() -> Cluster {
    Cluster::started(2, Mode::Nearsync)
}

fn sizes(cluster: &Cluster) -> Vec<(u64, u32)> {
    let of = |index| cluster.node(index).state();
    let all = 0..cluster.hosts.len() as u8;
    all.map(|index| (of(index).volumes[0].size_bytes, of(index).growths)).collect()
}

fn no_room(why: CannotGrow, member_index: u8) -> Result<Done, Denied> {
    Err(Denied::CannotGrow { member: member(member_index), why })
}

#[test]
fn a_volume_is_offered_to_clients_when_every_member_has_it() {
    let mut cluster = Cluster::started(3, Mode::Nearsync);
    assert_eq!(cluster.command(0, grow(WANTED)), Ok(Done::Grown));
    assert_eq!(sizes(&cluster), [(WANTED, 1); 3]);
    for host in &cluster.hosts {
        assert_eq!(host.offered, [WANTED]);
        assert!(host.notes.contains(&Note::Grew));
    }
    // The sessions go on, those between standbys may have begun anew.
    assert!([1, 2].iter().all(|standby| cluster.state_of(0, *standby).is_some()));
}

#[test]
fn what_cannot_be_is_refused_by_the_primary_alone() {
    let mut cluster = pair();
    assert_eq!(cluster.command(1, grow(WANTED)), Err(Denied::NotPrimary));
    for size in [0, HAS / 2, HAS] {
        assert_eq!(cluster.command(0, grow(size)), Err(Denied::NotLarger { has: HAS }));
    }
    for size in [HAS + 1, (1 << 50) + 512] {
        assert_eq!(cluster.command(0, grow(size)), Err(Denied::NoSize { block: 512 }));
    }
    let volume = VolumeIndex::new(1).unwrap();
    let other = Command::Grow { volume, size_bytes: WANTED, test: false };
    assert_eq!(cluster.command(0, other), Err(Denied::NoSuchVolume));
    let session = SessionId::new(900);
    cluster.command(0, Command::Seed { session, absent: None }).unwrap();
    assert_eq!(cluster.command(0, grow(WANTED)), Err(Denied::CopyUnderWay));
    assert_eq!(sizes(&cluster), [(HAS, 0); 2]);
}

#[test]
fn one_member_without_room_is_named_and_nobody_grows() {
    let why = CannotGrow::DeviceTooSmall { has: HAS, missing: WANTED - HAS };
    for host in [0, 1] {
        let mut cluster = pair();
        cluster.hosts[usize::from(host)].room = Some(Some(why));
        assert_eq!(cluster.command(0, grow(WANTED)), no_room(why, host));
        assert_eq!(sizes(&cluster), [(HAS, 0); 2]);
        cluster.hosts[usize::from(host)].room = Some(None);
        assert_eq!(cluster.command(0, grow(WANTED)), Ok(Done::Grown));
    }
}

#[test]
fn a_member_that_takes_its_time_is_named_after_a_minute_and_what_it_says_later_counts_for_nothing()
{
    let mut cluster = pair();
    cluster.hosts[1].room = None;
    let id = cluster.ask(0, grow(WANTED));
    assert_eq!(cluster.command(0, grow(WANTED)), Err(Denied::Grows));
    let session = SessionId::new(900);
    let seed = Command::Seed { session, absent: None };
    assert_eq!(cluster.command(1, seed), Err(Denied::Grows), "it would count on the size");
    cluster.pass(seconds(59));
    assert_eq!(cluster.reply(0, id), None);
    cluster.pass(seconds(2));
    assert_eq!(cluster.reply(0, id), Some(Err(Denied::RoomTakesLong { member: member(1) })));
    // It is still at it.
    assert_eq!(cluster.command(0, grow(WANTED)), no_room(CannotGrow::Busy, 1));
    cluster.tell(1, Event::RoomMade(None));
    cluster.run();
    assert_eq!(sizes(&cluster), [(HAS, 0); 2]);
    cluster.hosts[1].room = Some(None);
    assert_eq!(cluster.command(0, grow(WANTED)), Ok(Done::Grown));
}

#[test]
fn a_standby_that_is_lost_before_all_have_room_ends_it() {
    let mut cluster = pair();
    cluster.hosts[0].room = None;
    let id = cluster.ask(0, grow(WANTED));
    cluster.cut(0, 1);
    assert_eq!(cluster.reply(0, id), Some(Err(Denied::DoesNotFollow { member: member(1) })));
    cluster.tell(0, Event::RoomMade(None));
    cluster.run();
    assert_eq!(sizes(&cluster), [(HAS, 0); 2]);
}

#[test]
fn a_primary_that_is_overtaken_while_it_tells_of_the_sizes_leaves_that_to_the_next_hellos() {
    let mut cluster = pair();
    cluster.hosts[0].room = None;
    let id = cluster.ask(0, grow(WANTED));
    // The decision falls just before the primary hears of another epoch: its word of the sizes
    // comes to a member that has promised that one.
    cluster.tell(0, Event::RoomMade(None));
    cluster.ask(1, Command::forced());
    assert_eq!(cluster.reply(0, id), Some(Ok(Done::Grown)));
    assert_eq!(sizes(&cluster), [(WANTED, 1), (HAS, 0)]);
    assert!(!cluster.are_linked(0, 1), "two that work together have the same sizes");
    for _ in 0..2 {
        cluster.link(0, 1);
        cluster.run();
    }
    assert_eq!(sizes(&cluster), [(WANTED, 1); 2]);
    assert!(cluster.hosts[1].serving);
    assert!(cluster.state_of(1, 0).is_some());
}

/// Both know nothing of each other's size until they meet again.
#[test]
fn whoever_was_away_takes_the_sizes_when_the_two_meet_and_then_they_work_together() {
    for larger in [0_u8, 1] {
        let mut cluster = pair();
        cluster.write(0, 1);
        cluster.run();
        cluster.kill(1);
        cluster.kill(0);
        let state = &mut cluster.hosts[usize::from(larger)].state;
        (state.volumes[0].size_bytes, state.growths) = (WANTED, 1);
        [0, 1].into_iter().for_each(|index| cluster.start(index));
        cluster.link(0, 1);
        cluster.run();
        assert_eq!(sizes(&cluster), [(WANTED, 1); 2], "{larger}");
        let smaller = &cluster.hosts[usize::from(1 - larger)];
        assert!(smaller.notes.contains(&Note::Grew));
        assert!(!cluster.are_linked(0, 1), "the session that began with other sizes has ended");
        assert!(!cluster.hosts[0].serving);
        cluster.link(0, 1);
        cluster.run();
        assert!(cluster.hosts[0].serving);
        assert!(cluster.state_of(0, 1).is_some());
    }
}

#[test]
fn a_growth_that_cannot_be_made_up_for_is_told_and_tried_again() {
    let mut cluster = pair();
    cluster.kill(1);
    let state = &mut cluster.hosts[1].state;
    (state.volumes[0].size_bytes, state.growths) = (HAS, 0);
    let state = &mut cluster.hosts[0].state;
    (state.volumes[0].size_bytes, state.growths) = (WANTED, 1);
    cluster.kill(0);
    let why = CannotGrow::DeviceTooSmall { has: HAS, missing: WANTED - HAS };
    cluster.hosts[1].room = Some(Some(why));
    [0, 1].into_iter().for_each(|index| cluster.start(index));
    cluster.link(0, 1);
    cluster.run();
    assert!(cluster.hosts[1].notes.contains(&Note::CannotGrow(why)));
    let refused = Note::Refused { peer: member(1), refusal: Refusal::Growing };
    assert!(cluster.hosts[0].notes.contains(&refused));
    cluster.hosts[1].room = Some(None);
    cluster.pass(seconds(11));
    assert!(!cluster.are_linked(0, 1), "who was refused says that it has grown");
    cluster.link(0, 1);
    cluster.run();
    assert_eq!(sizes(&cluster), [(WANTED, 1); 2]);
}

#[test]
fn sizes_that_no_growth_has_made_are_a_mistake_and_stay_one() {
    let mut cluster = pair();
    cluster.kill(1);
    cluster.hosts[1].state.volumes[0].size_bytes = WANTED;
    cluster.start(1);
    cluster.link(0, 1);
    cluster.run();
    let refused = Note::Refused { peer: member(1), refusal: Refusal::GeometryDiffers };
    assert!(cluster.hosts[0].notes.contains(&refused));
    assert_eq!(sizes(&cluster), [(HAS, 0), (WANTED, 0)]);
}

//! Leases: who may serve when the marks, the links or both are gone, and who takes over by itself.

use std::time::Duration;

use super::super::*;
use super::cluster::{Cluster, member};
use crate::ids::{Epoch, MemberId};
use crate::marks::lease::Timing;
use crate::marks::watch::Sight;
use crate::replica::Mode;
use crate::time::Now;

const FORCE: Command = Command::forced();

/// Two members with marks, each of which keeps its lease as long as it reaches them.
struct Marked {
    cluster: Cluster,
    /// When each lease was renewed last.
    renewed: [Now; 2],
}

const STEP: Duration = Duration::from_millis(500);

fn config(auto_takeover: bool) -> NodeConfig {
    let mut config = NodeConfig::new(vec![member(0), member(1)], Mode::Nearsync);
    config.record = RecordKind::Register;
    config.lease = Some(LeaseConfig::new(&Timing::DEFAULT, auto_takeover));
    config
}

impl Marked {
    fn started(auto_takeover: bool) -> Self {
        Self::started_with(config(auto_takeover))
    }

    fn started_with(config: NodeConfig) -> Self {
        let cluster = Cluster::with_config(2, config);
        let mut marked = Self { cluster, renewed: [Now::default(); 2] };
        marked.cluster.start_all();
        marked.seconds(15);
        assert!(marked.cluster.hosts[0].serving, "the first primary serves under its lease");
        assert!(marked.cluster.record.as_ref().unwrap().in_sync.len() == 2);
        marked
    }

    /// Time goes on, and every member renews its lease and looks at the other's.
    fn seconds(&mut self, seconds: u64) {
        for _ in 0..seconds * 2 {
            self.cluster.pass(STEP);
            let now = self.cluster.now();
            for index in 0..2_u8 {
                if self.cluster.hosts[usize::from(index)].node.is_none()
                    || !self.cluster.reaches_record(index)
                {
                    continue;
                }
                self.renewed[usize::from(index)] = now;
                let until = now.after(Timing::DEFAULT.lease);
                self.cluster.tell(index, Event::Lease(Some(until)));
                let other = 1 - index;
                let over = self.renewed[usize::from(other)].after(Timing::DEFAULT.wait_out());
                let sight = if over <= now { Sight::Over } else { Sight::Live };
                let sighted = Event::Sighted { member: member(other), sight, as_of: now };
                self.cluster.tell(index, sighted);
            }
            self.cluster.run();
        }
    }

    /// The member's lease is good for as long as one is, from now.
    fn renew(&mut self, index: u8) {
        let until = self.cluster.now().after(Timing::DEFAULT.lease);
        self.cluster.tell(index, Event::Lease(Some(until)));
    }

    fn answers(&self, index: u8) -> bool {
        let host = &self.cluster.hosts[usize::from(index)];
        host.serving && host.node.as_ref().is_some_and(|node| !node.is_gate_shut())
    }

    fn owner(&self) -> MemberId {
        self.cluster.record.as_ref().unwrap().owner.member
    }
}

#[test]
fn a_primary_that_dies_is_followed_by_itself_once_its_lease_is_over() {
    let mut marked = Marked::started(true);
    let written = marked.cluster.write(0, 7);
    marked.cluster.run();
    marked.cluster.kill(0);
    marked.seconds(8);
    assert!(!marked.answers(1), "its lease runs still");
    marked.seconds(6);
    assert!(marked.answers(1));
    assert!(marked.cluster.node(1).log_end() > written, "with all that was answered");
    assert!(marked.cluster.told(1).contains(&"takes_over_alone"));
}

#[test]
fn without_auto_takeover_an_operator_is_told_that_the_owner_may_live() {
    let mut marked = Marked::started(false);
    marked.cluster.kill(0);
    marked.seconds(1);
    let denied = marked.cluster.command(1, FORCE);
    assert!(matches!(denied, Err(Denied::OwnerLives { .. })), "{denied:?}");
    marked.seconds(20);
    assert!(!marked.answers(1), "nobody asked it to");
    assert!(matches!(marked.cluster.command(1, FORCE), Ok(Done::Leading(_))));
}

#[test]
fn the_loss_of_the_marks_alone_stops_nobody() {
    let mut marked = Marked::started(true);
    (0..2).for_each(|index| marked.cluster.cut_record(index));
    marked.seconds(60);
    assert!(marked.answers(0), "the standby has promised not to take over");
    marked.cluster.write(0, 1);
    marked.cluster.run();
    (0..2).for_each(|index| marked.cluster.heal_record(index));
    marked.seconds(5);
    assert!(marked.answers(0) && marked.owner() == member(0));
}

#[test]
fn the_loss_of_the_link_alone_leaves_the_owner_what_it_was() {
    let mut marked = Marked::started(true);
    marked.cluster.cut(0, 1);
    marked.seconds(60);
    assert!(marked.answers(0), "it goes on alone, by its lease");
    assert!(!marked.cluster.hosts[1].serving);
    assert_eq!(marked.cluster.record.as_ref().unwrap().in_sync.len(), 1);
}

#[test]
fn a_primary_that_loses_both_holds_before_the_other_takes_over() {
    let mut marked = Marked::started(true);
    marked.cluster.cut_record(0);
    marked.cluster.cut(0, 1);
    let mut held = None;
    for second in 0..30 {
        marked.seconds(1);
        assert!(!(marked.answers(0) && marked.answers(1)), "both serve after {second} s");
        if !marked.answers(0) && held.is_none() {
            held = Some(second);
        }
    }
    assert!(held.is_some_and(|second| second < 11), "{held:?}");
    assert!(marked.answers(1));
    // It comes back, hears whose the resource is, and is a standby.
    marked.cluster.heal_record(0);
    marked.cluster.link(0, 1);
    marked.cluster.run();
    marked.seconds(5);
    assert!(!marked.cluster.hosts[0].serving && marked.answers(1));
}

fn failing(auto_takeover: bool) -> NodeConfig {
    let config = config(auto_takeover);
    let fails = |lease| LeaseConfig { on_end: OnLeaseEnd::Fail, ..lease };
    NodeConfig { lease: config.lease.map(fails), ..config }
}

#[test]
fn clients_that_shall_fail_are_thrown_out_a_guard_before_the_end_and_come_back_with_the_lease() {
    let mut marked = Marked::started_with(failing(false));
    marked.cluster.cut_record(0);
    marked.cluster.cut(0, 1);
    while marked.cluster.hosts[0].serving {
        marked.seconds(1);
    }
    let node = marked.cluster.node(0);
    let (now, end) = (marked.cluster.now(), node.lease_end().unwrap());
    assert!(node.is_withdrawn() && node.is_leading());
    assert!(now < end && end.since(now) <= Timing::DEFAULT.guard(), "{:?}", end.since(now));
    marked.seconds(30);
    assert!(!marked.cluster.hosts[0].serving);
    marked.cluster.heal_record(0);
    marked.seconds(3);
    assert!(marked.answers(0) && !marked.cluster.node(0).is_withdrawn());
    let told = marked.cluster.told(0);
    assert!(told.contains(&"withdrawn") && told.contains(&"lease_back"), "{told:?}");
}

#[test]
fn clients_that_were_thrown_out_stay_so_when_another_has_taken_over() {
    let mut marked = Marked::started_with(failing(true));
    marked.cluster.cut_record(0);
    marked.cluster.cut(0, 1);
    marked.seconds(30);
    assert!(marked.answers(1));
    marked.cluster.heal_record(0);
    marked.cluster.link(0, 1);
    marked.cluster.run();
    marked.seconds(5);
    assert!(!marked.cluster.hosts[0].serving && !marked.cluster.node(0).is_withdrawn());
    // It leads again later as if nothing had been.
    marked.cluster.command(0, Command::planned()).unwrap();
    marked.seconds(5);
    assert!(marked.answers(0));
}

#[test]
fn the_loss_of_the_marks_alone_throws_nobody_out() {
    let mut marked = Marked::started_with(failing(true));
    (0..2).for_each(|index| marked.cluster.cut_record(index));
    marked.seconds(60);
    assert!(marked.answers(0) && !marked.cluster.node(0).is_withdrawn());
}

#[test]
fn a_primary_that_nobody_overtook_meanwhile_goes_on_after_a_change_of_the_record() {
    let mut marked = Marked::started(false);
    marked.cluster.cut_record(0);
    marked.cluster.cut(0, 1);
    marked.seconds(30);
    assert!(!marked.answers(0));
    let number = marked.cluster.record.as_ref().unwrap().number;
    marked.cluster.heal_record(0);
    marked.seconds(3);
    assert!(marked.answers(0));
    assert!(marked.cluster.record.as_ref().unwrap().number > number);
    assert!(marked.cluster.told(0).ends_with(&["lease_back"]) || marked.answers(0));
}

#[test]
fn what_was_seen_before_the_record_changed_counts_for_nothing() {
    let mut marked = Marked::started(false);
    marked.cluster.cut_record(0);
    marked.cluster.cut(0, 1);
    marked.seconds(30);
    // The owner comes back, and changes the record; the other one hears of that, and its look at
    // the marks is as old as it was.
    marked.cluster.heal_record(0);
    let until = marked.cluster.now().after(Timing::DEFAULT.lease);
    marked.cluster.tell(0, Event::Lease(Some(until)));
    marked.cluster.run();
    assert!(marked.answers(0));
    marked.cluster.pass(Duration::from_secs(3));
    let denied = marked.cluster.command(1, FORCE);
    assert!(matches!(denied, Err(Denied::OwnerLives { .. })), "{denied:?}");
}

fn with_commands() -> NodeConfig {
    let config = config(true);
    let commands = |lease| LeaseConfig { fences: true, announces: true, ..lease };
    NodeConfig { lease: config.lease.map(commands), ..config }
}

/// The owner has died, and is silent for as long as its lease is good for.
fn silent() -> (Marked, Epoch) {
    let mut marked = Marked::started_with(with_commands());
    let epoch = marked.cluster.record.as_ref().unwrap().epoch;
    marked.cluster.kill(0);
    marked.cluster.pass(Duration::from_secs(10));
    marked.renew(1);
    let stalled =
        Event::Sighted { member: member(0), sight: Sight::Stalled, as_of: marked.cluster.now() };
    marked.cluster.tell(1, stalled);
    marked.cluster.run();
    assert!(marked.cluster.told(1).contains(&"fences"), "{:?}", marked.cluster.told(1));
    (marked, epoch)
}

/// Whether a standby asks for its owner to be fenced, when it sees that of its lease.
fn fences_at(sight: Sight, killed: bool) -> bool {
    let mut marked = Marked::started_with(with_commands());
    if killed {
        marked.cluster.kill(0);
    }
    marked.renew(1);
    let as_of = marked.cluster.now();
    marked.cluster.tell(1, Event::Sighted { member: member(0), sight, as_of });
    marked.cluster.run();
    marked.cluster.told(1).contains(&"fences")
}

#[test]
fn an_owner_is_fenced_when_it_has_missed_a_few_renewals_and_is_not_connected() {
    assert!(!fences_at(Sight::Live, true), "a link that is lost alone fences nobody");
    assert!(!fences_at(Sight::Late, false), "nor do markers that are slow");
    assert!(fences_at(Sight::Late, true), "its lease is not waited for");
}

fn prepared(marked: &mut Marked, epoch: Epoch) {
    marked.cluster.run();
    marked.cluster.tell(1, Event::Prepared { owner: member(0), epoch });
    marked.cluster.run();
}

fn fence_ends(marked: &mut Marked, epoch: Epoch, fenced: bool) {
    marked.cluster.tell(1, Event::FenceEnded { owner: member(0), epoch, fenced });
    prepared(marked, epoch);
}

#[test]
fn an_owner_that_was_fenced_for_certain_is_followed_at_once() {
    let (mut marked, epoch) = silent();
    assert!(!marked.answers(1));
    fence_ends(&mut marked, epoch, true);
    assert!(marked.answers(1), "its lease would have run for a while");
}

#[test]
fn an_owner_that_could_not_be_fenced_is_waited_out() {
    let (mut marked, epoch) = silent();
    fence_ends(&mut marked, epoch, false);
    assert!(!marked.answers(1));
    marked.seconds(15);
    prepared(&mut marked, epoch);
    assert!(marked.answers(1));
    let fences = marked.cluster.told(1).iter().filter(|told| **told == "fences").count();
    assert_eq!(fences, 1, "it was not asked for again");
}

#[test]
fn who_was_fenced_in_an_earlier_epoch_is_not_fenced_in_this_one() {
    let (mut marked, epoch) = silent();
    let before = Epoch::new(epoch.get() - 1);
    fence_ends(&mut marked, before, true);
    // What goes before a takeover would not keep it from beginning.
    prepared(&mut marked, epoch);
    assert!(!marked.answers(1), "a later life of it may serve");
}

#[test]
fn a_takeover_by_itself_waits_until_what_goes_before_it_is_done() {
    let mut marked = Marked::started_with(with_commands());
    let epoch = marked.cluster.record.as_ref().unwrap().epoch;
    marked.cluster.kill(0);
    marked.seconds(30);
    assert!(!marked.answers(1), "the driver has not said that it may");
    prepared(&mut marked, epoch);
    assert!(marked.answers(1));
}

fn at_home(index: u8, takeovers_max: u32) -> NodeConfig {
    let after = Duration::from_secs(60);
    let home = Some(Home { member: member(index), after, takeovers_max });
    NodeConfig { home, ..config(true) }
}

#[test]
fn a_resource_returns_to_its_home_once_that_is_in_peer_for_long_enough() {
    let mut marked = Marked::started_with(at_home(0, 0));
    marked.cluster.kill(0);
    marked.seconds(15);
    assert!(marked.answers(1), "the other one takes over");
    marked.cluster.start(0);
    marked.cluster.link(0, 1);
    marked.seconds(50);
    assert!(marked.answers(1), "its home is not stable yet");
    marked.seconds(20);
    assert!(marked.answers(0) && !marked.answers(1));
    assert!(marked.cluster.told(0).contains(&"goes_home"));
}

#[test]
fn a_home_that_does_not_stay_connected_is_not_returned_to() {
    let mut marked = Marked::started_with(at_home(1, 0));
    for _ in 0..4 {
        marked.seconds(40);
        marked.cluster.cut(0, 1);
        marked.seconds(5);
        marked.cluster.link(0, 1);
    }
    assert!(marked.answers(0));
    marked.seconds(70);
    assert!(marked.answers(1), "now it did");
}

#[test]
fn a_resource_that_returned_home_as_often_as_it_may_stays_where_it_is_put() {
    let mut marked = Marked::started_with(at_home(1, 1));
    marked.seconds(70);
    assert!(marked.answers(1), "once");
    marked.cluster.command(0, Command::planned()).unwrap();
    marked.seconds(300);
    assert!(marked.answers(0), "not twice within an hour");
    let why = |marked: &Marked| marked.cluster.node(1).status().reasons[0].why;
    assert_eq!(why(&marked), Why::GoesHomeTooOften);
    marked.cluster.cut(0, 1);
    marked.seconds(5);
    assert_ne!(why(&marked), Why::GoesHomeTooOften, "first it would have to be in peer");
    marked.cluster.link(0, 1);
    marked.seconds(3600);
    assert!(marked.answers(1));
}

#[test]
fn members_that_fall_again_and_again_do_not_hand_the_resource_to_and_fro_for_ever() {
    let mut config = config(true);
    config.lease = config.lease.map(|lease| LeaseConfig { takeovers_max: 1, ..lease });
    let mut marked = Marked::started_with(config);
    marked.cluster.kill(0);
    marked.seconds(15);
    assert!(marked.answers(1), "once");
    marked.cluster.start(0);
    marked.cluster.link(0, 1);
    marked.seconds(10);
    assert_eq!(marked.cluster.record.as_ref().unwrap().in_sync.len(), 2);
    marked.cluster.kill(1);
    marked.seconds(15);
    assert!(marked.answers(0), "the other one once, too");
    marked.cluster.start(1);
    marked.cluster.link(0, 1);
    marked.seconds(10);
    marked.cluster.kill(0);
    marked.seconds(30);
    // A restart has forgotten what it has done; the count is that of one life.
    assert!(marked.answers(1));
    marked.cluster.start(0);
    marked.cluster.link(0, 1);
    marked.seconds(10);
    marked.cluster.command(0, Command::planned()).unwrap();
    marked.seconds(10);
    marked.cluster.kill(0);
    marked.seconds(30);
    assert!(!marked.answers(1), "not twice within an hour");
    let reasons = marked.cluster.node(1).status().reasons;
    assert!(reasons.iter().any(|reason| reason.why == Why::TakesOverTooOften), "{reasons:?}");
    marked.seconds(3600);
    assert!(marked.answers(1), "an hour later it does");
}

#[test]
fn a_member_without_a_lease_does_not_begin_to_lead() {
    let mut cluster = Cluster::with_config(2, config(true));
    cluster.start_all();
    cluster.pass(Duration::from_secs(5));
    assert!(!cluster.hosts[0].serving);
    let reasons = cluster.node(0).status().reasons;
    assert!(reasons.iter().any(|reason| reason.why == Why::NoLease), "{reasons:?}");
}

//! What people are told, and in which order.

use std::time::Duration;

use super::super::*;
use super::cluster::{Cluster, member};
use crate::replica::Mode;

/// The phases of takeovers that people were told at a host.
fn phases(cluster: &Cluster, index: usize) -> Vec<&'static str> {
    let phase = |note: &Note| match note {
        Note::Phase(phase) => Some(phase.code()),
        _ => None,
    };
    cluster.hosts[index].notes.iter().filter_map(phase).collect()
}

fn planned_within(max_total: Duration) -> Command {
    let limits = Limits { max_total, ..Limits::DEFAULT };
    Command::Takeover { how: How::Planned(limits), test: false }
}

/// A pair with a standby that lacks more than is fetched while clients are held.
fn pair_with_a_gap() -> Cluster {
    let mut cluster = Cluster::started(2, Mode::Superasync);
    cluster.stuff(0);
    let start = cluster.node(0).log_end();
    while cluster.node(0).log_end().since(start) <= 5 << 20 {
        cluster.write_frame(0, 7, 64 << 10);
        cluster.run();
    }
    cluster.hosts.iter_mut().for_each(|host| host.notes.clear());
    cluster.pass(Duration::from_secs(3));
    cluster
}

#[test]
fn a_planned_takeover_passes_its_phases_in_their_order_on_both_sides() {
    let mut cluster = pair_with_a_gap();
    let id = cluster.ask(1, planned_within(Duration::from_secs(60)));
    assert!(matches!(
        cluster.node(1).status().takeover,
        Some(TakeoverPhase::CatchingUp { bytes }) if bytes > 5 << 20
    ));
    cluster.hosts[1].syncs_held = true;
    cluster.clear(0);
    assert_eq!(phases(&cluster, 1), ["catching_up", "asked"]);
    assert_eq!(phases(&cluster, 0), ["holding", "draining"]);
    assert!(matches!(
        cluster.node(0).status().takeover,
        Some(TakeoverPhase::Draining { bytes }) if bytes > 0
    ));
    cluster.sync_again(1);
    assert!(matches!(cluster.reply(1, id), Some(Ok(Done::Leading(_)))));
    assert_eq!(phases(&cluster, 0), ["holding", "draining", "releasing"]);
    assert_eq!(phases(&cluster, 1), ["catching_up", "asked", "deciding", "beginning"]);
    assert_eq!(cluster.node(1).status().takeover, None, "it is over");
}

#[test]
fn a_takeover_that_is_cancelled_is_told_and_the_old_primary_goes_on() {
    let mut cluster = pair_with_a_gap();
    let id = cluster.ask(1, planned_within(Duration::from_secs(60)));
    assert_eq!(cluster.command(1, Command::CancelTakeover), Ok(Done::CancelAsked));
    assert_eq!(cluster.reply(1, id), Some(Err(Denied::Cancelled)));
    assert_eq!(phases(&cluster, 1), ["catching_up"]);
    assert!(cluster.hosts[1].notes.contains(&Note::GivenUp(Denied::Cancelled)));
    assert!(cluster.hosts[0].serving);
}

#[test]
fn a_primary_that_was_asked_says_that_it_goes_on_after_a_cancel() {
    let mut cluster = pair_with_a_gap();
    cluster.hosts[1].syncs_held = true;
    let id = cluster.ask(1, planned_within(Duration::from_secs(60)));
    cluster.clear(0);
    assert_eq!(cluster.command(1, Command::CancelTakeover), Ok(Done::CancelAsked));
    assert_eq!(cluster.reply(1, id), Some(Err(Denied::Cancelled)));
    assert_eq!(phases(&cluster, 0), ["holding", "draining"]);
    assert!(cluster.hosts[0].notes.contains(&Note::GivenUp(Denied::GivenUp)));
    assert_eq!(cluster.node(0).status().standing, Standing::Primary);
}

#[test]
fn a_forced_takeover_says_for_whose_promise_it_waits_and_when_it_begins() {
    let mut cluster = Cluster::started(3, Mode::Nearsync);
    cluster.kill(0);
    cluster.hosts[1].notes.clear();
    cluster.hosts[1].syncs_held = true;
    let id = cluster.ask(1, Command::forced());
    cluster.sync_again(1);
    assert!(matches!(cluster.reply(1, id), Some(Ok(Done::Leading(_)))));
    assert_eq!(phases(&cluster, 1), ["promises", "deciding", "beginning"]);
}

#[test]
fn a_link_that_takes_nothing_is_congested_and_people_hear_of_it_once() {
    let mut cluster = Cluster::started(2, Mode::Superasync);
    cluster.hosts[0].notes.clear();
    let connection = |cluster: &Cluster| cluster.node(0).status().peers[0].connection;
    cluster.stuff(0);
    cluster.write(0, 1);
    cluster.run();
    cluster.pass(CONGESTED_AFTER / 2);
    assert_eq!(connection(&cluster), Connection::Connected, "a hiccup is no congestion");
    cluster.pass(CONGESTED_AFTER);
    assert_eq!(connection(&cluster), Connection::Congested);
    cluster.pass(CONGESTED_AFTER * 4);
    assert_eq!(cluster.told(0), ["congested"]);
    cluster.clear(0);
    assert_eq!(connection(&cluster), Connection::Connected);
    assert_eq!(cluster.told(0), ["congested", "flows"]);
}

#[test]
fn a_full_spool_is_told_once_and_again_when_half_of_it_is_applied() {
    let mut config = NodeConfig::new(vec![member(0), member(1)], Mode::Nearsync);
    config.spool_limit = 64 << 10;
    let mut cluster = Cluster::with_config(2, config);
    cluster.start_all();
    cluster.hosts[1].applies_held = true;
    for byte in 0..80 {
        cluster.write(0, byte);
        cluster.run();
        cluster.pass(Duration::from_millis(20));
    }
    let reasons = cluster.node(1).status().reasons;
    assert!(reasons.iter().any(|reason| matches!(reason.why, Why::SpoolFull { .. })));
    cluster.apply_again(1);
    cluster.pass(Duration::from_secs(1));
    let spool = cluster.told(1).into_iter().filter(|code| code.starts_with("spool"));
    assert_eq!(spool.collect::<Vec<_>>(), ["spool_full", "spool_has_room"]);
}

#[test]
fn the_life_of_a_standby_can_be_read_from_its_events() {
    let mut cluster = Cluster::started(2, Mode::Nearsync);
    cluster.cut(0, 1);
    cluster.link(0, 1);
    cluster.run();
    assert_eq!(cluster.command(1, Command::Stop), Ok(Done::Stopped));
    let told = ["link_up", "follows", "link_lost", "link_up", "follows", "link_lost", "stopped"];
    assert_eq!(cluster.told(1), told);
}

#[test]
fn a_failed_part_is_told_by_its_name() {
    let mut cluster = Cluster::started(2, Mode::Nearsync);
    cluster.tell(0, Event::Failed(FailedPart::Store));
    cluster.run();
    let failed = Note::Failed(FailedPart::Store);
    assert!(cluster.hosts[0].notes.contains(&failed));
    assert!(failed.to_string().contains("backing store failed"));
}

#[test]
fn members_are_told_by_the_names_that_people_gave_them() {
    let names = ["alpha", "beta", "gamma"];
    let name = |member: MemberId| names[usize::from(member.index())].to_string();
    let note = Note::Follows(member(1), crate::ids::Epoch::NONE_YET);
    assert!(note.in_words(&name).starts_with("follows beta"));
    assert!(note.to_string().starts_with("follows member 1"), "where nobody knows them");
    let waits = TakeoverPhase::Promises(vec![member(0), member(2)]);
    assert!(Note::Phase(waits).in_words(&name).ends_with("alpha, gamma"));
}

//! What an administrator would expect, one short story each.

use std::time::Duration;

use super::super::*;
use super::cluster::{Cluster, member};
use crate::frame::LogPosition;
use crate::ids::ResourceId;
use crate::replica::Mode;
use crate::wire::{Join, Message};

const FORCE: Command = Command::forced();
const PLANNED: Command = Command::planned();

fn assert_same_logs(cluster: &Cluster) {
    let chains = |index: usize| -> Vec<_> {
        cluster.hosts[index].frames.iter().map(|frame| frame.chain()).collect()
    };
    assert_eq!(chains(0), chains(1), "both logs hold the same frames");
}

#[test]
fn two_fresh_replicas_reach_peer_by_themselves() {
    for mode in [Mode::Sync, Mode::Nearsync, Mode::Async] {
        let cluster = Cluster::started(2, mode);
        assert!(cluster.hosts[0].serving, "{mode:?}");
        assert_eq!(cluster.state_of(0, 1), Some(StandbyState::Peer), "{mode:?}");
        assert_same_logs(&cluster);
    }
}

#[test]
fn superasync_never_reaches_peer_and_still_ships_everything() {
    let mut cluster = Cluster::started(2, Mode::Superasync);
    cluster.write(0, 1);
    cluster.run();
    assert_eq!(cluster.state_of(0, 1), Some(StandbyState::RemoteCatchup));
    assert_same_logs(&cluster);
}

#[test]
fn a_primary_waits_in_its_gate_until_it_has_heard_the_other() {
    let mut cluster = Cluster::new(2, Mode::Nearsync);
    cluster.start(0);
    assert_eq!(cluster.node(0).status().standing, Standing::StartGate(vec![member(1)]));
    assert_eq!(
        cluster.command(0, Command::StartPrimary),
        Ok(Done::Leading(cluster.node(0).state().owned))
    );
    assert!(cluster.hosts[0].serving);
}

#[test]
fn in_nearsync_a_write_is_answered_when_the_standby_has_it() {
    let mut cluster = Cluster::started(2, Mode::Nearsync);
    let end = cluster.write(0, 1);
    assert!(cluster.node(0).answers().writes < end, "nobody has it yet");
    cluster.run();
    assert!(cluster.node(0).answers().writes >= end);
    assert!(cluster.node(0).answers().flushes < end, "it is durable nowhere");
    cluster.tell(0, Event::DurableWanted(end));
    cluster.run();
    assert!(cluster.node(0).answers().flushes >= end);
}

#[test]
fn in_sync_a_flush_waits_for_the_standbys_disk() {
    let mut cluster = Cluster::started(2, Mode::Sync);
    cluster.hosts[1].syncs_held = true;
    let end = cluster.write(0, 1);
    cluster.tell(0, Event::DurableWanted(end));
    cluster.run();
    assert!(cluster.node(0).answers().writes >= end);
    assert!(cluster.node(0).answers().flushes < end);
}

#[test]
fn frames_do_not_run_far_ahead_of_the_word_that_lets_them_be_applied() {
    // A standby whose log is full takes nothing more, also not the word behind the frames.
    let mut config = NodeConfig::new(vec![member(0), member(1)], Mode::Sync);
    config.sync_bytes = 64 << 10;
    let mut cluster = Cluster::with_config(2, config);
    cluster.start_all();
    let start = cluster.node(0).log_end();
    cluster.hosts[0].syncs_held = true;
    for round in 0..100 {
        cluster.write(0, round);
        cluster.run();
    }
    let ahead = cluster.node(1).log_end().since(start);
    assert!((120 << 10..140 << 10).contains(&ahead), "{ahead} bytes without a word");
    cluster.hosts[0].syncs_held = false;
    let end = cluster.node(0).log_end();
    cluster.hosts[0].durable = end;
    cluster.tell(0, Event::Durable(end));
    cluster.run();
    assert_eq!(cluster.node(1).log_end(), end, "the word came, and the rest behind it");
}

#[test]
fn nothing_is_applied_before_both_sides_may() {
    let mut cluster = Cluster::started(2, Mode::Nearsync);
    let end = cluster.write(0, 1);
    cluster.run();
    assert!(cluster.hosts[0].applied < end && cluster.hosts[1].applied < end);
    cluster.pass(Duration::from_secs(1));
    assert!(cluster.hosts[0].applied >= end && cluster.hosts[1].applied >= end);
}

#[test]
fn a_planned_takeover_moves_service_and_loses_nothing() {
    let mut cluster = Cluster::started(2, Mode::Nearsync);
    cluster.write(0, 1);
    cluster.run();
    assert!(matches!(cluster.command(1, PLANNED), Ok(Done::Leading(_))));
    assert!(!cluster.hosts[0].serving && cluster.hosts[1].serving);
    assert_eq!(cluster.state_of(1, 0), Some(StandbyState::Peer));
    assert!(matches!(cluster.command(0, PLANNED), Ok(Done::Leading(_))), "and home again");
    assert_same_logs(&cluster);
}

#[test]
fn after_a_kill_of_the_primary_the_standby_takes_over_and_the_old_one_returns() {
    let mut cluster = Cluster::started(2, Mode::Nearsync);
    let answered = cluster.write(0, 1);
    cluster.run();
    // Written on the primary, never sent: nobody was answered for it.
    cluster.hosts[0].syncs_held = true;
    let lost = cluster.write(0, 2);
    let unsent = last_append(&mut cluster);
    cluster.hosts[0].frames.push(unsent);
    cluster.kill(0);
    assert!(matches!(cluster.command(1, FORCE), Ok(Done::Leading(_))));
    assert!(cluster.hosts[1].frames.iter().any(|frame| frame.end() == answered));
    cluster.hosts[0].syncs_held = false;
    cluster.start(0);
    cluster.link(0, 1);
    cluster.run();
    assert_eq!(cluster.hosts[0].quarantined, 1, "the tail up to {lost} is saved");
    assert_eq!(cluster.state_of(1, 0), Some(StandbyState::Peer));
    assert_same_logs(&cluster);
}

/// The frame of the newest write, taken from the node before it was sent.
fn last_append(cluster: &mut Cluster) -> Frame {
    let node = cluster.hosts[0].node.as_mut().unwrap();
    std::iter::from_fn(|| node.next_action())
        .find_map(|action| match action {
            Action::Append(frame) => Some(frame),
            _ => None,
        })
        .expect("a write is appended")
}

#[test]
fn a_restarted_primary_fetches_what_only_its_standby_still_has() {
    let mut cluster = Cluster::started(2, Mode::Nearsync);
    let answered = cluster.write(0, 1);
    cluster.run();
    cluster.lose_power(0);
    cluster.start(0);
    cluster.link(0, 1);
    cluster.run();
    assert!(cluster.hosts[0].serving);
    assert!(cluster.hosts[0].frames.iter().any(|frame| frame.end() == answered));
    assert_same_logs(&cluster);
}

/// A pair in which both have written, without each other; the standby has taken over by force, and
/// the two have met again.
fn gone_on_alone() -> Cluster {
    let mut cluster = Cluster::started(2, Mode::Nearsync);
    cluster.cut(0, 1);
    cluster.pass(Duration::from_millis(10));
    cluster.write(0, 1);
    cluster.run();
    cluster.pass(Duration::from_secs(1));
    assert!(matches!(cluster.command(1, FORCE), Ok(Done::Leading(_))));
    cluster.write(1, 2);
    cluster.run();
    cluster.link(0, 1);
    cluster.run();
    cluster
}

#[test]
fn an_old_primary_that_went_on_alone_has_diverged() {
    let cluster = gone_on_alone();
    assert!(!cluster.hosts[0].serving);
    assert!(matches!(cluster.node(0).status().standing, Standing::Diverged(_)));
    assert_eq!(cluster.hosts[0].quarantined, 0, "nothing is discarded");
}

#[test]
fn a_primary_that_had_refused_the_one_that_takes_over_by_force_hears_of_it_at_once() {
    let mut cluster = gone_on_alone();
    assert!(matches!(cluster.node(0).status().standing, Standing::Diverged(_)));
    // It is the other history that counts, an operator finds.
    assert!(matches!(cluster.command(0, FORCE), Ok(Done::Leading(_))));
    assert!(!cluster.are_linked(0, 1), "nothing was said any more in that session");
    cluster.link(0, 1);
    cluster.run();
    assert!(cluster.hosts[0].serving && !cluster.hosts[1].serving);
}

#[test]
fn during_the_peer_window_answers_are_held_and_a_reconnect_releases_them() {
    let mut config = NodeConfig::new(vec![member(0), member(1)], Mode::Nearsync);
    config.peer_window = Duration::from_secs(60);
    let mut cluster = Cluster::with_config(2, config);
    cluster.start_all();
    cluster.cut(0, 1);
    let end = cluster.write(0, 1);
    cluster.pass(Duration::from_secs(30));
    assert!(cluster.node(0).answers().writes < end);
    assert_eq!(cluster.state_of(0, 1), Some(StandbyState::DisconnectedPeer));
    cluster.link(0, 1);
    cluster.run();
    assert!(cluster.node(0).answers().writes >= end);
    assert_eq!(cluster.state_of(0, 1), Some(StandbyState::Peer));
}

#[test]
fn at_the_end_of_the_peer_window_the_primary_goes_on_alone() {
    let mut config = NodeConfig::new(vec![member(0), member(1)], Mode::Nearsync);
    config.peer_window = Duration::from_secs(60);
    let mut cluster = Cluster::with_config(2, config);
    cluster.start_all();
    cluster.cut(0, 1);
    let end = cluster.write(0, 1);
    cluster.pass(Duration::from_secs(61));
    assert!(cluster.node(0).answers().writes >= end);
    assert_eq!(cluster.hosts[0].state.in_sync.len(), 1, "and that is recorded");
}

#[test]
fn a_standby_of_the_set_that_is_refused_begins_the_window_although_it_is_connected() {
    let mut config = NodeConfig::new(vec![member(0), member(1)], Mode::Nearsync);
    config.peer_window = Duration::from_secs(60);
    let mut cluster = Cluster::with_config(2, config);
    cluster.start_all();
    // Its log parted from this one, as it looks.
    let node = cluster.node(0);
    let (epoch, lsn) = (node.status().owned, node.log_end());
    let from = LogPosition { lsn, ..LogPosition::genesis(ResourceId::derive("other", "db")) };
    let join = Message::Join(Join { epoch, from, durable: lsn });
    let session = cluster.session(0, 1);
    cluster.tell(0, Event::Heard { session, message: join });
    assert_eq!(cluster.state_of(0, 1), Some(StandbyState::DisconnectedPeer));
    let end = cluster.write(0, 1);
    cluster.pass(Duration::from_secs(59));
    assert!(cluster.node(0).answers().writes < end, "it is still in the set");
    cluster.pass(Duration::from_secs(2));
    assert!(cluster.node(0).answers().writes >= end);
    assert_eq!(cluster.hosts[0].state.in_sync.len(), 1);
}

#[test]
fn what_was_read_for_nobody_parts_nobody() {
    let mut cluster = Cluster::started(2, Mode::Nearsync);
    cluster.write(0, 1);
    cluster.run();
    let session = cluster.session(0, 1);
    for frames in [cluster.hosts[0].frames.clone(), Vec::new()] {
        cluster.tell(0, Event::LogRead { session, frames });
        cluster.run();
        assert_eq!(cluster.state_of(0, 1), Some(StandbyState::Peer));
    }
}

#[test]
fn a_standby_that_was_away_catches_up_from_the_log() {
    let mut config = NodeConfig::new(vec![member(0), member(1)], Mode::Nearsync);
    config.tail_bytes = 16384;
    let mut cluster = Cluster::with_config(2, config);
    cluster.start_all();
    cluster.kill(1);
    cluster.pass(Duration::from_millis(10));
    for byte in 0..50 {
        cluster.write(0, byte);
        cluster.run();
    }
    cluster.start(1);
    cluster.link(0, 1);
    cluster.run();
    assert_eq!(cluster.state_of(0, 1), Some(StandbyState::Peer));
    assert_same_logs(&cluster);
}

#[test]
fn an_orderly_stop_leaves_everything_in_the_image() {
    let mut cluster = Cluster::started(2, Mode::Nearsync);
    let end = cluster.write(0, 1);
    cluster.run();
    assert_eq!(cluster.command(0, Command::Stop), Ok(Done::Stopped));
    assert_eq!(cluster.hosts[0].applied, end);
    assert_eq!(cluster.hosts[0].state.checkpoint.lsn, end);
}

#[test]
fn the_mode_can_be_changed_while_it_runs() {
    let mut cluster = Cluster::started(2, Mode::Nearsync);
    for mode in [Mode::Async, Mode::Sync, Mode::Superasync, Mode::Nearsync] {
        assert_eq!(cluster.command(0, Command::SetMode(mode)), Ok(Done::ModeSet));
        let end = cluster.write(0, 1);
        cluster.tell(0, Event::DurableWanted(end));
        cluster.run();
        assert!(cluster.node(0).answers().flushes >= end, "{mode:?}");
        assert_eq!(cluster.node(1).status().mode, mode);
    }
    assert_eq!(cluster.state_of(0, 1), Some(StandbyState::Peer));
}

#[test]
fn three_members_have_one_principal_and_one_auxiliary() {
    let mut cluster = Cluster::started(3, Mode::Nearsync);
    assert_eq!(cluster.state_of(0, 1), Some(StandbyState::Peer));
    assert_eq!(cluster.state_of(0, 2), Some(StandbyState::RemoteCatchup));
    cluster.write(0, 1);
    cluster.run();
    assert_eq!(cluster.hosts[2].frames.len(), cluster.hosts[0].frames.len());
}

#[test]
fn a_promise_that_led_nowhere_does_not_lock_the_standby_out() {
    // Story 2: the standby promised itself an epoch and died before it owned it.
    let mut cluster = Cluster::started(2, Mode::Nearsync);
    cluster.kill(1);
    cluster.hosts[1].state.promised = cluster.hosts[1].state.promised.next_for(member(1));
    cluster.start(1);
    cluster.link(0, 1);
    // Somebody may be about to own that epoch, so the primary gives it time.
    cluster.pass(cluster.config.heartbeat() * 2);
    assert!(cluster.hosts[0].serving);
    assert_eq!(cluster.state_of(0, 1), Some(StandbyState::Peer));
    assert_same_logs(&cluster);
}

#[test]
fn a_confirmation_that_is_lost_leaves_two_standbys_that_find_out() {
    // Story 11: the old primary is a standby, the new one never heard of it, both restart.
    let mut cluster = Cluster::started(2, Mode::Nearsync);
    let lsn = cluster.write(0, 1);
    cluster.run();
    let epoch = cluster.node(0).state().owned.next_for(member(1));
    cluster.kill(0);
    cluster.kill(1);
    let release = crate::replica::Release { to: member(1), epoch, lsn };
    cluster.hosts[0].state.role = Role::Standby;
    cluster.hosts[0].state.release = Some(release);
    cluster.start_all();
    assert!(cluster.hosts[1].serving && !cluster.hosts[0].serving);
    assert_eq!(cluster.state_of(1, 0), Some(StandbyState::Peer));
}

#[test]
fn a_release_counts_for_nobody_whose_log_does_not_reach_it() {
    // A disk that forgot what it had made durable, or a replica that was put back from a copy.
    let mut config = NodeConfig::new(vec![member(0), member(1)], Mode::Nearsync);
    config.record = RecordKind::Register;
    let mut cluster = Cluster::with_config(2, config);
    cluster.start_all();
    let lsn = cluster.write(0, 1);
    cluster.run();
    let epoch = cluster.node(0).state().owned.next_for(member(1));
    (0..2).for_each(|index| cluster.kill(index));
    let record = cluster.record.as_mut().unwrap();
    record.release = Some(crate::replica::Release { to: member(1), epoch, lsn });
    let lost = cluster.hosts[1].frames.pop().unwrap();
    cluster.start(1);
    cluster.run();
    assert!(!cluster.hosts[1].serving, "of itself");
    assert!(matches!(cluster.command(1, FORCE), Err(Denied::NotInSet { .. })));
    cluster.kill(1);
    cluster.hosts[1].frames.push(lost);
    cluster.start(1);
    cluster.run();
    assert!(cluster.hosts[1].serving, "with all that the release speaks of");
}

#[test]
fn a_returning_primary_that_hears_of_another_promises_nothing() {
    let mut cluster = Cluster::started(2, Mode::Nearsync);
    cluster.kill(0);
    assert!(matches!(cluster.command(1, FORCE), Ok(Done::Leading(_))));
    let epoch = cluster.node(1).state().owned;
    cluster.start(0);
    cluster.link(0, 1);
    cluster.run();
    assert_eq!(cluster.node(1).state().owned, epoch, "nobody had to begin again");
    assert_eq!(cluster.state_of(1, 0), Some(StandbyState::Peer));
}

#[test]
fn after_a_takeover_the_newest_log_is_kept_for_whoever_was_not_heard_yet() {
    let mut config = NodeConfig::new(vec![member(0), member(1)], Mode::Nearsync);
    (config.retention_bytes, config.checkpoint_bytes, config.tail_bytes) = (65536, 16384, 4096);
    let mut cluster = Cluster::with_config(2, config);
    cluster.start_all();
    for byte in 0..100 {
        cluster.write(0, byte);
        cluster.run();
    }
    cluster.kill(0);
    assert!(matches!(cluster.command(1, FORCE), Ok(Done::Leading(_))));
    cluster.write(1, 7);
    cluster.pass(Duration::from_secs(60));
    cluster.start(0);
    cluster.link(0, 1);
    cluster.run();
    assert_eq!(cluster.state_of(1, 0), Some(StandbyState::Peer));
}

#[test]
fn what_one_life_has_given_up_of_the_log_the_next_gives_up_at_its_start() {
    let mut config = NodeConfig::new(vec![member(0), member(1)], Mode::Nearsync);
    (config.retention_bytes, config.checkpoint_bytes) = (65536, 16384);
    let mut cluster = Cluster::with_config(2, config);
    cluster.start_all();
    for byte in 0..100 {
        cluster.write(0, byte);
        cluster.run();
    }
    cluster.pass(Duration::from_secs(60));
    cluster.kill(0);
    let host = &mut cluster.hosts[0];
    let (given_up, checkpoint) = (host.released, host.state.checkpoint.lsn);
    host.released = Lsn::START;
    cluster.start(0);
    let released = cluster.hosts[0].released;
    assert_eq!(released.get(), checkpoint.get() - 65536, "at once, and what is needed is kept");
    assert!(released <= given_up, "nothing that the life before had kept");
}

#[test]
fn a_primary_that_stops_tells_its_standby_how_far_it_may_apply() {
    let mut cluster = Cluster::started(2, Mode::Nearsync);
    let end = cluster.write(0, 1);
    cluster.run();
    assert_eq!(cluster.command(0, Command::Stop), Ok(Done::Stopped));
    assert_eq!(cluster.command(1, Command::Stop), Ok(Done::Stopped));
    assert_eq!((cluster.hosts[0].applied, cluster.hosts[1].applied), (end, end));
}

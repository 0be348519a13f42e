//! The figures that `status` shows, on stories whose gaps, waits and losses are known.

use std::time::Duration;

use super::super::*;
use super::cluster::{Cluster, member};
use crate::replica::Mode;

const SECOND: u64 = 1_000_000;

/// Within a fiftieth: a cluster moves time in hundredths of what it is told to pass.
fn about(us: u64, seconds: u64) -> bool {
    let expected = seconds * SECOND;
    us.abs_diff(expected) <= expected / 50
}

fn log_gap(cluster: &Cluster) -> Gap {
    cluster.node(0).status().peers[0].log_gap.unwrap()
}

#[test]
fn a_held_answer_is_counted_while_it_waits_and_when_it_was_given() {
    let mut cluster = Cluster::started(2, Mode::Nearsync);
    let before = cluster.node(0).status().waits;
    cluster.stuff(0);
    cluster.write(0, 1);
    cluster.run();
    cluster.pass(Duration::from_secs(3));
    let held = cluster.node(0).status();
    assert!(about(held.waits.current_us, 3), "{:?}", held.waits);
    assert_eq!(held.waits.count, before.count, "a wait counts when it is over");
    assert_eq!(held.loss, Some(Loss::Nothing), "nobody was answered for it");
    cluster.clear(0);
    let after = cluster.node(0).status().waits;
    assert_eq!((after.current_us, after.count), (0, before.count + 1));
    assert!(about(after.total_us - before.total_us, 3), "{after:?}");
    assert!(after.recent_us > before.recent_us && after.recent_us <= after.total_us, "{after:?}");
}

#[test]
fn a_gap_is_shown_in_bytes_and_in_time_and_its_average_follows_it() {
    let mut cluster = Cluster::started(2, Mode::Superasync);
    cluster.pass(Duration::from_secs(1));
    let received = cluster.node(0).status().peers[0].received.unwrap();
    cluster.stuff(0);
    let end = cluster.write(0, 1);
    cluster.run();
    cluster.pass(Duration::from_secs(6));
    let gap = log_gap(&cluster);
    assert_eq!(gap.bytes, end.since(received));
    assert!(about(gap.us, 6), "{gap:?}");
    // Six seconds of a minute.
    let tenth = gap.bytes / 10;
    assert!((tenth / 2..tenth * 2).contains(&gap.average_bytes), "{gap:?}");
    assert!(gap.average_us < gap.us / 5, "{gap:?}");
    cluster.pass(Duration::from_secs(300));
    let lasting = log_gap(&cluster);
    assert!(lasting.average_bytes.abs_diff(lasting.bytes) <= lasting.bytes / 20, "{lasting:?}");
    cluster.clear(0);
    let gone = log_gap(&cluster);
    assert_eq!((gone.bytes, gone.us), (0, 0));
    assert!(gone.average_bytes > 0, "an average remembers: {gone:?}");
}

#[test]
fn a_standby_knows_how_far_its_primary_is_ahead_of_it_and_for_how_long() {
    let mut cluster = Cluster::started(2, Mode::Superasync);
    let received = cluster.node(1).log_end();
    cluster.stuff(0);
    let end = cluster.write(0, 1);
    cluster.run();
    // Its heartbeats say how far the primary is.
    let beat = cluster.config.heartbeat();
    cluster.pass(beat);
    cluster.pass(Duration::from_secs(10));
    let status = cluster.node(1).status();
    assert_eq!(status.log_gap.bytes, end.since(received));
    assert!((10 * SECOND..14 * SECOND).contains(&status.log_gap.us), "{:?}", status.log_gap);
    assert!(status.log_gap.average_bytes > 0);
    cluster.clear(0);
    assert_eq!(cluster.node(1).status().log_gap.bytes, 0);
}

#[test]
fn the_loss_of_a_primary_is_what_was_answered_and_is_nowhere_else() {
    let mut cluster = Cluster::started(2, Mode::Superasync);
    assert_eq!(cluster.node(0).status().loss, Some(Loss::Nothing));
    assert_eq!(cluster.node(1).status().loss, None, "it does not lead");
    let received = cluster.node(0).status().peers[0].received.unwrap();
    cluster.stuff(0);
    let end = cluster.write(0, 1);
    cluster.run();
    cluster.pass(Duration::from_secs(5));
    let Some(Loss::AtMost { bytes, us }) = cluster.node(0).status().loss else {
        panic!("{:?}", cluster.node(0).status().loss);
    };
    assert_eq!(bytes, end.since(received));
    assert!(about(us, 5), "{us}");
    cluster.clear(0);
    assert_eq!(cluster.node(0).status().loss, Some(Loss::Nothing));
}

#[test]
fn a_primary_that_heard_no_standby_would_lose_everything() {
    let mut cluster = Cluster::new(2, Mode::Nearsync);
    cluster.start(0);
    assert!(matches!(cluster.command(0, Command::StartPrimary), Ok(Done::Leading(_))));
    cluster.write(0, 1);
    cluster.run();
    assert_eq!(cluster.node(0).status().loss, Some(Loss::Everything));
}

#[test]
fn a_takeover_is_estimated_from_what_is_still_to_be_applied() {
    let mut cluster = Cluster::started(2, Mode::Nearsync);
    cluster.pass(Duration::from_secs(1));
    let estimate = |cluster: &Cluster, index| cluster.node(index).status().takeover_us.unwrap();
    let idle = estimate(&cluster, 1);
    cluster.hosts[1].applies_held = true;
    for byte in 0..64 {
        cluster.write_frame(0, byte, 512 << 10);
        cluster.run();
    }
    cluster.pass(Duration::from_secs(1));
    let status = cluster.node(1).status();
    let waits = status.end.since(status.applied);
    assert!(waits > 30 << 20, "{waits} bytes wait to be applied");
    assert_eq!(status.replay_gap.bytes, waits);
    // Of a standby that was never busy a slow disk is assumed: 16 MiB a second.
    let expected = idle + waits * SECOND / (16 << 20);
    assert!(estimate(&cluster, 1).abs_diff(expected) < SECOND / 10, "{expected}");
    let seen_from_the_primary = estimate(&cluster, 0);
    assert!(seen_from_the_primary.abs_diff(expected) < SECOND / 10, "{seen_from_the_primary}");
}

#[test]
fn a_standby_that_is_busy_stays_in_peer() {
    let mut cluster = Cluster::started(2, Mode::Nearsync);
    cluster.hosts[1].applies_held = true;
    cluster.write(0, 1);
    cluster.run();
    cluster.pass(Duration::from_secs(1));
    let status = cluster.node(1).status();
    assert!(status.replay_gap.bytes > 0, "something waits to be applied");
    assert_eq!(status.state, Some(StandbyState::Peer));
    assert!(!status.reasons.iter().any(|reason| reason.about == About::NotInPeer));
}

#[test]
fn a_standby_that_can_prove_the_window_is_a_disconnected_peer_until_its_proof_ends() {
    let mut config = NodeConfig::new(vec![member(0), member(1)], Mode::Nearsync);
    config.peer_window = Duration::from_secs(60);
    let mut cluster = Cluster::with_config(2, config);
    cluster.start_all();
    cluster.pass(Duration::from_secs(30));
    let state = |cluster: &Cluster| cluster.node(1).status().state;
    assert_eq!(state(&cluster), Some(StandbyState::Peer));
    cluster.cut(0, 1);
    assert_eq!(state(&cluster), Some(StandbyState::DisconnectedPeer));
    cluster.pass(Duration::from_secs(60));
    assert_eq!(state(&cluster), Some(StandbyState::RemoteCatchupPending));
}

#[test]
fn a_standby_stays_in_peer_when_its_link_to_another_standby_ends() {
    let mut cluster = Cluster::started(3, Mode::Nearsync);
    assert_eq!(cluster.node(1).status().state, Some(StandbyState::Peer));
    cluster.cut(1, 2);
    assert_eq!(cluster.node(1).status().state, Some(StandbyState::Peer));
}

#[test]
fn a_standby_lets_nobody_wait_and_what_it_held_as_primary_is_no_wait_when_it_leads_again() {
    let mut config = NodeConfig::new(vec![member(0), member(1)], Mode::Nearsync);
    config.peer_window = Duration::from_secs(60);
    let mut cluster = Cluster::with_config(2, config);
    cluster.start_all();
    cluster.write(0, 1);
    cluster.run();
    cluster.pass(Duration::from_secs(2));
    assert_eq!(cluster.node(1).status().waits, AnswerWaits::default());
    // Held for the window, and never answered: the standby takes over by force.
    cluster.cut(0, 1);
    cluster.write(0, 2);
    cluster.pass(Duration::from_secs(1));
    let held = cluster.node(0).status().waits;
    assert!(held.current_us > 0);
    assert!(matches!(cluster.command(1, Command::forced()), Ok(Done::Leading(_))));
    cluster.link(0, 1);
    cluster.run();
    cluster.pass(Duration::from_secs(100));
    assert_eq!(cluster.node(0).status().waits, AnswerWaits { current_us: 0, ..held });
    assert!(matches!(cluster.command(0, Command::planned()), Ok(Done::Leading(_))));
    let after = cluster.node(0).status().waits;
    assert!(after.total_us < held.total_us + SECOND, "{after:?} after {held:?}");
}

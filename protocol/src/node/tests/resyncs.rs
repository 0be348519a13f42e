//! Resyncs in small: every step of one, without what it brings (design §8).

use std::time::Duration;

use super::super::*;
use super::cluster::{Cluster, member};
use crate::frame::Frame;
use crate::replica::{Image, Mode};
use crate::wire::{AskResync, Message, Refusal};

/// A pair whose primary remembers no more than its newest frame.
fn forgetful() -> NodeConfig {
    let mut config = NodeConfig::new(vec![member(0), member(1)], Mode::Nearsync);
    config.peer_window = Duration::from_secs(60);
    config.tail_bytes = 1;
    config
}

/// The link breaks, the primary goes on within its window, and its log cannot be read once when
/// the standby is back: what it wrote has to come another way.
fn back_to_a_log_that_cannot_be_read(cluster: &mut Cluster) {
    cluster.start_all();
    cluster.write(0, 0);
    // It goes into both images.
    cluster.pass(Duration::from_secs(2));
    cluster.cut(0, 1);
    for byte in 1..5 {
        cluster.write(0, byte);
    }
    cluster.run();
    assert_eq!(cluster.state_of(0, 1), Some(StandbyState::DisconnectedPeer));
    cluster.hosts[0].unreadable = 1;
    cluster.link(0, 1);
    cluster.run();
}

fn has_made(cluster: &Cluster, made: &str) -> bool {
    !cluster.node(0).moves().missing().iter().any(|missing| missing.contains(made))
}

#[test]
fn a_standby_of_the_set_that_the_log_cannot_bring_up_within_the_window_is_brought_up_otherwise() {
    let mut cluster = Cluster::with_config(2, forgetful());
    back_to_a_log_that_cannot_be_read(&mut cluster);
    assert_eq!(cluster.state_of(0, 1), Some(StandbyState::Resync));
    assert!(has_made(&cluster, "primary: DisconnectedPeer -> Resync"));
    cluster.cut(0, 1);
    assert_eq!(cluster.state_of(0, 1), Some(StandbyState::DisconnectedPeer));
    assert!(has_made(&cluster, "primary: Resync -> DisconnectedPeer"));
}

#[test]
fn the_superblock_says_that_the_switch_is_begun_before_it_begins() {
    let mut cluster = Cluster::with_config(2, forgetful());
    cluster.hosts.iter_mut().for_each(|host| host.brings_up = true);
    back_to_a_log_that_cannot_be_read(&mut cluster);
    // The hosts of these tests begin no switch of which the superblock does not know.
    let landed = |note: &Note| matches!(note, Note::Landed(_));
    assert_eq!(cluster.hosts[1].notes.iter().filter(|note| landed(note)).count(), 1);
    assert_eq!(cluster.hosts[1].state.image, Image::Whole);
    cluster.write(0, 9);
    cluster.run();
    assert_eq!(cluster.state_of(0, 1), Some(StandbyState::Peer));
    let newest = |index: usize| cluster.hosts[index].frames.last().map(Frame::chain);
    assert_eq!(newest(0), newest(1));
}

#[test]
fn a_standby_that_asks_twice_in_one_session_is_cut_off_and_asks_in_the_next() {
    let mut cluster = Cluster::with_config(2, forgetful());
    back_to_a_log_that_cannot_be_read(&mut cluster);
    let (session, epoch) = (cluster.session(0, 1), cluster.node(0).state().owned);
    let message = Message::AskResync(AskResync { epoch, from: None });
    cluster.tell(0, Event::Heard { session, message });
    cluster.run();
    let broken = Note::Refused { peer: member(1), refusal: Refusal::Protocol };
    assert!(cluster.hosts[0].notes.contains(&broken));
    cluster.hosts[0].unreadable = 1;
    cluster.link(0, 1);
    cluster.run();
    assert_eq!(cluster.state_of(0, 1), Some(StandbyState::Resync));
}

#[test]
fn a_standby_with_a_proof_may_be_told_to_rejoin_somebody_else() {
    let mut config = NodeConfig::new((0..3).map(member).collect(), Mode::Nearsync);
    config.peer_window = Duration::from_secs(60);
    let mut cluster = Cluster::with_config(3, config);
    cluster.start_all();
    cluster.write(0, 0);
    cluster.pass(Duration::from_secs(2));
    [0, 1].into_iter().for_each(|other| cluster.cut(2, other));
    cluster.pass(Duration::from_secs(61));
    // Those two go on without the third, and it without them.
    cluster.write(0, 1);
    cluster.run();
    cluster.command(2, Command::forced()).unwrap();
    cluster.link(0, 2);
    cluster.link(1, 2);
    cluster.run();
    let own = |cluster: &Cluster| cluster.node(1).status().state;
    assert_eq!(own(&cluster), Some(StandbyState::DisconnectedPeer));
    assert_eq!(cluster.command(1, Command::Rejoin), Ok(Done::Rejoins));
    assert_eq!(own(&cluster), Some(StandbyState::Resync));
}

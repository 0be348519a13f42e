//! How long images are held for comparisons, for the end of a resync and for that of an export,
//! and comparisons that nobody asks for.

use std::time::Duration;

use super::super::*;
use super::cluster::{Cluster, member};
use crate::divergence::Changed;
use crate::frame::LogPosition;
use crate::ids::{SessionId, VolumeIndex};
use crate::replica::{Found, Image, Mode};
use crate::wire::Refusal;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn verify(cluster: &Cluster) -> VerifyStatus {
    cluster.node(0).status().verify.unwrap()
}

/// Both members have everything in their images.
fn settled(mode: Mode) -> Cluster {
    let mut cluster = Cluster::started(2, mode);
    cluster.write(0, 1);
    cluster.run();
    cluster.pass(seconds(2));
    cluster
}

fn image_is_behind(cluster: &Cluster, index: u8) -> bool {
    let host = &cluster.hosts[usize::from(index)];
    host.applied < host.frames.last().unwrap().end()
}

fn compared(cluster: &mut Cluster, (done, total): (u64, u64), differs: &[Changed], repaired: u64) {
    let session = cluster.session(0, 1);
    let differs = differs.to_vec();
    cluster.tell(0, Event::Compared { session, done, total, differs, repaired });
    cluster.run();
}

#[test]
fn both_images_are_held_for_a_piece_and_for_half_a_minute_at_most() {
    let mut cluster = settled(Mode::Nearsync);
    assert_eq!(cluster.command(0, Command::Verify(None)), Ok(Done::Verifies));
    cluster.write(0, 2);
    cluster.pass(seconds(29));
    assert_eq!(verify(&cluster).state, VerifyState::Running);
    assert!(image_is_behind(&cluster, 0) && image_is_behind(&cluster, 1));
    cluster.pass(seconds(3));
    assert_eq!(verify(&cluster).state, VerifyState::CutShort);
    assert!(!image_is_behind(&cluster, 0) && !image_is_behind(&cluster, 1));
    assert_eq!(cluster.node(0).status().verified, [], "it has found out nothing");
}

#[test]
fn a_standby_that_does_not_come_to_rest_holds_nobody_for_longer_than_five_seconds() {
    let mut cluster = settled(Mode::Nearsync);
    cluster.hosts[1].applies_held = true;
    cluster.write(0, 2);
    cluster.pass(seconds(1));
    cluster.command(0, Command::Verify(None)).unwrap();
    cluster.write(0, 3);
    cluster.pass(seconds(4));
    assert!(image_is_behind(&cluster, 0));
    cluster.pass(seconds(2));
    assert!(!image_is_behind(&cluster, 0), "the primary goes on for as long");
    assert_eq!(verify(&cluster).state, VerifyState::Running);
    cluster.apply_again(1);
    cluster.pass(seconds(5));
    cluster.write(0, 4);
    cluster.pass(seconds(2));
    assert!(image_is_behind(&cluster, 0), "it is held again, and compared");
    compared(&mut cluster, (1 << 20, 1 << 20), &[], 0);
    assert_eq!(verify(&cluster).state, VerifyState::Done);
}

#[test]
fn an_image_rests_for_the_last_of_a_resync_for_half_a_minute_at_most() {
    let mut cluster = with_a_copy(NodeConfig::new([0, 1].map(member).to_vec(), Mode::Nearsync));
    cluster.pass(seconds(3));
    let session = cluster.session(0, 1);
    cluster.tell(0, Event::SourceNearEnd { session });
    cluster.run();
    cluster.pass(seconds(3));
    cluster.write(0, 2);
    cluster.run();
    cluster.pass(seconds(26));
    assert_eq!(cluster.state_of(0, 1), Some(StandbyState::Resync));
    assert!(image_is_behind(&cluster, 0), "the last of it is being sent");
    cluster.pass(seconds(4));
    assert!(!image_is_behind(&cluster, 0));
    let given_up = |note: &Note| matches!(note, Note::Refused { refusal: Refusal::NotNow, .. });
    assert!(cluster.hosts.iter().flat_map(|host| &host.notes).any(given_up));
}

#[test]
fn what_is_repaired_is_counted_and_remembered() {
    let mut cluster = settled(Mode::Nearsync);
    let third = Command::Repair { standby: Some(member(1)), from: member(2) };
    assert_eq!(cluster.command(0, third), Err(Denied::NotOfTheTwo));
    let repair = Command::Repair { standby: None, from: member(0) };
    assert_eq!(cluster.command(0, repair), Ok(Done::Verifies));
    let differs = Changed { volume: VolumeIndex::new(0).unwrap(), start: 0, end: 16 << 10 };
    compared(&mut cluster, (1 << 20, 2 << 20), &[differs], 16 << 10);
    cluster.pass(seconds(1));
    compared(&mut cluster, (2 << 20, 2 << 20), &[], 0);
    let found = verify(&cluster);
    assert_eq!((found.state, found.repaired), (VerifyState::Done, 16 << 10));
    assert_eq!(found.right, Some(member(0)));
    let kept = cluster.hosts[0].state.verified.clone();
    let Some(Found { differs: 16384, repaired: 16384, .. }) = kept[0].found else {
        panic!("{kept:?}")
    };
    // The next life knows it.
    cluster.kill(0);
    cluster.start(0);
    assert_eq!(cluster.node(0).status().verified, kept);
}

/// What the second member holds is a copy that is to become the first one's.
fn with_a_copy(config: NodeConfig) -> Cluster {
    let mut cluster = Cluster::with_config(config.members.len() as u8, config);
    cluster.hosts[1].state.image = Image::Incomplete;
    cluster.start_all();
    cluster
}

const HOURLY: VerifyPlan = VerifyPlan { every: seconds(3600), at: None };

/// Every hour; the first is counted from when the primary first had a standby.
fn scheduled() -> Cluster {
    let mut config = NodeConfig::new([0, 1].map(member).to_vec(), Mode::Nearsync);
    config.verify = Some(HOURLY);
    let mut cluster = Cluster::with_config(2, config);
    cluster.start_all();
    cluster.pass(seconds(2));
    cluster
}

#[test]
fn a_comparison_by_schedule_begins_when_it_is_due_and_once() {
    let mut cluster = scheduled();
    cluster.wall_passes(seconds(3590));
    assert_eq!(cluster.node(0).status().verify, None);
    cluster.wall_passes(seconds(20));
    assert_eq!(verify(&cluster).state, VerifyState::Running);
    compared(&mut cluster, (1 << 20, 1 << 20), &[], 0);
    assert_eq!(verify(&cluster).state, VerifyState::Done);
    cluster.pass(seconds(5));
    assert_eq!(verify(&cluster).state, VerifyState::Done, "it does not begin again at once");
    cluster.kill(0);
    cluster.start(0);
    cluster.link(0, 1);
    cluster.pass(seconds(5));
    assert!(cluster.node(0).is_leading());
    assert_eq!(cluster.node(0).status().verify, None, "nor after a restart");
    cluster.wall_passes(seconds(3610));
    assert_eq!(verify(&cluster).state, VerifyState::Running);
}

#[test]
fn a_comparison_by_schedule_that_was_cut_short_is_begun_again_after_a_pause() {
    let mut cluster = scheduled();
    cluster.wall_passes(seconds(3610));
    cluster.cut(0, 1);
    assert_eq!(verify(&cluster).state, VerifyState::CutShort);
    cluster.link(0, 1);
    cluster.pass(seconds(590));
    assert_eq!(verify(&cluster).state, VerifyState::CutShort);
    cluster.pass(seconds(15));
    assert_eq!(verify(&cluster).state, VerifyState::Running);
}

#[test]
fn no_comparison_by_schedule_begins_while_a_standby_is_brought_up() {
    let mut config = NodeConfig::new([0, 1, 2].map(member).to_vec(), Mode::Nearsync);
    config.verify = Some(HOURLY);
    let mut cluster = with_a_copy(config);
    cluster.pass(seconds(2));
    assert_eq!(cluster.state_of(0, 1), Some(StandbyState::Resync));
    cluster.wall_passes(seconds(3610));
    assert_eq!(cluster.node(0).status().verify, None);
    // It is given up, and the other standby's turn comes.
    cluster.kill(1);
    cluster.pass(seconds(1));
    assert_eq!(verify(&cluster).member, member(2));
}

#[test]
fn a_wall_clock_that_was_ahead_puts_nothing_off_for_longer_than_the_schedule() {
    let mut cluster = scheduled();
    let mut state = cluster.hosts[0].state.clone();
    cluster.kill(0);
    state.verified[0].began_us = u64::MAX / 2;
    cluster.hosts[0].state = state;
    cluster.start(0);
    cluster.link(0, 1);
    cluster.pass(seconds(5));
    cluster.wall_passes(seconds(3610));
    assert_eq!(verify(&cluster).state, VerifyState::Running);
}

#[test]
fn an_export_of_a_seed_holds_the_image_for_the_last_of_it_and_then_lets_it_go_on() {
    for index in [0, 1] {
        let mut cluster = settled(Mode::Nearsync);
        let session = SessionId::new(900);
        let seed = Command::Seed { session, absent: None };
        assert_eq!(cluster.command(index, seed), Ok(Done::Seeds));
        assert_eq!(cluster.command(index, seed), Err(Denied::Busy));
        cluster.write(0, 2);
        cluster.pass(seconds(2));
        assert!(!image_is_behind(&cluster, index), "much is left, and nobody is held");
        cluster.tell(index, Event::SourceNearEnd { session });
        cluster.run();
        cluster.write(0, 3);
        cluster.pass(seconds(29));
        assert!(image_is_behind(&cluster, index));
        assert!(!image_is_behind(&cluster, 1 - index), "the other one goes on");
        let at = LogPosition { lsn: cluster.hosts[usize::from(index)].applied, ..cluster.end(0) };
        cluster.tell(index, Event::SourceDone { session, at, said: 1 });
        cluster.pass(seconds(1));
        assert!(!image_is_behind(&cluster, index));
        assert_eq!(cluster.command(index, seed), Ok(Done::Seeds), "and the next may begin");
    }
}

#[test]
fn an_export_that_does_not_come_to_its_end_while_the_image_rests_is_given_up() {
    let mut cluster = settled(Mode::Nearsync);
    let session = SessionId::new(900);
    cluster.command(0, Command::Seed { session, absent: None }).unwrap();
    cluster.tell(0, Event::SourceNearEnd { session });
    cluster.run();
    cluster.write(0, 2);
    cluster.pass(seconds(32));
    assert!(!image_is_behind(&cluster, 0));
    assert_eq!(cluster.hosts[0].seeds_ended, [Denied::RestedTooLong]);
    cluster.command(0, Command::Seed { session, absent: None }).unwrap();
    cluster.command(0, Command::Stop).unwrap();
    assert_eq!(cluster.hosts[0].seeds_ended, [Denied::RestedTooLong, Denied::Stopping]);
}

#[test]
fn what_a_member_lacks_that_will_come_with_a_seed_is_noted_from_there_on() {
    let mut cluster = settled(Mode::Nearsync);
    let (session, absent) = (SessionId::new(900), Some(member(1)));
    let seed = Command::Seed { session, absent };
    assert_eq!(cluster.command(1, seed), Err(Denied::NotPrimary));
    let export = |cluster: &mut Cluster| {
        cluster.command(0, seed).unwrap();
        cluster.tell(0, Event::SourceNearEnd { session });
        cluster.run();
        let at = LogPosition { lsn: cluster.hosts[0].applied, ..cluster.end(0) };
        cluster.tell(0, Event::SourceDone { session, at, said: 1 });
        cluster.run();
        at.lsn
    };
    export(&mut cluster);
    assert_eq!(cluster.hosts[0].folds, [], "it is connected, and says itself what it has");
    cluster.kill(1);
    cluster.pass(seconds(2));
    let at = export(&mut cluster);
    assert_eq!(cluster.hosts[0].folds, [(member(1), None, at)]);
}

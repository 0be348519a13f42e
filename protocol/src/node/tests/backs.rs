//! Members that are taken back to a point of the past, to lead from there (design §6.2, §8.5).

use std::time::Duration;

use super::super::*;
use super::cluster::{Cluster, member};
use crate::frame::{Began, Frame, LogPosition};
use crate::replica::{Image, Mode};

const FORCE: Command = Command::forced();

fn to(point: LogPosition) -> Command {
    Command::GoBack { over: None, to: point, test: false }
}

/// A pair, or more, in peer, and ten writes in every image.
fn written(count: u8) -> Cluster {
    let mut cluster = Cluster::started(count, Mode::Nearsync);
    cluster.hosts.iter_mut().for_each(|host| host.brings_up = true);
    for byte in 0..10 {
        cluster.write(0, byte);
        cluster.run();
    }
    cluster.pass(Duration::from_secs(2));
    cluster
}

/// The point behind so many frames of a member's log.
fn behind(cluster: &Cluster, index: usize, frames: usize) -> LogPosition {
    cluster.hosts[index].frames[frames - 1].position_after()
}

/// A member goes back, and everybody calls it again before it is there.
fn go_back(cluster: &mut Cluster, index: u8, over: Option<(MemberId, Epoch)>, to: LogPosition) {
    cluster.hosts[usize::from(index)].switches_held = true;
    let id = cluster.ask(index, Command::GoBack { over, to, test: false });
    meet(cluster, index);
    if cluster.hosts[usize::from(index)].state.image == Image::Switching {
        cluster.switch_again(index);
    }
    let reply = cluster.reply(index, id);
    assert!(matches!(reply, Some(Ok(Done::Leading(_)))), "{reply:?}");
}

fn meet(cluster: &mut Cluster, index: u8) {
    let others = 0..cluster.hosts.len() as u8;
    others.filter(|other| *other != index).for_each(|other| cluster.link(index, other));
    cluster.run();
}

fn says(cluster: &Cluster, index: u8, is: impl Fn(&Why) -> bool) -> bool {
    cluster.node(index).reasons().iter().any(|reason| is(&reason.why))
}

#[test]
fn it_leads_from_the_point_and_fetches_nothing_of_what_it_is_to_be_without() {
    let mut cluster = written(2);
    let (point, life) = (behind(&cluster, 1, 5), cluster.node(1).state().life());
    go_back(&mut cluster, 1, None, point);
    let last = cluster.hosts[1].frames.last().unwrap();
    assert_eq!((last.lsn(), cluster.hosts[1].frames.len()), (point.lsn, 6));
    let state = cluster.node(1).state();
    assert_eq!(state.history.last().map(|entry| entry.start), Some(point));
    assert_eq!(state.history.last().map(|entry| entry.began), Some(Began::Forced));
    assert_eq!((state.went_back, state.image), (None, Image::Whole));
    assert!(state.life() > life, "what it has acknowledged is here no more");
    assert_eq!(cluster.told(1).iter().filter(|code| **code == "went_back").count(), 1);
}

#[test]
fn everybody_else_parts_at_the_point_and_nothing_of_theirs_is_cut() {
    let mut cluster = written(3);
    let point = behind(&cluster, 1, 5);
    go_back(&mut cluster, 1, None, point);
    for other in [0, 2] {
        let standing = cluster.node(other).status().standing;
        assert_eq!(standing, Standing::Diverged(point.lsn), "{other}");
        assert_eq!(cluster.hosts[usize::from(other)].quarantined, 0);
    }
}

/// The primary has answered for what the standby had received, and has applied none of it. It was
/// a member of the set that took over; but not the life that was in it. A primary that runs hears
/// the goodbye of that one, and takes it out of its set; one that is down has it in there still.
#[test]
fn a_tail_that_was_answered_for_is_never_taken_for_one_that_was_not() {
    for is_down in [false, true] {
        let mut cluster = Cluster::started(2, Mode::Nearsync);
        cluster.hosts.iter_mut().for_each(|host| host.brings_up = true);
        let ends: Vec<_> = (0..10).map(|byte| cluster.write(0, byte)).collect();
        cluster.run();
        let (answered, count) = (cluster.node(0).answers().writes, cluster.hosts[0].frames.len());
        assert_eq!(Some(&answered), ends.last());
        let point = behind(&cluster, 1, count - 4);
        assert!(cluster.node(0).state().apply_limit <= point.lsn, "nothing is in an image yet");
        if is_down {
            cluster.kill(0);
        }
        go_back(&mut cluster, 1, None, point);
        assert_eq!(cluster.hosts[1].quarantined, 4, "what is not in the image is cut, and saved");
        if is_down {
            let life = cluster.hosts[1].state.life();
            let lives = || cluster.hosts[0].state.in_sync.iter();
            assert!(lives().any(|other| other.member == life.member), "it has heard of nothing");
            cluster.cut(0, 1);
            cluster.start(0);
            meet(&mut cluster, 1);
        }
        assert_eq!(cluster.node(0).status().standing, Standing::Diverged(point.lsn), "{is_down}");
        assert_eq!((cluster.hosts[0].quarantined, cluster.hosts[0].frames.len()), (0, count));
    }
}

/// Interrupted behind the one record, and started again.
fn interrupted() -> (Cluster, LogPosition) {
    let mut cluster = written(2);
    let point = behind(&cluster, 1, 5);
    cluster.hosts[1].switches_held = true;
    cluster.ask(1, to(point));
    assert_eq!(cluster.hosts[1].state.image, Image::Switching);
    cluster.lose_power(1);
    cluster.hosts[1].switches_held = false;
    // Not so long that the log goes that it lacks.
    cluster.pass(Duration::from_secs(20));
    cluster.start(1);
    cluster.link(0, 1);
    cluster.write(0, 77);
    cluster.run();
    (cluster, point)
}

#[test]
fn one_that_was_interrupted_follows_nobody_and_says_what_can_be_done() {
    let (mut cluster, point) = interrupted();
    assert_eq!(cluster.end(1), point);
    assert!(says(&cluster, 1, |why| *why == Why::WentBack { to: point.lsn }));
    assert_eq!(cluster.state_of(0, 1), Some(StandbyState::RemoteCatchupPending));
    assert!(cluster.hosts[0].serving, "nobody has taken anything from the old primary");
    cluster.pass(Duration::from_secs(60));
    assert_eq!(cluster.end(1), point);
    let planned = cluster.command(1, Command::planned());
    assert_eq!(planned, Err(Denied::NotFollowing));
}

#[test]
fn the_command_given_again_leads_from_the_point() {
    let (mut cluster, point) = interrupted();
    assert!(matches!(cluster.command(1, FORCE), Ok(Done::Leading(_))));
    meet(&mut cluster, 1);
    let start = cluster.node(1).state().history.last().map(|entry| entry.start);
    assert_eq!(start, Some(point));
    cluster.run();
    assert_eq!(cluster.node(0).status().standing, Standing::Diverged(point.lsn));
    assert_eq!(cluster.hosts[1].state.went_back, None);
}

#[test]
fn a_rejoin_gives_it_up_and_everything_comes_again() {
    let (mut cluster, _) = interrupted();
    assert_eq!(cluster.command(1, Command::Rejoin), Ok(Done::Rejoins));
    cluster.run();
    let chains = |index: usize| cluster.hosts[index].frames.iter().map(Frame::chain);
    assert!(chains(0).eq(chains(1)));
    assert_eq!(cluster.hosts[1].state.went_back, None);
    assert_eq!(cluster.command(1, Command::Rejoin), Err(Denied::NothingToRejoin));
}

/// A crash between the record and the cut of the log: a takeover does not lead from its end.
#[test]
fn a_cut_that_was_interrupted_is_done_by_the_next_command() {
    let mut cluster = Cluster::started(2, Mode::Nearsync);
    for byte in 0..10 {
        cluster.write(0, byte);
    }
    cluster.run();
    cluster.pass(Duration::from_millis(1));
    let (end, point) = (cluster.end(1), behind(&cluster, 1, 5));
    let mut state = cluster.node(1).state().clone();
    assert!(state.apply_limit <= point.lsn);
    state.went_back = Some(crate::replica::WentBack { to: point, from: end.lsn });
    cluster.kill(1);
    cluster.hosts[1].state = state;
    cluster.start(1);
    cluster.link(0, 1);
    cluster.run();
    assert!(cluster.hosts[1].frames.len() > 5);
    cluster.command(1, FORCE).unwrap();
    let start = cluster.node(1).state().history.last().map(|entry| entry.start);
    assert_eq!(start, Some(point));
}

#[test]
fn what_is_in_the_way_is_said_and_nothing_is_changed() {
    let mut cluster = written(2);
    let point = behind(&cluster, 1, 5);
    let before = cluster.node(1).state().clone();
    assert_eq!(cluster.command(0, to(point)), Err(Denied::LeadsYet));
    let beyond = LogPosition { lsn: Lsn::new(1 << 40), ..point };
    assert_eq!(cluster.command(1, to(beyond)), Err(Denied::NoSuchPoint));
    let test = Command::GoBack { over: None, to: point, test: true };
    assert_eq!(cluster.command(1, test), Ok(Done::WouldLead));
    assert_eq!(*cluster.node(1).state(), before);
    assert_eq!(cluster.state_of(0, 1), Some(StandbyState::Peer));
    // Its disk says no.
    cluster.hosts[1].brings_up = false;
    let id = cluster.ask(1, to(point));
    assert!(says(&cluster, 1, |why| *why == Why::GoesBack { to: point.lsn }));
    assert_eq!(cluster.command(1, to(point)), Err(Denied::Busy));
    assert_eq!(cluster.command(1, FORCE), Err(Denied::Busy));
    cluster.tell(1, Event::Rewound { whole: false });
    cluster.run();
    assert_eq!(cluster.reply(1, id), Some(Err(Denied::NotRewound)));
    cluster.link(0, 1);
    cluster.run();
    assert_eq!(cluster.state_of(0, 1), Some(StandbyState::Peer), "it follows again");
}

#[test]
fn it_is_given_up_as_long_as_nothing_was_recorded() {
    let mut cluster = written(2);
    let point = behind(&cluster, 1, 5);
    cluster.hosts[1].brings_up = false;
    let id = cluster.ask(1, to(point));
    assert_eq!(cluster.command(1, Command::CancelTakeover), Ok(Done::CancelAsked));
    assert_eq!(cluster.reply(1, id), Some(Err(Denied::Cancelled)));
    cluster.tell(1, Event::Rewound { whole: true });
    cluster.link(0, 1);
    cluster.run();
    assert_eq!(cluster.state_of(0, 1), Some(StandbyState::Peer));
    assert_eq!(cluster.hosts[1].state.went_back, None);
}

#[test]
fn with_a_record_the_operator_answers_for_the_set() {
    let mut config = NodeConfig::new(vec![member(0), member(1)], Mode::Nearsync);
    config.record = RecordKind::Register;
    let mut cluster = Cluster::with_config(2, config);
    cluster.hosts.iter_mut().for_each(|host| host.brings_up = true);
    cluster.start_all();
    for byte in 0..10 {
        cluster.write(0, byte);
    }
    cluster.pass(Duration::from_secs(2));
    let point = behind(&cluster, 1, 5);
    let record = cluster.record.clone().unwrap();
    assert!(record.counts(cluster.node(1).state().life()), "it is in sync");
    let (owner, epoch) = (record.owner.member, record.epoch);
    assert_eq!(cluster.command(1, to(point)), Err(Denied::GivesUpSet { owner, epoch }));
    // An owner that is not down would take its epoch back.
    cluster.kill(0);
    let over = Some((owner, epoch));
    let reply = cluster.command(1, Command::GoBack { over, to: point, test: false });
    assert!(matches!(reply, Ok(Done::Leading(_))), "{reply:?}");
    let record = cluster.record.clone().unwrap();
    assert_eq!((record.owner, record.began), (cluster.node(1).state().life(), Began::Forced));
    cluster.start(0);
    meet(&mut cluster, 1);
    assert_eq!(cluster.node(0).status().standing, Standing::Diverged(point.lsn));
}

/// Positions that this very member has answered once are answered anew.
#[test]
fn nothing_behind_the_point_counts_as_answered_already() {
    let mut cluster = written(2);
    cluster.command(1, Command::planned()).unwrap();
    cluster.run();
    let answered = cluster.node(0).answers().writes;
    let point = behind(&cluster, 0, 3);
    assert!(answered > point.lsn);
    go_back(&mut cluster, 0, None, point);
    let end = cluster.write(0, 99);
    assert!(end < answered, "the story needs positions that were answered before");
    assert!(cluster.node(0).answers().writes < end, "nobody has written it yet");
    cluster.run();
    assert!(cluster.node(0).answers().writes >= end);
}

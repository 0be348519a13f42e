//! A cluster whose marks are in etcd: it fails over as with markers, and lives through what happens
//! to etcd. Random rounds of it are in `fencing`.
#![allow(clippy::print_stdout)] // What is not tried is said.

use hadrian_replicator::demo::Side;
use hadrian_tests::etcd::missing;
use hadrian_tests::fencing::{Fault, Story};
use hadrian_tests::marked::Pair;
use hadrian_tests::reach::Register;
use hadrian_tests::tools::{Room, programs, room};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// A fresh pair whose ways to etcd and to each other can be cut.
fn tell(story: impl FnOnce(&mut Story, &mut StdRng)) {
    if let Some(reason) = Register::Etcd.missing() {
        println!("etcd is not tried: {reason}");
        return;
    }
    let (programs, _room) = (programs(), room());
    let mut told = Story::begin(&programs, Register::Etcd).unwrap();
    story(&mut told, &mut StdRng::seed_from_u64(1));
    assert_eq!((told.outcome.lost, told.outcome.double_writers), (0, 0));
}

/// One fault of one side of a fresh pair leads to this primary.
fn assert_leads(fault: Fault, side: Side, leads: Side) {
    tell(|story, random| {
        story.round(random, fault, side).unwrap();
        assert_eq!(story.primary(), leads);
    });
}

#[test]
fn the_standby_of_a_killed_primary_takes_over_within_the_bound() {
    assert_leads(Fault::Killed, Side::Alpha, Side::Beta);
}

#[test]
fn a_primary_that_stands_still_past_its_lease_answers_nothing_when_it_goes_on() {
    assert_leads(Fault::StandsStill, Side::Alpha, Side::Beta);
}

#[test]
fn a_primary_that_is_cut_off_from_etcd_and_standby_stops_before_the_other_starts() {
    assert_leads(Fault::CutOff, Side::Alpha, Side::Beta);
}

#[test]
fn a_primary_that_loses_the_link_alone_goes_on_by_itself() {
    assert_leads(Fault::LinkCut, Side::Alpha, Side::Alpha);
}

#[test]
fn without_etcd_and_link_nobody_serves_and_with_etcd_one_of_the_two_does() {
    tell(|story, random| story.lose_everything(random).unwrap());
}

/// A pair that reaches etcd directly.
fn pair() -> Option<(Room, Pair)> {
    if let Some(reason) = missing() {
        println!("etcd is not tried: {reason}");
        return None;
    }
    let (programs, room) = (programs(), room());
    Some((room, Pair::with_etcd(&programs, true).unwrap()))
}

#[test]
fn nothing_stops_while_etcd_is_killed_and_started_again_under_connected_members() {
    let Some((_room, mut pair)) = pair() else { return };
    pair.write(Side::Alpha, 1).unwrap();
    let before = pair.record().unwrap();
    pair.etcd().unwrap().kill().unwrap();
    for side in [Side::Alpha, Side::Beta] {
        pair.cluster.await_status(side, "no lease").unwrap();
    }
    pair.write(Side::Alpha, 2).unwrap();
    let status = pair.cluster.tool(Side::Alpha, &["status"]).unwrap();
    assert!(status.contains("cannot be read or written: http://127.0.0.1"), "{status}");
    pair.etcd().unwrap().start().unwrap();
    for side in [Side::Alpha, Side::Beta] {
        pair.cluster.await_status(side, "lease for").unwrap();
    }
    pair.write(Side::Alpha, 3).unwrap();
    pair.reads(Side::Alpha, 3).unwrap();
    let after = pair.record().unwrap();
    assert_eq!((&before["owner"], &before["epoch"]), (&after["owner"], &after["epoch"]));
}

#[test]
fn the_record_outlives_etcd_and_both_daemons() {
    let Some((_room, mut pair)) = pair() else { return };
    pair.cluster.tool(Side::Beta, &["takeover", "db"]).unwrap();
    pair.write(Side::Beta, 4).unwrap();
    pair.cluster.await_peer(Side::Beta).unwrap();
    let before = pair.record().unwrap();
    for side in [Side::Alpha, Side::Beta] {
        pair.cluster.kill(side).unwrap();
    }
    pair.etcd().unwrap().kill().unwrap();
    pair.etcd().unwrap().start().unwrap();
    assert_eq!(pair.record().unwrap(), before);
    for side in [Side::Alpha, Side::Beta] {
        pair.cluster.start(side).unwrap();
    }
    pair.reads(Side::Beta, 4).unwrap();
    pair.cluster.await_peer(Side::Beta).unwrap();
    assert_eq!(pair.owner().unwrap(), 1);
}

#[test]
fn daemons_that_start_before_etcd_wait_for_it_and_say_so() {
    let Some((_room, mut pair)) = pair() else { return };
    pair.write(Side::Alpha, 5).unwrap();
    for side in [Side::Alpha, Side::Beta] {
        pair.cluster.kill(side).unwrap();
    }
    pair.etcd().unwrap().kill().unwrap();
    pair.cluster.start(Side::Alpha).unwrap();
    pair.cluster.await_status(Side::Alpha, "no lease: etcd at http://127.0.0.1").unwrap();
    pair.etcd().unwrap().start().unwrap();
    pair.cluster.start(Side::Beta).unwrap();
    pair.cluster.await_peer(Side::Alpha).unwrap();
    pair.reads(Side::Alpha, 5).unwrap();
}

#[test]
fn check_and_mark_work_on_etcd_as_on_markers() {
    let Some((_room, mut pair)) = pair() else { return };
    let checked = pair.cluster.tool(Side::Alpha, &["check"]).unwrap();
    assert!(!checked.contains("etcd at"), "{checked}");
    let again = pair.cluster.tool(Side::Beta, &["mark", "format"]).unwrap();
    assert!(again.contains("a marker already; no resource was added"), "{again}");
    let shown = pair.cluster.tool(Side::Beta, &["mark", "show"]).unwrap();
    let expected = format!("etcd at {}: marker 1 of 1", pair.etcd().unwrap().endpoint());
    assert!(shown.contains(&expected) && shown.contains("joined"), "{shown}");
}

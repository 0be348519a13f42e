//! A cluster with ownership marks fails over by itself, and never has two primaries.
//!
//! `HADRIAN_FENCE_ROUNDS` sets the number of random rounds, a third on one marker, on three and on
//! etcd each; `HADRIAN_SEED` is the seed of a failing run. `fencing_etcd` has more of etcd.
#![allow(clippy::print_stdout)] // The closing line of a soak is its result.

use std::thread;

use hadrian_replicator::demo::Side;
use hadrian_tests::fencing::{self, Fault, Rounds, Story};
use hadrian_tests::marked::Pair;
use hadrian_tests::reach::Register;
use hadrian_tests::tools::{Room, number, programs, room};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// One fault of one side of a fresh pair; who leads then.
fn one(markers: usize, fault: Fault, side: Side) -> Option<Side> {
    let register = Register::Markers(markers);
    if let Some(reason) = register.missing() {
        println!("{fault:?} is not tried: {reason}");
        return None;
    }
    let (programs, _room) = (programs(), room());
    let mut story = Story::begin(&programs, register).unwrap();
    story.round(&mut StdRng::seed_from_u64(1), fault, side).unwrap();
    assert_eq!((story.outcome.lost, story.outcome.double_writers), (0, 0));
    Some(story.primary())
}

fn assert_moves(markers: usize, fault: Fault) {
    assert!(one(markers, fault, Side::Alpha).is_none_or(|leads| leads == Side::Beta));
}

fn assert_stays(markers: usize, fault: Fault, side: Side) {
    assert!(one(markers, fault, side).is_none_or(|leads| leads == Side::Alpha));
}

#[test]
fn a_primary_that_stands_still_past_its_lease_answers_nothing_when_it_goes_on() {
    assert_moves(1, Fault::StandsStill);
}

#[test]
fn a_primary_that_is_cut_off_from_everything_stops_before_the_other_starts() {
    assert_moves(3, Fault::CutOff);
}

#[test]
fn a_primary_that_loses_the_marks_alone_goes_on() {
    assert_stays(3, Fault::MarksHang, Side::Alpha);
}

#[test]
fn a_primary_whose_marks_answer_with_errors_goes_on_and_alone_it_stops() {
    assert_stays(1, Fault::MarksFail, Side::Alpha);
    assert_moves(3, Fault::CutOffByErrors);
}

#[test]
fn a_primary_that_loses_the_link_alone_goes_on_by_itself() {
    assert_stays(1, Fault::LinkCut, Side::Alpha);
}

#[test]
fn a_standby_that_is_cut_off_from_everything_takes_nothing_over() {
    assert_stays(1, Fault::CutOff, Side::Beta);
}

/// Rounds of random faults on each of what can hold marks, two of them at a time.
fn rounds_on_each(rounds: u64, seed: u64) -> fencing::Outcome {
    let programs = &programs();
    let kinds = [Register::Markers(1), Register::Markers(3), Register::Etcd];
    let on_one = |(at, register): (u64, Register)| {
        if let Some(reason) = register.missing() {
            println!("{register:?} is not tried: {reason}");
            return fencing::Outcome::default();
        }
        let _room = room();
        // Each gets faults of its own, and what is left over goes to the last ones.
        let (rounds, seed) = ((rounds + at) / 3, seed + at);
        println!("{register:?} rounds={rounds} seed={seed}");
        let outcome = fencing::run(programs, Rounds { rounds, register, seed }).unwrap();
        println!("{register:?} takeovers={} longest={:?}", outcome.takeovers, outcome.longest);
        outcome
    };
    thread::scope(|scope| {
        let told = (0..).zip(kinds).map(|kind| scope.spawn(move || on_one(kind)));
        let told: Vec<_> = told.collect();
        told.into_iter().map(|told| told.join().unwrap()).sum()
    })
}

#[test]
fn no_fault_loses_an_answered_write_or_makes_two_writers() {
    let (rounds, seed) = (number("HADRIAN_FENCE_ROUNDS", 12), number("HADRIAN_SEED", 20_261_126));
    let fencing::Outcome { rounds, lost, double_writers, takeovers, longest, .. } =
        rounds_on_each(rounds, seed);
    println!(
        "takeovers={takeovers} longest={longest:?} bound={:?}",
        fencing::TIMING.takeover_bound()
    );
    println!("rounds={rounds} lost={lost} double_writers={double_writers}");
    assert_eq!((lost, double_writers), (0, 0), "seed {seed}");
    assert!(rounds < 10 || takeovers > 0, "nobody ever took over, so nothing was shown");
}

fn pair(auto_takeover: bool) -> (Room, Pair) {
    let (programs, room) = (programs(), room());
    (room, Pair::with_marker(&programs, auto_takeover).unwrap())
}

#[test]
fn a_takeover_in_order_moves_the_record_and_loses_nothing() {
    let (_room, pair) = pair(true);
    pair.write(Side::Alpha, 1).unwrap();
    assert_eq!(pair.owner().unwrap(), 0);
    pair.cluster.tool(Side::Beta, &["takeover", "db"]).unwrap();
    pair.reads(Side::Beta, 1).unwrap();
    assert_eq!(pair.owner().unwrap(), 1);
    pair.cluster.await_peer(Side::Beta).unwrap();
    assert_eq!(pair.record().unwrap()["in_sync"].as_array().unwrap().len(), 2);
}

#[test]
fn a_primary_that_is_killed_and_started_at_once_leads_again_in_a_new_epoch() {
    let (_room, mut pair) = pair(false);
    pair.write(Side::Alpha, 2).unwrap();
    let before = pair.number("/epoch").unwrap();
    pair.cluster.kill(Side::Alpha).unwrap();
    pair.cluster.start(Side::Alpha).unwrap();
    pair.reads(Side::Alpha, 2).unwrap();
    assert!(pair.number("/epoch").unwrap() > before);
    assert_eq!(pair.owner().unwrap(), 0);
}

#[test]
fn a_daemon_that_stops_in_order_is_followed_at_once_and_not_after_its_lease() {
    let (_room, mut pair) = pair(true);
    pair.write(Side::Alpha, 3).unwrap();
    pair.cluster.terminate(Side::Alpha).unwrap();
    pair.reads(Side::Beta, 3).unwrap();
    let shown = pair.cluster.tool(Side::Beta, &["mark", "show"]).unwrap();
    assert!(shown.contains("down"), "{shown}");
}

#[test]
fn a_forced_takeover_is_refused_while_the_owner_may_serve_and_its_lease_is_shown() {
    let (_room, mut pair) = pair(false);
    pair.write(Side::Alpha, 4).unwrap();
    pair.cluster.await_status(Side::Alpha, "beta live").unwrap();
    pair.cluster.await_status(Side::Beta, "alpha live").unwrap();
    let status = pair.cluster.tool(Side::Alpha, &["status"]).unwrap();
    assert!(status.contains("lease for"), "{status}");
    pair.cluster.kill(Side::Alpha).unwrap();
    let force = ["takeover", "db", "--force", "--yes"];
    let refused = pair.cluster.tool(Side::Beta, &force).unwrap_err().to_string();
    assert!(refused.contains("--override"), "{refused}");
    pair.cluster.await_status(Side::Beta, "alpha over").unwrap();
    pair.cluster.tool(Side::Beta, &force).unwrap();
    pair.reads(Side::Beta, 4).unwrap();
}

#[test]
fn check_tells_of_markers_that_are_none_and_format_makes_them() {
    let (_room, pair) = pair(false);
    let checked = pair.cluster.tool(Side::Alpha, &["check"]).unwrap();
    assert!(!checked.contains("no ownership marks"), "{checked}");
    let again = pair.cluster.tool(Side::Beta, &["mark", "format"]).unwrap();
    assert!(again.contains("a marker already; no resource was added"), "{again}");
}

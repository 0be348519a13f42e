//! A cluster with ownership marks fails over by itself, and never has two primaries.
//!
//! `HADRIAN_FENCE_ROUNDS` sets the number of random rounds, `HADRIAN_SEED` the seed of a failing
//! run.
#![allow(clippy::print_stdout)] // The closing line of a soak is its result.

use hadrian_replicator::demo::Side;
use hadrian_tests::fencing::{self, Fault, Rounds, Story};
use hadrian_tests::tools::programs;
use hadrian_tests::ways::missing;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// One fault of one side of a fresh pair; who leads then.
fn one(markers: usize, fault: Fault, side: Side) -> Option<Side> {
    if let Some(reason) = missing() {
        println!("{fault:?} is not tried: {reason}");
        return None;
    }
    let mut story = Story::begin(&programs(), markers).unwrap();
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
fn a_primary_that_loses_the_link_alone_goes_on_by_itself() {
    assert_stays(1, Fault::LinkCut, Side::Alpha);
}

#[test]
fn a_standby_that_is_cut_off_from_everything_takes_nothing_over() {
    assert_stays(1, Fault::CutOff, Side::Beta);
}

#[test]
fn no_fault_loses_an_answered_write_or_makes_two_writers() {
    if let Some(reason) = missing() {
        println!("fencing is not tried: {reason}");
        return;
    }
    let (rounds, seed) = (number("HADRIAN_FENCE_ROUNDS", 10), number("HADRIAN_SEED", 20_261_126));
    let mut total = fencing::Outcome::default();
    for (markers, rounds) in [(1, rounds / 2), (3, rounds - rounds / 2)] {
        println!("markers={markers} rounds={rounds} seed={seed}");
        let outcome = fencing::run(&programs(), Rounds { rounds, markers, seed }).unwrap();
        total.lost += outcome.lost;
        total.double_writers += outcome.double_writers;
        total.takeovers += outcome.takeovers;
        total.longest = total.longest.max(outcome.longest);
    }
    let fencing::Outcome { lost, double_writers, takeovers, longest, .. } = total;
    println!(
        "takeovers={takeovers} longest={longest:?} bound={:?}",
        fencing::TIMING.takeover_bound()
    );
    println!("rounds={rounds} lost={lost} double_writers={double_writers}");
    assert_eq!((lost, double_writers), (0, 0), "seed {seed}");
}

//! Links that are cut one way or both ways, daemons that stand still past every timer, takeovers
//! by proof meanwhile: no answered write is lost, and the replicas end equal.
//!
//! `HADRIAN_LINK_ROUNDS` sets the number of rounds a mode, `HADRIAN_SEED` the seed of a failing
//! run.
#![allow(clippy::print_stdout)] // The closing line of a soak is its result.

use hadrian_protocol::replica::Mode;
use hadrian_tests::namespaces::missing;
use hadrian_tests::rounds::Rounds;
use hadrian_tests::tools::programs;
use hadrian_tests::troubles;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn rounds_of_trouble(mode: Mode) {
    if let Some(reason) = missing() {
        println!("{} is not tried: {reason}", mode.name());
        return;
    }
    let (rounds, seed) = (number("HADRIAN_LINK_ROUNDS", 6), number("HADRIAN_SEED", 20_261_121));
    println!("mode={} rounds={rounds} seed={seed}", mode.name());
    let outcome = troubles::run(&programs(), Rounds { mode, rounds, seed }).unwrap();
    println!("rounds={rounds} answered={} lost={}", outcome.answered, outcome.lost);
    assert_eq!(outcome.lost, 0, "seed {seed}: answered writes are missing");
}

#[test]
fn in_sync_no_answered_write_is_lost_by_a_cut_link_or_a_standstill() {
    rounds_of_trouble(Mode::Sync);
}

#[test]
fn in_nearsync_no_answered_write_is_lost_by_a_cut_link_or_a_standstill() {
    rounds_of_trouble(Mode::Nearsync);
}

#[test]
fn in_async_a_cut_link_or_a_standstill_loses_nothing() {
    rounds_of_trouble(Mode::Async);
}

#[test]
fn in_superasync_a_cut_link_or_a_standstill_loses_nothing() {
    rounds_of_trouble(Mode::Superasync);
}

//! Daemons that are killed at random moments lose no answered write, and the replicas end equal.
//!
//! `HADRIAN_ROUNDS` sets the number of rounds a mode, `HADRIAN_SEED` the seed of a failing run.
#![allow(clippy::print_stdout)] // The closing line of a soak is its result.

use hadrian_protocol::replica::Mode;
use hadrian_tests::rounds::{self, Rounds};
use hadrian_tests::tools::programs;
use hadrian_tests::{Cluster, Side, Spec};

const BLOCK: usize = 4096;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn block_of(stamp: u64) -> Vec<u8> {
    stamp.to_le_bytes().repeat(BLOCK / 8)
}

/// Each round kills one of the two in mid-write; see [`rounds`].
fn crash_rounds(mode: Mode) {
    let (rounds, seed) = (number("HADRIAN_ROUNDS", 20), number("HADRIAN_SEED", 20_261_121));
    println!("mode={} rounds={rounds} seed={seed}", mode.name());
    let outcome = rounds::run(&programs(), Rounds { mode, rounds, seed }).unwrap();
    println!("rounds={rounds} answered={} lost={}", outcome.answered, outcome.lost);
    assert_eq!(outcome.lost, 0, "seed {seed}: answered writes are missing");
}

#[test]
fn in_sync_no_answered_write_is_lost_by_a_killed_daemon() {
    crash_rounds(Mode::Sync);
}

#[test]
fn in_nearsync_no_answered_write_is_lost_by_a_killed_daemon() {
    crash_rounds(Mode::Nearsync);
}

#[test]
fn in_async_a_killed_and_restarted_daemon_loses_nothing() {
    crash_rounds(Mode::Async);
}

#[test]
fn in_superasync_a_killed_and_restarted_daemon_loses_nothing() {
    crash_rounds(Mode::Superasync);
}

#[test]
fn planned_takeovers_there_and_back_lose_nothing() {
    let mut cluster = Cluster::new(&programs(), Spec::new(Mode::Nearsync)).unwrap();
    let mut primary = Side::Alpha;
    for round in 1..=4_u64 {
        cluster.client(primary).unwrap().write(round * 4096, &block_of(round)).unwrap();
        primary = primary.other();
        cluster.tool(primary, &["takeover", "db"]).unwrap();
        cluster.await_peer(primary).unwrap();
        let mut client = cluster.client(primary).unwrap();
        for earlier in 1..=round {
            assert_eq!(client.read(earlier * 4096, BLOCK).unwrap(), block_of(earlier));
        }
    }
    cluster.terminate(primary.other()).unwrap();
    assert!(cluster.status(primary).is_some());
}

#[test]
fn the_largest_writes_pass_through_the_smallest_log() {
    let cluster = Cluster::new(&programs(), Spec::new(Mode::Sync)).unwrap();
    let mut client = cluster.client(Side::Alpha).unwrap();
    let largest = 32 << 20;
    for round in 0..4_u8 {
        let data = vec![round + 1; largest];
        client.write(u64::from(round % 2) * largest as u64, &data).unwrap();
        client.flush().unwrap();
    }
    for (half, byte) in [(0, 3), (1, 4)] {
        let found = client.read(half * largest as u64, largest).unwrap();
        assert!(found == vec![byte; largest]);
    }
}

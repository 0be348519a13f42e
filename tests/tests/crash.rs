//! Daemons that are killed at random moments lose no answered write, and the replicas end equal.
//!
//! `HADRIAN_ROUNDS` sets the number of rounds a mode, `HADRIAN_SEED` the seed of a failing run.
#![allow(clippy::print_stdout)] // The closing line of a soak is its result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hadrian_protocol::replica::Mode;
use hadrian_tests::{Cluster, Side, Spec};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

const BLOCK: usize = 4096;
const VOLUME_BYTES: u64 = 64 << 20;

/// The folder of the binaries that cargo has built for this test run.
fn programs() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap().to_path_buf();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = std::process::Command::new(cargo);
    // The whole workspace, as `make test` builds it: with fewer crates their features would differ and
    // everything would be built once more.
    build.args(["build", "--quiet", "--workspace", "--bins"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success(), "the daemons do not build");
    folder
}

fn spec(mode: Mode) -> Spec {
    Spec { mode, volume_bytes: VOLUME_BYTES, log_bytes: 64 << 20 }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What a client knows: the last answered content of each block, and what may have come after.
#[derive(Default)]
struct Memory {
    answered: BTreeMap<u64, u64>,
    unsure: BTreeMap<u64, Vec<u64>>,
}

fn block_of(stamp: u64) -> Vec<u8> {
    stamp.to_le_bytes().repeat(BLOCK / 8)
}

/// Writes until the primary dies under it; remembers every answer.
fn write_until_killed(
    cluster: &mut Cluster,
    primary: Side,
    victim: Side,
    memory: &mut Memory,
    random: &mut StdRng,
    stamp: &mut u64,
) -> u64 {
    let mut client = cluster.client(primary).unwrap();
    let count = random.random_range(1..400);
    let mut answered = 0;
    for index in 0..count + 100 {
        if index == count {
            cluster.kill(victim).unwrap();
        }
        *stamp += 1;
        let block = random.random_range(0..VOLUME_BYTES / BLOCK as u64);
        memory.unsure.entry(block).or_default().push(*stamp);
        let wrote = client.write(block * BLOCK as u64, &block_of(*stamp));
        if wrote.is_err() {
            break;
        }
        memory.answered.insert(block, *stamp);
        memory.unsure.remove(&block);
        answered += 1;
        if random.random_ratio(1, 20) && client.flush().is_err() {
            break;
        }
    }
    answered
}

fn verify(cluster: &Cluster, primary: Side, memory: &mut Memory) -> u64 {
    let mut client = cluster.client(primary).unwrap();
    let mut lost = 0;
    let blocks: Vec<_> = memory.answered.keys().chain(memory.unsure.keys()).copied().collect();
    for block in blocks {
        let found = client.read(block * BLOCK as u64, BLOCK).unwrap();
        let last = memory.answered.get(&block).copied().unwrap_or(0);
        let unsure = memory.unsure.remove(&block).unwrap_or_default();
        let now = [last].into_iter().chain(unsure).find(|stamp| found == block_of(*stamp));
        match now {
            // An unanswered write may have landed; from now on it is what the block holds.
            Some(stamp) if stamp > 0 => {
                memory.answered.insert(block, stamp);
            }
            Some(_) => {}
            None => lost += 1,
        }
    }
    lost
}

/// Each round kills one of the two in mid-write; a killed primary is replaced or restarted.
fn crash_rounds(mode: Mode, take_over: bool) {
    let (rounds, seed) = (number("HADRIAN_ROUNDS", 5), number("HADRIAN_SEED", 20_261_121));
    println!("mode={} rounds={rounds} seed={seed}", mode.name());
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::new(&programs(), spec(mode)).unwrap();
    let (mut primary, mut memory) = (Side::Alpha, Memory::default());
    let (mut stamp, mut lost, mut answered) = (0, 0, 0);
    for _ in 0..rounds {
        let victim = if random.random_bool(0.7) { primary } else { primary.other() };
        answered +=
            write_until_killed(&mut cluster, primary, victim, &mut memory, &mut random, &mut stamp);
        if victim == primary && take_over {
            primary = primary.other();
            cluster.tool(primary, &["takeover", "db", "--force", "--yes"]).unwrap();
            lost += verify(&cluster, primary, &mut memory);
        }
        cluster.start(victim).unwrap();
        cluster.await_peer(primary).unwrap();
        lost += verify(&cluster, primary, &mut memory);
    }
    println!("rounds={rounds} answered={answered} lost={lost}");
    assert_eq!(lost, 0, "seed {seed}: answered writes are missing");
    assert_equal_after_stop(cluster, primary);
}

/// Byte-equal replicas once both have stopped in order, the standby last.
fn assert_equal_after_stop(mut cluster: Cluster, primary: Side) {
    cluster.terminate(primary).unwrap();
    cluster.terminate(primary.other()).unwrap();
    let (a, b) = (cluster.store(Side::Alpha).unwrap(), cluster.store(Side::Beta).unwrap());
    let differs = |at: &usize| a[at * BLOCK..][..BLOCK] != b[at * BLOCK..][..BLOCK];
    let blocks: Vec<_> = (0..a.len() / BLOCK).filter(differs).collect();
    let stamp = |image: &[u8], at: usize| {
        u64::from_le_bytes(image[at * BLOCK..][..8].try_into().unwrap_or_default())
    };
    let shown: Vec<_> =
        blocks.iter().take(8).map(|at| (*at, stamp(&a, *at), stamp(&b, *at))).collect();
    assert!(
        blocks.is_empty(),
        "the backing stores differ in {} blocks; (block, stamp on alpha, on beta): {shown:?}",
        blocks.len()
    );
}

#[test]
fn in_sync_no_answered_write_is_lost_by_a_killed_daemon() {
    crash_rounds(Mode::Sync, true);
}

#[test]
fn in_nearsync_no_answered_write_is_lost_by_a_killed_daemon() {
    crash_rounds(Mode::Nearsync, true);
}

#[test]
fn in_async_a_killed_and_restarted_daemon_loses_nothing() {
    crash_rounds(Mode::Async, false);
}

#[test]
fn in_superasync_a_killed_and_restarted_daemon_loses_nothing() {
    crash_rounds(Mode::Superasync, false);
}

#[test]
fn planned_takeovers_there_and_back_lose_nothing() {
    let mut cluster = Cluster::new(&programs(), spec(Mode::Nearsync)).unwrap();
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
    let cluster = Cluster::new(&programs(), spec(Mode::Sync)).unwrap();
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

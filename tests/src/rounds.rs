//! Rounds of crashes: clients write, a daemon is killed in the middle of it, and everything that
//! was answered must be there; back in `peer`, both backing stores must be equal byte for byte.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hadrian_protocol::replica::Mode;
use hadrian_replicator::demo::{Client, Cluster, Compression, Side, Spec};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

const BLOCK: usize = 4096;
const VOLUME_BYTES: u64 = 64 << 20;
/// Clients that write at the same time, each into blocks of its own.
const WRITERS: u64 = 3;
const BLOCKS_EACH: u64 = VOLUME_BYTES / BLOCK as u64 / WRITERS;

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    /// Mode of the resource.
    pub mode: Mode,
    /// How often a daemon is killed.
    pub rounds: u64,
    /// From which everything random follows but the moment of the kill.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Copy, Default, Debug)]
pub struct Outcome {
    /// Writes that were answered.
    pub answered: u64,
    /// Blocks whose last answered write was missing.
    pub lost: u64,
}

/// A cluster for crash rounds, in `mode`; in async, the mode for slow links, with compression.
fn spec(mode: Mode) -> Spec {
    let compression = if mode == Mode::Async { Compression::Zstd } else { Compression::None };
    Spec { volume_bytes: VOLUME_BYTES, compression, ..Spec::new(mode) }
}

/// Runs the rounds. In sync and nearsync a killed primary is replaced by a forced takeover; in the
/// other modes a takeover may lose the gap (design §3), so there it is restarted and goes on.
///
/// # Errors
/// Where the cluster does not come back, or the replicas differ.
pub fn run(programs: &Path, rounds: Rounds) -> anyhow::Result<Outcome> {
    let take_over = matches!(rounds.mode, Mode::Sync | Mode::Nearsync);
    let mut random = StdRng::seed_from_u64(rounds.seed);
    let mut story = Story {
        cluster: Cluster::new(programs, spec(rounds.mode))?,
        primary: Side::Alpha,
        memories: (0..WRITERS).map(Memory::new).collect(),
        outcome: Outcome::default(),
    };
    for round in 1..=rounds.rounds {
        story
            .round(&mut random, take_over)
            .with_context(|| format!("round {round} of seed {}", rounds.seed))?;
    }
    Ok(story.outcome)
}

struct Story {
    cluster: Cluster,
    primary: Side,
    memories: Vec<Memory>,
    outcome: Outcome,
}

impl Story {
    fn round(&mut self, random: &mut StdRng, take_over: bool) -> anyhow::Result<()> {
        let victim = if random.random_bool(0.7) { self.primary } else { self.primary.other() };
        self.write_until_killed(victim, random)?;
        if victim == self.primary && take_over {
            self.primary = self.primary.other();
            self.cluster.tool(self.primary, &["takeover", "db", "--force", "--yes"])?;
            self.verify()?;
        }
        self.cluster.start(victim)?;
        self.cluster.await_peer(self.primary)?;
        self.verify()?;
        // Some rounds go on from stores that lag behind, as a second crash would find them.
        if random.random_bool(0.7) { self.compare_stores() } else { Ok(()) }
    }

    /// All writers write; the victim dies at some moment in between.
    fn write_until_killed(&mut self, victim: Side, random: &mut StdRng) -> anyhow::Result<()> {
        let writes = random.random_range(1..400);
        let moment = Duration::from_micros(random.random_range(0..60_000));
        let (cluster, primary) = (&self.cluster, self.primary);
        let pid = cluster.pid(victim).and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(rustix::process::Pid::from_raw).context("the victim runs")?;
        let mut clients = Vec::new();
        for memory in &mut self.memories {
            let random = StdRng::seed_from_u64(random.random());
            clients.push((cluster.client(primary)?, memory, random));
        }
        let answered: u64 = thread::scope(|scope| {
            let writers: Vec<_> = clients
                .into_iter()
                .map(|(client, memory, random)| {
                    scope.spawn(move || memory.write(client, writes, random))
                })
                .collect();
            // Not to wait for anything: this is the random moment.
            thread::sleep(moment);
            let killed = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            let answered = writers.into_iter().flat_map(|writer| writer.join()).sum();
            killed.map(|()| answered)
        })?;
        self.outcome.answered += answered;
        // It is dead; this takes its remains away.
        self.cluster.kill(victim)?;
        Ok(())
    }

    fn verify(&mut self) -> anyhow::Result<()> {
        let mut client = self.cluster.client(self.primary)?;
        for memory in &mut self.memories {
            self.outcome.lost += memory.verify(&mut client)?;
        }
        Ok(())
    }

    fn compare_stores(&self) -> anyhow::Result<()> {
        self.cluster.await_applied(self.primary)?;
        let (a, b) = (self.cluster.store(Side::Alpha)?, self.cluster.store(Side::Beta)?);
        let blocks = a.chunks(BLOCK).zip(b.chunks(BLOCK)).enumerate();
        let differing: Vec<_> = blocks
            .filter(|(_, (a, b))| a != b)
            .map(|(at, (a, b))| (at, stamp_of(a), stamp_of(b)))
            .collect();
        if a.len() != b.len() || !differing.is_empty() {
            bail!(
                "the backing stores differ in {} blocks; (block, stamp on alpha, on beta): {:?}",
                differing.len(),
                &differing[..differing.len().min(8)]
            );
        }
        Ok(())
    }
}

/// What one client knows: the last answered content of each of its blocks, and what may have come
/// after it.
struct Memory {
    first: u64,
    answered: BTreeMap<u64, u64>,
    unsure: BTreeMap<u64, Vec<u64>>,
    stamp: u64,
}

impl Memory {
    fn new(writer: u64) -> Self {
        // Stamps tell their writer, so that a block in the wrong place is seen.
        let stamp = (writer + 1) << 48;
        Self {
            first: writer * BLOCKS_EACH,
            answered: BTreeMap::new(),
            unsure: BTreeMap::new(),
            stamp,
        }
    }

    /// Writes up to `count` times; how many were answered before the connection broke.
    fn write(&mut self, mut client: Client, count: u64, mut random: StdRng) -> u64 {
        for answered in 0..count {
            let blocks = if random.random_ratio(1, 10) { random.random_range(2..32) } else { 1 };
            let start = self.first + random.random_range(0..=BLOCKS_EACH - blocks);
            self.stamp += 1;
            let stamp = self.stamp;
            for block in start..start + blocks {
                self.unsure.entry(block).or_default().push(stamp);
            }
            let data = block_of(stamp).repeat(usize::try_from(blocks).unwrap_or(1));
            if client.write(start * BLOCK as u64, &data).is_err() {
                return answered;
            }
            for block in start..start + blocks {
                self.unsure.remove(&block);
                self.answered.insert(block, stamp);
            }
            if random.random_ratio(1, 20) && client.flush().is_err() {
                return answered + 1;
            }
        }
        count
    }

    /// Reads every block that was written; how many do not hold what was answered.
    fn verify(&mut self, client: &mut Client) -> anyhow::Result<u64> {
        let mut lost = 0;
        let blocks: Vec<_> = self.answered.keys().chain(self.unsure.keys()).copied().collect();
        for block in blocks {
            let found = client.read(block * BLOCK as u64, BLOCK)?;
            let last = self.answered.get(&block).copied().unwrap_or(0);
            let unsure = self.unsure.remove(&block).unwrap_or_default();
            match [last].into_iter().chain(unsure).find(|stamp| found == block_of(*stamp)) {
                // An unanswered write may have landed; from now on it is what the block holds.
                Some(stamp) if stamp > 0 => {
                    self.answered.insert(block, stamp);
                }
                Some(_) => {}
                None => lost += 1,
            }
        }
        Ok(lost)
    }
}

fn block_of(stamp: u64) -> Vec<u8> {
    stamp.to_le_bytes().repeat(BLOCK / 8)
}

fn stamp_of(block: &[u8]) -> u64 {
    block.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

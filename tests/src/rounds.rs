//! Rounds of crashes: clients write, a daemon is killed in the middle of it, and everything that
//! was answered must be there; back in `peer`, both backing stores must be equal byte for byte.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use hadrian_protocol::replica::Mode;
use hadrian_replicator::demo::{Cluster, Compression, Side, Spec};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::Signal;

use crate::memory::{LOG_BYTES, VOLUME_BYTES, Writers, compare_stores};

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
    Spec { volume_bytes: VOLUME_BYTES, log_bytes: LOG_BYTES, compression, ..Spec::new(mode) }
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
        writers: Writers::new(),
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
    writers: Writers,
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
        if random.random_bool(0.7) { compare_stores(&self.cluster, self.primary) } else { Ok(()) }
    }

    /// All writers write; the victim dies at some moment in between.
    fn write_until_killed(&mut self, victim: Side, random: &mut StdRng) -> anyhow::Result<()> {
        let writes = random.random_range(1..400);
        let moment = Duration::from_micros(random.random_range(0..60_000));
        let (cluster, primary) = (&self.cluster, self.primary);
        let answered = self.writers.write_during((cluster, primary), random, writes, || {
            // Not to wait for anything: this is the random moment.
            thread::sleep(moment);
            cluster.signal(victim, Signal::KILL)
        })?;
        self.outcome.answered += answered;
        // It is dead; this takes its remains away.
        self.cluster.kill(victim)?;
        Ok(())
    }

    fn verify(&mut self) -> anyhow::Result<()> {
        self.outcome.lost += self.writers.verify(&self.cluster, self.primary)?;
        Ok(())
    }
}

//! Rounds of troubles between two hosts: the link is cut one way or both ways, a daemon stands
//! still past every timer, the standby takes over by proof meanwhile. Nothing that was answered
//! may be missing, and back in `peer` both backing stores must be equal byte for byte.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use hadrian_protocol::replica::Mode;
use hadrian_replicator::demo::{Cluster, Side, Spec};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::Signal;

use crate::memory::{LOG_BYTES, VOLUME_BYTES, Writers, compare_stores};
use crate::namespaces::{Cut, Namespaces};
use crate::rounds::{Outcome, Rounds};

const TIMEOUT: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(4);
/// Silence, window, and time to spare.
const PAST_EVERY_TIMER: Duration = Duration::from_secs(6);

/// What goes wrong in a round.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// The link swallows everything for so long.
    LinkCut(Cut, Duration),
    /// A daemon stands still for so long.
    StandsStill(Side, Duration),
    /// The primary stands still, and within the window the standby takes over by proof.
    Overtaken,
    /// The link is cut, the primary dies, and within the window the standby takes over by proof.
    CutAndKilled,
}

impl Trouble {
    fn draw(random: &mut StdRng, primary: Side, mode: Mode) -> Self {
        // Proofs need a mode in which every answer waits for the standby.
        let kinds = if matches!(mode, Mode::Sync | Mode::Nearsync) { 6 } else { 5 };
        let side = if random.random_bool(0.5) { Side::Alpha } else { Side::Beta };
        let short = Duration::from_millis(random.random_range(50..4_000));
        let time = if random.random_bool(0.5) { short } else { PAST_EVERY_TIMER };
        match random.random_range(0..kinds) {
            0 => Self::LinkCut(Cut::Both, time),
            1 | 2 => Self::LinkCut(Cut::From(side), time),
            3 => Self::StandsStill(primary, time),
            4 => Self::StandsStill(primary.other(), time),
            _ if random.random_bool(0.5) => Self::Overtaken,
            _ => Self::CutAndKilled,
        }
    }
}

/// Runs the rounds, in two network namespaces of their own.
///
/// # Errors
/// Where the cluster does not come back, or the replicas differ.
pub fn run(programs: &Path, rounds: Rounds) -> anyhow::Result<Outcome> {
    let spaces = Namespaces::new()?;
    let mut random = StdRng::seed_from_u64(rounds.seed);
    let places = Some(spaces.places());
    let timers = Some((TIMEOUT, WINDOW));
    let sizes = Spec { volume_bytes: VOLUME_BYTES, log_bytes: LOG_BYTES, ..Spec::new(rounds.mode) };
    let spec = Spec { timers, places, ..sizes };
    let mut story = Story {
        cluster: Cluster::new(programs, spec)?,
        spaces,
        primary: Side::Alpha,
        writers: Writers::new(),
        outcome: Outcome::default(),
    };
    for round in 1..=rounds.rounds {
        let trouble = Trouble::draw(&mut random, story.primary, rounds.mode);
        story.round(&mut random, trouble).with_context(|| {
            format!("round {round} of seed {}, {}: {trouble:?}", rounds.seed, rounds.mode.name())
        })?;
    }
    Ok(story.outcome)
}

struct Story {
    cluster: Cluster,
    spaces: Namespaces,
    primary: Side,
    writers: Writers,
    outcome: Outcome,
}

impl Story {
    fn round(&mut self, random: &mut StdRng, trouble: Trouble) -> anyhow::Result<()> {
        match trouble {
            Trouble::LinkCut(way, time) => {
                self.write_through(random, |this| {
                    this.spaces.cut(way)?;
                    thread::sleep(time);
                    this.spaces.heal()
                })?;
            }
            Trouble::StandsStill(side, time) => {
                self.write_through(random, |this| {
                    this.cluster.signal(side, Signal::STOP)?;
                    thread::sleep(time);
                    this.cluster.signal(side, Signal::CONT)
                })?;
            }
            Trouble::Overtaken => self.overtaken(random)?,
            Trouble::CutAndKilled => self.cut_and_killed(random)?,
        }
        self.cluster.await_peer(self.primary)?;
        self.outcome.lost += self.writers.verify(&self.cluster, self.primary)?;
        compare_stores(&self.cluster, self.primary)
    }

    /// All write, a trouble comes and goes at some moment in between, and they write on.
    fn write_through(
        &mut self,
        random: &mut StdRng,
        trouble: impl FnOnce(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let moment = Duration::from_micros(random.random_range(0..60_000));
        let mut writers = std::mem::replace(&mut self.writers, Writers::new());
        let answered = writers.write_during((&self.cluster, self.primary), random, 800, || {
            // Not to wait for anything: this is the random moment.
            thread::sleep(moment);
            trouble(self)
        });
        self.writers = writers;
        self.outcome.answered += answered?;
        Ok(())
    }

    fn overtaken(&mut self, random: &mut StdRng) -> anyhow::Result<()> {
        let (old, new) = (self.primary, self.primary.other());
        self.write_through(random, |this| {
            this.cluster.signal(old, Signal::STOP)?;
            let taken = this.take_over_by_proof(new);
            this.cluster.signal(old, Signal::CONT)?;
            taken
        })?;
        self.primary = new;
        Ok(())
    }

    fn cut_and_killed(&mut self, random: &mut StdRng) -> anyhow::Result<()> {
        let (old, new) = (self.primary, self.primary.other());
        self.write_through(random, |this| {
            this.spaces.cut(Cut::Both)?;
            this.cluster.signal(old, Signal::KILL)
        })?;
        self.cluster.kill(old)?;
        self.take_over_by_proof(new)?;
        self.primary = new;
        self.outcome.lost += self.writers.verify(&self.cluster, new)?;
        self.spaces.heal()?;
        self.cluster.start(old)
    }

    fn take_over_by_proof(&self, new: Side) -> anyhow::Result<()> {
        self.cluster.tool(new, &["takeover", "db", "--peer-window-only", "--yes"]).map(drop)
    }
}

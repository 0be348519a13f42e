//! Rounds of faults in a cluster with ownership marks, which fails over by itself: daemons are
//! killed or stand still past their lease, the link is cut, markers hang, for one side or the
//! other, alone or together, while clients write. Nothing that was answered may be missing, no
//! deposed primary may answer a write, and a takeover comes within the bound that the
//! configuration gives.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hadrian_protocol::marks::lease::Timing;
use hadrian_protocol::node::Standing;
use hadrian_protocol::replica::Mode;
use hadrian_replicator::demo::{Client, Cluster, Side, Spec};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::Signal;

use crate::memory::{LOG_BYTES, VOLUME_BYTES, Writers, compare_stores};
use crate::namespaces::{Cut, Namespaces};
use crate::ways::Ways;

const TIMEOUT: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(1);
/// Times of a lease that let a round be short.
pub const TIMING: Timing = Timing {
    lease: Duration::from_secs(3),
    renew: Duration::from_millis(300),
    io: Duration::from_millis(300),
    ..Timing::DEFAULT
};
/// What starting a process and asking it takes on a busy machine.
const SLACK: Duration = Duration::from_secs(3);
/// Longer than any lease, window or silence.
const LONG: Duration = Duration::from_secs(6);
/// Beyond what the writers of the story use.
const SCRATCH: u64 = VOLUME_BYTES;
/// Longest that a deposed primary is given to answer what it must not.
const PROBE: Duration = Duration::from_millis(500);

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    /// How many faults.
    pub rounds: u64,
    /// How many markers: one or three.
    pub markers: usize,
    /// From which everything random follows but the moments.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Copy, Default, Debug)]
pub struct Outcome {
    /// Writes that were answered.
    pub answered: u64,
    /// Blocks whose last answered write was missing.
    pub lost: u64,
    /// Writes that a deposed primary has answered.
    pub double_writers: u64,
    /// Changes of the primary.
    pub takeovers: u64,
    /// The longest from a fault to the first client of the new primary.
    pub longest: Duration,
}

/// What came of one fault.
#[derive(Clone, Copy, Default)]
struct Happened {
    /// Until another member served.
    took: Duration,
    double_writers: u64,
}

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A daemon is killed, and started again later.
    Killed,
    /// It stands still past its lease, and goes on.
    StandsStill,
    /// The link is cut.
    LinkCut,
    /// A majority of the markers does not answer it.
    MarksHang,
    /// Both.
    CutOff,
}

impl Fault {
    const ALL: [Self; 5] =
        [Self::Killed, Self::StandsStill, Self::LinkCut, Self::MarksHang, Self::CutOff];

    /// Whether it costs a primary what it owns.
    const fn deposes(self) -> bool {
        matches!(self, Self::Killed | Self::StandsStill | Self::CutOff)
    }
}

/// Runs the rounds, in two network namespaces of their own.
///
/// # Errors
/// Where the cluster does not do what it must.
pub fn run(programs: &Path, rounds: Rounds) -> anyhow::Result<Outcome> {
    let mut random = StdRng::seed_from_u64(rounds.seed);
    let mut story = Story::begin(programs, rounds.markers)?;
    for round in 1..=rounds.rounds {
        let fault = Fault::ALL[random.random_range(0..Fault::ALL.len())];
        let side = if random.random_bool(0.6) { story.primary } else { story.primary.other() };
        story.round(&mut random, fault, side).with_context(|| {
            format!("round {round} of seed {}: {fault:?} of {side:?}", rounds.seed)
        })?;
    }
    Ok(story.outcome)
}

/// A cluster under one fault after another.
pub struct Story {
    cluster: Cluster,
    spaces: Namespaces,
    ways: Ways,
    primary: Side,
    writers: Writers,
    /// What came of it so far.
    pub outcome: Outcome,
}

impl Story {
    /// Two members in peer, with so many markers.
    ///
    /// # Errors
    /// With what went wrong.
    pub fn begin(programs: &Path, markers: usize) -> anyhow::Result<Self> {
        let (spaces, ways) = (Namespaces::new()?, Ways::new(markers)?);
        let [alpha, beta] = spaces.places();
        let places = [ways.through(Side::Alpha, alpha), ways.through(Side::Beta, beta)];
        let spec = Spec {
            volume_bytes: VOLUME_BYTES + (1 << 20),
            log_bytes: LOG_BYTES,
            timers: Some((TIMEOUT, WINDOW)),
            places: Some(places),
            markers: ways.markers(),
            lease: TIMING,
            settings: "auto_takeover = true\nauto_takeover_limit = 0\n".into(),
            ..Spec::new(Mode::Nearsync)
        };
        Ok(Self {
            cluster: Cluster::new(programs, spec)?,
            spaces,
            ways,
            primary: Side::Alpha,
            writers: Writers::new(),
            outcome: Outcome::default(),
        })
    }

    /// Who leads now.
    #[must_use]
    pub fn primary(&self) -> Side {
        self.primary
    }

    /// One fault comes while clients write, has its consequences, and goes.
    ///
    /// # Errors
    /// Where those are not what they must be.
    pub fn round(&mut self, random: &mut StdRng, fault: Fault, side: Side) -> anyhow::Result<()> {
        let old = self.primary;
        let happened = self.write_into(random, fault, side)?;
        self.outcome.double_writers += happened.double_writers;
        if fault.deposes() && side == old {
            self.judge(happened.took)?;
        } else {
            self.must_lead(old)?;
        }
        if fault == Fault::Killed {
            self.cluster.start(side)?;
        }
        self.cluster.await_peer(self.primary)?;
        self.outcome.lost += self.writers.verify(&self.cluster, self.primary)?;
        compare_stores(&self.cluster, self.primary)
    }

    /// Clients write, and at some moment the fault comes, has its time, and goes.
    fn write_into(
        &mut self,
        random: &mut StdRng,
        fault: Fault,
        side: Side,
    ) -> anyhow::Result<Happened> {
        let moment = Duration::from_micros(random.random_range(0..60_000));
        let mut writers = std::mem::replace(&mut self.writers, Writers::new());
        let mut happened = Happened::default();
        let answered = writers.write_during((&self.cluster, self.primary), random, 400, || {
            // Not to wait for anything: this is the random moment.
            thread::sleep(moment);
            happened = self.bring_and_mend(fault, side)?;
            Ok(())
        });
        self.writers = writers;
        self.outcome.answered += answered?;
        if fault == Fault::Killed {
            // It is dead; this takes its remains away.
            self.cluster.kill(side)?;
        }
        Ok(happened)
    }

    fn bring_and_mend(&self, fault: Fault, side: Side) -> anyhow::Result<Happened> {
        // Opened before, so that the old primary cannot just turn it away.
        let mut probe = self.cluster.client(self.primary)?;
        let mut happened = Happened::default();
        let began = Instant::now();
        self.bring(fault, side)?;
        if !fault.deposes() || side != self.primary {
            thread::sleep(LONG);
            self.mend(fault, side)?;
            return Ok(happened);
        }
        self.await_lead(self.primary.other())?;
        happened.took = began.elapsed();
        if fault == Fault::StandsStill {
            self.mend(fault, side)?;
        }
        if fault != Fault::Killed {
            happened.double_writers = probe_deposed(&mut probe)?;
        }
        self.mend(fault, side)?;
        Ok(happened)
    }

    fn bring(&self, fault: Fault, side: Side) -> anyhow::Result<()> {
        match fault {
            Fault::Killed => self.cluster.signal(side, Signal::KILL),
            Fault::StandsStill => self.cluster.signal(side, Signal::STOP),
            Fault::LinkCut => self.spaces.cut(Cut::Both),
            Fault::MarksHang => self.hang(side),
            Fault::CutOff => {
                self.hang(side)?;
                self.spaces.cut(Cut::Both)
            }
        }
    }

    /// A majority of the markers.
    fn hang(&self, side: Side) -> anyhow::Result<()> {
        (0..=self.ways.count() / 2).try_for_each(|marker| self.ways.hang(side, marker))
    }

    /// All but a killed daemon.
    fn mend(&self, fault: Fault, side: Side) -> anyhow::Result<()> {
        match fault {
            Fault::Killed => Ok(()),
            Fault::StandsStill => self.cluster.signal(side, Signal::CONT),
            Fault::LinkCut => self.spaces.heal(),
            Fault::MarksHang => self.heal(side),
            Fault::CutOff => {
                self.heal(side)?;
                self.spaces.heal()
            }
        }
    }

    fn heal(&self, side: Side) -> anyhow::Result<()> {
        (0..=self.ways.count() / 2).try_for_each(|marker| self.ways.heal(side, marker))
    }

    /// The other side leads now, and has come to in time.
    fn judge(&mut self, took: Duration) -> anyhow::Result<()> {
        let bound = TIMING.takeover_bound() + TIMEOUT + SLACK;
        if took > bound {
            bail!("the takeover took {took:?}, more than {bound:?}");
        }
        self.primary = self.primary.other();
        self.outcome.takeovers += 1;
        self.outcome.longest = self.outcome.longest.max(took);
        Ok(())
    }

    fn await_lead(&self, side: Side) -> anyhow::Result<()> {
        self.cluster.client(side).map(drop)
    }

    fn must_lead(&self, side: Side) -> anyhow::Result<()> {
        let leads = |side| {
            let node = self.cluster.status(side).and_then(|status| status.node);
            node.is_some_and(|node| node.standing == Standing::Primary)
        };
        if leads(side.other()) || !leads(side) {
            bail!("{side:?} should lead still: {:?}", self.cluster.status(side));
        }
        let mut client = self.cluster.client(side)?;
        Ok(client.write(SCRATCH, &[0xEE; 4096])?)
    }
}

/// A client of the deposed primary writes on, after another member has served: how many of its
/// writes are answered.
fn probe_deposed(probe: &mut Client) -> anyhow::Result<u64> {
    probe.wait_at_most(PROBE)?;
    Ok(u64::from(probe.write(SCRATCH, &[0xDD; 4096]).is_ok()))
}

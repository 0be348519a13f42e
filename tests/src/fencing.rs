//! Rounds of faults in a cluster with ownership marks, which fails over by itself: daemons are
//! killed or stand still past their lease, the link is cut, markers or etcd hang, for one side or
//! the other or both, alone or together, while clients write; etcd is killed and started again.
//! Nothing that was answered may be missing, no deposed primary may answer a write, and a takeover
//! comes within the bound that the configuration gives.

use std::iter::Sum;
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
use crate::reach::{Reach, Register};

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
/// Longest that a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Beyond what the writers of the story use.
const SCRATCH: u64 = VOLUME_BYTES;
/// Behind that, what the members of a round show to readers.
const SHOWN: u64 = VOLUME_BYTES + 8192;
/// Longest that a deposed primary is given to answer what it must not.
const PROBE: Duration = Duration::from_millis(500);

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    /// How many faults.
    pub rounds: u64,
    /// What holds the marks.
    pub register: Register,
    /// From which everything random follows but the moments.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Copy, Default, Debug)]
pub struct Outcome {
    /// Faults that came.
    pub rounds: u64,
    /// Writes that were answered.
    pub answered: u64,
    /// Blocks whose last answered write was missing.
    pub lost: u64,
    /// Writes that a deposed primary has answered.
    pub double_writers: u64,
    /// Changes of the primary.
    pub takeovers: u64,
    /// The longest from a fault, or the return of an etcd that was killed with it, to the first
    /// client of the new primary.
    pub longest: Duration,
}

impl Sum for Outcome {
    fn sum<I: Iterator<Item = Self>>(outcomes: I) -> Self {
        outcomes.fold(Self::default(), |one, other| Self {
            rounds: one.rounds + other.rounds,
            answered: one.answered + other.answered,
            lost: one.lost + other.lost,
            double_writers: one.double_writers + other.double_writers,
            takeovers: one.takeovers + other.takeovers,
            longest: one.longest.max(other.longest),
        })
    }
}

/// What came of one fault.
#[derive(Clone, Copy, Default)]
struct Happened {
    /// Until another member served.
    took: Duration,
    /// Until what holds the marks was back.
    without: Duration,
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
    /// A majority of the markers answers it with errors.
    MarksFail,
    /// That, and the link is cut.
    CutOffByErrors,
    /// What holds the marks is gone for both members.
    MarksGone,
}

impl Fault {
    const ALL: [Self; 8] = [
        Self::Killed,
        Self::StandsStill,
        Self::LinkCut,
        Self::MarksHang,
        Self::CutOff,
        Self::MarksFail,
        Self::CutOffByErrors,
        Self::MarksGone,
    ];

    /// Whether it costs a primary what it owns.
    const fn deposes(self) -> bool {
        matches!(self, Self::Killed | Self::StandsStill | Self::CutOff | Self::CutOffByErrors)
    }
}

/// Runs the rounds, in two network namespaces of their own.
///
/// # Errors
/// Where the cluster does not do what it must.
pub fn run(programs: &Path, rounds: Rounds) -> anyhow::Result<Outcome> {
    let mut random = StdRng::seed_from_u64(rounds.seed);
    let mut story = Story::begin(programs, rounds.register)?;
    for round in 1..=rounds.rounds {
        let fault = Fault::ALL[random.random_range(0..Fault::ALL.len())];
        let side = if random.random_bool(0.6) { story.primary } else { story.primary.other() };
        // A takeover may have to wait for etcd; what goes on needs it within the lease.
        let deposes = fault.deposes() && side == story.primary;
        let restarts = rounds.register == Register::Etcd && deposes && random.random_bool(0.5);
        story.restarts = restarts;
        story.round(&mut random, fault, side).with_context(|| {
            let etcd = if restarts { ", and etcd is killed" } else { "" };
            format!("round {round} of seed {}: {fault:?} of {side:?}{etcd}", rounds.seed)
        })?;
    }
    Ok(story.outcome)
}

/// A cluster under one fault after another.
pub struct Story {
    cluster: Cluster,
    spaces: Namespaces,
    reach: Reach,
    /// What holds the marks is killed, and started again, right after the next fault.
    restarts: bool,
    primary: Side,
    writers: Writers,
    /// What came of it so far.
    pub outcome: Outcome,
}

impl Story {
    /// Two members in peer, with marks on this.
    ///
    /// # Errors
    /// With what went wrong.
    pub fn begin(programs: &Path, register: Register) -> anyhow::Result<Self> {
        let spaces = Namespaces::new()?;
        let reach = Reach::new(register, &spaces)?;
        let [alpha, beta] = spaces.places();
        let places = [reach.through(Side::Alpha, alpha), reach.through(Side::Beta, beta)];
        let spec = Spec {
            volume_bytes: VOLUME_BYTES + (1 << 20),
            log_bytes: LOG_BYTES,
            timers: Some((TIMEOUT, WINDOW)),
            places: Some(places),
            markers: reach.markers(),
            etcd: reach.etcd(),
            lease: TIMING,
            settings: "auto_takeover = true\nauto_takeover_limit = 0\n".into(),
            ..Spec::new(Mode::Nearsync)
        };
        Ok(Self {
            cluster: Cluster::new(programs, spec)?,
            spaces,
            reach,
            restarts: false,
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
        self.outcome.rounds += 1;
        let happened = self.write_into(random, fault, side)?;
        self.outcome.double_writers += happened.double_writers;
        if fault.deposes() && side == old {
            self.judge(happened)?;
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

    /// What holds the marks is gone and the link is cut, for longer than any lease: nobody serves.
    /// It comes back, the link does not: one of the two serves, with all that was answered.
    ///
    /// # Errors
    /// Where it is otherwise.
    pub fn lose_everything(&mut self, random: &mut StdRng) -> anyhow::Result<()> {
        let mut writers = std::mem::replace(&mut self.writers, Writers::new());
        let answered = writers.write_during((&self.cluster, self.primary), random, 400, || {
            let mut probe = self.cluster.client(self.primary)?;
            self.reach.stop()?;
            self.spaces.cut(Cut::Both)?;
            thread::sleep(LONG);
            for side in [Side::Alpha, Side::Beta] {
                self.cluster.await_status(side, "no lease")?;
            }
            if probe_deposed(&mut probe)? > 0 || self.leads(self.primary.other()) {
                bail!("somebody serves without marks and link");
            }
            self.reach.start()
        });
        self.writers = writers;
        self.outcome.answered += answered?;
        self.primary = self.await_leader()?;
        self.outcome.lost += self.writers.verify(&self.cluster, self.primary)?;
        self.spaces.heal()?;
        self.cluster.await_peer(self.primary)?;
        compare_stores(&self.cluster, self.primary)
    }

    /// Who answers a write, as soon as somebody does.
    fn await_leader(&self) -> anyhow::Result<Side> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            for side in [Side::Alpha, Side::Beta].into_iter().filter(|side| self.leads(*side)) {
                let mut client = self.cluster.client(side)?;
                client.wait_at_most(PROBE)?;
                if client.write(SCRATCH, &[0xEE; 4096]).is_ok() {
                    return Ok(side);
                }
            }
        }
        bail!("nobody serves again");
    }

    fn leads(&self, side: Side) -> bool {
        let node = self.cluster.status(side).and_then(|status| status.node);
        node.is_some_and(|node| node.standing == Standing::Primary)
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
        if self.restarts {
            self.reach.stop()?;
            self.reach.start()?;
            happened.without = began.elapsed();
        }
        if !fault.deposes() || side != self.primary {
            thread::sleep(LONG);
            self.mend(fault, side)?;
            return Ok(happened);
        }
        self.await_lead(self.primary.other())?;
        happened.took = began.elapsed();
        if fault == Fault::StandsStill {
            self.ask_the_sleeper(&mut probe)?;
        }
        if fault != Fault::Killed {
            happened.double_writers = probe_deposed(&mut probe)?;
        }
        self.mend(fault, side)?;
        Ok(happened)
    }

    /// A client asks an old primary that stands still, after another has written: it wakes up, and
    /// must not show what was there before.
    fn ask_the_sleeper(&self, probe: &mut Client) -> anyhow::Result<()> {
        let stamp = u8::try_from(self.outcome.rounds % 255).unwrap_or_default() + 1;
        self.cluster.client(self.primary.other())?.write(SHOWN, &[stamp; 4096])?;
        probe.ask_read(SHOWN, 4096)?;
        self.mend(Fault::StandsStill, self.primary)?;
        probe.wait_at_most(PROBE)?;
        match probe.take_read(4096) {
            Ok(shown) if shown != [stamp; 4096] => bail!("a deposed primary shows the past"),
            _ => Ok(()),
        }
    }

    fn bring(&self, fault: Fault, side: Side) -> anyhow::Result<()> {
        match fault {
            Fault::Killed => self.cluster.signal(side, Signal::KILL),
            Fault::StandsStill => self.cluster.signal(side, Signal::STOP),
            Fault::LinkCut => self.spaces.cut(Cut::Both),
            Fault::MarksHang => self.reach.hang(side),
            Fault::CutOff => {
                self.reach.hang(side)?;
                self.spaces.cut(Cut::Both)
            }
            Fault::MarksFail => self.reach.fail(side),
            Fault::CutOffByErrors => {
                self.reach.fail(side)?;
                self.spaces.cut(Cut::Both)
            }
            Fault::MarksGone => self.reach.stop(),
        }
    }

    /// All but a killed daemon.
    fn mend(&self, fault: Fault, side: Side) -> anyhow::Result<()> {
        match fault {
            Fault::Killed => Ok(()),
            Fault::StandsStill => self.cluster.signal(side, Signal::CONT),
            Fault::LinkCut => self.spaces.heal(),
            Fault::MarksHang | Fault::MarksFail => self.reach.heal(side),
            Fault::CutOff | Fault::CutOffByErrors => {
                self.reach.heal(side)?;
                self.spaces.heal()
            }
            Fault::MarksGone => self.reach.start(),
        }
    }

    /// The other side leads now, and has come to in time.
    fn judge(&mut self, Happened { took, without, .. }: Happened) -> anyhow::Result<()> {
        let bound = without + TIMING.takeover_bound() + TIMEOUT + SLACK;
        if took > bound {
            bail!("the takeover took {took:?}, more than {bound:?}");
        }
        self.primary = self.primary.other();
        self.outcome.takeovers += 1;
        self.outcome.longest = self.outcome.longest.max(took.saturating_sub(without));
        Ok(())
    }

    fn await_lead(&self, side: Side) -> anyhow::Result<()> {
        self.cluster.client(side).map(drop)
    }

    fn must_lead(&self, side: Side) -> anyhow::Result<()> {
        if self.leads(side.other()) || !self.leads(side) {
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

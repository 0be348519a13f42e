//! What a run is made of, and plans made from seeds.

mod episodes;
mod happening;

use std::time::Duration;

use hadrian_protocol::marks::lease::Timing;
use hadrian_protocol::replica::Mode;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::{MS, Micros, SECOND};
use episodes::{Episodes, Mood};
pub use happening::{Anew, Happening, Way};

/// A member by its index.
pub type Host = u8;

/// Everything that a run depends on.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Of all choices that are not in the list: delays, what clients do, what a power loss keeps.
    pub seed: u64,
    /// Members with a replica.
    pub members: u8,
    /// The mode of the resource at the start.
    pub mode: Mode,
    /// `commit = "write"`.
    pub commit_on_write: bool,
    /// How long answers are held for a lost standby.
    pub peer_window: Duration,
    /// Nobody goes on alone without an operator (`on_window_end = "hold"`).
    pub hold: bool,
    /// A control record decides about owner and set.
    pub record: bool,
    /// Where it is kept; without, a register that nobody has to build stands for it.
    pub marks: Option<Marks>,
    /// Longest that an answer waits for a connected standby; zero: for ever.
    pub peer_wait_limit: Duration,
    /// Standbys apply so much later.
    pub replay_delay: Duration,
    /// Bytes that a standby may have received and not applied.
    pub spool_limit: u64,
    /// Bytes of frames in memory above which a standby leaves them in its log.
    pub spool_memory: u64,
    /// Bytes of log whose large changes may wait for the image; clients then write whole pages
    /// as well.
    pub wait_bytes: u64,
    /// Members keep history, so that they can go back.
    pub history: bool,
    /// Weaker modes for slow standbys.
    pub degrade: Vec<Mode>,
    /// Bytes of each member's log.
    pub log_bytes: u64,
    /// Clients that work at the same time.
    pub clients: u8,
    /// Mean time between two requests of one client.
    pub pace: Micros,
    /// When the last happening is over and everything is mended.
    pub length: Micros,
    /// How many thousandths the clock of each member runs faster than the world's; members that are
    /// not named get theirs from the seed, up to four either way.
    pub drifts: Vec<i64>,
    /// What happens, in the order of time.
    pub happenings: Vec<(Micros, Happening)>,
}

/// Ownership marks: the control record is decided over markers, and members hold leases there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marks {
    /// One marker or three.
    pub markers: u8,
    /// Members of the in-sync set take over by themselves.
    pub auto_takeover: bool,
    /// Clients of a primary without a lease are thrown out, and not just held.
    pub fails: bool,
    /// There is a command that fences an owner by force: it cuts its power.
    pub fences: bool,
}

impl Marks {
    /// How members time their leases: as short as the rules let them be, so that a run sees many
    /// end.
    pub const TIMING: Timing = Timing {
        lease: Duration::from_secs(1),
        renew: Duration::from_millis(100),
        io: Duration::from_millis(300),
        watchdog: Duration::ZERO,
        drift_ppm: 10_000,
    };
}

impl Plan {
    /// Two members in nearsync, a window of two seconds, two clients, and nothing that happens.
    #[must_use]
    pub fn quiet(seed: u64) -> Self {
        Self {
            seed,
            members: 2,
            mode: Mode::Nearsync,
            commit_on_write: false,
            peer_window: Duration::from_secs(2),
            hold: false,
            record: false,
            marks: None,
            peer_wait_limit: Duration::ZERO,
            replay_delay: Duration::ZERO,
            spool_limit: u64::MAX,
            spool_memory: u64::MAX,
            wait_bytes: 0,
            history: false,
            degrade: Vec::new(),
            log_bytes: 4 << 20,
            clients: 2,
            pace: 8 * MS,
            length: 3 * SECOND,
            drifts: Vec::new(),
            happenings: Vec::new(),
        }
    }

    /// The settings in words; what is as usual is not said.
    #[must_use]
    pub fn settings(&self) -> String {
        let (members, mode, clients) = (self.members, self.mode.name(), self.clients);
        let mut words = vec![format!("{members} members"), mode.into()];
        words.push(format!("a peer window of {:?}", self.peer_window));
        words.push(format!("{clients} clients, a request of each every {} ms", self.pace / MS));
        words.push(format!("a log of {} KiB", self.log_bytes >> 10));
        let told = [
            (self.record && self.marks.is_none(), "a control record".to_string()),
            (self.hold, "on_window_end = hold".into()),
            (self.commit_on_write, "commit = write".into()),
            (!self.peer_wait_limit.is_zero(), format!("waits of {:?}", self.peer_wait_limit)),
            (!self.replay_delay.is_zero(), format!("a delay of {:?}", self.replay_delay)),
            (self.spool_limit < u64::MAX, format!("a spool of {} KiB", self.spool_limit >> 10)),
            (self.wait_bytes > 0, format!("{} KiB that wait in the log", self.wait_bytes >> 10)),
            (self.history, "history".into()),
            (!self.degrade.is_empty(), format!("degrade to {:?}", self.degrade)),
        ];
        words.extend(told.into_iter().filter(|(is, _)| *is).map(|(_, words)| words));
        if let Some(Marks { markers, auto_takeover, fails, fences }) = self.marks {
            words.push(format!("{markers} markers"));
            let told = [
                (auto_takeover, "takeovers by themselves"),
                (fails, "on_lease_end = fail"),
                (fences, "a command that fences"),
            ];
            words.extend(told.into_iter().filter(|(is, _)| *is).map(|(_, words)| words.into()));
        }
        words.join(", ")
    }

    /// Silence that ends a connection (`link.timeout`).
    #[must_use]
    pub fn silence(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// Adds something that happens at `at`.
    #[must_use]
    pub fn with(mut self, at: Micros, happening: Happening) -> Self {
        self.happenings.push((at, happening));
        self.happenings.sort_by_key(|(at, _)| *at);
        self
    }

    /// The plan of a seed: a few episodes, each of which breaks something and mends it.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x005E_ED0F_9A7A);
        let modes = [Mode::Sync, Mode::Nearsync, Mode::Nearsync, Mode::Async, Mode::Superasync];
        let windows = [0, 300, 1500, 4000];
        let mut plan = Self {
            seed,
            members: if rng.random_bool(0.25) { 3 } else { 2 },
            mode: modes[rng.random_range(0..modes.len())],
            commit_on_write: rng.random_bool(0.15),
            peer_window: Duration::from_millis(windows[rng.random_range(0..windows.len())]),
            hold: rng.random_bool(0.15),
            record: rng.random_bool(0.35),
            marks: None,
            peer_wait_limit: Duration::from_millis([0, 0, 0, 200, 1200][rng.random_range(0..5)]),
            replay_delay: Duration::from_millis([0, 0, 0, 0, 0, 700][rng.random_range(0..6)]),
            spool_limit: if rng.random_bool(0.1) { 64 << 10 } else { u64::MAX },
            spool_memory: if seed.is_multiple_of(3) { 24 << 10 } else { u64::MAX },
            wait_bytes: if seed % 4 == 1 {
                [48 << 10, 1 << 20][(seed / 4 % 2) as usize]
            } else {
                0
            },
            history: seed % 10 == 7,
            degrade: degrade(&mut rng),
            log_bytes: if rng.random_bool(0.2) { 1 << 20 } else { 4 << 20 },
            clients: rng.random_range(1..=3),
            pace: rng.random_range(3..20) * MS,
            length: 0,
            drifts: Vec::new(),
            happenings: Vec::new(),
        };
        if !plan.replay_delay.is_zero() {
            // What waits to be applied must fit into the log, also of the fastest clients.
            (plan.log_bytes, plan.spool_limit) = (8 << 20, u64::MAX);
        }
        let mood = Mood::draw(&mut rng);
        let episodes = rng.random_range(1..=6);
        let mut at = rng.random_range(100..800) * MS;
        for _ in 0..episodes {
            let took = Episodes { plan: &mut plan, rng: &mut rng, at, mood }.draw();
            // Episodes may run into each other.
            at += if rng.random_bool(0.3) { took / 2 } else { took };
            at += rng.random_range(0..1200) * MS;
        }
        if seed % 25 == 11 {
            at += Episodes { plan: &mut plan, rng: &mut rng, at, mood }.diverged();
        }
        if plan.history {
            at += Episodes { plan: &mut plan, rng: &mut rng, at, mood }.back();
        }
        if seed % 25 == 13 || seed % 25 == 18 {
            at += Episodes { plan: &mut plan, rng: &mut rng, at, mood }.carried();
        }
        if seed.is_multiple_of(5) {
            let first = (seed / 5 % u64::from(plan.members)) as Host;
            let second = (first + 1) % plan.members;
            plan.happenings.push((200 * MS, Happening::Disorder(first, second)));
        }
        plan.vary_faults();
        if seed % 6 == 2 {
            plan.add_growths(at);
        }
        plan.happenings.sort_by_key(|(at, _)| *at);
        let last = plan.happenings.last().map_or(0, |(at, _)| *at);
        plan.length = at.max(last) + SECOND;
        plan
    }
}

impl Plan {
    /// The plan of a seed for a cluster with marks: what happens to other clusters, and trouble
    /// with markers beside it.
    #[must_use]
    pub fn marked_from_seed(seed: u64) -> Self {
        let mut plan = Self::from_seed(seed);
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x3A7C_5EED);
        plan.record = true;
        let markers = if rng.random_bool(0.5) { 1 } else { 3 };
        let (auto_takeover, fails) = (rng.random_bool(0.6), rng.random_bool(0.25));
        let fences = rng.random_bool(0.25);
        plan.marks = Some(Marks { markers, auto_takeover, fails, fences });
        let (mut at, last) = (rng.random_range(100..2500) * MS, plan.length);
        while at < last {
            at += Episodes { plan: &mut plan, rng: &mut rng, at, mood: Mood::Anything }.marks();
            at += rng.random_range(0..3000) * MS;
        }
        plan.happenings.sort_by_key(|(at, _)| *at);
        plan.length = plan.length.max(at + SECOND);
        plan
    }

    /// The volume is made larger now and then, on whoever leads; mostly near something that goes
    /// wrong.
    fn add_growths(&mut self, until: Micros) {
        let mut rng = SmallRng::seed_from_u64(self.seed ^ 0x6A07_5EED);
        for _ in 0..rng.random_range(1..=4) {
            let mut at = rng.random_range(0..until.max(1));
            if rng.random_bool(0.7) && !self.happenings.is_empty() {
                let (near, _) = self.happenings[rng.random_range(0..self.happenings.len())];
                at = (near + rng.random_range(0..4 * MS)).saturating_sub(2 * MS);
            }
            let test = rng.random_bool(0.1);
            let all = (0..self.members).map(|host| (at, Happening::Grow(host, test)));
            self.happenings.extend(all);
        }
    }

    /// Disks fail in more ways than one.
    fn vary_faults(&mut self) {
        let mut room = Vec::new();
        for (at, happening) in &mut self.happenings {
            let Happening::DiskFails(host, change) = *happening else { continue };
            match (self.seed + change) % 4 {
                0 => *happening = Happening::DiskFallsShort(host, change),
                1 => {
                    *happening = Happening::DiskFills(host, change);
                    let later = (self.seed + change) % 1500 * MS;
                    room.push((*at + later, Happening::DiskHasRoom(host)));
                }
                _ => {}
            }
        }
        self.happenings.extend(room);
    }
}

fn degrade(rng: &mut SmallRng) -> Vec<Mode> {
    match rng.random_range(0..6) {
        0 => vec![Mode::Async],
        1 => vec![Mode::Nearsync, Mode::Superasync],
        _ => Vec::new(),
    }
}

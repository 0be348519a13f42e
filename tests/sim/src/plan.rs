//! What a run is made of, and plans made from seeds.

use std::fmt;
use std::time::Duration;

use hadrian_protocol::node::{Command, How, Limits};
use hadrian_protocol::replica::Mode;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::{MS, Micros, NAMES, SECOND};

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
    /// Longest that an answer waits for a connected standby; zero: for ever.
    pub peer_wait_limit: Duration,
    /// Standbys apply so much later.
    pub replay_delay: Duration,
    /// Bytes that a standby may have received and not applied.
    pub spool_limit: u64,
    /// Bytes of frames in memory above which a standby leaves them in its log.
    pub spool_memory: u64,
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
    /// What happens, in the order of time.
    pub happenings: Vec<(Micros, Happening)>,
}

/// Which way of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Both.
    Both,
    /// From the first to the second only.
    There,
    /// From the second to the first only.
    Back,
}

/// Something that happens to the cluster from outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Happening {
    /// `kill -9` of a daemon.
    Kill(Host),
    /// A host loses power: what was not synced is lost, kept or torn.
    PowerLoss(Host),
    /// All hosts lose power at once.
    PowerLossOfAll,
    /// The power goes while the replica is opened, at the n-th change of the disk.
    StartAndLosePower(Host, u64),
    /// A daemon is started, if it does not run.
    Start(Host),
    /// A link swallows everything, without a word to anybody.
    Cut(Host, Host, Way),
    /// A link works again.
    Heal(Host, Host),
    /// A connection is reset, seen by both ends.
    Reset(Host, Host),
    /// A connection ends for the first host only; the second believes in it still.
    HalfOpen(Host, Host),
    /// A link becomes slow, by this much per parcel.
    Slow(Host, Host, Micros),
    /// A link delivers some pieces twice and others in another order. No TCP connection does; the
    /// promises hold all the same.
    Disorder(Host, Host),
    /// A daemon stands still for so long (SIGSTOP, a paused virtual machine).
    Pause(Host, Micros),
    /// A disk does nothing for so long.
    DiskHangs(Host, Micros),
    /// The n-th further change of a disk fails with EIO.
    DiskFails(Host, u64),
    /// The n-th further change of a disk fails when half of it is written.
    DiskFallsShort(Host, u64),
    /// A write to the log goes astray, and the disk says that all is well.
    WriteGoesAstray(Host),
    /// From the n-th further change on a disk has no room for anything.
    DiskFills(Host, u64),
    /// It has room again.
    DiskHasRoom(Host),
    /// The wall clock of a host jumps by so many seconds.
    WallJumps(Host, i64),
    /// A host does not reach the control record any more, or reaches it again.
    RecordCut(Host),
    /// See there.
    RecordHeals(Host),
    /// An operator takes over against what the record says, naming its owner.
    Override(Host),
    /// An operator's command.
    Command(Host, Command),
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |host: &Host| NAMES.get(usize::from(*host)).copied().unwrap_or("?");
        let ms = |micros: &Micros| micros / MS;
        match self {
            Self::Kill(a) => write!(f, "{} is killed", name(a)),
            Self::PowerLoss(a) => write!(f, "{} loses power", name(a)),
            Self::PowerLossOfAll => write!(f, "everybody loses power"),
            Self::StartAndLosePower(a, n) => {
                write!(f, "{} starts and loses power at change {n} of its disk", name(a))
            }
            Self::Start(a) => write!(f, "{} is started", name(a)),
            Self::Cut(a, b, Way::Both) => write!(f, "the link {}-{} is cut", name(a), name(b)),
            Self::Cut(a, b, Way::There) => {
                write!(f, "nothing gets from {} to {}", name(a), name(b))
            }
            Self::Cut(a, b, Way::Back) => write!(f, "nothing gets from {} to {}", name(b), name(a)),
            Self::Heal(a, b) => write!(f, "the link {}-{} works again", name(a), name(b)),
            Self::Reset(a, b) => write!(f, "the connection {}-{} is reset", name(a), name(b)),
            Self::HalfOpen(a, b) => {
                write!(f, "{} loses its connection to {}, which does not notice", name(a), name(b))
            }
            Self::Slow(a, b, by) => {
                write!(f, "the link {}-{} is slow, {} ms", name(a), name(b), ms(by))
            }
            Self::Disorder(a, b) => {
                write!(f, "the link {}-{} doubles and swaps what it carries", name(a), name(b))
            }
            Self::Pause(a, time) => write!(f, "{} stands still for {} ms", name(a), ms(time)),
            Self::DiskHangs(a, time) => {
                write!(f, "the disk of {} hangs for {} ms", name(a), ms(time))
            }
            Self::DiskFails(a, n) => write!(f, "the disk of {} fails {n} changes on", name(a)),
            Self::DiskFallsShort(a, n) => {
                write!(f, "the disk of {} fails {n} changes on, half-way", name(a))
            }
            Self::WriteGoesAstray(a) => write!(f, "a log write of {} goes astray", name(a)),
            Self::DiskFills(a, n) => write!(f, "the disk of {} is full {n} changes on", name(a)),
            Self::DiskHasRoom(a) => write!(f, "the disk of {} has room again", name(a)),
            Self::WallJumps(a, by) => write!(f, "the wall clock of {} jumps by {by} s", name(a)),
            Self::RecordCut(a) => write!(f, "{} loses sight of the record", name(a)),
            Self::RecordHeals(a) => write!(f, "{} sees the record again", name(a)),
            Self::Override(a) => write!(f, "operator on {}: override the owner", name(a)),
            Self::Command(a, command) => write!(f, "operator on {}: {command:?}", name(a)),
        }
    }
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
            peer_wait_limit: Duration::ZERO,
            replay_delay: Duration::ZERO,
            spool_limit: u64::MAX,
            spool_memory: u64::MAX,
            degrade: Vec::new(),
            log_bytes: 4 << 20,
            clients: 2,
            pace: 8 * MS,
            length: 3 * SECOND,
            happenings: Vec::new(),
        }
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
            peer_wait_limit: Duration::from_millis([0, 0, 0, 200, 1200][rng.random_range(0..5)]),
            replay_delay: Duration::from_millis([0, 0, 0, 0, 0, 700][rng.random_range(0..6)]),
            spool_limit: if rng.random_bool(0.1) { 64 << 10 } else { u64::MAX },
            spool_memory: if seed.is_multiple_of(3) { 24 << 10 } else { u64::MAX },
            degrade: degrade(&mut rng),
            log_bytes: if rng.random_bool(0.2) { 1 << 20 } else { 4 << 20 },
            clients: rng.random_range(1..=3),
            pace: rng.random_range(3..20) * MS,
            length: 0,
            happenings: Vec::new(),
        };
        if !plan.replay_delay.is_zero() {
            // What waits to be applied must fit into the log.
            (plan.log_bytes, plan.spool_limit) = (4 << 20, u64::MAX);
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
        if seed.is_multiple_of(5) {
            plan.happenings.push((200 * MS, Happening::Disorder(0, 1)));
        }
        plan.vary_faults();
        plan.happenings.sort_by_key(|(at, _)| *at);
        let last = plan.happenings.last().map_or(0, |(at, _)| *at);
        plan.length = at.max(last) + SECOND;
        plan
    }
}

impl Plan {
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

/// What goes wrong most in a run: rare meetings of two troubles need both of them often.
#[derive(Clone, Copy)]
enum Mood {
    Anything,
    /// Disks fail and hosts lose power.
    Disks,
    /// Links break, and operators use force.
    Splits,
}

impl Mood {
    fn draw(rng: &mut SmallRng) -> Self {
        match rng.random_range(0..10) {
            0 | 1 => Self::Disks,
            2 | 3 => Self::Splits,
            _ => Self::Anything,
        }
    }
}

/// Draws one episode at a time.
struct Episodes<'a> {
    plan: &'a mut Plan,
    rng: &'a mut SmallRng,
    at: Micros,
    mood: Mood,
}

impl Episodes<'_> {
    fn add(&mut self, after: Micros, happening: Happening) {
        self.plan.happenings.push((self.at + after, happening));
    }

    fn host(&mut self) -> Host {
        self.rng.random_range(0..self.plan.members)
    }

    fn pair(&mut self) -> (Host, Host) {
        let first = self.host();
        let step = self.rng.random_range(1..self.plan.members);
        (first, (first + step) % self.plan.members)
    }

    /// Mostly shorter than every timer, sometimes longer than all of them.
    fn time(&mut self) -> Micros {
        let most = [20, 200, 1200, 5000][self.rng.random_range(0..4)];
        self.rng.random_range(1..most) * MS
    }

    fn way(&mut self) -> Way {
        [Way::Both, Way::Both, Way::There, Way::Back][self.rng.random_range(0..4)]
    }

    fn command(&mut self) -> Command {
        let modes = [Mode::Sync, Mode::Nearsync, Mode::Async, Mode::Superasync];
        let how = match self.rng.random_range(0..10) {
            0..=2 => How::Planned(Limits::default()),
            3 => How::Planned(self.limits()),
            4 | 5 => How::Force,
            6 => How::PeerWindowOnly,
            7 => return Command::StartPrimary,
            8 => return Command::CancelTakeover,
            _ => return Command::SetMode(modes[self.rng.random_range(0..modes.len())]),
        };
        let test = self.rng.random_bool(0.1);
        Command::Takeover { how, test }
    }

    /// Adds what the episode does; returns how long it takes.
    fn draw(mut self) -> Micros {
        let mood = self.rng.random_range(0..3);
        match self.mood {
            Mood::Disks if mood == 0 => return self.disk_trouble(),
            Mood::Disks if mood == 1 => return self.power_lost(),
            Mood::Splits if mood == 0 => return self.link_lost(),
            Mood::Splits if mood == 1 => return self.commands(),
            _ => {}
        }
        match self.rng.random_range(0..16) {
            12 => self.record_lost(),
            13 => self.stopped_in_order(),
            14 => self.handover_trouble(),
            15 => self.last_moment(),
            0..=2 => self.daemon_lost(),
            3 | 4 => self.power_lost(),
            5 | 6 => self.link_lost(),
            7 => self.link_trouble(),
            8 => self.standstill(),
            9 => self.disk_trouble(),
            _ => self.commands(),
        }
    }

    fn daemon_lost(&mut self) -> Micros {
        let (host, time) = (self.host(), self.time());
        self.add(0, Happening::Kill(host));
        self.maybe_takeover(host, time);
        self.add(time, Happening::Start(host));
        time
    }

    fn power_lost(&mut self) -> Micros {
        let time = self.time();
        if self.rng.random_bool(0.3) {
            self.add(0, Happening::PowerLossOfAll);
            let mut last = 0;
            for host in 0..self.plan.members {
                let time = self.time();
                last = last.max(time);
                self.add(time, Happening::Start(host));
            }
            return last;
        }
        let host = self.host();
        self.add(0, Happening::PowerLoss(host));
        self.maybe_takeover(host, time);
        if self.rng.random_bool(0.3) {
            let change = self.rng.random_range(1..20);
            self.add(time, Happening::StartAndLosePower(host, change));
        }
        self.add(time + 50 * MS, Happening::Start(host));
        time + 50 * MS
    }

    /// An operator moves service away from a lost host, now and then.
    fn maybe_takeover(&mut self, lost: Host, within: Micros) {
        if self.rng.random_bool(0.4) {
            let step = self.rng.random_range(1..self.plan.members);
            let other = (lost + step) % self.plan.members;
            let after = self.rng.random_range(0..=within);
            let force = self.rng.random_bool(0.8);
            let command = if force { self.forced() } else { Command::planned() };
            self.add(after, Happening::Command(other, command));
            if self.plan.record && self.rng.random_bool(0.2) {
                self.add(after + 200 * MS, Happening::Override(other));
            }
        }
    }

    fn link_lost(&mut self) -> Micros {
        let ((a, b), way, time) = (self.pair(), self.way(), self.time());
        self.add(0, Happening::Cut(a, b, way));
        if self.rng.random_bool(0.3) {
            let (host, after) = (self.host(), self.rng.random_range(0..=time));
            let command = self.command();
            self.add(after, Happening::Command(host, command));
        }
        self.add(time, Happening::Heal(a, b));
        time
    }

    /// A daemon is stopped in order, at any moment, and started again.
    fn stopped_in_order(&mut self) -> Micros {
        let (host, time) = (self.host(), self.time());
        if self.rng.random_bool(0.5) {
            self.add(0, Happening::Kill(host));
            let pause = self.rng.random_range(1..40) * MS;
            self.add(pause, Happening::Start(host));
            let moment = self.rng.random_range(0..8000);
            self.add(pause + moment, Happening::Command(host, Command::Stop));
        } else {
            self.add(0, Happening::Command(host, Command::Stop));
        }
        if self.rng.random_bool(0.3) {
            let change = self.rng.random_range(1..8);
            self.add(MS, Happening::DiskFails(host, change));
            self.add(time, Happening::Command(host, Command::Stop));
        }
        self.maybe_takeover(host, time);
        self.add(time + 100 * MS, Happening::Kill(host));
        self.add(time + 110 * MS, Happening::Start(host));
        time + 110 * MS
    }

    /// Something happens within the few milliseconds of a takeover or a start.
    fn handover_trouble(&mut self) -> Micros {
        let ((a, b), moment) = (self.pair(), self.rng.random_range(0..6000));
        let host = if self.rng.random_bool(0.6) { a } else { b };
        let mut back = 300 * MS;
        if self.rng.random_bool(0.6) {
            self.add(0, Happening::Command(b, Command::planned()));
        } else {
            self.add(0, Happening::Kill(a));
            self.add(100, Happening::Start(a));
            if self.rng.random_bool(0.5) {
                // Nobody is there: it waits in its gate, and its disk may fail in just that moment.
                let (moment, change) =
                    (self.rng.random_range(0..2500), self.rng.random_range(1..9));
                self.add(100 + moment, Happening::DiskFails(a, change));
                if self.rng.random_bool(0.2) {
                    // So long that its checkpoint is due.
                    back = 31 * SECOND;
                    self.add(SECOND, Happening::DiskFails(a, 1));
                }
                (0..self.plan.members).for_each(|other| self.add(0, Happening::Kill(other)));
                let others = (0..self.plan.members).filter(|other| *other != a);
                others.for_each(|other| self.add(back + 20 * MS, Happening::Start(other)));
            }
        }
        match self.rng.random_range(0..4) {
            0 => self.add(moment, Happening::Command(host, Command::Stop)),
            1 => self.add(moment, Happening::Kill(host)),
            2 => self.add(moment, Happening::PowerLoss(host)),
            _ => {
                let change = self.rng.random_range(1..4);
                self.add(moment, Happening::DiskFails(host, change));
            }
        }
        self.add(back, Happening::Kill(host));
        self.add(back + 10 * MS, Happening::Start(host));
        back + 10 * MS
    }

    /// A takeover by proof just before the window ends, on a disk that takes its time.
    fn last_moment(&mut self) -> Micros {
        let ((a, b), window) = (self.pair(), self.plan.peer_window.as_micros());
        let window = Micros::try_from(window).unwrap_or_default();
        self.add(0, Happening::Cut(a, b, Way::Both));
        let before = self.rng.random_range(0..=window / 3 + 1);
        let how = How::PeerWindowOnly;
        let command = Command::Takeover { how, test: false };
        self.add(window - before.min(window), Happening::Command(b, command));
        if self.rng.random_bool(0.7) {
            let hang = self.rng.random_range(1..=window / 3 + 1);
            let moment = self.rng.random_range(0..2000);
            self.add(window - before.min(window) + moment, Happening::DiskHangs(b, hang));
        }
        self.add(window + 800 * MS, Happening::Heal(a, b));
        window + 800 * MS
    }

    fn limits(&mut self) -> Limits {
        let ms = |count: u64| Duration::from_millis(count);
        let (quiesce, total) = (self.rng.random_range(1..300), self.rng.random_range(1..1500));
        Limits { max_quiesce: ms(quiesce), max_total: ms(total) }
    }

    fn forced(&mut self) -> Command {
        let how = if self.rng.random_bool(0.4) { How::PeerWindowOnly } else { How::Force };
        Command::Takeover { how, test: false }
    }

    /// Somebody loses sight of the record, mostly together with something else.
    fn record_lost(&mut self) -> Micros {
        let (host, time) = (self.host(), self.time());
        self.add(0, Happening::RecordCut(host));
        match self.rng.random_range(0..4) {
            0 => self.maybe_takeover(host, time),
            1 => {
                let (a, b) = self.pair();
                self.add(0, Happening::Cut(a, b, Way::Both));
                self.add(time, Happening::Heal(a, b));
            }
            2 => {
                self.add(time / 2, Happening::PowerLoss(host));
                self.add(time, Happening::Start(host));
            }
            _ => {}
        }
        self.add(time, Happening::RecordHeals(host));
        time
    }

    fn link_trouble(&mut self) -> Micros {
        let ((a, b), time) = (self.pair(), self.time());
        match self.rng.random_range(0..3) {
            0 => self.add(0, Happening::Reset(a, b)),
            1 => self.add(0, Happening::HalfOpen(a, b)),
            _ => {
                let by = self.rng.random_range(1..400) * MS;
                self.add(0, Happening::Slow(a, b, by));
                self.add(time, Happening::Heal(a, b));
            }
        }
        time
    }

    fn standstill(&mut self) -> Micros {
        let (host, time) = (self.host(), self.time());
        self.add(0, Happening::Pause(host, time));
        if self.rng.random_bool(0.3) {
            self.maybe_takeover(host, time);
        }
        if self.rng.random_bool(0.3) {
            let by = [-7200, -3, 2, 3600][self.rng.random_range(0..4)];
            self.add(0, Happening::WallJumps(host, by));
        }
        time
    }

    fn disk_trouble(&mut self) -> Micros {
        let (host, time) = (self.host(), self.time());
        if self.rng.random_bool(0.7) {
            self.add(0, Happening::DiskHangs(host, time));
        } else {
            let change = self.rng.random_range(1..60);
            self.add(0, Happening::DiskFails(host, change));
            self.maybe_takeover(host, time);
            self.add(time, Happening::Kill(host));
            self.add(time + 100 * MS, Happening::Start(host));
        }
        time + 100 * MS
    }

    fn commands(&mut self) -> Micros {
        for number in 0..self.rng.random_range(1..=3) {
            let (host, command) = (self.host(), self.command());
            self.add(number * 30 * MS, Happening::Command(host, command));
        }
        if matches!(self.mood, Mood::Splits) && self.rng.random_bool(0.3) {
            // Whoever has diverged still promises what it is asked to; its disk may fail just then.
            let (a, b) = self.pair();
            self.add(200 * MS, Happening::DiskFails(a, 1));
            self.add(210 * MS, Happening::Kill(b));
            self.add(220 * MS, Happening::Start(b));
            self.add(480 * MS, Happening::Kill(a));
            self.add(490 * MS, Happening::Start(a));
        }
        500 * MS
    }
}

//! Episodes: what breaks in a plan from a seed, when, and when it is mended.

use std::time::Duration;

use hadrian_protocol::node::{Command, How, Limits};
use hadrian_protocol::replica::Mode;
use rand::Rng;
use rand::rngs::SmallRng;

use super::{Happening, Host, Plan, Way};
use crate::{MS, Micros, SECOND};

/// What goes wrong most in a run: rare meetings of two troubles need both of them often.
#[derive(Clone, Copy)]
pub(super) enum Mood {
    Anything,
    /// Disks fail and hosts lose power.
    Disks,
    /// Links break, and operators use force.
    Splits,
}

impl Mood {
    pub(super) fn draw(rng: &mut SmallRng) -> Self {
        match rng.random_range(0..10) {
            0 | 1 => Self::Disks,
            2 | 3 => Self::Splits,
            _ => Self::Anything,
        }
    }
}

/// Draws one episode at a time.
pub(super) struct Episodes<'a> {
    pub(super) plan: &'a mut Plan,
    pub(super) rng: &'a mut SmallRng,
    pub(super) at: Micros,
    pub(super) mood: Mood,
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
            7 if self.plan.seed.is_multiple_of(3) => return Command::Rejoin,
            7 => return Command::StartPrimary,
            8 if self.plan.seed.is_multiple_of(2) => return Command::Verify(None),
            8 => return Command::CancelTakeover,
            _ => return Command::SetMode(modes[self.rng.random_range(0..modes.len())]),
        };
        let test = self.rng.random_bool(0.1);
        Command::Takeover { how, test }
    }

    /// Adds what the episode does; returns how long it takes.
    pub(super) fn draw(mut self) -> Micros {
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

    /// Markers hang or fail for somebody, or for all; now and then with something else that could
    /// only be told from it by the marks.
    pub(super) fn marks(&mut self) -> Micros {
        let (host, time) = (self.host(), self.time());
        let markers = self.plan.marks.map_or(0, |marks| marks.markers);
        let everybody = self.rng.random_bool(0.2);
        let hosts = if everybody { 0..self.plan.members } else { host..host + 1 };
        let fails = self.rng.random_bool(0.4);
        for (host, marker) in hosts.flat_map(|host| (0..markers).map(move |n| (host, n))) {
            if markers > 1 && self.rng.random_bool(0.4) {
                continue;
            }
            let hits = if fails { Happening::MarkerFails } else { Happening::MarkerHangs };
            self.add(0, hits(host, marker));
            self.add(time, Happening::MarkerHeals(host, marker));
        }
        let moment = self.rng.random_range(0..=time);
        let mut took = time + 300 * MS;
        match self.rng.random_range(0..8) {
            0 | 1 => {
                let ((a, b), way) = (self.pair(), self.way());
                self.add(moment, Happening::Cut(a, b, way));
                self.add(time + 300 * MS, Happening::Heal(a, b));
            }
            2 => {
                self.add(moment, Happening::PowerLoss(host));
                let pause = self.rng.random_range(1..800) * MS;
                self.add(moment + pause, Happening::Start(host));
            }
            3 => {
                let stands = self.rng.random_range(1..2500) * MS;
                self.add(moment, Happening::Pause(host, stands));
                took = took.max(moment + stands);
            }
            4 => {
                self.add(moment, Happening::Kill(host));
                self.add(time + 100 * MS, Happening::Start(host));
            }
            5 => {
                // Both know at once that they have lost each other.
                let (a, b) = self.pair();
                self.add(moment, Happening::Cut(a, b, Way::Both));
                self.add(moment + 10, Happening::Reset(a, b));
                self.add(time + 300 * MS, Happening::Heal(a, b));
            }
            _ => {}
        }
        took
    }

    fn link_trouble(&mut self) -> Micros {
        let ((a, b), time) = (self.pair(), self.time());
        match self.rng.random_range(0..3) {
            0 => self.add(0, Happening::Reset(a, b)),
            1 => self.add(0, Happening::HalfOpen(a, b)),
            // Its answers come late, or it carries less than clients write.
            _ if self.rng.random_bool(0.7) => {
                let by = self.rng.random_range(1..400) * MS;
                self.add(0, Happening::Slow(a, b, by));
                self.add(time, Happening::Heal(a, b));
            }
            _ => {
                let rate = self.rng.random_range(20..2000);
                self.add(0, Happening::Narrow(a, b, rate));
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
        if self.rng.random_bool(0.15) {
            self.cannot_read(host, time);
        } else if self.rng.random_bool(0.7) {
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

    /// A read fails: of a client, of the log for a standby, or of one of the first at a start. Or
    /// a log write has gone astray, which is noticed by whoever reads there.
    fn cannot_read(&mut self, host: Host, time: Micros) {
        if self.rng.random_bool(0.15) {
            self.add(0, Happening::WriteGoesAstray(host));
        }
        if self.rng.random_bool(0.5) {
            self.add(MS, Happening::Kill(host));
            self.maybe_takeover(host, time);
            let read = self.rng.random_range(1..12);
            self.add(time + 99 * MS, Happening::ReadFails(host, read));
            self.add(time + 100 * MS, Happening::Start(host));
        } else {
            let read = self.rng.random_range(1..30);
            self.add(0, Happening::ReadFails(host, read));
        }
    }

    fn commands(&mut self) -> Micros {
        for number in 0..self.rng.random_range(1..=3) {
            let (host, command) = (self.host(), self.command());
            self.add(number * 30 * MS, Happening::Command(host, command));
        }
        500 * MS
    }

    /// Somebody is taken back to a point of the past, or is to be and is interrupted.
    pub(super) fn back(&mut self) -> Micros {
        let (a, b) = self.pair();
        let part = self.rng.random_range(0..1000);
        if self.rng.random_bool(0.3) {
            self.add(0, Happening::Kill(a));
            self.add(self.plan.silence().as_micros() as Micros, Happening::Start(a));
        }
        let at = self.rng.random_range(0..400) * MS;
        self.add(at, Happening::GoesBack(b, part));
        let moment = at + self.rng.random_range(0..100 * MS);
        match self.rng.random_range(0..8) {
            0 | 1 => self.add(moment, Happening::Kill(b)),
            2 | 3 => self.add(moment, Happening::PowerLoss(b)),
            4 => {
                let change = self.rng.random_range(1..40);
                self.add(moment, Happening::DiskFails(b, change));
                self.add(moment + 300 * MS, Happening::Kill(b));
            }
            5 => self.add(moment, Happening::Command(b, Command::CancelTakeover)),
            _ => {}
        }
        self.add(at + 500 * MS, Happening::Start(b));
        if self.rng.random_bool(0.5) {
            let again = if self.rng.random_bool(0.5) { Command::forced() } else { Command::Rejoin };
            self.add(at + 900 * MS, Happening::Command(b, again));
        }
        if self.plan.record && self.rng.random_bool(0.5) {
            self.add(at + 950 * MS, Happening::Override(b));
        }
        at + SECOND
    }

    /// A member is lost, and made of a copy that is carried to it by hand: exported by anybody, at
    /// once or after a time in which the log may be overrun. Something goes wrong with whoever
    /// exports, with the import, or with the beginning of the new replica.
    pub(super) fn carried(&mut self) -> Micros {
        let ((from, to), away) = (self.pair(), self.time() + 100 * MS);
        let early = self.rng.random_bool(0.5);
        self.add(0, Happening::Kill(to));
        let absent = self.rng.random_bool(0.5).then_some(to);
        let at = if early { 10 * MS } else { away };
        self.add(at, Happening::Exports(from, absent));
        // It takes a few milliseconds.
        let moment = at + self.rng.random_range(0..8000);
        let failed = self.rng.random_range(0..8);
        match failed {
            0 => self.add(moment, Happening::Kill(from)),
            1 => self.add(moment, Happening::PowerLoss(from)),
            2 => self.add(moment, Happening::DiskHangs(from, 300 * MS)),
            3 => self.add(moment, Happening::Command(from, Command::planned())),
            _ => {}
        }
        self.add(at + 100 * MS, Happening::Start(from));
        if failed < 4 {
            self.add(at + 800 * MS, Happening::Exports(from, absent));
        }
        let import = at + 1200 * MS + if early { away } else { 0 };
        let change = self.rng.random_bool(0.5).then(|| self.rng.random_range(1..110));
        self.add(import, Happening::Imports(to, change));
        self.add(import + MS, Happening::Start(to));
        let moment = import + MS + self.rng.random_range(0..60) * MS;
        match self.rng.random_range(0..6) {
            0 => self.add(moment, Happening::Kill(to)),
            1 => self.add(moment, Happening::PowerLoss(to)),
            2 => self.add(moment, Happening::Kill(from)),
            3 => {
                let forced = self.forced();
                self.add(moment, Happening::Command(to, forced));
            }
            _ => {}
        }
        self.add(import + SECOND, Happening::Start(to));
        self.add(import + SECOND, Happening::Start(from));
        import + SECOND
    }

    /// One goes on alone after its window, the other is forced; whoever has diverged still promises
    /// what it is asked to, and its disk fails just then.
    pub(super) fn diverged(&mut self) -> Micros {
        let (a, b) = self.pair();
        self.add(0, Happening::Cut(a, b, Way::Both));
        let forced = self.plan.peer_window.as_micros() as Micros + 1500 * MS;
        self.add(forced, Happening::Command(b, Command::forced()));
        self.add(forced + 500 * MS, Happening::Heal(a, b));
        let at = forced + SECOND;
        self.add(at, Happening::DiskFails(a, 1));
        self.add(at + 10 * MS, Happening::Kill(b));
        self.add(at + 20 * MS, Happening::Start(b));
        self.add(at + 480 * MS, Happening::Kill(a));
        self.add(at + 490 * MS, Happening::Start(a));
        at + 500 * MS
    }
}

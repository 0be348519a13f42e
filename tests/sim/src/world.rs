//! The order of events: simulated time, and everything that waits for its turn.

use std::collections::BTreeMap;
use std::time::Duration;

use hadrian_protocol::ids::{Lsn, MemberId, SessionId};
use hadrian_protocol::node::{Command, Event, NodeConfig};
use hadrian_protocol::wire::{ENVELOPE_LEN, Envelope};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::clients::Clients;
use crate::host::{self, Ask, Host, Outward};
use crate::net::{Conn, End, Parcel, Ways};
use crate::oracle::{Oracle, Violation};
use crate::plan::{Happening, Host as Index, Plan};
use crate::story::Story;
use crate::{MS, Micros, NAMES};

/// Requests of one client that may wait for their answers.
const OUTSTANDING_MAX: usize = 4;
/// Bytes that may wait for one socket before something is wrong (I10).
const WAITING_BYTES_MAX: u64 = 64 << 20;
/// Most events of one run; a run that needs more goes round in circles.
const STEPS_MAX: u64 = 3_000_000;

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// The first broken promise.
    pub violation: Option<Violation>,
    /// One number for everything that happened.
    pub digest: u64,
    /// What happened, where it was told.
    pub story: Vec<String>,
    /// Answered writes.
    pub answered: u64,
    /// Answered writes that force, or a volatile cache, has thrown away.
    pub lost: u64,
}

/// Runs a plan; `telling` keeps the story.
#[must_use]
pub fn run(plan: &Plan, telling: bool) -> Report {
    let mut world = World::new(plan, telling);
    world.begin();
    world.go_on();
    let (answered, lost) = world.oracle.tally();
    let violation = world.oracle.violation().cloned();
    let digest = world.story.digest();
    Report { violation, digest, story: world.story.into_lines(), answered, lost }
}

/// Something that waits for its time.
#[derive(Clone, Debug)]
enum Due {
    Happening(usize),
    Tick(Index, u64),
    Disk(Index, u64),
    Deliver(usize, usize),
    Handed(Index, u64, SessionId, Lsn),
    Unlinked(Index, u64, SessionId),
    Dial(Index, Index, u64),
    Client(usize),
    /// A start that failed because the disk did is tried again.
    Start(Index),
    /// Everything is mended.
    Mend,
    /// Whether the cluster has come together again.
    Check(u32),
    /// Whether a member has stopped that was told to, after the primary or as it.
    Stopped(Index, Index, u32),
}

/// Which part of a run it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    /// Things happen.
    Trouble,
    /// Nothing happens any more: the cluster must come together.
    Mending,
    /// One after the other is stopped.
    Stopping,
    Over,
}

pub(crate) struct World<'a> {
    plan: &'a Plan,
    config: NodeConfig,
    now: Micros,
    sequence: u64,
    steps: u64,
    queue: BTreeMap<(Micros, u64), Due>,
    hosts: Vec<Host>,
    conns: Vec<Conn>,
    sessions: BTreeMap<SessionId, (usize, usize)>,
    next_session: u64,
    ways: Ways,
    clients: Clients,
    /// Requests without an answer: by whom, and where.
    outstanding: BTreeMap<u64, (usize, Index)>,
    commands: BTreeMap<u64, Command>,
    act: Act,
    rng: SmallRng,
    pub(crate) oracle: Oracle,
    pub(crate) story: Story,
}

fn settings(plan: &Plan) -> NodeConfig {
    let members = (0..plan.members).filter_map(MemberId::new).collect();
    let mut config = NodeConfig::new(members, plan.mode);
    config.commit_on_write = plan.commit_on_write;
    config.peer_window = plan.peer_window;
    config.timeout = Duration::from_secs(1);
    config.log_sync_interval = Duration::from_millis(40);
    config.sync_bytes = 128 << 10;
    config.apply_bytes = 64 << 10;
    config.apply_interval = Duration::from_millis(10);
    config.checkpoint_bytes = plan.log_bytes / 8;
    config.retention_bytes = plan.log_bytes / 2;
    config.tail_bytes = 128 << 10;
    config.ship_window_bytes = 128 << 10;
    config
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan, telling: bool) -> Self {
        let members = (0..plan.members).filter_map(MemberId::new);
        let host = |member: MemberId| {
            let seed = plan.seed.wrapping_mul(31) + u64::from(member.index());
            Host::new(member, plan.mode, plan.log_bytes, seed)
        };
        Self {
            plan,
            config: settings(plan),
            now: 0,
            sequence: 0,
            steps: 0,
            queue: BTreeMap::new(),
            hosts: members.map(host).collect(),
            conns: Vec::new(),
            sessions: BTreeMap::new(),
            next_session: 1,
            ways: Ways::default(),
            clients: Clients::default(),
            outstanding: BTreeMap::new(),
            commands: BTreeMap::new(),
            act: Act::Trouble,
            rng: SmallRng::seed_from_u64(plan.seed),
            oracle: Oracle::new(plan.members),
            story: Story::new(telling),
        }
    }

    fn begin(&mut self) {
        for (number, (at, _)) in self.plan.happenings.iter().enumerate() {
            self.at(*at, Due::Happening(number));
        }
        (0..self.plan.members).for_each(|index| self.start(index, None));
        for client in 0..usize::from(self.plan.clients) {
            self.after(client as Micros * MS, Due::Client(client));
        }
        self.at(self.plan.length, Due::Mend);
    }

    fn go_on(&mut self) {
        while self.act != Act::Over && self.oracle.violation().is_none() {
            let Some(((at, _), due)) = self.queue.pop_first() else { break };
            self.now = at;
            self.steps += 1;
            self.story.at(at);
            self.oracle.at(at);
            self.step(due);
            if self.steps > STEPS_MAX {
                self.oracle.broken("liveness", "the run does not come to an end".into());
            }
        }
    }

    fn at(&mut self, at: Micros, due: Due) {
        self.sequence += 1;
        self.queue.insert((at.max(self.now), self.sequence), due);
    }

    fn after(&mut self, time: Micros, due: Due) {
        self.at(self.now + time, due);
    }

    fn step(&mut self, due: Due) {
        if let Some(until) = self.paused(&due) {
            return self.at(until, due);
        }
        match due {
            Due::Happening(number) => {
                if let Some((_, happening)) = self.plan.happenings.get(number) {
                    self.happen(happening.clone());
                }
            }
            Due::Tick(index, life) => self.tick(index, life),
            Due::Disk(index, life) => self.disk_step(index, life),
            Due::Deliver(conn, way) => self.deliver(conn, way),
            Due::Handed(index, life, session, lsn) => {
                self.event_of(index, life, Event::Handed { session, lsn });
            }
            Due::Unlinked(index, life, session) => {
                self.event_of(index, life, Event::Unlinked { session });
            }
            Due::Dial(from, to, life) => self.dial(from, to, life),
            Due::Client(client) => self.client(client),
            Due::Start(index) => self.start(index, None),
            Due::Mend => self.mend(),
            Due::Check(times) => self.check(times),
            Due::Stopped(index, primary, times) => self.check_stopped(index, primary, times),
        }
    }

    /// Until when the process that this is for stands still.
    fn paused(&self, due: &Due) -> Option<Micros> {
        let index = match due {
            Due::Tick(index, _) | Due::Disk(index, _) => *index,
            Due::Handed(index, ..) | Due::Unlinked(index, ..) | Due::Dial(index, ..) => *index,
            Due::Deliver(conn, way) => self.conns[*conn].ends[1 - way].host,
            _ => return None,
        };
        let until = self.hosts[usize::from(index)].paused_until;
        (until > self.now).then_some(until)
    }

    fn host(&mut self, index: Index) -> &mut Host {
        &mut self.hosts[usize::from(index)]
    }

    fn event(&mut self, index: Index, event: Event) {
        let now = self.now;
        self.hosts[usize::from(index)].event(now, event, &mut self.oracle);
        self.outward(index);
    }

    /// An event for one process only, not for its successor.
    fn event_of(&mut self, index: Index, life: u64, event: Event) {
        if self.hosts[usize::from(index)].life == life {
            self.event(index, event);
        }
    }

    fn tick(&mut self, index: Index, life: u64) {
        let now = self.now;
        let host = &mut self.hosts[usize::from(index)];
        if host.life != life || host.tick_at.is_none_or(|at| at > now) {
            return;
        }
        host.tick_at = None;
        host.pump(now, &mut self.oracle);
        if let Some(process) = host.process() {
            self.oracle.look(host.member, &process.node);
        }
        self.outward(index);
    }

    fn disk_step(&mut self, index: Index, life: u64) {
        let now = self.now;
        let host = &mut self.hosts[usize::from(index)];
        if host.life != life {
            return;
        }
        host.disk_due = false;
        if host.hangs_until <= now && host.disk.with(|disk| disk.advance()) {
            host.pump(now, &mut self.oracle);
        }
        self.outward(index);
    }

    /// Sends on its way what a process has given out, and sees to its next turn.
    fn outward(&mut self, index: Index) {
        let out = match self.host(index).process_out() {
            Some(out) => std::mem::take(out),
            None => return,
        };
        for outward in out {
            self.send(index, outward);
        }
        self.next_turns(index);
    }

    fn next_turns(&mut self, index: Index) {
        let latency = match self.rng.random_range(0..200) {
            0 => self.rng.random_range(2..20) * MS,
            _ => self.rng.random_range(20..400),
        };
        let now = self.now;
        let host = &mut self.hosts[usize::from(index)];
        let life = host.life;
        let deadline = host.deadline().map(|at| at.max(now + 100));
        let earlier = deadline.filter(|at| host.tick_at.is_none_or(|tick| *at < tick));
        if let Some(at) = earlier {
            host.tick_at = Some(at);
        }
        let disk = host.disk.with(|disk| disk.has_work()) && !host.disk_due;
        let disk_at = (now + latency).max(host.hangs_until);
        host.disk_due |= disk;
        if let Some(at) = earlier {
            self.at(at, Due::Tick(index, life));
        }
        if disk {
            self.at(disk_at, Due::Disk(index, life));
        }
    }

    fn send(&mut self, index: Index, outward: Outward) {
        let name = NAMES[usize::from(index)];
        match outward {
            Outward::Send(session, message) => {
                let bytes = message.encode();
                let facts = [u64::from(index), session.get(), bytes.len() as u64];
                self.story.note("send", &facts, || format!("{name} says {message:?}"));
                self.post(session, Parcel::Message(bytes));
            }
            Outward::Ship(session, frame) => self.post(session, Parcel::Frame(frame)),
            Outward::Close(session) => self.close(index, session),
            Outward::Reply(id, result) => {
                self.story.note("reply", &[id], || format!("{name} replies {result:?}"));
                let command = self.commands.remove(&id);
                if result.is_err() && command.is_some_and(is_force) {
                    let member = self.host(index).member;
                    self.oracle.force_refused(member);
                }
            }
            Outward::Note(note) => {
                self.story.note("note", &[u64::from(index)], || format!("{name}: {note:?}"));
            }
            Outward::Serve(serves) => {
                let facts = [u64::from(index), u64::from(serves)];
                self.story.note("serve", &facts, || format!("{name} serves: {serves}"));
                if !serves {
                    self.forget_requests(index);
                }
            }
            Outward::Answer(id) => {
                self.story.note("answer", &[id], || format!("{name} answers request {id}"));
                self.outstanding.remove(&id);
            }
            Outward::Stopped => {
                self.story.note("stopped", &[u64::from(index)], || format!("{name} has stopped"));
            }
        }
    }

    fn forget_requests(&mut self, index: Index) {
        self.outstanding.retain(|_, (_, at)| *at != index);
    }

    fn post(&mut self, session: SessionId, parcel: Parcel) {
        let Some((conn, end)) = self.sessions.get(&session).copied() else { return };
        if self.conns[conn].ends[end].open {
            self.conns[conn].pipes[end].push(parcel);
            self.push_on(conn, end);
        }
    }

    /// What was sent before still goes; then the other end hears of the end.
    fn close(&mut self, index: Index, session: SessionId) {
        let Some((conn, end)) = self.sessions.get(&session).copied() else { return };
        self.post(session, Parcel::End);
        self.conns[conn].ends[end].lingers = true;
        self.end_closed(conn, end, index);
    }

    /// One end is closed for its own process, which hears of it.
    fn end_closed(&mut self, conn: usize, end: usize, index: Index) {
        let this = &mut self.conns[conn].ends[end];
        if !this.open {
            return;
        }
        this.open = false;
        let (life, session) = (this.life, this.session);
        let other = self.conns[conn].ends[1 - end].host;
        self.after(1, Due::Unlinked(index, life, session));
        if index < other {
            let pause = self.rng.random_range(20..120) * MS;
            self.after(pause, Due::Dial(index, other, life));
        }
    }

    /// Hands to the socket what fits, and sees to the delivery.
    fn push_on(&mut self, conn: usize, way: usize) {
        let (now, Conn { ends, pipes }) = (self.now, &mut self.conns[conn]);
        let (from, to) = (ends[way], ends[1 - way]);
        let slow = self.ways.delay(from.host, to.host);
        let rng = &mut self.rng;
        let handed = pipes[way].hand_over(|len| {
            let base = match rng.random_range(0..100) {
                0 => rng.random_range(1..30) * MS,
                _ => rng.random_range(30..300),
            };
            now + base + slow + len / 500
        });
        if pipes[way].waiting_bytes() > WAITING_BYTES_MAX {
            self.oracle.broken("I10", "a connection's queue grows without bound".into());
        }
        let next = self.conns[conn].pipes[way].next_arrival();
        if let Some(at) = next.filter(|_| !self.conns[conn].pipes[way].due) {
            self.conns[conn].pipes[way].due = true;
            self.at(at, Due::Deliver(conn, way));
        }
        if let Some(lsn) = handed {
            self.after(1, Due::Handed(from.host, from.life, from.session, lsn));
        }
    }

    fn deliver(&mut self, conn: usize, way: usize) {
        let Conn { ends, pipes } = &mut self.conns[conn];
        let (from, to) = (ends[way], ends[1 - way]);
        pipes[way].due = false;
        if !self.ways.works(from.host, to.host) {
            // What is in the socket is sent again when the way works again.
            return;
        }
        let host = &self.hosts[usize::from(to.host)];
        let alive = to.open && host.life == to.life && host.runs();
        if !alive {
            return self.nobody_there(conn, way);
        }
        let is_frame = matches!(pipes[way].next(), Some(Parcel::Frame(_)));
        if is_frame && host.process().is_some_and(|process| !process.has_room()) {
            pipes[way].due = true;
            return self.after(MS, Due::Deliver(conn, way));
        }
        let Some(parcel) = pipes[way].arrive() else { return };
        self.arrive(conn, 1 - way, parcel);
        self.push_on(conn, way);
    }

    fn arrive(&mut self, conn: usize, end: usize, parcel: Parcel) {
        let End { host, session, .. } = self.conns[conn].ends[end];
        match parcel {
            Parcel::Message(bytes) => {
                let (head, body) = bytes.split_at(ENVELOPE_LEN);
                let envelope = head.first_chunk().and_then(|head| Envelope::parse(head).ok());
                let message = envelope.and_then(|envelope| envelope.message(body).ok());
                if let Some(message) = &message {
                    let facts = [u64::from(host), session.get()];
                    self.story.note("hear", &facts, || {
                        format!("{} hears {message:?}", NAMES[usize::from(host)])
                    });
                }
                match message {
                    Some(message) => self.event(host, Event::Heard { session, message }),
                    None => self.oracle.broken("wire", "a message does not read back".into()),
                }
            }
            Parcel::Frame(frame) => {
                let durable = self.hosts[usize::from(host)].process();
                let durable = durable.map_or(Lsn::START, |process| process.node.log_durable());
                let frame = host::over_the_wire(&frame, durable);
                self.event(host, Event::FrameIn { session, frame });
            }
            Parcel::End => self.end_closed(conn, end, host),
        }
    }

    /// Nobody is at the other end: the sender is told so, where the way back works.
    fn nobody_there(&mut self, conn: usize, way: usize) {
        let from = self.conns[conn].ends[way];
        let End { host: to, life, lingers, .. } = self.conns[conn].ends[1 - way];
        self.conns[conn].pipes[way].clear();
        let host = &self.hosts[usize::from(to)];
        let quiet = lingers && host.life == life && host.runs();
        if !quiet && host.life > 0 && from.open && self.ways.works(to, from.host) {
            self.end_closed(conn, way, from.host);
        }
    }

    fn dial(&mut self, from: Index, to: Index, life: u64) {
        let (now, caller, called) =
            (self.now, &self.hosts[usize::from(from)], &self.hosts[usize::from(to)]);
        let open = self.conns.iter().any(|conn| {
            let [a, b] = conn.ends;
            a.host == from && a.life == life && a.open && b.host == to
        });
        if caller.life != life || !caller.runs() || caller.has_stopped() || open {
            return;
        }
        let reached = self.ways.works(from, to)
            && self.ways.works(to, from)
            && called.runs()
            && !called.has_stopped()
            && called.paused_until <= now;
        if !reached {
            let pause = self.rng.random_range(50..400) * MS;
            return self.after(pause, Due::Dial(from, to, life));
        }
        let lives = [caller.life, called.life];
        self.connect(from, to, lives);
    }

    fn connect(&mut self, from: Index, to: Index, lives: [u64; 2]) {
        let number = self.conns.len();
        let mut end = |host: Index, life: u64, end: usize| {
            let session = SessionId::new(self.next_session);
            self.next_session += 1;
            self.sessions.insert(session, (number, end));
            End { host, life, session, open: true, lingers: false }
        };
        let ends = [end(from, lives[0], 0), end(to, lives[1], 1)];
        self.conns.push(Conn { ends, pipes: Default::default() });
        let facts = [u64::from(from), u64::from(to)];
        self.story.note("connect", &facts, || {
            format!("{} and {} connect", NAMES[usize::from(from)], NAMES[usize::from(to)])
        });
        for (this, other) in [(ends[0], to), (ends[1], from)] {
            if let Some(peer) = MemberId::new(other) {
                self.event(this.host, Event::Linked { session: this.session, peer });
            }
        }
    }

    fn client(&mut self, client: usize) {
        if self.act == Act::Stopping {
            return;
        }
        let waiting = self.outstanding.values().filter(|(of, _)| *of == client).count();
        let serving: Vec<Index> = (0..self.plan.members)
            .filter(|index| self.hosts[usize::from(*index)].serves())
            .collect();
        let paused = |index: &Index| self.hosts[usize::from(*index)].paused_until > self.now;
        let mut pause = self.plan.pace;
        if waiting < OUTSTANDING_MAX && !serving.is_empty() {
            let index = serving[self.rng.random_range(0..serving.len())];
            if paused(&index) {
                pause = 5 * MS;
            } else {
                self.ask(client, index);
            }
        }
        let pause = self.rng.random_range(pause / 4..pause * 2);
        self.after(pause, Due::Client(client));
    }

    fn ask(&mut self, client: usize, index: Index) {
        let (id, ask) = (self.clients.next_id(), self.clients.draw(&mut self.rng));
        self.oracle.client_asks(id, ask.clone());
        self.outstanding.insert(id, (client, index));
        let now = self.now;
        let taken = self.hosts[usize::from(index)].ask(now, id, &ask, &mut self.oracle);
        let name = NAMES[usize::from(index)];
        let facts = [u64::from(index), id, u64::from(taken)];
        self.story.note("ask", &facts, || {
            let words = describe(&ask);
            format!("client {client} asks {name}, request {id}: {words}; taken: {taken}")
        });
        if !taken {
            self.outstanding.remove(&id);
        }
        self.outward(index);
    }

    pub(crate) fn start(&mut self, index: Index, cut_at: Option<u64>) {
        let now = self.now;
        let host = &mut self.hosts[usize::from(index)];
        if host.runs() {
            return;
        }
        if let Some(change) = cut_at {
            host.disk.with(|disk| disk.cut_power_at(change));
        }
        let started = host.start(now, &self.config, &mut self.oracle);
        let (life, member) = (host.life, host.member);
        match started {
            Ok(()) => {
                self.outward(index);
                for other in 0..self.plan.members {
                    if index < other {
                        self.after(MS, Due::Dial(index, other, life));
                    }
                }
            }
            Err(_) if host.disk.with(|disk| disk.is_cut()) => {
                host.lose_power();
                self.oracle.died(member, true);
            }
            Err(_) if host.fails => {
                host.kill();
                host.fails = false;
                self.after(100 * MS, Due::Start(index));
            }
            Err(error) => {
                self.oracle.broken("§2.3", format!("{member} does not start: {error}"));
            }
        }
    }

    fn end_process(&mut self, index: Index, power_lost: bool) {
        let host = &mut self.hosts[usize::from(index)];
        let (life, member) = (host.life, host.member);
        if power_lost {
            host.lose_power();
        } else {
            host.kill();
        }
        host.paused_until = 0;
        self.oracle.died(member, power_lost);
        self.forget_requests(index);
        for conn in 0..self.conns.len() {
            for end in 0..2 {
                let this = &mut self.conns[conn].ends[end];
                if this.host == index && this.life == life && this.open {
                    this.open = false;
                    // The kernel of a living host closes the sockets of a dead process.
                    self.conns[conn].pipes[end].lose_waiting();
                    if !power_lost {
                        self.conns[conn].pipes[end].push(Parcel::End);
                        self.push_on(conn, end);
                    }
                }
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        self.story.note("happening", &[], || format!("** {happening}"));
        match happening {
            Happening::Kill(index) => self.end_process(index, false),
            Happening::PowerLoss(index) => self.end_process(index, true),
            Happening::PowerLossOfAll => {
                (0..self.plan.members).for_each(|index| self.end_process(index, true));
            }
            Happening::Start(index) => self.start(index, None),
            Happening::StartAndLosePower(index, change) => self.start(index, Some(change)),
            Happening::Cut(a, b, way) => self.ways.cut(a, b, way),
            Happening::Heal(a, b) => {
                self.ways.heal(a, b);
                self.flow_again();
            }
            Happening::Reset(a, b) => self.break_links(a, b, true),
            Happening::HalfOpen(a, b) => self.break_links(a, b, false),
            Happening::Slow(a, b, by) => self.ways.slow(a, b, by),
            Happening::Pause(index, time) => {
                let until = self.now + time;
                let host = self.host(index);
                host.paused_until = host.paused_until.max(until);
            }
            Happening::DiskHangs(index, time) => {
                let until = self.now + time;
                let host = self.host(index);
                host.hangs_until = host.hangs_until.max(until);
            }
            Happening::DiskFails(index, change) => {
                let host = self.host(index);
                host.fails = true;
                host.disk.with(|disk| disk.fail_at(change));
            }
            Happening::WallJumps(index, by) => self.host(index).wall_jumps(by),
            Happening::Command(index, command) => self.command(index, command),
        }
    }

    fn command(&mut self, index: Index, command: Command) {
        let (now, host) = (self.now, self.host(index));
        if !host.runs() || host.paused_until > now {
            return;
        }
        let member = host.member;
        if is_force(command) {
            self.oracle.uses_force(member);
        }
        let id = self.clients.next_id();
        self.commands.insert(id, command);
        self.event(index, Event::Command { id, command });
    }

    fn break_links(&mut self, a: Index, b: Index, both: bool) {
        for conn in 0..self.conns.len() {
            let hosts = self.conns[conn].ends.map(|end| end.host);
            let open = self.conns[conn].ends.iter().all(|end| end.open);
            if !open || (hosts != [a, b] && hosts != [b, a]) {
                continue;
            }
            self.conns[conn].pipes.iter_mut().for_each(|pipe| pipe.clear());
            for (end, host) in hosts.into_iter().enumerate() {
                if both || host == a {
                    self.end_closed(conn, end, host);
                }
            }
        }
    }

    /// Everything that stood before a cut goes on.
    fn flow_again(&mut self) {
        for conn in 0..self.conns.len() {
            (0..2).for_each(|way| self.push_on(conn, way));
        }
    }

    fn mend(&mut self) {
        self.story.note("mend", &[], || "** everything is mended".into());
        self.act = Act::Mending;
        self.ways.heal_all();
        self.flow_again();
        for index in 0..self.plan.members {
            let host = self.host(index);
            (host.paused_until, host.hangs_until) = (0, 0);
            self.start(index, None);
        }
        self.after(500 * MS, Due::Check(0));
    }
}

fn is_force(command: Command) -> bool {
    matches!(command, Command::Takeover { force: true, test: false } | Command::StartPrimary)
}

fn describe(ask: &Ask) -> String {
    match ask {
        Ask::Write { changes, fua } => {
            let words = changes
                .iter()
                .map(|change| format!("{}+{} := {}", change.block, change.count, change.number));
            let words: Vec<_> = words.collect();
            format!("write {}{}", words.join(", "), if *fua { " FUA" } else { "" })
        }
        Ask::Flush => "flush".into(),
        Ask::Read { block, count } => format!("read {block}+{count}"),
    }
}

mod finish;

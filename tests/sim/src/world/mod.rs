//! The order of events: simulated time, and everything that waits for its turn.

mod finish;
mod links;
mod marks;
mod record;
mod seeds;
mod trouble;
mod work;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use hadrian_protocol::backoff::Backoff;
use hadrian_protocol::ids::{Epoch, Lsn, MemberId, SessionId};
use hadrian_protocol::marks::block::Block;
use hadrian_protocol::marks::layout::BlockIndex;
use hadrian_protocol::node::{
    Command, Denied, Done, Event, How, Made, NodeConfig, Note, OnWindowEnd, RecordKind,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::clients::Clients;
use crate::host::{Ask, Host, Outward, Seed};
use crate::net::{Conn, Parcel, Ways};
use crate::oracle::{Oracle, Violation};
use crate::plan::{Host as Index, Plan};
use crate::story::{Story, Telling};
use crate::tape::Recordings;
use crate::{MS, Micros, NAMES};
use record::Register;
pub(crate) use record::Want;

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
    /// What the members had to tell, in order.
    pub notes: Vec<(Micros, Index, Note)>,
    /// What the operator was answered, in order.
    pub replies: Vec<(Index, Result<Done, Denied>)>,
    /// Who served when everything was mended.
    pub primary: Option<Index>,
    /// Which moves of the tables were made.
    pub made: Made,
    /// Most bytes that waited for an image in the log alone.
    pub most_spooled: u64,
    /// Most bytes of log that waited for an image.
    pub most_waited: u64,
    /// Reads that clients got an error for.
    pub read_errors: u64,
    /// Members that did not start, because their log is damaged, and what they said.
    pub damaged: Vec<(Index, String)>,
}

/// Runs a plan; `telling` keeps the story, in prose.
#[must_use]
pub fn run(plan: &Plan, telling: bool) -> Report {
    run_told(plan, if telling { Telling::Prose } else { Telling::Nothing })
}

/// Runs a plan and tells so much of it.
#[must_use]
pub fn run_told(plan: &Plan, telling: Telling) -> Report {
    live(World::new(plan, telling))
}

/// Runs a plan and records what every process of it was told: its entries as lines of JSON, in
/// the order in which the processes were started.
#[must_use]
pub fn run_recorded(plan: &Plan) -> (Report, Vec<Vec<String>>) {
    let (mut world, recordings) = (World::new(plan, Telling::Nothing), Recordings::default());
    for host in &mut world.hosts {
        host.recordings = Some(recordings.clone());
    }
    (live(world), recordings.lines())
}

fn live(mut world: World<'_>) -> Report {
    // The core has assertions of its own; one that fails is a broken promise like any other.
    let ended = catch_unwind(AssertUnwindSafe(|| {
        world.begin();
        world.go_on();
    }));
    if let Err(panic) = ended {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        world.oracle.broken("assertion", text.unwrap_or("a panic without words").into());
    }
    (0..world.plan.members).for_each(|index| world.count_moves(index));
    if let Some(what) = world.made.illegal().map(String::from) {
        world.oracle.broken("§4", what);
    }
    let (answered, lost) = world.oracle.tally();
    let violation = world.oracle.violation().cloned();
    Report {
        violation,
        digest: world.story.digest(),
        answered,
        lost,
        notes: world.notes,
        replies: world.replies,
        primary: world.primary,
        made: world.made,
        most_spooled: world.most_spooled,
        most_waited: world.most_waited,
        read_errors: world.read_errors,
        damaged: world.damaged,
        story: world.story.into_lines(),
    }
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
    /// A want that arrives at the control record, and what the record says to it.
    Record(Index, u64, Want),
    RecordSays(Index, u64, Event),
    /// A want that reaches the keeper of its member.
    Wish(Index, u64, Want),
    KeeperTick(Index, u64),
    /// A step of something that was asked of a marker.
    Order(u64, marks::Stage),
    /// A block that nobody waits for lands on a marker.
    Lands(u8, BlockIndex, Box<Block>),
    /// The power of an owner is cut; or the command fails.
    Fenced(Index, u64, (MemberId, Epoch), bool),
    /// What a member hears of the marks.
    MarksSay(Index, u64, Event),
    /// A request that waited in the socket of a process that stood still.
    Asked(u64, Index),
    /// A start that failed because the disk did is tried again.
    Start(Index),
    /// Everything is mended.
    Mend,
    /// Whether the cluster has come together again.
    Check(u32),
    /// Whether a member has stopped that was told to, after the primary or as it.
    Stopped(Index, Index, u32),
}

/// A request without an answer.
#[derive(Debug)]
struct Waiting {
    client: usize,
    at: Index,
    ask: Ask,
}

/// Now and then an answer does not reach its client, who must take it for none.
fn is_lost(id: u64) -> bool {
    id % 61 == 7
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
    /// Of each caller and whom it calls: which life of it, and when that calls again.
    backoffs: BTreeMap<(Index, Index), (u64, Backoff)>,
    register: Register,
    marks: marks::Marks,
    clients: Clients,
    /// Requests without an answer.
    outstanding: BTreeMap<u64, Waiting>,
    commands: BTreeMap<u64, Command>,
    act: Act,
    notes: Vec<(Micros, Index, Note)>,
    replies: Vec<(Index, Result<Done, Denied>)>,
    primary: Option<Index>,
    /// The seed that was exported last.
    carried: Option<Seed>,
    /// It held its answers for a lost member when it was told to stop.
    held: bool,
    made: Made,
    most_spooled: u64,
    most_waited: u64,
    read_errors: u64,
    damaged: Vec<(Index, String)>,
    rng: SmallRng,
    pub(crate) oracle: Oracle,
    pub(crate) story: Story,
}

fn settings(plan: &Plan) -> NodeConfig {
    let members = (0..plan.members).filter_map(MemberId::new).collect();
    let mut config = NodeConfig::new(members, plan.mode);
    config.commit_on_write = plan.commit_on_write;
    config.peer_window = plan.peer_window;
    config.on_window_end = if plan.hold { OnWindowEnd::Hold } else { OnWindowEnd::Continue };
    config.record = if plan.record { RecordKind::Register } else { RecordKind::None };
    config.lease = plan.marks.map(marks::lease);
    config.peer_wait_limit = plan.peer_wait_limit;
    config.replay_delay = plan.replay_delay;
    config.spool_limit = plan.spool_limit;
    config.degrade.clone_from(&plan.degrade);
    config.degrade_after = Duration::from_millis(400);
    config.degrade_back = Duration::from_secs(1);
    config.timeout = plan.silence();
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
    fn new(plan: &'a Plan, telling: Telling) -> Self {
        let members = (0..plan.members).filter_map(MemberId::new);
        let host = |member: MemberId| {
            let seed = plan.seed.wrapping_mul(31) + u64::from(member.index());
            let mut host = Host::new(member, plan.mode, plan.log_bytes, seed);
            host.spool_memory = plan.spool_memory;
            host.wait_bytes = plan.wait_bytes;
            host.history = plan.history;
            host.has_leases = plan.marks.is_some();
            let drift = plan.drifts.get(usize::from(member.index()));
            host.drift = drift.copied().unwrap_or(host.drift);
            host
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
            backoffs: BTreeMap::new(),
            register: Register::default(),
            marks: marks::Marks::new(plan),
            clients: Clients::new(plan.wait_bytes > 0),
            outstanding: BTreeMap::new(),
            commands: BTreeMap::new(),
            act: Act::Trouble,
            notes: Vec::new(),
            replies: Vec::new(),
            primary: None,
            carried: None,
            held: false,
            made: Made::default(),
            most_spooled: 0,
            most_waited: 0,
            read_errors: 0,
            damaged: Vec::new(),
            rng: SmallRng::seed_from_u64(plan.seed),
            oracle: Oracle::new(plan),
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
            Due::Record(index, life, want) => self.at_record(index, life, want),
            Due::RecordSays(index, life, event) => self.record_says(index, life, event),
            Due::Wish(index, life, want) => self.wish(index, life, want),
            Due::KeeperTick(index, life) => self.keeper_tick(index, life),
            Due::Order(id, stage) => self.order_step(id, stage),
            Due::Lands(marker, at, block) => self.lands(marker, at, &block),
            Due::MarksSay(index, life, event) => self.event_of(index, life, event),
            Due::Asked(id, index) => self.asked_late(id, index),
            Due::Fenced(index, life, owner, works) => self.fenced((index, life), owner, works),
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
            Due::RecordSays(index, ..) | Due::Wish(index, ..) => *index,
            Due::KeeperTick(index, _) | Due::MarksSay(index, ..) | Due::Asked(_, index) => *index,
            Due::Deliver(conn, way) => self.conns[*conn].ends[1 - way].host,
            _ => return None,
        };
        self.stands_still(index)
    }

    fn stands_still(&self, index: Index) -> Option<Micros> {
        let until = self.hosts[usize::from(index)].paused_until;
        (until > self.now).then_some(until)
    }

    /// A process is about to end: what it has done counts.
    pub(super) fn count_moves(&mut self, index: Index) {
        if let Some(process) = self.hosts[usize::from(index)].process() {
            self.made.merge(process.node.moves());
            self.most_spooled = self.most_spooled.max(process.most_spooled);
            self.most_waited = self.most_waited.max(process.most_waited);
        }
    }

    fn host(&mut self, index: Index) -> &mut Host {
        &mut self.hosts[usize::from(index)]
    }

    fn event(&mut self, index: Index, event: Event) {
        let now = self.now;
        self.hosts[usize::from(index)].event(now, event, &mut self.oracle);
        self.look(index);
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
            self.oracle.look_closely(host.member, &process.node);
        }
        self.look(index);
        self.outward(index);
    }

    /// What must be true of a member after whatever it did.
    pub(super) fn look(&mut self, index: Index) {
        let host = &self.hosts[usize::from(index)];
        let Some(process) = host.process() else { return };
        self.oracle.look(host.member, &process.node);
        let most = usize::from(self.plan.clients) * OUTSTANDING_MAX;
        if let Some(what) = process.excess(most) {
            self.oracle.broken("I10", format!("{} holds too much: {what}", host.member));
        }
        self.one_is_open(index);
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
        self.look(index);
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
                self.story.tell("reply", &[id], || match result {
                    Ok(done) => format!("{name} to its operator: done, {done:?}"),
                    Err(denied) => format!("{name} to its operator: no, {denied}"),
                });
                self.replies.push((index, result));
                let command = self.commands.remove(&id);
                let member = self.host(index).member;
                match result {
                    Err(_) if command.is_some_and(is_force) => self.oracle.force_refused(member),
                    Err(_) if command.is_some_and(by_proof) => self.oracle.proof_refused(member),
                    Err(_) if matches!(command, Some(Command::Seed { .. })) => {
                        self.host(index).end_export();
                    }
                    _ => {}
                }
            }
            Outward::Note(note) => {
                self.story.tell("note", &[u64::from(index)], || format!("{name}: {note}"));
                self.notes.push((self.now, index, note));
            }
            Outward::Exported(seed) => self.exported(index, seed),
            Outward::Record(want) if self.plan.marks.is_some() => self.want_marks(index, want),
            Outward::Record(want) => self.want_record(index, want),
            Outward::Fence(owner, epoch) => self.fence(index, (owner, epoch)),
            Outward::Serve(serves) => {
                let facts = [u64::from(index), u64::from(serves)];
                self.story.tell("serve", &facts, || match serves {
                    true => format!("{name} lets clients in"),
                    false => format!("{name} serves nobody any more"),
                });
                if !serves {
                    self.forget_requests(index);
                }
            }
            Outward::Answer(id) => {
                self.story.note("answer", &[id], || format!("{name} answers request {id}"));
                if let Some(waiting) = self.outstanding.remove(&id).filter(|_| is_lost(id)) {
                    self.story.note("lost", &[id], || format!("the answer to {id} is lost"));
                    self.clients.never_knew(waiting.client, waiting.ask);
                }
            }
            Outward::CannotRead(id) => {
                self.story.tell("error", &[id], || format!("{name} cannot read for request {id}"));
                self.outstanding.remove(&id);
                self.oracle.cannot_read(id);
                self.read_errors += 1;
                if !self.host(index).fails {
                    self.oracle.broken("§2.8", format!("{name} cannot read from a sound disk"));
                }
            }
            Outward::Stopped => {
                self.story.tell("stopped", &[u64::from(index)], || format!("{name} has stopped"));
            }
        }
    }

    fn forget_requests(&mut self, index: Index) {
        let here = self.outstanding.extract_if(.., |_, waiting| waiting.at == index);
        for (_, waiting) in here {
            self.clients.never_knew(waiting.client, waiting.ask);
        }
    }
}

fn is_force(command: Command) -> bool {
    match command {
        Command::Takeover { how, test: false } => {
            matches!(how, How::Force | How::Override { .. })
        }
        Command::StartPrimary | Command::GoBack { test: false, .. } => true,
        _ => false,
    }
}

fn by_proof(command: Command) -> bool {
    matches!(command, Command::Takeover { how: How::PeerWindowOnly, test: false })
}

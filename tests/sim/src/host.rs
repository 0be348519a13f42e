//! One member: its disk, which outlives everything, and its process, which does not.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use hadrian_blockdev::buffer::IoBuf;
use hadrian_blockdev::engine::Engine as _;
use hadrian_blockdev::engine::double::Double;
use hadrian_blockdev::replica::{self, Replica, ReplicaError, ReplicaEvent};
use hadrian_blockdev::volume::Store;
use hadrian_protocol::frame::{Draft, Frame, HEAD_LEN, LogPosition};
use hadrian_protocol::ids::{Lsn, MemberId, ResourceId, SessionId, VolumeIndex};
use hadrian_protocol::node::{
    Action, Denied, Done, Event, FailedPart, NodeConfig, Note, RECORDING_VERSION, Recorded, Start,
};
use hadrian_protocol::range::ByteRange;
use hadrian_protocol::replica::{Base, Mode, ReplicaState, Role, VolumeGeometry};
use hadrian_protocol::time::{Clock, Now, WallTime};
use hadrian_protocol::wire::Message;

use crate::Micros;
use crate::disk::Disk;
use crate::oracle::Oracle;
use crate::tape::Recordings;
use crate::world::Want;

/// Bytes of a block, the unit in which clients write.
pub(crate) const BLOCK: u64 = 512;
/// Blocks of the volume.
pub(crate) const BLOCKS: u64 = 128;
/// Least log space that is left for the node's own frames.
const LOG_MARGIN: u64 = 64 << 10;
const DIR: &str = "/replica";
const STORE: &str = "/store/data";
/// Wall time when a run begins; any will do.
const WALL_START: i64 = 1_700_000_000_000_000;

/// A change or question of one client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ask {
    /// Blocks that now hold this number; zero is written as zeroes, or trimmed.
    Write {
        changes: Vec<Change>,
        fua: bool,
    },
    Flush,
    Read {
        block: u64,
        count: u64,
    },
}

/// Blocks and what they shall hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Change {
    pub(crate) block: u64,
    pub(crate) count: u64,
    /// Never used before; zero for no content.
    pub(crate) number: u64,
}

/// What leaves a process.
#[derive(Debug)]
pub(crate) enum Outward {
    Send(SessionId, Message),
    Ship(SessionId, Frame),
    Close(SessionId),
    Reply(u64, Result<Done, Denied>),
    Note(Note),
    Record(Want),
    /// Clients can come, or are thrown out.
    Serve(bool),
    /// A request is answered.
    Answer(u64),
    Stopped,
}

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) member: MemberId,
    pub(crate) disk: Disk,
    process: Option<Box<Process>>,
    /// How many processes there were.
    pub(crate) life: u64,
    wall_offset: i64,
    /// Its clock runs so many thousandths faster than the world's.
    drift: i64,
    pub(crate) paused_until: Micros,
    pub(crate) hangs_until: Micros,
    /// One of its operations was told to fail.
    pub(crate) fails: bool,
    /// One of its log writes went astray, or will.
    pub(crate) strayed: bool,
    /// So it does not start any more.
    pub(crate) is_damaged: bool,
    /// When it wants to be called for time alone.
    pub(crate) tick_at: Option<Micros>,
    /// Whether the next step of its disk is in the queue of the world.
    pub(crate) disk_due: bool,
    /// Where its processes are recorded, if they are.
    pub(crate) recordings: Option<Recordings>,
    /// Most bytes of frames in memory where more may stay in the log.
    pub(crate) spool_memory: u64,
}

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) node: Recorded,
    replica: Replica<Disk>,
    disk: Disk,
    began: Micros,
    pub(crate) serving: bool,
    /// It leads, and serves when nothing waits in the log alone.
    opening: bool,
    holding: bool,
    /// Most bytes that waited in the log alone.
    pub(crate) most_spooled: u64,
    stopped: bool,
    writes: VecDeque<(Lsn, u64)>,
    commits: VecDeque<(Lsn, u64)>,
    reads: BTreeMap<u64, u64>,
    next_read: u64,
    pub(crate) out: Vec<Outward>,
    events: Vec<ReplicaEvent>,
}

pub(crate) fn resource() -> ResourceId {
    genesis_and_resource().1
}

/// Where every history begins.
pub(crate) fn genesis() -> LogPosition {
    genesis_and_resource().0
}

/// Both are hashes, and the oracle asks for them after every step.
fn genesis_and_resource() -> (LogPosition, ResourceId) {
    static KNOWN: OnceLock<(LogPosition, ResourceId)> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let resource = ResourceId::derive("simulated", "db");
        (LogPosition::genesis(resource), resource)
    })
}

pub(crate) fn volume() -> VolumeIndex {
    VolumeIndex::new(0).unwrap_or_else(|| unreachable!("volume 0 is always there"))
}

impl Host {
    /// A member whose replica was just created.
    pub(crate) fn new(member: MemberId, mode: Mode, log_bytes: u64, seed: u64) -> Self {
        let mut disk = Disk::new(seed);
        let geometry = VolumeGeometry { size_bytes: BLOCK * BLOCKS, block_size: 512 };
        let role = if member.index() == 0 { Role::Primary } else { Role::Standby };
        let state =
            ReplicaState::created(resource(), member, role, mode, Base::Zero, vec![geometry]);
        disk.with(|disk| disk.put_file(Path::new(STORE), (BLOCK * BLOCKS) as usize));
        let made = replica::create_in(&mut disk, Path::new(DIR), &state, log_bytes, &mut |_| {});
        assert!(made.is_ok(), "an empty disk takes a replica: {made:?}");
        disk.with(Double::restart_process);
        Self {
            member,
            disk,
            process: None,
            life: 0,
            wall_offset: i64::from(member.index()) * 1_700,
            drift: i64::try_from(seed % 9).unwrap_or_default() - 4,
            paused_until: 0,
            hangs_until: 0,
            fails: false,
            strayed: false,
            is_damaged: false,
            tick_at: None,
            disk_due: false,
            recordings: None,
            spool_memory: u64::MAX,
        }
    }

    pub(crate) fn process(&self) -> Option<&Process> {
        self.process.as_deref()
    }

    pub(crate) fn process_out(&mut self) -> Option<&mut Vec<Outward>> {
        Some(&mut self.process.as_mut()?.out)
    }

    pub(crate) fn serves(&self) -> bool {
        self.process().is_some_and(|process| process.serving)
    }

    pub(crate) fn has_stopped(&self) -> bool {
        self.process().is_some_and(|process| process.stopped)
    }

    pub(crate) fn runs(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) fn wall_jumps(&mut self, seconds: i64) {
        self.wall_offset += seconds * 1_000_000;
    }

    fn clock(&self, now: Micros) -> Clock {
        let began = self.process().map_or(now, |process| process.began);
        let wall = WALL_START + i64::try_from(now).unwrap_or(i64::MAX) + self.wall_offset;
        let wall = WallTime::from_micros(u64::try_from(wall).unwrap_or_default());
        let lived = i64::try_from(now - began).unwrap_or(i64::MAX / 2_000);
        let lived = u64::try_from(lived * (1000 + self.drift) / 1000).unwrap_or_default();
        Clock { now: Now::from_micros(lived), wall }
    }

    pub(crate) fn write_goes_astray(&mut self) {
        self.strayed = true;
        self.disk.with(|disk| disk.go_astray_in(&Path::new(DIR).join("log")));
    }

    /// The volume as a reader of the backing store sees it.
    pub(crate) fn image(&self) -> Vec<u8> {
        self.disk.with(|disk| disk.contents(Path::new(STORE)).unwrap_or_default().to_vec())
    }

    /// Starts the daemon: the replica is opened, and its core wakes up.
    ///
    /// # Errors
    /// What the replica says; or that the power went, which was planned.
    pub(crate) fn start(
        &mut self,
        now: Micros,
        config: &NodeConfig,
        oracle: &mut Oracle,
    ) -> Result<(), ReplicaError> {
        self.life += 1;
        let (paths, dir) = ([PathBuf::from(STORE)], Path::new(DIR));
        let (mut replica, state, recovered) =
            Replica::open_over(self.disk.clone(), dir, resource(), &paths, Store::open_in)?;
        replica.set_spool_memory(self.spool_memory);
        self.disk.with(Double::forget_plans);
        self.fails = false;
        oracle.opened(self.member, &state, &recovered, &self.image());
        let start = Start {
            version: RECORDING_VERSION,
            program: "simulator".into(),
            config: config.clone(),
            state,
            recovered,
            clock: self.clock(now),
        };
        let tape = self.recordings.as_ref().map(Recordings::tape);
        let node = Recorded::start(start, tape);
        self.process = Some(Box::new(Process {
            node,
            replica,
            disk: self.disk.clone(),
            began: now,
            serving: false,
            opening: false,
            holding: false,
            most_spooled: 0,
            stopped: false,
            writes: VecDeque::new(),
            commits: VecDeque::new(),
            reads: BTreeMap::new(),
            next_read: 0,
            out: Vec::new(),
            events: Vec::new(),
        }));
        (self.tick_at, self.disk_due) = (None, false);
        Ok(())
    }

    /// The process ends here and now; what it wrote stays.
    pub(crate) fn kill(&mut self) {
        self.process = None;
        self.disk.with(Double::restart_process);
    }

    pub(crate) fn lose_power(&mut self) {
        self.process = None;
        self.hangs_until = 0;
        self.disk.with(Double::power_on);
    }

    /// Hands an event to the core and carries out everything that follows from it.
    pub(crate) fn event(&mut self, now: Micros, event: Event, oracle: &mut Oracle) {
        let (clock, member) = (self.clock(now), self.member);
        if let Some(process) = &mut self.process {
            process.node.handle(clock, event);
            process.pump(clock, member, oracle);
        }
    }

    /// The disk has done something, or time has passed.
    pub(crate) fn pump(&mut self, now: Micros, oracle: &mut Oracle) {
        let (clock, member) = (self.clock(now), self.member);
        if let Some(process) = &mut self.process {
            process.pump(clock, member, oracle);
        }
    }

    /// A client's request. `false`: nobody serves here, or there is no room at the moment.
    pub(crate) fn ask(&mut self, now: Micros, id: u64, ask: &Ask, oracle: &mut Oracle) -> bool {
        let (clock, member) = (self.clock(now), self.member);
        let Some(process) = &mut self.process else { return false };
        let taken = process.serving && !process.holding && process.has_room();
        if taken {
            process.take(clock, member, id, ask, oracle);
            process.pump(clock, member, oracle);
        }
        taken
    }

    /// When the core wants to be called at the latest.
    pub(crate) fn deadline(&self) -> Option<Micros> {
        let process = self.process()?;
        let at = process.node.next_deadline().as_micros();
        let at = i64::try_from(at).unwrap_or(i64::MAX / 2_000);
        let after = u64::try_from(at * 1000 / (1000 + self.drift) + 1).unwrap_or_default();
        Some(process.began + after)
    }
}

impl Process {
    pub(crate) fn has_room(&self) -> bool {
        let takes = self.replica.log_room() > LOG_MARGIN && self.node.takes_frames();
        takes || !self.node.keeps_frames()
    }

    fn take(&mut self, clock: Clock, member: MemberId, id: u64, ask: &Ask, oracle: &mut Oracle) {
        match ask {
            Ask::Write { changes, fua } => {
                let Some(end) = self.node.append(clock, draft(changes)) else {
                    unreachable!("a core that serves takes changes")
                };
                // The append is carried out first: the oracle must know the frame.
                self.run_node(clock, member, oracle);
                oracle.asked(member, id, end, &self.node);
                if *fua {
                    self.commit_at(clock, end, id);
                } else {
                    self.writes.push_back((end, id));
                }
            }
            Ask::Flush => {
                let end = self.node.log_end();
                oracle.asked(member, id, end, &self.node);
                self.commit_at(clock, end, id);
            }
            Ask::Read { block, count } => {
                oracle.asked(member, id, self.node.log_end(), &self.node);
                self.next_read += 1;
                self.reads.insert(self.next_read, id);
                let Ok(range) = ByteRange::new(block * BLOCK, count * BLOCK) else {
                    unreachable!("clients stay inside the volume")
                };
                self.replica.read(self.next_read, volume(), range);
            }
        }
    }

    fn commit_at(&mut self, clock: Clock, end: Lsn, id: u64) {
        self.node.handle(clock, Event::DurableWanted(end));
        self.commits.push_back((end, id));
    }

    fn run_node(&mut self, clock: Clock, member: MemberId, oracle: &mut Oracle) {
        self.node.settle(clock);
        while let Some(action) = self.node.next_action() {
            self.carry_out(clock, member, action, oracle);
        }
    }

    fn pump(&mut self, clock: Clock, member: MemberId, oracle: &mut Oracle) {
        loop {
            self.run_node(clock, member, oracle);
            self.replica.kick();
            let mut events = std::mem::take(&mut self.events);
            self.replica.poll(&mut events);
            self.most_spooled = self.most_spooled.max(self.replica.spooled_bytes());
            if self.opening && self.replica.spooled_bytes() == 0 {
                (self.opening, self.serving) = (false, true);
                self.out.push(Outward::Serve(true));
            }
            self.answer(member, oracle);
            if events.is_empty() {
                self.events = events;
                return;
            }
            for event in events.drain(..) {
                self.replica_event(clock, member, event, oracle);
            }
            self.events = events;
        }
    }

    fn answer(&mut self, member: MemberId, oracle: &mut Oracle) {
        let answers = self.node.answers();
        let ready = |queue: &mut VecDeque<(Lsn, u64)>, to: Lsn| -> Vec<u64> {
            let count = queue.iter().take_while(|(end, _)| *end <= to).count();
            queue.drain(..count).map(|(_, id)| id).collect()
        };
        let mut ids = ready(&mut self.writes, answers.writes);
        ids.extend(ready(&mut self.commits, answers.flushes));
        for id in ids {
            oracle.answered(member, id, &self.node);
            self.out.push(Outward::Answer(id));
        }
    }

    fn replica_event(
        &mut self,
        clock: Clock,
        member: MemberId,
        event: ReplicaEvent,
        oracle: &mut Oracle,
    ) {
        let event = match event {
            ReplicaEvent::Written(lsn) => Event::Written(lsn),
            ReplicaEvent::Durable(lsn) => {
                oracle.durable(member, lsn);
                Event::Durable(lsn)
            }
            ReplicaEvent::Applied(lsn) => {
                oracle.applied(member, lsn);
                Event::Applied(lsn)
            }
            ReplicaEvent::Checkpointed(position) => Event::Checkpointed(position),
            ReplicaEvent::Persisted(number) => {
                oracle.persisted(member, number);
                Event::Persisted(number)
            }
            ReplicaEvent::LogRead { id, frames } => {
                Event::LogRead { session: SessionId::new(id), frames }
            }
            ReplicaEvent::Truncated(end) => {
                oracle.truncated(member, end, &self.quarantine());
                Event::Truncated(end)
            }
            ReplicaEvent::NotTruncated(_) => Event::Failed(FailedPart::Log),
            ReplicaEvent::Failed(part, _) => {
                oracle.failed(member);
                Event::Failed(part)
            }
            ReplicaEvent::Read(done) => {
                if let Some(id) = self.reads.remove(&done.id)
                    && let Ok(parts) = done.result
                {
                    let content = parts.concat();
                    oracle.read(member, id, &content, &self.node);
                    self.out.push(Outward::Answer(id));
                }
                return;
            }
        };
        self.node.handle(clock, event);
    }

    fn carry_out(&mut self, clock: Clock, member: MemberId, action: Action, oracle: &mut Oracle) {
        match action {
            Action::Send { session, message } => {
                oracle.said(member, &message, &self.node);
                self.out.push(Outward::Send(session, message));
            }
            Action::Ship { session, frame } => self.out.push(Outward::Ship(session, frame)),
            Action::Close { session } => self.out.push(Outward::Close(session)),
            Action::Append(frame) => {
                oracle.appended(member, &frame);
                if self.replica.append(&frame).is_err() {
                    oracle.failed(member);
                    self.node.handle(clock, Event::Failed(FailedPart::Log));
                }
            }
            Action::SyncLog => self.replica.sync_log(),
            Action::Persist { number, state } => {
                oracle.persisting(member, number, &state);
                let begun = self.replica.persist(number, *state);
                assert!(begun.is_ok(), "a state within its limits fits: {begun:?}");
            }
            Action::Apply(lsn) => {
                oracle.applying(member, lsn);
                self.replica.apply_to(lsn);
            }
            Action::Checkpoint => self.replica.checkpoint(),
            Action::ReleaseLog(lsn) => self.replica.release_log(lsn),
            Action::ReadLog { session, from } => self.replica.read_log(session.get(), from),
            Action::Truncate(point) => {
                oracle.truncating(member, point);
                self.replica.truncate(point);
            }
            Action::Hold(hold) => {
                self.holding = hold;
                if hold {
                    self.node.handle(clock, Event::Held);
                    self.node.settle(clock);
                }
            }
            Action::Serve(serve) => self.serve(member, serve, oracle),
            Action::Reply { id, result } => self.out.push(Outward::Reply(id, result)),
            Action::ReadRecord => self.out.push(Outward::Record(Want::Read)),
            Action::Propose(record) => self.out.push(Outward::Record(Want::Change(record))),
            Action::Stopped => {
                self.stopped = true;
                self.out.push(Outward::Stopped);
            }
            Action::Note(note) => {
                match note {
                    Note::Leads(_) => oracle.leads(member, &self.node),
                    Note::PeerEntered(other) => {
                        oracle.entered(member, other, self.node.state().mode);
                    }
                    _ => {}
                }
                self.out.push(Outward::Note(note));
            }
        }
    }

    /// The files in which cut tails were saved.
    fn quarantine(&mut self) -> Vec<Vec<u8>> {
        let dir = Path::new(DIR).join("quarantine");
        self.disk.with(|disk| {
            let names = disk.list(&dir).unwrap_or_default();
            let paths = names.iter().map(|name| dir.join(name));
            paths.filter_map(|path| Some(disk.contents(&path)?.to_vec())).collect()
        })
    }

    /// At the end of service what is unanswered stays unanswered.
    fn serve(&mut self, member: MemberId, serve: bool, oracle: &mut Oracle) {
        (self.opening, self.holding) = (serve, false);
        self.replica.leave_in_log(!serve);
        if !serve {
            self.serving = false;
            self.out.push(Outward::Serve(false));
            oracle.stands_down(member);
            self.writes.clear();
            self.commits.clear();
            self.reads.clear();
        }
    }
}

fn draft(changes: &[Change]) -> Draft<IoBuf> {
    let bytes: u64 = changes.iter().map(|change| change.count * BLOCK).sum();
    let mut draft = Draft::new(IoBuf::for_body((bytes as usize).max(1)));
    for change in changes {
        let Ok(range) = ByteRange::new(change.block * BLOCK, change.count * BLOCK) else {
            unreachable!("clients stay inside the volume")
        };
        let added = match change.number {
            0 if change.block % 2 == 0 => draft.zero(volume(), range),
            0 => draft.trim(volume(), range),
            number => draft.write(volume(), range, &content(number, change.count)),
        };
        assert!(added.is_ok(), "the frame was made as long as its changes");
    }
    draft
}

/// What blocks hold that were written with `number`.
pub(crate) fn content(number: u64, count: u64) -> Vec<u8> {
    number.to_le_bytes().repeat((count * BLOCK / 8) as usize)
}

/// The frame as the other side's link reads it from the wire: checked, in memory of its own.
pub(crate) fn over_the_wire(frame: &Frame, durable: Lsn) -> Frame {
    let (head, body) = frame.wire_parts();
    let mut buffer = IoBuf::for_body(body.len());
    buffer[..head.len()].copy_from_slice(&head);
    buffer[HEAD_LEN..HEAD_LEN + body.len()].copy_from_slice(&body);
    let received = Frame::receive(buffer, resource(), durable);
    received.unwrap_or_else(|error| panic!("a frame arrives as it was sent: {error}"))
}

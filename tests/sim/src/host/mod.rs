//! One member: its disk, which outlives everything, and its process, which does not.

mod copies;
mod process;
mod seeds;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use hadrian_blockdev::buffer::IoBuf;
use hadrian_blockdev::engine::Engine as _;
use hadrian_blockdev::engine::double::{Copied, Double, Order, Unsynced};
use hadrian_blockdev::history::{Limits, Target};
use hadrian_blockdev::replica::{self, Replica, ReplicaError, Wishes};
use hadrian_blockdev::superblock::{Label, Whose};
use hadrian_blockdev::volume::Store;
use hadrian_protocol::frame::{Frame, HEAD_LEN, LogPosition};
use hadrian_protocol::ids::{Epoch, Lsn, MemberId, ResourceId, SessionId, VolumeIndex};
use hadrian_protocol::node::{
    Command, Denied, Done, Event, NodeConfig, Note, RECORDING_VERSION, Recorded, Start,
};
use hadrian_protocol::replica::{Base, Mode, ReplicaState, Role, Sizes, VolumeGeometry};
use hadrian_protocol::resync::Numbered;
use hadrian_protocol::time::{Clock, Now, WallTime};
use hadrian_protocol::wire::Message;

use crate::Micros;
use crate::disk::Disk;
use crate::oracle::Oracle;
use crate::plan::Anew;
use crate::tape::Recordings;
use crate::world::Want;
pub(crate) use process::Process;
pub(crate) use seeds::Seed;

/// Bytes of a block, the unit in which clients write.
pub(crate) const BLOCK: u64 = 512;
/// Blocks of the volume when a run begins.
pub(crate) const BLOCKS: u64 = 128;
/// Most blocks that it is grown to.
pub(crate) const BLOCKS_MAX: u64 = 512;
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

impl Ask {
    /// The end of what it touches, in blocks.
    fn end(&self) -> u64 {
        match self {
            Self::Write { changes, .. } => {
                changes.iter().map(|change| change.block + change.count).max().unwrap_or(0)
            }
            Self::Flush => 0,
            Self::Read { block, count } => block + count,
        }
    }
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
    /// A seed is whole.
    Exported(Box<Seed>),
    Record(Want),
    /// The host of this owner, in that epoch, is to be cut off by force.
    Fence(MemberId, Epoch),
    /// Clients can come, or are thrown out.
    Serve(bool),
    /// A request is answered.
    Answer(u64),
    /// A read is answered with an error.
    CannotRead(u64),
    Stopped,
}

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) member: MemberId,
    pub(crate) disk: Disk,
    /// What its replica is created with: the mode, and the bytes of its log.
    first: (Mode, u64),
    /// A copy of its disk that somebody has kept.
    copied: Option<Copied>,
    process: Option<Box<Process>>,
    /// How many processes there were.
    pub(crate) life: u64,
    wall_offset: i64,
    /// Its clock runs so many thousandths faster than the world's.
    pub(crate) drift: i64,
    pub(crate) paused_until: Micros,
    /// For so long its clocks stood still, within the life of its process.
    pub(crate) frozen: Micros,
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
    /// Bytes of log whose large changes may wait for the image.
    pub(crate) wait_bytes: u64,
    /// Its right to serve ends with time.
    pub(crate) has_leases: bool,
    /// It keeps history.
    pub(crate) history: bool,
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
        let mut host = Self {
            member,
            disk: Disk::new(seed),
            first: (mode, log_bytes),
            copied: None,
            process: None,
            life: 0,
            wall_offset: i64::from(member.index()) * 1_700,
            drift: i64::try_from(seed % 9).unwrap_or_default() - 4,
            paused_until: 0,
            frozen: 0,
            hangs_until: 0,
            fails: false,
            strayed: false,
            is_damaged: false,
            tick_at: None,
            disk_due: false,
            recordings: None,
            spool_memory: u64::MAX,
            wait_bytes: 0,
            has_leases: false,
            history: false,
        };
        let role = if member.index() == 0 { Role::Primary } else { Role::Standby };
        host.create(role, Base::Zero, BLOCK * BLOCKS);
        host
    }

    /// Puts a new replica on the disk, which is empty or holds an old one.
    fn create(&mut self, role: Role, base: Base, size_bytes: u64) {
        let (mode, log_bytes) = self.first;
        let volumes = vec![VolumeGeometry { size_bytes, block_size: 512 }];
        let state = ReplicaState::created(resource(), self.member, role, mode, base, volumes);
        self.disk.with(|disk| {
            disk.put_back(&Copied::default());
            disk.put_file(Path::new(STORE), size_bytes as usize);
        });
        let disk = &mut self.disk;
        let new = (&Label::default(), &state);
        let made = replica::create_in(disk, Path::new(DIR), new, log_bytes, &mut |_| {});
        assert!(made.is_ok(), "an empty disk takes a replica: {made:?}");
        self.disk.with(Double::restart_process);
    }

    /// The replica is created again; nobody uses it.
    pub(crate) fn make_anew(&mut self, anew: Anew) {
        let size = BLOCK * BLOCKS;
        let (role, base, size) = match anew {
            Anew::Alike => (Role::Standby, Base::Zero, size),
            Anew::Larger => (Role::Standby, Base::Zero, size * 2),
            Anew::OtherBase => (Role::Standby, Base::Digest([7; 32]), size),
            Anew::Primary => (Role::Primary, Base::Zero, size),
        };
        self.create(role, base, size);
        (self.fails, self.strayed, self.is_damaged) = (false, false, false);
    }

    /// Keeps a copy of the disk as it is.
    pub(crate) fn keep_copy(&mut self) {
        self.copied = Some(self.disk.with(|disk| disk.copy()));
    }

    /// Gets the copy back, where there is one; nobody uses the disk.
    pub(crate) fn put_back(&mut self) -> bool {
        if let Some(copied) = &self.copied {
            self.disk.with(|disk| disk.put_back(copied));
        }
        self.copied.is_some()
    }

    pub(crate) fn process(&self) -> Option<&Process> {
        self.process.as_deref()
    }

    /// See [`Process::begin_export`]; `false` as well where there is no process.
    pub(crate) fn begin_export(&mut self, session: SessionId) -> bool {
        self.process.as_mut().is_some_and(|process| process.begin_export(session))
    }

    /// The core has refused it.
    pub(crate) fn end_export(&mut self) {
        self.process.iter_mut().for_each(|process| process.end_export());
    }

    pub(crate) fn process_out(&mut self) -> Option<&mut Vec<Outward>> {
        Some(&mut self.process.as_mut()?.out)
    }

    pub(crate) fn serves(&self) -> bool {
        self.process().is_some_and(|process| process.serving)
    }

    /// Clients are let in, and answered.
    pub(crate) fn is_open(&self) -> bool {
        self.process().is_some_and(|process| process.serving && !process.holding)
    }

    /// Blocks that clients may use here.
    pub(crate) fn blocks(&self) -> u64 {
        self.process().map_or(BLOCKS, |process| process.offered)
    }

    /// The command that makes the volume larger than it is here, by a part that shares a leaf with
    /// what there was.
    pub(crate) fn grow_command(&self, test: bool) -> Option<Command> {
        let has = self.process()?.node.state().volumes.first()?.size_bytes;
        let size_bytes = (has + 40 * BLOCK).min(BLOCKS_MAX * BLOCK);
        Some(Command::Grow { volume: volume(), size_bytes, test })
    }

    /// The backing store is a device from here on, which only its operator makes larger.
    pub(crate) fn store_is_device(&self) {
        self.disk.with(|disk| disk.make_device(Path::new(STORE)));
    }

    /// The operator has made it larger, and left in it whatever was there.
    pub(crate) fn enlarge_device(&self) {
        let len = (BLOCKS_MAX * BLOCK) as usize;
        self.disk.with(|disk| disk.tamper(Path::new(STORE), |file| file.resize(len, 0xEE)));
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

    pub(crate) fn clock(&self, now: Micros) -> Clock {
        let began = self.process().map_or(now, |process| process.began);
        let wall = WALL_START + i64::try_from(now).unwrap_or(i64::MAX) + self.wall_offset;
        let wall = WallTime::from_micros(u64::try_from(wall).unwrap_or_default());
        let lived = now.saturating_sub(began + self.frozen);
        let lived = i64::try_from(lived).unwrap_or(i64::MAX / 2_000);
        let lived = u64::try_from(lived * (1000 + self.drift) / 1000).unwrap_or_default();
        Clock { now: Now::from_micros(lived), wall }
    }

    pub(crate) fn write_goes_astray(&mut self) {
        self.strayed = true;
        self.disk.with(|disk| disk.go_astray_in(&Path::new(DIR).join("log")));
    }

    /// A block of the backing store is not what was written; what it holds from here on.
    pub(crate) fn rots(&mut self, block: u64) -> Vec<u8> {
        let at = (block % BLOCKS * BLOCK) as usize;
        let block = at..at + BLOCK as usize;
        self.disk.with(|disk| disk.tamper(Path::new(STORE), |file| file[at] ^= 1));
        self.image()[block].to_vec()
    }

    /// What was set aside on its disk.
    pub(crate) fn quarantine(&mut self) -> Vec<Vec<u8>> {
        let dir = Path::new(DIR).join("quarantine");
        self.disk.with(|disk| {
            let names = disk.list(&dir).unwrap_or_default();
            let paths = names.iter().map(|name| dir.join(name));
            paths.filter_map(|path| Some(disk.contents(&path)?.to_vec())).collect()
        })
    }

    /// The volume as a reader of the backing store sees it. Of a replica that does not run it is
    /// all of the store, which may be larger.
    pub(crate) fn image(&self) -> Vec<u8> {
        match self.process() {
            Some(process) => process.image(),
            None => image_of(&self.disk, u64::MAX),
        }
    }

    /// The sizes of its volumes, while it runs.
    pub(crate) fn sizes(&self) -> Option<Sizes> {
        Some(self.process()?.node.state().sizes())
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
        self.frozen = 0;
        let (paths, dir) = ([PathBuf::from(STORE)], Path::new(DIR));
        let whose = Whose { resource: resource(), label: Label::default() };
        let (mut replica, state, recovered) = Replica::open_as(
            self.disk.clone(),
            dir,
            &whose,
            &paths,
            Store::open_in,
            self.wishes(),
        )?;
        replica.set_spool_memory(self.spool_memory);
        self.disk.with(Double::forget_plans);
        self.fails = false;
        let clock = self.clock(now);
        let size = state.volumes.first().map_or(0, |volume| volume.size_bytes);
        let image = image_of(&self.disk, size);
        oracle.opened(self.member, &state, &recovered, (&image, clock.wall));
        let start = Start {
            version: RECORDING_VERSION,
            program: "simulator".into(),
            config: config.clone(),
            state,
            recovered,
            clock,
        };
        let tape = self.recordings.as_ref().map(Recordings::tape);
        let node = Recorded::start(start, tape);
        let process = Process::new(node, replica, self.disk.clone(), (now, self.wait_bytes));
        self.process = Some(Box::new(process));
        (self.tick_at, self.disk_due) = (None, false);
        Ok(())
    }

    fn wishes(&self) -> Wishes {
        let (bytes, segment_bytes, record_bytes) = (16 << 20, 64 << 10, 16 << 10);
        let limits = Limits { age: None, bytes, segment_bytes, record_bytes };
        Wishes { history: self.history.then_some(limits), ..Wishes::default() }
    }

    /// A point of the past, so many thousandths of the way from the oldest that is kept to the end
    /// of the log. A reader of its own looks for it, on a copy of the disk.
    pub(crate) fn point(&self, part: u64) -> Option<LogPosition> {
        let process = self.process()?;
        let door = process.history_door()?;
        let oldest = door.reach().oldest.at.lsn;
        let span = process.node.log_end().since(oldest);
        let target = Target::Lsn(Lsn::new(oldest.get() + span * part / 1000));
        let mut copy = Double::new(part, Order::AsSubmitted, Unsynced::Kept);
        copy.put_back(&self.disk.with(|disk| disk.copy()));
        Some(door.resolve(&mut copy, &target).ok()?.point.at)
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

    /// The data of a resync; whether it made sense.
    pub(crate) fn copying(
        &mut self,
        now: Micros,
        session: SessionId,
        copying: Numbered,
        oracle: &mut Oracle,
    ) -> bool {
        let Some(process) = &mut self.process else { return true };
        let made_sense = process.copying(session, copying);
        self.pump(now, oracle);
        made_sense
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
        if self.has_leases {
            // Whoever stood still may have lost the right to serve meanwhile.
            process.pump(clock, member, oracle);
        }
        let fits = ask.end() <= process.offered;
        let taken = process.serving && !process.holding && process.has_room() && fits;
        if taken {
            process.take(clock, member, id, ask, oracle);
            process.pump(clock, member, oracle);
        }
        taken
    }

    /// When the core wants to be called at the latest.
    pub(crate) fn deadline(&self) -> Option<Micros> {
        let process = self.process()?;
        let quiet = process.quiet_at(process.looked_at);
        let at = process.node.next_deadline();
        Some(self.world_time(quiet.map_or(at, |quiet| quiet.min(at))))
    }

    /// When its clock shows `at`.
    pub(crate) fn world_time(&self, at: Now) -> Micros {
        let began = self.process().map_or(0, |process| process.began) + self.frozen;
        let at = i64::try_from(at.as_micros()).unwrap_or(i64::MAX).min(i64::MAX / 2_000);
        began + u64::try_from(at * 1000 / (1000 + self.drift) + 1).unwrap_or_default()
    }
}

/// The first bytes of a backing store.
fn image_of(disk: &Disk, size: u64) -> Vec<u8> {
    disk.with(|disk| {
        let all = disk.contents(Path::new(STORE)).unwrap_or_default();
        all[..all.len().min(usize::try_from(size).unwrap_or(usize::MAX))].to_vec()
    })
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

//! Two replicas on two disks, wired to each other: a primary, and a standby that is resynced.

mod crashes;
mod failures;
mod growth;
mod maps;
mod real;
mod repairs;
mod soak;
mod stories;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use hadrian_protocol::frame::{Draft, LogPosition, SealAs};
use hadrian_protocol::ids::{Epoch, VolumeIndex};
use hadrian_protocol::node::Recovered;
use hadrian_protocol::range::ByteRange;
use hadrian_protocol::replica::{Base, Mode, Role};
use hadrian_protocol::time::WallTime;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::buffer::IoBuf;
use crate::engine::double::{Double, Order, Unsynced};
use crate::history::Limits;
use crate::replica::{ReplicaError, Wishes, create_in};
use crate::superblock::{Label, Whose};
use crate::volume::Store;

pub(super) const MIB: u64 = 1 << 20;
/// Sizes of the volumes: of several regions, and for stories that are told many times.
pub(super) const SIZES: [u64; 2] = [9 * MIB + 1536, MIB];
pub(super) const SMALL: [u64; 2] = [MIB / 2 + 1536, MIB / 8];

pub(in crate::replica) use crashes::SharedDisk;

pub(in crate::replica) fn whose() -> Whose {
    Whose { resource: resource(), label: Label::default() }
}

/// Takes a message as the next of its session.
pub(super) fn hear<E: Engine>(
    replica: &mut Replica<E>,
    id: u64,
    copying: Copying,
) -> Result<(), BadCopying> {
    let number = replica.copies.counts.heard(id) + 1;
    replica.copying(id, Numbered { number, copying })
}

pub(in crate::replica) fn resource() -> ResourceId {
    ResourceId::derive("orders", "db")
}

fn store(volume: usize) -> PathBuf {
    PathBuf::from(format!("/store{volume}"))
}

pub(in crate::replica) fn volume(index: u16) -> VolumeIndex {
    VolumeIndex::new(index).unwrap()
}

/// A change: volume, first byte, length, and the byte that is written; zero is written as zeroes.
pub(super) type Edit = (u16, u64, u64, u8);

/// A replica on its disk, and what it said that the other side does not hear.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) replica: Replica<Double>,
    pub(super) state: ReplicaState,
    pub(super) events: Vec<ReplicaEvent>,
    /// What its log has, and its author's mark.
    end: LogPosition,
    author: u8,
    persists: u64,
    /// It keeps history.
    keeps: bool,
}

pub(in crate::replica) fn dir() -> &'static Path {
    Path::new("/replica")
}

fn open(
    disk: Double,
    keeps: bool,
) -> Result<(Replica<Double>, ReplicaState, Recovered), ReplicaError> {
    let paths: Vec<_> = (0..2).map(store).collect();
    let (segment_bytes, record_bytes) = (64 << 10, 16 << 10);
    let limits = Limits { age: None, bytes: 1 << 30, segment_bytes, record_bytes };
    let wishes = Wishes { history: keeps.then_some(limits), ..Wishes::default() };
    Replica::open_as(disk, dir(), &whose(), &paths, Store::open_in, wishes)
}

impl Member {
    pub(super) fn new(author: u8, seed: u64, unsynced: Unsynced) -> Self {
        Self::of(author, (seed, unsynced), SIZES)
    }

    pub(super) fn of(author: u8, (seed, unsynced): (u64, Unsynced), sizes: [u64; 2]) -> Self {
        let mut disk = Double::new(seed, Order::Scattered, unsynced);
        disk.create_dir(dir()).unwrap();
        sizes.iter().enumerate().for_each(|(n, size)| disk.put_file(&store(n), *size as usize));
        let volumes = sizes.map(|size_bytes| VolumeGeometry { size_bytes, block_size: 512 });
        let (member, role) = (MemberId::new(author).unwrap(), Role::Standby);
        let mode = Mode::default();
        let state =
            ReplicaState::created(resource(), member, role, mode, Base::Zero, volumes.to_vec());
        let log_bytes = if sizes == SIZES { 4 * MIB } else { MIB / 4 };
        let new = (&Label::default(), &state);
        create_in(&mut disk, dir(), new, log_bytes, &mut |_| {}).unwrap();
        Self::open(disk, author).unwrap()
    }

    pub(super) fn open(disk: Double, author: u8) -> Result<Self, ReplicaError> {
        Self::open_as(disk, author, false)
    }

    /// The same, and whether it keeps history.
    pub(super) fn open_as(disk: Double, author: u8, keeps: bool) -> Result<Self, ReplicaError> {
        let (replica, state, recovered) = open(disk, keeps)?;
        let (events, end) = (Vec::new(), recovered.end);
        Ok(Self { replica, state, events, end, author, persists: 0, keeps })
    }

    /// The image at the oldest point of its history, as the next start would find it.
    pub(super) fn oldest_image(&self) -> Option<Vec<Vec<u8>>> {
        history_of(&self.replica.engine)
    }

    /// The disk of a replica whose process has ended.
    pub(super) fn into_disk(self) -> Double {
        self.replica.engine
    }

    pub(super) fn disk(&mut self) -> &mut Double {
        &mut self.replica.engine
    }

    pub(super) fn power_cycle(self) -> Result<Self, ReplicaError> {
        let (author, keeps) = (self.author, self.keeps);
        let mut disk = self.into_disk();
        disk.power_on();
        Self::open_as(disk, author, keeps)
    }

    /// Runs until nothing is under way, or the power is gone.
    pub(super) fn settle(&mut self) {
        loop {
            self.replica.poll(&mut self.events);
            self.replica.kick();
            if self.replica.engine.in_flight() == 0 || self.replica.engine.wait().is_err() {
                return;
            }
        }
    }

    fn append(&mut self, edits: &[Edit]) -> LogPosition {
        let mut draft = Draft::new(IoBuf::for_body(1 << 20));
        if edits.is_empty() {
            draft.marker().unwrap();
        }
        for (index, offset, len, byte) in edits {
            let range = ByteRange::new(*offset, *len).unwrap();
            match byte {
                0 => draft.zero(volume(*index), range).unwrap(),
                byte => {
                    let data = vec![*byte; *len as usize];
                    draft.write(volume(*index), range, &data).unwrap();
                }
            }
        }
        let frame = draft.seal(SealAs {
            resource: resource(),
            epoch: Epoch::new(8 + u64::from(self.author)),
            lsn: self.end.lsn,
            durable: Lsn::START,
            wall: WallTime::from_micros(1),
            author: MemberId::new(self.author).unwrap(),
            before: self.end.chain,
        });
        self.replica.append(&frame).unwrap();
        self.end = frame.position_after();
        self.end
    }

    /// Writes a frame that is durable when this returns.
    pub(super) fn write(&mut self, edits: &[Edit]) -> LogPosition {
        let end = self.append(edits);
        self.replica.sync_log();
        self.settle();
        end
    }

    pub(super) fn apply(&mut self) {
        self.replica.apply_to(self.end.lsn);
        self.settle();
        assert_eq!(self.replica.volumes.applied(), self.end);
    }

    pub(super) fn image(&self) -> Vec<Vec<u8>> {
        let disk = &self.replica.engine;
        (0..2).map(|n| disk.contents(&store(n)).unwrap().to_vec()).collect()
    }

    /// Fills a part of a store behind everybody's back.
    pub(super) fn fill(&mut self, (index, offset, len, byte): Edit) {
        self.disk().tamper(&store(usize::from(index)), |file| {
            file[offset as usize..(offset + len) as usize].fill(byte);
        });
    }

    /// Writes the state; false where the power went.
    pub(super) fn persist(&mut self, change: impl FnOnce(&mut ReplicaState)) -> bool {
        change(&mut self.state);
        self.persists += 1;
        self.replica.persist(self.persists, self.state.clone()).unwrap();
        self.settle();
        let number = self.persists;
        self.events.iter().any(|e| matches!(e, ReplicaEvent::Persisted(n) if *n == number))
    }

    /// What the core does at a landing; false where the power went.
    pub(super) fn switch(&mut self, to: LogPosition) -> bool {
        let switching = |state: &mut ReplicaState| {
            state.image = Image::Switching;
            state.checkpoint = to;
            state.apply_limit = to.lsn;
        };
        if !self.persist(switching) {
            return false;
        }
        self.replica.switch_image(to);
        self.settle();
        if !self.events.iter().any(|event| matches!(event, ReplicaEvent::Switched(at) if *at == to))
        {
            assert!(self.disk().is_cut(), "{:?}", self.events);
            return false;
        }
        self.end = to;
        if !self.persist(|state| state.image = Image::Whole) {
            return false;
        }
        self.replica.drop_staging();
        self.settle();
        true
    }
}

/// The image at the oldest point of the history on a disk, if there is a history.
pub(super) fn history_of(disk: &Double) -> Option<Vec<Vec<u8>>> {
    let mut copy = Double::new(1, Order::AsSubmitted, Unsynced::Lost);
    copy.put_back(&disk.copy());
    let stores: Vec<_> = (0..2).map(store).collect();
    let size = |path| disk.contents(path).unwrap().len() as u64;
    let geometry = |path| VolumeGeometry { size_bytes: size(path), block_size: 512 };
    let volumes: Vec<_> = stores.iter().map(|path| geometry(path)).collect();
    let of = (resource(), volumes.as_slice());
    crate::history::fuzz::history(copy, dir(), of, &stores).unwrap().map(Result::unwrap)
}

/// What went over the link.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) compares: u64,
    pub(super) differs: u64,
    pub(super) content_bytes: u64,
    pub(super) zero_bytes: u64,
}

/// A source and a sink.
#[derive(Debug)]
pub(super) struct Pairing {
    pub(super) primary: Member,
    pub(super) standby: Member,
    pub(super) traffic: Traffic,
    to_standby: VecDeque<Numbered>,
    to_primary: VecDeque<Numbered>,
    pub(super) rng: SmallRng,
    held: bool,
    pub(super) landing: Option<LogPosition>,
    said: u64,
    pub(super) result: Option<Result<(), SinkError>>,
}

/// The first member.
const FIRST: MemberId = match MemberId::new(0) {
    Some(member) => member,
    None => panic!("there is a first member"),
};

pub(super) const DIGESTS: Scope = Scope { way: Way::Digests, map_of: FIRST, log_from: Lsn::START };

impl Pairing {
    pub(super) fn new(seed: u64, unsynced: Unsynced) -> Self {
        Self::of(seed, unsynced, SIZES)
    }

    pub(super) fn of(seed: u64, unsynced: Unsynced, sizes: [u64; 2]) -> Self {
        Self {
            primary: Member::of(0, (seed, unsynced), sizes),
            standby: Member::of(1, (seed + 1000, unsynced), sizes),
            traffic: Traffic::default(),
            to_standby: VecDeque::new(),
            to_primary: VecDeque::new(),
            rng: SmallRng::seed_from_u64(seed),
            held: false,
            landing: None,
            said: 0,
            result: None,
        }
    }

    pub(super) fn begin(&mut self, scope: Scope, takes: Takes, apart: Option<Lsn>) {
        self.traffic = Traffic::default();
        self.to_standby.clear();
        self.to_primary.clear();
        for member in [&mut self.primary, &mut self.standby] {
            member.replica.copies.counts = Counts::default();
        }
        (self.held, self.landing, self.result) = (false, None, None);
        self.primary.replica.source(1, scope);
        self.standby.replica.sink(1, takes, apart);
    }

    /// One round: each side goes on by some operations, and hears some messages.
    pub(super) fn step(&mut self) {
        for (member, out) in
            [(&mut self.primary, &mut self.to_standby), (&mut self.standby, &mut self.to_primary)]
        {
            member.replica.poll(&mut member.events);
            member.replica.kick();
            for event in std::mem::take(&mut member.events) {
                match event {
                    ReplicaEvent::Copying { id: 1, message } => out.push_back(message),
                    ReplicaEvent::SourceNearEnd { id: 1 } => self.held = true,
                    ReplicaEvent::SourceDone { id: 1, at, said } => {
                        (self.landing, self.said) = (Some(at), said);
                    }
                    ReplicaEvent::SinkDone { id: 1, result } => self.result = Some(result),
                    other => member.events.push(other),
                }
            }
            if member.replica.engine.in_flight() > 0 {
                let _ = member.replica.engine.wait();
            }
        }
        for _ in 0..self.rng.random_range(1..6) {
            if let Some(message) = self.to_standby.pop_front() {
                self.count(&message.copying);
                self.standby.replica.copying(1, message).unwrap();
            }
            if let Some(message) = self.to_primary.pop_front() {
                self.traffic.differs +=
                    u64::from(matches!(message.copying, Copying::Differs { .. }));
                self.primary.replica.copying(1, message).unwrap();
            }
        }
    }

    fn count(&mut self, message: &Copying) {
        match message {
            Copying::Compare { .. } => self.traffic.compares += 1,
            Copying::Content { data: Some(data), .. } => {
                self.traffic.content_bytes += data.len() as u64;
            }
            Copying::Content { len, .. } => self.traffic.zero_bytes += len,
            _ => {}
        }
    }

    /// Copies until the sink has everything of a landing; `meanwhile` may write as long as the
    /// image is not held.
    pub(super) fn copy(&mut self, mut meanwhile: impl FnMut(&mut Self)) {
        let mut rounds = 0;
        while !self.held {
            self.step();
            meanwhile(self);
            rounds += 1;
            assert!(rounds < 100_000 && self.result.is_none(), "{:?}", self.result);
        }
        self.primary.apply();
        self.primary.replica.finish_source(1);
        while self.landing.is_none() || !self.to_standby.is_empty() {
            self.step();
            rounds += 1;
            assert!(rounds < 100_000, "{self:?}");
        }
    }

    /// Lets the sink make sure of it; false where the power went.
    pub(super) fn finish(&mut self) -> bool {
        self.standby.replica.finish_sink(1, self.said);
        let mut rounds = 0;
        while self.result.is_none() && !self.standby.disk().is_cut() {
            self.step();
            rounds += 1;
            assert!(rounds < 10_000);
        }
        self.primary.replica.end_source(1);
        !self.standby.disk().is_cut()
    }

    /// All of it, to the end.
    pub(super) fn resync(&mut self, scope: Scope, takes: Takes, apart: Option<Lsn>) {
        self.begin(scope, takes, apart);
        self.copy(|_| {});
        assert!(self.finish());
        self.result.take().unwrap().unwrap();
        let landing = self.landing.unwrap();
        assert!(self.standby.switch(landing));
        assert!(self.standby.image() == self.primary.image(), "the images differ");
    }

    pub(super) fn random_edit(&mut self) -> Edit {
        let index = self.rng.random_range(0..2_u16);
        let blocks = SIZES[usize::from(index)] / 512;
        let at = self.rng.random_range(0..blocks);
        let len = self.rng.random_range(1..=(blocks - at).min(100));
        (index, at * 512, len * 512, self.rng.random_range(0..5))
    }
}

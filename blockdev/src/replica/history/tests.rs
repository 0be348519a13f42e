//! History kept by a replica on a disk that loses power: whatever happens, the image at each point
//! in reach is what it was.

mod back;
mod crashes;
mod stories;

use std::path::PathBuf;

use hadrian_protocol::frame::{Draft, SealAs};
use hadrian_protocol::ids::{Epoch, MemberId};
use hadrian_protocol::range::ByteRange;
use hadrian_protocol::replica::{Base, Mode, Role, VolumeGeometry};
use hadrian_protocol::time::WallTime;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::super::resync::tests::{SharedDisk, dir, resource, volume, whose};
use super::*;
use crate::buffer::IoBuf;
use crate::engine::double::{Double, Order, Unsynced};
use crate::history::{Point, Target, View};
use crate::replica::{Wishes, create_in};
use crate::superblock::Label;
use crate::volume::Store;

/// Sizes of the volumes: one does not end with a whole page.
const SIZES: [u64; 2] = [96 * 1024 + 1536, 32 * 1024];
const LOG_BYTES: u64 = 1 << 20;

type Images = Vec<Vec<u8>>;

fn store(volume: usize) -> PathBuf {
    PathBuf::from(format!("/store{volume}"))
}

fn stores() -> Vec<PathBuf> {
    (0..2).map(store).collect()
}

/// Small segments, so that a story has many; and so many bytes of them.
fn limits(bytes: u64) -> Limits {
    Limits { age: None, bytes, segment_bytes: 48 << 10, record_bytes: 16 << 10 }
}

/// A replica, what it was told, and the image behind each frame.
struct Rig {
    disk: SharedDisk,
    replica: Option<Replica<SharedDisk>>,
    state: ReplicaState,
    events: Vec<ReplicaEvent>,
    persists: u64,
    /// Behind each frame of the log, from its beginning.
    known: Vec<(LogPosition, Images)>,
    wall: u64,
    rng: SmallRng,
    limits: Option<Limits>,
}

impl Rig {
    fn new(seed: u64, unsynced: Unsynced, limits: Option<Limits>) -> Self {
        let mut disk = Double::new(seed, Order::Scattered, unsynced);
        disk.create_dir(dir()).unwrap();
        SIZES.iter().zip(stores()).for_each(|(size, path)| disk.put_file(&path, *size as usize));
        let volumes = SIZES.map(|size_bytes| VolumeGeometry { size_bytes, block_size: 512 });
        let (member, mode) = (MemberId::new(1).unwrap(), Mode::default());
        let volumes = volumes.to_vec();
        let state =
            ReplicaState::created(resource(), member, Role::Standby, mode, Base::Zero, volumes);
        let new = (&Label::default(), &state);
        create_in(&mut disk, dir(), new, LOG_BYTES, &mut |_| {}).unwrap();
        let images: Images = SIZES.iter().map(|size| vec![0; *size as usize]).collect();
        let mut rig = Self {
            disk: SharedDisk::new(disk),
            replica: None,
            known: vec![(state.checkpoint, images)],
            state,
            events: Vec::new(),
            persists: 0,
            wall: 1_000_000,
            rng: SmallRng::seed_from_u64(seed),
            limits,
        };
        rig.open().unwrap();
        rig
    }

    /// Starts the replica on what the disk has.
    fn open(&mut self) -> Result<(), ReplicaError> {
        self.replica = None;
        let wishes = Wishes { history: self.limits, ..Wishes::default() };
        let disk = self.disk.clone();
        let (replica, state, recovered) =
            Replica::open_as(disk, dir(), &whose(), &stores(), Store::open_in, wishes)?;
        self.events.clear();
        self.replica = Some(replica);
        let keep = self.known.iter().position(|(at, _)| *at == recovered.end);
        self.known.truncate(keep.expect("a log ends where a frame did") + 1);
        self.state = state;
        self.settle();
        Ok(())
    }

    fn power_cycle(&mut self) -> Result<(), ReplicaError> {
        self.replica = None;
        self.disk.0.borrow_mut().power_on();
        self.open()
    }

    fn replica(&mut self) -> &mut Replica<SharedDisk> {
        self.replica.as_mut().unwrap()
    }

    fn is_cut(&self) -> bool {
        self.disk.0.borrow().is_cut()
    }

    fn settle(&mut self) {
        loop {
            let Self { replica: Some(replica), events, .. } = self else { return };
            replica.poll(events);
            replica.kick();
            if replica.engine.in_flight() == 0 || replica.engine.wait().is_err() {
                return;
            }
        }
    }

    fn end(&self) -> LogPosition {
        self.known.last().unwrap().0
    }

    /// Appends a frame of some changes, durable when this returns.
    fn write(&mut self) {
        let (count, seconds) = (self.rng.random_range(1..4), self.rng.random_range(0..3));
        self.wall += seconds * 700_000 + 1;
        let mut draft = Draft::new(IoBuf::for_body(256 << 10));
        let mut images = self.known.last().unwrap().1.clone();
        for _ in 0..count {
            self.change(&mut draft, &mut images);
        }
        self.append(draft, images);
    }

    /// Appends a frame that gives the point behind it a name.
    fn name(&mut self, name: &str) -> LogPosition {
        let mut draft = Draft::new(IoBuf::for_body(0));
        draft.point(&name.parse().unwrap()).unwrap();
        let images = self.known.last().unwrap().1.clone();
        self.append(draft, images);
        self.end()
    }

    fn append(&mut self, draft: Draft<IoBuf>, images: Images) {
        let end = self.end();
        let frame = draft.seal(SealAs {
            resource: resource(),
            epoch: Epoch::new(9),
            lsn: end.lsn,
            durable: Lsn::START,
            wall: WallTime::from_micros(self.wall),
            author: MemberId::new(0).unwrap(),
            before: end.chain,
        });
        self.known.push((frame.position_after(), images));
        let replica = self.replica();
        replica.append(&frame).unwrap();
        replica.sync_log();
        self.settle();
    }

    fn change(&mut self, draft: &mut Draft<IoBuf>, images: &mut Images) {
        let index = self.rng.random_range(0..2_usize);
        let blocks = SIZES[index] / 512;
        let at = self.rng.random_range(0..blocks);
        let len = self.rng.random_range(1..=(blocks - at).min(40));
        let (start, end) = ((at * 512) as usize, ((at + len) * 512) as usize);
        let range = ByteRange::new(at * 512, len * 512).unwrap();
        let of = volume(u16::try_from(index).unwrap());
        match self.rng.random_range(0..6_u8) {
            0 => draft.zero(of, range).unwrap(),
            1 => draft.trim(of, range).unwrap(),
            _ => {
                let data: Vec<u8> = (start..end).map(|_| self.rng.random()).collect();
                draft.write(of, range, &data).unwrap();
                images[index][start..end].copy_from_slice(&data);
                return;
            }
        }
        images[index][start..end].fill(0);
    }

    /// Records that everything may be applied, and lets it be; false where the power went.
    fn apply(&mut self) -> bool {
        let end = self.end().lsn;
        if !self.persist(|state| state.apply_limit = end) {
            return false;
        }
        self.replica().apply_to(end);
        self.settle();
        !self.is_cut()
    }

    fn checkpoint(&mut self) -> bool {
        self.replica().checkpoint();
        self.settle();
        let applied = self.replica().volumes.applied();
        !self.is_cut() && self.persist(|state| state.checkpoint = applied)
    }

    fn persist(&mut self, change: impl FnOnce(&mut ReplicaState)) -> bool {
        change(&mut self.state);
        self.persists += 1;
        let (number, state) = (self.persists, self.state.clone());
        self.replica().persist(number, state).unwrap();
        self.settle();
        self.events.iter().any(|e| matches!(e, ReplicaEvent::Persisted(n) if *n == number))
    }

    fn model(&self, point: Point) -> &Images {
        let known = self.known.iter().find(|(at, _)| *at == point.at);
        &known.unwrap_or_else(|| panic!("{} is no point of the log", point.at.lsn)).1
    }

    fn door(&self) -> Door {
        self.replica.as_ref().unwrap().history_door().expect("there is a history")
    }

    fn view(&self, point: Point) -> View<SharedDisk> {
        let door = self.door();
        View::open(&door, self.disk.clone(), (&stores(), point), 1 << 20).unwrap()
    }

    /// Every point in reach, from the newest back.
    fn points(&self) -> Vec<Point> {
        let (door, mut disk) = (self.door(), self.disk.clone());
        let reach = door.reach();
        let mut points = vec![reach.newest];
        while points.last().unwrap().at != reach.oldest.at {
            let before = points.last().unwrap().at.lsn.get() - 1;
            let target = Target::Lsn(Lsn::new(before));
            points.push(door.resolve(&mut disk, &target).unwrap().point);
        }
        assert_eq!(points.len() as u64, reach.points);
        points
    }

    /// Looks at the image at each point in reach.
    fn check_all(&self) -> usize {
        let points = self.points();
        for point in &points {
            let mut view = self.view(*point);
            assert_eq!(read(&mut view), *self.model(*point), "at {}", point.at.lsn);
        }
        points.len()
    }
}

fn read(view: &mut View<SharedDisk>) -> Images {
    let all = |(index, size): (u16, u64)| view.read(volume(index), 0, size as usize).unwrap();
    (0..).zip(SIZES).map(all).collect()
}

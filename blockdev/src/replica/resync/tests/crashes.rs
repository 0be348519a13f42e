//! Power lost at every operation from the end of a sink to the end of the switch.

use super::*;

const ALL: [Unsynced; 4] = [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn, Unsynced::Mixed];

/// A standby with a log of its own that has everything of a landing staged.
fn copied(seed: u64, unsynced: Unsynced, takes: Takes) -> (Pairing, LogPosition) {
    let mut pair = Pairing::of(seed, unsynced, SMALL);
    let disk = pair.standby.into_disk();
    pair.standby = Member::open_as(disk, 1, true).unwrap();
    pair.standby.settle();
    // The same positions hold other frames on both sides: what a reset must not mistake.
    for round in 0..3 {
        pair.primary.write(&[(0, round * 4096, 20_000, 11)]);
        pair.standby.write(&[(0, round * 4096, 20_000, 22)]);
    }
    pair.primary.write(&[(0, MIB / 4, 50_000, 3), (1, 0, 4096, 4), (0, 0, 4096, 0)]);
    pair.primary.apply();
    pair.standby.apply();
    pair.standby.replica.checkpoint();
    pair.standby.settle();
    let end = pair.standby.end;
    pair.standby.persist(|state| (state.checkpoint, state.apply_limit) = (end, end.lsn));
    pair.standby.write(&[]);
    pair.begin(DIGESTS, takes, Some(Lsn::START));
    pair.copy(|_| {});
    while !pair.standby.replica.copies.sink.as_ref().unwrap().state.borrow().is_idle() {
        pair.step();
    }
    let landing = pair.landing.unwrap();
    (pair, landing)
}

/// Finishes and switches, until the power goes.
fn finish(pair: &mut Pairing, landing: LogPosition) -> bool {
    pair.finish() && pair.result.take().is_some_and(|r| r.is_ok()) && pair.standby.switch(landing)
}

/// What may be there after a crash.
fn check(member: &Member, old: &(Vec<Vec<u8>>, LogPosition), new: (&[Vec<u8>], LogPosition)) {
    let (start, end) = (member.replica.journal.start(), member.replica.journal.end());
    let image = member.image();
    match member.state.checkpoint == new.1 {
        true => {
            assert!(image == new.0, "the image is not that of the landing");
            assert_eq!((start, end), (new.1.lsn, new.1), "the log begins at the landing");
        }
        false => {
            assert!(image == old.0, "the old image has changed");
            assert_eq!(end, old.1, "the old log has changed");
            assert_eq!(member.state.image, Image::Whole);
        }
    }
}

/// What is on record of the image before the landing says nothing of the one behind it.
fn check_history(member: &Member, landing: LogPosition, new: &[Vec<u8>]) {
    let oldest = member.oldest_image().expect("history is kept");
    match member.state.checkpoint == landing {
        true => assert!(oldest == new, "history does not begin at the landing"),
        false => {
            let zeroes = oldest.iter().flatten().all(|byte| *byte == 0);
            assert!(zeroes, "the image was all zeroes when history began");
        }
    }
}

#[test]
fn a_cut_at_any_operation_leaves_the_old_image_or_the_landing() {
    for (seed, unsynced) in (0..).zip(ALL) {
        let (mut whole, landing) = copied(seed, unsynced, Takes::Staged);
        let before = whole.standby.disk().changes_done();
        assert!(finish(&mut whole, landing));
        let count = whole.standby.disk().changes_done() - before;
        let (mut old_seen, mut new_seen) = (0, 0);
        for cut in 1..=count {
            let (mut pair, landing) = copied(seed, unsynced, Takes::Staged);
            let old = (pair.standby.image(), pair.standby.end);
            let new = pair.primary.image();
            pair.standby.disk().cut_power_at(cut);
            finish(&mut pair, landing);
            let mut disk = pair.standby.into_disk();
            disk.power_on();
            // The recovery itself is cut short, too.
            disk.cut_power_at(1 + cut % 13);
            let kept = disk.copy();
            let mut standby = match Member::open_as(disk, 1, true) {
                Ok(member) => member.power_cycle().unwrap(),
                Err(_) => {
                    let mut disk = Double::new(seed, Order::Scattered, unsynced);
                    disk.put_back(&kept);
                    Member::open_as(disk, 1, true).unwrap()
                }
            };
            standby.settle();
            check(&standby, &old, (&new, landing));
            check_history(&standby, landing, &new);
            let is_new = standby.state.checkpoint == landing;
            (old_seen, new_seen) = (old_seen + u64::from(!is_new), new_seen + u64::from(is_new));
            let mut standby = standby.power_cycle().unwrap();
            standby.settle();
            check(&standby, &old, (&new, landing));
            check_history(&standby, landing, &new);
        }
        assert!(old_seen > 10 && new_seen > 10, "{old_seen} {new_seen}");
    }
}

#[test]
fn a_recovery_that_is_cut_short_at_any_operation_is_finished_by_the_next() {
    for (seed, unsynced) in (0..).zip(ALL) {
        let mut cut = 1;
        loop {
            let (mut pair, landing) = copied(seed, unsynced, Takes::Staged);
            let (old, new) = ((pair.standby.image(), pair.standby.end), pair.primary.image());
            assert!(pair.finish());
            pair.result.take().unwrap().unwrap();
            assert!(pair.standby.persist(|state| {
                state.image = Image::Switching;
                (state.checkpoint, state.apply_limit) = (landing, landing.lsn);
            }));
            let mut disk = SharedDisk::new(pair.standby.into_disk());
            disk.0.borrow_mut().power_on();
            disk.0.borrow_mut().cut_power_at(cut);
            let done = disk.open().is_ok();
            disk.0.borrow_mut().power_on();
            let (replica, state, recovered) = disk.open().unwrap();
            assert_eq!((recovered.start, recovered.end), (landing.lsn, landing));
            assert_eq!((recovered.durable, state.image), (landing.lsn, Image::Switching));
            drop(replica);
            let image = |n| disk.0.borrow().contents(&store(n)).unwrap().to_vec();
            assert!((0..2).map(image).eq(new.iter().cloned()), "cut {cut}");
            assert!(old.0 != new);
            if done {
                break;
            }
            cut += 1;
        }
        assert!(cut > 20, "{cut}");
    }
}

#[test]
fn a_cut_while_content_is_taken_leaves_the_image_and_a_staging_that_heals() {
    for (seed, unsynced) in (50..).zip(ALL) {
        for cut in (1..120).step_by(3) {
            let mut pair = Pairing::of(seed, unsynced, SMALL);
            pair.primary.fill((0, 0, MIB / 2, 5));
            pair.standby.fill((0, 1000, MIB / 2, 6));
            let old = pair.standby.image();
            pair.begin(DIGESTS, Takes::Staged, None);
            pair.standby.disk().cut_power_at(cut);
            while !pair.standby.disk().is_cut() && !pair.held {
                pair.step();
            }
            pair.primary.replica.end_source(1);
            pair.standby = pair.standby.power_cycle().unwrap();
            assert!(pair.standby.image() == old, "cut {cut}");
            pair.resync(DIGESTS, Takes::Staged, None);
        }
    }
}

#[test]
fn no_block_is_overwritten_in_place_before_it_is_in_quarantine() {
    for (seed, unsynced) in (60..).zip(ALL) {
        for cut in 1..60 {
            let mut pair = Pairing::of(seed, unsynced, SMALL);
            let disk = pair.standby.into_disk();
            pair.standby = Member::open_as(disk, 1, true).unwrap();
            pair.standby.settle();
            pair.standby.write(&[(0, 0, 90_000, 66), (1, 512, 512, 67)]);
            pair.standby.apply();
            pair.standby.replica.checkpoint();
            pair.standby.settle();
            let old = pair.standby.image();
            pair.primary.fill((0, 0, MIB / 2, 5));
            pair.standby.persist(|state| state.image = Image::Incomplete);
            pair.begin(DIGESTS, Takes::InPlace, Some(Lsn::START));
            pair.standby.disk().cut_power_at(cut);
            while !pair.standby.disk().is_cut() && !pair.held {
                pair.step();
            }
            let size = |n: usize| pair.standby.state.volumes[n].size_bytes as usize;
            let zeroes = [0, 1].map(|n| vec![0; size(n)]);
            let mut disk = pair.standby.into_disk();
            disk.power_on();
            let history = history_of(&disk);
            let mut image: Vec<_> =
                (0..2).map(|n| disk.contents(&store(n)).unwrap().to_vec()).collect();
            let folder = dir().join("quarantine");
            for name in Engine::list(&mut disk, &folder).unwrap() {
                let Ok(mut dump) = crate::quarantine::blocks(&mut disk, &folder.join(name)) else {
                    continue;
                };
                while let Ok(Some(block)) = dump.next(&mut disk) {
                    let at = block.offset as usize;
                    image[usize::from(block.volume.index())][at..at + block.content.len()]
                        .copy_from_slice(&block.content);
                }
            }
            assert!(image == old, "cut {cut}: something of the old image is nowhere");
            // Nothing is on record any more when the first block is replaced.
            assert!(history.is_none_or(|oldest| oldest == zeroes), "cut {cut}");
        }
    }
}

/// A disk that outlives a replica that cannot be opened on it.
#[derive(Clone)]
pub(in crate::replica) struct SharedDisk(
    pub(in crate::replica) Rc<RefCell<Double>>,
    /// What happens before each read that is asked for here.
    pub(in crate::replica) Option<Rc<RefCell<dyn FnMut()>>>,
);

impl std::fmt::Debug for SharedDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl SharedDisk {
    pub(in crate::replica) fn new(disk: Double) -> Self {
        Self(Rc::new(RefCell::new(disk)), None)
    }

    fn open(&mut self) -> Result<(Replica<Self>, ReplicaState, Recovered), ReplicaError> {
        let paths: Vec<_> = (0..2).map(store).collect();
        Replica::open_over(self.clone(), dir(), &whose(), &paths, Store::open_in)
    }
}

/// Hands every call to the disk.
macro_rules! hand_over {
    ($(fn $name:ident($($arg:ident: $of:ty),*) $(-> $gives:ty)?;)*) => {
        $(fn $name(&mut self, $($arg: $of),*) $(-> $gives)? {
            Engine::$name(&mut *self.0.borrow_mut(), $($arg),*)
        })*
    };
}

impl Engine for SharedDisk {
    hand_over! {
        fn open(path: &Path, how: crate::engine::OpenAs) -> io::Result<crate::engine::FileId>;
        fn open_dir(path: &Path) -> io::Result<crate::engine::FileId>;
        fn create(path: &Path, how: crate::engine::OpenAs) -> io::Result<crate::engine::FileId>;
        fn create_dir(path: &Path) -> io::Result<()>;
        fn list(path: &Path) -> io::Result<Vec<String>>;
        fn remove(path: &Path) -> io::Result<()>;
        fn stretch(file: crate::engine::FileId, start: u64, end: u64) -> (u64, bool);
        fn close(file: crate::engine::FileId);
        fn size(file: crate::engine::FileId) -> io::Result<u64>;
        fn kick();
        fn reap(done: &mut Vec<crate::engine::Completion>);
        fn wait() -> io::Result<()>;
        fn keep(file: crate::engine::FileId, offset: u64, data: &[u8]) -> io::Result<()>;
    }

    fn submit(&mut self, token: crate::engine::Token, op: crate::engine::Op) {
        if let (Some(before), crate::engine::Op::Read { .. }) = (&self.1, &op) {
            (*before.borrow_mut())();
        }
        self.0.borrow_mut().submit(token, op);
    }

    fn has_done(&self) -> bool {
        self.0.borrow().has_done()
    }

    fn in_flight(&self) -> usize {
        self.0.borrow().in_flight()
    }

    fn descriptor(&self) -> Option<std::os::fd::OwnedFd> {
        None
    }

    fn boot(&self) -> Option<[u8; 32]> {
        self.0.borrow().boot()
    }
}

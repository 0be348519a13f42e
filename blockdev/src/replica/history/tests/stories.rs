//! One story each of what a history is for, and of what can be wrong with it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use hadrian_protocol::resync::Takes;

use super::*;
use crate::engine::double::Fault as DiskFault;
use crate::history::Unresolved;

const PLENTY: u64 = 1 << 30;

fn lived(rounds: usize, limits: Option<Limits>) -> Rig {
    let mut rig = Rig::new(7, Unsynced::Lost, limits);
    for _ in 0..rounds {
        rig.write();
        assert!(rig.apply());
    }
    rig
}

#[test]
fn every_frame_that_is_applied_alone_is_a_point() {
    let rig = lived(20, Some(limits(PLENTY)));
    assert_eq!(rig.check_all(), 21);
    let reach = rig.door().reach();
    assert_eq!((reach.oldest.at, reach.newest.at), (rig.known[0].0, rig.end()));
    assert_eq!(reach.newest.wall.as_micros(), rig.wall);
}

#[test]
fn frames_that_wait_together_are_one_batch_of_a_second_at_most() {
    let mut rig = lived(1, Some(limits(PLENTY)));
    for _ in 0..12 {
        rig.write();
    }
    assert!(rig.apply());
    let count = rig.check_all();
    assert!(count > 4 && count < 13, "{count} points");
}

#[test]
fn without_history_nothing_is_written_for_it() {
    let rig = lived(5, None);
    assert!(rig.replica.as_ref().unwrap().history().is_none());
    assert!(rig.disk.0.borrow().contents(&dir().join("history/begin")).is_none());
}

#[test]
fn a_view_stays_what_it_is_while_the_image_goes_on() {
    let mut rig = lived(10, Some(limits(PLENTY)));
    let mut views: Vec<_> = rig.points().iter().map(|point| rig.view(*point)).collect();
    for _ in 0..15 {
        rig.write();
        assert!(rig.apply());
        for view in &mut views {
            let point = view.point();
            assert_eq!(read(view), *rig.model(point));
        }
    }
}

#[test]
fn a_restart_takes_nothing_away_that_is_young_enough() {
    let age = Some(std::time::Duration::from_secs(3600));
    let mut rig = lived(10, Some(Limits { age, ..limits(PLENTY) }));
    let before = rig.points();
    assert!(rig.checkpoint());
    for _ in 0..3 {
        rig.open().unwrap();
        rig.write();
        assert!(rig.apply());
    }
    let after = rig.points();
    assert_eq!(after[3..], before, "each point with its time");
    rig.check_all();
}

/// What a view reads of a store counts only if nothing has come on record meanwhile.
#[test]
fn a_view_is_right_when_the_image_changes_between_its_look_and_its_read() {
    let rig = lived(6, Some(limits(PLENTY)));
    let points = rig.points();
    let models: Vec<_> = points.iter().map(|point| rig.model(*point).clone()).collect();
    let mut disk = rig.disk.clone();
    let (door, rig) = (rig.door(), Rc::new(RefCell::new(rig)));
    let (is_armed, meddled) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
    let (meddler, armed, count) = (rig.clone(), is_armed.clone(), meddled.clone());
    disk.1 = Some(Rc::new(RefCell::new(move || {
        if armed.take() {
            count.set(count.get() + 1);
            let mut rig = meddler.borrow_mut();
            rig.write();
            assert!(rig.apply() && rig.checkpoint());
            let end = rig.end().lsn;
            rig.replica().release_log(end);
            rig.settle();
        }
    })));
    for (point, images) in points.iter().zip(&models).rev() {
        let mut view = View::open(&door, disk.clone(), (&stores(), *point), 0).unwrap();
        for (index, image) in (0..).zip(images) {
            for at in (0..image.len()).step_by(4096) {
                let len = (image.len() - at).min(4096);
                // The first read of a view that has nothing new to take in is that of the store.
                is_armed.set(true);
                let read = view.read(volume(index), at as u64, len).unwrap();
                assert!(read == image[at..at + len], "at {}, byte {at}", point.at.lsn);
            }
        }
    }
    assert!(meddled.get() > 20, "{}", meddled.get());
}

/// What changes the image otherwise than by the log ends what is read of it, before it does.
#[test]
fn a_switch_and_a_seed_in_place_end_views_and_history() {
    for in_place in [false, true] {
        let mut rig = lived(6, Some(limits(PLENTY)));
        let mut view = rig.view(rig.points()[2]);
        let begin = dir().join("history/begin");
        if in_place {
            rig.replica().sink(1, Takes::InPlace, None);
            rig.settle();
            assert!(rig.disk.0.borrow().contents(&begin).is_none());
            assert!(rig.replica().history().unwrap().reach.is_none());
        }
        let to = LogPosition { lsn: Lsn::new(1 << 20), ..LogPosition::genesis(resource()) };
        assert!(rig.persist(|state| {
            state.image = Image::Switching;
            (state.checkpoint, state.apply_limit) = (to, to.lsn);
        }));
        rig.replica().switch_image(to);
        rig.settle();
        assert!(rig.persist(|state| state.image = Image::Whole));
        let error = view.read(volume(0), 0, 4096).unwrap_err().to_string();
        assert!(error.contains("has ended"), "{error}");
        drop(view);
        let images = rig.known.last().unwrap().1.clone();
        rig.known.push((to, images));
        let reach = rig.door().reach();
        assert_eq!((reach.oldest.at, reach.points), (to, 1));
        rig.write();
        assert!(rig.apply());
        assert_eq!(rig.check_all(), 2);
        rig.open().unwrap();
        assert_eq!(rig.check_all(), 2);
    }
}

#[test]
fn a_moment_means_the_last_point_at_or_before_it() {
    let mut rig = lived(6, Some(limits(PLENTY)));
    let (at, wall) = (rig.end(), rig.wall);
    rig.wall += 5_000_000;
    rig.write();
    assert!(rig.apply());
    let (door, mut disk) = (rig.door(), rig.disk.clone());
    let mut at_time = |us| door.resolve(&mut disk, &Target::Time(WallTime::from_micros(us)));
    assert_eq!(at_time(wall).unwrap().point.at, at);
    assert_eq!(at_time(wall + 4_000_000).unwrap().point.at, at);
    assert_ne!(at_time(wall - 1).unwrap().point.at, at);
    assert_eq!(at_time(u64::MAX).unwrap().point.at, rig.end());
    assert!(matches!(at_time(1), Err(Unresolved::TooOld(_))));
}

#[test]
fn a_name_means_the_last_point_that_was_called_so_and_that_very_one() {
    let mut rig = lived(3, Some(limits(PLENTY)));
    let find = |rig: &Rig, name: &str| {
        let target = Target::Named(name.parse().unwrap());
        rig.door().resolve(&mut rig.disk.clone(), &target)
    };
    let mut named = Vec::new();
    for name in ["monday", "tuesday", "monday"] {
        rig.write();
        named.push(rig.name(name));
        rig.write();
    }
    let ahead = find(&rig, "monday").unwrap();
    assert!(ahead.is_ahead && ahead.point.at == named[2]);
    // All of it is brought in together, and each of them can be read all the same.
    assert!(rig.apply() && rig.checkpoint());
    for (name, at) in [("monday", named[2]), ("tuesday", named[1])] {
        let found = find(&rig, name).unwrap();
        assert!(!found.is_ahead && found.point.at == at, "{name}");
        assert_eq!(read(&mut rig.view(found.point)), *rig.model(found.point));
    }
    rig.open().unwrap();
    assert_eq!(find(&rig, "tuesday").unwrap().point.at, named[1]);
    assert!(matches!(find(&rig, "sunday"), Err(Unresolved::NoName { .. })));
}

#[test]
fn a_point_ahead_is_the_image_with_the_log_laid_over_it() {
    let mut rig = lived(5, Some(limits(PLENTY)));
    for _ in 0..6 {
        rig.write();
    }
    let (door, mut disk) = (rig.door(), rig.disk.clone());
    for (at, images) in rig.known.clone().iter().skip(6) {
        let found = door.resolve(&mut disk, &Target::Lsn(at.lsn)).unwrap();
        assert!(found.is_ahead && found.point.at == *at);
        let mut view = rig.view(found.point);
        assert_eq!(read(&mut view), *images);
        // The frames are applied beneath it, one after the other.
        rig.replica().apply_to(at.lsn);
        rig.settle();
        assert_eq!(read(&mut view), *images);
    }
}

#[test]
fn a_clone_is_written_to_and_nothing_of_it_reaches_the_image() {
    let mut rig = lived(8, Some(limits(PLENTY)));
    let point = rig.points()[3];
    let mut view = rig.view(point);
    let mut images = rig.model(point).clone();
    assert!(view.write(volume(0), 0, &[1; 512]).is_err(), "a view is not written to");
    view.make_writable(1 << 20);
    for _ in 0..60 {
        let index = rig.rng.random_range(0..2_u16);
        let blocks = SIZES[usize::from(index)] / 512;
        let at = rig.rng.random_range(0..blocks) * 512;
        let len = (rig.rng.random_range(1..60) * 512).min(SIZES[usize::from(index)] - at);
        let byte: u8 = rig.rng.random_range(0..4);
        let (start, end) = (at as usize, (at + len) as usize);
        images[usize::from(index)][start..end].fill(byte);
        match byte {
            0 => view.zero(volume(index), ByteRange::new(at, len).unwrap()).unwrap(),
            byte => view.write(volume(index), at, &vec![byte; len as usize]).unwrap(),
        }
        if rig.rng.random_bool(0.3) {
            rig.write();
            assert!(rig.apply());
        }
        assert_eq!(read(&mut view), images);
    }
    drop(view);
    rig.check_all();
    let left = rig.disk.list(&dir().join("clones")).unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_clone_takes_no_more_than_its_limit_and_goes_on_with_what_it_has() {
    let rig = lived(3, Some(limits(PLENTY)));
    let mut view = rig.view(rig.points()[1]);
    view.make_writable(3 * 4096);
    view.write(volume(0), 512, &[1; 4096]).unwrap();
    view.write(volume(0), 9000, &[2; 100]).unwrap();
    let full = view.write(volume(1), 0, &[3; 1]).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    view.write(volume(0), 600, &[4; 100]).unwrap();
    // What is zeroed gives room back.
    view.zero(volume(0), ByteRange::new(0, 8192).unwrap()).unwrap();
    view.write(volume(1), 0, &[3; 8192]).unwrap();
    assert_eq!(view.read(volume(1), 0, 1).unwrap(), [3]);
}

#[test]
fn a_disk_that_fails_or_is_full_ends_history_and_not_replication() {
    for fault in [DiskFault::Full, DiskFault::Eio] {
        let mut rig = lived(4, Some(limits(PLENTY)));
        let mut view = rig.view(rig.points()[2]);
        rig.write();
        let end = rig.end().lsn;
        assert!(rig.persist(|state| state.apply_limit = end));
        rig.disk.0.borrow_mut().fail_at(1, fault);
        rig.replica().apply_to(end);
        for _ in 0..200 {
            rig.replica().poll_once(&mut Vec::new());
            rig.disk.0.borrow_mut().advance();
            if rig.replica().history().unwrap().ended.is_some() {
                rig.disk.0.borrow_mut().make_room();
            }
        }
        rig.settle();
        let status = rig.replica().history().unwrap();
        assert!(status.reach.is_none() && status.ended.is_some(), "{status:?}");
        assert_eq!(rig.replica().volumes.applied(), rig.end());
        let error = view.read(volume(0), 0, 4096).unwrap_err();
        assert!(error.to_string().contains("has ended"), "{error}");
        drop(view);
        // The next start begins anew.
        rig.open().unwrap();
        assert_eq!(rig.check_all(), 1);
    }
}

#[test]
fn a_reader_of_what_has_to_go_is_told_so() {
    let mut rig = lived(3, Some(limits(100 << 10)));
    let mut view = rig.view(rig.door().reach().oldest);
    let error = loop {
        rig.write();
        assert!(rig.apply() && rig.checkpoint());
        let end = rig.end().lsn;
        rig.replica().release_log(end);
        rig.settle();
        if let Err(error) = view.read(volume(0), 0, 4096) {
            break error;
        }
    };
    assert!(error.to_string().contains("twice its limit"), "{error}");
    assert!(rig.door().reach().bytes <= 300 << 10, "{:?}", rig.door().reach());
}

fn newest_segment(rig: &Rig) -> PathBuf {
    let names = rig.disk.clone().list(&dir().join("history")).unwrap();
    let last = names.iter().rev().find(|name| name.ends_with(".undo")).unwrap();
    dir().join("history").join(last)
}

/// All of the image at a point, or why not.
fn look(rig: &Rig, point: Point) -> io::Result<Images> {
    let opened = View::open(&rig.door(), rig.disk.clone(), (&stores(), point), 0);
    let mut view = opened.map_err(io::Error::other)?;
    let all = |(index, size): (u16, u64)| view.read(volume(index), 0, size as usize);
    (0..).zip(SIZES).map(all).collect()
}

#[test]
fn what_is_damaged_is_an_error_and_never_a_wrong_image() {
    let mut damaged = 0;
    for seed in 0..100 {
        let mut rig = lived(12, Some(limits(PLENTY)));
        let names = rig.disk.list(&dir().join("history")).unwrap();
        let mut rng = SmallRng::seed_from_u64(seed);
        let path = dir().join("history").join(&names[rng.random_range(0..names.len())]);
        let (at, bit) = (rng.random::<u64>(), rng.random_range(0..8));
        let points = rig.points();
        rig.disk.0.borrow_mut().tamper(&path, |file| {
            let at = (at % file.len() as u64) as usize;
            file[at] ^= 1 << bit;
        });
        for point in points {
            match look(&rig, point) {
                Ok(images) => assert_eq!(images, *rig.model(point), "seed {seed}"),
                Err(error) => {
                    damaged += 1;
                    assert!(error.to_string().contains("damaged"), "seed {seed}: {error}");
                }
            }
        }
        // After a stop in order the checkpoint tells what is missing, too.
        assert!(rig.checkpoint());
        rig.open().unwrap();
        let newest = rig.door().reach().newest;
        assert_eq!(look(&rig, newest).unwrap(), *rig.model(newest), "seed {seed}");
    }
    assert!(damaged > 50, "{damaged} views met the damage");
}

#[test]
fn a_history_that_ends_before_the_image_is_forgotten() {
    for what in ["short", "gone", "foreign"] {
        let mut rig = lived(12, Some(limits(PLENTY)));
        assert!(rig.checkpoint());
        rig.replica = None;
        let path = newest_segment(&rig);
        let begin = dir().join("history/begin");
        match what {
            "short" => rig.disk.0.borrow_mut().tamper(&path, |file| file.truncate(4096)),
            "gone" => rig.disk.0.borrow_mut().remove(&path),
            _ => rig.disk.0.borrow_mut().tamper(&begin, |file| file[20] ^= 1),
        }
        rig.open().unwrap();
        assert_eq!(rig.check_all(), 1, "{what}");
        rig.write();
        assert!(rig.apply());
        assert_eq!(rig.check_all(), 2, "{what}");
    }
}

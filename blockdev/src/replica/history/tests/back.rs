//! Going back to a point of the history: power lost at every operation, damaged records, and what
//! is left of it all afterwards.

use hadrian_protocol::replica::WentBack;

use super::*;
use crate::quarantine;
use crate::resync::RewindError;

const ALL: [Unsynced; 4] = [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn, Unsynced::Mixed];
const PLENTY: u64 = 1 << 30;

/// Some batches that are applied, of which the log has lost the first, and some frames that wait.
fn lived(seed: u64, unsynced: Unsynced) -> Rig {
    let mut rig = Rig::new(seed, unsynced, Some(limits(PLENTY)));
    for round in 0..7 {
        rig.write();
        if round % 2 == 0 {
            rig.write();
        }
        assert!(rig.apply());
        if round == 2 {
            assert!(rig.checkpoint());
        }
    }
    rig.write();
    rig.write();
    rig
}

/// What the core does; `None` where the power went, and otherwise why it came to nothing.
fn go_back(rig: &mut Rig, to: LogPosition) -> Option<Result<(), RewindError>> {
    rig.events.clear();
    rig.replica().rewind(to);
    rig.settle();
    let rewound = rig.events.iter().position(|e| matches!(e, ReplicaEvent::Rewound(_)));
    let ReplicaEvent::Rewound(result) = rig.events.remove(rewound?) else { return None };
    if rig.is_cut() {
        return None;
    }
    if result.is_err() {
        return Some(result);
    }
    let from = rig.end().lsn;
    let switching = |state: &mut ReplicaState| {
        (state.image, state.checkpoint, state.apply_limit) = (Image::Switching, to, to.lsn);
        state.went_back = Some(WentBack { to, from });
    };
    if !rig.persist(switching) {
        return None;
    }
    rig.replica().switch_image(to);
    rig.settle();
    if !rig.events.iter().any(|event| matches!(event, ReplicaEvent::Switched(at) if *at == to)) {
        assert!(rig.is_cut(), "{:?}", rig.events);
        return None;
    }
    let keep = rig.known.iter().position(|(at, _)| *at == to).unwrap();
    rig.known.truncate(keep + 1);
    if !rig.persist(|state| state.image = Image::Whole) {
        return None;
    }
    rig.replica().drop_staging();
    rig.settle();
    (!rig.is_cut()).then_some(Ok(()))
}

fn image(rig: &Rig) -> Images {
    let disk = rig.disk.0.borrow();
    stores().iter().map(|path| disk.contents(path).unwrap().to_vec()).collect()
}

/// The volumes as they were before, of what is in quarantine and what lies beneath.
fn given_up(rig: &Rig) -> Images {
    let mut disk = rig.disk.clone();
    let folder = dir().join("quarantine");
    let names = disk.list(&folder).unwrap();
    let whole = names.iter().filter(|name| !name.ends_with(".part"));
    // Blocks first, then frames: their names are in that order.
    let names: Vec<_> = whole.collect();
    let mut images = Vec::new();
    for ((index, path), size) in (0..).zip(stores()).zip(SIZES) {
        let store = disk.open(&path, crate::engine::OpenAs::ReadOnly).unwrap();
        let mut view = quarantine::View::new(size, Some(store));
        for name in &names {
            let mut walk = quarantine::Walk::open(&mut disk, &folder.join(name)).unwrap();
            view.add(&mut disk, &mut walk, volume(index)).unwrap();
        }
        images.push(view.read(&mut disk, 0, size as usize).unwrap());
    }
    images
}

/// What must be there after whatever happened; whether it is the point.
fn check(rig: &Rig, (old, applied): (&[(LogPosition, Images)], usize), to: usize) -> bool {
    let went = rig.state.went_back.is_some();
    let (at, then) = &old[to];
    let point = Point { at: *at, wall: WallTime::default() };
    match went {
        true => {
            assert!(image(rig) == *then, "the image is not that of the point");
            let replica = rig.replica.as_ref().unwrap();
            assert_eq!((replica.journal.start(), replica.journal.end()), (at.lsn, *at));
            assert!(given_up(rig) == old.last().unwrap().1, "something is lost");
            assert_eq!(rig.door().reach().newest.at, point.at);
            assert!(rig.door().reach().points > 2, "what was before stays on record");
        }
        false => {
            assert!(image(rig) == old[applied].1, "the image has changed");
            assert_eq!(rig.end(), old.last().unwrap().0, "the log has changed");
            assert_eq!(rig.door().reach().newest.at, old[applied].0);
        }
    }
    rig.check_all();
    went
}

/// The positions of the point to go back to and of the image among the frames of the log.
fn places(rig: &Rig) -> (usize, usize) {
    let points = rig.points();
    let of = |at: LogPosition| rig.known.iter().position(|(known, _)| *known == at).unwrap();
    (of(points[3].at), of(points[0].at))
}

#[test]
fn the_image_goes_back_and_further_and_on_from_there() {
    for seed in 0..20 {
        let mut rig = lived(seed, Unsynced::Lost);
        let (to, applied) = places(&rig);
        let old = rig.known.clone();
        go_back(&mut rig, old[to].0).unwrap().unwrap();
        assert!(check(&rig, (&old, applied), to));
        let staged = rig.disk.0.borrow().contents(&dir().join("staging/header")).is_some();
        assert!(!staged, "nothing staged stays behind");
        // On from there, and back again, to before where it went.
        rig.state.went_back = None;
        for _ in 0..3 {
            rig.write();
            assert!(rig.apply());
        }
        rig.check_all();
        let earlier = rig.points()[4];
        let then = rig.model(earlier).clone();
        go_back(&mut rig, earlier.at).unwrap().unwrap();
        assert!(image(&rig) == then, "seed {seed}");
        rig.check_all();
        rig.open().unwrap();
        rig.check_all();
    }
}

#[test]
fn a_cut_at_any_operation_leaves_the_image_or_the_point_and_no_byte_is_lost() {
    for unsynced in ALL {
        let (mut cut, mut seen) = (1, [0, 0]);
        loop {
            let mut rig = lived(cut, unsynced);
            let (to, applied) = places(&rig);
            let old = rig.known.clone();
            rig.disk.0.borrow_mut().cut_power_at(cut);
            let is_over = go_back(&mut rig, old[to].0).is_some();
            rig.replica = None;
            rig.disk.0.borrow_mut().power_on();
            // The recovery itself is cut short, too.
            rig.disk.0.borrow_mut().cut_power_at(1 + cut % 17);
            rig.known.clone_from(&old);
            let _ = rig.open();
            rig.known.clone_from(&old);
            rig.power_cycle().unwrap();
            let went = check(&rig, (&old, applied), to);
            seen[usize::from(went)] += 1;
            if went {
                assert!(rig.persist(|state| state.image = Image::Whole));
                rig.power_cycle().unwrap();
                check(&rig, (&old, applied), to);
            }
            rig.write();
            assert!(rig.apply());
            rig.check_all();
            if is_over {
                break;
            }
            cut += 1;
        }
        assert!(seen.iter().all(|count| *count > 10), "{seen:?}");
    }
}

#[test]
fn what_is_no_point_or_is_kept_by_nobody_changes_nothing() {
    let mut rig = lived(3, Unsynced::Lost);
    let (before, end) = (image(&rig), rig.end());
    // A frame that was applied together with the next is no point.
    let points: Vec<_> = rig.points().iter().map(|point| point.at).collect();
    let applied = places(&rig).1;
    let mut known = rig.known[..applied].iter().map(|(at, _)| *at);
    let between = known.rfind(|at| !points.contains(at));
    let between = between.expect("two frames were applied together");
    let result = go_back(&mut rig, between).unwrap().unwrap_err();
    assert!(matches!(result, RewindError::Past(crate::history::ViewError::NoPoint(_))), "{result}");
    assert!(image(&rig) == before && rig.end() == end);
    rig.check_all();
    rig.limits = None;
    rig.open().unwrap();
    let result = go_back(&mut rig, points[3]).unwrap().unwrap_err();
    assert!(matches!(result, RewindError::NoHistory), "{result}");
}

#[test]
fn a_damaged_record_is_found_before_anything_is_changed() {
    let mut rig = lived(5, Unsynced::Lost);
    let (to, _) = places(&rig);
    let (before, to) = (image(&rig), rig.known[to].0);
    let names = rig.disk.clone().list(&dir().join("history")).unwrap();
    let mut refused = 0;
    for name in names.iter().filter(|name| name.ends_with(".undo")) {
        let path = dir().join("history").join(name);
        let content = rig.disk.0.borrow().contents(&path).unwrap().to_vec();
        for at in (0..content.len()).step_by(1536) {
            rig.disk.0.borrow_mut().tamper(&path, |bytes| bytes[at] ^= 0x40);
            rig.events.clear();
            rig.replica().rewind(to);
            rig.settle();
            let of = |event: &ReplicaEvent| match event {
                ReplicaEvent::Rewound(result) => {
                    Some(result.as_ref().err().map(ToString::to_string))
                }
                _ => None,
            };
            let result = rig.events.iter().find_map(of).expect("it ends");
            if let Some(error) = result {
                assert!(error.contains("damaged at byte"), "{error}");
                refused += 1;
            }
            assert!(image(&rig) == before);
            rig.disk.0.borrow_mut().tamper(&path, |bytes| bytes.copy_from_slice(&content));
        }
    }
    assert!(refused > 5, "{refused}");
    // And nothing that came of it is in the way.
    go_back(&mut rig, to).unwrap().unwrap();
    rig.check_all();
}

#[test]
fn what_an_earlier_resync_staged_is_not_brought_in() {
    let mut rig = lived(9, Unsynced::Lost);
    let (to, applied) = places(&rig);
    let old = rig.known.clone();
    let io = rig.replica().copies.tasks().io();
    let (volumes, resource) = (rig.state.volumes.clone(), resource());
    let staged = async move {
        let dir = dir();
        let staging = crate::resync::staging::Staging::begin(&io, dir, resource, &volumes);
        let mut staging = staging.await.unwrap();
        let at = hadrian_protocol::resync::RegionId { volume: volume(0), region: 0 };
        let data = bytes::Bytes::from(vec![77; 16 << 10]);
        for write in staging.stage(at, 0, (&[16 << 10], Some(data))).unwrap() {
            write.await.unwrap();
        }
        staging.sync().await.unwrap();
    };
    let Rig { replica: Some(replica), .. } = &mut rig else { return };
    replica.copies.tasks().run(Task::new(staged), &mut replica.engine).unwrap();
    go_back(&mut rig, old[to].0).unwrap().unwrap();
    assert!(check(&rig, (&old, applied), to));
}

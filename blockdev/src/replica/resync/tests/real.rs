//! The same over real files and each real engine: lengths that suit no device, holes, a seed.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

use super::*;
use crate::engine::EngineChoice;
use crate::replica::create;

const SIZE: u64 = 9 * MIB + 1536;

fn member(dir: &Path, role: Role, choice: EngineChoice) -> (Replica, ReplicaState) {
    fs::create_dir_all(dir).unwrap();
    let store = dir.join("store");
    if !store.exists() {
        File::create(&store).unwrap().set_len(SIZE).unwrap();
        let volumes = vec![VolumeGeometry { size_bytes: SIZE, block_size: 512 }];
        let first = MemberId::new(0).unwrap();
        let mode = Mode::default();
        let state = ReplicaState::created(resource(), first, role, mode, Base::Zero, volumes);
        create(&dir.join("replica"), &Label::default(), &state, 4 * MIB, |_| {}).unwrap();
    }
    let (replica, state, _) =
        Replica::open(&dir.join("replica"), &whose(), &[store], choice).unwrap();
    (replica, state)
}

fn poll(replica: &mut Replica, events: &mut Vec<ReplicaEvent>) {
    replica.poll(events);
    replica.kick();
    if events.is_empty() && replica.engine.in_flight() > 0 {
        replica.engine.wait().unwrap();
    }
}

/// Copies everything; returns the landing and the bytes that were sent.
fn copy(source: &mut Replica, sink: &mut Replica, takes: Takes) -> (LogPosition, u64) {
    source.source(1, DIGESTS);
    sink.sink(1, takes, None);
    let (mut landing, mut sent) = (None, 0);
    loop {
        let (mut from_source, mut from_sink) = (Vec::new(), Vec::new());
        poll(source, &mut from_source);
        poll(sink, &mut from_sink);
        for event in from_source {
            match event {
                ReplicaEvent::Copying { message, .. } => {
                    if let Copying::Content { data: Some(data), .. } = &message.copying {
                        sent += data.len() as u64;
                    }
                    sink.copying(1, message).unwrap();
                }
                ReplicaEvent::SourceNearEnd { .. } => source.finish_source(1),
                ReplicaEvent::SourceDone { at, said, .. } => {
                    landing = Some(at);
                    sink.finish_sink(1, said);
                }
                other => panic!("{other:?}"),
            }
        }
        for event in from_sink {
            match event {
                ReplicaEvent::Copying { message, .. } => source.copying(1, message).unwrap(),
                ReplicaEvent::SinkDone { result, .. } => {
                    result.unwrap();
                    return (landing.unwrap(), sent);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

fn until(replica: &mut Replica, done: impl Fn(&ReplicaEvent) -> bool) {
    let mut events = Vec::new();
    while !events.iter().any(&done) {
        poll(replica, &mut events);
    }
}

#[test]
fn a_seed_over_real_files_brings_every_byte_and_keeps_the_holes() {
    for choice in [EngineChoice::Auto, EngineChoice::Plain] {
        for takes in [Takes::Staged, Takes::InPlace] {
            // Beside the build, because /tmp may be a file system without direct I/O.
            let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
            let (first, second) = (folder.path().join("a"), folder.path().join("b"));
            let (source, _) = member(&first, Role::Primary, choice);
            drop(source);
            let file = File::options().write(true).open(first.join("store")).unwrap();
            for (offset, len) in [(700, 50_000), (5 * MIB, 4096), (SIZE - 1000, 1000)] {
                file.write_all_at(&vec![7; len], offset).unwrap();
            }
            let (mut source, _) = member(&first, Role::Primary, choice);
            let (mut sink, mut state) = member(&second, Role::Standby, choice);
            let (landing, sent) = copy(&mut source, &mut sink, takes);
            assert_eq!(sent, 5 * (16 << 10) + 1536);
            state.image = Image::Switching;
            state.checkpoint = landing;
            sink.persist(1, state.clone()).unwrap();
            until(&mut sink, |event| matches!(event, ReplicaEvent::Persisted(1)));
            sink.switch_image(landing);
            until(&mut sink, |event| matches!(event, ReplicaEvent::Switched(_)));
            drop(sink);
            let bytes = |dir: &Path| fs::read(dir.join("store")).unwrap();
            assert!(bytes(&first) == bytes(&second), "{choice} {takes:?}");
            assert!(fs::metadata(second.join("store")).unwrap().blocks() * 512 < MIB);
            // The state still says that it is switching: that is finished once more.
            let (mut sink, state) = member(&second, Role::Standby, choice);
            assert_eq!(state.image, Image::Switching);
            assert!(bytes(&first) == bytes(&second));
            sink.drop_staging();
            for _ in 0..20 {
                poll(&mut sink, &mut Vec::new());
            }
            let left = fs::read_dir(second.join("replica/staging")).map_or(0, Iterator::count);
            assert_eq!(left, 0, "nothing is left of the staging");
        }
    }
}

//! One suite for every engine: what is written against one behaves the same over the others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use proptest::prelude::*;

use super::double::{Double, Fault, Order, Unsynced};
use super::*;

/// An engine and a directory that it can work in.
struct Bench {
    engine: Box<dyn Engine>,
    dir: PathBuf,
    _keep: Option<tempfile::TempDir>,
}

fn benches() -> Vec<Bench> {
    let real = |engine: Box<dyn Engine>| {
        // Beside the build, because /tmp may be a file system without direct I/O.
        let keep = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let dir = keep.path().to_path_buf();
        let _keep = Some(keep);
        Bench { engine, dir, _keep }
    };
    let double = |order| Bench {
        engine: Box::new(Double::new(7, order, Unsynced::Mixed)),
        dir: PathBuf::from("/disk"),
        _keep: None,
    };
    let mut all =
        vec![real(Box::new(Plain::new())), double(Order::AsSubmitted), double(Order::Scattered)];
    match Uring::new(8) {
        Ok(ring) => all.push(real(Box::new(ring))),
        // A machine that refuses the ring tests the others, and AnyEngine's way around it.
        Err(error) => assert!(error.to_string().contains("engine = \"plain\"")),
    }
    all
}

fn data(byte: u8, len: usize) -> Bytes {
    let mut buffer = IoBuf::with_len(len);
    buffer.fill(byte);
    buffer.freeze().slice(..len)
}

fn file_of_zeroes(bench: &mut Bench, name: &str, len: usize, how: OpenAs) -> FileId {
    let engine = &mut *bench.engine;
    engine.create_dir(&bench.dir).unwrap();
    let file = engine.create(&bench.dir.join(name), how).unwrap();
    let (offset, data) = (0, data(0, len));
    run(engine, Op::Write { file, offset, data }).unwrap();
    run(engine, Op::Sync { file }).unwrap();
    file
}

fn read(engine: &mut dyn Engine, file: FileId, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let op = Op::Read { file, offset, buffer: IoBuf::with_len(len), len };
    match run(engine, op)? {
        Op::Read { buffer, .. } => Ok(buffer[..len].to_vec()),
        other => panic!("a read came back as {other:?}"),
    }
}

fn collect(engine: &mut dyn Engine) -> BTreeMap<u64, Completion> {
    let mut done = Vec::new();
    engine.kick();
    while engine.in_flight() > 0 {
        engine.wait().unwrap();
        engine.reap(&mut done);
    }
    done.into_iter().map(|end| (end.token.0, end)).collect()
}

#[test]
fn what_was_written_is_read_back_directly_and_through_the_cache() {
    for mut bench in benches() {
        for how in [OpenAs::Direct, OpenAs::Buffered] {
            let file = file_of_zeroes(&mut bench, "a", 1 << 20, how);
            let engine = &mut *bench.engine;
            for (offset, len, byte) in [(4096, 8192, 1), (65536, 4096, 2), (131_072, 524_288, 3)] {
                let data = data(byte, len);
                run(engine, Op::Write { file, offset, data }).unwrap();
                assert_eq!(read(engine, file, offset, len).unwrap(), vec![byte; len]);
            }
            assert_eq!(engine.size(file).unwrap(), 1 << 20);
            assert_eq!(read(engine, file, 0, 4096).unwrap(), vec![0; 4096]);
            engine.close(file);
        }
    }
}

#[test]
fn many_operations_at_once_all_come_back_under_their_tokens() {
    for mut bench in benches() {
        let file = file_of_zeroes(&mut bench, "a", 1 << 20, OpenAs::Direct);
        let engine = &mut *bench.engine;
        let space = TokenSpace::new(3);
        for page in 0..200u8 {
            let (offset, data) = (u64::from(page) * 4096, data(page, 4096));
            engine.submit(space.token(1, u64::from(page)), Op::Write { file, offset, data });
        }
        let ends = collect(engine);
        assert_eq!(ends.len(), 200);
        assert!(ends.values().all(|end| space.owns(end.token) && end.result.is_ok()));
        for page in 0..200u8 {
            let found = read(engine, file, u64::from(page) * 4096, 4096).unwrap();
            assert_eq!(found, vec![page; 4096]);
        }
    }
}

#[test]
fn a_read_past_the_end_is_an_error_and_never_short() {
    for mut bench in benches() {
        let file = file_of_zeroes(&mut bench, "a", 8192, OpenAs::Buffered);
        let error = read(&mut *bench.engine, file, 4096, 8192).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[test]
fn zeroing_leaves_the_neighbours_alone_whether_space_is_given_back_or_not() {
    for mut bench in benches() {
        for punch in [false, true] {
            let file = file_of_zeroes(&mut bench, "a", 65536, OpenAs::Direct);
            let engine = &mut *bench.engine;
            let (offset, data) = (0, data(9, 65536));
            run(engine, Op::Write { file, offset, data }).unwrap();
            let (offset, len) = (8192, 16384);
            run(engine, Op::Zero { file, offset, len, punch }).unwrap();
            assert_eq!(read(engine, file, 0, 8192).unwrap(), vec![9; 8192]);
            assert_eq!(read(engine, file, 8192, 16384).unwrap(), vec![0; 16384]);
            assert_eq!(read(engine, file, 24576, 40960).unwrap(), vec![9; 40960]);
            assert_eq!(engine.size(file).unwrap(), 65536);
        }
    }
}

#[test]
fn a_renamed_file_stays_open_and_has_its_new_name() {
    for mut bench in benches() {
        let file = file_of_zeroes(&mut bench, "old", 4096, OpenAs::Direct);
        let engine = &mut *bench.engine;
        let dir = engine.open_dir(&bench.dir).unwrap();
        let (from, to) = ("old".to_owned(), "new".to_owned());
        run(engine, Op::Rename { dir, from, to }).unwrap();
        let (offset, data) = (0, data(5, 4096));
        run(engine, Op::Write { file, offset, data }).unwrap();
        assert_eq!(engine.list(&bench.dir).unwrap(), ["new"]);
        let again = engine.open(&bench.dir.join("new"), OpenAs::ReadOnly).unwrap();
        assert_eq!(read(engine, again, 0, 4096).unwrap(), vec![5; 4096]);
        let (from, to) = ("gone".to_owned(), "x".to_owned());
        let error = run(engine, Op::Rename { dir, from, to }).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}

#[test]
fn a_removed_file_has_no_name_and_can_be_used_until_it_is_closed() {
    for mut bench in benches() {
        let file = file_of_zeroes(&mut bench, "a", 4096, OpenAs::Direct);
        let engine = &mut *bench.engine;
        engine.remove(&bench.dir.join("a")).unwrap();
        assert!(engine.list(&bench.dir).unwrap().is_empty());
        assert_eq!(read(engine, file, 0, 4096).unwrap(), vec![0; 4096]);
        let again = engine.remove(&bench.dir.join("a")).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::NotFound);
    }
}

#[test]
fn a_removed_name_may_come_back_until_its_directory_is_synced() {
    for synced in [false, true] {
        let mut disk = Double::new(1, Order::AsSubmitted, Unsynced::Lost);
        let path = Path::new("/disk/a");
        disk.put_file(path, 4096);
        Engine::remove(&mut disk, path).unwrap();
        if synced {
            let file = disk.open_dir(Path::new("/disk")).unwrap_or_else(|_| {
                disk.create_dir(Path::new("/disk")).unwrap();
                disk.open_dir(Path::new("/disk")).unwrap()
            });
            run(&mut disk, Op::Sync { file }).unwrap();
        }
        disk.power_on();
        assert_eq!(disk.contents(path).is_none(), synced);
    }
}

#[test]
fn whatever_is_called_a_hole_reads_as_zeroes_and_nothing_is_left_out() {
    for mut bench in benches() {
        let engine = &mut *bench.engine;
        engine.create_dir(&bench.dir).unwrap();
        let file = engine.create(&bench.dir.join("a"), OpenAs::Buffered).unwrap();
        for (offset, byte) in [(1 << 20, 7), (3 << 20, 8)] {
            let data = data(byte, 8192);
            run(engine, Op::Write { file, offset, data }).unwrap();
        }
        let (mut at, mut holes, size) = (0, 0, (3 << 20) + 8192);
        while at < size {
            let (end, is_hole) = engine.stretch(file, at, size);
            assert!(at < end && end <= size);
            if is_hole {
                holes += end - at;
                let inside = read(engine, file, at, 4096).unwrap();
                assert_eq!(inside, vec![0; 4096]);
            }
            at = end;
        }
        assert!(holes > 2 << 20, "{holes}");
    }
}

#[test]
fn an_operation_on_a_closed_file_fails_as_a_completion() {
    for mut bench in benches() {
        let file = file_of_zeroes(&mut bench, "a", 4096, OpenAs::Direct);
        bench.engine.close(file);
        let error = run(&mut *bench.engine, Op::Sync { file }).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        let missing = bench.engine.open(&bench.dir.join("b"), OpenAs::Direct);
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

#[test]
fn unaligned_memory_is_written_directly_all_the_same() {
    for mut bench in benches() {
        let file = file_of_zeroes(&mut bench, "a", 65536, OpenAs::Direct);
        let engine = &mut *bench.engine;
        let shifted = Bytes::from(vec![4; 8193]).slice(1..);
        let (offset, data) = (4096, shifted);
        run(engine, Op::Write { file, offset, data }).unwrap();
        assert_eq!(read(engine, file, 4096, 8192).unwrap(), vec![4; 8192]);
    }
}

#[test]
fn the_automatic_choice_always_gives_an_engine_and_says_which() {
    let engine = AnyEngine::choose(EngineChoice::Auto, 64).unwrap();
    assert!(["uring", "plain"].contains(&engine.name()));
    let plain = AnyEngine::choose("plain".parse().unwrap(), 64).unwrap();
    assert_eq!(plain.name(), "plain");
    let unknown = "fast".parse::<EngineChoice>().unwrap_err();
    assert!(unknown.to_string().contains("\"auto\""));
}

#[test]
fn the_double_keeps_what_was_synced_and_loses_what_was_not() {
    let mut double = Double::new(1, Order::AsSubmitted, Unsynced::Lost);
    let path = Path::new("/disk/a");
    double.put_file(path, 8192);
    let file = double.open(path, OpenAs::Direct).unwrap();
    let write = |offset, byte| Op::Write { file, offset, data: data(byte, 4096) };
    run(&mut double, write(0, 1)).unwrap();
    run(&mut double, Op::Sync { file }).unwrap();
    run(&mut double, write(4096, 2)).unwrap();
    double.power_on();
    let left = double.contents(path).unwrap();
    assert_eq!((left[0], left[4096]), (1, 0));
}

#[test]
fn a_sync_of_the_double_covers_only_what_had_completed_before_it() {
    for seed in 0..20 {
        let mut double = Double::new(seed, Order::Scattered, Unsynced::Lost);
        let path = Path::new("/disk/a");
        double.put_file(path, 4096);
        let file = double.open(path, OpenAs::Direct).unwrap();
        let (offset, data) = (0, data(1, 4096));
        double.submit(Token(1), Op::Write { file, offset, data });
        double.submit(Token(2), Op::Sync { file });
        assert_eq!(collect(&mut double).len(), 2);
        double.power_on();
        assert_eq!(double.contents(path).unwrap()[0], 0);
    }
}

#[test]
fn a_file_made_in_the_double_needs_its_directory_synced() {
    for synced in [false, true] {
        let mut double = Double::new(1, Order::AsSubmitted, Unsynced::Lost);
        let path = Path::new("/disk/a");
        double.create_dir(Path::new("/disk")).unwrap();
        double.create(path, OpenAs::Direct).unwrap();
        if synced {
            let file = double.open_dir(Path::new("/disk")).unwrap();
            run(&mut double, Op::Sync { file }).unwrap();
        }
        double.power_on();
        assert_eq!(double.contents(path).is_some(), synced);
    }
}

#[test]
fn a_failed_sync_of_the_double_has_lost_its_writes_for_good() {
    let mut double = Double::new(1, Order::AsSubmitted, Unsynced::Kept);
    let path = Path::new("/disk/a");
    double.put_file(path, 4096);
    let file = double.open(path, OpenAs::Direct).unwrap();
    let (offset, data) = (0, data(1, 4096));
    run(&mut double, Op::Write { file, offset, data }).unwrap();
    double.fail_at(1, Fault::Eio);
    let error = run(&mut double, Op::Sync { file }).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    run(&mut double, Op::Sync { file }).unwrap();
    assert_eq!(double.contents(path).unwrap()[0], 1);
    double.power_on();
    assert_eq!(double.contents(path).unwrap()[0], 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn every_engine_leaves_the_same_bytes(
        steps in proptest::collection::vec((0u8..3, 0u64..15, 1usize..5, any::<u8>()), 1..30)
    ) {
        let mut images = Vec::new();
        for mut bench in benches() {
            let file = file_of_zeroes(&mut bench, "a", 20 * 4096, OpenAs::Direct);
            let engine = &mut *bench.engine;
            for (kind, page, pages, byte) in &steps {
                let (offset, len) = (page * 4096, pages * 4096);
                let op = match kind {
                    0 => Op::Write { file, offset, data: data(*byte, len) },
                    1 => Op::Zero { file, offset, len: len as u64, punch: byte % 2 == 0 },
                    _ => Op::Sync { file },
                };
                run(engine, op).unwrap();
            }
            images.push(read(engine, file, 0, 20 * 4096).unwrap());
        }
        prop_assert!(images.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

//! One suite for every engine.

use std::fs::File;

use super::*;
use crate::buffer::IoBuf;

/// Runs a story on each engine, with a fresh file of 1 MiB.
fn on_each(story: impl Fn(&mut dyn Engine, FileId, &Path)) {
    let plain: Box<dyn Engine> = Box::new(PlainEngine::new());
    let uring: Box<dyn Engine> = Box::new(UringEngine::new().expect("this kernel has io_uring"));
    for mut engine in [plain, uring] {
        for how in [OpenAs::Direct, OpenAs::Buffered] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("store");
            File::create(&path).unwrap().set_len(1 << 20).unwrap();
            let file = engine.open(&path, how).unwrap();
            story(engine.as_mut(), file, dir.path());
            engine.close(file);
        }
    }
}

fn page_of(byte: u8) -> Bytes {
    let mut buffer = IoBuf::with_len(4096);
    buffer.fill(byte);
    buffer.freeze()
}

fn read(engine: &mut dyn Engine, file: FileId, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let buffer = IoBuf::with_len(len);
    match run(engine, Op::Read { file, offset, buffer, len })? {
        Op::Read { buffer, .. } => Ok(buffer[..len].to_vec()),
        other => panic!("a read came back as {other:?}"),
    }
}

#[test]
fn what_was_written_is_read_back() {
    on_each(|engine, file, _| {
        run(engine, Op::Write { file, offset: 8192, data: page_of(7) }).unwrap();
        run(engine, Op::Sync { file }).unwrap();
        assert_eq!(read(engine, file, 8192, 4096).unwrap(), [7; 4096]);
        assert_eq!(read(engine, file, 0, 4096).unwrap(), [0; 4096]);
        assert_eq!(engine.size(file).unwrap(), 1 << 20);
    });
}

#[test]
fn a_read_past_the_end_is_an_error_and_never_short() {
    on_each(|engine, file, _| {
        let error = read(engine, file, (1 << 20) - 4096, 8192).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn zeroing_makes_zeroes_with_and_without_giving_space_back() {
    on_each(|engine, file, _| {
        for punch in [false, true] {
            run(engine, Op::Write { file, offset: 0, data: page_of(9) }).unwrap();
            run(engine, Op::Zero { file, offset: 0, len: 4096, punch }).unwrap();
            assert_eq!(read(engine, file, 0, 4096).unwrap(), [0; 4096]);
            assert_eq!(engine.size(file).unwrap(), 1 << 20, "the size stays");
        }
    });
}

#[test]
fn many_operations_come_back_with_their_own_tokens() {
    on_each(|engine, file, _| {
        let count = 600;
        for index in 0..count {
            let (token, offset) = (Token(index), index % 256 * 4096);
            engine.submit(token, Op::Write { file, offset, data: page_of(index as u8) });
        }
        let mut done = Vec::new();
        while done.len() < count as usize {
            engine.kick();
            engine.wait().unwrap();
            engine.reap(&mut done);
        }
        let mut tokens: Vec<_> = done.iter().map(|completion| completion.token.0).collect();
        tokens.sort_unstable();
        assert_eq!(tokens, (0..count).collect::<Vec<_>>());
        assert!(done.iter().all(|completion| completion.result.is_ok()));
        assert_eq!(engine.in_flight(), 0);
    });
}

#[test]
fn a_renamed_file_stays_open() {
    on_each(|engine, file, path| {
        let dir = engine.open_dir(path).unwrap();
        let (from, to) = ("store".to_string(), "moved".to_string());
        run(engine, Op::Rename { dir, from, to }).unwrap();
        assert!(path.join("moved").exists() && !path.join("store").exists());
        run(engine, Op::Write { file, offset: 0, data: page_of(3) }).unwrap();
        assert_eq!(std::fs::read(path.join("moved")).unwrap()[0], 3);
    });
}

#[test]
fn an_operation_on_a_closed_file_is_an_error() {
    on_each(|engine, file, _| {
        engine.close(file);
        assert!(run(engine, Op::Sync { file }).is_err());
    });
}

#[test]
fn the_page_cache_answers_at_once_when_it_has_the_bytes() {
    on_each(|engine, file, path| {
        run(engine, Op::Write { file, offset: 0, data: page_of(5) }).unwrap();
        let warm = engine.open(&path.join("store"), OpenAs::Buffered).unwrap();
        read(engine, warm, 0, 4096).unwrap();
        let mut bytes = [0; 4096];
        assert!(engine.try_read_cached(warm, 0, &mut bytes));
        assert_eq!(bytes, [5; 4096]);
        engine.close(warm);
    });
}

//! What the machine can do without us: the bounds of every rate.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use hadrian_blockdev::buffer::IoBuf;
use hadrian_blockdev::engine::{AnyEngine, Engine as _, EngineChoice, FileId, Op, OpenAs, Token};

use crate::MIB;

/// Bytes of one operation.
const PIECE: usize = MIB as usize;
/// Operations under way.
const DEPTH: usize = 8;

/// The segments of a replica's log, oldest first.
pub(crate) fn segments(replica_dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(replica_dir.join("log"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "seg") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Seconds that it takes to read `bytes` of the files `from` past the page cache, eight mebibytes
/// under way at a time, and to write them to the files `to`, if there are any.
pub(crate) fn move_directly(from: &[PathBuf], to: &[PathBuf], bytes: u64) -> anyhow::Result<f64> {
    let mut engine = AnyEngine::choose(EngineChoice::Auto, 64)?;
    let sources = pieces(&mut engine, from, bytes)?;
    let targets = pieces(&mut engine, to, bytes)?;
    let began = Instant::now();
    let (mut next, mut left, mut done) = (0, sources.len(), Vec::new());
    while left > 0 {
        while next < sources.len() && engine.in_flight() < DEPTH {
            let ((file, offset), buffer) = (sources[next], IoBuf::with_len(PIECE));
            engine.submit(Token(next as u64), Op::Read { file, offset, buffer, len: PIECE });
            next += 1;
        }
        engine.kick();
        engine.wait()?;
        engine.reap(&mut done);
        for completion in done.drain(..) {
            completion.result?;
            let index = usize::try_from(completion.token.0)?;
            match (completion.op, targets.get(index)) {
                (Op::Read { buffer, .. }, Some((file, offset))) => {
                    let (file, offset, data) = (*file, *offset, buffer.freeze().slice(..PIECE));
                    engine.submit(completion.token, Op::Write { file, offset, data });
                }
                _ => left -= 1,
            }
        }
    }
    Ok(began.elapsed().as_secs_f64())
}

/// Where the first `bytes` of the files lie, piece by piece.
fn pieces(
    engine: &mut AnyEngine,
    files: &[PathBuf],
    bytes: u64,
) -> anyhow::Result<Vec<(FileId, u64)>> {
    let mut all = Vec::new();
    for path in files {
        let file = engine.open(path, OpenAs::Direct)?;
        let len = engine.size(file)? / PIECE as u64 * PIECE as u64;
        all.extend((0..len).step_by(PIECE).map(|offset| (file, offset)));
    }
    all.truncate(usize::try_from(bytes / PIECE as u64)?);
    Ok(all)
}

/// Bytes per second of one TCP connection on loopback.
pub(crate) fn loopback_rate() -> anyhow::Result<f64> {
    const BYTES: u64 = 4 << 30;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let sender = std::thread::spawn(move || -> std::io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        let data = vec![7; PIECE];
        (0..BYTES / MIB).try_for_each(|_| stream.write_all(&data))
    });
    let (mut stream, _) = listener.accept()?;
    let (began, mut data, mut count) = (Instant::now(), vec![0; PIECE], 0_u64);
    loop {
        match stream.read(&mut data)? {
            0 => break,
            len => count += len as u64,
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    sender.join().ok().context("the sender panicked")??;
    Ok(count as f64 / seconds)
}

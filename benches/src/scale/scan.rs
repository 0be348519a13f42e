//! Recovery: how fast a replica with a long log is opened.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, bail};
use hadrian_blockdev::engine::{AnyEngine, EngineChoice, TokenSpace};
use hadrian_blockdev::journal::{Journal, inspect};
use hadrian_blockdev::replica::{Found, Replica, log_of, read_state};
use hadrian_blockdev::superblock::Whose;
use hadrian_protocol::frame::Frame;
use hadrian_protocol::replica::Mode;
use hadrian_replicator::demo::{Side, Spec};

use crate::figures::{Bar, Figures};
use crate::load::{self, Load};
use crate::{GIB, MIB, Run, machine};

const VOLUME: u64 = GIB;
const GIGA: f64 = 1e9;

/// Opens the log of a standby that may not apply for an hour: everything is behind its checkpoint.
pub(crate) fn measure(run: &Run, figures: &mut Figures) -> anyhow::Result<()> {
    let large = Load::sequential(2 * GIB, VOLUME);
    one(run, figures, "large writes", large, Some(Bar::AtLeast(1.0)))?;
    one(run, figures, "4 KiB writes", Load::scattered(512 * MIB, VOLUME), None)
}

fn one(
    run: &Run,
    figures: &mut Figures,
    name: &str,
    load: Load,
    bar: Option<Bar>,
) -> anyhow::Result<()> {
    let settings = "replay_delay = \"1h\"\n".into();
    let spec =
        Spec { volume_bytes: VOLUME, log_bytes: 4 * GIB, settings, ..Spec::new(Mode::Nearsync) };
    let mut cluster = run.cluster(spec)?;
    load::write(&cluster, Side::Alpha, load)?;
    cluster.kill(Side::Alpha)?;
    cluster.kill(Side::Beta)?;
    let (dir, store) = (cluster.replica_dir(Side::Beta), cluster.store_path(Side::Beta));
    let segments = machine::segments(&dir)?;
    // The first one makes durable what the killed daemon has left; it is no scan only.
    let first = scan(&dir)?;
    let each = |measure: &dyn Fn() -> anyhow::Result<f64>| {
        (0..run.passes).map(|_| measure()).collect::<anyhow::Result<Vec<f64>>>()
    };
    let bytes = first.0;
    let rate = |seconds: f64| bytes as f64 / seconds / GIGA;
    let scanned = each(&|| Ok(rate(scan(&dir)?.1)))?;
    match bar {
        Some(bar) => figures.judge(format!("{name}: log scanned"), &scanned, "GB/s", bar),
        None => figures.note(format!("{name}: log scanned"), &scanned, "GB/s"),
    }
    let whole = each(&|| Ok(rate(open(&dir, &store)?)))?;
    figures.note(format!("{name}: replica opened"), &whole, "GB/s");
    let disk = each(&|| Ok(rate(machine::move_directly(&segments, &[], bytes)?)))?;
    figures.note(format!("{name}: the disk alone, read"), &disk, "GB/s");
    let checked = each(&|| check(&dir))?;
    figures.note(format!("{name}: frames checked in memory"), &checked, "GB/s");
    figures.note(format!("{name}: log behind the checkpoint"), &[bytes as f64 / MIB as f64], "MiB");
    let began = Instant::now();
    cluster.start(Side::Beta)?;
    let seconds = loop {
        if cluster.status(Side::Beta).is_some() {
            break began.elapsed().as_secs_f64();
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    };
    figures.note(format!("{name}: from the daemon's start to its first answer"), &[seconds], "s");
    Ok(())
}

/// Recovery as the daemon does it, without keeping anything: bytes of log, and seconds.
fn scan(dir: &Path) -> anyhow::Result<(u64, f64)> {
    let state = read_state(dir)?.state;
    let mut engine = AnyEngine::choose(EngineChoice::Auto, 64)?;
    let log = log_of(dir, &state, TokenSpace::new(1));
    let began = Instant::now();
    let (_, found) = Journal::open(&mut engine, &log, &mut |_| {})?;
    let seconds = began.elapsed().as_secs_f64();
    Ok((found.end.lsn.since(state.checkpoint.lsn), seconds))
}

/// The whole replica, with the overlay that reads would see.
fn open(dir: &Path, store: &Path) -> anyhow::Result<f64> {
    let Found { state, label, .. } = read_state(dir)?;
    let whose = Whose { resource: state.resource, label };
    let began = Instant::now();
    let replica = Replica::open(dir, &whose, &[store.into()], EngineChoice::Auto)?;
    let seconds = began.elapsed().as_secs_f64();
    drop(replica);
    Ok(seconds)
}

/// The processor's part: checksums and chain of frames that are in memory already.
fn check(dir: &Path) -> anyhow::Result<f64> {
    const SAMPLE: u64 = 256 * MIB;
    let state = read_state(dir)?.state;
    let mut engine = AnyEngine::choose(EngineChoice::Plain, 1)?;
    let mut dump = inspect::frames(&mut engine, dir, Some(state.checkpoint.lsn))?;
    let (mut frames, mut bytes) = (Vec::new(), 0);
    while bytes < SAMPLE {
        let Ok(frame) = dump.next(&mut engine)? else { bail!("the log ends too early") };
        bytes += frame.log_len();
        frames.push(frame);
    }
    let began = Instant::now();
    let mut before = frames.first().map(Frame::position_after).context("no frame")?;
    for frame in &frames[1..] {
        let again = Frame::open(frame.log_bytes().clone(), state.resource)?;
        if !again.follows(before.chain) {
            bail!("a frame does not follow on the one before it");
        }
        before = again.position_after();
    }
    Ok(bytes as f64 / began.elapsed().as_secs_f64() / GIGA)
}

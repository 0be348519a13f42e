//! A standby that was away: how fast it gets what it lacks.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hadrian_benches::process;
use hadrian_protocol::replica::Mode;
use hadrian_replicator::demo::{Cluster, Side, Spec};

use crate::figures::{Bar, Figures};
use crate::load::{self, Load};
use crate::{GIB, Run, machine};

const VOLUME: u64 = GIB;
const LOOK: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(60);
const GIGA: f64 = 1e9;

/// What one return has shown.
struct Return {
    bytes: f64,
    seconds: f64,
    disk_bytes: f64,
    cpu_seconds: [f64; 2],
    until_applied: f64,
}

/// Files in memory, where the system has such a folder.
const MEMORY: &str = "/dev/shm";

/// Where both replicas are, and how much is written there while the standby is away; the log takes
/// a little more.
struct Place {
    name: &'static str,
    folder: Option<PathBuf>,
    written: u64,
    log_bytes: u64,
}

/// Log shipped per second, beside the disk and the link alone. On one machine both replicas share
/// the disk, so it is measured with files in memory as well: there only processors and link count.
pub(crate) fn measure(run: &Run, figures: &mut Figures) -> anyhow::Result<()> {
    let written = 2 * GIB + GIB / 4;
    measure_at(run, figures, &Place { name: "disk", folder: None, written, log_bytes: 6 * GIB })?;
    let folder = PathBuf::from(MEMORY);
    if !folder.is_dir() {
        eprintln!("  there is no {MEMORY}: not measured with files in memory");
        return Ok(());
    }
    let (folder, written) = (Some(folder), GIB + GIB / 4);
    measure_at(run, figures, &Place { name: "memory", folder, written, log_bytes: 3 * GIB })
}

fn measure_at(run: &Run, figures: &mut Figures, place: &Place) -> anyhow::Result<()> {
    let (folder, log_bytes) = (place.folder.clone(), place.log_bytes);
    let spec = Spec { volume_bytes: VOLUME, log_bytes, folder, ..Spec::new(Mode::Nearsync) };
    let mut cluster = run.cluster(spec)?;
    let written = place.written;
    let returns = (0..run.passes).map(|_| one(&mut cluster, written));
    let all = returns.collect::<anyhow::Result<Vec<_>>>()?;
    let peaks = [peak(&cluster, Side::Alpha)?, peak(&cluster, Side::Beta)?];
    let dirs = [Side::Alpha, Side::Beta].map(|side| cluster.replica_dir(side));
    [Side::Alpha, Side::Beta].into_iter().try_for_each(|side| cluster.kill(side))?;
    let [from, to] = [machine::segments(&dirs[0])?, machine::segments(&dirs[1])?];
    let copy = || Ok(written as f64 / machine::move_directly(&from, &to, written)? / GIGA);
    let copies = (0..run.passes).map(|_| copy()).collect::<anyhow::Result<Vec<f64>>>()?;
    let links = (0..run.passes).map(|_| Ok(machine::loopback_rate()? / GIGA));
    let links = links.collect::<anyhow::Result<Vec<f64>>>()?;
    tell(figures, place.name, &all, (&copies, &links));
    for (who, peak) in ["primary", "standby"].into_iter().zip(peaks) {
        figures.note(format!("{}: peak memory of the {who}", place.name), &[peak], "MiB");
    }
    Ok(())
}

fn tell(figures: &mut Figures, place: &str, all: &[Return], (copies, links): (&[f64], &[f64])) {
    let of = |value: fn(&Return) -> f64| all.iter().map(value).collect::<Vec<_>>();
    let name = |figure: &str| format!("{place}: {figure}");
    let rates = of(|back| back.bytes / back.seconds / GIGA);
    figures.judge(name("log caught up"), &rates, "GB/s", Bar::AtLeast(1.0));
    let moved = of(|back| back.disk_bytes / back.seconds / GIGA);
    figures.note(name("read and written meanwhile"), &moved, "GB/s");
    // A copy reads and writes every byte once.
    let alone: Vec<_> = copies.iter().map(|rate| 2.0 * rate).collect();
    figures.note(name("the same by a plain copy of the log"), &alone, "GB/s");
    figures.note(name("a plain copy of the log"), copies, "GB/s");
    figures.note(name("loopback TCP alone"), links, "GB/s");
    let cpu = |index: usize| {
        let per_gib = |back: &Return| back.cpu_seconds[index] / (back.bytes / GIB as f64);
        all.iter().map(per_gib).collect::<Vec<_>>()
    };
    figures.note(name("processor of the primary"), &cpu(0), "s/GiB");
    figures.note(name("processor of the standby"), &cpu(1), "s/GiB");
    figures.note(name("until all of it is applied"), &of(|back| back.until_applied), "s");
}

fn peak(cluster: &Cluster, side: Side) -> anyhow::Result<f64> {
    process::peak_mib(cluster.pid(side).context("it runs")?)
}

fn one(cluster: &mut Cluster, written: u64) -> anyhow::Result<Return> {
    cluster.kill(Side::Beta)?;
    load::write(cluster, Side::Alpha, Load::sequential(written, VOLUME))?;
    // The image of the primary is brought up to date first: only the return is measured.
    let end = settled(cluster)?;
    rustix::fs::sync();
    cluster.start(Side::Beta)?;
    let first = await_end(cluster, |_| true)?;
    let sides = [Side::Alpha, Side::Beta];
    let pids = sides.map(|side| cluster.pid(side).unwrap_or_default());
    let cpu = |pid| process::cpu_seconds(pid);
    let before = (cpu(pids[0])?, cpu(pids[1])?, moved(&pids)?);
    let began = last_at(cluster, first)?;
    await_end(cluster, |at| at == end)?;
    let seconds = began.elapsed().as_secs_f64();
    let after = (cpu(pids[0])?, cpu(pids[1])?, moved(&pids)?);
    cluster.await_peer(Side::Alpha)?;
    cluster.await_applied(Side::Alpha)?;
    Ok(Return {
        bytes: (end - first) as f64,
        seconds,
        disk_bytes: after.2 - before.2,
        cpu_seconds: [after.0 - before.0, after.1 - before.1],
        until_applied: began.elapsed().as_secs_f64(),
    })
}

/// Waits until the primary's image holds its log; where that ends.
fn settled(cluster: &Cluster) -> anyhow::Result<u64> {
    look(|| {
        let node = cluster.status(Side::Alpha)?.node?;
        (node.applied == node.end).then_some(node.end.get())
    })
}

fn await_end(cluster: &Cluster, is_it: impl Fn(u64) -> bool) -> anyhow::Result<u64> {
    look(|| Some(cluster.status(Side::Beta)?.node?.end.get()).filter(|at| is_it(*at)))
}

/// The last look at which the standby's log had not grown yet.
fn last_at(cluster: &Cluster, first: u64) -> anyhow::Result<Instant> {
    let mut last = Instant::now();
    look(|| {
        let now = Instant::now();
        let at = cluster.status(Side::Beta)?.node?.end.get();
        if at == first {
            last = now;
        }
        (at > first).then_some(())
    })?;
    Ok(last)
}

/// Another process can only be asked again and again.
fn look<T>(mut find: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = find() {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("what was waited for did not happen in {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(LOOK);
    }
}

/// Bytes that the processes have read from storage and written to it.
fn moved(pids: &[u32]) -> anyhow::Result<f64> {
    pids.iter().map(|pid| Ok(process::stored_bytes(*pid)? + process::read_bytes(*pid)?)).sum()
}

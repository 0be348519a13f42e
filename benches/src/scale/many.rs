//! Many resources on one pair of daemons.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hadrian_benches::process;
use hadrian_protocol::replica::Mode;
use hadrian_replicator::demo::{Cluster, Side, Spec};

use crate::figures::{Bar, Figures};
use crate::load;
use crate::{MIB, Run};

const VOLUME: u64 = 64 * MIB;
const WRITING: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(10);
/// Processor seconds of both daemons in a second without work: a twentieth of one processor.
const IDLE_CPU_MAX: f64 = 0.05;

/// Everything about them: start, load, rest, status.
pub(crate) fn measure(run: &Run, figures: &mut Figures) -> anyhow::Result<()> {
    let count = run.resources;
    let spec = Spec { resource_count: count, volume_bytes: VOLUME, ..Spec::new(Mode::Nearsync) };
    let mut cluster = run.cluster(spec)?;
    figures.note("resources", &[count as f64], "");
    let small = write_all(&cluster, 4096, count)?;
    figures.note("4 KiB writes, one at a time on each", &[small], "IOPS");
    let large = write_all(&cluster, MIB as usize, count)?;
    figures.note("1 MiB writes, one at a time on each", &[large * MIB as f64 / 1e6], "MB/s");
    cluster.await_applied(Side::Alpha)?;
    let pids = [Side::Alpha, Side::Beta].map(|side| cluster.pid(side).unwrap_or_default());
    for (name, pid) in ["primary", "standby"].into_iter().zip(pids) {
        figures.note(format!("{name}: peak memory"), &[process::peak_mib(pid)?], "MiB");
        figures.note(format!("{name}: memory after it"), &[process::memory_mib(pid)?], "MiB");
        figures.note(format!("{name}: threads"), &[process::threads(pid)?], "");
        figures.note(format!("{name}: open files"), &[process::open_files(pid)?], "");
    }
    let idle = idle_cpu(pids)?;
    figures.judge("processor without work", &[idle], "s/s", Bar::AtMost(IDLE_CPU_MAX));
    status(&cluster, figures, run.passes)?;
    let began = Instant::now();
    cluster.terminate(Side::Beta)?;
    figures.note("stop of the standby", &[began.elapsed().as_secs_f64()], "s");
    let began = Instant::now();
    cluster.start(Side::Beta)?;
    cluster.await_peer(Side::Alpha)?;
    figures.note("its start, until all are in peer", &[began.elapsed().as_secs_f64()], "s");
    Ok(())
}

/// Writes per second on all resources together.
fn write_all(cluster: &Cluster, block: usize, count: usize) -> anyhow::Result<f64> {
    let clients = (0..count).map(|index| cluster.client_of(Side::Alpha, index));
    let clients = clients.collect::<anyhow::Result<Vec<_>>>()?;
    let together = Barrier::new(count);
    let writes: Vec<_> = thread::scope(|scope| {
        let write = |mut client| {
            let together = &together;
            scope.spawn(move || {
                together.wait();
                load::write_for(&mut client, (block, VOLUME), WRITING)
            })
        };
        let writers: Vec<_> = clients.into_iter().map(write).collect();
        writers.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let mut sum = 0;
    for written in writes {
        sum += written.ok().context("a writer panicked")??;
    }
    Ok(sum as f64 / WRITING.as_secs_f64())
}

/// Processor seconds of both daemons in each second in which nobody asks for anything.
fn idle_cpu(pids: [u32; 2]) -> anyhow::Result<f64> {
    // What was written last is brought to rest first.
    thread::sleep(Duration::from_secs(2));
    let used =
        || Ok::<_, anyhow::Error>(process::cpu_seconds(pids[0])? + process::cpu_seconds(pids[1])?);
    let before = used()?;
    thread::sleep(IDLE);
    Ok((used()? - before) / IDLE.as_secs_f64())
}

fn status(cluster: &Cluster, figures: &mut Figures, passes: usize) -> anyhow::Result<()> {
    let (mut asked, mut shown, mut bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..passes {
        let began = Instant::now();
        let all = cluster.statuses(Side::Alpha);
        asked.push(began.elapsed().as_secs_f64() * 1e3);
        bytes = serde_json::to_vec(&all)?.len();
        let began = Instant::now();
        cluster.tool(Side::Alpha, &["status"])?;
        shown.push(began.elapsed().as_secs_f64() * 1e3);
    }
    figures.note("status of all, asked of the daemon", &asked, "ms");
    figures.note("status of all, as a command", &shown, "ms");
    figures.note("status of all, bytes of JSON", &[bytes as f64 / 1024.0], "KiB");
    Ok(())
}

//! Standbys that get what differs: how long that takes by how much there is, and what clients of
//! the primary feel of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;
use hadrian_benches::percentile;
use hadrian_protocol::replica::Mode;
use hadrian_replicator::demo::{Client, Cluster, Side, Spec};

use crate::figures::{Bar, Figures};
use crate::load::place_of;
use crate::{GIB, MIB, Run};

/// The volume that is seeded, and how many percent of it are filled.
const VOLUME: u64 = 8 * GIB;
const FILLED: [u64; 3] = [1, 5, 20];
/// What seeds beyond this per filled byte is for the size of the volume: seconds.
const BESIDE_FILLED: f64 = 0.5;
/// The volume under clients; half of it is filled.
const BUSY_VOLUME: u64 = 4 * GIB;
/// Clients at a time, each with one request under way.
const CLIENTS: u64 = 2;
const BLOCK: usize = 4096;
/// How long clients are looked at without a resync.
const SLICE: Duration = Duration::from_secs(3);
/// Longest look at one resync.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(20);
/// What a resync may cost clients (design §8.3).
const SLOWER_MAX: f64 = 2.0;

/// A new standby of a large volume of which little is filled, while nobody writes.
pub(crate) fn measure_seed(run: &Run, figures: &mut Figures) -> anyhow::Result<()> {
    let spec = Spec { volume_bytes: VOLUME, ..Spec::new(Mode::Nearsync) };
    let mut cluster = run.cluster(spec)?;
    let (mut filled, mut medians) = (0, Vec::new());
    for percent in FILLED {
        let wanted = VOLUME / MIB * percent / 100;
        // All over the volume, as a file system does it.
        fill(&cluster, filled..wanted, VOLUME)?;
        filled = wanted;
        let seeds = (0..run.passes).map(|_| seed(&mut cluster));
        let seconds = seeds.collect::<anyhow::Result<Vec<f64>>>()?;
        figures.note(format!("8 GiB, {percent} % filled"), &seconds, "s");
        medians.push(hadrian_benches::median(seconds));
    }
    let [_, middle, full] = medians[..] else { bail!("three fillings") };
    // Four times as much takes at most four times as long, and what looking at the volume takes.
    let bar = 4.0 + 4.0 * BESIDE_FILLED / middle.max(0.1);
    figures.judge("20 % beside 5 %", &[full / middle], "times", Bar::AtMost(bar));
    Ok(())
}

/// What clients wait for their writes while a standby is seeded, beside what they wait just before.
pub(crate) fn measure_clients(run: &Run, figures: &mut Figures) -> anyhow::Result<()> {
    // So much log that it is not what clients wait for.
    let (volume_bytes, log_bytes) = (BUSY_VOLUME, GIB);
    let spec = Spec { volume_bytes, log_bytes, ..Spec::new(Mode::Nearsync) };
    let mut cluster = run.cluster(spec)?;
    fill(&cluster, 0..BUSY_VOLUME / MIB / 2, BUSY_VOLUME)?;
    let passes = (0..run.passes).map(|number| Pass::new(&mut cluster, number as u64));
    let passes = passes.collect::<anyhow::Result<Vec<_>>>()?;
    for (name, percent) in [("p50", 50.0), ("p99", 99.0)] {
        let of = |pick: fn(&Pass) -> &Waits| -> Vec<f64> {
            passes.iter().map(|pass| percentile(&pick(pass).0, percent)).collect()
        };
        let (alone, peer, busy) = (of(|p| &p.alone), of(|p| &p.peer), of(|p| &p.busy));
        figures.note(format!("{name} with the standby in peer"), &peer, "us");
        figures.note(format!("{name} without a standby"), &alone, "us");
        figures.note(format!("{name} under a resync"), &busy, "us");
        let beside = |base: &[f64]| -> Vec<f64> {
            busy.iter().zip(base).map(|(busy, base)| busy / base).collect()
        };
        // What it is without a resync: both members at work, on the same two processors.
        let ratio = format!("{name} beside a standby in peer");
        figures.judge(ratio, &beside(&peer), "times", Bar::AtMost(SLOWER_MAX));
        figures.note(format!("{name} beside none"), &beside(&alone), "times");
    }
    let worst = |pick: fn(&Pass) -> &Waits| -> Vec<f64> {
        passes.iter().map(|pass| percentile(&pick(pass).0, 100.0) / 1e3).collect()
    };
    figures.note("longest wait without a standby", &worst(|pass| &pass.alone), "ms");
    figures.note("longest wait under a resync", &worst(|pass| &pass.busy), "ms");
    let of = |value: fn(&Pass) -> f64| passes.iter().map(value).collect::<Vec<_>>();
    figures.note("seed of 2 GiB under clients", &of(|pass| pass.seconds), "s");
    figures.note("seed of 2 GiB without", &of(|pass| pass.seconds_alone), "s");
    Ok(())
}

/// Microseconds that each write waited, sorted.
struct Waits(Vec<f64>);

/// What one resync has shown, and what was measured right before it.
struct Pass {
    peer: Waits,
    alone: Waits,
    busy: Waits,
    seconds: f64,
    seconds_alone: f64,
}

impl Pass {
    fn new(cluster: &mut Cluster, number: u64) -> anyhow::Result<Self> {
        let waits =
            |cluster: &Cluster, until: &dyn Fn() -> bool| write_until(cluster, number, until);
        // The daemon is asked as often as during a resync.
        let slice = |cluster: &Cluster| {
            let began = Instant::now();
            waits(cluster, &|| copies(cluster) || began.elapsed() > SLICE)
        };
        let peer = slice(cluster)?;
        cluster.make_anew(Side::Beta, &[])?;
        let alone = slice(cluster)?;
        cluster.start(Side::Beta)?;
        let began = await_copies(cluster, true)?;
        let busy = waits(cluster, &|| !copies(cluster) || began.elapsed() > PATIENCE)?;
        let seconds = began.elapsed().as_secs_f64();
        cluster.await_peer(Side::Alpha)?;
        let seconds_alone = seed(cluster)?;
        Ok(Self { peer, alone, busy, seconds, seconds_alone })
    }
}

/// Clients write anywhere on the volume until it is enough.
fn write_until(
    cluster: &Cluster,
    round: u64,
    is_enough: &dyn Fn() -> bool,
) -> anyhow::Result<Waits> {
    let clients = (0..CLIENTS).map(|_| cluster.client(Side::Alpha));
    let clients = clients.collect::<anyhow::Result<Vec<Client>>>()?;
    let stop = &AtomicBool::new(false);
    let mut all = thread::scope(|scope| -> anyhow::Result<Vec<f64>> {
        let writers: Vec<_> = clients
            .into_iter()
            .zip(0..CLIENTS)
            .map(|(client, of)| scope.spawn(move || write(client, round * CLIENTS + of, stop)))
            .collect();
        while !is_enough() {
            thread::sleep(LOOK);
        }
        stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for writer in writers {
            all.extend(writer.join().unwrap_or_else(|_| Ok(Vec::new()))?);
        }
        Ok(all)
    })?;
    if all.is_empty() {
        bail!("no client was answered");
    }
    all.sort_by(f64::total_cmp);
    Ok(Waits(all))
}

fn write(mut client: Client, of: u64, stop: &AtomicBool) -> std::io::Result<Vec<f64>> {
    let (mut data, mut waits, mut number) = (vec![7; BLOCK], Vec::new(), of << 32);
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        data[..8].copy_from_slice(&number.to_le_bytes());
        let began = Instant::now();
        client.write(place_of(number, BLOCK as u64, BUSY_VOLUME / 2), &data)?;
        waits.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(waits)
}

/// Writes megabytes of these numbers, spread over the volume.
fn fill(cluster: &Cluster, numbers: std::ops::Range<u64>, volume: u64) -> anyhow::Result<()> {
    let (mut client, mut data) = (cluster.client(Side::Alpha)?, vec![7; MIB as usize]);
    for number in numbers {
        data.chunks_exact_mut(512).zip(0_u64..).for_each(|(sector, at)| {
            sector[..8].copy_from_slice(&(number << 32 | at).to_le_bytes());
        });
        client.write(place_of(number, MIB, volume), &data)?;
    }
    client.flush()?;
    cluster.await_applied(Side::Alpha)
}

/// Seconds that a new standby takes to get everything.
fn seed(cluster: &mut Cluster) -> anyhow::Result<f64> {
    cluster.make_anew(Side::Beta, &[])?;
    rustix::fs::sync();
    let began = Instant::now();
    cluster.start(Side::Beta)?;
    cluster.await_peer(Side::Alpha)?;
    Ok(began.elapsed().as_secs_f64())
}

fn copies(cluster: &Cluster) -> bool {
    cluster.status(Side::Alpha).is_some_and(|status| !status.copies.is_empty())
}

/// Waits until a resync goes on, or does not; when that was seen.
fn await_copies(cluster: &Cluster, wanted: bool) -> anyhow::Result<Instant> {
    let deadline = Instant::now() + PATIENCE;
    while copies(cluster) != wanted {
        if Instant::now() > deadline {
            bail!("no resync began in {} s", PATIENCE.as_secs());
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(Instant::now())
}

//! Comparisons while clients write as fast as they can: none may tell of a difference that is not
//! there, and each byte that a disk has lost has to be found where it is (design §8.4).

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hadrian_protocol::replica::Mode;
use hadrian_replicator::demo::{Cluster, Side, Spec};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::megabytes::{self, MIB};

/// Megabytes that clients write to, and behind them those where bytes are lost.
const WRITTEN: u64 = 384;
const RESTING: u64 = 128;
const LEAF: u64 = 16 << 10;
/// Clients at a time, each with one request under way.
const CLIENTS: u64 = 2;
/// A client's largest write, in blocks.
const BLOCKS_MAX: u64 = 32;
const BLOCK: u64 = 4096;
/// So many writes of a client, and then a flush.
const FLUSHED: u64 = 64;

/// How long to go on.
#[derive(Clone, Copy, Debug)]
pub struct Comparisons {
    /// At least so many comparisons are made,
    pub count: u64,
    /// and for at least so long.
    pub time: Duration,
    /// From which everything random follows but the pace of the clients.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Default, Debug)]
pub struct Outcome {
    /// Comparisons that came to their end.
    pub compared: u64,
    /// Those that told of a difference that was not there.
    pub wrong: u64,
    /// Bytes that were made to differ, and those of them that were found where they are.
    pub flipped: u64,
    /// See `flipped`.
    pub found: u64,
    /// The first difference that was not there, or the first that was passed over, in words.
    pub complaint: Option<String>,
    /// What clients wrote and got answers for.
    pub bytes: u64,
}

/// Compares for as long as is wished; before every second comparison a byte of either backing store
/// is made another one, and behind it what it was.
///
/// # Errors
/// Where a comparison or a client does not come to its end.
pub fn run(programs: &Path, wished: Comparisons) -> anyhow::Result<Outcome> {
    let (volume_bytes, log_bytes) = ((WRITTEN + RESTING) * MIB, 256 * MIB);
    let spec = Spec { volume_bytes, log_bytes, ..Spec::new(Mode::Nearsync) };
    let cluster = Cluster::new(programs, spec)?;
    megabytes::write(&cluster, Side::Alpha, 0..WRITTEN + RESTING, 0)?;
    // What is at rest is in the stores before anybody changes it there.
    cluster.await_applied(Side::Alpha)?;
    let (stop, bytes) = (&AtomicBool::new(false), &AtomicU64::new(0));
    let compared = thread::scope(|scope| {
        let writers: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let random = StdRng::seed_from_u64(wished.seed.wrapping_add(client + 1));
                let cluster = &cluster;
                scope.spawn(move || write(cluster, random, stop, bytes))
            })
            .collect();
        let compared = compare(&cluster, wished);
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().unwrap_or_else(|_| bail!("a client's thread has panicked"))?;
        }
        compared
    })?;
    Ok(Outcome { bytes: bytes.load(Ordering::Relaxed), ..compared })
}

/// Comparisons, with a byte flipped for every second one.
fn compare(cluster: &Cluster, wished: Comparisons) -> anyhow::Result<Outcome> {
    let (mut random, began) = (StdRng::seed_from_u64(wished.seed), Instant::now());
    let mut outcome = Outcome::default();
    while outcome.compared < wished.count || began.elapsed() < wished.time {
        let found = differing(cluster)?;
        outcome.compared += 1;
        if found != json!([]) {
            outcome.wrong += 1;
            outcome.complaint.get_or_insert(format!("nothing differed, and it said: {found}"));
        }
        let side = if random.random() { Side::Alpha } else { Side::Beta };
        let at = random.random_range(WRITTEN * MIB..(WRITTEN + RESTING) * MIB);
        let (bit, start) = (1 << random.random_range(0..8), at / LEAF * LEAF);
        flip(cluster, side, at, bit)?;
        let found = differing(cluster)?;
        flip(cluster, side, at, bit)?;
        (outcome.compared, outcome.flipped) = (outcome.compared + 1, outcome.flipped + 1);
        if found == json!([{ "volume": 0, "start": start, "end": start + LEAF }]) {
            outcome.found += 1;
        } else {
            let place = format!("byte {at} of {}", side.name());
            outcome.complaint.get_or_insert(format!("{place} differed, and it said: {found}"));
        }
    }
    Ok(outcome)
}

/// The ranges that a comparison says differ.
fn differing(cluster: &Cluster) -> anyhow::Result<Value> {
    let output = cluster.command(Side::Alpha, &["verify", "db", "--json"]).output()?;
    let (text, said) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_str(&text)
        .with_context(|| format!("a comparison printed {text:?}, and said {said:?}"))?;
    if found["state"] != "done" || found["differs_more"] != false {
        bail!("a comparison came to this: {found}");
    }
    if output.status.success() != (found["differs"] == json!([])) {
        bail!("a comparison ended with {} and printed {found}", output.status);
    }
    Ok(found["differs"].clone())
}

/// One bit of a backing store becomes another one, or what it was.
fn flip(cluster: &Cluster, side: Side, at: u64, bit: u8) -> anyhow::Result<()> {
    let disk = File::options().read(true).write(true).open(cluster.store_path(side))?;
    let mut byte = [0];
    disk.read_exact_at(&mut byte, at)?;
    disk.write_all_at(&[byte[0] ^ bit], at)?;
    Ok(disk.sync_all()?)
}

/// Writes anywhere, as fast as answers come.
fn write(
    cluster: &Cluster,
    mut random: StdRng,
    stop: &AtomicBool,
    bytes: &AtomicU64,
) -> anyhow::Result<()> {
    let mut client = cluster.client(Side::Alpha)?;
    let mut data = vec![0; (BLOCKS_MAX * BLOCK) as usize];
    for number in 1_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let blocks = random.random_range(1..=BLOCKS_MAX);
        let at = random.random_range(0..=WRITTEN * MIB / BLOCK - blocks) * BLOCK;
        let data = &mut data[..(blocks * BLOCK) as usize];
        data.chunks_exact_mut(BLOCK as usize).for_each(|block| block.fill(random.random()));
        client.write(at, data)?;
        bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        if number.is_multiple_of(FLUSHED) {
            client.flush()?;
        }
    }
    Ok(())
}

//! `hadrian demo`: two real daemons on loopback, a writer that remembers every answer, a killed
//! primary, a takeover, the return of the old primary, and the way home.

mod client;
mod cluster;

pub use crate::driver::Compression;
pub use client::Client;
pub use cluster::{Cluster, MARKER_BYTES, Place, Side, Spec};

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hadrian_protocol::node::NodeStatus;
use hadrian_protocol::replica::Mode;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

const BLOCK: usize = 4096;
const VOLUME_BYTES: u64 = 1 << 30;
/// How long the writer writes before the primary is killed, and how long it writes alone.
const WRITING: Duration = Duration::from_secs(4);
const WRITING_ALONE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(500);

/// The last answered stamp of each block, and the one that may have landed unanswered.
#[derive(Debug, Default)]
struct Memory {
    answered: BTreeMap<u64, u64>,
    unsure: Option<(u64, u64)>,
    count: u64,
}

/// Runs the show.
///
/// # Errors
/// With what went wrong; above all if an answered write is missing.
pub fn run(json: bool) -> anyhow::Result<()> {
    let programs = std::env::current_exe()?;
    let programs = programs.parent().context("a program lies in a folder")?;
    say!("making two replicas of a 1 GiB volume, TLS between them …");
    let spec =
        Spec { volume_bytes: VOLUME_BYTES, log_bytes: 512 << 20, ..Spec::new(Mode::Nearsync) };
    let mut cluster = Cluster::new(programs, spec)?;
    let mut memory = Memory::default();
    say!("\nwriting on alpha; it is killed in mid-write");
    write_and_watch(&mut cluster, Side::Alpha, &mut memory, true)?;
    let began = Instant::now();
    cluster.tool(Side::Beta, &["takeover", "db", "--force", "--yes"])?;
    let takeover = began.elapsed();
    say!("\nbeta took over in {} ms; reading every answered write back", takeover.as_millis());
    let mut lost = verify(&cluster, Side::Beta, &mut memory)?;
    say!("writing on beta while alpha is away; then alpha comes back");
    write_and_watch(&mut cluster, Side::Beta, &mut memory, false)?;
    let gap = cluster.status(Side::Beta).and_then(|status| status.node).map(|node| node.end);
    let back = Instant::now();
    cluster.start(Side::Alpha)?;
    cluster.await_peer(Side::Beta)?;
    let back = back.elapsed();
    say!("\nalpha is back in peer after {} ms; planned takeover home", back.as_millis());
    let began = Instant::now();
    cluster.tool(Side::Alpha, &["takeover", "db"])?;
    let home = began.elapsed();
    lost += verify(&cluster, Side::Alpha, &mut memory)?;
    cluster.terminate(Side::Alpha)?;
    cluster.terminate(Side::Beta)?;
    report(json, &memory, lost, [takeover, back, home], gap.map_or(0, |lsn| lsn.get()));
    if lost > 0 { bail!("{lost} answered writes are missing") } else { Ok(()) }
}

fn report(json: bool, memory: &Memory, lost: u64, times: [Duration; 3], log_bytes: u64) {
    let [takeover, back, home] = times.map(|time| time.as_millis());
    let answered = memory.count;
    if json {
        let report = serde_json::json!({
            "answered": answered, "lost": lost, "takeover_ms": takeover,
            "return_ms": back, "planned_takeover_ms": home, "log_bytes": log_bytes,
        });
        say!("{report}");
        return;
    }
    say!("\nwrites answered    {answered}");
    say!("answered and lost  {lost}");
    say!("forced takeover    {takeover} ms");
    say!("return to peer     {back} ms");
    say!("planned takeover   {home} ms");
}

/// A writer in a thread of its own; the table of both sides meanwhile; a kill if asked.
fn write_and_watch(
    cluster: &mut Cluster,
    primary: Side,
    memory: &mut Memory,
    kill: bool,
) -> anyhow::Result<()> {
    let client = cluster.client(primary)?;
    let (stop, stopped) = mpsc::channel();
    let mut taken = std::mem::take(memory);
    let writer = thread::spawn(move || {
        write(client, &mut taken, &stopped);
        taken
    });
    let end = Instant::now() + if kill { WRITING } else { WRITING_ALONE };
    say!("{:<8}{:<10}{:<18}{:>14}{:>14}", "member", "role", "state", "log end", "gap bytes");
    while Instant::now() < end {
        thread::sleep(LOOK);
        table(cluster);
    }
    if kill {
        cluster.kill(primary)?;
        say!("{} is dead (kill -9)", primary.name());
    }
    // A writer whose primary is dead has ended by itself.
    let _ = stop.send(());
    *memory = writer.join().map_err(|_| anyhow::anyhow!("the writer failed"))?;
    Ok(())
}

fn write(mut client: Client, memory: &mut Memory, stopped: &mpsc::Receiver<()>) {
    let mut random = StdRng::seed_from_u64(memory.count);
    while stopped.try_recv().is_err() {
        let block = random.random_range(0..VOLUME_BYTES / BLOCK as u64);
        let stamp = memory.count + 1;
        memory.unsure = Some((block, stamp));
        if client.write(block * BLOCK as u64, &content(stamp)).is_err() {
            return;
        }
        memory.unsure = None;
        memory.answered.insert(block, stamp);
        memory.count = stamp;
        if stamp.is_multiple_of(64) && client.flush().is_err() {
            return;
        }
    }
}

fn content(stamp: u64) -> Vec<u8> {
    stamp.to_le_bytes().repeat(BLOCK / 8)
}

/// Reads every answered write back; how many are missing.
fn verify(cluster: &Cluster, primary: Side, memory: &mut Memory) -> anyhow::Result<u64> {
    let mut client = cluster.client(primary)?;
    let mut lost = 0;
    let unsure = memory.unsure.take();
    for (block, stamp) in &mut memory.answered {
        let found = client.read(block * BLOCK as u64, BLOCK)?;
        let landed = unsure.filter(|(at, later)| at == block && found == content(*later));
        if let Some((_, later)) = landed {
            *stamp = later;
        } else if found != content(*stamp) {
            lost += 1;
        }
    }
    say!("{} blocks read back on {}, {lost} missing", memory.answered.len(), primary.name());
    Ok(lost)
}

fn table(cluster: &Cluster) {
    for side in [Side::Alpha, Side::Beta] {
        let node = cluster.status(side).and_then(|status| status.node);
        let (role, state, end, gap) = match &node {
            Some(node) => row(node),
            None => ("-", "down".into(), "-".into(), "-".into()),
        };
        say!("{:<8}{role:<10}{state:<18}{end:>14}{gap:>14}", side.name());
    }
}

fn row(node: &NodeStatus) -> (&'static str, String, String, String) {
    let peer = node.peers.first();
    let role = if node.state.is_some() { "standby" } else { "primary" };
    let state = node.state.or_else(|| peer?.state);
    let state = state.and_then(|state| serde_json::to_value(state).ok());
    let state = state.and_then(|value| value.as_str().map(str::to_string)).unwrap_or_default();
    let gap = peer.and_then(|peer| peer.received).map(|received| node.end.since(received));
    let gap = gap.map_or("-".into(), |gap| gap.to_string());
    (role, state, node.end.to_string(), gap)
}

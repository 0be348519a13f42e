//! A volume as large as the file system lets a sparse file be.

use std::fs::File;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hadrian_benches::process;
use hadrian_protocol::replica::Mode;
use hadrian_replicator::demo::{Cluster, Side, Spec};

use crate::figures::{Bar, Figures};
use crate::load;
use crate::{GIB, MIB, Run};

const BLOCK: u64 = 4096;
const WIDE: u64 = 16 << 40;
const WRITING: Duration = Duration::from_secs(3);
/// What a huge volume may cost in memory beyond a small one, in MiB.
const MORE_MEMORY_MAX: f64 = 16.0;

/// The same with a small volume and with a huge one: memory must not know the difference.
pub(crate) fn measure(run: &Run, figures: &mut Figures) -> anyhow::Result<()> {
    let wide = widest()?;
    figures.note("size of the volume", &[wide as f64 / (1_u64 << 40) as f64], "TiB");
    if wide < WIDE {
        eprintln!("  this file system has no larger files than {wide} bytes");
    }
    let small = one(run, figures, GIB, "1 GiB")?;
    let large = one(run, figures, wide, "huge")?;
    let more = Bar::AtMost(MORE_MEMORY_MAX);
    figures.judge("memory that the size costs, primary", &[large[0] - small[0]], "MiB", more);
    figures.judge("memory that the size costs, standby", &[large[1] - small[1]], "MiB", more);
    Ok(())
}

/// The largest size that a file may have here, 16 TiB at most: ext4 stops a block before it.
fn widest() -> anyhow::Result<u64> {
    let file: File = tempfile::tempfile()?;
    let fits = [WIDE, WIDE - BLOCK, WIDE / 2, 2 << 40];
    fits.into_iter().find(|size| file.set_len(*size).is_ok()).context("no large file can be made")
}

/// The most memory of primary and standby.
fn one(run: &Run, figures: &mut Figures, size: u64, name: &str) -> anyhow::Result<[f64; 2]> {
    let began = Instant::now();
    let spec = Spec { volume_bytes: size, log_bytes: GIB, ..Spec::new(Mode::Nearsync) };
    let mut cluster = run.cluster(spec)?;
    figures.note(format!("{name}: both replicas made and in peer"), &[since(began)], "s");
    let mut client = cluster.client(Side::Alpha)?;
    client.write(size - MIB, &vec![5; MIB as usize])?;
    let count = load::write_for(&mut client, (BLOCK as usize, size), WRITING)?;
    figures.note(format!("{name}: 4 KiB writes all over it"), &[count as f64 / 3.0], "IOPS");
    let began = Instant::now();
    cluster.tool(Side::Alpha, &["status"])?;
    figures.note(format!("{name}: status"), &[since(began) * 1e3], "ms");
    cluster.kill(Side::Beta)?;
    client.write(size / 2, &vec![6; MIB as usize])?;
    client.flush()?;
    let began = Instant::now();
    cluster.start(Side::Beta)?;
    cluster.await_peer(Side::Alpha)?;
    figures.note(format!("{name}: standby back in peer"), &[since(began)], "s");
    let peaks = peaks(&cluster)?;
    drop(client);
    cluster.await_applied(Side::Alpha)?;
    let began = Instant::now();
    cluster.terminate(Side::Alpha)?;
    cluster.start(Side::Alpha)?;
    let mut client = cluster.client(Side::Alpha)?;
    figures.note(format!("{name}: restart of the primary"), &[since(began)], "s");
    anyhow::ensure!(client.read(size - MIB, 4096)? == vec![5; 4096], "the far end is lost");
    for (name, peak) in [format!("{name}: primary"), format!("{name}: standby")].iter().zip(peaks) {
        figures.note(format!("{name}, peak memory"), &[peak], "MiB");
    }
    Ok(peaks)
}

fn since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64()
}

fn peaks(cluster: &Cluster) -> anyhow::Result<[f64; 2]> {
    let of = |side| process::peak_mib(cluster.pid(side).context("it runs")?);
    Ok([of(Side::Alpha)?, of(Side::Beta)?])
}

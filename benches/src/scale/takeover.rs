//! Takeovers: from the command to the first answer to a client.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;
use hadrian_protocol::replica::Mode;
use hadrian_replicator::demo::{Client, Cluster, Side, Spec};

use crate::figures::{Bar, Figures};
use crate::load::{self, Load};
use crate::{GIB, MIB, Run, machine};

const VOLUME: u64 = 2 * GIB;
const LOG: u64 = 4 * GIB;
/// How often a client tries to connect.
const TRY_AGAIN: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(60);
/// What a takeover may take beyond the disk, in seconds.
const BEYOND_DISK: f64 = 1.0;

/// With nothing left to be applied, by force and planned.
pub(crate) fn measure(run: &Run, figures: &mut Figures) -> anyhow::Result<()> {
    let spec = Spec { volume_bytes: VOLUME, log_bytes: GIB, ..Spec::new(Mode::Nearsync) };
    let mut cluster = run.cluster(spec)?;
    let (mut primary, mut forced, mut planned) = (Side::Alpha, Vec::new(), Vec::new());
    for _ in 0..run.passes.max(5) {
        load::write(&cluster, primary, Load::scattered(4 * MIB, VOLUME))?;
        cluster.await_applied(primary)?;
        cluster.kill(primary)?;
        forced.push(take_over(&cluster, primary.other(), &["--force", "--yes"])? * 1e3);
        cluster.start(primary)?;
        primary = primary.other();
        cluster.await_peer(primary)?;
        load::write(&cluster, primary, Load::scattered(4 * MIB, VOLUME))?;
        planned.push(take_over(&cluster, primary.other(), &[])? * 1e3);
        primary = primary.other();
        cluster.await_peer(primary)?;
    }
    figures.judge("forced, to the first answered write", &forced, "ms", Bar::AtMost(300.0));
    figures.note("planned, to the first answered write", &planned, "ms");
    Ok(())
}

/// With log that was received and not applied, because of a delay.
pub(crate) fn measure_gaps(run: &Run, figures: &mut Figures) -> anyhow::Result<()> {
    for gap in [0, 64 * MIB, 256 * MIB, GIB] {
        one_gap(run, figures, "large writes", Load::sequential(gap, VOLUME), true)?;
    }
    for gap in [64 * MIB, 256 * MIB, GIB] {
        one_gap(run, figures, "4 KiB writes", Load::scattered(gap / 2, VOLUME), true)?;
    }
    one_gap(run, figures, "large writes, held", Load::sequential(GIB, VOLUME), false)
}

fn one_gap(
    run: &Run,
    figures: &mut Figures,
    kind: &str,
    load: Load,
    is_delayed: bool,
) -> anyhow::Result<()> {
    let settings = if is_delayed { "replay_delay = \"1h\"\n".into() } else { String::new() };
    let spec = Spec { volume_bytes: VOLUME, log_bytes: LOG, settings, ..Spec::new(Mode::Nearsync) };
    let mut cluster = run.cluster(spec)?;
    load::write(&cluster, Side::Alpha, load)?;
    let node = cluster.status(Side::Beta).and_then(|status| status.node);
    let gap = node.map_or(0, |node| node.replay_gap.bytes);
    cluster.kill(Side::Alpha)?;
    let seconds = take_over(&cluster, Side::Beta, &["--force", "--yes"])?;
    cluster.kill(Side::Beta)?;
    // The disk needs as long to read so much of the log and to write it once.
    let dirs = [Side::Alpha, Side::Beta].map(|side| cluster.replica_dir(side));
    let [to, from] = [machine::segments(&dirs[0])?, machine::segments(&dirs[1])?];
    let disk = machine::move_directly(&from, &to, gap)?;
    let name = format!("{kind}, gap of {} MiB", gap / MIB);
    figures.judge(name.clone(), &[seconds], "s", Bar::AtMost(disk + BEYOND_DISK));
    figures.note(format!("{name}: the disk alone"), &[disk], "s");
    Ok(())
}

/// Seconds from the command's start to the first write that the new primary answers; a client tries
/// to get in all the while.
fn take_over(cluster: &Cluster, side: Side, how: &[&str]) -> anyhow::Result<f64> {
    let mut command = cluster.command(side, &[&["takeover", "db"], how].concat());
    let (socket, export) = (cluster.nbd_socket(side), cluster.export_of(0));
    let began = Instant::now();
    let asked = thread::spawn(move || command.output());
    let data = vec![9; 4096];
    loop {
        let wrote = Client::connect(&socket, &export).and_then(|mut client| client.write(0, &data));
        if wrote.is_ok() {
            break;
        }
        if began.elapsed() > PATIENCE {
            let told = asked.join().map(|output| output.map(|out| out.stderr));
            bail!("nobody serves after {} s: {told:?}", PATIENCE.as_secs());
        }
        thread::sleep(TRY_AGAIN);
    }
    let seconds = began.elapsed().as_secs_f64();
    match asked.join() {
        Ok(Ok(output)) if output.status.success() => Ok(seconds),
        other => bail!("the takeover was not granted: {other:?}"),
    }
}

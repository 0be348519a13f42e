//! Inside the virtual machine: `guest/drbd` has set both mirrors up, and this measures them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::bail;
use hadrian_replicator::control::{self, Request, Response};

use super::counts::Counts;
use super::{DRBD, MEDIANS};
use crate::fio::{self, Length, Target};
use crate::report::Line;
use crate::rows::{FILL, Row};
use crate::runs::Runs;
use crate::subject::RAW;
use hadrian_benches::process;

/// Longest that our stores may take to get what the log has; emulation is slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where our two daemons are spoken to.
const CONTROL: [&str; 2] = ["/run/alpha/alpha.control", "/run/beta/beta.control"];

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The processes of our daemons
    #[arg(long, value_delimiter = ',')]
    daemons: Vec<u32>,
    #[command(flatten)]
    runs: Runs,
}

/// A block device under load.
struct Device {
    name: &'static str,
    path: &'static str,
    ours: bool,
}

const fn device(name: &'static str, path: &'static str) -> Device {
    Device { name, path, ours: false }
}

/// Both of ours are the same volume of the same two daemons.
const DEVICES: [Device; 4] = [
    device(RAW, "/dev/vda4"),
    device(DRBD, "/dev/drbd0"),
    Device { ours: true, ..device("ublk", "/dev/hadrian/db/data") },
    Device { ours: true, ..device("kernel NBD", "/dev/nbd0") },
];

/// Measures every device, and says the medians line by line.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let scratch = Path::new("/tmp/bench");
    std::fs::create_dir_all(scratch)?;
    for device in &DEVICES {
        println!("filling {}", device.name);
        fio::run(&FILL, &device.target(scratch), Length::Once, scratch)?;
        device.settle()?;
    }
    for row in args.runs.rows() {
        let run = |device: &Device| measure(row, device, args, scratch);
        for line in args.runs.measure(&DEVICES, run, |told| println!("{told}"))? {
            println!("{MEDIANS}{}", serde_json::to_string(&line)?);
        }
    }
    Ok(())
}

fn measure(row: &Row, device: &Device, args: &Args, scratch: &Path) -> anyhow::Result<Line> {
    if row.cold {
        std::fs::write("/proc/sys/vm/drop_caches", "3")?;
    }
    let target = device.target(scratch);
    let measured = fio::run(row, &target, Length::Seconds(args.runs.seconds), scratch)?;
    // What the run leaves to be applied is part of its price.
    device.settle()?;
    let before = Counts::parse(&std::fs::read_to_string(counted(scratch).join(fio::COUNTS))?)?;
    let after = Counts::now()?;
    let bytes = measured.bytes.max(1.0);
    let ours = args.daemons.iter().filter(|_| device.ours);
    let peaks: Vec<f64> =
        ours.map(|daemon| process::peak_mib(*daemon)).collect::<Result<_, _>>()?;
    Ok(Line {
        row: row.name.into(),
        subject: device.name.into(),
        iops: measured.iops,
        mb_s: measured.mb_s,
        p50_us: measured.p50_us,
        p99_us: measured.p99_us,
        cpu_s_per_gib: (after.busy_s - before.busy_s) * f64::from(1 << 30) / bytes,
        cpu_s_per_gib_primary: None,
        rss_mib: peaks.into_iter().fold(0.0, f64::max),
        stored: (after.stored - before.stored) / bytes,
    })
}

fn counted(scratch: &Path) -> PathBuf {
    scratch.join("counted")
}

impl Device {
    fn target(&self, scratch: &Path) -> Target {
        Target::Device { path: self.path.into(), counted: counted(scratch) }
    }

    /// Waits until nothing of the last run is left to be done, so that the next device is alone.
    fn settle(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.ours && !all_applied()? {
            if Instant::now() > deadline {
                bail!("what was written to {} is not in both stores in {PATIENCE:?}", self.name);
            }
            // Other processes: they can only be asked again, and asking costs what is measured.
            std::thread::sleep(Duration::from_millis(50));
        }
        rustix::fs::sync();
        Ok(())
    }
}

/// Whether both stores have everything that is in the primary's log. Only while nobody writes.
fn all_applied() -> anyhow::Result<bool> {
    let node = |socket: &str| -> anyhow::Result<_> {
        match control::ask(Path::new(socket), Request::Status { resource: None })? {
            Response::Status(all) => Ok(all.into_iter().next().and_then(|status| status.node)),
            other => bail!("{socket} answered {other:?}"),
        }
    };
    let (Some(ours), Some(theirs)) = (node(CONTROL[0])?, node(CONTROL[1])?) else {
        return Ok(false);
    };
    Ok(ours.applied == ours.end && theirs.applied == ours.end)
}

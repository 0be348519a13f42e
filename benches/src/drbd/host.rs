//! Outside of the virtual machine: it is made, started and listened to.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hadrian_lab::{Disk, Guest, Image, Lab};

use super::{DRBD, MEDIANS};
use crate::report::{self, Line};
use crate::runs::Runs;

/// The two mirrors are set up by it.
const SCRIPT: &str = include_str!("../../guest/drbd");
/// Functions for our pair, which the stories of the lab use too.
const CLUSTER: &str = include_str!("../../../tests/vm/guest/cluster");
/// Small enough that both stores of ours are warm in the memory of a guest.
const VOLUME_MIB: u64 = 256;
/// Four times the volume, as in `make bench`, and what a user gets who configures nothing.
const LOG_MIB: u64 = 1024;
/// Three volumes, the log with its file system, and what lies between them.
const DISK_BYTES: u64 = (3 * VOLUME_MIB + LOG_MIB + 256) << 20;
/// Longest silence of a guest; emulation is slow, and filling is one silent step.
const SILENCE: Duration = Duration::from_secs(300);
/// What a guest says at its end, before its exit code.
const ENDED: &str = "LAB ENDED ";

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    runs: Runs,
    /// Where the results go
    #[arg(long, default_value = "target/bench-drbd.json")]
    out: PathBuf,
}

/// Boots the guest, shows what it measures, and keeps it.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let lab = Lab::find().map_err(anyhow::Error::msg)?;
    let scratch = tempfile::tempdir()?;
    let disk = |name: &str| Disk::create(&scratch.path().join(name), DISK_BYTES);
    let disks = [disk("alpha")?, disk("beta")?];
    let script = format!(
        "volume_mib={VOLUME_MIB} log_mib={LOG_MIB} runs=\"{}\"\n{SCRIPT}",
        words(&args.runs)
    );
    let guest = Guest::boot(&lab, image(&lab, scratch.path())?, &disks, &script)?;
    let lines = listen(guest, args)?;
    println!("{}", report::table_beside(&lines, DRBD));
    println!("\nresults: {}", args.out.display());
    Ok(())
}

/// The words with which the guest is told what to measure.
fn words(runs: &Runs) -> String {
    let all = runs.rows.iter().all(String::is_empty);
    let rows = if all { String::new() } else { format!(" --rows {}", runs.rows.join(",")) };
    format!("--seconds {} --passes {}{rows}", runs.seconds, runs.passes)
}

fn image<'l>(lab: &'l Lab, scratch: &Path) -> anyhow::Result<Image<'l>> {
    let mut image = Image::new(lab)?;
    image.modules(&["crc32c_generic", "virtio_blk", "ext4", "ublk_drv", "nbd", "drbd"])?;
    let own = std::env::current_exe()?;
    let programs = own.parent().context("a program lies in a folder")?;
    for name in ["hadriand", "hadrian", "hadrian-bench"] {
        image.program(stripped(&programs.join(name), scratch)?)?;
    }
    image.program(lab.root().join("lib/drbd/drbdsetup-84"))?;
    for program in ["drbdmeta", "mke2fs", "fio"] {
        image.program(program)?;
    }
    image.file("cluster", CLUSTER);
    Ok(image)
}

/// A copy without what only debuggers read, which is most of it: a guest has all in its memory.
fn stripped(program: &Path, scratch: &Path) -> anyhow::Result<PathBuf> {
    let copy = scratch.join(program.file_name().context("a name")?);
    let status = Command::new("strip").arg("-o").args([&copy, program]).status();
    if !status.context("strip, which comes with gcc")?.success() {
        bail!("{} is not built; `make bench-drbd` builds it", program.display());
    }
    Ok(copy)
}

/// Shows what the guest says, and keeps what it has measured.
fn listen(mut guest: Guest, args: &Args) -> anyhow::Result<Vec<Line>> {
    let mut lines: Vec<Line> = Vec::new();
    loop {
        let said = guest.next_line(SILENCE)?;
        if let Some(medians) = said.strip_prefix(MEDIANS) {
            lines.push(serde_json::from_str(medians).context("the guest's medians")?);
            report::save(&lines, &args.out)?;
        } else if let Some(code) = said.strip_prefix(ENDED) {
            if code != "0" || lines.is_empty() {
                bail!("the guest ended with {code}:\n{}", guest.cut_power().join("\n"));
            }
            return Ok(lines);
        } else {
            eprintln!("{said}");
        }
    }
}

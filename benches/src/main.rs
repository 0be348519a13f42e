//! `make bench`: our mirror beside a plain server of one file, in one run, taking turns.
//!
//! The machine is noisy, so only ratios within one run say anything; every figure is the median of
//! its passes.
#![allow(clippy::print_stdout, clippy::print_stderr)] // The table is what it is for.

mod fio;
mod report;
mod rows;
mod subject;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Parser;
use hadrian_protocol::replica::Mode;

use fio::Length;
use report::Line;
use rows::{FILL, ROWS, Row};
use subject::Subject;

/// Against whom the ratios are.
const BASE: &str = "qemu-nbd";
/// The row that tells what the disk can do.
const RAW: &str = "raw file";

/// Measures both daemons on one machine beside `qemu-nbd --cache=none` of one file.
#[derive(Debug, Parser)]
struct Args {
    /// Seconds of each run
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// Runs of each row and subject; the median counts
    #[arg(long, default_value_t = 3)]
    passes: u32,
    /// Only rows whose name holds this
    #[arg(long, default_value = "")]
    row: String,
    /// Modes to measure
    #[arg(long, value_delimiter = ',', default_value = "nearsync")]
    modes: Vec<String>,
    /// Where the results go
    #[arg(long, default_value = "target/bench.json")]
    out: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let scratch = tempfile::tempdir()?;
    let subjects = subjects(&args, scratch.path())?;
    for subject in &subjects {
        eprintln!("filling {}", subject.name());
        fio::run(&FILL, &subject.target(), Length::Once, scratch.path())?;
        subject.settle()?;
    }
    let mut lines = Vec::new();
    for row in ROWS.iter().filter(|row| row.name.contains(&args.row)) {
        lines.extend(measure_row(row, &subjects, &args, scratch.path())?);
    }
    println!("{}", report::table(&lines, BASE, RAW));
    report::save(&lines, &args.out)?;
    println!("\nresults: {}", args.out.display());
    Ok(())
}

fn subjects(args: &Args, scratch: &Path) -> anyhow::Result<Vec<Subject>> {
    let own = std::env::current_exe()?;
    let programs = own.parent().context("a program lies in a folder")?;
    let mut all = vec![Subject::raw(scratch)?, Subject::plain(scratch)?];
    for name in &args.modes {
        let mode = Mode::from_name(name).with_context(|| format!("there is no mode {name}"))?;
        all.push(Subject::mirror(programs, mode)?);
    }
    Ok(all)
}

/// The subjects take turns, so that a slow moment of the machine hits all of them.
fn measure_row(
    row: &Row,
    subjects: &[Subject],
    args: &Args,
    scratch: &Path,
) -> anyhow::Result<Vec<Line>> {
    let mut passes: Vec<Vec<Line>> = vec![Vec::new(); subjects.len()];
    for pass in 1..=args.passes {
        for (subject, lines) in subjects.iter().zip(&mut passes) {
            let line = measure(row, subject, args.seconds, scratch)?;
            eprintln!("{} {} {pass}: {:.0} IOPS", row.name, subject.name(), line.iops);
            lines.push(line);
        }
    }
    Ok(passes.iter().filter_map(|lines| Line::median(lines)).collect())
}

fn measure(row: &Row, subject: &Subject, seconds: u32, scratch: &Path) -> anyhow::Result<Line> {
    let (before, stored) = (subject.cpu_seconds()?, subject.stored_bytes()?);
    let length = Length::Seconds(seconds);
    let measured = fio::run(row, &subject.target(), length, scratch)?;
    // What the run leaves to be applied is part of its price.
    subject.settle()?;
    let cpu = subject.cpu_seconds()? - before;
    let stored = subject.stored_bytes()? - stored;
    let bytes = measured.bytes.max(1.0);
    Ok(Line {
        row: row.name,
        subject: subject.name(),
        iops: measured.iops,
        mb_s: measured.mb_s,
        p50_us: measured.p50_us,
        p99_us: measured.p99_us,
        cpu_s_per_gib: cpu * f64::from(1 << 30) / bytes,
        rss_mib: subject.peak_mib()?,
        stored: stored / bytes,
    })
}

//! `make bench`: our mirror beside a plain server of one file, in one run, taking turns. `make
//! bench-drbd`: beside DRBD, in a virtual machine.
//!
//! The machine is noisy, so only ratios within one run say anything; every figure is the median of
//! its passes.
#![allow(clippy::print_stdout, clippy::print_stderr)] // The table is what it is for.

mod drbd;
mod fio;
mod report;
mod rows;
mod runs;
mod subject;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use fio::Length;
use report::Line;
use rows::{FILL, Row};
use runs::Runs;
use subject::{SUBJECTS, Subject};

/// Measures both daemons on one machine beside what a user would take instead.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    elsewhere: Option<Elsewhere>,
    #[command(flatten)]
    runs: Runs,
    /// Who is measured
    #[arg(long, value_delimiter = ',', default_values_t = SUBJECTS.map(String::from))]
    subjects: Vec<String>,
    /// Where the results go
    #[arg(long, default_value = "target/bench.json")]
    out: PathBuf,
}

/// What is not measured on this machine itself.
#[derive(Debug, clap::Subcommand)]
enum Elsewhere {
    /// Beside DRBD, in a virtual machine with a kernel that has it
    Drbd(drbd::host::Args),
    /// What the virtual machine runs
    #[command(hide = true)]
    DrbdGuest(drbd::guest::Args),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let ended = match &args.elsewhere {
        None => here(&args),
        Some(Elsewhere::Drbd(args)) => drbd::host::run(args),
        Some(Elsewhere::DrbdGuest(args)) => drbd::guest::run(args),
    };
    let Err(error) = ended else { return ExitCode::SUCCESS };
    eprintln!("not measured: {error:#}");
    ExitCode::FAILURE
}

fn here(args: &Args) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    let own = std::env::current_exe()?;
    let programs = own.parent().context("a program lies in a folder")?;
    let mut subjects = Vec::new();
    for name in &args.subjects {
        eprintln!("filling {name}");
        let mut subject = Subject::start(name, programs, scratch.path())?;
        fio::run(&FILL, &subject.target, Length::Once, scratch.path())?;
        subject.settle()?;
        subject.lose_standby()?;
        subjects.push(subject);
    }
    let mut lines = Vec::new();
    for row in args.runs.rows() {
        let run = |subject: &&Subject| measure(row, subject, args.runs.seconds, scratch.path());
        let taken: Vec<_> = subjects.iter().filter(|subject| subject.takes(row)).collect();
        lines.extend(args.runs.measure(&taken, run, |told| eprintln!("{told}"))?);
        report::save(&lines, &args.out)?;
    }
    println!("{}", report::table(&lines));
    println!("\nresults: {}", args.out.display());
    Ok(())
}

fn measure(row: &Row, subject: &Subject, seconds: u32, scratch: &Path) -> anyhow::Result<Line> {
    if row.cold {
        subject.cool()?;
    }
    let (before, stored) = (subject.cpu_seconds()?, subject.stored_bytes()?);
    let measured = fio::run(row, &subject.target, Length::Seconds(seconds), scratch)?;
    // What the run leaves to be applied is part of its price.
    subject.settle()?;
    let after = subject.cpu_seconds()?;
    let stored = subject.stored_bytes()? - stored;
    let bytes = measured.bytes.max(1.0);
    let per_gib = |seconds: f64| seconds * f64::from(1 << 30) / bytes;
    let [first, second] = [after[0] - before[0], after[1] - before[1]];
    Ok(Line {
        row: row.name.into(),
        subject: subject.name.into(),
        iops: measured.iops,
        mb_s: measured.mb_s,
        p50_us: measured.p50_us,
        p99_us: measured.p99_us,
        cpu_s_per_gib: per_gib(first + second),
        cpu_s_per_gib_primary: Some(per_gib(first)),
        rss_mib: subject.peak_mib()?,
        stored: stored / bytes,
    })
}

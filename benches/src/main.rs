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

use fio::Length;
use report::Line;
use rows::{FILL, ROWS, Row};
use subject::{SUBJECTS, Subject};

/// Measures both daemons on one machine beside what a user would take instead.
#[derive(Debug, Parser)]
struct Args {
    /// Seconds of each run
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// Runs of each row and subject; the median counts
    #[arg(long, default_value_t = 3)]
    passes: u32,
    /// Only rows of these names, or whose name holds one of these
    #[arg(long, value_delimiter = ',', default_value = "")]
    rows: Vec<String>,
    /// Who is measured
    #[arg(long, value_delimiter = ',', default_values_t = SUBJECTS.map(String::from))]
    subjects: Vec<String>,
    /// Where the results go
    #[arg(long, default_value = "target/bench.json")]
    out: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let scratch = tempfile::tempdir()?;
    let own = std::env::current_exe()?;
    let programs = own.parent().context("a program lies in a folder")?;
    let mut subjects = Vec::new();
    for name in &args.subjects {
        eprintln!("filling {name}");
        let subject = Subject::start(name, programs, scratch.path())?;
        fio::run(&FILL, &subject.target, Length::Once, scratch.path())?;
        subject.settle()?;
        subjects.push(subject);
    }
    let is_name = |part: &str| ROWS.iter().any(|row| row.name == part);
    let names = |row: &Row, part: &str| match is_name(part) {
        true => row.name == part,
        false => row.name.contains(part),
    };
    let wanted = |row: &&Row| args.rows.iter().any(|part| names(row, part));
    let mut lines = Vec::new();
    for row in ROWS.iter().filter(wanted) {
        lines.extend(measure_row(row, &subjects, &args, scratch.path())?);
        report::save(&lines, &args.out)?;
    }
    println!("{}", report::table(&lines));
    println!("\nresults: {}", args.out.display());
    Ok(())
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
            eprintln!("{} {} {pass}: {:.0} IOPS", row.name, subject.name, line.iops);
            lines.push(line);
        }
    }
    Ok(passes.iter().filter_map(|lines| Line::median(lines)).collect())
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
        row: row.name,
        subject: subject.name,
        iops: measured.iops,
        mb_s: measured.mb_s,
        p50_us: measured.p50_us,
        p99_us: measured.p99_us,
        cpu_s_per_gib: per_gib(first + second),
        cpu_s_per_gib_primary: per_gib(first),
        rss_mib: subject.peak_mib()?,
        stored: stored / bytes,
    })
}

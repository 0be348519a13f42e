//! `make bench-scale`: how far a pair of daemons goes, and how long what is rare takes: catching
//! up, recovery, takeover, many resources, a huge volume, memory, resyncs.
//!
//! Both daemons share one disk and two processors here, so each rate stands beside what the disk,
//! the loopback and the processor alone can do in the same run.
#![allow(clippy::print_stdout, clippy::print_stderr)] // The table is what it is for.

mod away;
mod figures;
mod history;
mod load;
mod machine;
mod many;
mod memory;
mod restart;
mod resync;
mod scan;
mod takeover;
mod wide;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Parser;
use hadrian_replicator::demo::{Cluster, Spec};

use figures::Figures;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Measures what grows: logs, gaps, resources, volumes.
#[derive(Debug, Parser)]
struct Args {
    /// Runs of each figure; the median counts
    #[arg(long, default_value_t = 3)]
    passes: usize,
    /// Only rows whose name holds one of these
    #[arg(long, value_delimiter = ',', default_value = "")]
    rows: Vec<String>,
    /// How many resources one pair of daemons gets
    #[arg(long, default_value_t = 64)]
    resources: usize,
    /// Where the results go
    #[arg(long, default_value = "target/bench-scale.json")]
    out: PathBuf,
}

/// What a row is run with.
struct Run {
    /// The folder of the daemons.
    programs: PathBuf,
    passes: usize,
    resources: usize,
}

impl Run {
    /// A pair of daemons whose link is plain TCP: the rate of a link is not to be that of a cipher.
    fn cluster(&self, spec: Spec) -> anyhow::Result<Cluster> {
        Cluster::new(&self.programs, Spec { plaintext: true, ..spec })
    }
}

type Row = fn(&Run, &mut Figures) -> anyhow::Result<()>;

/// All rows, in the order of the table.
const ROWS: [(&str, Row); 11] = [
    ("catch-up", away::measure),
    ("recovery", scan::measure),
    ("takeover", takeover::measure),
    ("replay-gap", takeover::measure_gaps),
    ("resources", many::measure),
    ("volume", wide::measure),
    ("memory", memory::measure),
    ("restart", restart::measure),
    ("seed", resync::measure_seed),
    ("resync", resync::measure_clients),
    ("history", history::measure),
];

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let own = std::env::current_exe()?;
    let programs: &Path = own.parent().context("a program lies in a folder")?;
    let Args { passes, resources, .. } = args;
    let run = Run { programs: programs.into(), passes: passes.max(1), resources };
    let mut figures = Figures::default();
    for (name, row) in ROWS {
        if args.rows.iter().any(|part| name.contains(part)) {
            eprintln!("{name} …");
            figures.begin(name);
            row(&run, &mut figures)?;
            figures.save(&args.out)?;
        }
    }
    println!("{}", figures.table());
    println!("\nresults: {}", args.out.display());
    Ok(())
}

//! Runs plans from seeds, tells the story of the first that breaks a promise, and closes with one
//! line.

#![expect(clippy::print_stdout, reason = "a program for people")]

use std::process::ExitCode;

use clap::Parser;
use hadrian_sim::{Plan, Telling, named, run_told, shrink, sweep};

/// Runs whole clusters on simulated time, one for each seed.
#[derive(Debug, Parser)]
struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Clusters with marks.
    #[arg(long)]
    marks: bool,
    /// Stop at the first violation and tell no story.
    #[arg(long)]
    until_broken: bool,
    /// Tell all of the first seed, every message and request of it, whatever comes of it.
    #[arg(long)]
    tell: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let plan_of = if args.marks { Plan::marked_from_seed } else { Plan::from_seed };
    if args.tell {
        tell(&plan_of(args.first), Telling::Everything);
        return ExitCode::SUCCESS;
    }
    let total = sweep::sweep(plan_of, (args.first, args.seeds), args.until_broken);
    for (seed, violation) in &total.broken {
        println!("seed {seed}: {violation}");
    }
    if let Some((seed, violation)) = total.broken.first().filter(|_| !args.until_broken) {
        let short = shrink::shrink(&plan_of(*seed), violation.rule);
        println!("\nthe shortest story of seed {seed} that breaks {}:", violation.rule);
        tell(&short, Telling::Prose);
    }
    total.made.missing().iter().for_each(|made| println!("never seen: {made}"));
    println!("{} answered writes, {} of them lost by force", total.answered, total.lost);
    let (covered, moves) = total.made.covered();
    let broken = total.broken.len();
    println!("seeds={} violations={broken} transitions={covered}/{moves}", args.seeds);
    if total.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(plan: &Plan, telling: Telling) {
    let report = run_told(plan, telling);
    println!("{}", plan.settings());
    report.story.iter().for_each(|line| println!("{line}"));
    if let Some(violation) = report.violation {
        println!("{:>11}  broken: {}", "", named(&violation.to_string()));
    }
}

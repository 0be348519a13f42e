//! Runs plans from seeds, tells the story of the first that breaks a promise, and closes with one
//! line.

use clap::Parser;
use hadrian_sim::{Plan, run, shrink};

/// Runs whole clusters on simulated time, one for each seed.
#[derive(Debug, Parser)]
struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Tell the whole story of the first seed, whatever comes of it.
    #[arg(long)]
    tell: bool,
    /// Go on behind a violation, and list them all.
    #[arg(long)]
    all: bool,
}

fn main() -> std::process::ExitCode {
    let args = Args::parse();
    if args.tell {
        let report = run(&Plan::from_seed(args.first), true);
        report.story.iter().for_each(|line| println!("{line}"));
        if let Some(violation) = report.violation {
            println!("VIOLATION {violation}");
        }
        return std::process::ExitCode::SUCCESS;
    }
    let (mut violations, mut answered, mut lost) = (0, 0, 0);
    for seed in args.first..args.first + args.seeds {
        let plan = Plan::from_seed(seed);
        let report = run(&plan, false);
        answered += report.answered;
        lost += report.lost;
        let Some(violation) = report.violation else { continue };
        violations += 1;
        println!("seed {seed}: {violation}");
        if !args.all {
            tell_short(&plan, violation.rule);
            break;
        }
    }
    println!(
        "seeds={} violations={violations} answered={answered} lost_by_force={lost}",
        args.seeds
    );
    if violations == 0 { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}

/// The shrunk plan and its story.
fn tell_short(plan: &Plan, rule: &str) {
    let short = shrink::shrink(plan, rule);
    let report = run(&short, true);
    println!("\nthe shortest story of seed {} that breaks {rule}:", plan.seed);
    println!(
        "{} members, {}, window {:?}, {} clients",
        short.members,
        short.mode.name(),
        short.peer_window,
        short.clients
    );
    report.story.iter().for_each(|line| println!("{line}"));
    if let Some(violation) = report.violation {
        println!("VIOLATION {violation}");
    }
}

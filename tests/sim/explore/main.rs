//! Tries every interleaving of small clusters, and closes each with one line.

#![expect(clippy::print_stdout, reason = "a program for people")]

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use hadrian_sim::explore::markers::{self, Deciding};
use hadrian_sim::explore::{Setting, explore, settings, tell};

/// Tries every interleaving of small clusters up to a number of moves.
#[derive(Debug, Parser)]
struct Args {
    /// So many moves more than an ordinary test run looks ahead.
    #[arg(long, default_value_t = 0)]
    deeper: u8,
    /// So many detours more in the stories that are followed to the end.
    #[arg(long, default_value_t = 0)]
    detours: u8,
    /// Only the settings whose name holds this.
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut broken = 0_u32;
    for setting in settings::ALL.iter().filter(|setting| setting.name.contains(&args.only)) {
        let began = Instant::now();
        let detours = setting.detours.map(|detours| detours + args.detours);
        let setting = Setting { detours, ..*setting };
        let found = explore(&setting, setting.depth + args.deeper);
        if let Some((what, path)) = &found.broken {
            broken += 1;
            println!("{what}, after");
            tell(&setting, path).iter().for_each(|line| println!("    {line}"));
        }
        println!(
            "{}: depth={} states={} moves={} epochs={} violations={} in {:.1?}",
            setting.name,
            setting.depth + args.deeper,
            found.states,
            found.moves,
            found.epochs,
            u8::from(found.broken.is_some()),
            began.elapsed()
        );
    }
    let deciding = markers::ALL.iter().filter(|setting| setting.name.contains(&args.only));
    broken += deciding.map(|setting| decide(setting, args.detours)).sum::<u32>();
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Decisions over markers; how many truths are broken.
fn decide(setting: &Deciding, more: u8) -> u32 {
    let began = Instant::now();
    let setting = Deciding { detours: setting.detours.map(|detours| detours + more), ..*setting };
    let found = markers::decide(&setting);
    let broken = u32::from(found.broken.is_some());
    if let Some((what, path)) = &found.broken {
        println!("{what}, after");
        path.iter().for_each(|step| println!("    {step}"));
    }
    println!(
        "{}: states={} decided={} violations={broken} in {:.1?}",
        setting.name,
        found.states,
        found.most,
        began.elapsed()
    );
    broken
}

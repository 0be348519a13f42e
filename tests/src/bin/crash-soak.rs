//! `make crash-soak ROUNDS=N`: N crash rounds in each mode; closes with what was lost.
#![allow(clippy::print_stdout)] // The closing line is the result.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use hadrian_protocol::replica::Mode;
use hadrian_tests::rounds::{self, Rounds};

fn main() -> anyhow::Result<()> {
    let rounds = std::env::args().nth(1).context("give the number of rounds in each mode")?;
    let rounds = rounds.parse().with_context(|| format!("{rounds} is no number of rounds"))?;
    let seed = match std::env::var("HADRIAN_SEED") {
        Ok(seed) => seed.parse().context("HADRIAN_SEED")?,
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    let own = std::env::current_exe()?;
    let programs = own.parent().context("a program lies in a folder")?;
    let mut lost = 0;
    for mode in [Mode::Sync, Mode::Nearsync, Mode::Async, Mode::Superasync] {
        println!("mode={} rounds={rounds} seed={seed}", mode.name());
        let outcome = rounds::run(programs, Rounds { mode, rounds, seed })?;
        println!("mode={} answered={} lost={}", mode.name(), outcome.answered, outcome.lost);
        lost += outcome.lost;
    }
    println!("rounds={rounds} lost={lost}");
    if lost > 0 {
        bail!("answered writes are missing; HADRIAN_SEED={seed} runs it again");
    }
    Ok(())
}

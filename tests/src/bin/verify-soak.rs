//! `make verify-soak MINUTES=N`: comparisons for so long while clients write, bytes of both disks
//! flipped meanwhile; closes with what was found and what was told wrongly.
#![allow(clippy::print_stdout)] // The closing line is the result.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use hadrian_tests::comparisons::{self, Comparisons, Outcome};

fn main() -> anyhow::Result<()> {
    let minutes = std::env::args().nth(1).context("give the number of minutes")?;
    let minutes: u64 = minutes.parse().with_context(|| format!("{minutes} are no minutes"))?;
    let seed = match std::env::var("HADRIAN_SEED") {
        Ok(seed) => seed.parse().context("HADRIAN_SEED")?,
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    let own = std::env::current_exe()?;
    let programs = own.parent().context("a program lies in a folder")?;
    println!("minutes={minutes} seed={seed}");
    let time = Duration::from_secs(minutes.saturating_mul(60));
    let wished = Comparisons { count: 2, time, seed };
    let Outcome { compared, wrong, flipped, found, complaint, bytes } =
        comparisons::run(programs, wished)
            .with_context(|| format!("HADRIAN_SEED={seed} runs it again"))?;
    println!(
        "comparisons={compared} false={wrong} flipped={flipped} found={found} written_mib={}",
        bytes >> 20
    );
    match complaint {
        Some(complaint) => bail!("{complaint}; HADRIAN_SEED={seed} runs it again"),
        None => Ok(()),
    }
}

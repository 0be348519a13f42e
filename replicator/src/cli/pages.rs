//! Manual pages and completion scripts, all made from what [`Args`] says.

use std::io;
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use super::args::Args;

const PROGRAM: &str = "hadrian";

/// Prints the page of the program, or writes `hadrian.1` and one page for each command.
pub(super) fn manual(out: Option<&Path>) -> anyhow::Result<()> {
    match out {
        None => Man::new(Args::command()).render(&mut io::stdout())?,
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            clap_mangen::generate_to(Args::command(), folder)
                .with_context(|| folder.display().to_string())?;
        }
    }
    Ok(())
}

/// Prints the script for `shell`, or writes it under the name by which that shell finds it.
pub(super) fn completions(shell: Shell, out: Option<&Path>) -> anyhow::Result<()> {
    match out {
        None => {
            clap_complete::generate(shell, &mut Args::command(), PROGRAM, &mut io::stdout());
        }
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            clap_complete::generate_to(shell, &mut Args::command(), PROGRAM, folder)
                .with_context(|| folder.display().to_string())?;
        }
    }
    Ok(())
}

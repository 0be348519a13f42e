//! Manual pages and completion scripts, all made from what [`Args`] says.

use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use super::args::Args;
use crate::out;

const PROGRAM: &str = "hadrian";

/// Prints the page of the program, or writes `hadrian.1` and one page for each command.
pub(super) fn manual(folder: Option<&Path>) -> anyhow::Result<()> {
    match folder {
        None => {
            let mut page = Vec::new();
            Man::new(Args::command()).render(&mut page)?;
            out::bytes(&page);
        }
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            clap_mangen::generate_to(Args::command(), folder)
                .with_context(|| folder.display().to_string())?;
        }
    }
    Ok(())
}

/// Prints the script for `shell`, or writes it under the name by which that shell finds it.
pub(super) fn completions(shell: Shell, folder: Option<&Path>) -> anyhow::Result<()> {
    match folder {
        None => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), PROGRAM, &mut script);
            out::bytes(&script);
        }
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            clap_complete::generate_to(shell, &mut Args::command(), PROGRAM, folder)
                .with_context(|| folder.display().to_string())?;
        }
    }
    Ok(())
}

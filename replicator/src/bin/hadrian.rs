//! The command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    hadrian_replicator::cli::run()
}

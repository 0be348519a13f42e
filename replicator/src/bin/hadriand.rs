//! The daemon of one member.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use hadrian_replicator::cli::Exit;
use hadrian_replicator::{daemon, logs};

/// Mirrors the volumes of one member of a Hadrian cluster.
///
/// Runs until SIGTERM or SIGINT, then stops every resource in order. Exit codes: 0 stopped,
/// 1 failed, 2 not understood, 3 configuration or keys.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The configuration, the same on every member
    #[arg(long, default_value = "/etc/hadrian/hadrian.toml")]
    config: PathBuf,
    /// Which member of it this host is
    #[arg(long)]
    member: String,
    /// What to log: a level, or a filter such as hadrian_replicator=debug
    #[arg(long, default_value = "info", env = "HADRIAN_LOG", value_parser = logs::check)]
    log: String,
    /// Log one JSON object per line instead of text
    #[arg(long)]
    log_json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    logs::init(&args.log, args.log_json);
    match daemon::run(&args.config, &args.member) {
        Ok(()) => Exit::Ok.into(),
        Err(error) => {
            tracing::error!("{error}");
            let exit = if error.is_configuration() { Exit::Configuration } else { Exit::Failed };
            exit.into()
        }
    }
}

//! `hadrian rejoin`: a replica with writes of its own goes back to its primary.

use super::args::Args;
use super::{command, confirm, status_of, words};
use crate::control::Request;

const WARNING: &str = "The writes that only this replica holds are given up: they, and what the \
blocks held, are saved to quarantine first, and this replica gets the content of its primary.";

/// Shows what would be lost, and then does it.
pub(super) fn rejoin(args: &Args, resource: &str, dry_run: bool, yes: bool) -> anyhow::Result<()> {
    let status = status_of(args, resource)?;
    let lost = status.divergence.as_ref();
    if dry_run && args.json {
        say!("{}", serde_json::to_string(&lost)?);
        return Ok(());
    }
    let shown = lost.map_or_else(
        || "it is not known that this replica holds anything of its own".into(),
        words::divergence,
    );
    if dry_run {
        say!("{shown}");
        return Ok(());
    }
    if !args.json {
        eprintln!("{shown}");
    }
    confirm(yes, WARNING)?;
    command(args, Request::Rejoin { resource: resource.to_owned() })
}

//! `hadrian quarantine remove`: files that nobody will ask for any more.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hadrian_blockdev::quarantine::Ending;
use hadrian_blockdev::replica::{ReplicaError, read_state};
use hadrian_blockdev::superblock::{self, SuperblockError};
use hadrian_protocol::replica::Image;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde_json::json;

use super::super::{confirm, words};
use super::{Place, engine, look};

const WARNING: &str = "What these files hold is nowhere else: once they are removed, nobody gets \
it back.";

/// A file that is about to go. Nobody exports it while this is there.
struct Going {
    name: String,
    path: PathBuf,
    bytes: u64,
    _held: File,
}

/// Removes all of these files, or none.
///
/// What may still be written, or is needed by a rejoin, stays: a file that is not whole, as long as
/// a daemon has the replica; and everything, while a rejoin or a resync has not come to its end.
pub(super) fn remove(
    place: &Place<'_>,
    names: &[String],
    yes: bool,
    as_json: bool,
) -> anyhow::Result<()> {
    rejoin_has_ended(place)?;
    // Held to the end: no daemon is started in between and begins to write there.
    let held = hold_replica(place)?;
    let mut going: Vec<Going> = Vec::new();
    for name in names {
        if going.iter().all(|file| file.name != *name) {
            going.push(one(place, name, held.is_some())?);
        }
    }
    confirm(yes, WARNING)?;
    for file in &going {
        fs::remove_file(&file.path).with_context(|| file.path.display().to_string())?;
    }
    // Otherwise a loss of power may bring them back, which harms nobody but fills the disk again.
    let dir = || place.dir.display().to_string();
    File::open(&place.dir).and_then(|dir| dir.sync_all()).with_context(dir)?;
    let bytes = going.iter().map(|file| file.bytes).sum();
    if as_json {
        let names: Vec<_> = going.iter().map(|file| &file.name).collect();
        say!("{}", json!({ "resource": place.resource.name, "removed": names, "bytes": bytes }));
    } else {
        let (count, bytes) = (words::count(going.len() as u64, "file"), words::bytes(bytes));
        say!("{count} of {} removed from quarantine, {bytes}", place.resource.name);
    }
    Ok(())
}

/// Refuses as long as the image is not whole again, or is about to be given up.
fn rejoin_has_ended(place: &Place<'_>) -> anyhow::Result<()> {
    let state = match read_state(&place.replica_dir) {
        Ok(found) => found.state,
        // There is no replica any more whose rejoin could need them.
        Err(ReplicaError::Superblock(SuperblockError::Io { source, .. }))
            if source.kind() == io::ErrorKind::NotFound =>
        {
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    if state.rejoin || state.image != Image::Whole {
        bail!(
            "a rejoin or resync of {} on this member has not come to its end, and what is in \
             quarantine may be all that is left of what it replaces; remove it when the member is \
             peer (hadrian status)",
            place.resource.name
        );
    }
    Ok(())
}

/// Keeps daemons from opening the replica; none: one has it open.
fn hold_replica(place: &Place<'_>) -> anyhow::Result<Option<Vec<File>>> {
    let path = place.replica_dir.join(superblock::FILE_NAME);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(Vec::new())),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(vec![file])),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn one(place: &Place<'_>, name: &str, has_no_daemon: bool) -> anyhow::Result<Going> {
    let path = place.path(name)?;
    let held = hold(&path, FlockOperation::NonBlockingLockExclusive)?;
    let Some(held) = held else {
        bail!("{name} is being exported; stop that first (hadrian quarantine export)");
    };
    if !has_no_daemon && !is_whole(place, name)? {
        bail!(
            "{name} is not whole, so hadriand may be writing it; stop it first, or wait until it \
             is (hadrian quarantine list {})",
            place.resource.name
        );
    }
    let bytes = held.metadata()?.len();
    Ok(Going { name: name.to_owned(), path, bytes, _held: held })
}

/// Whether all of it was written, and it has its own name.
fn is_whole(place: &Place<'_>, name: &str) -> anyhow::Result<bool> {
    let mut engine = engine()?;
    let whole = match look(place, &mut engine, name) {
        Ok((walk, summary)) => {
            walk.close(&mut engine);
            summary.ending == Ending::Whole
        }
        Err(_) => false,
    };
    Ok(whole && super::part(name).is_empty())
}

/// The lock of a file in quarantine: shared by whoever exports it. None: somebody else has it.
pub(super) fn hold(path: &Path, how: FlockOperation) -> anyhow::Result<Option<File>> {
    let shown = || path.display().to_string();
    let file = File::open(path).with_context(shown)?;
    match flock(&file, how) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error).with_context(shown),
    }
}

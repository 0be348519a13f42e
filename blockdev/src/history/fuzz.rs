//! A door for fuzzing: what a disk may hold of a history.

use std::io;
use std::path::{Path, PathBuf};

use hadrian_protocol::ids::{ResourceId, VolumeIndex};
use hadrian_protocol::replica::VolumeGeometry;

use super::door::Door;
use super::resolve::Target;
use super::view::View;
use super::{Keeper, Kept, Limits};
use crate::engine::{Engine, OpenAs, TokenSpace};
use crate::resync::image::Pair;
use crate::resync::task::{Task, Tasks};

/// What was found: why there is no history that can be used, or each volume at the oldest point.
pub type Found = Result<Vec<Vec<u8>>, String>;

/// Opens the history in a replica's directory, if there is one, and reads all of the image at the
/// oldest point. `engine` makes one more for the reader.
///
/// # Errors
/// As the system says.
///
/// # Panics
/// If a point that is in reach cannot be found.
pub fn history<E: Engine>(
    mut engine: E,
    replica_dir: &Path,
    (resource, volumes): (ResourceId, &[VolumeGeometry]),
    stores: &[PathBuf],
) -> io::Result<Option<Found>> {
    let mut pairs = Vec::new();
    for store in stores {
        let file = engine.open(store, OpenAs::Buffered)?;
        pairs.push(Pair { direct: file, buffered: file });
    }
    let kept = Kept {
        replica_dir: replica_dir.into(),
        resource,
        volumes: volumes.into(),
        stores: pairs,
        limits: Limits::new(None, 1 << 30),
    };
    let tasks = Tasks::new(TokenSpace::new(1));
    let opened = Keeper::open(tasks.io(), kept.clone());
    let keeper = match tasks.run(Task::new(opened), &mut engine)?? {
        None => return Ok(None),
        Some(Err(why)) => return Ok(Some(Err(why))),
        Some(Ok(keeper)) => keeper,
    };
    let door = Door::new(&kept, keeper.shelf().clone());
    let oldest = door.reach().oldest;
    let found = door.resolve(&mut engine, &Target::Lsn(oldest.at.lsn));
    assert!(found.is_ok() || door.reach().newest == oldest, "the oldest point is in reach");
    let mut view = match View::open(&door, engine, (stores, oldest), 0) {
        Ok(view) => view,
        Err(error) => return Ok(Some(Err(error.to_string()))),
    };
    let mut images = Vec::new();
    for (index, volume) in (0..).zip(volumes) {
        let len = usize::try_from(volume.size_bytes).unwrap_or(0);
        let Some(index) = VolumeIndex::new(index) else { break };
        match view.read(index, 0, len) {
            Ok(bytes) => images.push(bytes),
            Err(error) => return Ok(Some(Err(error.to_string()))),
        }
    }
    Ok(Some(Ok(images)))
}

//! Doors for fuzzing: what a disk may hold of dirty maps and of stagings.

use std::io;
use std::path::Path;

use hadrian_protocol::ids::{MemberId, ResourceId};
use hadrian_protocol::replica::VolumeGeometry;
use hadrian_protocol::resync::RegionId;

use super::maps;
use super::staging::Staging;
use super::task::{Task, Tasks};
use crate::engine::{Engine, TokenSpace};

/// Reads arbitrary bytes as a dirty map; the bytes that are marked, where it is one.
///
/// # Panics
/// If what was read is not the same once it is written and read again.
#[must_use]
pub fn map(bytes: &[u8], of: (ResourceId, MemberId), volumes: &[VolumeGeometry]) -> Option<u64> {
    let dirty = maps::decode(bytes, of, volumes).ok()?;
    let again = maps::decode(&maps::encode(of.0, of.1, &dirty), of, volumes);
    let same =
        again.is_ok_and(|again| again.span == dirty.span && again.map.runs().eq(dirty.map.runs()));
    assert!(same, "a map that was read is written as what it says");
    Some(dirty.map.marked_bytes())
}

/// The regions of which something is staged in a replica's directory: as they are found, if there
/// is a staging that can be used; and as the next sink has them, which begins one where there is
/// none.
///
/// # Errors
/// As the system says, for the second.
pub fn staging<E: Engine>(
    engine: &mut E,
    replica_dir: &Path,
    resource: ResourceId,
    volumes: &[VolumeGeometry],
) -> io::Result<(Option<Vec<RegionId>>, Vec<RegionId>)> {
    let tasks = Tasks::new(TokenSpace::new(1));
    let (io, dir, volumes) = (tasks.io(), replica_dir.to_path_buf(), volumes.to_vec());
    let both = async move {
        let opened = Staging::open(&io, &dir, resource, &volumes).await;
        let opened = opened.ok().flatten().map(|staging| staging.regions());
        let begun = Staging::begin(&io, &dir, resource, &volumes).await;
        (opened, begun.map(|staging| staging.regions()))
    };
    let (opened, begun) = tasks.run(Task::new(both), engine)?;
    Ok((opened, begun.map_err(io::Error::other)?))
}

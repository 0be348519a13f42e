//! What is found where a replica is opened: its state, its stores, and its log.

use std::path::{Path, PathBuf};

use hadrian_protocol::frame::{Frame, LogPosition};
use hadrian_protocol::node::Recovered;
use hadrian_protocol::replica::{ReplicaState, VolumeGeometry};

use super::look::decode;
use super::spool::Spool;
use super::{JOURNAL, ReplicaError, SUPERBLOCK, VOLUMES};
use crate::engine::{Engine, TokenSpace};
use crate::journal::{Journal, KnownDurable, OpenLog};
use crate::superblock::{SuperblockWriter, Whose};
use crate::volume::{Store, StoreError, Volumes};

/// What the replica in `dir` says of itself, if it is `whose` it should be.
pub(super) fn open_state<E: Engine>(
    engine: &mut E,
    dir: &Path,
    whose: &Whose,
) -> Result<(SuperblockWriter, ReplicaState), ReplicaError> {
    let opened = SuperblockWriter::open(engine, dir, whose, SUPERBLOCK)?;
    if let Some(fault) = &opened.other_copy {
        tracing::warn!(dir = %dir.display(), %fault, "one copy of the superblock is not whole");
    }
    let state = decode(dir, &opened.body)?;
    Ok((opened.writer, state))
}

/// Its volumes, over the stores at `paths`, as of its checkpoint.
pub(super) fn open_volumes<E: Engine>(
    engine: &mut E,
    state: &ReplicaState,
    paths: &[PathBuf],
    open_store: impl Fn(&mut E, &Path, VolumeGeometry) -> Result<Store, StoreError>,
) -> Result<Volumes, ReplicaError> {
    let (has, named) = (state.volumes.len(), paths.len());
    if has != named {
        return Err(ReplicaError::Volumes { has, named });
    }
    let pairs = paths.iter().zip(&state.volumes);
    let stores: Result<Vec<_>, _> =
        pairs.map(|(path, geometry)| open_store(engine, path, *geometry)).collect();
    Ok(Volumes::new(stores?, state.checkpoint, VOLUMES.token(0, 0).0))
}

/// Keeps a frame in memory until it is applied, or leaves it in the log.
pub(super) fn take_in(volumes: &mut Volumes, spool: &mut Spool, frame: &Frame) {
    if !spool.leaves(frame, volumes.unapplied_bytes()) {
        volumes.push(frame);
    }
}

/// The log of the replica in `dir`, and what its state says of it.
#[must_use]
pub fn log_of<'d>(dir: &'d Path, state: &ReplicaState, tokens: TokenSpace) -> OpenLog<'d> {
    // What was applied was durable before; so the limit is a word about the log, too.
    let lsn = state.durable.max(state.apply_limit);
    OpenLog {
        replica_dir: dir,
        resource: state.resource,
        checkpoint: state.checkpoint,
        known_durable: Some(KnownDurable { lsn, truncations: state.truncations }),
        tokens,
    }
}

/// Reads the log from the checkpoint to its end into the overlay. `reached` hears each position
/// behind a frame.
pub(super) fn open_log<E: Engine>(
    engine: &mut E,
    dir: &Path,
    state: &ReplicaState,
    (volumes, spool): (&mut Volumes, &mut Spool),
    reached: &mut dyn FnMut(LogPosition),
) -> Result<(Journal, Recovered), ReplicaError> {
    let log = log_of(dir, state, JOURNAL);
    let mut position = state.checkpoint;
    let mut epoch_starts = Vec::new();
    let mut visit = |frame: &Frame| {
        if frame.epoch_start().is_some() {
            epoch_starts.push((position, frame.clone()));
        }
        position = frame.position_after();
        reached(position);
        take_in(volumes, spool, frame);
    };
    let (journal, found) = Journal::open(engine, &log, &mut visit)?;
    // Opening has made durable what it found.
    let (end, durable, start) = (found.end, journal.durable(), journal.start());
    let recovered = Recovered { end, durable, start, epoch_starts, maps: Vec::new() };
    Ok((journal, recovered))
}

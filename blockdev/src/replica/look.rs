//! What stands in a replica's superblock, for whoever only looks at it.

use std::path::Path;

use hadrian_protocol::replica::ReplicaState;

use super::{ENGINE_DEPTH, ReplicaError};
use crate::engine::{AnyEngine, EngineChoice};
use crate::superblock::{self, CopyFault, Label, SuperblockError};

/// What a superblock says, for whoever only looks at it.
#[derive(Debug)]
pub struct Found {
    /// The state of the replica.
    pub state: ReplicaState,
    /// Whose it is.
    pub label: Label,
    /// The number of the copy that this is from.
    pub sequence: u64,
    /// What is wrong with the other copy.
    pub other_copy: Option<CopyFault>,
}

/// Reads the superblock in `dir` without touching anything.
///
/// # Errors
/// [`ReplicaError`]
pub fn read_state(dir: &Path) -> Result<Found, ReplicaError> {
    let mut engine = AnyEngine::choose(EngineChoice::Plain, ENGINE_DEPTH)?;
    let (newest, other_copy) = match superblock::inspect(&mut engine, dir)? {
        [Ok(first), Ok(second)] if second.sequence > first.sequence => (second, None),
        [Ok(first), Ok(_)] => (first, None),
        [Ok(newest), Err(other)] | [Err(other), Ok(newest)] => (newest, Some(other)),
        [Err(first), Err(second)] => {
            let path = dir.join(superblock::FILE_NAME);
            return Err(SuperblockError::BothBad { path, first, second }.into());
        }
    };
    let (state, label) = (decode(dir, &newest.body)?, newest.whose.label);
    Ok(Found { state, label, sequence: newest.sequence, other_copy })
}

pub(super) fn decode(dir: &Path, body: &[u8]) -> Result<ReplicaState, ReplicaError> {
    ReplicaState::decode(body).map_err(|source| ReplicaError::State { dir: dir.into(), source })
}

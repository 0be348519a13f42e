//! A replica that is made of a copy which was carried by hand (design §8.1).
//!
//! ```text
//! a replica that says "incomplete" → the copy into its stores, durably → it says "switching" to
//!   the position of the copy → its log begins there → it says "whole"
//! ```
//!
//! Which crash does that survive? Any. The superblock says that the image is incomplete before the
//! first byte of the copy is written, so nobody takes half of one for an image, and a further
//! import knows whose these bytes are: it makes them zero and begins again. So does a daemon that
//! is started in between, in its own way: it has everything compared with its primary's image.
//! What is in the stores is durable before "switching" is, and from there on it is as at the end of
//! a resync: every opening finishes what a crash has interrupted.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hadrian_protocol::ids::{Incarnation, VolumeIndex};
use hadrian_protocol::replica::{Image, ReplicaState, VolumeGeometry, describe};

use super::opening::{open_state, open_volumes};
use super::resync::{RESYNC, finish_switch};
use super::{ENGINE_DEPTH, ReplicaError, lock};
use crate::engine::{AnyEngine, Engine, EngineChoice, FileId, Op, run};
use crate::resync::task::Tasks;
use crate::superblock::{self, SuperblockError, SuperblockEvent, SuperblockWriter, Whose};
use crate::volume::{Store, StoreError, Volumes};

/// Bytes that are made zero at a time.
const ZEROED: u64 = 256 << 20;

/// A replica that is begun, and whose stores are being filled. Whoever drops it before its end
/// leaves it as it is: begun.
#[derive(Debug)]
pub struct Import<E = AnyEngine> {
    engine: E,
    dir: PathBuf,
    state: ReplicaState,
    superblock: SuperblockWriter,
    volumes: Volumes,
    _lock: Option<File>,
}

/// The state of a replica that is only begun: its image is none, and it has no history.
#[must_use]
pub fn begun(state: ReplicaState) -> ReplicaState {
    ReplicaState { image: Image::Incomplete, ..state }
}

/// Whether a replica is only begun, and no daemon has ever run it: what its stores hold may be
/// written over, as whoever began it has said.
#[must_use]
pub fn is_begun(state: &ReplicaState) -> bool {
    let unused = state.incarnation == Incarnation::default();
    unused && state.image == Image::Incomplete && state.history.entries().is_empty()
}

impl Import {
    /// Opens the replica in `dir`, over the stores at `paths`, if it is only begun; until the
    /// import has ended no daemon opens it.
    ///
    /// # Errors
    /// [`ReplicaError`]; [`ReplicaError::Used`] for a replica that is more than begun.
    pub fn open(dir: &Path, whose: &Whose, paths: &[PathBuf]) -> Result<Self, ReplicaError> {
        let lock = lock(&dir.join(superblock::FILE_NAME))?;
        // Through the page cache, in the order of the file: nothing here waits for a single write.
        let engine = AnyEngine::choose(EngineChoice::Plain, ENGINE_DEPTH)?;
        let mut import = Self::open_over(engine, dir, whose, paths, Store::open)?;
        import._lock = Some(lock);
        Ok(import)
    }
}

impl<E: Engine> Import<E> {
    /// The same over any engine; nothing keeps others from opening it too.
    ///
    /// # Errors
    /// See [`Import::open`].
    pub fn open_over(
        mut engine: E,
        dir: &Path,
        whose: &Whose,
        paths: &[PathBuf],
        open_store: impl Fn(&mut E, &Path, VolumeGeometry) -> Result<Store, StoreError>,
    ) -> Result<Self, ReplicaError> {
        let (superblock, state) = open_state(&mut engine, dir, whose)?;
        if !is_begun(&state) {
            return Err(ReplicaError::Used(dir.into()));
        }
        let volumes = open_volumes(&mut engine, &state, paths, open_store)?;
        let dir = dir.into();
        Ok(Self { engine, dir, state, superblock, volumes, _lock: None })
    }

    /// Makes everything zero that an import before has left; `progress` hears the bytes so far.
    ///
    /// # Errors
    /// The system's.
    pub fn clear(&mut self, mut progress: impl FnMut(u64)) -> io::Result<()> {
        let sizes: Vec<_> = self.state.volumes.iter().map(|volume| volume.size_bytes).collect();
        let mut seen = 0;
        for (file, size) in self.files().into_iter().zip(sizes) {
            let mut offset = 0;
            while offset < size {
                let len = ZEROED.min(size - offset);
                run(&mut self.engine, Op::Zero { file, offset, len, punch: true })?;
                offset += len;
                progress(seen + offset);
            }
            seen += size;
        }
        Ok(())
    }

    /// Writes what a part of a volume holds: `data`, or `len` zeroes.
    ///
    /// # Errors
    /// The system's; or there is no such volume.
    pub fn put(
        &mut self,
        volume: VolumeIndex,
        (offset, len): (u64, u64),
        data: Option<Bytes>,
    ) -> io::Result<()> {
        let file = self.files().get(usize::from(volume.index())).copied();
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        let op = match data {
            Some(data) => Op::Write { file, offset, data },
            None => Op::Zero { file, offset, len, punch: true },
        };
        run(&mut self.engine, op).map(drop)
    }

    /// Everything was written: the replica is one in this `state`, that of the copy.
    ///
    /// # Errors
    /// [`ReplicaError`]; from "switching" on, the next opening goes on where this has ended.
    pub fn finish(mut self, state: &ReplicaState) -> Result<(), ReplicaError> {
        if state.volumes != self.state.volumes {
            let (has, says) = (describe(&self.state.volumes), describe(&state.volumes));
            return Err(ReplicaError::Geometry { has, says });
        }
        let dir = self.dir.clone();
        let io = |source| ReplicaError::Io { path: dir.clone(), source };
        for file in self.files() {
            run(&mut self.engine, Op::Sync { file }).map_err(io)?;
        }
        let switching = ReplicaState { image: Image::Switching, ..state.clone() };
        self.say(&switching)?;
        let tasks = Tasks::new(RESYNC);
        let stores = self.volumes.stores();
        finish_switch(&mut self.engine, &tasks, &dir, (&switching, stores))?;
        // Files that were closed at the end are closed before anything else is asked.
        tasks.begin(&mut self.engine);
        self.say(&ReplicaState { image: Image::Whole, ..switching })
    }

    fn files(&self) -> Vec<FileId> {
        self.volumes.stores().iter().map(|store| store.buffered).collect()
    }

    /// Makes a state durable.
    fn say(&mut self, state: &ReplicaState) -> Result<(), ReplicaError> {
        let path = self.dir.join(superblock::FILE_NAME);
        let failed = |source| SuperblockError::Io { path: path.clone(), source };
        let Self { engine, superblock, .. } = self;
        superblock.write(engine, &state.encode()).map_err(|e| failed(io::Error::other(e)))?;
        let mut done = Vec::new();
        while superblock.is_busy() {
            engine.kick();
            engine.wait().map_err(failed)?;
            engine.reap(&mut done);
            for completion in done.drain(..) {
                if let Some(SuperblockEvent::Failed { error }) =
                    superblock.complete(engine, completion)
                {
                    return Err(failed(error).into());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

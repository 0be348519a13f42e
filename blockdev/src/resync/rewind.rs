//! Going back to a point of the image's own history: what it held there is staged beside it, as
//! what a primary sends would be, and the same switch brings it in.
//!
//! ```text
//! forget what an earlier resync staged → what the image held at the point, leaf by leaf, where
//!   that differs → as at the end of a sink: sync and read back the staging, sync the stores, save
//!   frames and prior blocks to quarantine
//! ```
//!
//! Only then does the core write that the image is switching. A crash before leaves the image, its
//! log and its history as they were, and maybe a staging that the next resync begins anew from.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;
use hadrian_protocol::frame::LogPosition;
use hadrian_protocol::ids::{Lsn, ResourceId, VolumeIndex};
use hadrian_protocol::replica::VolumeGeometry;
use hadrian_protocol::resync::{LEAF, LeafBits, RegionId, Takes};

use super::image::{Pair, is_zero, leaf_len};
use super::sink::{SinkState, SinkWork, finish_staged};
use super::staging::{self, Staging, drop_staging};
use super::task::{Io, pause};
use super::{SinkError, Tail};
use crate::history::{Door, Past, PastFault, ViewError};

/// Why an image cannot go back to a point. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RewindError {
    /// Nothing of the past is kept.
    #[error(
        "no history is kept here, or it has ended; history = \"24h\" in the configuration keeps \
         one from the next start on"
    )]
    NoHistory,
    /// The point is none, or its record cannot be read.
    #[error(transparent)]
    Past(#[from] ViewError),
    /// What differs does not fit beside the image.
    #[error(
        "{dir} has no room for what the image held at that point and for what is given up: at \
         least {bytes} bytes more are needed there; make room, and ask again"
    )]
    NoRoom {
        /// Which directory.
        dir: PathBuf,
        /// Bytes that could not be written.
        bytes: u64,
    },
    /// It cannot be staged, verified or saved.
    #[error(transparent)]
    Sink(SinkError),
}

impl From<SinkError> for RewindError {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::NoRoom { dir, bytes } => Self::NoRoom { dir, bytes },
            other => Self::Sink(other),
        }
    }
}

/// What is worked on.
#[derive(Debug)]
pub(crate) struct RewindWork {
    pub(crate) io: Io,
    /// What an ended task asked for may still be under way, into the same files.
    pub(crate) before: Option<Io>,
    /// The stores are at rest.
    pub(crate) is_quiet: Rc<Cell<bool>>,
    pub(crate) replica_dir: PathBuf,
    pub(crate) quarantine_dir: PathBuf,
    pub(crate) resource: ResourceId,
    pub(crate) volumes: Vec<VolumeGeometry>,
    pub(crate) stores: Vec<Pair>,
    pub(crate) door: Option<Door>,
    pub(crate) to: LogPosition,
    /// The end of the log, and what it has behind the point.
    pub(crate) end: Lsn,
    pub(crate) tail: Option<Tail>,
}

/// Stages the image of the point, and saves what is given up for it.
pub(crate) async fn run(work: RewindWork) -> Result<(), RewindError> {
    let RewindWork { io, replica_dir, resource, volumes, stores, .. } = &work;
    while work.before.as_ref().is_some_and(Io::is_busy) || !work.is_quiet.get() {
        pause().await;
    }
    let door = work.door.clone().ok_or(RewindError::NoHistory)?;
    // Before anything is staged: it may be no point at all.
    let mut past = Past::at(io.clone(), door, work.to).await?;
    // What is staged of another point would be put over this one.
    let dropped = drop_staging(io, replica_dir).await;
    dropped.map_err(|error| staging::fault(&replica_dir.join(staging::DIR), 0, error))?;
    let mut staging = Staging::begin(io, replica_dir, *resource, volumes).await?;
    let changed: Vec<_> = past.changed().regions().collect();
    for (at, leaves) in changed {
        let store = stores.get(usize::from(at.volume.index())).copied();
        let store = store.ok_or_else(|| unreadable(at.volume, io::ErrorKind::NotFound.into()))?;
        stage_region(io, (&mut past, &mut staging), (at, leaves), store).await?;
        io.breathe().await;
    }
    let mut state = SinkState::new(0, Takes::Staged, volumes);
    state.tail = work.tail.clone();
    let state = Rc::new(RefCell::new(state));
    let sink = SinkWork {
        io: io.clone(),
        before: None,
        state,
        replica_dir: replica_dir.clone(),
        quarantine_dir: work.quarantine_dir.clone(),
        resource: *resource,
        volumes: volumes.clone(),
        stores: stores.clone(),
        apart: Some((work.to.lsn, work.end)),
        was_in_place: false,
    };
    Ok(finish_staged(sink, staging).await?)
}

/// Stages the leaves of a region that were another then.
async fn stage_region(
    io: &Io,
    (past, staging): (&mut Past, &mut Staging),
    (at, leaves): (RegionId, LeafBits),
    store: Pair,
) -> Result<(), RewindError> {
    let region_len = past.changed().region_len(at);
    let dir = staging.dir().to_path_buf();
    let mut writing = Vec::new();
    for leaf in leaves.iter() {
        let (offset, len) = (at.start() + leaf as u64 * LEAF, leaf_len(region_len, leaf));
        let then = past.read(at.volume, (offset, len), store).await;
        let then = then.map_err(|fault| match fault {
            PastFault::Record(error) => RewindError::Past(error),
            PastFault::Store(error) => unreadable(at.volume, error),
        })?;
        let now = store.read(io, offset, len).bytes().await;
        if now.map_err(|error| unreadable(at.volume, error))? == then {
            continue;
        }
        let data = (!is_zero(&then)).then(|| Bytes::from(then));
        let bytes = data.as_ref().map_or(0, Bytes::len) as u64;
        let begun = staging.stage(at, leaf, (&[len], data));
        writing.push((bytes, begun.map_err(|error| staging::fault(&dir, bytes, error))?));
    }
    for (bytes, writes) in writing {
        for write in writes {
            write.await.map_err(|error| staging::fault(&dir, bytes, error))?;
        }
    }
    Ok(())
}

fn unreadable(volume: VolumeIndex, source: io::Error) -> RewindError {
    RewindError::Sink(SinkError::Unreadable { volume, source })
}

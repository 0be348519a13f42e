//! Volumes that become larger: room in the backing stores first, then the sizes.
//!
//! Which crash does that survive? Any: a store that is larger than its volume is opened like any
//! other, and what is beyond the volume is nobody's until the superblock has the new size. So room
//! may be made, and lost by a crash, as often as anybody likes; and the core writes the size into
//! the superblock only when room is durable, and lets clients there only when that is durable, too.

use std::io;

use hadrian_protocol::node::FailedPart;
use hadrian_protocol::replica::VolumeGeometry;
use hadrian_protocol::wire::CannotGrow;

use super::{Replica, ReplicaEvent};
use crate::engine::{Engine, Op};
use crate::resync::image::Pair;
use crate::resync::task::{Io, Task};

/// Bytes that are zeroed at a time: a device may have to write all of them, and a stop waits for
/// that.
const ZEROED_AT_ONCE: u64 = 64 << 20;

/// Room for larger volumes.
#[derive(Debug)]
pub(super) struct Growth {
    /// Up to where each store has room, with zeroes from the end of its volume on, by what this
    /// life has done. To overwrite a large device takes longer than anybody waits for it.
    room: Vec<u64>,
    making: Option<Making>,
}

/// Room that is being made, up to here in each store.
#[derive(Debug)]
struct Making {
    to: Vec<u64>,
    task: Task<Result<(), NoRoom>>,
}

/// Why there is no room.
#[derive(Debug)]
enum NoRoom {
    Cannot(CannotGrow),
    /// A sync of a store failed: whatever it held may be gone (design §2.7).
    Sync(io::Error),
}

/// One store that is to have more room.
#[derive(Debug)]
struct Wanted {
    store: Pair,
    from: u64,
    to: u64,
}

impl Growth {
    pub(super) fn new(volumes: &[VolumeGeometry]) -> Self {
        Self { room: volumes.iter().map(|volume| volume.size_bytes).collect(), making: None }
    }
}

impl<E: Engine> Replica<E> {
    /// Makes every store at least as large as these volumes, with zeroes in what is beyond its
    /// volume, durably; then says [`ReplicaEvent::RoomMade`]. One at a time.
    pub fn make_room(&mut self, volumes: &[VolumeGeometry]) {
        if self.growth.making.is_some() {
            return self.ready.push(ReplicaEvent::RoomMade(Some(CannotGrow::Busy)));
        }
        let stores = self.volumes.stores();
        let of = stores.into_iter().zip(&self.growth.room).zip(volumes);
        let wanted = of
            .filter(|((_, has), volume)| **has < volume.size_bytes)
            .map(|((store, has), volume)| Wanted { store, from: *has, to: volume.size_bytes });
        let wanted: Vec<_> = wanted.collect();
        let to = volumes.iter().map(|volume| volume.size_bytes).collect();
        let task = Task::new(make_room(self.copies.tasks().io(), wanted));
        self.growth.making = Some(Making { to, task });
        self.go_on_growing();
    }

    /// The volumes have these sizes from here on; room was made for them.
    ///
    /// # Panics
    /// If it was not, in this life of the replica.
    pub fn resize(&mut self, volumes: &[VolumeGeometry]) {
        let mut sizes = volumes.iter().zip(&self.growth.room);
        let has_room = sizes.all(|(volume, room)| volume.size_bytes <= *room);
        assert!(has_room, "a volume grows into room that was made for it");
        self.volumes.resize(volumes);
        self.copies.resize(volumes);
        self.history.resize(volumes);
    }

    pub(super) fn go_on_growing(&mut self) {
        let Self { growth, copies, engine, ready, .. } = self;
        let Some(Making { to, task }) = &mut growth.making else { return };
        let Some(made) = copies.tasks().poll(task, engine) else { return };
        let cannot = match made {
            Ok(()) => {
                let rooms = growth.room.iter_mut().zip(to.iter());
                rooms.for_each(|(room, size)| *room = (*room).max(*size));
                None
            }
            Err(NoRoom::Cannot(why)) => Some(why),
            Err(NoRoom::Sync(error)) => {
                let cannot = system(&error);
                let failed = self.volumes.fail_for(&error);
                ready.extend(failed.map(|e| ReplicaEvent::Failed(FailedPart::Store, e)));
                Some(cannot)
            }
        };
        growth.making = None;
        ready.push(ReplicaEvent::RoomMade(cannot));
    }
}

/// Nothing is touched where one of the stores cannot have room at all.
async fn make_room(io: Io, wanted: Vec<Wanted>) -> Result<(), NoRoom> {
    for store in &wanted {
        extend(&io, store).await.map_err(NoRoom::Cannot)?;
    }
    for Wanted { store, from, to } in &wanted {
        let mut at = *from;
        while at < *to {
            let end = to.min(&at.saturating_add(ZEROED_AT_ONCE)).to_owned();
            // What was added to a file is a hole, and what it had there before may be anything.
            let (stretch, is_hole) = io.stretch(store.buffered, at, end).await;
            if !(is_hole && stretch >= end) {
                let (file, offset, len) = (store.buffered, at, end - at);
                let zeroed = io.op(Op::Zero { file, offset, len, punch: true }).await;
                zeroed.map_err(|error| NoRoom::Cannot(refused(&error)))?;
            }
            at = end;
        }
        io.sync(store.buffered).await.map_err(NoRoom::Sync)?;
    }
    Ok(())
}

/// A file is made longer; a device has to be.
async fn extend(io: &Io, wanted: &Wanted) -> Result<(), CannotGrow> {
    let has = io.size(wanted.store.buffered).await.map_err(|error| refused(&error))?;
    if has >= wanted.to {
        return Ok(());
    }
    match io.extend(wanted.store.buffered, wanted.to).await {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            Err(CannotGrow::DeviceTooSmall { has, missing: wanted.to - has })
        }
        Err(error) => Err(refused(&error)),
    }
}

fn refused(error: &io::Error) -> CannotGrow {
    tracing::warn!(%error, "a backing store cannot be made larger");
    system(error)
}

fn system(error: &io::Error) -> CannotGrow {
    CannotGrow::System { errno: error.raw_os_error().unwrap_or(0) }
}

//! The volumes of a resource: backing stores, and what the log holds that they do not have yet.
//!
//! A frame is pushed here when its log write has begun: from then on reads see it, through the
//! overlay. It reaches the stores only when the state machine has allowed its position and that
//! permission is durable (design §2.2, §2.5).

mod apply;
mod change;
mod hold;
mod overlay;
mod reads;
mod store;

pub use hold::Hold;
pub use overlay::{Content, Overlay, Piece};
pub use reads::{ReadDone, Region};
pub use store::{Store, StoreError, base_of, check_store, check_store_in_use, create_store};

use std::io;

use hadrian_protocol::frame::{Frame, LogPosition, Record};
use hadrian_protocol::ids::{Lsn, VolumeIndex};
use hadrian_protocol::range::ByteRange;
use hadrian_protocol::replica::VolumeGeometry;

use crate::engine::{Completion, Engine, Op, Token};
use crate::history::{Batch, Point};
use crate::journal::Spot;
use crate::resync::image::Pair;
use apply::Apply;
use change::{Queued, What};
use reads::Reads;

/// What a completion means.
#[derive(Debug)]
pub enum VolumesEvent {
    /// Nothing that anybody waits for.
    Nothing,
    /// The stores hold every frame to here.
    Applied(Lsn),
    /// They hold it durably.
    Checkpointed(LogPosition),
    /// A client's read is done.
    Read(ReadDone),
    /// A write or sync of a store failed: it is given up (design §2.7).
    Failed(io::Error),
}

/// One volume: its store and its overlay.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) store: Store,
    pub(crate) overlay: Overlay,
}

/// All volumes of a resource, in their order.
#[derive(Debug)]
pub struct Volumes {
    volumes: Vec<Volume>,
    apply: Apply,
    reads: Reads,
    checkpoint: Option<Checkpoint>,
    failed: bool,
    switching: bool,
    token_base: u64,
}

#[derive(Debug)]
struct Checkpoint {
    position: LogPosition,
    missing: usize,
}

/// Operations are told apart by the low bits of their tokens.
const KIND_BITS: u32 = 2;
const APPLY: u64 = 0;
const READ: u64 = 1;
const SYNC: u64 = 2;

impl Volumes {
    /// Volumes whose stores hold everything before `applied`. Tokens of their operations are
    /// `token_base` plus less than 2^48.
    #[must_use]
    pub fn new(stores: Vec<Store>, applied: LogPosition, token_base: u64) -> Self {
        let volume = |store| Volume { store, overlay: Overlay::new() };
        Self {
            volumes: stores.into_iter().map(volume).collect(),
            apply: Apply::new(applied),
            reads: Reads::default(),
            checkpoint: None,
            failed: false,
            switching: false,
            token_base,
        }
    }

    /// The files of the stores, in order.
    pub(crate) fn stores(&self) -> Vec<Pair> {
        let pair = |volume: &Volume| Pair {
            direct: volume.store.direct(),
            buffered: volume.store.buffered(),
        };
        self.volumes.iter().map(pair).collect()
    }

    /// The volumes are so large from here on: their stores have room for it.
    pub(crate) fn resize(&mut self, sizes: &[VolumeGeometry]) {
        for (volume, size) in self.volumes.iter_mut().zip(sizes) {
            volume.store.resize(size.size_bytes);
        }
    }

    /// Whether everything that is allowed into the stores is there, and nothing is on its way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.apply.is_quiet()
    }

    /// The point that the stores have, while they are quiet.
    pub(crate) fn point(&self) -> Point {
        self.apply.point()
    }

    /// Whether a frame that ends at or before `limit` is here and not in the stores.
    pub(crate) fn has_to(&self, limit: Lsn) -> bool {
        self.apply.has_to(limit)
    }

    /// The frames to `limit` that are to be brought in next; for history, which records what they
    /// change before they are allowed.
    pub(crate) fn next_batch(&self, limit: Lsn) -> Option<Batch> {
        let store = |index: VolumeIndex| self.volumes.get(usize::from(index.index()));
        let size = |index| store(index).map_or(0, |volume| volume.store.size_bytes());
        self.apply.next_batch(limit, size)
    }

    /// Whether nothing is under way but reads.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_quiet() && self.checkpoint.is_none()
    }

    /// Whether nothing is to wait for the sake of waiting; see [`Hold`].
    pub(crate) fn hurry<E: Engine>(&mut self, engine: &mut E, on: bool) {
        self.apply.hurry(on);
        if on {
            self.go_on(engine);
        }
    }

    /// Whether it is noted which bytes of the stores are being changed.
    pub(crate) fn note_touched(&mut self, on: bool) {
        self.apply.note_touched(on);
    }

    /// What was noted since the last call: each change when it began, and when it had ended.
    pub(crate) fn touched(&mut self) -> Vec<(VolumeIndex, ByteRange)> {
        self.apply.touched()
    }

    /// No client may read: the stores are about to become another image.
    pub(crate) fn close_for_switch(&mut self) {
        self.switching = true;
        self.reads.fail();
    }

    /// Somebody else's write or sync of a store has failed so. None if it is given up already.
    pub(crate) fn fail_for(&mut self, error: &io::Error) -> Option<io::Error> {
        let first = !std::mem::replace(&mut self.failed, true);
        self.reads.fail();
        first.then(|| io::Error::new(error.kind(), error.to_string()))
    }

    /// The stores hold everything before `at`, of a log that begins there.
    pub(crate) fn begin_anew(&mut self, at: LogPosition) {
        self.apply.begin_anew(at);
        self.volumes.iter_mut().for_each(|volume| volume.overlay.clear());
        self.checkpoint = None;
        self.switching = false;
    }

    /// How much may wait for the stores; see [`Hold`].
    pub fn set_hold<E: Engine>(&mut self, engine: &mut E, hold: Hold) {
        self.apply.set_hold(hold);
        self.go_on(engine);
    }

    /// Takes a frame behind the others: reads see it at once.
    pub fn push(&mut self, frame: &Frame) {
        overlay_queued(self.apply.push(frame), &mut self.volumes);
    }

    /// Leaves large changes in the log alone, if memory is short. The log can be read to
    /// `written`, and `find` tells where in its files a payload lies, if it is one piece.
    pub fn leave_in_log(&mut self, written: Lsn, find: impl Fn(Lsn, usize) -> Option<Spot>) {
        self.apply.leave(&mut self.volumes, written, &find);
    }

    /// The log may be released to here and no further: reads are under way in what is behind.
    #[must_use]
    pub fn oldest_log_read(&self) -> Option<Lsn> {
        self.reads.oldest_in_log()
    }

    /// Whether every record of `frame` lies inside its volume; a frame from a peer may not.
    #[must_use]
    pub fn holds(&self, frame: &Frame) -> bool {
        frame.records().all(|record| match record {
            Record::Write { volume, range, .. }
            | Record::Zero { volume, range }
            | Record::Trim { volume, range } => {
                let volume = self.volumes.get(usize::from(volume.index()));
                volume.is_some_and(|volume| range.end() <= volume.store.size_bytes())
            }
            Record::EpochStart { .. }
            | Record::Handover { .. }
            | Record::Marker
            | Record::Point { .. } => true,
        })
    }

    /// Frames that end at or before `limit` may go into the stores.
    pub fn apply_to<E: Engine>(&mut self, engine: &mut E, limit: Lsn) {
        self.apply.allow(limit);
        self.go_on(engine);
    }

    fn go_on<E: Engine>(&mut self, engine: &mut E) -> Option<Lsn> {
        if self.failed {
            return None;
        }
        let base = self.token_base;
        let token = |key: usize| Token(base + ((key as u64) << KIND_BITS | APPLY));
        self.apply.advance(engine, &mut self.volumes, token)
    }

    /// Frames without changes complete without an operation: whether that moved the watermark.
    #[must_use]
    pub fn applied(&self) -> LogPosition {
        self.apply.applied()
    }

    /// Memory that the frames hold which the stores do not have yet, in bytes.
    #[must_use]
    pub fn unapplied_bytes(&self) -> u64 {
        self.apply.memory()
    }

    /// Bytes of log from the first frame that the stores lack to the last one here.
    #[must_use]
    pub fn waiting_bytes(&self) -> u64 {
        self.apply.waiting()
    }

    /// Whether new changes are to wait a little, because the stores have to catch up.
    #[must_use]
    pub fn is_slowed(&self) -> bool {
        self.apply.is_slowed()
    }

    /// The end of the frames that wait here; of the image, where none does.
    #[must_use]
    pub fn queue_end(&self) -> LogPosition {
        self.apply.queue_end()
    }

    /// Up to where frames may go into the stores.
    #[must_use]
    pub fn limit(&self) -> Lsn {
        self.apply.limit()
    }

    /// Makes the stores durable; [`VolumesEvent::Checkpointed`] tells to where. One at a time.
    pub fn checkpoint<E: Engine>(&mut self, engine: &mut E) {
        if self.checkpoint.is_some() || self.failed {
            return;
        }
        let position = self.apply.applied();
        self.checkpoint = Some(Checkpoint { position, missing: self.volumes.len() });
        for volume in &self.volumes {
            let token = Token(self.token_base + SYNC);
            engine.submit(token, Op::Sync { file: volume.store.buffered() });
        }
    }

    /// Begins a client's read. `Some`: it is done already, from memory.
    pub fn read<E: Engine>(
        &mut self,
        engine: &mut E,
        id: u64,
        volume: VolumeIndex,
        range: ByteRange,
    ) -> Option<ReadDone> {
        let base = self.token_base;
        let token = |key: usize| Token(base + ((key as u64) << KIND_BITS | READ));
        // After a failed write or sync the kernel may have dropped what it could not write: the
        // store would answer with old bytes that the overlay no longer corrects.
        let refused = |kind: io::ErrorKind| Some(ReadDone { id, result: Err(kind.into()) });
        if self.failed || self.switching {
            return refused(io::ErrorKind::Other);
        }
        let Some(volume) = self.volumes.get(usize::from(volume.index())) else {
            return refused(io::ErrorKind::InvalidInput);
        };
        self.reads.begin(engine, volume, id, range, token)
    }

    /// What is allocated in `range`, in at most `limit` regions from its start.
    #[must_use]
    pub fn regions(&self, volume: VolumeIndex, range: ByteRange, limit: usize) -> Vec<Region> {
        let volume = self.volumes.get(usize::from(volume.index()));
        volume.map(|volume| reads::regions(volume, range, limit)).unwrap_or_default()
    }

    /// Takes the completion of one of its operations.
    pub fn complete<E: Engine>(&mut self, engine: &mut E, done: Completion) -> VolumesEvent {
        let low = done.token.0 - self.token_base;
        let key = usize::try_from(low >> KIND_BITS).unwrap_or(usize::MAX);
        match (low & ((1 << KIND_BITS) - 1), done.result) {
            (READ, result) => match self.reads.complete(key, done.op, result) {
                Some(read) => VolumesEvent::Read(read),
                None => VolumesEvent::Nothing,
            },
            (_, Err(error)) => {
                let first = !std::mem::replace(&mut self.failed, true);
                self.reads.fail();
                if first { VolumesEvent::Failed(error) } else { VolumesEvent::Nothing }
            }
            (APPLY, Ok(())) => self.wrote(engine, (key, done.token), done.op),
            (_, Ok(())) => self.synced(),
        }
    }

    fn wrote<E: Engine>(&mut self, engine: &mut E, key: (usize, Token), op: Op) -> VolumesEvent {
        if self.failed {
            return VolumesEvent::Nothing;
        }
        let before = self.apply.applied().lsn;
        if let Err(error) = self.apply.complete(engine, key, op, &mut self.volumes) {
            self.failed = true;
            self.reads.fail();
            return VolumesEvent::Failed(io::Error::other(error));
        }
        self.go_on(engine);
        let after = self.apply.applied().lsn;
        if after > before { VolumesEvent::Applied(after) } else { VolumesEvent::Nothing }
    }

    fn synced(&mut self) -> VolumesEvent {
        let Some(checkpoint) = &mut self.checkpoint else { return VolumesEvent::Nothing };
        checkpoint.missing -= 1;
        if checkpoint.missing > 0 {
            return VolumesEvent::Nothing;
        }
        let position = checkpoint.position;
        self.checkpoint = None;
        VolumesEvent::Checkpointed(position)
    }

    /// Forgets every frame that ends behind `end`: the log was cut there (design §6.4).
    ///
    /// # Panics
    /// If such a frame was allowed into the stores already.
    pub fn cut(&mut self, end: Lsn) {
        self.apply.cut(end);
        self.volumes.iter_mut().for_each(|volume| volume.overlay.clear());
        self.apply.queued().for_each(|queued| overlay_queued(queued, &mut self.volumes));
    }
}

/// Reads see the changes of a frame from here on.
fn overlay_queued(queued: &Queued, volumes: &mut [Volume]) {
    for change in &queued.changes {
        let content = match &change.what {
            What::Data(payload) => Content::Data(payload.clone()),
            What::Logged(spot, _) => Content::Logged(*spot),
            What::Zero | What::Trim => Content::Zero,
        };
        if let Some(volume) = volumes.get_mut(usize::from(change.volume.index())) {
            volume.overlay.insert(change.range, content, queued.end());
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod memory;
#[cfg(test)]
mod model;

//! The sink of a resync: compares what the source names with the image that it would have, takes
//! what differs, and in the end makes sure that it has all of it.
//!
//! Messages come in order, and are taken in two queues: what is compared may lag behind what is
//! taken. That harms nobody: a digest of what was there before or after content that came meanwhile
//! either equals what the source had, or the leaf is sent again.

mod finish;
mod take;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;
use hadrian_protocol::ids::{Lsn, ResourceId, VolumeIndex};
use hadrian_protocol::replica::VolumeGeometry;
use hadrian_protocol::resync::digest::Digest;
use hadrian_protocol::resync::{
    CONTENT_MAX, CopyProgress, Copying, LEAF, LeafSet, MINE_MAX, REGION, RegionId, Takes,
    ZEROES_MAX,
};

use super::image::{Fault, Pair, digests, hole};
use super::staging::{self, Staging, drop_staging};
use super::task::{Io, pause};
use super::{BadCopying, CONTENT_WINDOW, SinkError};
use crate::engine::FileId;
use crate::quarantine::BlocksWriter;

/// Messages with content that may wait: zeroes have no bytes, so they are counted.
pub(crate) const CONTENTS_MAX: usize = 1024;
/// Comparisons that may wait.
pub(crate) const COMPARES_MAX: usize = 8;

/// What whole leaves of a volume are to hold.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) volume: VolumeIndex,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// None: zeroes.
    pub(crate) data: Option<Bytes>,
}

impl Content {
    /// How many bytes came for it, if it lies in a volume of `size` bytes and keeps to leaves.
    pub(crate) fn check(&self, size: u64) -> Result<u64, BadCopying> {
        let Self { volume, offset, len, data } = self;
        let (volume, at) = (*volume, *offset);
        let end = offset.checked_add(*len).filter(|end| *len > 0 && *end <= size);
        let end = end.ok_or(BadCopying::Outside { volume, at })?;
        let bytes = data.as_ref().map_or(0, Bytes::len) as u64;
        let whole = offset.is_multiple_of(LEAF) && (end.is_multiple_of(LEAF) || end == size);
        if !whole || (data.is_some() && bytes != *len) {
            return Err(BadCopying::Unaligned { volume, at });
        }
        Ok(bytes)
    }
}

/// What is left of a comparison.
#[derive(Debug)]
struct Compare {
    number: u64,
    volume: VolumeIndex,
    first: u32,
    runs: VecDeque<(u32, Digest)>,
}

/// Part of a file of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogPart {
    pub(crate) file: FileId,
    pub(crate) offset: u64,
    pub(crate) len: usize,
}

/// The part of the log that is not the primary's, to be saved.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    pub(crate) from: Lsn,
    pub(crate) end: Lsn,
    pub(crate) parts: Vec<LogPart>,
    /// Frames may begin behind the first byte: the log does not reach back to where they part.
    pub(crate) is_cut: bool,
}

/// What a sink and its replica say to each other.
#[derive(Debug)]
pub(crate) struct SinkState {
    pub(crate) id: u64,
    pub(crate) takes: Takes,
    volumes: Vec<VolumeGeometry>,
    contents: VecDeque<Content>,
    /// Bytes of these, and of those that are being taken.
    content_bytes: u64,
    compares: VecDeque<Compare>,
    compared: u64,
    taken: u64,
    said_mine: bool,
    /// The stores are at rest.
    pub(crate) is_quiet: bool,
    /// What it changed itself; none inside: nobody knows.
    pub(crate) mine: Option<Option<LeafSet>>,
    /// Everything was sent.
    pub(crate) is_finishing: bool,
    /// What is to be saved of the log, where something is, once it is finishing.
    pub(crate) tail: Option<Tail>,
    /// Leaves of the stores were written in place.
    pub(crate) wrote_in_place: bool,
    pub(crate) out: VecDeque<Copying>,
    pub(crate) progress: CopyProgress,
}

impl SinkState {
    pub(crate) fn new(id: u64, takes: Takes, volumes: &[VolumeGeometry]) -> Self {
        Self {
            id,
            takes,
            volumes: volumes.to_vec(),
            contents: VecDeque::new(),
            content_bytes: 0,
            compares: VecDeque::new(),
            compared: 0,
            taken: 0,
            said_mine: false,
            is_quiet: false,
            mine: None,
            is_finishing: false,
            tail: None,
            wrote_in_place: false,
            out: VecDeque::new(),
            progress: CopyProgress::default(),
        }
    }

    /// Everything that it was sent is taken.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.contents.is_empty() && self.content_bytes == 0 && self.compares.is_empty()
    }

    fn size(&self, volume: VolumeIndex) -> Result<u64, BadCopying> {
        let geometry = self.volumes.get(usize::from(volume.index()));
        geometry.map(|g| g.size_bytes).ok_or(BadCopying::Outside { volume, at: 0 })
    }

    /// Takes a message of the source.
    pub(crate) fn hear(&mut self, message: Copying) -> Result<(), BadCopying> {
        if !self.said_mine || self.is_finishing {
            return Err(BadCopying::Unasked);
        }
        match message {
            Copying::Compare { number, volume, first, runs } => {
                self.hear_compare(Compare { number, volume, first, runs: runs.into() })
            }
            Copying::Content { volume, offset, len, data } => {
                self.hear_content(Content { volume, offset, len, data })
            }
            _ => Err(BadCopying::Unasked),
        }
    }

    fn hear_compare(&mut self, compare: Compare) -> Result<(), BadCopying> {
        let Compare { number, volume, first, .. } = compare;
        let regions = self.size(volume)?.div_ceil(REGION);
        let end = compare.runs.iter().try_fold(u64::from(first), |at, (count, _)| {
            at.checked_add(u64::from(*count)).filter(|end| *end <= regions && *count > 0)
        });
        if end.is_none_or(|end| end == u64::from(first)) {
            let at = u64::from(first).saturating_mul(REGION);
            return Err(BadCopying::Outside { volume, at });
        }
        if self.compares.len() >= COMPARES_MAX {
            return Err(BadCopying::TooMuch);
        }
        if number != self.compared + 1 {
            return Err(BadCopying::Unasked);
        }
        self.compared = number;
        self.compares.push_back(compare);
        Ok(())
    }

    fn hear_content(&mut self, content: Content) -> Result<(), BadCopying> {
        let bytes = content.check(self.size(content.volume)?)?;
        let most = if content.data.is_some() { CONTENT_MAX as u64 } else { ZEROES_MAX };
        let long = content.len > most;
        let full = self.content_bytes + bytes > CONTENT_WINDOW || long;
        if full || self.contents.len() >= CONTENTS_MAX {
            return Err(BadCopying::TooMuch);
        }
        self.content_bytes += bytes;
        self.contents.push_back(content);
        Ok(())
    }
}

/// What a sink works on.
#[derive(Debug)]
pub(crate) struct SinkWork {
    pub(crate) io: Io,
    /// What an ended sink asked for may still be under way, into the same files.
    pub(crate) before: Option<Io>,
    pub(crate) state: Rc<RefCell<SinkState>>,
    pub(crate) replica_dir: PathBuf,
    pub(crate) quarantine_dir: PathBuf,
    pub(crate) resource: ResourceId,
    pub(crate) volumes: Vec<VolumeGeometry>,
    pub(crate) stores: Vec<Pair>,
    /// The log beyond here is not the primary's.
    pub(crate) apart: Option<(Lsn, Lsn)>,
    /// An earlier sink, maybe of an earlier life, wrote into the stores.
    pub(crate) was_in_place: bool,
}

/// A sink that has begun.
struct Sink {
    work: SinkWork,
    /// None: it takes everything in place.
    staging: Option<Staging>,
    /// What the image had before, where that is to be kept.
    blocks: Option<BlocksWriter>,
    /// Leaves whose prior content is saved.
    saved: LeafSet,
}

/// Does all of a sink's work, until everything that was sent is verified and durable.
pub(crate) async fn run(work: SinkWork) -> Result<(), SinkError> {
    // The tail of a session that was lost must not land behind what is sent now.
    while work.before.as_ref().is_some_and(Io::is_busy) || !work.state.borrow().is_quiet {
        pause().await;
    }
    let mut sink = Sink::begin(work).await?;
    sink.say_mine().await;
    loop {
        if sink.take_contents().await? || sink.compare_hole().await || sink.compare_one().await? {
            sink.work.io.breathe().await;
            continue;
        }
        if sink.work.state.borrow().is_finishing {
            return sink.finish().await;
        }
        pause().await;
    }
}

/// Ends what somebody else has staged as a sink would: verified, durable, and nothing that it
/// replaces is lost.
pub(crate) async fn finish_staged(work: SinkWork, staging: Staging) -> Result<(), SinkError> {
    let saved = LeafSet::new(&work.volumes);
    Sink { work, staging: Some(staging), blocks: None, saved }.finish().await
}

impl Sink {
    async fn begin(work: SinkWork) -> Result<Self, SinkError> {
        let takes = work.state.borrow().takes;
        let staging = match takes {
            Takes::Staged => {
                let (dir, volumes) = (&work.replica_dir, &work.volumes);
                Some(Staging::begin(&work.io, dir, work.resource, volumes).await?)
            }
            // An older staging would be put over what is taken in place, at the switch.
            Takes::InPlace => {
                let dropped = drop_staging(&work.io, &work.replica_dir).await;
                let dir = work.replica_dir.join(staging::DIR);
                dropped.map_err(|error| staging::fault(&dir, 0, error))?;
                None
            }
        };
        let saved = LeafSet::new(&work.volumes);
        let mut sink = Self { work, staging, blocks: None, saved };
        if takes == Takes::InPlace {
            sink.begin_blocks().await?;
        }
        Ok(sink)
    }

    /// Begins to save what the image held before, where this replica has diverged. In place that
    /// is needed from the first change on, otherwise only when everything was sent.
    async fn begin_blocks(&mut self) -> Result<(), SinkError> {
        let work = &self.work;
        if let Some(span) = work.apart {
            let of = (work.resource, span, self.staging.is_none());
            let begun = BlocksWriter::begin(&work.io, &work.quarantine_dir, of, &work.volumes);
            self.blocks = Some(begun.await?);
        }
        Ok(())
    }

    /// What an earlier sink staged may be of another history: the source has to look at it, as at
    /// what this replica changed itself.
    async fn say_mine(&self) {
        let mine = loop {
            if let Some(mine) = self.work.state.borrow_mut().mine.take() {
                break mine;
            }
            pause().await;
        };
        let mut mine = mine.filter(|_| !self.work.was_in_place);
        if let (Some(mine), Some(staging)) = (&mut mine, &self.staging) {
            mine.union(&staging.data);
            mine.union(&staging.zero);
        }
        let mut state = self.work.state.borrow_mut();
        state.said_mine = true;
        state.out.push_back(Copying::Mine(mine.map(|mine| mine.ranges(MINE_MAX))));
    }

    fn store(&self, volume: VolumeIndex) -> Result<Pair, SinkError> {
        let store = self.work.stores.get(usize::from(volume.index())).copied();
        let source = || std::io::ErrorKind::NotFound.into();
        store.ok_or_else(|| SinkError::Unreadable { volume, source: source() })
    }

    fn fault_of(&self, volume: VolumeIndex, fault: Fault) -> SinkError {
        match (fault, &self.staging) {
            (Fault::Staging(error), Some(staging)) => staging::fault(staging.dir(), 0, error),
            (Fault::Store(source) | Fault::Staging(source), _) => {
                SinkError::Unreadable { volume, source }
            }
        }
    }

    /// Passes over regions of the oldest comparison that are all zero there, and lie in a hole
    /// here; false where there are none.
    async fn compare_hole(&mut self) -> bool {
        let next = self.work.state.borrow().compares.front().and_then(|compare| {
            let (count, digest) = compare.runs.front().copied()?;
            let at = RegionId { volume: compare.volume, region: compare.first };
            (digest == Digest::of_zero_region(REGION) && count > 1).then_some((at, count))
        });
        let Some((at, count)) = next else { return false };
        let Ok(store) = self.store(at.volume) else { return false };
        let staged = self.staging.as_ref().and_then(|staging| staging.next_region(at));
        let end = at.start() + u64::from(count) * REGION;
        let end = staged.map_or(end, |staged| end.min(staged.start()));
        let end = end.min(self.saved.size(at.volume));
        if end <= at.start() {
            return false;
        }
        let hole_end = hole(&self.work.io, store, at.start(), end).await.unwrap_or(0);
        // One is left, so that the comparison ends with it.
        let regions = hole_end.saturating_sub(at.start()) / REGION;
        let passed = u32::try_from(regions).unwrap_or(u32::MAX).min(count - 1);
        let mut state = self.work.state.borrow_mut();
        state.progress.total += u64::from(passed) * REGION;
        state.progress.done += u64::from(passed) * REGION;
        if let Some(compare) = state.compares.front_mut() {
            compare.first = compare.first.saturating_add(passed);
            compare.runs.iter_mut().take(1).for_each(|(left, _)| *left -= passed);
        }
        passed > 0
    }

    /// Looks at one region of the oldest comparison; false where there is none.
    async fn compare_one(&mut self) -> Result<bool, SinkError> {
        let next = self.work.state.borrow().compares.front().and_then(|compare| {
            let digest = compare.runs.front()?.1;
            Some((RegionId { volume: compare.volume, region: compare.first }, digest))
        });
        let Some((at, theirs)) = next else { return Ok(false) };
        let len = self.saved.region_len(at);
        let staged = self.staging.as_ref().and_then(|staging| staging.region(at));
        let found = digests(&self.work.io, self.store(at.volume)?, staged, (at, len)).await;
        let leaves = found.map_err(|fault| self.fault_of(at.volume, fault))?;
        if let Some(leaves) = &leaves {
            self.note_staged(at, leaves).await?;
        }
        let own = leaves.as_deref().map_or_else(|| Digest::of_zero_region(len), Digest::of_region);
        let mut state = self.work.state.borrow_mut();
        state.progress.total += len;
        state.progress.done += len;
        if own != theirs {
            state.out.push_back(Copying::Differs { volume: at.volume, region: at.region, leaves });
        }
        let done = state.compares.front_mut().is_none_or(|compare| {
            compare.first = compare.first.saturating_add(1);
            if let Some((count, _)) = compare.runs.front_mut() {
                *count -= 1;
            }
            compare.runs.pop_front_if(|(count, _)| *count == 0);
            compare.runs.is_empty()
        });
        if done && let Some(compare) = state.compares.pop_front() {
            state.out.push_back(Copying::Compared(compare.number));
        }
        Ok(true)
    }

    /// What really is in the staging is what was compared: so that is what it is verified with.
    async fn note_staged(&self, at: RegionId, leaves: &[Digest]) -> Result<(), SinkError> {
        let Some(staging) = &self.staging else { return Ok(()) };
        let data = staging.data.bits(at);
        if data.count() == 0 {
            return Ok(());
        }
        let failed = |error| staging::fault(staging.dir(), 0, error);
        let noted = staging.digests(at).await.map_err(failed)?;
        let mut new = noted.clone();
        for (leaf, digest) in leaves.iter().enumerate().filter(|(leaf, _)| data.has(*leaf)) {
            new.set(leaf, Some(*digest));
        }
        if new == noted { Ok(()) } else { staging.put_digests(at, new).await.map_err(failed) }
    }
}

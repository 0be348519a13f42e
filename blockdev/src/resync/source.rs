//! The source of a resync: compares the image of a primary with that of a sink, sends what
//! differs, and what clients change meanwhile.
//!
//! Only the stores are read, so only what is applied is sent: what is not may still be taken back.
//! Every change that goes into a store is marked when it begins and when it has ended, and a mark
//! is taken away before its leaf is read. So whatever a read beside a change brings, the leaf is
//! sent again; and when the image is held and no mark is left, the sink has all of it.

mod hear;
mod send;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;

use hadrian_protocol::divergence::Changed;
use hadrian_protocol::frame::LogPosition;
use hadrian_protocol::ids::VolumeIndex;
use hadrian_protocol::replica::VolumeGeometry;
use hadrian_protocol::resync::digest::Digest;
use hadrian_protocol::resync::{
    BlockMap, COMPARED_MAX, CopyProgress, Copying, LEAF, LeafBits, LeafSet, REGION, RegionId,
    Scope, Way,
};

use super::image::{Fault, Pair, digests, hole};
use super::sink::COMPARES_MAX;
use super::task::{Io, pause};

/// Regions with so few leaves to be looked at are sent, not compared.
const SENT_AT_ONCE: u64 = 16;
/// Regions of one comparison whose digests are kept, 8 KiB each, until it is answered.
const KEPT_MAX: usize = 32;
/// Little is left: so many leaves, 32 MiB.
const LITTLE: u64 = (32 << 20) / LEAF;

/// What a source tells its replica.
#[derive(Debug)]
pub(crate) enum SourceSays {
    Copying(Copying),
    NearEnd,
    Done(LogPosition),
}

/// A comparison that is being put together, or that was sent and is not answered.
#[derive(Debug)]
struct Asked {
    number: u64,
    volume: VolumeIndex,
    first: u32,
    runs: Vec<(u32, Digest)>,
    /// Digests of the leaves of regions that are not all zero.
    kept: BTreeMap<u32, Vec<Digest>>,
    /// The next region that may differ: answers come in order.
    next: u32,
}

impl Asked {
    fn end(&self) -> u32 {
        self.runs.iter().fold(self.first, |at, (count, _)| at.saturating_add(*count))
    }
}

/// What a source and its replica say to each other.
#[derive(Debug)]
pub(crate) struct SourceState {
    pub(crate) id: u64,
    scope: Scope,
    volumes: Vec<VolumeGeometry>,
    /// What the sink has changed; none inside: it does not know.
    mine: Option<Option<Vec<Changed>>>,
    /// What the log has changed; none inside: it does not reach back.
    pub(crate) scanned: Option<Option<LeafSet>>,
    /// The dirty map that counts, if it is there.
    map: Option<BlockMap>,
    /// Everything is compared; this is the next region.
    whole: Option<RegionId>,
    /// Leaves to be looked at otherwise.
    look: LeafSet,
    /// Leaves to be sent in this round.
    differs: LeafSet,
    /// Leaves that have changed since they were looked at.
    changed: LeafSet,
    is_planned: bool,
    asked: VecDeque<Asked>,
    asking: Option<Asked>,
    compared: u64,
    /// Bytes of each message with content that was not taken yet.
    untaken: VecDeque<u64>,
    untaken_bytes: u64,
    sent: u64,
    /// How much was left when the last round began.
    left: u64,
    said_near_end: bool,
    pub(crate) is_finishing: bool,
    /// What the stores hold, and whether nothing is on its way into them.
    pub(crate) applied: LogPosition,
    pub(crate) is_quiet: bool,
    pub(crate) out: VecDeque<SourceSays>,
    pub(crate) progress: CopyProgress,
}

impl SourceState {
    pub(crate) fn new(
        id: u64,
        scope: Scope,
        volumes: &[VolumeGeometry],
        map: Option<BlockMap>,
        applied: LogPosition,
    ) -> Self {
        let none = LeafSet::new(volumes);
        Self {
            id,
            scope,
            volumes: volumes.to_vec(),
            mine: None,
            scanned: None,
            map,
            whole: None,
            look: none.clone(),
            differs: none.clone(),
            changed: none,
            is_planned: false,
            asked: VecDeque::new(),
            asking: None,
            compared: 0,
            untaken: VecDeque::new(),
            untaken_bytes: 0,
            sent: 0,
            left: u64::MAX,
            said_near_end: false,
            is_finishing: false,
            applied,
            is_quiet: false,
            out: VecDeque::new(),
            progress: CopyProgress::default(),
        }
    }

    /// A change of these bytes goes into a store, or has gone there. What is still to be compared
    /// need not be marked.
    pub(crate) fn mark(&mut self, volume: VolumeIndex, start: u64, end: u64) {
        let seen = match self.whole {
            Some(next) if next.volume < volume => return,
            Some(next) if next.volume == volume => end.min(next.start()),
            _ => end,
        };
        if start < seen {
            self.changed.mark(volume, start, seen);
        }
    }

    /// Decides what is looked at, once everything is known about it.
    fn plan(&mut self) -> bool {
        if self.mine.is_none() || self.scanned.is_none() {
            return false;
        }
        let (mine, scanned) = (self.mine.take().flatten(), self.scanned.take().flatten());
        self.is_planned = true;
        let known = self.scope.way != Way::Map || self.map.is_some();
        let known = known && self.scope.way != Way::Digests;
        let (Some(mine), Some(scanned), true) = (mine, scanned, known) else {
            self.whole = VolumeIndex::new(0).map(|volume| RegionId { volume, region: 0 });
            // All of it is looked at from here on.
            self.changed = LeafSet::new(&self.volumes);
            self.progress.total = self.volumes.iter().map(|volume| volume.size_bytes).sum();
            return true;
        };
        self.look = scanned;
        mine.iter().for_each(|range| self.look.mark(range.volume, range.start, range.end));
        if let Some(map) = self.map.take() {
            map.runs().for_each(|(volume, range)| {
                self.look.mark(volume, range.start(), range.end());
            });
        }
        self.progress.total = self.look.count() * LEAF;
        true
    }

    /// Sends the comparison that was put together.
    fn flush(&mut self) {
        let Some(mut asked) = self.asking.take() else { return };
        self.compared += 1;
        asked.number = self.compared;
        let (number, volume, first) = (asked.number, asked.volume, asked.first);
        let runs = asked.runs.clone();
        self.out.push_back(SourceSays::Copying(Copying::Compare { number, volume, first, runs }));
        self.asked.push_back(asked);
    }

    /// Adds regions that have one digest to what is to be compared.
    fn compare(&mut self, at: RegionId, (count, digest): (u32, Digest), kept: Option<Vec<Digest>>) {
        let fits = self.asking.as_ref().is_some_and(|asking| {
            let joins = asking.runs.last().is_some_and(|(_, last)| *last == digest);
            asking.volume == at.volume
                && asking.end() == at.region
                && (joins || asking.runs.len() < COMPARED_MAX)
                && asking.kept.len() < KEPT_MAX
        });
        if !fits {
            self.flush();
        }
        let RegionId { volume, region: first } = at;
        let asking = self.asking.get_or_insert_with(|| Asked {
            number: 0,
            volume,
            first,
            runs: Vec::new(),
            kept: BTreeMap::new(),
            next: first,
        });
        match asking.runs.last_mut() {
            Some((had, last)) if *last == digest => *had = had.saturating_add(count),
            _ => asking.runs.push((count, digest)),
        }
        asking.kept.extend(kept.map(|kept| (first, kept)));
    }

    /// Everything was looked at once, and every answer is there.
    fn is_compared(&self) -> bool {
        self.whole.is_none()
            && self.look.is_empty()
            && self.asked.is_empty()
            && self.asking.is_none()
    }

    /// Begins another round, over what has changed meanwhile. Says whether there is anything.
    fn next_round(&mut self) -> bool {
        if !self.is_compared() || !self.differs.is_empty() {
            return false;
        }
        let count = self.changed.count();
        // Clients that change the same again in each round: another one would not make it less.
        let is_stalled = count > self.left / 2;
        let is_little = count <= LITTLE || is_stalled;
        if is_little && !self.said_near_end && !self.is_finishing {
            self.said_near_end = true;
            self.out.push_back(SourceSays::NearEnd);
        }
        if count == 0 {
            return false;
        }
        self.left = count;
        std::mem::swap(&mut self.changed, &mut self.differs);
        true
    }

    /// A round without any sending: whether there was something, and whether it is near its end.
    #[cfg(test)]
    pub(crate) fn round_for_test(&mut self) -> (bool, bool) {
        let more = self.next_round();
        self.differs = LeafSet::new(&self.volumes);
        (more, self.said_near_end)
    }

    /// The next region of which only some leaves are looked at; none inside: they are few, and are
    /// sent without a comparison.
    fn next_to_look_at(&mut self) -> Option<Option<(RegionId, u64)>> {
        let first = VolumeIndex::new(0).map(|volume| RegionId { volume, region: 0 })?;
        let (at, bits) = self.look.next(first)?;
        self.look.take(at);
        if bits.count() <= SENT_AT_ONCE {
            self.progress.done += bits.count() * LEAF;
            bits.iter().for_each(|leaf| self.differs.set(at, leaf));
            return Some(None);
        }
        let len = self.look.region_len(at);
        // Before it is read: what changes from here on is sent for itself.
        self.changed.take(at);
        self.progress.total += len.saturating_sub(bits.count() * LEAF);
        Some(Some((at, len)))
    }

    /// Nothing is added to what is compared for now: it is sent, and another round begun if what
    /// was looked at has changed.
    fn settle(&mut self) -> Settled {
        if self.asked.len() < COMPARES_MAX {
            self.flush();
        }
        if self.next_round() {
            return Settled::GoesOn;
        }
        if !self.is_done() {
            return Settled::Waits;
        }
        let at = self.applied;
        self.out.push_back(SourceSays::Done(at));
        Settled::Done
    }

    fn is_done(&self) -> bool {
        let rest = self.differs.count() + self.changed.count();
        self.is_finishing && self.is_quiet && self.is_compared() && rest == 0
    }
}

/// How much of the stores may be read now, of all sources of a replica.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    /// Bytes; none: as many as there are.
    pub(crate) bytes: Cell<Option<i64>>,
    /// Clients are served beside it: what is done at once is to be little.
    pub(crate) is_gentle: Cell<bool>,
    /// Bytes that were read since somebody looked.
    pub(crate) read: Cell<u64>,
}

/// What a source works on.
#[derive(Debug)]
pub(crate) struct SourceWork {
    pub(crate) io: Io,
    pub(crate) state: Rc<RefCell<SourceState>>,
    pub(crate) stores: Vec<Pair>,
    pub(crate) allowance: Rc<Allowance>,
}

/// Does all of a source's work, until everything of a held image was sent.
pub(crate) async fn run(work: SourceWork) -> io::Result<()> {
    while !work.state.borrow_mut().plan() {
        pause().await;
    }
    loop {
        if work.may_read() && (work.send_some().await? || work.compare_one().await?) {
            work.io.breathe().await;
            continue;
        }
        match work.state.borrow_mut().settle() {
            Settled::GoesOn => continue,
            Settled::Done => return Ok(()),
            Settled::Waits => {}
        }
        pause().await;
    }
}

/// Where a source stands that has nothing to read for now.
enum Settled {
    GoesOn,
    Waits,
    Done,
}

impl SourceWork {
    /// While the image is held, somebody waits: no rate keeps that up.
    fn may_read(&self) -> bool {
        let bytes = self.allowance.bytes.get();
        self.state.borrow().is_finishing || bytes.is_none_or(|bytes| bytes > 0)
    }

    fn has_read(&self, bytes: u64) {
        let Allowance { bytes: left, read, .. } = &*self.allowance;
        read.set(read.get().saturating_add(bytes));
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        left.set(left.get().map(|left| left.saturating_sub(bytes)));
    }

    fn store(&self, volume: VolumeIndex) -> io::Result<Pair> {
        let store = self.stores.get(usize::from(volume.index())).copied();
        store.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Reads a region and adds it to what is compared; false where there is none, or too much
    /// waits for an answer.
    async fn compare_one(&self) -> io::Result<bool> {
        if self.state.borrow().asked.len() >= COMPARES_MAX - 1 {
            return Ok(false);
        }
        if self.state.borrow().whole.is_some() {
            return self.compare_next().await;
        }
        let next = self.state.borrow_mut().next_to_look_at();
        match next {
            None => return Ok(false),
            Some(None) => {}
            Some(Some((at, len))) => self.compare_region(at, len).await?,
        }
        Ok(true)
    }

    /// Of everything, the next region; of a long hole, all regions in it.
    async fn compare_next(&self) -> io::Result<bool> {
        let Some(at) = self.state.borrow().whole else { return Ok(false) };
        let (size, len) = {
            let state = self.state.borrow();
            (state.look.size(at.volume), state.look.region_len(at))
        };
        if len == 0 {
            let next = VolumeIndex::new(at.volume.index() + 1);
            let next = next.filter(|volume| self.state.borrow().look.size(*volume) > 0);
            self.state.borrow_mut().whole = next.map(|volume| RegionId { volume, region: 0 });
            return Ok(true);
        }
        let hole_end = hole(&self.io, self.store(at.volume)?, at.start(), size).await;
        let whole = hole_end.map_or(0, |end| (end - at.start()) / REGION);
        let count = u32::try_from(whole).unwrap_or(u32::MAX).max(1);
        // Before it is read: what changes from here on is marked, and sent for itself. A hole that
        // is filled while it is looked at is marked, too, when that has ended.
        let next = RegionId { region: at.region.saturating_add(count), ..at };
        self.state.borrow_mut().whole = Some(next);
        if whole > 0 {
            let zero = Digest::of_zero_region(REGION);
            self.state.borrow_mut().compare(at, (count, zero), None);
        } else {
            self.compare_region(at, len).await?;
        }
        Ok(true)
    }

    async fn compare_region(&self, at: RegionId, len: u64) -> io::Result<()> {
        let leaves = digests(&self.io, self.store(at.volume)?, None, (at, len)).await;
        let leaves = leaves.map_err(|(Fault::Store(error) | Fault::Staging(error))| error)?;
        self.has_read(if leaves.is_some() { len } else { 0 });
        let digest =
            leaves.as_deref().map_or_else(|| Digest::of_zero_region(len), Digest::of_region);
        self.state.borrow_mut().compare(at, (1, digest), leaves);
        Ok(())
    }
}

/// The first so many of some leaves.
fn first_of(bits: LeafBits, count: usize) -> Vec<usize> {
    bits.iter().take(count).collect()
}

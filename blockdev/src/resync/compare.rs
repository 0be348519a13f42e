//! Comparing two images that rest at one position, a piece at a time, and answering for one
//! (design §8.4). What is done about what differs is in `mend`.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;

use hadrian_protocol::divergence::Changed;
use hadrian_protocol::ids::{Lsn, VolumeIndex};
use hadrian_protocol::replica::VolumeGeometry;
use hadrian_protocol::resync::digest::{Digest, leaf_lens};
use hadrian_protocol::resync::{CONTENT_MAX, Copying, LeafSet, REGION, RegionId, Right};

use super::image::{Fault, Pair, digests, hole};
use super::mend::{Helper, MEND_BYTES_MAX, Mender, UNDER_WAY_MAX, Wish, within_one_piece};
use super::sink::Content;
use super::task::{Io, pause};
use super::{BadCopying, SinkError};

/// Bytes that are read for one piece: both images rest for as long as that takes.
const PIECE: u64 = 64 << 20;
/// Regions of one piece: holes are not read, and still take time.
const PIECE_REGIONS: u32 = 1 << 16;
/// Ranges that one piece tells of.
const DIFFERS_MAX: usize = 256;
/// Comparisons that may be asked for before one is answered.
const ASKED_MAX: usize = 64;

/// A primary's side.
#[derive(Debug)]
pub(crate) struct CompareState {
    pub(crate) id: u64,
    none: LeafSet,
    next: Option<RegionId>,
    number: u64,
    /// What was asked and not answered, with the digests of leaves where not all are zero.
    asked: BTreeMap<u64, Asked>,
    found: LeafSet,
    /// A piece is to be compared, or is being.
    pub(crate) wanted: bool,
    /// Where both images rest meanwhile.
    pub(crate) at: Lsn,
    /// What differs is repaired.
    right: Option<Right>,
    /// Messages of the repair of this piece, and how many of them the standby has done.
    pub(super) sent: u64,
    pub(super) mended: u64,
    pub(super) not_mended: bool,
    /// Leaves that the standby was asked for, and those that came.
    pub(super) fetches: VecDeque<(VolumeIndex, u64, u64)>,
    pub(super) fetched: VecDeque<Content>,
    done: u64,
    pub(crate) out: VecDeque<Copying>,
}

#[derive(Debug)]
struct Asked {
    at: RegionId,
    count: u32,
    leaves: Option<Vec<Digest>>,
}

/// A piece that was compared.
#[derive(Debug)]
pub(crate) struct Compared {
    /// Bytes since the start.
    pub(crate) done: u64,
    /// Bytes in all.
    pub(crate) total: u64,
    /// Where the images differ, or did.
    pub(crate) differs: Vec<Changed>,
    /// Bytes that were repaired.
    pub(crate) repaired: u64,
}

impl CompareState {
    pub(crate) fn new(id: u64, volumes: &[VolumeGeometry], right: Option<Right>) -> Self {
        let none = LeafSet::new(volumes);
        Self {
            id,
            found: none.clone(),
            none,
            next: VolumeIndex::new(0).map(|volume| RegionId { volume, region: 0 }),
            number: 0,
            asked: BTreeMap::new(),
            wanted: false,
            at: Lsn::START,
            right,
            sent: 0,
            mended: 0,
            not_mended: false,
            fetches: VecDeque::new(),
            fetched: VecDeque::new(),
            done: 0,
            out: VecDeque::new(),
        }
    }

    fn total(&self) -> u64 {
        let volumes = (0..).map_while(VolumeIndex::new).map(|volume| self.none.size(volume));
        volumes.take_while(|size| *size > 0).sum()
    }

    /// Bytes of the volumes before a region.
    fn before(&self, at: RegionId) -> u64 {
        let volumes = (0..at.volume.index()).filter_map(VolumeIndex::new);
        volumes.map(|volume| self.none.size(volume)).sum::<u64>() + at.start()
    }

    /// Both images rest at `at`: the next piece begins.
    pub(crate) fn begin_piece(&mut self, at: Lsn) {
        self.wanted = true;
        (self.at, self.sent, self.mended) = (at, 0, 0);
    }

    fn ask(&mut self, at: RegionId, (count, digest): (u32, Digest), leaves: Option<Vec<Digest>>) {
        self.number += 1;
        self.asked.insert(self.number, Asked { at, count, leaves });
        let (number, volume, first) = (self.number, at.volume, at.region);
        let runs = vec![(count, digest)];
        self.out.push_back(Copying::Compare { number, volume, first, runs });
    }

    /// Takes an answer.
    pub(crate) fn hear(&mut self, message: Copying) -> Result<(), BadCopying> {
        match message {
            Copying::Differs { volume, region, leaves } => {
                let at = RegionId { volume, region };
                let covers = |asked: &&Asked| {
                    let regions = asked.at.region..asked.at.region.saturating_add(asked.count);
                    asked.at.volume == volume && regions.contains(&region)
                };
                let asked = self.asked.values().find(covers).ok_or(BadCopying::Unasked)?;
                let lens: Vec<u64> = leaf_lens(self.none.region_len(at)).collect();
                if leaves.as_ref().is_some_and(|leaves| leaves.len() != lens.len()) {
                    return Err(BadCopying::Outside { volume, at: u64::from(region) * REGION });
                }
                for (leaf, len) in lens.iter().enumerate() {
                    let of = |leaves: &Option<Vec<Digest>>| {
                        let digest = leaves.as_ref().and_then(|leaves| leaves.get(leaf).copied());
                        digest.unwrap_or_else(|| Digest::of_zero_leaf(*len))
                    };
                    if of(&asked.leaves) != of(&leaves) {
                        self.found.set(at, leaf);
                    }
                }
                Ok(())
            }
            Copying::Compared(number) => {
                self.asked.remove(&number).map(drop).ok_or(BadCopying::Unasked)
            }
            Copying::Mended { count, whole } if count <= self.sent && count >= self.mended => {
                (self.mended, self.not_mended) = (count, self.not_mended || !whole);
                Ok(())
            }
            Copying::Content { volume, offset, len, data } => {
                let content = Content { volume, offset, len, data };
                content.check(self.none.size(volume))?;
                let asked = self.fetches.pop_front_if(|asked| *asked == (volume, offset, len));
                asked.ok_or(BadCopying::Unasked)?;
                self.fetched.push_back(content);
                Ok(())
            }
            _ => Err(BadCopying::Unasked),
        }
    }
}

/// What a comparison works on.
#[derive(Debug)]
pub(crate) struct CompareWork {
    pub(crate) io: Io,
    pub(crate) state: Rc<RefCell<CompareState>>,
    pub(crate) stores: Vec<Pair>,
    /// Where this side's image may be repaired.
    pub(crate) mender: Option<Mender>,
}

/// Compares the next piece, and repairs it where that is wanted.
pub(crate) async fn piece(work: Rc<CompareWork>) -> Result<Compared, SinkError> {
    let (mut bytes, mut regions) = (0, 0);
    while bytes < PIECE && regions < PIECE_REGIONS {
        let Some((count, read)) = work.next_regions().await? else { break };
        bytes += read;
        regions = regions.saturating_add(count);
        work.wait_for_answers(ASKED_MAX).await?;
    }
    work.wait_for_answers(1).await?;
    let (found, right, none) = {
        let mut state = work.state.borrow_mut();
        let none = state.none.clone();
        (std::mem::replace(&mut state.found, none.clone()), state.right, none)
    };
    let (found, rest) = match right {
        None => (found, None),
        Some(_) => within_one_piece(&found, none),
    };
    let repaired = match right.filter(|_| !found.is_empty()) {
        None => 0,
        Some(right) => work.repair(&found, right).await?,
    };
    let mut state = work.state.borrow_mut();
    state.wanted = false;
    if let Some(rest) = rest {
        (state.next, state.done) = (Some(rest), state.before(rest));
    }
    let total = state.total();
    let done = if state.next.is_none() { total } else { state.done };
    Ok(Compared { done, total, differs: found.ranges(DIFFERS_MAX), repaired })
}

impl CompareWork {
    /// Waits until fewer than so many questions are open.
    async fn wait_for_answers(&self, count: usize) -> Result<(), SinkError> {
        loop {
            let (failed, asked) = {
                let state = self.state.borrow();
                (state.not_mended, state.asked.len())
            };
            if failed {
                return Err(SinkError::NotMended);
            }
            if asked < count {
                return Ok(());
            }
            pause().await;
        }
    }

    /// Asks for the next region, or for all regions of a hole: how many they are, and how many
    /// bytes were read. None behind the last.
    async fn next_regions(&self) -> Result<Option<(u32, u64)>, SinkError> {
        let Some(at) = self.state.borrow().next else { return Ok(None) };
        let (size, len) = {
            let none = &self.state.borrow().none;
            (none.size(at.volume), none.region_len(at))
        };
        if len == 0 {
            let next = VolumeIndex::new(at.volume.index() + 1);
            let next = next.filter(|volume| self.state.borrow().none.size(*volume) > 0);
            self.state.borrow_mut().next = next.map(|volume| RegionId { volume, region: 0 });
            return Ok(Some((0, 0)));
        }
        let volume = at.volume;
        let unreadable = |source| SinkError::Unreadable { volume, source };
        let store = self.stores.get(usize::from(volume.index())).copied();
        let store = store.ok_or_else(|| unreadable(io::ErrorKind::NotFound.into()))?;
        let hole_end = hole(&self.io, store, at.start(), size).await;
        let whole = hole_end.map_or(0, |end| (end - at.start()) / REGION);
        let whole = u32::try_from(whole).unwrap_or(u32::MAX).min(PIECE_REGIONS);
        let leaves = match whole {
            0 => digests(&self.io, store, None, (at, len)).await,
            _ => Ok(None),
        };
        let failed = |(Fault::Store(error) | Fault::Staging(error))| unreadable(error);
        let leaves = leaves.map_err(failed)?;
        let count = whole.max(1);
        let one = if whole > 0 { REGION } else { len };
        let digest =
            leaves.as_deref().map_or_else(|| Digest::of_zero_region(one), Digest::of_region);
        let mut state = self.state.borrow_mut();
        let region = at.region.saturating_add(count);
        state.next = Some(RegionId { region, ..at });
        state.done += u64::from(count) * one;
        let read = if leaves.is_some() { len } else { 0 };
        state.ask(at, (count, digest), leaves);
        Ok(Some((count, read)))
    }
}

/// The number of a comparison, the next region of it, and what its regions should hold.
type Question = (u64, RegionId, VecDeque<(u32, Digest)>);

/// A standby's side.
#[derive(Debug)]
pub(crate) struct AnswerState {
    pub(crate) id: u64,
    sizes: LeafSet,
    asked: VecDeque<Question>,
    /// What is wanted for a repair.
    pub(super) wishes: VecDeque<Wish>,
    /// Bytes that wait to be mended.
    pub(super) mend_bytes: u64,
    /// Messages that are done.
    pub(super) mended: u64,
    pub(crate) out: VecDeque<Copying>,
}

impl AnswerState {
    pub(crate) fn new(id: u64, volumes: &[VolumeGeometry]) -> Self {
        Self {
            id,
            sizes: LeafSet::new(volumes),
            asked: VecDeque::new(),
            wishes: VecDeque::new(),
            mend_bytes: 0,
            mended: 0,
            out: VecDeque::new(),
        }
    }

    /// Messages of a repair that are done.
    pub(crate) fn mended(&self) -> u64 {
        self.mended
    }

    /// Takes a question, or a wish for a repair.
    pub(crate) fn hear(&mut self, message: Copying) -> Result<(), BadCopying> {
        match message {
            Copying::Compare { number, volume, first, runs } => {
                self.hear_compare(number, RegionId { volume, region: first }, runs)
            }
            Copying::Mend { at, volume, offset, len, data } => {
                let content = Content { volume, offset, len, data };
                self.mend_bytes += content.check(self.sizes.size(volume))?;
                self.wish(len, Wish::Mend(at, content))
            }
            Copying::MendEnd => self.wish(0, Wish::End),
            Copying::Fetch { at, volume, offset, len } => {
                let place = Content { volume, offset, len, data: None };
                place.check(self.sizes.size(volume))?;
                self.wish(len, Wish::Fetch(at, (volume, offset, len)))
            }
            _ => Err(BadCopying::Unasked),
        }
    }

    fn wish(&mut self, len: u64, wish: Wish) -> Result<(), BadCopying> {
        let full = self.wishes.len() > UNDER_WAY_MAX || self.mend_bytes > MEND_BYTES_MAX;
        if full || len > CONTENT_MAX as u64 {
            return Err(BadCopying::TooMuch);
        }
        self.wishes.push_back(wish);
        Ok(())
    }

    fn hear_compare(
        &mut self,
        number: u64,
        at: RegionId,
        runs: Vec<(u32, Digest)>,
    ) -> Result<(), BadCopying> {
        let RegionId { volume, region: first } = at;
        if self.asked.len() > ASKED_MAX {
            return Err(BadCopying::TooMuch);
        }
        let count = runs.iter().fold(0_u64, |sum, (count, _)| sum + u64::from(*count));
        let last = u64::from(first).saturating_add(count).saturating_sub(1);
        let outside = count == 0 || last.saturating_mul(REGION) >= self.sizes.size(volume);
        if outside || runs.iter().any(|(count, _)| *count == 0) {
            return Err(BadCopying::Outside { volume, at: last.saturating_mul(REGION) });
        }
        self.asked.push_back((number, at, runs.into()));
        Ok(())
    }

    /// The next region to look at, and what it should hold.
    fn next(&mut self) -> Option<(RegionId, u64, Digest)> {
        let (_, at, runs) = self.asked.front()?;
        let (_, digest) = runs.front()?;
        Some((*at, self.sizes.region_len(*at), *digest))
    }

    fn looked(&mut self) {
        let Some((number, at, runs)) = self.asked.front_mut() else { return };
        at.region = at.region.saturating_add(1);
        if let Some((count, _)) = runs.front_mut() {
            *count -= 1;
        }
        runs.pop_front_if(|(count, _)| *count == 0);
        if runs.is_empty() {
            self.out.push_back(Copying::Compared(*number));
            self.asked.pop_front();
        }
    }
}

/// Answers until it is ended, and helps with repairs.
pub(crate) async fn answer(
    io: Io,
    state: Rc<RefCell<AnswerState>>,
    mender: Mender,
) -> Result<(), SinkError> {
    let stores = mender.stores.clone();
    let mut helper = Helper::new(mender);
    loop {
        let next = state.borrow_mut().next();
        let Some((at, len, theirs)) = next else {
            if !helper.help(&io, &state).await? {
                pause().await;
            }
            continue;
        };
        let (volume, store) = (at.volume, stores.get(usize::from(at.volume.index())).copied());
        let unreadable = |source| SinkError::Unreadable { volume, source };
        let store = store.ok_or_else(|| unreadable(io::ErrorKind::NotFound.into()))?;
        let leaves = digests(&io, store, None, (at, len)).await;
        let failed = |(Fault::Store(error) | Fault::Staging(error))| unreadable(error);
        let leaves = leaves.map_err(failed)?;
        let own = leaves.as_deref().map_or_else(|| Digest::of_zero_region(len), Digest::of_region);
        let mut state = state.borrow_mut();
        if own != theirs {
            let RegionId { volume, region } = at;
            state.out.push_back(Copying::Differs { volume, region, leaves });
        }
        state.looked();
    }
}

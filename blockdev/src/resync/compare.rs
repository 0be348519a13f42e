//! Comparing two images that rest at one position, a piece at a time, and answering for one
//! (design §8.4).

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;

use hadrian_protocol::divergence::Changed;
use hadrian_protocol::ids::VolumeIndex;
use hadrian_protocol::replica::VolumeGeometry;
use hadrian_protocol::resync::digest::{Digest, leaf_lens};
use hadrian_protocol::resync::{Copying, LeafSet, REGION, RegionId};

use super::BadCopying;
use super::image::{Fault, Pair, digests, hole};
use super::task::{Io, pause};

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
    done: u64,
    pub(crate) out: VecDeque<Copying>,
}

#[derive(Debug)]
struct Asked {
    at: RegionId,
    count: u32,
    leaves: Option<Vec<Digest>>,
}

/// A piece that was compared: bytes since the start, bytes in all, and where the images differ.
pub(crate) type Compared = (u64, u64, Vec<Changed>);

impl CompareState {
    pub(crate) fn new(id: u64, volumes: &[VolumeGeometry]) -> Self {
        let none = LeafSet::new(volumes);
        Self {
            id,
            found: none.clone(),
            none,
            next: VolumeIndex::new(0).map(|volume| RegionId { volume, region: 0 }),
            number: 0,
            asked: BTreeMap::new(),
            wanted: false,
            done: 0,
            out: VecDeque::new(),
        }
    }

    fn total(&self) -> u64 {
        let volumes = (0..).map_while(VolumeIndex::new).map(|volume| self.none.size(volume));
        volumes.take_while(|size| *size > 0).sum()
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
}

/// Compares the next piece.
pub(crate) async fn piece(work: Rc<CompareWork>) -> io::Result<Compared> {
    let (mut bytes, mut regions) = (0, 0);
    while bytes < PIECE && regions < PIECE_REGIONS {
        let Some((count, read)) = work.next_regions().await? else { break };
        bytes += read;
        regions = regions.saturating_add(count);
        while work.state.borrow().asked.len() >= ASKED_MAX {
            pause().await;
        }
    }
    while !work.state.borrow().asked.is_empty() {
        pause().await;
    }
    let mut state = work.state.borrow_mut();
    state.wanted = false;
    let none = state.none.clone();
    let found = std::mem::replace(&mut state.found, none);
    let total = state.total();
    let done = if state.next.is_none() { total } else { state.done };
    Ok((done, total, found.ranges(DIFFERS_MAX)))
}

impl CompareWork {
    /// Asks for the next region, or for all regions of a hole: how many they are, and how many
    /// bytes were read. None behind the last.
    async fn next_regions(&self) -> io::Result<Option<(u32, u64)>> {
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
        let store = self.stores.get(usize::from(at.volume.index())).copied();
        let store = store.ok_or(io::ErrorKind::NotFound)?;
        let hole_end = hole(&self.io, store, at.start(), size).await;
        let whole = hole_end.map_or(0, |end| (end - at.start()) / REGION);
        let whole = u32::try_from(whole).unwrap_or(u32::MAX).min(PIECE_REGIONS);
        let leaves = match whole {
            0 => digests(&self.io, store, None, (at, len)).await,
            _ => Ok(None),
        };
        let leaves = leaves.map_err(|(Fault::Store(error) | Fault::Staging(error))| error)?;
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
    pub(crate) out: VecDeque<Copying>,
}

impl AnswerState {
    pub(crate) fn new(id: u64, volumes: &[VolumeGeometry]) -> Self {
        let sizes = LeafSet::new(volumes);
        Self { id, sizes, asked: VecDeque::new(), out: VecDeque::new() }
    }

    /// Takes a question.
    pub(crate) fn hear(&mut self, message: Copying) -> Result<(), BadCopying> {
        let Copying::Compare { number, volume, first, runs } = message else {
            return Err(BadCopying::Unasked);
        };
        if self.asked.len() > ASKED_MAX {
            return Err(BadCopying::TooMuch);
        }
        let count = runs.iter().fold(0_u64, |sum, (count, _)| sum + u64::from(*count));
        let last = u64::from(first).saturating_add(count).saturating_sub(1);
        let outside = count == 0 || last.saturating_mul(REGION) >= self.sizes.size(volume);
        if outside || runs.iter().any(|(count, _)| *count == 0) {
            return Err(BadCopying::Outside { volume, at: last.saturating_mul(REGION) });
        }
        self.asked.push_back((number, RegionId { volume, region: first }, runs.into()));
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

/// Answers until it is ended.
pub(crate) async fn answer(
    io: Io,
    state: Rc<RefCell<AnswerState>>,
    stores: Vec<Pair>,
) -> io::Result<()> {
    loop {
        let next = state.borrow_mut().next();
        let Some((at, len, theirs)) = next else {
            pause().await;
            continue;
        };
        let store = stores.get(usize::from(at.volume.index())).copied();
        let store = store.ok_or(io::ErrorKind::NotFound)?;
        let leaves = digests(&io, store, None, (at, len)).await;
        let leaves = leaves.map_err(|(Fault::Store(error) | Fault::Staging(error))| error)?;
        let own = leaves.as_deref().map_or_else(|| Digest::of_zero_region(len), Digest::of_region);
        let mut state = state.borrow_mut();
        if own != theirs {
            let RegionId { volume, region } = at;
            state.out.push_back(Copying::Differs { volume, region, leaves });
        }
        state.looked();
    }
}

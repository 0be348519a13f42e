//! Repairing an image while it rests: what leaves hold is replaced by what the other side's hold at
//! the same position (design §8.4).
//!
//! ```text
//! what is to be replaced is in quarantine, durably → the leaves → sync of the store → "mended"
//! ```
//!
//! In place, because both images are at one position: a write that a crash tears leaves a leaf
//! that still differs, and the next comparison finds it; what it held is in quarantine. What the
//! log brings behind a crash goes over it in the order of the log, as over any other content of
//! that position. Nothing is written once the image may go on: an older leaf would land over a
//! newer.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;
use hadrian_protocol::divergence::Changed;
use hadrian_protocol::ids::{Lsn, ResourceId, VolumeIndex};
use hadrian_protocol::replica::VolumeGeometry;
use hadrian_protocol::resync::{CONTENT_MAX, Copying, LEAF, LeafSet, RegionId, Right};

use super::compare::{AnswerState, CompareState, CompareWork};
use super::image::{Pair, is_zero, leaf_len, leaves_in, runs};
use super::sink::Content;
use super::task::{Io, pause};
use super::{CONTENT_WINDOW, SinkError};
use crate::engine::Op;
use crate::quarantine::BlocksWriter;

/// Leaves that one piece repairs at most, rounded up to a region: both images rest meanwhile. What
/// is left of the piece is compared again with the next.
pub(crate) const MENDED_MAX: u64 = 2048;
/// Runs of leaves that may be under way from one side to the other.
pub(crate) const UNDER_WAY_MAX: usize = 64;

/// Where the image of a replica rests, as long as nobody has been told that it may go on.
pub(crate) type Rests = Rc<Cell<Option<Lsn>>>;

/// What repairs of an image work with.
#[derive(Clone, Debug)]
pub(crate) struct Mender {
    /// Of the writes of a repair, and nothing else: the image waits for their end.
    pub(crate) io: Io,
    pub(crate) rests: Rests,
    pub(crate) quarantine_dir: PathBuf,
    pub(crate) resource: ResourceId,
    pub(crate) volumes: Vec<VolumeGeometry>,
    pub(crate) stores: Vec<Pair>,
    /// What of the stores is being changed: those who read them for others look again.
    pub(crate) touched: Rc<RefCell<Vec<Changed>>>,
}

/// The repair of one piece.
#[derive(Debug)]
pub(crate) struct Mending {
    mender: Mender,
    at: Lsn,
    blocks: Option<BlocksWriter>,
    mended: u64,
}

impl Content {
    /// What its `number`-th leaf, which is `len` bytes long, is to hold.
    fn leaf(&self, number: usize, len: usize) -> Option<Bytes> {
        let from = number.saturating_mul(LEAF as usize);
        let data = self.data.as_ref()?;
        (from.saturating_add(len) <= data.len()).then(|| data.slice(from..from + len))
    }

    fn changed(&self) -> Changed {
        Changed { volume: self.volume, start: self.offset, end: self.offset + self.len }
    }
}

impl Mending {
    pub(crate) fn new(mender: Mender, at: Lsn) -> Self {
        Self { mender, at, blocks: None, mended: 0 }
    }

    fn store(&self, volume: VolumeIndex) -> Result<Pair, SinkError> {
        let store = self.mender.stores.get(usize::from(volume.index())).copied();
        let source = || std::io::ErrorKind::NotFound.into();
        store.ok_or_else(|| SinkError::Unreadable { volume, source: source() })
    }

    /// Replaces what some leaves hold, durably. They do not meet.
    pub(crate) async fn replace(&mut self, batch: Vec<Content>) -> Result<(), SinkError> {
        let io = self.mender.io.clone();
        let mut reads = Vec::new();
        for content in batch {
            let read = self.store(content.volume)?.read(&io, content.offset, content.len);
            reads.push((content, read));
        }
        let mut wrong = Vec::new();
        for (content, read) in reads {
            let volume = content.volume;
            let prior = read.bytes().await;
            let prior = prior.map_err(|source| SinkError::Unreadable { volume, source })?;
            if self.save(&content, &prior).await? {
                wrong.push(content);
            }
        }
        if let Some(blocks) = &mut self.blocks {
            blocks.sync().await?;
        }
        // Between this look and the writes below nothing else is done.
        if self.mender.rests.get() != Some(self.at) {
            return Err(SinkError::Moved);
        }
        self.write(wrong).await
    }

    /// Puts leaves that are about to change into quarantine; whether there are any.
    async fn save(&mut self, content: &Content, prior: &Bytes) -> Result<bool, SinkError> {
        let mut differs = false;
        for (number, leaf) in leaves_in(prior).enumerate() {
            let same = match content.leaf(number, leaf.len()) {
                Some(new) => new == leaf,
                None => is_zero(&leaf),
            };
            if same {
                continue;
            }
            differs = true;
            self.mended += leaf.len() as u64;
            if self.blocks.is_none() {
                let Mender { io, quarantine_dir, resource, volumes, .. } = &self.mender;
                let of = (*resource, (self.at, self.at), true);
                let begun = BlocksWriter::begin(io, quarantine_dir, of, volumes).await?;
                self.blocks = Some(begun);
            }
            if let Some(blocks) = &mut self.blocks {
                let offset = content.offset + number as u64 * LEAF;
                blocks.add(content.volume, offset, &leaf).await?;
            }
        }
        Ok(differs)
    }

    async fn write(&self, wrong: Vec<Content>) -> Result<(), SinkError> {
        let io = &self.mender.io;
        let mut under_way = Vec::new();
        let mut stores: Vec<(VolumeIndex, Pair)> = Vec::new();
        for content in wrong {
            let (volume, store) = (content.volume, self.store(content.volume)?);
            let (offset, len) = (content.offset, content.len);
            self.mender.touched.borrow_mut().push(content.changed());
            let changed = content.changed();
            let write = match content.data {
                Some(data) => io.write(store.suited(offset, len), offset, data),
                None => io.op(Op::Zero { file: store.buffered, offset, len, punch: true }),
            };
            under_way.push((changed, write));
            if stores.iter().all(|(known, _)| *known != volume) {
                stores.push((volume, store));
            }
        }
        let mut result = Ok(());
        for (changed, write) in under_way {
            let (volume, written) = (changed.volume, write.await);
            self.mender.touched.borrow_mut().push(changed);
            result =
                result.and(written.map(drop).map_err(|source| SinkError::Store { volume, source }));
        }
        result?;
        for (volume, store) in stores {
            let synced = io.sync(store.buffered).await;
            synced.map_err(|source| SinkError::Store { volume, source })?;
        }
        Ok(())
    }

    /// Ends it: how many bytes were replaced.
    pub(crate) async fn finish(self) -> Result<u64, SinkError> {
        if let Some(blocks) = self.blocks {
            blocks.finish().await?;
        }
        Ok(self.mended)
    }
}

/// Of the leaves that differ, those that this piece repairs, and the region from which on the rest
/// is looked at again.
pub(crate) fn within_one_piece(found: &LeafSet, mut none: LeafSet) -> (LeafSet, Option<RegionId>) {
    let mut count = 0;
    for (at, bits) in found.regions() {
        if count >= MENDED_MAX {
            return (none, Some(at));
        }
        count += bits.count();
        bits.iter().for_each(|leaf| none.set(at, leaf));
    }
    (none, None)
}

/// Runs of leaves of a set, each as long as one message may be.
fn stretches(leaves: &LeafSet) -> VecDeque<(VolumeIndex, u64, u64)> {
    let mut all = VecDeque::new();
    for (at, bits) in leaves.regions() {
        for (start, len) in runs(leaves.region_len(at), bits.iter()) {
            let mut from = 0;
            while from < len {
                let part = (len - from).min(CONTENT_MAX as u64);
                all.push_back((at.volume, at.start() + start + from, part));
                from += part;
            }
        }
    }
    all
}

fn bytes_of(leaves: &LeafSet) -> u64 {
    let of = |at: RegionId, leaf| leaf_len(leaves.region_len(at), leaf);
    leaves.regions().flat_map(|(at, bits)| bits.iter().map(move |leaf| of(at, leaf))).sum()
}

impl CompareWork {
    /// Repairs some leaves of either side while both images rest; how many bytes that were.
    pub(super) async fn repair(&self, leaves: &LeafSet, right: Right) -> Result<u64, SinkError> {
        match right {
            Right::Primary => self.send_right_leaves(leaves).await,
            Right::Standby => self.fetch_right_leaves(leaves).await,
        }
    }

    async fn send_right_leaves(&self, leaves: &LeafSet) -> Result<u64, SinkError> {
        let at = self.state.borrow().at;
        for (volume, offset, len) in stretches(leaves) {
            self.wait_for_mended(UNDER_WAY_MAX as u64 / 2).await?;
            let store = self.stores.get(usize::from(volume.index())).copied();
            let unreadable = |source| SinkError::Unreadable { volume, source };
            let store = store.ok_or_else(|| unreadable(std::io::ErrorKind::NotFound.into()))?;
            let bytes = store.read(&self.io, offset, len).bytes().await.map_err(unreadable)?;
            let data = (!is_zero(&bytes)).then_some(bytes);
            let mut state = self.state.borrow_mut();
            state.sent += 1;
            state.out.push_back(Copying::Mend { at, volume, offset, len, data });
        }
        {
            let mut state = self.state.borrow_mut();
            state.sent += 1;
            state.out.push_back(Copying::MendEnd);
        }
        self.wait_for_mended(0).await?;
        Ok(bytes_of(leaves))
    }

    /// Waits until no more than so many messages are on their way, if all is well over there.
    async fn wait_for_mended(&self, most: u64) -> Result<(), SinkError> {
        loop {
            let (failed, under_way) = {
                let state = self.state.borrow();
                (state.not_mended, state.sent.saturating_sub(state.mended))
            };
            if failed {
                return Err(SinkError::NotMended);
            }
            if under_way <= most {
                return Ok(());
            }
            pause().await;
        }
    }

    async fn fetch_right_leaves(&self, leaves: &LeafSet) -> Result<u64, SinkError> {
        let Some(mender) = self.mender.clone() else { return Err(SinkError::NotMended) };
        let at = self.state.borrow().at;
        let mut mending = Mending::new(mender, at);
        let mut wanted = stretches(leaves);
        loop {
            self.wait_for_mended(u64::MAX).await?;
            let (batch, over) = self.state.borrow_mut().ask_for(at, &mut wanted);
            match (batch.is_empty(), over) {
                (false, _) => mending.replace(batch).await?,
                (true, true) => return mending.finish().await,
                (true, false) => pause().await,
            }
        }
    }
}

impl CompareState {
    /// Asks for as many leaves as may be under way; those that came meanwhile, and whether nothing
    /// more will come.
    fn ask_for(
        &mut self,
        at: Lsn,
        wanted: &mut VecDeque<(VolumeIndex, u64, u64)>,
    ) -> (Vec<Content>, bool) {
        while self.fetches.len() + self.fetched.len() < UNDER_WAY_MAX / 2
            && let Some((volume, offset, len)) = wanted.pop_front()
        {
            self.fetches.push_back((volume, offset, len));
            self.out.push_back(Copying::Fetch { at, volume, offset, len });
        }
        (self.fetched.drain(..).collect(), wanted.is_empty() && self.fetches.is_empty())
    }
}

/// What a standby is to do for a repair, in the order in which it came.
#[derive(Debug)]
pub(crate) enum Wish {
    Mend(Lsn, Content),
    End,
    Fetch(Lsn, (VolumeIndex, u64, u64)),
}

/// The standby's side of the repairs of one piece.
#[derive(Debug)]
pub(crate) struct Helper {
    mender: Mender,
    mending: Option<Mending>,
}

impl Helper {
    pub(crate) fn new(mender: Mender) -> Self {
        Self { mender, mending: None }
    }

    /// Fulfils some wishes; false where there are none.
    pub(crate) async fn help(
        &mut self,
        io: &Io,
        state: &RefCell<AnswerState>,
    ) -> Result<bool, SinkError> {
        let next = state.borrow_mut().wishes.pop_front();
        match next {
            None => return Ok(false),
            Some(Wish::Fetch(at, place)) => self.fetch(io, (at, place), state).await?,
            Some(Wish::End) => {
                if let Some(mending) = self.mending.take() {
                    mending.finish().await?;
                }
                state.borrow_mut().say_mended(1, 0);
            }
            Some(Wish::Mend(at, first)) => {
                let batch = state.borrow_mut().more_to_mend(at, first);
                let bytes = batch.iter().filter_map(|content| content.data.as_ref());
                let bytes = bytes.map(|data| data.len() as u64).sum();
                let count = batch.len() as u64;
                let new = || Mending::new(self.mender.clone(), at);
                let mending = self.mending.get_or_insert_with(new);
                if mending.at != at {
                    return Err(SinkError::Moved);
                }
                mending.replace(batch).await?;
                state.borrow_mut().say_mended(count, bytes);
            }
        }
        Ok(true)
    }

    /// Reads for the primary. What was read while the image went on is of no position.
    async fn fetch(
        &self,
        io: &Io,
        (at, (volume, offset, len)): (Lsn, (VolumeIndex, u64, u64)),
        state: &RefCell<AnswerState>,
    ) -> Result<(), SinkError> {
        let store = self.mender.stores.get(usize::from(volume.index())).copied();
        let unreadable = |source| SinkError::Unreadable { volume, source };
        let store = store.ok_or_else(|| unreadable(std::io::ErrorKind::NotFound.into()))?;
        let bytes = store.read(io, offset, len).bytes().await.map_err(unreadable)?;
        if self.mender.rests.get() != Some(at) {
            return Err(SinkError::Moved);
        }
        let data = (!is_zero(&bytes)).then_some(bytes);
        state.borrow_mut().out.push_back(Copying::Content { volume, offset, len, data });
        Ok(())
    }
}

impl AnswerState {
    /// Those that follow on the first at the same position, and do not meet each other.
    fn more_to_mend(&mut self, at: Lsn, first: Content) -> Vec<Content> {
        let mut batch = vec![first];
        let meets = |batch: &[Content], next: &Content| {
            batch.iter().any(|other| {
                other.volume == next.volume
                    && other.offset < next.offset + next.len
                    && next.offset < other.offset + other.len
            })
        };
        while let Some(Wish::Mend(of, next)) = self.wishes.front() {
            if *of != at || meets(&batch, next) {
                break;
            }
            if let Some(Wish::Mend(_, next)) = self.wishes.pop_front() {
                batch.push(next);
            }
        }
        batch
    }

    fn say_mended(&mut self, count: u64, bytes: u64) {
        self.mended += count;
        self.mend_bytes -= bytes;
        let count = self.mended;
        self.out.push_back(Copying::Mended { count, whole: true });
    }
}

/// Most bytes of leaves that may wait to be mended.
pub(crate) const MEND_BYTES_MAX: u64 = CONTENT_WINDOW * 2;

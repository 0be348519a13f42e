//! Taking content: beside the image, or in place.

use bytes::Bytes;
use hadrian_protocol::ids::VolumeIndex;
use hadrian_protocol::resync::digest::leaf_lens;
use hadrian_protocol::resync::{Copying, LEAF, REGION, RegionId};

use super::super::SinkError;
use super::super::image::{is_zero, leaf_len};
use super::super::staging::{self, Writing};
use super::{Content, Sink};
use crate::engine::Op;

/// Bytes of zeroes that are taken before others are waited for.
const ZEROES_AT_ONCE: u64 = 256 << 20;

/// A part of a content message that lies in one region.
struct Part {
    at: RegionId,
    first: usize,
    lens: Vec<u64>,
    data: Option<Bytes>,
}

impl Part {
    fn offset(&self) -> u64 {
        self.at.start() + self.first as u64 * LEAF
    }

    fn len(&self) -> u64 {
        self.lens.iter().sum()
    }
}

/// Cuts a message at the bounds of regions.
fn parts(content: &Content) -> Vec<Part> {
    let (mut at, end) = (content.offset, content.offset + content.len);
    let mut parts = Vec::new();
    while at < end {
        let region = u32::try_from(at / REGION).unwrap_or(u32::MAX);
        let id = RegionId { volume: content.volume, region };
        let to = id.start().saturating_add(REGION).min(end);
        let narrow = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let range = narrow(at - content.offset)..narrow(to - content.offset);
        let data = content.data.as_ref().map(|bytes| bytes.slice(range));
        let lens = leaf_lens(to - at).collect();
        parts.push(Part { at: id, first: narrow((at - id.start()) / LEAF), lens, data });
        at = to;
    }
    parts
}

impl Sink {
    /// Takes the messages that wait, up to one that changes what another of them does: two writes
    /// of one place that are under way together may land in any order. False where none waits.
    pub(super) async fn take_contents(&mut self) -> Result<bool, SinkError> {
        let batch = self.next_batch();
        if batch.is_empty() {
            return Ok(false);
        }
        let mut writing = Vec::new();
        for content in &batch {
            for part in parts(content) {
                match self.staging {
                    Some(_) => self.stage(part, &mut writing)?,
                    None => self.take_in_place(part, &mut writing).await?,
                }
            }
        }
        for (volume, bytes, write) in writing {
            write.await.map_err(|error| self.write_failed(volume, bytes, error))?;
        }
        let mut state = self.work.state.borrow_mut();
        for content in &batch {
            let bytes = content.data.as_ref().map_or(0, Bytes::len) as u64;
            state.content_bytes -= bytes;
            state.progress.copied += content.len;
            state.progress.sent += bytes;
        }
        state.taken += batch.len() as u64;
        let taken = Copying::Taken(state.taken);
        state.out.push_back(taken);
        Ok(true)
    }

    fn next_batch(&self) -> Vec<Content> {
        let mut state = self.work.state.borrow_mut();
        let (mut batch, mut bytes) = (Vec::<Content>::new(), 0);
        while let Some(next) = state.contents.front() {
            let meets = |other: &Content| {
                other.volume == next.volume
                    && other.offset < next.offset + next.len
                    && next.offset < other.offset + other.len
            };
            bytes += next.len;
            let full = bytes > ZEROES_AT_ONCE && !batch.is_empty();
            if full || batch.iter().any(meets) {
                break;
            }
            batch.extend(state.contents.pop_front());
        }
        batch
    }

    fn write_failed(&self, volume: VolumeIndex, bytes: u64, error: std::io::Error) -> SinkError {
        match &self.staging {
            Some(staging) => staging::fault(staging.dir(), bytes, error),
            None => SinkError::Store { volume, source: error },
        }
    }

    fn stage(
        &mut self,
        part: Part,
        writing: &mut Vec<(VolumeIndex, u64, Writing)>,
    ) -> Result<(), SinkError> {
        let Some(staging) = &mut self.staging else { return Ok(()) };
        let bytes = part.data.as_ref().map_or(0, Bytes::len) as u64;
        let begun = staging.stage(part.at, part.first, (&part.lens, part.data));
        let dir = staging.dir().to_path_buf();
        let begun = begun.map_err(|error| staging::fault(&dir, bytes, error))?;
        writing.extend(begun.into_iter().map(|write| (part.at.volume, bytes, write)));
        Ok(())
    }

    /// Writes into the store. What it held before goes to the quarantine first, durably, where
    /// this replica has diverged: a crash between the two leaves the old content in both (I6).
    async fn take_in_place(
        &mut self,
        part: Part,
        writing: &mut Vec<(VolumeIndex, u64, Writing)>,
    ) -> Result<(), SinkError> {
        let (volume, offset, len) = (part.at.volume, part.offset(), part.len());
        let store = self.store(volume)?;
        if self.blocks.is_some() {
            for leaf in (part.first..).take(part.lens.len()) {
                let new = part.data.as_ref().map(|data| {
                    let from = (leaf - part.first) * LEAF as usize;
                    data.slice(from..data.len().min(from + LEAF as usize))
                });
                self.save_prior(part.at, leaf, new.as_deref()).await?;
            }
            if let Some(blocks) = &mut self.blocks {
                blocks.sync().await?;
            }
        }
        self.work.state.borrow_mut().wrote_in_place = true;
        let io = &self.work.io;
        writing.push((
            volume,
            len,
            match part.data {
                Some(data) => io.write(store.suited(offset, len), offset, data),
                None => io.op(Op::Zero { file: store.buffered, offset, len, punch: true }),
            },
        ));
        Ok(())
    }

    /// Saves what the store holds in one leaf, if that is about to become something else.
    pub(super) async fn save_prior(
        &mut self,
        at: RegionId,
        leaf: usize,
        new: Option<&[u8]>,
    ) -> Result<(), SinkError> {
        let volume = at.volume;
        let (len, offset) =
            (leaf_len(self.saved.region_len(at), leaf), at.start() + leaf as u64 * LEAF);
        // The second change of a leaf replaces what the first brought: nothing of this replica's.
        if self.saved.bits(at).has(leaf) {
            return Ok(());
        }
        let read = self.store(volume)?.read(&self.work.io, offset, len).bytes().await;
        let prior = read.map_err(|source| SinkError::Unreadable { volume, source })?;
        let same = new.map_or_else(|| is_zero(&prior), |new| prior == new);
        if let Some(blocks) = self.blocks.as_mut().filter(|_| !same) {
            blocks.add(volume, offset, &prior).await?;
        }
        if !same || self.staging.is_none() {
            self.saved.set(at, leaf);
        }
        Ok(())
    }
}

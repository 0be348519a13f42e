//! Sending leaves.

use std::io;

use bytes::Bytes;
use hadrian_protocol::resync::digest::leaf_lens;
use hadrian_protocol::resync::{CONTENT_MAX, Copying, LEAF, RegionId};

use super::super::CONTENT_WINDOW;
use super::super::image::{is_zero, leaf_len, leaves_in, runs};
use super::super::sink::CONTENTS_MAX;
use super::{SourceSays, SourceState, SourceWork, first_of};
use crate::buffer::BODY_LEN_MAX;

/// Leaves that are read and sent together.
const BATCH_MAX: usize = BODY_LEN_MAX / LEAF as usize;
/// Of these, so many are sent in one go while clients are served: that takes some tens of
/// microseconds.
const GENTLE_BATCH: usize = 4;

/// Neighbours that go into one message: bytes, or zeroes.
#[derive(Debug)]
struct Run {
    offset: u64,
    len: u64,
    data: Option<Vec<Bytes>>,
}

impl SourceState {
    /// Whether the sink can be sent a batch more.
    fn has_window(&self) -> bool {
        self.untaken_bytes + BODY_LEN_MAX as u64 <= CONTENT_WINDOW
            && self.untaken.len() + 2 * BATCH_MAX <= CONTENTS_MAX
    }

    /// The next leaves to be sent. Their marks are gone: a change that comes from here on counts.
    fn next_batch(&mut self) -> Option<(RegionId, Vec<usize>)> {
        let first = RegionId { volume: hadrian_protocol::ids::VolumeIndex::new(0)?, region: 0 };
        let (at, bits) = self.differs.next(first).filter(|_| self.has_window())?;
        let len = self.look.region_len(at);
        // Of a whole region, in case that it is a hole.
        let whole = bits.count() as usize == leaf_lens(len).count();
        let leaves = first_of(bits, if whole { usize::MAX } else { BATCH_MAX });
        Some((at, leaves))
    }

    fn clear(&mut self, at: RegionId, leaves: &[usize]) {
        for leaf in leaves {
            self.differs.unset(at, *leaf);
            self.changed.unset(at, *leaf);
        }
    }

    fn send(&mut self, at: RegionId, run: Run) {
        let Run { offset, len, data } = run;
        let data = data.map(|mut parts| match (parts.pop(), parts.is_empty()) {
            (Some(only), true) => only,
            (last, _) => {
                parts.extend(last);
                Bytes::from(parts.concat())
            }
        });
        let bytes = data.as_ref().map_or(0, Bytes::len) as u64;
        self.untaken.push_back(bytes);
        self.untaken_bytes += bytes;
        self.sent += 1;
        self.progress.copied += len;
        self.progress.sent += bytes;
        let volume = at.volume;
        self.out.push_back(SourceSays::Copying(Copying::Content { volume, offset, len, data }));
    }
}

impl SourceWork {
    /// Reads some leaves and sends them; false where there are none, or the window is full.
    pub(super) async fn send_some(&self) -> io::Result<bool> {
        let next = self.state.borrow_mut().next_batch();
        let Some((at, mut leaves)) = next else { return Ok(false) };
        let (store, len) = (self.store(at.volume)?, self.state.borrow().look.region_len(at));
        let end = at.start() + len;
        // The marks go before the store is looked at, also for a hole.
        self.state.borrow_mut().clear(at, &leaves);
        let is_hole = self.io.stretch(store.buffered, at.start(), end).await == (end, true);
        if is_hole {
            let mut state = self.state.borrow_mut();
            for (start, run_len) in runs_of_zeroes(len, &leaves) {
                state.send(at, Run { offset: at.start() + start, len: run_len, data: None });
            }
            return Ok(true);
        }
        for later in leaves.split_off(leaves.len().min(BATCH_MAX)) {
            self.state.borrow_mut().differs.set(at, later);
        }
        let is_gentle = self.allowance.is_gentle.get();
        let together = if is_gentle { GENTLE_BATCH } else { BATCH_MAX };
        let mut reads = Vec::new();
        for (start, run_len) in
            leaves.chunks(together).flat_map(|some| runs(len, some.iter().copied()))
        {
            self.has_read(run_len);
            reads.push((start, store.read(&self.io, at.start() + start, run_len)));
        }
        let mut sends: Vec<Run> = Vec::new();
        for (start, read) in reads {
            let bytes = read.bytes().await?;
            for (leaf, content) in (0..).zip(leaves_in(&bytes)) {
                join(&mut sends, at.start() + start + leaf * LEAF, content);
            }
            if is_gentle {
                sends.drain(..).for_each(|run| self.state.borrow_mut().send(at, run));
                self.io.breathe().await;
            }
        }
        sends.into_iter().for_each(|run| self.state.borrow_mut().send(at, run));
        Ok(true)
    }
}

/// Adds a leaf to the run before it, if it goes on there.
fn join(runs: &mut Vec<Run>, offset: u64, content: Bytes) {
    let (len, zero) = (content.len() as u64, is_zero(&content));
    if let Some(last) = runs.last_mut().filter(|last| last.offset + last.len == offset) {
        match &mut last.data {
            None if zero => return last.len += len,
            Some(parts) if !zero && last.len + len <= CONTENT_MAX as u64 => {
                parts.push(content);
                return last.len += len;
            }
            _ => {}
        }
    }
    runs.push(Run { offset, len, data: (!zero).then(|| vec![content]) });
}

fn runs_of_zeroes(region_len: u64, leaves: &[usize]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for leaf in leaves {
        let (start, len) = (*leaf as u64 * LEAF, leaf_len(region_len, *leaf));
        match runs.last_mut() {
            Some((first, had)) if *first + *had == start => *had += len,
            _ => runs.push((start, len)),
        }
    }
    runs
}

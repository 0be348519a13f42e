//! Every frame that was ever appended anywhere, and what volumes hold as of a position.

use std::collections::BTreeMap;

use hadrian_protocol::frame::{ChainHash, Frame, LogPosition, Record};
use hadrian_protocol::ids::{Epoch, Lsn};

use crate::host::{BLOCK, BLOCKS_MAX, genesis};

/// All frames of a run, as a tree: each names the one before by its hash.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    frames: BTreeMap<[u8; 32], Frame>,
    at: BTreeMap<(Epoch, Lsn), ChainHash>,
    /// Per block, in the order of their ends: end and hash of a frame, and the number that it put
    /// there. Forks stand mixed; records of one frame stand in its order.
    blocks: Vec<Vec<(Lsn, ChainHash, u64)>>,
}

/// One member's log: the frames on the way from the start of the history to its end.
#[derive(Clone, Debug)]
pub(super) struct Path {
    by_end: BTreeMap<Lsn, ChainHash>,
    pub(super) end: LogPosition,
}

impl Default for Path {
    fn default() -> Self {
        Self { by_end: BTreeMap::new(), end: genesis() }
    }
}

impl Path {
    pub(super) fn push(&mut self, frame: &Frame) {
        self.end = frame.position_after();
        self.by_end.insert(frame.end(), frame.chain());
    }

    /// Whether it goes through this very point.
    pub(super) fn holds(&self, point: LogPosition) -> bool {
        point == genesis() || self.by_end.get(&point.lsn) == Some(&point.chain)
    }

    /// The last point that it shares with another.
    pub(super) fn common(&self, other: &Self) -> Lsn {
        let mut newest_first = self.by_end.iter().rev();
        let shared = newest_first.find(|(end, chain)| other.by_end.get(end) == Some(chain));
        shared.map_or(Lsn::START, |(end, _)| *end)
    }

    /// The frames that it has beyond what it shares with another, and that one does not have.
    pub(super) fn apart_from(&self, other: &Self) -> Vec<ChainHash> {
        let common = self.common(other);
        let beyond = self.by_end.range(common..).filter(|(end, _)| **end > common);
        // What goes on where the other ends is no fork: it is only shorter.
        let parts = other.end.lsn > common;
        beyond.filter(|_| parts).map(|(_, chain)| *chain).collect()
    }

    /// The point of it at `lsn`, which is the end of one of its frames.
    pub(super) fn at(&self, lsn: Lsn) -> LogPosition {
        let chain = self.by_end.get(&lsn);
        chain.map_or_else(genesis, |chain| LogPosition { lsn, chain: *chain })
    }

    /// Forgets what lies beyond `point`; the hashes of what was forgotten.
    pub(super) fn cut(&mut self, point: LogPosition) -> Vec<ChainHash> {
        let mut beyond = self.by_end.split_off(&point.lsn);
        if let Some(own) = beyond.remove(&point.lsn) {
            self.by_end.insert(point.lsn, own);
        }
        self.end = point;
        beyond.into_values().collect()
    }
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self { blocks: vec![Vec::new(); BLOCKS_MAX as usize], ..Self::default() }
    }

    pub(super) fn frame(&self, chain: ChainHash) -> Option<&Frame> {
        self.frames.get(chain.as_bytes())
    }

    /// Takes a frame that somebody appended. I1: the same place in the same epoch is the same
    /// frame everywhere.
    pub(super) fn note(&mut self, frame: &Frame) -> Result<(), String> {
        let chain = frame.chain();
        let known = self.at.insert((frame.epoch(), frame.lsn()), chain);
        if known.is_some_and(|known| known != chain) {
            return Err(format!("two frames at {} of epoch {}", frame.lsn(), frame.epoch()));
        }
        if self.frames.insert(*chain.as_bytes(), frame.clone()).is_none() {
            self.note_blocks(frame);
        }
        Ok(())
    }

    fn note_blocks(&mut self, frame: &Frame) {
        for record in frame.records() {
            let (range, number) = match record {
                Record::Write { range, payload, .. } => {
                    let number =
                        payload.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                    (range, number)
                }
                Record::Zero { range, .. } | Record::Trim { range, .. } => (range, 0),
                _ => continue,
            };
            for block in range.start() / BLOCK..range.end() / BLOCK {
                let writes = &mut self.blocks[block as usize];
                let at = writes.partition_point(|(end, _, _)| *end <= frame.end());
                writes.insert(at, (frame.end(), frame.chain(), number));
            }
        }
    }

    /// What `block` holds as of `lsn` on `path`.
    pub(super) fn value(&self, path: &Path, block: u64, lsn: Lsn) -> u64 {
        let writes = &self.blocks[block as usize];
        let before = writes.partition_point(|(end, _, _)| *end <= lsn);
        let mut newest_first = writes[..before].iter().rev();
        let last = newest_first.find(|(end, chain, _)| path.by_end.get(end) == Some(chain));
        last.map_or(0, |(_, _, number)| *number)
    }

    /// The numbers that `block` held between two positions of `path`, both included.
    pub(super) fn values(&self, path: &Path, block: u64, from: Lsn, to: Lsn) -> Vec<u64> {
        let mut values = vec![self.value(path, block, from)];
        let later = self.blocks[block as usize].iter().filter(|(end, chain, _)| {
            *end > from && *end <= to && path.by_end.get(end) == Some(chain)
        });
        values.extend(later.map(|(_, _, number)| *number));
        values
    }

    /// The whole volume as of `lsn` on `path`, compared with `image`: the first block that
    /// differs, if any. What is beyond the image was never written.
    pub(super) fn differs(&self, path: &Path, lsn: Lsn, image: &[u8]) -> Option<u64> {
        (0..BLOCKS_MAX).find(|block| {
            let start = (block * BLOCK) as usize;
            let is = image.get(start..start + BLOCK as usize);
            let number = self.value(path, *block, lsn).to_le_bytes();
            let zero = u64::to_le_bytes(0);
            !is.map_or(number == zero, |bytes| bytes.chunks_exact(8).all(|chunk| chunk == number))
        })
    }
}

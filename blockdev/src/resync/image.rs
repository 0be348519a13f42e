//! Reading images in regions and leaves: of a backing store, and of what is staged beside it.

use std::io;

use bytes::Bytes;
use hadrian_protocol::resync::digest::{Digest, leaf_lens};
use hadrian_protocol::resync::{LEAF, LeafBits, RegionId};

use super::task::{Io, Reading};
use crate::buffer::{ALIGNMENT, BODY_LEN_MAX};
use crate::engine::FileId;

/// Leaves that are read at once.
const RUN_MAX: usize = 128 * 1024 / LEAF as usize;
/// Bytes whose digests are made before everybody else has a turn.
const HASHED_MAX: usize = 128 * 1024;

/// A file twice: past the page cache, and through it where a length does not suit the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pair {
    pub(crate) direct: FileId,
    pub(crate) buffered: FileId,
}

impl Pair {
    /// By which of the two so many bytes at `offset` are moved.
    pub(crate) fn suited(self, offset: u64, len: u64) -> FileId {
        let page = ALIGNMENT as u64;
        let whole = offset.is_multiple_of(page) && len.is_multiple_of(page);
        if whole { self.direct } else { self.buffered }
    }

    /// Begins to read at most [`BODY_LEN_MAX`] bytes.
    pub(crate) fn read(self, io: &Io, offset: u64, len: u64) -> Reading {
        let bytes = usize::try_from(len).unwrap_or(BODY_LEN_MAX).min(BODY_LEN_MAX);
        io.read(self.suited(offset, len), offset, bytes)
    }
}

/// What is staged of a region.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StagedRegion {
    /// Leaves whose bytes are in the staging.
    pub(crate) data: LeafBits,
    /// Leaves that are to be zeroes.
    pub(crate) zero: LeafBits,
    /// Where the bytes are.
    pub(crate) files: Pair,
}

/// Which of the two cannot be read.
#[derive(Debug)]
pub(crate) enum Fault {
    Store(io::Error),
    Staging(io::Error),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Store,
    Staging,
    Nowhere,
}

/// Length of a leaf of a region of `region_len` bytes.
pub(crate) fn leaf_len(region_len: u64, leaf: usize) -> u64 {
    region_len.saturating_sub(leaf as u64 * LEAF).min(LEAF)
}

/// Runs of neighbours among leaves, each at most so long that one read brings it: the first byte
/// in the region, and the length.
pub(crate) fn runs(region_len: u64, leaves: impl Iterator<Item = usize>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for leaf in leaves {
        let (start, len) = (leaf as u64 * LEAF, leaf_len(region_len, leaf));
        match runs.last_mut() {
            Some((first, had)) if *first + *had == start && *had + len <= BODY_LEN_MAX as u64 => {
                *had += len;
            }
            _ => runs.push((start, len)),
        }
    }
    runs
}

/// The leaves of what was read, in order.
pub(crate) fn leaves_in(bytes: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    let leaf = LEAF as usize;
    (0..bytes.len()).step_by(leaf).map(move |at| bytes.slice(at..bytes.len().min(at + leaf)))
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Whether the store has a hole from the first byte of a region to its end. Then up to which byte.
pub(crate) async fn hole(io: &Io, store: Pair, start: u64, end: u64) -> Option<u64> {
    let (hole_end, is_hole) = io.stretch(store.buffered, start, end).await;
    is_hole.then_some(hole_end)
}

/// Digests of the leaves of a region of `len` bytes of the image that will be: of what is staged,
/// and of the store where nothing is. None: it is all zeroes.
pub(crate) async fn digests(
    io: &Io,
    store: Pair,
    staged: Option<StagedRegion>,
    (at, len): (RegionId, u64),
) -> Result<Option<Vec<Digest>>, Fault> {
    let places = places(io, store, staged, (at, len)).await;
    if places.iter().all(|place| *place == Where::Nowhere) {
        return Ok(None);
    }
    let mut reads = Vec::new();
    for run in places.chunk_by(|a, b| a == b).flat_map(|same| same.chunks(RUN_MAX)) {
        let place = run.first().copied().unwrap_or(Where::Nowhere);
        reads.push((place, run.len()));
    }
    let (mut first, mut under_way) = (0, Vec::with_capacity(reads.len()));
    for (place, count) in reads {
        let start = first as u64 * LEAF;
        let run_len = (count as u64 * LEAF).min(len - start);
        let file = match (place, staged) {
            (Where::Store, _) => Some(store),
            (Where::Staging, Some(staged)) => Some(staged.files),
            _ => None,
        };
        let read = file.map(|file| file.read(io, at.start() + start, run_len));
        under_way.push((place, (first, count), read));
        first += count;
    }
    let lens: Vec<u64> = leaf_lens(len).collect();
    let (mut found, mut hashed) = (Vec::with_capacity(lens.len()), 0);
    for (place, (first, count), read) in under_way {
        let Some(read) = read else {
            let lens = lens.iter().skip(first).take(count);
            found.extend(lens.map(|len| Digest::of_zero_leaf(*len)));
            continue;
        };
        let bytes = read.bytes().await.map_err(|error| match place {
            Where::Staging => Fault::Staging(error),
            _ => Fault::Store(error),
        })?;
        found.extend(leaves_in(&bytes).map(|leaf| Digest::of_leaf(&leaf)));
        hashed += bytes.len();
        // Some tens of microseconds of work: clients of this thread wait no longer for it.
        if hashed >= HASHED_MAX {
            hashed = 0;
            io.breathe().await;
        }
    }
    let zero = found.iter().zip(&lens).all(|(leaf, len)| *leaf == Digest::of_zero_leaf(*len));
    Ok((!zero).then_some(found))
}

/// Where each leaf of a region is to be read.
async fn places(
    io: &Io,
    store: Pair,
    staged: Option<StagedRegion>,
    (at, len): (RegionId, u64),
) -> Vec<Where> {
    let count = leaf_lens(len).count();
    let mut places = vec![Where::Store; count];
    let (start, end) = (at.start(), at.start() + len);
    let mut from = start;
    while from < end {
        let (to, is_hole) = io.stretch(store.buffered, from, end).await;
        let to = to.max(from + 1).min(end);
        if is_hole {
            // Only leaves that lie in the hole as a whole.
            let whole = (from - start).div_ceil(LEAF)..(to - start).div_ceil(LEAF);
            for (place, leaf) in places.iter_mut().zip(0..) {
                let inside = start + (leaf + 1) * LEAF <= to || to == end;
                if whole.contains(&leaf) && inside {
                    *place = Where::Nowhere;
                }
            }
        }
        from = to;
    }
    if let Some(staged) = staged {
        for (leaf, place) in places.iter_mut().enumerate() {
            match (staged.data.has(leaf), staged.zero.has(leaf)) {
                (true, _) => *place = Where::Staging,
                (false, true) => *place = Where::Nowhere,
                (false, false) => {}
            }
        }
    }
    places
}

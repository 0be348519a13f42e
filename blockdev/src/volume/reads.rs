//! Client reads: from the overlay where it knows better, from the log where that is all that has
//! it, from the page cache where it is warm, else through the engine.
//!
//! What the overlay knows is captured when the read begins. A write that was answered before is
//! either there or in the store by then, so the read returns it; one that comes later may or may
//! not be seen, as with any disk.

use std::io;

use bytes::Bytes;
use hadrian_protocol::ids::Lsn;
use hadrian_protocol::range::ByteRange;
use slab::Slab;
use smallvec::SmallVec;

use super::{Piece, Volume};
use crate::buffer::{ALIGNMENT, BODY_LEN_MAX, IoBuf};
use crate::engine::{Engine, Op, Token};
use crate::journal::Spot;

/// A client's read that is done.
#[derive(Debug)]
pub struct ReadDone {
    /// The caller's name for it.
    pub id: u64,
    /// The bytes in order, or why there are none.
    pub result: io::Result<SmallVec<[Bytes; 1]>>,
}

/// A stretch of a volume that is all data or all hole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// Length in bytes.
    pub len: u64,
    /// It takes no space in the store.
    pub hole: bool,
    /// It reads as zeroes.
    pub zero: bool,
}

#[derive(Debug, Default)]
pub(super) struct Reads {
    jobs: Slab<Job>,
    parts: Slab<Part>,
}

#[derive(Debug)]
struct Job {
    id: u64,
    pieces: SmallVec<[Option<Bytes>; 1]>,
    missing: usize,
    failed: Option<io::Error>,
}

#[derive(Debug)]
struct Part {
    job: usize,
    place: usize,
    /// Bytes that were read in front of those that are wanted: the log is read in whole pages.
    skip: usize,
    len: usize,
    /// The end of the frame, of a part that lies in the log.
    in_log: Option<Lsn>,
}

impl Reads {
    pub(super) fn begin<E: Engine>(
        &mut self,
        engine: &mut E,
        volume: &Volume,
        id: u64,
        range: ByteRange,
        token: impl Fn(usize) -> Token,
    ) -> Option<ReadDone> {
        let job = self.jobs.vacant_key();
        let mut pieces = SmallVec::new();
        let mut missing = 0;
        for (at, piece) in volume.overlay.lookup(range) {
            match piece {
                Piece::Memory(bytes) => pieces.push(Some(bytes)),
                Piece::Zero => push_zeroes(&mut pieces, at.len()),
                Piece::Log(spot, lsn) => {
                    let place =
                        Part { job, place: pieces.len(), skip: 0, len: 0, in_log: Some(lsn) };
                    self.read_log(engine, spot, at.len(), &token, place);
                    missing += 1;
                    pieces.push(None);
                }
                Piece::Store => {
                    for part in at.pieces(BODY_LEN_MAX as u64) {
                        let place =
                            Part { job, place: pieces.len(), skip: 0, len: 0, in_log: None };
                        let ready = self.read_store(engine, volume, part, &token, place);
                        missing += usize::from(ready.is_none());
                        pieces.push(ready);
                    }
                }
            }
        }
        if missing == 0 {
            let result = Ok(pieces.into_iter().flatten().collect());
            return Some(ReadDone { id, result });
        }
        self.jobs.insert(Job { id, pieces, missing, failed: None });
        None
    }

    fn read_store<E: Engine>(
        &mut self,
        engine: &mut E,
        volume: &Volume,
        part: ByteRange,
        token: &impl Fn(usize) -> Token,
        mut place: Part,
    ) -> Option<Bytes> {
        let (file, offset) = (volume.store.buffered(), part.start());
        let len = usize::try_from(part.len()).unwrap_or(BODY_LEN_MAX);
        let mut buffer = IoBuf::with_len(len);
        if engine.try_read_cached(file, offset, buffer.get_mut(..len).unwrap_or_default()) {
            return Some(buffer.freeze().slice(..len));
        }
        place.len = len;
        let key = self.parts.insert(place);
        engine.submit(token(key), Op::Read { file, offset, buffer, len });
        None
    }

    /// A payload in the log is a whole number of pages, so the pages around a part of it are its
    /// own.
    fn read_log<E: Engine>(
        &mut self,
        engine: &mut E,
        spot: Spot,
        len: u64,
        token: &impl Fn(usize) -> Token,
        mut place: Part,
    ) {
        let page = ALIGNMENT as u64;
        let offset = spot.offset / page * page;
        let skip = spot.offset - offset;
        let narrow = |bytes: u64| usize::try_from(bytes).unwrap_or(BODY_LEN_MAX);
        (place.skip, place.len) = (narrow(skip), narrow(len));
        let len = narrow((skip + len).next_multiple_of(page));
        let buffer = IoBuf::with_len(len);
        let key = self.parts.insert(place);
        engine.submit(token(key), Op::Read { file: spot.file, offset, buffer, len });
    }

    /// The log must stay as it is from before this position on, as long as these reads go on.
    pub(super) fn oldest_in_log(&self) -> Option<Lsn> {
        self.parts.iter().filter_map(|(_, part)| part.in_log).min()
    }

    /// What the stores hold is not to be trusted any more: what is under way ends as an error.
    pub(super) fn fail(&mut self) {
        for (_, job) in &mut self.jobs {
            job.failed.get_or_insert_with(|| io::ErrorKind::Other.into());
        }
    }

    pub(super) fn complete(
        &mut self,
        key: usize,
        op: Op,
        result: io::Result<()>,
    ) -> Option<ReadDone> {
        let Part { job: job_key, place, skip, len, .. } = self.parts.try_remove(key)?;
        let job = self.jobs.get_mut(job_key)?;
        job.missing -= 1;
        match (op, result) {
            (Op::Read { buffer, .. }, Ok(())) => {
                if let Some(piece) = job.pieces.get_mut(place) {
                    *piece = Some(buffer.freeze().slice(skip..skip + len));
                }
            }
            (_, Err(error)) => job.failed = Some(error),
            _ => {}
        }
        if job.missing > 0 {
            return None;
        }
        let Job { id, pieces, failed, .. } = self.jobs.remove(job_key);
        let result = match failed {
            Some(error) => Err(error),
            None => Ok(pieces.into_iter().flatten().collect()),
        };
        Some(ReadDone { id, result })
    }
}

static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

fn push_zeroes(pieces: &mut SmallVec<[Option<Bytes>; 1]>, len: u64) {
    let mut left = len;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROES.len());
        pieces.push(Some(Bytes::from_static(ZEROES.get(..part).unwrap_or_default())));
        left -= part as u64;
    }
}

/// What is allocated in `range`; neighbours of the same kind are one region.
pub(super) fn regions(volume: &Volume, range: ByteRange, limit: usize) -> Vec<Region> {
    let mut regions: Vec<Region> = Vec::new();
    for (at, piece) in volume.overlay.lookup(range) {
        match piece {
            Piece::Memory(_) | Piece::Log(..) => add(&mut regions, at.len(), false, false),
            Piece::Zero => add(&mut regions, at.len(), false, true),
            Piece::Store => {
                let mut start = at.start();
                while start < at.end() && regions.len() <= limit {
                    let (end, hole) = volume.store.next_region(start, at.end());
                    add(&mut regions, end - start, hole, hole);
                    start = end;
                }
            }
        }
        if regions.len() > limit {
            break;
        }
    }
    regions.truncate(limit.max(1));
    regions
}

fn add(regions: &mut Vec<Region>, len: u64, hole: bool, zero: bool) {
    match regions.last_mut() {
        Some(last) if (last.hole, last.zero) == (hole, zero) => last.len += len,
        _ => regions.push(Region { len, hole, zero }),
    }
}

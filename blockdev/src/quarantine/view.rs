//! A volume as it was, made of what quarantine files hold of it and of what lies beneath: the
//! backing store as it is now, or nothing.
//!
//! Blocks are what the image held before it was replaced: of several of one place the first counts,
//! so they never lie over one another. Frames are what was written afterwards, so each lies over
//! all before it. Who adds the blocks first and then the frames has the volume as its log ended.

use std::io;

use hadrian_protocol::frame::{Frame, Record};
use hadrian_protocol::ids::VolumeIndex;
use hadrian_protocol::range::ByteRange;
use hadrian_protocol::resync::LEAF;

use super::HEAD_LEN;
use super::walk::{Ending, Part, Walk};
use crate::buffer::{BODY_LEN_MAX, IoBuf};
use crate::engine::{Engine, FileId, Op, run};
use crate::export::Extent;
use crate::pieces::{self, Pieces};

/// Most pieces of a view: some hundreds of megabytes of memory. Blocks that lie in a row in the
/// volume and in their file are one piece.
pub const PIECES_MAX: usize = 4 << 20;

/// Why a file cannot be looked at in this way.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// It would need too much memory.
    #[error(
        "it holds more than {PIECES_MAX} pieces that do not lie in a row, more than can be held \
         in memory; the file has them all, and `quarantine show` lists their ranges"
    )]
    TooMany,
    /// The system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Where the bytes of a piece are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    /// They are zero.
    Zero,
    /// In a file: the byte `origin` of the volume at `position`, and the others behind it. In a row
    /// of blocks there is a head in front of each.
    At { file: FileId, origin: u64, position: u64, is_row: bool },
}

impl Source {
    /// Where byte `at` of the volume is, and how many follow on it without a head between.
    fn locate(self, at: u64) -> Option<(FileId, u64, u64)> {
        let Self::At { file, origin, position, is_row } = self else { return None };
        let behind = at.saturating_sub(origin);
        if !is_row {
            return Some((file, position.saturating_add(behind), u64::MAX));
        }
        let heads = (behind / LEAF).saturating_mul(HEAD_LEN as u64);
        Some((file, position.saturating_add(behind).saturating_add(heads), LEAF - behind % LEAF))
    }
}

impl pieces::Source for Source {
    fn goes_on(self, next: Self, at: u64) -> bool {
        match (self, next) {
            (Self::Zero, Self::Zero) => true,
            (Self::At { is_row: true, .. }, Self::At { is_row: true, .. }) => {
                // The heads make it certain that all blocks before are whole leaves.
                self.locate(at) == next.locate(at)
            }
            _ => false,
        }
    }
}

/// One volume, readable.
#[derive(Debug)]
pub struct View {
    size: u64,
    /// What lies beneath; none: zeroes, in holes.
    beneath: Option<FileId>,
    pieces: Pieces<Source>,
}

impl View {
    /// A volume of `size` bytes, so far only what lies beneath, in a file that is as long at least.
    #[must_use]
    pub fn new(size: u64, beneath: Option<FileId>) -> Self {
        Self { size, beneath, pieces: Pieces::default() }
    }

    /// Its size, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of it that come from quarantine.
    #[must_use]
    pub fn quarantined_bytes(&self) -> u64 {
        self.pieces.bytes()
    }

    /// Takes in what a file holds of a volume, as far as it can be read. The file stays open.
    ///
    /// # Errors
    /// [`ViewError`]; the view is of no use then.
    pub fn add<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        walk: &mut Walk,
        volume: VolumeIndex,
    ) -> Result<Ending, ViewError> {
        loop {
            match walk.next(engine)? {
                Err(ending) => return Ok(ending),
                Ok(Part::Frame(frame, at)) => self.add_frame(&frame, (walk.file, at), volume),
                Ok(Part::Block(block, position)) if block.volume == volume => {
                    let (file, origin) = (walk.file, block.offset);
                    let source = Source::At { file, origin, position, is_row: true };
                    let end = block.offset.saturating_add(block.content.len() as u64);
                    self.pieces.put_under(block.offset, end.min(self.size), source);
                }
                Ok(Part::Block(..)) => {}
            }
            if self.pieces.len() > PIECES_MAX {
                return Err(ViewError::TooMany);
            }
        }
    }

    fn add_frame(&mut self, frame: &Frame, (file, at): (FileId, u64), wanted: VolumeIndex) {
        for (record, payload) in frame.placed_records() {
            let (volume, range, source) = match (record, payload) {
                (Record::Write { volume, range, .. }, Some(behind)) => {
                    let (origin, position) = (range.start(), at.saturating_add(behind));
                    (volume, range, Source::At { file, origin, position, is_row: false })
                }
                (Record::Zero { volume, range } | Record::Trim { volume, range }, _) => {
                    (volume, range, Source::Zero)
                }
                _ => continue,
            };
            let inside = range.end().min(self.size).saturating_sub(range.start());
            if let Ok(range) = ByteRange::new(range.start(), inside)
                && volume == wanted
            {
                self.pieces.put_over(range, source);
            }
        }
    }

    /// Reads `len` bytes at `offset`, inside the volume.
    ///
    /// # Errors
    /// As the system says; also where the volume, or the file beneath, is not so long.
    pub fn read<E: Engine + ?Sized>(
        &self,
        engine: &mut E,
        offset: u64,
        len: usize,
    ) -> io::Result<Vec<u8>> {
        let end = offset.checked_add(len as u64).filter(|end| *end <= self.size);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut bytes = Vec::with_capacity(len);
        let mut at = offset;
        while at < end {
            let (to, source) = self.pieces.at(at, end);
            let beneath = || self.beneath.map(|file| (file, at, u64::MAX));
            let place = source.map_or_else(beneath, |source| source.locate(at));
            let Some((file, position, row)) = place else {
                // No longer than what was asked for.
                bytes.resize(bytes.len() + usize::try_from(to - at).unwrap_or(0), 0);
                at = to;
                continue;
            };
            let wanted = (to - at).min(row).min(BODY_LEN_MAX as u64);
            let wanted = usize::try_from(wanted).unwrap_or(BODY_LEN_MAX);
            let buffer = IoBuf::with_len(wanted);
            let op = Op::Read { file, offset: position, buffer, len: wanted };
            if let Op::Read { buffer, .. } = run(engine, op)? {
                bytes.extend(buffer.get(..wanted).unwrap_or_default());
            }
            at += wanted as u64;
        }
        Ok(bytes)
    }

    /// The stretches from `offset` on, at most `count` of them, and to `len` bytes at most.
    pub fn extents<E: Engine + ?Sized>(
        &self,
        engine: &mut E,
        (offset, len): (u64, u64),
        count: usize,
    ) -> Vec<Extent> {
        let end = offset.saturating_add(len).min(self.size);
        let (mut at, mut extents) = (offset, Vec::new());
        while at < end && extents.len() < count {
            let (to, source) = self.pieces.at(at, end);
            let (to, is_hole) = match (source, self.beneath) {
                (Some(Source::Zero), _) | (None, None) => (to, true),
                (Some(Source::At { .. }), _) => (to, false),
                (None, Some(file)) => engine.stretch(file, at, to),
            };
            // What says nothing of itself holds something.
            let to = to.clamp(at + 1, end);
            extents.push(Extent { len: to - at, hole: is_hole, zero: is_hole });
            at = to;
        }
        extents
    }
}

#[cfg(test)]
mod tests;

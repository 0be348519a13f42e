//! The newest frames of a log, where a `kill -9` does not reach them.
//!
//! A write is answered when its frame would survive the end of the process (design §3). The log is
//! written past the page cache, so that takes the disk's time; but the page cache outlives the
//! process, too. So each frame of a moderate length is copied into a small file that goes through
//! the page cache, and counts as written from then on. The file is a ring: a frame lies at its
//! position, and stays until its own write to the log has completed.
//!
//! ```text
//! 0        4096
//! | sheet  | ring: position p at 4096 + p mod ring length
//! ```
//!
//! Which crash does that survive? The end of the process only. Nothing here is ever synced, and a
//! loss of power may leave any older content. So the sheet names the boot of the host that it
//! belongs to, and a tail of another boot is not looked at. It also has the number of truncations
//! of the log: what was cut off before does not come back. A frame is taken from here only where
//! the log ends, if it is whole and follows there; then it is written to the log and synced like
//! anything else that a killed process left.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use bytes::Bytes;
use hadrian_protocol::frame::{ChainHash, Frame, HEAD_LEN, LogPosition};
use hadrian_protocol::ids::{Lsn, ResourceId};

use super::create::zeroes;
use super::reader::{frame_at, head_at};
use super::sheet::{Kind, SHEET_LEN, Sheet};
use crate::buffer::{BODY_LEN_MAX, IoBuf};
use crate::engine::{Engine, FileId, OpenAs, run_read};

/// The file in the log's directory.
pub(super) const NAME: &str = "tail";
/// Longest frames that are kept, in bytes: any, and while few are under way. Of longer ones the
/// copy costs more than waiting for the disk; where many are under way, nobody waits for one.
const FRAME_MAX: usize = 40 << 10;
const LONE_FRAME_MAX: usize = 132 << 10;
/// So many frames under way are few.
const FEW: usize = 2;
/// Bounds of the ring's length in bytes; between them it is a part of the log.
const RING_MIN: u64 = 64 << 10;
const RING_MAX: u64 = 2 << 20;
const RING_PART: u64 = 16;

/// The ring file of an open log.
#[derive(Debug)]
pub(super) struct Tail {
    resource: ResourceId,
    file: FileId,
    ring_len: u64,
    boot: [u8; 32],
    /// What the ring held when it was opened, where that is of this boot and of the log as it is.
    found: Bytes,
}

impl Tail {
    /// The tail beside a log of `capacity` bytes that was truncated `cuts` times; `None` where the
    /// engine has no memory that outlives the process, or the file cannot be made.
    ///
    /// # Errors
    /// A tail that is there and cannot be read: it may have what was answered.
    pub(super) fn open<E: Engine + ?Sized>(
        engine: &mut E,
        (dir, names): (&Path, &BTreeSet<String>),
        resource: ResourceId,
        (capacity, cuts): (u64, u64),
    ) -> io::Result<Option<Self>> {
        let Some(boot) = engine.boot() else { return Ok(None) };
        let path = dir.join(NAME);
        let file = match names.contains(NAME) {
            true => engine.open(&path, OpenAs::Buffered)?,
            false => match engine.create(&path, OpenAs::Buffered) {
                Ok(file) => file,
                Err(error) => return Ok(given_up(dir, Err(error))),
            },
        };
        let ring_len = (capacity / RING_PART).clamp(RING_MIN, RING_MAX) / SHEET_LEN as u64;
        let ring_len = ring_len * SHEET_LEN as u64;
        let mut tail = Self { resource, file, ring_len, boot, found: Bytes::new() };
        let whole = engine.size(file)? == SHEET_LEN as u64 + ring_len;
        if whole {
            let sheet = run_read(engine, file, 0, SHEET_LEN)?;
            let found = Sheet::decode_of(Kind::Tail, &sheet, Some(resource));
            if found.is_ok_and(|found| found == tail.sheet(cuts)) {
                tail.found = tail.read_ring(engine)?;
            }
        }
        Ok(Some(tail))
    }

    /// The frame at `end`, if it was here when the tail was opened.
    pub(super) fn frame(&self, end: LogPosition) -> Option<Frame> {
        let head = self.bytes(end.lsn, HEAD_LEN)?;
        let len = head_at(&head, self.resource, end.lsn).and_then(|len| usize::try_from(len).ok());
        let bytes = self.bytes(end.lsn, len.filter(|len| *len <= LONE_FRAME_MAX)?)?;
        frame_at(&bytes, self.resource, end.lsn, Some(end.chain)).ok()
    }

    /// Begins anew, empty: the log holds everything, and was truncated `cuts` times. The sheet goes
    /// first and comes last, so no kill in between leaves it with what was there.
    pub(super) fn begin<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        cuts: u64,
    ) -> io::Result<()> {
        self.found = Bytes::new();
        self.end(engine)?;
        let zeroes = zeroes();
        let mut at = SHEET_LEN as u64;
        let end = at + self.ring_len;
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(zeroes.len());
            engine.keep(self.file, at, zeroes.get(..len).unwrap_or_default())?;
            at += len as u64;
        }
        engine.keep(self.file, 0, &self.sheet(cuts).encode())
    }

    /// What is here does not count any more.
    pub(super) fn end<E: Engine + ?Sized>(&self, engine: &mut E) -> io::Result<()> {
        engine.keep(self.file, 0, zeroes().get(..SHEET_LEN).unwrap_or_default())
    }

    /// Whether a frame that ends at `end` has a place here, if the log has everything to `written`
    /// and `under_way` frames are on their way there.
    pub(super) fn takes(&self, bytes: &Bytes, end: Lsn, written: Lsn, under_way: usize) -> bool {
        let len_max = if under_way <= FEW { LONE_FRAME_MAX } else { FRAME_MAX };
        bytes.len() <= len_max && end.since(written) <= self.ring_len
    }

    /// Copies the frame at `lsn`; it survives a kill when this returns.
    pub(super) fn keep<E: Engine + ?Sized>(
        &self,
        engine: &mut E,
        lsn: Lsn,
        bytes: &Bytes,
    ) -> io::Result<()> {
        for (offset, part) in self.places(lsn, bytes.len()) {
            engine.keep(self.file, offset, bytes.get(part).unwrap_or_default())?;
        }
        Ok(())
    }

    fn read_ring<E: Engine + ?Sized>(&self, engine: &mut E) -> io::Result<Bytes> {
        let len = usize::try_from(self.ring_len).unwrap_or(usize::MAX);
        let mut ring = vec![0; len];
        for at in (0..len).step_by(BODY_LEN_MAX) {
            let part = at..len.min(at + BODY_LEN_MAX);
            let bytes = run_read(engine, self.file, (SHEET_LEN + at) as u64, part.len())?;
            ring.get_mut(part).into_iter().for_each(|into| into.copy_from_slice(&bytes));
        }
        Ok(ring.into())
    }

    /// The bytes that were found where those of a position lie.
    fn bytes(&self, at: Lsn, len: usize) -> Option<Bytes> {
        let mut whole = IoBuf::with_len(len);
        for (offset, part) in self.places(at, len) {
            let from = usize::try_from(offset).ok()?.checked_sub(SHEET_LEN)?;
            let bytes = self.found.get(from..from.checked_add(part.len())?)?;
            whole.get_mut(part)?.copy_from_slice(bytes);
        }
        Some(whole.freeze().slice(..len))
    }

    /// Where the bytes at a position lie in the file: in one piece, or in two around the end.
    fn places(
        &self,
        lsn: Lsn,
        len: usize,
    ) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> + use<> {
        let at = lsn.get() % self.ring_len;
        let first = usize::try_from(self.ring_len - at).unwrap_or(usize::MAX).min(len);
        let ring = SHEET_LEN as u64;
        let pieces = [(ring + at, 0..first), (ring, first..len)];
        pieces.into_iter().filter(|(_, part)| !part.is_empty())
    }

    /// The sheet has no point of a history to name: the boot's name is in that place.
    fn sheet(&self, cuts: u64) -> Sheet {
        let point = LogPosition { lsn: Lsn::START, chain: ChainHash::from_bytes(self.boot) };
        let (resource, end) = (self.resource, Lsn::new(self.ring_len));
        Sheet { kind: Kind::Tail, resource, point, end, number: cuts }
    }
}

/// A log can do without a tail; only slower.
pub(super) fn given_up(dir: &Path, tail: io::Result<Option<Tail>>) -> Option<Tail> {
    tail.unwrap_or_else(|error| {
        let dir = dir.display();
        tracing::warn!(%dir, %error, "the log keeps no tail: each write waits for the disk");
        None
    })
}

//! Keeping history: finding it, beginning it, adding to it, forgetting it. `mod.rs` says in which
//! order and why.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hadrian_protocol::checksum::crc32c;
use hadrian_protocol::ids::{ResourceId, VolumeIndex};
use hadrian_protocol::range::ByteRange;
use hadrian_protocol::replica::VolumeGeometry;

use super::book::{Segment, Shelf};
use super::cut::CUT_PART;
use super::layout::{
    BEGIN_LEN_MAX, ENTRIES_MAX, Entry, PAGE, PIECE_MAX, Place, Point, Record, SegmentHeader, begin,
    begin_fits, parse_segment_name, segment_name,
};
use super::scan::{Opened, has_later, open_segment, scan};
use super::{Batch, DIR, Fault, Limits};
use crate::buffer::BODY_LEN_MAX;
use crate::engine::OpenAs;
use crate::resync::image::{Pair, is_zero};
use crate::resync::task::{Io, Open, Reading};

const BEGIN: &str = "begin";
const BEGIN_PART: &str = "begin.part";
/// Reads of the stores under way at a time.
const READING_MAX: usize = 16;

/// What is kept of whom, and where.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) replica_dir: PathBuf,
    pub(crate) resource: ResourceId,
    pub(crate) volumes: Vec<VolumeGeometry>,
    pub(crate) stores: Vec<Pair>,
    pub(crate) limits: Limits,
}

/// Writes history.
#[derive(Debug)]
pub(crate) struct Keeper {
    io: Io,
    kept: Kept,
    dir: PathBuf,
    shelf: Shelf,
    /// The segment that is written. After a start it is another one than before: what a crash
    /// left behind the end of that is never written over.
    file: Option<Open>,
}

/// Forgets the history of the replica in `replica_dir`. May be repeated. Without `begin` nothing
/// counts, so a crash leaves all of it or nothing.
pub(crate) async fn forget(io: &Io, replica_dir: &Path) -> io::Result<()> {
    let path = replica_dir.join(DIR);
    let dir = match io.open_dir(&path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    io.remove(&path.join(BEGIN)).await?;
    io.sync(dir.id).await?;
    let parts = [BEGIN_PART, CUT_PART];
    let is_ours =
        |name: &String| parts.contains(&name.as_str()) || parse_segment_name(name).is_some();
    for name in io.list(&path).await?.into_iter().filter(is_ours) {
        io.remove(&path.join(name)).await?;
    }
    io.sync(dir.id).await?;
    Ok(())
}

impl Keeper {
    /// Begins history at a point, which is where the stores are. What was there before is gone
    /// first, so that segments of two histories never meet.
    pub(crate) async fn begin(io: Io, kept: Kept, from: Point) -> io::Result<Self> {
        forget(&io, &kept.replica_dir).await?;
        let dir = kept.replica_dir.join(DIR);
        io.create_dir(&dir).await?;
        let header = SegmentHeader { number: 1, batch: 1, from };
        let file = create_segment(&io, &dir, kept.resource, header).await?;
        let part = io.create(&dir.join(BEGIN_PART), OpenAs::Buffered).await?;
        io.write(part.id, 0, begin(kept.resource, &kept.volumes).into()).await?;
        io.sync(part.id).await?;
        let folder = io.open_dir(&dir).await?;
        // With its name the first segment's becomes durable, too.
        io.rename(folder.id, BEGIN_PART, BEGIN).await?;
        let segments = VecDeque::from([Segment::begun(header)]);
        let shelf = Shelf::new(segments, from, Place::first_of(1));
        Ok(Self { io, kept, dir, shelf, file: Some(file) })
    }

    /// Finds the history that is there. `Err` says why it is none that can be carried on; none
    /// where there is nothing at all.
    pub(crate) async fn open(io: Io, kept: Kept) -> io::Result<Option<Result<Self, String>>> {
        let dir = kept.replica_dir.join(DIR);
        match is_ours(&io, &dir, &kept).await? {
            None => return Ok(None),
            Some(true) => {}
            Some(false) => {
                return Ok(Some(Err(
                    "it is of another replica, or of volumes of other sizes".into()
                )));
            }
        }
        let (mut segments, last) = find_segments(&io, &dir, kept.resource).await?;
        let Some(last) = last else {
            return Ok(Some(Err("its segments are missing or damaged".into())));
        };
        let scanned = scan(&io, &last, &kept.volumes).await?;
        let place = (scanned.end, scanned.next);
        if has_later(&io, &last, place, &kept.volumes).await? {
            let name = segment_name(last.header.number);
            return Ok(Some(Err(format!("{name} is damaged at byte {}", scanned.end))));
        }
        // What is read here may be in the page cache alone, of a process that was killed.
        io.sync(last.file.id).await?;
        let (end, next) = match &scanned.last {
            Some(record) => (record.to, record.place.after(true)),
            // What there is of a batch is not all of it.
            None => (last.header.from, Place::first_of(last.header.batch)),
        };
        if let Some(last) = segments.back_mut() {
            last.len = scanned.end;
        }
        let shelf = Shelf::new(segments, end, next);
        Ok(Some(Ok(Self { io, kept, dir, shelf, file: None })))
    }

    /// Where all who need it find what is on record.
    pub(crate) fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// Puts a batch on record, durably. The stores must be at where it begins, and stay there.
    pub(crate) async fn record(&mut self, batch: &Batch) -> Result<(), Fault> {
        let mut part = Part::default();
        let mut reading = VecDeque::new();
        for (volume, range) in &batch.ranges {
            let store = self.kept.stores.get(usize::from(volume.index())).copied();
            let source = || io::ErrorKind::NotFound.into();
            let store = store.ok_or_else(|| Fault::Store { volume: *volume, source: source() })?;
            let (mut at, end) = (range.start(), range.end());
            while at < end {
                // To ask costs more than to read what is short.
                let (to, is_hole) = match end - at > PIECE_MAX {
                    true => self.io.stretch(store.buffered, at, end).await,
                    false => (end, false),
                };
                let to = to.clamp(at.saturating_add(1).min(end), end);
                let to = if is_hole { to } else { to.min(at.saturating_add(BODY_LEN_MAX as u64)) };
                let Ok(range) = ByteRange::new(at, to - at) else { break };
                let read = (!is_hole).then(|| store.read(&self.io, at, to - at));
                reading.push_back((*volume, range, read));
                at = to;
                if reading.len() >= READING_MAX {
                    self.take(&mut part, reading.pop_front(), batch).await?;
                }
            }
        }
        while !reading.is_empty() {
            self.take(&mut part, reading.pop_front(), batch).await?;
        }
        self.write(part, batch, true).await?;
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound).map_err(io::Error::from)?;
        self.io.sync(file.id).await?;
        let gone = {
            let mut book = self.shelf.book();
            book.end = batch.to;
            book.trim(self.kept.limits)
        };
        for number in gone {
            // One that a crash brings back is the oldest of what is there, and as true as it was.
            self.io.remove(&self.dir.join(segment_name(number))).await?;
        }
        Ok(())
    }

    /// Takes what was read into the record that is being made; one that is full is written.
    async fn take(
        &mut self,
        part: &mut Part,
        read: Option<(VolumeIndex, ByteRange, Option<Reading>)>,
        batch: &Batch,
    ) -> Result<(), Fault> {
        let Some((volume, range, read)) = read else { return Ok(()) };
        match read {
            None => part.add_zeroes(volume, range.start(), range.len()),
            Some(read) => {
                let bytes = read.bytes().await;
                let bytes = bytes.map_err(|source| Fault::Store { volume, source })?;
                part.add(volume, range.start(), &bytes);
            }
        }
        if part.is_full(self.kept.limits.record_bytes) {
            let full = std::mem::take(part);
            self.write(full, batch, false).await?;
        }
        // Some tenths of a millisecond of work: clients of this thread wait no longer for it.
        part.since += range.len();
        if part.since >= BODY_LEN_MAX as u64 {
            part.since = 0;
            self.io.breathe().await;
        }
        Ok(())
    }

    /// Writes a record behind the others. A full segment is followed by the next, but never within
    /// a batch: the oldest segment that is there begins with a point that can be read.
    async fn write(&mut self, part: Part, batch: &Batch, is_last: bool) -> io::Result<()> {
        let Part { entries, bytes, .. } = part;
        let (number, place, len) = {
            let book = self.shelf.book();
            let last = book.segments.back();
            last.map_or((0, book.next, 0), |last| (last.number, book.next, last.len))
        };
        let is_full = len >= self.kept.limits.segment_bytes && place.part == 0;
        if place.part > 0 && len > self.kept.limits.bytes {
            let text = "a single change replaces more than history_size; set a larger one";
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        }
        let (file, at) = match self.file.take().filter(|_| !is_full) {
            Some(file) => (file, len),
            None => {
                let number = number.saturating_add(1);
                let header = SegmentHeader { number, batch: place.batch, from: batch.from };
                let file = create_segment(&self.io, &self.dir, self.kept.resource, header).await?;
                // Its name before anything in it counts: else a crash could leave a gap.
                let folder = self.io.open_dir(&self.dir).await?;
                self.io.sync(folder.id).await?;
                self.shelf.book().segments.push_back(Segment::begun(header));
                (file, PAGE as u64)
            }
        };
        let (from, to) = (batch.from, batch.to);
        let name = batch.name.clone();
        let record = Record { place, is_last, from, to, name, entries };
        let mut bytes = bytes;
        bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
        let (mut end, mut writing) = (at, Vec::new());
        for part in [Bytes::from(record.encode_head()), Bytes::from(bytes)] {
            let mut done = 0;
            while done < part.len() {
                let piece = part.slice(done..part.len().min(done + BODY_LEN_MAX));
                done += piece.len();
                let offset = end;
                end = end.saturating_add(piece.len() as u64);
                writing.push(self.io.write(file.id, offset, piece));
            }
        }
        for write in writing {
            write.await?;
        }
        let mut book = self.shelf.book();
        book.added(end);
        book.next = place.after(is_last);
        drop(book);
        self.file = Some(file);
        Ok(())
    }
}

/// A record that is being made.
#[derive(Debug, Default)]
struct Part {
    entries: Vec<Entry>,
    bytes: Vec<u8>,
    /// Bytes that were taken since others had their turn.
    since: u64,
}

impl Part {
    fn is_full(&self, limit: u64) -> bool {
        // What one read brings is taken whole.
        let more = BODY_LEN_MAX / PIECE_MAX as usize;
        self.bytes.len() as u64 >= limit || self.entries.len() + more > ENTRIES_MAX
    }

    fn add(&mut self, volume: VolumeIndex, start: u64, bytes: &Bytes) {
        let mut offset = start;
        for piece in bytes.chunks(PIECE_MAX as usize) {
            let len = piece.len() as u64;
            if is_zero(piece) {
                self.add_zeroes(volume, offset, len);
            } else {
                self.entries.push(Entry { volume, offset, len, crc: Some(crc32c(piece)) });
                self.bytes.extend(piece);
            }
            offset += len;
        }
    }

    fn add_zeroes(&mut self, volume: VolumeIndex, offset: u64, len: u64) {
        if let Some(last) = self.entries.last_mut()
            && (last.volume, last.crc) == (volume, None)
            && last.offset + last.len == offset
        {
            last.len += len;
            return;
        }
        self.entries.push(Entry { volume, offset, len, crc: None });
    }
}

/// Makes a segment with its first page, which is durable; its name is not yet.
async fn create_segment(
    io: &Io,
    dir: &Path,
    resource: ResourceId,
    header: SegmentHeader,
) -> io::Result<Open> {
    let path = dir.join(segment_name(header.number));
    let file = io.create(&path, OpenAs::Buffered).await?;
    io.write(file.id, 0, header.encode(resource).into()).await?;
    io.sync(file.id).await?;
    Ok(file)
}

/// Whether the history in a directory is of this replica; none where there is none.
pub(super) async fn is_ours(io: &Io, dir: &Path, kept: &Kept) -> io::Result<Option<bool>> {
    let file = match io.open(&dir.join(BEGIN), OpenAs::ReadOnly).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let wanted = begin(kept.resource, &kept.volumes).len();
    let len = io.size(file.id).await?;
    if len != wanted as u64 || len > BEGIN_LEN_MAX {
        return Ok(Some(false));
    }
    let bytes = io.read(file.id, 0, wanted).bytes().await?;
    Ok(Some(begin_fits(&bytes, kept.resource, &kept.volumes)))
}

/// The segments that lie in a row to the end, and the last of them, open. A newest one whose first
/// page was not written is removed: nothing in it counted. What is before a gap cannot be used and
/// goes, too.
async fn find_segments(
    io: &Io,
    dir: &Path,
    resource: ResourceId,
) -> io::Result<(VecDeque<Segment>, Option<Opened>)> {
    let names = io.list(dir).await?;
    let numbers: Vec<u64> = names.iter().filter_map(|name| parse_segment_name(name)).collect();
    let (mut found, mut last): (VecDeque<Segment>, _) = (VecDeque::new(), None);
    let mut is_whole = true;
    for (behind, number) in numbers.iter().rev().enumerate() {
        let follows = found.front().is_none_or(|next| next.number == number.saturating_add(1));
        let opened = match is_whole && follows {
            true => open_segment(io, dir, (resource, *number)).await?,
            false => None,
        };
        let Some(opened) = opened else {
            // Only the newest can be one that was just being made.
            is_whole &= behind == 0;
            io.remove(&dir.join(segment_name(*number))).await?;
            continue;
        };
        found.push_front(Segment { len: opened.len, ..Segment::begun(opened.header) });
        last.get_or_insert(opened);
    }
    Ok((found, last))
}

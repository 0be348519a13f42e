//! The image at a point of its history: read, and written to where it is a clone. It has files of
//! its own and belongs to a thread of its own, because it waits for the disk where it stands.
//!
//! The image goes on changing meanwhile. What a store gives counts only if, after it was read,
//! nothing is on record that covers it: what changes the store is on record before it does. So each
//! read looks at the record twice, before and behind.
//!
//! A point that the image has not reached yet is the newest one with the frames of the log laid
//! over it, as somebody would write them into a clone.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use hadrian_protocol::frame::{Frame, Record as Change};
use hadrian_protocol::ids::VolumeIndex;
use hadrian_protocol::range::ByteRange;
use hadrian_protocol::replica::VolumeGeometry;

use super::door::Door;
use super::layout::{Entry, PAGE, Place, Point, segment_name};
use super::scan::{bytes_of, open_segment, placed, record_at};
use super::scratch::Scratch;
use crate::buffer::BODY_LEN_MAX;
use crate::engine::{Engine, FileId, OpenAs, TokenSpace, run_read};
use crate::export::Extent;
use crate::journal::inspect;
use crate::pieces::{self, Pieces};
use crate::resync::task::{Task, Tasks};

/// Most pieces of the volumes of a view together: some hundreds of megabytes of memory.
pub(super) const PIECES_MAX: usize = 4 << 20;
/// Segments that are open at a time.
pub(super) const OPEN_MAX: usize = 32;

/// Why the image cannot be looked at as it was.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// There is no history any more, or it begins later now.
    #[error("the history that this was read from has ended: {0}")]
    Ended(String),
    /// It was read for so long that it would have filled the disk.
    #[error(
        "the history from this point on has grown to twice its limit and is not kept any longer \
         for whoever reads it; begin again at a later point, or set a larger history_size"
    )]
    Outgrown,
    /// No batch begins there.
    #[error("there is no point at {0}: `hadrian history` shows the reach")]
    NoPoint(String),
    /// What is on disk is not what was written.
    #[error(
        "{} is damaged at byte {at}; points behind what it holds can be read, and new ones come", 
        .path.display()
    )]
    Damaged {
        /// Which segment.
        path: PathBuf,
        /// Where.
        at: u64,
    },
    /// It would need too much memory.
    #[error(
        "more than {PIECES_MAX} pieces have changed since this point, more than can be held in \
         memory; choose a later point"
    )]
    TooMany,
    /// The log has moved on.
    #[error("the log before {0} is not there any more, or not yet; choose the point again")]
    Log(String),
    /// The system refuses.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

/// Where the bytes of a piece are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    Zero,
    /// In a segment, as one entry.
    Old {
        segment: u64,
        entry: Entry,
        position: u64,
    },
    /// In the scratch file, at the place that it has in the volume.
    Scratch,
}

impl pieces::Source for Source {
    fn goes_on(self, next: Self, _: u64) -> bool {
        // Each entry stays a piece of its own, and has its checksum.
        self == next
    }
}

/// What is read next of the record.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    segment: u64,
    at: u64,
    next: Place,
    /// The first record that counts was seen.
    is_met: bool,
}

/// The image of a resource at one point.
#[derive(Debug)]
pub struct View<E: Engine> {
    door: Door,
    engine: E,
    tasks: Tasks,
    geometry: Rc<[VolumeGeometry]>,
    reader: u64,
    point: Point,
    cursor: Cursor,
    pieces: Vec<Pieces<Source>>,
    stores: Vec<FileId>,
    segments: BTreeMap<u64, FileId>,
    /// The entry that was read last: clients read in smaller pieces than it has.
    last: Option<(u64, u64, Bytes)>,
    pub(super) scratch: Option<Scratch>,
}

impl<E: Engine> View<E> {
    /// The image at a point that [`Door::resolve`] gave, over the stores at `paths`. One that lies
    /// ahead needs room for what the log has up to there: `limit` bytes at most.
    ///
    /// # Errors
    /// [`ViewError`]
    pub fn open(
        door: &Door,
        mut engine: E,
        (paths, point): (&[PathBuf], Point),
        limit: u64,
    ) -> Result<Self, ViewError> {
        let mut stores = Vec::with_capacity(paths.len());
        for path in paths {
            let opened = engine.open(path, OpenAs::ReadOnly);
            stores.push(opened.map_err(|source| ViewError::Io { path: path.clone(), source })?);
        }
        let (reader, first, newest) = {
            let mut book = door.shelf.book();
            let first = book.segment_of(|from| from.at.lsn <= point.at.lsn);
            let first = first.ok_or_else(|| ViewError::NoPoint(point.at.lsn.to_string()))?;
            (book.open_reader(first.number), first, book.end)
        };
        let is_ahead = point.at.lsn > newest.at.lsn;
        let base = if is_ahead { newest } else { point };
        let cursor = Cursor {
            segment: first.number,
            at: PAGE as u64,
            next: Place::first_of(first.batch),
            is_met: false,
        };
        let pieces = door.volumes.iter().map(|_| Pieces::default()).collect();
        let mut view = Self {
            door: door.clone(),
            engine,
            tasks: Tasks::new(TokenSpace::new(1)),
            geometry: door.volumes.clone().into(),
            reader,
            point: base,
            cursor,
            pieces,
            stores,
            segments: BTreeMap::new(),
            last: None,
            scratch: None,
        };
        view.look()?;
        if !view.cursor.is_met && base.at != newest.at {
            return Err(ViewError::NoPoint(point.at.lsn.to_string()));
        }
        if is_ahead {
            view.go_ahead(point, limit)?;
        }
        Ok(view)
    }

    /// The point that it shows.
    #[must_use]
    pub fn point(&self) -> Point {
        self.point
    }

    /// The volumes.
    #[must_use]
    pub fn volumes(&self) -> &[VolumeGeometry] {
        &self.geometry
    }

    /// From here on it may be written to, as long as that takes no more than `limit` bytes beside
    /// what the image holds. They are gone with it.
    pub fn make_writable(&mut self, limit: u64) {
        let dir = self.door.replica_dir.join(super::SCRATCH_DIR);
        let scratch = self.scratch.get_or_insert_with(|| Scratch::new(dir, self.geometry.len()));
        scratch.set_limit(limit);
    }

    fn size(&self, volume: usize) -> u64 {
        self.geometry.get(volume).map_or(0, |volume| volume.size_bytes)
    }

    /// Lays the frames of the log up to a point over it.
    fn go_ahead(&mut self, to: Point, limit: u64) -> Result<(), ViewError> {
        let log = || ViewError::Log(to.at.lsn.to_string());
        self.make_writable(limit);
        let from = self.point.at;
        let dir = self.door.replica_dir.clone();
        let dump = inspect::frames(&mut self.engine, &dir, Some(from.lsn));
        let mut dump = dump.map_err(|_| log())?;
        while self.point.at.lsn < to.at.lsn {
            let next = dump.next(&mut self.engine).map_err(|_| log())?;
            let frame = next.map_err(|_| log())?;
            if frame.lsn() != self.point.at.lsn || !frame.follows(self.point.at.chain) {
                return Err(log());
            }
            self.lay_over(&frame).map_err(|source| ViewError::Io { path: dir.clone(), source })?;
            self.point = Point { at: frame.position_after(), wall: frame.wall() };
        }
        dump.close(&mut self.engine);
        if self.point.at == to.at { Ok(()) } else { Err(log()) }
    }

    fn lay_over(&mut self, frame: &Frame) -> io::Result<()> {
        for record in frame.records() {
            match record {
                Change::Write { volume, range, payload } => {
                    self.write(volume, range.start(), &payload)?;
                }
                Change::Zero { volume, range } | Change::Trim { volume, range } => {
                    self.zero(volume, range)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes in what has come on record since the last look.
    fn look(&mut self) -> Result<(), ViewError> {
        loop {
            let end = {
                let book = self.door.shelf.book();
                if let Some(why) = &book.ended {
                    return Err(ViewError::Ended(why.clone()));
                }
                if !book.has_reader(self.reader) {
                    return Err(ViewError::Outgrown);
                }
                let here =
                    book.segments.iter().find(|segment| segment.number == self.cursor.segment);
                let last = book.segments.back().map(|segment| segment.number);
                here.map(|here| (here.len, last == Some(here.number)))
            };
            let Some((len, is_last)) = end else { return Err(ViewError::Outgrown) };
            if self.cursor.at < len && self.look_at_one(len, is_last)? {
                continue;
            }
            if is_last {
                return Ok(());
            }
            self.next_segment()?;
        }
    }

    /// Takes in the next record of the segment; false where that ends before.
    fn look_at_one(&mut self, len: u64, is_last: bool) -> Result<bool, ViewError> {
        let Cursor { segment, at, next, .. } = self.cursor;
        let file = self.segment(segment)?;
        let (io, bounds) = (self.tasks.io(), self.door.bounds());
        let read = async move { record_at(&io, file, (at, len), &bounds).await };
        let record = self.do_it(segment, read)?;
        let Some(record) = record.filter(|record| record.place == next) else {
            // What an earlier life had not finished may lie at the end of its last segment.
            return if is_last { Err(self.damaged(segment, at)) } else { Ok(false) };
        };
        self.cursor.at = at.saturating_add(record.len());
        self.cursor.next = record.place.after(record.is_last);
        if record.from.at.lsn < self.point.at.lsn {
            return Ok(true);
        }
        if !self.cursor.is_met && record.from.at != self.point.at {
            return Err(ViewError::NoPoint(self.point.at.lsn.to_string()));
        }
        self.cursor.is_met = true;
        for (entry, position) in placed(&record, at) {
            let source = match entry.crc {
                None => Source::Zero,
                Some(_) => Source::Old { segment, entry, position },
            };
            if let Some(pieces) = self.pieces.get_mut(usize::from(entry.volume.index())) {
                pieces.put_under(entry.offset, entry.offset.saturating_add(entry.len), source);
            }
        }
        match self.pieces.iter().map(Pieces::len).sum::<usize>() > PIECES_MAX {
            true => Err(ViewError::TooMany),
            false => Ok(true),
        }
    }

    fn next_segment(&mut self) -> Result<(), ViewError> {
        let (before, number) = (self.cursor.segment, self.cursor.segment.saturating_add(1));
        let (io, dir, resource) = (self.tasks.io(), self.door.dir.clone(), self.door.resource);
        let read = async move {
            let opened = open_segment(&io, &dir, (resource, number)).await?;
            io::Result::Ok(opened.map(|opened| opened.header))
        };
        let header = self.do_it(number, read)?.ok_or_else(|| self.damaged(number, 0))?;
        // A batch that an earlier life did not finish is begun again.
        if header.batch != self.cursor.next.batch {
            return Err(self.damaged(before, self.cursor.at));
        }
        let next = Place::first_of(header.batch);
        self.cursor = Cursor { segment: number, at: PAGE as u64, next, ..self.cursor };
        Ok(())
    }

    fn do_it<T: 'static>(
        &mut self,
        segment: u64,
        work: impl Future<Output = io::Result<T>> + 'static,
    ) -> Result<T, ViewError> {
        let done = self.tasks.run(Task::new(work), &mut self.engine).flatten();
        let path = self.door.dir.join(segment_name(segment));
        done.map_err(|source| ViewError::Io { path, source })
    }

    fn damaged(&self, segment: u64, at: u64) -> ViewError {
        ViewError::Damaged { path: self.door.dir.join(segment_name(segment)), at }
    }

    /// The file of a segment, which is opened if it is not open.
    fn segment(&mut self, number: u64) -> Result<FileId, ViewError> {
        if let Some(file) = self.segments.get(&number) {
            return Ok(*file);
        }
        if self.segments.len() >= OPEN_MAX {
            let engine = &mut self.engine;
            std::mem::take(&mut self.segments).into_values().for_each(|file| engine.close(file));
        }
        let path = self.door.dir.join(segment_name(number));
        let opened = self.engine.open(&path, OpenAs::ReadOnly);
        let file = opened.map_err(|source| ViewError::Io { path, source })?;
        self.segments.insert(number, file);
        Ok(file)
    }

    /// Reads `len` bytes at `offset` of a volume, inside of it.
    ///
    /// # Errors
    /// As the system says; also [`ViewError`] as one of [`io::ErrorKind::Other`].
    pub fn read(&mut self, volume: VolumeIndex, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let index = usize::from(volume.index());
        let end = offset.checked_add(len as u64).filter(|end| *end <= self.size(index));
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let (mut bytes, mut at) = (Vec::with_capacity(len), offset);
        while at < end {
            let most = end.min(at.saturating_add(BODY_LEN_MAX as u64));
            let (to, source) = self.piece(index, at, most)?;
            let wanted = usize::try_from(to - at).unwrap_or(BODY_LEN_MAX);
            match source {
                Some(Source::Zero) => bytes.resize(bytes.len() + wanted, 0),
                Some(Source::Old { segment, entry, position }) => {
                    let old = self.old(segment, (entry, position))?;
                    let begin = usize::try_from(at - entry.offset).unwrap_or(usize::MAX);
                    let part = old.get(begin..begin.saturating_add(wanted));
                    bytes.extend(part.ok_or(io::ErrorKind::InvalidData)?);
                }
                Some(Source::Scratch) => {
                    let file = self.scratch.as_ref().and_then(|scratch| scratch.file(index));
                    let file = file.ok_or(io::ErrorKind::NotFound)?;
                    bytes.extend(self.fetch(file, at, wanted)?);
                }
                None => {
                    let store = self.stores.get(index).copied().ok_or(io::ErrorKind::NotFound)?;
                    let read = self.fetch(store, at, wanted)?;
                    // What was put on record meanwhile may cover it: then that is what it held.
                    if self.piece(index, at, to)? != (to, None) {
                        continue;
                    }
                    bytes.extend(read);
                }
            }
            at = to;
        }
        Ok(bytes)
    }

    fn fetch(&mut self, file: FileId, offset: u64, len: usize) -> io::Result<Bytes> {
        run_read(&mut self.engine, file, offset, len)
    }

    /// What is on record for a byte, and how far that goes.
    fn piece(&mut self, volume: usize, at: u64, end: u64) -> io::Result<(u64, Option<Source>)> {
        self.look().map_err(io::Error::other)?;
        Ok(self.pieces.get(volume).map_or((end, None), |pieces| pieces.at(at, end)))
    }

    fn old(&mut self, segment: u64, (entry, position): (Entry, u64)) -> io::Result<Bytes> {
        if let Some((of, at, bytes)) = &self.last
            && (*of, *at) == (segment, position)
        {
            return Ok(bytes.clone());
        }
        let file = self.segment(segment).map_err(io::Error::other)?;
        let io = self.tasks.io();
        let read = async move { bytes_of(&io, file, (entry, position)).await };
        let bytes = self.do_it(segment, read).map_err(io::Error::other)?;
        let bytes = bytes.ok_or_else(|| io::Error::other(self.damaged(segment, position)))?;
        self.last = Some((segment, position, bytes.clone()));
        Ok(bytes)
    }

    /// Changes the bytes at `offset` of a volume, where it is a clone.
    ///
    /// # Errors
    /// As the system says; [`io::ErrorKind::StorageFull`] beyond the limit of the clone.
    pub fn write(&mut self, volume: VolumeIndex, offset: u64, data: &[u8]) -> io::Result<()> {
        let index = usize::from(volume.index());
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= self.size(index));
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let page = PAGE as u64;
        // In whole pages, so that the limit means what is on disk.
        let first = offset / page * page;
        let last = end.next_multiple_of(page).min(self.size(index));
        let mut all = self.read(volume, first, gap(first, offset))?;
        all.extend(data);
        all.extend(self.read(volume, end, gap(end, last))?);
        let range = ByteRange::new(first, last - first).map_err(io::Error::other)?;
        let taken = self.taken(index, range);
        let scratch = self.scratch.as_mut().ok_or(io::ErrorKind::PermissionDenied)?;
        scratch.write((&mut self.engine, index), (range, taken), all)?;
        self.put_over(index, range, Source::Scratch)
    }

    /// Makes a range read as zeroes, where it is a clone.
    ///
    /// # Errors
    /// As for [`View::write`].
    pub fn zero(&mut self, volume: VolumeIndex, range: ByteRange) -> io::Result<()> {
        let (index, page) = (usize::from(volume.index()), PAGE as u64);
        let size = self.size(index);
        if range.end() > size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let first = range.start().next_multiple_of(page).min(range.end());
        let last = if range.end() == size { size } else { range.end() / page * page };
        let Ok(whole) = ByteRange::new(first, last.saturating_sub(first)) else {
            return self.write(volume, range.start(), &vec![0; gap(range.start(), range.end())]);
        };
        for (from, to) in [(range.start(), whole.start()), (whole.end(), range.end())] {
            if from < to {
                self.write(volume, from, &vec![0; gap(from, to)])?;
            }
        }
        let taken = self.taken(index, whole);
        let scratch = self.scratch.as_mut().ok_or(io::ErrorKind::PermissionDenied)?;
        scratch.give_back((&mut self.engine, index), (whole, taken))?;
        self.put_over(index, whole, Source::Zero)
    }

    fn put_over(&mut self, volume: usize, range: ByteRange, source: Source) -> io::Result<()> {
        let count: usize = self.pieces.iter().map(Pieces::len).sum();
        if count >= PIECES_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Some(pieces) = self.pieces.get_mut(volume) {
            pieces.put_over(range, source);
        }
        Ok(())
    }

    /// Bytes of a range that are in the scratch file already.
    fn taken(&self, volume: usize, range: ByteRange) -> u64 {
        let Some(pieces) = self.pieces.get(volume) else { return 0 };
        let (mut at, mut taken) = (range.start(), 0);
        while at < range.end() {
            let (to, source) = pieces.at(at, range.end());
            taken += if source == Some(Source::Scratch) { to - at } else { 0 };
            at = to;
        }
        taken
    }

    /// The stretches of a volume from `offset` on, at most `count` of them, to `len` bytes at most.
    ///
    /// # Errors
    /// As for [`View::read`].
    pub fn extents(
        &mut self,
        volume: VolumeIndex,
        (offset, len): (u64, u64),
        count: usize,
    ) -> io::Result<Vec<Extent>> {
        let index = usize::from(volume.index());
        let end = offset.saturating_add(len).min(self.size(index));
        let (mut at, mut extents) = (offset, Vec::new());
        while at < end && extents.len() < count {
            let (to, source) = self.piece(index, at, end)?;
            let (to, is_hole) = match (source, self.stores.get(index).copied()) {
                (Some(Source::Zero), _) => (to, true),
                (Some(_), _) | (None, None) => (to, false),
                (None, Some(file)) => {
                    let (hole_end, is_hole) = self.engine.stretch(file, at, to);
                    let hole_end = hole_end.clamp(at + 1, to);
                    if self.piece(index, at, hole_end)? != (hole_end, None) {
                        continue;
                    }
                    (hole_end, is_hole)
                }
            };
            extents.push(Extent { len: to - at, hole: is_hole, zero: is_hole });
            at = to;
        }
        Ok(extents)
    }
}

fn gap(from: u64, to: u64) -> usize {
    usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX)
}

impl<E: Engine> Drop for View<E> {
    fn drop(&mut self) {
        self.door.shelf.book().close_reader(self.reader);
        let files = std::mem::take(&mut self.segments).into_values().chain(self.stores.drain(..));
        files.for_each(|file| self.engine.close(file));
        if let Some(scratch) = &mut self.scratch {
            scratch.close(&mut self.engine);
        }
    }
}

/// Removes what views of an earlier life may have left in a replica's directory.
///
/// # Errors
/// As the system says.
pub fn clear_scratch<E: Engine>(engine: &mut E, replica_dir: &Path) -> io::Result<()> {
    super::scratch::clear(engine, &replica_dir.join(super::SCRATCH_DIR))
}

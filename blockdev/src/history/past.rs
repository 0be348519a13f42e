//! The image at a point of its history, for whoever brings it back there. Unlike a view it is read
//! as a task beside the data path, and rests on an image that does not change meanwhile: the
//! record is looked at once.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use hadrian_protocol::frame::LogPosition;
use hadrian_protocol::ids::VolumeIndex;
use hadrian_protocol::resync::LeafSet;

use super::ViewError;
use super::book::Segment;
use super::door::Door;
use super::layout::{Entry, PAGE, Place, Record, segment_name};
use super::scan::{bytes_of, open_segment, placed, record_at};
use super::view::{OPEN_MAX, PIECES_MAX, Source};
use crate::buffer::BODY_LEN_MAX;
use crate::engine::OpenAs;
use crate::pieces::Pieces;
use crate::resync::image::Pair;
use crate::resync::task::{Io, Open};

/// What every byte of the volumes was at one point.
#[derive(Debug)]
pub(crate) struct Past {
    io: Io,
    door: Door,
    point: LogPosition,
    pieces: Vec<Pieces<Source>>,
    changed: LeafSet,
    segments: BTreeMap<u64, Open>,
    /// The entry that was read last: a leaf may need only some of it.
    last: Option<(u64, u64, Bytes)>,
}

/// Why a part of it cannot be read.
#[derive(Debug)]
pub(crate) enum PastFault {
    /// The record.
    Record(ViewError),
    /// The image itself.
    Store(io::Error),
}

impl From<ViewError> for PastFault {
    fn from(error: ViewError) -> Self {
        Self::Record(error)
    }
}

impl Past {
    /// Looks at all that is on record from a point on, at which a batch must begin.
    pub(crate) async fn at(io: Io, door: Door, point: LogPosition) -> Result<Self, ViewError> {
        let segments = {
            let book = door.shelf.book();
            if let Some(why) = &book.ended {
                return Err(ViewError::Ended(why.clone()));
            }
            let first = book.segment_of(|from| from.at.lsn <= point.lsn);
            let first = first.map_or(0, |first| first.number);
            let all = book.segments.iter().filter(|segment| segment.number >= first);
            all.copied().collect::<Vec<_>>()
        };
        let pieces = door.volumes.iter().map(|_| Pieces::default()).collect();
        let (changed, segments_open) = (LeafSet::new(&door.volumes), BTreeMap::new());
        let mut past =
            Self { io, door, point, pieces, changed, segments: segments_open, last: None };
        past.look(&segments).await?;
        Ok(past)
    }

    /// The leaves of which a part was changed since.
    pub(crate) fn changed(&self) -> &LeafSet {
        &self.changed
    }

    async fn look(&mut self, segments: &[Segment]) -> Result<(), ViewError> {
        let (mut next, mut is_met) = (None, false);
        for (index, segment) in segments.iter().enumerate() {
            let is_last = index + 1 == segments.len();
            next = Some(self.look_at(*segment, (next, is_last), &mut is_met).await?);
        }
        if is_met { Ok(()) } else { Err(self.no_point()) }
    }

    /// Takes in the records of one segment; the place of the one behind them.
    async fn look_at(
        &mut self,
        segment: Segment,
        (expected, is_last): (Option<Place>, bool),
        is_met: &mut bool,
    ) -> Result<Place, ViewError> {
        let Segment { number, len, .. } = segment;
        let opened = open_segment(&self.io, &self.door.dir, (self.door.resource, number)).await;
        let opened = opened.map_err(|source| self.fault(number, source))?;
        let opened = opened.ok_or_else(|| self.damaged(number, 0))?;
        // A batch that an earlier life did not finish is begun again.
        if expected.is_some_and(|expected| expected.batch != opened.header.batch) {
            return Err(self.damaged(number, 0));
        }
        let (mut at, mut next) = (PAGE as u64, Place::first_of(opened.header.batch));
        while at < len {
            let record = record_at(&self.io, opened.file.id, (at, len), &self.door.volumes).await;
            let record = record.map_err(|source| self.fault(number, source))?;
            let Some(record) = record.filter(|record| record.place == next) else {
                // What an earlier life had not finished may lie at the end of its last segment.
                if is_last {
                    return Err(self.damaged(number, at));
                }
                break;
            };
            next = record.place.after(record.is_last);
            if record.from.at.lsn >= self.point.lsn {
                if !*is_met && record.from.at != self.point {
                    return Err(self.no_point());
                }
                *is_met = true;
                self.take_in(&record, (number, at))?;
            }
            at = at.saturating_add(record.len());
            self.io.breathe().await;
        }
        Ok(next)
    }

    fn take_in(&mut self, record: &Record, (segment, at): (u64, u64)) -> Result<(), ViewError> {
        for (entry, position) in placed(record, at) {
            let source = match entry.crc {
                None => Source::Zero,
                Some(_) => Source::Old { segment, entry, position },
            };
            let (start, end) = (entry.offset, entry.offset.saturating_add(entry.len));
            if let Some(pieces) = self.pieces.get_mut(usize::from(entry.volume.index())) {
                pieces.put_under(start, end, source);
                self.changed.mark(entry.volume, start, end);
            }
        }
        match self.pieces.iter().map(Pieces::len).sum::<usize>() > PIECES_MAX {
            true => Err(ViewError::TooMany),
            false => Ok(()),
        }
    }

    /// What a range of a volume held; `store` has what was not changed since.
    pub(crate) async fn read(
        &mut self,
        volume: VolumeIndex,
        (offset, len): (u64, u64),
        store: Pair,
    ) -> Result<Vec<u8>, PastFault> {
        let index = usize::from(volume.index());
        let (mut at, end) = (offset, offset.saturating_add(len));
        let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
        while at < end {
            let most = end.min(at.saturating_add(BODY_LEN_MAX as u64));
            let found = self.pieces.get(index).map(|pieces| pieces.at(at, most));
            let (to, source) = found.unwrap_or((most, None));
            let wanted = usize::try_from(to - at).unwrap_or(BODY_LEN_MAX);
            match source {
                Some(Source::Zero) => bytes.resize(bytes.len() + wanted, 0),
                Some(Source::Old { segment, entry, position }) => {
                    let old = self.old(segment, (entry, position)).await?;
                    let begin = usize::try_from(at - entry.offset).unwrap_or(usize::MAX);
                    let part = old.get(begin..begin.saturating_add(wanted));
                    bytes.extend(part.ok_or_else(|| self.damaged(segment, position))?);
                }
                // Nobody writes to this one.
                Some(Source::Scratch) | None => {
                    let read = store.read(&self.io, at, to - at).bytes().await;
                    bytes.extend(read.map_err(PastFault::Store)?);
                }
            }
            at = to;
        }
        Ok(bytes)
    }

    async fn old(
        &mut self,
        segment: u64,
        (entry, position): (Entry, u64),
    ) -> Result<Bytes, ViewError> {
        if let Some((of, at, bytes)) = &self.last
            && (*of, *at) == (segment, position)
        {
            return Ok(bytes.clone());
        }
        if !self.segments.contains_key(&segment) {
            if self.segments.len() >= OPEN_MAX {
                self.segments.clear();
            }
            let path = self.door.dir.join(segment_name(segment));
            let opened = self.io.open(&path, OpenAs::ReadOnly).await;
            let opened = opened.map_err(|source| ViewError::Io { path, source })?;
            self.segments.insert(segment, opened);
        }
        let file = self.segments.get(&segment).map(|open| open.id);
        let file = file.ok_or_else(|| self.damaged(segment, position))?;
        let bytes = bytes_of(&self.io, file, (entry, position)).await;
        let bytes = bytes.map_err(|source| self.fault(segment, source))?;
        let bytes = bytes.ok_or_else(|| self.damaged(segment, position))?;
        self.last = Some((segment, position, bytes.clone()));
        Ok(bytes)
    }

    fn no_point(&self) -> ViewError {
        ViewError::NoPoint(self.point.lsn.to_string())
    }

    fn fault(&self, segment: u64, source: io::Error) -> ViewError {
        ViewError::Io { path: self.door.dir.join(segment_name(segment)), source }
    }

    fn damaged(&self, segment: u64, at: u64) -> ViewError {
        ViewError::Damaged { path: self.door.dir.join(segment_name(segment)), at }
    }
}

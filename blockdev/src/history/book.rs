//! What is known of the history on disk, shared by the one who writes it and those who read it on
//! threads of their own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hadrian_protocol::time::WallTime;

use super::layout::{Place, Point};
use super::{Limits, layout};

/// Of the readers' segments so many times the limit is kept for them; then they are ended.
const PINNED_FACTOR: u64 = 2;

/// How far back the image can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reach {
    /// The oldest point.
    pub oldest: Point,
    /// The newest: the image as it is, or is about to be.
    pub newest: Point,
    /// How many points there are.
    pub points: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// One file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    /// The batch of its first record begins here.
    pub(crate) from: Point,
    /// The batch that begins it.
    pub(super) batch: u64,
    /// Bytes that are written and durable.
    pub(crate) len: u64,
}

/// The history as it is durable on disk. Locked for moments only, and by the data path's thread
/// only where history is kept.
#[derive(Debug)]
pub(crate) struct Book {
    /// In order; never empty.
    pub(crate) segments: VecDeque<Segment>,
    /// Where the last batch ends.
    pub(crate) end: Point,
    /// The place of the next record.
    pub(super) next: Place,
    /// Who reads, and the first segment that he needs.
    readers: BTreeMap<u64, u64>,
    last_reader: u64,
    /// Why there is nothing to be read here any more.
    pub(crate) ended: Option<String>,
}

/// A book, where all who need it find it.
#[derive(Clone, Debug)]
pub(crate) struct Shelf(Arc<Mutex<Book>>);

impl Shelf {
    pub(super) fn new(segments: VecDeque<Segment>, end: Point, next: Place) -> Self {
        let (readers, last_reader, ended) = (BTreeMap::new(), 0, None);
        let book = Book { segments, end, next, readers, last_reader, ended };
        Self(Arc::new(Mutex::new(book)))
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        // Nothing in here is half done when a thread panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    pub(crate) fn reach(&self) -> Reach {
        let first = self.segments.front();
        let before = first.map_or(self.next.batch, |first| first.batch);
        Reach {
            oldest: first.map_or(self.end, |first| first.from),
            newest: self.end,
            points: self.next.batch.saturating_sub(before) + 1,
            bytes: self.bytes(),
        }
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }

    /// A record was added to the last segment, and is durable.
    pub(super) fn added(&mut self, len: u64) {
        if let Some(last) = self.segments.back_mut() {
            last.len = len;
        }
    }

    /// From here on segments from `first` on are kept for a reader, until he closes.
    pub(crate) fn open_reader(&mut self, first: u64) -> u64 {
        self.last_reader += 1;
        self.readers.insert(self.last_reader, first);
        self.last_reader
    }

    /// Whether the reader's segments are still kept.
    pub(crate) fn has_reader(&self, reader: u64) -> bool {
        self.readers.contains_key(&reader)
    }

    pub(crate) fn close_reader(&mut self, reader: u64) {
        self.readers.remove(&reader);
    }

    /// Strikes out what exceeds the limits and says which segments these were. What a reader needs
    /// stays up to twice the limit; then the reader is ended, because history grows while he reads.
    pub(super) fn trim(&mut self, limits: Limits) -> Vec<u64> {
        let mut gone = Vec::new();
        while let (Some(first), Some(second)) = (self.segments.front(), self.segments.get(1)) {
            let bytes = self.bytes();
            let too_old = limits.age.is_some_and(|age| is_older(second.from, self.end, age));
            if bytes <= limits.bytes && !too_old {
                break;
            }
            let number = first.number;
            let is_pinned = self.readers.values().any(|needs| *needs <= number);
            if is_pinned && bytes <= limits.bytes.saturating_mul(PINNED_FACTOR) {
                break;
            }
            self.readers.retain(|_, needs| *needs > number);
            self.segments.pop_front();
            gone.push(number);
        }
        gone
    }

    /// The segment that holds what began last at or before a point, among those of which
    /// `is_before` says so of where they begin. The first, where it says so of none.
    pub(crate) fn segment_of(&self, is_before: impl Fn(Point) -> bool) -> Option<Segment> {
        let mut from_the_end = self.segments.iter().rev();
        let found = from_the_end.find(|segment| is_before(segment.from));
        found.or(self.segments.front()).copied()
    }
}

/// Whether a point is at least so much older than another. One of unknown age is not: it would go
/// without anybody knowing that it may.
fn is_older(point: Point, newest: Point, age: std::time::Duration) -> bool {
    let since = newest.wall.as_micros().saturating_sub(point.wall.as_micros());
    point.wall != WallTime::default() && u128::from(since) >= age.as_micros()
}

impl Segment {
    /// One that was just begun.
    pub(super) fn begun(header: layout::SegmentHeader) -> Self {
        let layout::SegmentHeader { number, batch, from } = header;
        Self { number, from, batch, len: layout::PAGE as u64 }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hadrian_protocol::frame::LogPosition;
    use hadrian_protocol::ids::{Lsn, ResourceId};

    use super::*;

    fn point(seconds: u64) -> Point {
        let genesis = LogPosition::genesis(ResourceId::from_bytes([1; 16]));
        let at = LogPosition { lsn: Lsn::new(seconds * 4096), ..genesis };
        Point { at, wall: WallTime::from_micros(seconds * 1_000_000) }
    }

    /// Five segments of a mebibyte, a batch and ten seconds each.
    fn shelf() -> Shelf {
        let segment =
            |number: u64| Segment { number, from: point(number * 10), batch: number, len: 1 << 20 };
        Shelf::new((1..=5).map(segment).collect(), point(60), Place { batch: 6, part: 0 })
    }

    #[test]
    fn what_exceeds_the_bytes_or_the_age_goes_and_the_oldest_first() {
        let bytes = Limits::new(None, 3 << 20);
        assert_eq!(shelf().book().trim(bytes), [1, 2]);
        // What is forty seconds old or younger begins in the second segment.
        let age = Limits::new(Some(Duration::from_secs(40)), 1 << 40);
        let (shelf, untouched) = (shelf(), shelf());
        assert_eq!(shelf.book().trim(age), [1]);
        assert_eq!(shelf.book().reach().oldest, point(20));
        assert_eq!(shelf.book().reach().points, 5);
        assert_eq!(untouched.book().trim(Limits::new(None, 1)), [1, 2, 3, 4], "the last stays");
    }

    #[test]
    fn what_a_reader_needs_stays_until_it_is_twice_the_limit() {
        let shelf = shelf();
        let mut book = shelf.book();
        let reader = book.open_reader(2);
        assert_eq!(book.trim(Limits::new(None, 3 << 20)), [1]);
        assert!(book.has_reader(reader));
        assert_eq!(book.trim(Limits::new(None, 1 << 20)), [2, 3, 4]);
        assert!(!book.has_reader(reader), "nobody reads what is gone");
    }
}

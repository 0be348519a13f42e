//! The overlay of one volume: what its log holds and its backing store does not have yet.
//!
//! A change may reach the store only after its frame is durable here and cannot be taken back any
//! more (design §2.2, §2.5). Until then this map answers for it: byte ranges, each with the newest
//! content and with the end of the frame that wrote it. The payloads are slices of the frames that
//! wait in the queue anyway, or lie in the log, so an entry costs its node and nothing else.
//!
//! Invariant: entries never overlap, and each lies inside the range of the one record that made it.

use std::collections::{BTreeMap, btree_map};

use bytes::Bytes;
use hadrian_protocol::ids::Lsn;
use hadrian_protocol::range::ByteRange;

use crate::journal::Spot;

/// What a range holds by the overlay's word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// These bytes; exactly as long as the range.
    Data(Bytes),
    /// The bytes that begin at this place of the log.
    Logged(Spot),
    /// Zeroes, by a write-zeroes or a trim.
    Zero,
}

/// Where the newest bytes of a range are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// Here, in memory that the frame shares.
    Memory(Bytes),
    /// In the log from this place on, in the frame that ends at this position.
    Log(Spot, Lsn),
    /// Nowhere: they are zeroes.
    Zero,
    /// In the backing store; no frame in the queue changes them.
    Store,
}

/// The changes of one volume that its backing store does not have yet.
#[derive(Default, Debug)]
pub struct Overlay {
    // Keyed by the first byte.
    entries: BTreeMap<u64, Entry>,
    payload_bytes: u64,
}

impl Overlay {
    /// An overlay that says "store" everywhere.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The range now holds `content`, by the frame that ends at `lsn`; what older frames said of
    /// these bytes is forgotten.
    ///
    /// # Panics
    /// If data is not as long as the range.
    pub fn insert(&mut self, range: ByteRange, content: Content, lsn: Lsn) {
        if let Content::Data(bytes) = &content {
            assert_eq!(bytes.len() as u64, range.len(), "an entry's data is as long as its range");
        }
        self.cut(range);
        let end = range.end();
        self.put(range.start(), Entry { end, lsn, content });
    }

    /// The store has what the frame that ends at `lsn` wrote into `range`: forgets it, except
    /// where a newer frame has written since.
    pub fn remove_applied(&mut self, range: ByteRange, lsn: Lsn) {
        let mut at = range.start();
        while let Some((start, end, of)) = self.first_overlap(at, range.end()) {
            let shared =
                ByteRange::new(start, end - start).ok().and_then(|entry| entry.intersection(range));
            if let (true, Some(shared)) = (of == lsn, shared) {
                self.cut(shared);
            }
            at = end;
        }
    }

    /// What the frame that ends at `lsn` wrote into `range` lies at `spot` of the log and is not
    /// kept in memory any more; where a newer frame has written since, nothing changes.
    pub fn leave(&mut self, range: ByteRange, spot: Spot, lsn: Lsn) {
        let own = self.entries.range_mut(range.start()..range.end());
        for (start, entry) in own.filter(|(_, entry)| entry.lsn == lsn) {
            self.payload_bytes -= entry.payload_len();
            entry.content = Content::Logged(spot.behind(start - range.start()));
        }
    }

    /// Whether frames that end behind `lsn`, and at or before `limit`, have written all of `range`.
    #[must_use]
    pub fn is_covered(&self, range: ByteRange, lsn: Lsn, limit: Lsn) -> bool {
        let mut at = range.start();
        while at < range.end() {
            match self.first_overlap(at, range.end()) {
                Some((start, end, of)) if start <= at && of > lsn && of <= limit => at = end,
                _ => return false,
            }
        }
        true
    }

    /// Forgets everything, for a rebuild from the frames that stay.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.payload_bytes = 0;
    }

    /// The pieces of `range`, in order and without gaps.
    #[must_use]
    pub fn lookup(&self, range: ByteRange) -> Lookup<'_> {
        let (start, end) = (range.start(), range.end());
        // The entry that began before the range and reaches into it, if there is one.
        let first = self.covering(start).map_or(start, |(first, _)| first);
        Lookup { entries: self.entries.range(first..end), next: None, at: start, end }
    }

    /// Bytes of payload that entries refer to. Frames are shared whole, so the memory that they
    /// hold is counted by the queue, not here.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Number of entries.
    #[must_use]
    pub fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// Whether the store has everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes `range` out of whatever entries hold parts of it.
    fn cut(&mut self, range: ByteRange) {
        let (start, end) = (range.start(), range.end());
        if let Some((first, last)) = self.covering(start)
            && first < start
            && let Some(mut entry) = self.take(first)
        {
            if last > end {
                self.put(end, entry.after(first, end));
            }
            entry.shorten(first, start);
            self.put(first, entry);
        }
        while let Some((&first, _)) = self.entries.range(start..end).next()
            && let Some(entry) = self.take(first)
        {
            if entry.end > end {
                self.put(end, entry.after(first, end));
            }
        }
    }

    /// First byte and end of the entry that holds byte `at`.
    fn covering(&self, at: u64) -> Option<(u64, u64)> {
        let (&start, entry) = self.entries.range(..=at).next_back()?;
        (entry.end > at).then_some((start, entry.end))
    }

    /// First byte, end and author of the first entry that holds a byte of `at..end`.
    fn first_overlap(&self, at: u64, end: u64) -> Option<(u64, u64, Lsn)> {
        let first = self.covering(at).map_or(at, |(start, _)| start);
        let (&start, entry) = self.entries.range(first..end.max(first)).next()?;
        Some((start, entry.end, entry.lsn))
    }

    fn take(&mut self, start: u64) -> Option<Entry> {
        let entry = self.entries.remove(&start)?;
        self.payload_bytes -= entry.payload_len();
        Some(entry)
    }

    fn put(&mut self, start: u64, entry: Entry) {
        self.payload_bytes += entry.payload_len();
        let before = self.entries.insert(start, entry);
        assert!(before.is_none(), "entries of an overlay never overlap");
    }
}

/// Walks the pieces of a range; see [`Overlay::lookup`].
#[derive(Debug)]
pub struct Lookup<'a> {
    entries: btree_map::Range<'a, u64, Entry>,
    // The entry that waits behind a store piece.
    next: Option<(u64, &'a Entry)>,
    at: u64,
    end: u64,
}

impl Iterator for Lookup<'_> {
    type Item = (ByteRange, Piece);

    fn next(&mut self) -> Option<Self::Item> {
        let entry =
            self.next.take().or_else(|| self.entries.next().map(|(&start, entry)| (start, entry)));
        let (until, piece) = match entry {
            Some((start, entry)) if start > self.at => {
                self.next = Some((start, entry));
                (start, Piece::Store)
            }
            Some((start, entry)) => {
                let until = entry.end.min(self.end);
                (until, entry.piece(start, self.at, until))
            }
            None => (self.end, Piece::Store),
        };
        // Empty exactly when the range has been walked to its end.
        let range = ByteRange::new(self.at, until.checked_sub(self.at)?).ok()?;
        self.at = until;
        Some((range, piece))
    }
}

#[derive(Debug)]
struct Entry {
    end: u64,
    lsn: Lsn,
    content: Content,
}

impl Entry {
    fn payload_len(&self) -> u64 {
        match &self.content {
            Content::Data(bytes) => bytes.len() as u64,
            Content::Logged(_) | Content::Zero => 0,
        }
    }

    /// The part of the entry beginning at `start` that lies behind `at`.
    fn after(&self, start: u64, at: u64) -> Self {
        let content = match &self.content {
            Content::Data(bytes) => Content::Data(bytes.slice(index(at - start)..)),
            Content::Logged(spot) => Content::Logged(spot.behind(at - start)),
            Content::Zero => Content::Zero,
        };
        let (end, lsn) = (self.end, self.lsn);
        Self { end, lsn, content }
    }

    fn shorten(&mut self, start: u64, end: u64) {
        self.end = end;
        if let Content::Data(bytes) = &mut self.content {
            bytes.truncate(index(end - start));
        }
    }

    fn piece(&self, start: u64, from: u64, until: u64) -> Piece {
        match &self.content {
            Content::Data(bytes) => {
                Piece::Memory(bytes.slice(index(from - start)..index(until - start)))
            }
            Content::Logged(spot) => Piece::Log(spot.behind(from - start), self.lsn),
            Content::Zero => Piece::Zero,
        }
    }
}

/// An offset inside an entry's data; that is at most as long as memory can hold.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;

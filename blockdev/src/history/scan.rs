//! Reading segments, record by record.

use std::io;
use std::path::Path;

use bytes::Bytes;
use hadrian_protocol::checksum::crc32c;
use hadrian_protocol::ids::ResourceId;
use hadrian_protocol::replica::VolumeGeometry;

use super::layout::{
    Entry, PAGE, Place, Record, SegmentHeader, decode_record, entry_count, segment_name,
};
use crate::buffer::BODY_LEN_MAX;
use crate::engine::{FileId, OpenAs};
use crate::resync::task::{Io, Open};

/// A segment that is open to be read.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) header: SegmentHeader,
    pub(super) file: Open,
    /// Its length in bytes.
    pub(super) len: u64,
}

/// Opens a segment; none where its first page is not that of a segment of this number.
pub(super) async fn open_segment(
    io: &Io,
    dir: &Path,
    (resource, number): (ResourceId, u64),
) -> io::Result<Option<Opened>> {
    let file = io.open(&dir.join(segment_name(number)), OpenAs::ReadOnly).await?;
    let len = io.size(file.id).await?;
    if len < PAGE as u64 {
        return Ok(None);
    }
    let page = io.read(file.id, 0, PAGE).bytes().await?;
    let header = SegmentHeader::decode(&page, resource, number);
    Ok(header.map(|header| Opened { header, file, len }))
}

/// The record at a byte of a file that is to be read up to `end`; none where there is no whole
/// one. Its bytes are not looked at.
pub(super) async fn record_at(
    io: &Io,
    file: FileId,
    (at, end): (u64, u64),
    volumes: &[VolumeGeometry],
) -> io::Result<Option<Record>> {
    let fits = |len: u64| at.checked_add(len).is_some_and(|to| to <= end);
    if !fits(PAGE as u64) {
        return Ok(None);
    }
    let page = io.read(file, at, PAGE).bytes().await?;
    let Some(count) = entry_count(&page) else { return Ok(None) };
    let head_len = Record::head_len(count);
    let head = match head_len == PAGE as u64 {
        true => page,
        false if !fits(head_len) => return Ok(None),
        false => {
            // At most that of the most entries.
            let len = usize::try_from(head_len).unwrap_or(BODY_LEN_MAX);
            io.read(file, at, len).bytes().await?
        }
    };
    let record = decode_record(&head, volumes);
    Ok(record.filter(|record| fits(record.len())))
}

/// Where each entry of a record that begins at `at` has its bytes.
pub(super) fn placed(record: &Record, at: u64) -> impl Iterator<Item = (Entry, u64)> + '_ {
    let mut position = at.saturating_add(Record::head_len(record.entries.len()));
    record.entries.iter().map(move |entry| {
        let begins = position;
        position = position.saturating_add(entry.stored());
        (*entry, begins)
    })
}

/// The bytes of an entry, if they are those that were written.
pub(super) async fn bytes_of(
    io: &Io,
    file: FileId,
    (entry, position): (Entry, u64),
) -> io::Result<Option<Bytes>> {
    let len = usize::try_from(entry.stored()).unwrap_or(BODY_LEN_MAX);
    let bytes = io.read(file, position, len).bytes().await?;
    Ok(entry.crc.is_none_or(|crc| crc32c(&bytes) == crc).then_some(bytes))
}

/// What a segment holds to its end, or to the first byte that is not what was written.
#[derive(Debug)]
pub(super) struct Scanned {
    /// The last record that ends a batch, and where the file has all of that.
    pub(super) last: Option<Record>,
    /// The place of the record that would be next.
    pub(super) next: Place,
    /// Where the first byte is that is not of a whole record.
    pub(super) end: u64,
}

/// Reads all of a segment, with the bytes of each entry.
pub(super) async fn scan(
    io: &Io,
    opened: &Opened,
    volumes: &[VolumeGeometry],
) -> io::Result<Scanned> {
    let (mut at, mut next, mut last) = (PAGE as u64, Place::first_of(opened.header.batch), None);
    let (file, len) = (opened.file.id, opened.len);
    while let Some(record) = record_at(io, file, (at, len), volumes).await? {
        if record.place != next || !has_bytes(io, file, (&record, at)).await? {
            break;
        }
        at += record.len();
        next = next.after(record.is_last);
        if record.is_last {
            last = Some(record);
        }
        io.breathe().await;
    }
    Ok(Scanned { last, next, end: at })
}

async fn has_bytes(io: &Io, file: FileId, (record, at): (&Record, u64)) -> io::Result<bool> {
    for (entry, position) in placed(record, at) {
        // Zeroes have none.
        if entry.crc.is_some() && bytes_of(io, file, (entry, position)).await?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a later batch than `next` names begins behind `from`: then what is at `from` is no torn
/// tail, because nothing of a batch is written before the one before is durable.
pub(super) async fn has_later(
    io: &Io,
    opened: &Opened,
    (from, next): (u64, Place),
    volumes: &[VolumeGeometry],
) -> io::Result<bool> {
    let mut at = from.next_multiple_of(PAGE as u64);
    while at.saturating_add(PAGE as u64) <= opened.len {
        let record = record_at(io, opened.file.id, (at, opened.len), volumes).await?;
        if record.is_some_and(|record| record.place.batch > next.batch) {
            return Ok(true);
        }
        at += PAGE as u64;
    }
    Ok(false)
}

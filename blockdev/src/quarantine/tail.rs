//! Saving frames of the log, in the format of a truncation's quarantine file.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use bytes::Bytes;
use hadrian_protocol::frame::{HEAD_LEN, peek_lsn};
use hadrian_protocol::ids::{Lsn, ResourceId};

use super::{fault, free_name};
use crate::engine::OpenAs;
use crate::journal::quarantine_sheet;
use crate::resync::task::{Io, Open};
use crate::resync::{LogPart, SinkError, Tail};

/// Reads under way at a time.
const READING_MAX: usize = 4;

/// Saves a part of the log under its name, durably; the log is left as it is.
pub(crate) async fn save_tail(
    disk: &Io,
    dir: &Path,
    resource: ResourceId,
    mut tail: Tail,
) -> Result<(), SinkError> {
    let there: u64 = tail.parts.iter().map(|part| part.len as u64).sum();
    if there != tail.end.since(tail.from) {
        // Nothing is given up of which a part would be missing (I6).
        return Err(SinkError::Log { source: io::ErrorKind::UnexpectedEof.into() });
    }
    if tail.is_cut {
        let skipped = skip_to_frame(disk, resource, &mut tail).await;
        skipped.map_err(|source| SinkError::Log { source })?;
    }
    let (from, end) = (tail.from.get(), tail.end.get());
    let bytes = end.saturating_sub(from);
    let failed = |source| fault(dir, bytes, source);
    let there = disk.list(dir).await.map_err(failed)?;
    let stem = format!("tail-{from:016x}-{end:016x}");
    let (part, name) = (format!("{stem}.frames.part"), free_name(&stem, "frames", &there));
    let folder = disk.open_dir(dir).await.map_err(failed)?;
    let file = disk.create(&dir.join(&part), OpenAs::Direct).await.map_err(failed)?;
    let sheet = quarantine_sheet(resource, tail.from, tail.end);
    let at = sheet.len() as u64;
    disk.write(file.id, 0, sheet).await.map_err(failed)?;
    copy(disk, (&file, at), &tail.parts).await.map_err(|fault_of| match fault_of {
        Ok(source) => SinkError::Log { source },
        Err(source) => failed(source),
    })?;
    disk.sync(file.id).await.map_err(failed)?;
    disk.rename(folder.id, &part, &name).await.map_err(failed)?;
    Ok(())
}

/// An error of the log, or of the file.
type CopyFault = Result<io::Error, io::Error>;

async fn copy(io: &Io, (file, mut at): (&Open, u64), parts: &[LogPart]) -> Result<(), CopyFault> {
    let (mut left, mut reading) = (parts.iter(), VecDeque::new());
    loop {
        while reading.len() < READING_MAX
            && let Some(part) = left.next()
        {
            reading.push_back(io.read(part.file, part.offset, part.len));
        }
        let Some(read) = reading.pop_front() else { return Ok(()) };
        let bytes = read.bytes().await.map_err(Ok)?;
        let len = bytes.len() as u64;
        io.write(file.id, at, bytes).await.map_err(Err)?;
        at += len;
    }
}

/// A log whose first frames were recycled begins in the middle of one: looks for the next.
async fn skip_to_frame(io: &Io, resource: ResourceId, tail: &mut Tail) -> io::Result<()> {
    let mut parts = VecDeque::from(std::mem::take(&mut tail.parts));
    while let Some(part) = parts.front_mut() {
        let bytes: Bytes = io.read(part.file, part.offset, part.len).bytes().await?;
        let pages = bytes.chunks_exact(HEAD_LEN).zip(0..);
        let at = |page: u64| tail.from.get().saturating_add(page * HEAD_LEN as u64);
        let found = pages.map(|(page, number)| (peek_lsn(page, resource), number));
        let mut found = found.filter(|(lsn, number)| *lsn == Some(Lsn::new(at(*number))));
        let skip = found.next().map_or(part.len, |(_, page)| {
            usize::try_from(page).unwrap_or(0).saturating_mul(HEAD_LEN)
        });
        tail.from = Lsn::new(tail.from.get().saturating_add(skip as u64));
        if skip < part.len {
            part.offset += skip as u64;
            part.len -= skip;
            break;
        }
        parts.pop_front();
    }
    tail.parts = parts.into();
    Ok(())
}

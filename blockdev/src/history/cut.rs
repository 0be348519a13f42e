//! Cutting history at a point of it, because the image goes back there: what is on record behind it
//! is of another branch, and what is before stays true.
//!
//! ```text
//! segments that begin behind the point, away → sync the directory → what the one with the point
//!   has before it, in a file of its own → sync → rename over the old one
//! ```
//!
//! The superblock says before the first step that the image is switching, and until that is over
//! nobody takes history up without cutting it again. So each step only has to find what the ones
//! before it left.

use std::io;
use std::path::Path;

use hadrian_protocol::frame::LogPosition;

use super::DIR;
use super::keeper::{Kept, is_ours};
use super::layout::{PAGE, Place, parse_segment_name, segment_name};
use super::scan::{Opened, open_segment, record_at};
use crate::buffer::BODY_LEN_MAX;
use crate::engine::OpenAs;
use crate::resync::task::Io;

/// Name of a segment that is not yet one.
pub(super) const CUT_PART: &str = "cut.part";

/// Makes the history of a replica end at a point, durably; whether there is one that does. May be
/// repeated.
pub(crate) async fn cut(io: &Io, kept: &Kept, at: LogPosition) -> io::Result<bool> {
    let dir = kept.replica_dir.join(DIR);
    if is_ours(io, &dir, kept).await? != Some(true) {
        return Ok(false);
    }
    let Some((number, opened)) = drop_behind(io, &dir, kept, at).await? else { return Ok(false) };
    let Some(len) = len_before(io, &opened, kept, at).await? else { return Ok(false) };
    if len == opened.len {
        return Ok(true);
    }
    let folder = io.open_dir(&dir).await?;
    let part = io.create(&dir.join(CUT_PART), OpenAs::Buffered).await?;
    let mut done = 0;
    while done < len {
        let piece = usize::try_from(len - done).unwrap_or(BODY_LEN_MAX).min(BODY_LEN_MAX);
        let bytes = io.read(opened.file.id, done, piece).bytes().await?;
        io.write(part.id, done, bytes).await?;
        done += piece as u64;
        io.breathe().await;
    }
    io.sync(part.id).await?;
    io.rename(folder.id, CUT_PART, &segment_name(number)).await?;
    Ok(true)
}

/// Removes the segments that begin behind the point, the newest first; the last of what is left.
async fn drop_behind(
    io: &Io,
    dir: &Path,
    kept: &Kept,
    at: LogPosition,
) -> io::Result<Option<(u64, Opened)>> {
    let names = io.list(dir).await?;
    let numbers: Vec<u64> = names.iter().filter_map(|name| parse_segment_name(name)).collect();
    for number in numbers.into_iter().rev() {
        let opened = open_segment(io, dir, (kept.resource, number)).await?;
        let found = opened.filter(|opened| opened.header.from.at.lsn <= at.lsn);
        if let Some(opened) = found {
            let folder = io.open_dir(dir).await?;
            io.sync(folder.id).await?;
            return Ok(Some((number, opened)));
        }
        io.remove(&dir.join(segment_name(number))).await?;
    }
    Ok(None)
}

/// Bytes of a segment before the batch that begins at the point; none where there is no such batch,
/// nor one that ends there.
async fn len_before(
    io: &Io,
    opened: &Opened,
    kept: &Kept,
    at: LogPosition,
) -> io::Result<Option<u64>> {
    let (mut from, mut next) = (PAGE as u64, Place::first_of(opened.header.batch));
    let mut ends = opened.header.from.at;
    while ends != at {
        let place = (from, opened.len);
        let record = record_at(io, opened.file.id, place, &kept.volumes).await?;
        let Some(record) = record.filter(|record| record.place == next) else { return Ok(None) };
        from = from.saturating_add(record.len());
        next = record.place.after(record.is_last);
        if record.is_last {
            ends = record.to.at;
        }
        io.breathe().await;
    }
    Ok(Some(from))
}

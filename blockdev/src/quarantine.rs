//! What a replica held that the primary's history does not, saved before a resync or a repair
//! replaces it (design §6.4, I6): frames of its log, in the format of a truncation, and blocks of
//! its image. Of a repair, FROM and END are one and the same position: that of the image.
//!
//! ```text
//! REPLICA/quarantine/tail-FROM-END.frames    the frames of the log from the fork on
//! REPLICA/quarantine/image-FROM-END.blocks   what the image held where it was changed
//!
//! 0        4096
//! | header | head | content | head | content | … | end |
//! ```
//!
//! Every part of a file of blocks has a checksum of its own, so it can be read as far as it was
//! written, also where a crash has ended it. The names carry the positions; a second file of the
//! same positions gets a number behind them.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod backend;
mod read;
mod room;
mod tail;
mod view;
mod walk;

use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes};
use hadrian_protocol::checksum::{crc32c, crc32c_of_two};
use hadrian_protocol::ids::{Lsn, ResourceId, VolumeIndex};
use hadrian_protocol::replica::VolumeGeometry;

use crate::engine::OpenAs;
use crate::resync::SinkError;
use crate::resync::task::{Io, Open};

pub use backend::ViewBackend;
pub use read::{Block, BlocksDump, BlocksError, BlocksHeader, blocks};
pub use room::Room;
pub(crate) use tail::save_tail;
pub use view::{PIECES_MAX, View, ViewError};
pub use walk::{Ending, Kind, Part, Summary, Unusable, Walk, summarize};

/// Name of the directory in that of a replica.
pub(crate) const DIR: &str = "quarantine";
/// Length of the header of a file of blocks, in bytes.
const HEADER_LEN: usize = 4096;
const MAGIC: [u8; 8] = *b"HDRNBLKS";
/// Version 1: the first.
const VERSION: u16 = 1;
/// Length of the head of a block, and of the end of a file, in bytes.
const HEAD_LEN: usize = 32;
const BLOCK_MAGIC: [u8; 4] = *b"BLCK";
const END_MAGIC: [u8; 4] = *b"DONE";
/// Bytes that are gathered before they are written.
const GATHERED_MAX: usize = 512 << 10;

fn encode_header(
    resource: ResourceId,
    (from, end): (Lsn, Lsn),
    volumes: &[VolumeGeometry],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_LEN);
    out.put_slice(&MAGIC);
    out.put_u16_le(VERSION);
    out.put_slice(resource.as_bytes());
    out.put_u64_le(from.get());
    out.put_u64_le(end.get());
    out.put_u16_le(u16::try_from(volumes.len()).unwrap_or(u16::MAX));
    for volume in volumes {
        out.put_u64_le(volume.size_bytes);
        out.put_u32_le(volume.block_size);
    }
    out.resize(HEADER_LEN - 4, 0);
    let crc = crc32c(&out);
    out.put_u32_le(crc);
    out
}

/// The head of a block, or with the other magic the end of a file, which counts its blocks where a
/// block has its offset.
fn encode_head(magic: [u8; 4], volume: u16, offset: u64, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_LEN);
    out.put_slice(&magic);
    out.put_u16_le(volume);
    out.put_u16_le(0);
    out.put_u64_le(offset);
    out.put_u32_le(u32::try_from(content.len()).unwrap_or(u32::MAX));
    out.resize(HEAD_LEN - 4, 0);
    let crc = crc32c_of_two(&out, content);
    out.put_u32_le(crc);
    out
}

/// Writes a file of blocks.
#[derive(Debug)]
pub(crate) struct BlocksWriter {
    io: Io,
    dir: PathBuf,
    /// The name that it has while it is written, and then.
    names: (String, String),
    folder: Open,
    file: Open,
    at: u64,
    count: u64,
    gathered: Vec<u8>,
    /// Something was written that no sync covers.
    is_unsynced: bool,
    is_named: bool,
}

impl BlocksWriter {
    /// Begins a file. In place, it has its own name at once: what it says may be the only copy
    /// when a crash ends it. Otherwise the image still holds everything until it is finished, and
    /// the next attempt begins it anew.
    pub(crate) async fn begin(
        io: &Io,
        dir: &Path,
        (resource, span, in_place): (ResourceId, (Lsn, Lsn), bool),
        volumes: &[VolumeGeometry],
    ) -> Result<Self, SinkError> {
        let failed = |source| fault(dir, HEADER_LEN as u64, source);
        io.create_dir(dir).await.map_err(failed)?;
        let (from, end) = (span.0.get(), span.1.get());
        let stem = format!("image-{from:016x}-{end:016x}");
        let there = io.list(dir).await.map_err(failed)?;
        let name = free_name(&stem, "blocks", &there);
        let part = if in_place { name.clone() } else { format!("{stem}.blocks.part") };
        let file = io.create(&dir.join(&part), OpenAs::Buffered).await.map_err(failed)?;
        let folder = io.open_dir(dir).await.map_err(failed)?;
        Ok(Self {
            io: io.clone(),
            dir: dir.into(),
            names: (part, name),
            folder,
            file,
            at: 0,
            count: 0,
            gathered: encode_header(resource, span, volumes),
            is_unsynced: false,
            is_named: false,
        })
    }

    /// Adds what a range of a volume holds.
    pub(crate) async fn add(
        &mut self,
        volume: VolumeIndex,
        offset: u64,
        content: &[u8],
    ) -> Result<(), SinkError> {
        self.gathered.extend(encode_head(BLOCK_MAGIC, volume.index(), offset, content));
        self.gathered.extend(content);
        self.count += 1;
        if self.gathered.len() >= GATHERED_MAX { self.write().await } else { Ok(()) }
    }

    async fn write(&mut self) -> Result<(), SinkError> {
        let data = Bytes::from(std::mem::take(&mut self.gathered));
        let (at, len) = (self.at, data.len() as u64);
        self.at += len;
        self.is_unsynced = true;
        let written = self.io.write(self.file.id, at, data).await;
        written.map(drop).map_err(|source| fault(&self.dir, len, source))
    }

    /// Makes durable what was added, with the name under which it is found.
    pub(crate) async fn sync(&mut self) -> Result<(), SinkError> {
        if !self.gathered.is_empty() {
            self.write().await?;
        }
        if !self.is_unsynced {
            return Ok(());
        }
        let failed = |source| fault(&self.dir, 0, source);
        self.io.sync(self.file.id).await.map_err(failed)?;
        self.is_unsynced = false;
        if !std::mem::replace(&mut self.is_named, true) {
            self.io.sync(self.folder.id).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Ends the file; it has its name, durably, when this is done.
    pub(crate) async fn finish(mut self) -> Result<(), SinkError> {
        self.gathered.extend(encode_head(END_MAGIC, 0, self.count, &[]));
        self.sync().await?;
        let (from, to) = &self.names;
        if from != to {
            let renamed = self.io.rename(self.folder.id, from, to).await;
            renamed.map_err(|source| fault(&self.dir, 0, source))?;
        }
        Ok(())
    }
}

/// The first name of its kind that nobody has.
fn free_name(stem: &str, ending: &str, there: &[String]) -> String {
    let plain = std::iter::once(format!("{stem}.{ending}"));
    let mut names = plain.chain((2_u64..).map(|number| format!("{stem}-{number}.{ending}")));
    let free = names.find(|name| !there.contains(name));
    free.unwrap_or_else(|| format!("{stem}.{ending}"))
}

fn fault(dir: &Path, bytes: u64, source: std::io::Error) -> SinkError {
    crate::resync::fault(dir, bytes, source)
}

//! Reading a file of blocks: for tools that list and export what a rejoin has set aside.

use std::io;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use hadrian_protocol::checksum::{crc32c, crc32c_of_two};
use hadrian_protocol::ids::{Lsn, ResourceId, VOLUMES_MAX, VolumeIndex};
use hadrian_protocol::replica::VolumeGeometry;
use hadrian_protocol::resync::LEAF;

use super::{BLOCK_MAGIC, END_MAGIC, HEAD_LEN, HEADER_LEN, MAGIC, VERSION};
use crate::engine::{Engine, FileId, OpenAs, run_read};

/// What a file of blocks says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlocksHeader {
    /// Whose image.
    pub resource: ResourceId,
    /// Where the histories part.
    pub from: Lsn,
    /// Where the log ended.
    pub end: Lsn,
    /// The volumes.
    pub volumes: Vec<VolumeGeometry>,
}

/// A part of the image as it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    /// Of which volume.
    pub volume: VolumeIndex,
    /// From which byte on.
    pub offset: u64,
    /// What it held; of several of one place the first counts.
    pub content: Bytes,
}

/// Why a file of blocks cannot be read, or not further.
#[derive(Debug, thiserror::Error)]
pub enum BlocksError {
    /// It is something else.
    #[error("{} is no file of quarantined blocks", .0.display())]
    Magic(PathBuf),
    /// A later program wrote it.
    #[error(
        "{} has version {found}, this program reads {VERSION}; install the later program",
        .path.display()
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// The version in the header.
        found: u16,
    },
    /// Written in part, or changed since.
    #[error("{} is damaged at byte {at}; what is before can be used", .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where.
        at: u64,
    },
    /// A crash ended it: everything before is whole.
    #[error("{} was not finished, and ends at byte {at}", .path.display())]
    Unfinished {
        /// Which file.
        path: PathBuf,
        /// Where.
        at: u64,
    },
    /// The system refuses.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

fn decode_header(page: &[u8]) -> Result<BlocksHeader, Option<u16>> {
    let (body, crc) = page.split_last_chunk::<4>().ok_or(None)?;
    let mut rest = body.strip_prefix(&MAGIC).ok_or(None)?;
    // A page is longer than what is read of it here.
    if page.len() != HEADER_LEN || crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(None);
    }
    let version = rest.get_u16_le();
    if version != VERSION {
        return Err(Some(version));
    }
    let mut resource = [0; 16];
    rest.copy_to_slice(&mut resource);
    let (from, end) = (Lsn::new(rest.get_u64_le()), Lsn::new(rest.get_u64_le()));
    let count = rest.get_u16_le();
    if count > VOLUMES_MAX {
        return Err(None);
    }
    let mut volume =
        || VolumeGeometry { size_bytes: rest.get_u64_le(), block_size: rest.get_u32_le() };
    let volumes = (0..count).map(|_| volume()).collect();
    Ok(BlocksHeader { resource: ResourceId::from_bytes(resource), from, end, volumes })
}

/// The head of a block or of the end, without a look at its checksum.
struct Head {
    is_end: bool,
    volume: VolumeIndex,
    offset: u64,
    len: usize,
}

fn decode_head(head: &[u8], header: &BlocksHeader) -> Option<Head> {
    let mut rest = head.get(..HEAD_LEN)?;
    let mut magic = [0; 4];
    rest.copy_to_slice(&mut magic);
    let (volume, zero) = (VolumeIndex::new(rest.get_u16_le())?, rest.get_u16_le());
    let (offset, len) = (rest.get_u64_le(), u64::from(rest.get_u32_le()));
    let is_end = magic == END_MAGIC;
    let size = header.volumes.get(usize::from(volume.index()))?.size_bytes;
    let inside = offset.checked_add(len).is_some_and(|end| end <= size);
    let right = zero == 0
        && match is_end {
            true => len == 0,
            false => magic == BLOCK_MAGIC && (1..=LEAF).contains(&len) && inside,
        };
    right.then_some(Head { is_end, volume, offset, len: usize::try_from(len).ok()? })
}

fn is_whole(bytes: &[u8]) -> bool {
    let head = bytes.get(..HEAD_LEN - 4).unwrap_or_default();
    let crc = bytes.get(HEAD_LEN - 4..HEAD_LEN).and_then(|crc| crc.first_chunk::<4>());
    let content = bytes.get(HEAD_LEN..).unwrap_or_default();
    crc.is_some_and(|crc| crc32c_of_two(head, content) == u32::from_le_bytes(*crc))
}

/// Opens a file of blocks.
///
/// # Errors
/// [`BlocksError`]
pub fn blocks<E: Engine + ?Sized>(engine: &mut E, path: &Path) -> Result<BlocksDump, BlocksError> {
    let io = |source| BlocksError::Io { path: path.into(), source };
    let file = engine.open(path, OpenAs::ReadOnly).map_err(io)?;
    let len = engine.size(file).map_err(io)?;
    if len < HEADER_LEN as u64 {
        return Err(BlocksError::Magic(path.into()));
    }
    let page = run_read(engine, file, 0, HEADER_LEN).map_err(io)?;
    let header = decode_header(&page).map_err(|version| match version {
        Some(found) => BlocksError::Newer { path: path.into(), found },
        None => BlocksError::Magic(path.into()),
    })?;
    Ok(BlocksDump { header, path: path.into(), file, at: HEADER_LEN as u64, len, count: 0 })
}

/// The blocks of a file, one after the other.
#[derive(Debug)]
pub struct BlocksDump {
    /// What they are of.
    pub header: BlocksHeader,
    path: PathBuf,
    file: FileId,
    at: u64,
    len: u64,
    count: u64,
}

impl BlocksDump {
    /// The open file, and where in it the next head begins, in bytes.
    pub(super) fn place(&self) -> (FileId, u64) {
        (self.file, self.at)
    }

    /// The next block; none at the end.
    ///
    /// # Errors
    /// [`BlocksError`]; nothing behind it can be read.
    pub fn next<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
    ) -> Result<Option<Block>, BlocksError> {
        let (path, at) = (self.path.clone(), self.at);
        let left = self.len.saturating_sub(at);
        if left < HEAD_LEN as u64 {
            return Err(BlocksError::Unfinished { path, at });
        }
        let io = |source| BlocksError::Io { path: self.path.clone(), source };
        let damaged = || BlocksError::Damaged { path: self.path.clone(), at };
        let head = run_read(engine, self.file, at, HEAD_LEN).map_err(io)?;
        let head = decode_head(&head, &self.header).ok_or_else(damaged)?;
        let whole = HEAD_LEN + head.len;
        if left < whole as u64 {
            return Err(BlocksError::Unfinished { path, at });
        }
        let bytes = run_read(engine, self.file, at, whole).map_err(io)?;
        if !is_whole(&bytes) || (head.is_end && head.offset != self.count) {
            return Err(damaged());
        }
        if head.is_end {
            return Ok(None);
        }
        self.at += whole as u64;
        self.count += 1;
        let content = bytes.slice(HEAD_LEN..);
        Ok(Some(Block { volume: head.volume, offset: head.offset, content }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{encode_head, encode_header};
    use super::*;
    use crate::engine::double::{Double, Order, Unsynced};
    use proptest::prelude::*;

    fn sample() -> Vec<u8> {
        sample_of(LEAF as usize)
    }

    fn sample_of(len: usize) -> Vec<u8> {
        let volumes = [VolumeGeometry { size_bytes: 1 << 20, block_size: 512 }];
        let span = (Lsn::new(4096), Lsn::new(12288));
        let mut file = encode_header(ResourceId::derive("a", "b"), span, &volumes);
        for (offset, byte) in [(LEAF, 7), (0, 9)] {
            let content = vec![byte; len];
            file.extend(encode_head(BLOCK_MAGIC, 0, offset, &content));
            file.extend(content);
        }
        file.extend(encode_head(END_MAGIC, 0, 2, &[]));
        file
    }

    fn dump(bytes: &[u8]) -> (Vec<Block>, Option<BlocksError>) {
        let mut disk = Double::new(1, Order::AsSubmitted, Unsynced::Lost);
        let path = Path::new("/q");
        disk.put_file(path, bytes.len());
        disk.tamper(path, |file| file.copy_from_slice(bytes));
        let mut found = Vec::new();
        let mut dump = match blocks(&mut disk, path) {
            Ok(dump) => dump,
            Err(error) => return (found, Some(error)),
        };
        loop {
            match dump.next(&mut disk) {
                Ok(Some(block)) => found.push(block),
                Ok(None) => return (found, None),
                Err(error) => return (found, Some(error)),
            }
        }
    }

    #[test]
    fn blocks_read_back_in_the_order_in_which_they_were_saved() {
        let (blocks, error) = dump(&sample());
        assert!(error.is_none(), "{error:?}");
        assert_eq!(blocks.iter().map(|b| b.offset).collect::<Vec<_>>(), [LEAF, 0]);
        assert!(blocks[0].content.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn a_file_cut_short_anywhere_gives_the_blocks_before_and_says_so() {
        let bytes = sample();
        for len in (0..bytes.len()).step_by(61) {
            let (blocks, error) = dump(&bytes[..len]);
            let whole = len.saturating_sub(HEADER_LEN) / (HEAD_LEN + LEAF as usize);
            assert_eq!(blocks.len(), whole.min(2), "{len}");
            assert!(error.is_some());
        }
    }

    /// The bytes of version 1. They may never change.
    #[test]
    fn the_bytes_of_version_1_blocks_are_these_and_are_read_back() {
        let golden = hadrian_golden::Golden::new(env!("CARGO_MANIFEST_DIR"), "v1");
        let file = golden.check("quarantine-blocks", &sample_of(512));
        assert_eq!(dump(&file).0.len(), 2);
    }

    proptest! {
        #[test]
        fn no_changed_byte_goes_unnoticed(at in 0_usize..HEADER_LEN + 100, bit in 0_u8..8) {
            let mut bytes = sample();
            bytes[at] ^= 1 << bit;
            prop_assert!(dump(&bytes).1.is_some());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = sample();
            bytes.truncate(HEADER_LEN);
            bytes.extend(&tail);
            dump(&bytes);
            dump(&tail);
            let mut header = tail;
            header.resize(HEADER_LEN - 4, 0);
            header[..8].copy_from_slice(&MAGIC);
            header[8..10].copy_from_slice(&VERSION.to_le_bytes());
            let crc = crc32c(&header);
            header.extend(crc.to_le_bytes());
            dump(&header);
        }
    }
}

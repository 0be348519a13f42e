//! The dirty maps of absent standbys (design §2.6): what the part of the log has changed that is
//! no longer kept for them.
//!
//! ```text
//! REPLICA/maps/MEMBER.map     whose it is, which span of the log is in it, and the map
//! ```
//!
//! A map is written whole under a temporary name, synced, and renamed. A crash leaves the map
//! before, which says of itself how far it reaches, or the new one; and the log is released only
//! when the new one is durable. What is damaged or of somebody else is not looked at.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes};
use hadrian_protocol::checksum::crc32c;
use hadrian_protocol::ids::{Lsn, MEMBERS_MAX, MemberId, ResourceId};
use hadrian_protocol::replica::VolumeGeometry;
use hadrian_protocol::resync::{BlockMap, Span};

use super::task::Io;
use crate::buffer::BODY_LEN_MAX;
use crate::engine::OpenAs;

const DIR: &str = "maps";
const MAGIC: [u8; 8] = *b"HDRNDMAP";
/// Version 1: the first.
const VERSION: u16 = 1;
/// Magic, version, member, resource, span, checksum.
const HEAD_LEN: usize = 8 + 2 + 1 + 16 + 8 + 8 + 4;
/// Longest map of all volumes, each of them as dense as can be.
const MAP_LEN_MAX: u64 = 64 << 20;

/// A dirty map, and what of the log is in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DirtyMap {
    pub(crate) span: Span,
    pub(crate) map: BlockMap,
}

fn file_name(peer: MemberId) -> String {
    format!("{}.map", peer.index())
}

pub(super) fn encode(resource: ResourceId, peer: MemberId, dirty: &DirtyMap) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_LEN);
    out.put_slice(&MAGIC);
    out.put_u16_le(VERSION);
    out.put_u8(peer.index());
    out.put_slice(resource.as_bytes());
    out.put_u64_le(dirty.span.since.get());
    out.put_u64_le(dirty.span.to.get());
    let crc = crc32c(&out);
    out.put_u32_le(crc);
    out.extend(dirty.map.encode());
    out
}

/// The map in a file, or what is wrong with it.
pub(super) fn decode(
    bytes: &[u8],
    (resource, peer): (ResourceId, MemberId),
    volumes: &[VolumeGeometry],
) -> Result<DirtyMap, &'static str> {
    let (head, map) = bytes.split_at_checked(HEAD_LEN).ok_or("it is too short")?;
    let (head, crc) = head.split_last_chunk::<4>().ok_or("it is too short")?;
    let numbers = head.len() - 16;
    let number = |at: usize| {
        let bytes = head.get(at..).and_then(|rest| rest.first_chunk::<8>());
        Lsn::new(bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes)))
    };
    let span = Span { since: number(numbers), to: number(numbers + 8) };
    let map = BlockMap::decode(map).map_err(|_| "its map is damaged")?;
    let dirty = DirtyMap { span, map };
    if crc32c(head) != u32::from_le_bytes(*crc) || span.since > span.to {
        return Err("its head is damaged");
    }
    // The rest of the head has to be what would be written here.
    if encode(resource, peer, &dirty).get(..head.len()) != Some(head) {
        return Err("it is of another replica, or of a later program");
    }
    // It may be of a time when the volumes were smaller.
    let map = dirty.map.grown_to(volumes).ok_or("it is of other volumes")?;
    Ok(DirtyMap { map, ..dirty })
}

/// Every map that can be used.
pub(crate) async fn load(
    io: Io,
    replica_dir: PathBuf,
    resource: ResourceId,
    volumes: Vec<VolumeGeometry>,
) -> BTreeMap<MemberId, DirtyMap> {
    let dir = replica_dir.join(DIR);
    let names = io.list(&dir).await.unwrap_or_default();
    let mut maps = BTreeMap::new();
    for peer in (0..MEMBERS_MAX).filter_map(MemberId::new) {
        let name = file_name(peer);
        if !names.contains(&name) {
            continue;
        }
        let path = dir.join(name);
        let read = read(&io, &path).await.map_err(|error| error.to_string());
        let found = read
            .and_then(|bytes| decode(&bytes, (resource, peer), &volumes).map_err(str::to_owned));
        match found {
            Ok(dirty) => drop(maps.insert(peer, dirty)),
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "a dirty map cannot be used; digests are the way");
            }
        }
    }
    maps
}

async fn read(io: &Io, path: &Path) -> io::Result<Vec<u8>> {
    let file = io.open(path, OpenAs::ReadOnly).await?;
    let len = io.size(file.id).await?;
    if len > MAP_LEN_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < len {
        let left = usize::try_from(len).unwrap_or(0) - bytes.len();
        let piece = io.read(file.id, bytes.len() as u64, left.min(BODY_LEN_MAX));
        bytes.extend(&piece.bytes().await?);
    }
    Ok(bytes)
}

/// Writes a map, durably.
pub(crate) async fn store(
    io: Io,
    replica_dir: PathBuf,
    (resource, peer): (ResourceId, MemberId),
    dirty: DirtyMap,
) -> io::Result<DirtyMap> {
    let dir = replica_dir.join(DIR);
    io.create_dir(&dir).await?;
    let name = file_name(peer);
    let part = format!("{name}.part");
    let file = io.create(&dir.join(&part), OpenAs::Buffered).await?;
    let bytes = Bytes::from(encode(resource, peer, &dirty));
    let mut at = 0;
    while at < bytes.len() {
        let piece = bytes.slice(at..bytes.len().min(at + BODY_LEN_MAX));
        let len = piece.len();
        io.write(file.id, at as u64, piece).await?;
        at += len;
    }
    io.sync(file.id).await?;
    let folder = io.open_dir(&dir).await?;
    io.rename(folder.id, &part, &name).await?;
    Ok(dirty)
}

/// Takes a map away that cannot be carried on. One that a crash brings back is as true as it was.
pub(crate) async fn remove(io: Io, replica_dir: PathBuf, peer: MemberId) -> io::Result<()> {
    io.remove(&replica_dir.join(DIR).join(file_name(peer))).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use hadrian_protocol::ids::VolumeIndex;
    use hadrian_protocol::range::ByteRange;
    use proptest::prelude::*;

    fn volumes(size_bytes: u64) -> Vec<VolumeGeometry> {
        vec![VolumeGeometry { size_bytes, block_size: 512 }]
    }

    fn of(name: &str, member: u8) -> (ResourceId, MemberId) {
        (ResourceId::derive("a", name), MemberId::new(member).unwrap())
    }

    fn sample() -> (DirtyMap, Vec<u8>) {
        let mut map = BlockMap::new(&volumes(1 << 20));
        map.mark(VolumeIndex::new(0).unwrap(), ByteRange::new(0, 1).unwrap());
        let span = Span { since: Lsn::new(4096), to: Lsn::new(8192) };
        let dirty = DirtyMap { span, map };
        let (resource, peer) = of("r", 1);
        (dirty.clone(), encode(resource, peer, &dirty))
    }

    #[test]
    fn a_map_is_read_by_the_replica_and_for_the_member_that_it_was_written_for() {
        let (dirty, bytes) = sample();
        assert_eq!(decode(&bytes, of("r", 1), &volumes(1 << 20)), Ok(dirty));
        assert!(decode(&bytes, of("r", 2), &volumes(1 << 20)).is_err());
        assert!(decode(&bytes, of("s", 1), &volumes(1 << 20)).is_err());
        assert!(decode(&bytes, of("r", 1), &volumes(1 << 19)).is_err());
    }

    #[test]
    fn a_map_of_smaller_volumes_is_one_of_the_larger_ones() {
        let (dirty, bytes) = sample();
        let grown = decode(&bytes, of("r", 1), &volumes(1 << 21)).unwrap();
        assert_eq!(grown.span, dirty.span);
        assert!(grown.map.runs().eq(dirty.map.runs()));
    }

    /// The bytes of version 1. They may never change.
    #[test]
    fn the_bytes_of_a_version_1_map_are_these_and_are_read_back() {
        let golden = hadrian_golden::Golden::new(env!("CARGO_MANIFEST_DIR"), "v1");
        let (dirty, bytes) = sample();
        let file = golden.check("dirty-map", &bytes);
        assert_eq!(decode(&file, of("r", 1), &volumes(1 << 20)), Ok(dirty));
    }

    proptest! {
        #[test]
        fn no_changed_byte_goes_unnoticed(at in 0_usize..100, bit in 0_u8..8) {
            let mut bytes = sample().1;
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&bytes, of("r", 1), &volumes(1 << 20)).is_err());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes, of("r", 1), &volumes(1 << 20));
        }
    }
}

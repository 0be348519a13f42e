//! What a sink puts beside its image (design §8.2).
//!
//! ```text
//! REPLICA/staging/header       whose it is, and for volumes of which sizes
//! REPLICA/staging/0.content    what is staged of volume 0, where it lies in the volume; sparse
//! REPLICA/staging/0.leaves     32 bytes per leaf: the digest of what is staged; zeroes: nothing is
//! ```
//!
//! Which crash does that survive, while a sink goes on? Any, because nothing here is trusted: a
//! sink that finds a staging reads in `leaves` only which leaves it looks for in `content`, names
//! all of them as its own changes, and what is compared are digests of what is really there. A leaf
//! whose bytes are torn is sent again; one whose digest was lost counts as not staged, and is read
//! from the store. Only [`Staging::sync`], and what a sink checks behind it, make a staging
//! something that a switch may rest on.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hadrian_protocol::checksum::crc32c;
use hadrian_protocol::ids::{ResourceId, VolumeIndex};
use hadrian_protocol::replica::VolumeGeometry;
use hadrian_protocol::resync::digest::Digest;
use hadrian_protocol::resync::{LEAF, LEAVES, LeafSet, RegionId};

use super::SinkError;
use super::image::{Pair, StagedRegion, leaf_len};
use super::task::{Io, Open, Reading, Slot};
use crate::engine::{Op, OpenAs};

pub(crate) const DIR: &str = "staging";
const HEADER: &str = "header";
const HEADER_PART: &str = "header.part";
const MAGIC: [u8; 8] = *b"HDRNSTAG";
/// Version 1: the first.
const VERSION: u16 = 1;
/// Bytes of the digests of one region.
const DIGESTS_LEN: usize = LEAVES * 32;
/// What a file is written in at least, in bytes.
const SECTOR: u64 = 512;

/// The staging of a replica, open.
#[derive(Debug)]
pub(crate) struct Staging {
    io: Io,
    dir: PathBuf,
    volumes: Vec<StagedVolume>,
    /// Leaves that are staged with their bytes, and as zeroes.
    pub(crate) data: LeafSet,
    pub(crate) zero: LeafSet,
}

#[derive(Debug)]
struct StagedVolume {
    direct: Open,
    buffered: Open,
    leaves: Open,
}

/// The digests of one region as `leaves` has them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Digests(Vec<u8>);

impl Digests {
    /// What is said of a leaf; none where nothing is staged.
    pub(crate) fn of(&self, leaf: usize) -> Option<Digest> {
        let bytes = self.0.get(leaf * 32..)?.first_chunk::<32>()?;
        (*bytes != [0; 32]).then(|| Digest::from_bytes(*bytes))
    }

    pub(crate) fn set(&mut self, leaf: usize, digest: Option<Digest>) {
        let bytes = digest.map_or([0; 32], |digest| *digest.as_bytes());
        if let Some(place) = self.0.get_mut(leaf * 32..leaf * 32 + 32) {
            place.copy_from_slice(&bytes);
        }
    }
}

fn content_name(volume: usize) -> String {
    format!("{volume}.content")
}

fn leaves_name(volume: usize) -> String {
    format!("{volume}.leaves")
}

fn leaves_len(size: u64) -> u64 {
    size.div_ceil(LEAF * LEAVES as u64) * DIGESTS_LEN as u64
}

/// The whole header: what it must be, there is nothing else to be said.
fn header(resource: ResourceId, volumes: &[VolumeGeometry]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(resource.as_bytes());
    bytes.extend(u32::try_from(volumes.len()).unwrap_or(u32::MAX).to_le_bytes());
    for volume in volumes {
        bytes.extend(volume.size_bytes.to_le_bytes());
        bytes.extend(volume.block_size.to_le_bytes());
    }
    let crc = crc32c(&bytes);
    bytes.extend(crc.to_le_bytes());
    bytes
}

/// What goes wrong in the staging at `dir`, where `bytes` were to be written.
pub(crate) fn fault(dir: &Path, bytes: u64, source: io::Error) -> SinkError {
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded].contains(&source.kind());
    match full {
        true => SinkError::NoRoom { dir: dir.into(), bytes },
        false => SinkError::Io { path: dir.into(), source },
    }
}

/// Forgets the staging of the replica in `replica_dir`. The header goes first, durably: files
/// without it are nobody's, so a crash in between leaves all of it or nothing that counts.
pub(crate) async fn drop_staging(io: &Io, replica_dir: &Path) -> io::Result<()> {
    let path = replica_dir.join(DIR);
    let dir = match io.open_dir(&path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    io.remove(&path.join(HEADER)).await?;
    io.sync(dir.id).await?;
    for name in io.list(&path).await?.into_iter().filter(|name| is_ours(name)) {
        io.remove(&path.join(name)).await?;
    }
    io.sync(dir.id).await?;
    Ok(())
}

fn is_ours(name: &str) -> bool {
    let number = name.strip_suffix(".content").or_else(|| name.strip_suffix(".leaves"));
    name == HEADER_PART || number.is_some_and(|number| number.parse::<u16>().is_ok())
}

impl Staging {
    /// The staging of the replica in `replica_dir`, with what an earlier sink left in it. One that
    /// cannot be used is begun anew: it is worth what it saves of the link, and no more.
    pub(crate) async fn begin(
        io: &Io,
        replica_dir: &Path,
        resource: ResourceId,
        volumes: &[VolumeGeometry],
    ) -> Result<Self, SinkError> {
        let dir = replica_dir.join(DIR);
        let failed = |source| fault(&dir, 4096, source);
        match Self::open(io, replica_dir, resource, volumes).await {
            Ok(Some(staging)) => return Ok(staging),
            Ok(None) => {}
            Err(error) => {
                let dir = dir.display();
                tracing::warn!(%dir, %error, "the staging there is begun anew");
            }
        }
        drop_staging(io, replica_dir).await.map_err(failed)?;
        Self::create(io, &dir, resource, volumes).await.map_err(failed)?;
        let opened = Self::open(io, replica_dir, resource, volumes).await;
        opened.and_then(|made| made.ok_or_else(|| io::ErrorKind::NotFound.into())).map_err(failed)
    }

    async fn create(
        io: &Io,
        dir: &Path,
        resource: ResourceId,
        volumes: &[VolumeGeometry],
    ) -> io::Result<()> {
        io.create_dir(dir).await?;
        for (index, volume) in volumes.iter().enumerate() {
            let lens = [volume.size_bytes, leaves_len(volume.size_bytes)];
            for (name, len) in [content_name(index), leaves_name(index)].iter().zip(lens) {
                let file = io.create(&dir.join(name), OpenAs::Buffered).await?;
                // Its last bytes give it its length; everything before them is a hole.
                let end = Bytes::from_static(&[0; SECTOR as usize]);
                io.write(file.id, len.saturating_sub(SECTOR), end).await?;
                io.sync(file.id).await?;
            }
        }
        let file = io.create(&dir.join(HEADER_PART), OpenAs::Buffered).await?;
        io.write(file.id, 0, header(resource, volumes).into()).await?;
        io.sync(file.id).await?;
        let folder = io.open_dir(dir).await?;
        // With its name the header makes the names of the files durable, too.
        io.rename(folder.id, HEADER_PART, HEADER).await?;
        Ok(())
    }

    /// The staging, if there is one that is whole.
    pub(crate) async fn open(
        io: &Io,
        replica_dir: &Path,
        resource: ResourceId,
        volumes: &[VolumeGeometry],
    ) -> io::Result<Option<Self>> {
        let dir = replica_dir.join(DIR);
        let file = match io.open(&dir.join(HEADER), OpenAs::ReadOnly).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let wanted = header(resource, volumes);
        let bad = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        if io.size(file.id).await? != wanted.len() as u64
            || io.read(file.id, 0, wanted.len()).bytes().await? != wanted
        {
            return bad("its header is damaged, or that of other volumes");
        }
        let mut staged = Vec::with_capacity(volumes.len());
        for (index, volume) in volumes.iter().enumerate() {
            let (content, leaves) = (dir.join(content_name(index)), dir.join(leaves_name(index)));
            let direct = io.open(&content, OpenAs::Direct).await?;
            let buffered = io.open(&content, OpenAs::Buffered).await?;
            let leaves = io.open(&leaves, OpenAs::Buffered).await?;
            let lens = (io.size(direct.id).await?, io.size(leaves.id).await?);
            if lens != (volume.size_bytes, leaves_len(volume.size_bytes)) {
                return bad("a file of it has a wrong length");
            }
            staged.push(StagedVolume { direct, buffered, leaves });
        }
        let (data, zero) = (LeafSet::new(volumes), LeafSet::new(volumes));
        let mut staging = Self { io: io.clone(), dir, volumes: staged, data, zero };
        staging.load(volumes).await?;
        Ok(Some(staging))
    }

    /// Finds what is staged.
    async fn load(&mut self, volumes: &[VolumeGeometry]) -> io::Result<()> {
        let step = DIGESTS_LEN as u64;
        let ids = (0..).zip(volumes).filter_map(|(index, volume)| {
            VolumeIndex::new(index).map(|index| (index, volume.size_bytes))
        });
        for (volume, size) in ids {
            let (mut at, end) = (0, leaves_len(size));
            while let Some(file) = self.volume(volume).filter(|_| at < end) {
                let (to, is_hole) = self.io.stretch(file.leaves.id, at, end).await;
                // A hole inside of a region is read with it.
                if is_hole && to >= at + step {
                    at = to / step * step;
                    continue;
                }
                let region = u32::try_from(at / step).unwrap_or(u32::MAX);
                self.load_region(RegionId { volume, region }).await?;
                at += step;
            }
        }
        Ok(())
    }

    async fn load_region(&mut self, at: RegionId) -> io::Result<()> {
        let len = self.data.region_len(at);
        let digests = self.digests(at).await?;
        for leaf in 0..LEAVES {
            match digests.of(leaf) {
                Some(digest) if digest == Digest::of_zero_leaf(leaf_len(len, leaf)) => {
                    self.zero.set(at, leaf);
                }
                Some(_) => self.data.set(at, leaf),
                None => {}
            }
        }
        Ok(())
    }

    fn volume(&self, volume: VolumeIndex) -> Option<&StagedVolume> {
        self.volumes.get(usize::from(volume.index()))
    }

    fn missing() -> io::Error {
        io::ErrorKind::NotFound.into()
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn content(&self, volume: VolumeIndex) -> Option<Pair> {
        let StagedVolume { direct, buffered, .. } = self.volume(volume)?;
        Some(Pair { direct: direct.id, buffered: buffered.id })
    }

    /// What is staged of a region; none where nothing is.
    pub(crate) fn region(&self, at: RegionId) -> Option<StagedRegion> {
        let (data, zero) = (self.data.bits(at), self.zero.bits(at));
        let files = self.content(at.volume)?;
        (data.count() + zero.count() > 0).then_some(StagedRegion { data, zero, files })
    }

    /// The first region of the same volume from `from` on of which something is staged.
    pub(crate) fn next_region(&self, from: RegionId) -> Option<RegionId> {
        let next = |leaves: &LeafSet| leaves.next(from).map(|(at, _)| at);
        let both = [next(&self.data), next(&self.zero)].into_iter().flatten();
        both.filter(|at| at.volume == from.volume).min()
    }

    /// Every region of which something is staged, in order.
    pub(crate) fn regions(&self) -> Vec<RegionId> {
        let mut all = self.data.clone();
        all.union(&self.zero);
        all.regions().map(|(at, _)| at).collect()
    }

    /// The digests that were written down for a region.
    pub(crate) async fn digests(&self, at: RegionId) -> io::Result<Digests> {
        let file = self.volume(at.volume).ok_or_else(Self::missing)?.leaves.id;
        let read: Reading =
            self.io.read(file, u64::from(at.region) * DIGESTS_LEN as u64, DIGESTS_LEN);
        Ok(Digests(read.bytes().await?.to_vec()))
    }

    /// Writes down all digests of a region.
    pub(crate) async fn put_digests(&self, at: RegionId, digests: Digests) -> io::Result<()> {
        let file = self.volume(at.volume).ok_or_else(Self::missing)?.leaves.id;
        let offset = u64::from(at.region) * DIGESTS_LEN as u64;
        self.io.write(file, offset, digests.0.into()).await?;
        Ok(())
    }

    /// Begins to write down digests of neighbours in a region.
    fn put_some(&self, at: RegionId, first: usize, digests: &[Digest]) -> io::Result<Writing> {
        let file = self.volume(at.volume).ok_or_else(Self::missing)?.leaves.id;
        let offset = u64::from(at.region) * DIGESTS_LEN as u64 + first as u64 * 32;
        let bytes: Vec<u8> = digests.iter().flat_map(|digest| *digest.as_bytes()).collect();
        Ok(self.io.write(file, offset, bytes.into()))
    }

    /// Begins to stage neighbours in a region: their bytes, or zeroes. The bytes and the digests
    /// go together; see above for why a crash may keep either.
    pub(crate) fn stage(
        &mut self,
        at: RegionId,
        first: usize,
        (lens, data): (&[u64], Option<Bytes>),
    ) -> io::Result<Vec<Writing>> {
        let mut writing = Vec::with_capacity(2);
        let digests: Vec<Digest> = match &data {
            Some(bytes) => super::image::leaves_in(bytes).map(|l| Digest::of_leaf(&l)).collect(),
            None => lens.iter().map(|len| Digest::of_zero_leaf(*len)).collect(),
        };
        writing.push(self.put_some(at, first, &digests)?);
        for ((leaf, len), digest) in (first..).zip(lens).zip(&digests) {
            let is_zero = *digest == Digest::of_zero_leaf(*len);
            let (into, out_of) = match is_zero {
                true => (&mut self.zero, &mut self.data),
                false => (&mut self.data, &mut self.zero),
            };
            into.set(at, leaf);
            out_of.unset(at, leaf);
        }
        if let Some(bytes) = data {
            let files = self.content(at.volume).ok_or_else(Self::missing)?;
            let offset = at.start() + first as u64 * LEAF;
            let file = files.suited(offset, bytes.len() as u64);
            writing.push(self.io.op(Op::Write { file, offset, data: bytes }));
        }
        Ok(writing)
    }

    /// Makes it all durable, the bytes before the digests: whoever finds a digest that was durable
    /// by this finds its bytes.
    pub(crate) async fn sync(&self) -> io::Result<()> {
        for volume in &self.volumes {
            self.io.sync(volume.buffered.id).await?;
        }
        for volume in &self.volumes {
            self.io.sync(volume.leaves.id).await?;
        }
        Ok(())
    }
}

/// A write under way.
pub(crate) type Writing = Slot<io::Result<Op>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_of_one_resource_and_of_volumes_of_these_sizes() {
        let volume = |size_bytes| VolumeGeometry { size_bytes, block_size: 512 };
        let (one, other) = (ResourceId::derive("a", "b"), ResourceId::derive("a", "c"));
        assert_eq!(header(one, &[volume(512)]), header(one, &[volume(512)]));
        assert_ne!(header(one, &[volume(512)]), header(other, &[volume(512)]));
        assert_ne!(header(one, &[volume(512)]), header(one, &[volume(1024)]));
    }

    /// The bytes of version 1. They may never change.
    #[test]
    fn the_bytes_of_a_version_1_header_are_these() {
        let golden = hadrian_golden::Golden::new(env!("CARGO_MANIFEST_DIR"), "v1");
        let volumes = [VolumeGeometry { size_bytes: 1 << 30, block_size: 4096 }];
        golden.check("staging-header", &header(ResourceId::from_bytes([3; 16]), &volumes));
    }

    #[test]
    fn only_files_of_a_staging_are_ever_removed() {
        let ours = ["header.part", "0.content", "63.leaves"];
        assert!(ours.iter().all(|name| is_ours(name)));
        let others = ["content", "a.content", "0.content.bak", "header.old", "-1.leaves"];
        assert!(others.iter().all(|name| !is_ours(name)));
    }
}

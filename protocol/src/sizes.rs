//! Sizes of volumes, which are the same on every member and only grow (design §2.4).

use bytes::BufMut;

use crate::codec::{CodecError, Put, Reader};
use crate::ids::VOLUMES_MAX;

/// Size of one volume, the same on every member (design §2.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VolumeGeometry {
    /// In bytes.
    pub size_bytes: u64,
    /// In bytes; the unit of every offset and length.
    pub block_size: u32,
}

impl VolumeGeometry {
    /// Whether it is one that a volume can be grown to: whole blocks, and not too many.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        let whole = self.block_size > 0 && self.size_bytes.is_multiple_of(self.block_size.into());
        whole && self.size_bytes <= VOLUME_BYTES_MAX
    }
}

/// Sizes of volumes in words, for errors.
#[must_use]
pub fn describe(volumes: &[VolumeGeometry]) -> String {
    let words: Vec<_> = volumes
        .iter()
        .map(|volume| format!("{} bytes in blocks of {}", volume.size_bytes, volume.block_size))
        .collect();
    words.join(", ")
}

/// Largest volume, in bytes.
pub const VOLUME_BYTES_MAX: u64 = 1 << 50;

/// The sizes of a resource's volumes at one replica, and how often one of them was grown. They only
/// grow, on all members by the same steps: of two replicas the one with more growths behind it has
/// the sizes that the other lacks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// How often; zero where they are those of the creation.
    pub growths: u32,
    /// The volumes.
    pub volumes: Vec<VolumeGeometry>,
}

impl Sizes {
    /// Whether a replica of these sizes becomes one of `other` by growing. Where a volume is larger
    /// without a growth behind it, somebody has created it so, and that is a mistake to be told.
    #[must_use]
    pub fn grow_to(&self, other: &Self) -> bool {
        let pairs = || self.volumes.iter().zip(&other.volumes);
        self.growths < other.growths
            && self.volumes.len() == other.volumes.len()
            && pairs().all(|(own, new)| own.block_size == new.block_size)
            && pairs().all(|(own, new)| own.size_bytes <= new.size_bytes)
            && other.volumes.iter().all(VolumeGeometry::is_possible)
    }
}

pub(crate) fn put_volumes(out: &mut Vec<u8>, volumes: &[VolumeGeometry]) {
    out.put_list(volumes, |out, volume| {
        out.put_u64_le(volume.size_bytes);
        out.put_u32_le(volume.block_size);
    });
}

pub(crate) fn get_volumes(reader: &mut Reader<'_>) -> Result<Vec<VolumeGeometry>, CodecError> {
    reader.list("volumes", usize::from(VOLUMES_MAX), |reader| {
        let size_bytes = reader.u64("volume size")?;
        Ok(VolumeGeometry { size_bytes, block_size: reader.u32("block size")? })
    })
}

/// A count of growths at the end of something that had none before.
pub(crate) fn get_growths(reader: &mut Reader<'_>) -> Result<u32, CodecError> {
    if reader.is_empty() { Ok(0) } else { reader.u32("count of growths") }
}

pub(crate) fn put_growths(out: &mut Vec<u8>, growths: u32) {
    if growths > 0 {
        out.put_u32_le(growths);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_grown_to_only_by_growths() {
        let sizes = |growths, size_bytes, block_size| Sizes {
            growths,
            volumes: vec![VolumeGeometry { size_bytes, block_size }],
        };
        let own = sizes(1, 4096, 512);
        assert!(own.grow_to(&sizes(2, 8192, 512)));
        assert!(own.grow_to(&sizes(5, 4096, 512)), "another volume may have been grown");
        for (other, why) in [
            (sizes(1, 8192, 512), "it was created larger"),
            (sizes(2, 2048, 512), "nothing shrinks"),
            (sizes(2, 8192, 4096), "blocks stay what they are"),
            (sizes(2, VOLUME_BYTES_MAX + 512, 512), "there is a limit"),
            (sizes(2, 8193, 512), "a volume has whole blocks"),
            (Sizes { growths: 2, volumes: Vec::new() }, "volumes do not go away"),
        ] {
            assert!(!own.grow_to(&other), "{why}");
        }
    }
}

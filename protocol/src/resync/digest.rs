//! Digests of leaves and regions.

use std::fmt;
use std::sync::OnceLock;

use super::{LEAF, LEAVES, REGION};

/// What a leaf or a region holds, as a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Of a leaf that holds these bytes.
    #[must_use]
    pub fn of_leaf(content: &[u8]) -> Self {
        Self(*blake3::hash(content).as_bytes())
    }

    /// Of a region with these leaves, in order.
    #[must_use]
    pub fn of_region(leaves: &[Digest]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("hadrian region of leaves v1");
        leaves.iter().for_each(|leaf| {
            hasher.update(&leaf.0);
        });
        Self(*hasher.finalize().as_bytes())
    }

    /// Of a leaf of `len` bytes, all of them zero.
    #[must_use]
    pub fn of_zero_leaf(len: u64) -> Self {
        static WHOLE: OnceLock<Digest> = OnceLock::new();
        let zeroes = |len: u64| Self::of_leaf(&vec![0; usize::try_from(len).unwrap_or_default()]);
        if len == LEAF { *WHOLE.get_or_init(|| zeroes(LEAF)) } else { zeroes(len.min(LEAF)) }
    }

    /// Of a region of `len` bytes, all of them zero.
    #[must_use]
    pub fn of_zero_region(len: u64) -> Self {
        static WHOLE: OnceLock<Digest> = OnceLock::new();
        let zeroes = |len: u64| {
            let leaves: Vec<_> = leaf_lens(len).map(Self::of_zero_leaf).collect();
            Self::of_region(&leaves)
        };
        if len == REGION { *WHOLE.get_or_init(|| zeroes(REGION)) } else { zeroes(len) }
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The lengths of the leaves of a region of `len` bytes.
pub fn leaf_lens(len: u64) -> impl Iterator<Item = u64> {
    let len = len.min(REGION);
    (0..LEAVES as u64)
        .map(move |leaf| len.saturating_sub(leaf * LEAF).min(LEAF))
        .take_while(|l| *l > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_of_zeroes_has_the_digest_of_its_zero_leaves() {
        for len in [REGION, REGION - LEAF, REGION - 512, LEAF, 512] {
            let leaves: Vec<_> =
                leaf_lens(len).map(|len| Digest::of_leaf(&vec![0; len as usize])).collect();
            assert_eq!(leaf_lens(len).sum::<u64>(), len);
            assert_eq!(Digest::of_zero_region(len), Digest::of_region(&leaves), "{len} bytes");
        }
    }

    #[test]
    fn leaves_that_change_places_change_the_region() {
        let (a, b) = (Digest::of_leaf(b"a"), Digest::of_leaf(b"b"));
        assert_ne!(Digest::of_region(&[a, b]), Digest::of_region(&[b, a]));
    }
}

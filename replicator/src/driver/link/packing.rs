//! Frames made smaller for slow links, by zstd.
//!
//! A packed frame is the length of the frame, four bytes little-endian, and then one zstd frame.
//! Every member unpacks; only a member whose configuration asks for it packs. A frame that hardly
//! shrinks is sent as it is.

use hadrian_protocol::frame::{BODY_LEN_MAX, HEAD_LEN};
use zstd::bulk::{Compressor, Decompressor};

/// Level of compression: the quickest; slow links gain most from the first factor.
const LEVEL: i32 = 1;
/// Longest frame on the wire, in bytes.
const FRAME_LEN_MAX: usize = HEAD_LEN + BODY_LEN_MAX;
/// Frames shorter than this are not worth the work.
const WORTH_IT: usize = 512;
const LENGTH_LEN: usize = 4;

/// Whether frames are compressed on their way.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Compression {
    /// As they are: for links as fast as disks.
    #[default]
    None,
    /// By zstd at its quickest level.
    Zstd,
}

/// Why a packed frame cannot be unpacked; the connection cannot be trusted further.
#[derive(Debug, thiserror::Error)]
pub enum PackingError {
    /// Its length is no frame's, or not what it unpacks to.
    #[error("a compressed frame has a length that no frame has")]
    Length,
    /// zstd's word.
    #[error("a compressed frame cannot be unpacked: {0}")]
    Zstd(#[source] std::io::Error),
}

/// Compresses the frames of one link, where that is wanted.
#[derive(Default)]
pub(super) struct Packer {
    zstd: Option<Compressor<'static>>,
    plain: Vec<u8>,
    packed: Vec<u8>,
}

impl Packer {
    pub(super) fn new(compression: Compression) -> Result<Self, PackingError> {
        let zstd = match compression {
            Compression::None => None,
            Compression::Zstd => Some(Compressor::new(LEVEL).map_err(PackingError::Zstd)?),
        };
        Ok(Self { zstd, ..Self::default() })
    }

    /// The packed form of a frame's wire parts; `None` where it is to be sent as it is.
    pub(super) fn pack(&mut self, head: &[u8], body: &[u8]) -> Option<&[u8]> {
        let zstd = self.zstd.as_mut()?;
        self.plain.clear();
        self.plain.extend_from_slice(head);
        self.plain.extend_from_slice(body);
        let len = self.plain.len();
        if len < WORTH_IT {
            return None;
        }
        // With room for an eighth less than the frame has: zstd gives up where that is too little.
        self.packed.resize(len - len / 8, 0);
        let (length, rest) = self.packed.split_at_mut(LENGTH_LEN);
        length.copy_from_slice(&u32::try_from(len).ok()?.to_le_bytes());
        let used = zstd.compress_to_buffer(&self.plain, rest).ok()?;
        self.packed.truncate(LENGTH_LEN + used);
        Some(&self.packed)
    }
}

/// Unpacks the frames of one link; costs nothing until the first packed one comes.
#[derive(Default)]
pub(super) struct Unpacker {
    zstd: Option<Decompressor<'static>>,
    plain: Vec<u8>,
}

impl Unpacker {
    /// The frame's bytes as they are on the wire.
    pub(super) fn unpack(&mut self, packed: &[u8]) -> Result<&[u8], PackingError> {
        let (length, rest) =
            packed.split_first_chunk::<LENGTH_LEN>().ok_or(PackingError::Length)?;
        let len = u32::from_le_bytes(*length) as usize;
        if len > FRAME_LEN_MAX {
            return Err(PackingError::Length);
        }
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(Decompressor::new().map_err(PackingError::Zstd)?),
        };
        self.plain.resize(len, 0);
        // The buffer is the bound: more than was announced does not fit and is refused.
        let used =
            zstd.decompress_to_buffer(rest, &mut self.plain[..]).map_err(PackingError::Zstd)?;
        if used == len { Ok(&self.plain) } else { Err(PackingError::Length) }
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn packed(head: &[u8], body: &[u8]) -> Option<Vec<u8>> {
        Packer::new(Compression::Zstd).unwrap().pack(head, body).map(<[u8]>::to_vec)
    }

    #[test]
    fn a_frame_that_shrinks_comes_back_as_it_was() {
        let (head, body) = ([7; 200], vec![1; 64 << 10]);
        let packed = packed(&head, &body).unwrap();
        assert!(packed.len() < 1000, "{} bytes", packed.len());
        let mut unpacker = Unpacker::default();
        assert_eq!(unpacker.unpack(&packed).unwrap(), [&head[..], &body].concat());
        // The next one finds the buffers of the last.
        assert_eq!(unpacker.unpack(&packed).unwrap().len(), head.len() + body.len());
    }

    #[test]
    fn noise_and_trifles_are_sent_as_they_are() {
        let noise: Vec<u8> =
            (0..8192_u32).flat_map(|n| Sha256::digest(n.to_le_bytes()).to_vec()).collect();
        assert_eq!(packed(&[0; 200], &noise), None);
        assert_eq!(packed(&[0; 200], &[]), None);
    }

    #[test]
    fn nothing_is_packed_unless_it_was_asked_for() {
        let mut packer = Packer::new(Compression::None).unwrap();
        assert_eq!(packer.pack(&[0; 200], &[0; 4096]), None);
    }

    #[test]
    fn a_bomb_is_stopped_at_the_length_of_a_frame() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], LEVEL).unwrap();
        let announced =
            |len: usize| [&u32::try_from(len).unwrap().to_le_bytes()[..], &bomb].concat();
        let mut unpacker = Unpacker::default();
        let too_long = unpacker.unpack(&announced(64 << 20));
        assert!(matches!(too_long, Err(PackingError::Length)));
        let overflowing = unpacker.unpack(&announced(FRAME_LEN_MAX));
        assert!(matches!(overflowing, Err(PackingError::Zstd(_))));
        assert!(unpacker.plain.len() <= FRAME_LEN_MAX);
    }

    #[test]
    fn cut_and_changed_frames_are_refused() {
        let whole = packed(&[7; 200], &[1; 4096]).unwrap();
        let mut unpacker = Unpacker::default();
        for len in 0..whole.len() {
            assert!(unpacker.unpack(&whole[..len]).is_err(), "cut to {len} bytes");
        }
        let mut short = whole.clone();
        short[0] = short[0].wrapping_add(1);
        assert!(matches!(unpacker.unpack(&short), Err(PackingError::Length)));
    }
}

//! A staging that an earlier sink has left: its header, and the digests of its leaves.
//!
//! Input: one byte of how, the length of the header (one byte), the header, the digests. With
//! how & 1 the header is right, with how & 2 the digests have the length of those of one region.

use std::path::Path;

use hadrian_blockdev::engine::Engine as _;
use hadrian_blockdev::engine::double::{Double, Order, Unsynced};
use hadrian_blockdev::resync::fuzz;
use hadrian_golden::Golden;
use hadrian_protocol::ids::ResourceId;
use hadrian_protocol::replica::VolumeGeometry;
use hadrian_protocol::resync::LEAVES;

/// Size of the volume: one region, and less.
const SIZE: u64 = (1 << 20) + 512;
const DIGEST_LEN: usize = 32;

/// Opens `input` as a staging, and begins one where it is none.
///
/// # Panics
/// If a property breaks.
pub fn run(input: &[u8]) {
    let [how, header_len, rest @ ..] = input else { return };
    let (header, leaves) = rest.split_at(usize::from(*header_len).min(rest.len()));
    let mut leaves = leaves.to_vec();
    if how & 2 != 0 {
        leaves.resize(LEAVES * DIGEST_LEN, 0);
    }
    let mut disk = Double::new(1, Order::AsSubmitted, Unsynced::Lost);
    let (replica, dir) = (Path::new("/replica"), Path::new("/replica/staging"));
    let made = [replica, dir].map(|dir| disk.create_dir(dir).is_ok());
    assert_eq!(made, [true; 2], "an empty disk takes directories");
    let header = if how & 1 != 0 { right_header() } else { header.to_vec() };
    let content = vec![7; SIZE as usize];
    for (name, bytes) in [("header", &header), ("0.leaves", &leaves), ("0.content", &content)] {
        let path = dir.join(name);
        disk.put_file(&path, bytes.len());
        disk.tamper(&path, |file| file.copy_from_slice(bytes));
    }
    let volumes = [VolumeGeometry { size_bytes: SIZE, block_size: 512 }];
    let found = fuzz::staging(&mut disk, replica, ResourceId::from_bytes([3; 16]), &volumes);
    let (opened, begun) = found.expect("whatever is there, a sink begins");
    let is_one = header == right_header() && leaves.len() == LEAVES * DIGEST_LEN;
    assert_eq!(opened.is_some(), is_one, "only what is right is taken");
    assert_eq!(opened.unwrap_or_default(), begun, "the next sink goes on, or begins anew");
    let count = SIZE.div_ceil(hadrian_protocol::resync::LEAF) as usize * DIGEST_LEN;
    let is_staged = leaves.iter().take(count).any(|byte| *byte != 0);
    assert_eq!(!begun.is_empty(), is_one && is_staged, "what has a digest is staged");
}

/// The golden header with the size of this volume.
pub(crate) fn right_header() -> Vec<u8> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../blockdev");
    let mut header = Golden::new(dir, "v1").read("staging-header");
    let at = header.len() - 16;
    crate::mend::put(&mut header, at, &SIZE.to_le_bytes());
    crate::mend::put(&mut header, at + 8, &512_u32.to_le_bytes());
    let (body, _) = header.split_at(header.len() - 4);
    let (at, crc) = (body.len(), hadrian_protocol::checksum::crc32c(body));
    crate::mend::put(&mut header, at, &crc.to_le_bytes());
    header
}

//! The file of a dirty map.
//!
//! Input: one byte of how, then the file. With how & 1 the checksums of its head and of its map are
//! computed; how & 6 says of how large a volume it is to be.

use hadrian_blockdev::resync::fuzz;
use hadrian_protocol::checksum::crc32c;
use hadrian_protocol::ids::{MemberId, ResourceId};
use hadrian_protocol::replica::VolumeGeometry;

use crate::memory::within;
use crate::mend;

/// Length of the head, with its checksum.
pub(crate) const HEAD_LEN: usize = 47;
/// What reading a map may hold: its words, twice, and its file beside them.
const HELD_MAX: usize = 4 << 20;

/// Reads `input` as a dirty map.
///
/// # Panics
/// If a property breaks.
pub fn run(input: &[u8]) {
    let Some((how, bytes)) = input.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if how & 1 != 0 {
        seal(&mut bytes);
    }
    let volumes = [volume(*how)];
    let marked = within(HELD_MAX, || fuzz::map(&bytes, whose(), &volumes));
    assert!(marked.unwrap_or_default() <= volumes[0].size_bytes, "no more is marked than there is");
}

/// Of small volumes, and of one with larger units.
fn volume(how: u8) -> VolumeGeometry {
    let size_bytes = [1 << 20, (1 << 20) + 512, 1 << 30, 1 << 46][usize::from(how >> 1 & 3)];
    VolumeGeometry { size_bytes, block_size: 512 }
}

/// The replica and the member whose map the golden file is.
fn whose() -> (ResourceId, MemberId) {
    (ResourceId::derive("a", "r"), MemberId::new(1).expect("there is a second member"))
}

fn seal(bytes: &mut [u8]) {
    let head = bytes.get(..HEAD_LEN - 4).map(crc32c).unwrap_or_default();
    mend::put(bytes, HEAD_LEN - 4, &head.to_le_bytes());
    let map = bytes.get(HEAD_LEN..).unwrap_or_default();
    if let Some((body, _)) = map.split_last_chunk::<4>() {
        let (at, crc) = (bytes.len() - 4, crc32c(body));
        mend::put(bytes, at, &crc.to_le_bytes());
    }
}

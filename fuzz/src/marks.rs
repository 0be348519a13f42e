//! Everything that is read from a marker.
//!
//! Input: one byte of how, then blocks of 512 bytes each, as many as there are, the rest of each
//! 4 KiB being zeroes. With how & 1 checksums are computed; how & 6 says what they are read as.

use hadrian_protocol::checksum::crc32c;
use hadrian_protocol::ids::{ClusterId, ResourceId};
use hadrian_protocol::marks::header::{Header, Label};
use hadrian_protocol::marks::layout::{BLOCK_LEN, BlockIndex, Place, Run};
use hadrian_protocol::marks::parts::{read_controls, read_leases};

use crate::memory::within;

/// What reading a marker may hold beside its bytes.
const HELD_MAX: usize = 64 << 10;
const RECORD_LEN: usize = 512;
const MEMBERS: u8 = 2;

/// Reads `input` as what a marker holds.
///
/// # Panics
/// If a property breaks.
pub fn run(input: &[u8]) {
    let Some((how, bytes)) = input.split_first() else { return };
    let (cluster, resource) = names();
    let place = Place::new(0).expect("there is a first place");
    let run = if how & 6 == 0 { Run::leases() } else { Run::controls(place, MEMBERS) };
    let marker = marker(bytes, run, how & 1 != 0);
    within(HELD_MAX, || match how & 6 {
        0 => {
            if let Ok(leases) = read_leases(&marker, cluster, MEMBERS) {
                for lease in leases {
                    let sealed = lease.seal(cluster);
                    let at = usize::try_from(lease.index().get() - run.first.get()).unwrap_or(0);
                    assert_same(&marker, at, sealed.as_bytes());
                }
            }
        }
        2 => {
            let controls = read_controls(&marker, (cluster, resource), (place, MEMBERS));
            for control in controls.unwrap_or_default() {
                let sealed = control.seal(cluster, place);
                let at = usize::try_from(control.index(place).get() - run.first.get()).unwrap_or(0);
                assert_same(&marker, at, sealed.as_bytes());
            }
        }
        4 => {
            let [first, _] = BlockIndex::HEADERS;
            if let Ok(header) = Header::open(&marker, cluster, first) {
                assert_same(&marker, 0, header.seal(cluster, first).as_bytes());
            }
        }
        _ => {
            if let Ok(label) = Label::open(&marker, cluster, place) {
                assert_same(&marker, 0, label.seal(cluster, place).as_bytes());
            }
        }
    });
}

/// What the readers look for.
pub(crate) fn names() -> (ClusterId, ResourceId) {
    (ClusterId::derive("orders"), ResourceId::derive("orders", "db"))
}

/// A block has one spelling, but for the reserved bytes and what stands behind a body.
fn assert_same(marker: &[u8], at: usize, sealed: &[u8; BLOCK_LEN]) {
    let found = &marker[at * BLOCK_LEN..][..BLOCK_LEN];
    let len = u32::from_le_bytes([sealed[36], sealed[37], sealed[38], sealed[39]]) as usize;
    assert_eq!(found[..33], sealed[..33], "the head");
    assert_eq!(found[36..64 + len], sealed[36..64 + len], "the body");
}

fn marker(bytes: &[u8], run: Run, seals: bool) -> Vec<u8> {
    let mut marker = vec![0; run.len()];
    for (block, record) in marker.chunks_mut(BLOCK_LEN).zip(bytes.chunks(RECORD_LEN)) {
        block[..record.len()].copy_from_slice(record);
        if seals {
            let sum = crc32c(&block[..RECORD_LEN - 4]).to_le_bytes();
            block[RECORD_LEN - 4..RECORD_LEN].copy_from_slice(&sum);
        }
    }
    marker
}

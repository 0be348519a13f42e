//! Checksums, computed so that the search gets past them: no fuzzer guesses a CRC-32C.
//!
//! The offsets are those of version 1, which the golden files hold in place.

use blake3::Hasher;
use hadrian_blockdev::superblock::{LABEL_LEN_MAX, Label};
use hadrian_protocol::checksum::{crc32c, crc32c_of_two};
use hadrian_protocol::frame::{BODY_LEN_MAX, HEAD_LEN, HEADER_LEN, RECORD_LEN, RECORDS_MAX};
use hadrian_protocol::ids::ResourceId;

/// The resource whose frames and messages the harnesses take for their own.
pub(crate) fn resource() -> ResourceId {
    ResourceId::derive("orders", "db")
}

/// What stands on the replica that they take for their own.
pub(crate) fn label() -> Label {
    Label::new("orders", "alpha").unwrap_or_default()
}

/// The same, as it stands in a superblock.
pub(crate) fn label_bytes() -> [u8; LABEL_LEN_MAX] {
    let mut bytes = [0; LABEL_LEN_MAX];
    put(&mut bytes, 0, label().to_string().as_bytes());
    bytes
}

/// Puts `field` at `at`, where it fits.
pub(crate) fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + field.len()) {
        place.copy_from_slice(field);
    }
}

/// The number of two bytes at `at`; zero where there is none.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |field| u16::from_le_bytes(*field))
}

/// The number of four bytes at `at`; zero where there is none.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |field| u32::from_le_bytes(*field))
}

/// Makes what identifies a frame right: magic, version, resource, and sizes that fit each other
/// and a body of at most `body_max` bytes.
pub(crate) fn identify(head: &mut [u8], body_max: usize) {
    let record_count = u16_at(head, 6) % (RECORDS_MAX as u16 + 1);
    let body_len = (u32_at(head, 60) as usize).min(body_max).min(BODY_LEN_MAX);
    let head_len = HEADER_LEN + usize::from(record_count) * RECORD_LEN;
    let log_len = HEAD_LEN + body_len.next_multiple_of(4096);
    put(head, 0, b"HDRF\x01\0");
    put(head, 6, &record_count.to_le_bytes());
    put(head, 8, resource().as_bytes());
    for (at, len) in [(56, head_len), (60, body_len), (64, log_len)] {
        put(head, at, &u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
    }
}

/// Computes the checksums of the frame in `bytes`, in log layout: payloads, chain on `before`,
/// head. Whatever does not fit is left as it is.
pub(crate) fn seal_frame(bytes: &mut [u8], before: &[u8; 32]) {
    let head_len = u32_at(bytes, 56) as usize;
    if !(HEADER_LEN..=HEAD_LEN).contains(&head_len) || bytes.len() < HEAD_LEN {
        return;
    }
    for entry in (HEADER_LEN..head_len).step_by(RECORD_LEN) {
        let start = HEAD_LEN + u32_at(bytes, entry + 28) as usize;
        let end = start + u32_at(bytes, entry + 4) as usize;
        if let Some(payload) = bytes.get(start..end) {
            let crc = crc32c(payload);
            put(bytes, entry + 24, &crc.to_le_bytes());
        }
    }
    let table = bytes.get(HEADER_LEN..head_len).unwrap_or_default();
    let mut hasher = Hasher::new();
    hasher.update(before).update(bytes.get(..92).unwrap_or_default()).update(table);
    let chain = *hasher.finalize().as_bytes();
    put(bytes, 92, &chain);
    let (header, rest) = bytes.split_at(HEADER_LEN);
    let table = rest.get(..head_len - HEADER_LEN).unwrap_or_default();
    let crc = crc32c_of_two(&header[..HEADER_LEN - 4], table);
    put(bytes, HEADER_LEN - 4, &crc.to_le_bytes());
}

/// Computes the checksum of the envelope at the front of `bytes`, body included unless it holds a
/// frame, and lets its length end with `bytes` where it reaches further.
pub(crate) fn seal_envelope(bytes: &mut [u8]) {
    let Some(room) = bytes.len().checked_sub(12) else { return };
    let len = (u32_at(bytes, 4) as usize).min(room);
    put(bytes, 4, &u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
    put(bytes, 0, b"HW");
    put(bytes, 3, &[1]);
    let is_frame = bytes.get(2) == Some(&1);
    let body = if is_frame { &[] } else { bytes.get(12..12 + len).unwrap_or_default() };
    let crc = crc32c_of_two(&bytes[..8], body);
    put(bytes, 8, &crc.to_le_bytes());
}

/// Computes the checksums of the superblock copy in `copy`, and lets its length fit.
pub(crate) fn seal_superblock(copy: &mut [u8]) {
    const HEADER_LEN: usize = 256;
    let Some(room) = copy.len().checked_sub(HEADER_LEN) else { return };
    let len = (u32_at(copy, 12) as usize).min(room);
    put(copy, 0, b"HDRNSUPB\x01\0");
    put(copy, 12, &u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
    let body = copy.get(HEADER_LEN..HEADER_LEN + len).unwrap_or_default();
    let hash = *blake3::hash(body).as_bytes();
    put(copy, 40, &hash);
    let body = copy.get(HEADER_LEN..HEADER_LEN + len).unwrap_or_default();
    let crc = crc32c_of_two(&copy[..HEADER_LEN - 4], body);
    put(copy, HEADER_LEN - 4, &crc.to_le_bytes());
}

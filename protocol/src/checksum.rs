//! CRC-32C (RFC 3720, appendix B.4), the checksum of every format of this project.

use crc_fast::{CrcAlgorithm, Digest};

/// The checksum of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The checksum of `first` with `second` behind it.
#[must_use]
pub fn crc32c_of_two(first: &[u8], second: &[u8]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(first);
    digest.update(second);
    // A checksum of 32 bits fits.
    u32::try_from(digest.finalize()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard_in_one_piece_and_in_two() {
        let zeroes = [0; 32];
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&zeroes), 0x8a91_36aa, "RFC 3720, appendix B.4");
        assert_eq!(crc32c_of_two(&zeroes[..5], &zeroes[5..]), 0x8a91_36aa);
        assert_eq!(crc32c_of_two(b"", b""), crc32c(b""));
    }
}

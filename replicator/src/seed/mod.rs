//! An image of a resource in one file, to be carried to another host by hand (design §8.1).
//!
//! ```text
//! 0        4096
//! | header | record | record | … | end |
//! ```
//!
//! The header says of which resource and of which volumes it is. A record holds what some whole
//! leaves of a volume hold, as zstd makes it or as it is; zeroes are not stored, and what no record
//! names is zero. A leaf that changed while the file was written comes again: the last one counts.
//! The end holds the state of a replica with that image, in the form of a superblock: the position
//! in the log that all of it is of, with the history that leads there; and then the blake3 digest
//! of all bytes before it. So a file is whole or it is none, and nobody takes half of one.
//!
//! What a source of a resync is answered, so that it sends everything that is not zero, is in
//! [`hadrian_protocol::resync::seed`].
//!
//! | room | what happens there |
//! |---|---|
//! | `format` | the bytes of header, records and end |
//! | `write`, `read` | a file, from its beginning to its end |

mod format;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::io;

use hadrian_protocol::codec::CodecError;

pub use format::{HEADER_LEN, Header};
pub use read::{Piece, SeedReader};
pub use write::SeedWriter;

/// Why a file is no seed, or no whole one.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// It is something else.
    #[error("this is no seed: hadrian seed export makes one")]
    Magic,
    /// A later program wrote it.
    #[error(
        "it has version {found}, this program reads {}; install the later program here",
        format::VERSION
    )]
    Newer {
        /// The version in the header.
        found: u16,
    },
    /// It ends before its end.
    #[error("it ends at byte {at} and is not whole; copy it again")]
    CutOff {
        /// Where, in bytes of the file.
        at: u64,
    },
    /// What is there was not written so.
    #[error("it is damaged at byte {at}; copy it again, or export it anew")]
    Damaged {
        /// Where, in bytes of the file.
        at: u64,
    },
    /// The state in its end cannot be understood.
    #[error("its end cannot be understood: {0}; it was written by another version")]
    State(#[from] CodecError),
    /// The system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
}

//! Bytes at rest and block exports.

pub mod buffer;
pub mod engine;
pub mod export;
pub mod history;
pub mod inspect;
pub mod journal;
pub mod nbd;
mod pieces;
pub mod quarantine;
pub mod replica;
pub mod resync;
mod ring;
pub mod superblock;
#[cfg(feature = "ublk")]
pub mod ublk;
pub mod volume;

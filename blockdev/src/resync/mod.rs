//! The disk side of seeding and resync (design §8): what a source reads and sends, what a sink
//! stages beside its image, how the image is switched, and the dirty maps of absent standbys.
//!
//! All of it is work of many steps beside the data path, written as tasks (`task`); the replica
//! begins and ends them, hands them messages and what it knows of log and stores, and passes on
//! what they say (`crate::replica`).
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub(crate) mod compare;
mod error;
pub mod fuzz;
pub(crate) mod image;
pub(crate) mod maps;
pub(crate) mod mend;
pub(crate) mod rewind;
pub(crate) mod sink;
pub(crate) mod source;
pub(crate) mod staging;
pub(crate) mod switch;
pub(crate) mod task;

pub use error::{BadCopying, SinkError};
pub use rewind::RewindError;
pub(crate) use sink::{LogPart, Tail};
pub(crate) use staging::fault;

/// Bytes of content that are sent and not taken, at most (design §10).
pub(crate) const CONTENT_WINDOW: u64 = 8 << 20;

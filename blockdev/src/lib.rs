//! Bytes at rest and block exports.

pub mod buffer;
pub mod engine;

//! Bytes at rest and block exports.

pub mod buffer;

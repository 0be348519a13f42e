//! The rules of Hadrian: formats, state machines and nothing that touches the world.
//!
//! The crate does no I/O, reads no clock, draws no random number and starts no thread. Time and
//! every fact from outside come in as events, everything to be done goes out as actions, and the
//! same events give the same actions, byte for byte (invariant I11). So whole clusters can be
//! simulated in one process, and what happened in the field can be replayed.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod backoff;
pub mod checksum;
pub mod codec;
pub mod divergence;
pub mod frame;
pub mod history;
pub mod ids;
pub mod marks;
pub mod node;
pub mod point;
pub mod range;
pub mod record;
pub mod replica;
pub mod resync;
pub mod sizes;
pub mod time;
pub mod wire;

#[cfg(test)]
mod golden;

//! Whole daemons in real processes: a cluster on loopback, and a client that remembers what it
//! was answered.

pub mod client;
pub mod cluster;

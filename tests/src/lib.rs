//! Whole daemons in real processes, and real clients. The cluster and the client that remembers its
//! answers are those of `hadrian demo`.

pub mod mounted;
pub mod rounds;
pub mod tools;

pub use hadrian_replicator::demo::{Client, Cluster, Compression, Side, Spec};

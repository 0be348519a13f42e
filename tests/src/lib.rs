//! Whole daemons in real processes. The cluster and the client that remembers its answers are
//! those of `hadrian demo`.

pub use hadrian_replicator::demo::{Client, Cluster, Compression, Side, Spec};

pub mod rounds;

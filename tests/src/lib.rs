//! Whole daemons in real processes, and real clients. The cluster and the client that remembers its
//! answers are those of `hadrian demo`.

pub mod comparisons;
pub mod etcd;
pub mod fencing;
pub mod looks;
pub mod marked;
pub mod megabytes;
mod memory;
pub mod mounted;
pub mod namespaces;
pub mod postgres;
pub mod proxy;
pub mod reach;
pub mod rounds;
pub mod runbook;
pub mod tools;
pub mod trio;
pub mod troubles;
pub mod ways;

pub use hadrian_replicator::demo::{Client, Cluster, Compression, Side, Spec};

//! Stories of two and three members, told on whole nodes.

mod backs;
mod cluster;
mod figures;
mod grows;
mod holds;
mod leases;
mod resyncs;
mod stories;
mod tables;
mod told;

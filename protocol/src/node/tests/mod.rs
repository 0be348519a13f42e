//! Stories of two and three members, told on whole nodes.

mod cluster;
mod stories;
mod tables;

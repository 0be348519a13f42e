//! What the benches of the data path and of scale share.

pub mod process;

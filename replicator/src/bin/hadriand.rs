//! The `hadriand` program.

fn main() {}

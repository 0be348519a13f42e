//! The `hadrian` program.

fn main() {}

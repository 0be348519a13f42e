//! Whole nodes, wired together in one process.

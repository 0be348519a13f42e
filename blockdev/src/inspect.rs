//! What lies on a replica's disk, read without changing anything: for offline tools, and for
//! people who have to decide what to do with a damaged replica.
//!
//! Nothing here needs the daemon to be stopped, but what a running daemon writes at the same time
//! may be seen half-done.

pub use crate::journal::inspect::{Cut, FrameDump, InspectEnd, LogInfo, SegmentInfo, frames, log};
pub use crate::journal::inspect::{QuarantineDump, quarantine};
pub use crate::quarantine::{Block, BlocksDump, BlocksError, BlocksHeader, blocks};
pub use crate::superblock::inspect as superblock;

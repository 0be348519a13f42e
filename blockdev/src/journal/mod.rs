//! The journal: the log of a replica as preallocated segment files (design §2.6).
//!
//! The log is one endless line of bytes, position = LSN. A segment holds a fixed stretch of it and
//! bears the LSN of its first byte as its name; a frame may lie across two. When everything in the
//! oldest segment is no longer needed, it is renamed to continue the line. What it still holds
//! names lower positions in its headers, so it cannot pass for anything new.
//!
//! | room | what happens there |
//! |---|---|
//! | `segments` | which file holds which stretch; creation; recycling |
//! | `writer` | appending and group sync, the watermarks written and durable |
//! | `reader` | whole verified frames from a position |
//! | `recovery` | the end of the log after a crash; torn tail or damage |
//! | `truncate` | cutting a tail that was saved first |

mod reader;
mod recovery;
mod segments;
mod truncate;
mod writer;

pub use reader::{LogRead, read_frames};
pub use recovery::{RecoveryError, Stop, recover};
pub use segments::{SEGMENT_LEN_MIN, SegmentError, Segments, create};
pub use truncate::{TruncateError, quarantine, wipe};
pub use writer::{Journal, JournalEvent, LogFull};

#[cfg(test)]
mod tests;

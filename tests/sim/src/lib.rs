//! Whole clusters on simulated time: members with their real core, journal, superblock and
//! volumes over disks in memory, a network, clients, an operator, and everything that goes wrong.
//!
//! A [`Plan`] is all that a run depends on: the settings, and a list of [`Happening`]s. One plan
//! gives one run, byte for byte (I11). The [`oracle`] watches every append, answer, message and
//! restart, and knows from the outside what the contract promises (design §3, §11).
//!
//! | room | what happens there |
//! |---|---|
//! | `plan` | what a run is made of; plans from seeds |
//! | `world` | the order of events |
//! | `host` | one member: its disk, its process, its pump |
//! | `disk` | the disk that outlives a process |
//! | `net` | connections that delay, stall and break |
//! | `clients` | who writes, reads and flushes |
//! | `oracle` | what must be true |
//! | `story` | what happened, in words |
//! | `tape` | recordings of what a core was told |
//! | `shrink` | the shortest plan that still goes wrong |
//! | `explore` | every interleaving of very small clusters |

mod clients;
mod disk;
pub mod explore;
mod host;
mod net;
pub mod oracle;
pub mod plan;
pub mod shrink;
mod story;
pub mod sweep;
mod tape;
mod world;

pub use oracle::Violation;
pub use plan::{Happening, Plan};
pub use story::{Telling, named};
pub use world::{Report, run, run_recorded, run_told};

/// Simulated time, in microseconds since the run began.
pub type Micros = u64;

/// The names of the members in stories.
pub const NAMES: [&str; 4] = ["alpha", "beta", "gamma", "delta"];

/// One millisecond.
pub const MS: Micros = 1_000;
/// One second.
pub const SECOND: Micros = 1_000_000;

//! The data path of one resource, on one thread: the node, the replica, the clients and the links
//! to the other members. Nothing here is shared with another thread, so nothing is locked.
//!
//! Whatever happens (a completion, a message, a request) is handed to the node at once; the pump
//! then settles the node, carries out its actions, and answers the clients, for all of it together.

mod clients;
mod companions;
#[cfg(feature = "ublk")]
mod device;
#[cfg(not(feature = "ublk"))]
#[path = "no_device.rs"]
mod device;
mod exports;
mod happenings;
mod hold;
mod link;
mod marks;
mod own;
mod points;
mod reading;
mod ready;
mod resource;
mod resync;
mod seed;
mod seen;
mod share;
mod thread;
mod told;

pub use companions::{CompanionsStart, CompanionsStatus};
pub use link::{Compression, LinkError, LinkStream, PackingError};
pub use marks::{Mailbox, MarksDoor};
pub use points::{NamedPoint, Namer};
pub use resource::ResourceOptions;
pub use resync::CopyStatus;
pub use seed::{SeedState, SeedStatus, SeedWish};
pub use share::Share;
pub use thread::{
    Ask, ResourceHandle, ResourceStart, Starting, TcpStreamParts, of_configuration, sizes_in_words,
    start,
};
pub use told::ToldEvent;

/// What people see of a running resource.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What the core says.
    pub node: hadrian_protocol::node::NodeStatus,
    /// Bytes of one file of the log: positions are shown as file and offset, too.
    pub segment_bytes: u64,
    /// Bytes of log that this primary applies before it lets clients in; none: they are in, or it
    /// is no primary.
    pub opening_bytes: Option<u64>,
    /// Bytes of each volume, as clients find it.
    pub volumes: Vec<u64>,
    /// Clients were thrown out until this member has a lease again.
    pub withdrawn: bool,
    /// Microseconds until this member's right to serve ends, from whichever source lasts longer.
    pub right_us: Option<u64>,
    /// What a diverged replica holds that the primary's history does not.
    pub divergence: Option<hadrian_protocol::divergence::Divergence>,
    /// The resyncs in which this member takes part.
    pub copies: Vec<CopyStatus>,
    /// The export of a seed, under way or ended.
    pub seed: Option<SeedStatus>,
    /// Its companion files, where it has any.
    pub companions: Option<CompanionsStatus>,
    /// What is kept of the past, where that is wanted.
    pub history: Option<hadrian_blockdev::replica::HistoryStatus>,
}

/// How the file of a seed gets its name, for whoever writes one without a daemon.
pub(crate) mod seed_files {
    pub(crate) use super::seed::{create, name_it, part_of};
}

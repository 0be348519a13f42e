//! The control channel: `hadrian` talks to `hadriand` over a unix socket, one JSON line each way.

mod client;
mod history;
mod server;

pub use client::{ANSWER, AskError, ask, ask_within};
pub use history::{At, FoundPoint, HistoryStatus, PointStatus, ViewStatus};
pub use server::{Handler, Listener, converse, listen, serve};

use std::path::{Path, PathBuf};

use hadrian_blockdev::quarantine::Room;
use hadrian_protocol::divergence::Divergence;
use hadrian_protocol::ids::{MemberId, VolumeIndex};
use hadrian_protocol::marks::watch::Sight;
use hadrian_protocol::node::{Command, Denied, Done, How};
pub use hadrian_protocol::node::{NodeStatus, StandbyState};
use hadrian_protocol::point::PointName;
use hadrian_protocol::replica::Mode;
use serde::{Deserialize, Serialize};

pub use crate::driver::{
    CompanionsStatus, CopyStatus, NamedPoint, SeedState, SeedStatus, ToldEvent,
};

/// Version 1: the first.
pub const VERSION: u16 = 1;
/// Longest request, in bytes.
const REQUEST_MAX: u64 = 1 << 20;
/// Longest answer, in bytes.
const RESPONSE_MAX: u64 = 16 << 20;

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The state of every resource, or of one.
    Status {
        /// Which; none for all.
        resource: Option<String>,
    },
    /// Make this member the primary.
    Takeover {
        /// Of which resource.
        resource: String,
        /// By which right.
        how: How,
        /// Only say whether it would be granted.
        test: bool,
        /// At which point of its past; none: at the end of its log.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<At>,
    },
    /// Which point of this member's image is meant.
    Find {
        /// Of which resource.
        resource: String,
        /// The point, as an operator names it.
        at: At,
    },
    /// What happened to a resource since an event of this number; 0 for all that is kept.
    Events {
        /// Of which resource.
        resource: String,
        /// Which the caller knows already.
        after: u64,
    },
    /// Have the owner of a resource fenced by force, by the operator's command for it.
    Fence {
        /// Of which resource.
        resource: String,
    },
    /// Give up a takeover that is under way.
    Cancel {
        /// Of which resource.
        resource: String,
    },
    /// Change the mode; asked of the primary.
    Mode {
        /// Of which resource.
        resource: String,
        /// The new mode.
        mode: Mode,
    },
    /// Compare a standby's image with the primary's; asked of the primary.
    Verify {
        /// Of which resource.
        resource: String,
        /// Which standby's; any that follows, if none is named.
        standby: Option<MemberId>,
        /// What differs is repaired, and this member's bytes are right; none: it is only told.
        #[serde(default)]
        from: Option<MemberId>,
    },
    /// Write the image as of one position into a file of this host.
    SeedExport {
        /// Of which resource.
        resource: String,
        /// Which file; it must not exist.
        path: PathBuf,
        /// Who will be created from it: what that one lacks then is noted.
        absent: Option<MemberId>,
    },
    /// Give the point of the history that is now a name; asked of the primary.
    Point {
        /// Of which resource.
        resource: String,
        /// The name.
        name: PointName,
    },
    /// Make a volume larger on every member; asked of the primary.
    Grow {
        /// Of which resource.
        resource: String,
        /// Which volume, by its place in the configuration.
        volume: VolumeIndex,
        /// How large it is to be, in bytes.
        size_bytes: u64,
        /// Only answer whether every member has room for it.
        test: bool,
    },
    /// Bring a diverged replica back to its primary; asked of its own member.
    Rejoin {
        /// Of which resource.
        resource: String,
    },
    /// The points of the history that have a name.
    NamedPoints {
        /// Of which resource.
        resource: String,
        /// How many of them, the newest; the rest is counted.
        most: u32,
    },
    /// Serve the image as it was at a point.
    View {
        /// Of which resource.
        resource: String,
        /// Which point.
        at: At,
        /// Most bytes that may be written to it; none: it is read-only.
        size_limit: Option<u64>,
        /// Where; none: the daemon chooses.
        socket: Option<PathBuf>,
    },
    /// Somebody still needs a view; said at least every 30 s.
    KeepView {
        /// Its number.
        id: u64,
    },
    /// Nobody needs a view any more.
    EndView {
        /// Its number.
        id: u64,
    },
    /// Stop a resource in order.
    Stop {
        /// Which.
        resource: String,
    },
    /// Start a stopped resource, or open the start gate.
    Start {
        /// Which.
        resource: String,
        /// Open the gate without the members that cannot be heard.
        primary: bool,
    },
}

/// A request with the version that it is written in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// [`VERSION`]
    pub version: u16,
    /// What is asked.
    pub request: Request,
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Vec<ResourceStatus>),
    /// To [`Request::View`], and what is asked of one.
    View(Box<ViewStatus>),
    /// To [`Request::Events`].
    Events(Vec<ToldEvent>),
    /// To [`Request::Find`].
    Found(FoundPoint),
    /// To [`Request::Point`].
    Named(NamedPoint),
    /// To [`Request::NamedPoints`].
    NamedPoints {
        /// The newest of them, the newest first.
        points: Vec<PointStatus>,
        /// How many there are in all.
        count: u64,
    },
    /// It is done.
    Done(Done),
    /// It is not, and what to do.
    Refused {
        /// A word for programs.
        code: String,
        /// A sentence for people.
        message: String,
    },
}

/// One resource on one member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResourceStatus {
    /// Its name.
    pub resource: String,
    /// The member that tells.
    pub member: String,
    /// Names of all members, by index.
    pub members: Vec<String>,
    /// NBD socket of this member.
    pub socket: PathBuf,
    /// Export names.
    pub exports: Vec<String>,
    /// Bytes of each export, in their order, while the resource runs.
    #[serde(default)]
    pub volumes: Vec<u64>,
    /// Bytes of one file of the log.
    pub segment_bytes: Option<u64>,
    /// Bytes of log that this primary applies before it lets clients in.
    pub opening_bytes: Option<u64>,
    /// Clients of this primary were thrown out until it has a lease again.
    #[serde(default)]
    pub withdrawn: bool,
    /// Microseconds until a primary's right to serve ends, by its lease or by the word of every
    /// other in-sync member, whichever lasts longer; none: it has none, or needs none.
    #[serde(default)]
    pub right_us: Option<u64>,
    /// What a diverged replica holds that the primary's history does not: what its return would
    /// lose.
    pub divergence: Option<Divergence>,
    /// The resyncs in which this member takes part.
    #[serde(default)]
    pub copies: Vec<CopyStatus>,
    /// The export of a seed, under way or the last one.
    #[serde(default)]
    pub seed: Option<SeedStatus>,
    /// Its companion files, where it has any.
    #[serde(default)]
    pub companions: Option<CompanionsStatus>,
    /// How far back the image can be read; none: no history is kept.
    #[serde(default)]
    pub history: Option<HistoryStatus>,
    /// What was set aside of it on this member, where there is something.
    #[serde(default)]
    pub quarantine: Option<QuarantineStatus>,
    /// Images as they were that are served at the moment.
    #[serde(default)]
    pub views: Vec<ViewStatus>,
    /// What the node says; none while it is stopped.
    pub node: Option<NodeStatus>,
    /// Why it does not run, if so.
    pub stopped: Option<String>,
    /// What keeps two members from being primary; none: the configuration says nothing of it.
    pub fencing: Option<FencingStatus>,
}

/// What was set aside of a resource on one member.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QuarantineStatus {
    /// Files.
    pub files: u64,
    /// Bytes that they take on their disk.
    pub bytes: u64,
}

impl QuarantineStatus {
    /// Of the replica in `dir`; none: there is nothing, or it cannot be read.
    #[must_use]
    pub fn of(dir: &Path) -> Option<Self> {
        let Room { files, bytes } = Room::of(dir).ok()?;
        (files > 0).then_some(Self { files, bytes })
    }
}

/// What keeps two members from being primary, as this member's daemon sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FencingStatus {
    /// Nothing, as the configuration says.
    None,
    /// Ownership marks.
    Marks {
        /// Microseconds until this member's lease ends, if it is not renewed; none: it has none.
        lease_us: Option<u64>,
        /// The other members by name, and what is known of their leases.
        members: Vec<(String, Sight)>,
        /// Each marker, and what is wrong with it, if anything is.
        markers: Vec<(String, Option<String>)>,
        /// Why this member keeps no lease, if so.
        trouble: Option<String>,
    },
}

impl Response {
    /// A refusal.
    #[must_use]
    pub fn refused(code: &str, message: impl Into<String>) -> Self {
        Self::Refused { code: code.into(), message: message.into() }
    }

    /// The answer to a command.
    #[must_use]
    pub fn of(result: Result<Done, Denied>) -> Self {
        match result {
            Ok(done) => Self::Done(done),
            Err(denied) => Self::refused(denied.code(), denied.to_string()),
        }
    }
}

impl Request {
    /// The command of the core that carries it out, where one does.
    #[must_use]
    pub fn command(&self) -> Option<Command> {
        match self {
            Self::Takeover { how, test, to: None, .. } => {
                Some(Command::Takeover { how: *how, test: *test })
            }
            Self::Cancel { .. } => Some(Command::CancelTakeover),
            Self::Mode { mode, .. } => Some(Command::SetMode(*mode)),
            Self::Rejoin { .. } => Some(Command::Rejoin),
            Self::Grow { volume, size_bytes, test, .. } => {
                let (volume, size_bytes, test) = (*volume, *size_bytes, *test);
                Some(Command::Grow { volume, size_bytes, test })
            }
            Self::Verify { standby, from: Some(from), .. } => {
                Some(Command::Repair { standby: *standby, from: *from })
            }
            Self::Verify { standby, .. } => Some(Command::Verify(*standby)),
            Self::Stop { .. } => Some(Command::Stop),
            Self::Start { primary: true, .. } => Some(Command::StartPrimary),
            Self::Start { .. }
            | Self::Takeover { .. }
            | Self::Find { .. }
            | Self::Status { .. }
            | Self::Fence { .. }
            | Self::Events { .. }
            | Self::SeedExport { .. }
            | Self::Point { .. }
            | Self::NamedPoints { .. }
            | Self::View { .. }
            | Self::KeepView { .. }
            | Self::EndView { .. } => None,
        }
    }
}

/// Reads a request from a line.
///
/// # Errors
/// The refusal to send back.
pub fn parse(line: &[u8]) -> Result<Request, Response> {
    let envelope: Envelope = serde_json::from_slice(line)
        .map_err(|error| Response::refused("request", format!("not understood: {error}")))?;
    if envelope.version == VERSION {
        return Ok(envelope.request);
    }
    let found = envelope.version;
    let text = format!("control version {found} is not spoken here ({VERSION}); upgrade the older");
    Err(Response::refused("version", text))
}

#[cfg(test)]
mod tests;

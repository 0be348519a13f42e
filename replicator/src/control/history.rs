//! What is said of history, and of the views that are made of it.

use std::path::PathBuf;

use hadrian_blockdev::history::{Point, Target};
use hadrian_blockdev::replica;
use hadrian_protocol::ids::Lsn;
use hadrian_protocol::point::PointName;
use hadrian_protocol::time::{WallTime, micros};
use serde::{Deserialize, Serialize};

/// A point of a resource's history.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PointStatus {
    /// What somebody has called it.
    pub name: Option<String>,
    /// Where.
    pub lsn: Lsn,
    /// When the write before it was made, in microseconds since 1970-01-01 UTC; none: nobody knows
    /// any more.
    pub wall_us: Option<u64>,
}

impl From<Point> for PointStatus {
    fn from(point: Point) -> Self {
        let wall_us = Some(point.wall.as_micros()).filter(|us| *us > 0);
        Self { name: None, lsn: point.at.lsn, wall_us }
    }
}

/// A point that was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FoundPoint {
    /// Which it is.
    pub point: PointStatus,
    /// The image has not reached it yet.
    pub is_ahead: bool,
}

/// How far back an image can be read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HistoryStatus {
    /// The oldest point and the newest; none: there is no history at the moment.
    pub points: Vec<PointStatus>,
    /// How many points there are.
    pub point_count: u64,
    /// Bytes of it on disk.
    pub bytes: u64,
    /// Most bytes that are kept.
    pub bytes_max: u64,
    /// Longest that it is kept, in microseconds; none: as long as there is room.
    pub age_max_us: Option<u64>,
    /// Why it has ended, if so.
    pub ended: Option<String>,
}

impl From<replica::HistoryStatus> for HistoryStatus {
    fn from(status: replica::HistoryStatus) -> Self {
        let reach = status.reach;
        let points = reach.map(|reach| [reach.oldest, reach.newest].map(PointStatus::from));
        Self {
            points: points.map(Vec::from).unwrap_or_default(),
            point_count: reach.map_or(0, |reach| reach.points),
            bytes: reach.map_or(0, |reach| reach.bytes),
            bytes_max: status.limits.bytes,
            age_max_us: status.limits.age.map(micros),
            ended: status.ended,
        }
    }
}

/// Which point is meant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum At {
    /// The last one at or before this position.
    Lsn(Lsn),
    /// The last one at or before this moment, in microseconds since 1970-01-01 UTC.
    WallUs(u64),
    /// The last one of this name.
    Name(PointName),
    /// The newest that is in the image.
    Applied,
    /// The end of the log, of which the image may lack some.
    End,
}

impl From<At> for Target {
    fn from(at: At) -> Self {
        match at {
            At::Lsn(lsn) => Self::Lsn(lsn),
            At::WallUs(us) => Self::Time(WallTime::from_micros(us)),
            At::Name(name) => Self::Named(name),
            At::Applied => Self::Applied,
            At::End => Self::Lsn(Lsn::new(u64::MAX)),
        }
    }
}

/// An image as it was, served over NBD.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ViewStatus {
    /// Its number in this daemon.
    pub id: u64,
    /// Of which resource.
    pub resource: String,
    /// Which point.
    pub point: PointStatus,
    /// The socket.
    pub socket: PathBuf,
    /// Names of its exports, in the order of the volumes.
    pub exports: Vec<String>,
    /// Most bytes that may be written to it; none: it is read-only.
    pub size_limit: Option<u64>,
}

impl ViewStatus {
    /// Where a client finds each volume.
    #[must_use]
    pub fn uris(&self) -> Vec<String> {
        let socket = self.socket.display();
        self.exports.iter().map(|name| format!("nbd+unix:///{name}?socket={socket}")).collect()
    }
}

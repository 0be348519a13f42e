//! Names that operators give to points of the history (design §8.5).

use std::collections::VecDeque;

use hadrian_blockdev::buffer::IoBuf;
use hadrian_protocol::frame::Draft;
use hadrian_protocol::ids::Lsn;
use hadrian_protocol::node::Denied;
use hadrian_protocol::point::PointName;
use hadrian_protocol::time::WallTime;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::resource::{Inner, Shared};

/// Names that may wait for their place in the log, or for the mode's promise about it.
const WAITING_MAX: usize = 1024;

/// A point that has a name now, and is where the mode wants an answered flush to be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NamedPoint {
    /// The name.
    pub name: PointName,
    /// Everything before this position was written before the point.
    pub lsn: Lsn,
    /// When it was named, by the primary's wall clock.
    pub wall: WallTime,
}

/// Who asked for a name, and hears where it stands.
pub type Namer = oneshot::Sender<Result<NamedPoint, Denied>>;

/// Names on their way.
#[derive(Default)]
pub(super) struct Points {
    /// They have no place yet, because the log has no room or clients are held.
    late: VecDeque<(PointName, Namer)>,
    placed: VecDeque<(NamedPoint, Namer)>,
}

impl Shared {
    /// Gives the end of the log a name; told when that is as safe as an answered flush.
    pub(super) fn name_point(&self, name: PointName, namer: Namer) {
        let mut inner = self.inner.borrow_mut();
        let points = &inner.clients.points;
        let denied = if !inner.serving {
            Some(Denied::NotPrimary)
        } else if points.late.len() + points.placed.len() >= WAITING_MAX {
            Some(Denied::Busy)
        } else {
            None
        };
        match denied {
            // Whoever asked may be gone.
            Some(denied) => drop(namer.send(Err(denied))),
            None => inner.clients.points.late.push_back((name, namer)),
        }
    }
}

impl Inner {
    /// Places names behind everything that clients were told or could have been told.
    pub(super) fn place_points(&mut self) {
        while !self.clients.points.late.is_empty() && self.has_room(0) {
            self.seal_draft();
            let Some((name, namer)) = self.clients.points.late.pop_front() else { return };
            let mut draft = Draft::new(IoBuf::for_body(0));
            let added = draft.point(&name);
            assert!(added.is_ok(), "a fresh frame has room for one record");
            let clock = self.clock();
            self.busy_at = clock.now;
            let Some(lsn) = self.node.append(clock, draft) else {
                drop(namer.send(Err(Denied::NotPrimary)));
                continue;
            };
            self.want_durable(lsn);
            let point = NamedPoint { name, lsn, wall: clock.wall };
            self.clients.points.placed.push_back((point, namer));
            // The log's room is known only when the frame is in the log.
            self.run_node();
        }
    }

    /// Tells of the names that are as safe as a flush at `answered`.
    pub(super) fn tell_points(&mut self, answered: Lsn) {
        let placed = &mut self.clients.points.placed;
        while let Some((point, namer)) = placed.pop_front_if(|(point, _)| point.lsn <= answered) {
            tracing::info!(name = %point.name, lsn = %point.lsn, "a point has a name");
            drop(namer.send(Ok(point)));
        }
    }
}

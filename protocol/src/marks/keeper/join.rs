//! The beginning of a life: what the markers hold of the former one, and whether that still runs
//! on another host.

use super::super::lease::{LeaseBlock, LeaseState};
use super::super::watch::{Sight, Watch};
use crate::time::Now;

/// Pause between two looks.
const LOOK: std::time::Duration = std::time::Duration::from_millis(500);

/// What a member that wants to join has seen of its own name.
#[derive(Clone, Debug)]
pub(super) struct Join {
    own: Watch,
    /// When each marker is looked at next, and whether it was ever.
    markers: Vec<(Now, bool)>,
    /// It changes, and this member does not write.
    changed: bool,
}

pub(super) enum Verdict {
    Wait,
    /// Nobody else runs under this name; the newest block of it, and whether it had left in order.
    Join {
        last: LeaseBlock,
        clean: bool,
    },
    /// Somebody does.
    Refuse(LeaseBlock),
}

impl Join {
    pub(super) fn new(markers: usize) -> Self {
        let own = Watch::new(markers);
        Self { own, markers: vec![(Now::default(), false); markers], changed: false }
    }

    pub(super) fn is_due(&self, marker: usize, now: Now) -> bool {
        self.markers.get(marker).is_some_and(|(at, _)| *at <= now)
    }

    pub(super) fn deadline(&self, now: Now) -> Option<Now> {
        self.markers.iter().map(|(at, _)| *at).filter(|at| *at > now).min()
    }

    pub(super) fn saw(&mut self, marker: usize, block: &LeaseBlock, (began, now): (Now, Now)) {
        let was_seen = self.markers.get(marker).is_some_and(|(_, seen)| *seen);
        // Another marker may hold a newer block that was there all the while.
        let before = self.own.newest().map(|block| block.sequence);
        self.own.saw(marker, block, (began, now));
        self.changed |= was_seen && self.own.newest().map(|block| block.sequence) != before;
        if let Some(marker) = self.markers.get_mut(marker) {
            *marker = (now.after(LOOK), true);
        }
    }

    pub(super) fn verdict(&self, now: Now, host_id: u64) -> Verdict {
        let seen = self.markers.iter().filter(|(_, seen)| *seen).count();
        let Some(last) = self.own.newest().filter(|_| seen > self.markers.len() / 2) else {
            return Verdict::Wait;
        };
        let clean = last.lease.state == LeaseState::Down;
        // A process of this host that has ended, or the driver would not have come here.
        let here = last.lease.host_id == host_id;
        let over = clean || here || self.own.sight(now).0 == Sight::Over;
        match (self.changed, over) {
            (true, _) => Verdict::Refuse(last.clone()),
            (false, true) => Verdict::Join { last: last.clone(), clean },
            (false, false) => Verdict::Wait,
        }
    }
}

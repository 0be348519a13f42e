//! What people see of a running resource.

use hadrian_protocol::time::micros;

use super::Seen;
use super::companions::Carried;
use super::resource::{Inner, Shared};

impl Shared {
    pub(super) fn status(&self) -> Seen {
        self.inner.borrow().seen()
    }
}

impl Inner {
    fn seen(&self) -> Seen {
        let spooled = self.replica.spooled_bytes();
        let mut node = self.node.status();
        node.reasons.extend(self.waits_here());
        let now = self.clock().now;
        Seen {
            node,
            segment_bytes: self.replica.segment_len(),
            opening_bytes: self.opening.then_some(spooled),
            volumes: self.sizes.iter().map(|volume| volume.size_bytes).collect(),
            withdrawn: self.node.is_withdrawn(),
            right_us: self.node.lease_end().map(|end| micros(end.since(now))),
            divergence: self.node.diverged_at().and_then(|_| self.replica.divergence()),
            copies: self.copy_status(),
            seed: self.seed_status(),
            companions: self.companions.as_ref().map(Carried::status),
            history: self.replica.history(),
        }
    }
}

//! When changes may wait in the log before they are brought into the stores.

use std::time::Duration;

use hadrian_protocol::node::{About, Reason, Why};

use super::resource::Inner;

/// Without a frame for so long, changes that wait in the log are brought into the stores.
const QUIET: Duration = Duration::from_millis(500);

impl Inner {
    /// Large changes wait in the log while frames come. In a quiet moment, and before a stop, they
    /// are brought into the stores; returns how long it is until then.
    pub(super) fn hold_changes(&mut self) -> Option<Duration> {
        let quiet = self.clock().now.since(self.busy_at);
        let left = QUIET.checked_sub(quiet).filter(|_| !self.node.wants_whole_image());
        let log_bytes = if left.is_some() { self.held_bytes } else { 0 };
        self.replica.set_hold(self.share.hold(log_bytes));
        left
    }

    /// What clients or the primary wait for that the core does not know: room here.
    pub(super) fn waits_here(&self) -> Option<Reason> {
        let reason = |about, why| Some(Reason { about, member: None, why });
        if self.opening {
            let bytes = self.replica.spooled_bytes();
            reason(About::HoldsAnswers, Why::Opening { bytes })
        } else if self.serving && self.is_full() {
            reason(About::HoldsAnswers, Why::LogFull)
        } else if self.node.takes_frames() && !self.has_frame_room() {
            reason(About::Behind, Why::LogFull)
        } else {
            None
        }
    }
}

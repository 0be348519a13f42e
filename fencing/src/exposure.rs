//! What a resource's thread says of itself to the thread that pets the watchdog.
//!
//! One word that is never waited for: until when clients of the resource may be answered. A thread
//! that stands still cannot renew it, so silence counts as danger once that moment is past.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hadrian_protocol::time::Now;

/// Nobody is served; no moment of any clock.
const CLOSED: u64 = 0;

/// Until when one resource may answer its clients, as its own thread has said last.
#[derive(Clone, Debug, Default)]
pub struct Exposure(Arc<AtomicU64>);

impl Exposure {
    /// Said before the first request is answered: they may be, until then.
    pub fn open(&self, until: Now) {
        // The end of time has no place of its own; nothing is lost by a microsecond.
        self.0.store(until.as_micros().max(CLOSED + 1), Ordering::Release);
    }

    /// Said behind the last answer: nobody is served.
    pub fn close(&self) {
        self.0.store(CLOSED, Ordering::Release);
    }

    /// Whether nobody can be answered against the rules: the resource is closed, or its own right
    /// still lasts.
    #[must_use]
    pub fn is_safe(&self, now: Now) -> bool {
        match self.0.load(Ordering::Acquire) {
            CLOSED => true,
            until => now.as_micros() < until,
        }
    }

    /// Whether nobody is served.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.load(Ordering::Acquire) == CLOSED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_falls_silent_is_safe_until_what_it_said_is_past() {
        let (said, heard) = (Exposure::default(), Exposure::default());
        assert!(said.is_closed() && said.is_safe(Now::from_micros(u64::MAX)));
        said.open(Now::from_micros(500));
        let seen = said.clone();
        assert!(seen.is_safe(Now::from_micros(499)) && !seen.is_safe(Now::from_micros(500)));
        said.close();
        assert!(seen.is_safe(Now::from_micros(900)), "it has confirmed that it is shut");
        assert!(heard.is_closed(), "another resource's word is its own");
    }

    #[test]
    fn a_right_that_has_never_begun_is_not_taken_for_a_closed_resource() {
        let exposure = Exposure::default();
        exposure.open(Now::from_micros(0));
        assert!(!exposure.is_closed() && !exposure.is_safe(Now::from_micros(1)));
    }
}

//! Time for leases: it goes on while the host is suspended, and never jumps.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use hadrian_protocol::time::{Clock, Now, WallTime, micros};
use rustix::time::{ClockId, clock_gettime};

/// Time since the host booted, sleep included.
#[must_use]
pub fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Both clocks, now. All threads of a process count from the same moment.
#[must_use]
pub fn now() -> Clock {
    static BEGAN: OnceLock<Duration> = OnceLock::new();
    let since_boot = since_boot();
    let began = *BEGAN.get_or_init(|| since_boot);
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Clock {
        now: Now::from_micros(micros(since_boot.saturating_sub(began))),
        wall: WallTime::from_micros(micros(wall)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_threads_count_from_the_same_moment() {
        let first = now().now;
        let second = std::thread::spawn(|| now().now).join().unwrap();
        let third = now().now;
        assert!(first <= second && second <= third);
        assert!(third.since(first) < Duration::from_secs(60));
    }
}

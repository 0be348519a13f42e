//! Time as the core sees it: given in with every event, never read.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Monotonic time of this process, in microseconds since the driver began to count. Never goes
/// back; means nothing on another host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Now(u64);

impl Now {
    /// `micros` after the driver began to count.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the driver began to count.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Time since `earlier`; zero where `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Now) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The moment `delay` from here; the end of time where it does not fit.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// Wall time in microseconds since 1970-01-01 UTC. Shown to people, used for gaps in seconds, and
/// for telling the lives of a member apart; no decision rests on it (design §5.3) but when a
/// comparison of images by schedule is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallTime(u64);

impl WallTime {
    /// `micros` since 1970-01-01 UTC.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }
}

/// Microseconds of a duration; the most that fits where it is longer.
#[must_use]
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Both clocks, read at the same moment by the driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Clock {
    /// For every decision.
    pub now: Now,
    /// For people.
    pub wall: WallTime,
}

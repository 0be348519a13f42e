//! A member's lease: that it lives, since when, and how long others must wait before they may
//! conclude that it does not.
//!
//! No clock of one member means anything to another. Whoever watches sees only that a lease
//! changes, and waits by its own clock as long as the lease itself asks for.

use std::time::Duration;

use bytes::BufMut;
use serde::{Deserialize, Serialize};

use super::block::{Block, Head, Kind, Void, open};
use super::layout::BlockIndex;
use crate::codec::{CodecError, Put, Reader};
use crate::ids::{ClusterId, Incarnation, MemberId};
use crate::time::WallTime;

/// Most bytes of a host's name.
pub const HOST_LEN_MAX: usize = 64;
/// Millionths; what a drift is counted in.
const MILLION: u32 = 1_000_000;

/// How a member times its lease. Others take these from its lease, not from their own files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Timing {
    /// How long a renewal is good for, from before its write was begun.
    pub lease: Duration,
    /// Pause between renewals.
    pub renew: Duration,
    /// Longest that one read or write of a marker may take.
    pub io: Duration,
    /// Within which a hardware or software watchdog resets the host once it is not petted; zero:
    /// there is none.
    pub watchdog: Duration,
    /// How much two clocks may differ in speed, in millionths.
    pub drift_ppm: u32,
}

impl Timing {
    /// 10 s lease, renewed every 2 s, 2 s for a read or write, no watchdog, 1 % drift.
    pub const DEFAULT: Self = Self {
        lease: Duration::from_secs(10),
        renew: Duration::from_secs(2),
        io: Duration::from_secs(2),
        watchdog: Duration::ZERO,
        drift_ppm: 10_000,
    };
    /// What is waited beyond what the arithmetic asks for.
    const SPARE_PART: u32 = 20;

    /// How long before its lease ends a member stops answering: time for what is under way.
    #[must_use]
    pub fn guard(&self) -> Duration {
        self.lease / 10
    }

    /// How long this lease stays unchanged where nothing but a renewal or two is held up: three
    /// renewals, and at most the lease.
    #[must_use]
    pub fn late(&self) -> Duration {
        (self.renew * 3).min(self.lease)
    }

    /// How long a member must see this lease unchanged before it is over for certain: the lease
    /// and the watchdog by the slowest clock, and a little more.
    #[must_use]
    pub fn wait_out(&self) -> Duration {
        let asked = self.lease + self.watchdog;
        asked + asked * 2 * self.drift_ppm / MILLION + self.lease / Self::SPARE_PART
    }

    /// How long what was asked of a marker, and is not waited for any more, may still land: after
    /// an error, or when whoever asked is gone with its host.
    #[must_use]
    pub fn settle(&self) -> Duration {
        self.io * 2
    }

    /// Longest from a member's end to the takeover of what it owned, where marks answer in time.
    #[must_use]
    pub fn takeover_bound(&self) -> Duration {
        self.wait_out() + self.renew + self.io * 6
    }

    /// Why these figures do not go together, if they do not.
    ///
    /// # Errors
    /// [`BadTiming`]
    pub fn check(&self) -> Result<(), BadTiming> {
        let least = self.renew + self.io * 3;
        if self.lease < least {
            return Err(BadTiming::Lease { lease: self.lease, least });
        }
        if self.renew.is_zero() || self.io.is_zero() {
            return Err(BadTiming::Zero);
        }
        if !self.watchdog.is_zero() && self.watchdog < WATCHDOG_MIN {
            return Err(BadTiming::Watchdog { watchdog: self.watchdog });
        }
        if self.lease > LEASE_MAX || self.drift_ppm > DRIFT_MAX_PPM {
            return Err(BadTiming::TooLong { lease: self.lease, drift_ppm: self.drift_ppm });
        }
        Ok(())
    }
}

const WATCHDOG_MIN: Duration = Duration::from_secs(5);
const LEASE_MAX: Duration = Duration::from_secs(600);
const DRIFT_MAX_PPM: u32 = 100_000;

/// Why times of a lease do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTiming {
    /// One slow read and a retry would end it.
    #[error(
        "a lease of {lease:?} is too short: it must outlast a renewal and three reads or writes, \
         {least:?}; make it longer, or renew_interval and io_timeout shorter"
    )]
    Lease {
        /// The lease.
        lease: Duration,
        /// The shortest that would do.
        least: Duration,
    },
    /// Nothing takes no time.
    #[error("renew_interval and io_timeout must be longer than nothing")]
    Zero,
    /// It would fire in the middle of a garbage collection.
    #[error("a watchdog of {watchdog:?} is too short; give it {WATCHDOG_MIN:?} at least, or none")]
    Watchdog {
        /// Its time.
        watchdog: Duration,
    },
    /// Nobody would wait for that.
    #[error(
        "a lease of {lease:?} with a drift of {drift_ppm} millionths is over the limits of \
         {LEASE_MAX:?} and {DRIFT_MAX_PPM}"
    )]
    TooLong {
        /// The lease.
        lease: Duration,
        /// The drift.
        drift_ppm: u32,
    },
}

/// What a member is, by its lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// It does not run: never did, or has left in order.
    #[default]
    Down,
    /// It runs, and renews.
    Joined,
}

impl LeaseState {
    const fn code(self) -> u8 {
        match self {
            Self::Down => 0,
            Self::Joined => 1,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Down,
            1 => Self::Joined,
            _ => return None,
        })
    }

    /// As it is shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Joined => "joined",
        }
    }
}

/// What a lease says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// What the member is.
    pub state: LeaseState,
    /// How it times this lease.
    pub timing: Timing,
    /// Members whose leases it sees change.
    pub sees_on_marks: u8,
    /// When it was written, for people.
    pub wall: WallTime,
    /// When its state last changed, for people.
    pub changed: WallTime,
    /// The host that it runs on, by an identity that a reinstalled one does not share; so that a
    /// member that starts again knows its former life from another host's.
    pub host_id: u64,
    /// The name of that host.
    pub host: String,
}

impl Lease {
    /// The lease of a member that never ran.
    #[must_use]
    pub fn blank() -> Self {
        Self {
            state: LeaseState::Down,
            timing: Timing::DEFAULT,
            sees_on_marks: 0,
            wall: WallTime::default(),
            changed: WallTime::default(),
            host_id: 0,
            host: String::new(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        out.put_u8(self.state.code());
        let Timing { lease, renew, io, watchdog, drift_ppm } = self.timing;
        for time in [lease, renew, io, watchdog] {
            out.put_u32_le(u32::try_from(time.as_millis()).unwrap_or(u32::MAX));
        }
        out.put_u32_le(drift_ppm);
        out.put_u8(self.sees_on_marks);
        out.put_u64_le(self.wall.as_micros());
        out.put_u64_le(self.changed.as_micros());
        out.put_u64_le(self.host_id);
        out.put_text(&self.host);
        out
    }

    fn decode(body: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(body);
        let state = reader.u8("lease state")?;
        let mut time = |field| Ok(Duration::from_millis(u64::from(reader.u32(field)?)));
        let (lease, renew) = (time("lease time")?, time("renewal time")?);
        let (io, watchdog) = (time("I/O time")?, time("watchdog time")?);
        let lease = Self {
            state: LeaseState::from_code(state)
                .ok_or(CodecError::Value { field: "lease state", value: u64::from(state) })?,
            timing: Timing { lease, renew, io, watchdog, drift_ppm: drift(&mut reader)? },
            sees_on_marks: reader.u8("view on marks")?,
            wall: WallTime::from_micros(reader.u64("wall time")?),
            changed: WallTime::from_micros(reader.u64("time of change")?),
            host_id: reader.u64("host identity")?,
            host: reader.text("host name", HOST_LEN_MAX)?,
        };
        reader.finish()?;
        Ok(lease)
    }
}

fn drift(reader: &mut Reader<'_>) -> Result<u32, CodecError> {
    match reader.u32("drift")? {
        drift if drift <= DRIFT_MAX_PPM => Ok(drift),
        drift => Err(CodecError::Value { field: "drift", value: u64::from(drift) }),
    }
}

/// A lease as it stands on a marker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseBlock {
    /// Whose.
    pub member: MemberId,
    /// One more with each renewal.
    pub sequence: u64,
    /// Which life of that member's daemon.
    pub incarnation: Incarnation,
    /// That life's random number.
    pub nonce: u64,
    /// What it says.
    pub lease: Lease,
}

impl LeaseBlock {
    /// Where it is written.
    #[must_use]
    pub fn index(&self) -> BlockIndex {
        BlockIndex::lease(self.member, self.sequence)
    }

    /// The block for the marker.
    #[must_use]
    pub fn seal(&self, cluster: ClusterId) -> Block {
        let head = Head {
            kind: Kind::Lease,
            cluster,
            member: Some(self.member),
            sequence: self.sequence,
            incarnation: self.incarnation,
            nonce: self.nonce,
        };
        Block::seal(&head, self.index(), &self.lease.encode())
    }

    /// What the block at `index` says.
    ///
    /// # Errors
    /// [`Void`]
    pub fn open(
        bytes: &[u8],
        (cluster, member): (ClusterId, MemberId),
        index: BlockIndex,
    ) -> Result<Self, Void> {
        let (head, body) = open(bytes, (Kind::Lease, cluster, index), Some(member))?;
        let Head { sequence, incarnation, nonce, .. } = head;
        Ok(Self { member, sequence, incarnation, nonce, lease: Lease::decode(body)? })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn full() -> LeaseBlock {
        let lease = Lease {
            state: LeaseState::Joined,
            timing: Timing { watchdog: Duration::from_secs(15), ..Timing::DEFAULT },
            sees_on_marks: 0b11,
            wall: WallTime::from_micros(1_795_000_000_000_000),
            changed: WallTime::from_micros(1_794_000_000_000_000),
            host_id: 77,
            host: "alpha.example".into(),
        };
        let (sequence, incarnation, nonce) = (5, Incarnation::new(3), 9);
        LeaseBlock { member: MemberId::new(1).unwrap(), sequence, incarnation, nonce, lease }
    }

    #[test]
    fn a_lease_reads_back_as_it_was_written() {
        let (cluster, block) = (ClusterId::derive("orders"), full());
        let sealed = block.seal(cluster);
        let read = LeaseBlock::open(sealed.as_bytes(), (cluster, block.member), block.index());
        assert_eq!(read, Ok(block));
    }

    #[test]
    fn an_observer_waits_longer_than_the_owner_may_answer_whatever_their_clocks() {
        let timing = Timing::DEFAULT;
        let (fast, slow) = (1.0 + f64::from(timing.drift_ppm) / 1e6, 1.0);
        assert!(timing.wait_out().as_secs_f64() / fast > timing.lease.as_secs_f64() / slow * fast);
        let guarded = Timing { watchdog: Duration::from_secs(10), ..timing };
        assert_eq!(guarded.wait_out(), Duration::from_millis(20_900));
        assert_eq!(timing.wait_out(), Duration::from_millis(10_700));
    }

    #[test]
    fn times_that_do_not_go_together_are_refused_with_the_figures() {
        assert_eq!(Timing::DEFAULT.check(), Ok(()));
        let short = Timing { lease: Duration::from_secs(7), ..Timing::DEFAULT };
        let error = short.check().unwrap_err().to_string();
        assert!(error.contains("7s is too short") && error.contains("8s"), "{error}");
        let tight = Timing { watchdog: Duration::from_secs(4), ..Timing::DEFAULT };
        assert!(tight.check().is_err());
        let never = Timing { io: Duration::ZERO, ..Timing::DEFAULT };
        assert_eq!(never.check(), Err(BadTiming::Zero));
        let long = Timing { lease: Duration::from_secs(3600), ..Timing::DEFAULT };
        assert!(matches!(long.check(), Err(BadTiming::TooLong { .. })));
    }
}

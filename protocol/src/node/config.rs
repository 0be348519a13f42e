//! What the core decides by: the settings of a resource, the same on every member.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::alone::Home;
use super::lease::LeaseConfig;
use super::resync::VerifyPlan;
use crate::ids::MemberId;
use crate::replica::Mode;
use crate::resync::Takes;

/// Settings of a resource that the core decides by. All members have the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeConfig {
    /// Every member that has a replica, this one included, in the order of the file.
    pub members: Vec<MemberId>,
    /// Who becomes principal standby, in order of preference: the first that is not the primary
    /// runs in the resource's mode, the others in superasync (design §1). Empty: as in `members`.
    pub standbys: Vec<MemberId>,
    /// When a write is answered.
    pub mode: Mode,
    /// Whether every write is a commit: answered as a flush is (`commit = "write"`, design §3).
    pub commit_on_write: bool,
    /// How long answers are held after an in-sync standby was lost; zero: not at all.
    pub peer_window: Duration,
    /// What becomes of held answers when the window ends, where no control record decides.
    pub on_window_end: OnWindowEnd,
    /// Longest that one answer waits for a standby that is connected, before that one is dropped
    /// from the in-sync set; zero: for ever (design §4).
    pub peer_wait_limit: Duration,
    /// Most bytes that a standby has received and not applied; above, it takes no more from the
    /// link until it has applied some (design §4).
    pub spool_limit: u64,
    /// A standby applies frames this much later than it receives them (design §4).
    pub replay_delay: Duration,
    /// Weaker modes that a slow standby moves the resource to, in their order; empty: none.
    pub degrade: Vec<Mode>,
    /// An answer that waits so long asks for the next weaker mode.
    pub degrade_after: Duration,
    /// A standby that keeps up for so long gives the stronger mode back.
    pub degrade_back: Duration,
    /// Where the owner and the in-sync set are decided.
    pub record: RecordKind,
    /// How leases on the marks bound service; none where there are no marks.
    #[serde(default)]
    pub lease: Option<LeaseConfig>,
    /// Where the resource returns to by itself; none: it stays where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<Home>,
    /// How a standby that has an image of its own is brought up where the log does not reach.
    #[serde(default = "staged")]
    pub resync: Takes,
    /// A diverged replica returns to its primary without being told to (design §6.4).
    #[serde(default)]
    pub rejoin_by_itself: bool,
    /// When a primary compares the images of its standbys with its own by itself; none: when an
    /// operator asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifyPlan>,
    /// Silence that ends a session.
    pub timeout: Duration,
    /// Longest that the log stays unsynced while no client asks (design §2.5).
    pub log_sync_interval: Duration,
    /// Bytes of log that may be unsynced before a sync is begun; standbys get twice as much before
    /// they are told that it is durable. Every log must have room for that, four times over.
    pub sync_bytes: u64,
    /// Bytes that are allowed into the image before the limit is recorded, unless time is up.
    pub apply_bytes: u64,
    /// Longest that an allowed frame waits for the image.
    pub apply_interval: Duration,
    /// Bytes of log that a driver may let wait before it brings them into the image, although they
    /// are allowed. Reads find them, so a takeover does not wait for them.
    #[serde(default)]
    pub held_bytes: u64,
    /// Bytes applied since the last checkpoint that ask for the next.
    pub checkpoint_bytes: u64,
    /// Bytes of log kept for a standby that lacks them (design §2.6).
    pub retention_bytes: u64,
    /// Bytes of recent frames kept in memory for shipping.
    pub tail_bytes: u64,
    /// Bytes under way to a standby that catches up.
    pub ship_window_bytes: u64,
}

/// What a primary does with held answers when the peer window ends (design §5.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnWindowEnd {
    /// It goes on alone. Without a control record, the standby may have taken over meanwhile.
    #[default]
    Continue,
    /// It holds them until the standby is back or an operator lets it go on.
    Hold,
}

/// Who decides about the owner of a resource and its in-sync set (design §5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// Nobody beside the members: superblocks, promises and the peer window.
    #[default]
    None,
    /// A register that is changed by compare-and-swap only: the ownership marks.
    Register,
}

const fn staged() -> Takes {
    Takes::Staged
}

impl NodeConfig {
    /// The defaults of design §3 and §4 for these members.
    #[must_use]
    pub fn new(members: Vec<MemberId>, mode: Mode) -> Self {
        Self {
            members,
            standbys: Vec::new(),
            mode,
            commit_on_write: false,
            peer_window: Duration::ZERO,
            on_window_end: OnWindowEnd::Continue,
            peer_wait_limit: Duration::ZERO,
            spool_limit: u64::MAX,
            replay_delay: Duration::ZERO,
            degrade: Vec::new(),
            degrade_after: Duration::from_secs(2),
            degrade_back: Duration::from_secs(30),
            record: RecordKind::None,
            lease: None,
            home: None,
            resync: Takes::Staged,
            rejoin_by_itself: false,
            verify: None,
            timeout: Duration::from_secs(10),
            log_sync_interval: Duration::from_millis(200),
            sync_bytes: 32 << 20,
            apply_bytes: 32 << 20,
            apply_interval: Duration::from_millis(50),
            held_bytes: 0,
            checkpoint_bytes: 128 << 20,
            retention_bytes: 512 << 20,
            tail_bytes: 32 << 20,
            ship_window_bytes: 16 << 20,
        }
    }

    /// Time of the peer window that a standby may rely on: two clocks that ought to run alike may
    /// differ by a hundredth (design §5.3).
    #[must_use]
    pub fn provable_window(&self) -> Duration {
        self.peer_window - self.peer_window / 100
    }

    /// Heartbeat interval: a quarter of the timeout, of the window and of a lease, 30 s at most
    /// (design §4).
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        let window = match self.peer_window {
            Duration::ZERO => Duration::MAX,
            window => window,
        };
        let lease = self.lease.map_or(Duration::MAX, |config| config.lease);
        (self.timeout.min(window).min(lease) / 4).min(Duration::from_secs(30))
    }
}

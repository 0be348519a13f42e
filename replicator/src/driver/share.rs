//! How much memory one resource of a daemon may use, and for what.

use hadrian_blockdev::engine::Engine;
use hadrian_blockdev::replica::Replica;
use hadrian_blockdev::volume::Hold;
use hadrian_protocol::node::NodeConfig;

/// One resource's part of what its daemon may use for frames. The buffers of clients' requests,
/// which each connection bounds for itself, come on top.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    bytes: u64,
}

impl Share {
    /// With more, a daemon of one resource holds over 256 MiB under load, and is no faster.
    pub const MAX: u64 = 112 << 20;
    /// With less, a few of the longest frames would fill it.
    pub const MIN: u64 = 32 << 20;

    /// The part of each of `resource_count` resources in `bytes` for all of them.
    #[must_use]
    pub fn of(bytes: u64, resource_count: usize) -> Self {
        let count = u64::try_from(resource_count).unwrap_or(u64::MAX).max(1);
        Self { bytes: (bytes / count).clamp(Self::MIN, Self::MAX) }
    }

    /// Cuts what the node keeps in memory to this share. What is synced and allowed into the image
    /// at a time is cut as well: until then its frames are in memory.
    pub(crate) fn limit(self, config: &mut NodeConfig) {
        let part = self.bytes / 8;
        config.tail_bytes = config.tail_bytes.min(part);
        config.sync_bytes = config.sync_bytes.min(part);
        config.apply_bytes = config.apply_bytes.min(part);
        config.ship_window_bytes = config.ship_window_bytes.min(part / 2);
    }

    /// Bytes of unapplied frames in memory at which clients are held back.
    pub(super) fn unapplied(self) -> u64 {
        self.bytes / 2
    }

    /// What a replica that serves nobody keeps of the frames that it may not apply yet.
    pub(super) fn spool(self) -> u64 {
        self.bytes / 16 * 7
    }

    /// Whether a standby reads more from its link. A log that takes its time must not fill the
    /// memory; what is on its way there gets there without any word from the primary.
    pub(super) fn takes<E: Engine>(self, replica: &Replica<E>) -> bool {
        replica.unwritten_bytes() < self.bytes / 8
    }

    /// `log_bytes` may wait for the stores, and so much of that in memory.
    pub(super) fn hold(self, log_bytes: u64) -> Hold {
        Hold { log_bytes, memory_bytes: self.bytes / 16 * 3, ..Hold::default() }
    }

    /// Buffers that were used and are kept for the next frames.
    pub(super) fn free(self) -> usize {
        usize::try_from(self.bytes / 4).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hadrian_protocol::replica::Mode;

    const MIB: u64 = 1 << 20;

    #[test]
    fn few_resources_have_what_makes_them_fast_and_many_share_what_there_is() {
        let bytes = |count| Share::of(2048 * MIB, count).bytes / MIB;
        assert_eq!([1, 8, 16, 64, 1000].map(bytes), [112, 112, 112, 32, 32]);
    }

    #[test]
    fn what_waits_for_a_sync_leaves_room_for_what_comes_meanwhile() {
        for bytes in [Share::MIN, Share::MAX] {
            let share = Share { bytes };
            let mut config = NodeConfig::new(Vec::new(), Mode::Nearsync);
            share.limit(&mut config);
            assert!(config.sync_bytes + config.apply_bytes < share.unapplied());
            assert!(2 * share.hold(0).memory_bytes < share.unapplied());
            assert!(config.tail_bytes + share.unapplied() <= bytes);
        }
    }
}

//! How much a node holds, and its watermarks, for whoever watches it from outside (I9, I10).

use super::Node;
use super::persist::AFTER_MAX;
use super::trail::STRETCHES_MAX;
use crate::history::HISTORY_MAX;
use crate::ids::Lsn;

/// Something that a node holds more of than it may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Excess {
    /// What.
    pub what: &'static str,
    /// How much there is.
    pub held: u64,
    /// How much there may be.
    pub limit: u64,
}

impl Node {
    /// End, written, durable, applied, checkpointed: none is above the one before it (I9).
    #[must_use]
    pub fn watermarks(&self) -> [Lsn; 5] {
        let Self { log, state, .. } = self;
        [log.end().lsn, log.written(), log.durable(), log.applied(), state.checkpoint.lsn]
    }

    /// The first thing that it holds too much of, if any (I10).
    #[must_use]
    pub fn excess(&self) -> Option<Excess> {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let newest = self.log.newest().map_or(0, |frame| frame.log_len());
        let members = self.config.members.len();
        let all = [
            ("recent frames", self.log.recent_bytes(), self.config.tail_bytes.max(newest)),
            ("stretches of the trail", count(self.log.trail().len()), count(STRETCHES_MAX)),
            ("epochs", count(self.state.history.entries().len()), count(HISTORY_MAX)),
            ("lives in the set", count(self.state.in_sync.len()), count(members)),
            ("waits for the superblock", count(self.persist.waiting()), count(AFTER_MAX)),
        ];
        let excess = all.into_iter().find(|(_, held, limit)| held > limit);
        excess.map(|(what, held, limit)| Excess { what, held, limit })
    }
}

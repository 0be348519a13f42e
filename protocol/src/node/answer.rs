//! Which requests may be answered (design §3), and what may go into the image (design §2.5).

use std::time::Duration;

use super::log::Log;
use super::peer::Entry;
use super::persist::After;
use super::{Action, Node, NodeConfig, Part};
use crate::frame::LogPosition;
use crate::ids::{Lsn, MemberId};
use crate::replica::{Mode, Role};
use crate::time::Now;

/// Longest between two checkpoints while something is applied.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(30);

/// Two positions in the log; each only grows, but for commits where the mode changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Answers {
    /// A write whose frame ends at or before this may be answered.
    pub writes: Lsn,
    /// A flush, or a write with FUA, that waits for everything before this may be answered.
    pub flushes: Lsn,
}

/// What is on its way into the image.
#[derive(Clone, Debug)]
pub(super) struct Applying {
    /// Since when frames are allowed that are not in the recorded limit.
    since: Option<Now>,
    checkpoint_asked: bool,
    checkpointed_at: Now,
}

impl Applying {
    pub(super) fn new(_log: &Log, now: Now) -> Self {
        Self { since: None, checkpoint_asked: false, checkpointed_at: now }
    }

    pub(super) fn deadline(&self, config: &NodeConfig, _log: &Log) -> Option<Now> {
        self.since.map(|since| since.after(config.apply_interval))
    }
}

impl Node {
    /// No answer is given without every member of the set (design §5.1): the slowest decides.
    pub(super) fn settle_answers(&mut self) {
        if !matches!(self.standing, Part::Leading | Part::Releasing(_)) {
            return self.waits.rest();
        }
        if self.is_gate_shut() {
            return;
        }
        let before = self.answers.writes;
        let (writes, flushes) = self.allowed_answers();
        self.answers.writes = self.answers.writes.max(writes);
        self.answers.flushes = self.answers.flushes.max(flushes);
        self.promised_commits = self.promised_commits.max(self.answers.flushes);
        self.settle_waits(before);
    }

    /// A commit that comes from now on counts by the new mode, also one of what is written already.
    pub(super) fn count_commits_anew(&mut self) {
        self.answers.flushes = self.answers.flushes.min(self.allowed_answers().1);
    }

    /// How far writes and commits may be answered by the mode and the set as they are.
    fn allowed_answers(&self) -> (Lsn, Lsn) {
        let (mut writes, mut flushes) = (self.log.written(), self.log.durable());
        for life in self.blockers() {
            let feed = self.peers.get(&life.member).and_then(|peer| peer.feed());
            let (received, durable) = match feed.filter(|feed| feed.life == life) {
                Some(feed) => (feed.received, feed.durable),
                // Lost: nothing new is answered until it is back or left out.
                None => (Lsn::START, Lsn::START),
            };
            writes = writes.min(received);
            let committed = if self.state.mode == Mode::Sync { durable } else { received };
            flushes = flushes.min(committed);
        }
        for feed in self.peers.values().filter_map(|peer| peer.feed()) {
            if self.state.mode == Mode::Async && feed.entry == Entry::Peer {
                writes = writes.min(feed.handed);
                flushes = flushes.min(feed.handed);
            }
        }
        (if self.config.commit_on_write { writes.min(flushes) } else { writes }, flushes)
    }

    /// Whether every member of the set that is connected has received everything: what it lacks
    /// may not go into the image, so a stop waits for it; not for one that is lost.
    pub(super) fn set_has_all(&self) -> bool {
        let end = self.log.end().lsn;
        !self.leads_or_ends()
            || self.blockers().all(|life| {
                let feed = self.peers.get(&life.member).and_then(|peer| peer.feed());
                feed.filter(|feed| feed.life == life).is_none_or(|feed| feed.received == end)
            })
    }

    /// Whether a commit must be durable on the standby.
    pub(super) fn commits_wait_for_disk(&self) -> bool {
        self.state.mode == Mode::Sync
    }

    /// How far the image may go: nobody applies what could still be taken back (design §2.5).
    pub(super) fn apply_target(&self) -> Lsn {
        let durable = self.log.durable();
        let leads = match self.standing {
            _ if self.image_is_to_rest() => return self.state.apply_limit,
            Part::Leading | Part::Releasing(_) => true,
            Part::Stopping(_) => self.state.role == Role::Primary,
            // Who wants to lead still takes what the old primary sends, and must not run out of
            // room for it: that one's promise comes behind.
            Part::Standby(_) | Part::Candidate(_) => false,
            _ => return self.state.apply_limit,
        };
        let hold = self.compared_at().or(self.follow.hold);
        let allowed = if leads {
            self.kept_without(None)
        } else {
            durable.min(self.follow.may_apply).min(self.delayed())
        };
        let allowed = hold.map_or(allowed, |at| allowed.min(at));
        allowed.max(self.state.apply_limit)
    }

    /// How far this primary's log is durable here and received by every member of the in-sync set,
    /// one left out: whoever takes over by right of the set has it, and nobody takes it back.
    pub(super) fn kept_without(&self, one: Option<MemberId>) -> Lsn {
        let others = self.blockers().filter(|life| Some(life.member) != one);
        others.fold(self.log.durable(), |kept, life| {
            let feed = self.peers.get(&life.member).and_then(|peer| peer.feed());
            let feed = feed.filter(|feed| feed.life == life);
            kept.min(feed.map_or(Lsn::START, |feed| feed.received))
        })
    }

    /// What a standby is told of that: while its image is compared, no more than where it is held.
    pub(super) fn word_for(&self, member: MemberId) -> Lsn {
        let kept = self.kept_without(Some(member));
        self.held_for(member).map_or(kept, |at| kept.min(at))
    }

    /// How far a standby that applies later than it receives may go by now.
    fn delayed(&self) -> Lsn {
        let delay = self.config.replay_delay;
        let old = || self.log.trail().older_than(delay, self.clock.now).unwrap_or(Lsn::START);
        match self.standing {
            _ if delay.is_zero() => self.log.end().lsn,
            // What is not old enough when it stops waits for the next start.
            Part::Stopping(_) => Lsn::START,
            _ => old(),
        }
    }

    /// When the next frame becomes old enough to be applied.
    pub(super) fn delay_deadline(&self) -> Option<Now> {
        let delayed = !self.config.replay_delay.is_zero();
        let standby = delayed && matches!(self.standing, Part::Standby(_));
        let due = || self.log.trail().due(self.state.apply_limit, self.config.replay_delay);
        standby.then(due).flatten()
    }

    /// The limit is recorded before anything up to it goes into the image; by size and by time, so
    /// that the superblock is not written for every frame.
    pub(super) fn settle_applying(&mut self) {
        let now = self.clock.now;
        let target = self.apply_target();
        let bytes = target.since(self.state.apply_limit);
        if bytes == 0 {
            self.applying.since = None;
        } else {
            let since = *self.applying.since.get_or_insert(now);
            let stopping = matches!(self.standing, Part::Stopping(_));
            let old = now.since(since) >= self.config.apply_interval;
            if stopping || old || bytes >= self.config.apply_bytes {
                self.applying.since = None;
                self.state.apply_limit = target;
                self.persist_then(After::Apply(target));
            }
        }
        self.settle_checkpoint(now);
    }

    fn settle_checkpoint(&mut self, now: Now) {
        let bytes = self.log.applied().since(self.state.checkpoint.lsn);
        let stopping = matches!(self.standing, Part::Stopping(_))
            && self.log.applied() == self.state.apply_limit;
        let old = now.since(self.applying.checkpointed_at) >= CHECKPOINT_INTERVAL;
        let due = bytes > 0 && (stopping || old || bytes >= self.config.checkpoint_bytes);
        if due && !self.applying.checkpoint_asked {
            self.applying.checkpoint_asked = true;
            self.out.push_back(Action::Checkpoint);
        }
    }

    pub(super) fn checkpointed(&mut self, position: LogPosition) {
        self.applying.checkpoint_asked = false;
        self.applying.checkpointed_at = self.clock.now;
        if position.lsn > self.state.checkpoint.lsn {
            self.state.checkpoint = position;
            self.persist_then(After::Checkpointed(position));
        }
    }

    /// Everything between the two watermarks of waiting and done, for the log.
    pub(super) fn settle_log(&mut self) {
        if self.log.sync_due(&self.config, self.clock.now) {
            self.out.push_back(Action::SyncLog);
        }
    }
}

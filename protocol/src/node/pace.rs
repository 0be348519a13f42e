//! Modes and slow standbys: changing the mode of a running resource, dropping a standby that takes
//! too long, and the policy that moves to a weaker mode and back (design §3, §4).

use std::time::Duration;

use super::{Action, Denied, Done, Node, Note, Part};
use crate::ids::{Lsn, MemberId};
use crate::replica::Mode;
use crate::time::Now;

/// How long a socket may take nothing before its connection counts as congested.
pub const CONGESTED_AFTER: Duration = Duration::from_millis(500);

/// How long answers waited for standbys.
#[derive(Clone, Debug, Default)]
pub(super) struct Waits {
    /// Answers are held back by a standby now.
    held: bool,
    pub(super) count: u64,
    pub(super) total: Duration,
    /// Running average over the last dozens.
    pub(super) recent: Duration,
    /// A commit waits for a standby's disk since then.
    commit_since: Option<Now>,
}

/// Where the policy stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Degraded {
    /// Steps taken down the list.
    steps: usize,
    /// Since when a standby keeps up.
    good_since: Option<Now>,
}

impl Waits {
    /// Who does not lead has nobody to answer: what it held back before is no wait any more.
    pub(super) fn rest(&mut self) {
        (self.held, self.commit_since) = (false, None);
    }

    /// Answers were given up to a position whose oldest part had waited so long.
    fn waited(&mut self, time: Duration) {
        self.count += 1;
        self.total = self.total.saturating_add(time);
        self.recent = match self.count {
            1 => time,
            _ => (self.recent * 15 + time) / 16,
        };
    }
}

impl Node {
    /// An operator's new mode.
    pub(super) fn set_mode(&mut self, mode: Mode) -> Result<Done, Denied> {
        if !self.is_leading() {
            return Err(Denied::NotPrimary);
        }
        self.config.mode = mode;
        self.degraded = Degraded::default();
        self.change_mode(mode, false);
        Ok(Done::ModeSet)
    }

    /// Every standby leaves and enters again under the new rule, so that no promise of the new mode
    /// rests on what the old one did.
    fn change_mode(&mut self, to: Mode, by_policy: bool) {
        let from = std::mem::replace(&mut self.state.mode, to);
        if from != to {
            self.out.push_back(Action::Note(Note::ModeChanged { from, to, by_policy }));
        }
        self.count_commits_anew();
        self.persist.touch();
        let members: Vec<_> = self.peers.keys().copied().collect();
        members.into_iter().for_each(|member| self.begin_leaving(member));
    }

    /// How long the oldest answer has been held back by a standby; nothing where none is.
    pub(super) fn oldest_wait(&self) -> Option<Duration> {
        if !matches!(self.standing, Part::Leading | Part::Releasing(_)) {
            return None;
        }
        let now = self.clock.now;
        let write = (self.answers.writes < self.log.written())
            .then(|| self.log.trail().age(self.answers.writes, now))
            .flatten();
        let commit = self.waits.commit_since.map(|since| now.since(since));
        write.max(commit)
    }

    /// Takes note of who waited how long; called when answers have just been settled.
    pub(super) fn settle_waits(&mut self, before: Lsn) {
        let now = self.clock.now;
        let reached = self.answers.writes;
        if self.waits.held && reached > before {
            let waited = self.log.trail().age(before, now).unwrap_or_default();
            self.waits.waited(waited);
        }
        self.waits.held = reached < self.log.written();
        let wanted = self.log.wanted().min(self.log.durable());
        match self.answers.flushes < wanted {
            true => {
                self.waits.commit_since.get_or_insert(now);
            }
            false => self.waits.commit_since = None,
        }
    }

    /// Drops the standbys that hold answers for longer than the limit, though they are connected.
    pub(super) fn settle_pace(&mut self) {
        if !self.is_leading() {
            return;
        }
        let limit = self.config.peer_wait_limit;
        let wait = self.oldest_wait().unwrap_or_default();
        if !limit.is_zero() && wait >= limit {
            self.drop_slow_standbys();
        }
        self.settle_degraded(wait);
    }

    fn drop_slow_standbys(&mut self) {
        let end = self.log.end().lsn;
        let slow: Vec<_> = self
            .peers
            .values()
            .filter(|peer| !peer.leaving && peer.feed().is_some_and(|feed| feed.counts()))
            .filter(|peer| self.holds_answers(peer.member))
            .map(|peer| peer.member)
            .collect();
        for member in slow {
            self.out.push_back(Action::Note(Note::TooSlow(member)));
            if let Some(peer) = self.peers.get_mut(&member) {
                peer.must_reach = Some(end);
            }
            self.begin_leaving(member);
        }
    }

    fn holds_answers(&self, member: MemberId) -> bool {
        let Some(feed) = self.peers.get(&member).and_then(|peer| peer.feed()) else {
            return false;
        };
        let position = match self.mode_of(member) {
            Mode::Async => feed.handed,
            Mode::Sync => feed.durable,
            _ => feed.received,
        };
        position < self.log.end().lsn
    }

    /// The policy `degrade`: down when an answer waits too long, back when the standby has kept up
    /// for long enough; each with a note.
    fn settle_degraded(&mut self, wait: Duration) {
        let (now, steps) = (self.clock.now, self.degraded.steps);
        let weaker = |mode: &&Mode| **mode > self.state.mode;
        if wait >= self.config.degrade_after {
            let next = self.config.degrade.iter().skip(steps).find(weaker).copied();
            if let Some(next) = next {
                let taken = self.config.degrade.iter().position(|mode| *mode == next);
                let steps = taken.map_or(steps, |index| index + 1);
                self.degraded = Degraded { steps, good_since: None };
                self.change_mode(next, true);
            }
        } else if steps > 0 {
            if !self.principal_keeps_up() {
                self.degraded.good_since = None;
                return;
            }
            let since = *self.degraded.good_since.get_or_insert(now);
            if now.since(since) >= self.config.degrade_back {
                let steps = steps - 1;
                let above = steps.checked_sub(1).and_then(|index| self.config.degrade.get(index));
                let mode = above.copied().unwrap_or(self.config.mode);
                self.degraded = Degraded { steps, good_since: None };
                self.change_mode(mode, true);
            }
        }
    }

    fn principal_keeps_up(&self) -> bool {
        let now = self.clock.now;
        let principal = self.principal();
        let feed = principal.and_then(|member| self.peers.get(&member)?.feed());
        feed.is_some_and(|feed| {
            let age = self.log.trail().age(feed.received, now).unwrap_or_default();
            age * 2 < self.config.degrade_after
        })
    }

    /// When the pace has to be looked at again.
    pub(super) fn pace_deadline(&self) -> Option<Now> {
        if !self.is_leading() {
            return None;
        }
        let limits = [self.config.peer_wait_limit, self.config.degrade_after];
        let since = self
            .log
            .trail()
            .since(self.answers.writes)
            .filter(|_| self.answers.writes < self.log.written());
        let since = [since, self.waits.commit_since].into_iter().flatten().min()?;
        let ends = limits.into_iter().filter(|limit| !limit.is_zero());
        ends.map(|limit| since.after(limit)).filter(|at| *at > self.clock.now).min()
    }

    /// Whether the connection is alive but takes nothing any more.
    pub(super) fn is_congested(&self, member: MemberId) -> bool {
        let feed = self.peers.get(&member).and_then(|peer| peer.feed());
        let since = feed.and_then(|feed| feed.stuck_since);
        since.is_some_and(|since| self.clock.now.since(since) >= CONGESTED_AFTER)
    }

    /// When a connection may come to count as congested.
    pub(super) fn congestion_deadline(&self) -> Option<Now> {
        let now = self.clock.now;
        let feeds = self.peers.values().filter_map(|peer| peer.feed());
        let ends = feeds.filter_map(|feed| Some(feed.stuck_since?.after(CONGESTED_AFTER)));
        ends.filter(|at| *at > now).min()
    }

    /// Since when frames wait for the socket of each standby, and who is told of it. A link that is
    /// slow all the time is told once: it flows again only when nothing waits for it.
    pub(super) fn settle_congestion(&mut self) {
        let now = self.clock.now;
        let Self { peers, out, .. } = self;
        for peer in peers.values_mut() {
            let member = peer.member;
            let Some((_, feed)) = peer.feed_mut() else { continue };
            if feed.handed >= feed.next {
                feed.stuck_since = None;
                if std::mem::take(&mut feed.congested) {
                    out.push_back(Action::Note(Note::Flows(member)));
                }
                continue;
            }
            let since = *feed.stuck_since.get_or_insert(now);
            if now.since(since) >= CONGESTED_AFTER && !feed.congested {
                feed.congested = true;
                out.push_back(Action::Note(Note::Congested(member)));
            }
        }
    }

    /// A standby whose spool is full takes no more. People hear of it once, and again when half of
    /// it is applied.
    pub(super) fn settle_spool(&mut self) {
        let bytes = self.log.end().lsn.since(self.log.applied());
        let (full, told) = (!self.takes_frames(), self.follow.spool_full);
        if full && !told {
            self.follow.spool_full = true;
            self.out.push_back(Action::Note(Note::SpoolFull { bytes }));
        } else if told && bytes <= self.config.spool_limit / 2 {
            self.follow.spool_full = false;
            self.out.push_back(Action::Note(Note::SpoolHasRoom));
        }
    }
}

//! The figures of a resource: gaps, waits, what a failure would lose, how long a takeover would
//! take (design §9). Nothing is decided by them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Node, Part};
use crate::ids::{Lsn, MemberId};
use crate::time::{Now, micros};

/// Time over which a running average forgets.
const AVERAGE_OVER: Duration = Duration::from_secs(60);
/// Shortest time between two looks.
const MEASURE_EVERY: Duration = Duration::from_millis(20);
/// What a takeover takes beside applying: promises, two syncs, the start of the exports.
const TAKEOVER_BASE: Duration = Duration::from_millis(100);

/// A distance in the log, as bytes and as time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Gap {
    /// Bytes of log.
    pub bytes: u64,
    /// Microseconds since the first of those bytes was written, or came.
    pub us: u64,
    /// Running average of the bytes, over about a minute.
    pub average_bytes: u64,
    /// Running average of the time.
    pub average_us: u64,
}

/// Waits of answers for standbys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AnswerWaits {
    /// How long the oldest answer waits now, in microseconds; 0: none waits.
    pub current_us: u64,
    /// Running average of the last dozens.
    pub recent_us: u64,
    /// All waits since the start.
    pub total_us: u64,
    /// How many there were.
    pub count: u64,
}

/// What the loss of this primary, right now and for good, would lose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// No answered write.
    Nothing,
    /// At most this.
    AtMost {
        /// Bytes of log.
        bytes: u64,
        /// Microseconds of work.
        us: u64,
    },
    /// No standby has anything.
    Everything,
}

/// A running average that forgets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Average {
    value: u64,
    at: Option<Now>,
}

impl Average {
    /// The value was `sample` since the last time.
    fn note(&mut self, sample: u64, now: Now) {
        let Some(at) = self.at.replace(now) else {
            self.value = sample;
            return;
        };
        let passed = u128::from(micros(now.since(at)));
        let whole = u128::from(micros(AVERAGE_OVER)).max(passed);
        let kept = u128::from(self.value) * (whole - passed);
        let value = (kept + u128::from(sample) * passed) / whole;
        self.value = u64::try_from(value).unwrap_or(u64::MAX);
    }
}

/// Both averages of a gap.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GapAverages {
    bytes: Average,
    time: Average,
}

/// What is measured all the time, for each standby.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Measured {
    log: GapAverages,
    replay: GapAverages,
    /// Bytes a second that it applies, and the state that this was counted from.
    apply_rate: u64,
    counted: Option<(Now, Lsn)>,
}

/// Shortest time over which a rate is counted.
const RATE_OVER: Duration = Duration::from_secs(1);

impl Measured {
    fn note_rate(&mut self, applied: Lsn, now: Now) {
        let Some((since, from)) = self.counted else {
            self.counted = Some((now, applied));
            return;
        };
        let passed = now.since(since);
        if passed >= RATE_OVER {
            let bytes = applied.since(from).saturating_mul(1_000_000);
            let rate = bytes / micros(passed).max(1);
            // The rate that it can reach is what counts, not that it has nothing to do.
            self.apply_rate = rate.max(self.apply_rate / 2);
            self.counted = Some((now, applied));
        }
    }
}

impl Node {
    fn gap_between(&self, from: Lsn, to: Lsn) -> (u64, u64) {
        let bytes = to.since(from);
        let age = self.log.trail().age(from, self.clock.now).filter(|_| bytes > 0);
        (bytes, age.map_or(0, micros))
    }

    /// Averages are kept up now and then, not for every batch.
    pub(super) fn settle_numbers(&mut self) {
        let now = self.clock.now;
        if now.since(self.measured_at) < MEASURE_EVERY {
            return;
        }
        self.measured_at = now;
        let end = self.log.end().lsn;
        let feeds: Vec<_> = self
            .peers
            .values()
            .filter_map(|peer| Some((peer.member, peer.feed()?.received, peer.feed()?.applied)))
            .collect();
        for (member, received, applied) in feeds {
            let (log, replay) =
                (self.gap_between(received, end), self.gap_between(applied, received));
            let measured = self.measured.entry(member).or_default();
            measured.log.note(log, now);
            measured.replay.note(replay, now);
            measured.note_rate(applied, now);
        }
        if matches!(self.standing, Part::Standby(_)) {
            let applied = self.log.applied();
            let me = self.state.member;
            let (log, replay) = (self.ahead(), self.gap_between(applied, end));
            let measured = self.measured.entry(me).or_default();
            measured.log.note(log, now);
            measured.replay.note(replay, now);
            measured.note_rate(applied, now);
        }
    }

    fn gap(&self, (bytes, us): (u64, u64), averages: Option<GapAverages>) -> Gap {
        let averages = averages.unwrap_or_default();
        let (average_bytes, average_us) = (averages.bytes.value, averages.time.value);
        Gap { bytes, us, average_bytes, average_us }
    }

    /// From the end of the primary's log to what the standby has received.
    pub(super) fn log_gap(&self, member: MemberId) -> Option<Gap> {
        let received = self.best_received(member)?;
        let averages = self.measured.get(&member).map(|measured| measured.log);
        Some(self.gap(self.gap_between(received, self.log.end().lsn), averages))
    }

    /// From what the standby has received to what it has applied.
    pub(super) fn replay_gap(&self, member: MemberId) -> Option<Gap> {
        let feed = self.peers.get(&member)?.feed()?;
        let averages = self.measured.get(&member).map(|measured| measured.replay);
        Some(self.gap(self.gap_between(feed.applied, feed.received), averages))
    }

    /// How far the primary was ahead of this standby when it last said so, and for how long.
    fn ahead(&self) -> (u64, u64) {
        let end = self.log.end().lsn;
        let bytes = self.follow.primary_end.since(end);
        let age = self.follow.ahead.age(end, self.clock.now).filter(|_| bytes > 0);
        (bytes, age.map_or(0, micros))
    }

    /// The log gap on the standby itself.
    pub(super) fn own_log_gap(&self) -> Gap {
        if !matches!(self.standing, Part::Standby(_)) {
            return Gap::default();
        }
        let averages = self.measured.get(&self.state.member).map(|measured| measured.log);
        self.gap(self.ahead(), averages)
    }

    /// The replay gap on the standby itself.
    pub(super) fn own_replay_gap(&self) -> Gap {
        let (applied, end) = (self.log.applied(), self.log.end().lsn);
        let averages = self.measured.get(&self.state.member).map(|measured| measured.replay);
        self.gap(self.gap_between(applied, end), averages)
    }

    /// What a standby is known to have: received in this session, or durable in an earlier one.
    fn best_received(&self, member: MemberId) -> Option<Lsn> {
        let peer = self.peers.get(&member)?;
        peer.feed().map(|feed| feed.received).max(peer.kept)
    }

    pub(super) fn answer_waits(&self) -> AnswerWaits {
        AnswerWaits {
            current_us: self.oldest_wait().map_or(0, micros),
            recent_us: micros(self.waits.recent),
            total_us: micros(self.waits.total),
            count: self.waits.count,
        }
    }

    /// What the loss of this primary would lose; None where it does not lead.
    pub(super) fn loss(&self) -> Option<Loss> {
        if !matches!(self.standing, Part::Leading | Part::Releasing(_)) {
            return None;
        }
        let me = self.state.member;
        if self.insync.recorded.iter().any(|life| life.member != me) {
            return Some(Loss::Nothing);
        }
        let best = self.peers.keys().filter_map(|member| self.best_received(*member)).max();
        Some(match best {
            None => Loss::Everything,
            Some(received) => {
                // What was not answered is nobody's loss.
                let (bytes, us) = self.gap_between(received, self.answers.writes);
                if bytes == 0 { Loss::Nothing } else { Loss::AtMost { bytes, us } }
            }
        })
    }

    /// How long a takeover by the best standby, or by this one, would take, in microseconds.
    pub(super) fn takeover_estimate(&self) -> Option<u64> {
        let (member, bytes) = match self.standing {
            Part::Leading | Part::Releasing(_) => {
                let best = self.peers.values().filter(|peer| peer.feed().is_some());
                let best = best.max_by_key(|peer| peer.feed().map(|feed| feed.applied))?;
                let applied = best.feed()?.applied;
                (best.member, self.log.end().lsn.since(applied))
            }
            Part::Standby(_) => (self.state.member, self.log.end().lsn.since(self.log.applied())),
            _ => return None,
        };
        let bytes = bytes.saturating_sub(self.config.held_bytes);
        let rate = self.measured.get(&member).map_or(0, |measured| measured.apply_rate);
        // Nothing is known of a standby that has not applied anything yet: a slow disk.
        let rate = rate.max(16 << 20);
        Some(micros(TAKEOVER_BASE).saturating_add(bytes.saturating_mul(1_000_000) / rate))
    }
}

impl GapAverages {
    fn note(&mut self, (bytes, us): (u64, u64), now: Now) {
        self.bytes.note(bytes, now);
        self.time.note(us, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_follows_what_lasts_and_hardly_what_does_not() {
        let at = |seconds: u64| Now::from_micros(seconds * 1_000_000);
        let mut average = Average::default();
        average.note(1000, at(0));
        average.note(7000, at(6));
        assert_eq!(average.value, 1600, "a tenth of a minute");
        average.note(0, at(600));
        assert_eq!(average.value, 0);
    }
}

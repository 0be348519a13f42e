//! Epoch history: who led when, from which position, and where two histories part (design §6.4).

use bytes::BufMut;
use serde::{Deserialize, Serialize};

use crate::codec::{CodecError, Put, Reader};
use crate::frame::{Began, Frame, LogPosition, Record};
use crate::ids::{Epoch, Incarnate, Lsn};

/// Most epochs that a history remembers; older ones are forgotten from the front. A replica that
/// parted before the oldest remembered epoch needs a resync anyway.
pub const HISTORY_MAX: usize = 96;

/// One epoch of a history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochEntry {
    /// Which.
    pub epoch: Epoch,
    /// How it began.
    pub began: Began,
    /// Who led it, and in which of its lives.
    pub leader: Incarnate,
    /// The point before its first frame.
    pub start: LogPosition,
}

/// The epochs whose frames a log holds, oldest first, each higher than the one before.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    entries: Vec<EpochEntry>,
}

/// How two histories relate, seen from one side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parting {
    /// They agree up to `point`; what either holds beyond it the other does not.
    At {
        /// Where the common part ends.
        point: Lsn,
    },
    /// They have nothing in common.
    Unrelated,
}

/// Why a frame cannot join a history.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotNext {
    /// It does not begin where the log ends.
    #[error("the frame does not begin where the log ends")]
    Position,
    /// Its hash link does not fit the frame before: the replicas differ before this point.
    #[error("the frame's hash does not follow from the frames before it")]
    Chain,
    /// Its epoch is below that of the frame before, or a new epoch without its mark.
    #[error("the frame's epoch does not follow from the frames before it")]
    Epoch,
}

impl History {
    /// The epochs, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    /// The newest epoch; [`Epoch::NONE_YET`] for a replica that never held a frame.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.entries.last().map_or(Epoch::NONE_YET, |entry| entry.epoch)
    }

    /// The newest entry.
    #[must_use]
    pub fn last(&self) -> Option<&EpochEntry> {
        self.entries.last()
    }

    /// Whether `frame` may follow on a log that ends at `end`.
    ///
    /// # Errors
    /// [`NotNext`] says which link is broken.
    pub fn check_next(&self, end: LogPosition, frame: &Frame) -> Result<(), NotNext> {
        if frame.lsn() != end.lsn {
            return Err(NotNext::Position);
        }
        let starts = frame.epoch_start().is_some();
        let epoch_follows =
            if starts { frame.epoch() > self.epoch() } else { frame.epoch() == self.epoch() };
        if !epoch_follows {
            return Err(NotNext::Epoch);
        }
        if frame.follows(end.chain) { Ok(()) } else { Err(NotNext::Chain) }
    }

    /// Notes a frame that joined the log at `start`. Only the first frame of an epoch changes
    /// anything; returns whether this was one.
    pub fn note(&mut self, start: LogPosition, frame: &Frame) -> bool {
        if frame.epoch() <= self.epoch() {
            return false;
        }
        let began = frame.records().find_map(|record| match record {
            Record::EpochStart { began, incarnation, .. } => Some((began, incarnation)),
            _ => None,
        });
        let Some((began, incarnation)) = began else {
            return false;
        };
        let leader = Incarnate { member: frame.author(), incarnation };
        self.push(EpochEntry { epoch: frame.epoch(), began, leader, start });
        true
    }

    /// Adds an epoch.
    ///
    /// # Panics
    /// If it is not above the newest: whoever begins an epoch has chosen it so.
    pub fn push(&mut self, entry: EpochEntry) {
        assert!(entry.epoch > self.epoch(), "epochs grow");
        if self.entries.len() == HISTORY_MAX {
            self.entries.remove(0);
        }
        self.entries.push(entry);
    }

    /// Forgets the epochs that began at or behind `lsn`, because the log was cut there.
    pub fn truncate(&mut self, lsn: Lsn) {
        self.entries.retain(|entry| entry.start.lsn < lsn);
    }

    /// Where this history, whose log ends at `end`, parts from `other`, which ends at `other_end`.
    #[must_use]
    pub fn parting(&self, end: Lsn, other: &History, other_end: Lsn) -> Parting {
        if self.entries.is_empty() || other.entries.is_empty() {
            // One of them never held a frame: everything begins at the start.
            return Parting::At { point: Lsn::START };
        }
        let common = self.entries.iter().rev().find_map(|mine| {
            let theirs = other.entries.iter().find(|theirs| theirs.epoch == mine.epoch)?;
            (theirs == mine).then_some(mine.epoch)
        });
        match common {
            Some(epoch) => {
                let point = self.end_of(epoch, end).min(other.end_of(epoch, other_end));
                Parting::At { point }
            }
            None => Parting::Unrelated,
        }
    }

    /// The entry of the epoch that began right at or covers the frame at `lsn` after `point`:
    /// the first epoch of this history that is not part of what lies before `point`.
    #[must_use]
    pub fn first_beyond(&self, point: Lsn) -> Option<&EpochEntry> {
        self.entries.iter().find(|entry| entry.start.lsn >= point)
    }

    fn end_of(&self, epoch: Epoch, log_end: Lsn) -> Lsn {
        let next = self.entries.iter().find(|entry| entry.epoch > epoch);
        next.map_or(log_end, |entry| entry.start.lsn)
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put_list(&self.entries, |out, entry| {
            out.put_epoch(entry.epoch);
            out.put_u8(entry.began.code());
            out.put_incarnate(entry.leader);
            out.put_position(entry.start);
        });
    }

    pub(crate) fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut history = Self::default();
        let entries = reader.list("epoch history", HISTORY_MAX, |reader| {
            let epoch = reader.epoch("epoch")?;
            let code = reader.u8("how the epoch began")?;
            let began = Began::from_code(code).ok_or(CodecError::Value {
                field: "how the epoch began",
                value: u64::from(code),
            })?;
            let leader = reader.incarnate("the epoch's leader")?;
            Ok(EpochEntry { epoch, began, leader, start: reader.position("epoch start")? })
        })?;
        for entry in entries {
            if entry.epoch <= history.epoch() {
                return Err(CodecError::Value { field: "epoch", value: entry.epoch.get() });
            }
            history.entries.push(entry);
        }
        Ok(history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::ChainHash;
    use crate::ids::{Incarnation, MemberId};

    fn entry(epoch: u64, start: u64) -> EpochEntry {
        EpochEntry {
            epoch: Epoch::new(epoch),
            began: Began::Restart,
            leader: Incarnate {
                member: MemberId::new((epoch % 8) as u8).unwrap(),
                incarnation: Incarnation::new(1),
            },
            start: LogPosition {
                lsn: Lsn::new(start),
                chain: ChainHash::from_bytes([epoch as u8; 32]),
            },
        }
    }

    fn history(epochs: &[(u64, u64)]) -> History {
        let mut history = History::default();
        epochs.iter().for_each(|(epoch, start)| history.push(entry(*epoch, *start)));
        history
    }

    fn parts_at(point: u64) -> Parting {
        Parting::At { point: Lsn::new(point) }
    }

    #[test]
    fn the_shorter_of_two_equal_histories_is_where_they_part() {
        let (a, b) = (history(&[(8, 0)]), history(&[(8, 0)]));
        assert_eq!(a.parting(Lsn::new(900), &b, Lsn::new(700)), parts_at(700));
        assert_eq!(b.parting(Lsn::new(700), &a, Lsn::new(900)), parts_at(700));
    }

    #[test]
    fn a_takeover_parts_the_old_primarys_tail_from_the_new_history() {
        let old = history(&[(8, 0)]);
        let new = history(&[(8, 0), (17, 500)]);
        assert_eq!(old.parting(Lsn::new(900), &new, Lsn::new(2000)), parts_at(500));
        assert_eq!(old.parting(Lsn::new(400), &new, Lsn::new(2000)), parts_at(400));
        assert_eq!(new.first_beyond(Lsn::new(500)).map(|e| e.epoch), Some(Epoch::new(17)));
    }

    #[test]
    fn two_epochs_begun_apart_part_where_the_earlier_one_began() {
        let a = history(&[(8, 0), (16, 600)]);
        let b = history(&[(8, 0), (17, 500)]);
        assert_eq!(a.parting(Lsn::new(900), &b, Lsn::new(900)), parts_at(500));
    }

    #[test]
    fn a_replica_without_frames_parts_from_anything_at_the_start() {
        let a = history(&[(8, 0), (16, 600)]);
        assert_eq!(a.parting(Lsn::new(900), &History::default(), Lsn::START), parts_at(0));
    }

    #[test]
    fn histories_without_a_common_epoch_are_unrelated() {
        let (a, b) = (history(&[(8, 0)]), history(&[(9, 0)]));
        assert_eq!(a.parting(Lsn::new(1), &b, Lsn::new(1)), Parting::Unrelated);
    }

    #[test]
    fn a_history_reads_back_as_it_was_written_and_forgets_its_oldest_epochs() {
        let mut long = History::default();
        (1..=200).for_each(|n| long.push(entry(n * 8, n * 100)));
        assert_eq!(long.entries().len(), HISTORY_MAX);
        let mut bytes = Vec::new();
        long.put(&mut bytes);
        let mut reader = Reader::new(&bytes);
        assert_eq!(History::get(&mut reader), Ok(long));
        assert_eq!(reader.finish(), Ok(()));
    }
}

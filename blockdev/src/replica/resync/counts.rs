//! Which message of a session is which: a connection that swaps or doubles two is noticed.

use std::collections::BTreeMap;

use hadrian_protocol::resync::{Copying, Numbered};

use super::super::ReplicaEvent;
use crate::resync::BadCopying;

/// Sessions whose messages are counted: those of the others are over.
const SESSIONS_MAX: usize = 32;

/// Messages of each session, said and heard.
#[derive(Debug, Default)]
pub(super) struct Counts(BTreeMap<u64, (u64, u64)>);

impl Counts {
    fn of(&mut self, id: u64) -> &mut (u64, u64) {
        if !self.0.contains_key(&id) && self.0.len() == SESSIONS_MAX {
            // Sessions count up: the lowest is the oldest.
            self.0.pop_first();
        }
        self.0.entry(id).or_default()
    }

    /// Gives a message its number.
    pub(super) fn say(&mut self, id: u64, copying: Copying) -> ReplicaEvent {
        let (said, _) = self.of(id);
        *said += 1;
        ReplicaEvent::Copying { id, message: Numbered { number: *said, copying } }
    }

    /// Takes the number of a message of the other side.
    pub(super) fn hear(&mut self, id: u64, number: u64) -> Result<(), BadCopying> {
        let (_, heard) = self.of(id);
        if number != *heard + 1 {
            return Err(BadCopying::OutOfOrder);
        }
        *heard = number;
        Ok(())
    }

    pub(super) fn said(&self, id: u64) -> u64 {
        self.0.get(&id).map_or(0, |(said, _)| *said)
    }

    pub(super) fn heard(&self, id: u64) -> u64 {
        self.0.get(&id).map_or(0, |(_, heard)| *heard)
    }
}

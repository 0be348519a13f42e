//! The newest events of a resource, for `hadrian events`.

use std::collections::VecDeque;

use hadrian_protocol::node::Note;
use serde::{Deserialize, Serialize};

/// Events kept in memory; older ones are in the log of the daemon only.
const KEPT_MAX: usize = 1024;

/// One event.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ToldEvent {
    /// One more than the event before it; begins again when the resource is started.
    pub number: u64,
    /// When, in microseconds since 1970-01-01 UTC.
    pub wall_us: u64,
    /// A word for programs.
    pub code: String,
    /// The sentence for people, with the members' names.
    pub text: String,
    /// What happened.
    pub note: Note,
}

/// All that are kept.
#[derive(Debug, Default)]
pub(super) struct Told {
    events: VecDeque<ToldEvent>,
    number: u64,
}

impl Told {
    pub(super) fn tell(&mut self, wall_us: u64, text: String, note: Note) {
        if self.events.len() >= KEPT_MAX {
            self.events.pop_front();
        }
        self.number += 1;
        let code = note.code().to_string();
        self.events.push_back(ToldEvent { number: self.number, wall_us, code, text, note });
    }

    pub(super) fn after(&self, number: u64) -> Vec<ToldEvent> {
        self.events.iter().filter(|event| event.number > number).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hadrian_protocol::ids::Epoch;

    #[test]
    fn the_newest_events_are_kept_in_order_and_none_is_told_twice() {
        let mut told = Told::default();
        for _ in 0..KEPT_MAX + 10 {
            told.tell(1, "primary now".into(), Note::Leads(Epoch::NONE_YET));
        }
        let all = told.after(0);
        assert_eq!((all.len(), all[0].number), (KEPT_MAX, 11));
        assert_eq!(told.after(told.number - 2).len(), 2);
    }
}

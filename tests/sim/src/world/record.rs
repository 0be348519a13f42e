//! The control record: one register that all members reach over ways of their own, which break on
//! their own. Nobody's death takes back a proposal that is under way.

use std::collections::BTreeSet;

use hadrian_protocol::node::Event;
use hadrian_protocol::record::ControlRecord;
use rand::Rng;

use super::{Due, World};
use crate::plan::Host as Index;
use crate::{MS, NAMES};

/// The register and the ways to it.
#[derive(Debug, Default)]
pub(super) struct Register {
    pub(super) record: Option<ControlRecord>,
    cut: BTreeSet<Index>,
}

/// What a member wants of it.
#[derive(Clone, Debug)]
pub(crate) enum Want {
    Read,
    Change(ControlRecord),
}

impl Register {
    pub(super) fn cut(&mut self, index: Index) {
        self.cut.insert(index);
    }

    pub(super) fn heal(&mut self, index: Index) {
        self.cut.remove(&index);
    }

    pub(super) fn heal_all(&mut self) {
        self.cut.clear();
    }

    fn number(&self) -> u64 {
        self.record.as_ref().map_or(0, |record| record.number)
    }
}

impl World<'_> {
    pub(super) fn want_record(&mut self, index: Index, want: Want) {
        let life = self.hosts[usize::from(index)].life;
        let pause = self.record_pause();
        self.after(pause, Due::Record(index, life, want));
    }

    fn record_pause(&mut self) -> u64 {
        match self.rng.random_range(0..20) {
            0 => self.rng.random_range(1..200) * MS,
            _ => self.rng.random_range(100..3000),
        }
    }

    /// The want has arrived, unless the way is cut: then it stands, and goes on when it is not.
    pub(super) fn at_record(&mut self, index: Index, life: u64, want: Want) {
        if self.register.cut.contains(&index) {
            return self.after(50 * MS, Due::Record(index, life, want));
        }
        let changes = matches!(want, Want::Change(_));
        if let Want::Change(record) = want
            && record.number == self.register.number() + 1
        {
            let name = NAMES[usize::from(index)];
            let (owner, epoch) = (record.owner.member, record.epoch);
            self.story.tell("record", &[record.number], || {
                let set: Vec<_> = record.in_sync.iter().map(|life| life.member).collect();
                let set: Vec<_> = set.iter().map(ToString::to_string).collect();
                format!("{name} changes the record: {owner} in epoch {epoch}, {}", set.join("+"))
            });
            self.oracle.record_changes(&record);
            self.register.record = Some(record);
        }
        let (pause, record) = (self.record_pause(), self.register.record.clone());
        let event = if changes { Event::Decided(record) } else { Event::RecordRead(record) };
        self.after(pause, Due::RecordSays(index, life, event));
    }

    pub(super) fn record_says(&mut self, index: Index, life: u64, event: Event) {
        if self.register.cut.contains(&index) {
            return self.after(50 * MS, Due::RecordSays(index, life, event));
        }
        self.event_of(index, life, event);
    }
}

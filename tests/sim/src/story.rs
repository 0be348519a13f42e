//! What happened in a run: in words for people, and as one number for comparing two runs.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::{Micros, NAMES};

/// How much of a run is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub enum Telling {
    /// Nothing: it is only compared.
    #[default]
    Nothing,
    /// What happened to the cluster and what people saw of it.
    Prose,
    /// Every message and every request, too.
    Everything,
}

/// The same text with the names of members for their numbers.
#[must_use]
pub fn named(text: &str) -> String {
    let names = NAMES.iter().enumerate();
    names.fold(text.into(), |text, (number, name)| text.replace(&format!("member {number}"), name))
}

/// The record of a run.
#[derive(Debug, Default)]
pub(crate) struct Story {
    now: Micros,
    hasher: DefaultHasher,
    telling: Telling,
    lines: Vec<String>,
}

impl Story {
    pub(crate) fn new(telling: Telling) -> Self {
        Self { telling, ..Self::default() }
    }

    pub(crate) fn at(&mut self, now: Micros) {
        self.now = now;
    }

    /// A detail: its kind and what distinguishes it. `words` are made only for runs of which
    /// everything is told.
    pub(crate) fn note(&mut self, kind: &str, facts: &[u64], words: impl FnOnce() -> String) {
        self.write(Telling::Everything, (kind, facts), words);
    }

    /// Something that a person would tell.
    pub(crate) fn tell(&mut self, kind: &str, facts: &[u64], words: impl FnOnce() -> String) {
        self.write(Telling::Prose, (kind, facts), words);
    }

    fn write(&mut self, from: Telling, of: (&str, &[u64]), words: impl FnOnce() -> String) {
        let (kind, facts) = of;
        self.now.hash(&mut self.hasher);
        kind.hash(&mut self.hasher);
        facts.hash(&mut self.hasher);
        if self.telling >= from {
            let (seconds, micros) = (self.now / 1_000_000, self.now % 1_000_000);
            self.lines.push(format!("{seconds:>4}.{micros:06}  {}", named(&words())));
        }
    }

    /// One number for the whole run: two runs with the same number did the same.
    pub(crate) fn digest(&self) -> u64 {
        self.hasher.finish()
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines
    }
}

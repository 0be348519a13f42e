//! What happened in a run: in words for people, and as one number for comparing two runs.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::Micros;

/// The record of a run.
#[derive(Debug, Default)]
pub(crate) struct Story {
    now: Micros,
    hasher: DefaultHasher,
    telling: bool,
    lines: Vec<String>,
}

impl Story {
    pub(crate) fn new(telling: bool) -> Self {
        Self { telling, ..Self::default() }
    }

    pub(crate) fn at(&mut self, now: Micros) {
        self.now = now;
    }

    /// Something that happened: its kind and what distinguishes it. `words` are made only for
    /// runs that are told.
    pub(crate) fn note(&mut self, kind: &str, facts: &[u64], words: impl FnOnce() -> String) {
        self.now.hash(&mut self.hasher);
        kind.hash(&mut self.hasher);
        facts.hash(&mut self.hasher);
        if self.telling {
            let (seconds, micros) = (self.now / 1_000_000, self.now % 1_000_000);
            self.lines.push(format!("{seconds:>4}.{micros:06}  {}", words()));
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

//! Reading the frames that make a replica diverged, to say what they changed.

use hadrian_protocol::divergence::{Divergence, Survey};
use hadrian_protocol::frame::Frame;
use hadrian_protocol::ids::Lsn;

use super::{LOG_READ_MAX, Replica};
use crate::engine::Engine;
use crate::journal::ReadError;

/// Under this number the log is read for a survey; sessions count up from zero.
pub(super) const SURVEY_READ: u64 = u64::MAX - 1;

/// The survey that was asked for last.
#[derive(Debug)]
pub(super) struct Surveying {
    survey: Survey,
    reading: bool,
    /// The log cannot be read on; what was found stays.
    stuck: bool,
}

impl<E: Engine> Replica<E> {
    /// Begins to look at every frame from `from` to the end of the log.
    pub fn survey(&mut self, from: Lsn) {
        let (from, end) = (from.max(self.journal.start()), self.journal.end().lsn);
        let survey = Survey::new(from, end);
        self.surveying = Some(Surveying { survey, reading: false, stuck: false });
    }

    /// What the last survey has found so far.
    #[must_use]
    pub fn divergence(&self) -> Option<Divergence> {
        self.surveying.as_ref().map(|surveying| surveying.survey.found())
    }

    /// Reads on.
    pub(super) fn go_on_surveying(&mut self) {
        let Some(surveying) = &mut self.surveying else { return };
        let (from, end) = surveying.survey.left();
        if surveying.reading || surveying.stuck || from >= end {
            return;
        }
        // Refused where too many reads are under way: then it is tried again with the next event.
        if self.journal.read(&mut self.engine, from, LOG_READ_MAX, SURVEY_READ).is_ok() {
            surveying.reading = true;
            self.engine.kick();
            self.take_journal_events();
        }
    }

    pub(super) fn survey_read(&mut self, result: Result<Vec<Frame>, ReadError>) {
        let Some(surveying) = &mut self.surveying else { return };
        surveying.reading = false;
        let frames = result.unwrap_or_else(|error| {
            tracing::warn!(%error, "the diverged part of the log cannot be read to its end");
            Vec::new()
        });
        surveying.stuck = frames.is_empty();
        // A read for an earlier survey brings other frames.
        let next = surveying.survey.left().0;
        let fits = frames.first().is_some_and(|frame| frame.lsn() == next);
        frames.iter().filter(|_| fits).for_each(|frame| surveying.survey.add(frame));
    }
}

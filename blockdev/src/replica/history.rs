//! The before-images that a replica keeps, as a gate in front of its stores: what the core allows
//! goes on only when what it changes is on record (`crate::history`).

use std::io;
use std::path::Path;

use hadrian_protocol::frame::LogPosition;
use hadrian_protocol::ids::Lsn;
use hadrian_protocol::node::FailedPart;
use hadrian_protocol::replica::{Image, ReplicaState, VolumeGeometry};

use super::{Replica, ReplicaError, ReplicaEvent};
use crate::engine::Engine;
use crate::history::{Batch, Door, Fault, Keeper, Kept, Limits, Reach, Shelf, cut, forget};
use crate::resync::task::{Io, Task, Tasks};

/// The history of a replica.
#[derive(Debug)]
pub(super) struct History {
    /// None: it is not to be kept.
    kept: Option<Kept>,
    /// How far the core allows frames into the stores.
    wanted: Lsn,
    step: Step,
    shelf: Option<Shelf>,
    /// Why there is none any more, though there should be.
    ended: Option<String>,
}

#[derive(Debug)]
enum Step {
    /// Frames go into the stores as the core allows it.
    Off,
    /// Everything that was let in is on record.
    Idle(Box<Keeper>),
    /// What frames to here change is put on record.
    Recording(Task<(Box<Keeper>, Result<(), Fault>)>, Lsn),
    /// It is forgotten, before anything that is not on record goes in.
    Forgetting(Task<io::Result<()>>),
    /// It is cut where the image goes back to, before that does.
    Cutting(Task<io::Result<Option<Keeper>>>),
    /// It begins at where the stores are.
    Beginning(Task<io::Result<Keeper>>),
}

/// What people see of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryStatus {
    /// How much is to be kept.
    pub limits: Limits,
    /// How far back it goes; none: there is none at the moment.
    pub reach: Option<Reach>,
    /// Why it has ended, if so; it begins again at the next start.
    pub ended: Option<String>,
}

impl History {
    /// Finds what is on disk. It is forgotten before anything else is done where it cannot be
    /// carried on: then the image is about to be changed without it.
    pub(super) fn find<E: Engine>(
        tasks: &Tasks,
        engine: &mut E,
        (dir, state): (&Path, &ReplicaState),
        kept: Option<Kept>,
    ) -> Result<Self, ReplicaError> {
        let mut history =
            Self { kept, wanted: Lsn::START, step: Step::Off, shelf: None, ended: None };
        // An image that goes back to a point of its own takes what is on record before it along.
        let back = state.went_back.map(|went| went.to).filter(|to| *to == state.checkpoint);
        let found = match (history.kept.clone(), state.image, back) {
            (Some(kept), Image::Whole, _) => {
                tasks.run(Task::new(Keeper::open(tasks.io(), kept)), engine).flatten()
            }
            (Some(kept), Image::Switching, Some(to)) => {
                let opening = cut_and_open(tasks.io(), kept, to);
                let kept = tasks.run(Task::new(opening), engine).flatten();
                kept.map(|kept| kept.map(Ok))
            }
            _ => Ok(None),
        };
        match found {
            Ok(Some(Ok(keeper))) => history.take(keeper),
            Ok(Some(Err(why))) => history.forget_now(tasks, engine, dir, &why)?,
            Ok(None) => forget_now(tasks, engine, dir)?,
            Err(error) => history.forget_now(tasks, engine, dir, &error.to_string())?,
        }
        Ok(history)
    }

    fn take(&mut self, keeper: Keeper) {
        self.shelf = Some(keeper.shelf().clone());
        self.step = Step::Idle(Box::new(keeper));
    }

    /// Where it ends, if there is one.
    pub(super) fn end(&self) -> Option<LogPosition> {
        self.shelf.as_ref().map(|shelf| shelf.book().end.at)
    }

    /// Makes sure that history ends where the stores can be: `known` says that the log has a frame
    /// that ends there. Otherwise it was switched off in between, or is of another image.
    pub(super) fn check<E: Engine>(
        &mut self,
        (tasks, engine): (&Tasks, &mut E),
        (dir, state): (&Path, &ReplicaState),
        known: bool,
    ) -> Result<(), ReplicaError> {
        let Some(end) = self.end() else { return Ok(()) };
        if known && end.lsn >= state.checkpoint.lsn && end.lsn <= state.apply_limit {
            return Ok(());
        }
        let why = format!(
            "it ends at {}, and the image is between {} and {}: changes were made without it",
            end.lsn, state.checkpoint.lsn, state.apply_limit
        );
        self.forget_now(tasks, engine, dir, &why)
    }

    fn forget_now<E: Engine>(
        &mut self,
        tasks: &Tasks,
        engine: &mut E,
        dir: &Path,
        why: &str,
    ) -> Result<(), ReplicaError> {
        let path = dir.display();
        tracing::warn!(replica = %path, why, "the history cannot be carried on and begins anew");
        (self.step, self.shelf) = (Step::Off, None);
        forget_now(tasks, engine, dir)
    }

    /// The volumes are larger from here on; what is on record of them stays true.
    pub(super) fn resize(&mut self, volumes: &[VolumeGeometry]) {
        if let Some(kept) = &mut self.kept {
            kept.volumes = volumes.to_vec();
        }
    }

    /// What the core allows.
    pub(super) fn want(&mut self, limit: Lsn) {
        self.wanted = self.wanted.max(limit);
    }

    pub(super) fn wanted(&self) -> Lsn {
        self.wanted
    }

    /// Whether frames go into the stores without being recorded.
    pub(super) fn is_off(&self) -> bool {
        matches!(self.step, Step::Off)
    }

    /// Whether what it says of the image that comes is not settled yet.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.step, Step::Forgetting(_) | Step::Cutting(_))
    }

    /// Begins to forget it: what comes goes into the stores when that is done. Readers are told at
    /// once, before the image is another one.
    fn forget(&mut self, io: Io, dir: &Path, why: &str) {
        if let Some(shelf) = self.shelf.take() {
            shelf.book().ended = Some(why.to_owned());
        }
        let dir = dir.to_path_buf();
        self.step = Step::Forgetting(Task::new(async move { forget(&io, &dir).await }));
    }

    /// The log was cut at `end`, which is never below what was allowed.
    pub(super) fn cut(&self, end: Lsn) {
        assert!(self.wanted <= end, "what was allowed into the stores is never cut");
    }
}

impl Drop for History {
    /// Nobody tells readers any more what changes the image.
    fn drop(&mut self) {
        if let Some(shelf) = &self.shelf {
            shelf.book().ended = Some("the resource was stopped".into());
        }
    }
}

fn forget_now<E: Engine>(tasks: &Tasks, engine: &mut E, dir: &Path) -> Result<(), ReplicaError> {
    let (io, path) = (tasks.io(), dir.to_path_buf());
    let forgotten = tasks.run(Task::new(async move { forget(&io, &path).await }), engine);
    forgotten.flatten().map_err(|source| ReplicaError::Io { path: dir.join("history"), source })
}

/// The history before a point, if there is one that ends there.
async fn cut_and_open(io: Io, kept: Kept, at: LogPosition) -> io::Result<Option<Keeper>> {
    match cut(&io, &kept, at).await? {
        true => Ok(Keeper::open(io, kept).await?.and_then(Result::ok)),
        false => Ok(None),
    }
}

async fn record(mut keeper: Box<Keeper>, batch: Batch) -> (Box<Keeper>, Result<(), Fault>) {
    let result = keeper.record(&batch).await;
    (keeper, result)
}

impl<E: Engine> Replica<E> {
    /// What is kept of the past, where that was asked for.
    #[must_use]
    pub fn history(&self) -> Option<HistoryStatus> {
        let limits = self.history.kept.as_ref()?.limits;
        let reach = self.history.shelf.as_ref().map(|shelf| shelf.book().reach());
        Some(HistoryStatus { limits, reach, ended: self.history.ended.clone() })
    }

    /// Where others find what is on record, on threads of their own.
    #[must_use]
    pub fn history_door(&self) -> Option<Door> {
        let (kept, shelf) = (self.history.kept.as_ref()?, self.history.shelf.clone()?);
        Some(Door::new(kept, shelf))
    }

    /// Whether frames that are allowed wait to be put on record.
    pub(super) fn history_waits(&self) -> bool {
        match self.history.step {
            Step::Off => false,
            Step::Idle(_) => self.volumes.has_to(self.history.wanted),
            Step::Recording(..) | Step::Forgetting(_) | Step::Cutting(_) | Step::Beginning(_) => {
                true
            }
        }
    }

    /// Begins history where the stores are, which are quiet.
    pub(super) fn begin_history(&mut self) {
        let is_due = self.history.is_off() && self.history.ended.is_none();
        let Some(kept) = self.history.kept.clone().filter(|_| is_due) else { return };
        let (io, from) = (self.copies.tasks().io(), self.volumes.point());
        self.history.step = Step::Beginning(Task::new(Keeper::begin(io, kept, from)));
        self.go_on_history();
    }

    /// The image is about to be changed otherwise than by the log.
    pub(super) fn suspend_history(&mut self, why: &str) {
        if !self.history.is_off() {
            self.history.forget(self.copies.tasks().io(), &self.dir, why);
            self.go_on_history();
        }
    }

    /// The image is about to go back to a point of its history: what is on record behind that goes
    /// first. Where there is no such record, all of it does.
    pub(super) fn cut_history(&mut self, at: LogPosition) {
        let Some(kept) = self.history.kept.clone().filter(|_| !self.history.is_off()) else {
            return;
        };
        if let Some(shelf) = self.history.shelf.take() {
            shelf.book().ended = Some("the image was taken back to an earlier point".into());
        }
        let io = self.copies.tasks().io();
        self.history.step = Step::Cutting(Task::new(cut_and_open(io, kept, at)));
        self.go_on_history();
    }

    /// The image is another one, at `to`.
    pub(super) fn history_anew(&mut self, to: Lsn) {
        self.history.wanted = to;
        self.begin_history();
    }

    pub(super) fn go_on_history(&mut self) {
        while self.history_on() {}
    }

    /// Whether a step has ended, or begun.
    fn history_on(&mut self) -> bool {
        let Self { copies, engine, volumes, history, .. } = self;
        let tasks = copies.tasks();
        match &mut history.step {
            Step::Off => false,
            Step::Idle(_) => {
                let Some(batch) = volumes.next_batch(history.wanted) else { return false };
                self.begin_recording(batch);
                true
            }
            Step::Recording(task, to) => {
                let (to, ended) = (*to, tasks.poll(task, engine));
                ended.map(|(keeper, result)| self.recorded(keeper, to, result)).is_some()
            }
            Step::Forgetting(task) => match tasks.poll(task, engine) {
                None => false,
                Some(Ok(())) => {
                    history.step = Step::Off;
                    let wanted = history.wanted;
                    self.let_in(wanted);
                    true
                }
                Some(Err(error)) => {
                    // What is on disk would speak of an image that it does not know.
                    let text =
                        format!("{}: the history cannot be removed: {error}", self.dir.display());
                    let error = io::Error::new(error.kind(), text);
                    history.step = Step::Off;
                    self.ready.push(ReplicaEvent::Failed(FailedPart::Log, error));
                    false
                }
            },
            Step::Cutting(task) => match tasks.poll(task, engine) {
                None => false,
                Some(Ok(Some(keeper))) => {
                    history.take(keeper);
                    true
                }
                Some(other) => {
                    let why = other.err().map_or("it does not end there".into(), |e| e.to_string());
                    self.suspend_history(&format!("it cannot be cut where the image went: {why}"));
                    true
                }
            },
            Step::Beginning(task) => match tasks.poll(task, engine) {
                None => false,
                Some(Ok(keeper)) => {
                    history.take(keeper);
                    true
                }
                Some(Err(error)) => {
                    self.history_failed(&error);
                    true
                }
            },
        }
    }

    fn begin_recording(&mut self, mut batch: Batch) {
        let Step::Idle(keeper) = std::mem::replace(&mut self.history.step, Step::Off) else {
            return;
        };
        let (end, to) = (keeper.shelf().book().end, batch.to.at.lsn);
        if end.at != batch.from.at {
            let (ends, is) = (end.at.lsn, batch.from.at.lsn);
            let text = format!("it ends at {ends}, the image is at {is}");
            return self.history_failed(&io::Error::other(text));
        }
        // After a start only the record knows when the last frame was written that is applied.
        batch.from = end;
        self.history.step = Step::Recording(Task::new(record(keeper, batch)), to);
    }

    fn recorded(&mut self, keeper: Box<Keeper>, to: Lsn, result: Result<(), Fault>) {
        match result {
            Ok(()) => {
                self.history.step = Step::Idle(keeper);
                self.let_in(to);
            }
            Err(Fault::Store { volume, source }) => {
                self.history.step = Step::Off;
                let text = format!("backing store of volume {}: {source}", volume.index());
                let error = io::Error::new(source.kind(), text);
                let failed = self.volumes.fail_for(&error);
                self.ready.extend(failed.map(|e| ReplicaEvent::Failed(FailedPart::Store, e)));
            }
            Err(Fault::History(error)) => self.history_failed(&error),
        }
    }

    /// History ends for this life; replication goes on.
    fn history_failed(&mut self, error: &io::Error) {
        let (dir, why) = (self.dir.join("history"), error.to_string());
        tracing::warn!(dir = %dir.display(), why, "no history is kept until the next start");
        self.history.forget(self.copies.tasks().io(), &self.dir, &why);
        self.history.ended = Some(why);
    }
}

#[cfg(test)]
mod tests;

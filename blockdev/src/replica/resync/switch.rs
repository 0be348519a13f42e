//! The switch to what was staged, of a running replica and of one that is opened.

use std::io;
use std::path::Path;

use hadrian_protocol::frame::LogPosition;
use hadrian_protocol::ids::Lsn;
use hadrian_protocol::node::FailedPart;
use hadrian_protocol::replica::ReplicaState;

use super::super::{Replica, ReplicaError, ReplicaEvent};
use crate::engine::{Engine, FileId};
use crate::journal;
use crate::resync::image::Pair;
use crate::resync::switch::{Switch, fold_staging};
use crate::resync::task::{Task, Tasks};

/// A switch under way; see `crate::resync::switch` for the crashes that its order survives.
#[derive(Debug)]
pub(super) struct Switching {
    to: LogPosition,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// What is staged goes into the stores.
    Fold(Task<io::Result<()>>),
    /// It is there. The log waits for what is under way in it.
    Settle,
    /// The log begins anew.
    Reset(Task<io::Result<Vec<FileId>>>),
}

/// Finishes a switch before the log is opened: with the first step, because nobody knows how far
/// it came.
pub(in super::super) fn finish_switch<E: Engine>(
    engine: &mut E,
    tasks: &Tasks,
    dir: &Path,
    (state, stores): (&ReplicaState, Vec<Pair>),
) -> Result<(), ReplicaError> {
    let switch = Switch {
        io: tasks.io(),
        replica_dir: dir.into(),
        resource: state.resource,
        volumes: state.volumes.clone(),
        stores,
    };
    let folded = tasks.run(Task::new(fold_staging(switch)), engine);
    folded.flatten().map_err(ReplicaError::Switch)?;
    let to = state.checkpoint.lsn;
    let reset = journal::reset(tasks.io(), dir.into(), state.resource, to);
    tasks.run(Task::new(reset), engine).flatten().map_err(ReplicaError::Switch)
}

impl<E: Engine> Replica<E> {
    /// Makes the image that of the landing, and begins the log there anew. The state that says so
    /// must be durable before, and the one that says that the image is whole again must be before
    /// anything is appended: until then an opening begins the switch again.
    pub fn switch_image(&mut self, to: LogPosition) {
        self.end_sink();
        // Before anything of the image changes: what is on record is not of the one that comes.
        match self.copies.rewound.take() == Some(to) {
            true => self.cut_history(to),
            false => self.suspend_history("a resync has replaced the image"),
        }
        let copies = &mut self.copies;
        let switch = Switch {
            io: copies.tasks.io(),
            replica_dir: self.dir.clone(),
            resource: copies.resource,
            volumes: copies.volumes.clone(),
            stores: copies.stores.clone(),
        };
        let step = Step::Fold(Task::new(fold_staging(switch)));
        copies.switching = Some(Switching { to, step });
        self.volumes.close_for_switch();
        self.go_on_copying();
    }

    pub(super) fn go_on_switching(&mut self) {
        while self.switch_on() {}
    }

    /// Whether a step has ended.
    fn switch_on(&mut self) -> bool {
        let Self { copies, engine, journal, volumes, history, .. } = self;
        let Some(Switching { to, step }) = &mut copies.switching else { return false };
        if history.is_leaving() {
            return false;
        }
        let to = *to;
        match step {
            Step::Fold(task) => match copies.tasks.poll(task, engine) {
                None => return false,
                Some(Ok(())) => *step = Step::Settle,
                Some(Err(error)) => self.switch_failed(FailedPart::Store, error),
            },
            Step::Settle => {
                let plan = volumes.is_idle().then(|| journal.plan_reset(engine, to)).flatten();
                let Some(plan) = plan else { return false };
                *step = Step::Reset(Task::new(plan.carry_out(copies.tasks.io())));
            }
            Step::Reset(task) => match copies.tasks.poll(task, engine) {
                None => return false,
                Some(Ok(files)) => self.switched(to, files),
                Some(Err(error)) => self.switch_failed(FailedPart::Log, error),
            },
        }
        true
    }

    fn switch_failed(&mut self, part: FailedPart, error: io::Error) {
        self.copies.switching = None;
        self.ready.push(ReplicaEvent::Failed(part, error));
    }

    fn switched(&mut self, to: LogPosition, files: Vec<FileId>) {
        self.copies.switching = None;
        self.copies.was_in_place = false;
        self.spool.cut(Lsn::START, to.lsn);
        self.surveying = None;
        self.journal.was_reset(&mut self.engine, to, files);
        self.volumes.begin_anew(to);
        self.unneeded = Lsn::START;
        self.take_journal_events();
        self.history_anew(to.lsn);
        self.ready.push(ReplicaEvent::Switched(to));
    }
}

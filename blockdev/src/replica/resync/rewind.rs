//! Going back to a point of the image's own history, as the owner of a replica begins and ends it;
//! what is done is in `crate::resync::rewind`.

use std::cell::Cell;
use std::rc::Rc;

use hadrian_protocol::frame::LogPosition;
use hadrian_protocol::ids::Lsn;
use hadrian_protocol::node::FailedPart;

use super::super::{QUARANTINE_DIR, Replica, ReplicaEvent};
use super::tail_of;
use crate::engine::Engine;
use crate::resync::rewind::{self, RewindWork};
use crate::resync::task::{Io, Task};
use crate::resync::{RewindError, SinkError};

/// On the way to a point.
#[derive(Debug)]
pub(super) struct RewindRun {
    to: LogPosition,
    is_quiet: Rc<Cell<bool>>,
    io: Io,
    task: Task<Result<(), RewindError>>,
}

impl RewindRun {
    /// The log from here on will be saved.
    pub(super) fn needs_log_from(&self) -> Lsn {
        self.to.lsn
    }
}

impl<E: Engine> Replica<E> {
    /// Begins to stage what the image held at a point, and to save what is given up for it. Nothing
    /// is appended meanwhile, and all of the log is written. Ends with [`ReplicaEvent::Rewound`].
    pub fn rewind(&mut self, to: LogPosition) {
        self.end_sink();
        self.end_rewind();
        let end = self.journal.end().lsn;
        let tail = tail_of(&self.journal, to.lsn);
        let door = self.history_door();
        let copies = &mut self.copies;
        let (io, is_quiet) = (copies.tasks.io(), Rc::new(Cell::new(false)));
        let work = RewindWork {
            io: io.clone(),
            before: copies.ended.take(),
            is_quiet: is_quiet.clone(),
            replica_dir: self.dir.clone(),
            quarantine_dir: self.dir.join(QUARANTINE_DIR),
            resource: copies.resource,
            volumes: copies.volumes.clone(),
            stores: copies.stores.clone(),
            door,
            to,
            end,
            tail,
        };
        let task = Task::new(rewind::run(work));
        copies.rewinding = Some(RewindRun { to, is_quiet, io, task });
        self.go_on_copying();
    }

    /// Does not go on with it; what is staged is dropped by whoever comes next.
    pub fn end_rewind(&mut self) {
        self.copies.rewound = None;
        if let Some(run) = self.copies.rewinding.take() {
            self.copies.ended = Some(run.io);
        }
    }

    pub(super) fn go_on_rewinding(&mut self, is_quiet: bool) {
        let Self { copies, engine, .. } = self;
        let Some(run) = &mut copies.rewinding else { return };
        run.is_quiet.set(is_quiet);
        let Some(result) = copies.tasks.poll(&mut run.task, engine) else { return };
        let to = run.to;
        self.end_rewind();
        // A store whose write or sync failed is not to be trusted any more (design §2.7).
        let failed = match &result {
            Err(RewindError::Sink(SinkError::Store { source, .. })) => {
                self.volumes.fail_for(source)
            }
            _ => None,
        };
        self.copies.rewound = result.is_ok().then_some(to);
        self.ready.push(ReplicaEvent::Rewound(result));
        self.ready.extend(failed.map(|e| ReplicaEvent::Failed(FailedPart::Store, e)));
    }
}

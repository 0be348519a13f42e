//! Comparing the image with that of another member, answering for it, and repairing it.

use std::cell::RefCell;
use std::rc::Rc;

use hadrian_protocol::divergence::Changed;
use hadrian_protocol::ids::Lsn;
use hadrian_protocol::node::FailedPart;
use hadrian_protocol::resync::{Copying, Right};

use super::super::{QUARANTINE_DIR, Replica, ReplicaEvent};
use super::Copies;
use crate::engine::Engine;
use crate::resync::SinkError;
use crate::resync::compare::{AnswerState, CompareState, CompareWork, Compared, answer, piece};
use crate::resync::mend::{Mender, Rests};
use crate::resync::task::{Io, Task};

/// What is compared, on either side.
#[derive(Debug, Default)]
pub(super) struct Comparing {
    pub(super) asks: Option<Asks>,
    pub(super) answers: Option<Answers>,
    /// Where the image rests, as far as repairs may rely on it.
    rests: Rests,
    /// What repairs change of the stores.
    touched: Rc<RefCell<Vec<Changed>>>,
    /// Of repairs that have ended: what they write may be under way.
    ended: Vec<Io>,
    /// To here the image may go as soon as nothing of a repair is under way.
    waits: Option<Lsn>,
}

#[derive(Debug)]
pub(super) struct Asks {
    pub(super) work: Rc<CompareWork>,
    task: Option<Task<Result<Compared, SinkError>>>,
}

#[derive(Debug)]
pub(super) struct Answers {
    pub(super) state: Rc<RefCell<AnswerState>>,
    task: Task<Result<(), SinkError>>,
    io: Io,
}

impl Comparing {
    /// Whether nothing is compared, and nothing waits for what was.
    pub(super) fn is_idle(&self) -> bool {
        let ended = self.ended.is_empty() && self.waits.is_none();
        ended && self.asks.is_none() && self.answers.is_none()
    }

    /// The image is about to go on, to `limit`: repairs write nothing more. Whether that has to
    /// wait for what they have under way; then it is kept, for [`Comparing::goes_on`].
    pub(super) fn is_kept_still(&mut self, limit: Lsn) -> bool {
        self.rests.set(None);
        let busy = self.is_mending();
        if busy {
            self.waits = Some(self.waits.map_or(limit, |waits| waits.max(limit)));
        }
        busy
    }

    /// To where the image goes that had to wait.
    pub(super) fn goes_on(&mut self) -> Option<Lsn> {
        if self.waits.is_none() || self.is_mending() {
            return None;
        }
        self.waits.take()
    }

    /// Whether something of a repair may be on its way into the stores.
    pub(super) fn is_mending(&mut self) -> bool {
        self.ended.retain(Io::is_busy);
        let asks = self.asks.as_ref().and_then(|asks| asks.work.mender.as_ref());
        let asks = asks.is_some_and(|mender| mender.io.is_busy());
        asks || self.answers.as_ref().is_some_and(|of| of.io.is_busy()) || !self.ended.is_empty()
    }

    /// The image rests here, unless somebody has been told otherwise.
    pub(super) fn rests_at(&mut self, at: Option<Lsn>) {
        self.rests.set(at.filter(|_| self.waits.is_none()));
    }

    pub(super) fn touched(&self) -> Vec<Changed> {
        self.touched.take()
    }

    fn end_asks(&mut self) {
        let mender = self.asks.take().and_then(|asks| asks.work.mender.clone());
        self.ended.extend(mender.map(|mender| mender.io));
    }

    fn end_answers(&mut self) {
        self.ended.extend(self.answers.take().map(|answers| answers.io));
    }
}

impl Copies {
    fn mender(&self) -> Mender {
        Mender {
            io: self.tasks.io(),
            rests: self.comparing.rests.clone(),
            quarantine_dir: self.dir.join(QUARANTINE_DIR),
            resource: self.resource,
            volumes: self.volumes.clone(),
            stores: self.stores.clone(),
            touched: self.comparing.touched.clone(),
        }
    }
}

impl<E: Engine> Replica<E> {
    /// The volumes are to be compared with those at the other end of `id`, from their start; where
    /// one of the two is `right`, the other is repaired.
    pub fn begin_compare(&mut self, id: u64, right: Option<Right>) {
        let copies = &mut self.copies;
        copies.comparing.end_asks();
        let state = Rc::new(RefCell::new(CompareState::new(id, &copies.volumes, right)));
        let (io, stores) = (copies.tasks.io(), copies.stores.clone());
        let mender = right.is_some_and(|right| right == Right::Standby).then(|| copies.mender());
        let work = Rc::new(CompareWork { io, state, stores, mender });
        copies.comparing.asks = Some(Asks { work, task: None });
    }

    /// Both images rest at one position: compares the next piece, and then tells what it found.
    pub fn compare(&mut self, id: u64) {
        let at = self.volumes.applied().lsn;
        if let Some(asks) = self.copies.comparing.asks.as_mut().filter(|asks| asks.is_of(id)) {
            asks.work.state.borrow_mut().begin_piece(at);
            asks.task = Some(Task::new(piece(asks.work.clone())));
        }
        self.go_on_copying();
    }

    /// Nothing more is compared.
    pub fn end_compare(&mut self, id: u64) {
        let comparing = &mut self.copies.comparing;
        if comparing.asks.as_ref().is_some_and(|asks| asks.is_of(id)) {
            comparing.end_asks();
        }
    }

    /// The image rests: what it holds is told where the other end of `id` asks, and repaired where
    /// it says so.
    pub fn answer_compare(&mut self, id: u64) {
        let copies = &mut self.copies;
        copies.comparing.end_answers();
        let state = Rc::new(RefCell::new(AnswerState::new(id, &copies.volumes)));
        let mender = copies.mender();
        let io = mender.io.clone();
        let task = Task::new(answer(copies.tasks.io(), state.clone(), mender));
        copies.comparing.answers = Some(Answers { state, task, io });
    }

    /// It goes on.
    pub fn end_answers(&mut self, id: u64) {
        let comparing = &mut self.copies.comparing;
        if comparing.answers.as_ref().is_some_and(|answers| answers.state.borrow().id == id) {
            comparing.end_answers();
        }
    }

    pub(super) fn go_on_comparing(&mut self) {
        let failed = [self.go_on_asking(), self.go_on_answering()];
        for error in failed.into_iter().flatten() {
            // A store whose write or sync failed is not to be trusted any more (design §2.7).
            if let SinkError::Store { source, .. } = &error {
                let first = self.volumes.fail_for(source);
                self.ready.extend(first.map(|e| ReplicaEvent::Failed(FailedPart::Store, e)));
            }
        }
    }

    fn go_on_asking(&mut self) -> Option<SinkError> {
        let Self { copies, engine, ready, .. } = self;
        let asks = copies.comparing.asks.as_mut()?;
        let ended = asks.task.as_mut().and_then(|task| copies.tasks.poll(task, engine));
        let mut state = asks.work.state.borrow_mut();
        let id = state.id;
        let counts = &mut copies.counts;
        ready.extend(state.out.drain(..).map(|copying| counts.say(id, copying)));
        drop(state);
        let ended = ended?;
        asks.task = None;
        match ended {
            Ok(Compared { done, total, differs, repaired }) => {
                ready.push(ReplicaEvent::Compared { id, done, total, differs, repaired });
                None
            }
            Err(error) => {
                let text = std::io::Error::other(error.to_string());
                ready.push(ReplicaEvent::CompareFailed { id, error: text });
                Some(error)
            }
        }
    }

    fn go_on_answering(&mut self) -> Option<SinkError> {
        let Self { copies, engine, ready, .. } = self;
        let answers = copies.comparing.answers.as_mut()?;
        let failed = copies.tasks.poll(&mut answers.task, engine);
        let mut state = answers.state.borrow_mut();
        let (id, count) = (state.id, state.mended());
        let counts = &mut copies.counts;
        ready.extend(state.out.drain(..).map(|copying| counts.say(id, copying)));
        drop(state);
        let error = failed?.err()?;
        tracing::error!(%error, "the image cannot be compared or repaired");
        ready.push(counts.say(id, Copying::Mended { count, whole: false }));
        copies.comparing.end_answers();
        Some(error)
    }
}

impl Asks {
    fn is_of(&self, id: u64) -> bool {
        self.work.state.borrow().id == id
    }
}

//! Comparing the image with that of another member, and answering for it.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use super::super::{Replica, ReplicaEvent};
use crate::engine::Engine;
use crate::resync::compare::{AnswerState, CompareState, CompareWork, Compared, answer, piece};
use crate::resync::task::Task;

/// What is compared, on either side.
#[derive(Debug, Default)]
pub(super) struct Comparing {
    pub(super) asks: Option<Asks>,
    pub(super) answers: Option<Answers>,
}

#[derive(Debug)]
pub(super) struct Asks {
    pub(super) work: Rc<CompareWork>,
    task: Option<Task<io::Result<Compared>>>,
}

#[derive(Debug)]
pub(super) struct Answers {
    pub(super) state: Rc<RefCell<AnswerState>>,
    task: Task<io::Result<()>>,
}

impl<E: Engine> Replica<E> {
    /// The volumes are to be compared with those at the other end of `id`, from their start.
    pub fn begin_compare(&mut self, id: u64) {
        let copies = &mut self.copies;
        let state = Rc::new(RefCell::new(CompareState::new(id, &copies.volumes)));
        let (io, stores) = (copies.tasks.io(), copies.stores.clone());
        let work = Rc::new(CompareWork { io, state, stores });
        copies.comparing.asks = Some(Asks { work, task: None });
    }

    /// Both images rest at one position: compares the next piece, and then tells what it found.
    pub fn compare(&mut self, id: u64) {
        if let Some(asks) = self.copies.comparing.asks.as_mut().filter(|asks| asks.is_of(id)) {
            asks.work.state.borrow_mut().wanted = true;
            asks.task = Some(Task::new(piece(asks.work.clone())));
        }
        self.go_on_copying();
    }

    /// Nothing more is compared.
    pub fn end_compare(&mut self, id: u64) {
        self.copies.comparing.asks.take_if(|asks| asks.is_of(id));
    }

    /// The image rests: what it holds is told where the other end of `id` asks.
    pub fn answer_compare(&mut self, id: u64) {
        let copies = &mut self.copies;
        let state = Rc::new(RefCell::new(AnswerState::new(id, &copies.volumes)));
        let task = Task::new(answer(copies.tasks.io(), state.clone(), copies.stores.clone()));
        copies.comparing.answers = Some(Answers { state, task });
    }

    /// It goes on.
    pub fn end_answers(&mut self, id: u64) {
        self.copies.comparing.answers.take_if(|answers| answers.state.borrow().id == id);
    }

    pub(super) fn go_on_comparing(&mut self) {
        let Self { copies, engine, ready, .. } = self;
        if let Some(asks) = &mut copies.comparing.asks {
            let ended = asks.task.as_mut().and_then(|task| copies.tasks.poll(task, engine));
            let mut state = asks.work.state.borrow_mut();
            let id = state.id;
            let counts = &mut copies.counts;
            ready.extend(state.out.drain(..).map(|copying| counts.say(id, copying)));
            drop(state);
            match ended {
                None => {}
                Some(Ok((done, total, differs))) => {
                    asks.task = None;
                    ready.push(ReplicaEvent::Compared { id, done, total, differs });
                }
                Some(Err(error)) => {
                    asks.task = None;
                    ready.push(ReplicaEvent::SourceFailed { id, error });
                }
            }
        }
        if let Some(answers) = &mut copies.comparing.answers {
            let failed = copies.tasks.poll(&mut answers.task, engine);
            let mut state = answers.state.borrow_mut();
            let id = state.id;
            let counts = &mut copies.counts;
            ready.extend(state.out.drain(..).map(|copying| counts.say(id, copying)));
            drop(state);
            if let Some(Err(error)) = failed {
                tracing::error!(%error, "the image cannot be read to be compared");
                copies.comparing.answers = None;
            }
        }
    }
}

impl Asks {
    fn is_of(&self, id: u64) -> bool {
        self.work.state.borrow().id == id
    }
}

//! A thread that runs programs one after the other, and what waits for it.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};

use super::{Hook, Then, Vars, run};

/// Programs that wait for the one before. At the limit the oldest that only tells of what has
/// happened is not run.
pub(super) const WAITING_MAX: usize = 32;

/// One run of a program.
pub(super) struct Job {
    pub(super) hook: Hook,
    pub(super) vars: Vars,
    /// Who waits for its end; nobody where it tells of what has happened.
    pub(super) then: Option<Then>,
}

/// The thread; it ends when this is dropped and everything that waited was run.
pub(super) struct Runner(Arc<Queue>);

#[derive(Default)]
struct Queue {
    jobs: Mutex<Jobs>,
    news: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    is_closed: bool,
}

impl Runner {
    pub(super) fn start(name: &str) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let taken = queue.clone();
        let body = move || {
            while let Some(job) = taken.next() {
                let is_success = run(&job.hook, &job.vars).is_success();
                job.then.into_iter().for_each(|then| then(is_success));
            }
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(body)?;
        Ok(Self(queue))
    }

    /// Never waits for a program.
    pub(super) fn put(&self, job: Job) {
        let Ok(mut jobs) = self.0.jobs.lock() else { return };
        if jobs.waiting.len() >= WAITING_MAX {
            let oldest = jobs.waiting.iter().position(|job| job.then.is_none()).unwrap_or(0);
            if let Some(dropped) = jobs.waiting.remove(oldest) {
                let command = dropped.hook.command.display();
                let vars = &dropped.vars;
                tracing::warn!(%command, ?vars, "too many wait: this one is not run");
                dropped.then.into_iter().for_each(|then| then(false));
            }
        }
        jobs.waiting.push_back(job);
        self.0.news.notify_one();
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        if let Ok(mut jobs) = self.0.jobs.lock() {
            jobs.is_closed = true;
        }
        self.0.news.notify_one();
    }
}

impl Queue {
    fn next(&self) -> Option<Job> {
        let mut jobs = self.jobs.lock().ok()?;
        loop {
            match jobs.waiting.pop_front() {
                Some(job) => return Some(job),
                None if jobs.is_closed => return None,
                None => jobs = self.news.wait(jobs).ok()?,
            }
        }
    }
}

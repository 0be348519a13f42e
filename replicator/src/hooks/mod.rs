//! Programs of the operator: told of what happens to a resource, and asked to fence an owner.
//!
//! They run on threads of their own, one program at a time for each resource and in the order of
//! what happened. A resource's thread never waits for one.

mod program;
mod queue;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use program::run;
use queue::{Job, Runner};

/// A program of the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hook {
    /// Its file.
    pub command: PathBuf,
    /// Longest that it may run; then it is killed, with its process group.
    pub timeout: Duration,
}

/// What a program finds in its environment, beside what `hadriand` has in its own.
pub(crate) type Vars = Vec<(&'static str, String)>;
/// Hears how a program ended: whether it ended with 0.
pub(crate) type Then = Box<dyn FnOnce(bool) + Send>;

/// The programs of one resource.
pub struct Hooks {
    base: Vars,
    events: Option<(Hook, Runner)>,
    // Of its own: who is to be fenced does not wait until everybody was told of everything.
    fence: Option<(Hook, Runner)>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hook = |of: &Option<(Hook, Runner)>| of.as_ref().map(|(hook, _)| hook.clone());
        f.debug_tuple("Hooks").field(&hook(&self.events)).field(&hook(&self.fence)).finish()
    }
}

impl Hooks {
    /// Starts the threads of a resource's programs; none where it has no programs. `base` is what
    /// each of them finds in its environment.
    ///
    /// # Errors
    /// Where the system has no thread for it.
    pub(crate) fn start(
        resource: &str,
        events: Option<Hook>,
        fence: Option<Hook>,
        base: Vars,
    ) -> std::io::Result<Option<Arc<Self>>> {
        if events.is_none() && fence.is_none() {
            return Ok(None);
        }
        let runner = |name: &str, hook: Option<Hook>| {
            hook.map(|hook| Ok((hook, Runner::start(&format!("{name}-{resource}"))?))).transpose()
        };
        let (events, fence): (_, std::io::Result<_>) =
            (runner("event", events), runner("fence", fence));
        Ok(Some(Arc::new(Self { base, events: events?, fence: fence? })))
    }

    /// Whether somebody is told of what happens.
    pub(crate) fn tells(&self) -> bool {
        self.events.is_some()
    }

    /// Longest that what is announced waits.
    pub(crate) fn announce_limit(&self) -> Duration {
        self.events.as_ref().map_or(Duration::ZERO, |(hook, _)| hook.timeout)
    }

    /// Something has happened.
    pub(crate) fn happened(&self, vars: Vars) {
        self.put(self.events.as_ref(), vars, "after", None);
    }

    /// Something is about to happen; `then` hears when it was told.
    pub(crate) fn announce(&self, vars: Vars, then: Then) {
        self.put(self.events.as_ref(), vars, "before", Some(then));
    }

    /// Somebody is to be fenced; `then` hears whether that was done for certain.
    pub(crate) fn fence(&self, vars: Vars, then: Then) {
        self.put(self.fence.as_ref(), vars, "before", Some(then));
    }

    fn put(&self, to: Option<&(Hook, Runner)>, vars: Vars, when: &'static str, then: Option<Then>) {
        let Some((hook, runner)) = to else {
            // There is nobody to ask, so nobody has done it.
            return then.into_iter().for_each(|then| then(false));
        };
        let when = [("HADRIAN_WHEN", when.to_owned())];
        let vars = self.base.iter().cloned().chain(when).chain(vars).collect();
        runner.put(Job { hook: hook.clone(), vars, then });
    }
}

#[cfg(test)]
mod tests;

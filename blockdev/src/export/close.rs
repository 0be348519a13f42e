//! Ending connections from outside: one switch per export, one per server.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// How connections end when their switch is thrown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Close {
    /// Read no more; answer what is in flight, then close.
    Drain,
    /// Close at once; answers that were not written yet are lost with the connection.
    Cut,
}

/// A switch that ends all connections which watch it. Clones throw the same switch.
///
/// Once thrown it stays thrown; `Drain` can still be sharpened to `Cut`.
#[derive(Clone, Default)]
pub struct CloseHandle {
    shared: Rc<Shared>,
}

#[derive(Default)]
struct Shared {
    thrown: Cell<Option<Close>>,
    /// One entry per watching connection; the waker is that of its task.
    watching: RefCell<Slab<Option<Waker>>>,
    /// Those who wait for the last connection to end.
    waiting: RefCell<Vec<Waker>>,
}

impl CloseHandle {
    /// A switch that nobody watches yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the connections that watch, and those that are going to. Never undone.
    pub fn close(&self, how: Close) {
        self.shared.thrown.set(self.shared.thrown.get().max(Some(how)));
        // Collected first: a waker may run code that comes back here.
        let mut watching = self.shared.watching.borrow_mut();
        let wakers: Vec<_> = watching.iter_mut().filter_map(|(_, waker)| waker.take()).collect();
        drop(watching);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Whether the switch was thrown.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.thrown.get().is_some()
    }

    /// Whether nothing may be answered any more.
    #[cfg(feature = "ublk")]
    pub(crate) fn is_cut(&self) -> bool {
        self.shared.thrown.get() == Some(Close::Cut)
    }

    /// Connections that have not ended yet.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.shared.watching.borrow().len()
    }

    /// Resolves when no connection is left. Does not throw the switch itself.
    pub async fn ended(&self) {
        poll_fn(|cx| {
            if self.connection_count() == 0 {
                return Poll::Ready(());
            }
            let mut waiting = self.shared.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Resolves when the switch is thrown, or sharpened beyond `known`.
    pub async fn thrown(&self, known: Option<Close>) -> Close {
        let watch = self.watch();
        poll_fn(|cx| match watch.poll(cx) {
            Some(how) if Some(how) > known => Poll::Ready(how),
            _ => Poll::Pending,
        })
        .await
    }

    /// Registers a connection.
    pub(crate) fn watch(&self) -> Watch {
        Watch { key: self.shared.watching.borrow_mut().insert(None), handle: self.clone() }
    }
}

/// A connection's registration; counted until it is dropped.
pub(crate) struct Watch {
    handle: CloseHandle,
    key: usize,
}

impl Watch {
    /// How to close, if so; otherwise the task is woken when that changes.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Option<Close> {
        let mut watching = self.handle.shared.watching.borrow_mut();
        // Registered even after `Drain`: `Cut` may follow.
        if let Some(slot) = watching.get_mut(self.key) {
            match slot {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *slot = Some(cx.waker().clone()),
            }
        }
        self.handle.shared.thrown.get()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let shared = &self.handle.shared;
        shared.watching.borrow_mut().try_remove(self.key);
        if self.handle.connection_count() == 0 {
            let waiting = shared.waiting.take();
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noop() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn a_thrown_switch_is_seen_by_present_and_future_watchers() {
        let handle = CloseHandle::new();
        let present = handle.watch();
        assert_eq!(present.poll(&noop()), None);
        handle.close(Close::Drain);
        assert_eq!(present.poll(&noop()), Some(Close::Drain));
        assert_eq!(handle.watch().poll(&noop()), Some(Close::Drain));
    }

    #[test]
    fn draining_can_be_sharpened_but_cutting_is_not_softened() {
        let handle = CloseHandle::new();
        let watch = handle.watch();
        handle.close(Close::Drain);
        handle.close(Close::Cut);
        handle.close(Close::Drain);
        assert_eq!(watch.poll(&noop()), Some(Close::Cut));
    }

    #[tokio::test]
    async fn waiting_for_the_end_resolves_with_the_last_watcher() {
        let handle = CloseHandle::new();
        let (one, other) = (handle.watch(), handle.watch());
        let mut ended = Box::pin(handle.ended());
        assert!(ended.as_mut().poll(&mut noop()).is_pending());
        drop(one);
        assert!(ended.as_mut().poll(&mut noop()).is_pending());
        drop(other);
        ended.await;
        assert_eq!(handle.connection_count(), 0);
    }
}

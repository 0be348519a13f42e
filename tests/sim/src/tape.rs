//! Recordings of every process of a run, as the daemon would write them.

use std::cell::RefCell;
use std::rc::Rc;

use hadrian_protocol::node::{Entry, Tape};

/// What was recorded: of each process, in the order of their starts, its lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recordings(Rc<RefCell<Vec<Vec<String>>>>);

impl Recordings {
    /// A tape for one more process.
    pub(crate) fn tape(&self) -> Box<dyn Tape> {
        let mut all = self.0.borrow_mut();
        all.push(Vec::new());
        Box::new(Reel { all: self.clone(), index: all.len() - 1 })
    }

    pub(crate) fn lines(&self) -> Vec<Vec<String>> {
        self.0.borrow().clone()
    }
}

#[derive(Debug)]
struct Reel {
    all: Recordings,
    index: usize,
}

impl Tape for Reel {
    fn keep(&mut self, entry: &Entry) {
        let line = serde_json::to_string(entry);
        let line = line.unwrap_or_else(|error| unreachable!("an entry can be written: {error}"));
        if let Some(reel) = self.all.0.borrow_mut().get_mut(self.index) {
            reel.push(line);
        }
    }
}

//! A recording, run through the core again.

use super::recording::Did;
use super::{Action, Entry, Event, Node, RECORDING_VERSION, Start};
use crate::frame::Frame;
use crate::time::Clock;

/// Why a recording cannot be followed, or where the core does something else than it did then.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Difference {
    /// The first entry does not say what the node was made of.
    #[error("it does not begin with what the node was made of; this is no whole recording")]
    NoStart,
    /// The beginning stands in the middle.
    #[error("a second beginning stands in the middle of it")]
    SecondStart,
    /// Another version wrote it.
    #[error("{program} wrote it, in format {found}; this one reads {RECORDING_VERSION} only")]
    Version {
        /// What it says.
        found: u32,
        /// Who wrote it.
        program: String,
    },
    /// Changes of clients that this core does not take, or seals differently.
    #[error("clients' changes were sealed as {frame} then, and are not now")]
    Append {
        /// The frame of then.
        frame: String,
    },
    /// The core did something else.
    #[error("the core did something else then: {then} actions, {now} now")]
    Did {
        /// How many actions it was then.
        then: u64,
        /// How many of them there are now.
        now: u64,
    },
    /// What no disk and no driver can have done, as far as this core has come.
    #[error("{what} cannot have happened after what came before; was something left out of it?")]
    Impossible {
        /// The event.
        what: String,
    },
    /// Something follows the end.
    #[error("something follows the entry that says that it was full")]
    AfterEnd,
}

/// A node that lives through a recording.
#[derive(Debug)]
pub struct Replay {
    node: Node,
    full: bool,
}

impl Replay {
    /// Begins with the first entry.
    ///
    /// # Errors
    /// [`Difference`]
    pub fn begin(entry: Entry) -> Result<Self, Difference> {
        let Entry::Started(start) = entry else { return Err(Difference::NoStart) };
        let Start { version, program, config, state, recovered, clock } = *start;
        if version != RECORDING_VERSION {
            return Err(Difference::Version { found: version, program });
        }
        Ok(Self { node: Node::new(config, state, recovered, clock), full: false })
    }

    /// The node as it is after the last entry.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Whether the recording ended because there was no room for more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Follows one entry; returns what the driver took out of the node by it.
    ///
    /// # Errors
    /// [`Difference`], with which the replay is over.
    pub fn follow(&mut self, entry: Entry) -> Result<Vec<Action>, Difference> {
        if self.full {
            return Err(Difference::AfterEnd);
        }
        match entry {
            Entry::Started(_) => return Err(Difference::SecondStart),
            Entry::Handled(clock, event) => {
                self.node.can_be(&event)?;
                self.node.handle(clock, event);
            }
            Entry::Appended(clock, frame) => self.append(clock, &frame)?,
            Entry::Settled(clock) => self.node.settle(clock),
            Entry::Did { actions, digest } => return self.take(actions, digest),
            Entry::Full => self.full = true,
        }
        Ok(Vec::new())
    }

    fn append(&mut self, clock: Clock, frame: &Frame) -> Result<(), Difference> {
        match self.node.append_again(clock, frame) {
            true => Ok(()),
            false => Err(Difference::Append { frame: format!("{frame:?}") }),
        }
    }

    fn take(&mut self, then: u64, digest: u64) -> Result<Vec<Action>, Difference> {
        let (mut actions, mut did) = (Vec::new(), Did::default());
        while (actions.len() as u64) < then
            && let Some(action) = self.node.next_action()
        {
            did.add(&action);
            actions.push(action);
        }
        let now = actions.len() as u64;
        match did.take() {
            Some(Entry::Did { actions, digest: now }) if (actions, now) == (then, digest) => {}
            _ => return Err(Difference::Did { then, now }),
        }
        Ok(actions)
    }
}

impl Node {
    /// Whether an event of the driver's can follow on all before it. What others say may be
    /// anything, and is checked where it is heard.
    ///
    /// # Errors
    /// [`Difference::Impossible`]
    fn can_be(&self, event: &Event) -> Result<(), Difference> {
        let (end, durable) = (self.log.end().lsn, self.log.durable());
        let can = match event {
            Event::Written(lsn) | Event::Durable(lsn) => *lsn <= end,
            Event::Applied(lsn) => *lsn <= durable,
            Event::Checkpointed(position) => position.lsn <= self.log.applied(),
            Event::Truncated(position) => (self.log.applied()..=end).contains(&position.lsn),
            Event::Persisted(number) => self.persist.can_be_done(*number),
            _ => true,
        };
        can.then_some(()).ok_or_else(|| Difference::Impossible { what: format!("{event:?}") })
    }

    /// Takes changes of clients that were sealed when they came, if this node would have sealed
    /// them like that.
    fn append_again(&mut self, clock: Clock, frame: &Frame) -> bool {
        self.clock = clock;
        let end = self.log.end();
        let same = self.takes_appends()
            && (frame.lsn(), frame.epoch()) == (end.lsn, self.state.promised)
            && (frame.durable(), frame.wall()) == (self.log.durable(), clock.wall)
            && (frame.author(), frame.resource()) == (self.state.member, self.state.resource)
            && frame.follows(end.chain);
        if same {
            self.keep(frame);
        }
        same
    }
}

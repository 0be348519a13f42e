//! A node whose events are kept, so that they can be run through the core again.
//!
//! A recording begins with everything that the node was made of. Then follows all that it was
//! told, each entry written before the node sees it: of a core that fails an assertion, the entry
//! that made it fail is the last. Only changes of clients are written behind, as they were sealed.
//! What the node did is kept as a count and a digest.
//!
//! Of frames only the heads are kept. The hash chain covers nothing else, and the core looks at
//! nothing else, so a recording holds no byte of what clients wrote.

use std::fmt::{self, Write as _};
use std::ops::Deref;

use serde::{Deserialize, Serialize};

use super::{Action, Event, Node, NodeConfig, Recovered};
use crate::frame::{Draft, Frame, FrameBuffer};
use crate::ids::Lsn;
use crate::replica::ReplicaState;
use crate::time::Clock;

/// Version of the entries; a program reads its own only.
pub const RECORDING_VERSION: u32 = 1;

/// One step of a recording.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// What the node was made of; always the first, and there once.
    Started(Box<Start>),
    /// An event was handed in.
    Handled(Clock, Event),
    /// Client changes were sealed as this frame.
    Appended(Clock, #[serde(with = "as_head")] Frame),
    /// The batch was settled.
    Settled(Clock),
    /// What the driver took out of the node since the last entry of this kind.
    Did {
        /// How many actions.
        actions: u64,
        /// What they were.
        digest: u64,
    },
    /// There was no room for more: the recording ends here, the node went on.
    Full,
}

/// All that a node is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    /// [`RECORDING_VERSION`] of the program that wrote it.
    pub version: u32,
    /// The program that wrote it, for people.
    pub program: String,
    /// The settings.
    pub config: NodeConfig,
    /// What the superblock held.
    #[serde(with = "as_superblock")]
    pub state: ReplicaState,
    /// What the log held.
    pub recovered: Recovered,
    /// When.
    pub clock: Clock,
}

/// Where a recording goes. It must not fail: a tape that cannot keep an entry keeps none after it.
pub trait Tape: fmt::Debug {
    /// Keeps one entry behind the others.
    fn keep(&mut self, entry: &Entry);
}

/// A node and, where somebody wants one, a recording of it.
#[derive(Debug)]
pub struct Recorded {
    node: Node,
    tape: Option<Box<dyn Tape>>,
    did: Did,
}

impl Recorded {
    /// Starts a node as [`Node::new`] does.
    #[must_use]
    pub fn start(start: Start, mut tape: Option<Box<dyn Tape>>) -> Self {
        if let Some(tape) = &mut tape {
            tape.keep(&Entry::Started(Box::new(start.clone())));
        }
        let Start { config, state, recovered, clock, .. } = start;
        Self { node: Node::new(config, state, recovered, clock), tape, did: Did::default() }
    }

    /// [`Node::handle`]
    pub fn handle(&mut self, clock: Clock, event: Event) {
        if self.tape.is_some() {
            self.keep(&Entry::Handled(clock, event.clone()));
        }
        self.node.handle(clock, event);
    }

    /// [`Node::append`]
    pub fn append<B: FrameBuffer>(&mut self, clock: Clock, draft: Draft<B>) -> Option<Lsn> {
        let end = self.node.append(clock, draft);
        if self.tape.is_some()
            && end.is_some()
            && let Some(frame) = self.node.log.newest().cloned()
        {
            self.keep(&Entry::Appended(clock, frame));
        }
        end
    }

    /// [`Node::settle`]
    pub fn settle(&mut self, clock: Clock) {
        self.keep(&Entry::Settled(clock));
        self.node.settle(clock);
    }

    /// [`Node::next_action`]
    pub fn next_action(&mut self) -> Option<Action> {
        let action = self.node.next_action();
        if let (Some(action), true) = (&action, self.tape.is_some()) {
            self.did.add(action);
        }
        action
    }

    fn keep(&mut self, entry: &Entry) {
        let Some(tape) = &mut self.tape else { return };
        if let Some(did) = self.did.take() {
            tape.keep(&did);
        }
        tape.keep(entry);
    }
}

impl Deref for Recorded {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

/// Actions that were taken out of a node.
#[derive(Debug, Default)]
pub(super) struct Did {
    actions: u64,
    hasher: blake3::Hasher,
}

impl Did {
    pub(super) fn add(&mut self, action: &Action) {
        self.actions += 1;
        // Writing into a hasher does not fail.
        let _ = write!(Text(&mut self.hasher), "{action:?}");
    }

    /// The entry for all that were added; none if there were none.
    pub(super) fn take(&mut self) -> Option<Entry> {
        let Self { actions, hasher } = self;
        if *actions == 0 {
            return None;
        }
        let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
        let digest = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        hasher.reset();
        Some(Entry::Did { actions: std::mem::take(actions), digest })
    }
}

struct Text<'a>(&'a mut blake3::Hasher);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

/// Frames as the hexadecimal digits of their heads.
pub(super) mod as_head {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::frame::Frame;

    pub(in crate::node) fn serialize<S: Serializer>(
        frame: &Frame,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(frame.head()))
    }

    pub(in crate::node) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Frame, D::Error> {
        let head = hex::decode(String::deserialize(deserializer)?).map_err(D::Error::custom)?;
        Frame::hollow(&head).map_err(D::Error::custom)
    }
}

/// One frame among several.
#[derive(Serialize, Deserialize)]
struct Head(#[serde(with = "as_head")] Frame);

/// Several frames.
pub(super) mod as_heads {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Head;
    use crate::frame::Frame;

    pub(in crate::node) fn serialize<S: Serializer>(
        frames: &[Frame],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(frames.iter().cloned().map(Head))
    }

    pub(in crate::node) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Frame>, D::Error> {
        let heads = Vec::<Head>::deserialize(deserializer)?;
        Ok(heads.into_iter().map(|head| head.0).collect())
    }
}

/// Several frames with their places.
pub(super) mod as_placed_heads {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Head;
    use crate::frame::{Frame, LogPosition};

    pub(in crate::node) fn serialize<S: Serializer>(
        frames: &[(LogPosition, Frame)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(frames.iter().map(|(at, frame)| (*at, Head(frame.clone()))))
    }

    pub(in crate::node) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(LogPosition, Frame)>, D::Error> {
        let heads = Vec::<(LogPosition, Head)>::deserialize(deserializer)?;
        Ok(heads.into_iter().map(|(at, head)| (at, head.0)).collect())
    }
}

/// Messages as the hexadecimal digits of what goes over the wire.
pub(super) mod as_sent {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::wire::{Envelope, Message};

    pub(in crate::node) fn serialize<S: Serializer>(
        message: &Message,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(message.encode()))
    }

    pub(in crate::node) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Message, D::Error> {
        let bytes = hex::decode(String::deserialize(deserializer)?).map_err(D::Error::custom)?;
        let Some((head, body)) = bytes.split_first_chunk() else {
            return Err(D::Error::custom("a message is shorter than its envelope"));
        };
        let envelope = Envelope::parse(head).map_err(D::Error::custom)?;
        envelope.message(body).map_err(D::Error::custom)
    }
}

/// A state as the hexadecimal digits of its superblock.
mod as_superblock {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::replica::ReplicaState;

    pub(super) fn serialize<S: Serializer>(
        state: &ReplicaState,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(state.encode()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<ReplicaState, D::Error> {
        let body = hex::decode(String::deserialize(deserializer)?).map_err(D::Error::custom)?;
        ReplicaState::decode(&body).map_err(D::Error::custom)
    }
}

//! The legality tables: every move that a member, or a standby in its own eyes or in those of its
//! primary, can make (design §4). The picture in the documents is drawn from them, the simulator
//! counts which of them it has seen, and a move that is not in them fails every test.

use std::collections::BTreeMap;
use std::fmt;

use super::peer::{Entry, Peer};
use super::{Node, Part, StandbyState};
use crate::ids::MemberId;

/// The part that a member plays, without its particulars.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// Its new life becomes durable.
    Starting,
    /// Receives, or waits for somebody who leads.
    Standby,
    /// A restarted primary that has not heard everybody yet.
    StartGate,
    /// Collects promises.
    Candidate,
    /// Makes the start of its epoch durable.
    Beginning,
    /// Serves.
    Primary,
    /// Hands over.
    HandingOver,
    /// Brings everything into the image.
    Stopping,
    /// Has stopped.
    Stopped,
    /// A part of it failed.
    Failed,
    /// A standby whose applied history parted from the primary's.
    Diverged,
}

/// One move, and when it is made.
#[derive(Clone, Copy, Debug)]
pub struct Move<S> {
    /// From.
    pub from: S,
    /// To.
    pub to: S,
    /// When, in a few words.
    pub when: &'static str,
}

const fn step<S>(from: S, to: S, when: &'static str) -> Move<S> {
    Move { from, to, when }
}

/// Every move of a member.
pub const MEMBER_MOVES: &[Move<Place>] = {
    use Place::{
        Beginning, Candidate, Diverged, Failed, HandingOver, Primary, Standby, StartGate, Starting,
        Stopped, Stopping,
    };
    &[
        step(Starting, Standby, "its superblock says standby"),
        step(Starting, StartGate, "its superblock says primary"),
        step(Starting, Failed, "its superblock cannot be written"),
        step(StartGate, Candidate, "everybody is heard, or an operator's word"),
        step(StartGate, Standby, "another leads"),
        step(StartGate, Stopping, "an operator stops it"),
        step(StartGate, Failed, "a disk fails"),
        step(Standby, Candidate, "it was handed the resource, or takes over by force"),
        step(Standby, StartGate, "the record says that it owns the resource"),
        step(Standby, Diverged, "it has applied what the primary's history does not have"),
        step(Standby, Stopping, "an operator stops it"),
        step(Standby, Failed, "a disk fails"),
        step(Diverged, Standby, "it meets a primary whose history it has"),
        step(Diverged, Candidate, "it takes over by force"),
        step(Diverged, StartGate, "the record says that it owns the resource"),
        step(Diverged, Stopping, "an operator stops it"),
        step(Diverged, Failed, "a disk fails"),
        step(Candidate, Beginning, "every promise and the latest log are here"),
        step(Candidate, Candidate, "somebody promised a higher epoch: again, above it"),
        step(Candidate, Standby, "it is given up"),
        step(Candidate, Stopping, "an operator stops it"),
        step(Candidate, Failed, "a disk fails"),
        step(Beginning, Primary, "the epoch and its ownership are durable"),
        step(Beginning, Standby, "another epoch overtook it"),
        step(Beginning, Stopping, "an operator stops it"),
        step(Beginning, Failed, "a disk fails"),
        step(Primary, HandingOver, "a standby asks to take over"),
        step(Primary, Standby, "a higher epoch exists"),
        step(Primary, Candidate, "a higher epoch was promised and nobody owns it"),
        step(Primary, Stopping, "an operator stops it"),
        step(Primary, Failed, "a disk fails"),
        step(HandingOver, Standby, "the handover is recorded, or a higher epoch exists"),
        step(HandingOver, Primary, "the handover is given up"),
        step(HandingOver, Stopping, "an operator stops it"),
        step(HandingOver, Failed, "a disk fails"),
        step(Stopping, Stopped, "everything is in the image"),
        step(Stopping, Failed, "a disk fails"),
        step(Failed, Stopped, "an operator stops it"),
    ]
};

/// Every move of a standby in its own eyes.
pub const OWN_MOVES: &[Move<StandbyState>] = {
    use StandbyState::{
        DisconnectedPeer, LocalCatchup, Peer, RemoteCatchup, RemoteCatchupPending, Resync,
    };
    &[
        step(LocalCatchup, RemoteCatchupPending, "its own log is replayed"),
        step(RemoteCatchupPending, RemoteCatchup, "it follows a primary"),
        step(RemoteCatchup, Peer, "its primary says so"),
        step(RemoteCatchup, RemoteCatchupPending, "its session ends"),
        step(Peer, RemoteCatchup, "the mode changes, or it is too slow"),
        step(Peer, RemoteCatchupPending, "its session ends, and it can prove nothing"),
        step(Peer, DisconnectedPeer, "its session ends, and it can prove that answers are held"),
        step(DisconnectedPeer, RemoteCatchupPending, "its proof ends, or the two meet again"),
        step(DisconnectedPeer, Resync, "it is told to rejoin another primary"),
        step(RemoteCatchupPending, Resync, "the log alone cannot bring it up"),
        step(RemoteCatchup, Resync, "the primary's log no longer reaches back to it"),
        step(Resync, RemoteCatchupPending, "it has landed, or its session ends"),
    ]
};

/// Every move of a standby in the eyes of its primary.
pub const STANDBY_MOVES: &[Move<StandbyState>] = {
    use StandbyState::{DisconnectedPeer, Peer, RemoteCatchup, RemoteCatchupPending, Resync};
    &[
        step(RemoteCatchupPending, RemoteCatchup, "it joins"),
        step(RemoteCatchupPending, Peer, "it joins and lacks nothing, in async"),
        step(RemoteCatchup, Peer, "it has caught up and is recorded"),
        step(RemoteCatchup, RemoteCatchupPending, "its session ends, out of the set"),
        step(RemoteCatchup, DisconnectedPeer, "its session ends, in the set"),
        step(Peer, RemoteCatchup, "the mode changes, or it is too slow"),
        step(Peer, RemoteCatchupPending, "it stops in order, or nothing depends on it"),
        step(Peer, DisconnectedPeer, "its session ends, in the set"),
        step(DisconnectedPeer, RemoteCatchupPending, "the peer window ends, or it comes back new"),
        step(DisconnectedPeer, RemoteCatchup, "it joins again within the window"),
        step(RemoteCatchupPending, Resync, "the log alone cannot bring it up"),
        step(DisconnectedPeer, Resync, "it is back, and the log cannot bring it up"),
        step(Resync, RemoteCatchupPending, "everything was sent, or its session ends"),
        step(Resync, DisconnectedPeer, "its session ends, in the set"),
    ]
};

/// Which moves were made, and how often.
#[derive(Clone, Debug, Default)]
pub struct Made {
    member: BTreeMap<(Place, Place), u64>,
    standby: BTreeMap<(StandbyState, StandbyState), u64>,
    own: BTreeMap<(StandbyState, StandbyState), u64>,
    /// What is in no table; the first is enough.
    illegal: Option<String>,
}

impl Made {
    /// Adds what another has seen.
    pub fn merge(&mut self, other: &Self) {
        for (made, count) in &other.member {
            *self.member.entry(*made).or_default() += count;
        }
        for (made, count) in &other.standby {
            *self.standby.entry(*made).or_default() += count;
        }
        for (made, count) in &other.own {
            *self.own.entry(*made).or_default() += count;
        }
        self.illegal = self.illegal.take().or_else(|| other.illegal.clone());
    }

    /// A move that no table has, if one was made.
    #[must_use]
    pub fn illegal(&self) -> Option<&str> {
        self.illegal.as_deref()
    }

    fn note_member(&mut self, from: Place, to: Place) {
        *self.member.entry((from, to)).or_default() += 1;
        if !MEMBER_MOVES.iter().any(|legal| legal.from == from && legal.to == to) {
            self.illegal.get_or_insert(format!("{from:?} -> {to:?} is no legal move"));
            debug_assert!(false, "{:?}", self.illegal);
        }
    }

    fn note_standby(&mut self, from: StandbyState, to: StandbyState) {
        *self.standby.entry((from, to)).or_default() += 1;
        if !STANDBY_MOVES.iter().any(|legal| legal.from == from && legal.to == to) {
            self.illegal.get_or_insert(format!("{from:?} -> {to:?} is no legal move of a standby"));
            debug_assert!(false, "{:?}", self.illegal);
        }
    }

    /// What a standby thinks of itself is what it is told, and a changed recording may tell it
    /// anything: this is noted for the tests, and asserted by them.
    fn note_own(&mut self, from: StandbyState, to: StandbyState) {
        *self.own.entry((from, to)).or_default() += 1;
        if !OWN_MOVES.iter().any(|legal| legal.from == from && legal.to == to) {
            self.illegal.get_or_insert(format!("{from:?} -> {to:?} is no legal move of its own"));
        }
    }

    /// How many moves of the tables were made, and how many there are.
    #[must_use]
    pub fn covered(&self) -> (usize, usize) {
        let all = MEMBER_MOVES.len() + STANDBY_MOVES.len() + OWN_MOVES.len();
        (all - self.missing().len(), all)
    }

    /// The moves that were not made, in words.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let mut missing = unseen("member", MEMBER_MOVES, &self.member);
        missing.extend(unseen("standby of a primary", STANDBY_MOVES, &self.standby));
        missing.extend(unseen("standby", OWN_MOVES, &self.own));
        missing
    }
}

fn unseen<S: Copy + Ord + fmt::Debug>(
    who: &str,
    moves: &[Move<S>],
    seen: &BTreeMap<(S, S), u64>,
) -> Vec<String> {
    let unseen = moves.iter().filter(|made| !seen.contains_key(&(made.from, made.to)));
    unseen.map(|made| format!("{who}: {:?} -> {:?}: {}", made.from, made.to, made.when)).collect()
}

/// The tables as a state diagram in Mermaid's language, for the documents.
#[must_use]
pub fn picture() -> String {
    let mut lines = vec!["stateDiagram-v2".to_string(), "  state \"member\" as M {".to_string()];
    lines.extend(MEMBER_MOVES.iter().map(|made| line("", made)));
    lines.extend(["  }".to_string(), "  state \"standby, as its primary sees it\" as S {".into()]);
    lines.extend(STANDBY_MOVES.iter().map(|made| line("", made)));
    // A state has one place in a picture: those of the second view have names of their own.
    lines.extend(["  }".to_string(), "  state \"standby, as it sees itself\" as O {".into()]);
    lines.extend(OWN_MOVES.iter().map(|made| line("Own", made)));
    lines.push("  }".to_string());
    lines.join("\n") + "\n"
}

fn line<S: fmt::Debug>(mark: &str, made: &Move<S>) -> String {
    format!("    {mark}{:?} --> {mark}{:?}: {}", made.from, made.to, made.when)
}

impl Part {
    fn place(&self) -> Place {
        match self {
            Self::Waking(_) => Place::Starting,
            Self::Standby(_) => Place::Standby,
            Self::Gate => Place::StartGate,
            Self::Candidate(_) => Place::Candidate,
            Self::Beginning(_) => Place::Beginning,
            Self::Leading => Place::Primary,
            Self::Releasing(_) => Place::HandingOver,
            Self::Unfit(_) => Place::Failed,
            Self::Stopping(_) => Place::Stopping,
            Self::Stopped => Place::Stopped,
        }
    }
}

impl Node {
    /// Which moves this node has made in this life.
    #[must_use]
    pub fn moves(&self) -> &Made {
        &self.made
    }

    /// The one way from one part to another.
    pub(super) fn go(&mut self, part: Part) {
        let from = self.place();
        self.standing = part;
        // What stays what it is has made no move; a candidate that stands higher has.
        if from == Place::Candidate && self.place() == Place::Candidate {
            self.made.note_member(from, from);
        }
        self.moved_from(from);
    }

    /// Where it stands, as people see it.
    pub(super) fn place(&self) -> Place {
        match self.standing.place() {
            Place::Standby if self.follow.diverged.is_some() => Place::Diverged,
            place => place,
        }
    }

    /// Takes note of a move, where one was made.
    pub(super) fn moved_from(&mut self, from: Place) {
        let to = self.place();
        if from != to {
            self.made.note_member(from, to);
        }
    }

    /// The state of a standby, where this member leads.
    pub(super) fn standby_state(&self, peer: &Peer) -> Option<StandbyState> {
        let leads = matches!(self.standing, Part::Leading | Part::Releasing(_));
        leads.then(|| match (peer.feed().map(|feed| feed.entry), peer.lost_at) {
            (Some(Entry::Peer), _) => StandbyState::Peer,
            (Some(_), _) => StandbyState::RemoteCatchup,
            _ if peer.is_sourced() => StandbyState::Resync,
            (None, Some(_)) => StandbyState::DisconnectedPeer,
            (None, None) => StandbyState::RemoteCatchupPending,
        })
    }

    /// Takes note of what became of the standbys.
    pub(super) fn settle_moves(&mut self) {
        let seen: Vec<_> = self
            .peers
            .values()
            .map(|peer| (peer.member, peer.shown, self.standby_state(peer)))
            .filter(|(_, before, now)| before != now)
            .collect();
        for (member, before, now) in seen {
            self.standby_moved(member, before, now);
        }
        let own = self.shows_own_state().then(|| self.own_state());
        let before = std::mem::replace(&mut self.shown, own);
        if let (Some(from), Some(to)) = (before, own)
            && from != to
        {
            self.made.note_own(from, to);
        }
    }

    fn standby_moved(
        &mut self,
        member: MemberId,
        before: Option<StandbyState>,
        now: Option<StandbyState>,
    ) {
        if let (Some(from), Some(to)) = (before, now) {
            self.made.note_standby(from, to);
        }
        if let Some(peer) = self.peers.get_mut(&member) {
            peer.shown = now;
        }
    }
}

//! Every interleaving of a small cluster, up to a stated number of moves.
//!
//! Where the simulator draws, this tries everything: from a pair (or three) that has just come
//! together, each message that may arrive, each write that may become durable, each host that may
//! die, each command that may be given, in every order. The cores are the real ones; journal,
//! superblock and network are as small as they can be. A state that was seen before with as many
//! moves left is not looked at again.
//!
//! Moves from outside are rationed ([`Ration`]), so that the orders of what follows from them can
//! be tried out to a useful depth. The truths (`truth`) are I1 to I5, I7 and I8 of design §11.

mod actions;
mod cluster;
pub mod markers;
mod moves;
pub mod settings;
mod truth;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use hadrian_protocol::node::Command;
use hadrian_protocol::replica::Mode;

use cluster::Cluster;
pub use moves::Move;

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name, for people.
    pub name: &'static str,
    /// Members with a replica.
    pub members: u8,
    /// The mode.
    pub mode: Mode,
    /// A control record decides about owner and set.
    pub record: bool,
    /// A primary never goes on alone by itself.
    pub hold: bool,
    /// Everything that is under way on a connection arrives together: fewer orders, more moves.
    pub batches: bool,
    /// How many moves are looked ahead in an ordinary test run.
    pub depth: u8,
    /// Of what happens by itself, one thing is next in turn: a message before a disk, the lower
    /// member before the higher. So often something else may come first; `None`: always. With few
    /// detours a story can be followed to its very end, whatever comes from outside at any moment.
    pub detours: Option<u8>,
    /// What operators ask, of any member.
    pub commands: &'static [Command],
    /// How often what happens from outside.
    pub ration: Ration,
}

/// How often something happens from outside, at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ration {
    /// Writes of clients, each with a flush behind it.
    pub writes: u8,
    /// Ends of a process.
    pub kills: u8,
    /// Losses of a host's power.
    pub powers: u8,
    /// Connections that break.
    pub cuts: u8,
    /// Commands of operators.
    pub commands: u8,
    /// Stretches of time that are longer than every timer.
    pub waits: u8,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// Moves that were tried.
    pub moves: u64,
    /// Epochs in which somebody served, in the story that had most of them: takeovers do happen.
    pub epochs: usize,
    /// The first broken truth, and the moves that led to it.
    pub broken: Option<(String, Vec<Move>)>,
}

/// Tries everything that can happen within `depth` moves.
#[must_use]
pub fn explore(setting: &Setting, depth: u8) -> Explored {
    let mut search = Search { seen: HashMap::new(), path: Vec::new(), found: Explored::default() };
    search.visit(&Cluster::together(setting), depth, setting.detours);
    search.found.states = search.seen.len();
    search.found
}

/// What happens along a path, in words: each move, what it brings, and who stands how after it.
#[must_use]
pub fn tell(setting: &Setting, path: &[Move]) -> Vec<String> {
    let mut cluster = Cluster::together(setting);
    let mut story = Vec::new();
    for next in path {
        let brings = cluster.brings(*next);
        cluster.make(*next);
        story.push(format!("{next:?} {brings} -> {}", cluster.standings()));
    }
    story
}

struct Search {
    /// Each state with the detours left, and the most moves that were left when it was looked at.
    seen: HashMap<(u128, Option<u8>), u8>,
    path: Vec<Move>,
    found: Explored,
}

impl Search {
    fn visit(&mut self, cluster: &Cluster, left: u8, detours: Option<u8>) {
        if !self.is_new(cluster, left, detours) || left == 0 {
            return;
        }
        let moves = cluster.moves();
        let in_turn = moves.iter().position(|next| next.is_by_itself());
        for (place, next) in moves.into_iter().enumerate() {
            let is_detour = next.is_by_itself() && Some(place) != in_turn;
            let Some(detours) = after_detour(detours, is_detour) else { continue };
            self.try_out(cluster, next, left, detours);
            if self.found.broken.is_some() {
                return;
            }
        }
    }

    fn try_out(&mut self, cluster: &Cluster, next: Move, left: u8, detours: Option<u8>) {
        let mut after = cluster.clone();
        after.make(next);
        self.found.moves += 1;
        self.found.epochs = self.found.epochs.max(after.truth.epochs());
        self.path.push(next);
        match after.broken() {
            Some(broken) => self.found.broken = Some((broken.to_owned(), self.path.clone())),
            None => self.visit(&after, left - 1, detours),
        }
        self.path.pop();
    }

    fn is_new(&mut self, cluster: &Cluster, left: u8, detours: Option<u8>) -> bool {
        match self.seen.entry((cluster.fingerprint(), detours)) {
            Entry::Vacant(entry) => {
                entry.insert(left);
                true
            }
            Entry::Occupied(mut entry) if *entry.get() < left => {
                entry.insert(left);
                true
            }
            Entry::Occupied(_) => false,
        }
    }
}

/// What is left of the detours after a move; `None`: the move cannot be made any more.
fn after_detour(detours: Option<u8>, is_detour: bool) -> Option<Option<u8>> {
    match detours {
        Some(left) if is_detour => left.checked_sub(1).map(Some),
        any => Some(any),
    }
}

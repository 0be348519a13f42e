//! Clients: each sends one request after the other to whoever serves, and goes elsewhere when it
//! is cut off. A change whose answer it has not seen it sends again, where there is somebody.

use std::collections::VecDeque;

use rand::Rng;
use rand::rngs::SmallRng;

use crate::host::{Ask, Change};

/// Blocks of a page. Changes of whole pages are large ones, which may wait in the log.
const PAGE: u64 = 8;
/// Changes of all clients that wait to be sent again.
const UNKNOWN_MAX: usize = 16;

/// All clients of a run share their numbers, so that no two changes write the same content.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    next_number: u64,
    next_id: u64,
    /// Half of their changes are of whole pages.
    write_pages: bool,
    /// Changes that a client does not know the fate of.
    unknown: VecDeque<(usize, Ask)>,
}

impl Clients {
    pub(crate) fn new(write_pages: bool) -> Self {
        Self { write_pages, ..Self::default() }
    }

    pub(crate) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A client has lost its connection before the answer came. It sends a change again; what it
    /// only asked for, it may never want to know any more.
    pub(crate) fn never_knew(&mut self, client: usize, ask: Ask) {
        if matches!(ask, Ask::Write { .. }) && self.unknown.len() < UNKNOWN_MAX {
            self.unknown.push_back((client, ask));
        }
    }

    /// What a client sends again.
    pub(crate) fn again(&mut self, client: usize) -> Option<Ask> {
        let place = self.unknown.iter().position(|(of, _)| *of == client)?;
        self.unknown.remove(place).map(|(_, ask)| ask)
    }

    /// The next request of a client, of a volume of so many blocks.
    pub(crate) fn draw(&mut self, rng: &mut SmallRng, blocks: u64) -> Ask {
        match rng.random_range(0..10) {
            0..=5 => {
                let fua = rng.random_bool(0.1);
                let changes = if self.write_pages && rng.random_bool(0.5) {
                    vec![self.pages(rng, blocks)]
                } else {
                    (0..rng.random_range(1..=3)).map(|_| self.change(rng, blocks)).collect()
                };
                Ask::Write { changes, fua }
            }
            6 | 7 => Ask::Flush,
            _ => {
                let (block, count) = place(rng, blocks);
                Ask::Read { block, count }
            }
        }
    }

    fn change(&mut self, rng: &mut SmallRng, blocks: u64) -> Change {
        let (block, count) = place(rng, blocks);
        self.next_number += 1;
        let number = if rng.random_bool(0.15) { 0 } else { self.next_number };
        Change { block, count, number }
    }

    fn pages(&mut self, rng: &mut SmallRng, blocks: u64) -> Change {
        let (first, count) = (rng.random_range(0..blocks / PAGE - 1), rng.random_range(1..=2));
        self.next_number += 1;
        Change { block: first * PAGE, count: count * PAGE, number: self.next_number }
    }
}

/// Most requests go to a few blocks, so that they meet each other.
fn place(rng: &mut SmallRng, blocks: u64) -> (u64, u64) {
    let count = rng.random_range(1..=8);
    let most = if rng.random_bool(0.5) { 16 } else { blocks };
    (rng.random_range(0..=most - count), count)
}

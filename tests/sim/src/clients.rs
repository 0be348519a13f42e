//! Clients: each sends one request after the other to whoever serves, and goes elsewhere when it
//! is cut off.

use rand::Rng;
use rand::rngs::SmallRng;

use crate::host::{Ask, BLOCKS, Change};

/// All clients of a run share their numbers, so that no content is ever written twice.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    next_number: u64,
    next_id: u64,
}

impl Clients {
    pub(crate) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// The next request of a client.
    pub(crate) fn draw(&mut self, rng: &mut SmallRng) -> Ask {
        match rng.random_range(0..10) {
            0..=5 => {
                let fua = rng.random_bool(0.1);
                let changes = (0..rng.random_range(1..=3)).map(|_| self.change(rng)).collect();
                Ask::Write { changes, fua }
            }
            6 | 7 => Ask::Flush,
            _ => {
                let (block, count) = place(rng);
                Ask::Read { block, count }
            }
        }
    }

    fn change(&mut self, rng: &mut SmallRng) -> Change {
        let (block, count) = place(rng);
        self.next_number += 1;
        let number = if rng.random_bool(0.15) { 0 } else { self.next_number };
        Change { block, count, number }
    }
}

/// Most requests go to a few blocks, so that they meet each other.
fn place(rng: &mut SmallRng) -> (u64, u64) {
    let count = rng.random_range(1..=8);
    let most = if rng.random_bool(0.5) { 16 } else { BLOCKS };
    (rng.random_range(0..=most - count), count)
}

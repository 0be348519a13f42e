//! What clients do.

use rand::Rng;

use super::{Act, Due, OUTSTANDING_MAX, Waiting, World};
use crate::host::Ask;
use crate::plan::Host as Index;
use crate::{MS, NAMES};

impl World<'_> {
    pub(super) fn client(&mut self, client: usize) {
        if self.act == Act::Stopping {
            return;
        }
        let waiting = self.outstanding.values().filter(|other| other.client == client).count();
        let serving: Vec<Index> = (0..self.plan.members)
            .filter(|index| self.hosts[usize::from(*index)].serves())
            .collect();
        let paused = |index: &Index| self.hosts[usize::from(*index)].paused_until > self.now;
        let mut pause = self.plan.pace;
        if waiting < OUTSTANDING_MAX && !serving.is_empty() {
            let index = serving[self.rng.random_range(0..serving.len())];
            if paused(&index) && self.plan.marks.is_some() {
                self.ask_late(client, index);
            } else if paused(&index) {
                pause = 5 * MS;
            } else {
                self.ask(client, index);
            }
        }
        let pause = self.rng.random_range(pause / 4..pause * 2);
        self.after(pause, Due::Client(client));
    }

    pub(super) fn ask(&mut self, client: usize, index: Index) {
        let id = self.draw(client, index);
        self.asked(id, index);
    }

    /// The process stands still, and its socket does not.
    fn ask_late(&mut self, client: usize, index: Index) {
        let id = self.draw(client, index);
        self.after(MS, Due::Asked(id, index));
    }

    pub(super) fn asked_late(&mut self, id: u64, index: Index) {
        let waits = self.outstanding.get(&id).is_some_and(|waiting| waiting.at == index);
        if waits {
            self.asked(id, index);
        }
    }

    fn draw(&mut self, client: usize, index: Index) -> u64 {
        let id = self.clients.next_id();
        let again = self.clients.again(client);
        let blocks = self.hosts[usize::from(index)].blocks();
        let ask = again.unwrap_or_else(|| self.clients.draw(&mut self.rng, blocks));
        self.oracle.client_asks(id, ask.clone());
        self.outstanding.insert(id, Waiting { client, at: index, ask });
        id
    }

    fn asked(&mut self, id: u64, index: Index) {
        let Some(Waiting { client, ask, .. }) = self.outstanding.get(&id) else { return };
        let (client, ask, now) = (*client, ask.clone(), self.now);
        let taken = self.hosts[usize::from(index)].ask(now, id, &ask, &mut self.oracle);
        let name = NAMES[usize::from(index)];
        let facts = [u64::from(index), id, u64::from(taken)];
        self.story.note("ask", &facts, || {
            let words = describe(&ask);
            format!("client {client} asks {name}, request {id}: {words}; taken: {taken}")
        });
        if !taken {
            self.outstanding.remove(&id);
        }
        self.look(index);
        self.outward(index);
    }
}

fn describe(ask: &Ask) -> String {
    match ask {
        Ask::Write { changes, fua } => {
            let words = changes
                .iter()
                .map(|change| format!("{}+{} := {}", change.block, change.count, change.number));
            let words: Vec<_> = words.collect();
            format!("write {}{}", words.join(", "), if *fua { " FUA" } else { "" })
        }
        Ask::Flush => "flush".into(),
        Ask::Read { block, count } => format!("read {block}+{count}"),
    }
}

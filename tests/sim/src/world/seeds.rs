//! Copies that are carried by hand: who exports one, and who is made of it.

use hadrian_protocol::ids::{MemberId, SessionId};
use hadrian_protocol::node::Command;

use super::World;
use crate::NAMES;
use crate::host::Seed;
use crate::plan::Host as Index;

impl World<'_> {
    /// An operator wants the image of a member in a file.
    pub(super) fn export(&mut self, index: Index, absent: Option<Index>) {
        let session = SessionId::new(self.next_session);
        let now = self.now;
        let host = self.host(index);
        if host.paused_until > now || !host.begin_export(session) {
            return;
        }
        self.next_session += 1;
        let absent = absent.and_then(MemberId::new);
        self.command(index, Command::Seed { session, absent });
    }

    /// A file is whole: it can be carried to any host, as often as anybody likes.
    pub(super) fn exported(&mut self, index: Index, seed: Box<Seed>) {
        let at = seed.state.checkpoint.lsn;
        self.story.tell("seed", &[u64::from(index), at.get()], || {
            format!("{} has exported its image as of {at}", NAMES[usize::from(index)])
        });
        self.carried = Some(*seed);
    }

    /// A member's disk is replaced by an empty one, and its replica made of the seed that was
    /// carried last. With `cut_at` the power goes meanwhile; then it is done again, or, at every
    /// other change, what was begun is left to the daemon. Nobody does any of this unless another
    /// member serves: the last one that has all data is not thrown away.
    pub(super) fn import(&mut self, index: Index, cut_at: Option<u64>) {
        let is_last = (0..self.plan.members)
            .all(|other| other == index || !self.hosts[usize::from(other)].serves());
        let host = &mut self.hosts[usize::from(index)];
        let Some(seed) = self.carried.as_ref().filter(|_| !is_last && !host.runs()) else { return };
        let member = host.member;
        host.empty();
        self.oracle.made_anew(member);
        host.import(seed, cut_at);
        let goes_on = cut_at.is_some_and(|change| change % 2 == 1);
        if !goes_on || host.replica_state().is_none() {
            host.import(seed, None);
        }
        let state = host.replica_state();
        let whole = state.is_some_and(|state| !hadrian_blockdev::replica::is_begun(&state));
        if whole {
            self.oracle.imported(member, seed.state.checkpoint);
        }
        self.story.tell("import", &[u64::from(index), u64::from(whole)], || {
            let how = if whole { "made of the seed" } else { "begun, and not filled" };
            format!("the replica of {} is {how}", NAMES[usize::from(index)])
        });
    }
}

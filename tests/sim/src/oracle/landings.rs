//! Standbys that go over to a landing: a point of their primary's history that they were not led to
//! by their own log (design §8).

use hadrian_protocol::frame::{ChainHash, LogPosition};
use hadrian_protocol::ids::{Lsn, MemberId};

use super::Oracle;

impl Oracle {
    /// The superblock of a member says that it is at `at` now. What it leaves behind of its own was
    /// `saved` before (I6); where that is not known, it was looked at when the superblock was
    /// written.
    pub(super) fn lands(&mut self, member: MemberId, at: LogPosition, saved: Option<&[Vec<u8>]>) {
        // Whoever leads has sent it, or somebody who led and was lost meanwhile.
        let leaders = self.members.iter().filter(|witness| witness.leads);
        let everybody = leaders.chain(&self.members).chain(&self.replaced);
        let led = everybody.map(|witness| &witness.path).find(|path| path.holds(at));
        let Some(mut path) = led.cloned() else {
            return self.broken("I5", format!("{member} lands at {at:?}, which nobody ever had"));
        };
        let left = self.see(member).path.apart_from(&path);
        path.cut(at);
        for chain in left {
            self.is_saved(member, chain, saved);
        }
        let witness = self.of(member);
        witness.path = path;
        (witness.written, witness.durable, witness.applied) = (at.lsn, at.lsn, at.lsn);
        (witness.strayed, witness.forgot) = (false, false);
        witness.released = at.lsn;
    }

    /// The superblock of a member says that it is at a point of its own past now.
    pub(super) fn goes_back(&mut self, member: MemberId, at: LogPosition, saved: &[Vec<u8>]) {
        let witness = self.of(member);
        let left = witness.path.cut(at);
        for chain in left {
            self.is_saved(member, chain, Some(saved));
        }
        let witness = self.of(member);
        (witness.written, witness.durable, witness.applied) = (at.lsn, at.lsn, at.lsn);
        witness.released = at.lsn;
    }

    fn is_saved(&mut self, member: MemberId, chain: ChainHash, saved: Option<&[Vec<u8>]>) {
        let (Some(saved), Some(frame)) = (saved, self.ledger.frame(chain)) else { return };
        let ((head, _), lsn) = (frame.wire_parts(), frame.lsn());
        let kept = saved
            .iter()
            .any(|file| file.windows(head.len()).step_by(512).any(|window| window == &head[..]));
        // What nobody needed any more had left the log before anybody knew of a fork.
        let kept = kept || lsn < self.see(member).released;
        let sizes: Vec<_> = saved.iter().map(Vec::len).collect();
        self.demand(kept, "I6", || {
            format!("{member} leaves its frame at {lsn} behind, unsaved in files of {sizes:?}")
        });
    }

    /// A member needs nothing of its log before here any more.
    pub(crate) fn releases(&mut self, member: MemberId, lsn: Lsn) {
        let witness = self.of(member);
        witness.released = witness.released.max(lsn);
    }

    /// A primary begins to compare a piece: its own image is where it was asked to be.
    pub(crate) fn compares(&mut self, member: MemberId, asked: Lsn) {
        let applied = self.see(member).applied;
        self.demand(asked <= applied, "§8.4", || {
            format!("{member} compares an image that is at {applied}, on its way to {asked}")
        });
    }

    /// Its image is that of the landing.
    pub(crate) fn switched(&mut self, member: MemberId, at: LogPosition, image: &[u8]) {
        let differs = self.ledger.differs(&self.see(member).path, at.lsn, image);
        self.demand(differs.is_none(), "I5", || {
            format!("{member} has landed at {}, but block {differs:?} of its image differs", at.lsn)
        });
    }
}

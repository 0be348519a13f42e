//! A primary that hears of a higher epoch that nobody owns yet (design §6.0).

use super::lead::Wish;
use super::{Action, Node, Part};
use crate::frame::Began;
use crate::ids::Epoch;

impl Node {
    /// A standby has promised a higher epoch. Whoever wants it may be about to own it, and would
    /// overtake a re-stamp again, and so on: so it is given time first, each member another.
    pub(super) fn overtaken_by(&mut self, promised: Epoch) {
        let turn = u32::from(self.state.member.index()) + 1;
        let at = self.clock.now.after(self.config.heartbeat() * turn);
        let known = self.overtaken.map_or(at, |(_, at)| at);
        self.overtaken = Some((promised, known));
    }

    pub(super) fn settle_overtaken(&mut self) {
        let due = self.overtaken.filter(|(_, at)| *at <= self.clock.now);
        if let (Part::Leading, Some((promised, _))) = (&self.standing, due) {
            self.restamp(promised);
        }
    }

    /// A standby has promised a higher epoch that nobody owns: the primary begins a higher one
    /// still, holding its clients meanwhile (design §6.0; holes, story 2).
    fn restamp(&mut self, promised: Epoch) {
        self.overtaken = None;
        self.stop_feeding();
        self.out.push_back(Action::Hold(true));
        self.state.promised = self.state.promised.max(promised);
        let need = self.connected();
        let (by_proof, over, command) = (false, None, None);
        let wish = Wish { began: Began::Restart, force: true, by_proof, over, need, command };
        self.stand(self.next_epoch(), wish);
    }
}

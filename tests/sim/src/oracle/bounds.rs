//! What can be seen of a member at any time: its watermarks, how much it holds, and how long its
//! clients wait (I9, I10, design §3).

use hadrian_protocol::ids::MemberId;
use hadrian_protocol::node::{Node, Standing};

use super::Oracle;
use crate::{Micros, SECOND};

/// What everything beside the window may take: the log's syncs, the record of the smaller set.
const SLACK: Micros = SECOND;

impl Oracle {
    /// After every step of a member.
    pub(crate) fn look(&mut self, member: MemberId, node: &Node) {
        let marks = node.watermarks();
        let sane = marks.is_sorted_by(|a, b| a >= b);
        self.demand(sane, "I9", || format!("{member} shows {marks:?}"));
        let excess = node.excess();
        self.demand(excess.is_none(), "I10", || format!("{member} holds too much: {excess:?}"));
        self.waits_no_longer(member, node);
    }

    /// What a person sees, now and then.
    pub(crate) fn look_closely(&mut self, member: MemberId, node: &Node) {
        let status = node.status();
        let order = [status.end, status.written, status.durable, status.applied];
        let sane = order.is_sorted_by(|a, b| a >= b) && status.applied >= status.checkpointed;
        self.demand(sane, "I9", || format!("{member} shows {status:?}"));
        let diverged = matches!(status.standing, Standing::Diverged(_));
        let forgot = self.members.iter().any(|witness| witness.forgot);
        let lost_alone =
            diverged && !forgot && !self.was_forced() && !self.went_on_without_hearing();
        self.demand(!lost_alone, "§2.5", || format!("{member} diverged though nobody used force"));
    }

    /// A member hears from another: that one is not lost.
    pub(crate) fn hears(&mut self, member: MemberId, from: MemberId) {
        let now = self.now;
        let heard = &mut self.of(member).heard;
        heard.insert(from, now);
    }

    /// A member, or its disk, does nothing until then.
    pub(crate) fn stalls(&mut self, member: MemberId, until: Micros) {
        let witness = self.of(member);
        witness.stalled = witness.stalled.max(until);
    }

    /// Nothing waits longer for a lost standby than its silence and the window (design §3). While
    /// one that counts is heard there is no such bound, nor where an operator or the record must
    /// agree first.
    fn waits_no_longer(&mut self, member: MemberId, node: &Node) {
        let now = self.now;
        if !node.is_leading() || self.asks_first {
            self.of(member).stalled = self.see(member).stalled.max(now);
            return;
        }
        let Some(oldest) = self.waits_since(member) else { return };
        let witness = self.see(member);
        let heard = witness.heard.values().copied().max().unwrap_or_default();
        let since = oldest.max(heard).max(witness.stalled);
        let waits = now.saturating_sub(since);
        let bound = self.silence_and_window + SLACK;
        self.demand(waits <= bound, "§3", || {
            format!("an answer of {member} waits {waits} us for nobody; the bound is {bound}")
        });
    }
}

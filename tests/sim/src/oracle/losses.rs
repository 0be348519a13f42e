//! What may be lost, and how much of it was shown before (design §3, I3).

use hadrian_protocol::frame::Began;
use hadrian_protocol::ids::{Epoch, Lsn, MemberId};
use hadrian_protocol::node::{Loss, Node};

use super::Oracle;
use super::answers::Kept;
use super::ledger::Path;
use crate::Micros;

/// Time after which a primary knows that a member has died: its silence, and a little.
const NOTICED: Micros = 2 * crate::SECOND;

/// What a primary showed last.
#[derive(Clone, Debug)]
pub(super) struct LastWords {
    epoch: Epoch,
    loss: Loss,
    path: Path,
    /// How often each member had died then, and since when it was alive.
    others: Vec<(u64, Micros)>,
    at: Micros,
}

impl Oracle {
    /// A process is about to end: what it would show now is what an operator has to go by.
    pub(crate) fn last_words(&mut self, member: MemberId, node: &Node) {
        let Some(loss) = node.status().loss else { return };
        let others = self.members.iter().map(|other| (other.deaths, other.born)).collect();
        let (epoch, at, path) = (node.state().owned, self.now, self.see(member).path.clone());
        self.of(member).last_words = Some(LastWords { epoch, loss, path, others, at });
    }

    /// Every write answered in an earlier epoch is in the history of whoever begins to serve.
    pub(super) fn nothing_is_lost(
        &mut self,
        member: MemberId,
        epoch: Epoch,
        began: Option<Began>,
        force: bool,
    ) {
        let (mut lost, mut newest) = (None, None);
        let forgetful: Vec<_> = self.members.iter().map(|witness| witness.forgot).collect();
        let path = self.members[usize::from(member.index())].path.clone();
        let losses: Vec<_> = self.members.iter().map(|witness| witness.power_losses).collect();
        let deaths: Vec<_> = self.members.iter().map(|witness| witness.deaths).collect();
        let earlier = |kept: &&mut Kept| !kept.excused && kept.epoch < epoch;
        for kept in self.answered.kept.iter_mut().filter(earlier) {
            if path.holds(kept.point) {
                continue;
            }
            kept.excused = true;
            self.answered.lost += 1;
            if newest.is_none_or(|(of, last, _)| (kept.epoch, kept.point.lsn) > (of, last)) {
                newest = Some((kept.epoch, kept.point.lsn, kept.by));
            }
            // A disk that has forgotten what it said was durable is a lost copy.
            let forgot = |member: &MemberId| forgetful[usize::from(member.index())];
            if forgot(&kept.by) || kept.set.iter().any(forgot) {
                continue;
            }
            let power_lost = |member: MemberId| {
                let index = usize::from(member.index());
                losses[index] > kept.power_losses[index]
            };
            // What a standby has received is in its memory only: the end of its process is enough.
            let died = |member: MemberId| {
                let index = usize::from(member.index());
                deaths[index] > kept.deaths[index]
            };
            // A volatile cache may forget what was not committed, if no other copy was promised,
            // or if everybody who had one has lost it too.
            let volatile = !kept.committed
                && power_lost(kept.by)
                && kept.set.iter().all(|member| died(*member));
            if !force && !volatile {
                lost = Some((kept.point.lsn, kept.by, kept.committed));
            }
        }
        if let Some((of, last, by)) = newest {
            self.loss_was_shown(member, by, of, last);
        }
        if let Some((lsn, by, committed)) = lost {
            let kind = if committed { "a committed write" } else { "an answered write" };
            self.broken(
                "I3",
                format!("{member} begins ({began:?}) without {kind}, at {lsn} by {by}"),
            );
        }
    }

    /// At most what the old primary had shown is lost by a takeover of its only standby, if that
    /// has not died since, nor so shortly before that nobody could know.
    fn loss_was_shown(&mut self, member: MemberId, by: MemberId, epoch: Epoch, last: Lsn) {
        let Some(words) = self.see(by).last_words.clone() else { return };
        let other = words.others.get(usize::from(member.index())).copied();
        let known = |(deaths, born): (u64, Micros)| {
            let settled = deaths == 0 || born + NOTICED <= words.at;
            settled && deaths == self.see(member).deaths
        };
        // Who goes back gives up more than a takeover would, and is told so.
        let back = self.see(member).went_back;
        if words.epoch != epoch || self.members.len() > 2 || back || !other.is_some_and(known) {
            return;
        }
        let common = words.path.common(&self.see(member).path);
        let lost = last.since(common);
        let shown = match words.loss {
            Loss::Nothing => 0,
            Loss::AtMost { bytes, .. } => bytes,
            Loss::Everything => return,
        };
        self.demand(lost <= shown, "I3", || {
            format!("{member} takes over from {by} without {lost} bytes, which had shown {shown}")
        });
    }
}

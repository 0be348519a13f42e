//! The log before a checkpoint (design §2.6): it is kept for the standbys that are known to lack
//! it, up to the retention. What goes beyond that is marked in their dirty maps first, so that a
//! standby that is away for a month costs a map, and comes back without a look at everything.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Action, Node, Note};
use crate::frame::LogPosition;
use crate::ids::{Lsn, MemberId};
use crate::resync::Span;

/// What the maps say, and what waits for them.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Retention {
    spans: BTreeMap<MemberId, Span>,
    /// Maps that are being written.
    folding: BTreeSet<MemberId>,
    /// Maps that could not be written since more of the log was wanted.
    given_up: BTreeSet<MemberId>,
    /// The log before this is needed by nobody, once the maps have it.
    wanted: Lsn,
}

impl Retention {
    pub(in super::super) fn new(maps: &[(MemberId, Span)]) -> Self {
        Self { spans: maps.iter().copied().collect(), ..Self::default() }
    }

    pub(super) fn span(&self, member: MemberId) -> Option<Span> {
        self.spans.get(&member).copied()
    }
}

impl Node {
    /// A member that was not heard yet in this life may lack anything. Whoever it is, the newest
    /// stretch of the log is kept, and what is older goes only when all have it in their images: a
    /// map that begins where an image is spares its member a comparison.
    pub(in super::super) fn checkpoint_recorded(&mut self, position: LogPosition) {
        let has = |member: &MemberId| {
            let kept = self.kept_by(*member).unwrap_or(Lsn::START);
            kept.min(self.applied_by(*member))
        };
        let lowest = self.peers.keys().map(has).fold(position.lsn, Lsn::min);
        let end = self.log.end().lsn.get();
        let stretch = Lsn::new(end.saturating_sub(self.config.retention_bytes));
        self.want_released(position.lsn.min(lowest.max(stretch)));
    }

    /// What the life before gave up with its last checkpoint is given up at the start and not only
    /// with the first checkpoint of this one: until then clients would wait for its room.
    pub(in super::super) fn release_again(&mut self) {
        let checkpoint = self.state.checkpoint.lsn.get();
        self.want_released(Lsn::new(checkpoint.saturating_sub(self.config.retention_bytes)));
    }

    fn want_released(&mut self, lsn: Lsn) {
        if lsn > self.retention.wanted {
            self.retention.wanted = lsn;
            self.retention.given_up.clear();
        }
    }

    /// The log goes when every map has what it needs of it.
    pub(in super::super) fn settle_release(&mut self) {
        let wanted = self.retention.wanted;
        if wanted <= self.log.start() {
            return;
        }
        if !self.leads_or_ends() {
            // Only a primary keeps maps. Those of an earlier time end where its log begins now.
            return self.release(wanted);
        }
        let members: Vec<_> = self.peers.keys().copied().collect();
        let mut waits = false;
        for member in members {
            waits |= self.fold_for(member, wanted);
        }
        if !waits {
            self.release(wanted);
        }
    }

    fn release(&mut self, lsn: Lsn) {
        self.log.released_to(lsn);
        self.out.push_back(Action::ReleaseLog(lsn));
    }

    /// Whether the map of a member has to be written first.
    fn fold_for(&mut self, peer: MemberId, wanted: Lsn) -> bool {
        if self.retention.folding.contains(&peer) {
            return true;
        }
        let (start, kept) = (self.log.start(), self.kept_by(peer));
        let span = self.retention.span(peer).filter(|span| span.to >= start);
        // A map begins where the image is, if it can: what waits in the member's log it would have
        // to fetch as well, and behind a start that it does not reach back to, everything.
        let beginning = |kept: Lsn, least: Lsn| match self.applied_by(peer) {
            applied if applied >= least => applied.min(kept),
            _ => kept,
        };
        let (from, to) = match (kept, span) {
            _ if self.retention.given_up.contains(&peer) => return false,
            (_, Some(span)) if span.to >= wanted => return false,
            // It has all of that: the map begins anew, empty, where a frame ends.
            (Some(kept), _) if kept >= wanted => (None, beginning(kept, wanted)),
            (_, Some(span)) => (Some(span.to), wanted),
            (Some(kept), None) if kept >= start => (None, beginning(kept, start)),
            // Nobody knows what it has: everything will be compared.
            _ => return false,
        };
        self.retention.folding.insert(peer);
        self.out.push_back(Action::Fold { peer, from, to });
        true
    }

    /// A member will come with everything to here, and without what is behind: from here on that
    /// is noted for it, unless it is connected and says itself what it has.
    pub(super) fn kept_from(&mut self, member: MemberId, lsn: Lsn) {
        let Some(peer) = self.peers.get_mut(&member).filter(|peer| peer.feed().is_none()) else {
            return;
        };
        (peer.kept, peer.kept_applied) = (Some(lsn), lsn);
        if self.retention.folding.insert(member) {
            self.out.push_back(Action::Fold { peer: member, from: None, to: lsn });
        }
    }

    pub(in super::super) fn folded(&mut self, peer: MemberId, span: Option<Span>) {
        self.retention.folding.remove(&peer);
        match span {
            Some(span) => {
                self.retention.spans.insert(peer, span);
            }
            None => {
                self.retention.spans.remove(&peer);
                self.retention.given_up.insert(peer);
                self.out.push_back(Action::Note(Note::MapLost(peer)));
            }
        }
    }

    /// How far a member's image is known to be.
    fn applied_by(&self, member: MemberId) -> Lsn {
        let peer = self.peers.get(&member);
        let connected = peer.and_then(|peer| peer.feed().map(|feed| feed.applied));
        connected.or(peer.map(|peer| peer.kept_applied)).unwrap_or_default()
    }

    /// How far a member's own log is known to be durable.
    fn kept_by(&self, member: MemberId) -> Option<Lsn> {
        let peer = self.peers.get(&member)?;
        peer.feed().map(|feed| feed.durable).or(peer.kept)
    }
}

//! A primary's side of a resync.

use std::time::Duration;

use super::super::peer::Phase;
use super::super::{Action, Node, Note};
use crate::frame::LogPosition;
use crate::ids::{Lsn, MemberId, SessionId};
use crate::resync::{Scope, Way};
use crate::time::Now;
use crate::wire::{AskResync, Landed, Message, Refusal};

/// Longest that the image rests for the last of a resync.
pub(super) const REST_MAX: Duration = Duration::from_secs(30);

/// What a primary sends a standby beside the log.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Sourcing {
    pub(in super::super) way: Way,
    rest: Rest,
}

/// How near the end is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rest {
    /// Much is left; the image goes on.
    Far,
    /// Little is left: as soon as the image rests, that is sent.
    Wanted,
    /// It rests since then, and the last of it is on its way.
    Begun(Now),
}

impl Sourcing {
    pub(in super::super) fn wants_rest(&self) -> bool {
        self.rest != Rest::Far
    }
}

impl Node {
    pub(in super::super) fn on_ask_resync(
        &mut self,
        session: SessionId,
        member: MemberId,
        ask: AskResync,
    ) {
        if !self.is_leading() || ask.epoch != self.state.owned {
            return;
        }
        if self.sourcing_mut(session).is_some() {
            // A second source would wait for what the standby says once, and has said.
            return self.refuse(session, Refusal::Protocol);
        }
        let way = self.way_for(member, ask.from);
        // Both are ends of frames, where the log can be read from.
        let log_from = match (way, ask.from, self.retention.span(member)) {
            (Way::Log, Some(from), _) => from,
            (Way::Map, _, Some(span)) => span.to,
            _ => self.log.start(),
        };
        self.forget_refusal(member);
        if let Some(open) = self.session_mut(session) {
            open.phase = Phase::Sourcing(Sourcing { way, rest: Rest::Far });
        }
        self.resync.sources.push(session);
        let scope = Scope { way, map_of: member, log_from };
        self.out.push_back(Action::Source { session, scope });
        self.out.push_back(Action::Note(Note::Resyncs { member, way }));
    }

    /// The shortest way (design §8.1): what the standby lacks or has too much of lies in the log,
    /// or in the log and the map before it, or anywhere.
    fn way_for(&self, member: MemberId, from: Option<Lsn>) -> Way {
        let start = self.log.start();
        match (from, self.retention.span(member)) {
            (Some(from), _) if from >= start => Way::Log,
            (Some(from), Some(span)) if span.since <= from && span.to >= start => Way::Map,
            _ => Way::Digests,
        }
    }

    pub(in super::super) fn source_near_end(&mut self, session: SessionId) {
        self.seed_near_end(session);
        if let Some(sourcing) = self.sourcing_mut(session)
            && sourcing.rest == Rest::Far
        {
            sourcing.rest = Rest::Wanted;
        }
    }

    /// The image of a source that is nearly done rests, and the last of it is sent.
    pub(super) fn settle_sources(&mut self) {
        let now = self.clock.now;
        let stuck: Vec<_> = self.rests().filter(|(_, until)| *until <= now).collect();
        for (session, _) in stuck {
            // Clients fill the log meanwhile. It asks again, from what it has got.
            self.refuse(session, Refusal::NotNow);
        }
        let Self { peers, log, state, out, .. } = self;
        let rests = log.applied() == state.apply_limit;
        for peer in peers.values_mut().filter(|_| rests) {
            if let Some(open) = &mut peer.session
                && let Phase::Sourcing(sourcing) = &mut open.phase
                && sourcing.rest == Rest::Wanted
            {
                sourcing.rest = Rest::Begun(now);
                out.push_back(Action::FinishSource { session: open.id });
            }
        }
    }

    /// Sources whose image rests, and until when it may.
    fn rests(&self) -> impl Iterator<Item = (SessionId, Now)> + '_ {
        let open = self.peers.values().filter_map(|peer| peer.session.as_ref());
        open.filter_map(|open| match &open.phase {
            Phase::Sourcing(Sourcing { rest: Rest::Begun(since), .. }) => {
                Some((open.id, since.after(REST_MAX)))
            }
            _ => None,
        })
    }

    pub(in super::super) fn rest_deadline(&self) -> Option<Now> {
        self.rests().map(|(_, until)| until).chain(self.seed_deadline()).min()
    }

    /// Everything of `at` was sent. What comes behind it the standby gets from the log, which is
    /// kept for it from here on.
    pub(in super::super) fn source_done(&mut self, session: SessionId, at: LogPosition, said: u64) {
        self.seed_done(session, at);
        let begun =
            self.sourcing_mut(session).is_some_and(|source| matches!(source.rest, Rest::Begun(_)));
        if !begun {
            return;
        }
        let mut history = self.state.history.clone();
        history.truncate(at.lsn);
        let (epoch, base) = (self.state.owned, self.state.base);
        if let Some(open) = self.session_mut(session) {
            open.phase = Phase::Idle;
        }
        if let Some(peer) = self.member_of(session).and_then(|member| self.peers.get_mut(&member)) {
            (peer.kept, peer.kept_applied) = (Some(at.lsn), at.lsn);
        }
        self.send(session, Message::Landed(Box::new(Landed { epoch, said, at, history, base })));
    }

    /// What is to be sent cannot be read. The session ends, and the standby asks again.
    pub(in super::super) fn source_failed(&mut self, session: SessionId) {
        self.compare_failed(session);
        self.seed_failed(session);
        if self.sourcing_mut(session).is_some() {
            self.refuse(session, Refusal::NotNow);
        }
    }

    /// No standby is brought up by this member any more.
    pub(in super::super) fn stop_sourcing(&mut self) {
        for open in self.peers.values_mut().filter_map(|peer| peer.session.as_mut()) {
            if matches!(open.phase, Phase::Sourcing(_)) {
                open.phase = Phase::Idle;
            }
        }
    }

    fn sourcing_mut(&mut self, session: SessionId) -> Option<&mut Sourcing> {
        match &mut self.session_mut(session)?.phase {
            Phase::Sourcing(sourcing) => Some(sourcing),
            _ => None,
        }
    }
}

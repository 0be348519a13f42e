//! A primary's side of shipping: from memory where the frames are still there, else from the log.

use super::peer::{Entry, Feed, Phase};
use super::{Action, Node, Part};
use crate::frame::{Frame, LogPosition};
use crate::ids::{Lsn, MemberId, SessionId};
use crate::replica::Role;
use crate::wire::{Ack, Join, Message, Progress, Refusal};

impl Feed {
    fn new(life: crate::ids::Incarnate, from: LogPosition, durable: Lsn) -> Self {
        Self {
            life,
            next: from.lsn,
            joined: Some(from),
            reading: false,
            handed: from.lsn,
            stuck_since: None,
            congested: false,
            received: from.lsn,
            durable: durable.min(from.lsn),
            applied: Lsn::START,
            wanted: Lsn::START,
            told: Lsn::START,
            entry: Entry::CatchUp,
        }
    }

    /// Whether `frame` is the next to ship, and continues what the standby has.
    fn fits(&mut self, frame: &Frame) -> bool {
        let joined = self.joined.take();
        frame.lsn() == self.next && joined.is_none_or(|point| frame.follows(point.chain))
    }
}

impl Node {
    pub(super) fn on_join(&mut self, session: SessionId, member: MemberId, join: Join) {
        if !self.is_leading() || join.epoch != self.state.owned {
            return;
        }
        let (own, start) = (self.log.end(), self.log.start());
        let life = self.peers.get(&member).and_then(|peer| peer.hello()).map(|hello| hello.life);
        let Some(life) = life else { return };
        if join.from.lsn < start {
            return self.refuse(session, Refusal::LogGone { start });
        }
        let parted =
            join.from.lsn > own.lsn || (join.from.lsn == own.lsn && join.from.chain != own.chain);
        if parted {
            let fork = join.from.lsn.min(own.lsn);
            return self.refuse(session, Refusal::Diverged { fork });
        }
        let feed = Feed::new(life, join.from, join.durable);
        self.forget_refusal(member);
        if let Some(open) = self.session_mut(session) {
            open.phase = Phase::Feeding(feed);
        }
        self.say_progress(member);
    }

    /// A candidate asks for the tail that it lacks; the promise to it was given before.
    pub(super) fn on_fetch(&mut self, session: SessionId, member: MemberId, from: LogPosition) {
        let end = self.log.end().lsn;
        let ready = matches!(self.standing, Part::Standby(_)) && !self.follow.cutting;
        if !ready || from.lsn > end {
            return self.refuse(session, Refusal::NotNow);
        }
        let life = self.peers.get(&member).and_then(|peer| peer.hello()).map(|hello| hello.life);
        let Some(life) = life else { return };
        let feed = Feed::new(life, from, from.lsn);
        if let Some(open) = self.session_mut(session) {
            open.phase = Phase::Feeding(feed);
        }
    }

    pub(super) fn on_ack(&mut self, session: SessionId, member: MemberId, ack: Ack) {
        // It follows somebody else by now, or did when it said so.
        if ack.epoch != self.state.owned {
            return;
        }
        self.hear_stamp(session, ack.stamp, ack.heard);
        let Some((_, feed)) = self.peers.get_mut(&member).and_then(|peer| peer.feed_mut()) else {
            return;
        };
        // A standby can have only what was shipped, and no position goes back.
        let sane = ack.received <= feed.next
            && ack.durable <= ack.received
            && ack.applied <= ack.durable
            && ack.received >= feed.received
            && ack.durable >= feed.durable;
        if !sane {
            return self.refuse(session, Refusal::Protocol);
        }
        feed.received = ack.received;
        feed.durable = ack.durable;
        feed.applied = ack.applied;
    }

    pub(super) fn handed(&mut self, session: SessionId, lsn: Lsn) {
        if let Some(open) = self.session_mut(session)
            && let Phase::Feeding(feed) = &mut open.phase
        {
            feed.handed = feed.handed.max(lsn.min(feed.next));
            feed.stuck_since = None;
        }
    }

    /// Ships what each standby lacks. In `peer` every frame goes at once; while catching up, at
    /// most the window is under way, so that one slow standby cannot fill the memory.
    pub(super) fn settle_feeds(&mut self) {
        let members: Vec<_> = self.peers.keys().copied().collect();
        for member in members {
            self.tell_kept(member);
            self.pump(member);
        }
    }

    /// A standby that is full takes nothing more before it has applied, and it applies only what
    /// it knows that nobody takes back. So that word goes ahead of the frames, and only so many
    /// frames go ahead of the word that every log has room for them: two syncs' worth.
    fn tell_kept(&mut self, member: MemberId) {
        let kept = self.word_for(member);
        let feed = self.peers.get(&member).and_then(|peer| peer.feed());
        if self.leads_or_ends() && feed.is_some_and(|feed| feed.told < kept) {
            self.say_progress(member);
        }
    }

    fn pump(&mut self, member: MemberId) {
        let (end, window) = (self.log.end().lsn, self.config.ship_window_bytes);
        let (leads, ahead) = (self.leads_or_ends(), self.config.sync_bytes.saturating_mul(2));
        let Self { peers, log, out, .. } = self;
        let Some((session, feed)) = peers.get_mut(&member).and_then(|peer| peer.feed_mut()) else {
            return;
        };
        while feed.next < end && !feed.reading {
            if leads && feed.next.since(feed.told) >= ahead {
                return;
            }
            if !feed.counts() && feed.next.since(feed.handed) >= window {
                return;
            }
            let Some(frame) = log.recent(feed.next) else {
                feed.reading = true;
                out.push_back(Action::ReadLog { session, from: feed.next });
                return;
            };
            if !feed.fits(frame) {
                let fork = feed.next;
                return self.refuse(session, Refusal::Diverged { fork });
            }
            feed.next = frame.end();
            out.push_back(Action::Ship { session, frame: frame.clone() });
        }
    }

    pub(super) fn log_read(&mut self, session: SessionId, frames: Vec<Frame>) {
        let start = self.log.start();
        let Some(open) = self.session_mut(session) else {
            return;
        };
        let Phase::Feeding(feed) = &mut open.phase else {
            return;
        };
        // A standby that joins anew within its session may still be sent what was read before.
        let awaited = frames.first().is_none_or(|first| first.lsn() == feed.next);
        if !feed.reading || !awaited {
            return;
        }
        feed.reading = false;
        if frames.is_empty() {
            return self.refuse(session, Refusal::LogGone { start });
        }
        let mut fork = None;
        let mut shipped = Vec::with_capacity(frames.len());
        for frame in frames {
            if !feed.fits(&frame) {
                fork = Some(feed.next);
                break;
            }
            feed.next = frame.end();
            shipped.push(Action::Ship { session, frame });
        }
        self.out.extend(shipped);
        if let Some(fork) = fork {
            self.refuse(session, Refusal::Diverged { fork });
        }
    }

    pub(super) fn stop_feeding(&mut self) {
        for peer in self.peers.values_mut() {
            if let Some(session) = &mut peer.session
                && matches!(session.phase, Phase::Feeding(_) | Phase::Sourcing(_))
            {
                session.phase = Phase::Idle;
            }
        }
    }

    /// Words to the standbys: when something changed that they act on, and as heartbeat.
    pub(super) fn settle_words(&mut self) {
        let (now, beat) = (self.clock.now, self.config.heartbeat());
        let leading = self.leads_or_ends();
        for (member, session) in self.greeted_sessions() {
            let quiet =
                self.session_mut(session).is_some_and(|open| now.since(open.sent_at) >= beat);
            let Some(peer) = self.peers.get(&member) else {
                continue;
            };
            let news = peer.feed().map(|feed| {
                feed.told < self.word_for(member) || self.wanted_of(feed) > feed.wanted
            });
            match news {
                Some(news) if leading && (news || quiet) => self.say_progress(member),
                _ if peer.is_following() => self.say_ack_if_due(session, quiet),
                _ if quiet => self.send(session, Message::Alive),
                _ => {}
            }
        }
    }

    /// Whether the standbys still hear from this primary: also while it stops.
    pub(super) fn leads_or_ends(&self) -> bool {
        match self.standing {
            Part::Leading | Part::Releasing(_) => true,
            Part::Stopping(_) => self.state.role == Role::Primary,
            _ => false,
        }
    }

    /// Whether every connected standby has everything and knows how far it may apply that: without
    /// the word it may not apply the end of the log (design §2.5).
    pub(super) fn all_are_told(&self) -> bool {
        let end = self.log.end().lsn;
        let mut feeds = self.peers.values().filter_map(|peer| Some((peer.member, peer.feed()?)));
        !self.leads_or_ends()
            || feeds.all(|(member, feed)| feed.told >= self.word_for(member) && feed.next == end)
    }

    /// What a standby shall make durable: in sync, all that a client or its own entry waits for.
    fn wanted_of(&self, feed: &Feed) -> Lsn {
        let entry = match feed.entry {
            Entry::Proposed { durable, .. } => durable,
            _ => Lsn::START,
        };
        let clients = if self.commits_wait_for_disk() { self.log.wanted() } else { Lsn::START };
        let handover = self.handover_end().unwrap_or(Lsn::START);
        entry.max(clients).max(handover).min(feed.next)
    }

    pub(super) fn say_progress(&mut self, member: MemberId) {
        let Some(peer) = self.peers.get(&member) else {
            return;
        };
        let Some(feed) = peer.feed() else { return };
        let peer_state = feed.entry == Entry::Peer;
        let in_set = peer_state && !peer.leaving && self.state.in_sync.contains(&feed.life);
        let progress = Progress {
            epoch: self.state.owned,
            end: self.log.end().lsn,
            may_apply: self.word_for(member).max(feed.told),
            wanted: self.wanted_of(feed),
            peer: peer_state,
            in_set,
            mode: self.state.mode,
            hold: self.held_for(member),
            number: 0,
            echo: None,
        };
        let now = self.clock.now;
        let Some(open) = self.peers.get_mut(&member).and_then(|peer| peer.session.as_mut()) else {
            return;
        };
        let (session, (number, echo)) = (open.id, open.word.next(in_set, now));
        if let Phase::Feeding(feed) = &mut open.phase {
            feed.told = progress.may_apply;
            feed.wanted = feed.wanted.max(progress.wanted);
        }
        if in_set {
            self.word_given(member);
        }
        self.send(session, Message::Progress(Progress { number, echo, ..progress }));
    }
}

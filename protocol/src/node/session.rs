//! Sessions: hellos, refusals, silence and farewell.

use super::peer::{Peer, Phase, Session};
use super::{Action, Node, Note, Part};
use crate::ids::{MemberId, SessionId};
use crate::wire::{Goodbye, Hello, Message, Refusal, Refuse};

impl Node {
    /// A new connection from a member ends its old one before the hello is answered (design §4).
    pub(super) fn linked(&mut self, session: SessionId, member: MemberId) {
        let now = self.clock.now;
        let stopped = matches!(self.standing, Part::Stopped | Part::Unfit(_));
        let Some(peer) = self.peers.get_mut(&member).filter(|_| !stopped) else {
            self.out.push_back(Action::Close { session });
            return;
        };
        if let Some(old) = peer.session.as_ref().map(|old| old.id) {
            self.send(old, Message::Goodbye(Goodbye::Replaced));
            self.out.push_back(Action::Close { session: old });
            self.end_session(member);
        }
        let fresh = Session {
            id: session,
            hello: None,
            phase: Phase::Idle,
            heard_at: now,
            sent_at: now,
            lead: None,
            word: super::proof::Word::default(),
        };
        if let Some(peer) = self.peers.get_mut(&member) {
            peer.session = Some(fresh);
            peer.session_at = now;
            peer.refusal = None;
        }
        if !self.is_mute() {
            self.say_hello(session);
        }
    }

    pub(super) fn unlinked(&mut self, session: SessionId) {
        if let Some(member) = self.member_of(session) {
            self.end_session(member);
        }
    }

    /// The next session begins with hellos that are true.
    pub(super) fn begin_anew(&mut self, session: SessionId) {
        self.out.push_back(Action::Close { session });
        self.unlinked(session);
    }

    /// Who was refused, and may be primary still, hears in the next hello who leads, not when
    /// silence ends a session in which nothing is said.
    pub(super) fn begin_refused_anew(&mut self) {
        let open = self.peers.values().filter_map(|peer| peer.session.as_ref());
        let refused = open.filter(|open| matches!(open.phase, Phase::Refused));
        let refused: Vec<_> = refused.map(|open| open.id).collect();
        refused.into_iter().for_each(|session| self.begin_anew(session));
    }

    /// What the other side says waits in the socket, behind frames that nobody can take yet.
    pub(super) fn full(&mut self, session: SessionId) {
        let now = self.clock.now;
        if let Some(open) = self.session_mut(session) {
            open.heard_at = now;
        }
    }

    /// Everything that rests on the session ends with it.
    fn end_session(&mut self, member: MemberId) {
        self.lost(member);
        // What a primary said does not end with the session of somebody else.
        if self.peers.get(&member).is_some_and(Peer::is_following) {
            self.follow.forget_word();
        }
        if let Some(peer) = self.peers.get_mut(&member) {
            if let Some((durable, applied)) = peer.feed().map(|feed| (feed.durable, feed.applied)) {
                (peer.kept, peer.kept_applied) = (Some(durable), applied);
            }
            if let Some(session) = peer.session.take() {
                peer.session_at = self.clock.now;
                // A call that nobody answered was no connection.
                if session.hello.is_some() {
                    self.out.push_back(Action::Note(Note::LinkLost(member)));
                }
            }
        }
        self.candidate_lost(member);
        self.asking_lost(member);
    }

    pub(super) fn greet_everyone(&mut self) {
        let sessions: Vec<_> = self.sessions().map(|(_, session)| session).collect();
        sessions.into_iter().for_each(|session| self.say_hello(session));
    }

    pub(super) fn heard(&mut self, session: SessionId, message: Message) {
        let Some(member) = self.member_of(session) else {
            return;
        };
        let now = self.clock.now;
        let greeted = self.session_mut(session).is_some_and(|open| {
            open.heard_at = now;
            open.hello.is_some()
        });
        match (message, greeted) {
            (Message::Hello(hello), false) => self.on_hello(session, member, hello),
            (Message::Goodbye(goodbye), _) => self.on_goodbye(session, member, goodbye),
            (Message::Refuse(refuse), _) => self.on_refuse(member, refuse.refusal),
            (Message::Hello(_), true) | (_, false) => self.refuse(session, Refusal::Protocol),
            (Message::Alive, _) => {}
            (Message::Lead(lead), _) => self.hear_lead(session, member, lead),
            (Message::Join(join), _) => self.on_join(session, member, join),
            (Message::AskPromise(ask), _) => self.on_ask_promise(session, ask),
            (Message::Promised(promised), _) => self.on_promised(member, promised),
            (Message::Fetch(from), _) => self.on_fetch(session, member, from),
            (Message::Ack(ack), _) => self.on_ack(session, member, ack),
            (Message::Progress(progress), _) => self.on_progress(session, member, progress),
            (Message::TakeoverAsk(ask), _) => self.on_takeover_ask(session, member, ask),
            (Message::TakeoverCancel(epoch), _) => self.on_takeover_cancel(member, epoch),
            (Message::HandedOver(release), _) => self.on_handed_over(member, release),
            (Message::AskResync(ask), _) => self.on_ask_resync(session, member, ask),
            (Message::Landed(landed), _) => self.on_landed(session, landed),
            (Message::Grow(grow), _) => self.on_grow(session, *grow),
            (Message::Grown(grown), _) => self.on_grown(session, member, grown),
            // The driver's affair; that it came is all that counts here.
            (Message::Copying(_), _) => {}
        }
    }

    fn say_hello(&mut self, session: SessionId) {
        let (state, words) = (&self.state, self.persist.words());
        let hello = Hello {
            life: state.life(),
            role: words.role,
            leading: self.is_leading(),
            promised: words.promised,
            owned: words.owned,
            history: state.history.clone(),
            end: self.log.end(),
            log_start: self.log.start(),
            image: words.image,
            base: state.base,
            sizes: self.growing.durable().clone(),
            release: words.release,
        };
        self.send(session, Message::Hello(Box::new(hello)));
    }

    fn on_hello(&mut self, session: SessionId, member: MemberId, hello: Box<Hello>) {
        let refusal = if hello.life.member != member {
            Some(Refusal::Protocol)
        } else if let Some(refusal) = self.sizes_stand_between(&hello) {
            Some(refusal)
        } else if self.base_stands_between(hello.base, hello.image, hello.end.lsn)
            && !self.is_leading()
        {
            Some(Refusal::BaseDiffers)
        } else {
            None
        };
        let (life, end) = (hello.life, hello.end.lsn);
        self.end_proof(member);
        if let Some(peer) = self.peers.get_mut(&member) {
            // A copy that was put back holds less than the member once told.
            peer.kept = peer.kept.map(|kept| kept.min(end));
        }
        if let Some(open) = self.session_mut(session) {
            open.hello = Some(hello);
        }
        self.out.push_back(Action::Note(Note::LinkUp(member)));
        if let Some(refusal) = refusal {
            return self.refuse(session, refusal);
        }
        self.life_seen(life);
        self.greeted(session, member);
    }

    fn on_goodbye(&mut self, session: SessionId, member: MemberId, goodbye: Goodbye) {
        if goodbye == Goodbye::Stopping {
            self.left_in_order(member);
        }
        self.out.push_back(Action::Close { session });
        self.end_session(member);
    }

    fn on_refuse(&mut self, member: MemberId, refusal: Refusal) {
        // A candidate asks again and again; people hear of it once.
        let known = self.peers.get_mut(&member).and_then(|peer| peer.refusal.replace(refusal));
        if known != Some(refusal) {
            self.out.push_back(Action::Note(Note::Refused { peer: member, refusal }));
        }
        if let Refusal::LogGone { .. } = refusal {
            self.log_gone(member);
        }
        self.candidate_refused(member, refusal);
        self.asking_refused(member);
    }

    /// Says that the session cannot go on as it is. It stays open: the other side may change.
    pub(super) fn refuse(&mut self, session: SessionId, refusal: Refusal) {
        self.send(session, Message::Refuse(Refuse { refusal }));
        if let Some(open) = self.session_mut(session) {
            open.phase = Phase::Refused;
        }
        let Some(member) = self.member_of(session) else {
            return;
        };
        // It receives nothing more: for the answers that wait for it, that is a loss like any.
        self.lost(member);
        self.out.push_back(Action::Note(Note::Refused { peer: member, refusal }));
        if let Some(peer) = self.peers.get_mut(&member) {
            peer.refusal = Some(refusal);
        }
        if refusal == Refusal::Protocol {
            self.out.push_back(Action::Close { session });
            self.end_session(member);
        }
    }

    /// The two work together again.
    pub(super) fn forget_refusal(&mut self, member: MemberId) {
        if let Some(peer) = self.peers.get_mut(&member) {
            peer.refusal = None;
        }
    }

    pub(super) fn say_goodbye(&mut self, goodbye: Goodbye) {
        let sessions: Vec<_> = self.sessions().collect();
        for (member, session) in sessions {
            self.send(session, Message::Goodbye(goodbye));
            self.out.push_back(Action::Close { session });
            self.end_session(member);
        }
    }

    /// Silence for the timeout ends a session (design §4).
    pub(super) fn settle_sessions(&mut self) {
        let (now, timeout) = (self.clock.now, self.config.timeout);
        let silent = |peer: &Peer| {
            let session = peer.session.as_ref()?;
            (now.since(session.heard_at) >= timeout).then_some((peer.member, session.id))
        };
        let silent: Vec<_> = self.peers.values().filter_map(silent).collect();
        for (member, session) in silent {
            self.out.push_back(Action::Close { session });
            self.end_session(member);
        }
    }

    /// Whether the life that would speak is not durable yet.
    fn is_mute(&self) -> bool {
        matches!(self.standing, Part::Waking(_)) || self.is_between_lives()
    }

    pub(super) fn send(&mut self, session: SessionId, message: Message) {
        // Nobody hears from a life that is not durable yet; when it is, hellos say it all.
        if self.is_mute() {
            return;
        }
        let now = self.clock.now;
        if let Some(open) = self.session_mut(session) {
            open.sent_at = now;
        }
        self.out.push_back(Action::Send { session, message });
    }

    pub(super) fn member_of(&self, session: SessionId) -> Option<MemberId> {
        self.sessions().find(|(_, id)| *id == session).map(|(member, _)| member)
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = (MemberId, SessionId)> + '_ {
        self.peers.values().filter_map(|peer| Some((peer.member, peer.session.as_ref()?.id)))
    }

    pub(super) fn session(&self, session: SessionId) -> Option<&Session> {
        let open = self.peers.values().filter_map(|peer| peer.session.as_ref());
        open.into_iter().find(|open| open.id == session)
    }

    pub(super) fn session_mut(&mut self, session: SessionId) -> Option<&mut Session> {
        self.peers
            .values_mut()
            .filter_map(|peer| peer.session.as_mut())
            .find(|open| open.id == session)
    }

    /// Sessions whose other side has introduced itself and was not refused.
    pub(super) fn greeted_sessions(&self) -> Vec<(MemberId, SessionId)> {
        let greeted = |peer: &Peer| {
            let session = peer.session.as_ref()?;
            let usable = session.hello.is_some() && !matches!(session.phase, Phase::Refused);
            usable.then_some((peer.member, session.id))
        };
        self.peers.values().filter_map(greeted).collect()
    }
}

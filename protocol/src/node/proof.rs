//! The word of a primary that a standby is in the in-sync set: what it is worth to the standby,
//! and how the primary takes it back (design §5.3).
//!
//! Both measure with their own monotonic clock only. The standby stamps what it sends; the primary
//! sends the newest stamp back together with its word. Whatever happens to the link after that,
//! the primary holds its answers for the peer window from the arrival of the stamped message on,
//! which is later than the stamp. So the standby can prove, until the window has passed since the
//! stamp, that no answer was given without it; and the primary leaves it out no sooner, unless the
//! standby has said that it heard it is out.

use std::collections::VecDeque;
use std::time::Duration;

use super::peer::Phase;
use super::{Denied, Node};
use crate::ids::{Incarnate, MemberId, SessionId};
use crate::time::Now;
use crate::wire::Progress;

/// Messages that are remembered until they are confirmed.
const SENT_MAX: usize = 64;

/// A standby's proof.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proof {
    of: MemberId,
    /// When it sent the newest message that the primary has confirmed.
    stamp: Now,
}

/// The primary's side, for one session.
#[derive(Clone, Debug, Default)]
pub(super) struct Word {
    /// Newest stamp, and when it came.
    stamp: Option<(Now, Now)>,
    /// Progress messages sent and confirmed.
    sent: u64,
    heard: u64,
    /// When those were sent that are not confirmed yet, the newest of them at least.
    sent_at: VecDeque<(u64, Now)>,
    /// The first that said "not in the set" since the last that said otherwise.
    revoked: Option<u64>,
}

impl Word {
    /// Returns when the newest message was sent that is confirmed by this.
    pub(super) fn acked(&mut self, stamp: Now, heard: u64, now: Now) -> Option<Now> {
        self.heard = self.heard.max(heard.min(self.sent));
        let mut confirmed = None;
        while let Some((number, at)) = self.sent_at.front().copied() {
            if number > self.heard {
                break;
            }
            self.sent_at.pop_front();
            confirmed = Some(at);
        }
        if self.stamp.is_none_or(|(newest, _)| newest < stamp) {
            self.stamp = Some((stamp, now));
        }
        confirmed
    }

    /// The number and the echo of the next progress message, which is sent now.
    pub(super) fn next(&mut self, in_set: bool, now: Now) -> (u64, Option<Now>) {
        self.sent += 1;
        if self.sent_at.len() == SENT_MAX {
            self.sent_at.pop_front();
        }
        self.sent_at.push_back((self.sent, now));
        match in_set {
            true => self.revoked = None,
            false => {
                self.revoked.get_or_insert(self.sent);
            }
        }
        (self.sent, self.stamp.map(|(stamp, _)| stamp))
    }

    /// When the newest stamp came: the word counts from there.
    fn counts_from(&self) -> Option<Now> {
        self.stamp.map(|(_, came)| came)
    }

    fn is_taken_back(&self) -> bool {
        self.revoked.is_some_and(|number| self.heard >= number)
    }
}

impl Node {
    /// The standby hears the primary's word, or that there is none.
    pub(super) fn hear_word(&mut self, member: MemberId, progress: &Progress) {
        let now = self.clock.now;
        self.follow.heard = progress.number;
        self.lease.granted(member, now);
        self.follow.must_ack |= !progress.in_set && self.follow.proof.is_some();
        self.follow.proof = match progress.echo.filter(|_| progress.in_set) {
            // A stamp from the future is none that this standby has sent.
            Some(stamp) if stamp <= now => Some(Proof { of: member, stamp }),
            _ => None,
        };
    }

    /// A handshake ends what was proved before: the other may have restarted (holes, story 9).
    pub(super) fn end_proof(&mut self, member: MemberId) {
        if self.follow.proof.is_some_and(|proof| proof.of == member) {
            self.follow.proof = None;
        }
    }

    /// Until when the primary holds its answers for certain.
    pub(super) fn proof_end(&self) -> Option<Now> {
        let proof = self.follow.proof?;
        Some(proof.stamp.after(self.config.provable_window()))
    }

    /// # Errors
    /// [`Denied::NoProof`].
    pub(super) fn prove(&self) -> Result<(), Denied> {
        let holds = self.proof_end().is_some_and(|end| self.clock.now < end);
        holds.then_some(()).ok_or(Denied::NoProof)
    }

    /// The primary has just given its word in this session.
    pub(super) fn word_given(&mut self, member: MemberId) {
        let window = self.config.peer_window;
        if let Some(peer) = self.peers.get_mut(&member) {
            let from = peer.session.as_ref().and_then(|session| session.word.counts_from());
            peer.word_until = from.map(|from| from.after(window)).max(peer.word_until);
        }
    }

    /// Whether a standby can prove nothing any more: then it may be left out.
    pub(super) fn word_is_void(&self, member: MemberId) -> bool {
        let over = self.proof_left(member).is_none();
        over && (self.has_register() || self.took_back(member) || !self.holds_on())
    }

    /// For how long a standby may still take over by proof, as its primary sees it.
    pub(super) fn proof_left(&self, member: MemberId) -> Option<Duration> {
        let until = self.peers.get(&member)?.word_until?;
        let runs = until > self.clock.now && !self.has_register() && !self.took_back(member);
        runs.then(|| until.since(self.clock.now))
    }

    /// It has heard that it is out of the set.
    fn took_back(&self, member: MemberId) -> bool {
        let session = self.peers.get(&member).and_then(|peer| peer.session.as_ref());
        session.is_some_and(|session| session.word.is_taken_back())
    }

    /// A life of a member whose proof died with it.
    pub(super) fn word_died(&mut self, life: Incarnate) {
        if let Some(peer) = self.peers.get_mut(&life.member) {
            peer.word_until = None;
        }
    }

    /// An ack that came over this session.
    pub(super) fn hear_stamp(&mut self, session: SessionId, stamp: Now, heard: u64) {
        let now = self.clock.now;
        let Some(open) = self.session_mut(session) else { return };
        let sent = open.word.acked(stamp, heard, now);
        let life = match &open.phase {
            Phase::Feeding(feed) => Some(feed.life),
            _ => None,
        };
        if let (Some(life), Some(sent)) = (life, sent) {
            self.lease.hears(life, sent);
        }
    }
}

//! What people see of a node (design §9). Built on request; nothing is counted for it.

use serde::{Deserialize, Serialize};

use super::peer::{Entry, Phase};
use super::{Node, Part};
use crate::ids::{Epoch, Lsn, MemberId};
use crate::replica::Mode;
use crate::wire::Refusal;

/// The part that a replica plays, in words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It starts.
    Starting,
    /// It receives, or waits for somebody who leads.
    Standby,
    /// It waits for these members before it may lead (design §6.3).
    StartGate(Vec<MemberId>),
    /// It is about to lead.
    TakingOver,
    /// It serves.
    Primary,
    /// It hands over.
    HandingOver,
    /// A part of it failed.
    Failed(super::FailedPart),
    /// Its applied history parted from the primary's, here.
    Diverged(Lsn),
    /// It stops.
    Stopping,
}

/// The state of a standby (design §4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StandbyState {
    /// It replays its own log.
    LocalCatchup,
    /// No session, or not accepted yet.
    RemoteCatchupPending,
    /// It receives frames of the past; clients do not wait for it.
    RemoteCatchup,
    /// Live.
    Peer,
    /// The session was lost in `peer`; answers are held until the peer window ends.
    DisconnectedPeer,
}

/// A node at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// This member.
    pub member: MemberId,
    /// The part that it plays.
    pub standing: Standing,
    /// Its own state, where it is a standby.
    pub state: Option<StandbyState>,
    /// The resource's mode, as far as this member knows.
    pub mode: Mode,
    /// The epoch of the newest frame.
    pub epoch: Epoch,
    /// The lowest epoch that it accepts.
    pub promised: Epoch,
    /// Whether it knows itself in the in-sync set.
    pub in_set: bool,
    /// End of its log.
    pub end: Lsn,
    /// Written to its log.
    pub written: Lsn,
    /// Durable in its log.
    pub durable: Lsn,
    /// In its image.
    pub applied: Lsn,
    /// In its image, durably.
    pub checkpointed: Lsn,
    /// End of the primary's log, as last told.
    pub primary_end: Option<Lsn>,
    /// The other members.
    pub peers: Vec<PeerStatus>,
}

/// Another member, as this node sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Which.
    pub member: MemberId,
    /// Whether there is a session with it.
    pub connected: bool,
    /// Microseconds since anything was heard from it.
    pub silent_us: Option<u64>,
    /// Its state, where it is this primary's standby.
    pub state: Option<StandbyState>,
    /// Whether no write is answered without it.
    pub in_set: bool,
    /// Received there.
    pub received: Option<Lsn>,
    /// Durable there.
    pub durable: Option<Lsn>,
    /// Applied there.
    pub applied: Option<Lsn>,
    /// Microseconds until answers go on without it.
    pub window_us: Option<u64>,
    /// Why the two cannot work together, if so.
    pub refusal: Option<Refusal>,
}

impl Node {
    /// What people see.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        let standby = matches!(self.standing, Part::Standby(_) | Part::Waking);
        NodeStatus {
            member: self.state.member,
            standing: self.standing_in_words(),
            state: standby.then(|| self.own_state()),
            mode: self.state.mode,
            epoch: self.state.history.epoch(),
            promised: self.state.promised,
            in_set: self.state.in_set_of.is_some(),
            end: self.log.end().lsn,
            written: self.log.written(),
            durable: self.log.durable(),
            applied: self.log.applied(),
            checkpointed: self.state.checkpoint.lsn,
            primary_end: standby.then_some(self.follow.primary_end),
            peers: self.peers.keys().map(|member| self.peer_status(*member)).collect(),
        }
    }

    /// End of the log, as `status` has it; for the data path.
    #[must_use]
    pub fn log_end(&self) -> Lsn {
        self.log.end().lsn
    }

    /// To where the log is durable here, as `status` has it; for the data path.
    #[must_use]
    pub fn log_durable(&self) -> Lsn {
        self.log.durable()
    }

    fn standing_in_words(&self) -> Standing {
        match &self.standing {
            Part::Waking => Standing::Starting,
            Part::Standby(_) => self.follow.diverged.map_or(Standing::Standby, Standing::Diverged),
            Part::Gate => Standing::StartGate(self.unheard()),
            Part::Candidate(candidate) if candidate.force => Standing::TakingOver,
            Part::Candidate(candidate) => Standing::StartGate(candidate.lacks()),
            Part::Beginning(_) => Standing::TakingOver,
            Part::Leading => Standing::Primary,
            Part::Releasing(_) => Standing::HandingOver,
            Part::Unfit(part) => Standing::Failed(*part),
            Part::Stopping(_) | Part::Stopped => Standing::Stopping,
        }
    }

    fn unheard(&self) -> Vec<MemberId> {
        let greeted = self.greeted_sessions();
        let unheard =
            self.peers.keys().filter(|member| !greeted.iter().any(|(other, _)| other == *member));
        unheard.copied().collect()
    }

    fn own_state(&self) -> StandbyState {
        if self.log.applied() < self.state.apply_limit {
            StandbyState::LocalCatchup
        } else if !self.peers.values().any(|peer| peer.is_following()) {
            StandbyState::RemoteCatchupPending
        } else if self.follow.peer {
            StandbyState::Peer
        } else {
            StandbyState::RemoteCatchup
        }
    }

    fn peer_status(&self, member: MemberId) -> PeerStatus {
        let now = self.clock.now;
        let peer = self.peers.get(&member);
        let session = peer.and_then(|peer| peer.session.as_ref());
        let feed = peer.and_then(|peer| peer.feed()).filter(|_| self.is_leading());
        let lost_at = peer.and_then(|peer| peer.lost_at);
        let state = match (feed.map(|feed| feed.entry), lost_at) {
            (Some(Entry::Peer), _) => StandbyState::Peer,
            (Some(_), _) => StandbyState::RemoteCatchup,
            (None, Some(_)) => StandbyState::DisconnectedPeer,
            (None, None) => StandbyState::RemoteCatchupPending,
        };
        let window = lost_at.map(|lost| lost.after(self.config.peer_window).since(now));
        let micros =
            |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let silent = session.map(|session| micros(now.since(session.heard_at)));
        let following = session.is_some_and(|session| matches!(session.phase, Phase::Following));
        PeerStatus {
            member,
            connected: session.is_some(),
            silent_us: silent,
            state: (self.is_leading() && !following).then_some(state),
            in_set: self.blockers().any(|life| life.member == member),
            received: feed.map(|feed| feed.received),
            durable: feed.map(|feed| feed.durable),
            applied: feed.map(|feed| feed.applied),
            window_us: window.map(micros),
            refusal: peer.and_then(|peer| peer.refusal),
        }
    }
}

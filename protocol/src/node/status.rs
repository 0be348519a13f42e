//! What people see of a node (design §9). Built on request; nothing is counted for it.

use serde::{Deserialize, Serialize};

use super::numbers::{AnswerWaits, Gap, Loss};
use super::peer::{Peer, Phase};
use super::phase::TakeoverPhase;
use super::reason::Reason;
use super::resync::{VerifyPlan, VerifyStatus};
use super::{Node, Part};
use crate::ids::{Epoch, Lsn, MemberId};
use crate::replica::{Mode, Role, Verified};
use crate::resync::Way;
use crate::time::{WallTime, micros};
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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StandbyState {
    /// It replays its own log, and makes its new life durable.
    LocalCatchup,
    /// No session, or not accepted yet.
    RemoteCatchupPending,
    /// It receives frames of the past; clients do not wait for it.
    RemoteCatchup,
    /// Live.
    Peer,
    /// The session was lost in `peer`; answers are held until the peer window ends.
    DisconnectedPeer,
    /// It is brought up otherwise than by the log.
    Resync,
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
    /// The newest epoch that it began itself and owned.
    pub owned: Epoch,
    /// Whether it knows itself in the in-sync set.
    pub in_set: bool,
    /// Microseconds for which this standby can prove that the primary holds its answers; then
    /// `takeover --peer-window-only` is granted (design §5.3).
    pub proof_us: Option<u64>,
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
    /// Who leads, or led last, as far as this log says.
    pub leader: Option<MemberId>,
    /// End of the primary's log, as last told; None where this life was told nothing.
    pub primary_end: Option<Lsn>,
    /// When the primary wrote the end of this log, and what is applied of it, by the primary's wall
    /// clock, in microseconds since 1970.
    pub log_wall_us: Option<u64>,
    /// See there; None where everything is applied.
    pub unapplied_wall_us: Option<u64>,
    /// From the end of the primary's log, as last told, to the end of this one; on a standby.
    pub log_gap: Gap,
    /// From received to applied.
    pub replay_gap: Gap,
    /// How long answers waited for standbys.
    pub waits: AnswerWaits,
    /// What the loss of this primary now would lose; None where it does not lead.
    pub loss: Option<Loss>,
    /// How long a takeover would take, in microseconds.
    pub takeover_us: Option<u64>,
    /// How far a takeover is, where one is under way here.
    pub takeover: Option<TakeoverPhase>,
    /// Time between heartbeats, in microseconds.
    pub heartbeat_us: u64,
    /// The settings that the figures are to be read by.
    pub settings: SettingsStatus,
    /// What the control record holds, where there is one and it was heard.
    pub record: Option<RecordStatus>,
    /// What the last comparison of a standby's image has found, or the one under way.
    pub verify: Option<VerifyStatus>,
    /// When the image of each other member was last compared with this one, and what was found;
    /// over restarts.
    #[serde(default)]
    pub verified: Vec<Verified>,
    /// When that is done by itself.
    #[serde(default)]
    pub verify_plan: Option<VerifyPlan>,
    /// Why it is not primary, not in peer, or holds answers.
    pub reasons: Vec<Reason>,
    /// The other members.
    pub peers: Vec<PeerStatus>,
}

/// Settings of the resource on this member.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SettingsStatus {
    /// Silence that ends a connection, in microseconds.
    pub timeout_us: u64,
    /// How long answers are held after a loss, in microseconds.
    pub peer_window_us: u64,
    /// Longest that an answer waits for a connected standby, in microseconds; 0: for ever.
    pub peer_wait_limit_us: u64,
    /// How much later a standby applies than it receives, in microseconds.
    pub replay_delay_us: u64,
    /// Most bytes that a standby has received and not applied; None: no limit.
    pub spool_limit: Option<u64>,
}

/// The control record, as this member last heard of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecordStatus {
    /// Its number.
    pub number: u64,
    /// Who owns the resource.
    pub owner: MemberId,
    /// In which epoch.
    pub epoch: Epoch,
    /// Who is in its in-sync set.
    pub in_sync: Vec<MemberId>,
}

/// The connection to another member (design §4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connection {
    /// It works.
    Connected,
    /// It is alive, but takes nothing more at the moment.
    Congested,
    /// There is none.
    Disconnected,
}

/// Another member, as this node sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Which.
    pub member: MemberId,
    /// Whether there is a session with it.
    pub connected: bool,
    /// The state of the connection.
    pub connection: Connection,
    /// Microseconds since it came into that state.
    pub connection_us: u64,
    /// Heartbeats that should have come since anything was heard.
    pub heartbeats_missed: u64,
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
    /// When this primary wrote the end of what was received there, by its wall clock, in
    /// microseconds since 1970.
    pub received_wall_us: Option<u64>,
    /// The same of what was applied there.
    pub applied_wall_us: Option<u64>,
    /// From the end of the primary's log to what it has received.
    pub log_gap: Option<Gap>,
    /// From what it has received to what it has applied.
    pub replay_gap: Option<Gap>,
    /// Microseconds until answers go on without it.
    pub window_us: Option<u64>,
    /// By what it is known what differs, where it is brought up otherwise than by the log.
    pub way: Option<Way>,
    /// Why the two cannot work together, if so.
    pub refusal: Option<Refusal>,
}

impl Node {
    /// What people see.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        let standby = self.shows_own_state();
        NodeStatus {
            member: self.state.member,
            standing: self.standing_in_words(),
            state: standby.then(|| self.own_state()),
            mode: self.state.mode,
            epoch: self.state.history.epoch(),
            promised: self.state.promised,
            owned: self.state.owned,
            in_set: self.state.in_set_of.is_some(),
            proof_us: self.proof_end().map(|end| micros(end.since(self.clock.now))),
            end: self.log.end().lsn,
            written: self.log.written(),
            durable: self.log.durable(),
            applied: self.log.applied(),
            checkpointed: self.state.checkpoint.lsn,
            leader: self.state.history.last().map(|entry| entry.leader.member),
            primary_end: standby.then_some(self.follow.primary_end).filter(|end| *end > Lsn::START),
            log_wall_us: self.log.wall().map(WallTime::as_micros),
            unapplied_wall_us: self.log.trail().wall(self.log.applied()).map(WallTime::as_micros),
            log_gap: self.own_log_gap(),
            replay_gap: self.own_replay_gap(),
            waits: self.answer_waits(),
            loss: self.loss(),
            takeover_us: self.takeover_estimate(),
            takeover: self.takeover_phase(),
            heartbeat_us: micros(self.config.heartbeat()),
            settings: self.settings(),
            record: self.record().map(|record| RecordStatus {
                number: record.number,
                owner: record.owner.member,
                epoch: record.epoch,
                in_sync: record.in_sync.iter().map(|life| life.member).collect(),
            }),
            verify: self.verify_status(),
            verified: self.state.verified.clone(),
            verify_plan: self.config.verify,
            reasons: self.reasons(),
            peers: self.peers.keys().map(|member| self.peer_status(*member)).collect(),
        }
    }

    fn settings(&self) -> SettingsStatus {
        let config = &self.config;
        SettingsStatus {
            timeout_us: micros(config.timeout),
            peer_window_us: micros(config.peer_window),
            peer_wait_limit_us: micros(config.peer_wait_limit),
            replay_delay_us: micros(config.replay_delay),
            spool_limit: Some(config.spool_limit).filter(|limit| *limit < u64::MAX),
        }
    }

    /// When the primary wrote the end of the log before `lsn`, by its wall clock.
    fn wall_at(&self, lsn: Lsn) -> Option<u64> {
        let wall = self.log.trail().wall(lsn).or_else(|| self.log.wall());
        wall.map(WallTime::as_micros)
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
            Part::Waking(_) => Standing::Starting,
            Part::Standby(_) => self.diverged_at().map_or(Standing::Standby, Standing::Diverged),
            Part::Gate => Standing::StartGate(self.waited_for()),
            Part::Candidate(candidate) if candidate.force => Standing::TakingOver,
            Part::Candidate(candidate) => Standing::StartGate(candidate.lacks()),
            Part::Beginning(_) => Standing::TakingOver,
            Part::Leading => Standing::Primary,
            Part::Releasing(_) => Standing::HandingOver,
            Part::Unfit(part) => Standing::Failed(*part),
            Part::Stopping(_) | Part::Stopped => Standing::Stopping,
        }
    }

    /// Whether it is a standby, or becomes one.
    pub(super) fn shows_own_state(&self) -> bool {
        match self.standing {
            Part::Standby(_) => true,
            Part::Waking(_) => self.state.role == Role::Standby,
            _ => false,
        }
    }

    pub(super) fn own_state(&self) -> StandbyState {
        if matches!(self.standing, Part::Waking(_)) {
            StandbyState::LocalCatchup
        } else if self.is_sinking() {
            StandbyState::Resync
        } else if self.peers.values().any(Peer::is_following) {
            if self.follow.peer { StandbyState::Peer } else { StandbyState::RemoteCatchup }
        } else if self.prove().is_ok() {
            StandbyState::DisconnectedPeer
        } else {
            StandbyState::RemoteCatchupPending
        }
    }

    fn peer_status(&self, member: MemberId) -> PeerStatus {
        let now = self.clock.now;
        let peer = self.peers.get(&member);
        let session = peer.and_then(|peer| peer.session.as_ref());
        let feed = peer.and_then(|peer| peer.feed()).filter(|_| self.is_leading());
        let lost_at = peer.and_then(|peer| peer.lost_at);
        let state = peer.and_then(|peer| self.standby_state(peer));
        let window = lost_at.map(|lost| lost.after(self.config.peer_window).since(now));
        let silent = session.map(|session| micros(now.since(session.heard_at)));
        let following = session.is_some_and(|session| matches!(session.phase, Phase::Following));
        let connection = match session {
            None => Connection::Disconnected,
            Some(_) if self.is_congested(member) => Connection::Congested,
            Some(_) => Connection::Connected,
        };
        let since = peer.map_or(now, |peer| peer.session_at);
        let beat = micros(self.config.heartbeat()).max(1);
        PeerStatus {
            member,
            connected: session.is_some(),
            connection,
            connection_us: micros(now.since(since)),
            heartbeats_missed: silent.map_or(0, |silent| silent / beat),
            silent_us: silent,
            state: state.filter(|_| !following),
            in_set: self.blockers().any(|life| life.member == member),
            received: feed.map(|feed| feed.received),
            durable: feed.map(|feed| feed.durable),
            applied: feed.map(|feed| feed.applied),
            received_wall_us: feed.and_then(|feed| self.wall_at(feed.received)),
            applied_wall_us: feed.and_then(|feed| self.wall_at(feed.applied)),
            log_gap: self.log_gap(member).filter(|_| self.is_leading()),
            replay_gap: self.replay_gap(member).filter(|_| self.is_leading()),
            window_us: window.map(micros),
            way: session.and_then(|session| match &session.phase {
                Phase::Sourcing(sourcing) => Some(sourcing.way),
                _ => None,
            }),
            refusal: peer.and_then(|peer| peer.refusal),
        }
    }
}

//! Why a replica is not where its administrator wants it: a code for programs, and a sentence
//! with the way out (design §4).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::peer::{Entry, Phase};
use super::{FailedPart, Node, Part, StandbyState};
use crate::ids::{Lsn, MemberId};
use crate::replica::Mode;
use crate::time::micros;
use crate::wire::Refusal;

/// Which question a reason answers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// Why is it not in peer?
    NotInPeer,
    /// Why is it not primary?
    NotPrimary,
    /// Why does it hold answers, or let nobody in?
    HoldsAnswers,
    /// Why is its image or its log behind?
    Behind,
}

/// One answer. Members are named by number here; who prints it knows their names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reason {
    /// The question.
    pub about: About,
    /// Which other member it is about, if one.
    pub member: Option<MemberId>,
    /// Why.
    pub why: Why,
}

/// The reasons that there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// No session.
    #[error("there is no connection; see that its daemon runs and that its address is reached")]
    NoConnection,
    /// A session, and not more.
    #[error("the two are connected and agree on what to do; this ends by itself")]
    Greeting,
    /// It was refused.
    #[error("{0}")]
    Refused(Refusal),
    /// The log before it is being cut.
    #[error(
        "it saves and cuts a tail of its log that nobody was answered for; this ends by itself"
    )]
    CutsTail,
    /// An operator has asked it to.
    #[error(
        "it goes back to {to} and takes over there by force, as it was asked to; this ends by \
         itself, or with: hadrian takeover --cancel"
    )]
    GoesBack {
        /// To where.
        to: Lsn,
    },
    /// It was interrupted.
    #[error(
        "it was to go back to {to} and take over there, and did not come to lead. It follows \
         nobody until it is told what to do: hadrian takeover --force leads from there, hadrian \
         rejoin gives it up"
    )]
    WentBack {
        /// To where.
        to: Lsn,
    },
    /// A resync is under way.
    #[error(
        "it is brought up by what differs instead of the log; this ends by itself, and status \
         shows how far it is"
    )]
    Resyncs,
    /// Its image is no point of any history.
    #[error(
        "its image is incomplete until a resync in place has come to its end; see that its \
         primary is connected"
    )]
    Incomplete,
    /// Frames of the past are on their way.
    #[error("it catches up and lacks {bytes} bytes of log; this ends by itself")]
    CatchesUp {
        /// How much.
        bytes: u64,
    },
    /// The mode has no peer.
    #[error("superasync never reaches peer; choose another mode with: hadrian mode")]
    Superasync,
    /// Only one standby can.
    #[error(
        "it is an auxiliary standby, always superasync; to let it reach peer, put it first in \
         resource.standbys"
    )]
    Auxiliary,
    /// It was too slow.
    #[error(
        "it took longer than peer_wait_limit and must catch up to {until} first; this ends by \
         itself"
    )]
    TooSlow {
        /// To where.
        until: Lsn,
    },
    /// It is being taken out of the set.
    #[error("it leaves the in-sync set, and enters it again under the new rule by itself")]
    Leaves,
    /// A standby is what it should be.
    #[error("it is a standby; to make it primary: hadrian takeover")]
    IsStandby,
    /// Nobody leads.
    #[error(
        "it is a standby and knows of no primary; start that one, or take over with: hadrian \
         takeover --force, which says first what may be lost"
    )]
    NoPrimary,
    /// It has taken over by itself too often.
    #[error(
        "it is a standby and has taken over by itself as often within an hour as \
         auto_takeover_limit lets it; see why members fall, then: hadrian takeover --force"
    )]
    TakesOverTooOften,
    /// It has taken the resource home too often.
    #[error(
        "it is the resource's home and has taken it as often within an hour as \
         auto_takeover_limit lets it; see why this member falls, then: hadrian takeover"
    )]
    GoesHomeTooOften,
    /// The start gate.
    #[error(
        "it was primary and waits until it hears this member, which may have later writes; start \
         that one, or go on without it: hadrian start --primary --force"
    )]
    Gate,
    /// The start gate, before the record was read.
    #[error("it waits until the control record can be read; see that the marks are reached")]
    NoRecord,
    /// It collects promises.
    #[error("it is about to lead; this ends by itself")]
    TakingOver,
    /// Its history parted.
    #[error(
        "it has applied writes from {fork} on that the primary's history does not have; nothing \
         was discarded: hadrian rejoin brings it back and saves what is its own first, or make \
         it primary by force"
    )]
    Diverged {
        /// Where.
        fork: Lsn,
    },
    /// A part of it failed.
    #[error("its {} failed for good; see the log, mend the disk, and start it again", .0.name())]
    Failed(FailedPart),
    /// It stops.
    #[error("it stops; start it with: hadrian start")]
    Stops,
    /// It starts.
    #[error("it is just starting; this ends by itself")]
    Starts,
    /// The peer window runs.
    #[error(
        "it lost this in-sync standby and holds answers until that is back, or for {:?} more at \
         most; this ends by itself", Duration::from_millis(.us / 1000)
    )]
    PeerWindow {
        /// How long.
        us: u64,
    },
    /// The window is over.
    #[error(
        "the peer window is over and on_window_end is \"hold\"; bring this standby back, or go on \
         without it: hadrian start --primary --force"
    )]
    HoldsOn,
    /// A standby is connected and has not answered yet.
    #[error("it waits for this standby, which is {bytes} bytes behind; peer_wait_limit bounds it")]
    WaitsFor {
        /// How much it lacks.
        bytes: u64,
    },
    /// The record is to be changed first.
    #[error("it waits until the control record takes a change; see that the marks are reached")]
    RecordPending,
    /// Its lease has ended, or is about to.
    #[error(
        "it reaches neither the marks nor every in-sync standby, so it has no right to serve; see \
         that one of them is reached; this ends by itself then"
    )]
    NoLease,
    /// A handover.
    #[error(
        "it hands over to this member, and clients go on there, or here if that fails; this ends \
         by itself"
    )]
    HandsOver,
    /// The driver brings the rest of the log into memory or the image first.
    #[error(
        "it leads, and lets clients in when {bytes} bytes more of its log are applied; this ends \
         by itself"
    )]
    Opening {
        /// How much is left.
        bytes: u64,
    },
    /// The driver has no room for more.
    #[error(
        "its log or its memory is full until more of it is applied; this ends by itself, and a \
         larger log_size or a faster backing store keeps it from coming back"
    )]
    LogFull,
    /// The spool.
    #[error(
        "it has received {bytes} bytes that are not applied, as much as spool_limit lets it, and \
         takes no more until some are; this ends by itself"
    )]
    SpoolFull {
        /// Received and not applied.
        bytes: u64,
    },
    /// The delay.
    #[error(
        "it applies {:?} later than it receives, as replay_delay says; a takeover applies the \
         rest first: see how long that takes with hadrian status", Duration::from_micros(*.us)
    )]
    Delayed {
        /// The delay.
        us: u64,
    },
}

impl Why {
    /// One word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoConnection => "no_connection",
            Self::Greeting => "greeting",
            Self::Refused(refusal) => refusal.code(),
            Self::CutsTail => "cuts_tail",
            Self::GoesBack { .. } => "goes_back",
            Self::WentBack { .. } => "went_back",
            Self::Resyncs => "resyncs",
            Self::Incomplete => "incomplete",
            Self::CatchesUp { .. } => "catches_up",
            Self::Superasync => "superasync",
            Self::Auxiliary => "auxiliary",
            Self::TooSlow { .. } => "too_slow",
            Self::Leaves => "leaves",
            Self::IsStandby => "is_standby",
            Self::NoPrimary => "no_primary",
            Self::TakesOverTooOften => "takes_over_too_often",
            Self::GoesHomeTooOften => "goes_home_too_often",
            Self::Gate => "start_gate",
            Self::NoRecord => "no_record",
            Self::TakingOver => "taking_over",
            Self::Diverged { .. } => "diverged",
            Self::Failed(_) => "failed",
            Self::Stops => "stops",
            Self::Starts => "starts",
            Self::PeerWindow { .. } => "peer_window",
            Self::HoldsOn => "holds_on",
            Self::WaitsFor { .. } => "waits_for",
            Self::RecordPending => "record_pending",
            Self::NoLease => "no_lease",
            Self::HandsOver => "hands_over",
            Self::Opening { .. } => "opening",
            Self::LogFull => "log_full",
            Self::SpoolFull { .. } => "spool_full",
            Self::Delayed { .. } => "delayed",
        }
    }
}

impl Node {
    /// Everything that keeps this replica from being primary, in peer, or answering.
    #[must_use]
    pub fn reasons(&self) -> Vec<Reason> {
        let mut reasons = self.not_primary();
        if self.is_leading() {
            let members = self.peers.keys();
            let not_in_peer = members.filter_map(|member| {
                let why = self.not_in_peer(*member)?;
                Some(Reason { about: About::NotInPeer, member: Some(*member), why })
            });
            reasons.extend(not_in_peer);
        } else if matches!(self.standing, Part::Standby(_)) {
            reasons.extend(self.own_not_in_peer());
            reasons.extend(self.behind());
        }
        reasons.extend(self.holds());
        reasons
    }

    fn not_primary(&self) -> Vec<Reason> {
        let follows = self.peers.values().find(|peer| peer.is_following());
        let follows = follows.map(|peer| peer.member);
        let (member, why) = match &self.standing {
            Part::Leading | Part::Releasing(_) => return Vec::new(),
            Part::Waking(_) => (None, Why::Starts),
            Part::Standby(_) if !self.is_complete() => (None, Why::Incomplete),
            Part::Standby(_) if self.back.is_some() => {
                let to = self.goes_back_to().map(|to| to.lsn).unwrap_or_default();
                (None, Why::GoesBack { to })
            }
            Part::Standby(_) if self.is_sinking() => (None, Why::Resyncs),
            Part::Standby(_) if self.follow.cutting => (None, Why::CutsTail),
            Part::Standby(_) if self.went_back().is_some() => {
                let to = self.went_back().map(|went| went.to.lsn).unwrap_or_default();
                (None, Why::WentBack { to })
            }
            Part::Standby(_) => match (self.follow.diverged, follows) {
                (Some(fork), _) => (None, Why::Diverged { fork }),
                (None, Some(_)) if self.goes_home_too_often() => (None, Why::GoesHomeTooOften),
                (None, Some(primary)) => (Some(primary), Why::IsStandby),
                (None, None) if self.takes_over_too_often() => (None, Why::TakesOverTooOften),
                (None, None) => (None, Why::NoPrimary),
            },
            Part::Gate if self.gate_needs().is_none() => (None, Why::NoRecord),
            Part::Candidate(_) if !self.lease_holds() => (None, Why::NoLease),
            Part::Gate | Part::Candidate(_) if !self.waited_for().is_empty() => {
                let waits = self.waited_for().into_iter().map(|member| Reason {
                    about: About::NotPrimary,
                    member: Some(member),
                    why: Why::Gate,
                });
                return waits.collect();
            }
            Part::Gate | Part::Candidate(_) | Part::Beginning(_) => (None, Why::TakingOver),
            Part::Unfit(part) => (None, Why::Failed(*part)),
            Part::Stopping(_) | Part::Stopped => (None, Why::Stops),
        };
        vec![Reason { about: About::NotPrimary, member, why }]
    }

    /// Members whose word keeps this one from leading.
    pub(super) fn waited_for(&self) -> Vec<MemberId> {
        let connected = self.connected();
        match &self.standing {
            Part::Gate => {
                let needs = self.gate_needs().unwrap_or_default();
                needs.into_iter().filter(|member| !connected.contains(member)).collect()
            }
            Part::Candidate(candidate) if !candidate.force => candidate.lacks(),
            _ => Vec::new(),
        }
    }

    fn not_in_peer(&self, member: MemberId) -> Option<Why> {
        let peer = self.peers.get(&member)?;
        let Some(session) = &peer.session else { return Some(Why::NoConnection) };
        if let Some(refusal) = peer.refusal {
            return Some(Why::Refused(refusal));
        }
        let feed = match &session.phase {
            Phase::Feeding(feed) => feed,
            Phase::Sourcing(_) => return Some(Why::Resyncs),
            _ => return Some(Why::Greeting),
        };
        let bytes = self.log.end().lsn.since(feed.received);
        match feed.entry {
            Entry::Peer => None,
            _ if peer.leaving => Some(Why::Leaves),
            _ => Some(match (self.mode_of(member), peer.must_reach) {
                (Mode::Superasync, _) if self.state.mode != Mode::Superasync => Why::Auxiliary,
                (Mode::Superasync, _) => Why::Superasync,
                (_, Some(until)) => Why::TooSlow { until },
                (_, None) => Why::CatchesUp { bytes },
            }),
        }
    }

    fn own_not_in_peer(&self) -> Option<Reason> {
        let follows = self.peers.values().find(|peer| peer.is_following());
        let bytes = self.follow.primary_end.since(self.log.end().lsn);
        let refused = self.peers.values().find_map(|peer| Some((peer.member, peer.refusal?)));
        let (member, why) = match (follows, refused) {
            _ if self.own_state() == StandbyState::Peer => return None,
            (Some(primary), _) if self.state.mode == Mode::Superasync => {
                (primary.member, Why::Superasync)
            }
            (Some(primary), _) => (primary.member, Why::CatchesUp { bytes }),
            (None, _) if self.is_sinking() => {
                let sinking = |peer: &&super::peer::Peer| {
                    peer.session.as_ref().is_some_and(|open| open.phase.is_sinking())
                };
                let member = self.peers.values().find(sinking).map(|peer| peer.member);
                return Some(Reason { about: About::NotInPeer, member, why: Why::Resyncs });
            }
            (None, Some((member, refusal))) => (member, Why::Refused(refusal)),
            (None, None) => {
                let silent = self.peers.values().find(|peer| peer.session.is_none())?;
                (silent.member, Why::NoConnection)
            }
        };
        Some(Reason { about: About::NotInPeer, member: Some(member), why })
    }

    /// What keeps a standby's image or log behind on purpose. Whoever may take over says so, in
    /// every mode, because a takeover has to apply the rest first (design §4).
    fn behind(&self) -> Vec<Reason> {
        let delay = self.config.replay_delay;
        let delayed = (!delay.is_zero()).then_some(Why::Delayed { us: micros(delay) });
        let bytes = self.log.end().lsn.since(self.log.applied());
        let full = (!self.takes_frames()).then_some(Why::SpoolFull { bytes });
        let whys = delayed.into_iter().chain(full);
        whys.map(|why| Reason { about: About::Behind, member: None, why }).collect()
    }

    fn holds(&self) -> Vec<Reason> {
        let about = About::HoldsAnswers;
        if let Part::Releasing(releasing) = &self.standing {
            return vec![Reason { about, member: Some(releasing.to), why: Why::HandsOver }];
        }
        if self.is_leading() && self.is_gate_shut() {
            return vec![Reason { about, member: None, why: Why::NoLease }];
        }
        if !self.is_leading() || self.oldest_wait().is_none() {
            return Vec::new();
        }
        let held_by = |member: MemberId| {
            let peer = self.peers.get(&member)?;
            let left = peer.lost_at.map(|at| at.after(self.config.peer_window));
            Some(match (left, peer.feed()) {
                (Some(_), _) if peer.held_on => Why::HoldsOn,
                (Some(end), _) => Why::PeerWindow { us: micros(end.since(self.clock.now)) },
                (None, Some(feed)) => {
                    Why::WaitsFor { bytes: self.log.end().lsn.since(feed.received) }
                }
                (None, None) => Why::RecordPending,
            })
        };
        let blockers = self.blockers();
        let reasons = blockers.filter_map(|life| {
            Some(Reason { about, member: Some(life.member), why: held_by(life.member)? })
        });
        reasons.collect()
    }
}

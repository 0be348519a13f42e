//! How far a takeover is, on either side (design §6.1).

use serde::{Deserialize, Serialize};

use super::handover::Step;
use super::{Action, Node, Note, Part};
use crate::ids::MemberId;

/// What a takeover waits for at the moment, in the order in which these follow each other.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TakeoverPhase {
    /// The standby comes near enough to the primary; clients are served.
    CatchingUp {
        /// What it lacks.
        bytes: u64,
    },
    /// The primary was asked to hand over.
    Asked,
    /// The old primary holds its clients and drains what it has taken from them.
    Holding,
    /// The handover is in the log and becomes durable on both sides.
    Draining {
        /// What the standby still lacks of it.
        bytes: u64,
    },
    /// The old primary records that it is a standby; from here on there is no way back.
    Releasing,
    /// The promises of these members are on their way.
    Promises(Vec<MemberId>),
    /// A later tail is fetched from this member.
    Fetching(MemberId),
    /// The own log becomes durable, or the control record decides.
    Deciding,
    /// The first frame of the epoch becomes durable.
    Beginning,
}

impl TakeoverPhase {
    /// One word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::CatchingUp { .. } => "catching_up",
            Self::Asked => "asked",
            Self::Holding => "holding",
            Self::Draining { .. } => "draining",
            Self::Releasing => "releasing",
            Self::Promises(_) => "promises",
            Self::Fetching(_) => "fetching",
            Self::Deciding => "deciding",
            Self::Beginning => "beginning",
        }
    }

    /// The sentence for people, where `name` says what they call a member.
    #[must_use]
    pub fn in_words(&self, name: &dyn Fn(MemberId) -> String) -> String {
        match self {
            Self::CatchingUp { bytes } => {
                format!("takeover: it catches up first and lacks {bytes} bytes of log")
            }
            Self::Asked => "takeover: the primary was asked to hand over".into(),
            Self::Holding => "handover: clients are held".into(),
            Self::Draining { bytes } => {
                format!("handover: clients are held, and the standby lacks {bytes} bytes of log")
            }
            Self::Releasing => "handover: this member becomes a standby; no way back".into(),
            Self::Promises(members) => {
                let who: Vec<_> = members.iter().map(|member| name(*member)).collect();
                format!("it is about to lead and waits for the promise of {}", who.join(", "))
            }
            Self::Fetching(member) => {
                format!("it is about to lead and fetches later writes from {}", name(*member))
            }
            Self::Deciding => "it is about to lead, when its log is durable".into(),
            Self::Beginning => "its epoch begins, when the first frame of it is durable".into(),
        }
    }
}

impl Node {
    /// People hear of each phase once, when it begins; how much is left is in the status.
    pub(super) fn settle_phase(&mut self) {
        let phase = self.takeover_phase();
        let code = phase.as_ref().map(TakeoverPhase::code);
        if std::mem::replace(&mut self.phase_told, code) != code
            && let Some(phase) = phase
        {
            self.out.push_back(Action::Note(Note::Phase(phase)));
        }
    }

    /// The phase of the takeover that this member takes part in.
    pub(super) fn takeover_phase(&self) -> Option<TakeoverPhase> {
        Some(match &self.standing {
            Part::Standby(Some(asking)) if asking.asked.is_none() => {
                let bytes = self.follow.primary_end.since(self.log.end().lsn);
                TakeoverPhase::CatchingUp { bytes }
            }
            Part::Standby(Some(_)) => TakeoverPhase::Asked,
            Part::Releasing(releasing) => match releasing.step {
                Step::Holding => TakeoverPhase::Holding,
                Step::Draining(end) => {
                    let feed = self.peers.get(&releasing.to).and_then(|peer| peer.feed());
                    let durable = feed.map(|feed| feed.durable).unwrap_or_default();
                    TakeoverPhase::Draining { bytes: end.since(durable) }
                }
                Step::Recording => TakeoverPhase::Releasing,
            },
            Part::Candidate(candidate) => match (candidate.fetching, candidate.waits_for()) {
                (Some(member), _) => TakeoverPhase::Fetching(member),
                (None, waits) if waits.is_empty() => TakeoverPhase::Deciding,
                (None, waits) => TakeoverPhase::Promises(waits),
            },
            Part::Beginning(_) => TakeoverPhase::Beginning,
            _ => return None,
        })
    }
}

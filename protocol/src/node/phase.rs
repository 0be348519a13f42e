//! How far a takeover is, on either side (design §6.1).

use serde::{Deserialize, Serialize};

use super::handover::Step;
use super::{Node, Part};
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

impl Node {
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

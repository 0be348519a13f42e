//! Bringing up a standby that the log alone cannot (design §8), and giving up log that a standby
//! lacks (design §2.6).
//!
//! | room | what happens there |
//! |---|---|
//! | `sink` | a standby's side: asking, standing still, going over to the landing |
//! | `source` | a primary's side: which way, holding its image, telling the landing |
//! | `verify` | comparing images piece by piece, each at one position, and repairing them |
//! | `schedule` | comparisons that nobody asks for |
//! | `seed` | an image that is written into a file, and held for the last of it |
//! | `retention` | the log before a checkpoint: into dirty maps first, then away |
//!
//! The data goes between the drivers of the two, past the core. The one step that counts is the
//! switch: a single write of the superblock makes the landing the standby's checkpoint. Before it
//! the standby is what it was, and can be taken over by force at its old point; after it, opening
//! the replica finishes what a crash interrupts.

mod retention;
mod schedule;
mod seed;
mod sink;
mod source;
mod verify;

pub(super) use retention::Retention;
pub use schedule::VerifyPlan;
pub(super) use seed::Seeding;
pub(super) use sink::Sinking;
pub(super) use source::Sourcing;
pub(super) use verify::Verify;
pub use verify::{VerifyState, VerifyStatus};

use super::peer::{Peer, Phase};
use super::{Action, Node};
use crate::ids::SessionId;

/// What the driver has open for resyncs.
#[derive(Clone, Debug, Default)]
pub(super) struct Resync {
    /// The session that a sink was begun for.
    sink: Option<SessionId>,
    /// Those that sources were begun for.
    sources: Vec<SessionId>,
    /// The session for which this standby's image is compared.
    compared: Option<SessionId>,
    /// The replica goes over to its landing: its log is no log until that is done.
    pub(super) switching: bool,
    /// What was staged is no longer needed, as soon as the superblock knows it.
    pub(super) staged_before: bool,
}

impl Resync {
    /// Whether this standby's image is compared with its primary's at the moment.
    pub(super) fn is_compared(&self) -> bool {
        self.compared.is_some()
    }

    /// Opening the replica has finished a switch that a crash interrupted, or not.
    pub(super) fn new(staged_before: bool) -> Self {
        Self { staged_before, ..Self::default() }
    }
}

impl Node {
    /// What a resync is for ends with its session, or when this member plays another part: then
    /// the driver drops what it has open for it.
    pub(super) fn settle_resync(&mut self) {
        self.settle_sink();
        self.settle_sources();
        self.settle_seed();
        self.settle_schedule();
        self.settle_verify();
        self.settle_compared();
        let ended = |session| !self.session(session).is_some_and(|s| s.phase.is_sinking());
        if self.resync.sink.is_some_and(ended) {
            self.resync.sink = None;
            self.out.push_back(Action::EndSink);
        }
        let Self { resync, peers, out, .. } = self;
        let sourced = |session: SessionId| {
            let mut open = peers.values().filter_map(|peer: &Peer| peer.session.as_ref());
            open.any(|open| open.id == session && matches!(open.phase, Phase::Sourcing(_)))
        };
        resync.sources.retain(|session| {
            let stays = sourced(*session);
            if !stays {
                out.push_back(Action::EndSource { session: *session });
            }
            stays
        });
    }

    /// Whether the image has to come to rest: a resync waits for that.
    pub(super) fn image_is_to_rest(&self) -> bool {
        let mut phases = self.peers.values().filter_map(|peer| Some(&peer.session.as_ref()?.phase));
        self.resync.switching
            || self.goes_back_to().is_some()
            || self.seed_wants_rest()
            || phases.any(|phase| match phase {
                Phase::Sinking(_) => true,
                Phase::Sourcing(sourcing) => sourcing.wants_rest(),
                _ => false,
            })
    }

    /// Whether this standby is brought up otherwise than by the log.
    pub(super) fn is_sinking(&self) -> bool {
        let mut open = self.peers.values().filter_map(|peer| peer.session.as_ref());
        self.resync.switching || open.any(|open| open.phase.is_sinking())
    }

    /// Whether something is under way that counts on the sizes of the volumes.
    pub(super) fn counts_on_sizes(&self) -> bool {
        self.is_sinking()
            || self.resync.sink.is_some()
            || self.resync.compared.is_some()
            || !self.resync.sources.is_empty()
            || self.seeding.is_some()
            || self.is_comparing()
            || self.follow.cutting
    }

    /// Whether nothing is on its way into the image, and nothing will be while that is wanted.
    pub(super) fn image_rests(&self) -> bool {
        self.log.applied() == self.state.apply_limit
    }
}

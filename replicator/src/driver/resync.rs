//! Resyncs: what the core decides goes to the disks, what the disks say to the other side goes
//! past the core (design §8).

use std::time::Duration;

use hadrian_blockdev::replica::ReplicaEvent;
use hadrian_protocol::ids::{MemberId, SessionId};
use hadrian_protocol::node::{Action, Event};
use hadrian_protocol::resync::{CopyProgress, Numbered};
use hadrian_protocol::time::{Now, micros};
use hadrian_protocol::wire::Message;
use serde::{Deserialize, Serialize};

use super::resource::{Inner, Shared};

/// A resync on this side, as long as there is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copies {
    session: SessionId,
    /// Who is brought up; none where that is this member.
    member: Option<MemberId>,
    began: Now,
}

/// How far a resync is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CopyStatus {
    /// Who is brought up by this member; none where that is this one.
    pub member: Option<MemberId>,
    /// How far it is.
    pub progress: CopyProgress,
    /// Microseconds since it began.
    pub since_us: u64,
}

/// A request that is seen so soon after the thread has done something had come meanwhile.
const SEEN_AT_ONCE: Duration = Duration::from_micros(30);

impl Shared {
    /// The time, where a resync has to know what it takes from clients.
    pub(super) fn stopwatch(&self) -> Option<Now> {
        let inner = self.inner.try_borrow().ok()?;
        inner.replica.is_source().then(|| inner.clock().now)
    }

    /// The thread has done one thing without a look at its sockets since `began`.
    pub(super) fn was_busy(&self, began: Option<Now>) {
        if let (Some(began), Some(now)) = (began, self.stopwatch()) {
            self.busy.set((began, now));
        }
    }

    /// Since when a request has waited that is seen now: it lay in its socket while the thread did
    /// something else.
    pub(super) fn when_asked(&self, now: Now) -> Now {
        let (began, ended) = self.busy.get();
        if now.since(ended) <= SEEN_AT_ONCE { began } else { now }
    }

    /// The data of a resync; whether it makes sense.
    pub(super) fn copying(&self, session: SessionId, copying: Numbered) -> bool {
        let mut inner = self.inner.borrow_mut();
        // What the core was told before may be what begins to listen to this: whoever asks has
        // nobody to answer otherwise, and waits until it gives up.
        inner.run_node();
        let copied = inner.replica.copying(session.get(), copying);
        drop(inner);
        self.heard(session, Message::Alive);
        if let Err(error) = &copied {
            tracing::warn!(session = session.get(), %error, "the data of a resync is refused");
        }
        copied.is_ok()
    }
}

impl Inner {
    /// Carries out what the core wants of a resync.
    pub(super) fn resync(&mut self, action: Action) {
        let now = self.clock().now;
        let replica = &mut self.replica;
        let begin = |session, member| Copies { session, member, began: now };
        match action {
            Action::Source { session, scope } => {
                if self.is_seed(session.get()) {
                    self.replica.source(session.get(), scope);
                    return self.seed_begun();
                }
                self.copies.push(begin(session, Some(scope.map_of)));
                self.replica.source(session.get(), scope);
            }
            Action::FinishSource { session } => replica.finish_source(session.get()),
            Action::SeedEnded { why, .. } => self.seed_failed(why.to_string()),
            Action::EndSource { session } => {
                if let Some(CopyProgress { sent, done, .. }) = replica.copy_progress(session.get())
                {
                    let (resource, looked_at_bytes) = (&self.name, done);
                    tracing::info!(%resource, looked_at_bytes, sent_bytes = sent, "a copy ends");
                }
                self.copies.retain(|copies| copies.session != session);
                replica.end_source(session.get());
            }
            Action::Sink { session, takes, apart } => {
                self.copies.push(begin(session, None));
                replica.sink(session.get(), takes, apart);
            }
            Action::FinishSink { session, said } => replica.finish_sink(session.get(), said),
            Action::EndSink => {
                self.copies.retain(|copies| copies.member.is_some());
                replica.end_sink();
            }
            Action::SwitchImage(at) => replica.switch_image(at),
            Action::Rewind(to) => replica.rewind(to),
            Action::EndRewind => replica.end_rewind(),
            Action::DropStaging => replica.drop_staging(),
            Action::Fold { peer, from, to } => replica.fold(peer, from, to),
            Action::BeginCompare { session, right } => replica.begin_compare(session.get(), right),
            Action::Compare { session } => replica.compare(session.get()),
            Action::EndCompare { session } => replica.end_compare(session.get()),
            Action::AnswerCompare { session } => replica.answer_compare(session.get()),
            Action::EndAnswers { session } => replica.end_answers(session.get()),
            _ => {}
        }
    }

    /// What the disks have done for a resync, as the core hears it.
    pub(super) fn resync_event(&mut self, event: ReplicaEvent) -> Option<Event> {
        Some(match event {
            ReplicaEvent::Copying { id, message } => {
                if self.is_seed(id) {
                    self.seed_heard(message);
                    return None;
                }
                if let Some(link) = self.links.get(&SessionId::new(id)) {
                    link.send(&Message::Copying(message));
                }
                return None;
            }
            ReplicaEvent::SourceNearEnd { id } => {
                Event::SourceNearEnd { session: SessionId::new(id) }
            }
            ReplicaEvent::SourceDone { id, at, said } => {
                if self.is_seed(id) {
                    self.seed_sent(at);
                }
                Event::SourceDone { session: SessionId::new(id), at, said }
            }
            ReplicaEvent::SourceFailed { id, error } if self.is_seed(id) => {
                self.seed_failed(error.to_string());
                return None;
            }
            ReplicaEvent::SourceFailed { id, error } => {
                tracing::error!(resource = %self.name, %error, "a standby cannot be brought up");
                Event::SourceFailed { session: SessionId::new(id) }
            }
            ReplicaEvent::SinkDone { id, result } => {
                if let Err(error) = &result {
                    tracing::error!(resource = %self.name, %error, "a resync came to nothing");
                }
                Event::SinkDone { session: SessionId::new(id), whole: result.is_ok() }
            }
            ReplicaEvent::Rewound(result) => {
                if let Err(error) = &result {
                    tracing::error!(resource = %self.name, %error, "the image does not go back");
                }
                Event::Rewound { whole: result.is_ok() }
            }
            ReplicaEvent::Switched(at) => Event::Switched(at),
            ReplicaEvent::Folded { peer, span } => Event::Folded { peer, span },
            ReplicaEvent::Compared { id, done, total, differs, repaired } => {
                let session = SessionId::new(id);
                Event::Compared { session, done, total, differs, repaired }
            }
            ReplicaEvent::CompareFailed { id, error } => {
                tracing::error!(resource = %self.name, %error, "the images cannot be compared");
                Event::SourceFailed { session: SessionId::new(id) }
            }
            _ => return None,
        })
    }

    /// How far the resyncs are in which this member takes part.
    pub(super) fn copy_status(&self) -> Vec<CopyStatus> {
        let now = self.clock().now;
        let status = |copies: &Copies| {
            let progress = self.replica.copy_progress(copies.session.get())?;
            let since_us = micros(now.since(copies.began));
            Some(CopyStatus { member: copies.member, progress, since_us })
        };
        self.copies.iter().filter_map(status).collect()
    }
}

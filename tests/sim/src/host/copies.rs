//! Resyncs and growths of a process: what its core decides goes to its replica, and what that has
//! done to the core and the oracle.

use hadrian_blockdev::replica::ReplicaEvent;
use hadrian_protocol::ids::{MemberId, SessionId};
use hadrian_protocol::node::{Action, Event};
use hadrian_protocol::resync::Numbered;
use hadrian_protocol::wire::Message;

use super::{BLOCK, Outward, Process};
use crate::oracle::Oracle;

impl Process {
    /// Carries out what the core wants of a resync or a growth.
    pub(super) fn resync(&mut self, member: MemberId, action: Action, oracle: &mut Oracle) {
        match action {
            Action::Source { session, scope } => {
                self.replica.source(session.get(), scope);
                if self.is_export(session.get()) {
                    self.answer_source(oracle);
                }
            }
            Action::SeedEnded { .. } => self.end_export(),
            Action::FinishSource { session } => self.replica.finish_source(session.get()),
            Action::EndSource { session } => self.replica.end_source(session.get()),
            Action::Sink { session, takes, apart } => {
                self.replica.sink(session.get(), takes, apart);
            }
            Action::FinishSink { session, said } => {
                self.replica.finish_sink(session.get(), said);
            }
            Action::EndSink => self.replica.end_sink(),
            Action::SwitchImage(at) => self.replica.switch_image(at),
            Action::Rewind(to) => self.replica.rewind(to),
            Action::EndRewind => self.replica.end_rewind(),
            Action::DropStaging => self.replica.drop_staging(),
            Action::Fold { peer, from, to } => self.replica.fold(peer, from, to),
            Action::BeginCompare { session, right } => {
                self.replica.begin_compare(session.get(), right);
            }
            Action::Compare { session } => {
                oracle.compares(member, self.apply_asked);
                self.replica.compare(session.get());
            }
            Action::EndCompare { session } => self.replica.end_compare(session.get()),
            Action::AnswerCompare { session } => self.replica.answer_compare(session.get()),
            Action::EndAnswers { session } => self.replica.end_answers(session.get()),
            Action::MakeRoom(volumes) => self.replica.make_room(&volumes),
            Action::Resize(volumes) => self.replica.resize(&volumes),
            Action::Offer(volumes) => {
                oracle.offers(member, &volumes);
                self.offered = super::process::blocks(&volumes);
            }
            other => unreachable!("everything else is carried out elsewhere: {other:?}"),
        }
    }

    /// What the replica has done for a resync, as the core hears it.
    pub(super) fn resync_event(
        &mut self,
        member: MemberId,
        event: ReplicaEvent,
        oracle: &mut Oracle,
    ) -> Option<Event> {
        Some(match event {
            ReplicaEvent::Copying { id, message } if self.is_export(id) => {
                self.export_hears(message, oracle);
                return None;
            }
            ReplicaEvent::Copying { id, message } => {
                self.out.push(Outward::Send(SessionId::new(id), Message::Copying(message)));
                return None;
            }
            ReplicaEvent::SourceNearEnd { id } => {
                Event::SourceNearEnd { session: SessionId::new(id) }
            }
            ReplicaEvent::SourceDone { id, at, said } => {
                if self.is_export(id) {
                    self.exported(member, at, oracle);
                }
                Event::SourceDone { session: SessionId::new(id), at, said }
            }
            ReplicaEvent::SourceFailed { id, .. } => {
                if self.is_export(id) {
                    self.end_export();
                }
                Event::SourceFailed { session: SessionId::new(id) }
            }
            ReplicaEvent::SinkDone { id, result } => {
                Event::SinkDone { session: SessionId::new(id), whole: result.is_ok() }
            }
            ReplicaEvent::Rewound(result) => Event::Rewound { whole: result.is_ok() },
            ReplicaEvent::Switched(at) => {
                self.apply_asked = at.lsn;
                let image = self.image();
                oracle.switched(member, at, &image);
                Event::Switched(at)
            }
            ReplicaEvent::Folded { peer, span } => Event::Folded { peer, span },
            ReplicaEvent::Compared { id, done, total, differs, repaired } => {
                oracle.compared(member, &differs, repaired);
                let session = SessionId::new(id);
                Event::Compared { session, done, total, differs, repaired }
            }
            ReplicaEvent::CompareFailed { id, .. } => {
                Event::SourceFailed { session: SessionId::new(id) }
            }
            other => unreachable!("everything else is heard elsewhere: {other:?}"),
        })
    }

    /// The data of a resync that came over a session. `false`: it makes no sense.
    pub(super) fn copying(&mut self, session: SessionId, copying: Numbered) -> bool {
        self.replica.copying(session.get(), copying).is_ok()
    }

    /// The volume, which its store may be larger than.
    pub(crate) fn image(&self) -> Vec<u8> {
        super::image_of(&self.disk, super::process::blocks(&self.node.state().volumes) * BLOCK)
    }
}

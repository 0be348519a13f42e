//! What the cores ask for, done at once or left to a move of its own.

use hadrian_protocol::frame::LogPosition;
use hadrian_protocol::ids::{Lsn, SessionId};
use hadrian_protocol::node::{Action, Event, Node};
use hadrian_protocol::resync::Span;

use super::cluster::{Cluster, Parcel, Want};
use crate::plan::Host as Index;

impl Cluster {
    /// Carries out everything that a core asks for.
    pub(super) fn act(&mut self, index: Index) {
        while let Some(action) = self.host(index).node.as_mut().and_then(Node::next_action) {
            self.carry_out(index, action);
        }
    }

    /// An event that comes with the action itself.
    fn at_once(&mut self, index: Index, event: Event) {
        let clock = self.clock;
        if let Some(node) = &mut self.host(index).node {
            node.handle(clock, event);
            node.settle(clock);
        }
    }

    fn carry_out(&mut self, index: Index, action: Action) {
        match action {
            Action::Send { session, message } => {
                self.says(index, &message);
                self.post(session, Parcel::Message(message));
            }
            Action::Ship { session, frame } => {
                let lsn = frame.end();
                self.post(session, Parcel::Frame(frame));
                self.at_once(index, Event::Handed { session, lsn });
            }
            Action::Close { session } => self.close(index, session),
            Action::Append(frame) => {
                let lsn = frame.end();
                self.host(index).frames.push(frame);
                self.at_once(index, Event::Written(lsn));
            }
            Action::SyncLog => {
                let host = self.host(index);
                host.syncing = host.frames.last().map(|frame| frame.end());
            }
            Action::Persist { number, state } => {
                self.host(index).persisting = Some((number, *state));
            }
            Action::Apply(lsn) => self.applies(index, lsn),
            Action::Checkpoint => {
                let applied = self.host(index).applied;
                self.at_once(index, Event::Checkpointed(applied));
            }
            Action::ReadLog { session, from } => {
                let frames = self.host(index).frames.iter().filter(|frame| frame.lsn() >= from);
                let frames = frames.cloned().collect();
                self.at_once(index, Event::LogRead { session, frames });
            }
            Action::Truncate(point) => self.truncates(index, point),
            Action::ReadRecord => self.wants(index, Want::Read),
            Action::Propose(record) => self.wants(index, Want::Change(record)),
            Action::Hold(true) => self.at_once(index, Event::Held),
            Action::Note(note) => self.notes(index, &note),
            Action::Fold { peer, from, to } => {
                let span = Some(Span { since: from.unwrap_or(to), to });
                self.at_once(index, Event::Folded { peer, span });
            }
            // No resync comes to its end here; the simulator has them.
            Action::Source { .. }
            | Action::FinishSource { .. }
            | Action::EndSource { .. }
            | Action::Sink { .. }
            | Action::FinishSink { .. }
            | Action::EndSink
            | Action::SwitchImage(_)
            | Action::Rewind(_)
            | Action::EndRewind
            | Action::DropStaging
            | Action::BeginCompare { .. }
            | Action::Compare { .. }
            | Action::EndCompare { .. }
            | Action::AnswerCompare { .. }
            | Action::EndAnswers { .. }
            | Action::MakeRoom(_)
            | Action::Resize(_)
            | Action::Offer(_)
            | Action::SeedEnded { .. }
            | Action::ReleaseLog(_)
            | Action::Hold(false)
            | Action::Serve(_)
            | Action::Fence { .. }
            | Action::Announce { .. }
            | Action::Reply { .. }
            | Action::Stopped => {}
        }
    }

    fn post(&mut self, session: SessionId, parcel: Parcel) {
        if let Some(pipe) = self.pipes.values_mut().find(|pipe| pipe.sender == session) {
            pipe.parcels.push_back(parcel);
        }
    }

    /// What was sent before still arrives; what comes in is not taken any more.
    fn close(&mut self, index: Index, session: SessionId) {
        let own = self.pipes.iter().find(|(_, pipe)| pipe.sender == session);
        let Some((from, to)) = own.map(|(way, _)| *way) else { return };
        if let Some(pipe) = self.pipes.get_mut(&(from, to)) {
            pipe.parcels.push_back(Parcel::End);
        }
        self.pipes.remove(&(to, from));
        self.at_once(index, Event::Unlinked { session });
    }

    fn applies(&mut self, index: Index, lsn: Lsn) {
        let host = self.host(index);
        let applied = host.position(lsn);
        host.applied = applied;
        let (durable, limit) = (host.durable, host.state.apply_limit);
        self.truth.demand(applied.lsn <= durable, "§2.2", || {
            format!("{index} applies to {lsn}, durable is {durable}")
        });
        self.truth.demand(applied.lsn <= limit, "§2.5", || {
            format!("{index} applies to {lsn}, recorded is {limit}")
        });
        self.at_once(index, Event::Applied(lsn));
    }

    fn truncates(&mut self, index: Index, point: LogPosition) {
        let host = self.host(index);
        let (applied, before) = (host.applied, host.frames.len());
        host.frames.retain(|frame| frame.end() <= point.lsn);
        let gone = before - host.frames.len();
        host.durable = host.durable.min(point.lsn);
        host.syncing = host.syncing.map(|lsn| lsn.min(point.lsn));
        let end = host.position(Lsn::new(u64::MAX));
        self.truth.demand(applied.lsn <= point.lsn, "I5", || {
            format!("{index} cuts {gone} frames at {}, its image is at {}", point.lsn, applied.lsn)
        });
        self.at_once(index, Event::Truncated(end));
    }

    fn wants(&mut self, index: Index, want: Want) {
        let host = self.host(index);
        host.asks.push_back((host.life, want));
    }

    pub(super) fn log_is_durable(&mut self, index: Index) {
        let host = self.host(index);
        if let Some(lsn) = host.syncing.take() {
            host.durable = host.durable.max(lsn);
            self.tell(index, Event::Durable(lsn));
        }
    }

    pub(super) fn state_is_durable(&mut self, index: Index) {
        let host = self.host(index);
        if let Some((number, state)) = host.persisting.take() {
            host.state = state;
            self.tell(index, Event::Persisted(number));
        }
    }
}

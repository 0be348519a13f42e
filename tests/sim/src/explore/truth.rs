//! What must be true after every move (design §11).

use std::collections::BTreeMap;
use std::rc::Rc;

use hadrian_protocol::frame::{Began, ChainHash, LogPosition};
use hadrian_protocol::ids::{Epoch, Incarnate, Lsn, MemberId};
use hadrian_protocol::node::Note;
use hadrian_protocol::wire::Message;

use super::cluster::{Cluster, Host};
use crate::plan::Host as Index;

/// What is known from outside.
#[derive(Clone, Debug, Default)]
pub(super) struct Truth {
    /// The first broken truth.
    pub(super) broken: Option<String>,
    /// Which frame was sealed at an epoch and a position (I1).
    sealed: BTreeMap<(Epoch, Lsn), ChainHash>,
    /// Who led in an epoch (I4).
    led: BTreeMap<Epoch, Incarnate>,
    /// Positions up to which somebody has answered, and the set without which it would not have.
    answered: Vec<(LogPosition, Vec<MemberId>)>,
    /// And up to which it has answered a flush: no loss of power takes that away.
    committed: Vec<LogPosition>,
    /// The newest epoch in which a write was answered.
    answered_in: Epoch,
    /// An operator has used force: what was answered may be lost, by the loss table.
    forced: bool,
}

impl Truth {
    /// Epochs in which somebody has served.
    pub(super) fn epochs(&self) -> usize {
        self.led.len()
    }

    pub(super) fn demand(&mut self, holds: bool, rule: &str, what: impl FnOnce() -> String) {
        if !holds && self.broken.is_none() {
            self.broken = Some(format!("{rule}: {}", what()));
        }
    }
}

impl Cluster {
    /// I7 and I8: nothing is said that a crash could undo.
    pub(super) fn says(&mut self, index: Index, message: &Message) {
        let host = self.host(index);
        let (state, durable) = (host.state.clone(), host.durable);
        let (rule, holds) = match message {
            Message::Hello(hello) => {
                ("I7", hello.promised <= state.promised && hello.owned <= state.owned)
            }
            Message::Promised(promised) => ("I7", promised.epoch <= state.promised),
            Message::Lead(lead) => ("I7", lead.epoch <= state.owned),
            Message::Ack(ack) => ("I8", ack.durable <= durable),
            Message::Progress(progress) => ("I8", progress.may_apply <= durable),
            _ => return,
        };
        self.truth
            .demand(holds, rule, || format!("{index} says {message:?}, and it is not durable"));
    }

    /// I7: whoever is followed leads in no epoch below the promise.
    pub(super) fn notes(&mut self, index: Index, note: &Note) {
        if let Note::Follows(_, epoch) = note {
            let promised = self.host(index).state.promised;
            self.truth.demand(*epoch >= promised, "I7", || {
                format!("{index} follows in {epoch}, and it has promised {promised}")
            });
        }
    }

    pub(super) fn check(&mut self) {
        self.check_frames();
        for index in 0..self.hosts.len() as Index {
            self.check_leader(index);
        }
    }

    /// I1.
    fn check_frames(&mut self) {
        let truth = &mut self.truth;
        for frame in self.hosts.iter().flat_map(|host| &host.frames) {
            let before = truth.sealed.insert((frame.epoch(), frame.lsn()), frame.chain());
            truth.demand(before.is_none_or(|chain| chain == frame.chain()), "I1", || {
                format!("two frames at {:?}", (frame.epoch(), frame.lsn()))
            });
        }
    }

    fn check_leader(&mut self, index: Index) {
        let host = &self.hosts[usize::from(index)];
        let Some(node) = host.node.as_ref().filter(|node| node.is_leading()) else {
            return;
        };
        let (life, epoch) = (node.state().life(), node.state().owned);
        // Also where the force began an epoch that its owner did not live to serve in.
        let history = node.state().history.entries();
        let forced = history.iter().any(|entry| entry.began == Began::Forced);
        let answers = node.answers();
        let fresh = self.truth.led.insert(epoch, life);
        self.truth.demand(fresh.is_none_or(|other| other == life), "I4", || {
            format!("{life:?} leads in {epoch}, and so did {fresh:?}")
        });
        self.truth.forced |= forced;
        if fresh.is_none() && !self.truth.forced {
            self.check_nothing_is_lost(index);
            self.check_images(index);
        }
        let committed = self.hosts[usize::from(index)].position(answers.flushes);
        self.check_answers(index, epoch, answers.writes);
        if !self.truth.committed.contains(&committed) {
            self.truth.committed.push(committed);
        }
    }

    /// I3: whoever begins to lead without force has every committed write, and every answered one
    /// that somebody still has who was in the set.
    fn check_nothing_is_lost(&mut self, index: Index) {
        let leader = &self.hosts[usize::from(index)];
        let kept = |position: LogPosition, set: &[MemberId]| {
            let mut of_set = self.hosts.iter().filter(|host| set.contains(&host.state.member));
            of_set.any(|host| host.holds(position))
        };
        let lost = |(position, set): &&(LogPosition, Vec<MemberId>)| {
            !leader.holds(*position) && kept(*position, set)
        };
        let answered = self.truth.answered.iter().find(lost).map(|(position, _)| *position);
        let gone = |position: &&LogPosition| !leader.holds(**position);
        let lost = answered.or(self.truth.committed.iter().find(gone).copied());
        self.truth.demand(lost.is_none(), "I3", || {
            format!("{index} leads without what was answered up to {lost:?}")
        });
    }

    /// I5 and §2.5: every image is a point of the history that is served now.
    fn check_images(&mut self, index: Index) {
        let leader = &self.hosts[usize::from(index)];
        let strange = |host: &&Rc<Host>| !leader.holds(host.applied);
        let strange = self.hosts.iter().find(strange).map(|host| (host.state.member, host.applied));
        self.truth.demand(strange.is_none(), "I5", || {
            format!("{index} leads, and an image is no point of its history: {strange:?}")
        });
    }

    /// I2: an answer is given by the newest owner only, whatever the older ones believe.
    fn check_answers(&mut self, index: Index, epoch: Epoch, answers: Lsn) {
        let host = &self.hosts[usize::from(index)];
        let newest = host.frames.iter().rfind(|frame| frame.end() <= answers);
        let Some(newest) = newest else { return };
        let position = newest.position_after();
        if self.truth.answered.iter().any(|(known, _)| *known == position) {
            return;
        }
        // As it is recorded: whoever is only wished for has promised nothing yet.
        let recorded = self.record.as_ref().map_or(&host.state.in_sync, |record| &record.in_sync);
        let set = recorded.iter().map(|life| life.member).chain([host.state.member]).collect();
        let own = newest.epoch() == epoch && newest.epoch_start().is_none();
        self.truth.answered.push((position, set));
        if own {
            let truth = &mut self.truth;
            let (newer, forced) = (truth.answered_in, truth.forced);
            truth.demand(forced || epoch >= newer, "I2", || {
                format!("{index} answers in {epoch}, and another has answered in {newer}")
            });
            truth.answered_in = newer.max(epoch);
        }
    }
}

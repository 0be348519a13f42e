//! What can happen next, and what it does.

use std::time::Duration;

use hadrian_protocol::frame::{Draft, HEAD_LEN};
use hadrian_protocol::ids::VolumeIndex;
use hadrian_protocol::node::Event;
use hadrian_protocol::range::ByteRange;

use super::cluster::{Cluster, Parcel, Want};
use crate::plan::Host as Index;

/// Longer than the window and every timer.
const LONG: Duration = Duration::from_secs(4);

/// One thing that happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    /// The oldest thing under way from one member to the other arrives.
    Arrives(Index, Index),
    /// A sync of the log comes to its end.
    LogIsDurable(Index),
    /// A write of the superblock comes to its end.
    StateIsDurable(Index),
    /// What a member wants of the control record is done there.
    RecordIsAsked(Index),
    /// It hears what the record says.
    RecordSays(Index),
    /// A lasting silence is noticed: time goes by for this member too.
    TimeIsNoticed(Index),
    /// Two members connect.
    Connect(Index, Index),
    /// Their connection breaks; what was under way is lost, and each notices in its own time.
    Breaks(Index, Index),
    /// The process ends; `true`: what it was writing is written.
    Killed(Index, bool),
    /// The host loses power; `true`: it loses nothing.
    PowerLost(Index, bool),
    /// It is started again.
    Started(Index),
    /// A client writes and flushes.
    Writes(Index),
    /// An operator gives the command with this number.
    Command(Index, usize),
    /// A long time passes.
    Waits,
}

impl Move {
    /// Whether it happens without anybody's doing.
    pub(super) fn is_by_itself(self) -> bool {
        matches!(
            self,
            Self::Arrives(..)
                | Self::LogIsDurable(_)
                | Self::StateIsDurable(_)
                | Self::RecordIsAsked(_)
                | Self::RecordSays(_)
                | Self::TimeIsNoticed(_)
                | Self::Connect(..)
                | Self::Started(_)
        )
    }
}

impl Cluster {
    /// Everything that can happen next.
    pub(super) fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        let busy = self.pipes.iter().filter(|(_, pipe)| !pipe.parcels.is_empty());
        moves.extend(busy.map(|((from, to), _)| Move::Arrives(*from, *to)));
        for index in 0..self.hosts.len() as Index {
            self.moves_of(index, &mut moves);
        }
        // Started and connected is whoever can be, when nothing else goes on.
        moves.sort_by_key(|next| matches!(next, Move::Started(_) | Move::Connect(..)));
        let any_lags = self.hosts.iter().any(|host| host.lags);
        if self.left.waits > 0 && !any_lags {
            moves.push(Move::Waits);
        }
        moves
    }

    /// What a move brings, for people.
    pub(super) fn brings(&self, next: Move) -> String {
        let first = |from, to| self.pipes.get(&(from, to))?.parcels.front();
        match next {
            Move::Arrives(from, to) => first(from, to).map(|parcel| format!("{parcel:?}")),
            Move::RecordSays(index) => {
                self.hosts[usize::from(index)].told.front().map(|event| format!("{event:?}"))
            }
            Move::RecordIsAsked(index) => {
                self.hosts[usize::from(index)].asks.front().map(|ask| format!("{ask:?}"))
            }
            _ => None,
        }
        .unwrap_or_default()
    }

    /// Who stands how, for people.
    pub(super) fn standings(&self) -> String {
        let of = |host: &std::rc::Rc<super::cluster::Host>| {
            let node = host.node.as_ref()?;
            Some(format!("{:?} to {}", node.status().standing, node.log_end()))
        };
        let all = self.hosts.iter().map(|host| of(host).unwrap_or("down".into()));
        all.collect::<Vec<_>>().join(" | ")
    }

    fn moves_of(&self, index: Index, moves: &mut Vec<Move>) {
        let host = &self.hosts[usize::from(index)];
        let mut offer = |holds: bool, next: Move| moves.extend(holds.then_some(next));
        offer(host.asks.front().is_some(), Move::RecordIsAsked(index));
        let Some(node) = &host.node else {
            return offer(true, Move::Started(index));
        };
        offer(host.syncing.is_some(), Move::LogIsDurable(index));
        offer(host.persisting.is_some(), Move::StateIsDurable(index));
        offer(host.told.front().is_some(), Move::RecordSays(index));
        offer(host.lags, Move::TimeIsNoticed(index));
        offer(self.left.writes > 0 && node.is_leading(), Move::Writes(index));
        let writing = host.persisting.is_some();
        offer(self.left.kills > 0, Move::Killed(index, false));
        offer(self.left.kills > 0 && writing, Move::Killed(index, true));
        offer(self.left.powers > 0, Move::PowerLost(index, false));
        offer(self.left.powers > 0, Move::PowerLost(index, true));
        for number in 0..self.setting.commands.len() {
            offer(self.left.commands > 0, Move::Command(index, number));
        }
        for other in index + 1..self.hosts.len() as Index {
            let stands = self.pipes.contains_key(&(index, other));
            let none = !stands && !self.pipes.contains_key(&(other, index));
            let runs = self.hosts[usize::from(other)].node.is_some();
            offer(none && runs, Move::Connect(index, other));
            offer(self.left.cuts > 0 && !none, Move::Breaks(index, other));
        }
    }

    pub(super) fn make(&mut self, next: Move) {
        match next {
            Move::Arrives(from, to) => self.arrives(from, to),
            Move::LogIsDurable(index) => self.log_is_durable(index),
            Move::StateIsDurable(index) => self.state_is_durable(index),
            Move::RecordIsAsked(index) => self.record_is_asked(index),
            Move::RecordSays(index) => {
                if let Some(event) = self.host(index).told.pop_front() {
                    self.tell(index, event);
                }
            }
            Move::TimeIsNoticed(index) => self.tell(index, Event::Tick),
            Move::Connect(a, b) => self.connect(a, b),
            Move::Breaks(a, b) => {
                self.left.cuts -= 1;
                self.breaks(a, b);
            }
            Move::Killed(index, written) => {
                self.left.kills -= 1;
                self.dies(index, written, None);
            }
            Move::PowerLost(index, kept) => {
                self.left.powers -= 1;
                self.dies(index, kept, Some(kept));
            }
            Move::Started(index) => self.start(index),
            Move::Writes(index) => {
                self.left.writes -= 1;
                self.write(index);
            }
            Move::Command(index, number) => {
                self.left.commands -= 1;
                let command = self.setting.commands[number];
                self.tell(index, Event::Command { id: 1, command });
            }
            Move::Waits => {
                self.left.waits -= 1;
                self.clock.now = self.clock.now.after(LONG);
                for index in 0..self.setting.members {
                    let host = self.host(index);
                    host.lags = host.node.is_some();
                }
            }
        }
        self.check();
    }

    /// One parcel, or everything that is under way.
    fn arrives(&mut self, from: Index, to: Index) {
        let Some(pipe) = self.pipes.get(&(from, to)) else { return };
        let session = pipe.session;
        let parcels = if self.setting.batches { pipe.parcels.len() } else { 1 };
        for _ in 0..parcels {
            // What comes in may end the very connection that the rest comes from.
            match self.pipes.get_mut(&(from, to)) {
                Some(pipe) if pipe.session == session => self.one_arrives(from, to),
                _ => return,
            }
        }
    }

    fn one_arrives(&mut self, from: Index, to: Index) {
        let Some(pipe) = self.pipes.get_mut(&(from, to)) else { return };
        let session = pipe.session;
        match pipe.parcels.pop_front() {
            Some(Parcel::Message(message)) => self.tell(to, Event::Heard { session, message }),
            Some(Parcel::Frame(frame)) => self.tell(to, Event::FrameIn { session, frame }),
            Some(Parcel::End) => {
                self.pipes.remove(&(from, to));
                self.tell(to, Event::Unlinked { session });
                // It closes its own end then.
                if let Some(pipe) = self.pipes.get_mut(&(to, from)) {
                    pipe.parcels.retain(|parcel| !matches!(parcel, Parcel::End));
                    pipe.parcels.push_back(Parcel::End);
                }
            }
            None => {}
        }
    }

    fn record_is_asked(&mut self, index: Index) {
        let Some((life, want)) = self.host(index).asks.pop_front() else { return };
        let number = self.record.as_ref().map_or(0, |record| record.number);
        let changes = matches!(want, Want::Change(_));
        if let Want::Change(record) = want
            && record.number == number + 1
        {
            self.record = Some(record);
        }
        let says = self.record.clone();
        let event = if changes { Event::Decided(says) } else { Event::RecordRead(says) };
        let host = self.host(index);
        if host.life == life && host.node.is_some() {
            host.told.push_back(event);
        }
    }

    /// Each write has a content of its own.
    fn write(&mut self, index: Index) {
        let clock = self.clock;
        let content = [self.left.writes + 1 + index * 16; 512];
        let mut draft = Draft::new(vec![0; HEAD_LEN + 4096]);
        let (volume, range) = (VolumeIndex::new(0), ByteRange::new(0, 512));
        let (Some(volume), Ok(range)) = (volume, range) else { return };
        let added = draft.write(volume, range, &content);
        assert!(added.is_ok(), "a fresh frame has room for a block");
        let Some(node) = &mut self.host(index).node else { return };
        if let Some(end) = node.append(clock, draft) {
            self.tell(index, Event::DurableWanted(end));
        }
    }
}

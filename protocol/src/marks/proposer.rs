//! How one member reads and changes one control record: Disk Paxos (Gafni and Lamport, 2003).
//!
//! Every member writes blocks of its own alone. A step writes the own block to a marker and then
//! reads the blocks of all members there; it is done when it is done on a majority of the markers.
//! Two steps decide: one that makes a ballot known, and one that stands for a value in it. Who
//! sees a higher ballot begins again. What was decided is written to a majority once more before
//! anybody is told, and a reader does the same: so nobody ever hears an older record than somebody
//! else has heard before.
//!
//! It is safe whatever time does; that two members do not disturb each other for ever is left to
//! jittered pauses.

use std::time::Duration;

use super::control::{Accepted, Ballot, Control, ControlBlock};
use crate::backoff::Backoff;
use crate::ids::{Incarnation, MemberId, ResourceId};
use crate::record::ControlRecord;
use crate::time::Now;

/// First and longest pause after a higher ballot was seen.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));
/// Pause before a marker that could not be read or written is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// The writer of blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Writer {
    /// The member.
    pub member: MemberId,
    /// The life of its daemon.
    pub incarnation: Incarnation,
    /// Drawn at random for this life.
    pub nonce: u64,
}

/// What the proposer has to say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// What the record holds.
    Read(Option<ControlRecord>),
    /// What it holds after a change was decided.
    Decided(Option<ControlRecord>),
}

/// One marker's part of a step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Job {
    /// Written first, durably; none: the step only reads.
    pub write: Option<ControlBlock>,
}

/// A marker does not hold what this member has written to it last: it has lost writes that it
/// had confirmed, or somebody else writes in this member's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its block {expected} of this member is gone, and block {found} stands there")]
pub struct Overwritten {
    /// The sequence number written last.
    pub expected: u64,
    /// The one found.
    pub found: u64,
}

/// What is done on the markers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// It does not know what its former lives have written.
    Recovering,
    Idle,
    Reading,
    /// Make a ballot known.
    Preparing(Ballot),
    /// Stand for a value in it.
    Accepting(Ballot),
    /// Write down what was decided.
    Teaching,
    /// A higher ballot was seen: begin again then.
    Pausing(Now),
}

/// One marker, as this proposer sees it.
#[derive(Clone, Copy, Debug)]
struct Marker {
    at: At,
    /// The sequence number of the own block that it holds for certain; 0: not known.
    holds: u64,
    /// The step is done there.
    done: bool,
}

/// Where a marker is with the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Rest,
    UnderWay { step: u64, writes: u64 },
    Retrying(Now),
}

/// One member's side of one control record.
#[derive(Clone, Debug)]
pub struct Proposer {
    writer: Writer,
    own: Control,
    /// The block written last; before the first, where its numbers go on from.
    block: ControlBlock,
    /// The number of the newest record that a majority of the markers holds in the own block.
    taught: u64,
    stage: Stage,
    step: u64,
    markers: Vec<Marker>,
    /// The highest ballot of others that this step has seen.
    highest: Option<Ballot>,
    /// What was accepted last, of all that this step has seen.
    best: Option<Accepted>,
    /// Not below any round that was seen.
    round: u32,
    read_wished: bool,
    /// The reads under way began after the wish.
    reading: bool,
    change: Option<ControlRecord>,
    /// The record was read since that was wished.
    looked: bool,
    /// The reads under way began after it was wished.
    looking: bool,
    backoff: Backoff,
    said: Vec<Said>,
}

impl Proposer {
    /// The proposer of a life that has just begun, over so many markers.
    #[must_use]
    pub fn new(resource: ResourceId, writer: Writer, markers: usize) -> Self {
        let Writer { member, incarnation, nonce } = writer;
        let seed = nonce ^ u64::from(member.index());
        let blank = ControlBlock::blank(resource, member);
        Self {
            writer,
            own: Control::default(),
            block: ControlBlock { incarnation, nonce, ..blank },
            taught: 0,
            stage: Stage::Recovering,
            step: 1,
            markers: vec![Marker { at: At::Rest, holds: 0, done: false }; markers],
            highest: None,
            best: None,
            round: 0,
            read_wished: false,
            reading: false,
            change: None,
            looked: false,
            looking: false,
            backoff: Backoff::new(PAUSES.0, PAUSES.1, seed),
            said: Vec::new(),
        }
    }

    /// Asks what the record holds; answered by [`Said::Read`].
    pub fn read(&mut self) {
        self.read_wished = true;
        self.go_on();
    }

    /// Asks for a change; answered by [`Said::Decided`], with this record if it won. One at a
    /// time.
    pub fn change(&mut self, record: ControlRecord) {
        self.change = Some(record);
        (self.looked, self.looking) = (false, false);
        self.go_on();
    }

    /// What to do on `marker` now, which does nothing else for this proposer; answered by
    /// [`Proposer::done`] or [`Proposer::failed`].
    pub fn job(&mut self, marker: usize) -> Option<Job> {
        let idle = matches!(self.stage, Stage::Idle | Stage::Pausing(_));
        let reads = matches!(self.stage, Stage::Recovering | Stage::Reading);
        let marker = self.markers.get_mut(marker)?;
        if idle || marker.done || marker.at != At::Rest {
            return None;
        }
        let write = (!reads).then(|| self.block.clone());
        let writes = write.as_ref().map_or(0, |block| block.sequence);
        marker.at = At::UnderWay { step: self.step, writes };
        Some(Job { write })
    }

    /// The marker holds the block that was to be written, and these are the newest of all members.
    ///
    /// # Errors
    /// [`Overwritten`]; then the marker counts for nothing.
    pub fn done(
        &mut self,
        marker: usize,
        blocks: &[ControlBlock],
        now: Now,
    ) -> Result<(), Overwritten> {
        let me = self.writer.member;
        let Some(marker) = self.markers.get_mut(marker) else { return Ok(()) };
        let At::UnderWay { step, writes } = marker.at else { return Ok(()) };
        marker.at = At::Rest;
        marker.holds = marker.holds.max(writes);
        let own = blocks.iter().find(|block| block.member == me);
        let (expected, found) = (marker.holds, own.map_or(0, |block| block.sequence));
        if expected > 0 && found != expected {
            marker.at = At::Retrying(now.after(RETRY));
            return Err(Overwritten { expected, found });
        }
        marker.done |= step == self.step;
        self.learn(blocks);
        if step == self.step {
            self.look_at(blocks);
            self.settle_step(now);
        }
        Ok(())
    }

    /// The marker could not be read or written, or what is on it is not whole.
    pub fn failed(&mut self, marker: usize, now: Now) {
        if let Some(marker) = self.markers.get_mut(marker) {
            // Nobody knows whether it was written: it may hold either.
            if matches!(marker.at, At::UnderWay { writes, .. } if writes > 0) {
                marker.holds = 0;
            }
            marker.at = At::Retrying(now.after(RETRY));
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Now) {
        for marker in &mut self.markers {
            if matches!(marker.at, At::Retrying(at) if at <= now) {
                marker.at = At::Rest;
            }
        }
        if matches!(self.stage, Stage::Pausing(until) if until <= now) {
            self.stage = Stage::Idle;
            self.go_on();
        }
    }

    /// When [`Proposer::tick`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Now> {
        let retries = self.markers.iter().filter_map(|marker| match marker.at {
            At::Retrying(at) => Some(at),
            _ => None,
        });
        let pause = match self.stage {
            Stage::Pausing(until) => Some(until),
            _ => None,
        };
        retries.chain(pause).min()
    }

    /// What there is to say, in order.
    pub fn said(&mut self) -> Vec<Said> {
        std::mem::take(&mut self.said)
    }

    /// Decisions count wherever and whenever they are seen.
    fn learn(&mut self, blocks: &[ControlBlock]) {
        for control in blocks.iter().map(|block| &block.control) {
            if control.number() > self.own.number() {
                self.own.learned.clone_from(&control.learned);
            }
            let ballots = [control.tried, control.accepted.as_ref().map(|at| at.ballot)];
            for ballot in ballots.into_iter().flatten() {
                self.round = self.round.max(ballot.round);
            }
        }
    }

    fn look_at(&mut self, blocks: &[ControlBlock]) {
        if self.stage == Stage::Recovering {
            return self.recover(blocks);
        }
        let me = self.writer.member;
        let others = blocks.iter().filter(|block| block.member != me);
        for control in others.map(|block| &block.control) {
            if control.instance == self.own.instance {
                self.highest = self.highest.max(control.tried);
                self.weigh(control.accepted.as_ref());
            }
        }
    }

    fn weigh(&mut self, accepted: Option<&Accepted>) {
        let Some(accepted) = accepted else { return };
        if self.best.as_ref().is_none_or(|best| best.ballot < accepted.ballot) {
            self.best = Some(accepted.clone());
        }
    }

    /// What a former life has written last, on whichever marker, is what this one stands for.
    fn recover(&mut self, blocks: &[ControlBlock]) {
        let own = blocks.iter().find(|block| block.member == self.writer.member);
        if let Some(own) = own.filter(|own| own.sequence >= self.block.sequence) {
            let learned = self.own.learned.take();
            self.block.sequence = own.sequence;
            self.own = own.control.clone();
            if self.own.number() < learned.as_ref().map_or(0, |record| record.number) {
                self.own.learned = learned;
            }
        }
    }

    fn settle_step(&mut self, now: Now) {
        let count = self.markers.iter().filter(|marker| marker.done).count();
        if count <= self.markers.len() / 2 {
            return;
        }
        let outbid = |ballot| self.highest.is_some_and(|highest| highest > ballot);
        let decided = self.own.number() >= self.own.instance;
        match self.stage {
            Stage::Idle | Stage::Pausing(_) => return,
            Stage::Recovering | Stage::Reading => self.looked = self.looking,
            // What was learned while it was under way is not in it.
            Stage::Teaching => self.taught = self.block.control.number(),
            Stage::Preparing(_) | Stage::Accepting(_) if decided => {}
            Stage::Preparing(ballot) | Stage::Accepting(ballot) if outbid(ballot) => {
                self.stage = Stage::Pausing(now.after(self.backoff.pause()));
                return;
            }
            Stage::Preparing(ballot) => return self.accept(ballot),
            Stage::Accepting(_) => {
                self.backoff.reset();
                self.own.learned = self.own.accepted.take().map(|accepted| accepted.value);
            }
        }
        self.stage = Stage::Idle;
        self.go_on();
    }

    /// Begins whatever comes next.
    fn go_on(&mut self) {
        if self.stage != Stage::Idle {
            return;
        }
        if self.taught < self.own.number() {
            return self.teach();
        }
        if std::mem::take(&mut self.reading) {
            self.said.push(Said::Read(self.own.learned.clone()));
        }
        let known = self.own.number();
        match self.change.as_ref().map(|record| record.number) {
            // Decided, if not this one; or made from a record that the markers do not know.
            Some(number) if number <= known || number > known + 1 && self.looked => {
                self.change = None;
                self.said.push(Said::Decided(self.own.learned.clone()));
                self.go_on();
            }
            Some(number) if number == known + 1 => self.prepare(),
            _ if self.read_wished => {
                self.read_wished = false;
                self.reading = true;
                self.look();
            }
            Some(_) => self.look(),
            None => {}
        }
    }

    fn look(&mut self) {
        self.looking = self.change.is_some();
        self.begin(Stage::Reading);
    }

    fn prepare(&mut self) {
        let number = self.own.number() + 1;
        if self.own.instance != number {
            self.begin_instance(number);
        }
        let tried = self.own.tried.map_or(0, |ballot| ballot.round);
        self.round = self.round.max(tried).saturating_add(1);
        let Writer { member, incarnation, .. } = self.writer;
        let ballot = Ballot { round: self.round, incarnation, member: member.index() };
        self.own.tried = Some(ballot);
        self.begin_write(Stage::Preparing(ballot));
    }

    /// Stands for what anybody stood for last, or for the own wish where nobody did.
    fn accept(&mut self, ballot: Ballot) {
        self.weigh(self.own.accepted.clone().as_ref());
        let instance = self.own.instance;
        // Another wish may have taken the place of the one that this began with.
        let wish = self.change.clone().filter(|record| record.number == instance);
        match self.best.take().map(|best| best.value).or(wish) {
            Some(value) => {
                self.own.accepted = Some(Accepted { ballot, value });
                self.begin_write(Stage::Accepting(ballot));
            }
            None => {
                self.stage = Stage::Idle;
                self.go_on();
            }
        }
    }

    fn teach(&mut self) {
        let instance = self.own.number() + 1;
        if self.own.instance != instance {
            self.begin_instance(instance);
        }
        self.begin_write(Stage::Teaching);
    }

    fn begin_instance(&mut self, instance: u64) {
        let learned = self.own.learned.take();
        self.own = Control { instance, learned, ..Control::default() };
    }

    /// Every marker gets the same block in one step, whatever is learned meanwhile.
    fn begin_write(&mut self, stage: Stage) {
        self.block.sequence += 1;
        self.block.control = self.own.clone();
        self.begin(stage);
    }

    /// Jobs of the step before are still under way on some markers: those come to this one when
    /// they are back.
    fn begin(&mut self, stage: Stage) {
        self.stage = stage;
        self.step += 1;
        self.markers.iter_mut().for_each(|marker| marker.done = false);
        (self.highest, self.best) = (None, None);
    }
}

#[cfg(test)]
#[path = "proposer_tests.rs"]
mod tests;

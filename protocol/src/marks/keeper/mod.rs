//! One member's dealings with all markers: its own lease, the leases of the others, and the
//! control records of all resources.
//!
//! A marker has at most one order under way. What hangs, hangs alone: nothing is given up because
//! of time, it just is not counted, so no second write can overtake a first. An order writes at
//! most one block and then reads; the own lease goes first, the resources take turns.
//!
//! A life begins by reading: what its former life has written, and whether that is somebody
//! else's, who runs under the same name. Only then it writes.

mod join;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use super::block::Block;
use super::control::ControlBlock;
use super::layout::{BlockIndex, Place, Run};
use super::lease::{Lease, LeaseBlock, LeaseState, Timing};
use super::parts::{Unread, read_controls, read_leases};
use super::proposer::{Overwritten, Proposer, Said, Writer};
use super::tenure::{Tenure, Term};
use super::watch::{Sight, Watch};
use crate::ids::{ClusterId, Incarnation, MemberId, ResourceId};
use crate::record::ControlRecord;
use crate::time::{Clock, Now};
use join::Join;

/// Pause before a marker is tried again whose leases could not be read.
const RETRY: std::time::Duration = std::time::Duration::from_millis(500);

/// What a keeper is made with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Whose markers.
    pub cluster: ClusterId,
    /// This member.
    pub me: MemberId,
    /// How many members have blocks on the markers.
    pub members: u8,
    /// How many markers there are: one or three.
    pub markers: usize,
    /// How this member times its lease.
    pub timing: Timing,
    /// The resources with their places, in the driver's order. Of one without a place nothing can
    /// be heard.
    pub places: Vec<(ResourceId, Option<Place>)>,
    /// This life's number, unless the markers know a higher one.
    pub incarnation: Incarnation,
    /// Drawn at random.
    pub nonce: u64,
    /// The host, so that a former life here is told from one elsewhere.
    pub host_id: u64,
    /// Its name.
    pub host: String,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// The order of this marker is done; what it has read. A write is durable.
    Done {
        /// Which marker.
        marker: usize,
        /// The bytes of the run that was ordered.
        bytes: &'a [u8],
    },
    /// The order of this marker failed: what it was to write is there or is not.
    Failed {
        /// Which marker.
        marker: usize,
    },
    /// A resource asks what its record holds.
    Read(usize),
    /// A resource asks for a change of its record.
    Change(usize, ControlRecord),
    /// This member leaves in order: it serves nothing any more.
    Leave,
    /// Time passed.
    Tick,
}

/// Something to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Write a block, if there is one, durably; then read. One at a time on each marker.
    Order {
        /// On which marker.
        marker: usize,
        /// What to write, and where.
        write: Option<(BlockIndex, Block)>,
        /// What to read then.
        read: Run,
    },
    /// An answer to a resource.
    Said(usize, Said),
    /// The lease is good until then. Without such a word it ends by itself.
    Lease(Term),
    /// The lease has ended, now.
    LeaseLost,
    /// What is known of another member, as of that moment: at every change, and again and again
    /// while its lease is over.
    Sight(MemberId, Sight, Now),
    /// A marker is in another state than before.
    Marker(usize, Health),
    /// This member has begun to keep its lease; the life is this one.
    Joined(Writer),
    /// Another host keeps a lease in this member's name: this one writes nothing.
    Refused(LeaseBlock),
    /// The markers say that this member is down.
    Left,
}

/// How a marker is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Health {
    /// Not read yet.
    #[default]
    Unknown,
    /// It does what it is told.
    Good,
    /// An order is under way for longer than it may take.
    Late,
    /// The last order failed.
    Failed,
    /// It does not hold a whole block of every member.
    Unread(Unread),
    /// It does not hold what was written to it: it is not used any more in this life.
    Overwritten(Overwritten),
}

/// What a marker is doing.
#[derive(Clone, Debug)]
enum Work {
    Join,
    Lease,
    /// Of which resource, and whether a block of it is written.
    Control(usize, bool),
}

#[derive(Clone, Debug, Default)]
struct Marker {
    work: Option<(Work, Now)>,
    health: Health,
    retry_at: Option<Now>,
    /// A control block that was to be written and failed may land until then: none is written
    /// before. Four later ones would end in its place.
    settled_at: Now,
    /// The resource that comes first the next time.
    turn: usize,
}

/// What an order is for, what it writes and where, and what it reads then.
type Order = (Work, Option<(BlockIndex, Block)>, Run);

/// Where this member is.
#[derive(Clone, Debug)]
enum Part {
    Joining(Join),
    Joined(Tenure),
    Leaving(Tenure, Now),
    /// It has left, or may not join.
    Out,
}

/// Another member, and what was said of it last.
#[derive(Debug)]
struct Watched {
    member: MemberId,
    watch: Watch,
    told: (Sight, Now),
}

/// One member's side of the markers.
#[derive(Debug)]
pub struct Keeper {
    setup: Setup,
    clock: Clock,
    part: Part,
    markers: Vec<Marker>,
    watches: Vec<Watched>,
    proposers: Vec<Proposer>,
    /// Wishes of resources from before this member has joined.
    wishes: Vec<(usize, Option<ControlRecord>)>,
    /// Nothing is written to a control record before this.
    settled_at: Now,
    told: Option<Term>,
    out: VecDeque<Action>,
}

impl Keeper {
    /// A member that begins to look at the markers.
    #[must_use]
    pub fn new(setup: Setup, clock: Clock) -> Self {
        let members = (0..setup.members).filter_map(MemberId::new);
        let others = members.filter(|member| *member != setup.me);
        let told = (Sight::Unknown, Now::default());
        let watches =
            others.map(|member| Watched { member, watch: Watch::new(setup.markers), told });
        let mut keeper = Self {
            clock,
            part: Part::Joining(Join::new(setup.markers)),
            markers: vec![Marker::default(); setup.markers],
            watches: watches.collect(),
            proposers: Vec::new(),
            wishes: Vec::new(),
            settled_at: clock.now,
            told: None,
            out: VecDeque::new(),
            setup,
        };
        keeper.settle();
        keeper
    }

    /// Takes an event; time never goes back.
    pub fn handle(&mut self, clock: Clock, event: Event<'_>) {
        self.clock = clock;
        match event {
            Event::Done { marker, bytes } => self.done(marker, bytes),
            Event::Failed { marker } => self.failed(marker, Health::Failed),
            Event::Read(resource) => self.wish(resource, None),
            Event::Change(resource, record) => self.wish(resource, Some(record)),
            Event::Leave => self.leave(),
            Event::Tick => {}
        }
        self.settle();
    }

    /// What is to be done next.
    pub fn poll(&mut self) -> Option<Action> {
        self.out.pop_front()
    }

    /// When [`Event::Tick`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Now> {
        let late = |marker: &Marker| {
            let (_, began) = marker.work.as_ref()?;
            let due = began.after(self.setup.timing.io);
            (due > self.clock.now).then_some(due)
        };
        let markers = self.markers.iter();
        let late = markers.clone().filter_map(late);
        let retries = markers.clone().filter_map(|marker| marker.retry_at);
        let own = match &self.part {
            Part::Joining(join) => join.deadline(self.clock.now),
            Part::Joined(tenure) | Part::Leaving(tenure, _) => tenure.deadline(),
            Part::Out => None,
        };
        let proposers = self.proposers.iter().filter_map(Proposer::deadline);
        let settled = markers.map(|marker| marker.settled_at).chain([self.settled_at]);
        let settled = settled.filter(|at| *at > self.clock.now);
        let ends = self.told.map(|term| term.until);
        late.chain(retries).chain(own).chain(proposers).chain(settled).chain(ends).min()
    }

    /// The term that holds now.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        match &self.part {
            Part::Joined(tenure) => tenure.term(self.clock.now),
            _ => None,
        }
    }

    fn tenure(&mut self) -> Option<&mut Tenure> {
        match &mut self.part {
            Part::Joined(tenure) | Part::Leaving(tenure, _) => Some(tenure),
            _ => None,
        }
    }

    fn wish(&mut self, resource: usize, change: Option<ControlRecord>) {
        match (self.proposers.get_mut(resource), change) {
            (Some(proposer), Some(record)) => proposer.change(record),
            (Some(proposer), None) => proposer.read(),
            (None, change) => self.wishes.push((resource, change)),
        }
    }

    fn leave(&mut self) {
        let (now, wall) = (self.clock.now, self.clock.wall);
        self.part = match std::mem::replace(&mut self.part, Part::Out) {
            Part::Joined(mut tenure) => {
                tenure.say(|lease| {
                    (lease.state, lease.changed) = (LeaseState::Down, wall);
                });
                tenure.hurry();
                Part::Leaving(tenure, now)
            }
            leaving @ Part::Leaving(..) => leaving,
            Part::Joining(_) | Part::Out => {
                self.out.push_back(Action::Left);
                Part::Out
            }
        };
    }

    fn done(&mut self, index: usize, bytes: &[u8]) {
        let Some(marker) = self.markers.get_mut(index) else { return };
        let Some((work, began)) = marker.work.take() else { return };
        let health = match work {
            Work::Control(resource, _) => self.done_control((index, resource), bytes),
            Work::Join | Work::Lease => self.done_leases(index, bytes, began),
        };
        match health {
            Ok(()) => self.set_health(index, Health::Good),
            Err(Health::Overwritten(what)) => self.abandon(index, what),
            Err(health) => self.failed_work(index, &work, health),
        }
    }

    fn done_control(
        &mut self,
        (index, resource): (usize, usize),
        bytes: &[u8],
    ) -> Result<(), Health> {
        let Some((id, Some(place))) = self.setup.places.get(resource) else { return Ok(()) };
        let names = (self.setup.cluster, *id);
        let blocks =
            read_controls(bytes, names, (*place, self.setup.members)).map_err(Health::Unread)?;
        match self.proposers.get_mut(resource) {
            Some(proposer) => {
                proposer.done(index, &blocks, self.clock.now).map_err(Health::Overwritten)
            }
            None => Ok(()),
        }
    }

    fn done_leases(&mut self, index: usize, bytes: &[u8], began: Now) -> Result<(), Health> {
        let leases =
            read_leases(bytes, self.setup.cluster, self.setup.members).map_err(Health::Unread)?;
        let span = (began, self.clock.now);
        for Watched { member, watch, .. } in &mut self.watches {
            if let Some(lease) = leases.iter().find(|lease| lease.member == *member) {
                watch.saw(index, lease, span);
            }
        }
        let own = leases.iter().find(|lease| lease.member == self.setup.me);
        match &mut self.part {
            Part::Joining(join) => {
                if let Some(own) = own {
                    join.saw(index, own, span);
                }
                Ok(())
            }
            Part::Joined(tenure) | Part::Leaving(tenure, _) => {
                tenure.done(index, own, span.1).map_err(Health::Overwritten)
            }
            Part::Out => Ok(()),
        }
    }

    /// The marker is not used any more: what it says is worth nothing, nor what it is told.
    fn abandon(&mut self, index: usize, what: Overwritten) {
        if let Some(tenure) = self.tenure() {
            tenure.forget(index);
            if tenure.held_since().is_none() {
                tenure.end();
            }
        }
        self.set_health(index, Health::Overwritten(what));
    }

    fn failed(&mut self, index: usize, health: Health) {
        let work = self.markers.get_mut(index).and_then(|marker| marker.work.take());
        if let Some((work, _)) = work {
            self.failed_work(index, &work, health);
        }
    }

    fn failed_work(&mut self, index: usize, work: &Work, health: Health) {
        let (now, settle) = (self.clock.now, self.setup.timing.settle());
        match work {
            Work::Join | Work::Lease => {
                if let Some(tenure) = self.tenure() {
                    tenure.failed(index);
                }
            }
            Work::Control(resource, _) => {
                if let Some(proposer) = self.proposers.get_mut(*resource) {
                    proposer.failed(index, now);
                }
            }
        }
        if let Some(marker) = self.markers.get_mut(index) {
            marker.retry_at = Some(now.after(RETRY));
            if matches!(work, Work::Control(_, true)) {
                marker.settled_at = now.after(settle);
            }
        }
        self.set_health(index, health);
    }

    fn set_health(&mut self, index: usize, health: Health) {
        if let Some(marker) = self.markers.get_mut(index)
            && marker.health != health
        {
            marker.health = health.clone();
            self.out.push_back(Action::Marker(index, health));
        }
    }

    /// Puts the world in order after every event.
    fn settle(&mut self) {
        let now = self.clock.now;
        self.settle_join();
        self.proposers.iter_mut().for_each(|proposer| proposer.tick(now));
        (0..self.markers.len()).for_each(|index| self.settle_marker(index));
        self.settle_term();
        self.settle_sights();
        self.settle_leaving();
        for (resource, proposer) in self.proposers.iter_mut().enumerate() {
            self.out.extend(proposer.said().into_iter().map(|said| Action::Said(resource, said)));
        }
    }

    fn settle_join(&mut self) {
        let Part::Joining(join) = &self.part else { return };
        match join.verdict(self.clock.now, self.setup.host_id) {
            join::Verdict::Wait => {}
            join::Verdict::Refuse(block) => {
                self.part = Part::Out;
                self.out.push_back(Action::Refused(block));
            }
            join::Verdict::Join { last, clean } => self.join(&last, clean),
        }
    }

    fn join(&mut self, last: &LeaseBlock, clean: bool) {
        let Setup { me, markers, timing, host_id, nonce, .. } = self.setup;
        let after = Incarnation::new(last.incarnation.get().saturating_add(1));
        let writer = Writer { member: me, incarnation: self.setup.incarnation.max(after), nonce };
        let (wall, host) = (self.clock.wall, self.setup.host.clone());
        let state = LeaseState::Joined;
        let lease = Lease { state, timing, changed: wall, host_id, host, ..Lease::blank() };
        self.part = Part::Joined(Tenure::new(writer, lease, last.sequence, markers));
        let places = self.setup.places.iter();
        self.proposers =
            places.map(|(resource, _)| Proposer::new(*resource, writer, markers)).collect();
        // What a former life had under way may still land; after this it will not.
        if !clean {
            self.settled_at = self.clock.now.after(timing.settle());
        }
        self.out.push_back(Action::Joined(writer));
        for (resource, change) in std::mem::take(&mut self.wishes) {
            if resource < self.proposers.len() {
                self.wish(resource, change);
            }
        }
    }

    fn settle_marker(&mut self, index: usize) {
        let now = self.clock.now;
        let io = self.setup.timing.io;
        let Some(marker) = self.markers.get_mut(index) else { return };
        if marker.retry_at.is_some_and(|at| at <= now) {
            marker.retry_at = None;
        }
        let gone = matches!(marker.health, Health::Overwritten(_));
        match &marker.work {
            Some((_, began)) if began.after(io) <= now => self.set_health(index, Health::Late),
            None if !gone && marker.retry_at.is_none() => self.give_work(index),
            _ => {}
        }
    }

    fn give_work(&mut self, index: usize) {
        let Some((work, write, read)) = self.next_work(index) else { return };
        if let Some(marker) = self.markers.get_mut(index) {
            marker.work = Some((work, self.clock.now));
        }
        self.out.push_back(Action::Order { marker: index, write, read });
    }

    fn next_work(&mut self, index: usize) -> Option<Order> {
        let (clock, cluster) = (self.clock, self.setup.cluster);
        match &mut self.part {
            Part::Out => return None,
            Part::Joining(join) => {
                join.is_due(index, clock.now).then_some(())?;
                return Some((Work::Join, None, Run::leases()));
            }
            Part::Joined(tenure) | Part::Leaving(tenure, _) => {
                if let Some(block) = tenure.job(index, clock) {
                    let write = (block.index(), block.seal(cluster));
                    return Some((Work::Lease, Some(write), Run::leases()));
                }
            }
        }
        if self.settled_at > clock.now || matches!(self.part, Part::Leaving(..)) {
            return None;
        }
        self.next_control(index)
    }

    fn next_control(&mut self, index: usize) -> Option<Order> {
        let (cluster, members) = (self.setup.cluster, self.setup.members);
        let count = self.proposers.len();
        let marker = self.markers.get_mut(index)?;
        if marker.settled_at > self.clock.now {
            return None;
        }
        for resource in (0..count).map(|step| (marker.turn + step) % count) {
            let Some((_, Some(place))) = self.setup.places.get(resource) else { continue };
            let job = self.proposers.get_mut(resource).and_then(|proposer| proposer.job(index));
            let Some(job) = job else { continue };
            marker.turn = resource + 1;
            let seal = |block: &ControlBlock| (block.index(*place), block.seal(cluster, *place));
            let write = job.write.as_ref().map(seal);
            return Some((
                Work::Control(resource, write.is_some()),
                write,
                Run::controls(*place, members),
            ));
        }
        None
    }

    fn settle_term(&mut self) {
        let (told, term) = (self.told, self.term());
        if told == term {
            return;
        }
        // A new term, too, says that the one before had ended, whoever noticed.
        if told.is_some_and(|told| term.is_none_or(|term| term.number != told.number)) {
            self.out.push_back(Action::LeaseLost);
        }
        self.out.extend(term.map(Action::Lease));
        self.told = term;
    }

    fn settle_sights(&mut self) {
        let now = self.clock.now;
        let mut live = 1 << self.setup.me.index();
        for Watched { member, watch, told } in &mut self.watches {
            let (sight, as_of) = watch.sight(now);
            if sight == Sight::Live {
                live |= 1 << member.index();
            }
            if sight != told.0 || sight.is_over() && as_of > told.1 {
                *told = (sight, as_of);
                self.out.push_back(Action::Sight(*member, sight, as_of));
            }
        }
        if let Some(tenure) = self.tenure() {
            tenure.say(|lease| lease.sees_on_marks = live);
        }
    }

    fn settle_leaving(&mut self) {
        let Part::Leaving(tenure, since) = &self.part else { return };
        if tenure.held_since().is_some_and(|at| at >= *since) {
            self.part = Part::Out;
            self.out.push_back(Action::Left);
        }
    }
}

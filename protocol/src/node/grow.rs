//! Making volumes larger on every member while clients use them (design §2.4).
//!
//! Sizes only grow, and a store that is larger than its volume harms nobody. So there is nothing to
//! be taken back, and no step that two members would have to make at the same moment:
//!
//! 1. The primary asks every other member, and its own disks, to **make room**: stores at least so
//!    large, with zeroes in the new part, durably. A crash or a refusal here has changed nothing.
//! 2. When all have room, the primary **takes** the sizes: its superblock has them, durably. That
//!    decides; whatever crashes from here on, the growth comes to its end.
//! 3. It tells the others, which take them likewise. Then clients may use them.
//!
//! Whoever was away when that happened has sizes with fewer growths behind them than the others
//! have. The hellos of a session show it, on a primary as on a standby; the smaller side makes
//! room, takes the sizes, and begins the session anew. So two members that work together have the
//! same sizes, but for the moment between the second step and the third; and no frame that changes
//! anything beyond the old end is written before every session of the primary is past that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::peer::{Peer, Phase};
use super::persist::After;
use super::{Action, Command, Denied, Done, Node, Note, Part};
use crate::ids::{MemberId, SessionId, VolumeIndex};
use crate::replica::{ReplicaState, Sizes, VOLUME_BYTES_MAX};
use crate::time::Now;
use crate::wire::{CannotGrow, Grow, GrowStep, Grown, Hello, Message, Refusal};

/// Longest that a member may take to make room, or to take the sizes.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// A store that could not be made larger for a growth of the past is tried again so much later.
const AGAIN: Duration = Duration::from_secs(10);

/// What a member knows of growths.
#[derive(Clone, Debug)]
pub(super) struct Growing {
    /// The sizes that are durable here: what others are told, and what theirs are compared with.
    durable: Sizes,
    /// As primary: what an operator wants.
    wish: Option<Wish>,
    /// As standby: what the primary wants.
    asked: Option<Asked>,
    /// The disks make room.
    room: Option<RoomFor>,
    /// New sizes are on their way into the superblock.
    taking: bool,
    /// When room is made for a growth of the past, if it could not be.
    not_before: Now,
    /// Attempts of this life.
    number: u64,
}

/// A growth that an operator wants of this primary.
#[derive(Clone, Debug)]
struct Wish {
    command: u64,
    sizes: Sizes,
    /// Only whether it could be.
    test: bool,
    number: u64,
    until: Now,
    /// All other members, each by the session in which it was asked.
    members: BTreeMap<MemberId, SessionId>,
    step: Step,
}

#[derive(Clone, Debug)]
enum Step {
    /// Room is made, here and there: who has it.
    Room { own: bool, others: BTreeSet<MemberId> },
    /// The sizes go into the superblock.
    Taking,
    /// They are there: who has not said yet that it has them, too.
    Telling { waits: BTreeMap<MemberId, SessionId> },
}

/// A growth that the primary wants of this standby.
#[derive(Clone, Debug)]
struct Asked {
    session: SessionId,
    number: u64,
    sizes: Sizes,
    has_room: bool,
    /// From then on nothing here waits for the primary's word any more.
    until: Now,
}

/// For whom room is made.
#[derive(Clone, Debug)]
enum RoomFor {
    /// The wish of this number.
    Wish(u64),
    /// The primary.
    Asked,
    /// A growth that this member has missed.
    Missed(Sizes),
}

impl Growing {
    pub(super) fn new(state: &ReplicaState) -> Self {
        Self {
            durable: state.sizes(),
            wish: None,
            asked: None,
            room: None,
            taking: false,
            not_before: Now::default(),
            number: 0,
        }
    }

    /// The sizes that may be spoken of.
    pub(super) fn durable(&self) -> &Sizes {
        &self.durable
    }

    /// Whether sizes may change at any moment: nothing is begun that counts on them.
    pub(super) fn is_under_way(&self) -> bool {
        self.wish.is_some() || self.asked.is_some() || self.room.is_some() || self.taking
    }
}

impl Node {
    /// An operator wants a volume to be larger.
    pub(super) fn begin_growth(
        &mut self,
        id: u64,
        command: Command,
    ) -> Option<Result<Done, Denied>> {
        let Command::Grow { volume, size_bytes, test } = command else { return None };
        let (sizes, members) = match self.can_grow(volume, size_bytes) {
            Ok(found) => found,
            Err(denied) => return Some(Err(denied)),
        };
        self.growing.number += 1;
        let (number, until) = (self.growing.number, self.clock.now.after(ANSWER_MAX));
        self.growing.room = Some(RoomFor::Wish(number));
        self.out.push_back(Action::MakeRoom(sizes.volumes.clone()));
        for session in members.values() {
            self.say_grow(*session, number, GrowStep::MakeRoom, &sizes);
        }
        let step = Step::Room { own: false, others: BTreeSet::new() };
        self.growing.wish = Some(Wish { command: id, sizes, test, number, until, members, step });
        None
    }

    /// Whether everybody is there and nothing stands in the way; the sizes then, and whom to ask.
    fn can_grow(
        &self,
        volume: VolumeIndex,
        size_bytes: u64,
    ) -> Result<(Sizes, BTreeMap<MemberId, SessionId>), Denied> {
        if !self.is_leading() {
            return Err(Denied::NotPrimary);
        }
        if self.growing.is_under_way() {
            return Err(Denied::Grows);
        }
        let mut sizes = self.state.sizes();
        let Some(own) = sizes.volumes.get_mut(usize::from(volume.index())) else {
            return Err(Denied::NoSuchVolume);
        };
        let (has, block) = (own.size_bytes, own.block_size);
        if size_bytes <= has {
            return Err(Denied::NotLarger { has });
        }
        if !size_bytes.is_multiple_of(u64::from(block)) || size_bytes > VOLUME_BYTES_MAX {
            return Err(Denied::NoSize { block });
        }
        (own.size_bytes, sizes.growths) = (size_bytes, sizes.growths.saturating_add(1));
        if self.counts_on_sizes() {
            return Err(Denied::CopyUnderWay);
        }
        let mut members = BTreeMap::new();
        for peer in self.peers.values() {
            let session = peer.session.as_ref().filter(|_| peer.feed().is_some());
            let session = session.ok_or(Denied::DoesNotFollow { member: peer.member })?;
            members.insert(peer.member, session.id);
        }
        Ok((sizes, members))
    }

    fn say_grow(&mut self, session: SessionId, number: u64, step: GrowStep, sizes: &Sizes) {
        let (epoch, sizes) = (self.state.owned, sizes.clone());
        self.send(session, Message::Grow(Box::new(Grow { epoch, number, step, sizes })));
    }

    /// A standby's side of both questions.
    pub(super) fn on_grow(&mut self, session: SessionId, grow: Grow) {
        let follows = self.session(session).is_some_and(|s| matches!(s.phase, Phase::Following));
        if !follows || grow.epoch != self.state.promised {
            return;
        }
        let Grow { number, step, sizes, .. } = grow;
        let busy = self.counts_on_sizes() || self.growing.taking;
        match step {
            GrowStep::MakeRoom => {
                let fits = self.state.sizes().grow_to(&sizes);
                if busy || !fits || self.growing.room.is_some() {
                    return self.say_grown(session, (number, step), Some(CannotGrow::Busy));
                }
                let until = self.clock.now.after(2 * ANSWER_MAX);
                self.out.push_back(Action::MakeRoom(sizes.volumes.clone()));
                self.growing.asked = Some(Asked { session, number, sizes, has_room: false, until });
                self.growing.room = Some(RoomFor::Asked);
            }
            GrowStep::Take => {
                let asked = self.growing.asked.as_ref().filter(|_| !busy);
                let asked =
                    asked.filter(|asked| (asked.session, asked.number) == (session, number));
                match asked.filter(|asked| asked.has_room).map(|asked| asked.sizes.clone()) {
                    Some(sizes) => self.take_sizes(sizes),
                    // The next hello shows what it lacks, and it is taken when it can be.
                    None => self.begin_anew(session),
                }
            }
        }
    }

    fn say_grown(
        &mut self,
        session: SessionId,
        (number, step): (u64, GrowStep),
        cannot: Option<CannotGrow>,
    ) {
        let epoch = self.state.promised;
        self.send(session, Message::Grown(Grown { epoch, number, step, cannot }));
    }

    /// The disks have made room, or cannot.
    pub(super) fn room_made(&mut self, cannot: Option<CannotGrow>) {
        let Some(room) = self.growing.room.take() else { return };
        match room {
            RoomFor::Wish(number) => {
                let me = self.state.member;
                self.has_room(me, number, cannot);
            }
            RoomFor::Asked => {
                let Some(asked) = &mut self.growing.asked else { return };
                let (session, number) = (asked.session, asked.number);
                asked.has_room = cannot.is_none();
                if cannot.is_some() {
                    self.growing.asked = None;
                }
                self.say_grown(session, (number, GrowStep::MakeRoom), cannot);
            }
            RoomFor::Missed(sizes) => match cannot {
                Some(why) => {
                    self.growing.not_before = self.clock.now.after(AGAIN);
                    self.out.push_back(Action::Note(Note::CannotGrow(why)));
                }
                // Looked at again when nothing counts on the sizes, if that is not now.
                None if self.counts_on_sizes() || !self.state.sizes().grow_to(&sizes) => {}
                None => self.take_sizes(sizes),
            },
        }
    }

    /// A member of the wish has room, or none.
    fn has_room(&mut self, member: MemberId, number: u64, cannot: Option<CannotGrow>) {
        let me = self.state.member;
        let Some(wish) = self.growing.wish.as_mut().filter(|wish| wish.number == number) else {
            return;
        };
        let Step::Room { own, others } = &mut wish.step else { return };
        match cannot {
            Some(why) => self.end_wish(Err(Denied::CannotGrow { member, why })),
            None if member == me => *own = true,
            None => drop(others.insert(member)),
        }
    }

    /// A standby has answered.
    pub(super) fn on_grown(&mut self, session: SessionId, member: MemberId, grown: Grown) {
        let Grown { epoch, number, step, cannot } = grown;
        let Some(wish) = &mut self.growing.wish else { return };
        let of_this = wish.number == number && wish.members.get(&member) == Some(&session);
        if !of_this || epoch != self.state.owned {
            return;
        }
        if step == GrowStep::MakeRoom {
            return self.has_room(member, number, cannot);
        }
        if let Step::Telling { waits } = &mut wish.step {
            waits.remove(&member);
            self.has_sizes(session, self.growing.durable.clone());
        }
    }

    /// The other side of a session has these sizes by now.
    fn has_sizes(&mut self, session: SessionId, sizes: Sizes) {
        if let Some(hello) = self.session_mut(session).and_then(|open| open.hello.as_mut()) {
            hello.sizes = sizes;
        }
    }

    /// From here on the volumes have these sizes. The disks may know it before the superblock
    /// does: of a crash in between, only room stays, and nothing was written there.
    fn take_sizes(&mut self, sizes: Sizes) {
        self.growing.taking = true;
        self.out.push_back(Action::Resize(sizes.volumes.clone()));
        (self.state.volumes, self.state.growths) = (sizes.volumes, sizes.growths);
        self.persist_then(After::Grown);
    }

    /// The superblock has them: they may be spoken of.
    pub(super) fn sizes_persisted(&mut self) {
        self.growing.taking = false;
        self.growing.durable = self.state.sizes();
        self.out.push_back(Action::Note(Note::Grew));
        let leads = self.leads_on();
        match &self.growing.wish {
            Some(wish) if matches!(wish.step, Step::Taking) && leads => return self.tell_sizes(),
            _ => self.out.push_back(Action::Offer(self.state.volumes.clone())),
        }
        let asked = self.growing.asked.take().filter(|asked| asked.has_room);
        if let Some(Asked { session, number, .. }) = asked {
            self.has_sizes(session, self.growing.durable.clone());
            self.say_grown(session, (number, GrowStep::Take), None);
        }
        self.begin_others_anew(&BTreeMap::new());
    }

    /// Who is fed takes them now; who is not hears of them in the next hello.
    fn tell_sizes(&mut self) {
        let fed = self.peers.values().filter(|peer| peer.feed().is_some());
        let fed = fed.filter_map(|peer| Some((peer.member, peer.session.as_ref()?.id)));
        let until = self.clock.now.after(ANSWER_MAX);
        let Some(wish) = &mut self.growing.wish else { return };
        let waits: BTreeMap<_, _> =
            fed.filter(|(member, session)| wish.members.get(member) == Some(session)).collect();
        (wish.step, wish.until) = (Step::Telling { waits: waits.clone() }, until);
        let number = wish.number;
        let sizes = self.growing.durable.clone();
        for session in waits.values() {
            self.say_grow(*session, number, GrowStep::Take, &sizes);
        }
        self.begin_others_anew(&waits);
    }

    /// Sessions whose other side was told of other sizes, or has them, but for these.
    fn begin_others_anew(&mut self, but: &BTreeMap<MemberId, SessionId>) {
        let (own, rest) = (&self.growing.durable, |member| !but.contains_key(&member));
        let other = |peer: &Peer| {
            let refused = peer.refusal == Some(Refusal::Growing);
            refused || peer.hello().is_none_or(|hello| hello.sizes != *own)
        };
        let others = self.peers.values().filter(|peer| rest(peer.member) && other(peer));
        let others: Vec<_> = others.filter_map(|peer| Some(peer.session.as_ref()?.id)).collect();
        others.into_iter().for_each(|session| self.begin_anew(session));
    }

    /// What a hello says of sizes, if it keeps the two from working together.
    pub(super) fn sizes_stand_between(&self, hello: &Hello) -> Option<Refusal> {
        let (own, theirs) = (&self.growing.durable, &hello.sizes);
        if own == theirs {
            return None;
        }
        let grows = own.grow_to(theirs) || theirs.grow_to(own);
        Some(if grows { Refusal::Growing } else { Refusal::GeometryDiffers })
    }

    /// Wishes go on or end, and what was missed is made up for.
    pub(super) fn settle_growing(&mut self) {
        self.settle_growth();
        let now = self.clock.now;
        let lost = |asked: &Asked| {
            let open = self.session(asked.session);
            now >= asked.until || !open.is_some_and(|s| matches!(s.phase, Phase::Following))
        };
        if !self.growing.taking && self.growing.asked.as_ref().is_some_and(lost) {
            self.growing.asked = None;
        }
        self.settle_missed();
    }

    fn settle_missed(&mut self) {
        let speaks = !matches!(self.standing, Part::Waking(_) | Part::Unfit(_) | Part::Stopped);
        let waits = self.clock.now < self.growing.not_before;
        if !speaks || waits || self.growing.is_under_way() || self.counts_on_sizes() {
            return;
        }
        let (own, hellos) = (&self.growing.durable, self.peers.values().filter_map(Peer::hello));
        let larger = hellos.map(|hello| &hello.sizes).filter(|theirs| own.grow_to(theirs));
        if let Some(sizes) = larger.max_by_key(|sizes| sizes.growths).cloned() {
            self.out.push_back(Action::MakeRoom(sizes.volumes.clone()));
            self.growing.room = Some(RoomFor::Missed(sizes));
        }
    }

    fn settle_growth(&mut self) {
        let (leads, now) = (self.leads_on(), self.clock.now);
        let Some(wish) = &self.growing.wish else { return };
        let open = |member: &MemberId, session: &SessionId| {
            let open = self.peers.get(member).and_then(|peer| peer.session.as_ref());
            open.is_some_and(|open| open.id == *session)
        };
        let same = |member: &MemberId, session: &SessionId| {
            let fed = self.peers.get(member).is_some_and(|peer| peer.feed().is_some());
            fed && open(member, session)
        };
        match &wish.step {
            Step::Room { .. } if !leads => self.end_wish(Err(match self.standing {
                Part::Unfit(_) => Denied::Unfit,
                Part::Stopping(_) | Part::Stopped => Denied::Stopping,
                _ => Denied::NotPrimary,
            })),
            Step::Room { own, others } => {
                let lost = wish.members.iter().find(|(member, session)| !same(member, session));
                let missing = wish.members.keys().find(|member| !others.contains(member));
                let slow = missing.copied().unwrap_or(self.state.member);
                let all = *own && missing.is_none();
                match (lost.map(|(member, _)| *member), all) {
                    (Some(member), _) => self.end_wish(Err(Denied::DoesNotFollow { member })),
                    (None, true) => self.everybody_has_room(),
                    (None, false) if now >= wish.until => {
                        self.end_wish(Err(Denied::RoomTakesLong { member: slow }));
                    }
                    (None, false) => {}
                }
            }
            // A write of the superblock that fails ends everything.
            Step::Taking if matches!(self.standing, Part::Unfit(_)) => {
                self.end_wish(Err(Denied::Unfit));
            }
            Step::Taking if self.growing.taking => {}
            Step::Taking => self.end_wish(Ok(Done::Grown)),
            Step::Telling { waits } => {
                let late = now >= wish.until || !leads;
                // Who is not fed any more has not acted on the word: its next hello says it.
                let (slow, here): (Vec<_>, Vec<_>) = waits
                    .iter()
                    .filter(|(member, session)| open(member, session))
                    .partition(|(member, session)| late || !same(member, session));
                let (slow, left): (Vec<_>, _) =
                    (slow.into_iter().map(|(_, session)| *session).collect(), here.len());
                slow.into_iter().for_each(|session| self.begin_anew(session));
                if left == 0 {
                    self.out.push_back(Action::Offer(self.state.volumes.clone()));
                    self.end_wish(Ok(Done::Grown));
                }
            }
        }
    }

    /// The decision: from here on the growth comes to its end.
    fn everybody_has_room(&mut self) {
        let Some(wish) = &mut self.growing.wish else { return };
        if wish.test {
            return self.end_wish(Ok(Done::CouldGrow));
        }
        wish.step = Step::Taking;
        let sizes = wish.sizes.clone();
        self.take_sizes(sizes);
    }

    fn end_wish(&mut self, result: Result<Done, Denied>) {
        if let Some(wish) = self.growing.wish.take() {
            self.out.push_back(Action::Reply { id: wish.command, result });
        }
    }

    /// Whether this member is the primary, if one that is about to hand over.
    fn leads_on(&self) -> bool {
        matches!(self.standing, Part::Leading | Part::Releasing(_))
    }

    pub(super) fn growing_deadline(&self) -> Option<Now> {
        let Growing { wish, asked, not_before, .. } = &self.growing;
        let wish = wish.as_ref().map(|wish| wish.until);
        let asked = asked.as_ref().map(|asked| asked.until);
        let again = Some(*not_before).filter(|at| *at > self.clock.now);
        [wish, asked, again].into_iter().flatten().min()
    }
}

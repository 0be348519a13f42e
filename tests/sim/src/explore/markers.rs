//! Every order in which two members can decide about one control record over markers (design §7):
//! the proposers are the daemon's, the markers as small as they can be.
//!
//! A write lands at any time after it was sent, also when whoever sent it is dead; a new life does
//! nothing before that is over. The truths: of one number one record is decided; who asks hears
//! nothing older than anybody was told before.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use hadrian_protocol::frame::Began;
use hadrian_protocol::ids::{Epoch, Incarnate, Incarnation, MemberId, ResourceId};
use hadrian_protocol::marks::control::ControlBlock;
use hadrian_protocol::marks::layout::CONTROL_COPIES;
use hadrian_protocol::marks::proposer::{Proposer, Said, Writer};
use hadrian_protocol::record::ControlRecord;
use hadrian_protocol::time::Now;

const MEMBERS: usize = 2;
const RESUMES: u8 = 1;

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub struct Deciding {
    /// Its name, for people.
    pub name: &'static str,
    /// One or three.
    pub markers: usize,
    /// Changes that each member wishes.
    pub changes: u8,
    /// Questions of each member what the record holds.
    pub reads: u8,
    /// Members that die, with what they have sent on its way.
    pub deaths: u8,
    /// Orders that fail, and have landed or have not.
    pub failures: u8,
    /// How often something else may come first than what is next in turn; `None`: always.
    pub detours: Option<u8>,
}

/// All of them.
pub const ALL: &[Deciding] = &[
    Deciding {
        name: "one marker, every order: both wish a change, one dies",
        markers: 1,
        changes: 1,
        reads: 0,
        deaths: 1,
        failures: 0,
        detours: None,
    },
    Deciding {
        name: "one marker, every order: both wish a change and ask, an order fails",
        markers: 1,
        changes: 1,
        reads: 1,
        deaths: 0,
        failures: 1,
        detours: None,
    },
    Deciding {
        name: "three markers, one detour: both wish a change, one dies",
        markers: 3,
        changes: 1,
        reads: 0,
        deaths: 1,
        failures: 0,
        detours: Some(1),
    },
    Deciding {
        name: "three markers, one detour: both wish a change, an order fails",
        markers: 3,
        changes: 1,
        reads: 0,
        deaths: 0,
        failures: 1,
        detours: Some(1),
    },
];

/// What came of it.
#[derive(Debug, Default)]
pub struct Decided {
    /// Different states.
    pub states: usize,
    /// Records that were decided, in the story with most of them.
    pub most: usize,
    /// The first broken truth, and what happened until then.
    pub broken: Option<(String, Vec<String>)>,
}

/// Tries everything that can happen.
#[must_use]
pub fn decide(setting: &Deciding) -> Decided {
    let mut search = Search { seen: HashMap::new(), path: Vec::new(), found: Decided::default() };
    search.visit(&Registry::new(setting), setting.detours);
    search.found.states = search.seen.len();
    search.found
}

/// Something that happens next.
#[derive(Clone, Copy, Debug)]
enum Move {
    Lands(usize, usize),
    Returns(usize, usize),
    /// The ghost of a write lands, or it does not.
    Ghost(usize, bool),
    Resumes(usize),
    Wishes(usize),
    Asks(usize),
    /// It fails; whether it has landed.
    Fails(usize, usize, bool),
    Dies(usize),
}

impl Move {
    const fn is_by_itself(self) -> bool {
        matches!(self, Self::Lands(..) | Self::Returns(..) | Self::Ghost(..) | Self::Resumes(_))
    }
}

/// Of each member its ring of blocks.
type Marker = BTreeMap<(usize, u64), ControlBlock>;

#[derive(Clone, Debug)]
struct Order {
    /// What has not landed yet.
    write: Option<ControlBlock>,
}

#[derive(Clone, Debug)]
struct Member {
    proposer: Proposer,
    life: u64,
    orders: Vec<Option<Order>>,
    /// Writes of its former life that may still land, and where.
    ghosts: Vec<(usize, ControlBlock)>,
    changes: u8,
    reads: u8,
    /// How often it may yet begin again; two that outbid each other would never come to an end.
    resumes: u8,
    /// The newest that anybody had been told when it asked, and when it wished.
    owed: [u64; 2],
}

#[derive(Clone, Debug)]
struct Registry {
    members: Vec<Member>,
    markers: Vec<Marker>,
    deaths: u8,
    failures: u8,
    decided: BTreeMap<u64, ControlRecord>,
    told: u64,
    broken: Option<String>,
}

fn resource() -> ResourceId {
    ResourceId::derive("small", "db")
}

fn id(member: usize) -> MemberId {
    let index = u8::try_from(member).ok().and_then(MemberId::new);
    index.unwrap_or_else(|| unreachable!("there are two members"))
}

fn writer(member: usize, life: u64) -> Writer {
    let incarnation = Incarnation::new(life);
    Writer { member: id(member), incarnation, nonce: life * 2 + member as u64 }
}

impl Registry {
    fn new(setting: &Deciding) -> Self {
        let blank = |member| ControlBlock::blank(resource(), id(member));
        let ring = |member| {
            (0..CONTROL_COPIES).map(move |sequence| {
                ((member, sequence), ControlBlock { sequence, ..blank(member) })
            })
        };
        let marker: Marker = (0..MEMBERS).flat_map(ring).collect();
        let member = |member| Member {
            proposer: Proposer::new(resource(), writer(member, 1), setting.markers),
            life: 1,
            orders: vec![None; setting.markers],
            ghosts: Vec::new(),
            changes: setting.changes,
            reads: setting.reads,
            resumes: RESUMES,
            owed: [0; 2],
        };
        let mut registry = Self {
            members: (0..MEMBERS).map(member).collect(),
            markers: vec![marker; setting.markers],
            deaths: setting.deaths,
            failures: setting.failures,
            decided: BTreeMap::new(),
            told: 0,
            broken: None,
        };
        (0..MEMBERS).for_each(|member| registry.go_on(member));
        // Both know what is there, which is nothing.
        while let Some(next) = registry.moves().into_iter().find(|next| next.is_by_itself()) {
            registry.make(next);
        }
        registry
    }

    fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        for (index, member) in self.members.iter().enumerate() {
            for (marker, order) in member.orders.iter().enumerate() {
                let Some(order) = order else { continue };
                let lands = order.write.is_some();
                moves.push(if lands {
                    Move::Lands(index, marker)
                } else {
                    Move::Returns(index, marker)
                });
                if self.failures > 0 && lands {
                    moves.extend([true, false].map(|landed| Move::Fails(index, marker, landed)));
                }
            }
            if !member.ghosts.is_empty() {
                moves.extend([true, false].map(|landed| Move::Ghost(index, landed)));
            }
            let mut offer = |holds: bool, next| moves.extend(holds.then_some(next));
            let waits = member.proposer.deadline().is_some();
            offer(waits && member.resumes > 0, Move::Resumes(index));
            offer(member.changes > 0, Move::Wishes(index));
            offer(member.reads > 0, Move::Asks(index));
            offer(self.deaths > 0, Move::Dies(index));
        }
        moves
    }

    fn make(&mut self, next: Move) {
        let member = match next {
            Move::Lands(member, marker) => {
                let order = self.members[member].orders[marker].as_mut();
                if let Some(block) = order.and_then(|order| order.write.take()) {
                    self.lands(marker, block);
                }
                return;
            }
            Move::Returns(member, marker) => {
                self.returns(member, marker);
                member
            }
            Move::Ghost(member, landed) => {
                if let (Some((marker, block)), true) = (self.members[member].ghosts.pop(), landed) {
                    self.lands(marker, block);
                }
                member
            }
            Move::Resumes(member) => {
                let resuming = &mut self.members[member];
                resuming.resumes -= 1;
                resuming.proposer.tick(Now::from_micros(u64::MAX));
                member
            }
            Move::Wishes(member) => {
                self.wishes(member);
                member
            }
            Move::Asks(member) => {
                let told = self.told;
                let asking = &mut self.members[member];
                (asking.reads, asking.owed[0]) = (asking.reads - 1, told);
                asking.proposer.read();
                member
            }
            Move::Fails(member, marker, landed) => {
                self.fails((member, marker), landed);
                member
            }
            Move::Dies(member) => {
                self.dies(member);
                member
            }
        };
        self.go_on(member);
    }

    /// A decision is known from the first block on that teaches it.
    fn lands(&mut self, marker: usize, block: ControlBlock) {
        if let Some(record) = &block.control.learned {
            let known = self.decided.entry(record.number).or_insert_with(|| record.clone());
            if known != record {
                self.broken = Some(format!("decided are {known:?} and {record:?}"));
            }
        }
        let place = (usize::from(block.member.index()), block.sequence % CONTROL_COPIES);
        self.markers[marker].insert(place, block);
    }

    fn returns(&mut self, member: usize, marker: usize) {
        let newest = |member: usize| {
            let ring = self.markers[marker].iter().filter(|((of, _), _)| *of == member);
            ring.map(|(_, block)| block).max_by_key(|block| block.sequence).cloned()
        };
        let blocks: Vec<_> = (0..MEMBERS).filter_map(newest).collect();
        let asking = &mut self.members[member];
        asking.orders[marker] = None;
        // A marker that holds something else is used no more; here that cannot happen.
        if let Err(what) = asking.proposer.done(marker, &blocks, Now::default()) {
            self.broken = Some(what.to_string());
        }
    }

    fn wishes(&mut self, member: usize) {
        let (told, number) = (self.told, self.told + 1);
        let wishing = &mut self.members[member];
        (wishing.changes, wishing.owed[1]) = (wishing.changes - 1, told);
        let owner = Incarnate { member: id(member), incarnation: Incarnation::new(wishing.life) };
        // No two wishes are alike.
        let epoch = Epoch::new(number * 100 + u64::from(wishing.changes) * 10 + member as u64);
        let (began, in_sync) = (Began::InSync, vec![owner]);
        let record = ControlRecord { number, epoch, began, owner, in_sync, release: None };
        wishing.proposer.change(record);
    }

    fn fails(&mut self, (member, marker): (usize, usize), landed: bool) {
        self.failures -= 1;
        let order = self.members[member].orders[marker].take();
        if let Some(block) = order.and_then(|order| order.write).filter(|_| landed) {
            self.lands(marker, block);
        }
        self.members[member].proposer.failed(marker, Now::default());
    }

    fn dies(&mut self, member: usize) {
        self.deaths -= 1;
        let dead = &mut self.members[member];
        let orders = std::mem::take(&mut dead.orders);
        dead.orders = vec![None; orders.len()];
        let writes = orders.into_iter().enumerate();
        dead.ghosts = writes.filter_map(|(at, order)| Some((at, order?.write?))).collect();
        dead.life += 1;
        dead.proposer = Proposer::new(resource(), writer(member, dead.life), dead.orders.len());
    }

    /// What the proposer wants done is sent, and what it says is heard.
    fn go_on(&mut self, member: usize) {
        let acting = &mut self.members[member];
        for said in acting.proposer.said() {
            let (record, owed) = match said {
                Said::Read(record) => (record, acting.owed[0]),
                Said::Decided(record) => (record, acting.owed[1]),
            };
            let number = record.as_ref().map_or(0, |record| record.number);
            if number < owed {
                self.broken = Some(format!("{number} is told, and {owed} was told before"));
            }
            if record.as_ref() != self.decided.get(&number) {
                self.broken = Some(format!("told is {record:?}, which was not decided"));
            }
            self.told = self.told.max(number);
        }
        if !acting.ghosts.is_empty() {
            return;
        }
        for (marker, order) in acting.orders.iter_mut().enumerate() {
            if order.is_none() {
                *order = acting.proposer.job(marker).map(|job| Order { write: job.write });
            }
        }
    }

    fn fingerprint(&self) -> [u8; 16] {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = write!(text, "{self:?}");
        let hash = blake3::hash(text.as_bytes());
        hash.as_bytes().first_chunk().copied().unwrap_or_default()
    }
}

struct Search {
    /// The most detours that were left when a state was looked at.
    seen: HashMap<[u8; 16], Option<u8>>,
    path: Vec<Move>,
    found: Decided,
}

impl Search {
    fn visit(&mut self, registry: &Registry, detours: Option<u8>) {
        let print = registry.fingerprint();
        if self.seen.get(&print).is_some_and(|seen| *seen >= detours) {
            return;
        }
        self.seen.insert(print, detours);
        self.found.most = self.found.most.max(registry.decided.len());
        let moves = registry.moves();
        let in_turn = moves.iter().position(|next| next.is_by_itself());
        for (place, next) in moves.into_iter().enumerate() {
            let is_detour = next.is_by_itself() && Some(place) != in_turn;
            let left = match detours {
                Some(0) if is_detour => continue,
                Some(left) if is_detour => Some(left - 1),
                any => any,
            };
            let mut after = registry.clone();
            after.make(next);
            self.path.push(next);
            match &after.broken {
                Some(broken) => {
                    let path = self.path.iter().map(|step| format!("{step:?}")).collect();
                    self.found.broken.get_or_insert((broken.clone(), path));
                }
                None => self.visit(&after, left),
            }
            self.path.pop();
            if self.found.broken.is_some() {
                return;
            }
        }
    }
}

//! The markers: what they hold, the ways to them, and every member's keeper, which is the one of
//! the daemon.
//!
//! What a host has asked of a marker goes on without it: a write may land long after whoever sent
//! it is dead. Two things bound that, as they do in the daemon: a process that is killed ends only
//! when what it has asked of a marker is done, and what a host that lost power, or an error, has
//! left on its way lands within the time that a new life settles for.

use std::collections::{BTreeMap, BTreeSet};

use hadrian_protocol::ids::{ClusterId, Epoch, Incarnation, MemberId};
use hadrian_protocol::marks::block::Block;
use hadrian_protocol::marks::control::ControlBlock;
use hadrian_protocol::marks::header::{Header, Label};
use hadrian_protocol::marks::keeper::{self, Keeper, Setup};
use hadrian_protocol::marks::layout::{BLOCK_LEN, BlockIndex, Place, Run};
use hadrian_protocol::marks::making;
use hadrian_protocol::marks::proposer::Said;
use hadrian_protocol::node::{Event, LeaseConfig, OnLeaseEnd};
use hadrian_protocol::record::ControlRecord;
use hadrian_protocol::time::{WallTime, micros};
use rand::Rng;

use super::record::Want;
use super::{Act, Due, World};
use crate::host::resource;
use crate::plan::{Host as Index, Marks as Setting, Plan};
use crate::{MS, Micros, NAMES};

/// Blocks by their place.
type Disk = BTreeMap<u64, Vec<u8>>;

/// All of it; empty where the plan has no marks.
#[derive(Debug, Default)]
pub(super) struct Marks {
    disks: Vec<Disk>,
    blank: Vec<Disk>,
    hung: BTreeSet<(Index, u8)>,
    failing: BTreeSet<(Index, u8)>,
    keepers: BTreeMap<Index, Keeping>,
    orders: BTreeMap<u64, Order>,
    next_order: u64,
    /// When the last word of its keeper reaches each member: they do not overtake each other.
    mail_at: BTreeMap<Index, Micros>,
    /// Every decision, by its number.
    decided: BTreeMap<u64, ControlRecord>,
}

#[derive(Debug)]
struct Keeping {
    keeper: Keeper,
    life: u64,
    tick_at: Option<Micros>,
}

/// Something asked of a marker, until it is done.
#[derive(Clone, Debug)]
struct Order {
    from: Index,
    life: u64,
    marker: u8,
    write: Option<(BlockIndex, Block)>,
    read: Run,
}

/// Where an order is.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// It reaches the marker: what is to be written lands.
    Arrives,
    /// It is read.
    Reads,
    /// What was read reaches whoever asked; none: an error.
    Returns(Option<Vec<u8>>),
}

/// What the plan's marks mean for the core.
pub(super) fn lease(marks: Setting) -> LeaseConfig {
    let on_end = if marks.fails { OnLeaseEnd::Fail } else { OnLeaseEnd::Hold };
    let lease = LeaseConfig::new(&Setting::TIMING, marks.auto_takeover);
    LeaseConfig { on_end, fences: marks.fences, ..lease }
}

fn cluster() -> ClusterId {
    ClusterId::derive("simulated")
}

fn place() -> Place {
    Place::new(0).unwrap_or_else(|| unreachable!("there is a first place"))
}

/// Markers as they are made.
fn made(markers: u8, members: u8) -> Vec<Disk> {
    let disk = |marker| {
        let (set, cluster_name) = ([1; 16], "simulated".into());
        let (places, made) = (1, WallTime::default());
        let header = Header { set, marker, markers, members, places, made, cluster_name };
        let label = Label { resource: resource(), name: "db".into() };
        let blocks = making::marker(cluster(), &header).into_iter();
        let blocks = blocks.chain(making::place(cluster(), (place(), &label), members));
        blocks.map(|(index, block)| (index.get(), block.as_bytes().to_vec())).collect()
    };
    (0..markers).map(disk).collect()
}

impl Marks {
    pub(super) fn new(plan: &Plan) -> Self {
        let markers = plan.marks.map_or(0, |marks| marks.markers);
        let disks = made(markers, plan.members);
        Self { blank: disks.clone(), disks, ..Self::default() }
    }

    pub(super) fn newest(&self) -> Option<&ControlRecord> {
        self.decided.last_key_value().map(|(_, record)| record)
    }

    fn markers(&self) -> u8 {
        u8::try_from(self.disks.len()).unwrap_or_default()
    }

    pub(super) fn hang_all(&mut self, index: Index) {
        (0..self.markers()).for_each(|marker| self.hang(index, marker));
    }

    pub(super) fn heal_host(&mut self, index: Index) {
        (0..self.markers()).for_each(|marker| self.heal(index, marker));
    }

    pub(super) fn hang(&mut self, index: Index, marker: u8) {
        self.hung.insert((index, marker));
    }

    pub(super) fn fail(&mut self, index: Index, marker: u8) {
        self.failing.insert((index, marker));
    }

    pub(super) fn heal(&mut self, index: Index, marker: u8) {
        self.hung.remove(&(index, marker));
        self.failing.remove(&(index, marker));
    }

    pub(super) fn heal_all(&mut self) {
        self.hung.clear();
        self.failing.clear();
    }

    pub(super) fn forget(&mut self, marker: u8) {
        let at = usize::from(marker);
        if let (Some(disk), Some(blank)) = (self.disks.get_mut(at), self.blank.get(at)) {
            disk.clone_from(blank);
        }
    }

    fn read(&self, marker: u8, run: Run) -> Vec<u8> {
        let disk = &self.disks[usize::from(marker)];
        let blocks = run
            .blocks()
            .map(|index| disk.get(&index.get()).cloned().unwrap_or_else(|| vec![0; BLOCK_LEN]));
        blocks.flatten().collect()
    }

    /// A killed process is there until the last of its orders is done.
    pub(super) fn is_busy(&self, index: Index) -> bool {
        self.orders.values().any(|order| order.from == index)
    }
}

impl World<'_> {
    /// With leases, nobody lets clients in before everybody else has shut them out (design §7),
    /// but where an operator has answered for that, or clocks were frozen. Whoever stands still
    /// answers nobody.
    pub(super) fn one_is_open(&mut self, index: Index) {
        let open = |other: &Index| {
            self.hosts[usize::from(*other)].is_open() && self.stands_still(*other).is_none()
        };
        if self.plan.marks.is_none() || !open(&index) || self.oracle.are_excused() {
            return;
        }
        if let Some(other) = (0..self.plan.members).find(|other| *other != index && open(other)) {
            let names = [index, other].map(|index| NAMES[usize::from(index)]);
            self.oracle.broken("§7", format!("both {} and {} are open", names[0], names[1]));
        }
    }

    /// The command takes its time; now and then it cannot do anything.
    pub(super) fn fence(&mut self, index: Index, owner: (MemberId, Epoch)) {
        let life = self.hosts[usize::from(index)].life;
        let (pause, works) = (self.rng.random_range(1..400) * MS, self.rng.random_bool(0.8));
        self.after(pause, Due::Fenced(index, life, owner, works));
    }

    /// Its host loses power, whoever has asked for it; and comes back by and by.
    pub(super) fn fenced(
        &mut self,
        (index, life): (Index, u64),
        (owner, epoch): (MemberId, Epoch),
        works: bool,
    ) {
        let fenced = works && self.act != Act::Stopping;
        if fenced {
            let pause = self.rng.random_range(50..3000) * MS;
            self.end_process(owner.index(), true);
            self.after(pause, Due::Start(owner.index()));
        }
        self.event_of(index, life, Event::FenceEnded { owner, epoch, fenced });
    }

    pub(super) fn start_keeper(&mut self, index: Index) {
        let Some(Setting { markers, .. }) = self.plan.marks else { return };
        let host = &self.hosts[usize::from(index)];
        let clock = host.clock(self.now);
        let setup = Setup {
            cluster: cluster(),
            me: host.member,
            members: self.plan.members,
            markers: usize::from(markers),
            timing: Setting::TIMING,
            places: vec![(resource(), Some(place()))],
            incarnation: Incarnation::default().next_at(clock.wall),
            nonce: self.plan.seed ^ (u64::from(index) << 32) ^ host.life,
            host_id: u64::from(index) + 1,
            host: NAMES[usize::from(index)].into(),
        };
        let keeping = Keeping { keeper: Keeper::new(setup, clock), life: host.life, tick_at: None };
        self.marks.keepers.insert(index, keeping);
        self.keeper_out(index);
    }

    /// Its host's process has ended, with the power or without.
    pub(super) fn end_keeper(&mut self, index: Index, power_lost: bool) {
        self.marks.keepers.remove(&index);
        if !power_lost {
            return;
        }
        let orders = self.marks.orders.extract_if(.., |_, order| order.from == index);
        for (_, order) in orders.collect::<Vec<_>>() {
            let (marker, Some((at, block))) = (order.marker, order.write) else { continue };
            match self.rng.random_range(0..4) {
                0 => {}
                1 => self.tear(marker, at, &block),
                _ => self.lands_late(marker, at, block),
            }
        }
    }

    /// Half of a block is there.
    fn tear(&mut self, marker: u8, at: BlockIndex, block: &Block) {
        let len = self.rng.random_range(1..BLOCK_LEN / 512) * 512;
        let disk = &mut self.marks.disks[usize::from(marker)];
        let held = disk.entry(at.get()).or_insert_with(|| vec![0; BLOCK_LEN]);
        held[..len].copy_from_slice(&block.as_bytes()[..len]);
    }

    /// What nobody waits for any more lands within the time that is waited for it.
    fn lands_late(&mut self, marker: u8, at: BlockIndex, block: Block) {
        let pause = self.rng.random_range(0..micros(Setting::TIMING.settle()));
        self.after(pause, Due::Lands(marker, at, Box::new(block)));
    }

    pub(super) fn lands(&mut self, marker: u8, at: BlockIndex, block: &Block) {
        let bytes = block.as_bytes().to_vec();
        self.marks.disks[usize::from(marker)].insert(at.get(), bytes);
        self.look_at_decisions(at, block);
    }

    /// A decision is known from the first block on that teaches it.
    fn look_at_decisions(&mut self, at: BlockIndex, block: &Block) {
        let members = (0..self.plan.members).filter_map(MemberId::new);
        let names = (cluster(), resource());
        let of = |member| ControlBlock::open(block.as_bytes(), names, member, at).ok();
        let Some(record) = members.filter_map(of).find_map(|block| block.control.learned) else {
            return;
        };
        match self.marks.decided.get(&record.number) {
            Some(known) => {
                let same = *known == record;
                if !same {
                    self.oracle.broken(
                        "one decision",
                        format!("the record was decided as {known:?}, and as {record:?}"),
                    );
                }
            }
            None => self.decides(record),
        }
    }

    fn decides(&mut self, record: ControlRecord) {
        let (owner, epoch, number) = (record.owner.member, record.epoch, record.number);
        self.story.tell("record", &[number], || {
            let set: Vec<_> = record.in_sync.iter().map(|life| life.member.to_string()).collect();
            format!("the record is changed: {owner} in epoch {epoch}, {}", set.join("+"))
        });
        self.oracle.record_changes(&record);
        self.marks.decided.insert(number, record);
    }

    pub(super) fn want_marks(&mut self, index: Index, want: Want) {
        let life = self.hosts[usize::from(index)].life;
        let pause = self.rng.random_range(20..400);
        self.after(pause, Due::Wish(index, life, want));
    }

    pub(super) fn wish(&mut self, index: Index, life: u64, want: Want) {
        let event = match want {
            Want::Read => keeper::Event::Read(0),
            Want::Change(record) => keeper::Event::Change(0, record),
        };
        self.keep(index, life, event);
    }

    /// Hands an event to a keeper, if it is still the one that it is for.
    fn keep(&mut self, index: Index, life: u64, event: keeper::Event<'_>) {
        let clock = self.hosts[usize::from(index)].clock(self.now);
        let Some(keeping) = self.marks.keepers.get_mut(&index) else { return };
        if keeping.life == life {
            keeping.keeper.handle(clock, event);
            self.keeper_out(index);
        }
    }

    pub(super) fn keeper_tick(&mut self, index: Index, life: u64) {
        let now = self.now;
        let Some(keeping) = self.marks.keepers.get_mut(&index) else { return };
        if keeping.tick_at.is_some_and(|at| at <= now) {
            keeping.tick_at = None;
            self.keep(index, life, keeper::Event::Tick);
        }
    }

    fn keeper_out(&mut self, index: Index) {
        let Some(keeping) = self.marks.keepers.get_mut(&index) else { return };
        let life = keeping.life;
        let actions: Vec<_> = std::iter::from_fn(|| keeping.keeper.poll()).collect();
        for action in actions {
            self.keeper_does(index, life, action);
        }
        let (now, host) = (self.now, &self.hosts[usize::from(index)]);
        let Some(keeping) = self.marks.keepers.get_mut(&index) else { return };
        let due = keeping.keeper.deadline().map(|at| host.world_time(at).max(now + 100));
        if let Some(at) = due.filter(|at| keeping.tick_at.is_none_or(|tick| *at < tick)) {
            keeping.tick_at = Some(at);
            self.at(at, Due::KeeperTick(index, life));
        }
    }

    fn keeper_does(&mut self, index: Index, life: u64, action: keeper::Action) {
        let name = NAMES[usize::from(index)];
        let event = match action {
            keeper::Action::Order { marker, write, read } => {
                let marker = u8::try_from(marker).unwrap_or_default();
                return self.order(Order { from: index, life, marker, write, read });
            }
            keeper::Action::Said(_, Said::Read(record)) => Event::RecordRead(record),
            keeper::Action::Said(_, Said::Decided(record)) => Event::Decided(record),
            keeper::Action::Lease(term) => Event::Lease(Some(term.until)),
            keeper::Action::LeaseLost => Event::Lease(None),
            keeper::Action::Sight(member, sight, as_of) => Event::Sighted { member, sight, as_of },
            keeper::Action::Marker(marker, health) => {
                return self.story.tell("marker", &[u64::from(index)], || {
                    format!("{name} finds marker {marker} {health:?}")
                });
            }
            keeper::Action::Refused(_) => {
                return self.oracle.broken("§7", format!("{name} takes itself for another host"));
            }
            keeper::Action::Joined(_) | keeper::Action::Left => return,
        };
        let pause = match self.rng.random_range(0..30) {
            0 => self.rng.random_range(1..40) * MS,
            _ => self.rng.random_range(20..300),
        };
        let last = self.marks.mail_at.get(&index).copied().unwrap_or_default();
        let at = (self.now + pause).max(last);
        self.marks.mail_at.insert(index, at);
        self.at(at, Due::MarksSay(index, life, event));
    }

    /// Before a marker has done with an order nobody gives it the next (fencing §2.2): the two
    /// could change places on their way.
    fn order(&mut self, order: Order) {
        let is_same = |other: &Order| {
            (other.from, other.life, other.marker) == (order.from, order.life, order.marker)
        };
        if self.marks.orders.values().any(is_same) {
            let (name, marker) = (NAMES[usize::from(order.from)], order.marker);
            let what = format!("{name} gives marker {marker} an order while another is under way");
            self.oracle.broken("one order", what);
        }
        self.marks.next_order += 1;
        let id = self.marks.next_order;
        self.marks.orders.insert(id, order);
        self.order_goes_on(id, Stage::Arrives);
    }

    fn order_goes_on(&mut self, id: u64, stage: Stage) {
        let pause = match self.rng.random_range(0..60) {
            0 => self.rng.random_range(1..250) * MS,
            _ => self.rng.random_range(50..1500),
        };
        self.after(pause, Due::Order(id, stage));
    }

    pub(super) fn order_step(&mut self, id: u64, stage: Stage) {
        let Some(order) = self.marks.orders.get(&id) else { return };
        let (from, life, marker) = (order.from, order.life, order.marker);
        // On a way that hangs, every other write still gets there, and its answer does not come.
        let gets_there = matches!(stage, Stage::Arrives) && id.is_multiple_of(2);
        if self.marks.hung.contains(&(from, marker)) && !gets_there {
            return self.after(20 * MS, Due::Order(id, stage));
        }
        let fails = self.marks.failing.contains(&(from, marker));
        match stage {
            Stage::Arrives if fails => self.order_fails(id),
            Stage::Arrives => {
                if let Some((at, block)) = order.write.clone() {
                    self.lands(marker, at, &block);
                }
                self.order_goes_on(id, Stage::Reads);
            }
            Stage::Reads if fails => self.order_goes_on(id, Stage::Returns(None)),
            Stage::Reads => {
                let bytes = self.marks.read(marker, order.read);
                self.order_goes_on(id, Stage::Returns(Some(bytes)));
            }
            Stage::Returns(bytes) => {
                if let Some(until) = self.stands_still(from) {
                    return self.at(until, Due::Order(id, Stage::Returns(bytes)));
                }
                self.marks.orders.remove(&id);
                let marker = usize::from(marker);
                match &bytes {
                    Some(bytes) => self.keep(from, life, keeper::Event::Done { marker, bytes }),
                    None => self.keep(from, life, keeper::Event::Failed { marker }),
                }
            }
        }
    }

    /// It was written, or was not, or will be.
    fn order_fails(&mut self, id: u64) {
        let order = self.marks.orders.get(&id).cloned();
        if let Some((marker, Some((at, block)))) = order.map(|order| (order.marker, order.write)) {
            match self.rng.random_range(0..4) {
                0 => self.lands(marker, at, &block),
                1 => self.lands_late(marker, at, block),
                _ => {}
            }
        }
        self.order_goes_on(id, Stage::Returns(None));
    }
}

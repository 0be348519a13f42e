//! The smallest cluster that the real cores can live in.

use std::cell::OnceCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use hadrian_protocol::frame::{Frame, LogPosition};
use hadrian_protocol::ids::{Lsn, MemberId, ResourceId, SessionId};
use hadrian_protocol::node::{Event, Node, NodeConfig, OnWindowEnd, RecordKind, Recovered};
use hadrian_protocol::record::ControlRecord;
use hadrian_protocol::replica::{Base, ReplicaState, Role, VolumeGeometry};
use hadrian_protocol::time::{Clock, Now, WallTime};
use hadrian_protocol::wire::Message;

use super::truth::Truth;
use super::{Move, Ration, Setting};
use crate::plan::Host as Index;

/// One host: what survives its daemon, and the daemon, if it runs.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) node: Option<Node>,
    /// Counts its processes.
    pub(super) life: u64,
    /// The superblock.
    pub(super) state: ReplicaState,
    pub(super) frames: Vec<Frame>,
    /// Frames before this survive a power loss.
    pub(super) durable: Lsn,
    /// The end of what the image holds.
    pub(super) applied: LogPosition,
    /// A sync is under way, up to here.
    pub(super) syncing: Option<Lsn>,
    /// A write of the superblock is under way.
    pub(super) persisting: Option<(u64, ReplicaState)>,
    /// What it wants of the record, and which of its lives wanted it.
    pub(super) asks: VecDeque<(u64, Want)>,
    /// What the record has said to it.
    pub(super) told: VecDeque<Event>,
    /// Time has passed that it has not noticed yet.
    pub(super) lags: bool,
    /// One number for all of the above, where it is known.
    print: OnceCell<blake3::Hash>,
}

/// What a member wants of the control record.
#[derive(Clone, Debug)]
pub(super) enum Want {
    Read,
    Change(ControlRecord),
}

/// What travels.
#[derive(Clone, Debug)]
pub(super) enum Parcel {
    Message(Message),
    Frame(Frame),
    /// The connection has ended.
    End,
}

/// One way of a connection.
#[derive(Clone, Debug)]
pub(super) struct Pipe {
    /// As the receiver knows it.
    pub(super) session: SessionId,
    /// As the sender knows it.
    pub(super) sender: SessionId,
    pub(super) parcels: VecDeque<Parcel>,
}

#[derive(Clone, Debug)]
pub(super) struct Cluster {
    pub(super) setting: Setting,
    pub(super) left: Ration,
    /// Shared with other states until it changes.
    pub(super) hosts: Vec<Rc<Host>>,
    pub(super) pipes: BTreeMap<(Index, Index), Pipe>,
    pub(super) record: Option<ControlRecord>,
    pub(super) clock: Clock,
    next_session: u64,
    config: NodeConfig,
    pub(super) truth: Truth,
}

pub(super) fn resource() -> ResourceId {
    ResourceId::derive("small", "db")
}

fn config(setting: &Setting) -> NodeConfig {
    let members = (0..setting.members).filter_map(MemberId::new).collect();
    let mut config = NodeConfig::new(members, setting.mode);
    config.timeout = Duration::from_secs(1);
    config.peer_window = Duration::from_secs(2);
    config.on_window_end = if setting.hold { OnWindowEnd::Hold } else { OnWindowEnd::Continue };
    config.record = if setting.record { RecordKind::Register } else { RecordKind::None };
    // What may be applied is applied at once, so that nothing hides behind a timer.
    config.apply_bytes = 1;
    config
}

impl Cluster {
    /// Every member started, connected and in peer; one write answered and in every image.
    pub(super) fn together(setting: &Setting) -> Self {
        let config = config(setting);
        let hosts = (0..setting.members).filter_map(MemberId::new).map(|member| {
            let role = if member.index() == 0 { Role::Primary } else { Role::Standby };
            let volumes = vec![VolumeGeometry { size_bytes: 1 << 20, block_size: 512 }];
            let (mode, base) = (setting.mode, Base::Zero);
            let state = ReplicaState::created(resource(), member, role, mode, base, volumes);
            Rc::new(Host::new(state))
        });
        let clock = Clock { now: Now::default(), wall: WallTime::from_micros(1) };
        let mut cluster = Self {
            setting: *setting,
            left: Ration { writes: 1, kills: 0, powers: 0, cuts: 0, commands: 0, waits: 0 },
            hosts: hosts.collect(),
            pipes: BTreeMap::new(),
            record: None,
            clock,
            next_session: 1,
            config,
            truth: Truth::default(),
        };
        (0..setting.members).for_each(|index| cluster.start(index));
        cluster.rest();
        cluster.make(Move::Writes(0));
        cluster.rest();
        cluster.left = setting.ration;
        cluster
    }

    /// Everything that happens by itself has happened.
    fn rest(&mut self) {
        while let Some(next) = self.moves().into_iter().find(|next| next.is_by_itself()) {
            self.make(next);
        }
    }

    pub(super) fn host(&mut self, index: Index) -> &mut Host {
        let host = Rc::make_mut(&mut self.hosts[usize::from(index)]);
        host.print.take();
        host
    }

    pub(super) fn broken(&self) -> Option<&str> {
        self.truth.broken.as_deref()
    }

    /// One number for everything on which the rest of a story depends.
    pub(super) fn fingerprint(&self) -> u128 {
        let Self { left, pipes, record, clock, truth, .. } = self;
        let mut text = format!("{left:?} {pipes:?} {record:?} {clock:?} {truth:?}").into_bytes();
        self.hosts.iter().for_each(|host| text.extend(host.print().as_bytes()));
        let hash = blake3::hash(&text);
        hash.as_bytes().iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte))
    }

    pub(super) fn start(&mut self, index: Index) {
        let (config, clock) = (self.config.clone(), self.clock);
        let host = self.host(index);
        let genesis = LogPosition::genesis(resource());
        let mut end = genesis;
        let mut epoch_starts = Vec::new();
        for frame in &host.frames {
            if frame.epoch_start().is_some() {
                epoch_starts.push((end, frame.clone()));
            }
            end = frame.position_after();
        }
        let limit = host.state.apply_limit.min(end.lsn);
        host.applied = host.position(limit);
        let durable = host.durable.min(end.lsn);
        let (start, maps) = (Lsn::START, Vec::new());
        let recovered = Recovered { end, durable, start, epoch_starts, maps };
        host.life += 1;
        host.node = Some(Node::new(config, host.state.clone(), recovered, clock));
        self.act(index);
        self.check();
    }

    /// The process ends. `written`: its superblock write was done; `kept`, after a power loss:
    /// whether the log that was not durable is there all the same.
    pub(super) fn dies(&mut self, index: Index, written: bool, kept: Option<bool>) {
        let host = self.host(index);
        if let Some((_, state)) = host.persisting.take().filter(|_| written) {
            host.state = state;
        }
        (host.node, host.syncing, host.lags) = (None, None, false);
        host.told.clear();
        if kept == Some(false) {
            let durable = host.durable;
            host.frames.retain(|frame| frame.end() <= durable);
        }
        for other in 0..self.hosts.len() as Index {
            self.pipes.remove(&(other, index));
            if let Some(pipe) = self.pipes.get_mut(&(index, other)) {
                pipe.parcels.push_back(Parcel::End);
            }
        }
    }

    pub(super) fn connect(&mut self, a: Index, b: Index) {
        let number = self.next_session;
        self.next_session += 2;
        let (of_a, of_b) = (SessionId::new(number), SessionId::new(number + 1));
        let pipe = |session, sender| Pipe { session, sender, parcels: VecDeque::new() };
        self.pipes.insert((a, b), pipe(of_b, of_a));
        self.pipes.insert((b, a), pipe(of_a, of_b));
        for (index, session, peer) in [(a, of_a, b), (b, of_b, a)] {
            if let Some(peer) = MemberId::new(peer) {
                self.tell(index, Event::Linked { session, peer });
            }
        }
    }

    pub(super) fn breaks(&mut self, a: Index, b: Index) {
        for way in [(a, b), (b, a)] {
            if let Some(pipe) = self.pipes.get_mut(&way) {
                pipe.parcels = VecDeque::from([Parcel::End]);
            }
        }
    }

    pub(super) fn tell(&mut self, index: Index, event: Event) {
        let clock = self.clock;
        let host = self.host(index);
        let Some(node) = &mut host.node else { return };
        host.lags = false;
        node.handle(clock, event);
        node.settle(clock);
        self.act(index);
    }
}

impl Host {
    fn new(state: ReplicaState) -> Self {
        Self {
            node: None,
            life: 0,
            state,
            frames: Vec::new(),
            durable: Lsn::START,
            applied: LogPosition::genesis(resource()),
            syncing: None,
            persisting: None,
            asks: VecDeque::new(),
            told: VecDeque::new(),
            lags: false,
            print: OnceCell::new(),
        }
    }

    fn print(&self) -> blake3::Hash {
        *self.print.get_or_init(|| {
            // All at once: a hash of many small pieces takes many times as long.
            let mut text = format!("{self:?}").into_bytes();
            self.frames.iter().for_each(|frame| text.extend(frame.chain().as_bytes()));
            blake3::hash(&text)
        })
    }

    /// The point of its log that ends at `lsn`.
    pub(super) fn position(&self, lsn: Lsn) -> LogPosition {
        let frame = self.frames.iter().rfind(|frame| frame.end() <= lsn);
        frame.map_or_else(|| LogPosition::genesis(resource()), Frame::position_after)
    }

    pub(super) fn holds(&self, position: LogPosition) -> bool {
        self.position(position.lsn) == position
    }
}

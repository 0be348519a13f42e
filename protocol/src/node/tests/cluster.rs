//! Whole nodes wired together in one process: logs are lists of frames, disks do as they are
//! told at once, links carry messages in order, and time moves only when a test moves it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::super::*;
use crate::frame::LogPosition;
use crate::ids::{ResourceId, SessionId, VolumeIndex};
use crate::range::ByteRange;
use crate::record::ControlRecord;
use crate::replica::{Base, Image, Mode, VolumeGeometry};
use crate::resync::Span;
use crate::time::WallTime;
use crate::wire::{CannotGrow, Message};

pub(super) fn member(index: u8) -> MemberId {
    MemberId::new(index).unwrap()
}

fn resource() -> ResourceId {
    ResourceId::derive("orders", "db")
}

/// One host: what survives the end of the daemon, and the daemon, if it runs.
pub(super) struct Host {
    pub(super) node: Option<Node>,
    pub(super) state: ReplicaState,
    pub(super) frames: Vec<Frame>,
    /// Frames before this survive a power loss.
    pub(super) durable: Lsn,
    /// End of what the image holds.
    pub(super) applied: Lsn,
    pub(super) serving: bool,
    pub(super) replies: Vec<(u64, Result<Done, Denied>)>,
    pub(super) quarantined: usize,
    pub(super) syncs_held: bool,
    pub(super) applies_held: bool,
    /// The sockets of this host take no frames; they wait here.
    pub(super) stuffed: Option<Vec<(SessionId, Frame)>>,
    /// The log before this was given up.
    pub(super) released: Lsn,
    /// How often its log cannot be read back.
    pub(super) unreadable: u32,
    /// Its part of a resync comes to its end by itself; otherwise the story says how far it is.
    pub(super) brings_up: bool,
    /// Its image and log do not go where the superblock says that they go.
    pub(super) switches_held: bool,
    /// What people were told.
    pub(super) notes: Vec<Note>,
    /// Why exports of a seed came to nothing.
    pub(super) seeds_ended: Vec<Denied>,
    /// What its disks say when they are to make room; none: nothing yet.
    pub(super) room: Option<Option<CannotGrow>>,
    /// What clients were offered, one after the other.
    pub(super) offered: Vec<u64>,
    /// What was to be added to dirty maps.
    pub(super) folds: Vec<(MemberId, Option<Lsn>, Lsn)>,
}

enum Parcel {
    Message(Message),
    Frame(Frame),
}

pub(super) struct Cluster {
    pub(super) hosts: Vec<Host>,
    pub(super) config: NodeConfig,
    clock: Clock,
    next_session: u64,
    /// (from, to) → the session at each end and what is under way.
    links: BTreeMap<(u8, u8), (SessionId, SessionId, VecDeque<Parcel>)>,
    pub(super) record: Option<ControlRecord>,
    /// Hosts that do not reach the record; what they ask of it waits.
    no_record: BTreeSet<u8>,
    waiting: Vec<(u8, Action)>,
}

impl Cluster {
    pub(super) fn new(count: u8, mode: Mode) -> Self {
        let config = NodeConfig::new((0..count).map(member).collect(), mode);
        Self::with_config(count, config)
    }

    pub(super) fn with_config(count: u8, config: NodeConfig) -> Self {
        let volumes = vec![VolumeGeometry { size_bytes: 1 << 20, block_size: 512 }];
        let host = |index| {
            let role = if index == 0 { Role::Primary } else { Role::Standby };
            let (mode, base) = (config.mode, Base::Zero);
            let volumes = volumes.clone();
            let state = ReplicaState::created(resource(), member(index), role, mode, base, volumes);
            Host {
                node: None,
                state,
                frames: Vec::new(),
                durable: Lsn::START,
                applied: Lsn::START,
                serving: false,
                replies: Vec::new(),
                quarantined: 0,
                syncs_held: false,
                applies_held: false,
                stuffed: None,
                released: Lsn::START,
                unreadable: 0,
                brings_up: false,
                switches_held: false,
                notes: Vec::new(),
                seeds_ended: Vec::new(),
                folds: Vec::new(),
                room: Some(None),
                offered: Vec::new(),
            }
        };
        let hosts = (0..count).map(host).collect();
        let wall = WallTime::from_micros(1);
        let clock = Clock { now: Now::default(), wall };
        let (links, no_record) = (BTreeMap::new(), BTreeSet::new());
        let (record, waiting) = (None, Vec::new());
        Self { hosts, config, clock, next_session: 1, links, record, no_record, waiting }
    }

    /// Every member started and linked with every other, and everything settled.
    pub(super) fn started(count: u8, mode: Mode) -> Self {
        let mut cluster = Self::new(count, mode);
        cluster.start_all();
        cluster
    }

    pub(super) fn start_all(&mut self) {
        let count = self.hosts.len() as u8;
        (0..count).for_each(|index| self.start(index));
        for a in 0..count {
            (a + 1..count).for_each(|b| self.link(a, b));
        }
        self.run();
    }

    /// Starts a host's daemon from what survived.
    pub(super) fn start(&mut self, index: u8) {
        let host = &mut self.hosts[usize::from(index)];
        if host.state.image == Image::Switching {
            // Opening a replica finishes it.
            let at = host.state.checkpoint.lsn;
            host.frames.retain(|frame| frame.end() <= at);
            host.durable = at;
        }
        let genesis = LogPosition::genesis(resource());
        let end = host.frames.last().map_or(genesis, Frame::position_after);
        let mut position = genesis;
        let mut epoch_starts = Vec::new();
        for frame in &host.frames {
            assert!(frame.follows(position.chain), "a log is one chain");
            if frame.epoch_start().is_some() {
                epoch_starts.push((position, frame.clone()));
            }
            position = frame.position_after();
        }
        assert!(host.state.apply_limit <= end.lsn, "what may be applied is durable");
        host.applied = host.state.apply_limit;
        let durable = host.durable.min(end.lsn);
        let start = Lsn::START;
        let recovered = Recovered { end, durable, start, epoch_starts, maps: Vec::new() };
        let node = Node::new(self.config.clone(), host.state.clone(), recovered, self.clock);
        host.node = Some(node);
        self.run();
    }

    /// `kill -9`: what was written stays, what was in memory is gone.
    pub(super) fn kill(&mut self, index: u8) {
        let host = &mut self.hosts[usize::from(index)];
        host.node = None;
        host.serving = false;
        self.waiting.retain(|(of, _)| *of != index);
        let others = 0..self.hosts.len() as u8;
        others.filter(|other| *other != index).for_each(|other| self.cut(index, other));
    }

    /// Power loss: what was not durable is gone too.
    pub(super) fn lose_power(&mut self, index: u8) {
        self.kill(index);
        let host = &mut self.hosts[usize::from(index)];
        let durable = host.durable;
        host.frames.retain(|frame| frame.end() <= durable);
    }

    pub(super) fn link(&mut self, a: u8, b: u8) {
        let (sa, sb) = (SessionId::new(self.next_session), SessionId::new(self.next_session + 1));
        self.next_session += 2;
        self.links.insert((a, b), (sa, sb, VecDeque::new()));
        self.links.insert((b, a), (sb, sa, VecDeque::new()));
        self.tell(a, Event::Linked { session: sa, peer: member(b) });
        self.tell(b, Event::Linked { session: sb, peer: member(a) });
    }

    /// The session that `index` has with `other`.
    pub(super) fn session(&self, index: u8, other: u8) -> SessionId {
        self.links[&(index, other)].0
    }

    pub(super) fn are_linked(&self, a: u8, b: u8) -> bool {
        self.links.contains_key(&(a, b))
    }

    /// The link breaks; what was under way is lost.
    pub(super) fn cut(&mut self, a: u8, b: u8) {
        for (from, to) in [(a, b), (b, a)] {
            if let Some((session, _, _)) = self.links.remove(&(from, to)) {
                self.tell(from, Event::Unlinked { session });
            }
        }
        self.run();
    }

    pub(super) fn tell(&mut self, index: u8, event: Event) {
        let clock = self.clock;
        if let Some(node) = &mut self.hosts[usize::from(index)].node {
            node.handle(clock, event);
            node.settle(clock);
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        // In small steps, so that no timer is jumped over.
        for _ in 0..100 {
            self.clock.now = self.clock.now.after(time / 100);
            (0..self.hosts.len() as u8).for_each(|index| self.tell(index, Event::Tick));
            self.run();
        }
    }

    /// The wall clocks of all hosts go on, and nothing else.
    pub(super) fn wall_passes(&mut self, time: Duration) {
        let wall = self.clock.wall.as_micros() + crate::time::micros(time);
        self.clock.wall = WallTime::from_micros(wall);
        (0..self.hosts.len() as u8).for_each(|index| self.tell(index, Event::Tick));
        self.run();
    }

    pub(super) fn command(&mut self, index: u8, command: Command) -> Result<Done, Denied> {
        let id = self.ask(index, command);
        self.reply(index, id).expect("every command is answered")
    }

    /// Asks for something that may take its time; returns the number of the command.
    pub(super) fn ask(&mut self, index: u8, command: Command) -> u64 {
        let id = self.next_session;
        self.next_session += 1;
        self.tell(index, Event::Command { id, command });
        self.run();
        id
    }

    /// What became of a command, as soon as that is known.
    pub(super) fn reply(&self, index: u8, id: u64) -> Option<Result<Done, Denied>> {
        let replies = &self.hosts[usize::from(index)].replies;
        replies.iter().rev().find(|(of, _)| *of == id).map(|(_, result)| *result)
    }

    /// A client writes; returns the position that must be answerable.
    pub(super) fn write(&mut self, index: u8, byte: u8) -> Lsn {
        self.write_frame(index, byte, 512)
    }

    /// The same with a payload of that many bytes.
    pub(super) fn write_frame(&mut self, index: u8, byte: u8, len: usize) -> Lsn {
        let clock = self.clock;
        let mut draft = Draft::new(vec![0; crate::frame::HEAD_LEN + 4096 + len]);
        let range = ByteRange::new(0, len as u64).unwrap();
        draft.write(VolumeIndex::new(0).unwrap(), range, &vec![byte; len]).unwrap();
        let node = self.hosts[usize::from(index)].node.as_mut().unwrap();
        let end = node.append(clock, draft).expect("the member serves");
        node.settle(clock);
        end
    }

    pub(super) fn node(&self, index: u8) -> &Node {
        self.hosts[usize::from(index)].node.as_ref().unwrap()
    }

    pub(super) fn state_of(&self, primary: u8, standby: u8) -> Option<StandbyState> {
        let status = self.node(primary).status();
        status.peers.iter().find(|peer| peer.member == member(standby)).and_then(|p| p.state)
    }

    /// The end of a host's log.
    pub(super) fn end(&self, index: u8) -> LogPosition {
        let last = self.hosts[usize::from(index)].frames.last();
        last.map_or(LogPosition::genesis(resource()), Frame::position_after)
    }

    /// Everything that can happen without the clock happens.
    pub(super) fn run(&mut self) {
        for _ in 0..10_000 {
            let mut busy = false;
            for index in 0..self.hosts.len() as u8 {
                busy |= self.act(index);
            }
            let routes: Vec<_> = self.links.keys().copied().collect();
            for route in routes {
                busy |= self.deliver(route);
            }
            self.check_invariants();
            if !busy {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    /// Messages to a host that is down wait for nobody.
    fn deliver(&mut self, (from, to): (u8, u8)) -> bool {
        let Some((_, session, queue)) = self.links.get_mut(&(from, to)) else { return false };
        let session = *session;
        let Some(parcel) = queue.pop_front() else { return false };
        match parcel {
            Parcel::Message(message) => self.tell(to, Event::Heard { session, message }),
            Parcel::Frame(frame) => self.tell(to, Event::FrameIn { session, frame }),
        }
        true
    }

    fn act(&mut self, index: u8) -> bool {
        let mut busy = false;
        while let Some(action) =
            self.hosts[usize::from(index)].node.as_mut().and_then(Node::next_action)
        {
            busy = true;
            self.carry_out(index, action);
        }
        busy
    }

    fn carry_out(&mut self, index: u8, action: Action) {
        let host = &mut self.hosts[usize::from(index)];
        match action {
            Action::Send { session, message } => self.post(session, Parcel::Message(message)),
            Action::Ship { session, frame } => match &mut host.stuffed {
                Some(waiting) => waiting.push((session, frame)),
                None => self.ship(index, session, frame),
            },
            Action::Close { session } => self.close(session),
            Action::Append(frame) => {
                let lsn = frame.end();
                host.frames.push(frame);
                self.tell(index, Event::Written(lsn));
            }
            Action::SyncLog if host.syncs_held => {}
            Action::SyncLog => {
                host.durable = host.frames.last().map_or(Lsn::START, Frame::end);
                let durable = host.durable;
                self.tell(index, Event::Durable(durable));
            }
            Action::Persist { number, state } => {
                host.state = *state;
                self.tell(index, Event::Persisted(number));
            }
            Action::Apply(_) if host.applies_held => {}
            Action::Apply(lsn) => {
                assert!(lsn <= host.durable, "nothing is applied before it is durable");
                assert!(lsn <= host.state.apply_limit, "nothing is applied beyond the limit");
                host.applied = lsn;
                self.tell(index, Event::Applied(lsn));
            }
            Action::Checkpoint => {
                let applied = host.applied;
                let frame = host.frames.iter().rfind(|frame| frame.end() == applied);
                let genesis = LogPosition::genesis(resource());
                let position = frame.map_or(genesis, Frame::position_after);
                self.tell(index, Event::Checkpointed(position));
            }
            Action::Note(note) => host.notes.push(note),
            Action::ReleaseLog(lsn) => host.released = lsn,
            Action::Stopped => {}
            Action::ReadLog { session, from } => {
                let count = if host.unreadable == 0 { 3 } else { 0 };
                host.unreadable = host.unreadable.saturating_sub(1);
                let frames = host.frames.iter().filter(|frame| frame.lsn() >= from);
                let frames = frames.take(count).cloned().collect();
                self.tell(index, Event::LogRead { session, frames });
            }
            Action::Truncate(LogPosition { lsn, .. }) => {
                assert!(host.applied <= lsn, "what was applied is never cut");
                let before = host.frames.len();
                host.frames.retain(|frame| frame.end() <= lsn);
                host.quarantined += before - host.frames.len();
                host.durable = host.durable.min(lsn);
                let genesis = LogPosition::genesis(resource());
                let end = host.frames.last().map_or(genesis, Frame::position_after);
                self.tell(index, Event::Truncated(end));
            }
            Action::ReadRecord | Action::Propose(_) => self.ask_record(index, action),
            Action::Hold(true) => self.tell(index, Event::Held),
            Action::SeedEnded { why, .. } => host.seeds_ended.push(why),
            Action::Fold { peer, from, to } => {
                host.folds.push((peer, from, to));
                let span = Some(Span { since: from.unwrap_or(to), to });
                self.tell(index, Event::Folded { peer, span });
            }
            Action::Serve(serving) => host.serving = serving,
            Action::Reply { id, result } => host.replies.push((id, result)),
            // Nobody is fenced here, and what is compared is not there: the simulator has that.
            action => self.resync(index, action),
        }
    }

    /// What a resync brings is not there in these hosts, but each of its steps is; and so it is
    /// with room.
    fn resync(&mut self, index: u8, action: Action) {
        let host = &mut self.hosts[usize::from(index)];
        match action {
            Action::MakeRoom(_) => {
                if let Some(cannot) = host.room {
                    self.tell(index, Event::RoomMade(cannot));
                }
            }
            Action::Offer(volumes) => {
                assert_eq!(host.state.volumes, volumes, "what is offered is durable");
                host.offered.push(volumes[0].size_bytes);
            }
            _ if !host.brings_up => {}
            Action::Source { session, .. } => self.tell(index, Event::SourceNearEnd { session }),
            Action::FinishSource { session } => {
                let at = host.applied;
                let frame = host.frames.iter().rfind(|frame| frame.end() == at);
                let at = frame.expect("something was applied").position_after();
                self.tell(index, Event::SourceDone { session, at, said: 0 });
            }
            Action::FinishSink { session, .. } => {
                self.tell(index, Event::SinkDone { session, whole: true });
            }
            Action::Rewind(to) => {
                assert_eq!(host.applied, host.state.apply_limit, "the image rests");
                assert!(to.lsn < host.applied, "what is not in the image is cut");
                self.tell(index, Event::Rewound { whole: true });
            }
            Action::SwitchImage(_) if host.switches_held => {}
            Action::SwitchImage(at) => {
                let says = (host.state.image, host.state.checkpoint);
                assert_eq!(says, (Image::Switching, at), "the superblock says so first");
                match host.state.went_back {
                    Some(_) => host.frames.retain(|frame| frame.end() <= at.lsn),
                    None => host.frames.clear(),
                }
                (host.applied, host.durable) = (at.lsn, at.lsn);
                self.tell(index, Event::Switched(at));
            }
            _ => {}
        }
    }

    /// Image and log of a host go where its superblock says that they go.
    pub(super) fn switch_again(&mut self, index: u8) {
        let host = &mut self.hosts[usize::from(index)];
        host.switches_held = false;
        let at = host.state.checkpoint;
        self.resync(index, Action::SwitchImage(at));
        self.run();
    }

    fn ask_record(&mut self, index: u8, action: Action) {
        match action {
            _ if self.no_record.contains(&index) => self.waiting.push((index, action)),
            Action::Propose(record) => {
                let number = self.record.as_ref().map_or(0, |record| record.number);
                if record.number == number + 1 {
                    self.record = Some(record);
                }
                self.tell(index, Event::Decided(self.record.clone()));
            }
            _ => self.tell(index, Event::RecordRead(self.record.clone())),
        }
    }

    fn ship(&mut self, index: u8, session: SessionId, frame: Frame) {
        let lsn = frame.end();
        self.post(session, Parcel::Frame(frame));
        self.tell(index, Event::Handed { session, lsn });
    }

    /// From here on a host does not reach the record.
    pub(super) fn cut_record(&mut self, index: u8) {
        self.no_record.insert(index);
    }

    /// It does again, and what it has asked meanwhile is done.
    pub(super) fn heal_record(&mut self, index: u8) {
        self.no_record.remove(&index);
        let (own, others) = self.waiting.drain(..).partition(|(of, _)| *of == index);
        self.waiting = others;
        let own: Vec<(u8, Action)> = own;
        own.into_iter().for_each(|(_, action)| self.carry_out(index, action));
        self.run();
    }

    pub(super) fn reaches_record(&self, index: u8) -> bool {
        !self.no_record.contains(&index)
    }

    pub(super) fn now(&self) -> Now {
        self.clock.now
    }

    /// From here on the sockets of a host take no frames.
    pub(super) fn stuff(&mut self, index: u8) {
        self.hosts[usize::from(index)].stuffed = Some(Vec::new());
    }

    /// They take them again, and what has waited for them.
    pub(super) fn clear(&mut self, index: u8) {
        let waiting = self.hosts[usize::from(index)].stuffed.take().unwrap_or_default();
        waiting.into_iter().for_each(|(session, frame)| self.ship(index, session, frame));
        self.run();
    }

    /// The disk of a host syncs again, and what it was asked to sync meanwhile.
    pub(super) fn sync_again(&mut self, index: u8) {
        self.hosts[usize::from(index)].syncs_held = false;
        self.carry_out(index, Action::SyncLog);
        self.run();
    }

    /// The disk of a host applies again what it was told to apply meanwhile.
    pub(super) fn apply_again(&mut self, index: u8) {
        let host = &mut self.hosts[usize::from(index)];
        host.applies_held = false;
        let lsn = host.state.apply_limit;
        self.carry_out(index, Action::Apply(lsn));
        self.run();
    }

    /// The codes of what people were told at a host, from its start on.
    pub(super) fn told(&self, index: u8) -> Vec<&'static str> {
        self.hosts[usize::from(index)].notes.iter().map(Note::code).collect()
    }

    fn post(&mut self, session: SessionId, parcel: Parcel) {
        let link = self.links.values_mut().find(|(from, _, _)| *from == session);
        if let Some((_, _, queue)) = link {
            queue.push_back(parcel);
        }
    }

    fn close(&mut self, session: SessionId) {
        let route = self.links.iter().find(|(_, link)| link.0 == session);
        if let Some(((a, b), _)) = route {
            let (a, b) = (*a, *b);
            // What was sent before the end still arrives.
            while self.deliver((a, b)) {}
            self.cut_quietly(a, b);
        }
    }

    fn cut_quietly(&mut self, a: u8, b: u8) {
        for (from, to) in [(a, b), (b, a)] {
            if let Some((session, _, _)) = self.links.remove(&(from, to)) {
                self.tell(from, Event::Unlinked { session });
            }
        }
    }

    /// I1: frames at the same epoch and position are the same frame. I4: one leader an epoch.
    fn check_invariants(&self) {
        let mut seen = BTreeMap::new();
        for frame in self.hosts.iter().flat_map(|host| &host.frames) {
            let before = seen.insert((frame.epoch(), frame.lsn()), frame.chain());
            assert!(before.is_none_or(|chain| chain == frame.chain()), "I1 broken at {frame:?}");
        }
        let leaders = self.hosts.iter().filter_map(|host| host.node.as_ref());
        for node in leaders.clone() {
            assert_eq!(node.moves().illegal(), None);
        }
        let mut owned = BTreeMap::new();
        for node in leaders.filter(|node| node.is_leading()) {
            let other = owned.insert(node.state().owned, node.state().member);
            assert!(other.is_none(), "I4 broken: two leaders of {}", node.state().owned);
        }
    }
}

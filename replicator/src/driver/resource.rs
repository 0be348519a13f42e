//! The resource's one owner: whatever happened goes to the node, whatever the node wants is done.

use hadrian_blockdev::buffer::IoBuf;
use hadrian_blockdev::nbd::Exports;
use hadrian_blockdev::replica::{Replica, ReplicaEvent};
use hadrian_protocol::frame::{Draft, Frame};
use hadrian_protocol::ids::{Epoch, Lsn, MemberId, ResourceId, SessionId};
use hadrian_protocol::node::{Action, Command, Denied, Done, Event, FailedPart, Recorded};
use hadrian_protocol::replica::VolumeGeometry;
use hadrian_protocol::time::{Clock, Now};
use hadrian_protocol::wire::Message;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{Notify, oneshot};

use super::clients::Clients;
use super::companions::{Carried, CompanionsStart};
use super::device::Devices;
use super::link::{Compression, Outgoing};
use super::marks::MarksDoor;
use super::resync::Copies;
use super::seed::Seeding;
use super::share::Share;
use super::told::{Told, ToldEvent};
use crate::hooks::Hooks;
use crate::recording::Wanted;

/// How often the core is told that a link waits for room.
const STILL_FULL: std::time::Duration = std::time::Duration::from_millis(50);
/// Most log space at which a standby reads no more from its link; a small log keeps a 16th.
const STANDBY_ROOM_MAX: u64 = 8 << 20;
/// Most bytes of frames that the node has and has not appended; a small part of the room above.
const UNSETTLED_MAX: u64 = 1 << 20;

/// What the thread of a resource needs to know beside the node's settings.
#[derive(Clone, Debug)]
pub struct ResourceOptions {
    /// Its name, for people.
    pub name: String,
    /// What people call the members, in the order of their numbers.
    pub members: Vec<String>,
    /// Names under which its volumes are exported, in their order.
    pub exports: Vec<String>,
    /// Whether frames are made smaller on their way to other members.
    pub compression: Compression,
    /// Where its events are recorded, if somebody wants that.
    pub recording: Option<Wanted>,
    /// Whether its volumes are block devices of this kernel while it serves; with so many queues.
    pub ublk_queues: Option<u16>,
    /// Bytes of log that may wait for the backing stores while changes come; at most half a log.
    pub held_bytes: u64,
    /// Most bytes of the image that are read in a second for standbys that the log alone cannot
    /// bring up.
    pub copy_rate: Option<u64>,
    /// The memory that it may use.
    pub share: Share,
    /// Where its control record is, where there are marks.
    pub marks: Option<MarksDoor>,
    /// The operator's programs.
    pub hooks: Option<Arc<Hooks>>,
    /// The files that go where it goes, if it has any.
    pub companions: Option<CompanionsStart>,
}

/// Where an operator waits for an answer.
type Asker = oneshot::Sender<Result<Done, Denied>>;

/// The resource as its tasks share it. One thread: cells, no locks.
pub(super) struct Shared {
    pub(super) inner: RefCell<Inner>,
    /// The pump has something to do.
    pub(super) wake: Notify,
    /// A standby's link may go on reading.
    room: Notify,
    pub(super) resource: ResourceId,
    pub(super) compression: Compression,
    pub(super) stopped: Cell<bool>,
    pub(super) ended: Notify,
    pub(super) exports: RefCell<Exports>,
    /// Under which its volumes are exported, in their order.
    pub(super) export_names: Vec<String>,
    pub(super) devices: Option<RefCell<Devices>>,
    /// Of what the thread has done last in one go, beginning and end; kept during a resync.
    pub(super) busy: Cell<(Now, Now)>,
}

/// Everything that the pump works on.
pub(super) struct Inner {
    pub(super) node: Recorded,
    pub(super) replica: Replica,
    pub(super) clients: Clients,
    pub(super) companions: Option<Carried>,
    pub(super) links: BTreeMap<SessionId, Rc<Outgoing>>,
    pub(super) copies: Vec<Copies>,
    pub(super) seeding: Option<Seeding>,
    commands: BTreeMap<u64, Asker>,
    next_number: u64,
    pub(super) marks: Option<MarksDoor>,
    pub(super) hooks: Option<Arc<Hooks>>,
    /// Whether this member had a lease on the marks, when it was last told.
    pub(super) had_lease: Option<bool>,
    /// The takeover by itself that is to be announced.
    announces: Option<(MemberId, Epoch)>,
    pub(super) serving: bool,
    /// It leads, and serves as soon as nothing waits for the image in the log alone.
    pub(super) opening: bool,
    /// Whoever asked for a takeover, and waits for that.
    takers: Vec<(Asker, Done)>,
    pub(super) holding: bool,
    events: Vec<ReplicaEvent>,
    change: Option<bool>,
    /// The volumes as clients may use them, and whether that has changed since the last look.
    pub(super) sizes: Vec<VolumeGeometry>,
    resized: bool,
    /// Somebody else leads, since the last look.
    pub(super) follows: bool,
    /// Bytes of frames that came since the node was last settled.
    unsettled: u64,
    /// The fork whose frames were looked at.
    surveyed: Option<Lsn>,
    /// Bytes of log that may wait for the stores while frames come, and when the last one came.
    pub(super) held_bytes: u64,
    pub(super) share: Share,
    pub(super) busy_at: Now,
    pub(super) name: String,
    pub(super) members: Vec<String>,
    stopped: bool,
    /// What people were told.
    pub(super) told: Told,
}

/// What a look at the disks brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Disks {
    /// Nothing: their descriptor tells when to look again.
    Quiet,
    /// Events for the node, which is to be settled.
    News,
    /// Perhaps that too, and there is more to be fetched at once.
    More,
}

impl Shared {
    pub(super) fn new(
        node: Recorded,
        replica: Replica,
        resource: ResourceId,
        member: MemberId,
        options: &ResourceOptions,
    ) -> Rc<Self> {
        let sizes = node.state().volumes.clone();
        let inner = Inner {
            node,
            replica,
            clients: Clients::default(),
            companions: options.companions.as_ref().map(Carried::new),
            links: BTreeMap::new(),
            copies: Vec::new(),
            seeding: None,
            commands: BTreeMap::new(),
            next_number: 1,
            marks: options.marks.clone(),
            hooks: options.hooks.clone(),
            had_lease: None,
            announces: None,
            serving: false,
            opening: false,
            takers: Vec::new(),
            holding: false,
            events: Vec::new(),
            change: None,
            sizes,
            resized: false,
            follows: false,
            unsettled: 0,
            surveyed: None,
            held_bytes: options.held_bytes,
            share: options.share,
            busy_at: Now::default(),
            name: options.name.clone(),
            members: options.members.clone(),
            stopped: false,
            told: Told::default(),
        };
        Rc::new(Self {
            inner: RefCell::new(inner),
            wake: Notify::new(),
            room: Notify::new(),
            resource,
            compression: options.compression,
            stopped: Cell::new(false),
            ended: Notify::new(),
            exports: RefCell::default(),
            export_names: options.exports.clone(),
            busy: Cell::default(),
            devices: options.ublk_queues.map(|queues| {
                RefCell::new(Devices::new((resource, member), &options.exports, queues))
            }),
        })
    }

    pub(super) fn event(&self, event: Event) {
        let mut inner = self.inner.borrow_mut();
        let clock = inner.clock();
        inner.node.handle(clock, event);
        self.wake.notify_one();
    }

    /// A connection stands: what is to be sent over it comes through the queue.
    pub(super) fn linked(&self, peer: MemberId) -> (SessionId, Rc<Outgoing>) {
        let outgoing = Rc::new(Outgoing::default());
        let mut inner = self.inner.borrow_mut();
        let session = SessionId::new(inner.number());
        inner.links.insert(session, outgoing.clone());
        drop(inner);
        self.event(Event::Linked { session, peer });
        (session, outgoing)
    }

    pub(super) fn unlinked(&self, session: SessionId) {
        self.inner.borrow_mut().links.remove(&session);
        self.event(Event::Unlinked { session });
        self.ended.notify_waiters();
    }

    /// Waits until no connection to another member is left.
    pub(super) async fn links_ended(&self) {
        loop {
            let ended = self.ended.notified();
            if self.inner.borrow().links.is_empty() {
                return;
            }
            ended.await;
        }
    }

    pub(super) fn heard(&self, session: SessionId, message: Message) {
        self.event(Event::Heard { session, message });
    }

    pub(super) fn handed(&self, session: SessionId, lsn: Lsn) {
        self.event(Event::Handed { session, lsn });
    }

    /// Whether the frame was taken; false for one that lies outside its volumes.
    pub(super) fn frame_in(&self, session: SessionId, frame: Frame) -> bool {
        if !self.inner.borrow().replica.holds(&frame) {
            return false;
        }
        let len = frame.log_len();
        self.event(Event::FrameIn { session, frame });
        // The log's room is known only when frames are in the log, and many may come at once.
        let mut inner = self.inner.borrow_mut();
        inner.busy_at = inner.clock().now;
        inner.unsettled += len;
        if inner.unsettled >= UNSETTLED_MAX {
            inner.run_node();
        }
        true
    }

    pub(super) fn durable(&self) -> Lsn {
        self.inner.borrow().node.log_durable()
    }

    /// Waits while the replica has no room for more frames.
    pub(super) async fn room_for_frames(&self, session: SessionId) {
        while !self.inner.borrow().has_frame_room() {
            self.event(Event::Full { session });
            // The core wants to hear again and again that this side is the one that waits.
            let _ = tokio::time::timeout(STILL_FULL, self.room.notified()).await;
        }
    }

    /// What people were told after the event of this number.
    pub(super) fn told(&self, after: u64) -> Vec<ToldEvent> {
        self.inner.borrow().told.after(after)
    }

    pub(super) fn command(&self, command: Command, reply: Asker) {
        let mut inner = self.inner.borrow_mut();
        let id = inner.number();
        inner.commands.insert(id, reply);
        drop(inner);
        self.event(Event::Command { id, command });
    }

    /// Settles everything that happened: messages, frames and answers lie in the queues of their
    /// sockets then, and the disks are asked by [`Shared::work_disks`] behind them. Returns when
    /// it must be called again at the latest.
    pub(super) fn settle(self: &Rc<Self>) -> std::time::Duration {
        let mut inner = self.inner.borrow_mut();
        inner.settle();
        let (change, follows) = (inner.change.take(), std::mem::take(&mut inner.follows));
        let resized = std::mem::take(&mut inner.resized) && inner.serving;
        let (stopped, announces) = (inner.stopped, inner.announces.take());
        if inner.has_frame_room() {
            self.room.notify_waiters();
        }
        let now = inner.clock().now;
        let wait = inner.node.next_deadline().since(now);
        let copy = inner.replica.tick_copy(now);
        let wait = copy.map_or(wait, |at| at.since(now).min(wait));
        let wait = inner.hold_changes().map_or(wait, |quiet| quiet.min(wait));
        drop(inner);
        match change {
            Some(true) => self.open_exports(),
            Some(false) => {
                self.close_exports();
                // What was closed may be waited for, to be opened again.
                self.wake.notify_one();
            }
            None if resized => self.resize_exports(),
            None => {}
        }
        if let Some((owner, epoch)) = announces {
            self.announce(owner, epoch);
        }
        if let Some(devices) = self.devices.as_ref().filter(|_| follows) {
            devices.borrow().withdraw_left_over();
        }
        if stopped && !self.stopped.replace(true) {
            self.ended.notify_waiters();
        }
        wait
    }

    /// Hands the disks what they are asked for, and the node what they have done.
    pub(super) fn work_disks(&self) -> Disks {
        self.inner.borrow_mut().work_disks()
    }
}

impl Inner {
    /// The clock of the marks' thread, so that the end of a lease means the same here.
    pub(super) fn clock(&self) -> Clock {
        hadrian_fencing::clock::now()
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub(super) fn has_frame_room(&self) -> bool {
        let room = STANDBY_ROOM_MAX.min(self.replica.log_capacity() / 16);
        // Not slowed down like clients: the word that lets frames be applied comes between them.
        let has_room = self.replica.log_room() > room && self.share.takes(&self.replica);
        self.node.takes_frames() && has_room || !self.node.keeps_frames()
    }

    pub(super) fn log_end(&self) -> Lsn {
        self.node.log_end()
    }

    pub(super) fn want_durable(&mut self, end: Lsn) {
        let clock = self.clock();
        self.node.handle(clock, Event::DurableWanted(end));
    }

    pub(super) fn append(&mut self, draft: Draft<IoBuf>) -> Option<Lsn> {
        let clock = self.clock();
        self.busy_at = clock.now;
        self.node.append(clock, draft)
    }

    fn settle(&mut self) {
        self.take_late();
        self.place_points();
        self.seal_draft();
        self.run_node();
        self.open_when_ready();
        self.answer();
    }

    fn work_disks(&mut self) -> Disks {
        let mut events = std::mem::take(&mut self.events);
        let more = self.replica.poll_once(&mut events);
        let clock = self.clock();
        let news = !events.is_empty();
        for event in events.drain(..) {
            self.replica_event(clock, event);
        }
        self.events = events;
        match (more, news) {
            (true, _) => Disks::More,
            (false, true) => Disks::News,
            (false, false) => Disks::Quiet,
        }
    }

    /// Settles the node and carries out what it wants.
    pub(super) fn run_node(&mut self) {
        let clock = self.clock();
        self.unsettled = 0;
        self.node.settle(clock);
        while let Some(action) = self.node.next_action() {
            self.carry_out(action);
        }
        self.expose();
        self.survey_divergence();
    }

    /// People want to know what a return to the primary's history would lose.
    fn survey_divergence(&mut self) {
        let fork = self.node.diverged_at();
        if let Some(fork) = fork.filter(|_| self.surveyed != fork) {
            self.replica.survey(fork);
        }
        self.surveyed = fork;
    }

    fn replica_event(&mut self, clock: Clock, event: ReplicaEvent) {
        let event = match event {
            ReplicaEvent::Written(lsn) => Event::Written(lsn),
            ReplicaEvent::Durable(lsn) => Event::Durable(lsn),
            ReplicaEvent::Applied(lsn) => Event::Applied(lsn),
            ReplicaEvent::Checkpointed(position) => Event::Checkpointed(position),
            ReplicaEvent::Persisted(number) => Event::Persisted(number),
            ReplicaEvent::LogRead { id, frames } => {
                Event::LogRead { session: SessionId::new(id), frames }
            }
            ReplicaEvent::Truncated(end) => {
                tracing::warn!(resource = %self.name, end = %end.lsn, "the tail is saved and cut");
                Event::Truncated(end)
            }
            ReplicaEvent::NotTruncated(error) => {
                tracing::error!(resource = %self.name, %error, "the tail could not be cut");
                Event::Failed(FailedPart::Log)
            }
            ReplicaEvent::Failed(part, error) => {
                let name = &self.name;
                tracing::error!(resource = %name, ?part, %error, "the replica failed for good");
                Event::Failed(part)
            }
            ReplicaEvent::RoomMade(cannot) => Event::RoomMade(cannot),
            ReplicaEvent::Read(done) => {
                self.read_done(clock.now, done);
                return;
            }
            resync => match self.resync_event(resync) {
                Some(event) => event,
                None => return,
            },
        };
        self.node.handle(clock, event);
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Send { session, message } => {
                if let Some(link) = self.links.get(&session) {
                    link.send(&message);
                }
            }
            Action::Ship { session, frame } => {
                if let Some(link) = self.links.get(&session) {
                    link.ship(frame);
                }
            }
            Action::Close { session } => {
                if let Some(link) = self.links.get(&session) {
                    link.close();
                }
            }
            Action::Append(frame) => {
                if let Err(error) = self.replica.append(&frame) {
                    tracing::error!(resource = %self.name, %error, "a frame does not fit the log");
                    self.fail(FailedPart::Log);
                }
            }
            Action::SyncLog => self.replica.sync_log(),
            Action::Persist { number, state } => {
                if let Err(error) = self.replica.persist(number, *state) {
                    tracing::error!(resource = %self.name, %error, "the superblock is too long");
                    self.fail(FailedPart::Superblock);
                }
            }
            Action::Apply(lsn) => self.replica.apply_to(lsn),
            Action::Checkpoint => self.replica.checkpoint(),
            Action::ReleaseLog(lsn) => self.replica.release_log(lsn),
            Action::ReadLog { session, from } => self.replica.read_log(session.get(), from),
            Action::Truncate(point) => self.replica.truncate(point),
            Action::Hold(hold) => self.hold(hold),
            Action::Serve(serve) => self.serve(serve),
            Action::Reply { id, result } => self.reply(id, result),
            Action::ReadRecord => {
                if let Some(marks) = &self.marks {
                    marks.read();
                }
            }
            Action::Propose(record) => {
                if let Some(marks) = &self.marks {
                    marks.propose(record);
                }
            }
            Action::Fence { owner, epoch } => self.fence(owner, epoch),
            Action::Announce { owner, epoch } => self.announces = Some((owner, epoch)),
            Action::MakeRoom(volumes) => self.replica.make_room(&volumes),
            Action::Resize(volumes) => self.replica.resize(&volumes),
            Action::Offer(volumes) => (self.sizes, self.resized) = (volumes, true),
            Action::Stopped => self.stopped = true,
            Action::Note(note) => self.note(note),
            resync => self.resync(resync),
        }
    }

    /// Service begins when everything that waits for the image is in memory at least: before, reads
    /// would not see it.
    fn serve(&mut self, serve: bool) {
        (self.opening, self.holding) = (serve, false);
        self.replica.leave_in_log(!serve);
        if let Some(companions) = &mut self.companions {
            companions.serve(serve);
        }
        if !serve && std::mem::take(&mut self.serving) {
            self.change = Some(false);
        }
        if !serve {
            self.tell_takers(|_| Err(Denied::GivenUp));
        }
    }

    fn open_when_ready(&mut self) {
        // What is to be closed is closed before anything is opened.
        let may = self.opening && self.replica.spooled_bytes() == 0 && self.change != Some(false);
        if may && self.companions.as_mut().is_none_or(Carried::ready) {
            (self.opening, self.serving) = (false, true);
            self.expose();
            self.change = Some(true);
            self.tell_takers(Ok);
        }
    }

    /// Whoever asked for a takeover hears of it when clients can come.
    fn reply(&mut self, id: u64, result: Result<Done, Denied>) {
        let Some(asker) = self.commands.remove(&id) else { return };
        match result {
            Ok(done @ Done::Leading(_)) if self.opening => self.takers.push((asker, done)),
            result => tell(asker, result),
        }
    }

    fn tell_takers(&mut self, how: impl Fn(Done) -> Result<Done, Denied>) {
        self.takers.drain(..).for_each(|(asker, done)| tell(asker, how(done)));
    }

    fn fail(&mut self, part: FailedPart) {
        let clock = self.clock();
        self.node.handle(clock, Event::Failed(part));
    }

    fn hold(&mut self, hold: bool) {
        self.holding = hold;
        if hold {
            self.seal_draft();
            let clock = self.clock();
            self.node.handle(clock, Event::Held);
            self.node.settle(clock);
        }
    }
}

fn tell(asker: Asker, result: Result<Done, Denied>) {
    // Who asked may have gone away; then nobody needs the answer.
    let _ = asker.send(result);
}

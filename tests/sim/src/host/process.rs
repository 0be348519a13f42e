//! A running daemon: its core, its replica, and the pump between the two.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use hadrian_blockdev::buffer::IoBuf;
use hadrian_blockdev::engine::Engine as _;
use hadrian_blockdev::history::Door;
use hadrian_blockdev::replica::{Replica, ReplicaEvent};
use hadrian_blockdev::volume::Hold;
use hadrian_protocol::frame::{Draft, Frame};
use hadrian_protocol::ids::{Lsn, MemberId, SessionId};
use hadrian_protocol::node::{Action, Event, FailedPart, Note, Recorded};
use hadrian_protocol::range::ByteRange;
use hadrian_protocol::replica::VolumeGeometry;
use hadrian_protocol::time::{Clock, Now};

use super::seeds::Exporting;
use super::{Ask, BLOCK, Change, DIR, Outward, content, volume};
use crate::Micros;
use crate::disk::Disk;
use crate::oracle::Oracle;
use crate::world::Want;

/// One of so many moments at which an image is at rest is looked at: all would take too long.
const COMPARE_EVERY: u64 = 4;
/// Least log space that is left for the node's own frames.
const LOG_MARGIN: u64 = 64 << 10;
/// Without a frame for so long, changes that wait in the log are brought into the image.
const QUIET: Duration = Duration::from_millis(50);
/// The shortest change that waits: a page.
const LARGE_MIN: usize = 4096;
/// Bytes of frames that wait in memory; of the others, large changes wait in the log alone.
const WAITING_MEMORY: u64 = 96 << 10;

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) node: Recorded,
    pub(super) replica: Replica<Disk>,
    pub(super) disk: Disk,
    pub(super) began: Micros,
    pub(crate) serving: bool,
    /// Blocks that clients may use.
    pub(crate) offered: u64,
    /// It leads, and serves when nothing waits in the log alone.
    opening: bool,
    pub(super) holding: bool,
    /// Most bytes that waited in the log alone.
    pub(crate) most_spooled: u64,
    /// Most bytes of log that waited for the image.
    pub(crate) most_waited: u64,
    /// How far frames were allowed into the image.
    pub(super) apply_asked: Lsn,
    /// How often all of them had got there.
    settled: u64,
    pub(super) stopped: bool,
    /// Bytes of log that may wait for the image while frames come.
    wait_bytes: u64,
    /// When the last frame came.
    busy_at: Now,
    /// When it was called last.
    pub(super) looked_at: Now,
    writes: VecDeque<(Lsn, u64)>,
    commits: VecDeque<(Lsn, u64)>,
    reads: BTreeMap<u64, u64>,
    next_read: u64,
    /// The file that is being written of its image.
    pub(super) exporting: Option<Exporting>,
    pub(crate) out: Vec<Outward>,
    events: Vec<ReplicaEvent>,
}

impl Process {
    pub(super) fn new(
        node: Recorded,
        replica: Replica<Disk>,
        disk: Disk,
        (began, wait_bytes): (Micros, u64),
    ) -> Self {
        let offered = blocks(&node.state().volumes);
        Self {
            offered,
            node,
            replica,
            disk,
            began,
            serving: false,
            opening: false,
            holding: false,
            most_spooled: 0,
            most_waited: 0,
            apply_asked: Lsn::START,
            settled: 0,
            stopped: false,
            wait_bytes,
            busy_at: Now::default(),
            looked_at: Now::default(),
            writes: VecDeque::new(),
            commits: VecDeque::new(),
            reads: BTreeMap::new(),
            next_read: 0,
            exporting: None,
            out: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Whether a frame lies inside the volume as it is here: a link is closed where it does not.
    pub(crate) fn holds(&self, frame: &Frame) -> bool {
        self.replica.holds(frame)
    }

    pub(super) fn history_door(&self) -> Option<Door> {
        self.replica.history_door()
    }

    pub(crate) fn has_room(&self) -> bool {
        let takes = self.replica.log_room() > LOG_MARGIN && self.node.takes_frames();
        takes || !self.node.keeps_frames()
    }

    pub(super) fn take(
        &mut self,
        clock: Clock,
        member: MemberId,
        id: u64,
        ask: &Ask,
        oracle: &mut Oracle,
    ) {
        match ask {
            Ask::Write { changes, fua } => {
                let Some(end) = self.node.append(clock, draft(changes)) else {
                    unreachable!("a core that serves takes changes")
                };
                // The append is carried out first: the oracle must know the frame.
                self.run_node(clock, member, oracle);
                oracle.asked(member, id, end, &self.node);
                if *fua {
                    self.commit_at(clock, end, id);
                } else {
                    self.writes.push_back((end, id));
                }
            }
            Ask::Flush => {
                let end = self.node.log_end();
                oracle.asked(member, id, end, &self.node);
                self.commit_at(clock, end, id);
            }
            Ask::Read { block, count } => {
                oracle.asked(member, id, self.node.log_end(), &self.node);
                self.next_read += 1;
                self.reads.insert(self.next_read, id);
                let Ok(range) = ByteRange::new(block * BLOCK, count * BLOCK) else {
                    unreachable!("clients stay inside the volume")
                };
                self.replica.read(self.next_read, volume(), range);
            }
        }
    }

    /// The first thing that it holds too much of, where clients have asked at most so much (I10).
    pub(crate) fn excess(&self, asked: usize) -> Option<String> {
        let (replica, log) = (&self.replica, self.replica.log_capacity());
        let [requests, asked] =
            [self.writes.len() + self.commits.len() + self.reads.len(), asked].map(|n| n as u64);
        let all = [
            ("requests", requests, asked),
            ("bytes in memory", replica.unapplied_bytes(), log),
            ("bytes in the log alone", replica.spooled_bytes(), log),
        ];
        let excess = all.into_iter().find(|(_, held, limit)| held > limit);
        excess.map(|(what, held, limit)| format!("{held} {what}, of {limit}"))
    }

    fn commit_at(&mut self, clock: Clock, end: Lsn, id: u64) {
        self.node.handle(clock, Event::DurableWanted(end));
        self.commits.push_back((end, id));
    }

    fn run_node(&mut self, clock: Clock, member: MemberId, oracle: &mut Oracle) {
        self.node.settle(clock);
        while let Some(action) = self.node.next_action() {
            self.carry_out(clock, member, action, oracle);
        }
    }

    pub(super) fn pump(&mut self, clock: Clock, member: MemberId, oracle: &mut Oracle) {
        loop {
            self.run_node(clock, member, oracle);
            self.hold_changes(clock);
            self.replica.kick();
            let mut events = std::mem::take(&mut self.events);
            self.replica.poll(&mut events);
            self.most_spooled = self.most_spooled.max(self.replica.spooled_bytes());
            self.most_waited = self.most_waited.max(self.replica.waiting_bytes());
            if self.opening && self.replica.spooled_bytes() == 0 {
                (self.opening, self.serving) = (false, true);
                self.out.push(Outward::Serve(true));
            }
            self.answer(member, oracle);
            if events.is_empty() {
                self.events = events;
                return;
            }
            for event in events.drain(..) {
                self.replica_event(clock, member, event, oracle);
            }
            self.events = events;
        }
    }

    /// Large changes wait in the log while frames come.
    fn hold_changes(&mut self, clock: Clock) {
        self.looked_at = clock.now;
        let log_bytes = if self.quiet_at(clock.now).is_some() { self.wait_bytes } else { 0 };
        let hold = Hold { log_bytes, memory_bytes: WAITING_MEMORY, large_min: LARGE_MIN };
        self.replica.set_hold(hold);
    }

    /// When waiting is over if no frame comes; `None` once it is.
    pub(super) fn quiet_at(&self, now: Now) -> Option<Now> {
        let at = self.busy_at.after(QUIET);
        let waits = self.wait_bytes > 0 && !self.node.wants_whole_image();
        (waits && at > now).then_some(at)
    }

    fn answer(&mut self, member: MemberId, oracle: &mut Oracle) {
        let answers = self.node.answers();
        let ready = |queue: &mut VecDeque<(Lsn, u64)>, to: Lsn| -> Vec<u64> {
            let count = queue.iter().take_while(|(end, _)| *end <= to).count();
            queue.drain(..count).map(|(_, id)| id).collect()
        };
        let mut ids = ready(&mut self.writes, answers.writes);
        ids.extend(ready(&mut self.commits, answers.flushes));
        for id in ids {
            oracle.answered(member, id, &self.node);
            self.out.push(Outward::Answer(id));
        }
    }

    fn replica_event(
        &mut self,
        clock: Clock,
        member: MemberId,
        event: ReplicaEvent,
        oracle: &mut Oracle,
    ) {
        let event = match event {
            ReplicaEvent::Written(lsn) => {
                oracle.written(member, lsn);
                Event::Written(lsn)
            }
            ReplicaEvent::Durable(lsn) => {
                oracle.durable(member, lsn);
                Event::Durable(lsn)
            }
            ReplicaEvent::Applied(lsn) => {
                oracle.applied(member, lsn);
                self.compare_image(member, lsn, oracle);
                Event::Applied(lsn)
            }
            ReplicaEvent::Checkpointed(position) => Event::Checkpointed(position),
            ReplicaEvent::Persisted(number) => {
                let saved = self.quarantine();
                oracle.persisted(member, number, &saved);
                Event::Persisted(number)
            }
            ReplicaEvent::LogRead { id, frames } => {
                Event::LogRead { session: SessionId::new(id), frames }
            }
            ReplicaEvent::Truncated(end) => {
                oracle.truncated(member, end, &self.quarantine());
                Event::Truncated(end)
            }
            ReplicaEvent::NotTruncated(_) => Event::Failed(FailedPart::Log),
            ReplicaEvent::Failed(part, _) => {
                oracle.failed(member);
                Event::Failed(part)
            }
            ReplicaEvent::Read(done) => {
                if let Some(id) = self.reads.remove(&done.id) {
                    self.out.push(match done.result {
                        Ok(parts) => {
                            oracle.read(member, id, &parts.concat(), &self.node);
                            Outward::Answer(id)
                        }
                        Err(_) => Outward::CannotRead(id),
                    });
                }
                return;
            }
            ReplicaEvent::RoomMade(cannot) => Event::RoomMade(cannot),
            resync => match self.resync_event(member, resync, oracle) {
                Some(event) => event,
                None => return,
            },
        };
        self.node.handle(clock, event);
    }

    fn carry_out(&mut self, clock: Clock, member: MemberId, action: Action, oracle: &mut Oracle) {
        match action {
            Action::Send { session, message } => {
                oracle.said(member, &message, &self.node);
                self.out.push(Outward::Send(session, message));
            }
            Action::Ship { session, frame } => self.out.push(Outward::Ship(session, frame)),
            Action::Close { session } => self.out.push(Outward::Close(session)),
            Action::Append(frame) => {
                oracle.appended(member, &frame);
                self.busy_at = clock.now;
                if self.replica.append(&frame).is_err() {
                    oracle.failed(member);
                    self.node.handle(clock, Event::Failed(FailedPart::Log));
                }
            }
            Action::SyncLog => self.replica.sync_log(),
            Action::Persist { number, state } => {
                oracle.persisting(member, number, &state);
                let begun = self.replica.persist(number, *state);
                assert!(begun.is_ok(), "a state within its limits fits: {begun:?}");
            }
            Action::Apply(lsn) => {
                oracle.applying(member, lsn);
                self.apply_asked = self.apply_asked.max(lsn);
                self.replica.apply_to(lsn);
            }
            Action::Checkpoint => self.replica.checkpoint(),
            Action::ReleaseLog(lsn) => {
                oracle.releases(member, lsn);
                self.replica.release_log(lsn);
            }
            Action::ReadLog { session, from } => self.replica.read_log(session.get(), from),
            Action::Truncate(point) => {
                oracle.truncating(member, point);
                self.replica.truncate(point);
            }
            Action::Hold(hold) => {
                self.holding = hold;
                if hold {
                    self.node.handle(clock, Event::Held);
                    self.node.settle(clock);
                }
            }
            Action::Serve(serve) => self.serve(member, serve, oracle),
            Action::Reply { id, result } => self.out.push(Outward::Reply(id, result)),
            Action::ReadRecord => self.out.push(Outward::Record(Want::Read)),
            Action::Propose(record) => self.out.push(Outward::Record(Want::Change(record))),
            Action::Fence { owner, epoch } => self.out.push(Outward::Fence(owner, epoch)),
            Action::Announce { .. } => unreachable!("no program here hears of takeovers"),
            Action::Stopped => {
                self.stopped = true;
                self.out.push(Outward::Stopped);
            }
            Action::Note(note) => {
                match note {
                    Note::Leads(_) => oracle.leads(member, &self.node),
                    Note::PeerEntered(other) => {
                        oracle.entered(member, other, self.node.state().mode);
                    }
                    _ => {}
                }
                self.out.push(Outward::Note(note));
            }
            resync => self.resync(member, resync, oracle),
        }
    }

    /// Where nothing is on its way into the image, now and then: it is as of what was applied.
    fn compare_image(&mut self, member: MemberId, lsn: Lsn, oracle: &mut Oracle) {
        if lsn < self.apply_asked {
            return;
        }
        self.settled += 1;
        if self.settled.is_multiple_of(COMPARE_EVERY) {
            oracle.image_holds(member, lsn, &self.image());
        }
    }

    /// The files in which cut tails were saved.
    fn quarantine(&mut self) -> Vec<Vec<u8>> {
        let dir = Path::new(DIR).join("quarantine");
        self.disk.with(|disk| {
            let names = disk.list(&dir).unwrap_or_default();
            let paths = names.iter().map(|name| dir.join(name));
            paths.filter_map(|path| Some(disk.contents(&path)?.to_vec())).collect()
        })
    }

    /// At the end of service what is unanswered stays unanswered.
    fn serve(&mut self, member: MemberId, serve: bool, oracle: &mut Oracle) {
        (self.opening, self.holding) = (serve, false);
        self.replica.leave_in_log(!serve);
        if !serve {
            self.serving = false;
            self.out.push(Outward::Serve(false));
            match self.node.is_withdrawn() {
                true => oracle.throws_out(member),
                false => oracle.stands_down(member),
            }
            self.writes.clear();
            self.commits.clear();
            self.reads.clear();
        }
    }
}

pub(super) fn blocks(volumes: &[VolumeGeometry]) -> u64 {
    volumes.first().map_or(0, |volume| volume.size_bytes / BLOCK)
}

fn draft(changes: &[Change]) -> Draft<IoBuf> {
    let bytes: u64 = changes.iter().map(|change| change.count * BLOCK).sum();
    let mut draft = Draft::new(IoBuf::for_body((bytes as usize).max(1)));
    for change in changes {
        let Ok(range) = ByteRange::new(change.block * BLOCK, change.count * BLOCK) else {
            unreachable!("clients stay inside the volume")
        };
        let added = match change.number {
            0 if change.block % 2 == 0 => draft.zero(volume(), range),
            0 => draft.trim(volume(), range),
            number => draft.write(volume(), range, &content(number, change.count)),
        };
        assert!(added.is_ok(), "the frame was made as long as its changes");
    }
    draft
}

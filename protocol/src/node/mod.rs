//! One replica of one resource: every rule of design §2–§6, without a byte of I/O.
//!
//! The driver hands in what happened with [`Node::handle`] and, for the data path,
//! [`Node::append`]; after a batch it calls [`Node::settle`] once and carries out everything that
//! [`Node::next_action`] returns. [`Node::answers`] then says which client requests may be
//! answered, as two positions, so that the core never counts single requests.
//!
//! Nothing rests on the order in which the driver finishes things: whoever must wait for a
//! durable promise waits for the event [`Event::Persisted`] (design §11, I7, I8).
//!
//! | room | what happens there |
//! |---|---|
//! | `session` | hellos, refusals, heartbeats, the end of connections |
//! | `lead` | candidates: start gate, forced takeover, the beginning of an epoch |
//! | `promise` | giving promises, collecting them, fetching later logs |
//! | `rival` | a primary that hears of a higher epoch |
//! | `back` | takeover by force at a point of the past |
//! | `handover` | planned takeover, both sides |
//! | `follow` | a standby's side: joining, cutting a tail, frames, acks |
//! | `feed` | a primary's side: shipping from memory or from the log |
//! | `insync` | entering and leaving the in-sync set |
//! | `proof` | the word that a standby is in the set, and what it is worth |
//! | `register` | the control record: read, obeyed, proposed to |
//! | `lease` | the right to serve |
//! | `grow` | making volumes larger on every member |
//! | `resync` | bringing up a standby otherwise than by the log; giving up log |
//! | `alone` | what nobody asks for: taking over by itself, going home |
//! | `pace` | modes, slow standbys, waits |
//! | `trail` | which part of the log came when |
//! | `answer` | which requests may be answered, and what the image may hold |
//! | `moves` | the tables of all moves that are legal |
//! | `persist` | the durable state and what waits for it |
//! | `recording`, `replay` | the events of a node, kept and run through it again |
//! | `status`, `numbers`, `phase`, `reason` | what people see |
//! | `limits` | how much a node holds, for simulators |

mod alone;
mod answer;
mod back;
mod command;
mod config;
mod event;
mod feed;
mod follow;
mod grow;
mod handover;
mod insync;
mod lead;
mod lease;
mod limits;
mod log;
mod moves;
mod note;
mod numbers;
mod pace;
mod peer;
mod persist;
mod phase;
mod promise;
mod proof;
mod reason;
mod recording;
mod register;
mod replay;
mod resync;
mod rival;
mod session;
mod status;
mod trail;

pub use alone::Home;
pub use answer::Answers;
pub use command::{Command, Denied, Done, How, Limits};
pub use config::{NodeConfig, OnWindowEnd, RecordKind};
pub use event::{Action, Event, FailedPart};
pub use lease::{LeaseConfig, OnLeaseEnd};
pub use limits::Excess;
pub use log::Recovered;
pub use moves::{MEMBER_MOVES, Made, Move, OWN_MOVES, Place, STANDBY_MOVES, picture};
pub use note::Note;
pub use numbers::{AnswerWaits, Gap, Loss};
pub use pace::CONGESTED_AFTER;
pub use phase::TakeoverPhase;
pub use reason::{About, Reason, Why};
pub use recording::{Entry, RECORDING_VERSION, Recorded, Start, Tape};
pub use replay::{Difference, Replay};
pub use resync::{VerifyPlan, VerifyState, VerifyStatus};
pub use status::{
    Connection, NodeStatus, PeerStatus, RecordStatus, SettingsStatus, StandbyState, Standing,
};

use std::collections::{BTreeMap, VecDeque};

use crate::frame::{Draft, Frame, FrameBuffer};
use crate::ids::{Epoch, Lsn, MemberId};
use crate::replica::{Image, ReplicaState, Role};
use crate::time::{Clock, Now};
use crate::wire::Goodbye;
use follow::Follow;
use handover::{Asking, Releasing};
use lead::{Beginning, Candidate};
use log::Log;
use peer::Peer;
use persist::{After, Persist};

/// One replica of one resource.
#[derive(Clone, Debug)]
pub struct Node {
    config: NodeConfig,
    state: ReplicaState,
    log: Log,
    standing: Part,
    peers: BTreeMap<MemberId, Peer>,
    persist: Persist,
    follow: Follow,
    insync: insync::InSync,
    register: register::Register,
    lease: lease::Lease,
    alone: alone::Alone,
    resync: resync::Resync,
    retention: resync::Retention,
    verify: resync::Verify,
    seeding: Option<resync::Seeding>,
    growing: grow::Growing,
    back: Option<back::Back>,
    waits: pace::Waits,
    measured: BTreeMap<MemberId, numbers::Measured>,
    measured_at: Now,
    made: moves::Made,
    /// Its own state, where it is a standby, when that was last looked at.
    shown: Option<StandbyState>,
    degraded: pace::Degraded,
    answers: Answers,
    applying: answer::Applying,
    /// Clients were let in.
    serving: bool,
    /// The phase of a takeover that people were told last.
    phase_told: Option<&'static str>,
    /// As primary: an epoch that another has promised, and when to begin a higher one.
    overtaken: Option<(Epoch, Now)>,
    /// How far commits may have been answered, in whatever mode.
    promised_commits: Lsn,
    clock: Clock,
    out: VecDeque<Action>,
}

/// The part that this replica plays at the moment; its superblock knows only two.
#[derive(Clone, Debug)]
enum Part {
    /// Its new incarnation is not durable yet; it says nothing to anybody. Who stops it
    /// meanwhile is heard when it is awake.
    Waking(Option<u64>),
    /// Receives, or waits for somebody who leads.
    Standby(Option<Asking>),
    /// A restarted primary that has not heard everybody yet (design §6.3).
    Gate,
    /// Collects promises.
    Candidate(Candidate),
    /// Makes the start of its epoch durable.
    Beginning(Beginning),
    /// Serves.
    Leading,
    /// Serves nobody any more and hands over.
    Releasing(Releasing),
    /// A part of it failed: it takes no part any more.
    Unfit(FailedPart),
    /// Stops when everything is in the image.
    Stopping(Option<u64>),
    /// Stopped.
    Stopped,
}

impl Node {
    /// A replica that has just been started: `state` is what its superblock held, `recovered`
    /// what its log held. Its incarnation grows by one before it says anything.
    #[must_use]
    pub fn new(
        config: NodeConfig,
        mut state: ReplicaState,
        recovered: Recovered,
        clock: Clock,
    ) -> Self {
        state.incarnation = state.incarnation.next_at(clock.wall);
        let retention = resync::Retention::new(&recovered.maps);
        // Opening the replica has finished a switch that a crash interrupted.
        let staged_before = state.image == Image::Switching;
        if staged_before {
            state.image = Image::Whole;
        }
        let log = Log::new(&mut state, recovered, clock);
        let me = state.member;
        let others = config.members.iter().filter(|member| **member != me);
        let peers = others.map(|member| (*member, Peer::new(*member, clock.now))).collect();
        let mut node = Self {
            answers: Answers::default(),
            applying: answer::Applying::new(&log, clock.now),
            follow: Follow::default(),
            insync: insync::InSync::new(&state),
            register: register::Register::default(),
            lease: lease::Lease::default(),
            alone: alone::Alone::default(),
            resync: resync::Resync::new(staged_before),
            retention,
            verify: resync::Verify::default(),
            seeding: None,
            growing: grow::Growing::new(&state),
            back: None,
            waits: pace::Waits::default(),
            measured: BTreeMap::new(),
            measured_at: clock.now,
            made: moves::Made::default(),
            shown: None,
            degraded: pace::Degraded::default(),
            persist: Persist::new(&state),
            standing: Part::Waking(None),
            serving: false,
            phase_told: None,
            overtaken: None,
            promised_commits: Lsn::START,
            config,
            state,
            log,
            peers,
            clock,
            out: VecDeque::new(),
        };
        node.persist_then(After::Awake);
        node.settle(clock);
        node
    }

    /// Takes one event. Its consequences are complete only after [`Node::settle`].
    pub fn handle(&mut self, clock: Clock, event: Event) {
        self.clock = clock;
        match event {
            Event::Written(_) | Event::Durable(_) | Event::Applied(_) | Event::Checkpointed(_)
                if self.resync.switching => {}
            Event::Linked { session, peer } => self.linked(session, peer),
            Event::Unlinked { session } => self.unlinked(session),
            Event::Heard { session, message } => self.heard(session, message),
            Event::FrameIn { session, frame } => self.frame_in(session, frame),
            Event::Full { session } => self.full(session),
            Event::Handed { session, lsn } => self.handed(session, lsn),
            Event::DurableWanted(lsn) => self.log.want(lsn),
            Event::Written(lsn) => self.log.written_to(lsn),
            Event::Durable(lsn) => self.log.durable_to(lsn, clock.now),
            Event::Applied(lsn) => self.log.applied_to(lsn),
            Event::Checkpointed(position) => self.checkpointed(position),
            Event::Persisted(number) => self.persisted(number),
            Event::LogRead { session, frames } => self.log_read(session, frames),
            Event::Truncated(position) => self.truncated(position),
            Event::Held => self.held(),
            Event::RecordRead(record) => self.record_read(record),
            Event::Decided(record) => self.decided(record),
            Event::Lease(until) => self.lease_told(until),
            Event::Sighted { member, sight, as_of } => self.sighted(member, sight, as_of),
            Event::FenceEnded { owner, epoch, fenced } => self.fence_ended((owner, epoch), fenced),
            Event::Prepared { owner, epoch } => self.prepared((owner, epoch)),
            Event::SourceNearEnd { session } => self.source_near_end(session),
            Event::SourceDone { session, at, said } => self.source_done(session, at, said),
            Event::SourceFailed { session } => self.source_failed(session),
            Event::SinkDone { session, whole } => self.sink_done(session, whole),
            Event::Switched(at) => self.switched(at),
            Event::Rewound { whole } => self.rewound(whole),
            Event::Folded { peer, span } => self.folded(peer, span),
            Event::Compared { session, done, total, differs, repaired } => {
                self.compared(session, (done, total), (&differs, repaired));
            }
            Event::RoomMade(cannot) => self.room_made(cannot),
            Event::Failed(part) => self.failed(part),
            Event::Command { id, command } => self.command(id, command),
            Event::Tick => {}
        }
    }

    /// Seals a frame of client changes and sends it on its way; returns the end of the log, which
    /// [`Answers`] must reach before the changes are answered. `None`: this replica does not
    /// serve, and nothing happened.
    pub fn append<B: FrameBuffer>(&mut self, clock: Clock, draft: Draft<B>) -> Option<Lsn> {
        self.clock = clock;
        self.takes_appends().then(|| self.append_own(draft))
    }

    /// The fixed tail of every batch: from the facts that are known now, everything is done that
    /// they allow. Each step looks only at state, so it does not matter which event came first.
    pub fn settle(&mut self, clock: Clock) {
        self.clock = clock;
        self.settle_sessions();
        self.settle_register();
        self.settle_lease();
        self.settle_home();
        self.settle_standing();
        self.settle_back();
        self.settle_resync();
        self.settle_growing();
        self.settle_insync();
        self.settle_feeds();
        self.settle_congestion();
        self.settle_log();
        self.settle_release();
        self.settle_applying();
        self.settle_answers();
        self.settle_pace();
        self.settle_words();
        self.settle_numbers();
        self.settle_moves();
        self.settle_spool();
        self.settle_phase();
        self.settle_persist();
    }

    /// The next thing to be done.
    pub fn next_action(&mut self) -> Option<Action> {
        self.out.pop_front()
    }

    /// Which requests may be answered.
    #[must_use]
    pub fn answers(&self) -> Answers {
        self.answers
    }

    /// Whether all that is allowed is to be in the image soon: this replica stops, or a resync
    /// waits for an image at rest.
    #[must_use]
    pub fn wants_whole_image(&self) -> bool {
        let compared = self.compared_at().or(self.follow.hold).is_some();
        matches!(self.standing, Part::Stopping(_)) || self.image_is_to_rest() || compared
    }

    /// Whether this replica serves clients.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        matches!(self.standing, Part::Leading)
    }

    /// When [`Node::settle`] must be called again at the latest, if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Now {
        let heartbeat = self.clock.now.after(self.config.heartbeat() / 4);
        [self.log.deadline(&self.config), self.applying.deadline(&self.config, &self.log)]
            .into_iter()
            .flatten()
            .chain(self.window_deadline())
            .chain(self.overtaken.map(|(_, at)| at))
            .chain(self.lease_deadline())
            .chain(self.delay_deadline())
            .chain(self.pace_deadline())
            .chain(self.asking_deadline())
            .chain(self.verify_deadline())
            .chain(self.rest_deadline())
            .chain(self.growing_deadline())
            .chain(self.congestion_deadline())
            .fold(heartbeat, Now::min)
    }

    /// The state as it will be durable next; for tools and tests.
    #[must_use]
    pub fn state(&self) -> &ReplicaState {
        &self.state
    }

    fn command(&mut self, id: u64, command: Command) {
        let result = match (command, &self.standing) {
            (_, Part::Unfit(_)) if command != Command::Stop => Some(Err(Denied::Unfit)),
            (_, Part::Stopping(_) | Part::Stopped) => Some(Err(Denied::Stopping)),
            (_, Part::Waking(_)) if command != Command::Stop => Some(Err(Denied::Starting)),
            (Command::Takeover { .. } | Command::GoBack { .. } | Command::StartPrimary, _)
                if !self.is_complete() =>
            {
                Some(Err(Denied::Incomplete))
            }
            (Command::Takeover { how: How::Planned(limits), test }, _) => {
                self.planned_takeover(Some(id), limits, test)
            }
            (Command::Takeover { how, test }, _) => self.forced_takeover(id, how, test),
            (Command::GoBack { over, to, test }, _) => self.go_back(id, over, to, test),
            (Command::CancelTakeover, _) => match self.cancel_back() {
                Some(result) => Some(result),
                None => Some(self.cancel_takeover()),
            },
            (Command::StartPrimary, _) => self.start_primary(id),
            (Command::SetMode(mode), _) => Some(self.set_mode(mode)),
            (Command::Rejoin, _) => Some(self.rejoin()),
            (Command::Verify(member), _) => Some(self.begin_verify(member, None)),
            (Command::Repair { standby, from }, _) => Some(self.begin_verify(standby, Some(from))),
            (Command::Seed { session, absent }, _) => Some(self.begin_seed(session, absent)),
            (Command::Grow { .. }, _) => self.begin_growth(id, command),
            (Command::Stop, _) => self.stop(id),
        };
        if let Some(result) = result {
            self.out.push_back(Action::Reply { id, result });
        }
    }

    fn stop(&mut self, id: u64) -> Option<Result<Done, Denied>> {
        match &mut self.standing {
            Part::Waking(stop) => {
                return stop.replace(id).map(|_| Err(Denied::Stopping));
            }
            Part::Unfit(_) => {
                // Nothing can be brought into order any more; but the daemon may go.
                self.out.push_back(Action::Stopped);
                self.go(Part::Stopped);
                return Some(Err(Denied::Unfit));
            }
            _ => {}
        }
        self.end_service();
        self.drop_command(Denied::Stopping);
        self.stop_sourcing();
        self.log.want(self.log.end().lsn);
        self.go(Part::Stopping(Some(id)));
        None
    }

    /// Stopping is done when the log is durable, the allowed part of it is in the image, and the
    /// image is durable: then the volume can be used without Hadrian (design §2.4).
    fn settle_stopping(&mut self) {
        let everything = self.log.durable() == self.log.end().lsn
            && self.log.applied() == self.state.apply_limit
            && self.apply_target() == self.state.apply_limit
            && self.state.checkpoint.lsn == self.log.applied()
            && self.persist.is_quiet()
            && !self.resync.switching
            && self.all_are_told()
            && self.set_has_all();
        let Part::Stopping(command) = self.standing else {
            return;
        };
        if !everything {
            return;
        }
        self.say_goodbye(Goodbye::Stopping);
        self.out.push_back(Action::Note(Note::Stopped));
        if let Some(id) = command {
            self.out.push_back(Action::Reply { id, result: Ok(Done::Stopped) });
        }
        self.out.push_back(Action::Stopped);
        self.go(Part::Stopped);
    }

    /// A failed sync or write is final (design §2.7).
    fn failed(&mut self, part: FailedPart) {
        if matches!(self.standing, Part::Stopped) {
            // Everything is in place, and nothing rests on this replica any more.
            return;
        }
        if let Part::Stopping(_) = self.standing {
            self.out.push_back(Action::Stopped);
        }
        self.end_service();
        self.drop_command(Denied::Unfit);
        self.go(Part::Unfit(part));
        self.out.push_back(Action::Note(Note::Failed(part)));
        // Whoever counts on this replica must not wait for it.
        self.say_goodbye(Goodbye::Failed);
    }

    /// Clients are thrown out, where there are any; what is unanswered stays unanswered.
    fn end_service(&mut self) {
        if std::mem::take(&mut self.serving) {
            self.out.push_back(Action::Serve(false));
        }
    }

    /// The command under way comes to nothing; whether there was one.
    fn drop_command(&mut self, why: Denied) -> bool {
        let command = match &self.standing {
            Part::Candidate(candidate) => candidate.command,
            Part::Beginning(beginning) => beginning.command,
            Part::Standby(Some(asking)) => asking.command,
            Part::Stopping(command) | Part::Waking(command) => *command,
            _ => None,
        };
        if let Some(id) = command {
            self.out.push_back(Action::Reply { id, result: Err(why) });
        }
        command.is_some()
    }

    fn settle_standing(&mut self) {
        match self.standing {
            Part::Leading => self.settle_overtaken(),
            Part::Standby(Some(_)) => self.settle_asking(),
            Part::Gate => self.settle_gate(),
            Part::Candidate(_) => self.settle_candidate(),
            Part::Beginning(_) => self.settle_beginning(),
            Part::Releasing(_) => self.settle_releasing(),
            Part::Stopping(_) => self.settle_stopping(),
            _ => {}
        }
    }

    /// The incarnation is durable: from here on the replica speaks.
    fn awake(&mut self) {
        let Part::Waking(stop) = self.standing else {
            return;
        };
        let primary = self.state.role == Role::Primary;
        self.go(if primary { Part::Gate } else { Part::Standby(None) });
        self.log.want(self.log.end().lsn);
        self.release_again();
        if self.resync.staged_before {
            self.out.push_back(Action::DropStaging);
        }
        self.greet_everyone();
        // Hellos that came before this one could be sent say who leads.
        for (member, session) in self.greeted_sessions() {
            self.greeted(session, member);
        }
        if let Some(id) = stop {
            self.stop(id);
        }
    }

    fn takes_appends(&self) -> bool {
        match &self.standing {
            Part::Leading => true,
            Part::Releasing(releasing) => releasing.takes_appends(),
            _ => false,
        }
    }

    fn append_own<B: FrameBuffer>(&mut self, draft: Draft<B>) -> Lsn {
        let frame = self.log.seal(&self.state, self.clock, draft);
        self.keep(&frame);
        frame.end()
    }

    /// Takes a frame, own or received, into the log.
    fn keep(&mut self, frame: &Frame) {
        let start = self.log.end();
        if self.state.history.note(start, frame) {
            self.persist.touch();
        }
        self.log.push(frame, &self.config, self.clock.now);
        self.out.push_back(Action::Append(frame.clone()));
    }
}

#[cfg(test)]
mod tests;

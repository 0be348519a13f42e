//! What must be true, seen from outside: the oracle watches every member and believes none.
//!
//! It rests on two things only: frames carry hashes, so that it knows which history each log
//! holds; and disks are in its sight, so that it knows what survived.

mod answers;
mod bounds;
mod copies;
mod landings;
mod ledger;
mod losses;
mod rot;
mod seeds;

use std::collections::BTreeMap;
use std::fmt;

use hadrian_protocol::frame::{Frame, LogPosition, Record};
use hadrian_protocol::ids::{Epoch, Incarnation, Lsn, MemberId};
use hadrian_protocol::node::{Node, Recovered};
use hadrian_protocol::replica::{Image, ReplicaState, Role, Sizes, VolumeGeometry};
use hadrian_protocol::time::{WallTime, micros};
use hadrian_protocol::wire::{GrowStep, Message, Refusal};

use crate::Micros;
use crate::plan::Plan;
use answers::Answered;
use copies::Copies;
use ledger::{Ledger, Path};
use losses::LastWords;
use rot::Rot;

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which rule of the contract.
    pub rule: &'static str,
    /// When, in microseconds since the run began.
    pub at: Micros,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// Who watches.
#[derive(Debug)]
pub struct Oracle {
    now: Micros,
    /// A control record decides.
    by_record: bool,
    /// And who serves holds a lease.
    with_leases: bool,
    /// Standbys apply later than they could.
    delayed: bool,
    /// Nobody is left out of the set without an operator or the record.
    asks_first: bool,
    /// Longest that a lost standby is waited for, by the slowest clock.
    silence_and_window: Micros,
    ledger: Ledger,
    members: Vec<Witness>,
    copies: Copies,
    /// Replicas whose place another has taken: what they had said was true then.
    replaced: Vec<Witness>,
    /// The way to the position of each seed that was exported.
    exported: Vec<Path>,
    answered: Answered,
    rot: Rot,
    violation: Option<Violation>,
}

/// What is known of one member from outside.
#[derive(Clone, Debug, Default)]
struct Witness {
    path: Path,
    life: Incarnation,
    /// Has left its process: whatever ends that, it is there at the next start (design §3).
    written: Lsn,
    /// Claimed as durable by its journal.
    durable: Lsn,
    applied: Lsn,
    /// The log before here may be gone.
    released: Lsn,
    /// The superblock as it is durable.
    state: Option<ReplicaState>,
    persisting: BTreeMap<u64, ReplicaState>,
    truncating: bool,
    /// A higher epoch that it was told somebody owns.
    told_owned: Option<Epoch>,
    leads: bool,
    power_losses: u64,
    /// Ends of its processes, however they came.
    deaths: u64,
    runs: bool,
    /// When its process was started.
    born: Micros,
    /// When it heard last from each other member.
    heard: BTreeMap<MemberId, Micros>,
    /// Until when it did nothing, or served nobody.
    stalled: Micros,
    /// What it showed last as a primary.
    last_words: Option<LastWords>,
    /// One of its log writes went astray; so its log has lost, in silence, what nothing behind it
    /// spoke of.
    strayed: bool,
    forgot: bool,
    /// An operator has taken it back, and it has not led since.
    went_back: bool,
}

impl Oracle {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            now: 0,
            by_record: plan.record,
            with_leases: plan.marks.is_some(),
            delayed: !plan.replay_delay.is_zero(),
            asks_first: plan.hold || plan.record,
            silence_and_window: micros(plan.silence() + plan.peer_window) / 100 * 101,
            ledger: Ledger::new(),
            members: (0..plan.members).map(|_| Witness::default()).collect(),
            copies: Copies::default(),
            replaced: Vec::new(),
            exported: Vec::new(),
            answered: Answered::default(),
            rot: Rot::default(),
            violation: None,
        }
    }

    pub(crate) fn at(&mut self, now: Micros) {
        self.now = now;
    }

    /// The first broken promise.
    pub(crate) fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    pub(crate) fn broken(&mut self, rule: &'static str, what: String) {
        let at = self.now;
        self.violation.get_or_insert(Violation { rule, at, what });
    }

    fn demand(&mut self, holds: bool, rule: &'static str, what: impl FnOnce() -> String) {
        if !holds {
            self.broken(rule, what());
        }
    }

    fn of(&mut self, member: MemberId) -> &mut Witness {
        &mut self.members[usize::from(member.index())]
    }

    fn see(&self, member: MemberId) -> &Witness {
        &self.members[usize::from(member.index())]
    }

    /// A member has opened its replica: what it finds must be what it had promised to keep, and
    /// the image that of one position of its history (I5, I8).
    pub(crate) fn opened(
        &mut self,
        member: MemberId,
        state: &ReplicaState,
        recovered: &Recovered,
        (image, wall): (&[u8], WallTime),
    ) {
        let (end, limit) = (recovered.end, state.apply_limit.min(recovered.end.lsn));
        if state.image == Image::Switching {
            self.lands(member, state.checkpoint, None);
        }
        let witness = self.see(member);
        let claimed = witness.durable.min(witness.path.end.lsn);
        let kept = witness.path.holds(end);
        let (truncating, written) = (witness.truncating, witness.written);
        if witness.strayed && end.lsn < claimed.max(written) {
            self.of(member).forgot = true;
        }
        let truncating = truncating || self.see(member).forgot;
        self.demand(kept, "§2.3", || format!("{member} recovered to {end:?}, which it never had"));
        self.demand(truncating || end.lsn >= claimed, "I8", || {
            format!("{member} had said it is durable to {claimed} and comes back with {}", end.lsn)
        });
        self.demand(truncating || end.lsn >= written, "§1", || {
            format!("{member} had written to {written}, lost no power, and goes on at {}", end.lsn)
        });
        self.same_state(member, state);
        if let Some(was) = self.see(member).state.clone() {
            self.leads_from_there(state, &was);
        }
        let now = self.now;
        let witness = self.of(member);
        witness.path.cut(end);
        witness.written = end.lsn;
        witness.durable = recovered.durable;
        witness.applied = limit;
        witness.life = state.incarnation.next_at(wall);
        witness.state = Some(state.clone());
        witness.persisting.clear();
        (witness.runs, witness.born) = (true, now);
        witness.heard.clear();
        (witness.truncating, witness.leads, witness.told_owned) = (false, false, None);
        witness.went_back = state.went_back.is_some();
        let whole = state.image != Image::Incomplete && !self.rot.is_on(member);
        let differs = self.ledger.differs(&self.see(member).path, limit, image).filter(|_| whole);
        self.demand(differs.is_none(), "I5", || {
            format!("the image of {member} is not that of {limit}: block {differs:?} differs")
        });
    }

    /// The superblock is the last that was durable, or one that was being written.
    fn same_state(&mut self, member: MemberId, state: &ReplicaState) {
        let Witness { state: last, persisting, .. } = self.see(member);
        let Some(last) = last else { return };
        let alike = |other: &ReplicaState| {
            let mut other = other.clone();
            (other.durable, other.truncations) = (state.durable, state.truncations);
            other == *state
        };
        let known = alike(last) || persisting.values().any(alike);
        self.demand(known, "§2.3", || format!("{member} has forgotten a superblock"));
    }

    pub(crate) fn appended(&mut self, member: MemberId, frame: &Frame) {
        let follows = frame.lsn() == self.see(member).path.end.lsn
            && frame.follows(self.see(member).path.end.chain);
        self.demand(follows, "I1", || format!("{member} appends {frame:?}, which does not follow"));
        if let Err(what) = self.ledger.note(frame) {
            self.broken("I1", what);
        }
        self.stays_inside(member, frame);
        self.of(member).path.push(frame);
    }

    /// Nothing is in a log that a crash could leave beyond the end of the volume (design §2.4).
    fn stays_inside(&mut self, member: MemberId, frame: &Frame) {
        let state = self.see(member).state.as_ref();
        let size = state.and_then(|state| state.volumes.first()).map_or(0, |v| v.size_bytes);
        let beyond = frame.records().find_map(|record| match record {
            Record::Write { range, .. }
            | Record::Zero { range, .. }
            | Record::Trim { range, .. } => (range.end() > size).then_some(range),
            _ => None,
        });
        self.demand(beyond.is_none(), "§2.4", || {
            format!("{member} appends {beyond:?}, and has {size} bytes durably")
        });
    }

    /// Clients may use the volume to there.
    pub(crate) fn offers(&mut self, member: MemberId, volumes: &[VolumeGeometry]) {
        let state = self.see(member).state.as_ref();
        let durable = state.is_some_and(|state| state.volumes == volumes);
        self.demand(durable, "§2.4", || format!("{member} offers {volumes:?}, not durably"));
    }

    /// When everybody is together, volumes are equally large everywhere.
    pub(crate) fn same_sizes(&mut self, members: &[(MemberId, Sizes)]) {
        let differs = members.windows(2).find(|pair| pair[0].1 != pair[1].1);
        self.demand(differs.is_none(), "§2.4", || format!("sizes differ: {differs:?}"));
    }

    pub(crate) fn written(&mut self, member: MemberId, lsn: Lsn) {
        let witness = self.of(member);
        witness.written = witness.written.max(lsn);
    }

    pub(crate) fn durable(&mut self, member: MemberId, lsn: Lsn) {
        let witness = self.of(member);
        let sane = lsn <= witness.path.end.lsn;
        if sane {
            witness.durable = witness.durable.max(lsn);
        }
        // While a log begins anew, the old one may still tell what it has done: nobody listens.
        let image = witness.state.as_ref().map(|state| state.image);
        self.demand(sane || image == Some(Image::Switching), "I9", || {
            format!("{member} is durable to {lsn}, beyond its end")
        });
    }

    pub(crate) fn applied(&mut self, member: MemberId, lsn: Lsn) {
        let witness = self.of(member);
        let sane = lsn <= witness.durable && lsn >= witness.applied;
        witness.applied = witness.applied.max(lsn);
        self.demand(sane, "I9", || format!("{member} has applied {lsn}"));
    }

    /// Everything that was asked for is in the image, and nothing is on its way there (I5).
    pub(crate) fn image_holds(&mut self, member: MemberId, lsn: Lsn, image: &[u8]) {
        let rotten = self.rot.is_on(member);
        let differs = self.ledger.differs(&self.see(member).path, lsn, image);
        self.demand(differs.is_none() || rotten, "I5", || {
            format!("{member} has applied {lsn}, but block {differs:?} of its image differs")
        });
    }

    /// A write to the log of a member goes astray.
    pub(crate) fn strays(&mut self, member: MemberId) {
        self.of(member).strayed = true;
    }

    /// Before anything goes into the image: the rules of design §2.2 and §2.5.
    pub(crate) fn applying(&mut self, member: MemberId, lsn: Lsn) {
        let witness = self.see(member);
        let durable = witness.durable;
        let state = witness.state.as_ref();
        let limit = state.map_or(Lsn::START, |state| state.apply_limit);
        self.demand(lsn <= durable, "§2.2", || format!("{member} applies {lsn}, unsynced"));
        self.demand(lsn <= limit, "§2.5", || format!("{member} applies {lsn}, not recorded"));
        let point = self.point(member, lsn);
        let leads = self.see(member).leads;
        let set = self.see(member).state.as_ref().map_or(Vec::new(), |s| s.in_sync.clone());
        for life in set.iter().filter(|life| leads && life.member != member) {
            let other = self.see(life.member);
            let has = other.life != life.incarnation || other.path.holds(point);
            self.demand(has, "§2.5", || {
                format!("{member} applies {lsn}, which {} does not have", life.member)
            });
        }
        let others = self.members.iter().enumerate();
        let elsewhere = others.filter(|(index, _)| *index != usize::from(member.index()));
        let safe = leads
            || self.see(member).state.as_ref().is_some_and(|state| state.role == Role::Primary)
            || elsewhere.into_iter().any(|(_, w)| w.path.holds(point) && w.durable >= lsn)
            || self.replaced.iter().any(|w| w.path.holds(point) && w.durable >= lsn);
        self.demand(safe, "§2.5", || format!("{member} applies {lsn}, durable nowhere else"));
    }

    /// The point at `lsn` in the log of `member`.
    fn point(&self, member: MemberId, lsn: Lsn) -> LogPosition {
        self.see(member).path.at(lsn)
    }

    pub(crate) fn persisting(&mut self, member: MemberId, number: u64, state: &ReplicaState) {
        self.of(member).persisting.insert(number, state.clone());
    }

    pub(crate) fn persisted(&mut self, member: MemberId, number: u64, saved: &[Vec<u8>]) {
        let witness = self.of(member);
        let later = witness.persisting.split_off(&(number + 1));
        let before = std::mem::replace(&mut witness.persisting, later);
        let (was, is) = (witness.state.take(), before.into_values().next_back());
        witness.state = is.or_else(|| was.clone());
        let both = witness.state.clone().zip(was);
        if let Some((is, was)) = &both {
            self.begins_anew(member, is, was);
            self.leads_from_there(is, was);
        }
        if let Some((is, was)) = &both
            && is.image == Image::Switching
            && was.image != Image::Switching
            && is.went_back.is_none()
        {
            self.lands(member, is.checkpoint, Some(saved));
        }
        if let Some((is, was)) = &both
            && is.image == Image::Switching
            && was.image != Image::Switching
            && is.went_back.is_some()
        {
            self.goes_back(member, is.checkpoint, saved);
        }
        let grows = both.is_none_or(|(is, was)| {
            is.promised >= was.promised
                && (is.owned >= was.owned || !self.has_begun(was.owned))
                && (is.apply_limit >= was.apply_limit || is.image == Image::Switching)
                && is.incarnation >= was.incarnation
                && (is.sizes() == was.sizes() || was.sizes().grow_to(&is.sizes()))
        });
        self.demand(grows, "I9", || format!("something in the superblock of {member} went back"));
    }

    /// A member goes back: its old life has ended.
    fn begins_anew(&mut self, member: MemberId, is: &ReplicaState, was: &ReplicaState) {
        let Some(went) = is.went_back.filter(|_| is.incarnation > was.incarnation) else { return };
        let witness = self.of(member);
        (witness.life, witness.went_back) = (is.incarnation, true);
        witness.deaths += 1;
        let known = witness.path.holds(went.to);
        self.demand(known, "§8.5", || {
            format!("{member} goes back to {}, which it never had", went.to.lsn)
        });
    }

    /// A member that went back owns an epoch: force has done its work from here on, whether or not
    /// anybody is served in it.
    fn leads_from_there(&mut self, is: &ReplicaState, was: &ReplicaState) {
        if was.went_back.is_some() && is.went_back.is_none() && is.owned > was.owned {
            self.force_has_won();
        }
    }

    pub(crate) fn truncating(&mut self, member: MemberId, point: LogPosition) {
        let witness = self.of(member);
        witness.truncating = true;
        let untouched = witness.applied <= point.lsn;
        let state = witness.state.as_ref();
        let unrecorded = state.is_none_or(|state| state.apply_limit <= point.lsn);
        self.demand(untouched && unrecorded, "§2.5", || {
            format!("{member} cuts at {}, behind which it has applied", point.lsn)
        });
    }

    /// I6: what was cut is in a quarantine file.
    pub(crate) fn truncated(&mut self, member: MemberId, end: LogPosition, saved: &[Vec<u8>]) {
        let witness = self.of(member);
        let cut = witness.path.cut(end);
        witness.truncating = false;
        (witness.written, witness.durable) = (end.lsn, end.lsn);
        let by_word = witness.went_back;
        for chain in cut {
            if !by_word {
                self.never_answered(member, chain);
            }
            let Some(frame) = self.ledger.frame(chain) else { continue };
            let (head, _) = frame.wire_parts();
            let kept = saved.iter().any(|file| {
                file.windows(head.len()).step_by(512).any(|window| window == &head[..])
            });
            let lsn = frame.lsn();
            self.demand(kept, "I6", || format!("{member} cut its frame at {lsn} unsaved"));
        }
    }

    pub(crate) fn failed(&mut self, member: MemberId) {
        // What it held in memory is gone, as if its host had lost power.
        self.of(member).power_losses += 1;
        self.of(member).deaths += 1;
    }

    /// A member's process ended, with its host's power or without.
    pub(crate) fn died(&mut self, member: MemberId, power_lost: bool) {
        let witness = self.of(member);
        witness.leads = false;
        if power_lost {
            witness.written = Lsn::START;
        }
        witness.power_losses += u64::from(power_lost);
        witness.deaths += 1;
        witness.runs = false;
        self.answers_nobody(member);
    }

    /// Nothing is said that a crash could undo (I7, I8), and nothing at all by a life that is not
    /// durable: the next one would have its name (design §5.4).
    pub(crate) fn said(&mut self, member: MemberId, message: &Message, node: &Node) {
        let witness = self.see(member);
        let Some(state) = witness.state.clone() else { return };
        // A goodbye names no life.
        let durable = state.incarnation == node.state().incarnation;
        self.demand(durable || matches!(message, Message::Goodbye(_)), "§5.4", || {
            format!("{member} says {message:?} in a life that is not durable")
        });
        let witness = self.see(member);
        let (durable, end) = (witness.durable, witness.path.end.lsn);
        let true_word = match message {
            Message::Hello(hello) => {
                hello.life.incarnation == state.incarnation
                    && hello.promised <= state.promised
                    && hello.owned <= state.owned
                    && hello.sizes == state.sizes()
            }
            Message::Lead(lead) => lead.epoch == state.owned,
            Message::Join(join) => join.epoch <= state.promised && join.durable <= durable,
            Message::Promised(promised) => promised.epoch <= state.promised,
            Message::AskPromise(ask) => ask.epoch <= state.promised,
            Message::Ack(ack) => {
                ack.received <= end && ack.durable <= durable && ack.applied <= witness.applied
            }
            Message::Progress(progress) => progress.may_apply <= durable && progress.end <= end,
            Message::HandedOver(release) => state.release == Some(*release),
            Message::AskResync(ask) => ask.epoch <= state.promised,
            Message::Landed(landed) => landed.at.lsn <= witness.applied,
            Message::Grow(grow) => grow.step == GrowStep::MakeRoom || grow.sizes == state.sizes(),
            Message::Grown(grown) => {
                let taken = grown.step == GrowStep::Take && grown.cannot.is_none();
                !taken || state.sizes() == node.state().sizes()
            }
            Message::Refuse(_)
            | Message::Copying(_)
            | Message::Alive
            | Message::Fetch(_)
            | Message::TakeoverAsk(_)
            | Message::TakeoverCancel(_)
            | Message::Goodbye(_) => true,
        };
        self.demand(true_word, "I8", || format!("{member} says {message:?}, which is not durable"));
    }

    /// What a member knows from here on.
    pub(crate) fn heard(&mut self, member: MemberId, message: &Message) {
        if let Message::Refuse(refuse) = message
            && let Refusal::Overtaken { promised, owned: true } = refuse.refusal
        {
            self.of(member).told_owned = Some(promised);
        }
    }

    /// A member has stopped in order: its volume can be used without Hadrian, as of the position
    /// that it has applied; all of the log, where that is what the `primary` stopped with. A
    /// primary that `held` its answers for a lost member keeps out what nobody was answered for.
    pub(crate) fn stopped(
        &mut self,
        member: MemberId,
        (primary, held): (MemberId, bool),
        image: &[u8],
    ) {
        let (all, witness) = (self.see(primary).path.end, self.see(member));
        let (applied, end) = (witness.applied, witness.path.end);
        let later = self.delayed && member != primary;
        let whole = end != all || applied == end.lsn || later || held;
        let differs = self.ledger.differs(&witness.path, applied, image);
        self.demand(differs.is_none(), "I5", || {
            format!("{member} stopped at {applied}, but block {differs:?} of its image differs")
        });
        self.demand(whole, "§2.4", || {
            format!("{member} stopped with {applied} in its image, but had {}", end.lsn)
        });
    }
}

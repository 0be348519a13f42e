//! Resyncs of a replica, as its owner begins and ends them; what is done is in `crate::resync`.
//!
//! Here meet the tasks of a resync and what they must know of the rest: where the log ends, what
//! is on its way into the stores, what the log has changed.

mod compare;
mod counts;
mod rewind;
mod scan;
mod switch;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use hadrian_protocol::frame::LogPosition;
use hadrian_protocol::ids::{Lsn, MemberId, ResourceId};
use hadrian_protocol::node::FailedPart;
use hadrian_protocol::replica::{Image, ReplicaState, VolumeGeometry};
use hadrian_protocol::resync::{
    CopyProgress, Copying, Numbered, Scope, Span, Speed, Takes, Throttle, Way,
};
use hadrian_protocol::time::Now;

use super::{QUARANTINE_DIR, Replica, ReplicaEvent};
use crate::engine::{Engine, TokenSpace};
use crate::resync::image::Pair;
use crate::resync::maps::{self, DirtyMap};
use crate::resync::sink::{self, SinkState, SinkWork};
use crate::resync::source::{self, Allowance, SourceSays, SourceState, SourceWork};
use crate::resync::staging::drop_staging;
use crate::resync::task::{Io, Task, Tasks};
use crate::resync::{BadCopying, SinkError, Tail};
use counts::Counts;
use rewind::RewindRun;
pub(super) use scan::SCAN_READ;
use scan::{Scan, Whom};
use switch::Switching;
pub(super) use switch::finish_switch;

/// The tokens of all of it.
pub(super) const RESYNC: TokenSpace = TokenSpace::new(4);
/// Sources at a time: one for each other member, and one for a file.
const SOURCES_MAX: usize = 8;
/// How often a source is told the time.
const TICK: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct SourceRun {
    state: Rc<RefCell<SourceState>>,
    task: Task<io::Result<()>>,
    is_done: bool,
}

#[derive(Debug)]
struct SinkRun {
    state: Rc<RefCell<SinkState>>,
    io: Io,
    task: Task<Result<(), SinkError>>,
    apart: Option<Lsn>,
    /// Everything was sent; what is to be saved of the log is told when all of it is written.
    finishing: bool,
}

#[derive(Debug)]
struct FoldRun {
    peer: MemberId,
    task: Task<io::Result<DirtyMap>>,
}

/// Everything of resyncs that a replica has under way.
#[derive(Debug)]
pub(super) struct Copies {
    tasks: Tasks,
    dir: PathBuf,
    resource: ResourceId,
    volumes: Vec<VolumeGeometry>,
    stores: Vec<Pair>,
    sources: Vec<SourceRun>,
    sink: Option<SinkRun>,
    /// Of the sink before: what it asked for may be under way.
    ended: Option<Io>,
    /// The stores may hold parts of what a sink took in place.
    was_in_place: bool,
    dropping: Option<Task<io::Result<()>>>,
    rewinding: Option<RewindRun>,
    /// What is staged is the image of this point of the replica's own history.
    rewound: Option<LogPosition>,
    switching: Option<Switching>,
    maps: BTreeMap<MemberId, DirtyMap>,
    scans: VecDeque<Scan>,
    /// Where the read began that is under way for the first of them.
    scanning: Option<Lsn>,
    folds: Vec<FoldRun>,
    /// Maps that are being removed.
    removing: Vec<Task<io::Result<()>>>,
    allowance: Rc<Allowance>,
    throttle: Throttle,
    rate: Option<u64>,
    ticked: Option<Now>,
    comparing: compare::Comparing,
    counts: Counts,
    /// What a sink has said to a source that is yet to begin.
    early: Option<(u64, Copying)>,
}

impl Copies {
    /// Finds the dirty maps in the directory of a replica that has just been opened.
    pub(super) fn open<E: Engine>(
        tasks: Tasks,
        engine: &mut E,
        dir: &Path,
        (state, stores): (&ReplicaState, Vec<Pair>),
    ) -> io::Result<Self> {
        let (resource, volumes) = (state.resource, state.volumes.clone());
        let loading = maps::load(tasks.io(), dir.into(), resource, volumes.clone());
        let maps = tasks.run(Task::new(loading), engine)?;
        Ok(Self {
            tasks,
            dir: dir.into(),
            resource,
            volumes,
            stores,
            sources: Vec::new(),
            sink: None,
            ended: None,
            was_in_place: state.image == Image::Incomplete,
            dropping: None,
            rewinding: None,
            rewound: None,
            switching: None,
            maps,
            scans: VecDeque::new(),
            scanning: None,
            folds: Vec::new(),
            removing: Vec::new(),
            allowance: Rc::default(),
            throttle: Throttle::default(),
            rate: None,
            ticked: None,
            comparing: compare::Comparing::default(),
            counts: Counts::default(),
            early: None,
        })
    }

    /// The tasks beside the data path.
    pub(super) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// The volumes are larger from here on. Nothing is under way that counts on their sizes, but
    /// what is read from the log into maps: no frame of that reaches beyond the old end.
    pub(super) fn resize(&mut self, volumes: &[VolumeGeometry]) {
        self.volumes = volumes.to_vec();
    }

    /// Whether the stores are to come to rest.
    fn wants_rest(&self) -> bool {
        let mut sources = self.sources.iter().map(|run| run.state.borrow());
        let taken = self.sink.is_some() || self.rewinding.is_some();
        taken || sources.any(|state| state.is_finishing)
    }

    /// Whether nothing of all this is under way, and no step of it is due.
    fn is_idle(&self) -> bool {
        let Self { sources, sink, dropping, switching, scans, folds, removing, .. } = self;
        let lists = sources.is_empty() && scans.is_empty() && folds.is_empty();
        let tasks = sink.is_none() && dropping.is_none() && switching.is_none();
        lists
            && tasks
            && self.rewinding.is_none()
            && removing.is_empty()
            && self.comparing.is_idle()
    }

    /// The image is about to go on; whether that has to wait for a repair of it.
    pub(super) fn keeps_still(&mut self, limit: Lsn) -> bool {
        self.comparing.is_kept_still(limit)
    }

    /// Whether a task has more to do at once, and has only let others go first.
    pub(super) fn is_restless(&self) -> bool {
        self.tasks.is_restless()
    }

    /// Gives sources what they may read until the next tick: by the limit of the configuration, and
    /// by what clients feel.
    fn allow(&mut self, now: Now) {
        let allowance = &self.allowance;
        let before = self.ticked.replace(now).unwrap_or(now);
        let speed = self.throttle.speed(now, allowance.read.take());
        allowance.is_gentle.set(speed != Speed::Full);
        let (rate, most) = match (speed, self.rate) {
            (Speed::Rests, _) => return allowance.bytes.set(Some(0)),
            (Speed::Full, None) => return allowance.bytes.set(None),
            // What was not used for long is no right to a burst.
            (Speed::Full, Some(limit)) => (limit, limit / 10),
            // Nor is a tick that came late.
            (Speed::AtMost(rate), limit) => {
                let rate = limit.map_or(rate, |limit| limit.min(rate));
                (rate, rate / 25)
            }
        };
        let micros = u64::try_from(now.since(before).as_micros()).unwrap_or(u64::MAX);
        let new = u128::from(rate) * u128::from(micros) / 1_000_000;
        let left = allowance.bytes.get().unwrap_or(0);
        let left = left.saturating_add(i64::try_from(new).unwrap_or(i64::MAX));
        allowance.bytes.set(Some(left.min(i64::try_from(most).unwrap_or(i64::MAX).max(1))));
    }

    /// The end of an operation of one of the tasks.
    pub(super) fn complete(&self, done: crate::engine::Completion) {
        self.tasks.complete(done);
    }

    /// The log from here on is being read, or will be saved: it is not to be released.
    pub(super) fn needs_log_from(&self) -> Option<Lsn> {
        let scans = self.scans.iter().map(|scan| scan.at);
        let rewinds = self.rewinding.as_ref().map(RewindRun::needs_log_from);
        scans.chain(self.sink.as_ref().and_then(|sink| sink.apart)).chain(rewinds).min()
    }
}

impl<E: Engine> Replica<E> {
    /// Begins to be the source of a resync: from here on every change of the image is noted for
    /// it. Beyond one source for each other member and one for a file, the oldest gives way.
    pub fn source(&mut self, id: u64, scope: Scope) {
        self.end_source(id);
        let copies = &mut self.copies;
        if copies.sources.len() >= SOURCES_MAX {
            copies.sources.remove(0);
        }
        let map = match scope.way {
            Way::Map => copies.maps.get(&scope.map_of).map(|dirty| dirty.map.clone()),
            Way::Log | Way::Digests => None,
        };
        let (volumes, applied) = (&copies.volumes, self.volumes.applied());
        let mut state = SourceState::new(id, scope, volumes, map, applied);
        match scope.way {
            Way::Digests => state.scanned = Some(None),
            Way::Log | Way::Map if scope.log_from < self.journal.start() => {
                state.scanned = Some(None);
            }
            Way::Log | Way::Map => {
                let end = self.journal.end().lsn;
                let scan = Scan::new(Whom::Source(id), volumes, scope.log_from, end);
                copies.scans.push_back(scan);
            }
        }
        if let Some((_, mine)) = copies.early.take_if(|(of, _)| *of == id) {
            // A source that has heard nothing takes any such word.
            let _ = state.hear(mine);
        }
        let state = Rc::new(RefCell::new(state));
        let work = SourceWork {
            io: copies.tasks.io(),
            state: state.clone(),
            stores: copies.stores.clone(),
            allowance: copies.allowance.clone(),
        };
        let task = Task::new(source::run(work));
        copies.sources.push(SourceRun { state, task, is_done: false });
        self.volumes.note_touched(true);
        self.go_on_copying();
    }

    /// The image is held still: sends the rest, and then tells of which position it is.
    pub fn finish_source(&mut self, id: u64) {
        let run = self.copies.sources.iter().find(|run| run.state.borrow().id == id);
        if let Some(run) = run {
            run.state.borrow_mut().is_finishing = true;
        }
        self.go_on_copying();
    }

    /// Ends a source, whatever it does.
    pub fn end_source(&mut self, id: u64) {
        self.copies.sources.retain(|run| run.state.borrow().id != id);
        self.copies.forget_scan(Whom::Source(id));
        self.volumes.note_touched(!self.copies.sources.is_empty());
    }

    /// Begins to be the sink of a resync. The log from `apart` on is not the primary's: what it
    /// has changed is named to the source, and saved before it is replaced.
    pub fn sink(&mut self, id: u64, takes: Takes, apart: Option<Lsn>) {
        self.end_sink();
        if takes == Takes::InPlace {
            // The sink begins when that is done: until then the stores are not said to be quiet.
            self.suspend_history("the image is being taken anew, in place");
        }
        let end = self.journal.end().lsn;
        let start = self.journal.start();
        let copies = &mut self.copies;
        let mut state = SinkState::new(id, takes, &copies.volumes);
        match apart {
            Some(apart) if apart < start => state.mine = Some(None),
            Some(apart) => {
                let scan = Scan::new(Whom::Sink, &copies.volumes, apart, end);
                copies.scans.push_back(scan);
            }
            None => state.mine = Some(Some(Scan::nothing(&copies.volumes))),
        }
        let (state, io) = (Rc::new(RefCell::new(state)), copies.tasks.io());
        let work = SinkWork {
            io: io.clone(),
            before: copies.ended.take(),
            state: state.clone(),
            replica_dir: self.dir.clone(),
            quarantine_dir: self.dir.join(QUARANTINE_DIR),
            resource: copies.resource,
            volumes: copies.volumes.clone(),
            stores: copies.stores.clone(),
            apart: apart.map(|apart| (apart, end)),
            was_in_place: copies.was_in_place,
        };
        let task = Task::new(sink::run(work));
        copies.sink = Some(SinkRun { state, io, task, apart, finishing: false });
        self.go_on_copying();
    }

    /// Everything was sent: verifies it, and makes it durable with what it rests on.
    pub fn finish_sink(&mut self, id: u64, said: u64) {
        let has_all = self.copies.counts.heard(id) == said;
        let sink = self.copies.sink.as_mut();
        if let Some(sink) = sink.filter(|sink| sink.state.borrow().id == id) {
            if !has_all {
                self.end_sink();
                self.ready.push(ReplicaEvent::SinkDone { id, result: Err(SinkError::Lost) });
                return;
            }
            sink.finishing = true;
        }
        self.go_on_copying();
    }

    /// Ends the sink; what is staged stays, and the next sink goes on with it.
    pub fn end_sink(&mut self) {
        self.copies.forget_scan(Whom::Sink);
        if let Some(sink) = self.copies.sink.take() {
            self.copies.was_in_place |= sink.state.borrow().wrote_in_place;
            self.copies.ended = Some(sink.io);
        }
    }

    /// Forgets what is staged. May be repeated.
    pub fn drop_staging(&mut self) {
        self.end_sink();
        self.end_rewind();
        if self.copies.dropping.is_none() {
            let (io, dir) = (self.copies.tasks.io(), self.dir.clone());
            let before = self.copies.ended.take();
            let drop_it = async move {
                while before.as_ref().is_some_and(Io::is_busy) {
                    crate::resync::task::pause().await;
                }
                drop_staging(&io, &dir).await
            };
            self.copies.dropping = Some(Task::new(drop_it));
        }
        self.go_on_copying();
    }

    /// Takes a message of the other side. One of a session that has ended is passed over.
    ///
    /// # Errors
    /// [`BadCopying`] where it breaks the protocol.
    pub fn copying(&mut self, id: u64, message: Numbered) -> Result<(), BadCopying> {
        let Numbered { number, copying: message } = message;
        self.copies.counts.hear(id, number)?;
        let copies = &self.copies;
        let source = copies.sources.iter().find(|run| run.state.borrow().id == id);
        let sink = copies.sink.as_ref().filter(|sink| sink.state.borrow().id == id);
        if let Some(run) = source {
            run.state.borrow_mut().hear(message)?;
        } else if let Some(sink) = sink {
            if sink.finishing {
                return Err(BadCopying::Unasked);
            }
            sink.state.borrow_mut().hear(message)?;
        } else if let Some(asks) = &copies.comparing.asks
            && asks.work.state.borrow().id == id
        {
            asks.work.state.borrow_mut().hear(message)?;
        } else if let Some(answers) = &copies.comparing.answers
            && answers.state.borrow().id == id
        {
            answers.state.borrow_mut().hear(message)?;
        } else if let Copying::Mine(_) = message {
            self.copies.early = Some((id, message));
        }
        self.go_on_copying();
        Ok(())
    }

    /// How far a source or sink is.
    #[must_use]
    pub fn copy_progress(&self, id: u64) -> Option<CopyProgress> {
        let sources = self.copies.sources.iter().map(|run| run.state.borrow());
        let source = sources.filter(|state| state.id == id).map(|state| state.progress).next();
        source.or_else(|| {
            let state = self.copies.sink.as_ref()?.state.borrow();
            (state.id == id).then_some(state.progress)
        })
    }

    /// Most bytes of the image that all sources together read in a second.
    pub fn set_copy_rate(&mut self, bytes_per_second: Option<u64>) {
        let copies = &mut self.copies;
        if copies.rate != bytes_per_second {
            copies.rate = bytes_per_second;
            copies.ticked = None;
            copies.allowance.bytes.set(bytes_per_second.map(|_| 0));
        }
        self.go_on_copying();
    }

    /// Whether clients may feel a resync here: what they wait is worth to be told then.
    #[must_use]
    pub fn is_source(&self) -> bool {
        !self.copies.sources.is_empty()
    }

    /// A client was answered that had waited so long.
    pub fn client_waited(&mut self, now: Now, wait: Duration) {
        self.copies.throttle.answered(now, wait);
    }

    /// Tells the time, for the speed of sources. Returns when to be called again.
    pub fn tick_copy(&mut self, now: Now) -> Option<Now> {
        if !self.is_source() {
            return None;
        }
        self.copies.allow(now);
        self.go_on_copying();
        Some(now.after(TICK))
    }

    /// The dirty maps that there are, and what of the log each has.
    #[must_use]
    pub fn maps(&self) -> Vec<(MemberId, Span)> {
        self.copies.maps.iter().map(|(peer, dirty)| (*peer, dirty.span)).collect()
    }

    /// Adds what the log changed from `from` to `to` to the dirty map of `peer`, durably; without
    /// `from`, the map begins anew at `to`, empty. One at a time for each peer.
    pub fn fold(&mut self, peer: MemberId, from: Option<Lsn>, to: Lsn) {
        self.copies.fold(peer, from, to);
        self.go_on_copying();
    }

    /// Lets every task go on as far as it comes, and passes on what they say.
    pub(super) fn go_on_copying(&mut self) {
        if self.copies.is_idle() {
            // This is the data path of a replica at which nothing else goes on.
            self.hurry(!self.history.is_off());
        } else {
            self.go_on_with_all();
        }
        let Self { copies, engine, .. } = self;
        // Files of tasks that were ended.
        copies.tasks.begin(engine);
    }

    /// Nothing waits in the log while something waits for the stores: history is one that does.
    fn hurry(&mut self, on: bool) {
        let before = self.volumes.applied().lsn;
        self.volumes.hurry(&mut self.engine, on);
        self.tell_applied(before);
    }

    fn go_on_with_all(&mut self) {
        self.go_on_scanning();
        if let Some(limit) = self.copies.comparing.goes_on() {
            self.go_to(limit);
        }
        // A sink begins, and a held image is sent, when the stores have all that they may have.
        self.hurry(self.copies.wants_rest() || !self.history.is_off());
        let touched = self.volumes.touched();
        let applied = self.volumes.applied();
        let limit = self.volumes.limit().max(self.history.wanted());
        let read_back = self.volumes.queue_end().lsn >= limit || self.spooled_bytes() == 0;
        let is_quiet = self.volumes.is_quiet() && !self.history_waits() && read_back;
        // Somebody else writes into the stores, or is about to.
        let copies = &self.copies;
        let staged = copies.sink.is_some() || copies.rewinding.is_some();
        let taken = staged || copies.switching.is_some();
        let rests = is_quiet && !taken && applied.lsn == limit;
        self.copies.comparing.rests_at(rests.then_some(applied.lsn));
        // First, so that what a repair has changed is marked before anybody reads it.
        self.go_on_comparing();
        let mended = self.copies.comparing.touched();
        let is_quiet = is_quiet && !self.copies.comparing.is_mending();
        for run in &mut self.copies.sources {
            let mut state = run.state.borrow_mut();
            touched.iter().for_each(|(v, range)| state.mark(*v, range.start(), range.end()));
            mended.iter().for_each(|of| state.mark(of.volume, of.start, of.end));
            (state.applied, state.is_quiet) = (applied, is_quiet);
        }
        self.go_on_sourcing();
        self.go_on_sinking(is_quiet);
        self.go_on_rewinding(is_quiet);
        self.go_on_switching();
        self.go_on_folding();
        self.go_on_removing();
    }

    fn go_on_sourcing(&mut self) {
        let Self { copies, engine, ready, .. } = self;
        let Copies { sources, tasks, counts, .. } = copies;
        for run in sources.iter_mut().filter(|run| !run.is_done) {
            let ended = tasks.poll(&mut run.task, engine);
            let mut state = run.state.borrow_mut();
            let id = state.id;
            ready.extend(state.out.drain(..).map(|says| match says {
                SourceSays::Copying(copying) => counts.say(id, copying),
                SourceSays::NearEnd => ReplicaEvent::SourceNearEnd { id },
                SourceSays::Done(at) => ReplicaEvent::SourceDone { id, at, said: counts.said(id) },
            }));
            run.is_done = ended.is_some();
            if let Some(Err(error)) = ended {
                ready.push(ReplicaEvent::SourceFailed { id, error });
            }
        }
    }

    fn go_on_sinking(&mut self, is_quiet: bool) {
        let Self { copies, engine, ready, journal, .. } = self;
        if let Some(task) = &mut copies.dropping {
            let Some(dropped) = copies.tasks.poll(task, engine) else { return };
            copies.dropping = None;
            if let Err(error) = dropped {
                tracing::warn!(%error, "what a resync staged cannot be removed");
            }
        }
        let Some(sink) = &mut copies.sink else { return };
        let id = sink.state.borrow().id;
        sink.state.borrow_mut().is_quiet = is_quiet;
        if sink.finishing && journal.written() >= journal.end().lsn {
            let tail = sink.apart.map(|apart| tail_of(journal, apart));
            let mut state = sink.state.borrow_mut();
            if !state.is_finishing {
                state.tail = tail.flatten();
                state.is_finishing = true;
            }
        }
        let ended = copies.tasks.poll(&mut sink.task, engine);
        let mut state = sink.state.borrow_mut();
        let out = state.out.drain(..);
        ready.extend(out.map(|copying| copies.counts.say(id, copying)));
        drop(state);
        if let Some(result) = ended {
            self.end_sink();
            // A store whose write or sync failed is not to be trusted any more (design §2.7).
            let failed = match &result {
                Err(SinkError::Store { source, .. }) => self.volumes.fail_for(source),
                _ => None,
            };
            self.ready.push(ReplicaEvent::SinkDone { id, result });
            self.ready.extend(failed.map(|e| ReplicaEvent::Failed(FailedPart::Store, e)));
        }
    }
}

/// What is to be saved of the log beyond `apart`.
fn tail_of(journal: &crate::journal::Journal, apart: Lsn) -> Option<Tail> {
    let (start, end) = (journal.start(), journal.end().lsn);
    let from = apart.max(start);
    // What cannot be found there is noticed where it is saved.
    let parts = journal.parts(from, end).unwrap_or_default();
    (from < end).then_some(Tail { from, end, parts, is_cut: apart < start })
}

/// The position that a superblock with a switching image must name as durable, and the number of
/// truncations: those of the log as it will be. The old log counts no more from then on.
pub(super) fn durable_after_switch(checkpoint: LogPosition) -> (Lsn, u64) {
    (checkpoint.lsn, 0)
}

#[cfg(test)]
pub(super) mod tests;

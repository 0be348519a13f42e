//! One member's copy of a resource: superblock, journal and volumes over one engine. The only
//! type that the daemon sees of all this.

mod events;
mod grow;
mod history;
mod import;
mod look;
mod opening;
mod resync;
mod spool;
mod survey;

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

pub use events::{ReplicaError, ReplicaEvent};
use grow::Growth;
use hadrian_protocol::frame::{Frame, LogPosition};
use hadrian_protocol::ids::{Lsn, VolumeIndex};
use hadrian_protocol::node::{FailedPart, Recovered};
use hadrian_protocol::range::ByteRange;
use hadrian_protocol::replica::{Image, ReplicaState, VolumeGeometry};
use history::History;
pub use history::HistoryStatus;
pub use import::{Import, begun, is_begun};
pub use look::{Found, read_state};
pub use opening::log_of;
use opening::{open_log, open_state, open_volumes, take_in};
use resync::{Copies, RESYNC, SCAN_READ, durable_after_switch, finish_switch};
use rustix::fs::FlockOperation;
use spool::{SPOOL_READ, Spool};
use survey::{SURVEY_READ, Surveying};

use crate::engine::{AnyEngine, Completion, Engine, EngineChoice, TokenSpace};
use crate::history::{Kept, Limits};
use crate::journal::{self, AppendError, Journal, JournalEvent, NewLog};
use crate::quarantine::DIR as QUARANTINE_DIR;
use crate::resync::task::Tasks;
use crate::superblock::{
    self, Label, SuperblockError, SuperblockEvent, SuperblockWriter, Whose, WriteError,
};
use crate::volume::{Region, Store, StoreError, Volumes, VolumesEvent};

/// Bytes of one log segment, unless the log is too small for eight of them.
const SEGMENT_LEN: u64 = 64 << 20;
/// Operations in the kernel at a time.
const ENGINE_DEPTH: u32 = 256;
/// Most bytes of log that are handed over at a time; the longest frame fits, with its head.
const LOG_READ_MAX: usize = journal::CHUNK_LEN;

const JOURNAL: TokenSpace = TokenSpace::new(1);
const VOLUMES: TokenSpace = TokenSpace::new(2);
const SUPERBLOCK: TokenSpace = TokenSpace::new(3);

/// How a replica is opened.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    /// Most bytes of frames in memory, as by [`Replica::set_spool_memory`].
    pub memory: u64,
    /// How much before-images are kept; none: none are, and what there is of them is forgotten.
    pub history: Option<Limits>,
}

impl Default for Wishes {
    fn default() -> Self {
        Self { memory: spool::MEMORY_MAX, history: None }
    }
}

/// An open replica.
#[derive(Debug)]
pub struct Replica<E = AnyEngine> {
    engine: E,
    journal: Journal,
    volumes: Volumes,
    spool: Spool,
    surveying: Option<Surveying>,
    copies: Copies,
    history: History,
    growth: Growth,
    superblock: SuperblockWriter,
    /// The caller's number of the state that is being written, and the superblock's own.
    persisting: Option<(u64, u64)>,
    /// How far the log is no longer needed.
    unneeded: Lsn,
    dir: PathBuf,
    ready: Vec<ReplicaEvent>,
    done: Vec<Completion>,
    _lock: Option<File>,
}

/// Makes the files of a replica of the one with `label` in `dir`: the log first, which begins at
/// the checkpoint of `state`, the superblock last, so that a replica either is complete or is none.
/// `progress` hears the bytes of log written so far.
///
/// # Errors
/// [`ReplicaError`]; an existing replica is never overwritten.
pub fn create(
    dir: &Path,
    label: &Label,
    state: &ReplicaState,
    log_bytes: u64,
    mut progress: impl FnMut(u64),
) -> Result<(), ReplicaError> {
    let io = |source| ReplicaError::Io { path: dir.into(), source };
    let path = dir.join(superblock::FILE_NAME);
    if path.exists() {
        return Err(SuperblockError::Exists { path }.into());
    }
    fs::create_dir_all(dir).map_err(io)?;
    let mut engine = AnyEngine::choose(EngineChoice::Auto, ENGINE_DEPTH)?;
    create_in(&mut engine, dir, (label, state), log_bytes, &mut progress)?;
    // The folder's own name must survive a crash, too.
    let above = dir.parent().unwrap_or(dir);
    File::open(above).and_then(|folder| folder.sync_all()).map_err(io)
}

/// The same in a directory that the engine has already.
///
/// # Errors
/// [`ReplicaError`]
pub fn create_in<E: Engine>(
    engine: &mut E,
    dir: &Path,
    (label, state): (&Label, &ReplicaState),
    log_bytes: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<(), ReplicaError> {
    let segment_len = SEGMENT_LEN.min(log_bytes / 8) / journal::ALIGN * journal::ALIGN;
    let segment_len = segment_len.max(journal::SEGMENT_LEN_MIN);
    let new = NewLog {
        resource: state.resource,
        start: state.checkpoint.lsn,
        segment_len,
        segment_count: log_bytes.div_ceil(segment_len),
    };
    let quarantine = dir.join(QUARANTINE_DIR);
    engine
        .create_dir(&quarantine)
        .map_err(|source| ReplicaError::Io { path: quarantine, source })?;
    journal::create(engine, dir, &new, &mut |done, _| progress(done))?;
    let whose = Whose { resource: state.resource, label: label.clone() };
    Ok(SuperblockWriter::create(engine, dir, &whose, &state.encode())?)
}

impl Replica {
    /// Opens the replica in `dir` over the stores at `paths`, and replays its log into the image
    /// as far as the recorded apply limit (design §2.3, §2.5). Where it is not `whose` it should
    /// be, nothing is written.
    ///
    /// # Errors
    /// [`ReplicaError`]
    pub fn open(
        dir: &Path,
        whose: &Whose,
        paths: &[PathBuf],
        choice: EngineChoice,
    ) -> Result<(Self, ReplicaState, Recovered), ReplicaError> {
        Self::open_with(dir, whose, paths, choice, Wishes::default())
    }

    /// The same as somebody wishes it.
    ///
    /// # Errors
    /// [`ReplicaError`]
    pub fn open_with(
        dir: &Path,
        whose: &Whose,
        paths: &[PathBuf],
        choice: EngineChoice,
        wishes: Wishes,
    ) -> Result<(Self, ReplicaState, Recovered), ReplicaError> {
        let lock = lock(&dir.join(superblock::FILE_NAME))?;
        let engine = AnyEngine::choose(choice, ENGINE_DEPTH)?;
        let (mut replica, state, recovered) =
            Self::open_as(engine, dir, whose, paths, Store::open, wishes)?;
        replica._lock = Some(lock);
        Ok((replica, state, recovered))
    }
}

impl<E: Engine> Replica<E> {
    /// The same over any engine; nothing keeps others from opening it too. `open_store` opens one
    /// backing store.
    ///
    /// # Errors
    /// [`ReplicaError`]
    pub fn open_over(
        engine: E,
        dir: &Path,
        whose: &Whose,
        paths: &[PathBuf],
        open_store: impl Fn(&mut E, &Path, VolumeGeometry) -> Result<Store, StoreError>,
    ) -> Result<(Self, ReplicaState, Recovered), ReplicaError> {
        Self::open_as(engine, dir, whose, paths, open_store, Wishes::default())
    }

    /// The same as somebody wishes it.
    ///
    /// # Errors
    /// [`ReplicaError`]
    pub fn open_as(
        mut engine: E,
        dir: &Path,
        whose: &Whose,
        paths: &[PathBuf],
        open_store: impl Fn(&mut E, &Path, VolumeGeometry) -> Result<Store, StoreError>,
        wishes: Wishes,
    ) -> Result<(Self, ReplicaState, Recovered), ReplicaError> {
        let (superblock, state) = open_state(&mut engine, dir, whose)?;
        let mut volumes = open_volumes(&mut engine, &state, paths, open_store)?;
        let tasks = Tasks::new(RESYNC);
        let kept = wishes.history.map(|limits| Kept {
            replica_dir: dir.into(),
            resource: state.resource,
            volumes: state.volumes.clone(),
            stores: volumes.stores(),
            limits,
        });
        let mut history = History::find(&tasks, &mut engine, (dir, &state), kept)?;
        if state.image == Image::Switching {
            finish_switch(&mut engine, &tasks, dir, (&state, volumes.stores()))?;
        }
        let mut spool = Spool::default();
        spool.set_memory(wishes.memory);
        let (ends, mut known) = (history.end(), history.end() == Some(state.checkpoint));
        let mut reached = |position| known |= ends == Some(position);
        let keeping = (&mut volumes, &mut spool);
        let (journal, mut recovered) = open_log(&mut engine, dir, &state, keeping, &mut reached)?;
        history.check((&tasks, &mut engine), (dir, &state), known)?;
        let copies = Copies::open(tasks, &mut engine, dir, (&state, volumes.stores()))
            .map_err(|source| ReplicaError::Io { path: dir.into(), source })?;
        let mut replica = Self {
            engine,
            journal,
            volumes,
            spool,
            surveying: None,
            copies,
            history,
            growth: Growth::new(&state.volumes),
            superblock,
            persisting: None,
            unneeded: Lsn::START,
            dir: dir.into(),
            ready: Vec::new(),
            done: Vec::new(),
            _lock: None,
        };
        let limit = state.apply_limit.min(recovered.end.lsn);
        replica.replay_to(limit).map_err(|source| ReplicaError::Io { path: dir.into(), source })?;
        if state.image != Image::Incomplete {
            replica.begin_history();
        }
        recovered.maps = replica.maps();
        Ok((replica, state, recovered))
    }

    fn replay_to(&mut self, limit: Lsn) -> io::Result<()> {
        // What these frames change is on record already, and the stores may have some of them.
        let recorded = self.history.end().map(|end| end.lsn.min(limit));
        recorded.into_iter().for_each(|to| self.let_in(to));
        self.apply_to(limit);
        let mut events = Vec::new();
        loop {
            self.poll(&mut events);
            for event in events.drain(..) {
                if let ReplicaEvent::Failed(_, error) = event {
                    return Err(error);
                }
            }
            if self.volumes.applied().lsn >= limit {
                return Ok(());
            }
            self.engine.kick();
            self.engine.wait()?;
        }
    }

    /// Appends a frame to the log; reads see it from here on, where it is kept in memory.
    ///
    /// # Errors
    /// [`AppendError`]; the caller keeps [`Replica::log_room`] above what it appends.
    pub fn append(&mut self, frame: &Frame) -> Result<(), AppendError> {
        self.journal.append(&mut self.engine, frame)?;
        take_in(&mut self.volumes, &mut self.spool, frame);
        Ok(())
    }

    /// Makes the log durable.
    pub fn sync_log(&mut self) {
        self.journal.request_sync(&mut self.engine);
    }

    /// Frames that end at or before `limit` may go into the image.
    pub fn apply_to(&mut self, limit: Lsn) {
        let allowed = self.volumes.limit().max(self.history.wanted());
        if limit > allowed && self.copies.keeps_still(limit) {
            return;
        }
        self.go_to(limit);
    }

    /// The same, where no repair of the image keeps it still.
    fn go_to(&mut self, limit: Lsn) {
        self.history.want(limit);
        match self.history.is_off() {
            true => self.let_in(limit),
            false => self.go_on_history(),
        }
    }

    /// The same, past the history.
    fn let_in(&mut self, limit: Lsn) {
        let before = self.volumes.applied().lsn;
        self.volumes.apply_to(&mut self.engine, limit);
        self.tell_applied(before);
    }

    /// Frames without an operation of their own are done at once, and no completion tells of them.
    fn tell_applied(&mut self, before: Lsn) {
        let after = self.volumes.applied().lsn;
        if after > before {
            self.ready.push(ReplicaEvent::Applied(after));
        }
    }

    /// Makes the image durable.
    pub fn checkpoint(&mut self) {
        self.volumes.checkpoint(&mut self.engine);
    }

    /// Writes the superblock, with what the journal knows of its own durability. One at a time.
    ///
    /// # Errors
    /// [`WriteError::TooLong`], which no state within its limits is.
    pub fn persist(&mut self, number: u64, mut state: ReplicaState) -> Result<(), WriteError> {
        let known = self.journal.known_durable();
        (state.durable, state.truncations) = match state.image {
            Image::Switching => durable_after_switch(state.checkpoint),
            Image::Whole | Image::Incomplete => (known.lsn, known.truncations),
        };
        let sequence = self.superblock.write(&mut self.engine, &state.encode())?;
        self.persisting = Some((number, sequence));
        Ok(())
    }

    /// The log before `lsn` is no longer needed.
    pub fn release_log(&mut self, lsn: Lsn) {
        self.unneeded = self.unneeded.max(lsn);
        self.release_unread();
    }

    /// What clients still read from the log is kept until they have it.
    fn release_unread(&mut self) {
        // Of a segment, not the end counts but what lies before it.
        let read = self.volumes.oldest_log_read().map(|end| Lsn::new(end.get().saturating_sub(1)));
        let limits = [read, self.copies.needs_log_from()];
        let needed = limits.into_iter().flatten().fold(self.unneeded, Lsn::min);
        self.journal.release(&mut self.engine, needed);
    }

    /// Begins to read frames from `from` on.
    pub fn read_log(&mut self, id: u64, from: Lsn) {
        if let Err(error) = self.journal.read(&mut self.engine, from, LOG_READ_MAX, id) {
            tracing::warn!(%from, %error, "the log cannot be read for a standby");
            self.ready.push(ReplicaEvent::LogRead { id, frames: Vec::new() });
        }
    }

    /// Begins a client's read; it ends with [`ReplicaEvent::Read`].
    pub fn read(&mut self, id: u64, volume: VolumeIndex, range: ByteRange) {
        if let Some(done) = self.volumes.read(&mut self.engine, id, volume, range) {
            self.ready.push(ReplicaEvent::Read(done));
        }
    }

    /// What is allocated; see [`Volumes::regions`].
    #[must_use]
    pub fn regions(&self, volume: VolumeIndex, range: ByteRange, limit: usize) -> Vec<Region> {
        self.volumes.regions(volume, range, limit)
    }

    /// Whether every record of a frame lies inside its volume.
    #[must_use]
    pub fn holds(&self, frame: &Frame) -> bool {
        self.volumes.holds(frame)
    }

    /// Bytes that can be appended before more log is released.
    #[must_use]
    pub fn log_room(&self) -> u64 {
        self.journal.room()
    }

    /// Bytes of frames that are on their way into the log, and in memory until they are there.
    #[must_use]
    pub fn unwritten_bytes(&self) -> u64 {
        self.journal.end().lsn.since(self.journal.written())
    }

    /// Bytes that the log holds in all.
    #[must_use]
    pub fn log_capacity(&self) -> u64 {
        self.journal.capacity()
    }

    /// Bytes of one file of the log.
    #[must_use]
    pub fn segment_len(&self) -> u64 {
        self.journal.segment_len()
    }

    /// Memory that frames hold until they are applied, in bytes.
    #[must_use]
    pub fn unapplied_bytes(&self) -> u64 {
        self.volumes.unapplied_bytes()
    }

    /// Begins to save everything behind `to` in a quarantine file and to cut the log there. Ends
    /// with [`ReplicaEvent::Truncated`] or [`ReplicaEvent::NotTruncated`].
    pub fn truncate(&mut self, to: LogPosition) {
        let (from, end) = (to.lsn.get(), self.journal.end().lsn.get());
        let name = format!("tail-{from:016x}-{end:016x}.frames");
        let path = self.dir.join(QUARANTINE_DIR).join(name);
        if let Err(error) = self.journal.truncate(&mut self.engine, to, &path) {
            self.ready.push(ReplicaEvent::NotTruncated(error));
        }
    }

    /// Begins everything that was asked for.
    pub fn kick(&mut self) {
        self.journal.keep(&mut self.engine);
        self.engine.kick();
    }

    /// Moves all that the disks have done into `events`, without waiting.
    pub fn poll(&mut self, events: &mut Vec<ReplicaEvent>) {
        while self.poll_once(events) {}
    }

    /// The same for one round: what a completion begins may be done at once, and is left for the
    /// next. So a long stretch of small store writes does not keep sockets waiting. Whether there
    /// is a next round already, of which no descriptor tells.
    pub fn poll_once(&mut self, events: &mut Vec<ReplicaEvent>) -> bool {
        let mut done = std::mem::take(&mut self.done);
        self.engine.reap(&mut done);
        for completion in done.drain(..) {
            let event = self.complete(completion);
            events.extend(event);
        }
        self.done = done;
        self.journal.keep(&mut self.engine);
        self.take_journal_events();
        self.read_spool();
        self.go_on_surveying();
        self.go_on_history();
        self.go_on_copying();
        self.go_on_growing();
        let Self { volumes, journal, .. } = self;
        volumes.leave_in_log(journal.written(), |at, len| journal.spot(at, len));
        self.engine.kick();
        events.append(&mut self.ready);
        self.engine.has_done() || self.copies.is_restless()
    }

    /// A descriptor that polls readable when [`Replica::poll`] has something, beside what
    /// [`Replica::poll_once`] says itself.
    #[must_use]
    pub fn descriptor(&self) -> Option<OwnedFd> {
        self.engine.descriptor()
    }

    fn complete(&mut self, done: Completion) -> Option<ReplicaEvent> {
        let engine = &mut self.engine;
        if JOURNAL.owns(done.token) {
            self.journal.complete(engine, done);
            None
        } else if RESYNC.owns(done.token) {
            self.copies.complete(done);
            None
        } else if VOLUMES.owns(done.token) {
            Some(match self.volumes.complete(engine, done) {
                VolumesEvent::Nothing => return None,
                VolumesEvent::Applied(lsn) => ReplicaEvent::Applied(lsn),
                VolumesEvent::Checkpointed(position) => ReplicaEvent::Checkpointed(position),
                VolumesEvent::Read(read) => {
                    self.release_unread();
                    ReplicaEvent::Read(read)
                }
                VolumesEvent::Failed(error) => ReplicaEvent::Failed(FailedPart::Store, error),
            })
        } else {
            match self.superblock.complete(engine, done)? {
                SuperblockEvent::Stored { sequence } => {
                    let (number, _) = self.persisting.take_if(|(_, own)| *own <= sequence)?;
                    Some(ReplicaEvent::Persisted(number))
                }
                SuperblockEvent::Failed { error } => {
                    Some(ReplicaEvent::Failed(FailedPart::Superblock, error))
                }
            }
        }
    }

    fn take_journal_events(&mut self) {
        while let Some(event) = self.journal.poll_event() {
            let event = match event {
                JournalEvent::SegmentReady => continue,
                JournalEvent::Written(lsn) => ReplicaEvent::Written(lsn),
                JournalEvent::Durable(lsn) => ReplicaEvent::Durable(lsn),
                JournalEvent::ReadDone { number: SPOOL_READ, result } => {
                    self.spool_read(result);
                    continue;
                }
                JournalEvent::ReadDone { number: SURVEY_READ, result } => {
                    self.survey_read(result);
                    continue;
                }
                JournalEvent::ReadDone { number: SCAN_READ, result } => {
                    self.scan_read(result);
                    continue;
                }
                JournalEvent::ReadDone { number: id, result } => {
                    let frames = result.unwrap_or_else(|error| {
                        tracing::warn!(%error, "the log cannot be read for a standby");
                        Vec::new()
                    });
                    ReplicaEvent::LogRead { id, frames }
                }
                JournalEvent::Truncated(end) => {
                    self.history.cut(end.lsn);
                    self.volumes.cut(end.lsn);
                    self.spool.cut(end.lsn, self.volumes.queue_end().lsn);
                    ReplicaEvent::Truncated(end)
                }
                JournalEvent::NotTruncated(error) => ReplicaEvent::NotTruncated(error),
                JournalEvent::Failed(failure) => {
                    ReplicaEvent::Failed(FailedPart::Log, io::Error::other(failure))
                }
            };
            self.ready.push(event);
        }
    }
}

fn lock(path: &Path) -> Result<File, ReplicaError> {
    let io = |source| ReplicaError::Io { path: path.into(), source };
    let file = File::open(path).map_err(io)?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| ReplicaError::Busy(path.into()))?;
    Ok(file)
}

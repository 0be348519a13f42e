//! One member's copy of a resource: superblock, journal and volumes over one engine. The only
//! type that the daemon sees of all this.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use hadrian_protocol::codec::CodecError;
use hadrian_protocol::frame::{Frame, LogPosition};
use hadrian_protocol::ids::{Lsn, VolumeIndex};
use hadrian_protocol::node::{FailedPart, Recovered};
use hadrian_protocol::range::ByteRange;
use hadrian_protocol::replica::ReplicaState;
use rustix::fs::FlockOperation;

use crate::engine::{AnyEngine, Completion, Engine as _, EngineChoice, NoRing};
use crate::journal::{
    self, Journal, JournalEvent, LogFull, LogRead, RecoveryError, SegmentError, Segments,
    TruncateError,
};
use crate::superblock::{self, SuperblockError, SuperblockEvent, SuperblockWriter};
use crate::volume::{ReadDone, Region, Store, StoreError, Volumes, VolumesEvent};

/// Bytes of one log segment, unless the log is too small for four of them.
const SEGMENT_LEN: u64 = 64 << 20;
const LOG_DIR: &str = "log";
const QUARANTINE_DIR: &str = "quarantine";

// The high byte of a token names the part that it belongs to.
const PART_SHIFT: u32 = 56;
const JOURNAL: u64 = 1;
const VOLUMES: u64 = 2;
const SUPERBLOCK: u64 = 3;
const LOG_READ: u64 = 4;

/// Why a replica cannot be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// No engine.
    #[error(transparent)]
    Engine(#[from] NoRing),
    /// The superblock.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// The superblock's content.
    #[error("the superblock in {} cannot be understood: {source}", .dir.display())]
    State {
        /// The replica's directory.
        dir: PathBuf,
        /// What is wrong.
        source: CodecError,
    },
    /// The log's files.
    #[error(transparent)]
    Segments(#[from] SegmentError),
    /// The log's content.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// A backing store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The number of stores is not that of the volumes.
    #[error("the replica has {has} volumes, the configuration names {named}; they must agree")]
    Volumes {
        /// Volumes in the superblock.
        has: usize,
        /// Stores in the configuration.
        named: usize,
    },
    /// Another daemon runs it.
    #[error("the replica in {} is in use by another process; stop that first", .0.display())]
    Busy(PathBuf),
    /// The system refuses.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

/// Something that the disks have done.
#[derive(Debug)]
pub enum ReplicaEvent {
    /// The log is written to here.
    Written(Lsn),
    /// The log is durable to here.
    Durable(Lsn),
    /// The image holds every frame to here.
    Applied(Lsn),
    /// The image is durable to here.
    Checkpointed(LogPosition),
    /// The state with this number is durable.
    Persisted(u64),
    /// Frames for a standby; none where the log cannot be read there.
    LogRead {
        /// The caller's name for it.
        id: u64,
        /// What was read.
        frames: Vec<Frame>,
    },
    /// A client's read is done.
    Read(ReadDone),
    /// A part failed for good.
    Failed(FailedPart, io::Error),
}

/// An open replica.
#[derive(Debug)]
pub struct Replica {
    engine: AnyEngine,
    journal: Journal,
    volumes: Volumes,
    superblock: SuperblockWriter,
    state: ReplicaState,
    dir: PathBuf,
    log_reads: BTreeMap<u64, (u64, LogRead)>,
    next_log_read: u64,
    ready: Vec<ReplicaEvent>,
    done: Vec<Completion>,
    _lock: File,
}

/// Makes the files of a replica in `dir`: the log first, the superblock last, so that a replica
/// either is complete or is none. `progress` hears the bytes of log written so far.
///
/// # Errors
/// [`ReplicaError`]; an existing replica is never overwritten.
pub fn create(
    dir: &Path,
    state: &ReplicaState,
    log_bytes: u64,
    progress: impl FnMut(u64),
) -> Result<(), ReplicaError> {
    let io = |source| ReplicaError::Io { path: dir.into(), source };
    let superblock = dir.join(superblock::FILE_NAME);
    if superblock.exists() {
        return Err(SuperblockError::Exists(superblock).into());
    }
    fs::create_dir_all(dir).map_err(io)?;
    let segment_len = SEGMENT_LEN.min(log_bytes / 8).max(journal::SEGMENT_LEN_MIN);
    let segment_len = segment_len / 4096 * 4096;
    let mut engine = AnyEngine::new(EngineChoice::Auto)?;
    let count = log_bytes.div_ceil(segment_len);
    journal::create(&mut engine, &dir.join(LOG_DIR), count, segment_len, progress)?;
    superblock::create(&superblock, state.resource, &state.encode())?;
    for folder in [Some(dir), dir.parent()].into_iter().flatten() {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
    }
    Ok(())
}

/// Reads the state of the replica in `dir` without touching anything.
///
/// # Errors
/// [`ReplicaError`]
pub fn read_state(dir: &Path) -> Result<(superblock::Found, ReplicaState), ReplicaError> {
    let found = superblock::read(&dir.join(superblock::FILE_NAME))?;
    let state = ReplicaState::decode(&found.newest.body)
        .map_err(|source| ReplicaError::State { dir: dir.into(), source })?;
    Ok((found, state))
}

impl Replica {
    /// Opens the replica in `dir` over the stores at `paths`, and replays its log into the image,
    /// to the recorded apply limit and no further (design §2.3, §2.5).
    ///
    /// # Errors
    /// [`ReplicaError`]
    pub fn open(
        dir: &Path,
        paths: &[PathBuf],
        choice: EngineChoice,
    ) -> Result<(Self, ReplicaState, Recovered), ReplicaError> {
        let (found, state) = read_state(dir)?;
        let lock = lock(&dir.join(superblock::FILE_NAME))?;
        let (has, named) = (state.volumes.len(), paths.len());
        if has != named {
            return Err(ReplicaError::Volumes { has, named });
        }
        let mut engine = AnyEngine::new(choice)?;
        let stores: Result<Vec<_>, _> = paths
            .iter()
            .zip(&state.volumes)
            .map(|(path, geometry)| Store::open(&mut engine, path, *geometry))
            .collect();
        let mut volumes = Volumes::new(stores?, state.checkpoint, VOLUMES << PART_SHIFT);
        let segments = Segments::open(&mut engine, &dir.join(LOG_DIR))?;
        let start = segments.start();
        let (end, epoch_starts) = replay(&mut engine, &segments, &state, &mut volumes)?;
        let path = dir.join(superblock::FILE_NAME);
        let token = crate::engine::Token(SUPERBLOCK << PART_SHIFT);
        let superblock = SuperblockWriter::open(&mut engine, &path, &found.newest, token)
            .map_err(|source| ReplicaError::Io { path, source })?;
        let journal = Journal::new(segments, end, state.durable, JOURNAL << PART_SHIFT);
        let mut replica = Self {
            engine,
            journal,
            volumes,
            superblock,
            state: state.clone(),
            dir: dir.into(),
            log_reads: BTreeMap::new(),
            next_log_read: 0,
            ready: Vec::new(),
            done: Vec::new(),
            _lock: lock,
        };
        let limit = state.apply_limit.min(end.lsn);
        replica.replay_to(limit).map_err(|source| ReplicaError::Io { path: dir.into(), source })?;
        Ok((replica, state, Recovered { end, start, epoch_starts }))
    }

    fn replay_to(&mut self, limit: Lsn) -> io::Result<()> {
        self.volumes.apply_to(&mut self.engine, limit);
        let mut events = Vec::new();
        while self.volumes.applied().lsn < limit {
            self.engine.kick();
            self.engine.wait()?;
            self.poll(&mut events);
            for event in events.drain(..) {
                if let ReplicaEvent::Failed(_, error) = event {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Appends a frame to the log; reads see it from here on.
    ///
    /// # Errors
    /// [`LogFull`]; the caller keeps [`Replica::log_room`] above what it appends.
    pub fn append(&mut self, frame: &Frame) -> Result<(), LogFull> {
        self.journal.append(&mut self.engine, frame)?;
        self.volumes.push(frame.clone());
        Ok(())
    }

    /// Makes the log durable.
    pub fn sync_log(&mut self) {
        self.journal.request_sync(&mut self.engine);
    }

    /// Frames that end at or before `limit` may go into the image.
    pub fn apply_to(&mut self, limit: Lsn) {
        let before = self.volumes.applied().lsn;
        self.volumes.apply_to(&mut self.engine, limit);
        let after = self.volumes.applied().lsn;
        if after > before {
            self.ready.push(ReplicaEvent::Applied(after));
        }
    }

    /// Makes the image durable.
    pub fn checkpoint(&mut self) {
        self.volumes.checkpoint(&mut self.engine);
    }

    /// Writes the superblock.
    ///
    /// # Errors
    /// [`SuperblockError::TooLong`], which no state within its limits is.
    pub fn persist(&mut self, number: u64, state: &ReplicaState) -> Result<(), SuperblockError> {
        self.superblock.write(&mut self.engine, number, &state.encode())
    }

    /// The log before `lsn` is no longer needed.
    pub fn release_log(&mut self, lsn: Lsn) {
        self.journal.release(&mut self.engine, lsn);
    }

    /// Begins to read frames from `from` on.
    pub fn read_log(&mut self, id: u64, from: Lsn) {
        let number = self.next_log_read;
        self.next_log_read += 1;
        let base = LOG_READ << PART_SHIFT | number << 4;
        let (engine, limit) = (&mut self.engine, self.journal.written());
        match LogRead::begin(engine, self.journal.segments(), from, limit, base) {
            Some(read) => {
                self.log_reads.insert(number, (id, read));
            }
            None => self.ready.push(ReplicaEvent::LogRead { id, frames: Vec::new() }),
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

    /// Bytes that the log holds in all.
    #[must_use]
    pub fn log_capacity(&self) -> u64 {
        self.journal.capacity()
    }

    /// Memory that frames hold until they are applied, in bytes.
    #[must_use]
    pub fn unapplied_bytes(&self) -> u64 {
        self.volumes.unapplied_bytes()
    }

    /// Saves everything behind `to` in a quarantine file and cuts the log there; blocks until both
    /// are durable. Only a replica that serves nobody does this.
    ///
    /// # Errors
    /// [`TruncateError`]
    pub fn truncate(&mut self, to: Lsn) -> Result<(LogPosition, PathBuf), TruncateError> {
        self.drain()?;
        let mut at = self.state.checkpoint;
        let end = self.journal.end().lsn;
        let resource = self.state.resource;
        let segments = self.journal.segments();
        while at.lsn < to {
            let (frames, _) = journal::read_frames(&mut self.engine, segments, at, to, resource)?;
            let Some(last) = frames.last() else {
                return Err(TruncateError::Unreadable { at: at.lsn });
            };
            at = last.position_after();
        }
        let folder = self.dir.join(QUARANTINE_DIR);
        let saved = journal::quarantine(&mut self.engine, segments, at, end, resource, &folder)?;
        journal::wipe(&mut self.engine, segments, at.lsn, end)?;
        self.journal.cut(at);
        self.volumes.cut(at.lsn);
        Ok((at, saved))
    }

    /// Waits until nothing is under way.
    fn drain(&mut self) -> io::Result<()> {
        let mut events = Vec::new();
        while self.engine.in_flight() > 0 {
            self.engine.kick();
            self.engine.wait()?;
            self.poll(&mut events);
        }
        self.ready.append(&mut events);
        Ok(())
    }

    /// Begins everything that was asked for.
    pub fn kick(&mut self) {
        self.engine.kick();
    }

    /// Moves what the disks have done into `events`, without waiting.
    pub fn poll(&mut self, events: &mut Vec<ReplicaEvent>) {
        let mut done = std::mem::take(&mut self.done);
        self.engine.reap(&mut done);
        while !done.is_empty() {
            for completion in done.drain(..) {
                let event = self.complete(completion);
                events.extend(event);
            }
            // A completion may have begun the next step, which may even be done already.
            self.engine.kick();
            self.engine.reap(&mut done);
        }
        self.done = done;
        events.append(&mut self.ready);
    }

    /// Whether events wait that no descriptor tells of.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// A descriptor that polls readable when [`Replica::poll`] has something.
    #[must_use]
    pub fn descriptor(&self) -> Option<OwnedFd> {
        self.engine.descriptor()
    }

    fn complete(&mut self, done: Completion) -> Option<ReplicaEvent> {
        let engine = &mut self.engine;
        match done.token.0 >> PART_SHIFT {
            JOURNAL => match self.journal.complete(engine, done) {
                JournalEvent::Nothing => None,
                JournalEvent::Written(lsn) => Some(ReplicaEvent::Written(lsn)),
                JournalEvent::Durable(lsn) => Some(ReplicaEvent::Durable(lsn)),
                JournalEvent::Failed(error) => Some(ReplicaEvent::Failed(FailedPart::Log, error)),
            },
            VOLUMES => match self.volumes.complete(engine, done) {
                VolumesEvent::Nothing => None,
                VolumesEvent::Applied(lsn) => Some(ReplicaEvent::Applied(lsn)),
                VolumesEvent::Checkpointed(position) => {
                    self.state.checkpoint = position;
                    Some(ReplicaEvent::Checkpointed(position))
                }
                VolumesEvent::Read(read) => Some(ReplicaEvent::Read(read)),
                VolumesEvent::Failed(error) => Some(ReplicaEvent::Failed(FailedPart::Store, error)),
            },
            SUPERBLOCK => match self.superblock.complete(engine, done) {
                SuperblockEvent::Pending => None,
                SuperblockEvent::Persisted(number) => Some(ReplicaEvent::Persisted(number)),
                SuperblockEvent::Failed(error) => {
                    Some(ReplicaEvent::Failed(FailedPart::Superblock, error))
                }
            },
            _ => self.log_read_done(done),
        }
    }

    fn log_read_done(&mut self, done: Completion) -> Option<ReplicaEvent> {
        let number = (done.token.0 & ((1 << PART_SHIFT) - 1)) >> 4;
        let (_, read) = self.log_reads.get_mut(&number)?;
        if !read.complete(done) {
            return None;
        }
        let (id, read) = self.log_reads.remove(&number)?;
        Some(match read.frames(self.state.resource) {
            Ok(frames) => ReplicaEvent::LogRead { id, frames },
            Err(error) => ReplicaEvent::Failed(FailedPart::Log, error),
        })
    }
}

fn lock(path: &Path) -> Result<File, ReplicaError> {
    let io = |source| ReplicaError::Io { path: path.into(), source };
    let file = File::open(path).map_err(io)?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| ReplicaError::Busy(path.into()))?;
    Ok(file)
}

type EpochStarts = Vec<(LogPosition, Frame)>;

/// Reads the log from the checkpoint to its end into the overlay.
fn replay(
    engine: &mut AnyEngine,
    segments: &Segments,
    state: &ReplicaState,
    volumes: &mut Volumes,
) -> Result<(LogPosition, EpochStarts), ReplicaError> {
    // What was applied was durable before; so the limit is a word about the log, too.
    let known = state.durable.max(state.apply_limit);
    let mut position = state.checkpoint;
    let mut epoch_starts = Vec::new();
    let each = |frame: Frame| {
        if frame.epoch_start().is_some() {
            epoch_starts.push((position, frame.clone()));
        }
        position = frame.position_after();
        volumes.push(frame);
    };
    let (end, _) =
        journal::recover(engine, segments, state.checkpoint, known, state.resource, each)?;
    Ok((end, epoch_starts))
}

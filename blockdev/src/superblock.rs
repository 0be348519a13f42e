//! The superblock: what a replica must know before it can read its log, in a file of two copies.
//!
//! ```text
//! 0                       16 KiB                  32 KiB
//! +--------+------+-------+--------+------+-------+
//! | header | body | 0 …   | header | body | 0 …   |
//! +--------+------+-------+--------+------+-------+
//! ```
//!
//! Copies are written alternately, each with the next sequence number, and one is never touched
//! before the other is durable: whatever a power loss tears, the copy before is whole. The body
//! is the caller's; here it is bytes with a length, a checksum and a hash.
//!
//! The header says whose the replica is: which resource, and the label `CLUSTER.MEMBER` (design
//! §7). Both are looked at before anything is written.
//!
//! The writer is a state machine over [`Engine`] operations: write one copy, then sync. A failure
//! of either is final (design §2.7), because nobody knows then what the disk holds.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod label;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hadrian_protocol::checksum::crc32c_of_two;
use hadrian_protocol::ids::ResourceId;
pub use label::{LABEL_LEN_MAX, Label, LabelTooLong};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::buffer::IoBuf;
use crate::engine::{Completion, Engine, FileId, Op, OpenAs, TokenSpace, run, run_read};

/// The name of the file in the replica's directory.
pub const FILE_NAME: &str = "superblock";
/// Length of one copy, in bytes.
pub const COPY_LEN: usize = 16 << 10;
/// Highest sequence number of a copy; so there is always a next one.
const SEQUENCE_MAX: u64 = 1 << 62;
/// Most bytes of a body.
pub const BODY_LEN_MAX: usize = COPY_LEN - HEADER_LEN;

const UNFINISHED_NAME: &str = "superblock.part";
const HEADER_LEN: usize = 256;
const CRC_AT: usize = HEADER_LEN - 4;
const MAGIC: [u8; 8] = *b"HDRNSUPB";
/// Version 1: the first.
const VERSION: u16 = 1;

const KIND_WRITE: u8 = 1;
const KIND_SYNC: u8 = 2;

/// Why one copy cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CopyFault {
    /// Its first bytes are not those of a superblock.
    #[error("it holds no superblock")]
    Magic,
    /// A version that this program does not read.
    #[error("its version is {found}, this program reads {VERSION}")]
    Newer {
        /// The version in the header.
        found: u16,
    },
    /// A length over the limit.
    #[error("its body of {found} bytes is over the limit of {BODY_LEN_MAX}")]
    Length {
        /// The length in the header, in bytes.
        found: u32,
    },
    /// Its label is none.
    #[error("its label is not CLUSTER.MEMBER")]
    Label,
    /// A sequence number over the limit, which no number of writes reaches.
    #[error("its sequence number {found} is over the limit of {SEQUENCE_MAX}")]
    Sequence {
        /// The number in the header.
        found: u64,
    },
    /// Written in part, or changed since.
    #[error("its checksum does not match")]
    Checksum,
}

/// Why a superblock cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SuperblockError {
    /// The system refuses.
    #[error("{path}: {source}")]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is one already, and it is not overwritten.
    #[error("{path} exists already; move the replica's directory away to begin anew")]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// Neither copy can be used.
    #[error(
        "{path}: both copies are damaged (first: {first}; second: {second}); restore the file \
         from a backup, or seed this replica anew from its peer"
    )]
    BothBad {
        /// Which file.
        path: PathBuf,
        /// What is wrong with the first copy.
        first: CopyFault,
        /// What is wrong with the second.
        second: CopyFault,
    },
    /// A later program wrote it.
    #[error("{path} has version {found}, this program reads {VERSION}; install the later program")]
    Newer {
        /// Which file.
        path: PathBuf,
        /// The version in the header.
        found: u16,
    },
    /// It is another member's, another cluster's or another resource's.
    #[error(
        "{path} belongs to {found}, and this is {expected}; nothing was written. Start the member \
         that it belongs to, correct state_dir in the configuration, or move the directory away \
         and create the replica anew"
    )]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        found: Box<Whose>,
        /// Whose it should be.
        expected: Box<Whose>,
    },
    /// The body does not fit.
    #[error(transparent)]
    TooLong(#[from] BodyTooLong),
}

/// The body does not fit into a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a superblock of {len} bytes is over the limit of {BODY_LEN_MAX}")]
pub struct BodyTooLong {
    /// How long it is, in bytes.
    pub len: usize,
}

/// Why a body was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The body does not fit.
    #[error(transparent)]
    TooLong(#[from] BodyTooLong),
    /// A write or sync of this superblock failed before; that is final (design §2.7).
    #[error("the superblock failed before; restart the replica once its disk is in order")]
    Failed,
}

/// Whose a replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whose {
    /// Of which resource.
    pub resource: ResourceId,
    /// At which member of which cluster.
    pub label: Label,
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (resource {})", self.label, self.resource)
    }
}

/// One copy, as its header describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Grows by one with every write; the higher one is the newer.
    pub sequence: u64,
    /// Whose it is.
    pub whose: Whose,
    /// The caller's bytes.
    pub body: Bytes,
}

/// What a superblock said when it was opened.
#[derive(Debug)]
pub struct Opened {
    /// Writes further bodies.
    pub writer: SuperblockWriter,
    /// The newest body.
    pub body: Bytes,
    /// Its sequence number.
    pub sequence: u64,
    /// What is wrong with the other copy. After a power loss in the middle of a write that is
    /// expected; the next write mends it.
    pub other_copy: Option<CopyFault>,
}

/// What came of a write.
#[derive(Debug)]
pub enum SuperblockEvent {
    /// This body, and with it every earlier one, is durable or was overtaken by a durable one.
    Stored {
        /// What [`SuperblockWriter::write`] returned.
        sequence: u64,
    },
    /// Final: nothing more is written (design §2.7). Reported once.
    Failed {
        /// What the system says.
        error: io::Error,
    },
}

/// Writes the two copies in turn.
pub struct SuperblockWriter {
    file: FileId,
    whose: Whose,
    tokens: TokenSpace,
    /// Which copy is newest and durable; it is not touched until the other is.
    newest: usize,
    /// The last sequence number given.
    sequence: u64,
    state: State,
    /// The newest body that waits for the write under way: later ones replace it.
    queued: Option<(u64, Bytes)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Writing { sequence: u64 },
    Syncing { sequence: u64 },
    Failed,
}

impl SuperblockWriter {
    /// Makes the file in `dir`, durable with its name when this returns; both copies hold `body`.
    /// What an interrupted creation left is replaced.
    ///
    /// # Errors
    /// [`SuperblockError::Exists`], [`SuperblockError::TooLong`] or the system's.
    pub fn create<E: Engine + ?Sized>(
        engine: &mut E,
        dir: &Path,
        whose: &Whose,
        body: &[u8],
    ) -> Result<(), SuperblockError> {
        let path = dir.join(FILE_NAME);
        let first = encode(whose, 1, body)?;
        let second = encode(whose, 2, body)?;
        let names = engine.list(dir).map_err(io_at(dir))?;
        if names.iter().any(|name| name == FILE_NAME) {
            return Err(SuperblockError::Exists { path });
        }
        create_file(engine, dir, [first, second]).map_err(io_at(&path))
    }

    /// Reads both copies of the file in `dir` and picks the newer whole one. What is not `whose` it
    /// should be is not written to.
    ///
    /// # Errors
    /// [`SuperblockError`]; a copy of a later version is an error even beside a readable older
    /// one, because going back would forget what the later program promised.
    pub fn open<E: Engine + ?Sized>(
        engine: &mut E,
        dir: &Path,
        whose: &Whose,
        tokens: TokenSpace,
    ) -> Result<Opened, SuperblockError> {
        let path = dir.join(FILE_NAME);
        let file = engine.open(&path, OpenAs::Direct).map_err(io_at(&path))?;
        let copies = read_copies(engine, file).map_err(io_at(&path))?;
        let (newest, copy, other_copy) = choose(copies, &path, whose)?;
        let Copy { sequence, body, .. } = copy;
        // What a killed process wrote can be read and yet be lost; the next write will overwrite
        // the copy before it, so it must be durable first. After a failed sync only a new write
        // makes sure of that; the same bytes over the same bytes harm in no crash.
        let (offset, data) = (copy_offset(newest), encode(whose, sequence, &body)?);
        run(engine, Op::Write { file, offset, data }).map_err(io_at(&path))?;
        run(engine, Op::Sync { file }).map_err(io_at(&path))?;
        let (whose, state) = (whose.clone(), State::Idle);
        let writer = Self { file, whose, tokens, newest, sequence, state, queued: None };
        Ok(Opened { writer, body, sequence, other_copy })
    }

    /// Begins to store `body`, or lets it wait for the write under way; of several that wait only
    /// the last is written. Returns its sequence number, which [`SuperblockEvent::Stored`] will
    /// reach or pass.
    ///
    /// # Errors
    /// [`WriteError`]; nothing was changed then.
    pub fn write<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        body: &[u8],
    ) -> Result<u64, WriteError> {
        if self.state == State::Failed {
            return Err(WriteError::Failed);
        }
        let sequence = self.sequence + 1;
        let copy = encode(&self.whose, sequence, body)?;
        self.sequence = sequence;
        if self.state == State::Idle {
            self.begin(engine, sequence, copy);
        } else {
            self.queued = Some((sequence, copy));
        }
        Ok(sequence)
    }

    /// Whether a write is under way or waits.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self.state, State::Writing { .. } | State::Syncing { .. })
    }

    /// Takes the end of one of its operations.
    ///
    /// # Panics
    /// If the token is not one of its own.
    pub fn complete<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        completion: Completion,
    ) -> Option<SuperblockEvent> {
        assert!(self.tokens.owns(completion.token));
        if let Err(error) = completion.result {
            let first = self.state != State::Failed;
            self.state = State::Failed;
            self.queued = None;
            return first.then_some(SuperblockEvent::Failed { error });
        }
        match self.state {
            State::Writing { sequence } => {
                self.state = State::Syncing { sequence };
                let file = self.file;
                engine.submit(self.tokens.token(KIND_SYNC, sequence), Op::Sync { file });
                None
            }
            State::Syncing { sequence } => {
                self.newest = 1 - self.newest;
                self.state = State::Idle;
                if let Some((next, copy)) = self.queued.take() {
                    self.begin(engine, next, copy);
                }
                Some(SuperblockEvent::Stored { sequence })
            }
            State::Idle | State::Failed => None,
        }
    }

    fn begin<E: Engine + ?Sized>(&mut self, engine: &mut E, sequence: u64, data: Bytes) {
        let (file, offset) = (self.file, copy_offset(1 - self.newest));
        self.state = State::Writing { sequence };
        let op = Op::Write { file, offset, data };
        engine.submit(self.tokens.token(KIND_WRITE, sequence), op);
    }
}

impl fmt::Debug for SuperblockWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SuperblockWriter(sequence {}, {:?})", self.sequence, self.state)
    }
}

/// Both copies of the superblock in `dir` as they are, without choosing or changing anything; for
/// offline tools.
///
/// # Errors
/// [`SuperblockError::Io`]
pub fn inspect<E: Engine + ?Sized>(
    engine: &mut E,
    dir: &Path,
) -> Result<[Result<Copy, CopyFault>; 2], SuperblockError> {
    let path = dir.join(FILE_NAME);
    let file = engine.open(&path, OpenAs::ReadOnly).map_err(io_at(&path))?;
    let copies = read_copies(engine, file).map_err(io_at(&path));
    engine.close(file);
    copies
}

fn read_copies<E: Engine + ?Sized>(
    engine: &mut E,
    file: FileId,
) -> io::Result<[Result<Copy, CopyFault>; 2]> {
    let mut read = |index| run_read(engine, file, copy_offset(index), COPY_LEN);
    Ok([decode(&read(0)?), decode(&read(1)?)])
}

/// Reads arbitrary bytes as a superblock file; for fuzzing.
pub fn fuzz(bytes: &[u8]) {
    let mut copies = [bytes, &[]];
    if let Some((first, second)) = bytes.split_at_checked(COPY_LEN) {
        copies = [first, second];
    }
    let copies = copies.map(decode);
    for copy in copies.iter().flatten() {
        let again = encode(&copy.whose, copy.sequence, &copy.body);
        assert_eq!(decode(&again.unwrap_or_default()).as_ref(), Ok(copy));
    }
    // Which copy is chosen, or why none, is the caller's affair; that it ends is ours.
    let (resource, label) = (ResourceId::from_bytes([0; 16]), Label::default());
    let _ = choose(copies, Path::new(FILE_NAME), &Whose { resource, label });
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    version: U16,
    reserved: [u8; 2],
    body_len: U32,
    sequence: U64,
    resource: [u8; 16],
    body_hash: [u8; 32],
    reserved_too: [u8; 52],
    label: [u8; LABEL_LEN_MAX],
    crc: U32,
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN);

#[expect(clippy::indexing_slicing, reason = "the length was looked at")]
fn encode(whose: &Whose, sequence: u64, body: &[u8]) -> Result<Bytes, BodyTooLong> {
    let len = body.len();
    let body_len = match u32::try_from(len) {
        Ok(body_len) if len <= BODY_LEN_MAX => U32::new(body_len),
        _ => return Err(BodyTooLong { len }),
    };
    let mut header = Header {
        magic: MAGIC,
        version: U16::new(VERSION),
        reserved: [0; 2],
        body_len,
        sequence: U64::new(sequence),
        resource: *whose.resource.as_bytes(),
        body_hash: *blake3::hash(body).as_bytes(),
        reserved_too: [0; 52],
        label: whose.label.to_bytes(),
        crc: U32::new(0),
    };
    header.crc = U32::new(copy_crc(&header, body));
    let mut copy = IoBuf::with_len(COPY_LEN);
    copy.fill(0);
    copy[..HEADER_LEN].copy_from_slice(header.as_bytes());
    copy[HEADER_LEN..HEADER_LEN + len].copy_from_slice(body);
    Ok(copy.freeze().slice(..COPY_LEN))
}

fn decode(bytes: &[u8]) -> Result<Copy, CopyFault> {
    let (header, rest) = Header::read_from_prefix(bytes).map_err(|_| CopyFault::Magic)?;
    if header.magic != MAGIC {
        return Err(CopyFault::Magic);
    }
    match header.version.get() {
        VERSION => {}
        0 => return Err(CopyFault::Checksum),
        found => return Err(CopyFault::Newer { found }),
    }
    let found = header.body_len.get();
    let body = usize::try_from(found)
        .ok()
        .filter(|len| *len <= BODY_LEN_MAX)
        .and_then(|len| rest.get(..len))
        .ok_or(CopyFault::Length { found })?;
    let whole = copy_crc(&header, body) == header.crc.get()
        && *blake3::hash(body).as_bytes() == header.body_hash;
    if !whole {
        return Err(CopyFault::Checksum);
    }
    let sequence = header.sequence.get();
    if sequence > SEQUENCE_MAX {
        return Err(CopyFault::Sequence { found: sequence });
    }
    let label = Label::from_bytes(&header.label).ok_or(CopyFault::Label)?;
    let whose = Whose { resource: ResourceId::from_bytes(header.resource), label };
    Ok(Copy { sequence, whose, body: Bytes::copy_from_slice(body) })
}

#[expect(clippy::indexing_slicing, reason = "a fixed place in a structure")]
fn copy_crc(header: &Header, body: &[u8]) -> u32 {
    crc32c_of_two(&header.as_bytes()[..CRC_AT], body)
}

/// The newer whole copy with its place, and what is wrong with the other.
fn choose(
    copies: [Result<Copy, CopyFault>; 2],
    path: &Path,
    expected: &Whose,
) -> Result<(usize, Copy, Option<CopyFault>), SuperblockError> {
    for copy in &copies {
        if let Err(CopyFault::Newer { found }) = copy {
            let (path, found) = (path.into(), *found);
            return Err(SuperblockError::Newer { path, found });
        }
    }
    let chosen = match copies {
        [Ok(first), Ok(second)] if second.sequence > first.sequence => (1, second, None),
        [Ok(first), Ok(_)] => (0, first, None),
        [Ok(first), Err(fault)] => (0, first, Some(fault)),
        [Err(fault), Ok(second)] => (1, second, Some(fault)),
        [Err(first), Err(second)] => {
            let path = path.into();
            return Err(SuperblockError::BothBad { path, first, second });
        }
    };
    let found = &chosen.1.whose;
    if found != expected {
        let [found, expected] = [found, expected].map(|whose| Box::new(whose.clone()));
        return Err(SuperblockError::Foreign { path: path.into(), found, expected });
    }
    Ok(chosen)
}

/// Writes a whole file under a name for the unfinished, and gives it its name at the end: so a
/// superblock that exists is one that was written to its end.
fn create_file<E: Engine + ?Sized>(
    engine: &mut E,
    dir: &Path,
    copies: [Bytes; 2],
) -> io::Result<()> {
    let file = engine.create(&dir.join(UNFINISHED_NAME), OpenAs::Direct)?;
    for (index, data) in copies.into_iter().enumerate() {
        let offset = copy_offset(index);
        run(engine, Op::Write { file, offset, data })?;
    }
    run(engine, Op::Sync { file })?;
    engine.close(file);
    let dir = engine.open_dir(dir)?;
    let (from, to) = (UNFINISHED_NAME.to_owned(), FILE_NAME.to_owned());
    run(engine, Op::Rename { dir, from, to })?;
    engine.close(dir);
    Ok(())
}

fn copy_offset(index: usize) -> u64 {
    (index * COPY_LEN) as u64
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> SuperblockError {
    let path = path.to_path_buf();
    |source| SuperblockError::Io { path, source }
}

#[cfg(test)]
mod tests;

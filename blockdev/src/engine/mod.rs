//! Engines: the one door to files. Whoever wants bytes moved hands over an operation that owns its
//! buffer, and gets both back with the result.
//!
//! Ownership is the safety argument: while the kernel may touch a buffer, no safe code holds it.
//! Results are exact: a read or write is whole or it is an error, never short (design §2.8).
//! Everything above an engine is written against [`Engine`], so that the same journal and the same
//! superblock run over io_uring, over plain system calls, and over a storage double that loses
//! power between any two operations.

mod any;
pub mod double;
mod files;
mod plain;
mod uring;

pub use any::{AnyEngine, EngineChoice, UnknownEngine};
pub use files::Note;
pub use plain::Plain;
pub use uring::{SMALL_WRITE_LEN, Uring, UringError};

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use bytes::Bytes;

use crate::buffer::IoBuf;

/// A file that an engine has open, by its number in that engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId(pub(crate) u32);

/// What the submitter calls an operation; it comes back with the completion.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u64);

/// The tokens of one part of the program, so that several parts can share an engine: the high byte
/// of a token names the part. Part 255 is the engine's own, for [`run`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TokenSpace(u8);

impl TokenSpace {
    /// The tokens of `part`, 0 to 254.
    ///
    /// # Panics
    /// If `part` is 255.
    #[must_use]
    pub const fn new(part: u8) -> Self {
        assert!(part < u8::MAX, "part 255 belongs to the engine");
        Self(part)
    }

    /// Whether `token` belongs to this part.
    #[must_use]
    pub const fn owns(self, token: Token) -> bool {
        token.0 >> 56 == self.0 as u64
    }

    /// The token of this part for a `kind` of operation and a `number`, of which 48 bits count.
    #[must_use]
    pub const fn token(self, kind: u8, number: u64) -> Token {
        Token((self.0 as u64) << 56 | (kind as u64) << 48 | (number & NUMBER_MASK))
    }

    /// The kind and the number that [`TokenSpace::token`] put into `token`.
    #[must_use]
    pub const fn split(token: Token) -> (u8, u64) {
        ((token.0 >> 48 & 0xFF) as u8, token.0 & NUMBER_MASK)
    }
}

const NUMBER_MASK: u64 = (1 << 48) - 1;

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenAs {
    /// Past the page cache; offsets, lengths and memory are multiples of the device's block.
    Direct,
    /// Through the page cache: small writes, unaligned tails, warm reads.
    Buffered,
    /// As `Buffered`; a block device is claimed as a mount would claim it: the kernel refuses one
    /// that is mounted, under the device mapper or claimed by anybody else, and only whoever has
    /// claimed it may zero and trim it while it is.
    Claimed,
    /// Through the page cache and never written.
    ReadOnly,
}

/// One thing to be done to a file. Operations in flight at the same time may be done in any order:
/// who needs an order waits for the completion of the first.
#[derive(Debug)]
pub enum Op {
    /// Fills the first `len` bytes of `buffer` from `offset`.
    Read {
        /// Which file.
        file: FileId,
        /// Where in the file, in bytes.
        offset: u64,
        /// Where to.
        buffer: IoBuf,
        /// How many bytes; at most the buffer's length.
        len: usize,
    },
    /// Writes all of `data` at `offset`.
    Write {
        /// Which file.
        file: FileId,
        /// Where in the file, in bytes.
        offset: u64,
        /// What. Shared memory: nobody can change it under way.
        data: Bytes,
    },
    /// Makes `len` bytes at `offset` read as zeroes.
    Zero {
        /// Which file.
        file: FileId,
        /// Where in the file, in bytes.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// Whether the space may be given back to the file system or device.
        punch: bool,
    },
    /// Makes everything durable whose write completed before this was submitted (fdatasync).
    Sync {
        /// Which file.
        file: FileId,
    },
    /// Renames `from` to `to` in `dir` and makes that durable. The file stays open as it was.
    Rename {
        /// The open directory.
        dir: FileId,
        /// The name now.
        from: String,
        /// The name then; a file of that name is replaced.
        to: String,
    },
}

impl Op {
    /// The file or directory that the operation is done to.
    #[must_use]
    pub const fn file(&self) -> FileId {
        match self {
            Self::Read { file, .. }
            | Self::Write { file, .. }
            | Self::Zero { file, .. }
            | Self::Sync { file }
            | Self::Rename { dir: file, .. } => *file,
        }
    }
}

/// The end of an operation.
#[derive(Debug)]
pub struct Completion {
    /// The submitter's name for it.
    pub token: Token,
    /// The operation, with its buffer.
    pub op: Op,
    /// Whole, or the error. After an error of a write or sync the file's content is unknown.
    pub result: io::Result<()>,
}

/// Moves bytes between memory and files, many operations at a time.
pub trait Engine {
    /// Opens an existing file or block device.
    ///
    /// # Errors
    /// As the system says, with the path to be added by the caller.
    fn open(&mut self, path: &Path, how: OpenAs) -> io::Result<FileId>;

    /// Opens a directory, for [`Op::Rename`] and [`Op::Sync`].
    ///
    /// # Errors
    /// As the system says.
    fn open_dir(&mut self, path: &Path) -> io::Result<FileId>;

    /// Makes an empty file, replacing one of that name, and opens it. Its name is durable after the
    /// next [`Op::Sync`] or [`Op::Rename`] of its directory.
    ///
    /// # Errors
    /// As the system says; an engine that makes no files says so.
    fn create(&mut self, path: &Path, how: OpenAs) -> io::Result<FileId> {
        let _ = (path, how);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Makes a directory, durable in its parent, unless it is there.
    ///
    /// # Errors
    /// As the system says; an engine that makes no files says so.
    fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// As the system says; an engine that knows no directories says so.
    fn list(&mut self, dir: &Path) -> io::Result<Vec<String>> {
        let _ = dir;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Takes a file's name away; its space is free when it is closed. Durable after the next
    /// [`Op::Sync`] or [`Op::Rename`] of its directory.
    ///
    /// # Errors
    /// As the system says, also where there is no such file; an engine that makes no files says so.
    fn remove(&mut self, path: &Path) -> io::Result<()> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The end of the stretch of one kind that begins at `start`, at most `end`, and whether it is
    /// a hole: then it reads as zeroes. What cannot be told is no hole.
    fn stretch(&mut self, file: FileId, start: u64, end: u64) -> (u64, bool) {
        let _ = (file, start);
        (end, false)
    }

    /// Closes a file; operations that are still under way on it end first.
    fn close(&mut self, file: FileId);

    /// The size of an open file or block device, in bytes.
    ///
    /// # Errors
    /// As the system says.
    fn size(&mut self, file: FileId) -> io::Result<u64>;

    /// Makes a regular file at least `len` bytes long; what is added reads as zeroes. Durable after
    /// the next [`Op::Sync`] of the file.
    ///
    /// # Errors
    /// As the system says; of a shorter block device, that it is not supported.
    fn extend(&mut self, file: FileId, len: u64) -> io::Result<()> {
        let _ = (file, len);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Takes an operation. It may begin at once or at the next [`Engine::kick`]; a failure to
    /// begin it comes as a completion like any other.
    fn submit(&mut self, token: Token, op: Op);

    /// Begins everything that was submitted; one system call for all of it where possible.
    fn kick(&mut self);

    /// Whether completions wait to be reaped that the descriptor does not tell of: those of
    /// operations that were done at once. Whoever sleeps on the descriptor asks before.
    fn has_done(&self) -> bool;

    /// Moves the completions that are there into `done`, without waiting.
    fn reap(&mut self, done: &mut Vec<Completion>);

    /// Waits until at least one operation under way has completed. Returns at once when none is.
    ///
    /// # Errors
    /// As the system says; the engine cannot be used any more then.
    fn wait(&mut self) -> io::Result<()>;

    /// Operations taken and not yet given back.
    fn in_flight(&self) -> usize;

    /// A copy of the descriptor that polls readable when completions wait; `None` where every
    /// operation has completed by the time [`Engine::kick`] returns.
    fn descriptor(&self) -> Option<OwnedFd>;

    /// Copies `data` to `offset` of a file that is open as [`OpenAs::Buffered`], at once: when this
    /// returns, it survives the end of the process, though not the end of the host. Operations
    /// under way on the same file may come before or after it.
    ///
    /// # Errors
    /// As the system says; an engine whose [`Engine::boot`] is `None` cannot.
    fn keep(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        let _ = (file, offset, data);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The name of this run of the host, as 32 characters: another after each of its starts. `None`
    /// where it is unknown, or nothing is gained by [`Engine::keep`].
    fn boot(&self) -> Option<[u8; 32]> {
        None
    }

    /// Reads from the page cache if all of it is there; `false` and unspecified bytes otherwise,
    /// which is all that an engine without a page cache says.
    fn try_read_cached(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> bool {
        let _ = (file, offset, into);
        false
    }
}

/// Does one operation to its end; for start, creation and offline tools, never on the data path.
///
/// # Panics
/// If other operations are under way: their completions would be lost here.
///
/// # Errors
/// The operation's own.
pub fn run<E: Engine + ?Sized>(engine: &mut E, op: Op) -> io::Result<Op> {
    assert_eq!(engine.in_flight(), 0, "run() is for an engine that does nothing else");
    engine.submit(Token(u64::MAX), op);
    engine.kick();
    let mut done = Vec::with_capacity(1);
    while done.is_empty() {
        engine.wait()?;
        engine.reap(&mut done);
    }
    match done.pop() {
        Some(Completion { op, result: Ok(()), .. }) => Ok(op),
        Some(Completion { result: Err(error), .. }) => Err(error),
        None => unreachable!("the loop ends with a completion"),
    }
}

/// Reads `len` bytes, as [`run`] does an operation; what it says holds here, too.
///
/// # Errors
/// The operation's own.
pub(crate) fn run_read<E: Engine + ?Sized>(
    engine: &mut E,
    file: FileId,
    offset: u64,
    len: usize,
) -> io::Result<Bytes> {
    match run(engine, Op::Read { file, offset, buffer: IoBuf::with_len(len), len })? {
        Op::Read { buffer, .. } => Ok(buffer.freeze().slice(..len)),
        _ => unreachable!("an operation comes back as itself"),
    }
}

#[cfg(test)]
mod tests;

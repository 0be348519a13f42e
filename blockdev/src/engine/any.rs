//! The engine that a daemon runs on, chosen at its start.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::str::FromStr;

use super::files::Note;
use super::plain::Plain;
use super::uring::{Uring, UringError};
use super::{Completion, Engine, FileId, Op, OpenAs, Token};

/// Which engine the configuration asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EngineChoice {
    /// The ring where this system has it, else plain system calls, with a note that says why.
    #[default]
    Auto,
    /// The ring, or an error.
    Uring,
    /// Plain system calls.
    Plain,
}

/// A text that names no engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no engine; write \"auto\", \"uring\" or \"plain\"")]
pub struct UnknownEngine {
    /// What was written.
    pub found: String,
}

impl FromStr for EngineChoice {
    type Err = UnknownEngine;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "plain" => Ok(Self::Plain),
            other => Err(UnknownEngine { found: other.into() }),
        }
    }
}

impl fmt::Display for EngineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Plain => "plain",
        })
    }
}

/// One of the engines, without a virtual call's price on the data path.
#[derive(Debug)]
pub enum AnyEngine {
    /// io_uring.
    Uring(Box<Uring>),
    /// Plain system calls.
    Plain(Plain),
}

impl AnyEngine {
    /// The engine of `choice`, with room for `depth` operations in the kernel at a time.
    ///
    /// # Errors
    /// [`UringError`] where the ring is demanded and not to be had.
    pub fn choose(choice: EngineChoice, depth: u32) -> Result<Self, UringError> {
        match choice {
            EngineChoice::Plain => Ok(Self::Plain(Plain::new())),
            EngineChoice::Uring => Ok(Self::Uring(Box::new(Uring::new(depth)?))),
            EngineChoice::Auto => Ok(Uring::new(depth).map_or_else(
                |error| Self::plain_because(&error),
                |ring| Self::Uring(Box::new(ring)),
            )),
        }
    }

    fn plain_because(error: &UringError) -> Self {
        let mut plain = Plain::new();
        let cause = error.to_string();
        tracing::warn!(%cause, "io_uring is not used; plain system calls are, which are slower");
        plain.note(Note::NoRing { cause });
        Self::Plain(plain)
    }

    /// Which engine it is, for status.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Uring(_) => "uring",
            Self::Plain(_) => "plain",
        }
    }

    /// What was done otherwise than asked, once.
    pub fn take_notes(&mut self) -> Vec<Note> {
        match self {
            Self::Uring(ring) => ring.take_notes(),
            Self::Plain(plain) => plain.take_notes(),
        }
    }
}

/// Hands a call to whichever engine it is.
macro_rules! each {
    ($self:ident, $engine:ident => $call:expr) => {
        match $self {
            AnyEngine::Uring($engine) => $call,
            AnyEngine::Plain($engine) => $call,
        }
    };
}

impl Engine for AnyEngine {
    fn open(&mut self, path: &Path, how: OpenAs) -> io::Result<FileId> {
        each!(self, engine => engine.open(path, how))
    }

    fn open_dir(&mut self, path: &Path) -> io::Result<FileId> {
        each!(self, engine => engine.open_dir(path))
    }

    fn create(&mut self, path: &Path, how: OpenAs) -> io::Result<FileId> {
        each!(self, engine => engine.create(path, how))
    }

    fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        each!(self, engine => engine.create_dir(path))
    }

    fn list(&mut self, dir: &Path) -> io::Result<Vec<String>> {
        each!(self, engine => engine.list(dir))
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        each!(self, engine => engine.remove(path))
    }

    fn stretch(&mut self, file: FileId, start: u64, end: u64) -> (u64, bool) {
        each!(self, engine => engine.stretch(file, start, end))
    }

    fn close(&mut self, file: FileId) {
        each!(self, engine => engine.close(file));
    }

    fn size(&mut self, file: FileId) -> io::Result<u64> {
        each!(self, engine => engine.size(file))
    }

    fn extend(&mut self, file: FileId, len: u64) -> io::Result<()> {
        each!(self, engine => engine.extend(file, len))
    }

    fn submit(&mut self, token: Token, op: Op) {
        each!(self, engine => engine.submit(token, op));
    }

    fn kick(&mut self) {
        each!(self, engine => engine.kick());
    }

    fn has_done(&self) -> bool {
        each!(self, engine => engine.has_done())
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        each!(self, engine => engine.reap(done));
    }

    fn wait(&mut self) -> io::Result<()> {
        each!(self, engine => engine.wait())
    }

    fn in_flight(&self) -> usize {
        each!(self, engine => engine.in_flight())
    }

    fn descriptor(&self) -> Option<OwnedFd> {
        each!(self, engine => engine.descriptor())
    }

    fn try_read_cached(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> bool {
        each!(self, engine => engine.try_read_cached(file, offset, into))
    }

    fn keep(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        each!(self, engine => engine.keep(file, offset, data))
    }

    fn boot(&self) -> Option<[u8; 32]> {
        each!(self, engine => engine.boot())
    }
}

//! The choice of engine, made once at start.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::{Completion, Engine, FileId, NoRing, Op, OpenAs, PlainEngine, Token, UringEngine};

/// Which engine to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EngineChoice {
    /// io_uring where it works, else plain system calls, with a warning that says why.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// Plain system calls.
    Plain,
}

/// One of the two engines.
#[derive(Debug)]
pub enum AnyEngine {
    /// Over a ring.
    Uring(Box<UringEngine>),
    /// By plain system calls.
    Plain(PlainEngine),
}

impl AnyEngine {
    /// The engine of this choice.
    ///
    /// # Errors
    /// [`NoRing`] where io_uring was asked for by name and does not work.
    pub fn new(choice: EngineChoice) -> Result<Self, NoRing> {
        match choice {
            EngineChoice::Plain => Ok(Self::Plain(PlainEngine::new())),
            EngineChoice::Uring => UringEngine::new().map(|engine| Self::Uring(Box::new(engine))),
            EngineChoice::Auto => Ok(match UringEngine::new() {
                Ok(engine) => Self::Uring(Box::new(engine)),
                Err(why) => {
                    tracing::warn!(%why, "using plain system calls instead of io_uring");
                    Self::Plain(PlainEngine::new())
                }
            }),
        }
    }

    fn inner(&mut self) -> &mut dyn Engine {
        match self {
            Self::Uring(engine) => engine.as_mut(),
            Self::Plain(engine) => engine,
        }
    }
}

impl Engine for AnyEngine {
    fn open(&mut self, path: &Path, how: OpenAs) -> io::Result<FileId> {
        self.inner().open(path, how)
    }

    fn open_dir(&mut self, path: &Path) -> io::Result<FileId> {
        self.inner().open_dir(path)
    }

    fn close(&mut self, file: FileId) {
        self.inner().close(file);
    }

    fn size(&mut self, file: FileId) -> io::Result<u64> {
        self.inner().size(file)
    }

    fn submit(&mut self, token: Token, op: Op) {
        self.inner().submit(token, op);
    }

    fn kick(&mut self) {
        self.inner().kick();
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        self.inner().reap(done);
    }

    fn wait(&mut self) -> io::Result<()> {
        self.inner().wait()
    }

    fn in_flight(&self) -> usize {
        match self {
            Self::Uring(engine) => engine.in_flight(),
            Self::Plain(engine) => engine.in_flight(),
        }
    }

    fn descriptor(&self) -> Option<OwnedFd> {
        match self {
            Self::Uring(engine) => engine.descriptor(),
            Self::Plain(engine) => engine.descriptor(),
        }
    }

    fn try_read_cached(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> bool {
        self.inner().try_read_cached(file, offset, into)
    }
}

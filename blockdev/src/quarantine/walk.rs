//! Going through a quarantine file of either kind, part by part: for tools that list, show and
//! export. Nothing is changed, and what cannot be read ends the walk with what is wrong.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use hadrian_protocol::divergence::{Divergence, Survey};
use hadrian_protocol::frame::Frame;
use hadrian_protocol::ids::{Lsn, ResourceId};
use hadrian_protocol::range::ByteRange;
use hadrian_protocol::replica::VolumeGeometry;

use super::HEAD_LEN;
use super::read::{self, Block, BlocksDump, BlocksError};
use crate::engine::{Engine, FileId, OpenAs};
use crate::journal::OpenError;
use crate::journal::inspect::{self, InspectEnd, QuarantineDump};

/// What a quarantine file holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Frames of the log.
    Frames,
    /// What the image held.
    Blocks,
}

impl Kind {
    /// The kind that a name stands for, and whether it is that of a file that is being written, or
    /// that a crash has left half-written.
    #[must_use]
    pub fn of_name(name: &str) -> Option<(Self, bool)> {
        let whole = name.strip_suffix(".part").unwrap_or(name);
        let is_part = whole.len() < name.len();
        match whole.rsplit_once('.')?.1 {
            "frames" => Some((Self::Frames, is_part)),
            "blocks" => Some((Self::Blocks, is_part)),
            _ => None,
        }
    }

    /// Its name, for people and scripts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::Blocks => "blocks",
        }
    }
}

/// Why nothing of a quarantine file can be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Its name is of neither kind.
    #[error("{} is no quarantine file: its name ends neither in .frames nor in .blocks",
            .0.display())]
    Name(PathBuf),
    /// There is not even a first page.
    #[error("{} ends within its first page, so nothing was saved in it", .0.display())]
    Short(PathBuf),
    /// A file of blocks, and its header.
    #[error(transparent)]
    Blocks(#[from] BlocksError),
    /// A file of frames, and its first page.
    #[error(transparent)]
    Frames(#[from] OpenError),
}

/// How far a file can be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// To its end, and nothing is missing.
    Whole,
    /// It ends before its end; what is before is whole.
    CutOff {
        /// Where, in bytes of the file.
        at: u64,
    },
    /// What follows is not what was written; what is before is whole.
    Damaged {
        /// Where, in bytes of the file.
        at: u64,
        /// What is wrong there.
        cause: String,
    },
}

impl Ending {
    /// Its name, for scripts.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::CutOff { .. } => "cut_off",
            Self::Damaged { .. } => "damaged",
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => write!(f, "whole"),
            Self::CutOff { at } => {
                write!(f, "cut off by a crash at byte {at}; what is before can be used")
            }
            Self::Damaged { at, cause } => {
                write!(f, "damaged at byte {at} ({cause}); what is before can be used")
            }
        }
    }
}

/// A part of a file, and where its content lies in the file, in bytes.
#[derive(Clone, Debug)]
pub enum Part {
    /// A frame, and where it begins.
    Frame(Frame, u64),
    /// A block, and where its content begins.
    Block(Block, u64),
}

/// An open quarantine file.
#[derive(Debug)]
pub struct Walk {
    /// What it holds.
    pub kind: Kind,
    /// Whose it is.
    pub resource: ResourceId,
    /// Where the histories part.
    pub from: Lsn,
    /// Where the log ended.
    pub end: Lsn,
    /// The volumes, in a file of blocks.
    pub volumes: Option<Vec<VolumeGeometry>>,
    /// Its length in bytes.
    pub len: u64,
    pub(super) file: FileId,
    dump: Dump,
}

#[derive(Debug)]
enum Dump {
    Frames(QuarantineDump),
    Blocks(BlocksDump),
}

impl Walk {
    /// Opens a file, by the kind that its name stands for.
    ///
    /// # Errors
    /// [`Unusable`]
    pub fn open<E: Engine + ?Sized>(engine: &mut E, path: &Path) -> Result<Self, Unusable> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some((kind, _)) = Kind::of_name(&name) else {
            return Err(Unusable::Name(path.into()));
        };
        let io = |source| BlocksError::Io { path: path.into(), source };
        let file = engine.open(path, OpenAs::ReadOnly).map_err(io)?;
        let len = engine.size(file);
        engine.close(file);
        let len = len.map_err(io)?;
        if len < super::HEADER_LEN as u64 {
            return Err(Unusable::Short(path.into()));
        }
        match kind {
            Kind::Frames => {
                let dump = inspect::quarantine(engine, path)?;
                let (resource, from, end) = (dump.resource, dump.from.lsn, dump.end);
                let (file, dump) = (dump.place(from).0, Dump::Frames(dump));
                Ok(Self { kind, resource, from, end, volumes: None, len, file, dump })
            }
            Kind::Blocks => {
                let dump = read::blocks(engine, path)?;
                let read::BlocksHeader { resource, from, end, volumes } = dump.header.clone();
                let (file, dump) = (dump.place().0, Dump::Blocks(dump));
                Ok(Self { kind, resource, from, end, volumes: Some(volumes), len, file, dump })
            }
        }
    }

    /// The next part, or how the file ends.
    ///
    /// # Errors
    /// As the system says.
    pub fn next<E: Engine + ?Sized>(&mut self, engine: &mut E) -> io::Result<Result<Part, Ending>> {
        match &mut self.dump {
            Dump::Frames(dump) => next_frame(dump, engine),
            Dump::Blocks(dump) => next_block(dump, engine),
        }
    }

    /// Closes the file, which nobody reads any more.
    pub fn close<E: Engine + ?Sized>(self, engine: &mut E) {
        engine.close(self.file);
    }
}

fn next_frame<E: Engine + ?Sized>(
    dump: &mut QuarantineDump,
    engine: &mut E,
) -> io::Result<Result<Part, Ending>> {
    let at = dump.at();
    let (file, offset) = dump.place(at);
    match dump.next(engine) {
        Ok(Ok(frame)) => Ok(Ok(Part::Frame(frame, offset))),
        Ok(Err(InspectEnd::EndOfFiles { .. })) => Ok(Err(Ending::Whole)),
        Ok(Err(InspectEnd::NoFrame { cause, .. })) => {
            Ok(Err(Ending::Damaged { at: offset, cause: cause.to_string() }))
        }
        // A file that is shorter than its first page says.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let len = engine.size(file)?;
            Ok(Err(Ending::CutOff { at: offset.min(len) }))
        }
        Err(error) => Err(error),
    }
}

fn next_block<E: Engine + ?Sized>(
    dump: &mut BlocksDump,
    engine: &mut E,
) -> io::Result<Result<Part, Ending>> {
    let (_, at) = dump.place();
    match dump.next(engine) {
        Ok(Some(block)) => Ok(Ok(Part::Block(block, at + HEAD_LEN as u64))),
        Ok(None) => Ok(Err(Ending::Whole)),
        Err(BlocksError::Unfinished { at, .. }) => Ok(Err(Ending::CutOff { at })),
        Err(BlocksError::Io { source, .. }) => Err(source),
        Err(BlocksError::Damaged { .. } | BlocksError::Magic(_) | BlocksError::Newer { .. }) => {
            Ok(Err(Ending::Damaged { at, cause: "it is not what was written".into() }))
        }
    }
}

/// What a file holds, all of it read and checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Frames, or blocks.
    pub count: u64,
    /// Which ranges they are of, and for frames when they were written.
    pub changed: Divergence,
    /// How far it can be read.
    pub ending: Ending,
}

/// Reads a file to its end; `visit` sees each part.
///
/// # Errors
/// As the system says.
pub fn summarize<E: Engine + ?Sized>(
    engine: &mut E,
    walk: &mut Walk,
    visit: &mut dyn FnMut(&Part),
) -> io::Result<Summary> {
    let mut survey = Survey::new(walk.from, walk.end);
    let mut count = 0;
    loop {
        let part = match walk.next(engine)? {
            Ok(part) => part,
            Err(ending) => return Ok(Summary { count, changed: survey.found(), ending }),
        };
        count += 1;
        match &part {
            Part::Frame(frame, _) => survey.add(frame),
            Part::Block(block, _) => {
                if let Ok(range) = ByteRange::new(block.offset, block.content.len() as u64) {
                    survey.change(block.volume, range);
                }
            }
        }
        visit(&part);
    }
}

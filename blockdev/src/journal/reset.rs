//! Beginning a log anew at another position, in the room that it has: the end of a resync (§8.2).
//!
//! ```text
//! zero every segment → sync them → rename those that lie outside of the new range into it
//!   → a format with the new origin, under its name → remove the records of truncations and
//!     the tail → sync the directory: done
//! ```
//!
//! The superblock says before the first step that the image is switching, and until the last is
//! durable: a crash at any step has the opening of the replica begin with the first again. So no
//! step has to leave a log that can be opened, and each only has to find what the ones before it
//! may have left: as many segments as ever, under old names or new ones, and a format that tells
//! their length, because it is only ever replaced by a rename.
//!
//! The zeroes come before the names and are really written: a frame of the old history that lies at
//! its own position, under a name that fits, would be taken for one of the new log, or for damage
//! of it; and so would one of an earlier life of its segment.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use hadrian_protocol::frame::{ChainHash, LogPosition};
use hadrian_protocol::ids::{Lsn, ResourceId};

use super::create::{piece_len, zeroes};
use super::layout::{
    FORMAT_NAME, LOG_DIR, SEGMENT_LEN_MAX, SEGMENT_LEN_MIN, Segment, Segments, TRUNCATED_NAME,
    TRUNCATING_NAME, TRUNCATING_PART_NAME, UNFINISHED_NAME, parse_segment_name, segment_name,
};
use super::sheet::{Kind, SHEET_LEN, Sheet};
use super::tail::NAME as TAIL_NAME;
use super::writer::Writer;
use super::{Journal, JournalEvent, KIND_SYNC, KIND_WRITE, ReadError, tail};
use crate::engine::{Engine, FileId, OpenAs};
use crate::resync::task::Io;

/// Writes of zeroes under way at a time.
const ZEROING_MAX: usize = 4;

/// A log that is to begin anew.
#[derive(Debug)]
pub(crate) struct Plan {
    resource: ResourceId,
    dir: PathBuf,
    len: u64,
    /// Its segments: the number that the name says, and the open file.
    files: Vec<(u64, FileId)>,
    to: Lsn,
}

impl Plan {
    /// Does it; what it returns are the segments in their new order.
    ///
    /// # Errors
    /// The system's own, with the log in any state between the old and the new one.
    pub(crate) async fn carry_out(self, io: Io) -> io::Result<Vec<FileId>> {
        self.zero(&io).await?;
        let dir = io.open_dir(&self.dir).await?;
        let files = self.rename(&io, dir.id).await?;
        self.write_format(&io, dir.id).await?;
        let names = [TRUNCATING_NAME, TRUNCATING_PART_NAME, TRUNCATED_NAME];
        for name in names {
            io.remove(&self.dir.join(name)).await?;
        }
        io.sync(dir.id).await?;
        Ok(files)
    }

    async fn zero(&self, io: &Io) -> io::Result<()> {
        let zeroes = zeroes();
        let mut under_way = VecDeque::new();
        for (_, file) in &self.files {
            let mut offset = 0;
            while offset < self.len {
                let data = zeroes.slice(..piece_len(zeroes.len(), self.len - offset));
                offset += data.len() as u64;
                under_way.push_back(io.write(*file, offset - data.len() as u64, data));
                if under_way.len() >= ZEROING_MAX
                    && let Some(write) = under_way.pop_front()
                {
                    write.await?;
                }
            }
        }
        for write in under_way {
            write.await?;
        }
        for (_, file) in &self.files {
            io.sync(*file).await?;
        }
        Ok(())
    }

    /// Gives every segment a name in the new range. All hold zeroes, so it does not matter which;
    /// each rename is durable before the next, and no two segments ever have one name.
    async fn rename(&self, io: &Io, dir: FileId) -> io::Result<Vec<FileId>> {
        let first = self.to.get() / self.len;
        let end = first.saturating_add(self.files.len() as u64);
        let named: BTreeSet<u64> = self.files.iter().map(|(index, _)| *index).collect();
        let mut free = (first..end).filter(|index| !named.contains(index));
        let name_of = |index: u64| segment_name(Lsn::new(index.saturating_mul(self.len)));
        let mut placed = Vec::with_capacity(self.files.len());
        for (index, file) in &self.files {
            let mut index = *index;
            if !(first..end).contains(&index)
                && let Some(new) = free.next()
            {
                io.rename(dir, &name_of(index), &name_of(new)).await?;
                index = new;
            }
            placed.push((index, *file));
        }
        placed.sort_unstable();
        Ok(placed.into_iter().map(|(_, file)| file).collect())
    }

    async fn write_format(&self, io: &Io, dir: FileId) -> io::Result<()> {
        let sheet = Sheet {
            kind: Kind::Format,
            resource: self.resource,
            point: LogPosition { lsn: self.to, chain: ChainHash::from_bytes([0; 32]) },
            end: Lsn::START,
            number: self.len,
        };
        let file = io.create(&self.dir.join(UNFINISHED_NAME), OpenAs::Direct).await?;
        io.write(file.id, 0, sheet.encode()).await?;
        io.sync(file.id).await?;
        io.rename(dir, UNFINISHED_NAME, FORMAT_NAME).await?;
        Ok(())
    }
}

/// Begins the log in the directory of a replica anew at `to`; nobody has it open.
///
/// # Errors
/// As [`Plan::carry_out`]; also where there is no log whose layout can be read.
pub(crate) async fn reset(
    io: Io,
    replica_dir: PathBuf,
    resource: ResourceId,
    to: Lsn,
) -> io::Result<()> {
    let dir = replica_dir.join(LOG_DIR);
    let len = segment_len(&io, &dir, resource).await?;
    let (mut open, mut files) = (Vec::new(), Vec::new());
    for name in io.list(&dir).await? {
        let first = parse_segment_name(&name).map(Lsn::get);
        let Some(first) = first.filter(|first| first.is_multiple_of(len)) else { continue };
        let file = io.open(&dir.join(&name), OpenAs::Direct).await?;
        if io.size(file.id).await? != len {
            let text = format!("{}: it is not as long as a segment", dir.join(&name).display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        files.push((first / len, file.id));
        open.push(file);
    }
    // Of a killed process. What it has is of the old log, and its sheet may fit the new one.
    io.remove(&dir.join(TAIL_NAME)).await?;
    let plan = Plan { resource, dir, len, files, to };
    plan.carry_out(io).await.map(drop)
}

async fn segment_len(io: &Io, dir: &Path, resource: ResourceId) -> io::Result<u64> {
    let file = io.open(&dir.join(FORMAT_NAME), OpenAs::ReadOnly).await?;
    let page = io.read(file.id, 0, SHEET_LEN).bytes().await?;
    let sheet = Sheet::decode_of(Kind::Format, &page, Some(resource)).map_err(io::Error::other)?;
    let right = (SEGMENT_LEN_MIN..=SEGMENT_LEN_MAX).contains(&sheet.number);
    right.then_some(sheet.number).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

impl Journal {
    /// How to begin anew at `to`, once nothing is under way; then nothing can be appended or read
    /// until [`Journal::was_reset`].
    pub(crate) fn plan_reset<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        to: LogPosition,
    ) -> Option<Plan> {
        self.request_sync(engine);
        let idle = self.moving.is_none() && self.truncation.is_none() && self.writer.is_settled();
        if self.is_failed || !idle {
            return None;
        }
        self.resetting = Some(to.lsn);
        // Frames of the old history must not come back from the tail after a kill.
        if let Some(tail) = &self.tail
            && let Err(error) = tail.end(engine)
        {
            self.tail = tail::given_up(self.segments.dir(), Err(error));
        }
        let first = self.segments.start().get() / self.segments.segment_len();
        let files = (first..).zip(self.segments.iter_mut().map(|segment| segment.file)).collect();
        let (dir, len) = (self.segments.dir().to_path_buf(), self.segments.segment_len());
        Some(Plan { resource: self.resource, dir, len, files, to: to.lsn })
    }

    /// The plan was carried out: the log is empty, and begins and ends at `to`.
    pub(crate) fn was_reset<E: Engine + ?Sized>(
        &mut self,
        engine: &mut E,
        to: LogPosition,
        files: Vec<FileId>,
    ) {
        let (dir, len) = (self.segments.dir().to_path_buf(), self.segments.segment_len());
        self.segments = Segments::new(dir, len, to.lsn.get() / len);
        files.into_iter().for_each(|file| self.segments.push(Segment { file, dirty: false }));
        let waiting = self.streams.forget();
        let late = self.late_reads.drain(..).map(|(.., number)| number);
        for number in waiting.into_iter().chain(late) {
            let result = Err(ReadError::Gone { start: to.lsn });
            self.events.push_back(JournalEvent::ReadDone { number, result });
        }
        self.origin = to.lsn;
        self.writer = Writer::new(self.tokens, (KIND_WRITE, KIND_SYNC), to);
        self.told = to.lsn;
        (self.released, self.truncations, self.resetting) = (Lsn::START, 0, None);
        self.begin_tail(engine);
    }
}

//! Where a clone keeps what was written to it: a sparse file for each volume, without a name, so
//! that it is gone with the process, however that ends.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use hadrian_protocol::range::ByteRange;

use crate::buffer::BODY_LEN_MAX;
use crate::engine::{Engine, FileId, Op, OpenAs, run};

/// What its names end in, for the moment that they have one.
const ENDING: &str = ".scratch";
/// The number of the next one of this process, which is the only one that makes them here.
static NEXT: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
pub(super) struct Scratch {
    dir: PathBuf,
    files: Vec<Option<FileId>>,
    used: u64,
    limit: u64,
}

impl Scratch {
    /// For so many volumes; nothing may be written to it yet.
    pub(super) fn new(dir: PathBuf, volumes: usize) -> Self {
        Self { dir, files: vec![None; volumes], used: 0, limit: 0 }
    }

    /// So many bytes more than now may be in it.
    pub(super) fn set_limit(&mut self, bytes: u64) {
        self.limit = self.used.saturating_add(bytes);
    }

    pub(super) fn file(&self, volume: usize) -> Option<FileId> {
        self.files.get(volume).copied().flatten()
    }

    /// Writes a range, of which `taken` bytes are in it already.
    pub(super) fn write<E: Engine>(
        &mut self,
        (engine, volume): (&mut E, usize),
        (range, taken): (ByteRange, u64),
        data: Vec<u8>,
    ) -> io::Result<()> {
        let used = self.used.saturating_add(range.len().saturating_sub(taken));
        if used > self.limit {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = self.opened(engine, volume)?;
        let data = bytes::Bytes::from(data);
        let mut at = 0;
        while at < data.len() {
            let piece = data.slice(at..data.len().min(at + BODY_LEN_MAX));
            let offset = range.start().saturating_add(at as u64);
            at += piece.len();
            run(engine, Op::Write { file, offset, data: piece })?;
        }
        self.used = used;
        Ok(())
    }

    /// A range is not needed any more, of which `taken` bytes are in it.
    pub(super) fn give_back<E: Engine>(
        &mut self,
        (engine, volume): (&mut E, usize),
        (range, taken): (ByteRange, u64),
    ) -> io::Result<()> {
        if let Some(file) = self.file(volume).filter(|_| taken > 0) {
            let (offset, len) = (range.start(), range.len());
            run(engine, Op::Zero { file, offset, len, punch: true })?;
        }
        self.used = self.used.saturating_sub(taken);
        Ok(())
    }

    fn opened<E: Engine>(&mut self, engine: &mut E, volume: usize) -> io::Result<FileId> {
        if let Some(file) = self.file(volume) {
            return Ok(file);
        }
        engine.create_dir(&self.dir)?;
        // Two threads that make one at a time must not get the same file.
        let path = self.dir.join(format!("{}{ENDING}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let file = engine.create(&path, OpenAs::Buffered)?;
        engine.remove(&path)?;
        if let Some(place) = self.files.get_mut(volume) {
            *place = Some(file);
        }
        Ok(file)
    }

    pub(super) fn close<E: Engine>(&mut self, engine: &mut E) {
        self.files.drain(..).flatten().for_each(|file| engine.close(file));
    }
}

/// Removes what a process left that ended between the making of a file and the loss of its name.
pub(super) fn clear<E: Engine>(engine: &mut E, dir: &Path) -> io::Result<()> {
    let names = match engine.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    names.iter().filter(|name| name.ends_with(ENDING)).try_for_each(|name| {
        match engine.remove(&dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    })
}

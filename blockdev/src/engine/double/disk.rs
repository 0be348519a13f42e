//! The disk of the storage double: each file twice, as it is read and as a power loss leaves it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use rand::Rng;
use rand::rngs::SmallRng;

use super::{SECTOR_LEN, Unsynced};

/// A file's number on the disk, whatever its name is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Inode(usize);

/// Files, and which names lead to them.
#[derive(Debug, Default)]
pub(super) struct Disk {
    files: Vec<Content>,
    live: BTreeMap<PathBuf, Inode>,
    durable: BTreeMap<PathBuf, Inode>,
    dirs: BTreeSet<PathBuf>,
    /// Changes of names that no sync of their directory covers, oldest first.
    renames: Vec<NameChange>,
    /// Counts writes, so that a sync knows which of them came before it.
    clock: u64,
}

#[derive(Debug, Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// What was written and not synced, oldest first.
    unsynced: Vec<Write>,
}

#[derive(Debug)]
struct Write {
    at: u64,
    offset: usize,
    data: Vec<u8>,
}

#[derive(Debug)]
enum NameChange {
    Create { path: PathBuf, inode: Inode },
    Rename { from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
}

impl NameChange {
    fn dir(&self) -> Option<&Path> {
        match self {
            Self::Create { path, .. } | Self::Remove { path } => path.parent(),
            Self::Rename { from, .. } => from.parent(),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Inode>) -> bool {
        match self {
            Self::Create { path, inode } => {
                names.insert(path.clone(), *inode);
                true
            }
            Self::Rename { from, to } => match names.remove(from) {
                Some(inode) => {
                    names.insert(to.clone(), inode);
                    true
                }
                None => false,
            },
            Self::Remove { path } => names.remove(path).is_some(),
        }
    }
}

/// What the double takes for a hole where it is all zero, in bytes.
const HOLE_LEN: usize = 4096;

impl Disk {
    pub(super) fn find(&self, path: &Path) -> Option<Inode> {
        self.live.get(path).copied()
    }

    pub(super) fn is_in(&self, inode: Inode, folder: &Path) -> bool {
        self.live.iter().any(|(path, of)| *of == inode && path.parent() == Some(folder))
    }

    /// The same files with the content that is read now, all of it durable.
    pub(super) fn copy(&self) -> Self {
        let settled = |file: &Content| {
            let (live, durable) = (file.live.clone(), file.live.clone());
            Content { live, durable, unsynced: Vec::new() }
        };
        Self {
            files: self.files.iter().map(settled).collect(),
            live: self.live.clone(),
            durable: self.live.clone(),
            dirs: self.dirs.clone(),
            renames: Vec::new(),
            clock: self.clock,
        }
    }

    pub(super) fn clock(&self) -> u64 {
        self.clock
    }

    pub(super) fn is_dir(&self, path: &Path) -> bool {
        self.dirs.contains(path) || self.live.keys().any(|file| file.parent() == Some(path))
    }

    pub(super) fn create_dir(&mut self, path: &Path) {
        self.dirs.insert(path.into());
    }

    pub(super) fn list(&self, dir: &Path) -> Vec<String> {
        let inside = self.live.keys().filter(|file| file.parent() == Some(dir));
        inside.filter_map(|file| Some(file.file_name()?.to_str()?.to_owned())).collect()
    }

    pub(super) fn put_file(&mut self, path: &Path, len: usize) {
        let inode = Inode(self.files.len());
        self.files.push(Content {
            live: vec![0; len],
            durable: vec![0; len],
            unsynced: Vec::new(),
        });
        self.live.insert(path.into(), inode);
        self.durable.insert(path.into(), inode);
    }

    pub(super) fn create(&mut self, path: &Path) -> Inode {
        let inode = Inode(self.files.len());
        self.files.push(Content::default());
        self.change_name(NameChange::Create { path: path.into(), inode });
        inode
    }

    pub(super) fn rename(&mut self, dir: &Path, from: &str, to: &str) -> io::Result<()> {
        let change = NameChange::Rename { from: dir.join(from), to: dir.join(to) };
        if self.change_name(change) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Takes a name away, as a process does it: a loss of power may bring it back.
    pub(super) fn unlink(&mut self, path: &Path) -> io::Result<()> {
        let gone = self.change_name(NameChange::Remove { path: path.into() });
        if gone { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// The stretch of pages of zeroes, or of others, that begins at `start`.
    pub(super) fn stretch(&self, inode: Inode, start: u64, end: u64) -> (u64, bool) {
        let live = &self.files[inode.0].live;
        let is_hole = |at: u64| {
            let from = usize::try_from(at).unwrap_or(usize::MAX).min(live.len());
            let to = (from / HOLE_LEN + 1) * HOLE_LEN;
            live[from..to.min(live.len())].iter().all(|byte| *byte == 0)
        };
        let next = |at: u64| (at / HOLE_LEN as u64 + 1) * HOLE_LEN as u64;
        let (hole, mut at) = (is_hole(start), next(start));
        while at < end && is_hole(at) == hole {
            at = next(at);
        }
        (at.min(end), hole)
    }

    fn change_name(&mut self, change: NameChange) -> bool {
        let done = change.apply(&mut self.live);
        if done {
            self.renames.push(change);
        }
        done
    }

    pub(super) fn remove(&mut self, path: &Path) {
        self.live.remove(path);
        self.durable.remove(path);
    }

    pub(super) fn contents(&self, path: &Path) -> Option<&[u8]> {
        Some(&self.files[self.find(path)?.0].live)
    }

    pub(super) fn tamper(&mut self, path: &Path, change: impl Fn(&mut Vec<u8>)) {
        let Some(inode) = self.find(path) else {
            panic!("{} is not there to be tampered with", path.display())
        };
        change(&mut self.files[inode.0].live);
        change(&mut self.files[inode.0].durable);
    }

    pub(super) fn len(&self, inode: Inode) -> u64 {
        self.files[inode.0].live.len() as u64
    }

    pub(super) fn read(&self, inode: Inode, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let live = &self.files[inode.0].live;
        let from = live.get(start..start.saturating_add(into.len()));
        into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    pub(super) fn write(&mut self, inode: Inode, offset: u64, data: &[u8]) {
        self.clock += 1;
        let write = Write {
            at: self.clock,
            offset: usize::try_from(offset).expect("files of the double fit into memory"),
            data: data.into(),
        };
        let content = &mut self.files[inode.0];
        put(&mut content.live, write.offset, &write.data);
        content.unsynced.push(write);
    }

    /// Content that a loss of power keeps all of: the hardest case for whoever must not trust it.
    pub(super) fn keep(&mut self, inode: Inode, offset: u64, data: &[u8]) {
        let offset = usize::try_from(offset).expect("files of the double fit into memory");
        let content = &mut self.files[inode.0];
        put(&mut content.live, offset, data);
        put(&mut content.durable, offset, data);
    }

    pub(super) fn zero(&mut self, inode: Inode, offset: u64, len: u64) {
        let len = usize::try_from(len).expect("files of the double fit into memory");
        self.write(inode, offset, &vec![0; len]);
    }

    /// Makes durable what had been written at time `covers`.
    pub(super) fn sync(&mut self, inode: Inode, covers: u64) {
        let Content { durable, unsynced, .. } = &mut self.files[inode.0];
        let count = unsynced.partition_point(|write| write.at <= covers);
        for write in unsynced.drain(..count) {
            put(durable, write.offset, &write.data);
        }
    }

    /// What a failed sync should have covered is still read, but no sync will reach it again.
    pub(super) fn lose_for_good(&mut self, inode: Inode, covers: u64) {
        self.files[inode.0].unsynced.retain(|write| write.at > covers);
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) {
        let changes = std::mem::take(&mut self.renames);
        for change in changes {
            if change.dir() == Some(dir) {
                change.apply(&mut self.durable);
            } else {
                self.renames.push(change);
            }
        }
    }

    /// The power is gone: what is durable stays, of the rest whatever `unsynced` says.
    pub(super) fn settle(&mut self, unsynced: Unsynced, rng: &mut SmallRng) {
        for content in &mut self.files {
            for write in std::mem::take(&mut content.unsynced) {
                settle_write(&mut content.durable, &write, unsynced, rng);
            }
            content.live.clone_from(&content.durable);
        }
        // A file system keeps the order of names: some first changes are there, no later ones.
        let kept = match unsynced {
            Unsynced::Lost => 0,
            Unsynced::Kept => self.renames.len(),
            Unsynced::Torn | Unsynced::Mixed => rng.random_range(0..=self.renames.len()),
        };
        for change in std::mem::take(&mut self.renames).into_iter().take(kept) {
            change.apply(&mut self.durable);
        }
        self.live.clone_from(&self.durable);
    }
}

fn settle_write(durable: &mut Vec<u8>, write: &Write, unsynced: Unsynced, rng: &mut SmallRng) {
    let fate = match unsynced {
        Unsynced::Mixed => [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn][rng.random_range(0..3)],
        one => one,
    };
    match fate {
        Unsynced::Lost => {}
        Unsynced::Kept => put(durable, write.offset, &write.data),
        Unsynced::Torn | Unsynced::Mixed => {
            for (index, sector) in write.data.chunks(SECTOR_LEN).enumerate() {
                if rng.random() {
                    put(durable, write.offset + index * SECTOR_LEN, sector);
                }
            }
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

//! A storage double: files in memory that lose power between, and in the middle of, operations.
//!
//! Every file has what a reader sees now and what a power loss leaves. A write changes the first;
//! a sync moves to the second what had completed before the sync was submitted, and names become
//! durable by a sync of their directory. At the chosen operation the power goes: what was under
//! way or not yet synced is lost, kept, or torn at sector boundaries, by a seeded choice. The
//! same seed and the same calls give the same result, byte for byte (I11).

mod disk;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{Completion, Engine, FileId, Op, OpenAs, Token};
use disk::{Disk, Inode};

/// What a disk writes whole or not at all, in bytes.
pub const SECTOR_LEN: usize = 512;

/// How far from its place a write goes astray, in bytes.
const ASTRAY_BY: u64 = 8192;

/// When an operation is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// At the kick, in the order of submission.
    AsSubmitted,
    /// One or more at each [`Engine::wait`], in a seeded order; a driver that never waits hangs.
    Scattered,
}

/// What a power loss does to writes that no sync covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsynced {
    /// All of them are gone.
    Lost,
    /// All of them are there.
    Kept,
    /// Each sector of each write is there or not.
    Torn,
    /// Each write is lost, kept or torn by a choice of its own.
    Mixed,
}

/// An [`Engine`] over memory with a power switch.
#[derive(Debug)]
pub struct Double {
    disk: Disk,
    rng: SmallRng,
    order: Order,
    unsynced: Unsynced,
    handles: BTreeMap<u32, Handle>,
    next_handle: u32,
    submitted: Vec<Underway>,
    done: Vec<Completion>,
    changes_done: u64,
    reads_done: u64,
    cut_at: Option<u64>,
    fail_at: Option<(u64, Fault)>,
    fail_read_at: Option<u64>,
    /// The next write to a file in this folder goes astray.
    astray_in: Option<PathBuf>,
    is_full: bool,
    /// Files that cannot be made longer: devices.
    fixed: Vec<Inode>,
    is_cut: bool,
    /// How often the host was started.
    boots: u64,
}

/// All files of a disk as they were at one moment; by default, those of an empty disk.
#[derive(Debug, Default)]
pub struct Copied(Disk);

/// How an operation fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// With EIO. A sync that fails has lost what it was to make durable, as Linux does it: a later
    /// sync of the same file succeeds all the same.
    Eio,
    /// A write with EIO when its first half, in whole sectors, is there; anything else as above.
    Short,
    /// With ENOSPC, if it takes room, and so does every write and zero after it, until
    /// [`Double::make_room`].
    Full,
}

#[derive(Debug, Clone)]
enum Handle {
    File(Inode),
    Dir(PathBuf),
}

#[derive(Debug)]
struct Underway {
    token: Token,
    op: Op,
    /// For a sync: what had completed when it was submitted.
    covers: u64,
    kicked: bool,
}

impl Double {
    /// An empty disk whose choices follow from `seed`.
    #[must_use]
    pub fn new(seed: u64, order: Order, unsynced: Unsynced) -> Self {
        Self {
            disk: Disk::default(),
            rng: SmallRng::seed_from_u64(seed),
            order,
            unsynced,
            handles: BTreeMap::new(),
            next_handle: 0,
            submitted: Vec::new(),
            done: Vec::new(),
            changes_done: 0,
            reads_done: 0,
            cut_at: None,
            fail_at: None,
            fail_read_at: None,
            astray_in: None,
            is_full: false,
            fixed: Vec::new(),
            is_cut: false,
            boots: 1,
        }
    }

    /// Loses power while the `count`-th further write, zero, sync or rename is done (1 = next).
    pub fn cut_power_at(&mut self, count: u64) {
        self.cut_at = Some(self.changes_done + count);
    }

    /// Lets the `count`-th further write, zero, sync or rename fail (1 = next).
    pub fn fail_at(&mut self, count: u64, fault: Fault) {
        self.fail_at = Some((self.changes_done + count, fault));
    }

    /// Lets the `count`-th further read fail with EIO (1 = next); the one after it succeeds.
    pub fn fail_read_at(&mut self, count: u64) {
        self.fail_read_at = Some(self.reads_done + count);
    }

    /// What is read now, as a backup or a snapshot of the host would keep it.
    #[must_use]
    pub fn copy(&self) -> Copied {
        Copied(self.disk.copy())
    }

    /// Everything on the disk is what was copied once, durably; for a host that does not run.
    ///
    /// # Panics
    /// If operations are under way.
    pub fn put_back(&mut self, copied: &Copied) {
        assert!(self.submitted.is_empty(), "nobody uses a disk that is put back");
        self.disk = copied.0.copy();
        self.forget_process();
    }

    /// The next write to a file in `folder` goes two pages beyond its place, and the disk says that
    /// all is well.
    pub fn go_astray_in(&mut self, folder: &Path) {
        self.astray_in = Some(folder.into());
    }

    /// There is room again on a disk that was full.
    pub fn make_room(&mut self) {
        self.is_full = false;
    }

    /// Whether writes fail for want of room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Whether the power is gone. Every operation fails until [`Double::power_on`].
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Writes, zeroes, syncs and renames that were done so far.
    #[must_use]
    pub fn changes_done(&self) -> u64 {
        self.changes_done
    }

    /// Pulls the plug, where that has not happened yet, and starts again from what the disk kept:
    /// nothing is open, nothing under way, no cut or failure is planned.
    pub fn power_on(&mut self) {
        self.lose_power();
        self.is_cut = false;
        self.forget_process();
    }

    /// Ends the process and starts it again: what was written stays, synced or not; what had not
    /// begun is gone; of what was under way the kernel finishes some and not the rest.
    pub fn restart_process(&mut self) {
        for underway in std::mem::take(&mut self.submitted) {
            if underway.kicked && self.rng.random() {
                self.half_do(underway.op);
            }
        }
        self.forget_process();
    }

    /// Does one of the operations that were kicked, by a seeded choice; for whoever moves time
    /// himself and never waits. Says whether there was one.
    pub fn advance(&mut self) -> bool {
        let kicked = self.submitted.iter().any(|underway| underway.kicked);
        self.step_somewhere();
        kicked
    }

    /// Whether an operation is under way that [`Double::advance`] would do.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.submitted.iter().any(|underway| underway.kicked)
    }

    /// Makes a durable file of `len` zeroes, for what is there before the story begins.
    pub fn put_file(&mut self, path: &Path, len: usize) {
        self.disk.put_file(path, len);
    }

    /// From here on the file at `path` is a device, which no process makes larger.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn make_device(&mut self, path: &Path) {
        let inode = self.disk.find(path);
        self.fixed.push(inode.unwrap_or_else(|| panic!("{} is not there", path.display())));
    }

    /// Takes back what [`Double::cut_power_at`], [`Double::fail_at`] and [`Double::fail_read_at`]
    /// planned.
    pub fn forget_plans(&mut self) {
        (self.cut_at, self.fail_at, self.fail_read_at) = (None, None, None);
    }

    /// What a reader of `path` sees now.
    #[must_use]
    pub fn contents(&self, path: &Path) -> Option<&[u8]> {
        self.disk.contents(path)
    }

    /// Changes the bytes of `path` behind everybody's back, durably: damage.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn tamper(&mut self, path: &Path, change: impl Fn(&mut Vec<u8>)) {
        self.disk.tamper(path, change);
    }

    /// Removes `path`, durably.
    pub fn remove(&mut self, path: &Path) {
        self.disk.remove(path);
    }

    fn forget_process(&mut self) {
        self.handles.clear();
        self.submitted.clear();
        self.done.clear();
        self.forget_plans();
    }

    fn lose_power(&mut self) {
        if self.is_cut {
            return;
        }
        self.is_cut = true;
        self.boots += 1;
        // What is under way may have reached the disk, in part, like what was never synced.
        for underway in std::mem::take(&mut self.submitted) {
            if underway.kicked {
                self.half_do(underway.op);
            }
        }
        self.disk.settle(self.unsynced, &mut self.rng);
        self.handles.clear();
    }

    fn half_do(&mut self, op: Op) {
        match op {
            Op::Write { file, offset, data } => {
                if let Ok(inode) = self.inode(file) {
                    self.disk.write(inode, offset, &data);
                }
            }
            Op::Zero { file, offset, len, .. } => {
                if let Ok(inode) = self.inode(file) {
                    self.disk.zero(inode, offset, len);
                }
            }
            Op::Rename { dir, from, to } => {
                if let Ok(dir) = self.dir(dir) {
                    // Not there to be renamed: then nothing happens.
                    let _ = self.disk.rename(&dir, &from, &to);
                }
            }
            // A sync may also be done in part: each file's own writes are chosen singly anyway.
            Op::Sync { .. } | Op::Read { .. } => {}
        }
    }

    fn inode(&self, file: FileId) -> io::Result<Inode> {
        match self.handles.get(&file.0) {
            Some(Handle::File(inode)) => Ok(*inode),
            _ => Err(io::Error::from_raw_os_error(libc::EBADF)),
        }
    }

    fn dir(&self, file: FileId) -> io::Result<PathBuf> {
        match self.handles.get(&file.0) {
            Some(Handle::Dir(path)) => Ok(path.clone()),
            _ => Err(io::Error::from_raw_os_error(libc::EBADF)),
        }
    }

    fn handle(&mut self, handle: Handle) -> FileId {
        let id = self.next_handle;
        self.next_handle += 1;
        self.handles.insert(id, handle);
        FileId(id)
    }

    fn alive(&self) -> io::Result<()> {
        if self.is_cut {
            return Err(io::Error::other("the power is cut"));
        }
        Ok(())
    }

    /// Does the operation at `index` of those under way.
    fn step(&mut self, index: usize) {
        let is_change = !matches!(self.submitted[index].op, Op::Read { .. });
        self.changes_done += u64::from(is_change);
        self.reads_done += u64::from(!is_change);
        if is_change && self.cut_at == Some(self.changes_done) {
            return self.lose_power();
        }
        let planned = match is_change {
            true => self.fail_at.filter(|(at, _)| *at == self.changes_done),
            false => self.fail_read_at.filter(|at| *at == self.reads_done).map(|_| (0, Fault::Eio)),
        };
        let Underway { token, mut op, covers, .. } = self.submitted.remove(index);
        let takes_room = matches!(op, Op::Write { .. } | Op::Zero { punch: false, .. });
        self.is_full |= matches!(planned, Some((_, Fault::Full)));
        let result = match planned {
            _ if takes_room && self.is_full => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            Some((_, fault)) if fault != Fault::Full => {
                self.spoil(&op, covers, fault);
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
            _ => self.perform(&mut op, covers),
        };
        self.done.push(Completion { token, op, result });
    }

    fn spoil(&mut self, op: &Op, covers: u64, fault: Fault) {
        match op {
            Op::Sync { file } => {
                if let Ok(inode) = self.inode(*file) {
                    self.disk.lose_for_good(inode, covers);
                }
            }
            Op::Write { file, offset, data } if fault == Fault::Short => {
                let half = data.len() / 2 / SECTOR_LEN * SECTOR_LEN;
                if let (Ok(inode), Some(first)) = (self.inode(*file), data.get(..half)) {
                    self.disk.write(inode, *offset, first);
                }
            }
            _ => {}
        }
    }

    fn perform(&mut self, op: &mut Op, covers: u64) -> io::Result<()> {
        match op {
            Op::Read { file, offset, buffer, len } => {
                let into = buffer.get_mut(..*len).ok_or(io::ErrorKind::InvalidInput)?;
                self.disk.read(self.inode(*file)?, *offset, into)
            }
            Op::Write { file, offset, data } => {
                let inode = self.inode(*file)?;
                let astray = self.astray_in.take_if(|folder| self.disk.is_in(inode, folder));
                let by = if astray.is_some() { ASTRAY_BY } else { 0 };
                self.disk.write(inode, *offset + by, data);
                Ok(())
            }
            Op::Zero { file, offset, len, .. } => {
                self.disk.zero(self.inode(*file)?, *offset, *len);
                Ok(())
            }
            Op::Sync { file } => match self.handles.get(&file.0) {
                Some(Handle::File(inode)) => {
                    self.disk.sync(*inode, covers);
                    Ok(())
                }
                Some(Handle::Dir(path)) => {
                    self.disk.sync_dir(path);
                    Ok(())
                }
                None => Err(io::Error::from_raw_os_error(libc::EBADF)),
            },
            Op::Rename { dir, from, to } => {
                let dir = self.dir(*dir)?;
                self.disk.rename(&dir, from, to)?;
                self.disk.sync_dir(&dir);
                Ok(())
            }
        }
    }

    fn step_somewhere(&mut self) {
        let kicked = self.submitted.iter().filter(|u| u.kicked).count();
        if kicked > 0 {
            // Those that are kicked are in front: kick marks all there are.
            let index = self.rng.random_range(0..kicked);
            self.step(index);
        }
    }
}

impl Engine for Double {
    fn open(&mut self, path: &Path, how: OpenAs) -> io::Result<FileId> {
        let _ = how;
        self.alive()?;
        let inode = self.disk.find(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(Handle::File(inode)))
    }

    fn open_dir(&mut self, path: &Path) -> io::Result<FileId> {
        self.alive()?;
        if !self.disk.is_dir(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(self.handle(Handle::Dir(path.into())))
    }

    fn create(&mut self, path: &Path, how: OpenAs) -> io::Result<FileId> {
        let _ = how;
        self.alive()?;
        let inode = self.disk.create(path);
        Ok(self.handle(Handle::File(inode)))
    }

    fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        self.alive()?;
        self.disk.create_dir(path);
        Ok(())
    }

    fn list(&mut self, dir: &Path) -> io::Result<Vec<String>> {
        self.alive()?;
        Ok(self.disk.list(dir))
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.alive()?;
        self.disk.unlink(path)
    }

    fn stretch(&mut self, file: FileId, start: u64, end: u64) -> (u64, bool) {
        self.inode(file).map_or((end, false), |inode| self.disk.stretch(inode, start, end))
    }

    fn close(&mut self, file: FileId) {
        // Operations under way end first.
        while let Some(index) = self.submitted.iter().position(|u| u.op.file() == file) {
            self.step(index);
        }
        self.handles.remove(&file.0);
    }

    fn size(&mut self, file: FileId) -> io::Result<u64> {
        self.alive()?;
        Ok(self.disk.len(self.inode(file)?))
    }

    fn extend(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.alive()?;
        let inode = self.inode(file)?;
        let has = self.disk.len(inode);
        if has < len && self.fixed.contains(&inode) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // Like any content, the new end may be lost until a sync.
        self.disk.zero(inode, has, len.saturating_sub(has));
        Ok(())
    }

    fn submit(&mut self, token: Token, op: Op) {
        if let Err(error) = self.alive() {
            let result = Err(error);
            return self.done.push(Completion { token, op, result });
        }
        let covers = self.disk.clock();
        self.submitted.push(Underway { token, op, covers, kicked: false });
    }

    fn kick(&mut self) {
        for underway in &mut self.submitted {
            underway.kicked = true;
        }
        while self.order == Order::AsSubmitted && !self.submitted.is_empty() {
            self.step(0);
        }
    }

    fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        done.append(&mut self.done);
    }

    fn wait(&mut self) -> io::Result<()> {
        self.kick();
        self.alive()?;
        if self.done.is_empty() {
            for _ in 0..self.rng.random_range(1..4) {
                self.step_somewhere();
            }
        }
        self.alive()
    }

    fn in_flight(&self) -> usize {
        self.submitted.len() + self.done.len()
    }

    fn descriptor(&self) -> Option<OwnedFd> {
        None
    }

    fn keep(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.alive()?;
        self.disk.keep(self.inode(file)?, offset, data);
        Ok(())
    }

    fn boot(&self) -> Option<[u8; 32]> {
        let mut name = [b'0'; 32];
        name[..8].copy_from_slice(&self.boots.to_le_bytes());
        Some(name)
    }
}

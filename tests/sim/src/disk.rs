//! A member's disk: the storage double, which the host keeps while a process uses it.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use hadrian_blockdev::engine::double::{Double, Order, Unsynced};
use hadrian_blockdev::engine::{Completion, Engine, FileId, Op, OpenAs, Token};

/// A handle; all handles of one disk are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct Disk(Rc<RefCell<Double>>);

impl Disk {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Rc::new(RefCell::new(Double::new(seed, Order::Scattered, Unsynced::Mixed))))
    }

    /// Something that is done to the disk itself.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Double) -> T) -> T {
        act(&mut self.0.borrow_mut())
    }
}

impl Engine for Disk {
    fn open(&mut self, path: &Path, how: OpenAs) -> io::Result<FileId> {
        self.0.borrow_mut().open(path, how)
    }

    fn open_dir(&mut self, path: &Path) -> io::Result<FileId> {
        self.0.borrow_mut().open_dir(path)
    }

    fn create(&mut self, path: &Path, how: OpenAs) -> io::Result<FileId> {
        self.0.borrow_mut().create(path, how)
    }

    fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        self.0.borrow_mut().create_dir(path)
    }

    fn list(&mut self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.borrow_mut().list(dir)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        Engine::remove(&mut *self.0.borrow_mut(), path)
    }

    fn stretch(&mut self, file: FileId, start: u64, end: u64) -> (u64, bool) {
        self.0.borrow_mut().stretch(file, start, end)
    }

    fn close(&mut self, file: FileId) {
        self.0.borrow_mut().close(file);
    }

    fn size(&mut self, file: FileId) -> io::Result<u64> {
        self.0.borrow_mut().size(file)
    }

    fn extend(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.0.borrow_mut().extend(file, len)
    }

    fn submit(&mut self, token: Token, op: Op) {
        self.0.borrow_mut().submit(token, op);
    }

    fn kick(&mut self) {
        self.0.borrow_mut().kick();
    }

    fn has_done(&self) -> bool {
        self.0.borrow().has_done()
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        self.0.borrow_mut().reap(done);
    }

    fn wait(&mut self) -> io::Result<()> {
        self.0.borrow_mut().wait()
    }

    fn in_flight(&self) -> usize {
        self.0.borrow().in_flight()
    }

    fn keep(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.borrow_mut().keep(file, offset, data)
    }

    fn boot(&self) -> Option<[u8; 32]> {
        self.0.borrow().boot()
    }

    fn descriptor(&self) -> Option<OwnedFd> {
        None
    }
}

//! The portable engine: every operation is a system call that ends before the next begins.
//!
//! It is slower where much is under way at a time, and right everywhere: for systems that refuse
//! io_uring, and for offline tools.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::files::{Files, Note};
use super::{Completion, Engine, FileId, Op, OpenAs, Token};

/// Does operations in the order in which they were submitted, each at the next kick.
#[derive(Debug, Default)]
pub struct Plain {
    files: Files,
    submitted: Vec<(Token, Op)>,
    done: Vec<Completion>,
}

impl Plain {
    /// An engine without files.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What was done otherwise than asked, once.
    pub fn take_notes(&mut self) -> Vec<Note> {
        self.files.take_notes()
    }

    pub(super) fn note(&mut self, note: Note) {
        self.files.note(note);
    }
}

impl Engine for Plain {
    fn open(&mut self, path: &Path, how: OpenAs) -> io::Result<FileId> {
        self.files.open(path, how)
    }

    fn open_dir(&mut self, path: &Path) -> io::Result<FileId> {
        self.files.open_dir(path)
    }

    fn create(&mut self, path: &Path, how: OpenAs) -> io::Result<FileId> {
        self.files.create(path, how)
    }

    fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        Files::create_dir(path)
    }

    fn list(&mut self, dir: &Path) -> io::Result<Vec<String>> {
        Files::list(dir)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn stretch(&mut self, file: FileId, start: u64, end: u64) -> (u64, bool) {
        self.files.stretch(file, start, end)
    }

    fn close(&mut self, file: FileId) {
        self.kick();
        self.files.close(file);
    }

    fn size(&mut self, file: FileId) -> io::Result<u64> {
        self.files.size(file)
    }

    fn extend(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.files.extend(file, len)
    }

    fn submit(&mut self, token: Token, op: Op) {
        self.submitted.push((token, op));
    }

    fn kick(&mut self) {
        for (token, mut op) in self.submitted.drain(..) {
            let result = self.files.perform(&mut op);
            self.done.push(Completion { token, op, result });
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
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.submitted.len() + self.done.len()
    }

    fn descriptor(&self) -> Option<OwnedFd> {
        None
    }

    fn try_read_cached(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> bool {
        self.files.try_read_cached(file, offset, into)
    }
}

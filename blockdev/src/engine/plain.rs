//! The portable engine: every operation is done at once by a system call. Slower where many
//! operations could be under way, but it needs nothing of the kernel.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::files::Files;
use super::{Completion, Engine, FileId, Op, OpenAs, Token};

/// Does each operation when it is submitted.
#[derive(Debug, Default)]
pub struct PlainEngine {
    files: Files,
    done: Vec<Completion>,
}

impl PlainEngine {
    /// An engine without open files.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Engine for PlainEngine {
    fn open(&mut self, path: &Path, how: OpenAs) -> io::Result<FileId> {
        self.files.open(path, how)
    }

    fn open_dir(&mut self, path: &Path) -> io::Result<FileId> {
        self.files.open_dir(path)
    }

    fn close(&mut self, file: FileId) {
        self.files.close(file);
    }

    fn size(&mut self, file: FileId) -> io::Result<u64> {
        self.files.size(file)
    }

    fn submit(&mut self, token: Token, mut op: Op) {
        let result = self.files.do_now(&mut op);
        self.done.push(Completion { token, op, result });
    }

    fn kick(&mut self) {}

    fn reap(&mut self, done: &mut Vec<Completion>) {
        done.append(&mut self.done);
    }

    fn wait(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.done.len()
    }

    fn descriptor(&self) -> Option<OwnedFd> {
        None
    }

    fn try_read_cached(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> bool {
        self.files.try_read_cached(file, offset, into)
    }
}

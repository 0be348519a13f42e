//! The files that an engine has open, and the operations that are done in place, by plain system
//! calls. Both engines share them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::{FileId, Op, OpenAs};

/// Longest run of zeroes written at once where the file system cannot make them itself.
const ZERO_PIECE: usize = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Files {
    slots: Vec<Option<Slot>>,
}

#[derive(Debug)]
struct Slot {
    file: File,
    direct: bool,
}

impl Files {
    pub(super) fn open(&mut self, path: &Path, how: OpenAs) -> io::Result<FileId> {
        let mut options = OpenOptions::new();
        options.read(true).write(how != OpenAs::ReadOnly);
        let direct = how == OpenAs::Direct;
        if direct {
            options.custom_flags(libc::O_DIRECT);
        }
        match options.open(path) {
            Ok(file) => Ok(self.add(file, direct)),
            // tmpfs and some FUSE file systems know no direct I/O; the page cache serves there.
            Err(error) if direct && error.raw_os_error() == Some(libc::EINVAL) => {
                let file = OpenOptions::new().read(true).write(true).open(path)?;
                tracing::warn!(path = %path.display(), "no direct I/O here; using the page cache");
                Ok(self.add(file, false))
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn open_dir(&mut self, path: &Path) -> io::Result<FileId> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)?;
        Ok(self.add(file, false))
    }

    fn add(&mut self, file: File, direct: bool) -> FileId {
        let slot = Some(Slot { file, direct });
        let free = self.slots.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[index] = slot;
        FileId(u32::try_from(index).unwrap_or(u32::MAX))
    }

    pub(super) fn close(&mut self, file: FileId) {
        if let Some(slot) = self.slots.get_mut(file.0 as usize) {
            *slot = None;
        }
    }

    fn slot(&self, file: FileId) -> io::Result<&Slot> {
        let slot = self.slots.get(file.0 as usize).and_then(Option::as_ref);
        slot.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    pub(super) fn get(&self, file: FileId) -> io::Result<BorrowedFd<'_>> {
        Ok(self.slot(file)?.file.as_fd())
    }

    pub(super) fn raw(&self, file: FileId) -> io::Result<RawFd> {
        Ok(self.slot(file)?.file.as_raw_fd())
    }

    pub(super) fn is_direct(&self, file: FileId) -> bool {
        self.slot(file).is_ok_and(|slot| slot.direct)
    }

    pub(super) fn size(&self, file: FileId) -> io::Result<u64> {
        let file = &self.slot(file)?.file;
        let metadata = file.metadata()?;
        if metadata.file_type().is_block_device() {
            return Ok(rustix::fs::seek(file, rustix::fs::SeekFrom::End(0))?);
        }
        Ok(metadata.len())
    }

    /// A read that is served by the page cache at once, or not at all.
    pub(super) fn try_read_cached(&self, file: FileId, offset: u64, into: &mut [u8]) -> bool {
        let Ok(fd) = self.get(file) else { return false };
        let mut parts = [io::IoSliceMut::new(into)];
        let flags = rustix::io::ReadWriteFlags::NOWAIT;
        let wanted = parts[0].len();
        rustix::io::preadv2(fd, &mut parts, offset, flags).is_ok_and(|read| read == wanted)
    }

    /// Does an operation to its end, here and now.
    pub(super) fn do_now(&self, op: &mut Op) -> io::Result<()> {
        match op {
            Op::Read { file, offset, buffer, len } => {
                let len = *len;
                let part = buffer.get_mut(..len).ok_or(io::ErrorKind::InvalidInput)?;
                self.read_all(*file, *offset, part)
            }
            Op::Write { file, offset, data } => self.write_all(*file, *offset, data),
            Op::Zero { file, offset, len, punch } => self.zero(*file, *offset, *len, *punch),
            Op::Sync { file } => Ok(rustix::fs::fdatasync(self.get(*file)?)?),
            Op::Rename { dir, from, to } => {
                let dir = self.get(*dir)?;
                rustix::fs::renameat(dir, from.as_str(), dir, to.as_str())?;
                Ok(rustix::fs::fsync(dir)?)
            }
        }
    }

    fn read_all(&self, file: FileId, mut offset: u64, mut into: &mut [u8]) -> io::Result<()> {
        let fd = self.get(file)?;
        while !into.is_empty() {
            match rustix::io::pread(fd, &mut *into, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    offset += count as u64;
                    into = into.get_mut(count..).unwrap_or_default();
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn write_all(&self, file: FileId, mut offset: u64, mut data: &[u8]) -> io::Result<()> {
        let fd = self.get(file)?;
        while !data.is_empty() {
            match rustix::io::pwrite(fd, data, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    offset += count as u64;
                    data = data.get(count..).unwrap_or_default();
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn zero(&self, file: FileId, offset: u64, len: u64, punch: bool) -> io::Result<()> {
        let fd = self.get(file)?;
        let keep = FallocateFlags::KEEP_SIZE;
        let how = if punch { FallocateFlags::PUNCH_HOLE } else { FallocateFlags::ZERO_RANGE };
        match rustix::fs::fallocate(fd, how | keep, offset, len) {
            Ok(()) => Ok(()),
            // Not every file system can; then zeroes are written like any other data.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV) => {
                self.write_zeroes(file, offset, len)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn write_zeroes(&self, file: FileId, offset: u64, len: u64) -> io::Result<()> {
        let mut zeroes = crate::buffer::IoBuf::with_len(ZERO_PIECE);
        zeroes.fill(0);
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(ZERO_PIECE as u64);
            let part = usize::try_from(piece).ok().and_then(|piece| zeroes.get(..piece));
            self.write_all(file, offset + done, part.unwrap_or_default())?;
            done += piece;
        }
        Ok(())
    }
}

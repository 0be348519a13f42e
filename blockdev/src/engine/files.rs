//! The open files of an engine, and each operation done by plain system calls.
//!
//! The portable engine does everything this way; the ring does so for what it cannot take, and
//! for small buffered writes, which it would hand to a worker thread.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::FallocateFlags;

use super::{FileId, Op, OpenAs};
use crate::buffer::{ALIGNMENT, BODY_LEN_MAX, HEAD_LEN, IoBuf};

/// Something that an engine does otherwise than it was asked, for the log of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Note {
    /// The file system takes no direct I/O.
    #[error(
        "{path}: direct I/O is refused here, the page cache is used instead; \
         durability is the same, large writes are slower"
    )]
    NotDirect {
        /// Which file.
        path: PathBuf,
    },
    /// The ring was not to be had.
    #[error("io_uring is not used: {cause}; plain system calls are, which are slower")]
    NoRing {
        /// Why.
        cause: String,
    },
}

/// Most notes that wait to be fetched; later ones repeat what the first said.
const NOTES_MAX: usize = 64;
/// How much is written at a time where the file system cannot zero by itself, in bytes.
const ZEROES_LEN: usize = 256 << 10;

/// One open file.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) file: Arc<File>,
    pub(super) how: OpenAs,
    pub(super) is_dir: bool,
}

/// The files of one engine by their numbers. A number is never given twice, so an old number
/// cannot reach a new file.
#[derive(Debug, Default)]
pub(super) struct Files {
    open: BTreeMap<u32, Open>,
    next: u32,
    notes: Vec<Note>,
}

impl Files {
    pub(super) fn open(&mut self, path: &Path, how: OpenAs) -> io::Result<FileId> {
        let mut options = OpenOptions::new();
        options.read(true).write(how != OpenAs::ReadOnly);
        let (file, how) = self.open_with(&mut options, path, how)?;
        Ok(self.insert(file, how, false))
    }

    pub(super) fn create(&mut self, path: &Path, how: OpenAs) -> io::Result<FileId> {
        let mut options = OpenOptions::new();
        // What clients wrote is nobody else's affair.
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let (file, how) = self.open_with(&mut options, path, how)?;
        Ok(self.insert(file, how, false))
    }

    pub(super) fn open_dir(&mut self, path: &Path) -> io::Result<FileId> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)?;
        Ok(self.insert(file, OpenAs::ReadOnly, true))
    }

    /// Opens directly where asked to and possible, else through the page cache, with a note.
    fn open_with(
        &mut self,
        options: &mut OpenOptions,
        path: &Path,
        how: OpenAs,
    ) -> io::Result<(File, OpenAs)> {
        match how {
            OpenAs::Direct => {}
            // Without O_CREAT, O_EXCL means something for block devices only (open(2)).
            OpenAs::Claimed => {
                return Ok((options.custom_flags(libc::O_EXCL).open(path)?, OpenAs::Buffered));
            }
            OpenAs::Buffered | OpenAs::ReadOnly => return Ok((options.open(path)?, how)),
        }
        match options.custom_flags(libc::O_DIRECT).open(path) {
            Ok(file) => Ok((file, how)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                let file = options.custom_flags(0).open(path)?;
                self.note(Note::NotDirect { path: path.into() });
                Ok((file, OpenAs::Buffered))
            }
            Err(error) => Err(error),
        }
    }

    fn insert(&mut self, file: File, how: OpenAs, is_dir: bool) -> FileId {
        let id = self.next;
        assert!(id < u32::MAX, "an engine opens fewer than 2^32 files");
        self.next += 1;
        let file = Arc::new(file);
        self.open.insert(id, Open { file, how, is_dir });
        FileId(id)
    }

    pub(super) fn note(&mut self, note: Note) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(note);
        }
    }

    pub(super) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Forgets the file; the system closes it when the last operation on it has ended.
    pub(super) fn close(&mut self, file: FileId) {
        self.open.remove(&file.0);
    }

    pub(super) fn get(&self, file: FileId) -> io::Result<&Open> {
        // The same answer that the system gives for a number that is not open.
        let closed = || io::Error::from_raw_os_error(libc::EBADF);
        self.open.get(&file.0).ok_or_else(closed)
    }

    /// A write through the page cache that is done when this returns.
    pub(super) fn keep(&self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.get(file)?.file.write_all_at(data, offset)
    }

    /// A read that is served by the page cache at once, or not at all.
    pub(super) fn try_read_cached(&self, file: FileId, offset: u64, into: &mut [u8]) -> bool {
        let Ok(open) = self.get(file) else { return false };
        let wanted = into.len();
        let mut parts = [io::IoSliceMut::new(into)];
        let flags = rustix::io::ReadWriteFlags::NOWAIT;
        rustix::io::preadv2(&open.file, &mut parts, offset, flags).is_ok_and(|read| read == wanted)
    }

    pub(super) fn size(&self, file: FileId) -> io::Result<u64> {
        let file: &File = &self.get(file)?.file;
        if file.metadata()?.file_type().is_block_device() {
            // The metadata of a device has no size, but its end can be sought.
            let mut end = file;
            return end.seek(SeekFrom::End(0));
        }
        Ok(file.metadata()?.len())
    }

    /// What [`super::Engine::extend`] says.
    pub(super) fn extend(&self, file: FileId, len: u64) -> io::Result<()> {
        let file = &self.get(file)?.file;
        let found = file.metadata()?;
        match found.is_file() {
            true if found.len() >= len => Ok(()),
            true => file.set_len(len),
            false => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The kernel's name for this boot, without its dashes.
    pub(super) fn boot() -> Option<[u8; 32]> {
        let text = std::fs::read("/proc/sys/kernel/random/boot_id").ok()?;
        let digits: Vec<u8> = text.into_iter().filter(u8::is_ascii_hexdigit).collect();
        digits.try_into().ok()
    }

    pub(super) fn create_dir(path: &Path) -> io::Result<()> {
        match std::fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            made => made?,
        }
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    }

    pub(super) fn list(dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            // A name that is no text cannot be one of ours.
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    /// What [`super::Engine::stretch`] says. Of a device, its metadata cannot tell.
    pub(super) fn stretch(&self, file: FileId, start: u64, end: u64) -> (u64, bool) {
        use rustix::fs::SeekFrom;
        let regular = |open: &&Open| open.file.metadata().is_ok_and(|found| found.is_file());
        let Some(open) = self.get(file).ok().filter(regular) else { return (end, false) };
        let seek = |how| rustix::fs::seek(&open.file, how);
        match seek(SeekFrom::Data(start)) {
            Ok(data) if data > start => (data.min(end), true),
            Ok(_) => {
                let hole = seek(SeekFrom::Hole(start)).unwrap_or(end);
                (hole.clamp(start.saturating_add(1).min(end), end), false)
            }
            // No data behind `start`.
            Err(rustix::io::Errno::NXIO) => (end, true),
            Err(_) => (end, false),
        }
    }

    /// Does `op` to its end.
    pub(super) fn perform(&self, op: &mut Op) -> io::Result<()> {
        match op {
            Op::Read { file, offset, buffer, len } => {
                let into = buffer.get_mut(..*len).ok_or(io::ErrorKind::InvalidInput)?;
                self.get(*file)?.file.read_exact_at(into, *offset)
            }
            Op::Write { file, offset, data } => {
                let open = self.get(*file)?;
                *data = suited(open.how, std::mem::take(data));
                open.file.write_all_at(data, *offset)
            }
            Op::Zero { file, offset, len, punch } => {
                zero(&self.get(*file)?.file, *offset, *len, *punch)
            }
            Op::Sync { file } => sync(self.get(*file)?),
            Op::Rename { dir, from, to } => {
                let open = self.get(*dir)?;
                rename(&open.file, from, to)?;
                sync(open)
            }
        }
    }
}

pub(super) fn rename(dir: &File, from: &str, to: &str) -> io::Result<()> {
    Ok(rustix::fs::renameat(dir, from, dir, to)?)
}

fn sync(open: &Open) -> io::Result<()> {
    if open.is_dir {
        return open.file.sync_all();
    }
    open.file.sync_data()
}

/// `data` in memory that direct I/O takes: copied only where the caller's is not aligned, which
/// on the data path it is.
pub(super) fn suited(how: OpenAs, data: Bytes) -> Bytes {
    let aligned = data.as_ptr().align_offset(ALIGNMENT) == 0;
    let whole = data.len().is_multiple_of(ALIGNMENT) && data.len() <= HEAD_LEN + BODY_LEN_MAX;
    if how != OpenAs::Direct || aligned || !whole || data.is_empty() {
        return data;
    }
    let mut copy = IoBuf::with_len(data.len());
    copy.copy_from_slice(&data);
    copy.freeze()
}

/// Zeroes by the cheapest way that the file has, down to writing them.
pub(super) fn zero(file: &File, offset: u64, len: u64, punch: bool) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    for mode in zero_modes(punch) {
        match rustix::fs::fallocate(file, *mode, offset, len) {
            Ok(()) => return Ok(()),
            Err(errno) if is_unsupported(errno.raw_os_error()) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    write_zeroes(file, offset, len)
}

/// The modes of fallocate to be tried one after the other.
pub(super) fn zero_modes(punch: bool) -> &'static [FallocateFlags] {
    const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);
    const ZERO: FallocateFlags = FallocateFlags::ZERO_RANGE.union(FallocateFlags::KEEP_SIZE);
    if punch { &[PUNCH, ZERO] } else { &[ZERO] }
}

/// Whether the error says that the file cannot do that, rather than that it failed. A device
/// answers EINVAL to a range that is not a whole number of its blocks.
pub(super) fn is_unsupported(errno: i32) -> bool {
    [libc::EOPNOTSUPP, libc::ENODEV, libc::EINVAL, libc::ENOSYS].contains(&errno)
}

pub(super) fn write_zeroes(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let (mut at, end) = (offset, offset.saturating_add(len));
    let mut zeroes = IoBuf::with_len(ZEROES_LEN);
    zeroes.fill(0);
    while at < end {
        let room = usize::try_from(end - at).unwrap_or(usize::MAX);
        let piece = &zeroes[..room.min(ZEROES_LEN)];
        file.write_all_at(piece, at)?;
        at += piece.len() as u64;
    }
    Ok(())
}

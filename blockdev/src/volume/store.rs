//! Backing stores: any regular file or block device, used in place (design §2.4).

use std::cmp::Ordering;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use hadrian_protocol::replica::{Base, VolumeGeometry};
use rustix::fs::{Advice, FlockOperation};
use rustix::io::Errno;

use crate::buffer::IoBuf;
use crate::engine::{Engine, FileId, OpenAs};

const DIGEST_PIECE: usize = 1 << 20;

/// Why a backing store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refuses.
    #[error("backing store {}: {source}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// Neither a regular file nor a block device.
    #[error("backing store {} is neither a regular file nor a block device", .0.display())]
    Kind(PathBuf),
    /// It is smaller than its volume, or, where a replica is created, of another size.
    #[error(
        "backing store {} has {found} bytes, and the volume {wanted}; correct the size in the \
         configuration, the same on every member, before the replicas are created, or make the \
         store as large again as it was", .path.display()
    )]
    Size {
        /// Which.
        path: PathBuf,
        /// Its size in bytes.
        found: u64,
        /// The size of the volume, in bytes.
        wanted: u64,
    },
    /// A device whose blocks are larger than those of the volume.
    #[error(
        "backing store {} has blocks of {found} bytes, the volume of {wanted}; \
         write block_size = {found} in the configuration before the replicas are created",
        .path.display()
    )]
    BlockSize {
        /// Which.
        path: PathBuf,
        /// Its logical block size in bytes.
        found: u32,
        /// The volume's block size in bytes.
        wanted: u32,
    },
    /// Another process has it, or the kernel: mounted, or under the device mapper.
    #[error(
        "backing store {} is in use; unmount it, or stop the process that has it (lsblk, lsof)",
        .0.display()
    )]
    Busy(PathBuf),
}

/// An open backing store, locked against other daemons.
#[derive(Debug)]
pub struct Store {
    /// None over an engine that keeps its own files, which nobody else can open.
    lock: Option<File>,
    direct: FileId,
    buffered: FileId,
    size_bytes: u64,
    is_file: bool,
}

impl Store {
    /// Opens the store at `path`, which must be as large as `geometry` says, or larger: room for a
    /// growth that has not come to its end, or never will, harms nobody.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn open<E: Engine>(
        engine: &mut E,
        path: &Path,
        geometry: VolumeGeometry,
    ) -> Result<Self, StoreError> {
        let io = |source| StoreError::Io { path: path.into(), source };
        let lock = OpenOptions::new().read(true).write(true).open(path).map_err(io)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            match error {
                Errno::WOULDBLOCK => StoreError::Busy(path.into()),
                other => io(other.into()),
            }
        })?;
        let is_file = fits(&lock, path, geometry, Ordering::Less)?;
        let direct = engine.open(path, OpenAs::Direct).map_err(io)?;
        let buffered = engine.open(path, OpenAs::Claimed).map_err(|error| {
            match Errno::from_io_error(&error) {
                Some(Errno::BUSY) => StoreError::Busy(path.into()),
                _ => io(error),
            }
        })?;
        let size_bytes = geometry.size_bytes;
        Ok(Self { lock: Some(lock), direct, buffered, size_bytes, is_file })
    }

    /// Opens a store of an engine that keeps its own files, as the storage double does.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn open_in<E: Engine>(
        engine: &mut E,
        path: &Path,
        geometry: VolumeGeometry,
    ) -> Result<Self, StoreError> {
        let io = |source| StoreError::Io { path: path.into(), source };
        let direct = engine.open(path, OpenAs::Direct).map_err(io)?;
        let buffered = engine.open(path, OpenAs::Buffered).map_err(io)?;
        let (found, wanted) = (engine.size(direct).map_err(io)?, geometry.size_bytes);
        if found < wanted {
            return Err(StoreError::Size { path: path.into(), found, wanted });
        }
        Ok(Self { lock: None, direct, buffered, size_bytes: wanted, is_file: false })
    }

    /// The volume has so many bytes from here on; the store has room for them.
    pub(super) fn resize(&mut self, size_bytes: u64) {
        self.size_bytes = self.size_bytes.max(size_bytes);
    }

    /// Size of the volume in bytes; the store has as many at least.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(super) fn direct(&self) -> FileId {
        self.direct
    }

    pub(super) fn buffered(&self) -> FileId {
        self.buffered
    }

    /// The end of the stretch of one kind that begins at `start`, and whether it is a hole. A
    /// device that cannot tell is all data.
    pub(super) fn next_region(&self, start: u64, end: u64) -> (u64, bool) {
        let Some(file) = self.lock.as_ref().filter(|_| self.is_file) else {
            return (end, false);
        };
        let seek = |how| rustix::fs::seek(file, how);
        match seek(rustix::fs::SeekFrom::Data(start)) {
            Ok(data) if data > start => (data.min(end), true),
            Ok(_) => {
                let hole = seek(rustix::fs::SeekFrom::Hole(start)).unwrap_or(end);
                (hole.clamp(start + 1, end), false)
            }
            // No data behind `start`.
            Err(Errno::NXIO) => (end, true),
            // "Hole" is a promise; a store that cannot tell gives none.
            Err(_) => (end, false),
        }
    }
}

/// Whether the store at `path` fits `geometry`, without claiming it: for `create`.
///
/// # Errors
/// [`StoreError`]
pub fn check_store(path: &Path, geometry: VolumeGeometry) -> Result<(), StoreError> {
    let io = |source| StoreError::Io { path: path.into(), source };
    let file = File::open(path).map_err(io)?;
    fits(&file, path, geometry, Ordering::Greater).map(drop)
}

/// Whether a replica that has these volumes can be opened over the store at `path`: for `check`.
///
/// # Errors
/// [`StoreError`]
pub fn check_store_in_use(path: &Path, geometry: VolumeGeometry) -> Result<(), StoreError> {
    let io = |source| StoreError::Io { path: path.into(), source };
    let file = File::open(path).map_err(io)?;
    fits(&file, path, geometry, Ordering::Less).map(drop)
}

/// Kind, size and blocks of an open store; whether it is a regular file. It must not be smaller,
/// and where `up_to` says so not larger either.
fn fits(
    file: &File,
    path: &Path,
    geometry: VolumeGeometry,
    up_to: Ordering,
) -> Result<bool, StoreError> {
    let io = |source| StoreError::Io { path: path.into(), source };
    let kind = file.metadata().map_err(io)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(StoreError::Kind(path.into()));
    }
    // Of a block device, only its end tells the size.
    let found = (&*file).seek(SeekFrom::End(0)).map_err(io)?;
    let wanted = geometry.size_bytes;
    let order = found.cmp(&wanted);
    if order == Ordering::Less || order == up_to {
        return Err(StoreError::Size { path: path.into(), found, wanted });
    }
    // Zeroing and trimming work in whole blocks of the device.
    if kind.is_block_device() {
        let wanted = geometry.block_size;
        let found = rustix::fs::ioctl_blksszget(file).map_err(|error| io(error.into()))?;
        if found > wanted {
            return Err(StoreError::BlockSize { path: path.into(), found, wanted });
        }
    }
    Ok(kind.is_file())
}

/// Makes a sparse regular file of `size_bytes` zeroes for a store that does not exist yet.
/// Returns whether it was made; an existing store is left as it is.
///
/// # Errors
/// [`StoreError`]
pub fn create_store(path: &Path, size_bytes: u64) -> Result<bool, StoreError> {
    let io = |source| StoreError::Io { path: path.into(), source };
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => {
            file.set_len(size_bytes).and_then(|()| file.sync_all()).map_err(io)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(io(error)),
    }
}

/// The content of the stores at `paths`, in order: two replicas may begin together only if theirs
/// is the same (design §8.1). Holes are skipped. `progress` hears the bytes looked at.
///
/// # Errors
/// [`StoreError`]
pub fn base_of(paths: &[PathBuf], mut progress: impl FnMut(u64)) -> Result<Base, StoreError> {
    let mut hasher = blake3::Hasher::new();
    let (mut all_zero, mut seen) = (true, 0);
    for path in paths {
        let io = |source| StoreError::Io { path: path.clone(), source };
        let mut file = File::open(path).map_err(io)?;
        let size = file.seek(SeekFrom::End(0)).map_err(io)?;
        hasher.update(&size.to_le_bytes());
        let mut piece = IoBuf::with_len(DIGEST_PIECE);
        let mut at = 0;
        while at < size {
            let data = match rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
                Ok(data) => data,
                Err(Errno::NXIO) => size,
                // A file system that knows no holes: it is all read. Any other error is one.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
                Err(error) => return Err(io(error.into())),
            };
            let skip = data.min(size) / DIGEST_PIECE as u64 * DIGEST_PIECE as u64;
            at = at.max(skip);
            if data >= size {
                break;
            }
            let len = usize::try_from(size - at).unwrap_or(DIGEST_PIECE).min(DIGEST_PIECE);
            let part = piece.get_mut(..len).unwrap_or_default();
            file.seek(SeekFrom::Start(at)).map_err(io)?;
            file.read_exact(part).map_err(io)?;
            // What a sequential read leaves in the page cache slows small writes down for good; if
            // it cannot be dropped, that is all that happens.
            let _ = rustix::fs::fadvise(&file, at, NonZeroU64::new(len as u64), Advice::DontNeed);
            // Zero pieces are left out whether they are holes or not: only content counts.
            if part.iter().any(|byte| *byte != 0) {
                all_zero = false;
                hasher.update(&at.to_le_bytes());
                hasher.update(part);
            }
            at += len as u64;
            progress(seen + at);
        }
        seen += size;
        progress(seen);
    }
    Ok(if all_zero { Base::Zero } else { Base::Digest(*hasher.finalize().as_bytes()) })
}

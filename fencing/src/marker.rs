//! One marker: a shared block device, or a file that all members reach.
//!
//! Reads and writes go past the page cache of this host, because another host changes what is
//! read; a write is durable when it returns. Where a file system cannot do that (tmpfs), files are
//! used through the page cache, which is right only while all members run on this host.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use hadrian_protocol::marks::block::Block;
use hadrian_protocol::marks::layout::{BLOCK_LEN, BlockIndex, Run};
use rustix::fs::OFlags;

/// Longest run that is read at once, in blocks: all control blocks of a place fit.
const READ_BLOCKS_MAX: usize = 64;

/// A marker that is open.
#[derive(Debug)]
pub struct Marker {
    path: PathBuf,
    file: File,
    is_direct: bool,
    buffer: Aligned,
}

/// Why a marker cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MarkerError {
    /// The system refuses.
    #[error("{path}: {source}; see that the marker exists and that this host reaches it")]
    Io {
        /// Which marker.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is neither a device nor a file.
    #[error("{path} is no block device and no file; name one of either")]
    Kind {
        /// What was named.
        path: PathBuf,
    },
}

/// Memory that starts on a page, as direct I/O wants it.
#[derive(Debug)]
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
}

impl Aligned {
    fn new() -> Self {
        let bytes = vec![0; (READ_BLOCKS_MAX + 1) * BLOCK_LEN];
        let start = bytes.as_ptr().align_offset(BLOCK_LEN);
        Self { bytes, start }
    }

    fn slice(&mut self, len: usize) -> io::Result<&mut [u8]> {
        let range = self.start..self.start.saturating_add(len);
        self.bytes.get_mut(range).ok_or_else(|| io::Error::other("a run is over the limit"))
    }
}

impl Marker {
    /// Opens the marker at `path`.
    ///
    /// # Errors
    /// [`MarkerError`]
    pub fn open(path: &Path) -> Result<Self, MarkerError> {
        let io = |source| MarkerError::Io { path: path.into(), source };
        let kind = std::fs::metadata(path).map_err(io)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(MarkerError::Kind { path: path.into() });
        }
        let open = |flags: OFlags| {
            let flags = i32::try_from(flags.bits()).unwrap_or_default();
            OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
        };
        let (file, is_direct) = match open(OFlags::DIRECT | OFlags::DSYNC) {
            Ok(file) => (file, true),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                (open(OFlags::DSYNC).map_err(io)?, false)
            }
            Err(error) => return Err(io(error)),
        };
        Ok(Self { path: path.into(), file, is_direct, buffer: Aligned::new() })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether other hosts see what is written, and this one what they write: without, it is good
    /// for members on one host only.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// How many bytes it has.
    ///
    /// # Errors
    /// The system's.
    pub fn size(&self) -> io::Result<u64> {
        use std::io::{Seek as _, SeekFrom};
        (&self.file).seek(SeekFrom::End(0))
    }

    /// What stands in these blocks.
    ///
    /// # Errors
    /// The system's; a marker that ends before is one.
    pub fn read(&mut self, run: Run) -> io::Result<&[u8]> {
        let bytes = self.buffer.slice(run.len())?;
        self.file.read_exact_at(bytes, run.first.offset())?;
        Ok(bytes)
    }

    /// Writes one block, durably.
    ///
    /// # Errors
    /// The system's; then nobody knows what stands there.
    pub fn write(&mut self, index: BlockIndex, block: &Block) -> io::Result<()> {
        let bytes = self.buffer.slice(BLOCK_LEN)?;
        bytes.copy_from_slice(block.as_bytes());
        self.file.write_all_at(bytes, index.offset())
    }

    /// Makes sure of everything, also where the device has a cache of its own.
    ///
    /// # Errors
    /// The system's.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_device_and_no_file_is_refused_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let error = Marker::open(dir.path()).unwrap_err();
        assert!(matches!(error, MarkerError::Kind { .. }), "{error}");
        let missing = Marker::open(&dir.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("none") && missing.contains("exists"), "{missing}");
    }

    #[test]
    fn a_marker_that_ends_too_early_is_an_error_and_no_zeroes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(3 * BLOCK_LEN as u64).unwrap();
        let mut marker = Marker::open(file.path()).unwrap();
        assert!(marker.read(Run { first: BlockIndex::new(2), count: 1 }).is_ok());
        assert!(marker.read(Run { first: BlockIndex::new(2), count: 2 }).is_err());
        assert!(marker.read(Run { first: BlockIndex::new(0), count: 65 }).is_err());
    }
}

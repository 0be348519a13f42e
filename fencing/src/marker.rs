//! One marker: a shared block device, or a file that all members reach.
//!
//! Reads and writes go past the page cache of this host, because another host changes what is
//! read; a write is durable when it returns. Where a file system cannot do that (tmpfs), files are
//! used through the page cache, which is right only while all members run on this host.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use hadrian_protocol::marks::block::Block;
use hadrian_protocol::marks::layout::{BLOCK_LEN, BlockIndex, Run};
use rustix::fs::OFlags;

use crate::medium::{Medium, OpenError};

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
    /// [`OpenError`]
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let place = || path.display().to_string();
        let io = |source| OpenError::Io { place: place(), source };
        let kind = std::fs::metadata(path).map_err(io)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenError::Kind { place: place() });
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
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

// A write to a device that has failed can land late only while the device's thread still waits for
// it, and that thread does nothing else: so none lands after a later one.
impl Medium for Marker {
    fn read(&mut self, run: Run) -> io::Result<Vec<u8>> {
        let bytes = self.buffer.slice(run.len())?;
        self.file.read_exact_at(bytes, run.first.offset())?;
        Ok(bytes.to_vec())
    }

    fn write(&mut self, index: BlockIndex, block: &Block) -> io::Result<()> {
        let bytes = self.buffer.slice(BLOCK_LEN)?;
        bytes.copy_from_slice(block.as_bytes());
        self.file.write_all_at(bytes, index.offset())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn size_bytes(&self) -> io::Result<Option<u64>> {
        use std::io::{Seek as _, SeekFrom};
        (&self.file).seek(SeekFrom::End(0)).map(Some)
    }

    fn is_shared(&self) -> bool {
        self.is_direct
    }

    fn reopen(&mut self) -> Result<(), OpenError> {
        *self = Self::open(&self.path)?;
        Ok(())
    }

    fn how_to_blank(&self, blocks: u64) -> String {
        let path = self.path.display();
        format!("dd if=/dev/zero of={path} bs={BLOCK_LEN} count={blocks}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_device_and_no_file_is_refused_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let error = Marker::open(dir.path()).unwrap_err();
        assert!(matches!(error, OpenError::Kind { .. }), "{error}");
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

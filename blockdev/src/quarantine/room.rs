//! How much room quarantine takes.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What lies in a quarantine.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Room {
    /// Files of any kind.
    pub files: u64,
    /// Bytes that they take on their disk.
    pub bytes: u64,
}

impl Room {
    /// What lies in that of the replica in `replica_dir`; nothing, where it has none.
    ///
    /// # Errors
    /// The system's own.
    pub fn of(replica_dir: &Path) -> io::Result<Self> {
        let entries = match fs::read_dir(replica_dir.join(super::DIR)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other?,
        };
        let mut room = Self::default();
        for entry in entries {
            match entry?.metadata() {
                Ok(found) => {
                    room.files += 1;
                    room.bytes += found.blocks() * 512;
                }
                // Removed, or given its name, since the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_there_is_counted_and_nothing_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Room::of(dir.path()).unwrap(), Room::default());
        let quarantine = dir.path().join(super::super::DIR);
        fs::create_dir(&quarantine).unwrap();
        assert_eq!(Room::of(dir.path()).unwrap(), Room::default());
        for name in ["a.frames", "b.blocks"] {
            fs::write(quarantine.join(name), vec![7; 20_000]).unwrap();
        }
        let sparse = fs::File::create(quarantine.join("hole")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        let Room { files, bytes } = Room::of(dir.path()).unwrap();
        assert_eq!(files, 3);
        assert!(bytes < 1 << 20, "a hole takes no room: {bytes}");
    }
}

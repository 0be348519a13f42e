//! Recordings of what a resource's core is told, in a file of bounded size: for whoever looks for
//! an error afterwards with `hadrian inspect --replay`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use hadrian_protocol::node::{Entry, Tape};

/// Name of the newest recording in the replica's directory; the one before it has `.1` behind.
const NAME: &str = "recording.jsonl";
/// Room that the last entry needs.
const END_LEN: u64 = 16;

/// A recording that somebody wants.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The replica's directory.
    pub dir: PathBuf,
    /// Most bytes of the file.
    pub limit: u64,
}

impl Wanted {
    /// Opens the file; the recording of the life before is kept beside it.
    ///
    /// # Errors
    /// What the system says.
    pub fn tape(&self) -> io::Result<Box<dyn Tape>> {
        let path = self.dir.join(NAME);
        match fs::rename(&path, path.with_extension("jsonl.1")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Box::new(FileTape { path, file: Some(file), left: self.limit, line: Vec::new() }))
    }
}

/// One line of JSON an entry, handed to the system before the core sees it: it survives the end
/// of this process, though not that of the host.
#[derive(Debug)]
struct FileTape {
    path: PathBuf,
    /// None: nothing more is kept.
    file: Option<File>,
    left: u64,
    line: Vec<u8>,
}

impl FileTape {
    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        self.line.clear();
        serde_json::to_writer(&mut self.line, entry)?;
        self.line.push(b'\n');
        let len = self.line.len() as u64;
        if len + END_LEN > self.left {
            serde_json::to_writer(&mut *file, &Entry::Full)?;
            file.write_all(b"\n")?;
            self.file = None;
            tracing::warn!(path = %self.path.display(), "the recording is full; it ends here");
            return Ok(());
        }
        self.left -= len;
        file.write_all(&self.line)
    }
}

impl Tape for FileTape {
    fn keep(&mut self, entry: &Entry) {
        if let Err(error) = self.write(entry) {
            self.file = None;
            let path = self.path.display();
            tracing::warn!(%path, %error, "the recording ends here; the resource goes on");
        }
    }
}

/// Reads a recording, entry by entry. The last line may be cut: its process ended in the middle.
///
/// # Errors
/// What the system says; and, entry by entry, what is wrong with the file.
pub fn read(path: &Path) -> io::Result<impl Iterator<Item = serde_json::Result<Entry>>> {
    let file = BufReader::new(File::open(path)?);
    Ok(serde_json::Deserializer::from_reader(file).into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hadrian_protocol::time::Clock;

    fn entries(dir: &Path) -> Vec<Entry> {
        read(&dir.join(NAME)).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn a_recording_ends_at_its_limit_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = Wanted { dir: dir.path().into(), limit: 400 };
        let mut tape = wanted.tape().unwrap();
        (0..100).for_each(|_| tape.keep(&Entry::Settled(Clock::default())));
        let kept = entries(dir.path());
        assert!(matches!(kept.last(), Some(Entry::Full)), "{kept:?}");
        assert!((5..100).contains(&kept.len()), "{}", kept.len());
        assert!(fs::metadata(dir.path().join(NAME)).unwrap().len() <= 400);
    }

    #[test]
    fn the_recording_of_the_life_before_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = Wanted { dir: dir.path().into(), limit: 1 << 20 };
        wanted.tape().unwrap().keep(&Entry::Settled(Clock::default()));
        let mut second = wanted.tape().unwrap();
        second.keep(&Entry::Full);
        assert_eq!(entries(dir.path()).len(), 1);
        let before: Vec<_> = read(&dir.path().join("recording.jsonl.1")).unwrap().collect();
        assert!(matches!(before[..], [Ok(Entry::Settled(_))]), "{before:?}");
    }

    #[test]
    fn a_line_that_is_cut_ends_the_recording() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        fs::write(&path, "\"full\"\n{\"settled\":{\"now\":12,\"wa").unwrap();
        let read: Vec<_> = read(&path).unwrap().collect();
        assert!(matches!(read[0], Ok(Entry::Full)));
        assert!(read[1].as_ref().is_err_and(serde_json::Error::is_eof));
    }
}

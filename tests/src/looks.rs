//! What stories look at when something was done, and commands that serve until they are stopped.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use hadrian_protocol::node::Note;
use hadrian_protocol::resync::Way;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{Cluster, Side};

/// Bytes that are compared at once.
const PART: usize = 1 << 20;

/// What a member was told to tell people, in order.
///
/// # Panics
/// If it does not answer.
#[must_use]
pub fn notes(cluster: &Cluster, side: Side) -> Vec<Note> {
    let told = cluster.told(side).unwrap_or_else(|error| panic!("{}: {error}", side.name()));
    told.into_iter().map(|told| told.note).collect()
}

/// By which ways a member has brought others up otherwise than by the log.
///
/// # Panics
/// As [`notes`].
#[must_use]
pub fn ways(cluster: &Cluster, side: Side) -> Vec<Way> {
    let way = |note: Note| match note {
        Note::Resyncs { way, .. } => Some(way),
        _ => None,
    };
    notes(cluster, side).into_iter().filter_map(way).collect()
}

/// Both have applied everything that `primary` has, and hold the same bytes.
///
/// # Panics
/// If not; with the first place.
pub fn images_are_equal(cluster: &Cluster, primary: Side) {
    let applied = cluster.await_applied(primary);
    applied.unwrap_or_else(|error| panic!("{}: {error}", primary.name()));
    let [alpha, beta] = [Side::Alpha, Side::Beta].map(|side| cluster.store_path(side));
    match first_difference(&alpha, &beta) {
        Ok(None) => {}
        other => panic!("{} and {}: {other:?}", alpha.display(), beta.display()),
    }
}

/// The first byte in which two files differ. What neither of them holds is not read: it is zeroes
/// in both, and most of a large volume.
fn first_difference(one: &Path, other: &Path) -> io::Result<Option<u64>> {
    let (one, other) = (File::open(one)?, File::open(other)?);
    let lens = [one.metadata()?.len(), other.metadata()?.len()];
    let (shorter, mut at) = (lens[0].min(lens[1]), 0);
    let mut parts = [vec![0; PART], vec![0; PART]];
    while at < shorter {
        at = next_data(&one, at)?.min(next_data(&other, at)?).min(shorter);
        let len = PART.min(usize::try_from(shorter - at).unwrap_or(PART));
        let [first, second] = parts.each_mut().map(|part| &mut part[..len]);
        one.read_exact_at(first, at)?;
        other.read_exact_at(second, at)?;
        if let Some(place) = first.iter().zip(&*second).position(|(one, other)| one != other) {
            return Ok(Some(at + place as u64));
        }
        at += len as u64;
    }
    Ok((lens[0] != lens[1]).then_some(shorter))
}

/// From where on a file holds something, at or behind a place.
fn next_data(file: &File, at: u64) -> io::Result<u64> {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        // There is nothing any more.
        Err(Errno::NXIO) => Ok(u64::MAX),
        found => Ok(found?),
    }
}

/// What a command answers to programs.
///
/// # Panics
/// If it fails, or that is no JSON.
#[must_use]
pub fn answer(cluster: &Cluster, side: Side, args: &[&str]) -> Value {
    let text = cluster.tool(side, &[args, &["--json"]].concat());
    let text = text.unwrap_or_else(|error| panic!("{args:?}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}\n{text}"))
}

/// A command that serves until it is stopped.
#[derive(Debug)]
pub struct Served {
    child: Child,
    /// What it said first.
    pub told: Value,
}

impl Served {
    /// Begins it, and waits until it says that it serves.
    ///
    /// # Panics
    /// If it does not, with the daemon's log.
    #[must_use]
    pub fn new(cluster: &Cluster, side: Side, args: &[&str]) -> Self {
        let mut command = cluster.command(side, &[args, &["--json"]].concat());
        let child = command.stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{args:?}: {error}"));
        let mut line = String::new();
        let said = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
        assert!(matches!(said, Some(Ok(_))), "{args:?}: {said:?}");
        let told = serde_json::from_str(&line).unwrap_or_else(|error| {
            let log = std::fs::read_to_string(cluster.log_path(side)).unwrap_or_default();
            panic!("{args:?}: {error}: {line}{log}")
        });
        Self { child, told }
    }

    /// Ends it in order.
    ///
    /// # Panics
    /// If it does not end in order.
    pub fn stop(mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let told = pid.map(|pid| kill_process(pid, Signal::TERM));
        let ended = self.child.wait();
        let in_order = ended.as_ref().is_ok_and(std::process::ExitStatus::success);
        assert!(matches!(told, Some(Ok(()))) && in_order, "{told:?}, {ended:?}");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Of a story that has failed; one that was stopped is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Copies what an NBD client reads into a file.
///
/// # Panics
/// If it cannot be read.
pub fn copy(uri: &str, out: &Path) {
    let out = out.display().to_string();
    let mut command = Command::new("qemu-img");
    command.args(["convert", "-f", "raw", "-O", "raw", uri, &out]);
    let ended = command.output();
    assert!(ended.as_ref().is_ok_and(|ended| ended.status.success()), "{uri}: {ended:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of 16 MiB with these bytes at these places, and holes elsewhere.
    fn file(bytes: &[(u64, u8)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(16 << 20).unwrap();
        for (at, byte) in bytes {
            file.as_file().write_all_at(&[*byte], *at).unwrap();
        }
        file
    }

    #[test]
    fn a_difference_is_found_wherever_it_is_and_zeroes_are_as_good_as_holes() {
        let one = file(&[(5 << 20, 7)]);
        let differ = |other| first_difference(one.path(), file(other).path()).unwrap();
        assert_eq!(differ(&[(5 << 20, 7)]), None);
        assert_eq!(differ(&[(5 << 20, 7), (9 << 20, 0)]), None);
        assert_eq!(differ(&[]), Some(5 << 20));
        assert_eq!(differ(&[(5 << 20, 8)]), Some(5 << 20));
        assert_eq!(differ(&[(5 << 20, 7), ((16 << 20) - 1, 1)]), Some((16 << 20) - 1));
        assert_eq!(differ(&[(0, 1), (5 << 20, 7)]), Some(0));
        let longer = file(&[(5 << 20, 7)]);
        longer.as_file().set_len(17 << 20).unwrap();
        assert_eq!(first_difference(one.path(), longer.path()).unwrap(), Some(16 << 20));
    }
}

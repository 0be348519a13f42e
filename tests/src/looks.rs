//! What stories look at when something was done, and commands that serve until they are stopped.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use hadrian_protocol::node::Note;
use hadrian_protocol::resync::Way;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::tools::run;
use crate::{Cluster, Side};

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
    let stores = [Side::Alpha, Side::Beta].map(|side| cluster.store_path(side));
    let [alpha, beta] = stores.each_ref().map(|path| path.display().to_string());
    let _ = run("cmp", &[&alpha, &beta]);
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

//! Marker files that each of two members reaches over a way of its own, which can be made to hang:
//! a server and a FUSE file for each, bound over the file's name where that member runs. Either can
//! be made to answer with errors.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hadrian_replicator::demo::{MARKER_BYTES, Place, Side};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(20);

/// Why this machine cannot have them, if so.
#[must_use]
pub fn missing() -> Option<String> {
    crate::mounted::missing().or_else(crate::namespaces::missing)
}

/// The markers, and both ways to each. All of it goes with its owner.
#[derive(Debug)]
pub struct Ways {
    dir: tempfile::TempDir,
    count: usize,
    ways: Vec<Way>,
}

/// How one side reaches one marker.
#[derive(Debug)]
struct Way {
    side: Side,
    seen: PathBuf,
    /// While this file is there, everything fails.
    fails: PathBuf,
    server: Child,
    fuse: Child,
}

impl Ways {
    /// Makes so many blank markers. Needs to be root.
    ///
    /// # Errors
    /// With what the tools say.
    pub fn new(count: usize) -> anyhow::Result<Self> {
        let mut ways = Self { dir: tempfile::tempdir()?, count, ways: Vec::new() };
        for index in 0..count {
            File::create_new(ways.marker(index))?.set_len(MARKER_BYTES)?;
            for side in [Side::Alpha, Side::Beta] {
                let way = ways.way(side, index)?;
                ways.ways.push(way);
            }
        }
        Ok(ways)
    }

    /// The markers, as the configuration names them.
    #[must_use]
    pub fn markers(&self) -> Vec<PathBuf> {
        (0..self.count).map(|index| self.marker(index)).collect()
    }

    /// A place in which each marker's name means that side's way to it.
    #[must_use]
    pub fn through(&self, side: Side, place: Place) -> Place {
        let binds = self.ways.iter().filter(|way| way.side == side).enumerate().map(|(at, way)| {
            format!("mount --bind '{}' '{}' && ", way.seen.display(), self.marker(at).display())
        });
        let script = binds.collect::<String>() + "exec \"$@\"";
        let own = ["unshare", "--mount", "sh", "-c", &script, "sh"].map(String::from);
        Place { enter: place.enter.into_iter().chain(own).collect(), ..place }
    }

    /// From now on what a side asks of this marker is not answered, until [`Ways::heal`].
    ///
    /// # Errors
    /// As the system says.
    pub fn hang(&self, side: Side, marker: usize) -> anyhow::Result<()> {
        self.signal(side, marker, Signal::STOP)
    }

    /// From now on what a side asks of this marker fails, until [`Ways::heal`].
    ///
    /// # Errors
    /// As the system says.
    pub fn fail(&self, side: Side, marker: usize) -> anyhow::Result<()> {
        File::create(&self.way_of(side, marker)?.fails)?;
        Ok(())
    }

    /// It is answered again, and what was asked meanwhile.
    ///
    /// # Errors
    /// As the system says.
    pub fn heal(&self, side: Side, marker: usize) -> anyhow::Result<()> {
        let fails = &self.way_of(side, marker)?.fails;
        if fails.exists() {
            std::fs::remove_file(fails)?;
        }
        self.signal(side, marker, Signal::CONT)
    }

    /// How many markers there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    fn signal(&self, side: Side, marker: usize, signal: Signal) -> anyhow::Result<()> {
        let child = &self.way_of(side, marker)?.fuse;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.context("it has a process")?, signal)?)
    }

    fn way_of(&self, side: Side, marker: usize) -> anyhow::Result<&Way> {
        let way = self.ways.iter().filter(|way| way.side == side).nth(marker);
        way.context("there is no such marker")
    }

    fn marker(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("marker-{index}"))
    }

    fn way(&self, side: Side, index: usize) -> anyhow::Result<Way> {
        let name = format!("{}-{index}", side.name());
        let (socket, seen) =
            (self.dir.path().join(format!("{name}.sock")), self.dir.path().join(&name));
        File::create_new(&seen)?;
        let fails = self.dir.path().join(format!("{name}.fails"));
        let server = Command::new("nbdkit")
            .args(["--foreground", "--filter=error", "--unix"])
            .arg(&socket)
            .arg("file")
            .arg(self.marker(index))
            .args(["error=EIO", "error-rate=100%"])
            .arg(format!("error-file={}", fails.display()))
            .stdin(Stdio::null())
            .spawn()
            .context("nbdkit cannot be started; `make tools` installs it")?;
        await_it(&socket, |path| path.exists())?;
        let fuse = Command::new("nbdfuse")
            .arg(&seen)
            .arg(format!("nbd+unix:///?socket={}", socket.display()))
            .stdin(Stdio::null())
            .spawn()
            .context("nbdfuse cannot be started; `make tools` installs it")?;
        let is_there = |path: &Path| path.metadata().is_ok_and(|file| file.len() == MARKER_BYTES);
        await_it(&seen, is_there)?;
        Ok(Way { side, seen, fails, server, fuse })
    }
}

/// Polling is all that can be done to another process.
fn await_it(path: &Path, is_there: impl Fn(&Path) -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_there(path) {
        if Instant::now() > deadline {
            bail!("{} does not come", path.display());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

impl Drop for Way {
    fn drop(&mut self) {
        // What has ended already needs no end.
        let _ = self.fuse.kill();
        let _ = self.fuse.wait();
        let _ = Command::new("umount").arg("--lazy").arg(&self.seen).status();
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

//! A replica as a loss of power would have left it, at many moments of its life: its device is
//! built anew from the recording of its writes, and a daemon opens what is there.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use hadrian_replicator::demo::Client;

use crate::promises::{AREA_LEN, Promises};
use crate::writes::{Change, Writes};

/// Longest that a replica may take to serve.
const PATIENCE: Duration = Duration::from_secs(30);
/// Read from the volume at once, in bytes.
const READ_LEN: usize = 1 << 20;

/// What was replayed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Replayed {
    /// Moments at which somebody was told that something is durable.
    pub moments: usize,
    /// Those at which the replica was opened.
    pub opened: usize,
}

/// Opens alpha's replica at the moments of a recording, from the mark `created` on: at every flush
/// and forced write, and wherever the client was promised something; of more than `most` moments,
/// at as many in even steps. It must start, alone, and hold what was promised.
///
/// # Errors
/// With the first moment at which it does not.
pub fn replay(programs: &Path, recording: &Path, most: usize) -> anyhow::Result<Replayed> {
    let moments = walk(recording, |_, _, _| Ok(()))?;
    let step = moments.div_ceil(most).max(1);
    let dir = tempfile::tempdir()?;
    let mut opened = 0;
    walk(recording, |number, device, promises| {
        if !number.is_multiple_of(step) {
            return Ok(());
        }
        opened += 1;
        let replica = Replica::rescue(programs, device, &dir.path().join("replica"))?;
        let told = replica.open().and_then(|found| promises.kept_by(&found));
        told.with_context(|| format!("moment {number} of {moments}"))
    })?;
    Ok(Replayed { moments, opened })
}

/// Builds the device step by step and calls `look` at every moment; how many there were.
fn walk(
    recording: &Path,
    mut look: impl FnMut(usize, &Path, &Promises) -> anyhow::Result<()>,
) -> anyhow::Result<usize> {
    let device = tempfile::NamedTempFile::new_in(recording.parent().context("a folder")?)?;
    let (mut promises, mut is_created, mut moments) = (Promises::default(), false, 0);
    for entry in Writes::open(recording)? {
        let entry = entry?;
        let mut is_moment = entry.is_point;
        match entry.change {
            Change::None => {}
            Change::Data(at, data) => device.as_file().write_all_at(&data, at)?,
            Change::Discard(at, len) => forget(device.as_file(), at, len)?,
            Change::Mark(mark) => {
                is_created |= mark == "created";
                is_moment = promises.hear(&mark)?;
            }
        }
        if is_moment && is_created {
            look(moments, device.path(), &promises)?;
            moments += 1;
        }
    }
    ensure!(moments > 0, "nothing was recorded");
    Ok(moments)
}

/// What was discarded reads as zeroes, as far as the file goes.
fn forget(device: &File, at: u64, len: u64) -> anyhow::Result<()> {
    let end = at.saturating_add(len).min(device.metadata()?.len());
    let zeroes = vec![0; READ_LEN];
    let mut at = at;
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(READ_LEN).min(READ_LEN);
        device.write_all_at(&zeroes[..len], at)?;
        at += len as u64;
    }
    Ok(())
}

/// The files of a replica, taken from a device.
struct Replica<'a> {
    programs: &'a Path,
    dir: PathBuf,
}

impl<'a> Replica<'a> {
    /// Takes the files from the file system on `device`, whose journal is replayed as a mount
    /// would.
    fn rescue(programs: &'a Path, device: &Path, dir: &Path) -> anyhow::Result<Self> {
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        fs::create_dir(dir)?;
        let copy = dir.join("device");
        fs::copy(device, &copy)?;
        let checked = Command::new("e2fsck").args(["-f", "-p"]).arg(&copy).output()?;
        // 1: it was repaired, which is what a journal is for.
        let text = String::from_utf8_lossy(&checked.stdout).into_owned();
        ensure!(matches!(checked.status.code(), Some(0 | 1)), "the file system is broken: {text}");
        let take = format!("rdump / {}", dir.display());
        let taken = Command::new("debugfs").args(["-R", &take]).arg(&copy).output()?;
        ensure!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
        fs::remove_file(copy)?;
        let replica = Self { programs, dir: dir.into() };
        fs::write(replica.path("hadrian.toml"), replica.configuration()?)?;
        Ok(replica)
    }

    fn path(&self, rest: &str) -> PathBuf {
        self.dir.join(rest)
    }

    /// That of the guest, with places of this machine. Beta is away.
    fn configuration(&self) -> anyhow::Result<String> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let dir = self.dir.display();
        Ok(format!(
            "cluster = \"lab\"\n[link]\nplaintext = true\n\
             [[member]]\nname = \"alpha\"\naddress = \"127.0.0.1:{port}\"\n\
             state_dir = \"{dir}/alpha\"\nrun_dir = \"{dir}/run\"\n\
             [[member]]\nname = \"beta\"\naddress = \"127.0.0.2:1\"\n\
             [[resource]]\nname = \"db\"\nmode = \"sync\"\nlog_size = \"64MiB\"\n\
             [[resource.volume]]\nname = \"data\"\nsize = \"16MiB\"\n\
             [resource.volume.store]\nalpha = \"{dir}/alpha.img\"\nbeta = \"{dir}/none\"\n"
        ))
    }

    fn tool(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = self.command("hadrian").args(args).output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "hadrian {args:?}: {errors}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.arg("--config").arg(self.path("hadrian.toml")).args(["--member", "alpha"]);
        command
    }

    /// Opens it as an operator would who has lost everything else; what the volume holds.
    fn open(&self) -> anyhow::Result<Vec<u8>> {
        let said = self.tool(&["--json", "inspect", "db"])?;
        let log = File::create(self.path("log"))?;
        let daemon = self.command("hadriand").stdin(Stdio::null()).stderr(log).spawn()?;
        let daemon = Daemon(daemon);
        let served = self.lead(said.contains("\"role\":\"primary\"")).and_then(|()| self.read());
        let found = served.and_then(|found| {
            // Whoever uses the store without us finds the same.
            self.tool(&["stop", "db"])?;
            let mut store = vec![0; AREA_LEN];
            File::open(self.path("alpha.img"))?.read_exact_at(&mut store, 0)?;
            ensure!(store == found, "the stopped store is not what was served");
            Ok(found)
        });
        drop(daemon);
        let log = || fs::read_to_string(self.path("log")).unwrap_or_default();
        found.with_context(|| format!("{said}{}", log()))
    }

    /// Makes it primary without anybody else.
    fn lead(&self, was_primary: bool) -> anyhow::Result<()> {
        let verb: &[&str] = match was_primary {
            true => &["start", "db", "--primary", "--force", "--yes"],
            false => &["takeover", "db", "--force", "--yes"],
        };
        self.patiently(|| self.tool(verb).map(drop))
    }

    fn read(&self) -> anyhow::Result<Vec<u8>> {
        let socket = self.path("run/db.nbd");
        let mut client = self.patiently(|| Ok(Client::connect(&socket, "db/data")?))?;
        let mut found = Vec::with_capacity(AREA_LEN);
        while found.len() < AREA_LEN {
            found.extend(client.read(found.len() as u64, READ_LEN)?);
        }
        Ok(found)
    }

    /// Tries until it can be done: the daemon has only just been started.
    fn patiently<T>(&self, mut attempt: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match attempt() {
                Ok(done) => return Ok(done),
                Err(error) if Instant::now() > deadline => bail!("not in {PATIENCE:?}: {error:#}"),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

/// Gone with its owner.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // One that has ended already needs no killing.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

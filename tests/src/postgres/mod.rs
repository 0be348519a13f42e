//! Debian's PostgreSQL on a mirrored volume: a server of the story's own, as a user of its own.

mod load;
mod session;
mod stand;

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

pub use load::{Ledger, Load};
pub use session::Session;
pub use stand::Stand;

/// The user that the package makes; the server refuses to run as root.
const USER: &str = "postgres";
/// Where Debian puts the programs of each version.
const PROGRAMS: &str = "/usr/lib/postgresql";
/// A recovery after a crash is part of it.
const PATIENCE: Duration = Duration::from_secs(120);
/// Small enough that checkpoints come often, and that the log of the server is written again and
/// again. What fails is told at once, and nothing is tried again behind it.
const SETTINGS: [&str; 9] = [
    "listen_addresses=",
    "shared_buffers=64MB",
    "max_wal_size=96MB",
    "min_wal_size=32MB",
    "checkpoint_timeout=30s",
    "restart_after_crash=off",
    "fsync=on",
    "full_page_writes=on",
    "synchronous_commit=on",
];

/// Why this machine cannot run a server on a mounted volume; `None` where it can.
#[must_use]
pub fn missing() -> Option<String> {
    let none =
        || format!("no PostgreSQL in {PROGRAMS}; `tests/install-tools postgres` installs it");
    crate::mounted::missing().or_else(|| programs().is_none().then(none))
}

/// The programs of the newest version that is installed.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir(PROGRAMS).ok()?.filter_map(Result::ok);
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.map(|entry| entry.path()).max_by_key(number)?;
    let bin = newest.join("bin");
    bin.join("postgres").exists().then_some(bin)
}

/// A running server. It goes with its owner, in no order; [`Server::stop`] stops it in order.
#[derive(Debug)]
pub struct Server {
    /// With its socket and what it has to say.
    folder: tempfile::TempDir,
    process: Option<Child>,
}

impl Server {
    /// Makes a database with checksums on every page in a mounted folder, and starts its server.
    ///
    /// # Errors
    /// With what the programs say.
    pub fn create(mounted: &Path) -> anyhow::Result<Self> {
        let data = data_in(mounted);
        fs::create_dir(&data)?;
        let (user, group) = owner()?;
        chown(&data, Some(user), Some(group))?;
        let mut initdb = as_user("initdb")?;
        initdb.args(["--data-checksums", "--auth=trust", "--no-locale", "--encoding=UTF8"]);
        run(initdb.arg("-D").arg(&data))?;
        Self::start(mounted)
    }

    /// Starts a server on the database that is in a mounted folder, and waits until it takes
    /// clients: after a crash, until it has recovered.
    ///
    /// # Errors
    /// If it does not come to that, with its log.
    pub fn start(mounted: &Path) -> anyhow::Result<Self> {
        let data = data_in(mounted);
        let folder = tempfile::tempdir()?;
        let (user, group) = owner()?;
        chown(folder.path(), Some(user), Some(group))?;
        let log = File::create(folder.path().join("log"))?;
        let mut server = as_user("postgres")?;
        server.arg("-D").arg(&data).arg("-k").arg(folder.path());
        server.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        let process = server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        let mut server = Self { folder, process: Some(process) };
        server.await_clients()?;
        Ok(server)
    }

    /// A connection of its own.
    ///
    /// # Errors
    /// The server's.
    pub fn session(&self) -> anyhow::Result<Session> {
        Session::connect(self.folder.path()).with_context(|| self.log())
    }

    /// A client program of PostgreSQL, to be connected to this server, not started yet. What it
    /// says goes nowhere.
    #[must_use]
    pub fn tool(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(programs().unwrap_or_default().join(program));
        command.env_clear().env("PGHOST", self.folder.path()).args(args);
        command.env("PGUSER", USER).env("PGDATABASE", "postgres");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Runs such a program to its end.
    ///
    /// # Errors
    /// With what it says.
    pub fn run(&self, program: &str, args: &[&str]) -> anyhow::Result<String> {
        run(self.tool(program, args).stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    /// Everything that was written down of the past: the log of the server.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Fails unless every sum that pgbench keeps is the same.
    ///
    /// # Errors
    /// With the sums.
    pub fn check_balances(&self) -> anyhow::Result<()> {
        let sums = "SELECT sum(abalance) FROM pgbench_accounts \
                    UNION ALL SELECT sum(bbalance) FROM pgbench_branches \
                    UNION ALL SELECT sum(tbalance) FROM pgbench_tellers \
                    UNION ALL SELECT sum(delta) FROM pgbench_history";
        let sums = self.session()?.ask(sums)?;
        ensure!(sums.len() == 4 && sums.iter().all(|sum| *sum == sums[0]), "balances: {sums:?}");
        Ok(())
    }

    /// Where its socket is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// How many transactions of pgbench there are.
    ///
    /// # Errors
    /// The server's.
    pub fn transactions(&self) -> anyhow::Result<u64> {
        let count = self.session()?.ask("SELECT count(*) FROM pgbench_history")?;
        Ok(count.first().context("a count")?.parse()?)
    }

    /// Looks through every table and index for what does not fit together.
    ///
    /// # Errors
    /// With what `pg_amcheck` found.
    pub fn check_pages(&self) -> anyhow::Result<()> {
        let all = ["--all", "--install-missing", "--heapallindexed", "--parent-check"];
        self.run("pg_amcheck", &all).map(drop)
    }

    /// Stops it in order.
    ///
    /// # Errors
    /// If it does not end so, with its log.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("it runs")?;
        send(&process, Signal::INT);
        let ended = await_end(&mut process)?;
        if !ended.is_some_and(|status| status.success()) {
            self.process = Some(process);
            bail!("the server ended with {ended:?}: {}", self.log());
        }
        Ok(())
    }

    fn await_clients(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        // It says so nowhere but to who connects.
        while Session::connect(self.folder.path()).is_err() {
            let ended = self.process.as_mut().and_then(|process| process.try_wait().transpose());
            ensure!(ended.is_none(), "the server ended with {ended:?}: {}", self.log());
            ensure!(Instant::now() < deadline, "the server takes no clients: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Server {
    /// As after a crash: nothing more is written. The server ends its own processes on this signal,
    /// also those that do not want to.
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        send(&process, Signal::QUIT);
        if !matches!(await_end(&mut process), Ok(Some(_))) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Reads the checksum of every page of the stopped server in a mounted folder.
///
/// # Errors
/// With what `pg_checksums` found.
pub fn check_checksums(mounted: &Path) -> anyhow::Result<String> {
    run(as_user("pg_checksums")?.arg("--check").arg("-D").arg(data_in(mounted)))
}

/// The file system's own folder belongs to root.
fn data_in(mounted: &Path) -> PathBuf {
    mounted.join("postgres")
}

fn send(process: &Child, signal: Signal) {
    let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
    // One that has ended by itself needs none.
    let _ = pid.map(|pid| kill_process(pid, signal));
}

fn await_end(process: &mut Child) -> anyhow::Result<Option<std::process::ExitStatus>> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = process.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(None)
}

/// A program as the server's user. Its process is the program itself: signals reach it.
fn as_user(program: &str) -> anyhow::Result<Command> {
    let program = programs().with_context(|| missing().unwrap_or_default())?.join(program);
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]).arg(program);
    // Folders of root are not its business.
    command.current_dir("/").env_clear().env("LC_ALL", "C");
    Ok(command)
}

fn owner() -> anyhow::Result<(u32, u32)> {
    let number = |of: &str| anyhow::Ok(run(Command::new("id").args([of, USER]))?.trim().parse()?);
    Ok((number("-u")?, number("-g")?))
}

fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

//! An etcd of Debian's package, with a folder and ports of its own. It goes with its owner.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rand::Rng as _;

const PATIENCE: Duration = Duration::from_secs(60);
/// Below those that Linux gives to whoever connects.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// Why this machine has none, if so.
#[must_use]
pub fn missing() -> Option<String> {
    let found = Command::new("etcd").arg("--version").output().is_ok();
    (!found).then(|| "etcd is not installed; `make tools` installs it".into())
}

/// An etcd on loopback, alone or one of several members.
#[derive(Debug)]
pub struct Etcd {
    name: String,
    /// All its members, as they find each other.
    members: String,
    dir: tempfile::TempDir,
    client: SocketAddr,
    peer: SocketAddr,
    tls: Option<[String; 3]>,
    /// Whom this library's own questions come from, `NAME:PASSWORD`, where somebody must.
    user: Option<String>,
    /// Most bytes that it holds, unless it is as usual.
    quota: Option<u64>,
    process: Option<Child>,
}

impl Etcd {
    /// An empty one, that answers.
    ///
    /// # Errors
    /// Where it is not installed, or does not begin to answer.
    pub fn new() -> anyhow::Result<Self> {
        Self::begin(|_| {})
    }

    /// One that holds so many bytes at most.
    ///
    /// # Errors
    /// As [`Etcd::new`].
    pub fn with_quota(bytes: u64) -> anyhow::Result<Self> {
        Self::begin(|etcd| etcd.quota = Some(bytes))
    }

    /// One that lets in whoever knows a password only; this user may use what the cluster of this
    /// name keeps there, and nothing else.
    ///
    /// # Errors
    /// As [`Etcd::new`].
    pub fn with_user((name, password): (&str, &str), cluster: &str) -> anyhow::Result<Self> {
        let mut etcd = Self::new()?;
        let (user, keys) = (format!("{name}:{password}"), format!("hadrian/{cluster}/"));
        let steps: [&[&str]; 7] = [
            &["user", "add", "root:of-the-test"],
            &["user", "grant-role", "root", "root"],
            &["role", "add", "marks"],
            &["role", "grant-permission", "marks", "readwrite", &keys, "--prefix"],
            &["user", "add", &user],
            &["user", "grant-role", name, "marks"],
            &["auth", "enable"],
        ];
        for step in steps {
            etcd.ctl(step, b"")?;
        }
        etcd.user = Some("root:of-the-test".into());
        Ok(etcd)
    }

    /// One that speaks to clients that show a certificate: files of the authority's, its own, and
    /// its key.
    ///
    /// # Errors
    /// As [`Etcd::new`].
    pub fn with_tls(files: [&Path; 3]) -> anyhow::Result<Self> {
        Self::begin(|etcd| etcd.tls = Some(files.map(|file| file.display().to_string())))
    }

    fn begin(change: impl FnOnce(&mut Self)) -> anyhow::Result<Self> {
        let mut etcd = Self::of(1)?.remove(0);
        change(&mut etcd);
        etcd.start()?;
        Ok(etcd)
    }

    /// Three members of one etcd, that answer.
    ///
    /// # Errors
    /// As [`Etcd::new`].
    pub fn three() -> anyhow::Result<Vec<Self>> {
        let mut members = Self::of(3)?;
        // None answers before a majority is there.
        members.iter_mut().try_for_each(Self::spawn)?;
        members.iter().try_for_each(Self::await_answer)?;
        Ok(members)
    }

    /// So many members that are not started yet.
    fn of(count: usize) -> anyhow::Result<Vec<Self>> {
        let mut addresses = free_addresses(2 * count)?;
        let peers = addresses.split_off(count);
        let name = |at: usize| format!("member-{at}");
        let all = peers.iter().enumerate().map(|(at, peer)| format!("{}=http://{peer}", name(at)));
        let all = all.collect::<Vec<_>>().join(",");
        let member = |(at, (client, peer))| -> anyhow::Result<Self> {
            let (dir, members) = (tempfile::tempdir()?, all.clone());
            let (name, tls, user, quota, process) = (name(at), None, None, None, None);
            Ok(Self { name, members, dir, client, peer, tls, user, quota, process })
        };
        addresses.into_iter().zip(peers.clone()).enumerate().map(member).collect()
    }

    /// Where clients find it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.client
    }

    /// The same, as the configuration names it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.client)
    }

    /// `kill -9`. What it has confirmed is in its folder.
    ///
    /// # Errors
    /// As the system says.
    pub fn kill(&mut self) -> std::io::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Starts it with what its folder holds, and waits until it answers.
    ///
    /// # Errors
    /// Where it does not.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.spawn()?;
        self.await_answer()
    }

    fn spawn(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.dir.path().join("log"))?;
        let (client, peer) = (self.endpoint(), format!("http://{}", self.peer));
        let mut command = Command::new("etcd");
        command
            .args(["--name", &self.name, "--data-dir"])
            .arg(self.dir.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &self.members]);
        if let Some([ca, certificate, key]) = &self.tls {
            command.args(["--client-cert-auth", "--trusted-ca-file", ca]);
            command.args(["--cert-file", certificate, "--key-file", key]);
        }
        if let Some(quota) = self.quota {
            command.args(["--quota-backend-bytes", &quota.to_string()]);
        }
        // Debian builds it for few kinds of processors, and it wants to hear that on the others.
        command.env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH.replace("aarch64", "arm64"));
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        self.process = Some(child.context("etcd cannot be started; `make tools` installs it")?);
        Ok(())
    }

    /// It listens before it answers. Polling is all that can be done to another process.
    fn await_answer(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let question = ["get", "nothing", "--command-timeout", "1s", "--dial-timeout", "1s"];
        while self.ctl(&question, b"").is_err() {
            if Instant::now() > deadline {
                let log = std::fs::read_to_string(self.dir.path().join("log"));
                bail!("etcd does not answer: {}", log.unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Runs `etcdctl`; what it says.
    ///
    /// # Errors
    /// What it complains of.
    pub fn ctl(&self, args: &[&str], input: &[u8]) -> anyhow::Result<String> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoint()]).args(args);
        if let Some([ca, certificate, key]) = &self.tls {
            command.args(["--cacert", ca, "--cert", certificate, "--key", key]);
        }
        if let Some(user) = &self.user {
            command.args(["--user", user]);
        }
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().context("`make tools` installs etcdctl")?;
        child.stdin.take().context("it has an input")?.write_all(input)?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("etcdctl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // What has ended already needs no end.
        let _ = self.kill();
    }
}

/// Addresses that nobody listens at. Not of those that the system gives to whoever connects: one
/// that tries to reach etcd while that is down could meet itself there.
fn free_addresses(count: usize) -> std::io::Result<Vec<SocketAddr>> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let port = rand::rng().random_range(PORTS);
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(listener) => taken.push(listener),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    taken.iter().map(TcpListener::local_addr).collect()
}

//! Three members on this host with one marker that all of them reach.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use hadrian_protocol::node::{NodeStatus, StandbyState};
use hadrian_replicator::control::{self, Request, Response};
use hadrian_replicator::demo::{Client, MARKER_BYTES};

use crate::fencing::TIMING;

const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];
const PATIENCE: Duration = Duration::from_secs(60);
const EXPORT: &str = "db/data";

/// A member by its place in the configuration.
pub type Member = usize;

/// The cluster. Its processes and files go with it.
#[derive(Debug)]
pub struct Trio {
    dir: tempfile::TempDir,
    programs: PathBuf,
    daemons: [Option<Child>; 3],
}

impl Trio {
    /// Three members: alpha leads, beta is in sync and takes over by itself, gamma follows.
    ///
    /// # Errors
    /// With what went wrong.
    pub fn new(programs: &Path) -> anyhow::Result<Self> {
        // Beside the build, where files can be read past the page cache.
        let dir = tempfile::tempdir_in(programs)?;
        let mut trio = Self { dir, programs: programs.into(), daemons: [None, None, None] };
        File::create(trio.path("marker"))?.set_len(MARKER_BYTES)?;
        fs::write(trio.path("hadrian.toml"), trio.configuration()?)?;
        trio.tool(0, &["mark", "format"])?;
        for (member, name) in NAMES.iter().enumerate() {
            fs::create_dir_all(trio.path(name))?;
            trio.tool(member, &["create", "db"])?;
            trio.start(member)?;
        }
        trio.await_followed(0, &[1, 2])?;
        Ok(trio)
    }

    fn path(&self, rest: &str) -> PathBuf {
        self.dir.path().join(rest)
    }

    fn configuration(&self) -> anyhow::Result<String> {
        let times = [TIMING.lease, TIMING.renew, TIMING.io].map(|time| time.as_millis());
        let [lease, renew, io] = times;
        let mut text = format!(
            "cluster = \"test\"\n\
             fencing = {{ marks = [{:?}], lease = \"{lease}ms\", renew_interval = \"{renew}ms\", \
             io_timeout = \"{io}ms\" }}\n[link]\nplaintext = true\ntimeout = \"1s\"\n",
            self.path("marker")
        );
        // Held until the file is written, so that each gets another port.
        let listeners: Vec<_> = NAMES
            .iter()
            .map(|_| std::net::TcpListener::bind("127.0.0.1:0"))
            .collect::<Result<_, _>>()?;
        let mut stores = String::new();
        for (name, listener) in NAMES.iter().zip(&listeners) {
            let (home, address) = (self.path(name), listener.local_addr()?);
            let home = home.display();
            text += &format!(
                "[[member]]\nname = \"{name}\"\naddress = \"{address}\"\n\
                 state_dir = \"{home}/state\"\nrun_dir = \"{home}/run\"\n"
            );
            stores += &format!("{name} = \"{home}/store\"\n");
        }
        text += "[[resource]]\nname = \"db\"\nprimary = \"alpha\"\nlog_size = \"64MiB\"\n\
                 auto_takeover = true\npeer_window = \"1s\"\n[[resource.volume]]\nname = \"data\"\n\
                 size = \"64MiB\"\n[resource.volume.store]\n";
        Ok(text + &stores)
    }

    fn command(&self, program: &str, member: Member) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.arg("--config").arg(self.path("hadrian.toml"));
        command.args(["--member", NAMES[member]]);
        command
    }

    /// Runs `hadrian` for a member.
    ///
    /// # Errors
    /// With what it complains of.
    pub fn tool(&self, member: Member, args: &[&str]) -> anyhow::Result<String> {
        let output = self.command("hadrian", member).args(args).output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "hadrian {args:?}: {errors}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts a member's daemon.
    ///
    /// # Errors
    /// As the system says.
    pub fn start(&mut self, member: Member) -> anyhow::Result<()> {
        let log = self.path(NAMES[member]).join("log");
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = self.command("hadriand", member);
        self.daemons[member] = Some(command.stdin(Stdio::null()).stderr(log).spawn()?);
        Ok(())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// As the system says.
    pub fn kill(&mut self, member: Member) -> anyhow::Result<()> {
        let mut daemon = self.daemons[member].take().context("it does not run")?;
        daemon.kill()?;
        daemon.wait()?;
        Ok(())
    }

    fn socket(&self, member: Member, kind: &str) -> PathBuf {
        self.path(NAMES[member]).join("run").join(kind)
    }

    /// What a member's node says, where its daemon answers.
    #[must_use]
    pub fn node(&self, member: Member) -> Option<NodeStatus> {
        let socket = self.socket(member, &format!("{}.control", NAMES[member]));
        match control::ask(&socket, Request::Status { resource: None }) {
            Ok(Response::Status(all)) => all.into_iter().next()?.node,
            _ => None,
        }
    }

    /// A client of a member, if that serves now.
    #[must_use]
    pub fn try_client(&self, member: Member) -> Option<Client> {
        Client::connect(&self.socket(member, "db.nbd"), EXPORT).ok()
    }

    /// Waits for the first of these members that serves; a client of it.
    ///
    /// # Errors
    /// If none does, with what all of them say.
    pub fn await_one(&self, members: &[Member]) -> anyhow::Result<(Member, Client)> {
        self.patiently("one of them serves", || {
            members.iter().find_map(|member| Some((*member, self.try_client(*member)?)))
        })
    }

    /// Waits until these follow `primary`, the first of them in peer, and each has all of its log.
    ///
    /// # Errors
    /// If they do not, with what all of them say.
    pub fn await_followed(&self, primary: Member, standbys: &[Member]) -> anyhow::Result<()> {
        let follows = |standby: Member, end| {
            let node = self.node(standby)?;
            let leads = node.leader.is_some_and(|leader| usize::from(leader.index()) == primary);
            let in_peer = node.state == Some(StandbyState::Peer);
            (leads && node.end == end && (in_peer || standby != standbys[0])).then_some(())
        };
        self.patiently("they follow it", || {
            let node = self.node(primary)?;
            let in_peer = node.peers.iter().any(|peer| {
                usize::from(peer.member.index()) == standbys[0]
                    && peer.state == Some(StandbyState::Peer)
            });
            let all = standbys.iter().all(|standby| follows(*standby, node.end).is_some());
            (in_peer && all).then_some(())
        })
    }

    /// Asks until it is so; polling is all that can be done to another process.
    fn patiently<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            if Instant::now() > deadline {
                let log = |name| fs::read_to_string(self.path(name).join("log"));
                let all = NAMES.iter().enumerate().map(|(member, name)| {
                    let log = log(name).unwrap_or_default();
                    format!("{:?}\n{log}", self.node(member))
                });
                bail!("never: {what}\n{}", all.collect::<Vec<_>>().join("\n---\n"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Trio {
    fn drop(&mut self) {
        for member in 0..NAMES.len() {
            // One that does not run needs no end.
            let _ = self.kill(member);
        }
    }
}

//! Two members on loopback, each with directories of its own, TLS between them.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hadrian_protocol::marks::lease::Timing;
use hadrian_protocol::node::{NodeStatus, StandbyState};
use hadrian_protocol::replica::Mode;
use rustix::process::{Pid, Signal, kill_process};

use super::client::Client;
use crate::control::{self, Request, ResourceStatus, Response};
use crate::driver::{Compression, ToldEvent};
use crate::tls;

/// Name of the first resource; further ones have a number behind it.
const RESOURCE: &str = "db";
/// Name of the one volume of each.
const VOLUME: &str = "data";
const NAMES: [&str; 2] = ["alpha", "beta"];
const PATIENCE: Duration = Duration::from_secs(60);
/// Room for the places that `hadrian mark format` makes unless it is told otherwise.
pub const MARKER_BYTES: u64 = 17 << 20;

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The first primary.
    Alpha,
    /// The first standby.
    Beta,
}

impl Side {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        if self == Self::Alpha { Self::Beta } else { Self::Alpha }
    }

    fn index(self) -> usize {
        usize::from(self == Self::Beta)
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES[self.index()]
    }
}

/// Where a member runs.
#[derive(Clone, Debug)]
pub struct Place {
    /// The address of its link, without a port.
    pub address: String,
    /// Words in front of its daemon's command, that enter the place.
    pub enter: Vec<String>,
}

/// What kind of cluster.
#[derive(Clone, Debug)]
pub struct Spec {
    /// When a write is answered.
    pub mode: Mode,
    /// How many resources there are: `db`, `db2` and so on, all alike, each with one volume.
    pub resource_count: usize,
    /// Size of the volume, in bytes.
    pub volume_bytes: u64,
    /// Size of each log, in bytes.
    pub log_bytes: u64,
    /// Whether frames are compressed between the two.
    pub compression: Compression,
    /// Block size of the volume, in bytes.
    pub block_size: u32,
    /// Whether it is served over TCP on loopback as well.
    pub tcp: bool,
    /// Whether the two speak without TLS.
    pub plaintext: bool,
    /// Silence that ends a link, and how long answers are held then; `None`: as configured.
    pub timers: Option<(Duration, Duration)>,
    /// Ownership marks on these files, which both members reach, blank and of at least
    /// [`MARKER_BYTES`]; none: there are no marks.
    pub markers: Vec<PathBuf>,
    /// Or in an etcd at these addresses, which both members reach under the same; none: there is
    /// none.
    pub etcd: Vec<String>,
    /// The times of leases on them.
    pub lease: Timing,
    /// Further entries of `fencing`, each behind a comma.
    pub fencing: String,
    /// Further lines of each resource's configuration.
    pub settings: String,
    /// Further lines of the resource of each number.
    pub each: Vec<String>,
    /// The folder for the files of both; `None`: where the system has temporary ones.
    pub folder: Option<PathBuf>,
    /// Where each member runs; `None`: here, with links on loopback.
    pub places: Option<[Place; 2]>,
}

impl Spec {
    /// A small cluster in `mode`: 64 MiB of volume and as much log, blocks of 512 bytes, no
    /// compression, unix sockets only.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            resource_count: 1,
            volume_bytes: 64 << 20,
            log_bytes: 64 << 20,
            compression: Compression::None,
            block_size: 512,
            tcp: false,
            plaintext: false,
            timers: None,
            markers: Vec::new(),
            etcd: Vec::new(),
            lease: Timing::DEFAULT,
            fencing: String::new(),
            settings: String::new(),
            each: Vec::new(),
            folder: None,
            places: None,
        }
    }
}

/// A running cluster; its processes and files go with it.
#[derive(Debug)]
pub struct Cluster {
    dir: tempfile::TempDir,
    daemons: [Option<Child>; 2],
    resources: Vec<String>,
    programs: PathBuf,
    /// Ports of NBD over TCP, where it was asked for.
    ports: Option<[u16; 2]>,
    /// What enters the place of each.
    enter: [Vec<String>; 2],
}

impl Cluster {
    /// Makes keys, configuration and replicas, and starts both daemons.
    ///
    /// `programs` is the folder of the two binaries.
    ///
    /// # Errors
    /// With what went wrong.
    pub fn new(programs: &Path, spec: Spec) -> anyhow::Result<Self> {
        let dir = match &spec.folder {
            Some(folder) => tempfile::tempdir_in(folder)?,
            None => tempfile::tempdir()?,
        };
        let ports = if spec.tcp { Some([free_port()?, free_port()?]) } else { None };
        let programs = programs.to_path_buf();
        let enter = spec
            .places
            .clone()
            .map_or_else(Default::default, |places| places.map(|place| place.enter));
        let further = (2..=spec.resource_count).map(|number| format!("{RESOURCE}{number}"));
        let resources = std::iter::once(RESOURCE.to_string()).chain(further).collect();
        let daemons = [None, None];
        let mut cluster = Self { dir, daemons, resources, programs, ports, enter };
        cluster.configure(&spec)?;
        if !spec.markers.is_empty() || !spec.etcd.is_empty() {
            cluster.tool(Side::Alpha, &["mark", "format"])?;
        }
        for side in [Side::Alpha, Side::Beta] {
            for resource in &cluster.resources {
                cluster.tool(side, &["create", resource])?;
            }
            cluster.start(side)?;
        }
        cluster.await_peer(Side::Alpha)?;
        Ok(cluster)
    }

    fn path(&self, rest: &str) -> PathBuf {
        self.dir.path().join(rest)
    }

    fn configure(&self, spec: &Spec) -> anyhow::Result<()> {
        let packing = if spec.compression == Compression::Zstd { "zstd" } else { "none" };
        let mut text = format!("cluster = \"test\"\n{}", fencing_of(spec));
        text += &format!("[link]\ncompression = \"{packing}\"\n");
        text += &format!("plaintext = {}\n", spec.plaintext);
        let mut settings = spec.settings.clone();
        if let Some((timeout, held)) = spec.timers {
            text += &format!("timeout = \"{}ms\"\n", timeout.as_millis());
            settings += &format!("peer_window = \"{}ms\"\n", held.as_millis());
        }
        let keys = self.path("keys");
        for (index, name) in NAMES.into_iter().enumerate() {
            let home = self.path(name);
            fs::create_dir_all(&home)?;
            let (home, keys) = (home.display(), keys.display());
            let print = match spec.plaintext {
                true => String::new(),
                false => {
                    format!("fingerprint = \"{}\"\n", tls::generate(&self.path("keys"), name)?)
                }
            };
            let port = free_port()?;
            let host = spec.places.as_ref().map_or("127.0.0.1", |places| &places[index].address);
            text += &format!(
                "[[member]]\nname = \"{name}\"\naddress = \"{host}:{port}\"\n\
                 {print}state_dir = \"{home}/state\"\n\
                 run_dir = \"{home}/run\"\nkey_dir = \"{keys}\"\n"
            );
        }
        for (index, resource) in self.resources.iter().enumerate() {
            let own = spec.each.get(index).map_or("", String::as_str);
            let settings = format!("{settings}{own}");
            text += &self.configuration_of(spec, index, resource, &settings);
        }
        fs::write(self.path("hadrian.toml"), text)?;
        Ok(())
    }

    fn configuration_of(&self, spec: &Spec, index: usize, name: &str, settings: &str) -> String {
        let Spec { mode, volume_bytes, log_bytes, block_size, .. } = *spec;
        let mode = mode.name();
        let tcp = self.ports.filter(|_| index == 0).map_or_else(String::new, |[alpha, beta]| {
            format!("nbd = {{ alpha = \"127.0.0.1:{alpha}\", beta = \"127.0.0.1:{beta}\" }}\n")
        });
        let store = |side: Side| {
            let path = self.store_path_of(side, index);
            format!("{} = \"{}\"\n", side.name(), path.display())
        };
        format!(
            "[[resource]]\nname = \"{name}\"\nmode = \"{mode}\"\nlog_size = \"{log_bytes}B\"\n\
             {settings}{tcp}[[resource.volume]]\nname = \"{VOLUME}\"\nsize = \"{volume_bytes}B\"\n\
             block_size = {block_size}\n[resource.volume.store]\n{}{}",
            store(Side::Alpha),
            store(Side::Beta)
        )
    }

    /// Runs `hadrian` for one side; its output where it succeeds.
    ///
    /// # Errors
    /// With what it wrote to standard error.
    pub fn tool(&self, side: Side, args: &[&str]) -> anyhow::Result<String> {
        let output = self.command(side, args).output();
        let output = output.context("the program hadrian is not built")?;
        if !output.status.success() {
            bail!("hadrian {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// `hadrian` for one side, not started yet.
    #[must_use]
    pub fn command(&self, side: Side, args: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("hadrian"));
        let config = self.path("hadrian.toml");
        command.arg("--config").arg(config).args(["--member", side.name()]).args(args);
        command
    }

    /// Starts a side's daemon.
    ///
    /// # Errors
    /// As the system says.
    pub fn start(&mut self, side: Side) -> anyhow::Result<()> {
        let log =
            File::options().create(true).append(true).open(self.path(side.name()).join("log"))?;
        let daemon = self.programs.join("hadriand");
        let mut command = match &self.enter[side.index()][..] {
            [] => Command::new(daemon),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(daemon);
                command
            }
        };
        let child = command
            .arg("--config")
            .arg(self.path("hadrian.toml"))
            .args(["--member", side.name()])
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .context("the program hadriand is not built")?;
        self.daemons[side.index()] = Some(child);
        Ok(())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// As the system says.
    pub fn kill(&mut self, side: Side) -> io::Result<()> {
        if let Some(mut child) = self.daemons[side.index()].take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Stops a daemon as systemd would, and waits for its end.
    ///
    /// # Errors
    /// As the system says.
    pub fn terminate(&mut self, side: Side) -> anyhow::Result<()> {
        if self.pid(side).is_some() {
            self.signal(side, Signal::TERM)?;
        }
        if let Some(mut child) = self.daemons[side.index()].take() {
            child.wait()?;
        }
        Ok(())
    }

    /// Sends a signal to a daemon: STOP lets it stand still, connected as it is.
    ///
    /// # Errors
    /// As the system says, and where it does not run.
    pub fn signal(&self, side: Side, signal: Signal) -> anyhow::Result<()> {
        let pid = self.pid(side).and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        Ok(kill_process(pid.context("the daemon does not run")?, signal)?)
    }

    /// The process of a side's daemon, where it runs.
    #[must_use]
    pub fn pid(&self, side: Side) -> Option<u32> {
        self.daemons[side.index()].as_ref().map(Child::id)
    }

    fn socket(&self, side: Side, kind: &str) -> PathBuf {
        self.path(side.name()).join("run").join(kind)
    }

    /// The folder of one side's superblock, log and recording.
    #[must_use]
    pub fn replica_dir(&self, side: Side) -> PathBuf {
        self.path(side.name()).join("state/db")
    }

    /// The side's NBD socket of the first resource.
    #[must_use]
    pub fn nbd_socket(&self, side: Side) -> PathBuf {
        self.nbd_socket_of(side, 0)
    }

    /// The side's NBD socket of the resource of this number, counted from 0.
    ///
    /// # Panics
    /// If there are not so many.
    #[must_use]
    pub fn nbd_socket_of(&self, side: Side, index: usize) -> PathBuf {
        self.socket(side, &format!("{}.nbd", self.resources[index]))
    }

    /// The name under which the volume of the resource of this number is exported.
    ///
    /// # Panics
    /// If there are not so many.
    #[must_use]
    pub fn export_of(&self, index: usize) -> String {
        format!("{}/{VOLUME}", self.resources[index])
    }

    /// Where the volume is for any NBD client, on a unix socket.
    #[must_use]
    pub fn uri(&self, side: Side) -> String {
        format!("nbd+unix:///{}?socket={}", self.export_of(0), self.nbd_socket(side).display())
    }

    /// Where the volume is for any NBD client, over TCP; `None` where that was not asked for.
    #[must_use]
    pub fn tcp_uri(&self, side: Side) -> Option<String> {
        let port = self.ports?[side.index()];
        Some(format!("nbd://127.0.0.1:{port}/{}", self.export_of(0)))
    }

    /// A client of a side, as soon as it serves.
    ///
    /// # Errors
    /// If it does not begin to.
    pub fn client(&self, side: Side) -> anyhow::Result<Client> {
        self.client_of(side, 0)
    }

    /// The same for the resource of this number.
    ///
    /// # Errors
    /// If it does not begin to.
    pub fn client_of(&self, side: Side, index: usize) -> anyhow::Result<Client> {
        let (path, export) = (self.nbd_socket_of(side, index), self.export_of(index));
        self.patiently(side, "serves", || Ok(Client::connect(&path, &export).ok()))
    }

    /// The side's status of the first resource, where its daemon answers.
    #[must_use]
    pub fn status(&self, side: Side) -> Option<ResourceStatus> {
        self.statuses(side).into_iter().next()
    }

    /// The side's status of every resource; of none where its daemon does not answer.
    #[must_use]
    pub fn statuses(&self, side: Side) -> Vec<ResourceStatus> {
        let socket = self.socket(side, &format!("{}.control", side.name()));
        match control::ask(&socket, Request::Status { resource: None }) {
            Ok(Response::Status(all)) => all,
            _ => Vec::new(),
        }
    }

    /// What the nodes of every resource say on both sides, `first` before the other; where one
    /// does not run, nothing.
    fn nodes(&self, first: Side) -> Option<Vec<(NodeStatus, NodeStatus)>> {
        let of = |side| self.statuses(side).into_iter().map(|status| status.node);
        let pairs: Vec<_> = of(first)
            .zip(of(first.other()))
            .map(|(ours, theirs)| ours.zip(theirs))
            .collect::<Option<_>>()?;
        (pairs.len() == self.resources.len()).then_some(pairs)
    }

    /// Waits until `primary` has its standby in `peer` in every resource (in superasync: connected
    /// and caught up).
    ///
    /// # Errors
    /// If that does not happen, with the status and the logs.
    pub fn await_peer(&self, primary: Side) -> anyhow::Result<()> {
        // The standby hears of it a moment after the primary has decided it.
        let is_done = |(ours, theirs): &(NodeStatus, NodeStatus)| {
            let knows = theirs.state == Some(StandbyState::Peer);
            is_peer(ours) && knows || is_caught_up(ours)
        };
        self.patiently(primary, "has its standby in peer", || {
            let nodes = self.nodes(primary);
            Ok(nodes.filter(|nodes| nodes.iter().all(is_done)).map(drop))
        })
    }

    /// Waits until both backing stores hold everything that `primary` has in its log, in every
    /// resource. Only while nobody writes.
    ///
    /// # Errors
    /// If that does not happen, with the status and the logs.
    pub fn await_applied(&self, primary: Side) -> anyhow::Result<()> {
        let is_done = |(ours, theirs): &(NodeStatus, NodeStatus)| {
            ours.applied == ours.end && theirs.applied == ours.end
        };
        self.patiently(primary, "has everything applied on both sides", || {
            let nodes = self.nodes(primary);
            Ok(nodes.filter(|nodes| nodes.iter().all(is_done)).map(drop))
        })
    }

    /// Waits until a side's own stores hold everything that is in its log, whatever the other side
    /// does. Only while nobody writes, and with one resource.
    ///
    /// # Errors
    /// If that does not happen, with the status and the logs.
    pub fn await_applied_here(&self, side: Side) -> anyhow::Result<()> {
        self.patiently(side, "has everything applied", || {
            let node = self.status(side).and_then(|status| status.node);
            Ok(node.filter(|node| node.applied == node.end).map(drop))
        })
    }

    /// Waits until `hadrian status` on a side says `words`.
    ///
    /// # Errors
    /// If it does not come to say so, with the status and the logs.
    pub fn await_status(&self, side: Side, words: &str) -> anyhow::Result<()> {
        self.patiently(side, words, || {
            let text = self.tool(side, &["status"]).unwrap_or_default();
            Ok(text.contains(words).then_some(()))
        })
    }

    /// Asks until it happens; polling is all that can be done to another process.
    fn patiently<T>(
        &self,
        side: Side,
        what: &str,
        mut look: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            if Instant::now() > deadline {
                let logs: Vec<_> = NAMES
                    .iter()
                    .map(|name| fs::read_to_string(self.path(name).join("log")).unwrap_or_default())
                    .collect();
                bail!("{side:?} never {what}: {:?}\n{}", self.status(side), logs.join("\n---\n"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What people were told on a side, oldest first.
    ///
    /// # Errors
    /// If its daemon does not answer.
    pub fn told(&self, side: Side) -> anyhow::Result<Vec<ToldEvent>> {
        let socket = self.socket(side, &format!("{}.control", side.name()));
        let request = Request::Events { resource: RESOURCE.into(), after: 0 };
        match control::ask(&socket, request)? {
            Response::Events(all) => Ok(all),
            other => bail!("the daemon answered {other:?}"),
        }
    }

    /// Throws the replica of a side away, with its backing store, and makes it again, empty. Its
    /// daemon does not run then.
    ///
    /// # Errors
    /// With what went wrong.
    pub fn make_anew(&mut self, side: Side, options: &[&str]) -> anyhow::Result<()> {
        self.terminate(side)?;
        fs::remove_dir_all(self.replica_dir(side))?;
        fs::remove_file(self.store_path(side))?;
        let create: Vec<_> = ["create", RESOURCE].iter().chain(options).copied().collect();
        self.tool(side, &create).map(drop)
    }

    /// What a side's daemon has logged.
    #[must_use]
    pub fn log_path(&self, side: Side) -> PathBuf {
        self.path(side.name()).join("log")
    }

    /// The content of a side's backing store; whole after its daemon was stopped in order.
    ///
    /// # Errors
    /// As the system says.
    pub fn store(&self, side: Side) -> io::Result<Vec<u8>> {
        fs::read(self.store_path(side))
    }

    /// The side's backing store of the first resource.
    #[must_use]
    pub fn store_path(&self, side: Side) -> PathBuf {
        self.store_path_of(side, 0)
    }

    fn store_path_of(&self, side: Side, index: usize) -> PathBuf {
        let home = self.path(side.name());
        match index {
            0 => home.join("store"),
            _ => home.join(format!("store{}", index + 1)),
        }
    }
}

/// The part of the configuration that names the markers, or etcd.
fn fencing_of(spec: &Spec) -> String {
    let places = match (spec.markers.is_empty(), spec.etcd.is_empty()) {
        (false, _) => format!("marks = {:?}", spec.markers),
        (true, false) => format!("etcd = {:?}", spec.etcd),
        (true, true) => return String::new(),
    };
    let Timing { lease, renew, io, .. } = spec.lease;
    format!(
        "fencing = {{ {places}, lease = \"{}ms\", renew_interval = \"{}ms\", \
         io_timeout = \"{}ms\"{} }}\n",
        lease.as_millis(),
        renew.as_millis(),
        io.as_millis(),
        spec.fencing
    )
}

fn is_peer(node: &NodeStatus) -> bool {
    node.peers.iter().all(|peer| peer.state == Some(StandbyState::Peer))
}

fn is_caught_up(node: &NodeStatus) -> bool {
    node.mode == Mode::Superasync && node.peers.iter().all(|peer| peer.received == Some(node.end))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for side in [Side::Alpha, Side::Beta] {
            // A process that is gone already needs no killing.
            let _ = self.kill(side);
        }
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

//! The daemon: starts the resources of one member, lets members and operators in, and stops all
//! of it in order.

mod back;
mod past;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hadrian_blockdev::replica::ReplicaError;
use hadrian_blockdev::superblock::{Label, LabelTooLong};
use hadrian_protocol::node::{Command, Denied, Done, Event, LeaseConfig, NodeConfig, RecordKind};
use hadrian_protocol::point::PointName;
use hadrian_protocol::wire::{PREAMBLE_LEN, Preamble};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};

use crate::config::{Config, ConfigError, Fencing, Member, Resource};
use crate::control::{
    self, FencingStatus, Handler, QuarantineStatus, Request, ResourceStatus, Response,
};
use crate::driver::{
    Ask, ResourceHandle, ResourceOptions, ResourceStart, SeedWish, Share, Starting, TcpStreamParts,
    start,
};
use crate::hooks::{self, Hooks};
use crate::marks::{KeepError, Keeping};
use crate::recording;
use crate::tls::{Fingerprint, LinkKeys, TlsError, pair_paths};
use crate::views::Views;

/// Longest that a caller may take to say what it wants.
pub const INTRODUCTION: Duration = Duration::from_secs(5);
/// Longest that a stop may take before the daemon ends anyway; the log keeps everything. What waits
/// for the backing stores, two gibibytes at most, is brought into them before.
pub const STOP_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of log that large changes may take while they wait for the backing stores: a burst of so
/// many is stored once. More would make stops and restarts long.
const HELD_BYTES: u64 = 2 << 30;

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] TlsError),
    /// The pair on this host is not the configured one.
    #[error(
        "{} has the fingerprint {own}, the configuration pins {pinned} for {member}; paste the \
         line that hadrian keygen printed, or bring back the pair", .certificate.display()
    )]
    Pinned {
        /// This host's certificate.
        certificate: PathBuf,
        /// This member.
        member: String,
        /// What it has.
        own: Fingerprint,
        /// What everybody else expects.
        pinned: Fingerprint,
    },
    /// No such member.
    #[error("{0:?} is no member of this cluster; members are {1}")]
    Member(String, String),
    /// The names of cluster and member.
    #[error(transparent)]
    Label(#[from] LabelTooLong),
    /// The lease, or the watchdog.
    #[error(transparent)]
    Marks(#[from] KeepError),
    /// A socket or directory.
    #[error("{what}: {source}")]
    Io {
        /// Which.
        what: String,
        /// What the system says.
        source: std::io::Error,
    },
}

impl DaemonError {
    /// Whether trying again is of no use until somebody has changed configuration or keys.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        !matches!(self, Self::Io { .. } | Self::Marks(_))
    }
}

struct Daemon {
    config: Config,
    me: Member,
    label: Label,
    keys: Arc<LinkKeys>,
    marks: Option<Keeping>,
    views: Views,
    // Held only to look up or replace a handle; never on the data path.
    running: Mutex<BTreeMap<String, Result<ResourceHandle, String>>>,
}

/// Runs until it is told to stop.
///
/// # Errors
/// [`DaemonError`], before anything is served.
pub fn run(config: &Path, member: &str) -> Result<(), DaemonError> {
    let config = Config::load(config)?;
    let me = config.member(member).cloned().ok_or_else(|| {
        let names: Vec<_> = config.members.iter().map(|member| member.name.as_str()).collect();
        DaemonError::Member(member.into(), names.join(", "))
    })?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let keys = Arc::new(load_keys(&config, &me)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| DaemonError::Io { what: "runtime".into(), source })?;
    let running = Mutex::new(BTreeMap::new());
    let marks = Keeping::start(&config, &me)?;
    let label = config.label(&me)?;
    let daemon =
        Arc::new(Daemon { config, me, label, keys, marks, views: Views::default(), running });
    LocalSet::new().block_on(&runtime, daemon.serve())
}

/// This member's key pair, which must be the one that the configuration pins for it: with another
/// one every other member would turn it away.
pub(crate) fn load_keys(config: &Config, me: &Member) -> Result<LinkKeys, DaemonError> {
    if config.plaintext {
        return Ok(LinkKeys::plaintext());
    }
    let (key, certificate) = pair_paths(&me.key_dir, &me.name);
    let pinned = config.members.iter().filter_map(|member| Some((member.id, member.fingerprint?)));
    let keys = LinkKeys::load(&key, &certificate, pinned.collect())?;
    match (keys.own(), me.fingerprint) {
        (Some(own), Some(pinned)) if own != pinned => {
            Err(DaemonError::Pinned { certificate, member: me.name.clone(), own, pinned })
        }
        _ => Ok(keys),
    }
}

impl Daemon {
    async fn serve(self: Arc<Self>) -> Result<(), DaemonError> {
        let io = |what: String| move |source| DaemonError::Io { what, source };
        let run_dir = &self.me.run_dir;
        std::fs::create_dir_all(run_dir).map_err(io(run_dir.display().to_string()))?;
        let socket = self.me.control_socket();
        let control = control::listen(&socket).map_err(io(socket.display().to_string()))?;
        let address = self.me.address.clone();
        let listener = TcpListener::bind(&address).await.map_err(io(address))?;
        // Each replays its own log: together they wait as long as the longest.
        let all = self.config.resources.iter().map(|resource| (resource, self.begin(resource)));
        let all: Vec<_> = all.collect();
        all.into_iter().for_each(|(resource, started)| self.started(resource, started));
        spawn_local(control::serve(control, self.clone()));
        spawn_local(self.clone().accept(listener));
        let mut term = signal(SignalKind::terminate()).map_err(io("SIGTERM".into()))?;
        let mut int = signal(SignalKind::interrupt()).map_err(io("SIGINT".into()))?;
        tracing::info!(member = %self.me.name, "ready");
        // Without systemd there is nobody to tell.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        self.stop_all().await;
        if let Some(marks) = &self.marks {
            marks.leave();
        }
        let _ = std::fs::remove_file(socket);
        Ok(())
    }

    fn begin(&self, resource: &Resource) -> Result<Starting, ReplicaError> {
        start(self.start_of(resource))
    }

    fn started(&self, resource: &Resource, started: Result<Starting, ReplicaError>) {
        let started = started.and_then(Starting::opened);
        if let Err(error) = &started {
            tracing::error!(resource = %resource.name, %error, "the resource does not start");
        }
        let started = started.map_err(|error| error.to_string());
        if let Ok(mut running) = self.running.lock() {
            running.insert(resource.name.clone(), started);
        }
    }

    fn start_of(&self, resource: &Resource) -> ResourceStart {
        let members = self.config.members.iter().map(|member| member.id).collect();
        let mut node = NodeConfig::new(members, resource.mode);
        node.commit_on_write = resource.commit_on_write;
        node.peer_window = resource.peer_window;
        node.timeout = self.config.timeout;
        let place = self.config.resources.iter().position(|other| other.id == resource.id);
        let marks = self.marks.as_ref().zip(place).and_then(|(marks, place)| marks.door(place));
        if let Some(settings) = self.config.fencing.marks() {
            node.record = RecordKind::Register;
            let lease = LeaseConfig::new(&settings.timing, resource.auto_takeover);
            let takeovers_max = resource.auto_takeover_limit;
            let on_end = resource.on_lease_end;
            let (fences, announces) = (settings.fence.is_some(), resource.on_event.is_some());
            node.lease = Some(LeaseConfig { takeovers_max, on_end, fences, announces, ..lease });
        }
        node.home = resource.home;
        let pace = &resource.pace;
        node.standbys.clone_from(&pace.standbys);
        node.on_window_end = pace.on_window_end;
        node.peer_wait_limit = pace.peer_wait_limit;
        node.replay_delay = pace.replay_delay;
        node.spool_limit = pace.spool_limit_bytes;
        node.held_bytes = HELD_BYTES.min(pace.spool_limit_bytes / 2);
        node.degrade.clone_from(&pace.degrade);
        (node.degrade_after, node.degrade_back) = (pace.degrade_after, pace.degrade_back);
        node.resync = resource.resync.takes;
        node.rejoin_by_itself = resource.resync.rejoin_by_itself;
        node.verify = resource.resync.verify;
        node.log_sync_interval = resource.log_sync_interval;
        node.retention_bytes = resource.log_retention_bytes;
        let share = Share::of(self.config.memory_bytes, self.config.resources.len());
        share.limit(&mut node);
        let higher = self.config.members.iter().filter(|member| member.id > self.me.id);
        let tcp = resource.tcp.iter().find(|(member, _)| *member == self.me.id);
        ResourceStart {
            options: ResourceOptions {
                name: resource.name.clone(),
                members: self.config.members.iter().map(|m| m.name.clone()).collect(),
                exports: resource.exports(),
                compression: self.config.compression,
                ublk_queues: resource.ublk_queues,
                held_bytes: node.held_bytes,
                copy_rate: resource.resync.rate,
                share,
                marks,
                hooks: self.hooks(resource),
                companions: resource.companions_of(&self.me),
                recording: resource.recording_bytes.map(|limit| {
                    let dir = self.me.replica_dir(resource);
                    recording::Wanted { dir, limit }
                }),
            },
            resource: resource.id,
            label: self.label.clone(),
            member: self.me.id,
            node,
            dir: self.me.replica_dir(resource),
            history: resource.history,
            stores: resource.stores(self.me.id),
            geometry: resource.geometry(),
            socket: self.me.nbd_socket(resource),
            tcp: tcp.map(|(_, address)| *address),
            dial: higher.map(|member| (member.id, member.address.clone())).collect(),
            keys: self.keys.clone(),
        }
    }

    /// The programs of a resource, each with a thread of its own.
    fn hooks(&self, resource: &Resource) -> Option<Arc<Hooks>> {
        let fence = self.config.fencing.marks().and_then(|marks| marks.fence.clone());
        let base = vec![
            ("HADRIAN_CLUSTER", self.config.cluster.clone()),
            ("HADRIAN_RESOURCE", resource.name.clone()),
            ("HADRIAN_MEMBER", self.me.name.clone()),
        ];
        let hooks = Hooks::start(&resource.name, resource.on_event.clone(), fence, base);
        hooks.unwrap_or_else(|error| {
            tracing::error!(resource = %resource.name, %error, "no thread for on_event and fence");
            None
        })
    }

    /// Has the owner of a resource fenced, and tells the resource.
    async fn fence(&self, name: &str) -> Response {
        let fence = self.config.fencing.marks().and_then(|marks| marks.fence.clone());
        let Some(hook) = fence else {
            let text = "there is no fence command; set fencing.fence, or wait until the owner's \
                        lease is over";
            return Response::refused("no_fence", text);
        };
        let record = self.status(Some(name)).await.into_iter().next();
        let record = record.and_then(|status| status.node?.record);
        let (Ok(asks), Some(record)) = (self.asks(name), record) else {
            return Response::of(Err(Denied::NoRecord));
        };
        let (owner, epoch) = (record.owner, record.epoch);
        if owner == self.me.id {
            return Response::of(Err(Denied::AlreadyPrimary));
        }
        let victim = self.config.name_of(owner).to_owned();
        let vars = vec![
            ("HADRIAN_CLUSTER", self.config.cluster.clone()),
            ("HADRIAN_RESOURCE", name.to_owned()),
            ("HADRIAN_MEMBER", self.me.name.clone()),
            ("HADRIAN_EVENT", "fence".to_owned()),
            ("HADRIAN_WHEN", "before".to_owned()),
            ("HADRIAN_OWNER", victim.clone()),
            ("HADRIAN_EPOCH", epoch.to_string()),
            ("HADRIAN_VICTIM", victim.clone()),
        ];
        let ended = tokio::task::spawn_blocking(move || hooks::run(&hook, &vars)).await;
        let fenced = ended.is_ok_and(|ended| ended.is_success());
        // A resource that stopped meanwhile takes nothing over either.
        let _ = asks.send(Ask::Event(Event::FenceEnded { owner, epoch, fenced })).await;
        match fenced {
            true => Response::Done(Done::Fenced),
            false => Response::refused(
                "not_fenced",
                format!("{victim} is not fenced for certain; see the log of hadriand"),
            ),
        }
    }

    /// Where to ask a running resource; why not, otherwise.
    fn asks(&self, name: &str) -> Result<tokio::sync::mpsc::Sender<Ask>, String> {
        let running = self.running.lock().map_err(|_| "the daemon is broken".to_string())?;
        match running.get(name) {
            Some(Ok(handle)) if !handle.asks.is_closed() => Ok(handle.asks.clone()),
            Some(Ok(_)) => Err("stopped by an operator".into()),
            Some(Err(why)) => Err(why.clone()),
            None => Err(format!("there is no resource {name:?}")),
        }
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let daemon = self.clone();
                    spawn_local(async move { daemon.called(stream).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "a member could not be let in");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Hands a caller to the thread of the resource that it means; who it is is proven there.
    async fn called(&self, mut stream: TcpStream) {
        let mut bytes = [0; PREAMBLE_LEN];
        let read = stream.read_exact(&mut bytes);
        if !matches!(tokio::time::timeout(INTRODUCTION, read).await, Ok(Ok(_))) {
            return;
        }
        let preamble = match Preamble::parse(&bytes) {
            Ok(preamble) => preamble,
            Err(error) => return tracing::warn!(%error, "a caller was turned away"),
        };
        let meant = self.config.resources.iter().find(|r| r.id == preamble.resource);
        let Some(resource) = meant else {
            return tracing::warn!(resource = %preamble.resource, "a caller means no resource here");
        };
        let (Ok(asks), Ok(stream)) = (self.asks(&resource.name), stream.into_std()) else { return };
        let parts = TcpStreamParts { stream, member: preamble.member };
        // A resource that stops meanwhile needs no caller.
        let _ = asks.send(Ask::Called(parts)).await;
    }

    async fn status(&self, only: Option<&str>) -> Vec<ResourceStatus> {
        let mut all = Vec::new();
        for resource in &self.config.resources {
            if only.is_some_and(|only| only != resource.name) {
                continue;
            }
            let (seen, stopped) = match self.asks(&resource.name) {
                Ok(asks) => {
                    let (reply, answer) = oneshot::channel();
                    let asked = asks.send(Ask::Status(reply)).await.is_ok();
                    (if asked { answer.await.ok() } else { None }, None)
                }
                Err(why) => (None, Some(why)),
            };
            all.push(ResourceStatus {
                resource: resource.name.clone(),
                member: self.me.name.clone(),
                members: self.config.members.iter().map(|m| m.name.clone()).collect(),
                socket: self.me.nbd_socket(resource),
                exports: resource.exports(),
                volumes: seen.as_ref().map_or(Vec::new(), |seen| seen.volumes.clone()),
                segment_bytes: seen.as_ref().map(|seen| seen.segment_bytes),
                opening_bytes: seen.as_ref().and_then(|seen| seen.opening_bytes),
                right_us: seen.as_ref().and_then(|seen| seen.right_us),
                withdrawn: seen.as_ref().is_some_and(|seen| seen.withdrawn),
                divergence: seen.as_ref().and_then(|seen| seen.divergence.clone()),
                copies: seen.as_ref().map_or(Vec::new(), |seen| seen.copies.clone()),
                seed: seen.as_ref().and_then(|seen| seen.seed.clone()),
                companions: seen.as_ref().and_then(|seen| seen.companions.clone()),
                history: seen.as_ref().and_then(|seen| seen.history.clone()).map(Into::into),
                quarantine: QuarantineStatus::of(&self.me.replica_dir(resource)),
                views: self.views.of(&resource.name),
                node: seen.map(|seen| seen.node),
                stopped,
                fencing: self.fencing(),
            });
        }
        all
    }

    fn fencing(&self) -> Option<FencingStatus> {
        match &self.config.fencing {
            Fencing::None { is_said } => is_said.then_some(FencingStatus::None),
            Fencing::Marks(marks) => {
                let keeping = self.marks.as_ref()?;
                Some(keeping.status(marks, |member| self.config.name_of(member).to_owned()))
            }
        }
    }

    async fn events(&self, name: &str, after: u64) -> Response {
        let told = self.asked(name, |reply| Ask::Events(after, reply)).await;
        told.map_or_else(|refused| refused, Response::Events)
    }

    async fn command(&self, name: &str, command: Command) -> Response {
        let result = self.asked(name, |reply| Ask::Command(command, reply)).await;
        result.map_or_else(|refused| refused, Response::of)
    }

    async fn name_point(&self, resource: &str, name: PointName) -> Response {
        match self.asked(resource, |namer| Ask::Point(name, namer)).await {
            Ok(Ok(point)) => Response::Named(point),
            Ok(Err(denied)) => Response::of(Err(denied)),
            Err(refused) => refused,
        }
    }

    /// Asks a resource, and waits for what it says.
    async fn asked<T>(
        &self,
        name: &str,
        ask: impl FnOnce(oneshot::Sender<T>) -> Ask,
    ) -> Result<T, Response> {
        let refused = |why: String| Response::refused("not_running", why);
        let gone = || refused("the resource stopped meanwhile".into());
        let asks = self.asks(name).map_err(refused)?;
        let (reply, answer) = oneshot::channel();
        asks.send(ask(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    async fn stop_all(&self) {
        self.views.end_all().await;
        for resource in &self.config.resources {
            let stop = self.command(&resource.name, Command::Stop);
            if tokio::time::timeout(STOP_LIMIT, stop).await.is_err() {
                let name = &resource.name;
                tracing::warn!(resource = %name, "did not stop in time; its log keeps all");
            }
        }
        let handles = self.running.lock().map(|mut running| std::mem::take(&mut *running));
        let handles = handles.unwrap_or_default().into_values().flatten();
        for handle in handles {
            let ended = tokio::task::spawn_blocking(move || handle.thread.join());
            let _ = tokio::time::timeout(Duration::from_secs(2), ended).await;
        }
    }
}

impl Handler for Daemon {
    async fn handle(&self, request: Request) -> Response {
        let command = request.command();
        match (request, command) {
            (Request::Status { resource }, _) => {
                Response::Status(self.status(resource.as_deref()).await)
            }
            (Request::Fence { resource }, _) => self.fence(&resource).await,
            (Request::Events { resource, after }, _) => self.events(&resource, after).await,
            (Request::SeedExport { resource, path, absent }, _) => {
                let wish = SeedWish { path, absent };
                let result = self.asked(&resource, |reply| Ask::Seed(wish, reply)).await;
                result.map_or_else(|refused| refused, Response::of)
            }
            (Request::Find { resource, at }, _) => self.find(&resource, at).await,
            (Request::Takeover { resource, how, test, to: Some(at) }, _) => {
                self.go_back(&resource, how, at, test).await
            }
            (Request::Point { resource, name }, _) => self.name_point(&resource, name).await,
            (Request::NamedPoints { resource, most }, _) => {
                self.named_points(&resource, most).await
            }
            (Request::View { resource, at, size_limit, socket }, _) => {
                self.view(&resource, at, size_limit, socket).await
            }
            (Request::KeepView { id }, _) => self.views.keep(id),
            (Request::EndView { id }, _) => self.views.end(id),
            (Request::Start { resource, primary: false }, _) => {
                match self.config.resource(&resource) {
                    None => Response::refused("unknown", format!("no resource {resource:?}")),
                    Some(_) if self.asks(&resource).is_ok() => {
                        Response::refused("running", "it runs already")
                    }
                    Some(found) => {
                        self.started(found, self.begin(found));
                        match self.asks(&resource) {
                            Ok(_) => Response::Done(Done::Started),
                            Err(why) => Response::refused("not_running", why),
                        }
                    }
                }
            }
            (
                Request::Takeover { resource, .. }
                | Request::Cancel { resource }
                | Request::Mode { resource, .. }
                | Request::Rejoin { resource }
                | Request::Grow { resource, .. }
                | Request::Verify { resource, .. }
                | Request::Stop { resource }
                | Request::Start { resource, .. },
                Some(command),
            ) => self.command(&resource, command).await,
            (_, None) => Response::refused("request", "nothing to do"),
        }
    }
}

//! The thread of a resource: its runtime, its pump, its sockets.

use std::cmp::Ordering;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hadrian_blockdev::buffer;
use hadrian_blockdev::engine::{AnyEngine, EngineChoice};
use hadrian_blockdev::export::CloseHandle;
use hadrian_blockdev::history::{Door, Limits as HistoryLimits, clear_scratch};
use hadrian_blockdev::nbd::{Limits, serve_tcp, serve_unix};
use hadrian_blockdev::replica::{Replica, ReplicaError, Wishes};
use hadrian_blockdev::superblock::{Label, Whose};
use hadrian_protocol::backoff::Backoff;
use hadrian_protocol::ids::{MemberId, ResourceId};
use hadrian_protocol::node::{
    Command, Denied, Done, Event, NodeConfig, RECORDING_VERSION, Recorded, Start,
};
use hadrian_protocol::point::PointName;
use hadrian_protocol::replica::{ReplicaState, VolumeGeometry, describe};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{LocalSet, spawn_local};

use super::Seen;
use super::exports::ExportBook;
use super::marks::Mailbox;
use super::points::Namer;
use super::ready::DisksReady;
use super::resource::{Disks, ResourceOptions, Shared};
use super::seed::SeedWish;
use super::told::ToldEvent;
use super::{companions, link};
use crate::tls::{LinkKeys, TlsError};

/// Clients of one resource at a time.
const CONNECTIONS_MAX: usize = 64;
/// Longest wait for a connection and its introduction.
const INTRODUCTION: Duration = Duration::from_secs(5);
const REDIAL_FIRST: Duration = Duration::from_millis(50);
const REDIAL_LAST: Duration = Duration::from_secs(2);

/// Everything that a resource's thread is started with.
#[derive(Clone, Debug)]
pub struct ResourceStart {
    /// Names for people.
    pub options: ResourceOptions,
    /// The resource.
    pub resource: ResourceId,
    /// What must stand on the replica: `CLUSTER.MEMBER`.
    pub label: Label,
    /// This member.
    pub member: MemberId,
    /// The node's settings; sizes are cut to what the log can hold.
    pub node: NodeConfig,
    /// Where superblock and log are.
    pub dir: PathBuf,
    /// How much of the past is kept.
    pub history: Option<HistoryLimits>,
    /// The backing stores, in order.
    pub stores: Vec<PathBuf>,
    /// Their sizes, as configured; the replica was made for the same ones, and may have grown.
    pub geometry: Vec<VolumeGeometry>,
    /// The NBD unix socket.
    pub socket: PathBuf,
    /// NBD over TCP, where it was asked for.
    pub tcp: Option<SocketAddr>,
    /// Members to be called: those with a higher index.
    pub dial: Vec<(MemberId, String)>,
    /// How links are secured.
    pub keys: Arc<LinkKeys>,
}

/// What other threads ask of a resource.
#[derive(Debug)]
pub enum Ask {
    /// What people see.
    Status(oneshot::Sender<Seen>),
    /// What people were told after an event of this number.
    Events(u64, oneshot::Sender<Vec<ToldEvent>>),
    /// Where its history is read; none: it has none.
    History(oneshot::Sender<Option<Door>>),
    /// Something that the core is to be told.
    Event(Event),
    /// An operator's command.
    Command(Command, oneshot::Sender<Result<Done, Denied>>),
    /// The image as of one position, in a file.
    Seed(SeedWish, oneshot::Sender<Result<Done, Denied>>),
    /// Give the end of the log a name.
    Point(PointName, Namer),
    /// A connection that another member opened; it said who it is, unproven yet.
    Called(TcpStreamParts),
}

/// A connection on its way from the thread that accepted it.
#[derive(Debug)]
pub struct TcpStreamParts {
    /// The socket, non-blocking.
    pub stream: std::net::TcpStream,
    /// Who it says it is.
    pub member: MemberId,
}

/// A resource whose replica is being opened.
#[derive(Debug)]
pub struct Starting {
    handle: ResourceHandle,
    opened: std::sync::mpsc::Receiver<Result<(), ReplicaError>>,
    dir: PathBuf,
}

/// A running resource.
#[derive(Debug)]
pub struct ResourceHandle {
    /// Where to ask.
    pub asks: mpsc::Sender<Ask>,
    /// The thread; ends when the resource is stopped.
    pub thread: std::thread::JoinHandle<()>,
}

impl Starting {
    /// Waits until the replica is open and its log replayed.
    ///
    /// # Errors
    /// [`ReplicaError`], from the thread, before anything is served.
    pub fn opened(self) -> Result<ResourceHandle, ReplicaError> {
        let Self { handle, opened, dir: path } = self;
        let source = || std::io::Error::other("the resource's thread ended at once");
        opened.recv().unwrap_or_else(|_| Err(ReplicaError::Io { path, source: source() }))?;
        Ok(handle)
    }
}

/// Starts the resource's thread, which opens the replica, replays its log, and serves.
///
/// # Errors
/// If there is no thread for it.
pub fn start(start: ResourceStart) -> Result<Starting, ReplicaError> {
    let (asks, asked) = mpsc::channel(64);
    let (opened, open) = std::sync::mpsc::channel();
    let dir = start.dir.clone();
    let name = format!("res-{}", start.options.name);
    let io = |source| ReplicaError::Io { path: start.dir.clone(), source };
    let body = {
        let start = start.clone();
        move || {
            let share = start.options.share;
            buffer::keep_at_most(share.free());
            let whose = Whose { resource: start.resource, label: start.label.clone() };
            clear_clones(&start.dir);
            let replica = Replica::open_with(
                &start.dir,
                &whose,
                &start.stores,
                EngineChoice::Auto,
                Wishes { memory: share.spool(), history: start.history },
            );
            match replica {
                Ok((_, state, _)) if !of_configuration(&state, &start.geometry) => {
                    let _ = opened.send(Err(ReplicaError::Geometry {
                        has: describe(&state.volumes),
                        says: describe(&start.geometry),
                    }));
                }
                Ok((_, state, _)) if state.member != start.member => {
                    let (has, says) = (state.member, start.member);
                    let _ = opened.send(Err(ReplicaError::Member { has, says }));
                }
                Ok((replica, state, recovered)) => {
                    for note in sizes_in_words(&state, &start.geometry, &start.options.exports) {
                        tracing::warn!(resource = %start.options.name, "{note}");
                    }
                    let _ = opened.send(Ok(()));
                    run(start, replica, state, recovered, asked);
                }
                Err(error) => {
                    let _ = opened.send(Err(error));
                }
            }
        }
    };
    let thread = std::thread::Builder::new().name(name).spawn(body).map_err(io)?;
    Ok(Starting { handle: ResourceHandle { asks, thread }, opened: open, dir })
}

/// Whether a replica is one of the volumes that the configuration names. The superblock has the
/// sizes; what the file says was true once, or is to become so.
#[must_use]
pub fn of_configuration(state: &ReplicaState, says: &[VolumeGeometry]) -> bool {
    let alike = |(has, says): (&VolumeGeometry, &VolumeGeometry)| {
        // Where nothing has grown, a smaller size in the file is a mistake in it.
        has.block_size == says.block_size
            && (state.growths > 0 || has.size_bytes <= says.size_bytes)
    };
    state.volumes.len() == says.len() && state.volumes.iter().zip(says).all(alike)
}

/// Where the sizes of a replica and those of the configuration differ, a sentence each.
#[must_use]
pub fn sizes_in_words(
    state: &ReplicaState,
    says: &[VolumeGeometry],
    names: &[String],
) -> Vec<String> {
    let pairs = state.volumes.iter().zip(says).zip(names);
    let sentence = |((has, says), name): ((&VolumeGeometry, &VolumeGeometry), &String)| {
        let (has, says) = (has.size_bytes, says.size_bytes);
        let (resource, volume) = name.split_once('/').unwrap_or(("", name));
        match has.cmp(&says) {
            Ordering::Equal => None,
            Ordering::Greater => Some(format!(
                "{name} has grown to {has} bytes, and the configuration says {says}; that is what \
                 new replicas are created with: write size = \"{has}B\" there"
            )),
            Ordering::Less => Some(format!(
                "{name} has {has} bytes, and the configuration says {says}; what makes that true \
                 is: hadrian grow {resource} {volume} --size {says}B, on the primary"
            )),
        }
    };
    pairs.filter_map(sentence).collect()
}

/// What was written to clones was never to outlive a daemon.
fn clear_clones(dir: &Path) {
    let engine = AnyEngine::choose(EngineChoice::Plain, 1).map_err(std::io::Error::other);
    if let Err(error) = engine.and_then(|mut engine| clear_scratch(&mut engine, dir)) {
        tracing::warn!(dir = %dir.display(), %error, "what clones have left cannot be removed");
    }
}

fn run(
    start: ResourceStart,
    replica: Replica,
    state: ReplicaState,
    recovered: hadrian_protocol::node::Recovered,
    asked: mpsc::Receiver<Ask>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "no runtime for a resource"),
    };
    let clock = hadrian_fencing::clock::now();
    let mut replica = replica;
    replica.set_copy_rate(start.options.copy_rate);
    let config = fit(start.node.clone(), replica.log_capacity());
    let program = format!("hadriand {}", env!("CARGO_PKG_VERSION"));
    let version = RECORDING_VERSION;
    let tape = start.options.recording.as_ref().and_then(|wanted| match wanted.tape() {
        Ok(tape) => Some(tape),
        Err(error) => {
            let dir = wanted.dir.display();
            tracing::warn!(%dir, %error, "nothing is recorded; the resource starts without");
            None
        }
    });
    let node = Recorded::start(Start { version, program, config, state, recovered, clock }, tape);
    let shared = Shared::new(node, replica, start.resource, start.member, &start.options);
    LocalSet::new().block_on(&runtime, serve(shared, start, asked));
}

/// A small log asks for earlier checkpoints, and for syncs that leave room in the standby's.
fn fit(mut config: NodeConfig, capacity: u64) -> NodeConfig {
    config.sync_bytes = config.sync_bytes.min(capacity / 8);
    config.checkpoint_bytes = config.checkpoint_bytes.min(capacity / 8);
    config.retention_bytes = config.retention_bytes.min(capacity / 2);
    config.held_bytes = config.held_bytes.min(capacity / 2);
    config
}

async fn serve(shared: Rc<Shared>, start: ResourceStart, asked: mpsc::Receiver<Ask>) {
    let descriptor = shared.inner.borrow().replica.descriptor();
    spawn_local(pump(shared.clone(), descriptor));
    if let Err(error) = listen(&shared, &start).await {
        tracing::error!(resource = %start.options.name, %error, "clients cannot connect");
    }
    for (member, address) in start.dial.clone() {
        let (shared, keys) = (shared.clone(), start.keys.clone());
        spawn_local(dial(shared, start.member, member, address, keys));
    }
    spawn_local(answer(shared.clone(), start.clone(), asked));
    spawn_local(companions::carry(shared.clone()));
    if let Some(marks) = &start.options.marks {
        spawn_local(hear_marks(shared.clone(), marks.mailbox.clone()));
    }
    while !shared.stopped.get() {
        shared.ended.notified().await;
    }
    // The goodbyes are in the queues: each connection ends when the other side has them.
    let _ = tokio::time::timeout(link::LINGER * 2, shared.links_ended()).await;
    let _ = std::fs::remove_file(&start.socket);
}

/// Runs whenever something happened, the disks have something, or time is up.
///
/// What goes over sockets is sent before the disks are asked: another member has the longer way to
/// its acknowledgement, and to hand operations to a disk takes as long as to send a frame.
async fn pump(shared: Rc<Shared>, descriptor: Option<OwnedFd>) {
    let disks = DisksReady::new(descriptor);
    loop {
        let began = shared.stopwatch();
        let wait = shared.settle();
        behind_the_others().await;
        let disks_have = shared.work_disks();
        shared.was_busy(began);
        match disks_have {
            // Sockets have their turn between two rounds: this waits for a look at all of them.
            Disks::More => tokio::task::yield_now().await,
            Disks::News => {}
            Disks::Quiet => tokio::select! {
                () = shared.wake.notified() => {}
                () = disks.wait() => {}
                () = tokio::time::sleep(wait) => {}
            },
        }
    }
}

/// Lets every task go first that can run now; unlike a yield to the runtime it costs no system
/// call.
async fn behind_the_others() {
    let mut waited = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

async fn listen(shared: &Rc<Shared>, start: &ResourceStart) -> std::io::Result<()> {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let switch = CloseHandle::new();
    let _ = std::fs::remove_file(&start.socket);
    let listener = UnixListener::bind(&start.socket)?;
    let table = Rc::new(ExportBook(shared.clone()));
    let limits = Limits::default();
    spawn_local(serve_unix(listener, table.clone(), switch.clone(), slots.clone(), limits));
    if let Some(address) = start.tcp {
        let listener = TcpListener::bind(address).await?;
        spawn_local(serve_tcp(listener, table, switch, slots, limits));
    }
    Ok(())
}

async fn hear_marks(shared: Rc<Shared>, mailbox: Arc<Mailbox>) {
    mailbox.forget_answers();
    while !shared.stopped.get() {
        for event in mailbox.events().await {
            if let Event::Lease(until) = &event {
                shared.inner.borrow_mut().marks_changed(until.is_some());
            }
            shared.event(event);
        }
    }
}

async fn answer(shared: Rc<Shared>, start: ResourceStart, mut asked: mpsc::Receiver<Ask>) {
    while let Some(ask) = asked.recv().await {
        match ask {
            Ask::Status(reply) => {
                // Who asked may have gone away; then nobody needs the answer.
                let _ = reply.send(shared.status());
            }
            Ask::Events(after, reply) => {
                let _ = reply.send(shared.told(after));
            }
            Ask::History(reply) => {
                let _ = reply.send(shared.inner.borrow().replica.history_door());
            }
            Ask::Event(event) => shared.event(event),
            Ask::Command(command, reply) => shared.command(command, reply),
            Ask::Seed(wish, reply) => shared.seed(wish, reply),
            Ask::Point(name, namer) => shared.name_point(name, namer),
            Ask::Called(parts) => {
                spawn_local(called(shared.clone(), start.member, start.keys.clone(), parts));
            }
        }
    }
}

/// Calls another member for as long as the resource runs.
async fn dial(
    shared: Rc<Shared>,
    me: MemberId,
    member: MemberId,
    address: String,
    keys: Arc<LinkKeys>,
) {
    let mut told = Told::default();
    // Any seed will do, if each member and each start has its own.
    let seed = u64::from(me.index()) << 56 | u64::from(std::process::id()) << 8;
    let seed = seed | u64::from(member.index());
    let mut backoff = Backoff::new(REDIAL_FIRST, REDIAL_LAST, seed);
    while !shared.stopped.get() {
        let resource = shared.resource;
        let call = async {
            let stream = TcpStream::connect(&address).await?;
            stream.set_nodelay(true)?;
            crate::tls::introduce_caller(stream, resource, me, member, &keys).await
        };
        match tokio::time::timeout(INTRODUCTION, call).await {
            Ok(Ok(stream)) => {
                backoff.reset();
                hold_link(&shared, member, stream).await;
            }
            Ok(Err(error)) => told.tell(&address, &error),
            Err(_) => tracing::debug!(%address, "the other member does not answer in time"),
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

/// Calls that fail again and again for one reason are told of once.
#[derive(Default)]
struct Told(String);

impl Told {
    fn tell(&mut self, address: &str, error: &TlsError) {
        let text = error.to_string();
        if error.needs_somebody() && text != self.0 {
            tracing::warn!(%address, %error, "the other member and this one cannot work together");
            self.0 = text;
        } else {
            tracing::debug!(%address, %error, "the other member does not answer");
        }
    }
}

async fn called(shared: Rc<Shared>, me: MemberId, keys: Arc<LinkKeys>, parts: TcpStreamParts) {
    let member = parts.member;
    let resource = shared.resource;
    let take = async {
        let stream = TcpStream::from_std(parts.stream)?;
        stream.set_nodelay(true)?;
        crate::tls::introduce_called(stream, resource, me, member, &keys).await
    };
    match tokio::time::timeout(INTRODUCTION, take).await {
        Ok(Ok(stream)) => hold_link(&shared, member, stream).await,
        Ok(Err(error)) => tracing::warn!(%member, %error, "a caller was turned away"),
        Err(_) => tracing::warn!(%member, "a caller did not introduce itself in time"),
    }
}

async fn hold_link(shared: &Rc<Shared>, member: MemberId, stream: super::LinkStream) {
    let (session, outgoing) = shared.linked(member);
    let result = link::run(shared.clone(), session, stream, outgoing).await;
    if let Err(error) = result {
        tracing::info!(%member, %error, "the link ended");
    }
    shared.unlinked(session);
}

//! Images as they were, served over NBD while replication goes on: each on a thread and a socket
//! of its own, so that no client of the resource waits for their reads.
//!
//! A view lives as long as the command that asked for it: that says again and again that it is
//! still there, and a view of which nobody has said so for half a minute is ended.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hadrian_blockdev::engine::{AnyEngine, EngineChoice};
use hadrian_blockdev::export::{Close, CloseHandle, ExportInfo};
use hadrian_blockdev::history::{Door, NamedPoints, Point, View, VolumeView};
use hadrian_blockdev::nbd::{Export, Exports, Limits, serve_unix};
use hadrian_protocol::ids::VolumeIndex;
use hadrian_protocol::point::PointName;
use tokio::net::UnixListener;
use tokio::sync::{Notify, Semaphore, oneshot};

use crate::control::{At, PointStatus, Response, ViewStatus};

/// Most named points in one answer.
const NAMES_MAX: usize = 10_000;
/// Views at a time.
const VIEWS_MAX: usize = 16;
/// Clients of one view at a time.
const CLIENTS_MAX: usize = 16;
/// A view of which nobody has said for so long that he needs it is ended.
const UNHEARD_MAX: Duration = Duration::from_secs(30);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes that a point ahead of the image may need of the log, where the view is read-only.
const AHEAD_MAX: u64 = 4 << 30;
/// How long clients have to take the answers that are on their way when a view ends.
const LINGER: Duration = Duration::from_secs(2);

/// What is to be looked at.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// Of which resource.
    pub(crate) resource: String,
    /// Names of its volumes' exports.
    pub(crate) exports: Vec<String>,
    /// The backing stores, in the same order.
    pub(crate) stores: Vec<PathBuf>,
    /// Which point.
    pub(crate) at: At,
    /// Most bytes that may be written to it; none: it is read-only.
    pub(crate) size_limit: Option<u64>,
    /// Where it is served; none: at a place of the daemon's choice in `run_dir`.
    pub(crate) socket: Option<PathBuf>,
    /// The directory of the daemon's sockets.
    pub(crate) run_dir: PathBuf,
}

/// All views of a daemon.
#[derive(Debug, Default)]
pub(crate) struct Views {
    running: Arc<Mutex<BTreeMap<u64, Running>>>,
    last: AtomicU64,
}

#[derive(Debug)]
struct Running {
    /// None until it is served.
    status: Option<ViewStatus>,
    heard: Instant,
    end: Arc<Notify>,
}

type Table = Arc<Mutex<BTreeMap<u64, Running>>>;

fn locked(table: &Table) -> MutexGuard<'_, BTreeMap<u64, Running>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Views {
    /// Begins to serve one.
    pub(crate) async fn open(&self, door: Door, wish: Wish) -> Response {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let end = Arc::new(Notify::new());
        {
            let mut running = locked(&self.running);
            if running.len() >= VIEWS_MAX {
                let text = format!("{VIEWS_MAX} views are open; end one of them first");
                return Response::refused("too_many", text);
            }
            let view = Running { status: None, heard: Instant::now(), end: end.clone() };
            running.insert(id, view);
        }
        let (reply, answer) = oneshot::channel();
        let table = self.running.clone();
        let body = move || {
            let made = make(&door, &wish, id);
            serve((made, wish), (id, &table, &end), reply);
            locked(&table).remove(&id);
        };
        let thread = std::thread::Builder::new().name(format!("view-{id}")).spawn(body);
        if let Err(error) = thread {
            locked(&self.running).remove(&id);
            return Response::refused("no_thread", format!("no thread for it: {error}"));
        }
        match answer.await {
            Ok(Ok(status)) => Response::View(Box::new(status)),
            Ok(Err(why)) => Response::refused("no_view", why),
            Err(_) => Response::refused("no_view", "it has ended at once; see hadriand's log"),
        }
    }

    /// Somebody still needs one.
    pub(crate) fn keep(&self, id: u64) -> Response {
        let mut running = locked(&self.running);
        let Some(view) = running.get_mut(&id) else { return gone(id) };
        view.heard = Instant::now();
        match &view.status {
            Some(status) => Response::View(Box::new(status.clone())),
            None => Response::refused("no_view", "it is not served yet"),
        }
    }

    /// Nobody needs it any more.
    pub(crate) fn end(&self, id: u64) -> Response {
        let running = locked(&self.running);
        let Some(view) = running.get(&id) else { return gone(id) };
        view.end.notify_one();
        match &view.status {
            Some(status) => Response::View(Box::new(status.clone())),
            None => gone(id),
        }
    }

    /// Ends all of them, and waits until their sockets are gone.
    pub(crate) async fn end_all(&self) {
        locked(&self.running).values().for_each(|view| view.end.notify_one());
        let deadline = Instant::now() + LINGER + LOOK;
        while !locked(&self.running).is_empty() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Those of a resource.
    pub(crate) fn of(&self, resource: &str) -> Vec<ViewStatus> {
        let running = locked(&self.running);
        let all = running.values().filter_map(|view| view.status.clone());
        all.filter(|status| status.resource == resource).collect()
    }
}

/// The points of a history that have a name, of which at most `most` are listed.
pub(crate) fn named_points(door: &Door, most: u32) -> Response {
    let refused = |error: &dyn std::fmt::Display| Response::refused("no_points", error.to_string());
    let mut engine = match AnyEngine::choose(EngineChoice::Plain, 1) {
        Ok(engine) => engine,
        Err(error) => return refused(&error),
    };
    let most = usize::try_from(most).unwrap_or(NAMES_MAX).min(NAMES_MAX);
    match door.named_points(&mut engine, most) {
        Ok(NamedPoints { newest, count }) => {
            let status = |(name, point): (PointName, Point)| PointStatus {
                name: Some(name.to_string()),
                ..PointStatus::from(point)
            };
            Response::NamedPoints { points: newest.into_iter().map(status).collect(), count }
        }
        Err(error) => refused(&error),
    }
}

fn gone(id: u64) -> Response {
    Response::refused("no_view", format!("there is no view {id} any more"))
}

/// A view that is ready to be served.
struct Made {
    table: Exports,
    status: ViewStatus,
}

fn make(door: &Door, wish: &Wish, id: u64) -> Result<Made, String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let mut engine = AnyEngine::choose(EngineChoice::Plain, 1).map_err(|error| said(&error))?;
    let found = door.resolve(&mut engine, &wish.at.clone().into()).map_err(|error| said(&error))?;
    let of = (wish.stores.as_slice(), found.point);
    let limit = wish.size_limit.unwrap_or(AHEAD_MAX);
    let mut view = View::open(door, engine, of, limit).map_err(|error| said(&error))?;
    if let Some(limit) = wish.size_limit {
        view.make_writable(limit);
    }
    let geometry = view.volumes().to_vec();
    let (view, mut table) = (Rc::new(RefCell::new(view)), Exports::new());
    let lsn = found.point.at.lsn;
    let mut exports = Vec::new();
    for ((index, name), geometry) in (0..).zip(&wish.exports).zip(geometry) {
        let Some(index) = VolumeIndex::new(index) else { break };
        let info = ExportInfo {
            read_only: wish.size_limit.is_none(),
            description: format!("{name} as it was at {lsn}"),
            fast_zero: wish.size_limit.is_some(),
            ..ExportInfo::new(geometry.size_bytes, geometry.block_size)
        };
        let name = format!("{name}@{lsn}");
        let backend = VolumeView::new(view.clone(), index, info);
        table.insert(name.clone(), Export::new(Rc::new(backend)));
        exports.push(name);
    }
    let own = || wish.run_dir.join(format!("{}.view-{id}.nbd", wish.resource));
    let status = ViewStatus {
        id,
        resource: wish.resource.clone(),
        point: PointStatus { name: name_of(&wish.at), ..PointStatus::from(found.point) },
        socket: wish.socket.clone().unwrap_or_else(own),
        exports,
        size_limit: wish.size_limit,
    };
    Ok(Made { table, status })
}

/// What the point was called by whoever asked for it.
fn name_of(at: &At) -> Option<String> {
    match at {
        At::Name(name) => Some(name.to_string()),
        _ => None,
    }
}

/// Serves until somebody ends it, or nobody needs it any more.
fn serve(
    (made, wish): (Result<Made, String>, Wish),
    (id, table, end): (u64, &Table, &Notify),
    reply: oneshot::Sender<Result<ViewStatus, String>>,
) {
    // Who asked may have gone away: then nobody says that he needs it, and it ends.
    let Made { table: exports, status } = match made {
        Ok(made) => made,
        Err(why) => return drop(reply.send(Err(why))),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(reply.send(Err(format!("no runtime for it: {error}")))),
    };
    let socket = status.socket.clone();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        // One of the daemon's own names may be left of a daemon that was killed.
        if wish.socket.is_none() {
            let _ = std::fs::remove_file(&socket);
        }
        let listener = match UnixListener::bind(&socket) {
            Ok(listener) => listener,
            Err(error) => {
                let text = format!("{} cannot be listened on: {error}", socket.display());
                return drop(reply.send(Err(text)));
            }
        };
        if let Some(running) = locked(table).get_mut(&id) {
            running.status = Some(status.clone());
        }
        let (resource, lsn) = (&wish.resource, status.point.lsn);
        tracing::info!(%resource, id, %lsn, socket = %socket.display(), "a view is served");
        let _ = reply.send(Ok(status));
        let (ending, slots) = (CloseHandle::new(), Arc::new(Semaphore::new(CLIENTS_MAX)));
        let serving =
            serve_unix(listener, Rc::new(exports), ending.clone(), slots, Limits::default());
        tokio::select! {
            () = serving => {}
            () = end.notified() => {}
            () = unheard(id, table) => {
                tracing::warn!(%resource, id, "nobody needs a view any more, and it is ended");
            }
        }
        ending.close(Close::Drain);
        let _ = tokio::time::timeout(LINGER, ending.ended()).await;
        let _ = std::fs::remove_file(&socket);
        tracing::info!(%resource, id, "a view has ended");
    });
}

async fn unheard(id: u64, table: &Table) {
    loop {
        tokio::time::sleep(LOOK).await;
        let heard = locked(table).get(&id).map(|view| view.heard);
        if heard.is_none_or(|heard| heard.elapsed() > UNHEARD_MAX) {
            return;
        }
    }
}

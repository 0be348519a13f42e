//! Exports of a seed from a running resource: the source of a resync whose sink is a file.
//!
//! The file is written by a thread of its own, so that no client waits for its disk. What is under
//! way to it is bounded as it is to a standby: the source sends no more than is taken.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use hadrian_protocol::frame::LogPosition;
use hadrian_protocol::ids::{Lsn, MemberId, SessionId};
use hadrian_protocol::node::{Command, Denied, Done, Event};
use hadrian_protocol::replica::ReplicaState;
use hadrian_protocol::resync::seed::{Content, Sink};
use hadrian_protocol::resync::{CopyProgress, Numbered};
use hadrian_protocol::time::{Now, micros};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;

use super::resource::{Inner, Shared};
use crate::seed::{Header, SeedWriter};

/// Messages to the thread that may wait: more than a source has under way.
const WAITING_MAX: usize = 2048;

/// What to export.
#[derive(Clone, Debug)]
pub struct SeedWish {
    /// Where to; the file must not exist.
    pub path: PathBuf,
    /// Who will be created from it.
    pub absent: Option<MemberId>,
}

/// How far an export is, or how the last one ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SeedStatus {
    /// Where to.
    pub path: PathBuf,
    /// How far the image is read.
    pub progress: CopyProgress,
    /// Microseconds that it has taken.
    pub took_us: u64,
    /// Where it stands.
    pub state: SeedState,
}

/// Where an export stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeedState {
    /// Under way.
    Running,
    /// The file is whole and durable.
    Done {
        /// Of which position it is.
        lsn: Lsn,
        /// How long it is, in bytes.
        bytes: u64,
    },
    /// There is no file.
    Failed {
        /// Why.
        why: String,
    },
}

/// An export of this resource, under way or ended.
#[derive(Debug)]
pub(super) struct Seeding {
    session: SessionId,
    began: Now,
    status: SeedStatus,
    sink: Sink,
    /// None: everything was sent to the thread, or it has ended.
    to_thread: Option<SyncSender<Work>>,
    at: Lsn,
}

/// What the thread is to do.
enum Work {
    Add(Content),
    Finish(Box<ReplicaState>),
}

/// What it has done.
enum Worked {
    Added,
    Finished(u64),
    Failed(io::Error),
}

impl Shared {
    /// Begins to export the image; the answer is whether it has begun.
    pub(super) fn seed(
        self: &Rc<Self>,
        wish: SeedWish,
        reply: oneshot::Sender<Result<Done, Denied>>,
    ) {
        let mut inner = self.inner.borrow_mut();
        if inner.seeding.as_ref().is_some_and(Seeding::is_running) {
            // Who asked may have gone away; then nobody needs the answer.
            let _ = reply.send(Err(Denied::Busy));
            return;
        }
        let session = SessionId::new(inner.number());
        let volumes = inner.node.state().volumes.clone();
        let header = Header { resource: self.resource, volumes: volumes.clone() };
        let (to_thread, work) = sync_channel(WAITING_MAX);
        let (worked, hears) = mpsc::unbounded_channel();
        let path = wish.path.clone();
        let spawned = std::thread::Builder::new().name("seed".into()).spawn(move || {
            let ended = write(&path, &header, &work, &worked);
            // The resource may have stopped meanwhile.
            let _ = worked.send(ended.map_or_else(Worked::Failed, Worked::Finished));
        });
        let status = SeedStatus {
            path: wish.path,
            progress: CopyProgress::default(),
            took_us: 0,
            state: SeedState::Running,
        };
        let (sink, began) = (Sink::new(&volumes), inner.clock().now);
        let (to_thread, at) = (Some(to_thread), Lsn::START);
        inner.seeding = Some(Seeding { session, began, status, sink, to_thread, at });
        if let Err(error) = spawned {
            inner.seed_failed(error.to_string());
            // Whoever follows it hears why it has ended.
            let _ = reply.send(Ok(Done::Seeds));
            return;
        }
        drop(inner);
        spawn_local(hear_thread(self.clone(), session, hears));
        let (asked, answer) = oneshot::channel();
        spawn_local(hear_core(self.clone(), answer, reply));
        self.command(Command::Seed { session, absent: wish.absent }, asked);
    }
}

/// Hands on what the core says. An export that it refuses is over: another may be begun.
async fn hear_core(
    shared: Rc<Shared>,
    answer: oneshot::Receiver<Result<Done, Denied>>,
    reply: oneshot::Sender<Result<Done, Denied>>,
) {
    let answer = answer.await.unwrap_or(Err(Denied::Stopping));
    if let Err(denied) = answer {
        shared.inner.borrow_mut().seed_failed(denied.to_string());
    }
    let _ = reply.send(answer);
}

async fn hear_thread(
    shared: Rc<Shared>,
    session: SessionId,
    mut hears: mpsc::UnboundedReceiver<Worked>,
) {
    while let Some(worked) = hears.recv().await {
        shared.inner.borrow_mut().seed_worked(session, worked);
        shared.wake.notify_one();
    }
}

impl Seeding {
    fn is_running(&self) -> bool {
        self.status.state == SeedState::Running
    }
}

impl Inner {
    /// Whether this is the number of the export.
    pub(super) fn is_seed(&self, id: u64) -> bool {
        self.seeding.as_ref().is_some_and(|seeding| seeding.session.get() == id)
    }

    /// The source has begun: it hears what the file's side says first.
    pub(super) fn seed_begun(&mut self) {
        self.answer_source();
    }

    /// What the source says.
    pub(super) fn seed_heard(&mut self, message: Numbered) {
        let Some(seeding) = self.seeding.as_mut().filter(|seeding| seeding.is_running()) else {
            return;
        };
        match seeding.sink.hear(message) {
            Ok(None) => self.answer_source(),
            Ok(Some(content)) => self.hand_over(Work::Add(content)),
            Err(error) => self.seed_failed(error.to_string()),
        }
    }

    /// Everything of `at` was sent: the end can be written.
    pub(super) fn seed_sent(&mut self, at: LogPosition) {
        let state = Box::new(self.node.state().seeded_at(at));
        if let Some(seeding) = &mut self.seeding {
            seeding.at = at.lsn;
        }
        self.hand_over(Work::Finish(state));
        self.seeding.iter_mut().for_each(|seeding| seeding.to_thread = None);
    }

    /// It came to nothing; what is written of the file is removed by its thread.
    pub(super) fn seed_failed(&mut self, why: String) {
        let now = self.clock();
        let Some(seeding) = self.seeding.as_mut().filter(|seeding| seeding.is_running()) else {
            return;
        };
        tracing::warn!(resource = %self.name, why, "a seed cannot be exported");
        seeding.to_thread = None;
        seeding.status.took_us = micros(now.now.since(seeding.began));
        seeding.status.state = SeedState::Failed { why };
        let session = seeding.session;
        self.node.handle(now, Event::SourceFailed { session });
    }

    fn hand_over(&mut self, work: Work) {
        let sender = self.seeding.as_ref().and_then(|seeding| seeding.to_thread.as_ref());
        // A thread that has ended has said why.
        let refused = sender.is_some_and(|sender| {
            matches!(sender.try_send(work), Err(std::sync::mpsc::TrySendError::Full(_)))
        });
        if refused {
            self.seed_failed("the replica sends more than was asked for".into());
        }
    }

    fn seed_worked(&mut self, session: SessionId, worked: Worked) {
        let now = self.clock().now;
        let Some(seeding) = self.seeding.as_mut().filter(|seeding| seeding.session == session)
        else {
            return;
        };
        match worked {
            Worked::Added if seeding.is_running() => {
                seeding.sink.has_taken(1);
                self.answer_source();
            }
            Worked::Added => {}
            Worked::Finished(bytes) => {
                seeding.status.took_us = micros(now.since(seeding.began));
                seeding.status.state = SeedState::Done { lsn: seeding.at, bytes };
            }
            Worked::Failed(error) => {
                let why = format!("{}: {error}", seeding.status.path.display());
                self.seed_failed(why);
            }
        }
    }

    fn answer_source(&mut self) {
        let Self { seeding: Some(seeding), replica, .. } = self else { return };
        while let Some(answer) = seeding.sink.answer() {
            if let Err(error) = replica.copying(seeding.session.get(), answer) {
                let why = error.to_string();
                return self.seed_failed(why);
            }
        }
        if let Some(progress) = replica.copy_progress(seeding.session.get()) {
            seeding.status.progress = progress;
        }
    }

    /// How far it is, or how it ended.
    pub(super) fn seed_status(&self) -> Option<SeedStatus> {
        let seeding = self.seeding.as_ref()?;
        let mut status = seeding.status.clone();
        if seeding.is_running() {
            status.took_us = micros(self.clock().now.since(seeding.began));
        }
        Some(status)
    }
}

/// Writes the file beside its name, and gives it that when it is whole and durable. If the work
/// ends before its end, or something fails, there is no file.
fn write(
    path: &Path,
    header: &Header,
    work: &Receiver<Work>,
    worked: &mpsc::UnboundedSender<Worked>,
) -> io::Result<u64> {
    let part = part_of(path);
    let file = create(path, &part)?;
    let ended = write_all(file, header, work, worked);
    let named = ended.and_then(|bytes| name_it(&part, path).map(|()| bytes));
    if named.is_err() {
        // Nobody needs it, and the first error says more than a second.
        let _ = fs::remove_file(&part);
    }
    named
}

/// The name that a file has while it is written.
pub(crate) fn part_of(path: &Path) -> PathBuf {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

/// Begins a file that must not exist; one that a crash has left half-written is begun anew.
pub(crate) fn create(path: &Path, part: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if path.exists() {
        let text = "it exists and is not replaced; choose another name, or remove it";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    match fs::remove_file(part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // What a volume holds is for its owner only.
    File::options().write(true).create_new(true).mode(0o600).open(part)
}

/// Gives a durable file its name, durably.
pub(crate) fn name_it(part: &Path, path: &Path) -> io::Result<()> {
    // Unlike a rename this replaces nothing.
    fs::hard_link(part, path)?;
    fs::remove_file(part)?;
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    File::open(above.unwrap_or(Path::new(".")))?.sync_all()
}

fn write_all(
    file: File,
    header: &Header,
    work: &Receiver<Work>,
    worked: &mpsc::UnboundedSender<Worked>,
) -> io::Result<u64> {
    let mut writer = SeedWriter::begin(BufWriter::new(file), header)?;
    loop {
        match work.recv() {
            Ok(Work::Add(content)) => {
                writer.add(&content)?;
                // The resource may have stopped; then no more work comes.
                let _ = worked.send(Worked::Added);
            }
            Ok(Work::Finish(state)) => {
                let (out, bytes) = writer.finish(&state)?;
                out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
                return Ok(bytes);
            }
            Err(_) => return Err(io::Error::other("it was given up before its end")),
        }
    }
}

//! Work of many steps, written down in its order: a future that asks for operations and is polled
//! when some of them have ended.
//!
//! The data path has hand-made state machines, because there every step counts. Here an order of
//! writes is what matters, and it is best seen where it reads from top to bottom. Nothing of a
//! runtime is behind it: tasks are polled in a fixed order after each round of completions, so the
//! same completions lead to the same operations (I11).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::buffer::IoBuf;
use crate::engine::{Completion, Engine, FileId, Op, OpenAs, TokenSpace};

/// Something that will be there.
pub(crate) struct Slot<T>(Rc<RefCell<Option<T>>>);

impl<T> Slot<T> {
    fn empty() -> (Self, Self) {
        let shared = Rc::new(RefCell::new(None));
        (Self(shared.clone()), Self(shared))
    }

    fn fill(self, value: T) {
        *self.0.borrow_mut() = Some(value);
    }
}

impl<T> Future for Slot<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<T> {
        self.0.borrow_mut().take().map_or(Poll::Pending, Poll::Ready)
    }
}

/// What came of an operation.
type Done = io::Result<Op>;
/// Something that only the engine itself can do, at once.
type Call = Box<dyn FnOnce(&mut dyn Engine)>;

enum Ask {
    Op(u64, Op),
    Call(Call),
}

/// Where the tasks of a replica leave what they ask for.
#[derive(Default)]
struct Desk {
    next: u64,
    asked: VecDeque<Ask>,
    under_way: BTreeMap<u64, (Slot<Done>, Rc<Cell<usize>>)>,
    /// A task has more to do, though nothing is under way for it.
    restless: bool,
}

/// All tasks of one replica, towards its engine.
pub(crate) struct Tasks {
    tokens: TokenSpace,
    desk: Rc<RefCell<Desk>>,
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tasks({} operations under way)", self.desk.borrow().under_way.len())
    }
}

impl Tasks {
    pub(crate) fn new(tokens: TokenSpace) -> Self {
        Self { tokens, desk: Rc::default() }
    }

    /// The door of one task.
    pub(crate) fn io(&self) -> Io {
        Io { desk: self.desk.clone(), own: Rc::default() }
    }

    /// Whether a task is to be polled again at once, since this was asked last.
    pub(crate) fn is_restless(&self) -> bool {
        std::mem::take(&mut self.desk.borrow_mut().restless)
    }

    /// Hands over what was asked for. Says whether something was answered at once.
    pub(crate) fn begin<E: Engine>(&self, engine: &mut E) -> bool {
        let mut answered = false;
        loop {
            let ask = self.desk.borrow_mut().asked.pop_front();
            match ask {
                Some(Ask::Op(number, op)) => engine.submit(self.tokens.token(0, number), op),
                Some(Ask::Call(call)) => {
                    call(engine);
                    answered = true;
                }
                None => return answered,
            }
        }
    }

    /// Takes the end of an operation; nobody may wait for it any more.
    pub(crate) fn complete(&self, done: Completion) {
        let (_, number) = TokenSpace::split(done.token);
        let taken = self.desk.borrow_mut().under_way.remove(&number);
        if let Some((slot, own)) = taken {
            own.set(own.get().saturating_sub(1));
            slot.fill(done.result.map(|()| done.op));
        }
    }

    /// Polls a task as far as it comes.
    pub(crate) fn poll<T, E: Engine>(&self, task: &mut Task<T>, engine: &mut E) -> Option<T> {
        loop {
            let polled = task.future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            let answered = self.begin(engine);
            if let Poll::Ready(value) = polled {
                return Some(value);
            }
            if !answered {
                return None;
            }
        }
    }

    /// Does a task to its end, with an engine that does nothing else.
    ///
    /// # Errors
    /// The engine's own; then the task is given up.
    pub(crate) fn run<T, E: Engine>(&self, mut task: Task<T>, engine: &mut E) -> io::Result<T> {
        let mut done = Vec::new();
        loop {
            if let Some(value) = self.poll(&mut task, engine) {
                return Ok(value);
            }
            engine.kick();
            engine.wait()?;
            engine.reap(&mut done);
            done.drain(..).for_each(|completion| self.complete(completion));
        }
    }
}

/// Work under way.
pub(crate) struct Task<T> {
    future: Pin<Box<dyn Future<Output = T>>>,
}

impl<T> Task<T> {
    pub(crate) fn new(future: impl Future<Output = T> + 'static) -> Self {
        Self { future: Box::pin(future) }
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Task")
    }
}

/// Waits until something has happened anywhere in the replica.
pub(crate) async fn pause() {
    let mut asked = false;
    poll_fn(|_| match std::mem::replace(&mut asked, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

/// What one task asks with.
#[derive(Clone)]
pub(crate) struct Io {
    desk: Rc<RefCell<Desk>>,
    own: Rc<Cell<usize>>,
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Io({} operations under way)", self.own.get())
    }
}

impl Io {
    /// Whether operations that it asked for are under way; also those that nobody waits for.
    pub(crate) fn is_busy(&self) -> bool {
        self.own.get() > 0
    }

    /// Lets everybody else go on first: what can be done without waiting may be much.
    pub(crate) async fn breathe(&self) {
        self.desk.borrow_mut().restless = true;
        pause().await;
    }

    /// Asks for an operation; it begins whether or not somebody waits for it.
    pub(crate) fn op(&self, op: Op) -> Slot<Done> {
        let (here, there) = Slot::empty();
        let mut desk = self.desk.borrow_mut();
        desk.next += 1;
        let number = desk.next;
        self.own.set(self.own.get() + 1);
        desk.under_way.insert(number, (there, self.own.clone()));
        desk.asked.push_back(Ask::Op(number, op));
        here
    }

    fn call<T: 'static>(&self, act: impl FnOnce(&mut dyn Engine) -> T + 'static) -> Slot<T> {
        let (here, there) = Slot::empty();
        let call: Call = Box::new(move |engine| there.fill(act(engine)));
        self.desk.borrow_mut().asked.push_back(Ask::Call(call));
        here
    }

    pub(crate) fn read(&self, file: FileId, offset: u64, len: usize) -> Reading {
        let buffer = IoBuf::with_len(len);
        Reading { slot: self.op(Op::Read { file, offset, buffer, len }), len }
    }

    pub(crate) fn write(&self, file: FileId, offset: u64, data: Bytes) -> Slot<Done> {
        self.op(Op::Write { file, offset, data })
    }

    pub(crate) fn sync(&self, file: FileId) -> Slot<Done> {
        self.op(Op::Sync { file })
    }

    pub(crate) fn rename(&self, dir: FileId, from: &str, to: &str) -> Slot<Done> {
        self.op(Op::Rename { dir, from: from.to_owned(), to: to.to_owned() })
    }

    pub(crate) async fn open(&self, path: &Path, how: OpenAs) -> io::Result<Open> {
        let path = path.to_path_buf();
        let id = self.call(move |engine| engine.open(&path, how)).await?;
        Ok(Open { id, io: self.clone() })
    }

    pub(crate) async fn create(&self, path: &Path, how: OpenAs) -> io::Result<Open> {
        let path = path.to_path_buf();
        let id = self.call(move |engine| engine.create(&path, how)).await?;
        Ok(Open { id, io: self.clone() })
    }

    pub(crate) async fn open_dir(&self, path: &Path) -> io::Result<Open> {
        let path = path.to_path_buf();
        let id = self.call(move |engine| engine.open_dir(&path)).await?;
        Ok(Open { id, io: self.clone() })
    }

    pub(crate) async fn create_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_path_buf();
        self.call(move |engine| engine.create_dir(&path)).await
    }

    pub(crate) async fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let path = path.to_path_buf();
        self.call(move |engine| engine.list(&path)).await
    }

    /// Removes a file that may not be there.
    pub(crate) async fn remove(&self, path: &Path) -> io::Result<()> {
        let path = path.to_path_buf();
        match self.call(move |engine| engine.remove(&path)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    pub(crate) async fn size(&self, file: FileId) -> io::Result<u64> {
        self.call(move |engine| engine.size(file)).await
    }

    pub(crate) async fn extend(&self, file: FileId, len: u64) -> io::Result<()> {
        self.call(move |engine| engine.extend(file, len)).await
    }

    pub(crate) async fn stretch(&self, file: FileId, start: u64, end: u64) -> (u64, bool) {
        self.call(move |engine| engine.stretch(file, start, end)).await
    }
}

/// A read under way.
pub(crate) struct Reading {
    slot: Slot<Done>,
    len: usize,
}

impl Reading {
    pub(crate) async fn bytes(self) -> io::Result<Bytes> {
        match self.slot.await? {
            Op::Read { buffer, .. } => Ok(buffer.freeze().slice(..self.len)),
            _ => unreachable!("a read comes back as itself"),
        }
    }
}

/// An open file, closed when nobody has it any more.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) id: FileId,
    io: Io,
}

impl Drop for Open {
    fn drop(&mut self) {
        let id = self.id;
        drop(self.io.call(move |engine| engine.close(id)));
    }
}

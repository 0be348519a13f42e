//! A client that says exactly what a story wants, right or wrong, and a backend that waits.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::{JoinHandle, spawn_local};

use super::super::proto::{MAGIC_OPTION, command, option};
use super::super::*;
use crate::export::*;

pub(super) const SIZE: u64 = 1 << 20;

/// A backend that keeps requests until it is told to go on.
pub(super) struct Slow {
    pub(super) info: ExportInfo,
    pub(super) inner: MemoryBackend,
    pub(super) waiting: RefCell<Vec<Reply>>,
    pub(super) ready: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Slow {
    pub(super) fn new(info: ExportInfo) -> Rc<Self> {
        let inner = MemoryBackend::new(usize::try_from(info.size_bytes).unwrap());
        let (waiting, waker) = (RefCell::default(), RefCell::default());
        Rc::new(Self { info, inner, waiting, ready: Cell::new(true), waker })
    }

    pub(super) fn set_ready(&self, ready: bool) {
        self.ready.set(ready);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Backend for Slow {
    fn info(&self) -> ExportInfo {
        self.info.clone()
    }

    /// Flushes wait; everything else is done at once.
    fn submit(&self, request: Request<'_>, reply: Reply) {
        match request {
            Request::Flush => self.waiting.borrow_mut().push(reply),
            Request::BlockStatus { len, .. } => {
                let data = Extent { len: 4096, hole: false, zero: false };
                reply.status(vec![data, Extent { len: len - 4096, hole: true, zero: true }]);
            }
            other => self.inner.submit(other, reply),
        }
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ready.get() {
            return Poll::Ready(());
        }
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// A server for one connection, and the client's end of it.
pub(super) struct Talk {
    pub(super) stream: DuplexStream,
    pub(super) server: JoinHandle<Result<(), ConnectionError>>,
    pub(super) switch: CloseHandle,
    pub(super) backend: Rc<Slow>,
}

/// An option's reply: its type and its data.
pub(super) type OptionReply = (u32, Vec<u8>);

impl Talk {
    pub(super) fn new(info: ExportInfo, limits: Limits) -> Self {
        Self::over(info, limits, 1 << 16)
    }

    /// `socket_len` bytes fit between the two before somebody must read.
    pub(super) fn over(info: ExportInfo, limits: Limits, socket_len: usize) -> Self {
        let backend = Slow::new(info);
        let (stream, theirs) = tokio::io::duplex(socket_len);
        let switch = CloseHandle::new();
        let (served, thrown) = (backend.clone(), switch.clone());
        let server = spawn_local(async move {
            let mut exports = Exports::new();
            exports.insert("db", Export::new(served.clone()));
            exports.insert("web", Export::new(served));
            serve_connection(theirs, &exports, &thrown, limits, None).await
        });
        Self { stream, server, switch, backend }
    }

    pub(super) async fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Takes the greeting and answers it with these flags.
    pub(super) async fn greet(&mut self, flags: u32) {
        let greeting = self.read(18).await;
        assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
        self.send(&flags.to_be_bytes()).await;
    }

    pub(super) async fn ask(&mut self, option: u32, data: &[u8]) {
        let mut bytes = MAGIC_OPTION.to_be_bytes().to_vec();
        bytes.extend(option.to_be_bytes());
        bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(data);
        self.send(&bytes).await;
    }

    pub(super) async fn option_reply(&mut self) -> OptionReply {
        let head = self.read(20).await;
        let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
        let data = self.read(word(16) as usize).await;
        (word(12), data)
    }

    /// Every reply up to the one that ends the option.
    pub(super) async fn option(&mut self, option: u32, data: &[u8]) -> Vec<OptionReply> {
        self.ask(option, data).await;
        let mut all = Vec::new();
        loop {
            let reply = self.option_reply().await;
            let last = reply.0 == 1 || reply.0 & (1 << 31) != 0;
            all.push(reply);
            if last {
                return all;
            }
        }
    }

    /// The short way in: no zeroes, the export by name, simple replies.
    pub(super) async fn enter(&mut self) {
        self.greet(3).await;
        self.ask(option::EXPORT_NAME, b"db").await;
        self.read(10).await;
    }

    /// A compact request header.
    pub(super) async fn request(&mut self, command: u16, flags: u16, offset: u64, len: u32) {
        let bytes = compact(command, flags, offset, len);
        self.send(&bytes).await;
    }

    pub(super) async fn write(&mut self, offset: u64, data: &[u8]) {
        self.request(command::WRITE, 0, offset, u32::try_from(data.len()).unwrap()).await;
        self.send(data).await;
    }

    /// The error number of a simple reply; zero is success.
    pub(super) async fn answer(&mut self) -> u32 {
        let reply = self.read(16).await;
        assert_eq!(reply[..4], [0x67, 0x44, 0x66, 0x98]);
        u32::from_be_bytes(reply[4..8].try_into().unwrap())
    }

    /// Says goodbye, and how the connection ended.
    pub(super) async fn leave(mut self) -> Result<(), ConnectionError> {
        self.request(command::DISC, 0, 0, 0).await;
        self.server.await.unwrap()
    }
}

/// A compact request header; its cookie is the offset, so that replies name what they answer.
pub(super) fn compact(command: u16, flags: u16, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes
}

pub(super) fn info() -> ExportInfo {
    ExportInfo::new(SIZE, 512)
}

/// Runs a story on one thread with paused time: deadlines come when nothing else can happen.
pub(super) fn story(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, future);
}

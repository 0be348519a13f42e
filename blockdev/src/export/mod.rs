//! What every front end serves and how it asks: a volume's [`Backend`], checked requests, and the
//! one-shot [`Reply`] that brings an answer back to whoever asked.

mod close;
mod memory;
mod reply;
mod request;

use std::task::{Context, Poll};

pub(crate) use close::Watch;
pub use close::{Close, CloseHandle};
pub use memory::MemoryBackend;
pub use reply::{Answer, EXTENT_COUNT_MAX, Expects, Extent, FrontEnd, Parts, Reply, Ticket};
pub use request::{Piece, Request, RequestError, SMALL_WRITE_MAX, WriteData};

/// Largest read or write that is served, in bytes.
pub const PAYLOAD_LEN_MAX: u32 = 32 << 20;
/// Largest block size of a volume that is exported, in bytes: the NBD document allows no more.
pub const BLOCK_SIZE_MAX: u32 = 1 << 16;

/// What a volume's owner offers to its front ends.
///
/// Every method is called on the data-path thread and must not block. Requests that reach
/// [`submit`](Backend::submit) are already checked against [`info`](Backend::info): in range,
/// aligned to the block size, not longer than [`PAYLOAD_LEN_MAX`] where they carry data, and no
/// changes if the export is read-only.
///
/// Many connections and queues may serve one volume: when a flush is answered, every write that was
/// answered before the flush came, *on any of them*, must be durable as the resource's mode
/// promises (design §3).
pub trait Backend {
    /// Size, block size and abilities. Asked once per client, which keeps what it was told: what it
    /// was told stays true as long as its connection. A volume that grows gets another backend.
    fn info(&self) -> ExportInfo;

    /// Starts one checked request. The answer comes later, at any time and in any order, through
    /// `reply`; answering before returning is fine too.
    fn submit(&self, request: Request<'_>, reply: Reply);

    /// Ready when the backend takes one more request; asked before each request is accepted.
    ///
    /// While it is pending a front end takes nothing more, so that its client is held back. It is
    /// a hint, not a reservation: the payload of a large write may arrive after the question, and
    /// several clients may be told "ready" for the same room.
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()>;
}

/// What a client learns about an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportInfo {
    /// In bytes. What is beyond the last whole block cannot be reached by clients.
    pub size_bytes: u64,
    /// Smallest unit of a request, in bytes: a power of two, at most [`BLOCK_SIZE_MAX`].
    pub block_size: u32,
    /// Refuse every change with `EPERM`.
    pub read_only: bool,
    /// Zeroing is faster than writing; if not, requests that insist on it get `ENOTSUP`.
    pub fast_zero: bool,
    /// Text for humans, at most 4096 bytes; empty for none.
    pub description: String,
}

impl ExportInfo {
    /// A writable export without description.
    #[must_use]
    pub fn new(size_bytes: u64, block_size: u32) -> Self {
        Self {
            size_bytes,
            block_size,
            read_only: false,
            fast_zero: false,
            description: String::new(),
        }
    }
}

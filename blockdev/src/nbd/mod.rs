//! The NBD server: volumes for any client that speaks the Network Block Device protocol.
//!
//! Format and negotiation are pure (`proto`, `negotiate`, `request`); a connection (`conn`) moves
//! bytes between its socket and the [`Backend`](crate::export::Backend) of its export, with a
//! bounded account of what it has in flight. Everything of one resource runs on one thread,
//! without locks and without a task per request.
//!
//! A connection holds at most its receive buffer (64 KiB and less than a page), the payloads that
//! [`Limits`] allows in flight (by default 256 requests and 64 MiB, one request always), one piece
//! of a payload that is on its way in (1 MiB), and the heads of its queued answers (under 64 bytes
//! each, at most as many as requests). A client that does not read its answers is not read from.

mod conn;
mod export;
mod extents;
mod negotiate;
mod outbox;
pub mod proto;
mod receive;
mod request;
mod serve;

pub use conn::{ConnectionError, Limits, serve_connection};
pub use export::{BLOCK_SIZE_PREFERRED, Export, ExportTable, Exports, Found, Listed};
pub use negotiate::{Negotiation, NegotiationError, Next, OPTION_DATA_LEN_MAX, Step, Transmission};
pub use proto::Headers;
pub use request::{Agreed, SKIP_LEN_MAX};
pub use serve::{serve_tcp, serve_unix};

#[cfg(test)]
mod tests;

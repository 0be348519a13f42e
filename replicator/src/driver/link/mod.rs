//! The connection to one other member: bytes to messages and frames, and back.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future as _;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hadrian_blockdev::buffer::IoBuf;
use hadrian_protocol::frame::{Frame, FrameError, HEAD_LEN, HEADER_LEN, peek_size};
use hadrian_protocol::ids::SessionId;
use hadrian_protocol::wire::{ENVELOPE_LEN, Envelope, Message, WireError};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::Notify;

use super::resource::Shared;
pub use packing::{Compression, PackingError};
use packing::{Packer, Unpacker};
pub use stream::LinkStream;

mod packing;
mod stream;
#[cfg(test)]
mod tests;

const READ_BUFFER: usize = 64 << 10;
/// Longest wait for the other side's end of a connection that this side has closed.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// Why a connection to another member ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket failed or the other side closed it.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The stream cannot be read.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A frame cannot be trusted.
    #[error("a frame from the other side cannot be trusted: {0}")]
    Frame(#[from] FrameError),
    /// A packed frame does not unpack.
    #[error(transparent)]
    Packing(#[from] PackingError),
    /// The data of a resync makes no sense.
    #[error(
        "what the other side says of a resync makes no sense; see that both run the same version"
    )]
    Copying,
    /// A frame touches what is not there.
    #[error("a frame from the other side writes outside its volume")]
    Outside,
}

/// What waits to be sent to one member.
#[derive(Default)]
pub(super) struct Outgoing {
    queue: RefCell<VecDeque<Item>>,
    wake: Notify,
}

enum Item {
    Message(Vec<u8>),
    Frame(Frame),
    Close,
}

impl Outgoing {
    pub(super) fn send(&self, message: &Message) {
        self.push(Item::Message(message.encode()));
    }

    pub(super) fn ship(&self, frame: Frame) {
        self.push(Item::Frame(frame));
    }

    /// Ends the connection behind everything that waits.
    pub(super) fn close(&self) {
        self.push(Item::Close);
    }

    fn push(&self, item: Item) {
        self.queue.borrow_mut().push_back(item);
        self.wake.notify_one();
    }
}

/// Runs a connection until one side ends it.
pub(super) async fn run(
    shared: Rc<Shared>,
    session: SessionId,
    stream: LinkStream,
    outgoing: Rc<Outgoing>,
) -> Result<(), LinkError> {
    let (reader, writer) = tokio::io::split(stream);
    let read = read_loop(&shared, session, BufReader::with_capacity(READ_BUFFER, reader));
    let write = write_loop(&shared, session, writer, &outgoing);
    tokio::pin!(read);
    tokio::select! {
        result = &mut read => return result,
        result = write => result?,
    }
    // Closed in order by this side. A socket that is dropped with bytes unread resets the
    // connection, and the last words on their way to the other side would be lost with it.
    let _ = tokio::time::timeout(LINGER, read).await;
    Ok(())
}

async fn write_loop<W: AsyncWrite + Unpin>(
    shared: &Shared,
    session: SessionId,
    mut writer: W,
    outgoing: &Outgoing,
) -> Result<(), LinkError> {
    let mut packer = Packer::new(shared.compression)?;
    loop {
        let Some(item) = outgoing.queue.borrow_mut().pop_front() else {
            writer.flush().await?;
            // Something may have come while the last bytes went out.
            if outgoing.queue.borrow().is_empty() {
                outgoing.wake.notified().await;
            }
            continue;
        };
        match item {
            Item::Message(bytes) => {
                let mut written = std::pin::pin!(writer.write_all(&bytes));
                // A large part of a resync takes the thread for a while, each time that it goes on.
                std::future::poll_fn(|cx| {
                    let began = shared.stopwatch();
                    let polled = written.as_mut().poll(cx);
                    shared.was_busy(began);
                    polled
                })
                .await?;
            }
            Item::Frame(frame) => {
                write_frame(&mut writer, &frame, &mut packer).await?;
                shared.handed(session, frame.end());
            }
            Item::Close => {
                writer.flush().await?;
                writer.shutdown().await?;
                return Ok(());
            }
        }
    }
}

async fn write_frame<W: AsyncWrite + Unpin>(
    writer: &mut W,
    frame: &Frame,
    packer: &mut Packer,
) -> io::Result<()> {
    let (head, body) = frame.wire_parts();
    if let Some(packed) = packer.pack(&head, &body) {
        writer.write_all(&Envelope::for_packed_frame(packed.len())).await?;
        return writer.write_all(packed).await;
    }
    let mut front = Vec::with_capacity(ENVELOPE_LEN + head.len());
    front.extend_from_slice(&Envelope::for_frame(head.len() + body.len()));
    front.extend_from_slice(&head);
    let mut whole = bytes::Buf::chain(Bytes::from(front), body);
    writer.write_all_buf(&mut whole).await
}

async fn read_loop<R: AsyncRead + Unpin>(
    shared: &Shared,
    session: SessionId,
    mut reader: BufReader<R>,
) -> Result<(), LinkError> {
    let resource = shared.resource;
    let mut unpacker = Unpacker::default();
    loop {
        let mut head = [0; ENVELOPE_LEN];
        match reader.read_exact(&mut head).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            result => result?,
        };
        let envelope = Envelope::parse(&head)?;
        if envelope.is_frame() {
            let buffer = if envelope.is_packed() {
                read_packed_frame(&mut reader, &envelope, &mut unpacker).await?
            } else {
                read_frame(&mut reader, &envelope).await?
            };
            let frame = Frame::receive(buffer, resource, shared.durable())?;
            shared.room_for_frames(session).await;
            if !shared.frame_in(session, frame) {
                return Err(LinkError::Outside);
            }
        } else {
            let mut body = vec![0; envelope.body_len()];
            reader.read_exact(&mut body).await?;
            match envelope.message(&body)? {
                Message::Copying(copying) => {
                    if !shared.copying(session, copying) {
                        return Err(LinkError::Copying);
                    }
                }
                message => shared.heard(session, message),
            }
        }
    }
}

/// The frame goes straight into the memory from which the log is written.
async fn read_frame<R: AsyncRead + Unpin>(
    reader: &mut R,
    envelope: &Envelope,
) -> Result<IoBuf, LinkError> {
    let mut header = [0; HEADER_LEN];
    reader.read_exact(&mut header).await?;
    let size = peek_size(&header)?;
    if size.wire_len() != envelope.body_len() {
        return Err(WireError::Checksum.into());
    }
    let mut buffer = IoBuf::for_body(size.body_len());
    buffer[..HEADER_LEN].copy_from_slice(&header);
    reader.read_exact(&mut buffer[HEADER_LEN..size.head_len()]).await?;
    reader.read_exact(&mut buffer[HEAD_LEN..HEAD_LEN + size.body_len()]).await?;
    Ok(buffer)
}

async fn read_packed_frame<R: AsyncRead + Unpin>(
    reader: &mut R,
    envelope: &Envelope,
    unpacker: &mut Unpacker,
) -> Result<IoBuf, LinkError> {
    let mut packed = vec![0; envelope.body_len()];
    reader.read_exact(&mut packed).await?;
    let wire = unpacker.unpack(&packed)?;
    let header = wire.first_chunk::<HEADER_LEN>().ok_or(PackingError::Length)?;
    let size = peek_size(header)?;
    if size.wire_len() != wire.len() {
        return Err(WireError::Checksum.into());
    }
    let (head, body) = wire.split_at(size.head_len());
    let mut buffer = IoBuf::for_body(size.body_len());
    buffer[..head.len()].copy_from_slice(head);
    buffer[HEAD_LEN..HEAD_LEN + body.len()].copy_from_slice(body);
    Ok(buffer)
}

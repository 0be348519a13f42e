//! Requests of the resource's own, beside those of its clients.

use std::cell::RefCell;
use std::rc::Rc;

use hadrian_blockdev::export::{
    Answer, Backend as _, Expects, ExportInfo, FrontEnd, Reply, Request, RequestError, Ticket,
    WriteData,
};
use hadrian_protocol::ids::VolumeIndex;
use tokio::sync::oneshot;

use super::clients::VolumeBackend;
use super::resource::Shared;

/// Bytes of one write: small enough to go through the log like any client's.
const PIECE: usize = 128 << 10;

type Answered = Result<Answer, RequestError>;

/// Where one answer goes.
struct Waiting(RefCell<Option<oneshot::Sender<Answered>>>);

impl FrontEnd for Waiting {
    fn answer(&self, _: Ticket, answer: Answered) {
        if let Some(waiting) = self.0.take() {
            // Whoever asked may be gone.
            drop(waiting.send(answer));
        }
    }
}

fn waiting(expects: Expects) -> (Reply, oneshot::Receiver<Answered>) {
    let (sender, answer) = oneshot::channel();
    let front_end = Rc::new(Waiting(RefCell::new(Some(sender))));
    let ticket = Ticket { cookie: 0, offset: 0, expects, bytes: 0 };
    (Reply::new(front_end, ticket), answer)
}

impl Shared {
    /// What a volume holds, everything in the log included. Needs no service to clients.
    pub(super) async fn read_own(
        &self,
        volume: VolumeIndex,
        offset: u64,
        len: u32,
    ) -> Result<Vec<u8>, RequestError> {
        let (reply, answer) = waiting(Expects::Data { len });
        self.inner.borrow_mut().read(volume, offset, u64::from(len), reply);
        self.wake.notify_one();
        match answer.await {
            Ok(Ok(Answer::Data(parts))) => Ok(parts.concat()),
            Ok(Err(error)) => Err(error),
            _ => Err(RequestError::Shutdown),
        }
    }

    /// Writes in order; when it returns, the last piece is where the mode wants a flush to be.
    pub(super) async fn write_own(
        self: &Rc<Self>,
        volume: VolumeIndex,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), RequestError> {
        let backend = VolumeBackend {
            resource: self.clone(),
            volume,
            info: ExportInfo::new(offset + bytes.len() as u64, 512),
        };
        for (at, piece) in (offset..).step_by(PIECE).zip(bytes.chunks(PIECE)) {
            let (reply, answer) = waiting(Expects::Nothing);
            let data = WriteData::Lent(piece);
            backend.submit(Request::Write { offset: at, data, fua: true }, reply);
            answer.await.map_err(|_| RequestError::Shutdown)??;
        }
        Ok(())
    }
}

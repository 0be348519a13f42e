//! A volume of a view as an export that front ends serve.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use hadrian_protocol::ids::VolumeIndex;
use hadrian_protocol::range::ByteRange;
use smallvec::smallvec;

use super::view::View;
use crate::engine::Engine;
use crate::export::{
    Backend, EXTENT_COUNT_MAX, ExportInfo, Reply, Request, RequestError, WriteData,
};

/// Serves one volume of a [`View`], which the others share. Reads and writes wait for the disk
/// where they stand: the thread does nothing else.
#[derive(Debug)]
pub struct VolumeView<E: Engine> {
    view: Rc<RefCell<View<E>>>,
    volume: VolumeIndex,
    info: ExportInfo,
}

impl<E: Engine> VolumeView<E> {
    /// Serves a volume of `view` as `info` says, which may be written to where the view may be.
    #[must_use]
    pub fn new(view: Rc<RefCell<View<E>>>, volume: VolumeIndex, info: ExportInfo) -> Self {
        Self { view, volume, info }
    }

    fn write(&self, offset: u64, data: &WriteData<'_>) -> io::Result<()> {
        let mut at = offset;
        for slice in data.slices() {
            self.view.borrow_mut().write(self.volume, at, slice)?;
            at += slice.len() as u64;
        }
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        let range = ByteRange::new(offset, len).map_err(io::Error::other)?;
        self.view.borrow_mut().zero(self.volume, range)
    }

    /// What a client is told of an error, and the log of the daemon beside it.
    fn error(&self, error: &io::Error) -> RequestError {
        if error.kind() != io::ErrorKind::StorageFull {
            let volume = self.volume.index();
            tracing::warn!(volume, %error, "the image cannot be read as it was");
        }
        RequestError::from(error)
    }
}

impl<E: Engine> Backend for VolumeView<E> {
    fn info(&self) -> ExportInfo {
        self.info.clone()
    }

    fn submit(&self, request: Request<'_>, reply: Reply) {
        let done = match request {
            Request::Read { offset, len } => {
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                let read = self.view.borrow_mut().read(self.volume, offset, len);
                return match read {
                    Ok(bytes) => reply.data(smallvec![bytes.into()]),
                    Err(error) => reply.done(Err(self.error(&error))),
                };
            }
            Request::BlockStatus { offset, len, one } => {
                let count = if one { 1 } else { EXTENT_COUNT_MAX };
                let found = self.view.borrow_mut().extents(self.volume, (offset, len), count);
                return match found {
                    Ok(extents) => reply.status(extents),
                    Err(error) => reply.done(Err(self.error(&error))),
                };
            }
            // What is written is thrown away anyway: it is as durable as it will ever be.
            Request::Flush | Request::Cache { .. } => Ok(()),
            _ if self.info.read_only => Err(io::ErrorKind::PermissionDenied.into()),
            Request::Write { offset, data, .. } => self.write(offset, &data),
            Request::Trim { offset, len, .. } | Request::WriteZeroes { offset, len, .. } => {
                self.zero(offset, len)
            }
        };
        reply.done(done.map_err(|error| self.error(&error)));
    }

    fn poll_ready(&self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

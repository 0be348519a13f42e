//! A view as an export that front ends serve: it is read, and never written.

use std::cell::RefCell;
use std::task::{Context, Poll};

use smallvec::smallvec;

use super::view::View;
use crate::engine::Engine;
use crate::export::{Backend, EXTENT_COUNT_MAX, ExportInfo, Reply, Request, RequestError};

/// Serves a [`View`] from the engine that has its files open. Reads wait for the disk where they
/// stand: this is for a tool that does nothing else.
#[derive(Debug)]
pub struct ViewBackend<E> {
    view: View,
    engine: RefCell<E>,
    info: ExportInfo,
}

impl<E: Engine> ViewBackend<E> {
    /// Serves `view` in blocks of `block_size` bytes, a power of two up to
    /// [`crate::export::BLOCK_SIZE_MAX`].
    #[must_use]
    pub fn new(view: View, engine: E, block_size: u32, description: String) -> Self {
        let info =
            ExportInfo { read_only: true, description, ..ExportInfo::new(view.size(), block_size) };
        Self { view, engine: RefCell::new(engine), info }
    }

    fn read(&self, offset: u64, len: u32, reply: Reply) {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        match self.view.read(&mut *self.engine.borrow_mut(), offset, len) {
            Ok(bytes) => reply.data(smallvec![bytes.into()]),
            Err(error) => {
                tracing::warn!(offset, len, %error, "a part of the quarantined view is unreadable");
                reply.done(Err(RequestError::from(&error)));
            }
        }
    }
}

impl<E: Engine> Backend for ViewBackend<E> {
    fn info(&self) -> ExportInfo {
        self.info.clone()
    }

    fn submit(&self, request: Request<'_>, reply: Reply) {
        match request {
            Request::Read { offset, len } => self.read(offset, len, reply),
            Request::BlockStatus { offset, len, one } => {
                let count = if one { 1 } else { EXTENT_COUNT_MAX };
                let engine = &mut *self.engine.borrow_mut();
                reply.status(self.view.extents(engine, (offset, len), count));
            }
            Request::Flush | Request::Cache { .. } => reply.done(Ok(())),
            // The front end refuses these before they come here.
            Request::Write { .. } | Request::Trim { .. } | Request::WriteZeroes { .. } => {
                reply.done(Err(RequestError::NotPermitted));
            }
        }
    }

    fn poll_ready(&self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

//! A volume in memory, for tests and trials of the front ends.

use std::cell::RefCell;
use std::task::{Context, Poll};

use bytes::Bytes;
use smallvec::smallvec;

use super::{Backend, ExportInfo, Extent, Reply, Request, RequestError};

/// Answers every request at once from a vector of bytes.
#[derive(Debug)]
pub struct MemoryBackend {
    info: ExportInfo,
    bytes: RefCell<Vec<u8>>,
}

impl MemoryBackend {
    /// A volume of zeroes.
    #[must_use]
    pub fn new(size_bytes: usize) -> Self {
        let info = ExportInfo::new(size_bytes as u64, 512);
        Self { info, bytes: RefCell::new(vec![0; size_bytes]) }
    }

    /// A copy of the content.
    #[must_use]
    pub fn content(&self) -> Vec<u8> {
        self.bytes.borrow().clone()
    }

    fn part<T>(&self, offset: u64, len: u64, with: impl FnOnce(&mut [u8]) -> T) -> Option<T> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        self.bytes.borrow_mut().get_mut(start..end).map(with)
    }
}

impl Backend for MemoryBackend {
    fn info(&self) -> ExportInfo {
        self.info.clone()
    }

    fn submit(&self, request: Request<'_>, reply: Reply) {
        let done = match request {
            Request::Read { offset, len } => {
                let read = self.part(offset, u64::from(len), |part| Bytes::copy_from_slice(part));
                return match read {
                    Some(bytes) => reply.data(smallvec![bytes]),
                    None => reply.done(Err(RequestError::Invalid)),
                };
            }
            Request::BlockStatus { len, .. } => {
                return reply.status(vec![Extent { len, hole: false, zero: false }]);
            }
            Request::Write { offset, data, .. } => {
                let mut at = offset;
                data.slices().try_for_each(|slice| {
                    let here = at;
                    at += slice.len() as u64;
                    self.part(here, slice.len() as u64, |part| part.copy_from_slice(slice))
                })
            }
            Request::Trim { offset, len, .. } | Request::WriteZeroes { offset, len, .. } => {
                self.part(offset, len, |part| part.fill(0))
            }
            Request::Flush | Request::Cache { .. } => Some(()),
        };
        reply.done(done.ok_or(RequestError::Invalid));
    }

    fn poll_ready(&self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

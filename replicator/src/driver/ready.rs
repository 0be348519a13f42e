//! Waiting for the disks: the bell of their ring as something that a task can wait for.
#![allow(unsafe_code, reason = "registering a descriptor that the caller owns")]

use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Resolves when the bell of the ring was rung; never where there is no ring.
pub(super) struct DisksReady {
    ring: Option<AsyncFd<OwnedFd>>,
}

impl DisksReady {
    pub(super) fn new(descriptor: Option<OwnedFd>) -> Self {
        // SAFETY: the descriptor is owned by the registration and by nobody else, so it is open
        // and the same for as long as the registration lives.
        let ring = descriptor.and_then(|fd| unsafe { AsyncFd::register(fd) }.ok());
        Self { ring }
    }

    pub(super) async fn wait(&self) {
        match &self.ring {
            Some(ring) => {
                if let Ok(mut ready) = ring.readable().await {
                    ready.clear_ready();
                }
            }
            None => std::future::pending().await,
        }
    }
}

//! A daemon that was built without ublk makes no block devices, and says so.

use std::rc::Rc;

use hadrian_blockdev::export::{Backend, Close};
use hadrian_protocol::ids::{MemberId, ResourceId};

/// No devices.
pub(super) struct Devices;

impl Devices {
    pub(super) fn new(_: (ResourceId, MemberId), volumes: &[String], _: u16) -> Self {
        tracing::warn!(
            ?volumes,
            "no block devices: this hadriand was built without ublk; use NBD, or a build with \
             --features ublk"
        );
        Self
    }

    #[expect(clippy::unused_self, reason = "as with ublk")]
    pub(super) fn open(&mut self, _: usize, _: Rc<dyn Backend>) {}

    #[expect(clippy::unused_self, reason = "as with ublk")]
    pub(super) fn close(&mut self, _: Close) {}

    #[expect(clippy::unused_self, reason = "as with ublk")]
    pub(super) fn withdraw_left_over(&self) {}
}

//! ublk: a volume as a block device of this kernel, `/dev/ublkbN`.
//!
//! The kernel describes requests in memory that it shares (`descriptors`); each is fetched and
//! answered by a command in a ring of its own (`commands`); payloads are copied between the
//! kernel's pages and the buffers that go to the log (`serve`). All queues of a device are served
//! by the thread of its resource. What makes a device and takes it away (`control`) waits in the
//! kernel and has a thread of its own (`keeper`).
//!
//! A device outlives the program that serves it: requests wait in the kernel until somebody serves
//! it again, or takes it away.

mod commands;
mod control;
mod descriptors;
mod keeper;
mod serve;

pub use control::{DeviceError, QUEUE_DEPTH, Shape, withdraw_left_over};
pub use keeper::{Keeper, Opened};
pub use serve::{End, Queues};

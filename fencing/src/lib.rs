//! Ownership marks on devices and files (design §7): the hands of the rules in
//! [`hadrian_protocol::marks`].
//!
//! - [`medium`]: what holds the blocks of the marks, whatever it is.
//! - [`marker`]: one device or file: opened, read, written, durably and past the page cache.
//! - `etcd`: the same blocks as keys of an etcd, where the program is built with that.
//! - [`making`]: a marker made of a blank device; what is foreign is never written.
//! - [`show`]: what stands on a marker, for people.
//! - [`service`]: the threads that keep this member's lease and the control records: one for the
//!   rules and one for each marker, so that a marker that hangs holds up nobody else.
//! - [`watchdog`]: the device that resets this host where its clients cannot be held in time, by
//!   what each resource says through its [`exposure`].
//! - [`clock`]: time that goes on while the host sleeps.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod clock;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod exposure;
pub mod making;
pub mod marker;
pub mod medium;
pub mod service;
pub mod show;
pub mod watchdog;

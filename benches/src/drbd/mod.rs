//! `make bench-drbd`: our mirror as a block device beside DRBD's, in one virtual machine.
//!
//! This machine's kernel need not have DRBD, ublk or NBD: the lab of `tests/vm` boots one that has
//! them, in software emulation. Both members of either mirror are in that one machine, their links
//! on loopback and in plain text.
//!
//! Each member has one virtio disk for everything. Its parts of one size are what DRBD mirrors, the
//! backing store of our member, and, for reference, the disk as it is. Our log is a file on ext4 on
//! a fourth part of the same disk: what we write twice goes twice to the disk to which DRBD writes
//! it once. No flush is left out on either side.
//!
//! DRBD's protocol C answers a write when both disks have it, our nearsync when the log of the
//! primary has it and the standby has received it; a flush makes it durable on both disks there,
//! and here in the log of the primary. Reads of ours may come from the page cache, DRBD's do not.
//!
//! Emulation multiplies what processors do, and leaves what disks do as it is: a mirror whose work
//! is done by processors looks worse than it is, and one that changes between processes much worse,
//! for every change empties what the emulation knows of memory. The clock is the guest's. So only
//! ratios within one run mean anything, and those against what is in the kernel are the worst case.

pub(crate) mod counts;
pub(crate) mod guest;
pub(crate) mod host;

/// The subject that the others are compared with.
const DRBD: &str = "DRBD C";
/// What a guest says before the medians of a row and subject.
const MEDIANS: &str = "MEDIANS ";

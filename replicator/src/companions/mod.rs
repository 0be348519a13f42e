//! Companion files: small files of the host, such as keys, certificates and hosts tables, that go
//! where a resource goes.
//!
//! They lie in a small volume of their own under the resource's log, which no client sees: so they
//! are as far as the log is, a resync brings them, and they move with the role. The primary looks
//! at the files of its host and writes the set when one of them has changed; a member that becomes
//! primary puts them in place before its clients come. `set.rs` is what the volume holds,
//! `choose.rs` what happens to a file that differs, `host.rs` reads and replaces files.

mod choose;
mod host;
mod set;

pub use choose::{Choice, Known, choose};
pub use host::{BroughtOut, Companions, Found, Kept, Look, Trouble};
pub use set::{Digest, File, FileSet, Owner, SetError, Slot, slot_of};

/// Files of one resource at most.
pub const FILE_COUNT_MAX: usize = 64;
/// Bytes of all of them together, with their names.
pub const SET_BYTES_MAX: usize = 1 << 20;
/// Bytes of the place of one set in the volume; there are two, and the newer whole one counts.
pub const SLOT_BYTES: u64 = 2 << 20;
/// Bytes of the volume.
pub const VOLUME_BYTES: u64 = 2 * SLOT_BYTES;
/// Name of its backing store, in the folder of the replica.
pub const STORE_NAME: &str = "companions.img";

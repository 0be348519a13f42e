//! Ownership marks: what the members of a cluster keep on one or three devices that all of them
//! reach (design §7). Formats and rules; who reads and writes the devices is elsewhere.
//!
//! - [`layout`]: where things lie; [`block`]: what every block has in common; [`header`],
//!   [`lease`], [`control`]: what they say; [`parts`]: of several copies the newest.
//! - [`making`]: the blocks of a marker that was just made.
//! - [`proposer`]: how one control record is read and changed.
//! - [`tenure`]: how a member keeps its own lease; [`watch`]: what it sees of the others'.
//! - [`keeper`]: all of it for one member, over all markers and resources.

pub mod block;
pub mod control;
pub mod header;
pub mod keeper;
pub mod layout;
pub mod lease;
pub mod making;
pub mod parts;
pub mod proposer;
pub mod tenure;
pub mod watch;

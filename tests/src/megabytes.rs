//! Volumes that are written in megabytes, each unlike any other.

use crate::{Cluster, Side};

/// Bytes of one.
pub const MIB: u64 = 1 << 20;

/// A megabyte of this number.
#[must_use]
pub fn content(number: u64) -> Vec<u8> {
    (number + 1).to_le_bytes().repeat(1 << 17)
}

/// Writes the megabytes at these places, each with its number and `stamp` for its content, and
/// flushes.
///
/// # Errors
/// The client's.
pub fn write(
    cluster: &Cluster,
    side: Side,
    numbers: impl Iterator<Item = u64>,
    stamp: u64,
) -> anyhow::Result<()> {
    let mut client = cluster.client(side)?;
    for number in numbers {
        client.write(number * MIB, &content(number + stamp))?;
    }
    Ok(client.flush()?)
}

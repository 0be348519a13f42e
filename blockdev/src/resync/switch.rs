//! The switch: what is staged becomes the image (design §8.2).
//!
//! ```text
//! (the state "switching" is durable) → every staged leaf into its store → sync the stores
//!   → the log begins anew at the landing → (the core writes that the image is whole)
//! ```
//!
//! A crash at any point until that last state is durable makes the next opening do all of it again,
//! from a staging that was verified and durable before the first. The stores are synced before the
//! old log goes: but even the other order would be right, because until the state says "whole"
//! nobody trusts them.

use std::io;
use std::path::PathBuf;

use hadrian_protocol::ids::ResourceId;
use hadrian_protocol::replica::VolumeGeometry;
use hadrian_protocol::resync::digest::Digest;
use hadrian_protocol::resync::{LEAF, RegionId};

use super::image::{Pair, leaf_len, leaves_in, runs};
use super::staging::Staging;
use super::task::Io;
use crate::engine::Op;

/// What a switch works on.
#[derive(Debug)]
pub(crate) struct Switch {
    pub(crate) io: Io,
    pub(crate) replica_dir: PathBuf,
    pub(crate) resource: ResourceId,
    pub(crate) volumes: Vec<VolumeGeometry>,
    pub(crate) stores: Vec<Pair>,
}

/// Copies everything that is staged into the stores, durably. May be repeated.
pub(crate) async fn fold_staging(switch: Switch) -> io::Result<()> {
    let Switch { io, replica_dir, resource, volumes, stores } = switch;
    // What was taken in place has no staging.
    if let Some(staging) = Staging::open(&io, &replica_dir, resource, &volumes).await? {
        for at in staging.regions() {
            let store = stores.get(usize::from(at.volume.index()));
            let store = *store.ok_or(io::ErrorKind::NotFound)?;
            fold_region(&io, &staging, (at, store)).await?;
            io.breathe().await;
        }
    }
    for store in &stores {
        io.sync(store.buffered).await?;
    }
    Ok(())
}

async fn fold_region(io: &Io, staging: &Staging, (at, store): (RegionId, Pair)) -> io::Result<()> {
    let noted = staging.digests(at).await?;
    let len = staging.data.region_len(at);
    let files = staging.content(at.volume).ok_or(io::ErrorKind::NotFound)?;
    let mut reads = Vec::new();
    for (start, run_len) in runs(len, staging.data.bits(at).iter()) {
        reads.push((start, run_len, files.read(io, at.start() + start, run_len)));
    }
    let mut writing = Vec::new();
    for (start, run_len, read) in reads {
        let bytes = read.bytes().await?;
        let first = usize::try_from(start / LEAF).unwrap_or(usize::MAX);
        for (leaf, content) in (first..).zip(leaves_in(&bytes)) {
            if noted.of(leaf) != Some(Digest::of_leaf(&content)) {
                let text = format!(
                    "{}: byte {} of volume {} was verified and has changed since",
                    staging.dir().display(),
                    at.start() + leaf as u64 * LEAF,
                    at.volume.index()
                );
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        let offset = at.start() + start;
        writing.push(io.write(store.suited(offset, run_len), offset, bytes));
    }
    for leaf in staging.zero.bits(at).iter() {
        let (offset, len) = (at.start() + leaf as u64 * LEAF, leaf_len(len, leaf));
        let file = store.buffered;
        writing.push(io.op(Op::Zero { file, offset, len, punch: true }));
    }
    for write in writing {
        write.await?;
    }
    Ok(())
}

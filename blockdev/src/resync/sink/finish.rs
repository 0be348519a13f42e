//! The end of a sink: everything is verified, durable, and nothing of this replica's is lost.
//!
//! ```text
//! sync the staging → read back every leaf of it → sync the stores
//!   → where this replica has diverged: its frames and the prior blocks are in quarantine, durably
//! ```
//!
//! Only then does the core write that the image is switching. A crash before that leaves the old
//! image and the old log, which nothing here has touched; after it the staging is whole, the stores
//! hold durably what was applied, and nothing is needed of the old log any more.

use bytes::Bytes;
use hadrian_protocol::ids::VolumeIndex;
use hadrian_protocol::resync::digest::Digest;
use hadrian_protocol::resync::{LEAF, RegionId};

use super::super::SinkError;
use super::super::image::{leaf_len, leaves_in, runs};
use super::super::staging;
use super::Sink;
use crate::quarantine;

impl Sink {
    pub(super) async fn finish(&mut self) -> Result<(), SinkError> {
        if self.staging.is_some() {
            self.begin_blocks().await?;
        }
        if let Some(staging) = &self.staging {
            let failed = |error| staging::fault(staging.dir(), 0, error);
            staging.sync().await.map_err(failed)?;
            for at in staging.regions() {
                self.verify(at).await?;
                self.work.io.breathe().await;
            }
        }
        for (index, store) in (0..).zip(self.work.stores.clone()) {
            let Some(volume) = VolumeIndex::new(index) else { continue };
            let synced = self.work.io.sync(store.buffered).await;
            synced.map_err(|source| SinkError::Store { volume, source })?;
        }
        let tail = self.work.state.borrow_mut().tail.take();
        if let Some(tail) = tail {
            let (dir, resource) = (&self.work.quarantine_dir, self.work.resource);
            quarantine::save_tail(&self.work.io, dir, resource, tail).await?;
        }
        if let Some(blocks) = self.blocks.take() {
            blocks.finish().await?;
        }
        Ok(())
    }

    /// Reads back what is staged of a region, past the page cache; saves what it will replace.
    async fn verify(&mut self, at: RegionId) -> Result<(), SinkError> {
        let Some(staging) = &self.staging else { return Ok(()) };
        let failed = |error| staging::fault(staging.dir(), 0, error);
        let noted = staging.digests(at).await.map_err(failed)?;
        let (data, zero) = (staging.data.bits(at), staging.zero.bits(at));
        let (len, files) = (self.saved.region_len(at), staging.content(at.volume));
        let files = files.ok_or(SinkError::Verify { volume: at.volume, offset: at.start() })?;
        let mut reads = Vec::new();
        for (start, run_len) in runs(len, data.iter()) {
            reads.push((start, files.read(&self.work.io, at.start() + start, run_len)));
        }
        let mut leaves: Vec<(usize, Option<Bytes>)> = Vec::new();
        for (start, read) in reads {
            let first = usize::try_from(start / LEAF).unwrap_or(usize::MAX);
            let bytes = read.bytes().await.map_err(failed)?;
            leaves.extend((first..).zip(leaves_in(&bytes).map(Some)));
        }
        for (leaf, bytes) in &leaves {
            if noted.of(*leaf) != bytes.as_deref().map(Digest::of_leaf) {
                return self.unstage(at, *leaf).await;
            }
        }
        for leaf in zero.iter() {
            if noted.of(leaf) != Some(Digest::of_zero_leaf(leaf_len(len, leaf))) {
                return self.unstage(at, leaf).await;
            }
            leaves.push((leaf, None));
        }
        if self.blocks.is_some() {
            for (leaf, bytes) in leaves {
                self.save_prior(at, leaf, bytes.as_deref()).await?;
            }
        }
        Ok(())
    }

    /// A leaf is not what was sent: it counts as not staged, and the next sink is sent it again.
    async fn unstage(&self, at: RegionId, leaf: usize) -> Result<(), SinkError> {
        let (volume, offset) = (at.volume, at.start() + leaf as u64 * LEAF);
        if let Some(staging) = &self.staging {
            let failed = |error| staging::fault(staging.dir(), 0, error);
            let mut noted = staging.digests(at).await.map_err(failed)?;
            noted.set(leaf, None);
            staging.put_digests(at, noted).await.map_err(failed)?;
        }
        Err(SinkError::Verify { volume, offset })
    }
}

//! Clients that write and remember what was answered, so that a lost answer is seen.

use std::collections::BTreeMap;
use std::thread;

use anyhow::bail;
use hadrian_replicator::demo::{Client, Cluster, Side};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// What is written at once, at least.
const BLOCK: usize = 4096;
/// The volume that the writers share.
pub(crate) const VOLUME_BYTES: u64 = 64 << 20;
/// The log of each side. Half of it is kept for a standby that is away (design §2.6), and one that
/// is away for all that a round writes, up to 40 MiB, must not need a new copy.
pub(crate) const LOG_BYTES: u64 = 128 << 20;
/// Clients that write at the same time, each into blocks of its own.
const WRITERS: u64 = 3;
const BLOCKS_EACH: u64 = VOLUME_BYTES / BLOCK as u64 / WRITERS;

/// The clients of a cluster, and what they know.
pub(crate) struct Writers {
    memories: Vec<Memory>,
}

impl Writers {
    pub(crate) fn new() -> Self {
        Self { memories: (0..WRITERS).map(Memory::new).collect() }
    }

    /// All of them write to `side`, `writes` times each or until their connection breaks, while
    /// `trouble` comes over the cluster; how many writes were answered.
    ///
    /// # Errors
    /// The trouble's, or of a client that cannot connect.
    pub(crate) fn write_during(
        &mut self,
        (cluster, side): (&Cluster, Side),
        random: &mut StdRng,
        writes: u64,
        trouble: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        let mut clients = Vec::new();
        for memory in &mut self.memories {
            let random = StdRng::seed_from_u64(random.random());
            clients.push((cluster.client(side)?, memory, random));
        }
        thread::scope(|scope| {
            let writers: Vec<_> = clients
                .into_iter()
                .map(|(client, memory, random)| {
                    scope.spawn(move || memory.write(client, writes, random))
                })
                .collect();
            let happened = trouble();
            let answered = writers.into_iter().flat_map(|writer| writer.join()).sum();
            happened.map(|()| answered)
        })
    }

    /// Reads all that was written, from `side`; how many blocks do not hold what was answered.
    ///
    /// # Errors
    /// The client's.
    pub(crate) fn verify(&mut self, cluster: &Cluster, side: Side) -> anyhow::Result<u64> {
        let mut client = cluster.client(side)?;
        let mut lost = 0;
        for memory in &mut self.memories {
            lost += memory.verify(&mut client)?;
        }
        Ok(lost)
    }
}

/// Fails where the backing stores differ, as soon as everything is in both.
///
/// # Errors
/// With the first blocks that differ.
pub(crate) fn compare_stores(cluster: &Cluster, primary: Side) -> anyhow::Result<()> {
    cluster.await_applied(primary)?;
    let (a, b) = (cluster.store(Side::Alpha)?, cluster.store(Side::Beta)?);
    let blocks = a.chunks(BLOCK).zip(b.chunks(BLOCK)).enumerate();
    let differing: Vec<_> = blocks
        .filter(|(_, (a, b))| a != b)
        .map(|(at, (a, b))| (at, stamp_of(a), stamp_of(b)))
        .collect();
    if a.len() != b.len() || !differing.is_empty() {
        bail!(
            "the backing stores differ in {} blocks; (block, stamp on alpha, on beta): {:?}",
            differing.len(),
            &differing[..differing.len().min(8)]
        );
    }
    Ok(())
}

/// What one client knows: the last answered content of each of its blocks, and what may have come
/// after it.
struct Memory {
    first: u64,
    answered: BTreeMap<u64, u64>,
    unsure: BTreeMap<u64, Vec<u64>>,
    stamp: u64,
}

impl Memory {
    fn new(writer: u64) -> Self {
        // Stamps tell their writer, so that a block in the wrong place is seen.
        let stamp = (writer + 1) << 48;
        Self {
            first: writer * BLOCKS_EACH,
            answered: BTreeMap::new(),
            unsure: BTreeMap::new(),
            stamp,
        }
    }

    /// Writes up to `count` times; how many were answered before the connection broke.
    fn write(&mut self, mut client: Client, count: u64, mut random: StdRng) -> u64 {
        for answered in 0..count {
            let blocks = if random.random_ratio(1, 10) { random.random_range(2..32) } else { 1 };
            let start = self.first + random.random_range(0..=BLOCKS_EACH - blocks);
            self.stamp += 1;
            let stamp = self.stamp;
            for block in start..start + blocks {
                self.unsure.entry(block).or_default().push(stamp);
            }
            let data = block_of(stamp).repeat(usize::try_from(blocks).unwrap_or(1));
            if client.write(start * BLOCK as u64, &data).is_err() {
                return answered;
            }
            for block in start..start + blocks {
                self.unsure.remove(&block);
                self.answered.insert(block, stamp);
            }
            if random.random_ratio(1, 20) && client.flush().is_err() {
                return answered + 1;
            }
        }
        count
    }

    /// Reads every block that was written; how many do not hold what was answered.
    fn verify(&mut self, client: &mut Client) -> anyhow::Result<u64> {
        let mut lost = 0;
        let blocks: Vec<_> = self.answered.keys().chain(self.unsure.keys()).copied().collect();
        for block in blocks {
            let found = client.read(block * BLOCK as u64, BLOCK)?;
            let last = self.answered.get(&block).copied().unwrap_or(0);
            let unsure = self.unsure.remove(&block).unwrap_or_default();
            match [last].into_iter().chain(unsure).find(|stamp| found == block_of(*stamp)) {
                // An unanswered write may have landed; from now on it is what the block holds.
                Some(stamp) if stamp > 0 => {
                    self.answered.insert(block, stamp);
                }
                Some(_) => {}
                None => lost += 1,
            }
        }
        Ok(lost)
    }
}

fn block_of(stamp: u64) -> Vec<u8> {
    stamp.to_le_bytes().repeat(BLOCK / 8)
}

fn stamp_of(block: &[u8]) -> u64 {
    block.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

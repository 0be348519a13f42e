//! Writers: enough of them to fill a log quickly, without a tool of their own.

use std::time::{Duration, Instant};

use hadrian_replicator::demo::{Client, Cluster, Side};

/// Writes that are under way at a time.
const WRITERS: u64 = 4;

/// What is written, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Bytes of each write.
    pub(crate) block: usize,
    /// Bytes in all.
    pub(crate) bytes: u64,
    /// Bytes of the volume that are written; over and over again where there are more to write.
    pub(crate) span: u64,
    /// Whether the places are drawn, instead of one after the other.
    pub(crate) is_random: bool,
}

impl Load {
    /// One after the other, in mebibytes.
    pub(crate) fn sequential(bytes: u64, span: u64) -> Self {
        Self { block: 1 << 20, bytes, span, is_random: false }
    }

    /// Blocks of 4 KiB, anywhere.
    pub(crate) fn scattered(bytes: u64, span: u64) -> Self {
        Self { block: 4096, bytes, span, is_random: true }
    }

    /// Where write number `number` goes.
    fn place(&self, number: u64) -> u64 {
        let block = self.block as u64;
        match self.is_random {
            true => place_of(number, block, self.span),
            false => number % (self.span / block) * block,
        }
    }

    /// Content that differs from write to write, so that nothing can be left out.
    fn fill(&self, data: &mut [u8], number: u64) {
        data[..8].copy_from_slice(&(number + 1).to_le_bytes());
    }
}

/// Where write number `number` goes, of those that go anywhere in a span of a power of two.
pub(crate) fn place_of(number: u64, block: u64, span: u64) -> u64 {
    // A multiplier that shares no factor with a power of two visits every place once.
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (span / block) * block
}

/// Writes `load` to the first resource through `side`, and flushes; returns the seconds it took.
pub(crate) fn write(cluster: &Cluster, side: Side, load: Load) -> anyhow::Result<f64> {
    let began = Instant::now();
    let count = load.bytes / load.block as u64;
    let clients =
        (0..WRITERS).map(|_| cluster.client(side)).collect::<anyhow::Result<Vec<Client>>>()?;
    std::thread::scope(|scope| {
        let writers: Vec<_> = clients
            .into_iter()
            .zip(0..WRITERS)
            .map(|(client, first)| scope.spawn(move || write_each(client, load, first, count)))
            .collect();
        writers.into_iter().try_for_each(|writer| {
            writer.join().unwrap_or_else(|_| Err(std::io::Error::other("a writer panicked")))
        })
    })?;
    Ok(began.elapsed().as_secs_f64())
}

fn write_each(mut client: Client, load: Load, first: u64, count: u64) -> std::io::Result<()> {
    let mut data = vec![7; load.block];
    for number in (first..count).step_by(usize::try_from(WRITERS).unwrap_or(1)) {
        load.fill(&mut data, number);
        client.write(load.place(number), &data)?;
    }
    client.flush()
}

/// Writes blocks of `block` bytes anywhere in `span`, one at a time, for `time`; how many.
pub(crate) fn write_for(
    client: &mut Client,
    (block, span): (usize, u64),
    time: Duration,
) -> std::io::Result<u64> {
    let load = Load { block, bytes: u64::MAX, span, is_random: true };
    let (began, mut data, mut number) = (Instant::now(), vec![7; block], 0);
    while began.elapsed() < time {
        load.fill(&mut data, number);
        client.write(load.place(number), &data)?;
        number += 1;
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_places_are_inside_and_differ() {
        let load = Load::scattered(64 << 12, 64 << 12);
        let places: std::collections::BTreeSet<_> = (0..64).map(|n| load.place(n)).collect();
        assert_eq!(places.len(), 64);
        assert!(places.iter().all(|place| place % 4096 == 0 && *place < load.span));
    }
}

//! What a whole guest has used up. Much of a mirror in the kernel is done in threads that serve
//! others too, and in no thread at all, so nothing smaller than the machine compares fairly.

use anyhow::Context as _;

/// The disks of the two members.
const DISKS: [&str; 2] = ["vda", "vdb"];
/// In `/proc/diskstats`, whatever the disk's blocks are.
const SECTOR_BYTES: f64 = 512.0;

/// Counted since the guest was booted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    /// Seconds in which processors were not idle.
    pub(crate) busy_s: f64,
    /// Bytes that were written to the disks of both members.
    pub(crate) stored: f64,
}

impl Counts {
    /// As they are.
    pub(crate) fn now() -> anyhow::Result<Self> {
        let text = |path: &str| std::fs::read_to_string(path).with_context(|| path.to_string());
        Self::parse(&(text("/proc/stat")? + &text("/proc/diskstats")?))
    }

    /// Reads `/proc/stat` and `/proc/diskstats`, one after the other: proc(5).
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "));
        let ticks: Vec<f64> =
            line.context("no times")?.split_whitespace().flat_map(str::parse).collect();
        let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else {
            anyhow::bail!("the times of the processors cannot be read");
        };
        let per_second = u32::try_from(rustix::param::clock_ticks_per_second())?;
        let busy_s = (user + nice + system + irq + softirq) / f64::from(per_second);
        Ok(Self { busy_s, stored: text.lines().filter_map(written_bytes).sum::<f64>() })
    }
}

/// Bytes written, where the line is of one of the disks.
fn written_bytes(line: &str) -> Option<f64> {
    let mut words = line.split_whitespace().skip(2);
    words.next().filter(|name| DISKS.contains(name))?;
    Some(words.nth(6)?.parse::<f64>().ok()? * SECTOR_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_disks_count_and_idle_processors_do_not() {
        let text = "cpu  100 0 200 9000 400 10 90 0 0 0\ncpu0 1 2 3 4\nctxt 17\n\
            254 0 vda 1 2 3 4 5 6 8 9 10 11 12\n254 1 vda1 1 2 3 4 5 6 8 9 10 11 12\n\
            254 16 vdb 1 2 3 4 5 6 2 9 10 11 12\n147 0 drbd0 1 2 3 4 5 6 8 9 10 11 12\n";
        let counts = Counts::parse(text).unwrap();
        let per_second = u32::try_from(rustix::param::clock_ticks_per_second()).unwrap();
        assert!((counts.busy_s * f64::from(per_second) - 400.0).abs() < 1e-9);
        assert!((counts.stored - 10.0 * SECTOR_BYTES).abs() < 1e-9);
        assert!(Counts::now().is_ok());
        assert!(Counts::parse("cpu  1 2\n").is_err());
    }
}

//! What the system knows of a process: proc(5).

use std::fs;

use anyhow::{Context as _, bail};

/// User and system time of a process, in seconds: fields 14 and 15 of its `stat`.
pub(super) fn cpu_seconds(process: u32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name in parentheses may hold anything, so counting starts behind it.
    let behind_name = text.rfind(')').map_or("", |at| &text[at + 1..]);
    let ticks: Vec<f64> =
        behind_name.split_whitespace().skip(11).take(2).flat_map(str::parse).collect();
    if ticks.len() != 2 {
        bail!("the times of process {process} cannot be read");
    }
    let per_second = u32::try_from(rustix::param::clock_ticks_per_second())?;
    Ok(ticks.iter().sum::<f64>() / f64::from(per_second))
}

/// Bytes that a process has sent to storage: `write_bytes` of its `io`.
pub(super) fn stored_bytes(process: u32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/io"))?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(bytes.context("no write_bytes")?.trim().parse()?)
}

/// The most memory that a process has had, in MiB: `VmHWM` of its `status`.
pub(crate) fn peak_mib(process: u32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmHWM")?;
    Ok(kib.parse::<f64>()? / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_own_time_memory_and_writes() {
        assert!(cpu_seconds(std::process::id()).unwrap() >= 0.0);
        assert!(stored_bytes(std::process::id()).unwrap() >= 0.0);
        assert!(peak_mib(std::process::id()).unwrap() > 0.5);
    }
}

//! What the system knows of a process: proc(5).

use std::fs;

use anyhow::{Context as _, bail};

/// User and system time of a process, in seconds: fields 14 and 15 of its `stat`.
///
/// # Errors
/// If there is no such process.
pub fn cpu_seconds(process: u32) -> anyhow::Result<f64> {
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
///
/// # Errors
/// If there is no such process.
pub fn stored_bytes(process: u32) -> anyhow::Result<f64> {
    counted(process, "write_bytes: ")
}

/// Bytes that a process has fetched from storage: `read_bytes` of its `io`.
///
/// # Errors
/// If there is no such process.
pub fn read_bytes(process: u32) -> anyhow::Result<f64> {
    counted(process, "read_bytes: ")
}

/// Memory that a process has now, in MiB: `VmRSS` of its `status`.
///
/// # Errors
/// If there is no such process.
pub fn memory_mib(process: u32) -> anyhow::Result<f64> {
    Ok(of_status(process, "VmRSS:")? / 1024.0)
}

/// Threads of a process.
///
/// # Errors
/// If there is no such process.
pub fn threads(process: u32) -> anyhow::Result<f64> {
    of_status(process, "Threads:")
}

/// Files and sockets that a process has open.
///
/// # Errors
/// If there is no such process.
pub fn open_files(process: u32) -> anyhow::Result<f64> {
    Ok(fs::read_dir(format!("/proc/{process}/fd"))?.count() as f64)
}

fn counted(process: u32, what: &str) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/io"))?;
    let bytes = text.lines().find_map(|line| line.strip_prefix(what));
    Ok(bytes.context("the process counts no such bytes")?.trim().parse()?)
}

/// The most memory that a process has had, in MiB: `VmHWM` of its `status`.
///
/// # Errors
/// If there is no such process.
pub fn peak_mib(process: u32) -> anyhow::Result<f64> {
    Ok(of_status(process, "VmHWM:")? / 1024.0)
}

fn of_status(process: u32, name: &str) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|line| line.split_whitespace().next());
    Ok(value.context("the status of the process lacks a line")?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_own_time_memory_and_writes() {
        assert!(cpu_seconds(std::process::id()).unwrap() >= 0.0);
        assert!(stored_bytes(std::process::id()).unwrap() >= 0.0);
        assert!(peak_mib(std::process::id()).unwrap() > 0.5);
        assert!(memory_mib(std::process::id()).unwrap() > 0.5);
        assert!(read_bytes(std::process::id()).unwrap() >= 0.0);
        assert!(threads(std::process::id()).unwrap() >= 1.0);
        assert!(open_files(std::process::id()).unwrap() >= 1.0);
    }
}

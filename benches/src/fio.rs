//! One run of fio against one export, and what it measured.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::rows::Row;

/// What one run measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// Requests per second.
    pub(crate) iops: f64,
    /// Bytes moved in the whole run.
    pub(crate) bytes: f64,
    /// Millions of bytes per second.
    pub(crate) mb_s: f64,
    /// Median time of a request, of a write where both kinds are mixed, in microseconds.
    pub(crate) p50_us: f64,
    /// Time within which 99 of 100 requests end, in microseconds.
    pub(crate) p99_us: f64,
}

/// How long a run goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Length {
    /// So many seconds.
    Seconds(u32),
    /// Once over the whole volume.
    Once,
}

#[derive(Deserialize)]
struct Report {
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    error: i64,
    read: Direction,
    write: Direction,
}

#[derive(Deserialize)]
struct Direction {
    io_bytes: f64,
    iops: f64,
    bw_bytes: f64,
    clat_ns: Latency,
}

#[derive(Deserialize)]
struct Latency {
    #[serde(default)]
    percentile: std::collections::BTreeMap<String, f64>,
}

/// The file of `/proc/stat` and `/proc/diskstats` in a device's folder.
pub(crate) const COUNTS: &str = "counts";

/// Where fio writes to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// An export behind a unix socket.
    Nbd {
        /// The socket.
        socket: PathBuf,
        /// The export's name.
        export: &'static str,
    },
    /// A file, directly: what the device itself can do.
    File(PathBuf),
    /// A block device, directly.
    Device {
        /// The device.
        path: PathBuf,
        /// A folder in which [`COUNTS`] is what the system had counted when the load began: fio's
        /// own start, long where it is emulated, is not part of what is measured.
        counted: PathBuf,
    },
}

/// Runs a row against `target`; `scratch` takes fio's report.
pub(crate) fn run(
    row: &Row,
    target: &Target,
    length: Length,
    scratch: &Path,
) -> anyhow::Result<Measured> {
    let report = scratch.join("fio.json");
    let mut fio = Command::new("fio");
    match target {
        Target::Nbd { socket, export } => fio
            .arg("--ioengine=nbd")
            .arg(format!("--uri=nbd+unix:///{export}?socket={}", socket.display())),
        Target::File(path) => fio
            .args(["--ioengine=io_uring", "--direct=1"])
            .arg(format!("--filename={}", path.display())),
        Target::Device { path, counted } => fio
            .args(["--ioengine=io_uring", "--direct=1"])
            .arg(format!("--filename={}", path.display()))
            .arg(format!("--exec_prerun={}", count_once(counted)?)),
    };
    fio.args(["--name=row", "--output-format=json", "--randrepeat=0"])
        .arg(format!("--rw={}", row.access))
        .arg(format!("--bs={}", row.block))
        .arg(format!("--iodepth={}", row.depth))
        .arg(format!("--numjobs={}", row.connections))
        .args(["--group_reporting", "--rwmixread=70"])
        .arg(format!("--output={}", report.display()))
        .current_dir(scratch)
        .stdout(Stdio::null());
    if row.flushes {
        fio.arg("--fsync=1");
    }
    if let Length::Seconds(seconds) = length {
        fio.arg("--time_based").arg(format!("--runtime={seconds}"));
    }
    let status = fio.status().context("fio cannot be started; `make tools` installs it")?;
    if !status.success() {
        bail!("fio ended with {status} in row {}", row.name);
    }
    measured(&std::fs::read_to_string(&report)?, row)
}

/// The command that counts, of which only the first of several jobs does anything.
fn count_once(folder: &Path) -> anyhow::Result<String> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    let folder = folder.display();
    let count = format!("cat /proc/stat /proc/diskstats > {folder}/{COUNTS}");
    Ok(format!("mkdir {folder} 2>/dev/null && {count}; true"))
}

fn measured(text: &str, row: &Row) -> anyhow::Result<Measured> {
    // fio puts its warnings in front of the report.
    let start = text.find('{').context("fio wrote no report")?;
    let report: Report = serde_json::from_str(&text[start..]).context("fio's report")?;
    let job = report.jobs.into_iter().next().context("fio ran no job")?;
    if job.error != 0 {
        bail!("fio met error {} in row {}", job.error, row.name);
    }
    let (read, write) = (job.read, job.write);
    let slower = if write.io_bytes > 0.0 { &write } else { &read };
    let percentile = |name| slower.clat_ns.percentile.get(name).copied().unwrap_or(0.0) / 1e3;
    Ok(Measured {
        iops: read.iops + write.iops,
        bytes: read.io_bytes + write.io_bytes,
        mb_s: (read.bw_bytes + write.bw_bytes) / 1e6,
        p50_us: percentile("50.000000"),
        p99_us: percentile("99.000000"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::ROWS;

    #[test]
    fn a_report_behind_a_warning_is_read() {
        let empty = r#"{"io_bytes":0,"iops":0,"bw_bytes":0,"clat_ns":{}}"#;
        let write = r#"{"io_bytes":4096,"iops":10.5,"bw_bytes":2e6,
            "clat_ns":{"percentile":{"50.000000":7000,"99.000000":9000}}}"#;
        let text = format!(r#"a warning{{"jobs":[{{"error":0,"read":{empty},"write":{write}}}]}}"#);
        let measured = measured(&text, &ROWS[0]).unwrap();
        assert!((measured.iops - 10.5).abs() < 1e-9 && (measured.mb_s - 2.0).abs() < 1e-9);
        assert!((measured.p50_us - 7.0).abs() < 1e-9 && (measured.p99_us - 9.0).abs() < 1e-9);
    }

    #[test]
    fn a_run_that_met_an_error_is_no_result() {
        let empty = r#"{"io_bytes":0,"iops":0,"bw_bytes":0,"clat_ns":{}}"#;
        let text = format!(r#"{{"jobs":[{{"error":5,"read":{empty},"write":{empty}}}]}}"#);
        assert!(measured(&text, &ROWS[0]).unwrap_err().to_string().contains("error 5"));
    }
}

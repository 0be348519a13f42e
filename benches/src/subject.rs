//! Who is measured: our pair of daemons, and a plain `qemu-nbd` beside it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hadrian_protocol::replica::Mode;
use hadrian_replicator::demo::{Cluster, Side, Spec};

use crate::fio::Target;

/// Size of the volume: large enough to be real, small enough to be warm.
pub(crate) const VOLUME_BYTES: u64 = 1 << 30;
const LOG_BYTES: u64 = 1 << 30;
const EXPORT: &str = "db/data";

/// Someone who serves a volume over NBD.
pub(crate) enum Subject {
    /// Both daemons on this machine.
    Mirror(Box<Cluster>, Mode),
    /// One file, no second copy.
    Plain(QemuNbd),
    /// One file without any server: what the device can do.
    Raw(PathBuf),
}

impl Subject {
    /// Two daemons with TLS between them, in `peer`.
    pub(crate) fn mirror(programs: &Path, mode: Mode) -> anyhow::Result<Self> {
        let spec = Spec { volume_bytes: VOLUME_BYTES, log_bytes: LOG_BYTES, ..Spec::new(mode) };
        Ok(Self::Mirror(Box::new(Cluster::new(programs, spec)?), mode))
    }

    /// `qemu-nbd --cache=none` of a file in `scratch`.
    pub(crate) fn plain(scratch: &Path) -> anyhow::Result<Self> {
        Ok(Self::Plain(QemuNbd::new(scratch)?))
    }

    /// A file in `scratch`, reached by fio itself.
    pub(crate) fn raw(scratch: &Path) -> anyhow::Result<Self> {
        let image = scratch.join("raw.img");
        File::create(&image)?.set_len(VOLUME_BYTES)?;
        Ok(Self::Raw(image))
    }

    /// Its name in the table.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Mirror(_, mode) => mode.name(),
            Self::Plain(_) => "qemu-nbd",
            Self::Raw(_) => "raw file",
        }
    }

    /// What fio is to write to.
    pub(crate) fn target(&self) -> Target {
        let nbd = |socket| Target::Nbd { socket, export: EXPORT };
        match self {
            Self::Mirror(cluster, _) => nbd(cluster.nbd_socket(Side::Alpha)),
            Self::Plain(server) => nbd(server.socket.clone()),
            Self::Raw(image) => Target::File(image.clone()),
        }
    }

    /// The processes whose time and memory count.
    fn processes(&self) -> Vec<u32> {
        match self {
            Self::Mirror(cluster, _) => {
                [Side::Alpha, Side::Beta].into_iter().filter_map(|side| cluster.pid(side)).collect()
            }
            Self::Plain(server) => vec![server.child.id()],
            Self::Raw(_) => Vec::new(),
        }
    }

    /// Processor time that its processes have used, in seconds.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        self.processes().into_iter().map(cpu_seconds).sum()
    }

    /// Bytes that its processes have caused to be written to storage.
    pub(crate) fn stored_bytes(&self) -> anyhow::Result<f64> {
        self.processes().into_iter().map(stored_bytes).sum()
    }

    /// Peak memory of its largest process, in MiB.
    pub(crate) fn peak_mib(&self) -> anyhow::Result<f64> {
        let peaks: Result<Vec<f64>, _> = self.processes().into_iter().map(peak_mib).collect();
        Ok(peaks?.into_iter().fold(0.0, f64::max))
    }

    /// Waits until nothing of the last run is left to be done, so that the next subject runs alone.
    pub(crate) fn settle(&self) -> anyhow::Result<()> {
        if let Self::Mirror(cluster, _) = self {
            cluster.await_peer(Side::Alpha)?;
        }
        rustix::fs::sync();
        Ok(())
    }
}

/// A `qemu-nbd` of one file; ends with its owner.
pub(crate) struct QemuNbd {
    child: Child,
    socket: PathBuf,
}

impl QemuNbd {
    fn new(scratch: &Path) -> anyhow::Result<Self> {
        let image = scratch.join("plain.img");
        File::create(&image)?.set_len(VOLUME_BYTES)?;
        let socket = scratch.join("plain.nbd");
        let child = Command::new("qemu-nbd")
            .args(["--cache=none", "--format=raw", "--persistent", "--shared=16"])
            .args(["--export-name", EXPORT, "--socket"])
            .args([&socket, &image])
            .stdin(Stdio::null())
            .spawn()
            .context("qemu-nbd cannot be started; `make tools` installs it")?;
        let mut server = Self { child, socket };
        server.await_socket()?;
        Ok(server)
    }

    fn await_socket(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::os::unix::net::UnixStream::connect(&self.socket).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("qemu-nbd ended with {status}");
            }
            if Instant::now() > deadline {
                bail!("qemu-nbd does not listen at {}", self.socket.display());
            }
            // Another process: it can only be asked again.
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for QemuNbd {
    fn drop(&mut self) {
        // One that has ended already needs no end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User and system time of a process: fields 14 and 15 of its `stat` (proc(5)).
fn cpu_seconds(process: u32) -> anyhow::Result<f64> {
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

/// What a process has sent to storage: `write_bytes` of its `io` (proc(5)).
fn stored_bytes(process: u32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/io"))?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(bytes.context("no write_bytes")?.trim().parse()?)
}

/// The most memory that a process has had: `VmHWM` of its `status` (proc(5)).
fn peak_mib(process: u32) -> anyhow::Result<f64> {
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

//! Who is measured: our pair of daemons, and beside it what a user would take instead.

mod qemu;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use hadrian_benches::process;
use hadrian_protocol::replica::Mode;
use hadrian_replicator::demo::{Cluster, Side, Spec};
use rustix::fs::Advice;
use rustix::process::Signal;

use crate::fio::Target;
use crate::rows::Row;
use qemu::Server;

/// Size of the volume: large enough to be real, small enough to be warm.
pub(crate) const VOLUME_BYTES: u64 = 1 << 30;
/// Half of it is kept for a standby that is behind, and in superasync it may be far behind.
const LOG_BYTES: u64 = 4 << 30;
const LONG_LOG_BYTES: u64 = 6 << 30;
/// Of a standby that gets nothing, nothing is measured, so the log need not reach it.
const SHORT_LOG_BYTES: u64 = 1 << 30;
const EXPORT: &str = "db/data";

/// One server of one file, without a second copy.
pub(crate) const PLAIN: &str = "qemu-nbd";
/// The file itself: what the device can do.
pub(crate) const RAW: &str = "raw file";
/// Those who keep a second copy without us.
pub(crate) const MIRRORS: [&str; 2] = ["quorum", "mirror job"];
/// Links as users have them; the other subjects send in plain text, as QEMU does here.
const WITH_TLS: &str = "nearsync+tls";
/// Its standby is killed before anything is measured, or stands still and stays connected: nobody
/// is held back by that.
const ALONE: &str = "superasync+alone";
const STILL: &str = "superasync+still";
/// All of them, in the order of the table.
pub(crate) const SUBJECTS: [&str; 11] = [
    RAW,
    PLAIN,
    MIRRORS[0],
    MIRRORS[1],
    "sync",
    "nearsync",
    WITH_TLS,
    "async",
    "superasync",
    ALONE,
    STILL,
];

/// Someone who serves a volume.
pub(crate) struct Subject {
    /// Its name in the table.
    pub(crate) name: &'static str,
    /// What fio is to write to.
    pub(crate) target: Target,
    /// The processes of the first copy and of the second.
    sides: [Vec<u32>; 2],
    /// The file that reads come from.
    image: PathBuf,
    running: Running,
}

/// What ends with the subject.
enum Running {
    Ours(Box<Cluster>),
    Theirs(#[expect(dead_code, reason = "kept for its end")] Vec<Server>),
}

impl Subject {
    /// Starts the subject of this name, one of [`SUBJECTS`]; its files are in `scratch`.
    ///
    /// # Errors
    /// As the system says, and with the name where it is none of them.
    pub(crate) fn start(name: &str, programs: &Path, scratch: &Path) -> anyhow::Result<Self> {
        let name = SUBJECTS.into_iter().find(|known| *known == name);
        let name = name.with_context(|| format!("the subjects are {}", SUBJECTS.join(", ")))?;
        let image = scratch.join(name.replace(' ', "-"));
        match name {
            RAW => {
                File::create(&image)?.set_len(VOLUME_BYTES)?;
                let target = Target::File(image.clone());
                Ok(Self { name, target, sides: [vec![], vec![]], image, running: nobody() })
            }
            PLAIN => Ok(Self::theirs(name, image.clone(), vec![qemu::plain(&image)?])),
            _ if MIRRORS.contains(&name) => {
                let second = qemu::plain(&image.with_extension("second"))?;
                let first = match name == MIRRORS[0] {
                    true => qemu::quorum(&image, &second)?,
                    false => qemu::mirror_job(&image, &second)?,
                };
                Ok(Self::theirs(name, image, vec![first, second]))
            }
            _ => Self::ours(name, programs),
        }
    }

    fn theirs(name: &'static str, image: PathBuf, servers: Vec<Server>) -> Self {
        let pids: Vec<_> = servers.iter().map(Server::pid).collect();
        let sides = [pids[..1].to_vec(), pids[1..].to_vec()];
        let target = Target::Nbd { socket: servers[0].socket.clone(), export: EXPORT };
        Self { name, target, sides, image, running: Running::Theirs(servers) }
    }

    /// Two daemons in `peer`.
    fn ours(name: &'static str, programs: &Path) -> anyhow::Result<Self> {
        let mode = name.split('+').next().and_then(Mode::from_name);
        let mode = mode.with_context(|| format!("there is no mode {name}"))?;
        let plaintext = name != WITH_TLS;
        let log_bytes = match name {
            ALONE | STILL => SHORT_LOG_BYTES,
            _ if mode == Mode::Superasync => LONG_LOG_BYTES,
            _ => LOG_BYTES,
        };
        let volume_bytes = VOLUME_BYTES;
        let spec = Spec { volume_bytes, log_bytes, plaintext, ..Spec::new(mode) };
        let cluster = Box::new(Cluster::new(programs, spec)?);
        let target = Target::Nbd { socket: cluster.nbd_socket(Side::Alpha), export: EXPORT };
        let sides = [Side::Alpha, Side::Beta].map(|side| cluster.pid(side).into_iter().collect());
        let image = cluster.store_path(Side::Alpha);
        Ok(Self { name, target, sides, image, running: Running::Ours(cluster) })
    }

    /// Whether a row says anything of this subject.
    pub(crate) fn takes(&self, row: &Row) -> bool {
        ![ALONE, STILL].contains(&self.name) || row.access == "randwrite" && !row.flushes
    }

    /// Kills or stops the standby that it is to be measured without, where that is so; from here on
    /// the standby is not counted.
    pub(crate) fn lose_standby(&mut self) -> anyhow::Result<()> {
        if let Running::Ours(cluster) = &mut self.running {
            match self.name {
                ALONE => cluster.kill(Side::Beta)?,
                STILL => cluster.signal(Side::Beta, Signal::STOP)?,
                _ => return Ok(()),
            }
            self.sides[1].clear();
        }
        Ok(())
    }

    /// Processor time that the processes of each copy have used, in seconds.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<[f64; 2]> {
        let of = |pids: &[u32]| -> anyhow::Result<f64> {
            pids.iter().map(|pid| process::cpu_seconds(*pid)).sum()
        };
        Ok([of(&self.sides[0])?, of(&self.sides[1])?])
    }

    /// Bytes that its processes have caused to be written to storage.
    pub(crate) fn stored_bytes(&self) -> anyhow::Result<f64> {
        self.sides.iter().flatten().map(|pid| process::stored_bytes(*pid)).sum()
    }

    /// Peak memory of its largest process, in MiB.
    pub(crate) fn peak_mib(&self) -> anyhow::Result<f64> {
        let peaks = self.sides.iter().flatten().map(|pid| process::peak_mib(*pid));
        peaks.collect::<Result<Vec<_>, _>>().map(|all| all.into_iter().fold(0.0, f64::max))
    }

    /// Waits until nothing of the last run is left to be done, so that the next subject runs alone.
    pub(crate) fn settle(&self) -> anyhow::Result<()> {
        match &self.running {
            Running::Ours(cluster) if self.sides[1].is_empty() => {
                cluster.await_applied_here(Side::Alpha)?;
            }
            Running::Ours(cluster) => cluster.await_applied(Side::Alpha)?,
            Running::Theirs(_) => {}
        }
        rustix::fs::sync();
        Ok(())
    }

    /// Drops what the page cache holds of the file that reads come from.
    pub(crate) fn cool(&self) -> anyhow::Result<()> {
        rustix::fs::sync();
        Ok(rustix::fs::fadvise(File::open(&self.image)?, 0, None, Advice::DontNeed)?)
    }
}

fn nobody() -> Running {
    Running::Theirs(Vec::new())
}

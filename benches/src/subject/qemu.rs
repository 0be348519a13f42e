//! What a user would take instead: a plain `qemu-nbd`, and two ways in which QEMU keeps a copy.
//!
//! Both mirrors have their second copy behind a second `qemu-nbd` and a unix socket, without
//! encryption; all files are opened past the page cache, as for a disk that must not lie.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::{EXPORT, VOLUME_BYTES};

/// A program that serves; ends with its owner.
pub(super) struct Server {
    child: Child,
    /// Where it serves.
    pub(super) socket: PathBuf,
    /// It ends when nobody holds the other end of its monitor.
    _monitor: Option<ChildStdin>,
}

impl Server {
    fn spawn(mut command: Command, socket: PathBuf) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .spawn()
            .with_context(|| format!("{name} cannot be started; `make tools` installs it"))?;
        let mut server = Self { child, socket, _monitor: None };
        server.await_socket(&name)?;
        Ok(server)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn await_socket(&mut self, name: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while UnixStream::connect(&self.socket).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{name} ended with {status}");
            }
            if Instant::now() > deadline {
                bail!("{name} does not listen at {}", self.socket.display());
            }
            // Another process: it can only be asked again.
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already needs no end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `qemu-nbd --cache=none` of `image`.
pub(super) fn plain(image: &Path) -> anyhow::Result<Server> {
    File::create(image)?.set_len(VOLUME_BYTES)?;
    let socket = image.with_extension("nbd");
    let mut command = Command::new("qemu-nbd");
    command
        .args(["--cache=none", "--format=raw", "--persistent", "--shared=16"])
        .args(["--export-name", EXPORT, "--socket"])
        .args([&socket, image])
        .stdin(Stdio::null());
    Server::spawn(command, socket)
}

/// Every write goes to `image` and to the server of the second copy, and is answered when both
/// have it; reads come from `image`.
pub(super) fn quorum(image: &Path, second: &Server) -> anyhow::Result<Server> {
    let mut command = storage_daemon(image, second)?;
    command
        .args(["--blockdev"])
        .arg(
            "driver=quorum,node-name=top,children.0=local,children.1=remote,vote-threshold=2,\
             read-pattern=fifo",
        )
        .args(exported("top", image))
        .stdin(Stdio::null());
    Server::spawn(command, image.with_extension("nbd"))
}

/// The mirror job that migrates disks under load: each write is answered when both have it.
pub(super) fn mirror_job(image: &Path, second: &Server) -> anyhow::Result<Server> {
    let mut command = storage_daemon(image, second)?;
    command
        .args(["--chardev", "stdio,id=monitor", "--monitor", "chardev=monitor"])
        .args(exported("local", image))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut server = Server::spawn(command, image.with_extension("nbd"))?;
    let mut monitor = server.child.stdin.take().context("no monitor")?;
    let answers = BufReader::new(server.child.stdout.take().context("no monitor")?);
    writeln!(monitor, "{{\"execute\": \"qmp_capabilities\"}}")?;
    writeln!(
        monitor,
        "{{\"execute\": \"blockdev-mirror\", \"arguments\": {{\"job-id\": \"copy\", \
         \"device\": \"local\", \"target\": \"remote\", \"sync\": \"full\", \
         \"copy-mode\": \"write-blocking\"}}}}"
    )?;
    server._monitor = Some(monitor);
    for answer in answers.lines() {
        let answer = answer?;
        if answer.contains("\"error\"") {
            bail!("qemu-storage-daemon: {answer}");
        }
        if answer.contains("BLOCK_JOB_READY") {
            return Ok(server);
        }
    }
    bail!("qemu-storage-daemon ended before its copy was complete")
}

/// The file and the way to the second copy, as nodes `local` and `remote`.
fn storage_daemon(image: &Path, second: &Server) -> anyhow::Result<Command> {
    File::create(image)?.set_len(VOLUME_BYTES)?;
    let mut command = Command::new("qemu-storage-daemon");
    let (image, second) = (image.display(), second.socket.display());
    command
        .arg("--blockdev")
        .arg(format!("driver=file,node-name=file,filename={image},cache.direct=on"))
        .args(["--blockdev", "driver=raw,node-name=local,file=file"])
        .arg("--blockdev")
        .arg(format!(
            "driver=nbd,node-name=remote,server.type=unix,server.path={second},export={EXPORT}"
        ));
    Ok(command)
}

fn exported(node: &str, image: &Path) -> [String; 4] {
    let socket = image.with_extension("nbd");
    [
        "--nbd-server".into(),
        format!("addr.type=unix,addr.path={},max-connections=16", socket.display()),
        "--export".into(),
        format!("type=nbd,id=export,node-name={node},name={EXPORT},writable=on"),
    ]
}

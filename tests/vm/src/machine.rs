//! One guest: started, watched until it ends, killed like a host that loses power.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::{Image, Lab};

/// Memory of a guest, in MiB.
const MEMORY_MIB: u32 = 1536;
/// All that can be emulated, without the instructions for CRC-32C and for copies, which programs
/// take for fast: beside DRBD, 64 KiB writes went from 0.17 to 0.42 of its rate without them. And
/// without MWAIT, in which an idle processor of a guest keeps one of this machine busy.
const PROCESSOR: &str = "max,sse4.2=off,erms=off,fsrm=off,monitor=off";
/// Longest boot; emulation is slow.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// What a guest says when its script begins.
const READY: &str = "LAB READY";

/// A disk of a guest: a file of this machine that outlives it. The first is `/dev/vda`.
#[derive(Clone, Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// An empty disk.
    ///
    /// # Errors
    /// As the system says.
    pub fn create(path: &Path, bytes: u64) -> std::io::Result<Self> {
        std::fs::File::create(path)?.set_len(bytes)?;
        Ok(Self(path.into()))
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// How a guest ended, and all that it said.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The exit code of its script.
    pub code: u32,
    /// Its console, line by line.
    pub lines: Vec<String>,
}

impl Ended {
    /// The console as one text.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }
}

/// A running guest; it is gone with its owner, as if its power were cut.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    _initrd: tempfile::NamedTempFile,
}

impl Guest {
    /// Boots a guest that runs `script`; returns when the script begins.
    ///
    /// # Errors
    /// As the system says, or with the console of a kernel that does not come up.
    pub fn boot(lab: &Lab, image: Image<'_>, disks: &[Disk], script: &str) -> anyhow::Result<Self> {
        let image = image.finish(script);
        let up = |mut guest: Self| guest.await_line(READY, BOOT_LIMIT).map(|_| guest);
        match up(Self::start(lab, &image, disks)?) {
            // Emulated processors trip now and then, or stand still, before anything of ours has
            // run.
            Err(_) => up(Self::start(lab, &image, disks)?),
            guest => guest,
        }
    }

    fn start(lab: &Lab, image: &[u8], disks: &[Disk]) -> anyhow::Result<Self> {
        let initrd = tempfile::NamedTempFile::new()?;
        std::fs::write(initrd.path(), image)?;
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-accel", "tcg,thread=multi", "-cpu", PROCESSOR, "-smp", "2"])
            .args(["-m", &MEMORY_MIB.to_string(), "-nographic", "-no-reboot", "-nodefaults"])
            .args(["-serial", "stdio", "-net", "none"])
            .arg("-kernel")
            .arg(&lab.kernel)
            .arg("-initrd")
            .arg(initrd.path())
            .args(["-append", "console=ttyS0 quiet panic=-1 oops=panic"]);
        for disk in disks {
            let file = disk.0.display();
            command.arg("-drive").arg(format!("file={file},format=raw,if=virtio,cache=none"));
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("qemu-system-x86_64 cannot be started")?;
        let output = child.stdout.take().context("a console")?;
        Ok(Self { child, lines: read_lines(output), seen: Vec::new(), _initrd: initrd })
    }

    /// Waits until the guest says a line that begins with `words`; the rest of that line.
    ///
    /// # Errors
    /// If it does not say so in time, or ends before; with its console.
    pub fn await_line(&mut self, words: &str, limit: Duration) -> anyhow::Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.next_line(left);
            let line = line.with_context(|| format!("it never said \"{words}\" in {limit:?}"))?;
            if let Some(rest) = line.strip_prefix(words) {
                return Ok(rest.trim().to_string());
            }
        }
    }

    /// Waits for the next line that the guest says.
    ///
    /// # Errors
    /// If it says nothing for so long, or ends before; with its console.
    pub fn next_line(&mut self, limit: Duration) -> anyhow::Result<String> {
        match self.lines.recv_timeout(limit) {
            Ok(line) => {
                self.seen.push(line.clone());
                Ok(line)
            }
            Err(end) => {
                let why = match end {
                    RecvTimeoutError::Timeout => "says nothing more",
                    RecvTimeoutError::Disconnected => "is gone",
                };
                bail!("the guest {why}:\n{}", self.seen.join("\n"))
            }
        }
    }

    /// Waits until its script has ended.
    ///
    /// # Errors
    /// As [`Guest::await_line`].
    pub fn run_to_end(mut self, limit: Duration) -> anyhow::Result<Ended> {
        let code = self.await_line("LAB ENDED", limit)?;
        let code = code.parse().with_context(|| format!("the script ended with {code}"))?;
        Ok(Ended { code, lines: std::mem::take(&mut self.seen) })
    }

    /// Waits until it is gone by itself, as when it is reset; all that it said.
    ///
    /// # Errors
    /// If it is there after so long; with its console.
    pub fn await_gone(mut self, limit: Duration) -> anyhow::Result<Vec<String>> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => return Ok(std::mem::take(&mut self.seen)),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the guest is there after {limit:?}:\n{}", self.seen.join("\n"))
                }
            }
        }
    }

    /// Cuts its power; all that it said.
    pub fn cut_power(mut self) -> Vec<String> {
        // One that is off already has no power to lose.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.seen.extend(self.lines.iter());
        std::mem::take(&mut self.seen)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(output: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_string();
            line.clear();
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    lines
}

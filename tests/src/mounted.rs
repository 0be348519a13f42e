//! A file system of the kernel on the mirrored volume: `nbdfuse` makes a file of it, `losetup` a
//! block device of the file, and ext4 lives on that.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

const PATIENCE: Duration = Duration::from_secs(20);

/// Why this machine cannot mount anything; `None` where it can.
#[must_use]
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("mounting needs root".into());
    }
    let missing = ["/dev/fuse", "/dev/loop-control"];
    missing.into_iter().find(|path| !Path::new(path).exists()).map(|path| format!("no {path}"))
}

/// A volume as a block device of the kernel. Whatever is left of it goes with its owner.
#[derive(Debug)]
pub struct Attached {
    dir: tempfile::TempDir,
    nbdfuse: Child,
    device: Option<String>,
    mounted: bool,
}

impl Attached {
    /// Makes a block device of the export at `uri`.
    ///
    /// # Errors
    /// With what the tools say.
    pub fn new(uri: &str) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        // What is mounted below may belong to others, who must come through here.
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o711))?;
        for name in ["fuse", "mnt"] {
            std::fs::create_dir(dir.path().join(name))?;
        }
        let file = dir.path().join("fuse/volume");
        let nbdfuse = Command::new("nbdfuse")
            .args([file.as_os_str(), uri.as_ref()])
            .stdin(Stdio::null())
            .spawn()
            .context("nbdfuse cannot be started; `make tools` installs it")?;
        let mut attached = Self { dir, nbdfuse, device: None, mounted: false };
        attached.await_file(&file)?;
        let device = tool("losetup", &["--find".as_ref(), "--show".as_ref(), file.as_path()])?;
        attached.device = Some(device.trim().to_string());
        Ok(attached)
    }

    /// The block device.
    #[must_use]
    pub fn device(&self) -> &Path {
        Path::new(self.device.as_deref().unwrap_or("/nonexistent"))
    }

    /// Where [`Attached::mount`] mounts.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// Makes a new ext4 on the device.
    ///
    /// # Errors
    /// With what `mkfs.ext4` says.
    pub fn format(&self) -> anyhow::Result<()> {
        tool("mkfs.ext4", &["-q".as_ref(), self.device()]).map(drop)
    }

    /// Mounts it.
    ///
    /// # Errors
    /// With what `mount` says.
    pub fn mount(&mut self) -> anyhow::Result<()> {
        tool("mount", &[self.device(), &self.folder()])?;
        self.mounted = true;
        Ok(())
    }

    /// Unmounts it in order.
    ///
    /// # Errors
    /// With what `umount` says.
    pub fn unmount(&mut self) -> anyhow::Result<()> {
        tool("umount", &[&self.folder()])?;
        self.mounted = false;
        Ok(())
    }

    /// Checks the unmounted file system without changing anything; what `e2fsck` says.
    ///
    /// # Errors
    /// If it finds anything wrong.
    pub fn check(&self) -> anyhow::Result<String> {
        tool("e2fsck", &["-fn".as_ref(), self.device()])
    }

    /// nbdfuse is another process: that its file is there can only be looked for.
    fn await_file(&mut self, file: &Path) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !std::fs::metadata(file).is_ok_and(|found| found.len() > 0) {
            if let Some(status) = self.nbdfuse.try_wait()? {
                bail!("nbdfuse ended with {status}");
            }
            if Instant::now() > deadline {
                bail!("nbdfuse makes no file at {}", file.display());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Attached {
    /// From the top down, each by force: under it the volume may be gone already.
    fn drop(&mut self) {
        if self.mounted {
            let _ = tool("umount", &["--lazy".as_ref(), self.folder().as_path()]);
        }
        if let Some(device) = &self.device {
            let _ = tool("losetup", &["--detach", device]);
        }
        let fuse = self.dir.path().join("fuse");
        let _ = tool("umount", &["--lazy".as_ref(), fuse.as_path()]);
        let _ = self.nbdfuse.kill();
        let _ = self.nbdfuse.wait();
    }
}

/// A disk of a size of its own in the place of a folder, which is to find it full. It goes with its
/// owner, and what is on it.
#[derive(Debug)]
pub struct Disk {
    dir: tempfile::TempDir,
    place: PathBuf,
}

impl Disk {
    /// Makes one of so many bytes with all that is in a folder, and mounts it over that.
    ///
    /// # Errors
    /// With what the tools say.
    pub fn over(place: &Path, bytes: u64) -> anyhow::Result<Self> {
        let disk = Self { dir: tempfile::tempdir()?, place: place.into() };
        let image = disk.dir.path().join("image");
        std::fs::File::create(&image)?.set_len(bytes)?;
        let mut format = vec!["-q".as_ref(), "-m0".as_ref(), "-d".as_ref(), place.as_os_str()];
        format.push(image.as_os_str());
        tool("mkfs.ext4", &format)?;
        tool("mount", &["-o".as_ref(), "loop".as_ref(), image.as_path(), place])?;
        Ok(disk)
    }
}

impl Drop for Disk {
    /// The loop device goes with the mount.
    fn drop(&mut self) {
        let _ = tool("umount", &["--lazy".as_ref(), self.place.as_path()]);
    }
}

fn tool<S: AsRef<std::ffi::OsStr>>(program: &str, args: &[S]) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("{program}; `make tools` installs it"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{program}: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

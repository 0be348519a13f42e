//! The lab: real kernels without real hosts. A Debian kernel and a small image of memory files are
//! booted by QEMU, run one script, and are gone; what the script says is the result.
//!
//! The kernel has what this machine's may lack: ublk, nbd, DRBD, netem, device-mapper targets that
//! lose and record writes. Everything runs in software emulation, so nothing in here is fast.

mod archive;
mod image;
mod machine;
mod modules;
mod promises;
mod replay;
mod writes;

pub use image::Image;
pub use machine::{Disk, Ended, Guest};
pub use replay::{Replayed, replay};
pub use writes::{Change, Entry, Writes};

use std::path::{Path, PathBuf};

/// Where `prepare` has put the kernel and the tools.
#[derive(Clone, Debug)]
pub struct Lab {
    root: PathBuf,
    kernel: PathBuf,
    release: String,
}

impl Lab {
    /// The lab of this work tree.
    ///
    /// # Errors
    /// One line that says what is missing and how it comes.
    pub fn find() -> Result<Self, String> {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        let root = target.join("lab/root");
        let boot = root.join("boot");
        let names = std::fs::read_dir(&boot).into_iter().flatten().flatten();
        let mut names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let release = names.find_map(|name| name.strip_prefix("vmlinuz-").map(String::from));
        let Some(release) = release else {
            return Err(format!("no kernel in {}; run tests/vm/prepare", boot.display()));
        };
        if !on_path("qemu-system-x86_64") {
            return Err("qemu-system-x86_64 is not installed; run tests/vm/prepare".into());
        }
        let kernel = boot.join(format!("vmlinuz-{release}"));
        Ok(Self { root, kernel, release })
    }

    /// The unpacked tools of the guests.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn modules(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.release)
    }
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).exists())
}

//! What a guest has: programs with their libraries, modules, scripts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::Lab;
use crate::archive::Archive;
use crate::modules::Modules;

/// First process of every guest.
const INIT: &str = include_str!("../guest/init");

/// The file system of a guest, in the making.
pub struct Image<'lab> {
    lab: &'lab Lab,
    archive: Archive,
    libraries: BTreeSet<PathBuf>,
    load: String,
}

impl<'lab> Image<'lab> {
    /// A guest with a shell and nothing else.
    ///
    /// # Errors
    /// If the lab has no busybox.
    pub fn new(lab: &'lab Lab) -> anyhow::Result<Self> {
        let mut archive = Archive::default();
        for folder in ["proc", "sys", "dev", "run", "tmp", "etc", "root", "var/lib", "lib64"] {
            archive.folder(folder);
        }
        let busybox = lab.root().join("bin/busybox");
        let content = std::fs::read(&busybox).with_context(|| busybox.display().to_string())?;
        archive.file("bin/busybox", &content);
        archive.link("bin/sh", "busybox");
        archive.file("init", INIT.as_bytes());
        Ok(Self { lab, archive, libraries: BTreeSet::new(), load: String::new() })
    }

    /// Loads kernel modules at boot, with those that they need.
    ///
    /// # Errors
    /// If the kernel has no such module.
    pub fn modules(&mut self, names: &[&str]) -> anyhow::Result<&mut Self> {
        let all = Modules::find(&self.lab.modules())?;
        for (name, content) in all.with_needed(names)? {
            let path = format!("modules/{name}.ko");
            if !self.load.contains(&format!("/{path}\n")) {
                self.archive.file(&path, &content);
                self.load += &format!("insmod /{path}\n");
            }
        }
        Ok(self)
    }

    /// Adds a program under its own name, with the libraries that it needs. One without a folder
    /// comes from the tools of the lab, or else from this machine.
    ///
    /// # Errors
    /// If there is no such program, or one of its libraries is missing.
    pub fn program(&mut self, name: impl AsRef<Path>) -> anyhow::Result<&mut Self> {
        let path = self.find(name.as_ref())?;
        let name = path.file_name().and_then(|name| name.to_str()).context("a name")?;
        let content = std::fs::read(&path).with_context(|| path.display().to_string())?;
        self.archive.file(&format!("usr/bin/{name}"), &content);
        for library in self.libraries_of(&path)? {
            self.library(&library)?;
        }
        Ok(self)
    }

    fn find(&self, name: &Path) -> anyhow::Result<PathBuf> {
        if name.components().count() > 1 {
            return Ok(name.into());
        }
        let bases = [self.lab.root(), Path::new("/")];
        let folders = ["sbin", "bin", "usr/sbin", "usr/bin"];
        let mut paths =
            bases.iter().flat_map(|base| folders.iter().map(|dir| base.join(dir).join(name)));
        let found = paths.find(|path| path.exists());
        found.with_context(|| format!("no program {} for the lab", name.display()))
    }

    fn libraries_of(&self, program: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let unpacked = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
        let unpacked = unpacked.map(|dir| self.lab.root().join(dir).display().to_string());
        let output = Command::new("ldd")
            .arg(program)
            .env("LD_LIBRARY_PATH", unpacked.join(":"))
            .output()
            .context("ldd")?;
        let text = String::from_utf8_lossy(&output.stdout);
        if text.contains("not found") {
            bail!("{} needs libraries that are missing:\n{text}", program.display());
        }
        let word = |line: &str| {
            line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from)
        };
        Ok(text.lines().filter_map(word).collect())
    }

    fn library(&mut self, path: &Path) -> anyhow::Result<()> {
        if !self.libraries.insert(path.into()) {
            return Ok(());
        }
        let name = path.file_name().and_then(|name| name.to_str()).context("a name")?;
        let content = std::fs::read(path).with_context(|| path.display().to_string())?;
        // The loader's own path is written into every program.
        let folder = if name.starts_with("ld-linux") { "lib64" } else { "lib" };
        self.archive.file(&format!("{folder}/{name}"), &content);
        Ok(())
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, content: impl AsRef<[u8]>) -> &mut Self {
        self.archive.file(path, content.as_ref());
        self
    }

    /// The finished image; the guest runs `script` and ends.
    #[must_use]
    pub fn finish(mut self, script: &str) -> Vec<u8> {
        self.archive.file("load", self.load.as_bytes());
        self.archive.file("script", script.as_bytes());
        self.archive.finish()
    }
}

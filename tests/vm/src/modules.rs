//! Kernel modules with what they depend on, in the order in which they are loaded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// The modules of one kernel.
pub(crate) struct Modules {
    /// Files by the name of the module.
    files: BTreeMap<String, PathBuf>,
}

impl Modules {
    /// All that lie under `folder`.
    pub(crate) fn find(folder: &Path) -> anyhow::Result<Self> {
        let mut files = BTreeMap::new();
        let mut folders = vec![folder.to_path_buf()];
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(&folder);
            for entry in entries.with_context(|| folder.display().to_string())? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Some(name) = name_of(&path) {
                    files.insert(name, path);
                }
            }
        }
        Ok(Self { files })
    }

    /// The modules `names` and those that they need, unpacked; each after what it needs.
    pub(crate) fn with_needed(&self, names: &[&str]) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let mut found = Vec::new();
        for name in names {
            self.add(name, &mut found)?;
        }
        Ok(found)
    }

    fn add(&self, name: &str, found: &mut Vec<(String, Vec<u8>)>) -> anyhow::Result<()> {
        if found.iter().any(|(known, _)| known == name) {
            return Ok(());
        }
        let path = self.files.get(name).with_context(|| format!("no kernel module {name}"))?;
        let content = unpacked(path)?;
        for needed in needed_by(&content) {
            self.add(&needed, found)?;
        }
        found.push((name.into(), content));
        Ok(())
    }
}

fn name_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    Some(name.strip_suffix(".ko.xz")?.replace('-', "_"))
}

fn unpacked(path: &Path) -> anyhow::Result<Vec<u8>> {
    let output = Command::new("xz").args(["-dc"]).arg(path).output().context("xz")?;
    if !output.status.success() {
        bail!("{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

/// What a module says in its information: `depends=a,b`, between zero bytes.
fn needed_by(content: &[u8]) -> Vec<String> {
    let mark = b"\0depends=";
    let Some(at) = content.windows(mark.len()).position(|window| window == mark) else {
        return Vec::new();
    };
    let rest = &content[at + mark.len()..];
    let list = rest.split(|byte| *byte == 0).next().unwrap_or_default();
    let list = String::from_utf8_lossy(list).replace('-', "_");
    list.split(',').filter(|name| !name.is_empty()).map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_what_it_needs() {
        let content = b"\x7fELF..\0license=GPL\0depends=lru_cache,lib-crc32c\0name=drbd\0";
        assert_eq!(needed_by(content), ["lru_cache", "lib_crc32c"]);
        assert!(needed_by(b"\0depends=\0name=nbd\0").is_empty());
    }
}

//! The archive that a kernel unpacks as its first file system: cpio in its "newc" form.

use std::collections::BTreeSet;
use std::path::Path;

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// Entries are padded to this many bytes.
const ALIGN: usize = 4;

/// An archive that grows entry by entry.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// A folder, with those above it.
    pub(crate) fn folder(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() || self.folders.contains(path) {
            return;
        }
        self.folder_of(path);
        self.folders.insert(path.into());
        self.entry(path, FOLDER, b"");
    }

    /// An executable file.
    pub(crate) fn file(&mut self, path: &str, content: &[u8]) {
        self.folder_of(path);
        self.entry(path.trim_matches('/'), FILE, content);
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &str, to: &str) {
        self.folder_of(path);
        self.entry(path.trim_matches('/'), LINK, to.as_bytes());
    }

    fn folder_of(&mut self, path: &str) {
        if let Some(parent) = Path::new(path).parent().and_then(Path::to_str) {
            self.folder(parent);
        }
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, b"");
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let name_len = path.len() + 1;
        // Inode, mode, owner, group, links, time, size, four of devices, length of the name, sum.
        let fields = [self.entries, mode, 0, 0, 1, 0, len_of(content), 0, 0, 0, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields.into_iter().chain([u32::try_from(name_len).unwrap_or(0), 0]) {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }
}

fn len_of(content: &[u8]) -> u32 {
    u32::try_from(content.len()).unwrap_or_else(|_| panic!("a file of 4 GiB has no place here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_what_is_in_them_and_once() {
        let mut archive = Archive::default();
        archive.file("/usr/bin/tool", b"12345");
        archive.link("usr/bin/other", "tool");
        let bytes = archive.finish();
        let text = String::from_utf8(bytes.clone()).unwrap();
        let at = |name: &str| text.find(name).unwrap();
        assert!(at("usr\0") < at("usr/bin\0") && at("usr/bin\0") < at("usr/bin/tool\0"));
        assert_eq!(text.matches("usr/bin\0").count(), 1);
        assert!(text.starts_with("070701") && bytes.len() % ALIGN == 0);
        assert_eq!(text.matches("070701").count(), 5);
    }
}

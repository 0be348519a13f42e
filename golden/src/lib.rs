//! Golden files: the bytes of a released format, frozen in the repository where people can read
//! them. Only tests and fuzz seeds use this crate.
//!
//! ```text
//! 00000000  48445246 01000100 c0ffee00 00000000 00000000 00000000 00000000 00000000
//! *
//! 00000fe0  48445354 5a0b93d5 00100000 00000000 00200000 00000000 00000000 00000000
//! 00001000
//! ```
//!
//! Thirty-two bytes a line behind their offset; `*` stands for lines of zeroes; the last line is
//! the length.

mod dump;

pub use dump::{DumpError, parse, render};

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Set to 1, the tests write the golden files instead of comparing with them.
pub const BLESS: &str = "HADRIAN_BLESS";

/// Whether the tests were told to write what they would compare.
#[must_use]
pub fn is_blessing() -> bool {
    std::env::var(BLESS).is_ok_and(|value| value == "1")
}

/// The golden files of one format version of one crate.
#[derive(Clone, Debug)]
pub struct Golden {
    dir: PathBuf,
}

impl Golden {
    /// The files in `golden/VERSION` of the crate whose `CARGO_MANIFEST_DIR` is given.
    #[must_use]
    pub fn new(manifest_dir: &str, version: &str) -> Self {
        Self { dir: Path::new(manifest_dir).join("golden").join(version) }
    }

    /// The bytes in the file of `name`.
    ///
    /// # Panics
    /// If the file is missing or no golden file: that is a failure of the test that asks.
    #[must_use]
    pub fn read(&self, name: &str) -> Vec<u8> {
        let path = self.path(name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
            let path = path.display();
            panic!("{path}: {error}; golden files are committed, {BLESS}=1 writes those of a new")
        });
        parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Compares `bytes` with the file of `name`, and returns what is in the file.
    ///
    /// # Panics
    /// If they differ, or the file is missing; the message says what to do.
    pub fn check(&self, name: &str, bytes: &[u8]) -> Vec<u8> {
        if is_blessing() {
            self.write(name, bytes);
        }
        let golden = self.read(name);
        if let Some(at) = first_difference(&golden, bytes) {
            panic!("{}", self.advice(name, &golden, bytes, at));
        }
        golden
    }

    /// Asserts that the directory holds the files of `names` and no others: a file that no test
    /// compares would freeze nothing.
    ///
    /// # Panics
    /// If a file is missing or unknown.
    pub fn check_names<'a>(&self, names: impl Iterator<Item = &'a str>) {
        if is_blessing() {
            // They are being written by other tests at this moment.
            return;
        }
        let expected: BTreeSet<String> = names.map(|name| format!("{name}.hex")).collect();
        let listed = std::fs::read_dir(&self.dir)
            .unwrap_or_else(|error| panic!("{}: {error}", self.dir.display()));
        let found: BTreeSet<String> =
            listed.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        assert_eq!(found, expected, "golden files in {}", self.dir.display());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.hex"))
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let written = std::fs::create_dir_all(&self.dir)
            .and_then(|()| std::fs::write(self.path(name), render(bytes)));
        written.unwrap_or_else(|error| panic!("{}: {error}", self.path(name).display()));
    }

    fn advice(&self, name: &str, golden: &[u8], bytes: &[u8], at: usize) -> String {
        let around = |bytes: &[u8]| {
            let part = bytes.get(at..bytes.len().min(at + 16)).unwrap_or_default();
            hex::encode(part)
        };
        format!(
            "{path} has {golden_len} bytes, this program writes {len}; from byte {at:#x} on the \
             file says {old} and the program {new}.\n\
             These bytes are released: every later program must read them, and every earlier one \
             what this program writes. Put the old bytes back. If the format has to change, give \
             it a new version number, a golden directory of its own, and keep reading this one.",
            path = self.path(name).display(),
            golden_len = golden.len(),
            len = bytes.len(),
            old = around(golden),
            new = around(bytes),
        )
    }
}

fn first_difference(golden: &[u8], bytes: &[u8]) -> Option<usize> {
    let common = golden.iter().zip(bytes).position(|(golden, byte)| golden != byte);
    common.or((golden.len() != bytes.len()).then(|| golden.len().min(bytes.len())))
}

#[cfg(test)]
mod tests;

//! What the volume of the companion files holds: two slots, each with one set of files.
//!
//! ```text
//! 0         4096                       2 MiB      2 MiB + 4096
//! +---------+--------------------------+----------+-------------------------+
//! | head    | files of this set      … | head     | files of the other    … |
//! +---------+--------------------------+----------+-------------------------+
//! ```
//!
//! A new set goes into the slot of the older one: first the files, then the head, in later frames
//! of the log. The image is always a prefix of the log, so a head is there only when its files are;
//! its hash over them is what says so.

use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut};
use serde::{Deserialize, Serialize};

use super::{FILE_COUNT_MAX, SET_BYTES_MAX, SLOT_BYTES};

const MAGIC: [u8; 8] = *b"HADRCOMP";
const VERSION: u16 = 1;
/// Bytes of a head, padding included.
const HEAD_LEN: usize = 4096;
const HEAD_USED: usize = 64;
/// Longest path and longest name of an owner, in bytes.
const PATH_MAX: usize = 4095;
const NAME_MAX: usize = 255;

/// The content of a file, its mode and its owner, in short.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Digest([u8; 32]);

/// A user or a group: by name where the host knows it, else by number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The number on the host that wrote it.
    pub id: u32,
    /// The name there; empty: it has none.
    pub name: String,
}

/// A file as the set holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct File {
    /// Permission bits.
    pub mode: u32,
    /// Its user.
    pub user: Owner,
    /// Its group.
    pub group: Owner,
    /// All of it.
    pub content: Vec<u8>,
}

/// Files by their paths, in order; `None` for one that is not there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FileSet {
    /// Grows by one with each set that is written.
    pub generation: u64,
    /// The files.
    pub files: Vec<(PathBuf, Option<File>)>,
}

/// A set as it is written: at which byte of the volume what goes, in this order.
#[derive(Debug)]
pub struct Slot {
    /// First.
    pub files: (u64, Vec<u8>),
    /// When that is in the log.
    pub head: (u64, Vec<u8>),
}

/// Why a slot holds no set that can be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SetError {
    /// Nothing was written there.
    #[error("it is empty")]
    Empty,
    /// A later program wrote it.
    #[error("version {0} is not known here; install the program that the other members have")]
    Newer(u16),
    /// A head whose files are not there, or damage.
    #[error("its files are not those that its head names")]
    Torn,
    /// Something in it breaks a limit or is cut off.
    #[error("it cannot be read: {0}")]
    Wrong(&'static str),
    /// More than the volume takes.
    #[error(
        "{bytes} bytes in {count} files; a set has at most {SET_BYTES_MAX} bytes, names included, \
         in {FILE_COUNT_MAX} files: take the large ones out of companions"
    )]
    TooLarge {
        /// Of all.
        bytes: usize,
        /// How many.
        count: usize,
    },
}

impl Digest {
    /// That of a file which is there, or is not.
    #[must_use]
    pub fn of(file: Option<&File>) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("hadrian companion file v1");
        if let Some(file) = file {
            hasher.update(&file.mode.to_le_bytes());
            for owner in [&file.user, &file.group] {
                // The same name may have another number on another host.
                match owner.name.is_empty() {
                    true => hasher.update(&owner.id.to_le_bytes()),
                    false => hasher.update(owner.name.as_bytes()),
                };
                hasher.update(&[0]);
            }
            hasher.update(&file.content);
        }
        Self(*hasher.finalize().as_bytes())
    }
}

/// At which byte of the volume the slot of a generation begins.
#[must_use]
pub const fn slot_of(generation: u64) -> u64 {
    (generation % 2) * SLOT_BYTES
}

impl FileSet {
    /// The file of a path, if this set says anything of it.
    #[must_use]
    pub fn get(&self, path: &Path) -> Option<Option<&File>> {
        self.files.iter().find(|(of, _)| of == path).map(|(_, file)| file.as_ref())
    }

    /// What is to be written.
    ///
    /// # Errors
    /// [`SetError::TooLarge`]
    pub fn encode(&self) -> Result<Slot, SetError> {
        let mut body = Vec::new();
        for (path, file) in &self.files {
            put(&mut body, path.as_os_str().as_bytes());
            body.put_u8(u8::from(file.is_some()));
            if let Some(file) = file {
                body.put_u32_le(file.mode);
                for owner in [&file.user, &file.group] {
                    body.put_u32_le(owner.id);
                    put(&mut body, owner.name.as_bytes());
                }
                put(&mut body, &file.content);
            }
        }
        let (bytes, count) = (body.len(), self.files.len());
        if bytes > SET_BYTES_MAX || count > FILE_COUNT_MAX {
            return Err(SetError::TooLarge { bytes, count });
        }
        let mut head = Vec::with_capacity(HEAD_LEN);
        head.put_slice(&MAGIC);
        head.put_u16_le(VERSION);
        head.put_u16_le(0);
        head.put_u32_le(u32::try_from(bytes).unwrap_or(u32::MAX));
        head.put_u64_le(self.generation);
        head.put_u32_le(u32::try_from(count).unwrap_or(u32::MAX));
        head.put_u32_le(0);
        head.put_slice(&hash(self.generation, &body));
        head.resize(HEAD_LEN, 0);
        body.resize(body.len().next_multiple_of(HEAD_LEN), 0);
        let at = slot_of(self.generation);
        Ok(Slot { files: (at + HEAD_LEN as u64, body), head: (at, head) })
    }

    /// What a slot holds.
    ///
    /// # Errors
    /// [`SetError`]
    pub fn decode(slot: &[u8]) -> Result<Self, SetError> {
        let (mut head, mut body) =
            slot.split_at_checked(HEAD_LEN).ok_or(SetError::Wrong("cut off"))?;
        if head.iter().take(HEAD_USED).all(|byte| *byte == 0) {
            return Err(SetError::Empty);
        }
        if head.split_off(..MAGIC.len()) != Some(&MAGIC) {
            return Err(SetError::Wrong("it is something else"));
        }
        match head.get_u16_le() {
            VERSION => head.advance(2),
            found => return Err(SetError::Newer(found)),
        }
        let len = head.get_u32_le() as usize;
        let generation = head.get_u64_le();
        let count = head.get_u32_le() as usize;
        head.advance(4);
        if len > SET_BYTES_MAX || count > FILE_COUNT_MAX {
            return Err(SetError::Wrong("over the limits"));
        }
        body = body.get(..len).ok_or(SetError::Wrong("cut off"))?;
        if head.get(..32) != Some(&hash(generation, body)) {
            return Err(SetError::Torn);
        }
        let files = (0..count).map(|_| entry(&mut body)).collect::<Option<_>>();
        let files = files.filter(|_| body.is_empty()).ok_or(SetError::Wrong("an entry"))?;
        Ok(Self { generation, files })
    }
}

fn hash(generation: u64, body: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("hadrian companion set v1");
    hasher.update(&generation.to_le_bytes());
    hasher.update(body);
    *hasher.finalize().as_bytes()
}

fn put(body: &mut Vec<u8>, bytes: &[u8]) {
    body.put_u32_le(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    body.put_slice(bytes);
}

fn take(body: &mut &[u8], max: usize) -> Option<Vec<u8>> {
    let len = number(body)? as usize;
    (len <= max).then(|| body.split_off(..len)).flatten().map(<[u8]>::to_vec)
}

fn number(body: &mut &[u8]) -> Option<u32> {
    body.try_get_u32_le().ok()
}

fn entry(body: &mut &[u8]) -> Option<(PathBuf, Option<File>)> {
    let path = PathBuf::from(std::ffi::OsString::from_vec(take(body, PATH_MAX)?));
    let file = match body.try_get_u8().ok()? {
        0 => None,
        1 => Some(File {
            mode: number(body)?,
            user: owner(body)?,
            group: owner(body)?,
            content: take(body, SET_BYTES_MAX)?,
        }),
        _ => return None,
    };
    // Nothing is put where a configuration could not have it.
    path.is_absolute().then_some((path, file))
}

fn owner(body: &mut &[u8]) -> Option<Owner> {
    Some(Owner { id: number(body)?, name: String::from_utf8(take(body, NAME_MAX)?).ok()? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner(name: &str) -> Owner {
        Owner { id: 7, name: name.into() }
    }

    pub(super) fn file(content: &[u8]) -> File {
        let (user, group) = (owner("postgres"), owner(""));
        File { mode: 0o640, user, group, content: content.into() }
    }

    fn sample() -> FileSet {
        let files = vec![
            ("/etc/key.pem".into(), Some(file(b"secret"))),
            ("/etc/gone".into(), None),
            ("/etc/empty".into(), Some(file(b""))),
        ];
        FileSet { generation: 5, files }
    }

    /// The slot as it reads back when everything of it was written.
    fn written(set: &FileSet) -> Vec<u8> {
        let slot = set.encode().unwrap();
        let begin = slot_of(set.generation);
        let mut bytes = vec![0; SLOT_BYTES as usize];
        for (at, part) in [slot.files, slot.head] {
            let at = (at - begin) as usize;
            bytes[at..at + part.len()].copy_from_slice(&part);
        }
        bytes
    }

    #[test]
    fn a_set_reads_back_as_it_was_written() {
        assert_eq!(FileSet::decode(&written(&sample())), Ok(sample()));
        let nothing = FileSet { generation: 1, files: Vec::new() };
        assert_eq!(FileSet::decode(&written(&nothing)), Ok(nothing));
    }

    #[test]
    fn two_sets_that_follow_each_other_never_share_a_slot() {
        assert_eq!((slot_of(4), slot_of(5), slot_of(6)), (0, SLOT_BYTES, 0));
    }

    #[test]
    fn a_slot_without_its_head_holds_nothing_and_one_with_a_wrong_byte_is_torn() {
        let mut bytes = written(&sample());
        bytes[HEAD_LEN + 9] ^= 1;
        assert_eq!(FileSet::decode(&bytes), Err(SetError::Torn));
        bytes[..HEAD_LEN].fill(0);
        assert_eq!(FileSet::decode(&bytes), Err(SetError::Empty));
        assert_eq!(FileSet::decode(&bytes[..100]), Err(SetError::Wrong("cut off")));
    }

    #[test]
    fn a_later_version_and_something_foreign_are_told_apart() {
        let mut bytes = written(&sample());
        bytes[8] = 9;
        assert_eq!(FileSet::decode(&bytes), Err(SetError::Newer(9)));
        bytes[0] = b'X';
        assert_eq!(FileSet::decode(&bytes), Err(SetError::Wrong("it is something else")));
    }

    #[test]
    fn a_set_over_the_limits_is_not_written() {
        let large = vec![0; SET_BYTES_MAX];
        let set = FileSet { generation: 1, files: vec![("/a".into(), Some(file(&large)))] };
        assert!(matches!(set.encode(), Err(SetError::TooLarge { count: 1, .. })));
        let many = (0..=FILE_COUNT_MAX).map(|n| (format!("/{n}").into(), None)).collect();
        let set = FileSet { generation: 1, files: many };
        assert!(matches!(set.encode(), Err(SetError::TooLarge { .. })));
    }

    #[test]
    fn a_name_counts_for_an_owner_and_the_number_where_there_is_none() {
        let digest = |user: Owner| Digest::of(Some(&File { user, ..file(b"x") }));
        let numbered = |id, name: &str| digest(Owner { id, name: name.into() });
        assert_eq!(numbered(1, "www"), numbered(2, "www"));
        assert_ne!(numbered(1, ""), numbered(2, ""));
        assert_ne!(Digest::of(None), Digest::of(Some(&file(b""))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..9000)
        ) {
            let _ = FileSet::decode(&bytes);
            let len = bytes.len().min(8000) as u32;
            let mut whole = written(&sample());
            whole[HEAD_LEN..HEAD_LEN + len as usize].copy_from_slice(&bytes[..len as usize]);
            // With a hash that is right, so that the entries are looked at.
            whole[12..16].copy_from_slice(&len.to_le_bytes());
            let hash = hash(5, &whole[HEAD_LEN..HEAD_LEN + len as usize]);
            whole[32..64].copy_from_slice(&hash);
            let _ = FileSet::decode(&whole);
        }
    }
}

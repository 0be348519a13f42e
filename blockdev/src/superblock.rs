//! The superblock file: what a replica must not forget, in two copies that are written in turn.
//!
//! ```text
//! 0                  16 KiB              32 KiB
//! +------------------+-------------------+
//! | copy 0           | copy 1            |
//! +------------------+-------------------+
//!   each: magic, version, sequence, resource, length, CRC-32C of all that, blake3 of the body, body
//! ```
//!
//! A write goes to the copy that is not the newest and is followed by a sync. A crash in the
//! middle leaves the newest copy whole, so a state is replaced as a whole or not at all. The body
//! is opaque here; `hadrian_protocol::replica` gives it its meaning.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hadrian_protocol::ids::ResourceId;

use crate::buffer::IoBuf;
use crate::engine::{Completion, Engine, FileId, Op, OpenAs, Token};

/// Length of one copy, in bytes.
pub const COPY_LEN: usize = 16 << 10;
/// Longest body, in bytes.
pub const BODY_MAX: usize = COPY_LEN - HEADER_LEN;
/// Name of the file in the replica's directory.
pub const FILE_NAME: &str = "superblock";

const HEADER_LEN: usize = 80;
const MAGIC: [u8; 8] = *b"HDRSUPER";
/// Version 1: the first.
const VERSION: u16 = 1;

/// Why a superblock cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SuperblockError {
    /// There is none.
    #[error("{} does not exist; make the replica with `hadrian create`", .0.display())]
    Missing(PathBuf),
    /// The system refuses.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// Neither copy is whole.
    #[error(
        "{}: neither copy is whole ({first}; {second}); \
         the replica cannot be trusted, make it again from the other member", .path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with the first copy.
        first: CopyError,
        /// What is wrong with the second copy.
        second: CopyError,
    },
    /// There is a superblock already.
    #[error("{} exists already; a replica is never overwritten: move it away first", .0.display())]
    Exists(PathBuf),
    /// The body is too long.
    #[error("a superblock body of {len} bytes is over the limit of {BODY_MAX}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
}

/// Why one copy is not whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// The file ends before it.
    #[error("cut short")]
    Short,
    /// It never was written, or something else was.
    #[error("not a superblock")]
    Magic,
    /// Written by a newer program.
    #[error("format {0}, newer than this program reads ({VERSION}); upgrade it")]
    Version(u16),
    /// Changed or torn.
    #[error("checksum does not match")]
    Checksum,
}

/// A copy that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Grows with each write.
    pub sequence: u64,
    /// Whose it is.
    pub resource: ResourceId,
    /// What the caller wrote.
    pub body: Vec<u8>,
}

/// What is found in a superblock file.
#[derive(Debug)]
pub struct Found {
    /// The newest whole copy.
    pub newest: Copy,
    /// What is wrong with the other one, if anything. Expected after a crash; worth a warning.
    pub other: Option<CopyError>,
}

/// Reads a superblock file without changing anything.
///
/// # Errors
/// [`SuperblockError`]
pub fn read(path: &Path) -> Result<Found, SuperblockError> {
    let mut bytes = Vec::with_capacity(2 * COPY_LEN);
    let limit = 2 * COPY_LEN as u64;
    match File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(SuperblockError::Missing(path.into()));
        }
        Err(source) => return Err(SuperblockError::Io { path: path.into(), source }),
    }
    let first = decode(bytes.get(..COPY_LEN).unwrap_or(&bytes));
    let second = decode(bytes.get(COPY_LEN..).unwrap_or_default());
    match (first, second) {
        (Ok(first), Ok(second)) if second.sequence > first.sequence => {
            Ok(Found { newest: second, other: None })
        }
        (Ok(first), Ok(_)) => Ok(Found { newest: first, other: None }),
        (Ok(newest), Err(other)) | (Err(other), Ok(newest)) => {
            Ok(Found { newest, other: Some(other) })
        }
        (Err(first), Err(second)) => {
            Err(SuperblockError::Damaged { path: path.into(), first, second })
        }
    }
}

/// Makes a superblock file, durably, both copies alike. The caller syncs the directory.
///
/// # Errors
/// [`SuperblockError::Exists`] where there is one: nothing is ever overwritten.
pub fn create(path: &Path, resource: ResourceId, body: &[u8]) -> Result<(), SuperblockError> {
    let io = |source| SuperblockError::Io { path: path.into(), source };
    let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(SuperblockError::Exists(path.into()));
        }
        Err(error) => return Err(io(error)),
    };
    for sequence in [1, 2] {
        file.write_all(&encode(sequence, resource, body)?).map_err(io)?;
    }
    file.sync_all().map_err(io)
}

/// The bytes of one copy.
///
/// # Errors
/// [`SuperblockError::TooLong`]
pub fn encode(sequence: u64, resource: ResourceId, body: &[u8]) -> Result<IoBuf, SuperblockError> {
    let len = body.len();
    if len > BODY_MAX {
        return Err(SuperblockError::TooLong { len });
    }
    let mut copy = IoBuf::with_len(COPY_LEN);
    copy.fill(0);
    copy[..8].copy_from_slice(&MAGIC);
    copy[8..10].copy_from_slice(&VERSION.to_le_bytes());
    copy[12..20].copy_from_slice(&sequence.to_le_bytes());
    copy[20..36].copy_from_slice(resource.as_bytes());
    copy[36..40].copy_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
    copy[44..76].copy_from_slice(blake3::hash(body).as_bytes());
    let crc = header_crc(&copy);
    copy[76..80].copy_from_slice(&crc.to_le_bytes());
    copy[HEADER_LEN..HEADER_LEN + len].copy_from_slice(body);
    Ok(copy)
}

fn header_crc(copy: &[u8]) -> u32 {
    crc32c::crc32c(copy.get(..76).unwrap_or_default())
}

/// Reads one copy.
///
/// # Errors
/// [`CopyError`]
pub fn decode(copy: &[u8]) -> Result<Copy, CopyError> {
    let mut rest = copy.get(..HEADER_LEN).ok_or(CopyError::Short)?;
    fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], CopyError> {
        let (head, tail) = rest.split_first_chunk::<N>().ok_or(CopyError::Short)?;
        *rest = tail;
        Ok(head)
    }
    if take::<8>(&mut rest)? != &MAGIC {
        return Err(CopyError::Magic);
    }
    let version = u16::from_le_bytes(*take(&mut rest)?);
    take::<2>(&mut rest)?;
    let sequence = u64::from_le_bytes(*take(&mut rest)?);
    let resource = ResourceId::from_bytes(*take(&mut rest)?);
    let len = u32::from_le_bytes(*take(&mut rest)?) as usize;
    take::<4>(&mut rest)?;
    let hash = *take::<32>(&mut rest)?;
    if u32::from_le_bytes(*take(&mut rest)?) != header_crc(copy) {
        return Err(CopyError::Checksum);
    }
    if version != VERSION {
        return Err(CopyError::Version(version));
    }
    let body = copy.get(HEADER_LEN..).and_then(|b| b.get(..len)).ok_or(CopyError::Short)?;
    if blake3::hash(body) != blake3::Hash::from(hash) {
        return Err(CopyError::Checksum);
    }
    Ok(Copy { sequence, resource, body: body.to_vec() })
}

/// Writes superblocks while the replica runs: one at a time, never over the newest whole copy.
#[derive(Debug)]
pub struct SuperblockWriter {
    file: FileId,
    resource: ResourceId,
    token: Token,
    sequence: u64,
    /// The number that the caller gave to the write that is under way.
    under_way: Option<u64>,
}

/// What a completion means.
#[derive(Debug)]
pub enum SuperblockEvent {
    /// The write goes on.
    Pending,
    /// The state with this number is durable.
    Persisted(u64),
    /// It is not, and nothing is written any more (design §2.7).
    Failed(io::Error),
}

impl SuperblockWriter {
    /// A writer that continues behind `newest`. Its operations bear `token`.
    ///
    /// # Errors
    /// As the system says.
    pub fn open<E: Engine>(
        engine: &mut E,
        path: &Path,
        newest: &Copy,
        token: Token,
    ) -> io::Result<Self> {
        let file = engine.open(path, OpenAs::Direct)?;
        let (resource, sequence) = (newest.resource, newest.sequence);
        Ok(Self { file, resource, token, sequence, under_way: None })
    }

    /// Begins to write `body`; [`SuperblockEvent::Persisted`] with `number` tells the end.
    ///
    /// # Panics
    /// If a write is under way: the state machine above issues one at a time.
    ///
    /// # Errors
    /// [`SuperblockError::TooLong`]
    pub fn write<E: Engine>(
        &mut self,
        engine: &mut E,
        number: u64,
        body: &[u8],
    ) -> Result<(), SuperblockError> {
        assert!(self.under_way.is_none(), "one superblock write at a time");
        self.sequence += 1;
        let data: Bytes = encode(self.sequence, self.resource, body)?.freeze();
        // Odd sequences go to copy 0 and even ones to copy 1, so the newest is never touched.
        let offset = if self.sequence % 2 == 1 { 0 } else { COPY_LEN as u64 };
        self.under_way = Some(number);
        engine.submit(self.token, Op::Write { file: self.file, offset, data });
        Ok(())
    }

    /// Takes the completion of one of its operations: the write, then the sync.
    pub fn complete<E: Engine>(&mut self, engine: &mut E, done: Completion) -> SuperblockEvent {
        if let Err(error) = done.result {
            return SuperblockEvent::Failed(error);
        }
        match (done.op, self.under_way) {
            (Op::Write { .. }, _) => {
                engine.submit(self.token, Op::Sync { file: self.file });
                SuperblockEvent::Pending
            }
            (_, Some(number)) => {
                self.under_way = None;
                SuperblockEvent::Persisted(number)
            }
            (_, None) => SuperblockEvent::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{PlainEngine, Token};

    fn resource() -> ResourceId {
        ResourceId::derive("orders", "db")
    }

    fn settle(engine: &mut PlainEngine, writer: &mut SuperblockWriter) -> Option<u64> {
        let mut done = Vec::new();
        loop {
            engine.reap(&mut done);
            let completion = done.pop()?;
            if let SuperblockEvent::Persisted(number) = writer.complete(engine, completion) {
                return Some(number);
            }
        }
    }

    #[test]
    fn the_newest_state_is_read_back_and_the_one_before_survives_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        create(&path, resource(), b"first").unwrap();
        let mut engine = PlainEngine::new();
        let newest = read(&path).unwrap().newest;
        let mut writer = SuperblockWriter::open(&mut engine, &path, &newest, Token(1)).unwrap();
        for (number, body) in [(7, b"second"), (8, b"third!")] {
            writer.write(&mut engine, number, body).unwrap();
            assert_eq!(settle(&mut engine, &mut writer), Some(number));
            assert_eq!(read(&path).unwrap().newest.body, body);
        }
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(decode(&bytes[..COPY_LEN]).unwrap().body, b"second");
    }

    #[test]
    fn a_torn_write_leaves_the_state_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        create(&path, resource(), b"old").unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        // Sequence 3 goes to copy 0; it is torn at each sector of its header and body.
        let next = encode(3, resource(), &[7; 2000]).unwrap();
        for cut in (512..2048).step_by(512) {
            bytes[..cut].copy_from_slice(&next[..cut]);
            std::fs::write(&path, &bytes).unwrap();
            let found = read(&path).unwrap();
            assert_eq!(found.newest.body, b"old");
            assert_eq!(found.other, Some(CopyError::Checksum));
        }
    }

    #[test]
    fn two_bad_copies_are_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        std::fs::write(&path, vec![0; 2 * COPY_LEN]).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("neither copy is whole") && error.contains("make it again"));
    }

    #[test]
    fn a_superblock_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        create(&path, resource(), b"mine").unwrap();
        assert!(matches!(create(&path, resource(), b"new"), Err(SuperblockError::Exists(_))));
    }

    #[test]
    fn a_newer_format_is_refused_by_its_number() {
        let mut copy = encode(1, resource(), b"body").unwrap();
        copy[8] = 9;
        let crc = header_crc(&copy);
        copy[76..80].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(decode(&copy), Err(CopyError::Version(9)));
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let good = encode(1, resource(), b"some body").unwrap();
        for at in 0..HEADER_LEN + 9 {
            let mut bad = good.to_vec();
            bad[at] ^= 4;
            assert!(decode(&bad).is_err(), "flipped byte {at} went unnoticed");
        }
    }
}

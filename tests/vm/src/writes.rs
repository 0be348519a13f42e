//! What the kernel's target `log-writes` has recorded of a device: every write in the order in
//! which it became durable, so that the device can be had as a loss of power would have left it at
//! any moment (Documentation/admin-guide/device-mapper/log-writes.rst).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context as _, ensure};

const MAGIC: u64 = 0x006A_7366_7773_6872;
const VERSION: u64 = 1;

const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

/// Length of the head of an entry, in bytes. The rest of its sector holds the words of a mark.
const HEAD_LEN: usize = 32;
/// No request of a block device is longer, in bytes; a discard has no data.
const DATA_LEN_MAX: u64 = 64 << 20;

/// What was done to the device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Nothing: a flush alone.
    None,
    /// Bytes were written at this place.
    Data(u64, Vec<u8>),
    /// So many bytes from this place on hold nothing that anybody needs.
    Discard(u64, u64),
    /// Nothing was done; somebody has left a word.
    Mark(String),
}

/// One entry of a recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What was done.
    pub change: Change,
    /// Whether it was a flush or a forced write: somebody has been told that something is durable.
    pub is_point: bool,
}

/// A recording, entry by entry.
#[derive(Debug)]
pub struct Writes<R> {
    from: R,
    /// The unit of everything, in bytes.
    sector_len: usize,
    left: u64,
}

impl Writes<File> {
    /// The recording on this disk.
    ///
    /// # Errors
    /// As the system says, or if it is none.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        Self::new(file)
    }
}

impl<R: Read + Seek> Writes<R> {
    /// A recording that begins where `from` begins.
    ///
    /// # Errors
    /// If it is none.
    pub fn new(mut from: R) -> anyhow::Result<Self> {
        let mut head = [0; 28];
        from.read_exact(&mut head)?;
        let (magic, version, left) = (word(&head, 0), word(&head, 1), word(&head, 2));
        ensure!(magic == MAGIC, "no recording of writes: it begins with {magic:#x}");
        ensure!(version == VERSION, "a recording of version {version}, not {VERSION}");
        let sector_len = u32::from_le_bytes([head[24], head[25], head[26], head[27]]);
        let sane = sector_len.is_power_of_two() && (512..=65_536).contains(&sector_len);
        ensure!(sane, "a recording in sectors of {sector_len} bytes");
        from.seek(SeekFrom::Start(sector_len.into()))?;
        Ok(Self { from, sector_len: usize::try_from(sector_len)?, left })
    }

    fn read(&mut self) -> anyhow::Result<Entry> {
        let mut sector = vec![0; self.sector_len];
        self.from.read_exact(&mut sector).context("the recording is cut")?;
        let bytes = |sectors: u64| sectors.checked_mul(self.sector_len as u64);
        let (at, len) = (bytes(word(&sector, 0)), bytes(word(&sector, 1)));
        let (at, len) = at.zip(len).context("an entry of a recording is out of bounds")?;
        let (flags, words_len) = (word(&sector, 2), usize::try_from(word(&sector, 3))?);
        let change = if flags & MARK != 0 {
            let words = sector[HEAD_LEN..].get(..words_len).context("a mark is too long")?;
            Change::Mark(String::from_utf8_lossy(words).trim_end_matches('\0').into())
        } else if flags & DISCARD != 0 {
            Change::Discard(at, len)
        } else if len == 0 {
            Change::None
        } else {
            ensure!(len <= DATA_LEN_MAX, "a write of {len} bytes in a recording");
            let mut data = vec![0; usize::try_from(len)?];
            self.from.read_exact(&mut data).context("the recording is cut")?;
            Change::Data(at, data)
        };
        Ok(Entry { change, is_point: flags & (FLUSH | FUA) != 0 })
    }
}

impl<R: Read + Seek> Iterator for Writes<R> {
    /// An entry, or that the recording is cut or damaged.
    type Item = anyhow::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some(self.read())
    }
}

fn word(bytes: &[u8], number: usize) -> u64 {
    let word = bytes.chunks_exact(8).nth(number).and_then(<[u8]>::first_chunk);
    word.map_or(0, |word| u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    const SECTOR: usize = 512;

    fn sector(words: &[u64], rest: &[u8]) -> Vec<u8> {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend(rest);
        bytes.resize(SECTOR, 0);
        bytes
    }

    fn recording(entries: u64) -> Vec<u8> {
        sector(&[MAGIC, VERSION, entries], &512_u32.to_le_bytes())
    }

    fn all(bytes: Vec<u8>) -> anyhow::Result<Vec<Entry>> {
        Writes::new(Cursor::new(bytes))?.collect()
    }

    #[test]
    fn writes_flushes_discards_and_marks_come_in_their_order() {
        let mut bytes = recording(5);
        bytes.extend(sector(&[8, 2, 0, 0], b""));
        bytes.extend([7; 2 * SECTOR]);
        bytes.extend(sector(&[0, 0, FLUSH, 0], b""));
        // A discard of many sectors has none of them in the recording.
        bytes.extend(sector(&[16, 1 << 30, DISCARD, 0], b""));
        bytes.extend(sector(&[0, 0, MARK, 9], b"flushed:4"));
        bytes.extend(sector(&[1, 1, FLUSH | FUA, 0], b""));
        bytes.extend([9; SECTOR]);
        let expected = [
            (Change::Data(4096, vec![7; 1024]), false),
            (Change::None, true),
            (Change::Discard(8192, 1 << 39), false),
            (Change::Mark("flushed:4".into()), false),
            (Change::Data(512, vec![9; 512]), true),
        ];
        let expected = expected.map(|(change, is_point)| Entry { change, is_point });
        assert_eq!(all(bytes).unwrap(), expected);
    }

    #[test]
    fn what_lies_behind_the_last_entry_is_an_older_recording() {
        let mut bytes = recording(1);
        bytes.extend(sector(&[0, 0, MARK, 3], b"end"));
        bytes.extend(sector(&[0, 0, MARK, 3], b"old"));
        let end = Entry { change: Change::Mark("end".into()), is_point: false };
        assert_eq!(all(bytes).unwrap(), [end]);
    }

    #[test]
    fn what_is_no_recording_or_is_cut_is_refused() {
        assert!(Writes::new(Cursor::new(vec![0; SECTOR])).is_err());
        assert!(Writes::new(Cursor::new(sector(&[MAGIC, 2, 0], &512_u32.to_le_bytes()))).is_err());
        assert!(Writes::new(Cursor::new(sector(&[MAGIC, VERSION], b""))).is_err());
        assert!(all(recording(1)).is_err());
        for head in [[0, 2, 0, 0], [0, 1 << 50, 0, 0], [u64::MAX, 1, 0, 0], [0, 0, MARK, 481]] {
            assert!(all([recording(1), sector(&head, b"")].concat()).is_err(), "{head:?}");
        }
    }
}

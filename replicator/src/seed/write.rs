//! Writing a seed.

use std::io::{self, Write};

use hadrian_protocol::ids::VolumeIndex;
use hadrian_protocol::replica::ReplicaState;
use hadrian_protocol::resync::CONTENT_MAX;
use hadrian_protocol::resync::seed::Content;
use zstd::bulk::Compressor;

use super::format::{Head, Header, Kind};

/// Level of compression: images are large, and a disk is rarely faster than this.
const LEVEL: i32 = 3;

/// A seed that is being written.
pub struct SeedWriter<W> {
    out: W,
    zstd: Compressor<'static>,
    packed: Vec<u8>,
    hash: blake3::Hasher,
    count: u64,
    len: u64,
}

impl<W: Write> SeedWriter<W> {
    /// Begins a seed of these volumes.
    ///
    /// # Errors
    /// As the system says.
    pub fn begin(out: W, header: &Header) -> io::Result<Self> {
        let (zstd, packed) = (Compressor::new(LEVEL)?, vec![0; CONTENT_MAX]);
        let mut writer = Self { out, zstd, packed, hash: blake3::Hasher::new(), count: 0, len: 0 };
        writer.put(&header.encode())?;
        Ok(writer)
    }

    /// Adds what some leaves hold. Of one that comes twice the last counts.
    ///
    /// # Errors
    /// As the system says.
    pub fn add(&mut self, content: &Content) -> io::Result<()> {
        self.count += 1;
        let Content { volume, offset, len, data } = content;
        let place = (*offset, *len);
        let Some(data) = data else {
            let head = Head::encode(Kind::Zeroes, *volume, place, &[]);
            return self.put(&head);
        };
        // What does not shrink is stored as it is: zstd finds no room for it then.
        let mut packed = std::mem::take(&mut self.packed);
        let most = data.len().saturating_sub(1).min(packed.len());
        let used = packed.get_mut(..most);
        let used = used.and_then(|room| self.zstd.compress_to_buffer(data.as_ref(), room).ok());
        let stored = used.and_then(|used| packed.get(..used)).unwrap_or(data.as_ref());
        let head = Head::encode(Kind::Bytes, *volume, place, stored);
        let put = self.put(&head).and_then(|()| self.put(stored));
        self.packed = packed;
        put
    }

    /// Ends it with the state of a replica that has this image; returns what it was written to, and
    /// its length in bytes.
    ///
    /// # Errors
    /// As the system says.
    pub fn finish(mut self, state: &ReplicaState) -> io::Result<(W, u64)> {
        let state = state.encode();
        let first = VolumeIndex::new(0).unwrap_or_else(|| unreachable!("there is a first volume"));
        let head = Head::encode(Kind::End, first, (self.count, 0), &state);
        self.put(&head)?;
        self.put(&state)?;
        let digest = self.hash.finalize();
        self.put(digest.as_bytes())?;
        self.out.flush()?;
        Ok((self.out, self.len))
    }

    /// Bytes that were written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.len
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

//! Reading a seed: nothing of it is believed before its checksum fits, and nothing counts before
//! its end was seen.

use std::io::{self, Read};

use hadrian_protocol::ids::VolumeIndex;
use hadrian_protocol::replica::ReplicaState;
use hadrian_protocol::resync::CONTENT_MAX;
use zstd::bulk::Decompressor;

use super::SeedError;
use super::format::{DIGEST_LEN, HEAD_LEN, HEADER_LEN, Head, Header, Kind};

/// A seed that is being read.
pub struct SeedReader<R> {
    source: R,
    zstd: Decompressor<'static>,
    hash: blake3::Hasher,
    /// Where the next record begins, in bytes of the file.
    at: u64,
    count: u64,
    header: Header,
    stored: Vec<u8>,
    plain: Vec<u8>,
    state: Option<Box<ReplicaState>>,
}

/// What some leaves of a volume hold.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Of which volume.
    pub volume: VolumeIndex,
    /// From which byte on.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
    /// The bytes; none: zeroes.
    pub data: Option<&'a [u8]>,
}

impl<R: Read> SeedReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`SeedError`]
    pub fn open(mut source: R) -> Result<Self, SeedError> {
        let mut page = [0; HEADER_LEN];
        fill(&mut source, &mut page, 0).map_err(|error| match error {
            // A file of another kind may be as short as it likes.
            SeedError::CutOff { .. } => SeedError::Magic,
            other => other,
        })?;
        let header = Header::decode(&page)?;
        let mut hash = blake3::Hasher::new();
        hash.update(&page);
        Ok(Self {
            source,
            zstd: Decompressor::new()?,
            hash,
            at: HEADER_LEN as u64,
            count: 0,
            header,
            stored: Vec::new(),
            plain: vec![0; CONTENT_MAX],
            state: None,
        })
    }

    /// What it is of.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How far it was read, in bytes of the file.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The state of a replica with this image, once the end was read.
    #[must_use]
    pub fn state(&self) -> Option<&ReplicaState> {
        self.state.as_deref()
    }

    /// The next piece; none: this was the end, and the file is whole.
    ///
    /// # Errors
    /// [`SeedError`]
    pub fn next_piece(&mut self) -> Result<Option<Piece<'_>>, SeedError> {
        if self.state.is_some() {
            return Ok(None);
        }
        let at = self.at;
        let damaged = || SeedError::Damaged { at };
        let mut bytes = [0; HEAD_LEN];
        fill(&mut self.source, &mut bytes, at)?;
        let head = Head::decode(&bytes, &self.header).ok_or_else(damaged)?;
        self.stored.resize(head.stored, 0);
        fill(&mut self.source, &mut self.stored, at + HEAD_LEN as u64)?;
        if !head.fits(&bytes, &self.stored) {
            return Err(damaged());
        }
        self.hash.update(&bytes);
        self.hash.update(&self.stored);
        self.at += (HEAD_LEN + head.stored) as u64;
        let Head { kind, volume, offset, len, .. } = head;
        if kind == Kind::End {
            return self.end(offset, at).map(|()| None);
        }
        self.count += 1;
        let data = match kind {
            Kind::Bytes => Some(self.unpack(len).ok_or_else(damaged)?),
            Kind::Zeroes | Kind::End => None,
        };
        Ok(Some(Piece { volume, offset, len, data }))
    }

    /// What was stored of so many bytes.
    fn unpack(&mut self, len: u64) -> Option<&[u8]> {
        let len = usize::try_from(len).ok()?;
        if self.stored.len() == len {
            return Some(&self.stored);
        }
        let room = self.plain.get_mut(..len)?;
        let found = self.zstd.decompress_to_buffer(&self.stored, room).ok()?;
        if found == len { self.plain.get(..len) } else { None }
    }

    fn end(&mut self, count: u64, at: u64) -> Result<(), SeedError> {
        let digest = self.hash.finalize();
        let mut found = [0; DIGEST_LEN];
        fill(&mut self.source, &mut found, self.at)?;
        if count != self.count || digest != blake3::Hash::from_bytes(found) {
            return Err(SeedError::Damaged { at });
        }
        self.at += DIGEST_LEN as u64;
        if self.source.read(&mut [0])? > 0 {
            return Err(SeedError::Damaged { at: self.at });
        }
        let state = ReplicaState::decode(&self.stored)?;
        if state.resource != self.header.resource || state.volumes != self.header.volumes {
            return Err(SeedError::Damaged { at });
        }
        self.state = Some(Box::new(state));
        Ok(())
    }
}

/// Fills all of it, from byte `at` of the file on.
fn fill(source: &mut impl Read, into: &mut [u8], at: u64) -> Result<(), SeedError> {
    source.read_exact(into).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => SeedError::CutOff { at },
        _ => SeedError::Io(error),
    })
}

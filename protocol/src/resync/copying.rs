//! What source and sink say to each other while the core of neither listens.

use bytes::{BufMut, Bytes};

use super::digest::Digest;
use super::{LEAF, LEAVES, REGION};
use crate::codec::{CodecError, Put, Reader};
use crate::divergence::Changed;
use crate::ids::{Lsn, VolumeIndex};

/// Most runs of regions that one message compares.
pub const COMPARED_MAX: usize = 256;
/// Most bytes of content of one message; whole leaves.
pub const CONTENT_MAX: usize = 16 * LEAF as usize;
/// Most bytes of zeroes that one message makes.
pub const ZEROES_MAX: u64 = 16 * REGION;
/// Most ranges that a sink names as changed by itself.
pub const MINE_MAX: usize = 2048;

/// A message of the data of a resync, and which of its session it is. A connection that swapped or
/// doubled two of them would put old content over new.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Numbered {
    /// Counts up from 1, for each direction of a session.
    pub number: u64,
    /// What is said.
    pub copying: Copying,
}

impl Numbered {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.number);
        self.copying.put(out);
    }

    pub(crate) fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let number = reader.u64("number of a message")?;
        Ok(Self { number, copying: Copying::get(reader)? })
    }
}

/// One message of the data of a resync.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Copying {
    /// The sink, first of all: what it changed itself where the histories part. `None`: it does
    /// not know, so everything is to be compared.
    Mine(Option<Vec<Changed>>),
    /// The source: digests of consecutive regions of a volume, as runs of equal ones.
    Compare {
        /// Counts these messages up from 1.
        number: u64,
        /// Of which volume.
        volume: VolumeIndex,
        /// The first region.
        first: u32,
        /// How many regions have which digest.
        runs: Vec<(u32, Digest)>,
    },
    /// The sink: a region of its image differs, and these are the digests of its leaves. None: all
    /// of it is zero.
    Differs {
        /// Of which volume.
        volume: VolumeIndex,
        /// Which region.
        region: u32,
        /// Its leaves, in order.
        leaves: Option<Vec<Digest>>,
    },
    /// The sink: it has looked at everything of the `Compare` with this number, and said what
    /// differs.
    Compared(u64),
    /// The source: what whole leaves of a volume hold.
    Content {
        /// Of which volume.
        volume: VolumeIndex,
        /// From which byte on; the first of a leaf.
        offset: u64,
        /// How many bytes; whole leaves, or to the end of the volume.
        len: u64,
        /// The bytes; `None` for zeroes, of which up to [`ZEROES_MAX`] may come at once.
        data: Option<Bytes>,
    },
    /// The sink: it has taken so many messages with content in this session, in all.
    Taken(u64),
    /// A primary that repairs a standby: these leaves are to hold this, as its own do at `at`,
    /// where both images rest.
    Mend {
        /// The position of both images; anywhere else nothing is written.
        at: Lsn,
        /// Of which volume.
        volume: VolumeIndex,
        /// From which byte on; the first of a leaf.
        offset: u64,
        /// How many bytes, at most [`CONTENT_MAX`]; whole leaves, or to the end of the volume.
        len: u64,
        /// The bytes; `None` for zeroes.
        data: Option<Bytes>,
    },
    /// The primary: nothing more is to be mended at this position.
    MendEnd,
    /// The standby: so many of these messages are done, durably, since the image was held.
    Mended {
        /// Of `Mend` and `MendEnd` together.
        count: u64,
        /// Whether it could; if not, nothing more is written, and its log says why.
        whole: bool,
    },
    /// A primary that is repaired from a standby asks for what leaves hold there; the answer is a
    /// `Content`.
    Fetch {
        /// The position of both images.
        at: Lsn,
        /// Of which volume.
        volume: VolumeIndex,
        /// From which byte on; the first of a leaf.
        offset: u64,
        /// How many bytes, at most [`CONTENT_MAX`]; whole leaves, or to the end of the volume.
        len: u64,
    },
}

impl Copying {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Mine(changed) => {
                out.put_u8(1);
                out.put_option(changed.as_deref(), |out, changed| {
                    out.put_list(changed, put_changed);
                });
            }
            Self::Compare { number, volume, first, runs } => {
                out.put_u8(2);
                out.put_u64_le(*number);
                out.put_u16_le(volume.index());
                out.put_u32_le(*first);
                out.put_list(runs, |out, (count, digest)| {
                    out.put_u32_le(*count);
                    out.put_slice(digest.as_bytes());
                });
            }
            Self::Differs { volume, region, leaves } => {
                out.put_u8(3);
                out.put_u16_le(volume.index());
                out.put_u32_le(*region);
                out.put_option(leaves.as_deref(), |out, leaves| {
                    out.put_list(leaves, |out, leaf| out.put_slice(leaf.as_bytes()));
                });
            }
            Self::Compared(number) => {
                out.put_u8(4);
                out.put_u64_le(*number);
            }
            Self::Content { volume, offset, len, data } => {
                out.put_u8(if data.is_some() { 5 } else { 6 });
                put_leaves(out, *volume, (*offset, *len));
                out.put_slice(data.as_deref().unwrap_or_default());
            }
            Self::Taken(count) => {
                out.put_u8(7);
                out.put_u64_le(*count);
            }
            repair => repair.put_repair(out),
        }
    }

    fn put_repair(&self, out: &mut Vec<u8>) {
        match self {
            Self::Mend { at, volume, offset, len, data } => {
                out.put_u8(if data.is_some() { 8 } else { 9 });
                out.put_lsn(*at);
                put_leaves(out, *volume, (*offset, *len));
                out.put_slice(data.as_deref().unwrap_or_default());
            }
            Self::MendEnd => out.put_u8(10),
            Self::Mended { count, whole } => {
                out.put_u8(11);
                out.put_u64_le(*count);
                out.put_flag(*whole);
            }
            Self::Fetch { at, volume, offset, len } => {
                out.put_u8(12);
                out.put_lsn(*at);
                put_leaves(out, *volume, (*offset, *len));
            }
            _ => unreachable!("everything else is put elsewhere"),
        }
    }

    pub(crate) fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(match reader.u8("kind of copying")? {
            1 => Self::Mine(
                reader.option("own changes", |r| r.list("own changes", MINE_MAX, get_changed))?,
            ),
            2 => Self::Compare {
                number: reader.u64("number of a comparison")?,
                volume: reader.volume("volume")?,
                first: reader.u32("region")?,
                runs: reader.list("runs of regions", COMPARED_MAX, |r| {
                    Ok((r.u32("count of regions")?, Digest::from_bytes(r.hash("digest")?)))
                })?,
            },
            3 => Self::Differs {
                volume: reader.volume("volume")?,
                region: reader.u32("region")?,
                leaves: reader.option("leaves", |r| {
                    r.list("leaves", LEAVES, |r| Ok(Digest::from_bytes(r.hash("digest")?)))
                })?,
            },
            4 => Self::Compared(reader.u64("number of a comparison")?),
            kind @ (5 | 6) => {
                let (volume, offset, len) = get_leaves(reader)?;
                Self::Content { volume, offset, len, data: get_data(reader, kind == 5, len)? }
            }
            7 => Self::Taken(reader.u64("count of content")?),
            kind @ (8 | 9) => {
                let at = reader.lsn("position of a repair")?;
                let (volume, offset, len) = get_leaves(reader)?;
                Self::Mend { at, volume, offset, len, data: get_data(reader, kind == 8, len)? }
            }
            10 => Self::MendEnd,
            11 => {
                let count = reader.u64("count of repairs")?;
                Self::Mended { count, whole: reader.flag("whole")? }
            }
            12 => {
                let at = reader.lsn("position of a repair")?;
                let (volume, offset, len) = get_leaves(reader)?;
                Self::Fetch { at, volume, offset, len }
            }
            other => {
                let value = u64::from(other);
                return Err(CodecError::Value { field: "kind of copying", value });
            }
        })
    }
}

fn put_leaves(out: &mut Vec<u8>, volume: VolumeIndex, (offset, len): (u64, u64)) {
    out.put_u16_le(volume.index());
    out.put_u64_le(offset);
    out.put_u64_le(len);
}

fn get_leaves(reader: &mut Reader<'_>) -> Result<(VolumeIndex, u64, u64), CodecError> {
    let volume = reader.volume("volume")?;
    Ok((volume, reader.u64("offset")?, reader.u64("length")?))
}

/// The bytes of leaves, which go to the end of the message; nothing follows on zeroes.
fn get_data(
    reader: &mut Reader<'_>,
    has_data: bool,
    len: u64,
) -> Result<Option<Bytes>, CodecError> {
    if !has_data {
        return Ok(None);
    }
    let rest = reader.rest();
    if rest.len() as u64 != len || rest.len() > CONTENT_MAX {
        return Err(CodecError::Value { field: "length of content", value: len });
    }
    Ok(Some(Bytes::copy_from_slice(rest)))
}

fn put_changed(out: &mut Vec<u8>, changed: &Changed) {
    out.put_u16_le(changed.volume.index());
    out.put_u64_le(changed.start);
    out.put_u64_le(changed.end);
}

fn get_changed(reader: &mut Reader<'_>) -> Result<Changed, CodecError> {
    let volume = reader.volume("volume")?;
    let (start, end) = (reader.u64("start of a range")?, reader.u64("end of a range")?);
    if start >= end {
        return Err(CodecError::Value { field: "end of a range", value: end });
    }
    Ok(Changed { volume, start, end })
}

//! One block of a marker: a head that says what it is, where it belongs and who wrote it, a body,
//! and a checksum over both.
//!
//! Everything lies in the first 512 bytes: so much a disk writes at once, whatever its block. The
//! address in the head betrays a write that went elsewhere; the identity of the cluster, a marker
//! that is another's.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::layout::{BLOCK_LEN, BlockIndex};
use crate::checksum::crc32c;
use crate::codec::CodecError;
use crate::ids::{ClusterId, Incarnation, MemberId};

/// Bytes of a block that mean something.
pub const RECORD_LEN: usize = 512;
/// Most bytes of a body.
pub const BODY_LEN_MAX: usize = CRC_AT - HEAD_LEN;

const HEAD_LEN: usize = 64;
const CRC_AT: usize = RECORD_LEN - 4;
const MAGIC: [u8; 4] = *b"HMRK";
/// Version 1: the first.
const VERSION: u16 = 1;
/// A block that no member writes alone.
const NO_MEMBER: u8 = u8::MAX;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct HeadBytes {
    magic: [u8; 4],
    kind: U16,
    version: U16,
    cluster: [u8; 16],
    index: U64,
    member: u8,
    reserved: [u8; 3],
    body_len: U32,
    sequence: U64,
    incarnation: U64,
    nonce: U64,
}

const _: () = assert!(size_of::<HeadBytes>() == HEAD_LEN);

/// What a block is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// What the marker is.
    Header,
    /// The resource of a place, for people.
    Label,
    /// That a member lives.
    Lease,
    /// A member's part of a control record.
    Control,
}

impl Kind {
    const fn code(self) -> u16 {
        match self {
            Self::Header => 1,
            Self::Label => 2,
            Self::Lease => 3,
            Self::Control => 4,
        }
    }
}

/// Who wrote a block, and in which order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// What it is.
    pub kind: Kind,
    /// Whose marker it is on.
    pub cluster: ClusterId,
    /// Its only writer; none for what an operator's command writes.
    pub member: Option<MemberId>,
    /// Grows by one with each write of that writer to that record.
    pub sequence: u64,
    /// The writer's life.
    pub incarnation: Incarnation,
    /// Drawn at random for each life: two that share a number still differ.
    pub nonce: u64,
}

/// Why a block says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Void {
    /// Nothing was ever written there.
    #[error("it is blank")]
    Blank,
    /// Its first bytes are another program's.
    #[error("it holds something else than a mark")]
    Magic,
    /// It was written in part, or changed since.
    #[error("its checksum does not match")]
    Checksum,
    /// A version that this program does not read.
    #[error("its version is {found}, this program reads {VERSION}; install the later program")]
    Newer {
        /// The version in the head.
        found: u16,
    },
    /// It belongs to another cluster.
    #[error("it belongs to another cluster, {found}")]
    Foreign {
        /// Which.
        found: ClusterId,
    },
    /// It was meant for another place.
    #[error("it was written for block {meant}")]
    Misplaced {
        /// Where it belongs.
        meant: u64,
    },
    /// It is another kind of block.
    #[error("it is a block of kind {found}")]
    Kind {
        /// The code in its head.
        found: u16,
    },
    /// Another member wrote it.
    #[error("it says that writer {found} wrote it")]
    Writer {
        /// The index in its head; 255 is nobody.
        found: u8,
    },
    /// Its body cannot be read.
    #[error(transparent)]
    Body(#[from] CodecError),
}

/// A block as it is written.
#[derive(Clone, PartialEq, Eq)]
pub struct Block(Box<[u8; BLOCK_LEN]>);

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Block({})",
            hex::encode(self.0.first_chunk::<HEAD_LEN>().map_or(&[][..], |head| head))
        )
    }
}

impl Block {
    /// The block that stands at `index` with this head and body.
    ///
    /// # Panics
    /// If the body is longer than [`BODY_LEN_MAX`]: bodies of this crate have limits below it.
    #[must_use]
    pub fn seal(head: &Head, index: BlockIndex, body: &[u8]) -> Self {
        assert!(body.len() <= BODY_LEN_MAX, "a body of {} bytes is too long", body.len());
        let bytes = HeadBytes {
            magic: MAGIC,
            kind: U16::new(head.kind.code()),
            version: U16::new(VERSION),
            cluster: *head.cluster.as_bytes(),
            index: U64::new(index.get()),
            member: head.member.map_or(NO_MEMBER, MemberId::index),
            reserved: [0; 3],
            body_len: U32::new(u32::try_from(body.len()).unwrap_or(u32::MAX)),
            sequence: U64::new(head.sequence),
            incarnation: U64::new(head.incarnation.get()),
            nonce: U64::new(head.nonce),
        };
        let mut block = Box::new([0; BLOCK_LEN]);
        let (front, rest) = block.split_at_mut(HEAD_LEN);
        front.copy_from_slice(bytes.as_bytes());
        let room = rest.iter_mut().zip(body);
        room.for_each(|(to, from)| *to = *from);
        let (summed, rest) = block.split_at_mut(CRC_AT);
        let sum = crc32c(summed).to_le_bytes();
        rest.iter_mut().zip(sum).for_each(|(to, from)| *to = from);
        Self(block)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; BLOCK_LEN] {
        &self.0
    }
}

/// What was read at `index`, where it is whole, of this cluster, and what was looked for.
///
/// # Errors
/// [`Void`]
pub fn open(
    bytes: &[u8],
    (kind, cluster, index): (Kind, ClusterId, BlockIndex),
    member: Option<MemberId>,
) -> Result<(Head, &[u8]), Void> {
    let record = bytes.get(..RECORD_LEN).ok_or(CodecError::Short { field: "block" })?;
    let (summed, sum) = record.split_at(CRC_AT);
    let (found, rest) = HeadBytes::ref_from_prefix(summed).map_err(|_| Void::Magic)?;
    match found.magic {
        MAGIC => {}
        _ if record.iter().all(|byte| *byte == 0) => return Err(Void::Blank),
        _ => return Err(Void::Magic),
    }
    if crc32c(summed).to_le_bytes() != sum {
        return Err(Void::Checksum);
    }
    check_head(found, (kind, cluster, index), member)?;
    let body_len = usize::try_from(found.body_len.get()).unwrap_or(usize::MAX);
    let body = rest.get(..body_len).ok_or(CodecError::Short { field: "body" })?;
    let head = Head {
        kind,
        cluster,
        member,
        sequence: found.sequence.get(),
        incarnation: Incarnation::new(found.incarnation.get()),
        nonce: found.nonce.get(),
    };
    Ok((head, body))
}

/// Which member wrote a block, and in which of its lives, by the nonce; none where the block is not
/// whole, or no member's.
#[must_use]
pub fn life_of(bytes: &[u8]) -> Option<(u8, u64)> {
    let (summed, sum) = bytes.get(..RECORD_LEN)?.split_at(CRC_AT);
    let (found, _) = HeadBytes::ref_from_prefix(summed).ok()?;
    let is_whole = found.magic == MAGIC && crc32c(summed).to_le_bytes() == sum;
    (is_whole && found.member != NO_MEMBER).then(|| (found.member, found.nonce.get()))
}

fn check_head(
    found: &HeadBytes,
    (kind, cluster, index): (Kind, ClusterId, BlockIndex),
    member: Option<MemberId>,
) -> Result<(), Void> {
    let owner = ClusterId::from_bytes(found.cluster);
    match found.version.get() {
        VERSION => {}
        found => return Err(Void::Newer { found }),
    }
    if owner != cluster {
        return Err(Void::Foreign { found: owner });
    }
    if found.index.get() != index.get() {
        return Err(Void::Misplaced { meant: found.index.get() });
    }
    if found.kind.get() != kind.code() {
        return Err(Void::Kind { found: found.kind.get() });
    }
    if found.member != member.map_or(NO_MEMBER, MemberId::index) {
        return Err(Void::Writer { found: found.member });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cluster() -> ClusterId {
        ClusterId::derive("orders")
    }

    fn head() -> Head {
        Head {
            kind: Kind::Lease,
            cluster: cluster(),
            member: MemberId::new(1),
            sequence: 7,
            incarnation: Incarnation::new(3),
            nonce: 99,
        }
    }

    const AT: BlockIndex = BlockIndex::new(18);

    fn read(bytes: &[u8]) -> Result<(Head, &[u8]), Void> {
        open(bytes, (Kind::Lease, cluster(), AT), MemberId::new(1))
    }

    #[test]
    fn a_block_reads_back_where_it_was_written_and_nowhere_else() {
        let block = Block::seal(&head(), AT, b"body");
        assert_eq!(read(block.as_bytes()), Ok((head(), &b"body"[..])));
        let elsewhere = (Kind::Lease, cluster(), BlockIndex::new(19));
        let meant = open(block.as_bytes(), elsewhere, MemberId::new(1));
        assert_eq!(meant, Err(Void::Misplaced { meant: 18 }));
        let control = (Kind::Control, cluster(), AT);
        let found = open(block.as_bytes(), control, MemberId::new(1));
        assert_eq!(found, Err(Void::Kind { found: 3 }));
        let found = open(block.as_bytes(), (Kind::Lease, cluster(), AT), MemberId::new(0));
        assert_eq!(found, Err(Void::Writer { found: 1 }));
    }

    #[test]
    fn a_block_of_another_cluster_is_known_as_such() {
        let other = ClusterId::derive("stock");
        let block = Block::seal(&Head { cluster: other, ..head() }, AT, b"");
        assert_eq!(read(block.as_bytes()), Err(Void::Foreign { found: other }));
        assert_eq!(read(&[0; BLOCK_LEN]), Err(Void::Blank));
        assert_eq!(read(&[1; BLOCK_LEN]), Err(Void::Magic));
        assert_eq!(read(&[]), Err(Void::Body(CodecError::Short { field: "block" })));
    }

    #[test]
    fn the_life_that_wrote_a_block_is_told_of_whole_ones_of_members_only() {
        let block = Block::seal(&head(), AT, b"body");
        assert_eq!(life_of(block.as_bytes()), Some((1, 99)));
        let mut torn = *block.as_bytes();
        torn[HEAD_LEN] ^= 1;
        assert_eq!(life_of(&torn), None);
        let nobody = Block::seal(&Head { member: None, ..head() }, AT, b"body");
        assert_eq!(life_of(nobody.as_bytes()), None);
        assert_eq!(life_of(&[]), None);
    }

    #[test]
    fn a_write_that_is_torn_at_any_sector_or_word_is_no_block() {
        let (old, new) = (Block::seal(&head(), AT, &[1; 300]), Block::seal(&head(), AT, &[2; 300]));
        for at in (8..CRC_AT).step_by(4) {
            let mut torn = *old.as_bytes();
            torn[..at].copy_from_slice(&new.as_bytes()[..at]);
            let whole = torn == *old.as_bytes() || torn == *new.as_bytes();
            assert!(whole || read(&torn) == Err(Void::Checksum), "torn at {at}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = (read(&bytes), life_of(&bytes));
        }
    }
}

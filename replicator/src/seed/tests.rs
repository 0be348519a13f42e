//! A seed is read as it was written, and half a seed is none.

use std::io::Cursor;

use bytes::Bytes;
use hadrian_protocol::frame::LogPosition;
use hadrian_protocol::ids::{MemberId, ResourceId, VolumeIndex};
use hadrian_protocol::replica::{Base, Mode, ReplicaState, Role, VolumeGeometry};
use hadrian_protocol::resync::seed::Content;
use hadrian_protocol::resync::{LEAF, REGION};
use proptest::prelude::*;

use super::*;

fn volume(index: u16) -> VolumeIndex {
    VolumeIndex::new(index).unwrap()
}

fn header() -> Header {
    let volumes = vec![
        VolumeGeometry { size_bytes: REGION + 1536, block_size: 512 },
        VolumeGeometry { size_bytes: 64 << 20, block_size: 4096 },
    ];
    Header { resource: ResourceId::derive("orders", "db"), volumes }
}

fn state() -> ReplicaState {
    let Header { resource, volumes } = header();
    let member = MemberId::new(0).unwrap();
    let (role, mode, base) = (Role::Primary, Mode::Sync, Base::Digest([7; 32]));
    let state = ReplicaState::created(resource, member, role, mode, base, volumes);
    state.seeded_at(LogPosition::genesis(resource))
}

/// Bytes that shrink, bytes that do not, zeroes, and the short leaf at the end of a volume.
fn contents() -> Vec<Content> {
    let noise = (0..LEAF).scan(7_u64, |x, _| {
        *x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        Some((*x >> 33) as u8)
    });
    let noise: Vec<u8> = noise.collect();
    let content = |index, offset, data: Option<Vec<u8>>, len| Content {
        volume: volume(index),
        offset,
        len,
        data: data.map(Bytes::from),
    };
    vec![
        content(0, 0, Some(vec![9; 4 * LEAF as usize]), 4 * LEAF),
        content(1, 3 * LEAF, Some(noise), LEAF),
        content(1, 0, None, 64 << 20),
        content(0, REGION, Some(vec![5; 1536]), 1536),
    ]
}

fn seed() -> Vec<u8> {
    let mut writer = SeedWriter::begin(Vec::new(), &header()).unwrap();
    contents().iter().for_each(|content| writer.add(content).unwrap());
    let (out, len) = writer.finish(&state()).unwrap();
    assert_eq!(out.len() as u64, len);
    out
}

fn read_all(bytes: &[u8]) -> Result<(Vec<Content>, ReplicaState), SeedError> {
    let mut reader = SeedReader::open(Cursor::new(bytes))?;
    let mut all = Vec::new();
    while let Some(Piece { volume, offset, len, data }) = reader.next_piece()? {
        all.push(Content { volume, offset, len, data: data.map(Bytes::copy_from_slice) });
    }
    assert_eq!(reader.at(), bytes.len() as u64);
    Ok((all, reader.state().unwrap().clone()))
}

#[test]
fn a_seed_reads_back_as_it_was_written() {
    let (found, end) = read_all(&seed()).unwrap();
    assert_eq!((found, end), (contents(), state()));
}

#[test]
fn what_repeats_itself_is_stored_in_few_bytes() {
    assert!(seed().len() < HEADER_LEN + LEAF as usize + 2048, "{}", seed().len());
}

#[test]
fn a_seed_that_is_cut_off_anywhere_is_none() {
    let bytes = seed();
    for len in (0..bytes.len()).step_by(61).chain(bytes.len() - 40..bytes.len()) {
        let error = read_all(&bytes[..len]).unwrap_err();
        let fits = match len {
            0..HEADER_LEN => matches!(error, SeedError::Magic),
            _ => matches!(error, SeedError::CutOff { .. }),
        };
        assert!(fits, "cut to {len} bytes: {error}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(read_all(&longer), Err(SeedError::Damaged { .. })));
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let bytes = seed();
    for at in (0..bytes.len()).step_by(37).chain(bytes.len() - 64..bytes.len()) {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(read_all(&changed).is_err(), "byte {at}");
    }
}

#[test]
fn records_that_were_taken_out_or_swapped_are_missed() {
    let bytes = seed();
    let mut writer = SeedWriter::begin(Vec::new(), &header()).unwrap();
    writer.add(&contents()[0]).unwrap();
    let first = writer.written() as usize;
    let without = [&bytes[..HEADER_LEN], &bytes[first..]].concat();
    assert!(matches!(read_all(&without), Err(SeedError::Damaged { .. })));
}

#[test]
fn other_files_and_later_versions_are_told_by_their_names() {
    let other = vec![0; 10_000];
    assert!(matches!(read_all(&other), Err(SeedError::Magic)));
    let mut later = seed();
    later[8] = 2;
    let crc = hadrian_protocol::checksum::crc32c(&later[..HEADER_LEN - 4]).to_le_bytes();
    later[HEADER_LEN - 4..HEADER_LEN].copy_from_slice(&crc);
    assert!(matches!(read_all(&later), Err(SeedError::Newer { found: 2 })));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(
        at in HEADER_LEN..5000_usize,
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut seed = seed();
        let at = at.min(seed.len());
        let end = (at + bytes.len()).min(seed.len());
        seed[at..end].copy_from_slice(&bytes[..end - at]);
        let _ = read_all(&seed);
    }
}

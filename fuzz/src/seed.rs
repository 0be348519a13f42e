//! A seed that somebody brings: any bytes, read to their end.
//!
//! Input: one byte of how, and the file. With how & 1 the header is right; with how & 2 the
//! checksum of the first record is, and with how & 4 that record is the end of a whole file.

use std::io::Cursor;

use hadrian_protocol::checksum::{crc32c, crc32c_of_two};
use hadrian_protocol::frame::LogPosition;
use hadrian_protocol::ids::{MemberId, ResourceId};
use hadrian_protocol::replica::{Base, Mode, ReplicaState, Role, VolumeGeometry};
use hadrian_replicator::seed::{HEADER_LEN, Header, Piece, SeedReader, SeedWriter};

use crate::mend::{put, u32_at};

/// Length of the head of a record, and where it says how much follows.
const HEAD_LEN: usize = 32;
const STORED: usize = 20;

/// Reads `input` as a seed.
///
/// # Panics
/// If a property breaks.
pub fn run(input: &[u8]) {
    let [how, rest @ ..] = input else { return };
    let mut file = rest.to_vec();
    if how & 1 != 0 && file.len() >= HEADER_LEN {
        file[..HEADER_LEN].copy_from_slice(&whole()[..HEADER_LEN]);
    } else if file.len() >= HEADER_LEN {
        let crc = crc32c(&file[..HEADER_LEN - 4]).to_le_bytes();
        put(&mut file, HEADER_LEN - 4, &crc);
    }
    mend_first(&mut file, *how);
    let Ok(mut reader) = SeedReader::open(Cursor::new(&file)) else { return };
    let volumes = reader.header().volumes.clone();
    loop {
        match reader.next_piece() {
            Ok(Some(Piece { volume, offset, len, data })) => {
                let size = volumes.get(usize::from(volume.index())).map(|of| of.size_bytes);
                let end = offset.checked_add(len);
                assert!(len > 0 && end <= size, "a piece lies in its volume");
                assert!(data.is_none_or(|data| data.len() as u64 == len), "a piece is whole");
            }
            Ok(None) => break,
            Err(_) => {
                assert!(reader.state().is_none(), "what is not whole has no end");
                return;
            }
        }
    }
    assert_eq!(reader.at(), file.len() as u64, "nothing follows on the end");
    let state = reader.state().expect("what is whole has an end");
    assert_eq!(state.volumes, volumes, "one word for the volumes");
}

/// Gives the first record the checksum that fits, and an end the digest behind it.
fn mend_first(file: &mut Vec<u8>, how: u8) {
    let Some(record) = file.get(HEADER_LEN..).filter(|record| record.len() >= HEAD_LEN) else {
        return;
    };
    if how & 2 == 0 {
        return;
    }
    let stored = (u32_at(record, STORED) as usize).min(record.len() - HEAD_LEN);
    let (head, content) = record.split_at(HEAD_LEN);
    let crc = crc32c_of_two(&head[..HEAD_LEN - 4], &content[..stored]).to_le_bytes();
    put(file, HEADER_LEN + HEAD_LEN - 4, &crc);
    if how & 4 != 0 {
        file.truncate(HEADER_LEN + HEAD_LEN + stored);
        let digest = blake3::hash(file);
        file.extend(digest.as_bytes());
    }
}

/// A seed in order, of a small volume.
pub(crate) fn whole() -> Vec<u8> {
    let resource = ResourceId::from_bytes([3; 16]);
    let volumes = vec![VolumeGeometry { size_bytes: 40_960, block_size: 512 }];
    let header = Header { resource, volumes: volumes.clone() };
    let member = MemberId::new(0).expect("there is a first member");
    let (role, mode) = (Role::Standby, Mode::Nearsync);
    let state = ReplicaState::created(resource, member, role, mode, Base::Zero, volumes);
    let mut writer = SeedWriter::begin(Vec::new(), &header).expect("memory can be written");
    let volume = hadrian_protocol::ids::VolumeIndex::new(0).expect("there is a first volume");
    for (offset, len, byte) in [(0, 16_384_u64, Some(7)), (16_384, 24_576, None)] {
        let data = byte.map(|byte| vec![byte; len as usize].into());
        let content = hadrian_protocol::resync::seed::Content { volume, offset, len, data };
        writer.add(&content).expect("memory can be written");
    }
    let state = state.seeded_at(LogPosition::genesis(resource));
    writer.finish(&state).expect("memory can be written").0
}

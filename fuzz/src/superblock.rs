//! The superblock's file, and the state of a replica in it.
//!
//! Input: one byte of how, the length of the first copy (two bytes), both copies without the
//! zeroes behind them. With how & 1 checksums are computed, with how & 4 the resource is ours.
//! With how & 2 everything behind the first byte is the state of a replica instead.

use std::path::Path;

use hadrian_blockdev::engine::Engine as _;
use hadrian_blockdev::engine::TokenSpace;
use hadrian_blockdev::engine::double::{Double, Order, Unsynced};
use hadrian_blockdev::superblock::{
    self, COPY_LEN, Copy, FILE_NAME, Opened, SuperblockError, SuperblockWriter, Whose,
};
use hadrian_protocol::replica::ReplicaState;

use crate::memory::within;
use crate::mend;

/// What reading a state may hold; the longest body is 16 KiB.
const HELD_MAX: usize = 32 << 10;
const DIR: &str = "/replica";
const NEXT_BODY: &[u8] = b"written after the damage";

/// Opens `input` as a superblock, or reads it as a state.
///
/// # Panics
/// If a property breaks.
pub fn run(input: &[u8]) {
    let Some((how, bytes)) = input.split_first() else { return };
    if how & 2 != 0 {
        return check_state(bytes);
    }
    let Some((first_len, rest)) = bytes.split_first_chunk() else { return };
    let first_len = usize::from(u16::from_le_bytes(*first_len)).min(rest.len());
    let (first, second) = rest.split_at(first_len);
    let mut file = Vec::with_capacity(2 * COPY_LEN);
    for copy in [first, second] {
        let mut copy = copy.to_vec();
        copy.resize(COPY_LEN, 0);
        if how & 4 != 0 {
            mend::put(&mut copy, 24, mend::resource().as_bytes());
            mend::put(&mut copy, 124, &mend::label_bytes());
        }
        if how & 1 != 0 {
            mend::seal_superblock(&mut copy);
        }
        file.extend(copy);
    }
    superblock::fuzz(&file);
    check_file(&file, u64::from(how >> 4) + 1);
}

fn check_state(bytes: &[u8]) {
    if let Ok(state) = within(HELD_MAX, || ReplicaState::decode(bytes)) {
        assert_eq!(state.encode(), bytes, "a state has one spelling");
        assert_eq!(ReplicaState::decode(&state.encode()), Ok(state));
    }
}

/// Opens the file, writes once with a power loss at its `cut`-th operation, and opens it again.
fn check_file(file: &[u8], cut: u64) {
    let mut disk = Double::new(cut, Order::AsSubmitted, Unsynced::Mixed);
    disk.create_dir(Path::new(DIR)).expect("an empty disk takes a directory");
    let path = Path::new(DIR).join(FILE_NAME);
    disk.put_file(&path, file.len());
    disk.tamper(&path, |bytes| bytes.copy_from_slice(file));
    let copies = superblock::inspect(&mut disk, Path::new(DIR)).expect("the file is there");
    let Ok(Opened { mut writer, body, sequence, .. }) = open(&mut disk) else { return };
    let newest = copies.iter().flatten().max_by_key(|copy| copy.sequence);
    let Some(Copy { body: newest, .. }) = newest.filter(|copy| copy.sequence == sequence) else {
        panic!("{sequence} was opened, {newest:?} is the newest")
    };
    assert!(copies.iter().flatten().any(|copy| copy.body == body) && newest.len() <= COPY_LEN);
    check_state(&body);
    disk.cut_power_at(cut);
    let begun = writer.write(&mut disk, NEXT_BODY).expect("a short body fits");
    assert_eq!(begun, sequence + 1);
    settle(&mut disk, &mut writer);
    disk.power_on();
    let again = open(&mut disk).expect("a power loss never takes both copies");
    let kept = [(sequence, &body[..]), (begun, NEXT_BODY)];
    assert!(kept.contains(&(again.sequence, &again.body[..])));
}

fn open(disk: &mut Double) -> Result<Opened, SuperblockError> {
    let whose = Whose { resource: mend::resource(), label: mend::label() };
    SuperblockWriter::open(disk, Path::new(DIR), &whose, TokenSpace::new(1))
}

fn settle(disk: &mut Double, writer: &mut SuperblockWriter) {
    let mut done = Vec::new();
    while disk.in_flight() > 0 && disk.wait().is_ok() {
        disk.reap(&mut done);
        for completion in done.drain(..) {
            let _ = writer.complete(disk, completion);
        }
    }
}

//! What an NBD client says before it has chosen an export.
//!
//! Input: one byte of how, then what the client sends. With how & 1 it is a list of options, each
//! of one byte for the option, two for the length and its data; magic and flags are put in front.
//! The rest of how is the size of the pieces in which it arrives a second time.

use std::rc::Rc;

use hadrian_blockdev::export::Close;
use hadrian_blockdev::export::MemoryBackend;
use hadrian_blockdev::nbd::proto::{
    EXPORT_NAME_ZEROES, MAGIC_OPTION, MAGIC_OPTION_REPLY, OPTION_HEADER_LEN, Reader,
    STRING_LEN_MAX, option, option_reply,
};
use hadrian_blockdev::nbd::{Export, Exports, Negotiation, Next, OPTION_DATA_LEN_MAX};

use crate::memory::within;

const OPTION_COUNT_MAX: u32 = 8;
/// What one step may hold beside its input: a few strings of the longest kind, and a list of
/// queries, which take four bytes of the option each.
const HELD_MAX: usize = 16 * STRING_LEN_MAX + 8 * OPTION_DATA_LEN_MAX;

/// Negotiates with a client that sends `input`.
///
/// # Panics
/// If a property breaks.
pub fn run(input: &[u8]) {
    let Some((how, bytes)) = input.split_first() else { return };
    let stream = if how & 1 != 0 { options(bytes) } else { bytes.to_vec() };
    let exports = exports();
    let whole = negotiate(&exports, &stream, stream.len().max(1));
    let pieces = negotiate(&exports, &stream, usize::from(how >> 1) + 1);
    assert_eq!(whole, pieces, "how the bytes arrive makes no difference");
}

/// An export in service, one that ends, and one whose texts are too long for the protocol.
fn exports() -> Exports {
    let export = || Export::new(Rc::new(MemoryBackend::new(65536)));
    let ending = export();
    ending.close_handle().close(Close::Drain);
    let mut exports = Exports::new();
    exports.insert("db/data", export());
    exports.insert("ending", ending);
    exports.insert("x".repeat(STRING_LEN_MAX + 1), export());
    exports
}

fn options(mut bytes: &[u8]) -> Vec<u8> {
    let mut stream = vec![0, 0, 0, 3];
    while let Some(([option, high, low], rest)) = bytes.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (data, rest) = rest.split_at(len);
        stream.extend(MAGIC_OPTION.to_be_bytes());
        stream.extend([0, 0, 0, *option]);
        stream.extend((len as u32).to_be_bytes());
        stream.extend(data);
        bytes = rest;
    }
    stream
}

/// What the client gets to see: every answer, and how it ended.
fn negotiate(exports: &Exports, stream: &[u8], piece_len: usize) -> (Vec<u8>, String) {
    let mut negotiation = Negotiation::new(OPTION_COUNT_MAX);
    let (mut pending, mut answers) = (Vec::new(), Vec::new());
    let mut pieces = stream.chunks(piece_len);
    let mut steps = 0;
    loop {
        let mut output = Vec::new();
        let step = within(HELD_MAX, || negotiation.step(exports, &pending, &mut output));
        let Ok(step) = step else { return (answers, format!("{step:?}")) };
        if steps > 0 {
            check_answer(&pending, &output, &step.next);
        }
        pending.drain(..step.consumed);
        answers.extend(output);
        match step.next {
            Next::NeedMore => {
                assert_eq!(step.consumed, 0);
                assert!(
                    pending.len() < OPTION_HEADER_LEN + OPTION_DATA_LEN_MAX,
                    "it waits forever"
                );
                let Some(piece) = pieces.next() else { return (answers, "waits".into()) };
                pending.extend_from_slice(piece);
            }
            Next::Continue => {
                assert!(step.consumed > 0, "it goes on without having moved");
                steps += 1;
                assert!(steps <= OPTION_COUNT_MAX + 1, "over the limit of options");
            }
            Next::Abort | Next::Transmit(_) => return (answers, format!("{:?}", step.next)),
        }
    }
}

/// An answer is whole replies to the option, of which the last alone says that it is the last.
fn check_answer(input: &[u8], output: &[u8], next: &Next) {
    let asked = Reader::new(input.get(8..).unwrap_or_default()).u32();
    if asked == Some(option::EXPORT_NAME) && matches!(next, Next::Transmit(_)) {
        let len = output.len();
        return assert!(len == 10 || len == 10 + EXPORT_NAME_ZEROES, "{len} bytes");
    }
    let mut reader = Reader::new(output);
    let mut last = None;
    while !reader.is_empty() {
        assert!(!last.is_some_and(is_last), "a reply behind the last");
        assert_eq!(reader.u64(), Some(MAGIC_OPTION_REPLY));
        assert_eq!(reader.u32(), asked);
        last = reader.u32();
        let len = reader.u32().expect("a reply has a length") as usize;
        assert!(len <= 2 * STRING_LEN_MAX + 16, "a reply of {len} bytes");
        assert!(reader.bytes(len).is_some(), "a reply is whole");
    }
    match next {
        Next::Transmit(_) => assert_eq!(last, Some(option_reply::ACK)),
        Next::Continue => assert!(last.is_some_and(is_last)),

        Next::NeedMore => assert_eq!(last, None),
        Next::Abort => {}
    }
}

/// Whether a reply of this type is the last to its option.
fn is_last(kind: u32) -> bool {
    kind == option_reply::ACK || kind & 1 << 31 != 0
}

//! The overlay says of every byte what a plain array of bytes would say.

use proptest::prelude::*;

use super::*;

const SIZE: u64 = 64;

fn range(start: u64, len: u64) -> ByteRange {
    ByteRange::new(start, len).unwrap()
}

fn data(byte: u8, len: u64) -> Content {
    Content::Data(Bytes::from(vec![byte; usize::try_from(len).unwrap()]))
}

fn pieces(overlay: &Overlay, range: ByteRange) -> Vec<(u64, u64, Piece)> {
    overlay.lookup(range).map(|(at, piece)| (at.start(), at.end(), piece)).collect()
}

fn memory(byte: u8, len: usize) -> Piece {
    Piece::Memory(Bytes::from(vec![byte; len]))
}

#[test]
fn an_empty_overlay_sends_every_read_to_the_store() {
    let overlay = Overlay::new();
    assert_eq!(
        pieces(&overlay, range(8, 16)),
        [(8, 24, Piece::Store)],
        "one piece, not one per block"
    );
    assert!(overlay.is_empty());
}

#[test]
fn a_newer_write_splits_an_older_one_and_both_ends_stay() {
    let mut overlay = Overlay::new();
    overlay.insert(range(0, 12), data(1, 12), Lsn::new(10));
    overlay.insert(range(4, 4), Content::Zero, Lsn::new(20));
    assert_eq!(
        pieces(&overlay, range(2, 14)),
        [(2, 4, memory(1, 2)), (4, 8, Piece::Zero), (8, 12, memory(1, 4)), (12, 16, Piece::Store),]
    );
    assert_eq!((overlay.payload_bytes(), overlay.entry_count()), (8, 3));
}

#[test]
fn an_applied_frame_takes_away_only_what_no_newer_frame_has_written() {
    let mut overlay = Overlay::new();
    overlay.insert(range(0, 12), data(1, 12), Lsn::new(10));
    overlay.insert(range(4, 4), data(2, 4), Lsn::new(20));
    overlay.remove_applied(range(0, 12), Lsn::new(10));
    assert_eq!(
        pieces(&overlay, range(0, 12)),
        [(0, 4, Piece::Store), (4, 8, memory(2, 4)), (8, 12, Piece::Store),]
    );
    overlay.remove_applied(range(4, 4), Lsn::new(20));
    assert!(overlay.is_empty());
    assert_eq!(overlay.payload_bytes(), 0);
}

#[test]
fn a_range_at_the_end_of_the_number_space_is_like_any_other() {
    let mut overlay = Overlay::new();
    let last = range(u64::MAX - 8, 8);
    overlay.insert(last, data(3, 8), Lsn::new(1));
    assert_eq!(
        pieces(&overlay, range(u64::MAX - 16, 16)),
        [(u64::MAX - 16, u64::MAX - 8, Piece::Store), (u64::MAX - 8, u64::MAX, memory(3, 8)),]
    );
}

/// A byte of the model: who wrote it and what.
type Cell = Option<(u64, Option<u8>)>;

#[derive(Clone, Debug)]
enum Step {
    Insert { start: u64, len: u64, zero: bool },
    Remove { start: u64, len: u64, lsn_back: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let span = (0..SIZE).prop_flat_map(|start| (Just(start), 1..=SIZE - start));
    prop_oneof![
        (span.clone(), any::<bool>()).prop_map(|((start, len), zero)| Step::Insert {
            start,
            len,
            zero
        }),
        (span, 0..4u64).prop_map(|((start, len), lsn_back)| Step::Remove { start, len, lsn_back }),
    ]
}

fn apply(step: &Step, turn: u64, overlay: &mut Overlay, model: &mut [Cell]) {
    match *step {
        Step::Insert { start, len, zero } => {
            // Bytes that count up show a slice taken from the wrong place.
            let payload: Vec<u8> =
                (0..len).map(|at| u8::try_from((turn * 7 + at) % 251).unwrap()).collect();
            for (at, byte) in (start..start + len).zip(&payload) {
                model[index(at)] = Some((turn, (!zero).then_some(*byte)));
            }
            let content = if zero { Content::Zero } else { Content::Data(Bytes::from(payload)) };
            overlay.insert(range(start, len), content, Lsn::new(turn));
        }
        Step::Remove { start, len, lsn_back } => {
            let lsn = turn.saturating_sub(lsn_back);
            for cell in &mut model[index(start)..index(start + len)] {
                if cell.is_some_and(|(of, _)| of == lsn) {
                    *cell = None;
                }
            }
            overlay.remove_applied(range(start, len), Lsn::new(lsn));
        }
    }
}

fn check(overlay: &Overlay, model: &[Cell], seen: ByteRange) {
    let mut at = seen.start();
    for (piece_range, piece) in overlay.lookup(seen) {
        assert_eq!(piece_range.start(), at, "pieces have no gaps");
        for offset in 0..piece_range.len() {
            let cell = model[index(at + offset)];
            match &piece {
                Piece::Log(..) => unreachable!("nothing was left in the log"),
                Piece::Store => assert_eq!(cell, None),
                Piece::Zero => assert!(matches!(cell, Some((_, None)))),
                Piece::Memory(bytes) => {
                    let byte = bytes[index(offset)];
                    assert!(matches!(cell, Some((_, Some(b))) if b == byte));
                }
            }
        }
        at = piece_range.end();
    }
    assert_eq!(at, seen.end());
}

proptest! {
    #[test]
    fn every_byte_reads_as_the_newest_write_that_is_not_applied(
        steps in prop::collection::vec(step(), 1..60),
        (start, len) in (0..SIZE).prop_flat_map(|start| (Just(start), 1..=SIZE - start)),
    ) {
        let mut overlay = Overlay::new();
        let mut model = vec![None; index(SIZE)];
        for (turn, step) in (1..).zip(&steps) {
            apply(step, turn, &mut overlay, &mut model);
            check(&overlay, &model, range(start, len));
        }
        check(&overlay, &model, range(0, SIZE));
        let bytes = model.iter().filter(|cell| matches!(cell, Some((_, Some(_))))).count();
        prop_assert_eq!(overlay.payload_bytes(), bytes as u64);
    }
}

#[test]
fn what_is_left_of_a_change_keeps_its_place_in_the_log() {
    let mut overlay = Overlay::new();
    let old = Content::Data(Bytes::from(vec![1; 100]));
    overlay.insert(range(100, 100), old, Lsn::new(1));
    overlay.insert(range(90, 40), Content::Data(Bytes::from(vec![2; 40])), Lsn::new(2));
    let spot = Spot { file: crate::engine::FileId(3), offset: 4096 };
    overlay.leave(range(100, 100), spot, Lsn::new(1));
    let pieces: Vec<_> = overlay.lookup(range(140, 10)).collect();
    let at = Spot { offset: 4096 + 40, ..spot };
    assert_eq!(pieces, [(range(140, 10), Piece::Log(at, Lsn::new(1)))]);
    assert!(matches!(overlay.lookup(range(100, 10)).next(), Some((_, Piece::Memory(_)))));
    assert_eq!(overlay.payload_bytes(), 40);
}

#[test]
fn a_change_is_covered_by_later_ones_that_are_allowed_and_leave_no_gap() {
    let mut overlay = Overlay::new();
    let data = |len| Content::Data(Bytes::from(vec![1; len]));
    overlay.insert(range(0, 100), data(100), Lsn::new(1));
    overlay.insert(range(0, 60), data(60), Lsn::new(2));
    assert!(!overlay.is_covered(range(0, 100), Lsn::new(1), Lsn::new(9)), "its end is its own");
    overlay.insert(range(60, 40), Content::Zero, Lsn::new(3));
    assert!(overlay.is_covered(range(0, 100), Lsn::new(1), Lsn::new(3)));
    assert!(!overlay.is_covered(range(0, 100), Lsn::new(1), Lsn::new(2)), "one may be taken back");
    assert!(!overlay.is_covered(range(0, 101), Lsn::new(1), Lsn::new(3)), "behind it is nothing");
}

//! The files say what they stand for, and a difference says what to do.

use proptest::prelude::*;

use super::*;

#[test]
fn zeroes_are_left_out_and_come_back() {
    let mut bytes = vec![0; 200];
    bytes[0] = 1;
    bytes[170] = 2;
    let text = render(&bytes);
    assert_eq!(text.lines().count(), 5, "{text}");
    assert_eq!(parse(&text), Ok(bytes));
}

#[test]
fn a_text_that_was_cut_or_shifted_is_refused() {
    let text = render(&[7; 100]);
    let cut: String = text.lines().take(3).map(|line| format!("{line}\n")).collect();
    assert_eq!(parse(&cut), Err(DumpError::NoLength));
    assert!(matches!(parse(&text.replace("00000020", "00000030")), Err(DumpError::Offset { .. })));
    assert!(matches!(parse("00000000  zz\n"), Err(DumpError::Digits { line: 1 })));
    assert!(matches!(parse("*\nffffffff\n"), Err(DumpError::Offset { .. })));
}

#[test]
fn a_difference_names_the_byte_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let golden = Golden { dir: dir.path().into() };
    golden.write("sample", b"abcdefgh");
    assert_eq!(golden.read("sample"), b"abcdefgh");
    let at = first_difference(b"abcdefgh", b"abcdXfgh");
    assert_eq!(at, Some(4));
    let advice = golden.advice("sample", b"abcdefgh", b"abcdXfgh", 4);
    assert!(advice.contains("0x4") && advice.contains("new version number"), "{advice}");
    assert_eq!(first_difference(b"ab", b"abc"), Some(2));
}

#[test]
#[should_panic(expected = "golden files are committed")]
fn a_missing_file_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let golden = Golden { dir: dir.path().into() };
    let _ = golden.read("sample");
}

proptest! {
    #[test]
    fn every_content_comes_back(bytes in proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..300)) {
        prop_assert_eq!(parse(&render(&bytes)), Ok(bytes));
    }
}

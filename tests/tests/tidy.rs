//! House rules that no compiler knows: lengths of files, where `unsafe` may be, what the core may
//! not touch, words that are no work. `clippy.toml` and the lints of the workspace hold the rest.

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;
const LINE_CHARS_MAX: usize = 100;
/// The only places with code that the compiler cannot check.
const UNSAFE_IN: [&str; 8] = [
    "blockdev/src/buffer.rs",
    "blockdev/src/buffer/slab.rs",
    "blockdev/src/engine/uring.rs",
    "blockdev/src/ublk/commands.rs",
    "blockdev/src/ublk/control.rs",
    "blockdev/src/ublk/descriptors.rs",
    "fencing/src/watchdog/device.rs",
    "replicator/src/driver/ready.rs",
];
/// What would make the core anything but events in, actions out.
const NOT_IN_THE_CORE: [&str; 10] = [
    "HashMap",
    "HashSet",
    "Instant",
    "SystemTime",
    "std::fs",
    "std::net",
    "std::thread",
    "async fn",
    "tokio",
    "rand::",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every source file of the project, with its path from the top.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let folders = ["protocol", "fencing", "blockdev", "replicator", "fuzz", "benches", "tests"];
    for folder in folders {
        collect(&root().join(folder), &mut found);
    }
    assert!(found.len() > 100, "only {} sources were found", found.len());
    found
}

fn collect(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" {
            collect(&path, found);
        } else if name.ends_with(".rs") {
            let place = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            found.push((place, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Lines of code, without comments and without this file, which names what it looks for.
fn code_lines(sources: &[(String, String)]) -> impl Iterator<Item = (&str, usize, &str)> {
    let others = sources.iter().filter(|(place, _)| place != "tests/tests/tidy.rs");
    others.flat_map(|(place, text)| {
        let lines = text.lines().enumerate();
        let code = lines.map(|(at, line)| (at, line.split("//").next().unwrap_or_default()));
        code.map(|(at, line)| (place.as_str(), at + 1, line))
    })
}

/// Where any of `words` stands in the code of the places that `counts` picks.
fn found(words: &[&str], counts: impl Fn(&str) -> bool) -> Vec<String> {
    let sources = sources();
    let hit = |line: &str| words.iter().any(|word| line.contains(word));
    code_lines(&sources)
        .filter(|(place, _, line)| counts(place) && hit(line))
        .map(|(place, at, line)| format!("{place}:{at}: {}", line.trim()))
        .collect()
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    let long = |(_, text): &&(String, String)| text.lines().count() > FILE_LINES_MAX;
    let sources = sources();
    let long: Vec<_> = sources.iter().filter(long).map(|(place, _)| place).collect();
    assert!(long.is_empty(), "over {FILE_LINES_MAX} lines, split them: {long:?}");
}

#[test]
fn no_line_runs_over_the_page() {
    let sources = sources();
    let wide: Vec<_> = sources
        .iter()
        .flat_map(|(place, text)| {
            let lines = text.lines().enumerate();
            let wide = lines.filter(|(_, line)| line.chars().count() > LINE_CHARS_MAX);
            wide.map(move |(at, _)| format!("{place}:{}", at + 1))
        })
        .collect();
    assert!(wide.is_empty(), "over {LINE_CHARS_MAX} characters: {wide:#?}");
}

#[test]
fn unsafe_code_is_where_it_may_be_and_nowhere_else() {
    let allowed = |place: &str| UNSAFE_IN.contains(&place);
    let elsewhere = found(&["unsafe {", "unsafe impl", "unsafe fn"], |place| !allowed(place));
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
    for place in UNSAFE_IN {
        assert!(root().join(place).exists(), "{place} is gone; take it off the list");
    }
}

#[test]
fn the_core_has_no_clock_no_files_no_sockets_and_no_order_by_chance() {
    let core = |place: &str| place.starts_with("protocol/src");
    let impure = found(&NOT_IN_THE_CORE, core);
    assert!(impure.is_empty(), "{impure:#?}");
    let manifest = fs::read_to_string(root().join("protocol/Cargo.toml")).unwrap();
    let (_, dependencies) = manifest.split_once("[dependencies]").unwrap();
    let dependencies = dependencies.split("\n[").next().unwrap_or_default();
    for foreign in ["tokio", "rand", "libc", "rustix", "io-uring"] {
        assert!(!dependencies.contains(foreign), "the core depends on {foreign}");
    }
}

#[test]
fn nothing_is_left_for_later_without_a_place() {
    let words = ["todo!", "unimplemented!", "dbg!("];
    let left = found(&words, |_| true);
    assert!(left.is_empty(), "{left:#?}");
    let marks = ["TODO", "FIXME", "XXX"];
    let sources = sources();
    let others = sources.iter().filter(|(place, _)| place != "tests/tests/tidy.rs");
    let marked: Vec<_> = others
        .filter(|(_, text)| marks.iter().any(|mark| text.contains(mark)))
        .map(|(place, _)| place)
        .collect();
    assert!(marked.is_empty(), "{marked:?}");
}

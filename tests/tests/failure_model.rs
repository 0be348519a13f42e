//! `docs/failure-model.md` stays true: the picture is that of the code, every test that it names
//! exists, and its timers have the defaults of `docs/configuration.md`.
//!
//! `HADRIAN_BLESS=1` draws the picture anew.

use std::fs;
use std::path::{Path, PathBuf};

use hadrian_protocol::node::picture;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn document() -> (PathBuf, String) {
    let path = root().join("docs/failure-model.md");
    let text = fs::read_to_string(&path).unwrap();
    (path, text)
}

/// What is set as code in a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn sources(folder: &Path, into: &mut String) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            into.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn the_picture_is_drawn_from_the_tables_of_the_code() {
    let (path, text) = document();
    let (before, rest) = text.split_once("```mermaid\n").unwrap();
    let (drawn, after) = rest.split_once("```").unwrap();
    if std::env::var_os("HADRIAN_BLESS").is_some() {
        fs::write(&path, format!("{before}```mermaid\n{}```{after}", picture())).unwrap();
        return;
    }
    assert_eq!(drawn, picture(), "HADRIAN_BLESS=1 draws it anew");
}

#[test]
fn every_test_that_is_named_exists() {
    let mut all = String::new();
    ["protocol/src", "tests/tests", "tests/sim/tests"]
        .iter()
        .for_each(|folder| sources(&root().join(folder), &mut all));
    let (_, text) = document();
    let rows =
        text.lines().filter(|line| line.starts_with("| ") && line.matches(" | ").count() > 1);
    let mut named = 0;
    for row in rows {
        let shown_by = row.rsplit(" | ").next().unwrap_or_default();
        for test in quoted(shown_by).filter(|name| name.matches('_').count() > 3) {
            assert!(all.contains(&format!("fn {test}()")), "there is no test {test}");
            named += 1;
        }
    }
    assert!(named > 50, "the rows name tests: {named}");
}

#[test]
fn the_timers_have_the_defaults_of_the_configuration() {
    let keys = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let (_, text) = document();
    let (_, timers) = text.split_once("## Timers").unwrap();
    let rows = timers.lines().filter(|line| line.contains('.') && line.starts_with("| `"));
    let mut seen = 0;
    for row in rows.filter(|row| !row.starts_with("| `--")) {
        let mut words = quoted(row);
        let (key, default) = (words.next().unwrap(), words.next().unwrap());
        let same = format!("| `{key}` | `{default}` |");
        assert!(keys.contains(&same), "the configuration has another default for {key}");
        seen += 1;
    }
    assert!(seen > 5, "timers are listed: {seen}");
}

//! `docs/failure-model.md` and `docs/scenarios.md` stay true: the picture is that of the code,
//! every row names tests and these exist, and timers have the defaults of `docs/configuration.md`
//! or the values of the code.
//!
//! `HADRIAN_BLESS=1` draws the picture anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hadrian_protocol::node::{CONGESTED_AFTER, Limits, NodeConfig, picture};
use hadrian_protocol::replica::Mode;
use hadrian_replicator::{control, daemon};

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

/// Every row of the tables whose last column names the tests, and how many tests that is.
fn rows_shown_by_tests(text: &str) -> Vec<(&str, usize)> {
    let all = all_tests();
    let mut rows = Vec::new();
    let mut counts = false;
    for line in text.lines() {
        if !line.starts_with('|') {
            counts = false;
        } else if line.ends_with("| shown by |") {
            counts = true;
        } else if counts && !line.starts_with("|---") {
            let shown_by = line.trim_end_matches('|').rsplit(" | ").next().unwrap_or_default();
            for test in quoted(shown_by) {
                assert!(all.contains(&format!("fn {test}()")), "there is no test {test}");
            }
            rows.push((line, quoted(shown_by).count()));
        }
    }
    rows
}

fn all_tests() -> String {
    let folders = [
        "protocol/src",
        "fencing/src",
        "blockdev/src",
        "replicator/src",
        "replicator/tests",
        "tests/tests",
        "tests/sim/tests",
    ];
    let mut all = String::new();
    folders.iter().for_each(|folder| sources(&root().join(folder), &mut all));
    all
}

#[test]
fn every_row_names_tests_and_every_test_that_is_named_exists() {
    for (document, least) in [("docs/failure-model.md", 50), ("docs/scenarios.md", 60)] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        let rows = rows_shown_by_tests(&text);
        assert!(rows.len() >= least, "{document} has {} rows", rows.len());
        for (row, tests) in rows {
            assert!(tests > 0, "{document}: no test shows this row: {row}");
        }
    }
}

#[test]
fn every_table_of_failures_says_who_sees_and_does_what() {
    let (_, text) = document();
    let tables: Vec<_> = text.lines().filter(|line| line.ends_with("| shown by |")).collect();
    assert!(tables.len() >= 5, "{tables:?}");
    for header in tables {
        let (clients, operator) = ("what clients see", "what the operator does");
        assert!(header.contains(clients) && header.contains(operator), "{header}");
    }
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

/// The durations that a row of the timers gives.
fn durations(timers: &str, name: &str) -> Vec<Duration> {
    let row = timers.lines().find(|line| line.starts_with(&format!("| {name} |")));
    let row = row.unwrap_or_else(|| panic!("no timer is called {name}"));
    let default = row.split(" | ").nth(1).unwrap_or_default();
    quoted(default).filter_map(|text| humantime::parse_duration(text).ok()).collect()
}

#[test]
fn the_timers_that_nobody_configures_have_the_values_of_the_code() {
    let (_, text) = document();
    let (_, timers) = text.split_once("## Timers").unwrap();
    let config = NodeConfig::new(Vec::new(), Mode::Nearsync);
    let limits = Limits::DEFAULT;
    let code = [
        ("introduction", vec![daemon::INTRODUCTION]),
        ("`congested`", vec![CONGESTED_AFTER]),
        ("applying", vec![config.apply_interval]),
        ("stop of the daemon", vec![daemon::STOP_LIMIT]),
        ("answer of the daemon", vec![control::ANSWER]),
        ("`--max-quiesce`", vec![limits.max_quiesce, Limits::QUIESCE_MAX]),
        ("`--max-total`", vec![limits.max_total, Limits::TOTAL_MAX]),
    ];
    for (name, expected) in code {
        assert_eq!(durations(timers, name), expected, "{name}");
    }
}

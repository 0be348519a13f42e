//! The committed seeds are those that the code builds, and every target has a dictionary.

use std::path::Path;

use hadrian_fuzz::TARGETS;
use hadrian_golden::{BLESS, is_blessing};
use hadrian_replicator::config::{Config, ConfigError};

#[test]
fn the_corpus_holds_every_seed() {
    for target in TARGETS {
        for (name, bytes) in (target.seeds)() {
            let path = target.corpus().join(format!("seed-{name}"));
            if is_blessing() {
                std::fs::create_dir_all(target.corpus()).expect("a corpus can be written");
                std::fs::write(&path, &bytes).expect("a corpus can be written");
            }
            let found = std::fs::read(&path).unwrap_or_default();
            assert!(found == bytes, "{} is not what the code builds; {BLESS}=1", path.display());
        }
    }
}

#[test]
fn the_configurations_are_what_their_names_say() {
    for (name, text) in hadrian_fuzz::seeds::configuration() {
        let text = String::from_utf8(text).expect("a configuration is text");
        let parsed = Config::parse(&text, Path::new(&name));
        match name.as_str() {
            "two-hosts" | "every-key" => assert!(parsed.is_ok(), "{name}: {parsed:?}"),
            "every-mistake" => {
                let Err(ConfigError::Problems(problems)) = parsed else { panic!("{parsed:?}") };
                assert!(problems.len() > 20, "{problems:?}");
            }
            _ => assert!(matches!(parsed, Err(ConfigError::Syntax { .. })), "{name}: {parsed:?}"),
        }
    }
}

#[test]
fn every_dictionary_can_be_read_by_libfuzzer() {
    for target in TARGETS {
        let text = std::fs::read_to_string(target.dictionary()).expect("every target has one");
        let entries = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut count = 0;
        for line in entries {
            let value = line.strip_suffix('"').and_then(|line| line.split_once('"'));
            let (_, value) = value.unwrap_or_else(|| panic!("{}: {line}", target.name));
            assert!(!value.is_empty() && value.is_ascii(), "{}: {line}", target.name);
            count += 1;
        }
        assert!(count > 5, "{} has {count} words", target.name);
    }
}

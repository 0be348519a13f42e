//! Every refusal names the place, the value and the way out.

use std::path::Path;

use proptest::prelude::*;

use super::*;

/// A configuration in order; tests break it one line at a time.
const GOOD: &str = r#"
cluster = "orders"
[link]
plaintext = true
[[member]]
name = "alpha"
address = "10.0.0.1:7400"
[[member]]
name = "beta"
address = "10.0.0.2:7400"
[[resource]]
name = "db"
mode = "nearsync"
log_size = "256MiB"
[[resource.volume]]
name = "data"
size = "1GiB"
[resource.volume.store]
alpha = "/srv/db.img"
beta = "/dev/vg0/db"
"#;

fn refused(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from:?} is not in the configuration");
    let text = GOOD.replacen(from, to, 1);
    Config::parse(&text, Path::new("hadrian.toml")).unwrap_err().to_string()
}

#[test]
fn a_configuration_in_order_is_taken_with_its_defaults() {
    let config = Config::parse(GOOD, Path::new("hadrian.toml")).unwrap();
    let resource = config.resource("db").unwrap();
    assert_eq!(resource.volumes[0].geometry.size_bytes, 1 << 30);
    assert_eq!(resource.volumes[0].geometry.block_size, 512);
    assert_eq!(config.name_of(resource.primary), "alpha");
    assert_eq!(resource.exports(), ["db/data"]);
    assert_eq!(config.member("beta").unwrap().state_dir, Path::new("/var/lib/hadrian"));
}

#[test]
fn every_refusal_names_the_place_the_value_and_the_way_out() {
    let cases = [
        ("mode = \"nearsync\"", "mode = \"fast\"", "hadrian.toml:13:8", "sync, nearsync, async"),
        ("size = \"1GiB\"", "size = \"1000\"", "hadrian.toml:17:8", "whole blocks"),
        ("size = \"1GiB\"", "size = \"0\"", "hadrian.toml:17:8", "0 bytes"),
        ("\"256MiB\"", "\"1MiB\"", "hadrian.toml:14:12", "64MiB to 1TiB"),
        ("10.0.0.2:7400", "10.0.0.1:7400", "hadrian.toml:10:11", "used twice"),
        ("10.0.0.2:7400", "10.0.0.2", "hadrian.toml:10:11", "HOST:PORT"),
        ("name = \"beta\"", "name = \"alpha\"", "hadrian.toml:9:8", "used twice"),
        ("beta = \"/dev", "gamma = \"/dev", "hadrian.toml:16:8", "no store on beta"),
        ("/srv/db.img", "srv/db.img", "hadrian.toml:19:9", "not absolute"),
        ("cluster = \"orders\"", "cluster = \"Orders\"", "hadrian.toml:2:11", "a-z"),
        ("plaintext = true", "plaintext = false", "hadrian.toml:6:8", "hadrian keygen"),
        ("[link]", "[link]\ncompression = \"gzip\"", "hadrian.toml:4:15", "none\" or \"zstd"),
        ("mode = \"nearsync\"", "primary = \"gamma\"", "hadrian.toml:13:11", "alpha, beta"),
    ];
    for (from, to, place, way_out) in cases {
        let text = refused(from, to);
        assert!(text.contains(place), "{to}: {place} is not in: {text}");
        assert!(text.contains(way_out), "{to}: {way_out:?} is not in: {text}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    let text = refused("mode = \"nearsync\"", "moed = \"nearsync\"");
    assert!(text.contains("moed") && text.contains("line 13"), "{text}");
}

#[test]
fn all_problems_are_told_at_once() {
    let text = GOOD.replace("1GiB", "7").replace("nearsync", "fast");
    let error = Config::parse(&text, Path::new("f")).unwrap_err();
    assert!(matches!(error, ConfigError::Problems(problems) if problems.len() == 2));
}

proptest! {
    #[test]
    fn no_text_makes_the_checks_panic(at in 0..GOOD.len(), with in "[\\PC\"\\[\\]=\n]{0,6}") {
        let mut text = GOOD.to_string();
        text.replace_range(at..(at + 3).min(GOOD.len()), &with);
        let _ = Config::parse(&text, Path::new("f"));
    }
}

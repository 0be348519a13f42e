//! Every refusal names the place, the value and the way out.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::tls::Fingerprint;

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

/// The fingerprint of some certificate.
fn fingerprint(number: u8) -> String {
    Fingerprint::of(&vec![number].into()).to_string()
}

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

/// The same with this as its fencing, and `auto_takeover` if it is asked for.
fn fenced(fencing: &str, auto_takeover: bool) -> Result<Config, ConfigError> {
    let text = GOOD.replacen("[link]", &format!("fencing = {fencing}\n[link]"), 1);
    let wish = format!("name = \"db\"\nauto_takeover = {auto_takeover}");
    Config::parse(&text.replacen("name = \"db\"", &wish, 1), Path::new("hadrian.toml"))
}

#[test]
fn one_or_three_markers_are_taken_and_everything_else_is_refused_with_the_reason() {
    let config = fenced("{ marks = [\"/dev/sdm\"], lease = \"20s\" }", true).unwrap();
    let marks = config.fencing.marks().unwrap();
    assert_eq!(marks.paths, [Path::new("/dev/sdm")]);
    assert_eq!(marks.timing.lease, std::time::Duration::from_secs(20));
    assert!(config.resource("db").unwrap().auto_takeover);
    let none = fenced("\"none\"", false).unwrap();
    assert!(matches!(none.fencing, Fencing::None { is_said: true }));
    let cases = [
        ("{ marks = [\"/dev/a\", \"/dev/b\"] }", "no better than one"),
        ("{ marks = [] }", "names 0; name one or three"),
        ("{ marks = [\"sdm\"] }", "sdm is not absolute"),
        ("{ marks = [\"/dev/a\", \"/dev/a\", \"/dev/b\"] }", "one marker twice"),
        ("{ marks = [\"/dev/a\"], lease = \"5s\" }", "a lease of 5s is too short"),
        ("{ marks = [\"/dev/a\"], lease = \"soon\" }", "no duration"),
        ("{ marks = [\"/srv/db.img\"] }", "is a store of alpha and a marker"),
        ("{ marks = [\"/dev/a\"], speed = 1 }", "\"speed\" is no key of fencing"),
        ("{ marks = [\"/dev/a\"], ca = \"/etc/ca\" }", "are for etcd, and none is named"),
        ("\"some\"", "no kind of fencing"),
    ];
    for (fencing, reason) in cases {
        let error = fenced(fencing, false).unwrap_err().to_string();
        assert!(error.contains(reason), "{fencing}: {error}");
        assert!(error.contains("hadrian.toml:"), "{error}");
    }
    let alone = fenced("\"none\"", true).unwrap_err().to_string();
    assert!(alone.contains("auto_takeover needs ownership marks"), "{alone}");
}

#[test]
fn a_watchdog_is_waited_for_and_its_time_has_bounds() {
    let watchdog = |what: &str| fenced(&format!("{{ marks = [\"/dev/a\"], {what} }}"), false);
    let config = watchdog("watchdog = {}").unwrap();
    let marks = config.fencing.marks().unwrap();
    let settings = marks.watchdog.as_ref().unwrap();
    let ten = std::time::Duration::from_secs(10);
    assert_eq!((settings.device.as_path(), settings.timeout), (Path::new("/dev/watchdog"), ten));
    assert_eq!(marks.timing.watchdog, ten, "the lease tells others to wait for it");
    let other = watchdog("watchdog = { device = \"/dev/watchdog1\", timeout = \"5s\" }").unwrap();
    let other = other.fencing.marks().unwrap().watchdog.clone().unwrap();
    assert_eq!(other.device, Path::new("/dev/watchdog1"));
    let cases = [
        ("watchdog = { timeout = \"4s\" }", "a watchdog of 4s; write 5s to 600s"),
        ("watchdog = { timeout = \"6500ms\" }", "whole seconds"),
        ("watchdog = { device = \"watchdog\" }", "not absolute"),
        ("watchdog = { time = \"10s\" }", "\"time\" is no key of fencing.watchdog"),
    ];
    for (what, reason) in cases {
        let error = watchdog(what).unwrap_err().to_string();
        assert!(error.contains(reason), "{what}: {error}");
    }
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
        ("[link]", "memory = \"16MiB\"\n[link]", "hadrian.toml:3:10", "write 32.0 MiB"),
        ("[link]", "[link]\ncompression = \"gzip\"", "hadrian.toml:4:15", "none\" or \"zstd"),
        ("[link]", "[link]\ntimeout = \"0s\"", "hadrian.toml:4:11", "1s to 10m"),
        ("mode = \"nearsync\"", "peer_window = \"2days\"", "hadrian.toml:13:15", "0s to 1h"),
        ("mode = \"nearsync\"", "on_window_end = \"wait\"", "hadrian.toml:13:17", "or \"hold\""),
        ("mode = \"nearsync\"", "peer_wait_limit = \"2h\"", "hadrian.toml:13:19", "0s to 1h"),
        ("mode = \"nearsync\"", "spool_limit = \"1KiB\"", "hadrian.toml:13:15", "at least 1MiB"),
        ("mode = \"nearsync\"", "replay_delay = \"8days\"", "hadrian.toml:13:16", "0s to 7d"),
        ("mode = \"nearsync\"", "degrade = [\"sync\"]", "hadrian.toml:13:12", "not weaker"),
        ("mode = \"nearsync\"", "degrade_after = \"1ms\"", "hadrian.toml:13:17", "50ms to 1h"),
        ("mode = \"nearsync\"", "standbys = [\"gamma\"]", "hadrian.toml:13:13", "alpha, beta"),
        ("mode = \"nearsync\"", "recording = \"9kB\"", "hadrian.toml:13:13", "at least 1MiB"),
        ("mode = \"nearsync\"", "log_sync_interval = \"0s\"", "hadrian.toml:13:21", "1ms to 10s"),
        ("mode = \"nearsync\"", "ublk_queues = 0", "hadrian.toml:13:15", "1 to 16 queues"),
        (
            "\"256MiB\"",
            "\"256MiB\"\nlog_retention = \"200MiB\"",
            "hadrian.toml:15:17",
            "at most 128",
        ),
        (
            "name = \"alpha\"",
            "name = \"alpha\"\nrun_dir = \"run\"",
            "hadrian.toml:7:11",
            "not absolute",
        ),
        ("mode = \"nearsync\"", "primary = \"gamma\"", "hadrian.toml:13:11", "alpha, beta"),
    ];
    for (from, to, place, way_out) in cases {
        let text = refused(from, to);
        assert!(text.contains(place), "{to}: {place} is not in: {text}");
        assert!(text.contains(way_out), "{to}: {way_out:?} is not in: {text}");
    }
}

#[test]
fn every_unknown_key_is_told_with_its_place_and_the_key_that_was_perhaps_meant() {
    let text = GOOD.replace("mode =", "moed =").replace("[link]", "[link]\nspeed = 3");
    let text = text.replace("size = \"1GiB\"", "size = \"1GiB\"\nblocksize = 512");
    let told = Config::parse(&text, Path::new("f")).unwrap_err().to_string();
    let wanted = [
        "f:4:1: \"speed\" is no key of link; there are plaintext, timeout, compression",
        "f:14:1: \"moed\" is no key of resource; did you mean \"mode\"?",
        "f:19:1: \"blocksize\" is no key of resource.volume; did you mean \"block_size\"?",
    ];
    for line in wanted {
        assert!(told.contains(line), "{line} is not in: {told}");
    }
}

#[test]
fn two_members_on_one_host_share_no_folder_socket_or_store() {
    let one_host = GOOD.replace("10.0.0.2:7400", "10.0.0.1:7401");
    let told = Config::parse(&one_host, Path::new("f")).unwrap_err().to_string();
    assert!(told.contains("share state_dir /var/lib/hadrian"), "{told}");
    assert!(told.contains("share run_dir /run/hadrian"), "{told}");
    let apart = one_host.replace(
        "name = \"beta\"",
        "name = \"beta\"\nstate_dir = \"/b/state\"\nrun_dir = \"/b/run\"",
    );
    Config::parse(&apart, Path::new("f")).unwrap();
    let shared = apart.replace("/dev/vg0/db", "/srv/db.img");
    let told = Config::parse(&shared, Path::new("f")).unwrap_err().to_string();
    assert!(told.contains("on alpha and on beta, which are one host"), "{told}");
}

#[cfg(feature = "etcd")]
#[test]
fn etcd_is_taken_by_its_addresses_and_everything_else_is_refused_with_the_reason() {
    let config = fenced("{ etcd = [\"http://[::1]:2379\"], io_timeout = \"1s\" }", true).unwrap();
    assert!(config.warnings.is_empty());
    let etcd = config.fencing.marks().unwrap().etcd.clone().unwrap();
    assert_eq!(etcd.endpoints, ["http://[::1]:2379"]);
    assert_eq!(etcd.limit, std::time::Duration::from_secs(1));
    let open = fenced("{ etcd = [\"http://10.0.0.9:2379\"] }", false).unwrap();
    assert!(open.warnings[0].text.contains("without encryption"), "{}", open.warnings[0]);
    let secure = "\"https://a:2379\"], ca = \"/etc/ca\"";
    let login = "user = \"hadrian\", password_file = \"/etc/password\"";
    fenced(&format!("{{ etcd = [{secure}, {login} }}"), true).unwrap();
    fenced(&format!("{{ etcd = [{secure}, cert = \"/etc/c\", key = \"/etc/k\" }}"), true).unwrap();
    let cases = [
        ("{ etcd = [\"http://a:1\"], marks = [\"/dev/a\"] }", "has marks and etcd"),
        ("{ etcd = [\"a:2379\"] }", "\"a:2379\" is no address of etcd; write http://HOST:PORT"),
        ("{ etcd = [\"http://a\"] }", "is no address of etcd"),
        ("{ etcd = [\"http://a/b:1\"] }", "is no address of etcd"),
        ("{ etcd = [\"https://a:1\"] }", "https wants fencing.ca"),
        ("{ etcd = [\"http://a:1\"], ca = \"/etc/ca\" }", "and http wants none"),
        ("{ etcd = [\"http://a:1\", \"https://b:1\"], ca = \"/etc/ca\" }", "mixes http and https"),
        ("{ etcd = [\"https://a:1\"], ca = \"ca\" }", "ca is not absolute"),
        ("{ etcd = [\"https://a:1\"], ca = \"/ca\", cert = \"/c\" }", "go together"),
        ("{ etcd = [\"http://a:1\"], user = \"u\" }", "user and fencing.password_file go together"),
        ("{ etcd = [\"http://a:1\"], password_file = \"/p\" }", "and a file that holds"),
        ("{ etcd = [\"http://a:1\"], user = \"u\", password_file = \"p\" }", "p is not absolute"),
        ("{ marks = [\"/dev/a\"], user = \"u\" }", "are for etcd, and none is named"),
        ("{ etcd = [\"http://a:1\"], lease = \"5s\" }", "a lease of 5s is too short"),
    ];
    for (fencing, expected) in cases {
        let told = fenced(fencing, true).unwrap_err().to_string();
        assert!(told.contains(expected), "{fencing}: {expected:?} is not in: {told}");
    }
}

#[cfg(not(feature = "etcd"))]
#[test]
fn a_program_without_etcd_says_how_to_build_one_with_it() {
    let told = fenced("{ etcd = [\"http://a:2379\"] }", true).unwrap_err().to_string();
    assert!(told.contains("built without etcd; build it with --features etcd"), "{told}");
}

#[test]
fn listeners_do_not_get_in_each_others_way() {
    let with_nbd = |lines: &str| {
        let text = GOOD.replace("[[resource.volume]]", &format!("{lines}\n[[resource.volume]]"));
        Config::parse(&text, Path::new("f"))
    };
    for taken in ["10.0.0.1:7400", "0.0.0.0:7400", "10.0.0.2:7400"] {
        let told = with_nbd(&format!("nbd = {{ alpha = \"{taken}\" }}")).unwrap_err().to_string();
        assert!(told.contains("taken by the links of"), "{taken}: {told}");
    }
    let loopback = with_nbd("nbd = { alpha = \"127.0.0.1:10809\" }").unwrap();
    assert!(loopback.warnings.is_empty());
    let open = with_nbd("nbd = { alpha = \"0.0.0.0:10809\", beta = \"0.0.0.0:10809\" }").unwrap();
    assert_eq!(open.warnings.len(), 2);
    assert!(open.warnings[0].text.contains("without password"), "{}", open.warnings[0]);
}

#[test]
fn columns_are_counted_in_characters() {
    let before = "nbd = { \"\u{e4}\u{f6}\u{fc}\" = \"127.0.0.1:1\", alpha = ";
    let line = format!("{before}\"x\" }}\n[[resource.volume]]");
    let told = refused("[[resource.volume]]", &line);
    let place = format!(":15:{}: \"x\" is no address", before.chars().count() + 1);
    assert!(told.contains(&place), "{place} is not in: {told}");
}

#[test]
fn a_socket_that_no_path_can_name_and_a_key_for_two_members_are_refused() {
    let run_dir = format!("name = \"alpha\"\nrun_dir = \"/run/{}\"", "x".repeat(100));
    let told = refused("name = \"alpha\"", &run_dir);
    assert!(told.contains(":7:11: the socket /run/xxx") && told.contains("at most 107"), "{told}");
    let print = format!("\nfingerprint = \"{}\"", fingerprint(1));
    let text = GOOD.replace(":7400\"", &format!(":7400\"{print}"));
    let told = Config::parse(&text, Path::new("f")).unwrap_err().to_string();
    assert!(told.contains("fingerprint") && told.contains("used twice"), "{told}");
}

/// The rows of the table of keys in the manual.
fn documented_keys() -> Vec<String> {
    let manual = include_str!("../../../docs/configuration.md");
    let keys = manual.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    keys.map(|(key, _)| key.to_string()).collect()
}

#[test]
fn the_manual_has_every_key_and_no_other() {
    let known = KEYS.iter().flat_map(|(table, keys)| {
        let name = move |key: &&str| match *table {
            "" => (*key).to_string(),
            table => format!("{table}.{key}"),
        };
        keys.iter().map(name)
    });
    let mut known: Vec<_> = known.collect();
    let mut documented = documented_keys();
    known.sort();
    documented.sort();
    assert_eq!(documented, known);
}

#[test]
fn the_examples_of_the_documents_can_be_used() {
    let documents = [
        ("README.md", include_str!("../../../README.md")),
        ("docs/configuration.md", include_str!("../../../docs/configuration.md")),
    ];
    let mut tried = 0;
    for (name, text) in documents {
        for block in text.split("```toml\n").skip(1) {
            let mut example = block.split("```").next().unwrap_or_default().to_string();
            // What the reader is told to paste differs from host to host.
            for (number, whose) in [(1, "ALPHA"), (2, "BETA")] {
                let here = format!("PASTE-THE-LINE-OF-{whose}");
                example = example.replace(&here, &fingerprint(number));
            }
            if let Err(error) = Config::parse(&example, Path::new(name)) {
                panic!("{error}\n{example}");
            }
            tried += 1;
        }
    }
    assert!(tried > 0, "the documents show no configuration");
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

#[test]
fn a_schedule_of_comparisons_has_a_duration_and_a_time_of_day() {
    let with = |line: &str| {
        let text = GOOD.replace("mode = \"nearsync\"", &format!("mode = \"nearsync\"\n{line}"));
        Config::parse(&text, Path::new("hadrian.toml"))
    };
    let plan = |line: &str| with(line).unwrap().resource("db").unwrap().resync.verify.unwrap();
    let hours = |hours: u64| std::time::Duration::from_secs(hours * 3600);
    let weekly = plan("verify = \"7d\"\nverify_at = \"02:30\"");
    assert_eq!((weekly.every, weekly.at), (hours(7 * 24), Some(hours(5) / 2)));
    assert_eq!(plan("verify = \"6h\"").at, None);
    let cases = [
        ("verify = \"6h\"\nverify_at = \"02:00\"", "write 1day to"),
        ("verify = \"1s\"", "write 10s to"),
        ("verify_at = \"02:00\"", "add verify = \"7d\""),
        ("verify = \"7d\"\nverify_at = \"2am\"", "no time of day"),
        ("verify = \"7d\"\nverify_at = \"24:00\"", "no time of day"),
        ("verify = \"7d\"\nreplay_delay = \"1h\"", "applies late"),
    ];
    for (line, reason) in cases {
        let error = with(line).unwrap_err().to_string();
        assert!(error.contains(reason), "{line}: {error}");
    }
}

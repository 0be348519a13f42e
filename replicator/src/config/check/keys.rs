//! Keys that do not exist: each is told with its place and the key that was perhaps meant.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Checker;

/// Every key that there is, table by table; `""` is the top of the file. Keys of `resource.nbd`
/// and `resource.volume.store` are names of members.
pub const KEYS: [(&str, &[&str]); 8] = [
    (
        "",
        &[
            "cluster",
            "memory",
            "fencing",
            "on_event",
            "on_event_timeout",
            "link",
            "member",
            "resource",
        ],
    ),
    (
        "fencing",
        &[
            "marks",
            "etcd",
            "ca",
            "cert",
            "key",
            "user",
            "password_file",
            "lease",
            "renew_interval",
            "io_timeout",
            "watchdog",
            "fence",
        ],
    ),
    ("fencing.watchdog", &["device", "timeout"]),
    ("fencing.fence", &["command", "timeout"]),
    ("link", &["plaintext", "timeout", "compression"]),
    ("member", &["name", "address", "fingerprint", "state_dir", "run_dir", "key_dir"]),
    (
        "resource",
        &[
            "name",
            "mode",
            "commit",
            "standbys",
            "peer_window",
            "on_window_end",
            "peer_wait_limit",
            "spool_limit",
            "replay_delay",
            "degrade",
            "degrade_after",
            "degrade_back",
            "resync",
            "resync_rate",
            "rejoin",
            "verify",
            "verify_at",
            "log_size",
            "log_retention",
            "log_sync_interval",
            "recording",
            "history",
            "history_size",
            "primary",
            "auto_takeover",
            "auto_takeover_limit",
            "on_lease_end",
            "on_event",
            "on_event_timeout",
            "failback",
            "home",
            "failback_after",
            "nbd",
            "ublk",
            "ublk_queues",
            "volume",
            "companions",
        ],
    ),
    ("resource.volume", &["name", "size", "block_size", "store"]),
];

/// Looks at every key of the file. A file that is no TOML is left to the reader's own error.
pub(super) fn look(checker: &mut Checker<'_>) {
    let text = checker.text;
    if let Ok(file) = DeTable::parse(text) {
        look_at_table(checker, "", file.get_ref());
    }
}

fn look_at_table(checker: &mut Checker<'_>, name: &str, table: &DeTable<'_>) {
    // The tables without an entry have names of members for keys.
    let Some((_, known)) = KEYS.iter().find(|(table, _)| *table == name) else { return };
    for (key, value) in table {
        if known.contains(&key.get_ref().as_ref()) {
            let inner = if name.is_empty() {
                key.get_ref().to_string()
            } else {
                format!("{name}.{}", key.get_ref())
            };
            look_at_value(checker, &inner, value.get_ref());
        } else {
            refuse(checker, name, key, known);
        }
    }
}

fn look_at_value(checker: &mut Checker<'_>, name: &str, value: &DeValue<'_>) {
    match value {
        DeValue::Table(table) => look_at_table(checker, name, table),
        DeValue::Array(values) => {
            values.iter().for_each(|value| look_at_value(checker, name, value.get_ref()));
        }
        _ => {}
    }
}

fn refuse(checker: &mut Checker<'_>, table: &str, key: &Spanned<Cow<'_, str>>, known: &[&str]) {
    let wrong = key.get_ref();
    let place = if table.is_empty() { String::new() } else { format!(" of {table}") };
    let near = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(wrong, known), known))
        .filter(|(distance, known)| *distance <= known.len() / 3 + 1)
        .min();
    let way_out = match near {
        Some((_, near)) => format!("did you mean {near:?}?"),
        None => format!("there are {}", known.join(", ")),
    };
    checker.problem(key, format!("{wrong:?} is no key{place}; {way_out}"));
}

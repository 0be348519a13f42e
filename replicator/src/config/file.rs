//! What can be written in the file. Nothing here is checked but form; unknown keys are refused.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) cluster: Spanned<String>,
    pub(super) memory: Option<Spanned<String>>,
    pub(super) fencing: Option<Spanned<Fencing>>,
    pub(super) on_event: Option<Spanned<PathBuf>>,
    pub(super) on_event_timeout: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) link: Link,
    pub(super) member: Vec<Member>,
    pub(super) resource: Vec<Resource>,
}

/// The word `"none"`, or what members share.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Fencing {
    Word(String),
    Table(Box<FencingTable>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FencingTable {
    #[serde(default)]
    pub(super) marks: Vec<PathBuf>,
    #[serde(default)]
    pub(super) etcd: Vec<String>,
    pub(super) ca: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) user: Option<String>,
    pub(super) password_file: Option<PathBuf>,
    pub(super) lease: Option<String>,
    pub(super) renew_interval: Option<String>,
    pub(super) io_timeout: Option<String>,
    pub(super) watchdog: Option<WatchdogTable>,
    pub(super) fence: Option<FenceTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FenceTable {
    pub(super) command: PathBuf,
    pub(super) timeout: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WatchdogTable {
    pub(super) device: Option<PathBuf>,
    pub(super) timeout: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Link {
    #[serde(default)]
    pub(super) plaintext: bool,
    pub(super) timeout: Option<Spanned<String>>,
    pub(super) compression: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Member {
    pub(super) name: Spanned<String>,
    pub(super) address: Spanned<String>,
    pub(super) fingerprint: Option<Spanned<String>>,
    pub(super) state_dir: Option<Spanned<PathBuf>>,
    pub(super) run_dir: Option<Spanned<PathBuf>>,
    pub(super) key_dir: Option<Spanned<PathBuf>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resource {
    pub(super) name: Spanned<String>,
    pub(super) mode: Option<Spanned<String>>,
    pub(super) commit: Option<Spanned<String>>,
    pub(super) peer_window: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) standbys: Vec<Spanned<String>>,
    pub(super) on_window_end: Option<Spanned<String>>,
    pub(super) peer_wait_limit: Option<Spanned<String>>,
    pub(super) spool_limit: Option<Spanned<String>>,
    pub(super) replay_delay: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) degrade: Vec<Spanned<String>>,
    pub(super) degrade_after: Option<Spanned<String>>,
    pub(super) degrade_back: Option<Spanned<String>>,
    pub(super) resync: Option<Spanned<String>>,
    pub(super) resync_rate: Option<Spanned<String>>,
    pub(super) rejoin: Option<Spanned<String>>,
    pub(super) verify: Option<Spanned<String>>,
    pub(super) verify_at: Option<Spanned<String>>,
    pub(super) log_size: Option<Spanned<String>>,
    pub(super) log_retention: Option<Spanned<String>>,
    pub(super) log_sync_interval: Option<Spanned<String>>,
    pub(super) recording: Option<Spanned<String>>,
    pub(super) history: Option<Spanned<String>>,
    pub(super) history_size: Option<Spanned<String>>,
    pub(super) primary: Option<Spanned<String>>,
    pub(super) auto_takeover: Option<Spanned<bool>>,
    pub(super) auto_takeover_limit: Option<Spanned<u32>>,
    pub(super) on_lease_end: Option<Spanned<String>>,
    pub(super) on_event: Option<Spanned<PathBuf>>,
    pub(super) on_event_timeout: Option<Spanned<String>>,
    pub(super) failback: Option<Spanned<String>>,
    pub(super) home: Option<Spanned<String>>,
    pub(super) failback_after: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) ublk: bool,
    pub(super) ublk_queues: Option<Spanned<u16>>,
    pub(super) volume: Vec<Volume>,
    #[serde(default)]
    pub(super) companions: Vec<Spanned<PathBuf>>,
    #[serde(default)]
    pub(super) nbd: BTreeMap<String, Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Volume {
    pub(super) name: Spanned<String>,
    pub(super) size: Spanned<String>,
    pub(super) block_size: Option<Spanned<u32>>,
    pub(super) store: BTreeMap<String, Spanned<PathBuf>>,
}

//! The configuration file.
//!
//! Input: its text.

use std::fmt::Write as _;
use std::path::Path;

use hadrian_protocol::ids::{MEMBERS_MAX, VOLUMES_MAX};
use hadrian_replicator::config::{Config, ConfigError, Resource, Volume};
use hadrian_replicator::driver::Compression;

const PATH: &str = "hadrian.toml";

/// Reads `input` as a configuration.
///
/// # Panics
/// If a property breaks.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Config::parse(text, Path::new(PATH)) {
        Ok(config) => {
            check(&config);
            let written = render(&config);
            let again = Config::parse(&written, Path::new(PATH));
            let again = again.unwrap_or_else(|error| panic!("{error}\nin\n{written}"));
            assert_eq!(config.warnings.len(), again.warnings.len(), "from\n{written}");
            let meaning = |config| format!("{:?}", Config { warnings: Vec::new(), ..config });
            assert_eq!(meaning(again), meaning(config), "from\n{written}");
        }
        Err(error) => check_error(text, &error),
    }
}

/// Whoever reads the error finds the place, and text that fits on a screen.
fn check_error(text: &str, error: &ConfigError) {
    assert!(!error.to_string().is_empty());
    match error {
        ConfigError::Syntax { source, .. } => {
            let place = source.span().and_then(|span| text.get(span));
            assert!(place.is_some(), "{error}");
        }
        ConfigError::Problems(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                let line = text.split('\n').nth(problem.line - 1);
                let line = line.unwrap_or_else(|| panic!("{problem}: no such line"));
                assert!((1..=line.len() + 1).contains(&problem.column), "{problem}");
                assert!(!problem.text.is_empty());
            }
        }
        ConfigError::Read { .. } => panic!("nothing was to be read"),
    }
}

/// What the rest of the program takes for granted.
fn check(config: &Config) {
    let members = config.members.len();
    assert!((2..=usize::from(MEMBERS_MAX)).contains(&members));
    for (index, member) in config.members.iter().enumerate() {
        assert_eq!(usize::from(member.id.index()), index);
        assert!(config.plaintext || member.fingerprint.is_some());
        assert_eq!(config.member(&member.name).map(|found| found.id), Some(member.id));
    }
    for resource in &config.resources {
        assert!(config.members.iter().any(|member| member.id == resource.primary));
        assert_eq!(config.resource(&resource.name).map(|found| found.id), Some(resource.id));
        assert!((1..=usize::from(VOLUMES_MAX)).contains(&resource.volumes.len()));
        resource.volumes.iter().for_each(|volume| check_volume(volume, members));
    }
}

fn check_volume(volume: &Volume, members: usize) {
    let geometry = volume.geometry;
    assert!(geometry.size_bytes > 0);
    assert!(geometry.size_bytes.is_multiple_of(u64::from(geometry.block_size)));
    assert_eq!(volume.stores.len(), members);
    assert!(volume.stores.iter().all(|store| store.is_absolute()));
}

/// The configuration written out in full.
fn render(config: &Config) -> String {
    let mut out = format!("cluster = {}\n", quoted(&config.cluster));
    let timeout = humantime::format_duration(config.timeout);
    let packing = if config.compression == Compression::Zstd { "zstd" } else { "none" };
    let _ = write!(
        out,
        "[link]\nplaintext = {}\ntimeout = \"{timeout}\"\ncompression = \"{packing}\"\n",
        config.plaintext
    );
    for member in &config.members {
        let _ = write!(
            out,
            "[[member]]\nname = {}\naddress = {}\nstate_dir = {}\nrun_dir = {}\nkey_dir = {}\n",
            quoted(&member.name),
            quoted(&member.address),
            quoted(&member.state_dir.to_string_lossy()),
            quoted(&member.run_dir.to_string_lossy()),
            quoted(&member.key_dir.to_string_lossy()),
        );
        if let Some(fingerprint) = &member.fingerprint {
            let _ = writeln!(out, "fingerprint = \"{fingerprint}\"");
        }
    }
    if config.resources.is_empty() {
        return format!("resource = []\n{out}");
    }
    config.resources.iter().for_each(|resource| render_resource(&mut out, config, resource));
    out
}

fn render_resource(out: &mut String, config: &Config, resource: &Resource) {
    let commit = if resource.commit_on_write { "write" } else { "flush" };
    let window = humantime::format_duration(resource.peer_window);
    let interval = humantime::format_duration(resource.log_sync_interval);
    let _ = write!(
        out,
        "[[resource]]\nname = {}\nmode = \"{}\"\ncommit = \"{commit}\"\n\
         peer_window = \"{window}\"\nlog_sync_interval = \"{interval}\"\nlog_size = \"{}\"\n\
         log_retention = \"{}\"\nprimary = {}\n",
        quoted(&resource.name),
        resource.mode.name(),
        resource.log_size_bytes,
        resource.log_retention_bytes,
        quoted(config.name_of(resource.primary)),
    );
    if let Some(plan) = resource.resync.verify {
        let _ = writeln!(out, "verify = \"{}\"", humantime::format_duration(plan.every));
        if let Some(at) = plan.at {
            let minutes = at.as_secs() / 60;
            let _ = writeln!(out, "verify_at = \"{:02}:{:02}\"", minutes / 60, minutes % 60);
        }
    }
    if let Some(companions) = &resource.companions {
        let paths = companions.paths.iter().map(|path| quoted(&path.to_string_lossy()));
        let _ = writeln!(out, "companions = [{}]", paths.collect::<Vec<_>>().join(", "));
    }
    if !resource.tcp.is_empty() {
        out.push_str("[resource.nbd]\n");
    }
    for (member, address) in &resource.tcp {
        let _ = writeln!(out, "{} = \"{address}\"", quoted(config.name_of(*member)));
    }
    for volume in &resource.volumes {
        let _ = write!(
            out,
            "[[resource.volume]]\nname = {}\nsize = \"{}\"\nblock_size = {}\n\
             [resource.volume.store]\n",
            quoted(&volume.name),
            volume.geometry.size_bytes,
            volume.geometry.block_size,
        );
        for (member, store) in config.members.iter().zip(&volume.stores) {
            let _ =
                writeln!(out, "{} = {}", quoted(&member.name), quoted(&store.to_string_lossy()));
        }
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

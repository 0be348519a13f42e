//! `hadrian create`: a replica of one resource on this member.

use anyhow::bail;
use hadrian_blockdev::replica;
use hadrian_blockdev::volume::{base_of, check_store, create_store};
use hadrian_protocol::replica::{Base, ReplicaState, Role};
use indicatif::{ProgressBar, ProgressStyle};

use crate::config::{Config, Member};

/// Makes missing backing stores, looks at what they hold, and writes log and superblock.
pub(super) fn create(
    config: &Config,
    me: &Member,
    name: &str,
    adopt: bool,
    json: bool,
) -> anyhow::Result<()> {
    let resource = super::resource(config, name)?;
    let stores = resource.stores(me.id);
    for (path, geometry) in stores.iter().zip(resource.geometry()) {
        create_store(path, geometry.size_bytes)?;
        check_store(path, geometry)?;
    }
    let size: u64 = resource.geometry().iter().map(|geometry| geometry.size_bytes).sum();
    let bar = progress("reading", size, json);
    let base = base_of(&stores, |bytes| bar.set_position(bytes))?;
    bar.finish_and_clear();
    if base != Base::Zero && !adopt {
        bail!(
            "the backing store of {name} holds data. To put that data under replication add \
             --adopt; every member must begin with the same content, so copy it there first"
        );
    }
    let role = if resource.primary == me.id { Role::Primary } else { Role::Standby };
    let geometry = resource.geometry();
    let state = ReplicaState::created(resource.id, me.id, role, resource.mode, base, geometry);
    let bar = progress("writing log", resource.log_size_bytes, json);
    let dir = me.replica_dir(resource);
    let label = config.label(me)?;
    let bytes = resource.log_size_bytes;
    replica::create(&dir, &label, &state, bytes, |bytes| bar.set_position(bytes))?;
    bar.finish_and_clear();
    let shown = dir.display();
    if json {
        say!("{}", serde_json::json!({ "resource": name, "dir": dir, "role": role }));
    } else {
        say!("{name}: replica made in {shown}; start hadriand to use it");
    }
    Ok(())
}

fn progress(what: &'static str, bytes: u64, json: bool) -> ProgressBar {
    if json {
        return ProgressBar::hidden();
    }
    let form = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
    let style = ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style).with_message(what)
}

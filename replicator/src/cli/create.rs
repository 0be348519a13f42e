//! `hadrian create`: a replica of one resource on this member.

use anyhow::bail;
use hadrian_blockdev::replica;
use hadrian_blockdev::volume::{base_of, check_store, create_store};
use hadrian_protocol::replica::{Base, Image, ReplicaState, Role};
use indicatif::{ProgressBar, ProgressStyle};

use crate::config::{Config, Member};

/// What the backing stores hold that a replica is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Holds {
    /// Nothing but zeroes, or the replica is not made.
    Nothing,
    /// What is to be replicated.
    TheData,
    /// A copy of the primary's content, or anything that may be replaced by it.
    ACopy,
}

/// Makes missing backing stores, looks at what they hold, and writes log and superblock.
pub(super) fn create(
    config: &Config,
    me: &Member,
    name: &str,
    holds: Holds,
    json: bool,
) -> anyhow::Result<()> {
    let resource = super::resource(config, name)?;
    let stores = resource.stores(me.id);
    if resource.companions.is_some() {
        std::fs::create_dir_all(me.replica_dir(resource))?;
    }
    for (path, geometry) in stores.iter().zip(resource.geometry()) {
        create_store(path, geometry.size_bytes)?;
        check_store(path, geometry)?;
    }
    let size: u64 = resource.geometry().iter().map(|geometry| geometry.size_bytes).sum();
    let bar = progress("reading", size, json);
    let base = base_of(&stores, |bytes| bar.set_position(bytes))?;
    bar.finish_and_clear();
    if base != Base::Zero && holds == Holds::Nothing {
        bail!(
            "the backing store of {name} holds data. To put that data under replication add \
             --adopt, on the member that is primary first; to let the primary's content take its \
             place add --copy, on a standby"
        );
    }
    let role = if resource.primary == me.id { Role::Primary } else { Role::Standby };
    if role == Role::Primary && holds == Holds::ACopy {
        let me = &me.name;
        bail!(
            "{me} is primary of {name} first, so there is nobody whose content could take the \
             place of its own; add --adopt to put that under replication, or name another primary"
        );
    }
    let geometry = resource.geometry();
    let mut state = ReplicaState::created(resource.id, me.id, role, resource.mode, base, geometry);
    if holds == Holds::ACopy {
        state.image = Image::Incomplete;
    }
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

/// How far something is that takes long; nothing is drawn where a program reads the answer.
pub(super) fn progress(what: &'static str, bytes: u64, json: bool) -> ProgressBar {
    if json {
        return ProgressBar::hidden();
    }
    let form = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
    let style = ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style).with_message(what)
}

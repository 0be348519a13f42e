//! `hadrian detach`: the end of replication on this member; its image stays as a plain disk.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hadrian_blockdev::engine::EngineChoice;
use hadrian_blockdev::replica::{Replica, ReplicaEvent};
use hadrian_blockdev::superblock::Whose;
use hadrian_protocol::ids::Lsn;
use hadrian_protocol::replica::Image;

use super::args::Args;
use super::{configuration, confirm};

const WARNING: &str = "This member's replica takes no part in replication any more: its log and \
superblock are put aside, and its backing stores stay as they are, as plain disks. To replicate it \
again, create the replica anew.";

/// Brings everything that may be applied into the image, and puts log and superblock aside.
pub(super) fn detach(args: &Args, name: &str, discard_log: bool, yes: bool) -> anyhow::Result<()> {
    let (config, me) = configuration(args)?;
    let resource = super::resource(&config, name)?;
    let (dir, stores) = (me.replica_dir(resource), resource.stores(me.id));
    let whose = Whose { resource: resource.id, label: config.label(&me)? };
    confirm(yes, WARNING)?;
    let (mut replica, state, recovered) =
        Replica::open(&dir, &whose, &stores, EngineChoice::Plain)?;
    if state.image == Image::Incomplete {
        bail!(
            "the image of {name} is incomplete: a resync in place has not come to its end. Let it, \
             or throw the replica away by hand: what is in {} is no point of any history",
            dir.display()
        );
    }
    let (applied, end) = (state.apply_limit.min(recovered.end.lsn), recovered.end.lsn);
    if end > applied && !discard_log {
        let bytes = super::words::bytes(end.since(applied));
        bail!(
            "{bytes} of log were received and are not in the image, because nobody has said yet \
             that they stay. Let this member meet its primary, or take over; or add --discard-log \
             to have the image as of {applied}"
        );
    }
    settle(&mut replica, applied)?;
    drop(replica);
    let aside = aside(&dir)?;
    // The files of the host stay where they are; what carried them goes aside.
    let stores: Vec<_> = stores.iter().take(resource.volumes.len()).collect();
    if args.json {
        let seen = serde_json::json!({ "resource": name, "stores": stores, "as_of": applied,
            "put_aside": aside });
        say!("{seen}");
        return Ok(());
    }
    let stores: Vec<_> = stores.iter().map(|store| store.display().to_string()).collect();
    say!("{name} is detached; its image, as of {applied}, is in {}", stores.join(", "));
    say!(
        "log, superblock and quarantine are in {}; remove them when nobody needs them",
        aside.display()
    );
    say!("take {name} out of the configuration, or this member's daemon will ask for it");
    Ok(())
}

/// Waits until the stores hold everything to here, durably.
fn settle(replica: &mut Replica, applied: Lsn) -> anyhow::Result<()> {
    replica.checkpoint();
    let mut events = Vec::new();
    loop {
        replica.kick();
        replica.poll(&mut events);
        for event in events.drain(..) {
            match event {
                ReplicaEvent::Checkpointed(at) if at.lsn >= applied => return Ok(()),
                ReplicaEvent::Failed(part, error) => {
                    return Err(error).with_context(|| format!("the {} failed", part.name()));
                }
                _ => {}
            }
        }
    }
}

/// Gives the folder of a replica another name, so that nobody takes it for one.
fn aside(dir: &Path) -> anyhow::Result<PathBuf> {
    let named = |number: u32| {
        let mut name = dir.as_os_str().to_owned();
        name.push(if number == 0 { ".detached".into() } else { format!(".detached-{number}") });
        PathBuf::from(name)
    };
    let free = (0..1000).map(named).find(|path| !path.exists());
    let to = free.context("there are a thousand detached replicas here; remove some")?;
    fs::rename(dir, &to).with_context(|| format!("{} cannot be renamed", dir.display()))?;
    if let Some(above) = dir.parent() {
        File::open(above)?.sync_all()?;
    }
    Ok(to)
}

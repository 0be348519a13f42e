//! `hadrian inspect`: superblock and log of a stopped replica, read-only.

use hadrian_blockdev::engine::{AnyEngine, EngineChoice};
use hadrian_blockdev::inspect as disk;
use hadrian_blockdev::replica::{Found, read_state};

use crate::config::{Config, Member};

/// Prints what is there.
pub(super) fn inspect(config: &Config, me: &Member, name: &str, json: bool) -> anyhow::Result<()> {
    let resource = super::resource(config, name)?;
    let dir = me.replica_dir(resource);
    let Found { state, label, sequence, other_copy } = read_state(&dir)?;
    let mut engine = AnyEngine::choose(EngineChoice::Plain, 1)?;
    let mut dump = disk::frames(&mut engine, &dir, Some(state.checkpoint.lsn))?;
    let mut frames = 0_u64;
    let log = loop {
        match dump.next(&mut engine)? {
            Ok(_) => frames += 1,
            Err(end) => break end.to_string(),
        }
    };
    let epochs: Vec<_> = state
        .history
        .entries()
        .iter()
        .map(|entry| {
            let (epoch, leader) = (entry.epoch, config.name_of(entry.leader.member));
            format!("{epoch} led by {leader} from {} ({:?})", entry.start.lsn, entry.began)
        })
        .collect();
    if json {
        say!(
            "{}",
            serde_json::json!({
                "dir": dir, "label": label.to_string(), "sequence": sequence, "role": state.role,
                "incarnation": state.incarnation, "promised": state.promised, "owned": state.owned,
                "mode": state.mode, "apply_limit": state.apply_limit,
                "checkpoint": state.checkpoint.lsn, "log": log, "frames": frames, "epochs": epochs,
            })
        );
        return Ok(());
    }
    say!("replica       {}", dir.display());
    say!("label         {label}");
    say!("superblock    sequence {sequence}, other copy {other_copy:?}");
    say!("role          {:?}, incarnation {}", state.role, state.incarnation.get());
    say!("epochs        promised {}, owned {}", state.promised, state.owned);
    say!("checkpoint    {}, apply limit {}", state.checkpoint.lsn, state.apply_limit);
    say!("log           {} frames behind the checkpoint, {log}", frames);
    epochs.iter().for_each(|epoch| say!("epoch         {epoch}"));
    Ok(())
}

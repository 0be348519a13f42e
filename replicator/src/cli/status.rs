//! `hadrian status`: one screen, and one line that says what a failure would lose.

use std::time::Duration;

use comfy_table::{Table, presets};
use hadrian_protocol::node::{Done, Gap, NodeStatus, PeerStatus};

use super::args::Args;
use super::{hadr, history, words};
use crate::control::ResourceStatus;
use crate::out;

/// Prints the state of every resource, or of one; again every second if asked.
pub(super) fn status(
    args: &Args,
    resource: Option<String>,
    watch: bool,
    fields: bool,
) -> anyhow::Result<()> {
    loop {
        let all = super::all_status(args, resource.clone())?;
        if watch && !args.json {
            out::bytes(b"\x1b[2J\x1b[H");
        }
        if args.json {
            say!("{}", json(&all)?);
        } else {
            let shown = if fields { hadr::screen } else { screen };
            all.iter().for_each(|one| say!("{}", shown(one)));
        }
        if !watch || out::is_over() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Everything, and beside it the fields under HADR's names.
fn json(all: &[ResourceStatus]) -> anyhow::Result<serde_json::Value> {
    let one = |status: &ResourceStatus| -> anyhow::Result<serde_json::Value> {
        let mut value = serde_json::to_value(status)?;
        if let Some(object) = value.as_object_mut() {
            object.insert("hadr".into(), hadr::blocks(status).into());
        }
        Ok(value)
    };
    all.iter().map(one).collect()
}

/// What was done, in words.
pub(super) fn done(done: Done) -> String {
    match done {
        Done::Leading(epoch) => format!("this member is primary now, epoch {epoch}"),
        Done::WouldLead => "the takeover would be granted".into(),
        Done::CancelAsked => "given up, unless the old primary has handed over already".into(),
        Done::GoesOnAlone => "answers go on without the lost standbys".into(),
        Done::Fenced => "the owner is fenced: it serves nothing any more".into(),
        Done::Verifies => "the comparison has begun; hadrian status shows what it finds".into(),
        Done::Seeds => "the export has begun; hadrian status shows how far it is".into(),
        Done::Grown => {
            "the volume is larger on every member; clients find that when they connect again, and \
             size in the configuration should say so, too"
                .into()
        }
        Done::CouldGrow => "every member has room for it; no volume was changed".into(),
        Done::ModeSet => "the mode is changed".into(),
        Done::Rejoins => {
            "it returns to its primary; status shows how far that is, and what it held of its own \
             is saved first: hadrian quarantine list"
                .into()
        }
        Done::Stopped => "stopped; everything is in the backing store".into(),
        Done::Started => "started".into(),
    }
}

fn screen(status: &ResourceStatus) -> String {
    let Some(node) = &status.node else {
        let why = status.stopped.as_deref().unwrap_or("no answer");
        return format!("{} on {}: not running: {why}", status.resource, status.member);
    };
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let standing = words::standing(status, node);
    table.add_row(vec![format!("{} on {}", status.resource, status.member), standing]);
    let epoch = format!("{}, epoch {}", node.mode.name(), node.epoch);
    table.add_row(vec!["mode".into(), epoch]);
    if !status.volumes.is_empty() {
        table.add_row(vec!["volumes".into(), volumes(status)]);
    }
    let positions = format!("end {}, durable {}, applied {}", node.end, node.durable, node.applied);
    table.add_row(vec!["log".into(), positions]);
    if node.waits.count > 0 || node.waits.current_us > 0 {
        table.add_row(vec!["answers".into(), waits(node)]);
    }
    if let Some(gaps) = own_gaps(node) {
        table.add_row(vec!["gaps".into(), gaps]);
    }
    if node.settings.replay_delay_us > 0 {
        table.add_row(vec!["replay delay".into(), delay(node)]);
    }
    for line in clients(status) {
        table.add_row(vec!["clients".to_owned(), line]);
    }
    if let Some(divergence) = &status.divergence {
        table.add_row(vec!["a return".into(), words::divergence(divergence)]);
    }
    if let Some(verify) = &node.verify {
        table.add_row(vec!["verify".into(), words::verify(status, verify)]);
    }
    for (what, found) in beside(status) {
        table.add_row(vec![what.into(), found]);
    }
    for (what, found) in words::verified(status, node) {
        table.add_row(vec![what, found]);
    }
    for copies in &status.copies {
        let whose = copies.member.map_or("resync here".into(), |member| {
            format!("resync of {}", words::name(status, member))
        });
        table.add_row(vec![whose, words::copies(copies)]);
    }
    if let Some(seed) = &status.seed {
        table.add_row(vec!["seed".into(), words::seed(seed)]);
    }
    for peer in &node.peers {
        table.add_row(vec![words::name(status, peer.member).into(), other(peer)]);
    }
    add_fencing(&mut table, status, node);
    table.add_row(vec!["a failure".into(), words::failure(node)]);
    table.to_string()
}

/// What there is of a resource beside log and image.
fn beside(status: &ResourceStatus) -> Vec<(&'static str, String)> {
    let companions = status.companions.as_ref().map(words::companions).unwrap_or_default();
    let mut all: Vec<_> = companions.into_iter().map(|line| ("companions", line)).collect();
    let history = status.history.as_ref();
    all.extend(history.map(|kept| ("history", history::in_words(Some(kept)))));
    let quarantine = status.quarantine;
    all.extend(quarantine.map(|kept| ("quarantine", words::quarantine(kept, &status.resource))));
    all
}

/// What keeps clients out.
fn clients(status: &ResourceStatus) -> Vec<String> {
    let left = status.opening_bytes.map(words::bytes);
    let opening = left.map(|left| format!("wait until {left} more are applied"));
    let withdrawn = "are refused until this member has a lease again (on_lease_end)";
    let withdrawn = status.withdrawn.then(|| withdrawn.to_owned());
    opening.into_iter().chain(withdrawn).collect()
}

fn volumes(status: &ResourceStatus) -> String {
    let named = status.exports.iter().zip(&status.volumes).map(|(export, bytes)| {
        let name = export.split_once('/').map_or(export.as_str(), |(_, name)| name);
        format!("{name} {}", words::bytes(*bytes))
    });
    named.collect::<Vec<_>>().join(", ")
}

fn add_fencing(table: &mut Table, status: &ResourceStatus, node: &NodeStatus) {
    let Some(fencing) = &status.fencing else { return };
    table.add_row(vec!["fencing".into(), words::fencing(fencing)]);
    for name in words::unseen(status, node, fencing) {
        let text = "is connected, and its lease is not seen on the marks: see that both members \
                    have the same ones, and that it reaches them";
        table.add_row(vec![name.to_owned(), text.to_owned()]);
    }
}

/// What a standby lacks, as far as it knows.
fn own_gaps(node: &NodeStatus) -> Option<String> {
    let (log, replay) = (words::gap(node.log_gap), words::gap(node.replay_gap));
    node.state.map(|_| format!("log {log}; replay {replay}"))
}

/// A standby may take over at any time, in any mode; who looks must know what that waits for.
fn delay(node: &NodeStatus) -> String {
    let delay = words::time(node.settings.replay_delay_us);
    match node.state {
        Some(_) => format!("applies {delay} later than it receives; a takeover applies that first"),
        None => format!("standbys apply {delay} later; a takeover there applies that first"),
    }
}

fn waits(node: &NodeStatus) -> String {
    let waits = node.waits;
    let now = match waits.current_us {
        0 => "none waits".into(),
        us => format!("one waits for {} now", words::time(us)),
    };
    let (recent, total) = (words::time(waits.recent_us), words::time(waits.total_us));
    format!("{now}; {} waits, recently {recent}, {total} in all", waits.count)
}

fn other(peer: &PeerStatus) -> String {
    let link = words::connection(peer.connection);
    let since = words::time(peer.connection_us);
    let missed = match peer.heartbeats_missed {
        0 => String::new(),
        count => format!(", {count} heartbeats missed"),
    };
    let state = peer.state.map_or(String::new(), |known| format!(", {}", words::state(known)));
    let gap = |name: &str, gap: Option<Gap>| {
        gap.map_or(String::new(), |gap| format!(", {name} gap {}", words::gap(gap)))
    };
    let (log, replay) = (gap("log", peer.log_gap), gap("replay", peer.replay_gap));
    let window = peer
        .window_us
        .map_or(String::new(), |us| format!(", answers are held for {} more", words::time(us)));
    let refusal = peer.refusal.map_or(String::new(), |refusal| format!(", refused: {refusal}"));
    format!("{link} for {since}{missed}{state}{log}{replay}{window}{refusal}")
}

#[cfg(test)]
mod tests {
    use hadrian_protocol::marks::watch::Sight;

    use super::super::loss::tests::beta;
    use super::*;
    use crate::control::FencingStatus;

    /// Whether beta says of alpha that its lease is not seen.
    fn complains(sight: Option<Sight>, connected: bool, lease_us: Option<u64>) -> bool {
        let mut status = beta();
        status.node.as_mut().unwrap().peers[0].connected = connected;
        let members = sight.map(|sight| ("alpha".to_owned(), sight)).into_iter().collect();
        let markers = vec![("/dev/marker".to_owned(), None)];
        status.fencing = Some(FencingStatus::Marks { lease_us, members, markers, trouble: None });
        screen(&status).lines().any(|line| {
            line.contains("alpha") && line.contains("its lease is not seen on the marks")
        })
    }

    #[test]
    fn a_member_that_is_connected_and_whose_lease_is_not_seen_is_told_of() {
        let lease = Some(5_000_000);
        for sight in [Sight::Stalled, Sight::Over, Sight::Down] {
            assert!(complains(Some(sight), true, lease), "{sight:?}");
            assert!(!complains(Some(sight), false, lease), "it is away, and nothing is odd");
            assert!(!complains(Some(sight), true, None), "this one does not reach them itself");
        }
        assert!(complains(None, true, lease), "the marks do not know it");
        for sight in [Sight::Unknown, Sight::Live, Sight::Late] {
            assert!(!complains(Some(sight), true, lease), "{sight:?}");
        }
    }
}

//! `hadrian status`: one screen, and one line that says what a failure would lose.

use std::time::Duration;

use anyhow::bail;
use comfy_table::{Table, presets};
use hadrian_protocol::ids::{Lsn, MemberId};
use hadrian_protocol::node::{Done, NodeStatus, PeerStatus, StandbyState, Standing};
use hadrian_protocol::replica::Mode;

use super::args::Args;
use crate::control::{Request, ResourceStatus, Response};

/// Prints the state of every resource, or of one; again every second if asked.
pub(super) fn status(args: &Args, resource: Option<String>, watch: bool) -> anyhow::Result<()> {
    loop {
        let response = super::ask(args, Request::Status { resource: resource.clone() })?;
        let all = match response {
            Response::Status(all) => all,
            Response::Refused { message, .. } => bail!(message),
            Response::Done(_) => bail!("the daemon answered something else"),
        };
        if watch && !args.json {
            print!("\x1b[2J\x1b[H");
        }
        if args.json {
            println!("{}", serde_json::to_string(&all)?);
        } else {
            all.iter().for_each(|one| println!("{}", screen(one)));
        }
        if !watch {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// What was done, in words.
pub(super) fn done(done: Done) -> String {
    match done {
        Done::Leading(epoch) => format!("this member is primary now, epoch {epoch}"),
        Done::WouldLead => "the takeover would be granted".into(),
        Done::ModeSet => "the mode is changed".into(),
        Done::Stopped => "stopped; everything is in the backing store".into(),
        Done::Started => "started".into(),
    }
}

fn screen(status: &ResourceStatus) -> String {
    let Some(node) = &status.node else {
        let why = status.stopped.as_deref().unwrap_or("no answer");
        return format!("{} on {}: not running: {why}", status.resource, status.member);
    };
    let name = |id: MemberId| {
        status.members.get(usize::from(id.index())).map_or("?", String::as_str).to_string()
    };
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let (standing, end) = (standing(node, &name), node.end);
    table.add_row(vec![format!("{} on {}", status.resource, status.member), standing]);
    let epoch = format!("{}, epoch {}", node.mode.name(), node.epoch);
    table.add_row(vec!["mode".into(), epoch]);
    let positions = format!("end {end}, durable {}, applied {}", node.durable, node.applied);
    table.add_row(vec!["log".into(), positions]);
    for peer in &node.peers {
        table.add_row(vec![name(peer.member), other(peer, end)]);
    }
    table.add_row(vec!["a failure".into(), loss(node)]);
    table.to_string()
}

fn standing(node: &NodeStatus, name: &dyn Fn(MemberId) -> String) -> String {
    match &node.standing {
        Standing::Starting => "starting".into(),
        Standing::Standby => format!("standby, {}", node.state.map_or("?", state)),
        Standing::StartGate(wait) => {
            let who: Vec<_> = wait.iter().map(|id| name(*id)).collect();
            format!("waits for {} (way out: start --primary --force)", who.join(", "))
        }
        Standing::TakingOver => "taking over".into(),
        Standing::Primary => "primary".into(),
        Standing::HandingOver => "handing over".into(),
        Standing::Failed(part) => format!("failed ({part:?}); see the log of hadriand"),
        Standing::Diverged(fork) => {
            format!("diverged at {fork}; nothing was discarded; make this replica again")
        }
        Standing::Stopping => "stopping".into(),
    }
}

fn state(state: StandbyState) -> &'static str {
    match state {
        StandbyState::LocalCatchup => "local_catchup",
        StandbyState::RemoteCatchupPending => "remote_catchup_pending",
        StandbyState::RemoteCatchup => "remote_catchup",
        StandbyState::Peer => "peer",
        StandbyState::DisconnectedPeer => "disconnected_peer",
    }
}

fn other(peer: &PeerStatus, end: Lsn) -> String {
    let link = if peer.connected { "connected" } else { "disconnected" };
    let gap =
        peer.received.map(|received| format!(", gap {}", bytesize::ByteSize(end.since(received))));
    let state = peer.state.map_or(String::new(), |known| format!(", {}", state(known)));
    let refusal = peer.refusal.map_or(String::new(), |refusal| format!(", refused: {refusal:?}"));
    format!("{link}{state}{}{refusal}", gap.unwrap_or_default())
}

/// What the loss of this primary right now would lose.
fn loss(node: &NodeStatus) -> String {
    if node.standing != Standing::Primary {
        return "is seen on the primary".into();
    }
    let protected =
        node.peers.iter().any(|peer| peer.in_set && peer.state == Some(StandbyState::Peer));
    if protected && matches!(node.mode, Mode::Sync | Mode::Nearsync) {
        return "of this primary now would lose no answered write".into();
    }
    let received = node.peers.iter().filter_map(|peer| peer.received).max();
    match received {
        Some(received) => {
            let bytes = bytesize::ByteSize(node.end.since(received));
            format!("of this primary now would lose up to {bytes} of log")
        }
        None => "of this primary now would lose everything since the standby was lost".into(),
    }
}

//! What a takeover by force may lose, as far as the standby that shall take over can know it
//! (design §6.2). It is said before anything is done.

use hadrian_protocol::node::{NodeStatus, PeerStatus};

use super::words;
use crate::control::ResourceStatus;

/// Everything that an operator should know first, one sentence a line.
pub(super) fn forecast(status: &ResourceStatus) -> Vec<String> {
    let Some(node) = &status.node else { return Vec::new() };
    let leader = node.leader.filter(|leader| *leader != node.member);
    let name = leader.map_or("the primary", |leader| words::name(status, leader));
    let peer = node.peers.iter().find(|peer| Some(peer.member) == leader);
    let mut lines = vec![missing(node, name)];
    lines.extend(peer.map(|peer| silence(peer, name)));
    // What an earlier life of this standby was told says nothing about what it has lost since.
    if node.in_set && node.primary_end.is_some() {
        let window = words::time(node.settings.peer_window_us);
        lines.push(format!(
            "{name} counted this standby as in sync when it was heard last: what it answered until \
             its peer window of {window} ended is here."
        ));
    }
    if let Some(us) = node.proof_us.filter(|us| *us > 0) {
        let left = words::time(us);
        lines.push(format!("For {left} more, takeover --peer-window-only loses nothing."));
    }
    lines
}

/// Positions, bytes and time.
fn missing(node: &NodeStatus, name: &str) -> String {
    let newest = node.log_wall_us.map_or(String::new(), |us| {
        format!(", written at {}", humantime::format_rfc3339_seconds(words::moment(us)))
    });
    let own = format!("The log of this standby ends at {}{newest}", node.end);
    match node.primary_end {
        None => format!(
            "{own}. How far that of {name} went is not known: this standby was told nothing since \
             it was started."
        ),
        Some(end) if node.log_gap.bytes == 0 => {
            format!(
                "{own}; that of {name} ended at {end} when it last said so: nothing is missing."
            )
        }
        Some(end) => {
            let (bytes, time) = (words::bytes(node.log_gap.bytes), words::time(node.log_gap.us));
            format!(
                "{own}; that of {name} ended at {end} when it last said so: {bytes} of log, the \
                 work of up to {time}, are missing here and would be lost."
            )
        }
    }
}

/// For how long the primary may have worked without a word to this standby.
fn silence(peer: &PeerStatus, name: &str) -> String {
    match peer.silent_us {
        Some(us) => format!(
            "{name} is connected and was heard {} ago: without --force, a takeover loses nothing.",
            words::time(us)
        ),
        None => format!(
            "{name} has not been connected for {}: whatever it answered alone meanwhile is lost, \
             and nobody here can know how much that is.",
            words::time(peer.connection_us)
        ),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use hadrian_protocol::frame::LogPosition;
    use hadrian_protocol::ids::{Lsn, MemberId, ResourceId};
    use hadrian_protocol::node::{Gap, Node, NodeConfig, Recovered};
    use hadrian_protocol::replica::{Base, Mode, ReplicaState, Role};
    use hadrian_protocol::time::{Clock, Now, WallTime};

    use super::*;

    /// The standby beta of the primary alpha, just started.
    pub(in crate::cli) fn beta() -> ResourceStatus {
        let [alpha, beta] = [0, 1].map(|index| MemberId::new(index).unwrap());
        let (resource, mode) = (ResourceId::derive("orders", "db"), Mode::Superasync);
        let (role, base) = (Role::Standby, Base::Zero);
        let state = ReplicaState::created(resource, beta, role, mode, base, Vec::new());
        let recovered = Recovered {
            end: LogPosition::genesis(resource),
            durable: Lsn::START,
            start: Lsn::START,
            epoch_starts: Vec::new(),
            maps: Vec::new(),
        };
        let clock = Clock { now: Now::default(), wall: WallTime::from_micros(1) };
        let node = Node::new(NodeConfig::new(vec![alpha, beta], mode), state, recovered, clock);
        let mut node = node.status();
        node.leader = Some(alpha);
        node.end = Lsn::new(4096);
        node.peers[0].connection_us = 90_000_000;
        ResourceStatus {
            resource: "db".into(),
            member: "beta".into(),
            members: vec!["alpha".into(), "beta".into()],
            socket: PathBuf::new(),
            exports: Vec::new(),
            volumes: Vec::new(),
            segment_bytes: None,
            opening_bytes: None,
            withdrawn: false,
            right_us: None,
            divergence: None,
            copies: Vec::new(),
            seed: None,
            companions: None,
            history: None,
            quarantine: None,
            views: Vec::new(),
            node: Some(node),
            stopped: None,
            fencing: None,
        }
    }

    fn told(change: impl FnOnce(&mut NodeStatus)) -> String {
        let mut status = beta();
        change(status.node.as_mut().unwrap());
        forecast(&status).join("\n")
    }

    #[test]
    fn what_is_missing_is_said_in_bytes_and_time_beside_both_positions() {
        let told = told(|node| {
            node.primary_end = Some(Lsn::new(4096 + (3 << 20)));
            node.log_gap = Gap { bytes: 3 << 20, us: 12_000_000, ..Gap::default() };
        });
        assert!(told.contains("ends at 0/00001000"), "{told}");
        assert!(told.contains("that of alpha ended at 0/00301000"), "{told}");
        assert!(told.contains("3.0 MiB of log, the work of up to 12s, are missing"), "{told}");
        assert!(told.contains("alpha has not been connected for 1m 30s"), "{told}");
    }

    #[test]
    fn what_cannot_be_known_is_not_guessed() {
        let told = told(|_| {});
        assert!(told.contains("How far that of alpha went is not known"), "{told}");
        assert!(!told.contains("nothing is missing"), "{told}");
    }

    #[test]
    fn a_primary_that_is_connected_is_no_reason_for_force() {
        let told = told(|node| node.peers[0].silent_us = Some(2_000_000));
        assert!(told.contains("without --force, a takeover loses nothing"), "{told}");
    }

    #[test]
    fn a_word_of_the_set_counts_only_where_this_life_has_heard_it() {
        let counted = |node: &mut NodeStatus| {
            (node.in_set, node.primary_end) = (true, Some(node.end));
            (node.settings.peer_window_us, node.proof_us) = (60_000_000, Some(30_000_000));
        };
        let heard = told(counted);
        assert!(heard.contains("counted this standby as in sync"), "{heard}");
        assert!(heard.contains("For 30s more, takeover --peer-window-only loses nothing"));
        let restarted = told(|node| {
            counted(node);
            (node.primary_end, node.proof_us) = (None, None);
        });
        assert!(!restarted.contains("in sync"), "{restarted}");
    }
}

//! The fields of `db2pd -hadr` that apply, under their names (design §9). Times have the suffix
//! `_US`, in microseconds; moments are by the wall clock of whoever wrote the log.

use std::time::{Duration, SystemTime};

use hadrian_blockdev::journal::segment_name;
use hadrian_protocol::ids::Lsn;
use hadrian_protocol::node::{About, Loss, NodeStatus, PeerStatus, Standing, Why};
use serde_json::{Map, Value, json};

use super::words;
use crate::control::ResourceStatus;

/// One block of fields for each pair of primary and standby that this member is part of.
pub(super) fn blocks(status: &ResourceStatus) -> Vec<Fields> {
    let Some(node) = &status.node else { return Vec::new() };
    node.peers.iter().map(|peer| block(status, node, peer)).collect()
}

/// The blocks as `db2pd` prints them.
pub(super) fn screen(status: &ResourceStatus) -> String {
    let lines = blocks(status).into_iter().map(|block| {
        let lines = block.into_iter().map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_string);
            format!("{name:>32} = {value}")
        });
        lines.collect::<Vec<_>>().join("\n")
    });
    lines.collect::<Vec<_>>().join("\n\n")
}

type Fields = Map<String, Value>;

fn block(status: &ResourceStatus, node: &NodeStatus, peer: &PeerStatus) -> Fields {
    let leads = matches!(node.standing, Standing::Primary | Standing::HandingOver);
    let mut fields = Map::new();
    roles(&mut fields, status, node, peer, leads);
    link(&mut fields, node, peer);
    waits(&mut fields, node);
    positions(&mut fields, status, node, peer, leads);
    gaps(&mut fields, node, peer, leads);
    spool(&mut fields, node, peer, leads);
    forecast(&mut fields, node, peer);
    fields
}

fn put(fields: &mut Fields, name: &str, value: impl Into<Value>) {
    fields.insert(name.into(), value.into());
}

fn roles(
    fields: &mut Fields,
    status: &ResourceStatus,
    node: &NodeStatus,
    peer: &PeerStatus,
    leads: bool,
) {
    let state = if leads { peer.state } else { node.state };
    put(fields, "HADR_ROLE", if leads { "PRIMARY" } else { "STANDBY" });
    put(fields, "HADR_SYNCMODE", node.mode.name().to_uppercase());
    put(fields, "HADR_STATE", state.map_or("UNKNOWN".into(), |s| words::state(s).to_uppercase()));
    // What db2pd shows there and a pair of members has: that the standby takes no more.
    let blocked = node.reasons.iter().any(|reason| {
        reason.about == About::Behind && matches!(reason.why, Why::SpoolFull { .. } | Why::LogFull)
    });
    put(fields, "HADR_FLAGS", if blocked { "STANDBY_RECV_BLOCKED" } else { "" });
    put(fields, "MEMBER", status.member.clone());
    put(fields, "OTHER_MEMBER", words::name(status, peer.member));
}

fn link(fields: &mut Fields, node: &NodeStatus, peer: &PeerStatus) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let since = now.saturating_sub(Duration::from_micros(peer.connection_us));
    put(fields, "HADR_CONNECT_STATUS", words::connection(peer.connection).to_uppercase());
    put(fields, "HADR_CONNECT_STATUS_TIME", moment(u64::try_from(since.as_micros()).ok()));
    put(fields, "HADR_CONNECT_STATUS_AGE_US", peer.connection_us);
    put(fields, "HEARTBEAT_INTERVAL_US", node.heartbeat_us);
    put(fields, "HEARTBEAT_MISSED", peer.heartbeats_missed);
    put(fields, "HADR_TIMEOUT_US", node.settings.timeout_us);
    put(fields, "TIME_SINCE_LAST_RECV_US", peer.silent_us);
}

fn waits(fields: &mut Fields, node: &NodeStatus) {
    put(fields, "PEER_WAIT_LIMIT_US", node.settings.peer_wait_limit_us);
    put(fields, "LOG_HADR_WAIT_CUR_US", node.waits.current_us);
    put(fields, "LOG_HADR_WAIT_RECENT_AVG_US", node.waits.recent_us);
    put(fields, "LOG_HADR_WAIT_ACCUMULATED_US", node.waits.total_us);
    put(fields, "LOG_HADR_WAIT_COUNT", node.waits.count);
}

/// As in DB2, each field tells of whoever has the role, as far as this member knows.
fn positions(
    fields: &mut Fields,
    status: &ResourceStatus,
    node: &NodeStatus,
    peer: &PeerStatus,
    leads: bool,
) {
    let segment = status.segment_bytes;
    let replayed = node.unapplied_wall_us.or(node.log_wall_us);
    let (primary, received, applied) = if leads {
        let received = (peer.received, peer.received_wall_us);
        ((Some(node.end), node.log_wall_us), received, (peer.applied, peer.applied_wall_us))
    } else {
        // The primary tells its end, and when that was written only together with the frames.
        let known = node.log_wall_us.filter(|_| node.log_gap.bytes == 0);
        let received = (Some(node.end), node.log_wall_us);
        ((node.primary_end, known), received, (Some(node.applied), replayed))
    };
    let of = [("PRIMARY_LOG", primary), ("STANDBY_LOG", received)];
    for (name, (lsn, wall)) in of.into_iter().chain([("STANDBY_REPLAY_LOG", applied)]) {
        put(fields, &format!("{name}_POS"), position(lsn, segment));
        put(fields, &format!("{name}_TIME"), moment(wall));
    }
}

/// DB2's gaps are running averages; the current ones stand beside them.
fn gaps(fields: &mut Fields, node: &NodeStatus, peer: &PeerStatus, leads: bool) {
    let log = if leads { peer.log_gap } else { Some(node.log_gap) };
    let replay = if leads { peer.replay_gap } else { Some(node.replay_gap) };
    for (name, gap) in [("HADR_LOG_GAP", log), ("STANDBY_RECV_REPLAY_GAP", replay)] {
        put(fields, name, gap.map(|gap| gap.average_bytes));
        put(fields, &format!("{name}_AVG_US"), gap.map(|gap| gap.average_us));
        put(fields, &format!("{name}_CUR"), gap.map(|gap| gap.bytes));
        put(fields, &format!("{name}_CUR_US"), gap.map(|gap| gap.us));
    }
}

fn spool(fields: &mut Fields, node: &NodeStatus, peer: &PeerStatus, leads: bool) {
    let replay = if leads { peer.replay_gap } else { Some(node.replay_gap) };
    let limit = node.settings.spool_limit.filter(|limit| *limit > 0);
    let percent = limit.zip(replay).map(|(limit, gap)| gap.bytes.saturating_mul(100) / limit);
    put(fields, "STANDBY_SPOOL_LIMIT", limit);
    put(fields, "STANDBY_SPOOL_PERCENT", percent);
    put(fields, "STANDBY_REPLAY_DELAY_US", node.settings.replay_delay_us);
}

/// What a failure now would mean. DB2 shows the window only; the rest is ours.
fn forecast(fields: &mut Fields, node: &NodeStatus, peer: &PeerStatus) {
    let left = peer.window_us.or(node.proof_us);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let end = left.and_then(|us| u64::try_from((now + Duration::from_micros(us)).as_micros()).ok());
    put(fields, "PEER_WINDOW_US", node.settings.peer_window_us);
    put(fields, "PEER_WINDOW_END", moment(end));
    put(fields, "PEER_WINDOW_LEFT_US", left);
    let (kind, bytes, us) = match node.loss {
        None => (None, None, None),
        Some(Loss::Nothing) => (Some("NOTHING"), Some(0), Some(0)),
        Some(Loss::AtMost { bytes, us }) => (Some("AT_MOST"), Some(bytes), Some(us)),
        Some(Loss::Everything) => (Some("EVERYTHING"), None, None),
    };
    put(fields, "LOSS_OF_PRIMARY", kind);
    put(fields, "LOSS_OF_PRIMARY_BYTES", bytes);
    put(fields, "LOSS_OF_PRIMARY_US", us);
    put(fields, "TAKEOVER_ESTIMATE_US", node.takeover_us);
}

/// A moment by a wall clock, from microseconds since 1970.
fn moment(wall_us: Option<u64>) -> Option<String> {
    wall_us.map(|us| humantime::format_rfc3339_millis(words::moment(us)).to_string())
}

/// File, offset in it, and LSN.
fn position(lsn: Option<Lsn>, segment_bytes: Option<u64>) -> Value {
    let (Some(lsn), Some(segment)) = (lsn, segment_bytes.filter(|bytes| *bytes > 0)) else {
        return lsn.map_or(Value::Null, |lsn| json!(lsn.to_string()));
    };
    let first = Lsn::new(lsn.get() / segment * segment);
    json!(format!("{}, {}, {lsn}", segment_name(first), lsn.since(first)))
}

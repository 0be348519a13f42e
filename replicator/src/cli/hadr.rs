//! The fields of `db2pd -hadr` that apply, under their names (design §9).

use hadrian_blockdev::journal::segment_name;
use hadrian_protocol::ids::Lsn;
use hadrian_protocol::node::{NodeStatus, PeerStatus, Standing};
use serde_json::{Map, Value, json};

use super::words;
use crate::control::ResourceStatus;

/// One block of fields for each pair of primary and standby that this member is part of.
pub(super) fn blocks(status: &ResourceStatus) -> Vec<Map<String, Value>> {
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

fn block(status: &ResourceStatus, node: &NodeStatus, peer: &PeerStatus) -> Map<String, Value> {
    let leads = matches!(node.standing, Standing::Primary | Standing::HandingOver);
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.into(), value);
    let role = if leads { "PRIMARY" } else { "STANDBY" };
    let state = if leads { peer.state } else { node.state };
    put("HADR_ROLE", json!(role));
    put("HADR_SYNCMODE", json!(node.mode.name().to_uppercase()));
    put("HADR_STATE", json!(state.map_or("UNKNOWN".into(), |s| words::state(s).to_uppercase())));
    put("MEMBER", json!(status.member));
    put("OTHER_MEMBER", json!(words::name(status, peer.member)));
    put("HADR_CONNECT_STATUS", json!(words::connection(peer.connection).to_uppercase()));
    put("HADR_CONNECT_STATUS_AGE_US", json!(peer.connection_us));
    put("HEARTBEAT_INTERVAL_US", json!(node.heartbeat_us));
    put("HEARTBEAT_MISSED", json!(peer.heartbeats_missed));
    put("TIME_SINCE_LAST_RECV_US", json!(peer.silent_us));
    put("LOG_HADR_WAIT_CUR_US", json!(node.waits.current_us));
    put("LOG_HADR_WAIT_RECENT_AVG_US", json!(node.waits.recent_us));
    put("LOG_HADR_WAIT_ACCUMULATED_US", json!(node.waits.total_us));
    put("LOG_HADR_WAIT_COUNT", json!(node.waits.count));
    let primary_end = if leads { Some(node.end) } else { node.primary_end };
    let received = if leads { peer.received } else { Some(node.end) };
    let applied = if leads { peer.applied } else { Some(node.applied) };
    put("PRIMARY_LOG_POS", position(primary_end, status.segment_bytes));
    put("STANDBY_LOG_POS", position(received, status.segment_bytes));
    put("STANDBY_REPLAY_LOG_POS", position(applied, status.segment_bytes));
    let gap = primary_end.zip(received).map(|(end, received)| end.since(received));
    put("HADR_LOG_GAP", json!(gap));
    put("HADR_LOG_GAP_AVG", json!(peer.log_gap.map(|gap| gap.average_bytes)));
    put("HADR_LOG_GAP_US", json!(peer.log_gap.map(|gap| gap.us)));
    let replay = if leads { peer.replay_gap } else { Some(node.replay_gap) };
    put("STANDBY_RECV_REPLAY_GAP", json!(replay.map(|gap| gap.bytes)));
    put("STANDBY_RECV_REPLAY_GAP_AVG", json!(replay.map(|gap| gap.average_bytes)));
    put("STANDBY_RECV_REPLAY_GAP_US", json!(replay.map(|gap| gap.us)));
    put("LOG_TIME_US", json!(node.log_wall_us));
    put("PEER_WINDOW_LEFT_US", json!(peer.window_us.or(node.proof_us)));
    fields
}

/// File, offset in it, and LSN.
fn position(lsn: Option<Lsn>, segment_bytes: Option<u64>) -> Value {
    let (Some(lsn), Some(segment)) = (lsn, segment_bytes.filter(|bytes| *bytes > 0)) else {
        return lsn.map_or(Value::Null, |lsn| json!(lsn.to_string()));
    };
    let first = Lsn::new(lsn.get() / segment * segment);
    json!(format!("{}, {}, {lsn}", segment_name(first), lsn.since(first)))
}

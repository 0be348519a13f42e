//! Figures and states in words.

use std::time::{Duration, SystemTime};

use hadrian_protocol::divergence::{Changed, Divergence};
use hadrian_protocol::ids::MemberId;
use hadrian_protocol::marks::watch::Sight;
use hadrian_protocol::node::{
    Connection, Gap, Loss, NodeStatus, StandbyState, Standing, TakeoverPhase, VerifyState,
    VerifyStatus,
};
use hadrian_protocol::replica::{Found, Verified};
use hadrian_protocol::resync::CopyProgress;
use hadrian_protocol::time::WallTime;

use crate::companions::Kept;
use crate::control::{
    CompanionsStatus, FencingStatus, QuarantineStatus, ResourceStatus, SeedState, SeedStatus,
};
use crate::driver::CopyStatus;

/// Ranges of a divergence that are shown to people.
const RANGES_SHOWN: usize = 20;

/// A moment by somebody's wall clock, from microseconds since 1970-01-01 UTC.
pub(super) fn moment(wall_us: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(wall_us)
}

/// Microseconds as a person would say them.
pub(super) fn time(us: u64) -> String {
    let time = Duration::from_micros(us);
    let rounded = match us {
        0..=999 => time,
        1_000..=999_999 => Duration::from_millis(us / 1_000),
        1_000_000..=59_999_999 => Duration::from_millis(us / 100_000 * 100),
        _ => Duration::from_secs(us / 1_000_000),
    };
    humantime::format_duration(rounded).to_string()
}

/// Bytes as a person would say them.
pub(super) fn bytes(bytes: u64) -> String {
    bytesize::ByteSize(bytes).to_string()
}

/// A count of things, of which several have an s.
pub(super) fn count(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// What was set aside, and how to look at it.
pub(super) fn quarantine(kept: QuarantineStatus, resource: &str) -> String {
    let (files, bytes) = (count(kept.files, "file"), bytes(kept.bytes));
    format!("{files} of {bytes} (hadrian quarantine list {resource})")
}

/// The name of a member.
pub(super) fn name(status: &ResourceStatus, id: MemberId) -> &str {
    status.members.get(usize::from(id.index())).map_or("?", String::as_str)
}

/// A gap in bytes and in time, and its average over the last minute where that says more.
pub(super) fn gap(gap: Gap) -> String {
    let now = match gap.bytes {
        0 => "0".into(),
        some => format!("{} ({})", bytes(some), time(gap.us)),
    };
    match (gap.average_bytes, gap.average_us) {
        (0, 0) => now,
        (some, us) => format!("{now}, on average {} ({})", bytes(some), time(us)),
    }
}

/// The state of a standby, under HADR's name.
pub(super) const fn state(state: StandbyState) -> &'static str {
    match state {
        StandbyState::LocalCatchup => "local_catchup",
        StandbyState::RemoteCatchupPending => "remote_catchup_pending",
        StandbyState::RemoteCatchup => "remote_catchup",
        StandbyState::Peer => "peer",
        StandbyState::DisconnectedPeer => "disconnected_peer",
        StandbyState::Resync => "resync",
    }
}

/// The state of a connection, under HADR's name.
pub(super) const fn connection(connection: Connection) -> &'static str {
    match connection {
        Connection::Connected => "connected",
        Connection::Congested => "congested",
        Connection::Disconnected => "disconnected",
    }
}

/// How far a resync is, with its rate and what is left of it.
pub(super) fn copies(copies: &CopyStatus) -> String {
    progress(copies.progress, copies.since_us)
}

fn progress(progress: CopyProgress, since_us: u64) -> String {
    let CopyProgress { total, done, copied, sent } = progress;
    let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100).min(100);
    let rate = u128::from(done) * 1_000_000 / u128::from(since_us.max(1));
    let rate = u64::try_from(rate).unwrap_or(u64::MAX);
    let left = total.saturating_sub(done).saturating_mul(1_000_000).checked_div(rate);
    let left = left.map_or(String::new(), |us| format!(", about {} left", time(us)));
    let (total, copied, sent, rate) = (bytes(total), bytes(copied), bytes(sent), bytes(rate));
    format!("{percent} % of {total} looked at, {copied} differ, {sent} sent; {rate}/s{left}")
}

/// How far the export of a seed is, or how the last one ended.
pub(super) fn seed(seed: &SeedStatus) -> String {
    let path = seed.path.display();
    match &seed.state {
        SeedState::Running => {
            let progress = progress(seed.progress, seed.took_us);
            format!("{progress}; to {path}")
        }
        SeedState::Done { lsn, bytes } => {
            format!("the image as of {lsn} is in {path}, {}", self::bytes(*bytes))
        }
        SeedState::Failed { why } => format!("no seed was written: {why}"),
    }
}

/// What a comparison has found, or how far it is.
pub(super) fn verify(status: &ResourceStatus, verify: &VerifyStatus) -> String {
    let who = name(status, verify.member);
    let found = match verify.differs.iter().map(|range| range.end - range.start).sum() {
        0 => "no difference".into(),
        some => match verify.right {
            None => format!("{} differ", bytes(some)),
            Some(right) => {
                let (repaired, right) = (bytes(verify.repaired), name(status, right));
                format!("{} differed, {repaired} repaired from {right}", bytes(some))
            }
        },
    };
    let (done, total) = (bytes(verify.done), bytes(verify.total));
    match verify.state {
        VerifyState::Running => format!("with {who}: {done} of {total} compared, {found} so far"),
        VerifyState::Done => format!("with {who}: {total} compared, {found}"),
        VerifyState::CutShort => {
            format!("with {who}: cut short after {done} of {total}, {found}; begin it again")
        }
    }
}

/// Where the bytes are that a repair has replaced.
pub(super) fn where_kept(status: &ResourceStatus, verify: &VerifyStatus) -> Option<String> {
    let right = verify.right.filter(|_| verify.repaired > 0)?;
    let here = status.member.as_str();
    let wrong = if name(status, right) == here { name(status, verify.member) } else { here };
    let resource = &status.resource;
    Some(format!("what {wrong} held there is kept on it: hadrian quarantine list {resource}"))
}

/// When the images were last compared, and when they will be; none: never, and nobody wants it.
pub(super) fn verified(status: &ResourceStatus, node: &NodeStatus) -> Vec<(String, String)> {
    let line = |last: &Verified| {
        let found = match last.found {
            None => "not yet".to_owned(),
            Some(Found { ended_us, differs, repaired }) => {
                let when = humantime::format_rfc3339_seconds(moment(ended_us));
                match (differs, repaired) {
                    (0, _) => format!("{when}, no difference"),
                    (some, 0) => format!("{when}, {} differ", bytes(some)),
                    (some, _) => {
                        format!("{when}, {} differed, {} repaired", bytes(some), bytes(repaired))
                    }
                }
            }
        };
        let next = node.verify_plan.map_or(String::new(), |plan| {
            let every = humantime::format_duration(plan.every);
            let at = plan.at.map_or(String::new(), |at| {
                let minutes = at.as_secs() / 60;
                format!(" at {:02}:{:02} UTC", minutes / 60, minutes % 60)
            });
            format!("; every {every}{at}")
        });
        (format!("last verify of {}", name(status, last.member)), found + &next)
    };
    node.verified.iter().map(line).collect()
}

/// Ranges that differ, one line each.
pub(super) fn differing(verify: &VerifyStatus) -> Vec<String> {
    let line = |range: &Changed| {
        let (len, volume) = (range.end - range.start, range.volume.index());
        format!("volume {volume}: {len} bytes at offset {}", range.start)
    };
    let mut lines: Vec<_> = verify.differs.iter().map(line).collect();
    if verify.differs_more {
        lines.push("and more, which is not listed".into());
    }
    lines
}

/// The part that a member plays.
pub(super) fn standing(status: &ResourceStatus, node: &NodeStatus) -> String {
    let takeover = node.takeover.as_ref().map(|phase| self::phase(status, phase));
    let takeover = takeover.map_or(String::new(), |phase| format!("; {phase}"));
    match &node.standing {
        Standing::Starting => "starting".into(),
        Standing::Standby => {
            format!("standby, {}{takeover}", node.state.map_or("?", state))
        }
        Standing::StartGate(wait) => {
            let who: Vec<_> = wait.iter().map(|id| name(status, *id)).collect();
            format!("waits for {} (way out: start --primary --force)", who.join(", "))
        }
        Standing::TakingOver => format!("taking over{takeover}"),
        Standing::Primary => "primary".into(),
        Standing::HandingOver => format!("handing over{takeover}"),
        Standing::Failed(part) => format!("failed ({}); see the log of hadriand", part.name()),
        Standing::Diverged(fork) => {
            format!("diverged at {fork}; nothing was discarded; the way back: hadrian rejoin")
        }
        Standing::Stopping => "stopping".into(),
    }
}

fn phase(status: &ResourceStatus, phase: &TakeoverPhase) -> String {
    match phase {
        TakeoverPhase::CatchingUp { bytes: some } => {
            format!("takeover: catching up, lacks {}", bytes(*some))
        }
        TakeoverPhase::Asked => "takeover: the primary was asked".into(),
        TakeoverPhase::Holding => "clients are held".into(),
        TakeoverPhase::Draining { bytes: some } => {
            format!("clients are held, {} to drain", bytes(*some))
        }
        TakeoverPhase::Releasing => "no way back any more".into(),
        TakeoverPhase::Promises(members) => {
            let who: Vec<_> = members.iter().map(|id| name(status, *id)).collect();
            format!("waits for the promise of {}", who.join(", "))
        }
        TakeoverPhase::Fetching(member) => format!("fetches from {}", name(status, *member)),
        TakeoverPhase::Deciding => "the log becomes durable".into(),
        TakeoverPhase::Beginning => "the epoch begins".into(),
    }
}

/// The line for 3 a.m.: what a failure of this primary would lose, and how long the takeover would
/// take; on a standby, whether a takeover is safe.
pub(super) fn failure(node: &NodeStatus) -> String {
    let takeover = node
        .takeover_us
        .map_or(String::new(), |us| format!("; a takeover takes about {}", time(us)));
    match (node.loss, node.proof_us) {
        (Some(Loss::Nothing), _) => {
            format!("of this primary now would lose no answered write{takeover}")
        }
        (Some(Loss::AtMost { bytes: some, us }), _) => {
            let (some, us) = (bytes(some), time(us));
            format!("of this primary now would lose up to {some} of log, {us} of work{takeover}")
        }
        (Some(Loss::Everything), _) => {
            "of this primary now would lose everything: no standby was heard yet".into()
        }
        (None, _) if node.record.is_some() => by_record(node, &takeover),
        (None, Some(us)) if us > 0 => {
            let us = time(us);
            format!(
                "of the primary now: takeover --peer-window-only loses nothing for {us}{takeover}"
            )
        }
        (None, _) => format!("of the primary: what it would lose is seen there{takeover}"),
    }
}

/// With a control record it is known at any time what a standby is worth.
fn by_record(node: &NodeStatus, takeover: &str) -> String {
    let in_sync = node.record.as_ref().map(|record| &record.in_sync);
    match in_sync.is_some_and(|in_sync| in_sync.contains(&node.member)) {
        true => format!(
            "of the primary now would lose no answered write: the record has this standby in sync, \
             and gives it the resource when the primary's lease is over{takeover}"
        ),
        false => format!(
            "of the primary: the record does not have this standby in sync, so a takeover needs \
             --override and may lose writes{takeover}"
        ),
    }
}

/// What a return to the primary's history would lose, and when it was written.
pub(super) fn divergence(found: &Divergence) -> String {
    let (changed, count) = (bytes(found.changed_bytes()), found.ranges().len());
    let (first, last) =
        (wall_time(found.first.unwrap_or_default()), wall_time(found.last.unwrap_or_default()));
    let rest = if found.to < found.end { "; not all of it was read yet" } else { "" };
    format!("would lose {changed} in {count} ranges, written from {first} to {last}{rest}")
}

/// The companion files: how they are, and what somebody has to look at.
pub(super) fn companions(found: &CompanionsStatus) -> Vec<String> {
    let files = match found.files {
        1 => "1 file".to_owned(),
        count => format!("{count} files"),
    };
    let mut lines = vec![match found.generation {
        0 => files,
        number => format!("{files}, set {number}"),
    }];
    let kept = found.kept.iter().map(|Kept { path, copy }| {
        format!("what this host had in {} is in {}", path.display(), copy.display())
    });
    lines.extend(kept);
    lines.extend(found.troubles.iter().map(ToString::to_string));
    lines
}

/// A wall time as people write it down.
pub(super) fn wall_time(wall: WallTime) -> String {
    humantime::format_rfc3339_seconds(moment(wall.as_micros())).to_string()
}

/// Each range of it, in a line.
pub(super) fn divergent_ranges(status: &ResourceStatus, found: &Divergence) -> Vec<String> {
    let line = |range: &Changed| {
        let export = status.exports.get(usize::from(range.volume.index()));
        let (name, start) = (export.map_or("?", String::as_str), range.start);
        format!("  {name}: {} at {start}", bytes(range.end - start))
    };
    let mut lines: Vec<_> = found.ranges().iter().take(RANGES_SHOWN).map(line).collect();
    let more = found.ranges().len().saturating_sub(RANGES_SHOWN);
    if more > 0 {
        lines.push(format!("  and {more} more; status --json has them all"));
    }
    lines
}

/// What keeps two members from being primary.
pub(super) fn fencing(fencing: &FencingStatus) -> String {
    let FencingStatus::Marks { lease_us, members, markers, trouble } = fencing else {
        return "none, as configured: after a forced takeover two members could be primary".into();
    };
    let lease = match (trouble, lease_us) {
        (Some(trouble), _) => return format!("no lease: {trouble}"),
        (None, Some(us)) => format!("lease for {} more", time(*us)),
        (None, None) => "no lease".to_owned(),
    };
    let others = members.iter().map(|(name, sight)| format!("{name} {}", sight.name()));
    let bad = markers
        .iter()
        .filter_map(|(place, wrong)| wrong.as_ref().map(|wrong| format!("{place}: {wrong}")));
    let marks = match markers.len() {
        1 => "1 marker".to_owned(),
        count => format!("{count} markers"),
    };
    let parts = std::iter::once(lease).chain(others).chain([marks]).chain(bad);
    parts.collect::<Vec<_>>().join(", ")
}

/// Members that are connected and keep no lease that is seen here: they may not reach the marks, or
/// mean others by them.
pub(super) fn unseen<'a>(
    status: &'a ResourceStatus,
    node: &NodeStatus,
    fencing: &FencingStatus,
) -> Vec<&'a str> {
    let FencingStatus::Marks { lease_us: Some(_), members, .. } = fencing else {
        return Vec::new();
    };
    let is_seen = |name: &str| {
        let sight = members.iter().find(|(other, _)| other == name);
        // Of one that was not watched for long enough nothing is known.
        sight.is_some_and(|(_, sight)| matches!(sight, Sight::Live | Sight::Late | Sight::Unknown))
    };
    let connected = node.peers.iter().filter(|peer| peer.connected);
    let names = connected.map(|peer| name(status, peer.member));
    names.filter(|name| !is_seen(name)).collect()
}

//! What a forced takeover loses in the modes that may lose something: at most the gap that `status`
//! showed, and always the newest writes only (design §3, I5).

use hadrian_protocol::replica::Mode;
use hadrian_tests::tools::programs;
use hadrian_tests::{Cluster, Side, Spec};
use rustix::process::Signal;

const BLOCK: usize = 4096;

fn block_of(stamp: u64) -> Vec<u8> {
    stamp.to_le_bytes().repeat(BLOCK / 8)
}

/// Block `n` is the `n`th write. How many of `count` the new primary has; they must be the first.
fn kept_prefix(cluster: &Cluster, count: u64) -> u64 {
    let mut client = cluster.client(Side::Beta).unwrap();
    let mut holds = |n: u64| client.read(n * BLOCK as u64, BLOCK).unwrap() == block_of(n + 1);
    let kept: Vec<bool> = (0..count).map(&mut holds).collect();
    let prefix = kept.iter().take_while(|held| **held).count();
    assert!(kept[prefix..].iter().all(|held| !held), "a later write without an earlier one");
    prefix as u64
}

/// The standby stands still, so that a gap grows; then the primary is gone. How many writes there
/// were, and how many the new primary has.
fn lose_the_gap(mode: Mode, before: u64, behind: u64) -> (Cluster, u64, u64) {
    let mut cluster = Cluster::new(&programs(), Spec::new(mode)).unwrap();
    let mut client = cluster.client(Side::Alpha).unwrap();
    let mut write = |n: u64| client.write(n * BLOCK as u64, &block_of(n + 1)).unwrap();
    (0..before).for_each(&mut write);
    cluster.await_applied(Side::Alpha).unwrap();
    cluster.signal(Side::Beta, Signal::STOP).unwrap();
    (before..before + behind).for_each(&mut write);
    let shown = cluster.status(Side::Alpha).and_then(|status| status.node).unwrap();
    let gap = shown.end.since(shown.peers[0].received.unwrap());
    assert!(gap >= behind * BLOCK as u64, "{behind} writes, but the gap shown is {gap} bytes");
    cluster.kill(Side::Alpha).unwrap();
    cluster.signal(Side::Beta, Signal::CONT).unwrap();

    cluster.tool(Side::Beta, &["takeover", "db", "--force", "--yes"]).unwrap();
    let kept = kept_prefix(&cluster, before + behind);
    assert!(kept >= before, "what had arrived is there: {kept} of {before}");
    let lost = (before + behind - kept) * BLOCK as u64;
    assert!(lost <= gap, "{lost} bytes lost, but the gap shown was {gap}");

    (cluster, before + behind, kept)
}

#[test]
fn in_async_a_takeover_loses_at_most_the_gap_and_the_old_primary_comes_back_as_a_standby() {
    // Few enough that the socket takes them: async waits until a write is handed to the connection.
    let (mut cluster, written, kept) = lose_the_gap(Mode::Async, 200, 20);
    cluster.start(Side::Alpha).unwrap();
    cluster.await_peer(Side::Beta).unwrap();
    assert_eq!(kept_prefix(&cluster, written), kept, "a lost write does not come back");
    cluster.await_applied(Side::Beta).unwrap();
    assert!(cluster.store(Side::Alpha).unwrap() == cluster.store(Side::Beta).unwrap());
}

#[test]
fn in_superasync_a_takeover_loses_at_most_the_gap_and_the_old_primary_says_where_they_parted() {
    let (mut cluster, written, kept) = lose_the_gap(Mode::Superasync, 200, 4000);
    assert!(kept < written, "more was written than any socket takes");
    // It has applied what nobody else has: nothing of that is discarded, and it does not go on.
    cluster.start(Side::Alpha).unwrap();
    cluster.await_status(Side::Alpha, "diverged").unwrap();
    assert_eq!(kept_prefix(&cluster, written), kept, "a lost write does not come back");
}

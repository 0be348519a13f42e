//! PostgreSQL over everything that can happen to the volume that it lives on (design §3, §6, §8).
//! Minutes long, and not part of `make test`: `make pg-test` runs it.
#![allow(clippy::print_stderr)] // A machine that cannot run it says so.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hadrian_protocol::replica::Mode;
use hadrian_tests::looks::images_are_equal;
use hadrian_tests::postgres::{Ledger, Stand, missing};
use hadrian_tests::tools::{alone, programs, run};
use hadrian_tests::{Cluster, Side, Spec};
use serde_json::Value;

/// Transactions of one client before and behind whatever happens; pgbench's come beside them.
const ROWS: u64 = 300;

/// Whether this machine has what the stories need.
fn is_possible() -> bool {
    let missing = missing();
    if let Some(reason) = &missing {
        eprintln!("not run: {reason}");
    }
    missing.is_none()
}

/// A pair in sync: what was answered is durable on both.
fn pair() -> Cluster {
    let (volume_bytes, log_bytes) = (1 << 30, 256 << 20);
    let spec = Spec { volume_bytes, log_bytes, block_size: 4096, ..Spec::new(Mode::Sync) };
    Cluster::new(&programs(), spec).unwrap()
}

/// A server that has just risen has every row that was answered, and its books balance.
fn nothing_is_missing(stand: &Stand, ledger: &Ledger) {
    let missing = ledger.missing(stand.server()).unwrap();
    let answered = ledger.answered().len();
    assert!(missing.is_empty(), "of {answered} answered rows these are lost: {missing:?}");
    stand.server().check_balances().unwrap();
}

/// Clients write on both before and behind what is done, and pgbench gets on, too.
fn under_load(stand: &Stand, what: impl FnOnce()) {
    let before = stand.server().transactions().unwrap();
    stand.load().await_rows(ROWS).unwrap();
    what();
    stand.load().await_rows(ROWS).unwrap();
    let after = stand.server().transactions().unwrap();
    assert!(after > before, "pgbench stands still at {after} transactions");
}

/// Both images are compared while clients write.
fn verify(cluster: &Cluster, primary: Side) {
    let found = cluster.tool(primary, &["verify", "db"]).unwrap();
    assert!(found.contains("no difference"), "{found}");
}

/// beta is lost, alpha answers alone, then alpha is lost and beta leads without its last rows: both
/// have written. The stand on beta, and what it lacks.
fn fork(cluster: &mut Cluster, stand: Stand, ledger: &Ledger) -> (Stand, BTreeSet<u64>) {
    let shared = ledger.answered();
    cluster.kill(Side::Beta).unwrap();
    stand.load().await_rows(ROWS).unwrap();
    cluster.kill(Side::Alpha).unwrap();
    drop(stand);
    cluster.start(Side::Beta).unwrap();
    cluster.await_status(Side::Beta, "standby").unwrap();
    let forced = ["takeover", "db", "--force", "--yes"];
    cluster.tool(Side::Beta, &forced).unwrap();
    let stand = Stand::rise(cluster, Side::Beta).unwrap();
    let lost = ledger.missing(stand.server()).unwrap();
    assert!(lost.is_disjoint(&shared), "beta had received these: {lost:?}");
    let (all, first) = (ledger.answered(), lost.first().copied().expect("alpha was alone"));
    assert!(all.range(first..).all(|row| lost.contains(row)), "the newest rows only: {lost:?}");
    stand.server().check_balances().unwrap();
    (stand, lost)
}

/// alpha comes back to beta's history, and what it alone had is set aside, whole.
fn rejoin(cluster: &mut Cluster) {
    cluster.start(Side::Alpha).unwrap();
    cluster.await_status(Side::Alpha, "diverged").unwrap();
    let shown = cluster.tool(Side::Alpha, &["rejoin", "db", "--dry-run"]).unwrap();
    assert!(shown.contains("iB"), "{shown}");
    cluster.tool(Side::Alpha, &["rejoin", "db", "--yes"]).unwrap();
    cluster.await_peer(Side::Beta).unwrap();
    let list = cluster.tool(Side::Alpha, &["quarantine", "list", "db", "--json"]).unwrap();
    let list: Vec<Value> = serde_json::from_str(&list).unwrap();
    for kind in ["frames", "blocks"] {
        let whole = |file: &Value| file["kind"] == kind && file["state"] == "whole";
        assert!(list.iter().any(whole), "no {kind} in {list:?}");
    }
}

#[test]
#[ignore = "takes minutes, and needs PostgreSQL: make pg-test"]
fn postgresql_lives_through_everything_that_happens_to_its_volume() {
    if !is_possible() {
        return;
    }
    let _alone = alone();
    let (began, ledger) = (Instant::now(), Ledger::default());
    let told = |what: &str| eprintln!("{:>5.1} s  {what}", began.elapsed().as_secs_f64());
    let mut cluster = pair();
    let mut stand = Stand::build(&cluster, Side::Alpha).unwrap();
    stand.work(&ledger).unwrap();
    told("clients work on alpha");

    // A new standby is seeded.
    under_load(&stand, || {
        cluster.make_anew(Side::Beta, &[]).unwrap();
        cluster.start(Side::Beta).unwrap();
        cluster.await_peer(Side::Alpha).unwrap();
    });
    told("beta is seeded");
    under_load(&stand, || verify(&cluster, Side::Alpha));
    told("both are equal");

    // A takeover as planned, but nobody has told the database of it.
    stand.load().await_rows(ROWS).unwrap();
    cluster.tool(Side::Beta, &["takeover", "db"]).unwrap();
    drop(stand);
    let mut stand = Stand::rise(&cluster, Side::Beta).unwrap();
    nothing_is_missing(&stand, &ledger);
    stand.work(&ledger).unwrap();
    cluster.await_peer(Side::Beta).unwrap();
    told("beta has taken over");

    // The primary is killed.
    stand.load().await_rows(ROWS).unwrap();
    cluster.kill(Side::Beta).unwrap();
    cluster.tool(Side::Alpha, &["takeover", "db", "--force", "--yes"]).unwrap();
    drop(stand);
    let mut stand = Stand::rise(&cluster, Side::Alpha).unwrap();
    nothing_is_missing(&stand, &ledger);
    stand.work(&ledger).unwrap();
    under_load(&stand, || {
        cluster.start(Side::Beta).unwrap();
        cluster.await_peer(Side::Alpha).unwrap();
    });
    told("beta was killed, alpha has taken over, beta is back");

    // Both write.
    let (mut stand, lost) = fork(&mut cluster, stand, &ledger);
    ledger.forget(&lost);
    stand.work(&ledger).unwrap();
    told("both have written");
    under_load(&stand, || rejoin(&mut cluster));
    told("alpha has come back");
    under_load(&stand, || verify(&cluster, Side::Beta));
    stand.rest().unwrap();
    nothing_is_missing(&stand, &ledger);
    stand.leave().unwrap();

    // In the end the replica that was replaced most often is the one that is looked at.
    cluster.tool(Side::Alpha, &["takeover", "db"]).unwrap();
    let stand = Stand::rise(&cluster, Side::Alpha).unwrap();
    nothing_is_missing(&stand, &ledger);
    stand.server().check_pages().unwrap();
    stand.leave().unwrap();
    cluster.await_peer(Side::Alpha).unwrap();
    verify(&cluster, Side::Alpha);
    images_are_equal(&cluster, Side::Alpha);
    let rows = ledger.answered().len();
    told(&format!("{rows} answered rows, none is missing, {} lost by the fork", lost.len()));
}

/// Mounts, loop devices and processes that have to do with a folder.
fn left_of(folder: &Path) -> Vec<String> {
    let folder = folder.to_string_lossy();
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let loops = run("losetup", &["--list", "--noheadings", "--output", "NAME,BACK-FILE"]);
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let command = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&command).replace('\0', " "))
    });
    let texts = mounts.lines().chain(loops.lines()).map(str::to_owned).chain(processes);
    texts.filter(|text| text.contains(&*folder)).collect()
}

#[test]
#[ignore = "needs PostgreSQL: make pg-test"]
fn a_story_that_fails_in_the_middle_leaves_nothing_behind() {
    if !is_possible() {
        return;
    }
    let _alone = alone();
    let mut folders = Vec::<PathBuf>::new();
    let failed = catch_unwind(AssertUnwindSafe(|| {
        let (mut cluster, ledger) = (pair(), Ledger::default());
        let mut stand = Stand::build(&cluster, Side::Alpha).unwrap();
        folders = stand.folders();
        stand.work(&ledger).unwrap();
        stand.load().await_rows(5).unwrap();
        assert!(folders.iter().all(|folder| !left_of(folder).is_empty()), "it was looked for");
        cluster.kill(Side::Alpha).unwrap();
        panic!("as a story that fails");
    }));
    let words = failed.unwrap_err().downcast_ref::<&str>().map(|words| (*words).to_owned());
    assert_eq!(words.as_deref(), Some("as a story that fails"));
    assert_eq!(folders.len(), 2);
    // The kernel takes a moment to let a device go.
    let deadline = Instant::now() + Duration::from_secs(20);
    for folder in folders {
        while !left_of(&folder).is_empty() {
            assert!(Instant::now() < deadline, "{:#?}", left_of(&folder));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

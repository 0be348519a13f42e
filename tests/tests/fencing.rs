//! A cluster with ownership marks fails over by itself, and never has two primaries.
//!
//! `HADRIAN_FENCE_ROUNDS` sets the number of random rounds, `HADRIAN_SEED` the seed of a failing
//! run.
#![allow(clippy::print_stdout)] // The closing line of a soak is its result.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hadrian_protocol::replica::Mode;
use hadrian_replicator::demo::{Cluster, MARKER_BYTES, Side, Spec};
use hadrian_tests::fencing::{self, Fault, Rounds, Story};
use hadrian_tests::tools::programs;
use hadrian_tests::ways::missing;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// Leases are short here, so each story has the machine for itself.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    // One that failed has left nothing behind.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// One fault of one side of a fresh pair; who leads then.
fn one(markers: usize, fault: Fault, side: Side) -> Option<Side> {
    if let Some(reason) = missing() {
        println!("{fault:?} is not tried: {reason}");
        return None;
    }
    let (programs, _alone) = (programs(), alone());
    let mut story = Story::begin(&programs, markers).unwrap();
    story.round(&mut StdRng::seed_from_u64(1), fault, side).unwrap();
    assert_eq!((story.outcome.lost, story.outcome.double_writers), (0, 0));
    Some(story.primary())
}

fn assert_moves(markers: usize, fault: Fault) {
    assert!(one(markers, fault, Side::Alpha).is_none_or(|leads| leads == Side::Beta));
}

fn assert_stays(markers: usize, fault: Fault, side: Side) {
    assert!(one(markers, fault, side).is_none_or(|leads| leads == Side::Alpha));
}

#[test]
fn a_primary_that_stands_still_past_its_lease_answers_nothing_when_it_goes_on() {
    assert_moves(1, Fault::StandsStill);
}

#[test]
fn a_primary_that_is_cut_off_from_everything_stops_before_the_other_starts() {
    assert_moves(3, Fault::CutOff);
}

#[test]
fn a_primary_that_loses_the_marks_alone_goes_on() {
    assert_stays(3, Fault::MarksHang, Side::Alpha);
}

#[test]
fn a_primary_that_loses_the_link_alone_goes_on_by_itself() {
    assert_stays(1, Fault::LinkCut, Side::Alpha);
}

#[test]
fn a_standby_that_is_cut_off_from_everything_takes_nothing_over() {
    assert_stays(1, Fault::CutOff, Side::Beta);
}

#[test]
fn no_fault_loses_an_answered_write_or_makes_two_writers() {
    if let Some(reason) = missing() {
        println!("fencing is not tried: {reason}");
        return;
    }
    let (rounds, seed) = (number("HADRIAN_FENCE_ROUNDS", 10), number("HADRIAN_SEED", 20_261_126));
    let (programs, _alone) = (programs(), alone());
    let mut total = fencing::Outcome::default();
    for (markers, rounds) in [(1, rounds / 2), (3, rounds - rounds / 2)] {
        // Each gets faults of its own.
        let seed = seed + u64::try_from(markers).unwrap();
        println!("markers={markers} rounds={rounds} seed={seed}");
        let outcome = fencing::run(&programs, Rounds { rounds, markers, seed }).unwrap();
        total.lost += outcome.lost;
        total.double_writers += outcome.double_writers;
        total.takeovers += outcome.takeovers;
        total.longest = total.longest.max(outcome.longest);
    }
    let fencing::Outcome { lost, double_writers, takeovers, longest, .. } = total;
    println!(
        "takeovers={takeovers} longest={longest:?} bound={:?}",
        fencing::TIMING.takeover_bound()
    );
    println!("rounds={rounds} lost={lost} double_writers={double_writers}");
    assert_eq!((lost, double_writers), (0, 0), "seed {seed}");
    assert!(rounds < 10 || takeovers > 0, "nobody ever took over, so nothing was shown");
}

/// A pair on this host with one marker, which both reach directly.
struct Pair {
    cluster: Cluster,
    _alone: MutexGuard<'static, ()>,
    _marker: tempfile::NamedTempFile,
}

fn pair(auto_takeover: bool) -> Pair {
    let (programs, _alone) = (programs(), alone());
    // Beside the build, where files can be read past the page cache.
    let marker = tempfile::NamedTempFile::new_in(&programs).unwrap();
    marker.as_file().set_len(MARKER_BYTES).unwrap();
    let settings = format!("auto_takeover = {auto_takeover}\n");
    let markers = vec![marker.path().to_owned()];
    let timers = Some((Duration::from_secs(1), Duration::from_secs(1)));
    let spec =
        Spec { markers, lease: fencing::TIMING, settings, timers, ..Spec::new(Mode::Nearsync) };
    Pair { cluster: Cluster::new(&programs, spec).unwrap(), _alone, _marker: marker }
}

impl Pair {
    /// What stands on the marker of the resource.
    fn record(&self) -> serde_json::Value {
        let shown = self.cluster.tool(Side::Alpha, &["mark", "show", "--json"]).unwrap();
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        shown[0]["resources"][0]["record"].clone()
    }

    fn owner(&self) -> u64 {
        self.record()["owner"]["member"].as_u64().unwrap()
    }

    fn write(&self, side: Side, byte: u8) {
        self.cluster.client(side).unwrap().write(0, &[byte; 4096]).unwrap();
    }

    fn assert_reads(&self, side: Side, byte: u8) {
        assert_eq!(self.cluster.client(side).unwrap().read(0, 4096).unwrap(), vec![byte; 4096]);
    }
}

#[test]
fn a_takeover_in_order_moves_the_record_and_loses_nothing() {
    let pair = pair(true);
    pair.write(Side::Alpha, 1);
    assert_eq!(pair.owner(), 0);
    pair.cluster.tool(Side::Beta, &["takeover", "db"]).unwrap();
    pair.assert_reads(Side::Beta, 1);
    assert_eq!(pair.owner(), 1);
    pair.cluster.await_peer(Side::Beta).unwrap();
    assert_eq!(pair.record()["in_sync"].as_array().unwrap().len(), 2);
}

#[test]
fn a_primary_that_is_killed_and_started_at_once_leads_again_in_a_new_epoch() {
    let mut pair = pair(false);
    pair.write(Side::Alpha, 2);
    let before = pair.record()["epoch"].as_u64().unwrap();
    pair.cluster.kill(Side::Alpha).unwrap();
    pair.cluster.start(Side::Alpha).unwrap();
    pair.assert_reads(Side::Alpha, 2);
    assert!(pair.record()["epoch"].as_u64().unwrap() > before);
    assert_eq!(pair.owner(), 0);
}

#[test]
fn a_daemon_that_stops_in_order_is_followed_at_once_and_not_after_its_lease() {
    let mut pair = pair(true);
    pair.write(Side::Alpha, 3);
    pair.cluster.terminate(Side::Alpha).unwrap();
    pair.assert_reads(Side::Beta, 3);
    let shown = pair.cluster.tool(Side::Beta, &["mark", "show"]).unwrap();
    assert!(shown.contains("down"), "{shown}");
}

#[test]
fn a_forced_takeover_is_refused_while_the_owner_may_serve_and_its_lease_is_shown() {
    let mut pair = pair(false);
    pair.write(Side::Alpha, 4);
    pair.cluster.await_status(Side::Alpha, "beta live").unwrap();
    pair.cluster.await_status(Side::Beta, "alpha live").unwrap();
    let status = pair.cluster.tool(Side::Alpha, &["status"]).unwrap();
    assert!(status.contains("lease for"), "{status}");
    pair.cluster.kill(Side::Alpha).unwrap();
    let force = ["takeover", "db", "--force", "--yes"];
    let refused = pair.cluster.tool(Side::Beta, &force).unwrap_err().to_string();
    assert!(refused.contains("--override"), "{refused}");
    pair.cluster.await_status(Side::Beta, "alpha over").unwrap();
    pair.cluster.tool(Side::Beta, &force).unwrap();
    pair.assert_reads(Side::Beta, 4);
}

#[test]
fn check_tells_of_markers_that_are_none_and_format_makes_them() {
    let pair = pair(false);
    let checked = pair.cluster.tool(Side::Alpha, &["check"]).unwrap();
    assert!(!checked.contains("no ownership marks"), "{checked}");
    let again = pair.cluster.tool(Side::Beta, &["mark", "format"]).unwrap();
    assert!(again.contains("a marker already; no resource was added"), "{again}");
}

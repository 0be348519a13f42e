//! Stories of standbys that receive far more than they may apply, and than they keep in memory.

mod telling;

use std::time::Duration;

use hadrian_protocol::node::Note;
use hadrian_sim::plan::Way;
use hadrian_sim::{Happening as H, MS, Plan, Report, SECOND};

use telling::*;

/// Bytes of frames in memory; a client writes as much in a few hundredths of a second.
const MEMORY: u64 = 24 << 10;

fn spooling(mut plan: Plan) -> Plan {
    plan.spool_memory = MEMORY;
    plan.replay_delay = Duration::from_millis(1500);
    plan
}

fn spooled(report: &Report) {
    assert!(report.most_spooled > 4 * MEMORY, "{} bytes in the log", report.most_spooled);
}

#[test]
fn a_delayed_standby_receives_what_its_memory_does_not_hold_and_holds_nobody_back() {
    tell(
        |plan| lasting(spooling(plan), 4 * SECOND),
        |report| {
            spooled(report);
            assert!(report.answered > 300, "clients go on: {}", report.answered);
            nothing_lost(report);
        },
    );
}

#[test]
fn a_takeover_serves_when_nothing_waits_in_the_log_alone_and_loses_nothing() {
    tell(
        |plan| {
            let plan = spooling(plan).with(2 * SECOND, H::Command(BETA, PLANNED));
            lasting(plan, 4 * SECOND)
        },
        |report| {
            spooled(report);
            assert_eq!(report.primary, Some(BETA));
            nothing_lost(report);
        },
    );
}

#[test]
fn a_standby_that_dies_with_a_full_spool_reads_it_from_its_log() {
    tell(
        |plan| {
            let plan = spooling(plan).with(2 * SECOND, H::PowerLoss(BETA));
            let plan = plan.with(2200 * MS, H::Start(BETA));
            let plan = plan.with(3 * SECOND, H::Command(BETA, PLANNED));
            lasting(plan, 5 * SECOND)
        },
        |report| {
            spooled(report);
            assert_eq!(report.primary, Some(BETA));
            nothing_lost(report);
        },
    );
}

#[test]
fn a_tail_that_is_cut_out_of_a_spool_comes_back_from_nowhere() {
    // Alpha appends alone, is killed, follows beta, and cuts what it never applied.
    for moment in 0..8 {
        tell(
            |plan| {
                let plan = spooling(plan).with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
                let plan = plan.with(1300 * MS, H::Kill(ALPHA));
                let plan = plan.with(2 * SECOND, H::Command(BETA, FORCE));
                let plan = plan.with(3 * SECOND, H::Heal(ALPHA, BETA));
                let plan = plan.with(3 * SECOND, H::Start(ALPHA));
                let at = 3001 * MS + moment * 300;
                let plan = plan.with(at, H::DiskHangs(ALPHA, 100 * MS));
                lasting(plan.with(4 * SECOND, H::Command(ALPHA, PLANNED)), 6 * SECOND)
            },
            |report| {
                assert!(noted(report, |note| matches!(note, Note::TailCut { .. })).is_some());
                nothing_lost(report);
            },
        );
    }
}

//! Stories of large changes that wait in the log while frames come.

mod telling;

use hadrian_protocol::node::Note;
use hadrian_protocol::replica::Mode;
use hadrian_sim::plan::Way;
use hadrian_sim::{Happening as H, MS, Plan, Report, SECOND};

use telling::*;

/// So much log may wait: a client writes as much in half a second.
const WAITS: u64 = 1 << 20;

fn waiting(mut plan: Plan) -> Plan {
    plan.wait_bytes = WAITS;
    plan.pace = 4 * MS;
    plan
}

/// Far more than is on its way anyway.
fn waited(report: &Report) {
    assert!(report.most_waited > WAITS / 4, "only {} bytes waited", report.most_waited);
}

#[test]
fn large_changes_wait_while_clients_write_and_everybody_reads_what_was_written() {
    tell(
        |plan| lasting(waiting(plan), 3 * SECOND),
        |report| {
            waited(report);
            nothing_lost(report);
        },
    );
}

#[test]
fn what_waits_on_both_sides_is_there_after_a_power_loss_of_both() {
    // That is what was flushed, which the oracle sees to.
    for mode in [Mode::Sync, Mode::Nearsync] {
        tell(
            |plan| {
                let plan = in_mode(waiting(plan), mode).with(SECOND, H::PowerLoss(BETA));
                let plan = plan.with(1020 * MS, H::PowerLoss(ALPHA));
                let plan = plan.with(1300 * MS, H::Start(ALPHA));
                let plan = plan.with(1300 * MS, H::Start(BETA));
                lasting(plan, 4 * SECOND)
            },
            waited,
        );
    }
}

#[test]
fn a_takeover_does_not_wait_for_what_waits_in_the_log_and_loses_nothing() {
    tell(
        |plan| {
            let plan = waiting(plan).with(SECOND, H::Command(BETA, PLANNED));
            let plan = plan.with(2 * SECOND, H::Kill(BETA));
            let plan = plan.with(2200 * MS, H::Command(ALPHA, FORCE));
            lasting(plan.with(3 * SECOND, H::Start(BETA)), 4 * SECOND)
        },
        |report| {
            waited(report);
            assert_eq!(report.primary, Some(ALPHA));
            nothing_lost(report);
        },
    );
}

#[test]
fn what_waited_in_front_of_a_tail_that_is_cut_is_brought_in_not_passed_over_for_the_tail() {
    // Alpha writes alone what covers earlier changes that still wait, and must take it back.
    for moment in 0..6 {
        tell(
            |plan| {
                let plan = waiting(plan).with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
                let plan = plan.with(1060 * MS + moment * 20 * MS, H::Kill(ALPHA));
                let plan = plan.with(2 * SECOND, H::Command(BETA, FORCE));
                let plan = plan.with(2500 * MS, H::Heal(ALPHA, BETA));
                lasting(plan.with(2500 * MS, H::Start(ALPHA)), 5 * SECOND)
            },
            |report| {
                waited(report);
                assert_eq!(report.primary, Some(BETA));
                assert!(noted(report, |note| matches!(note, Note::TailCut { .. })).is_some());
            },
        );
    }
}

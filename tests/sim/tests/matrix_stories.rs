//! Every mode against every fault: what the table of design §3 promises each of them. The oracle
//! holds every answer against it; here stands who serves in the end, and what must not be lost.

mod telling;

use hadrian_protocol::replica::Mode;
use hadrian_sim::plan::Way;
use hadrian_sim::{Happening as H, MS, Plan, Report, SECOND};

use telling::*;

const MODES: [Mode; 4] = [Mode::Sync, Mode::Nearsync, Mode::Async, Mode::Superasync];

/// Tells one story in every mode.
fn in_every_mode(story: impl Fn(Plan) -> Plan, check: impl Fn(Mode, &Report)) {
    for mode in MODES {
        tell(|plan| story(in_mode(plan, mode)), |report| check(mode, report));
    }
}

/// Alpha serves as before, and nothing is lost in any mode.
fn alpha_serves_and_nothing_is_lost(_: Mode, report: &Report) {
    assert_eq!(report.primary, Some(ALPHA));
    nothing_lost(report);
}

/// Beta serves; where the standby is waited for, nothing is lost.
fn beta_serves_and_the_gap_is_lost_at_most(mode: Mode, report: &Report) {
    assert_eq!(report.primary, Some(BETA));
    if mode.waits_for_standby() {
        nothing_lost(report);
    }
}

#[test]
fn in_every_mode_a_killed_primary_loses_nothing_by_its_restart() {
    in_every_mode(
        |plan| plan.with(SECOND, H::Kill(ALPHA)).with(1300 * MS, H::Start(ALPHA)),
        alpha_serves_and_nothing_is_lost,
    );
}

#[test]
fn in_every_mode_a_killed_standby_costs_no_answer() {
    in_every_mode(
        |plan| plan.with(SECOND, H::Kill(BETA)).with(1300 * MS, H::Start(BETA)),
        alpha_serves_and_nothing_is_lost,
    );
}

#[test]
fn in_every_mode_a_takeover_of_a_lost_primary_loses_what_it_had_shown_at_most() {
    in_every_mode(
        |plan| {
            let plan = plan.with(SECOND, H::PowerLoss(ALPHA));
            let plan = plan.with(1500 * MS, H::Command(BETA, FORCE));
            lasting(plan.with(2 * SECOND, H::Start(ALPHA)), 4 * SECOND)
        },
        beta_serves_and_the_gap_is_lost_at_most,
    );
}

#[test]
fn in_every_mode_a_primary_that_loses_power_beside_a_healthy_standby_comes_back() {
    in_every_mode(
        |plan| plan.with(SECOND, H::PowerLoss(ALPHA)).with(1300 * MS, H::Start(ALPHA)),
        |mode, report| {
            assert_eq!(report.primary, Some(ALPHA));
            if mode.waits_for_standby() {
                nothing_lost(report);
            }
        },
    );
}

#[test]
fn in_every_mode_a_power_loss_of_both_loses_no_commit() {
    in_every_mode(
        |plan| {
            let plan = plan.with(SECOND, H::PowerLossOfAll).with(1200 * MS, H::Start(BETA));
            plan.with(1300 * MS, H::Start(ALPHA))
        },
        |_, report| assert_eq!(report.primary, Some(ALPHA)),
    );
}

#[test]
fn in_every_mode_a_cut_link_loses_nothing() {
    in_every_mode(
        |plan| {
            let plan = plan.with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            lasting(plan.with(6 * SECOND, H::Heal(ALPHA, BETA)), 7 * SECOND)
        },
        alpha_serves_and_nothing_is_lost,
    );
}

#[test]
fn in_every_mode_a_link_that_works_one_way_loses_nothing() {
    for way in [Way::There, Way::Back] {
        in_every_mode(
            |plan| {
                let plan = plan.with(SECOND, H::Cut(ALPHA, BETA, way));
                lasting(plan.with(6 * SECOND, H::Heal(ALPHA, BETA)), 7 * SECOND)
            },
            alpha_serves_and_nothing_is_lost,
        );
    }
}

#[test]
fn in_every_mode_a_slow_link_loses_nothing() {
    in_every_mode(
        |plan| {
            let plan = plan.with(SECOND, H::Slow(ALPHA, BETA, 150 * MS));
            lasting(plan.with(3 * SECOND, H::Heal(ALPHA, BETA)), 4 * SECOND)
        },
        alpha_serves_and_nothing_is_lost,
    );
}

#[test]
fn in_every_mode_a_link_that_carries_less_than_clients_write_loses_nothing() {
    in_every_mode(
        |plan| {
            let plan = plan.with(SECOND, H::Narrow(ALPHA, BETA, 300));
            lasting(plan.with(4 * SECOND, H::Heal(ALPHA, BETA)), 5 * SECOND)
        },
        alpha_serves_and_nothing_is_lost,
    );
}

#[test]
fn in_every_mode_a_full_disk_of_the_standby_is_left_out_until_there_is_room() {
    in_every_mode(
        |plan| {
            let plan = plan.with(SECOND, H::DiskFills(BETA, 3));
            let plan = plan.with(2 * SECOND, H::DiskHasRoom(BETA)).with(2 * SECOND, H::Kill(BETA));
            lasting(plan.with(2100 * MS, H::Start(BETA)), 4 * SECOND)
        },
        alpha_serves_and_nothing_is_lost,
    );
}

#[test]
fn in_every_mode_a_failed_disk_of_the_primary_ends_its_service_and_the_standby_takes_over() {
    in_every_mode(
        |plan| {
            let plan = plan.with(SECOND, H::DiskFails(ALPHA, 3));
            let plan = plan.with(2 * SECOND, H::Command(BETA, FORCE));
            let plan = plan.with(3 * SECOND, H::Kill(ALPHA));
            lasting(plan.with(3100 * MS, H::Start(ALPHA)), 5 * SECOND)
        },
        beta_serves_and_the_gap_is_lost_at_most,
    );
}

#[test]
fn in_every_mode_a_disk_that_hangs_loses_nothing() {
    for host in [ALPHA, BETA] {
        in_every_mode(
            |plan| lasting(plan.with(SECOND, H::DiskHangs(host, 2 * SECOND)), 4 * SECOND),
            alpha_serves_and_nothing_is_lost,
        );
    }
}

#[test]
fn in_every_mode_a_read_that_fails_harms_nothing_else() {
    for host in [ALPHA, BETA] {
        in_every_mode(
            |plan| plan.with(SECOND, H::ReadFails(host, 1)).with(2 * SECOND, H::ReadFails(host, 3)),
            alpha_serves_and_nothing_is_lost,
        );
    }
}

#[test]
fn in_every_mode_wall_clocks_may_jump_by_an_hour() {
    for by in [-3600, 3600] {
        in_every_mode(
            |plan| {
                let plan = plan.with(SECOND, H::WallJumps(ALPHA, by));
                let plan = plan.with(1500 * MS, H::Kill(BETA)).with(1600 * MS, H::Start(BETA));
                plan.with(2 * SECOND, H::WallJumps(BETA, -by))
            },
            alpha_serves_and_nothing_is_lost,
        );
    }
}

#[test]
fn in_every_mode_whoever_stands_still_past_every_timer_loses_nothing() {
    for host in [ALPHA, BETA] {
        in_every_mode(
            |plan| lasting(plan.with(SECOND, H::Pause(host, 5 * SECOND)), 7 * SECOND),
            alpha_serves_and_nothing_is_lost,
        );
    }
}

#[test]
fn in_every_mode_a_planned_takeover_loses_nothing() {
    in_every_mode(
        |plan| plan.with(SECOND, H::Command(BETA, PLANNED)),
        |_, report| {
            assert_eq!(report.primary, Some(BETA));
            nothing_lost(report);
        },
    );
}

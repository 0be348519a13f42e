//! Named stories about slow standbys, modes, limits and everything that an operator may ask at a
//! bad moment (design §3, §4, §6.1).

mod telling;

use std::time::Duration;

use hadrian_protocol::node::{Command, Denied, Done, How, Limits, Note};
use hadrian_protocol::replica::Mode;
use hadrian_protocol::wire::Refusal;
use hadrian_sim::plan::Way;
use hadrian_sim::{Happening as H, MS, Plan, Report, SECOND, run};

use telling::*;

fn planned_within(max_quiesce: Duration, max_total: Duration) -> Command {
    let limits = Limits { max_quiesce, max_total };
    Command::Takeover { how: How::Planned(limits), test: false }
}

fn modes(report: &Report) -> Vec<(Mode, bool)> {
    let mode = |note: &Note| match note {
        Note::ModeChanged { to, by_policy, .. } => Some((*to, *by_policy)),
        _ => None,
    };
    report.notes.iter().filter_map(|(_, _, note)| mode(note)).collect()
}

#[test]
fn a_connected_standby_that_is_too_slow_is_dropped_and_comes_back() {
    tell(
        |mut plan| {
            plan.peer_wait_limit = Duration::from_millis(200);
            let plan = plan.with(SECOND, H::Slow(ALPHA, BETA, 400 * MS));
            lasting(plan.with(3 * SECOND, H::Heal(ALPHA, BETA)), 5 * SECOND)
        },
        |report| {
            assert!(noted(report, |note| matches!(note, Note::TooSlow(_))).is_some());
            nothing_lost(report);
        },
    );
}

#[test]
fn without_a_limit_answers_wait_for_a_slow_standby_as_long_as_it_is_there() {
    tell(
        |plan| {
            let plan = plan.with(SECOND, H::Slow(ALPHA, BETA, 400 * MS));
            lasting(plan.with(4 * SECOND, H::Heal(ALPHA, BETA)), 5 * SECOND)
        },
        |report| {
            assert_eq!(noted(report, |note| matches!(note, Note::TooSlow(_))), None);
            assert_eq!(noted(report, |note| matches!(note, Note::LeftOut(_))), None);
        },
    );
}

#[test]
fn the_policy_goes_to_a_weaker_mode_and_back() {
    tell(
        |mut plan| {
            plan.degrade = vec![Mode::Async];
            let plan = plan.with(SECOND, H::Slow(ALPHA, BETA, 600 * MS));
            lasting(plan.with(4 * SECOND, H::Heal(ALPHA, BETA)), 8 * SECOND)
        },
        |report| {
            assert_eq!(modes(report), [(Mode::Async, true), (Mode::Nearsync, true)]);
            nothing_lost(report);
        },
    );
}

#[test]
fn the_policy_is_off_unless_it_is_asked_for() {
    tell(
        |plan| {
            let plan = plan.with(SECOND, H::Slow(ALPHA, BETA, 600 * MS));
            lasting(plan.with(3 * SECOND, H::Heal(ALPHA, BETA)), 4 * SECOND)
        },
        |report| assert_eq!(modes(report), []),
    );
}

#[test]
fn a_delayed_standby_loses_nothing_when_it_takes_over() {
    for command in [FORCE, PLANNED] {
        tell(
            |mut plan| {
                plan.replay_delay = Duration::from_millis(800);
                if command == FORCE {
                    plan = plan.with(1900 * MS, H::Kill(ALPHA)).with(3 * SECOND, H::Start(ALPHA));
                }
                lasting(plan.with(2 * SECOND, H::Command(BETA, command)), 4 * SECOND)
            },
            |report| {
                assert_eq!(report.primary, Some(BETA));
                nothing_lost(report);
            },
        );
    }
}

#[test]
fn a_full_spool_slows_the_primary_and_drops_nobody() {
    tell(
        |mut plan| {
            plan.spool_limit = 64 << 10;
            (plan.clients, plan.pace) = (3, 2 * MS);
            lasting(plan.with(SECOND, H::DiskHangs(BETA, 700 * MS)), 3 * SECOND)
        },
        |report| {
            assert_eq!(noted(report, |note| matches!(note, Note::LeftOut(_))), None);
            nothing_lost(report);
        },
    );
}

#[test]
fn superasync_is_never_held_back_by_a_stopped_standby() {
    let answered = |troubled: bool| -> u64 {
        let of = |seed| {
            let plan = in_mode(Plan::quiet(seed), Mode::Superasync);
            let plan = lasting(plan, 8 * SECOND);
            let plan = if troubled { plan.with(SECOND, H::Pause(BETA, 6 * SECOND)) } else { plan };
            let report = run(&plan, false);
            assert_eq!(report.violation, None, "seed {seed}");
            assert_eq!(noted(&report, |note| matches!(note, Note::Holding(_))), None);
            report.answered
        };
        (0..TELLINGS).map(of).sum()
    };
    let (with, without) = (answered(true), answered(false));
    assert!(with * 100 > without * 95, "{with} answers with a stopped standby, {without} without");
}

#[test]
fn a_standby_in_superasync_catches_up_and_then_takes_over() {
    tell(
        |plan| in_mode(plan, Mode::Superasync).with(SECOND, H::Command(BETA, PLANNED)),
        |report| {
            assert!(matches!(report.replies[0], (BETA, Ok(Done::Leading(_)))));
            assert_eq!(report.primary, Some(BETA));
            nothing_lost(report);
        },
    );
}

#[test]
fn a_standby_that_is_still_catching_up_takes_over_when_it_has_everything() {
    tell(
        |plan| {
            let plan = plan.with(SECOND, H::Kill(BETA)).with(2 * SECOND, H::Start(BETA));
            lasting(plan.with(2100 * MS, H::Command(BETA, PLANNED)), 4 * SECOND)
        },
        |report| {
            let (_, reply) = report.replies[0];
            assert!(matches!(reply, Ok(_) | Err(Denied::NotFollowing)), "{reply:?}");
            nothing_lost(report);
        },
    );
}

#[test]
fn a_takeover_that_cannot_catch_up_in_time_leaves_the_old_primary_as_it_was() {
    tell(
        |plan| {
            let plan = in_mode(plan, Mode::Superasync);
            let plan = plan.with(SECOND, H::Slow(ALPHA, BETA, 600 * MS));
            let command = planned_within(Duration::from_secs(1), Duration::from_millis(300));
            let plan = plan.with(2 * SECOND, H::Command(BETA, command));
            lasting(plan.with(5 * SECOND, H::Heal(ALPHA, BETA)), 6 * SECOND)
        },
        |report| {
            let (_, reply) = report.replies[0];
            assert!(matches!(reply, Err(Denied::TookTooLong | Denied::GivenUp)), "{reply:?}");
            assert_eq!(report.primary, Some(ALPHA));
            nothing_lost(report);
        },
    );
}

#[test]
fn clients_are_not_held_for_longer_than_max_quiesce() {
    tell(
        |plan| {
            let command = planned_within(Duration::from_millis(150), Duration::from_secs(5));
            let plan = plan.with(SECOND, H::Command(BETA, command));
            let plan = plan.with(SECOND + 500, H::DiskHangs(ALPHA, 2 * SECOND));
            lasting(plan, 5 * SECOND)
        },
        |report| {
            assert!(report.primary.is_some());
            nothing_lost(report);
        },
    );
}

#[test]
fn a_cancelled_takeover_leaves_the_old_primary_as_it_was() {
    let mut cancelled = 0;
    for seed in 0..40 {
        let plan = Plan::quiet(seed).with(SECOND, H::Slow(ALPHA, BETA, 50 * MS));
        let plan = plan.with(2 * SECOND, H::Command(BETA, PLANNED));
        let at = 2 * SECOND + 5 * MS + seed * 3 * MS;
        let plan = plan.with(at, H::Command(BETA, Command::CancelTakeover));
        let plan = plan.with(3 * SECOND, H::Heal(ALPHA, BETA));
        let report = run(&lasting(plan, 4 * SECOND), false);
        assert_eq!(report.violation, None, "seed {seed}");
        nothing_lost(&report);
        let taken = report.replies.iter().any(|(_, reply)| *reply == Err(Denied::Cancelled));
        cancelled += u32::from(taken);
        assert_eq!(report.primary, Some(if taken { ALPHA } else { BETA }), "seed {seed}");
    }
    assert!((5..40).contains(&cancelled), "some are in time, some are not: {cancelled} of 40");
}

#[test]
fn there_is_nothing_to_cancel_where_nothing_is_under_way() {
    tell(
        |plan| plan.with(SECOND, H::Command(BETA, Command::CancelTakeover)),
        |report| assert_eq!(report.replies[0], (BETA, Err(Denied::NothingToCancel))),
    );
}

#[test]
fn a_test_of_a_takeover_changes_nothing() {
    let how = How::Planned(Limits::DEFAULT);
    tell(
        |plan| plan.with(SECOND, H::Command(BETA, Command::Takeover { how, test: true })),
        |report| {
            assert_eq!(report.replies[0], (BETA, Ok(Done::WouldLead)));
            assert_eq!(report.primary, Some(ALPHA));
            assert_eq!(noted(report, |note| matches!(note, Note::SteppedDown(_))), None);
        },
    );
}

#[test]
fn a_test_of_a_takeover_says_what_the_takeover_would_say() {
    let how = How::Planned(Limits::DEFAULT);
    tell(
        |plan| {
            let plan = plan.with(SECOND, H::Kill(ALPHA));
            let plan = plan
                .with(1500 * MS, H::Command(BETA, Command::Takeover { how, test: true }))
                .with(1500 * MS, H::Command(BETA, PLANNED));
            plan.with(2 * SECOND, H::Start(ALPHA))
        },
        |report| {
            assert_eq!(report.replies[0], (BETA, Err(Denied::NotFollowing)));
            assert_eq!(report.replies[1], report.replies[0]);
        },
    );
}

#[test]
fn commands_at_the_wrong_member_are_refused_with_a_reason() {
    let wrong = [
        (ALPHA, PLANNED, Denied::AlreadyPrimary),
        (ALPHA, FORCE, Denied::AlreadyPrimary),
        (BETA, Command::StartPrimary, Denied::NotInGate),
        (BETA, Command::SetMode(Mode::Sync), Denied::NotPrimary),
    ];
    for (host, command, denied) in wrong {
        tell(
            |plan| plan.with(SECOND, H::Command(host, command)),
            |report| {
                assert_eq!(report.replies[0], (host, Err(denied)));
                assert_eq!(report.primary, Some(ALPHA));
                nothing_lost(report);
            },
        );
    }
}

#[test]
fn a_failed_replica_does_not_take_over() {
    tell(
        |plan| {
            let plan = plan.with(SECOND, H::DiskFails(BETA, 2));
            lasting(plan.with(2 * SECOND, H::Command(BETA, FORCE)), 3 * SECOND)
        },
        |report| {
            assert_eq!(report.replies[0], (BETA, Err(Denied::Unfit)));
            assert_eq!(report.primary, Some(ALPHA));
        },
    );
}

#[test]
fn a_standby_that_stops_in_order_lets_the_primary_go_on_at_once() {
    tell(
        |plan| {
            let plan = window(plan, 4 * SECOND).with(SECOND, H::Command(BETA, Command::Stop));
            lasting(plan, 4 * SECOND)
        },
        |report| {
            let left = noted(report, |note| matches!(note, Note::LeftOut(_)));
            assert!(left.is_some_and(|at| at < 1600 * MS), "no window for a goodbye: {left:?}");
            nothing_lost(report);
        },
    );
}

#[test]
fn a_primary_that_stops_in_order_leaves_everything_to_its_standby() {
    tell(
        |plan| {
            let plan = plan.with(SECOND, H::Command(ALPHA, Command::Stop));
            lasting(plan.with(3 * SECOND, H::Command(BETA, FORCE)), 4 * SECOND)
        },
        |report| {
            assert!(matches!(report.replies[0], (ALPHA, Ok(Done::Stopped))));
            assert_eq!(report.primary, Some(BETA));
            nothing_lost(report);
        },
    );
}

#[test]
fn a_stop_in_the_middle_of_a_handover_leaves_one_primary_in_the_end() {
    for (host, moment) in (0..8).flat_map(|moment| [(ALPHA, moment), (BETA, moment)]) {
        tell(
            |plan| {
                let plan = plan.with(SECOND, H::Command(BETA, PLANNED));
                plan.with(SECOND + moment * 500, H::Command(host, Command::Stop))
            },
            |report| {
                assert!(report.primary.is_some());
                nothing_lost(report);
            },
        );
    }
}

#[test]
fn the_old_primary_may_die_at_any_moment_of_a_handover() {
    for moment in 0..20 {
        tell(
            |plan| {
                let at = SECOND + moment * 250;
                let plan = plan.with(SECOND, H::Command(BETA, PLANNED));
                plan.with(at, H::PowerLoss(ALPHA)).with(at + 600 * MS, H::Start(ALPHA))
            },
            |report| assert!(report.primary.is_some()),
        );
    }
}

#[test]
fn the_new_primary_may_die_at_any_moment_of_a_handover() {
    for moment in 0..20 {
        tell(
            |plan| {
                let at = SECOND + moment * 250;
                let plan = plan.with(SECOND, H::Command(BETA, PLANNED));
                plan.with(at, H::PowerLoss(BETA)).with(at + 600 * MS, H::Start(BETA))
            },
            |report| assert!(report.primary.is_some()),
        );
    }
}

#[test]
fn a_link_that_breaks_in_a_handover_leaves_one_primary() {
    for moment in 0..12 {
        tell(
            |plan| {
                let plan = plan.with(SECOND, H::Command(BETA, PLANNED));
                let plan = plan.with(SECOND + moment * 300, H::Cut(ALPHA, BETA, Way::Both));
                lasting(plan.with(4 * SECOND, H::Heal(ALPHA, BETA)), 5 * SECOND)
            },
            |report| {
                assert!(report.primary.is_some());
                nothing_lost(report);
            },
        );
    }
}

#[test]
fn both_ask_for_the_resource_at_the_same_time() {
    tell(
        |plan| {
            let plan = of_three(plan).with(SECOND, H::Command(BETA, PLANNED));
            plan.with(SECOND, H::Command(GAMMA, PLANNED))
        },
        |report| {
            assert!(report.primary.is_some());
            nothing_lost(report);
        },
    );
}

#[test]
fn service_moves_ten_times_and_nothing_is_lost() {
    tell(
        |plan| {
            let turns = (1..=10).map(|turn: u64| {
                let to = if turn % 2 == 1 { BETA } else { ALPHA };
                (turn * 500 * MS, H::Command(to, PLANNED))
            });
            lasting(turns.fold(plan, |plan, (at, turn)| plan.with(at, turn)), 6 * SECOND)
        },
        |report| {
            assert!(report.replies.iter().all(|(_, reply)| reply.is_ok()), "{:?}", report.replies);
            assert_eq!(report.primary, Some(ALPHA));
            nothing_lost(report);
        },
    );
}

#[test]
fn a_connection_that_is_reset_again_and_again_loses_nothing() {
    tell(
        |plan| {
            let resets = (0..20).map(|turn| SECOND + turn * 70 * MS);
            resets.fold(plan, |plan, at| plan.with(at, H::Reset(ALPHA, BETA)))
        },
        nothing_lost,
    );
}

#[test]
fn a_standby_that_was_away_for_longer_than_the_log_reaches_is_told_so() {
    tell(
        |mut plan| {
            (plan.log_bytes, plan.clients, plan.pace) = (1 << 20, 3, 2 * MS);
            let plan = window(plan, 0).with(200 * MS, H::Kill(BETA));
            lasting(plan.with(3 * SECOND, H::Start(BETA)), 4 * SECOND)
        },
        |report| {
            let gone = |note: &Note| {
                matches!(note, Note::Refused { refusal: Refusal::LogGone { .. }, .. })
            };
            assert!(noted(report, gone).is_some());
            assert_eq!(report.primary, Some(ALPHA));
        },
    );
}

#[test]
fn one_of_two_standbys_is_lost_and_the_other_stays_in_peer() {
    tell(
        |plan| lasting(of_three(plan).with(SECOND, H::PowerLoss(GAMMA)), 4 * SECOND),
        |report| {
            assert_eq!(report.primary, Some(ALPHA));
            nothing_lost(report);
        },
    );
}

#[test]
fn a_candidate_fetches_the_later_log_of_another_standby() {
    // The standby that takes over was cut off for a while; the other one has everything.
    tell(
        |plan| {
            let plan = in_mode(of_three(plan), Mode::Async);
            let plan = plan.with(SECOND, H::Cut(ALPHA, GAMMA, Way::Both));
            let plan = plan.with(1500 * MS, H::Kill(ALPHA));
            let plan = plan.with(1800 * MS, H::Command(GAMMA, FORCE));
            let plan = plan.with(3 * SECOND, H::Heal(ALPHA, GAMMA));
            lasting(plan.with(3 * SECOND, H::Start(ALPHA)), 4 * SECOND)
        },
        |report| assert!(report.primary.is_some()),
    );
}

#[test]
fn three_members_lose_power_and_come_back_one_by_one() {
    for order in [[ALPHA, BETA, GAMMA], [GAMMA, BETA, ALPHA], [BETA, ALPHA, GAMMA]] {
        tell(
            |plan| {
                let plan = of_three(plan).with(SECOND, H::PowerLossOfAll);
                let starts = order.into_iter().zip(1..);
                let plan = starts.fold(plan, |plan, (host, turn)| {
                    plan.with(SECOND + turn * 300 * MS, H::Start(host))
                });
                lasting(plan, 4 * SECOND)
            },
            |report| assert_eq!(report.primary, Some(ALPHA)),
        );
    }
}

#[test]
fn everybody_stands_still_and_wakes_up_again() {
    tell(
        |plan| {
            let plan = plan.with(SECOND, H::Pause(ALPHA, 5 * SECOND));
            lasting(plan.with(SECOND, H::Pause(BETA, 5 * SECOND)), 7 * SECOND)
        },
        |report| {
            assert_eq!(report.primary, Some(ALPHA));
            nothing_lost(report);
        },
    );
}

#[test]
fn a_new_primary_may_lose_power_at_any_moment_of_its_first_epoch() {
    for moment in 0..16 {
        tell(
            |plan| {
                let plan = plan.with(SECOND, H::Kill(ALPHA));
                let plan = plan.with(1200 * MS, H::Command(BETA, FORCE));
                let at = 1200 * MS + moment * 300;
                let plan = plan.with(at, H::PowerLoss(BETA)).with(at + 100 * MS, H::Start(BETA));
                plan.with(at + 200 * MS, H::Start(ALPHA))
            },
            |report| assert!(report.primary.is_some()),
        );
    }
}

#[test]
fn a_weaker_mode_becomes_a_stronger_one_while_the_standby_is_away() {
    tell(
        |plan| {
            let plan = in_mode(plan, Mode::Superasync).with(SECOND, H::Kill(BETA));
            let plan = plan.with(1500 * MS, H::Command(ALPHA, Command::SetMode(Mode::Sync)));
            let plan = plan.with(2 * SECOND, H::Start(BETA));
            lasting(plan.with(4 * SECOND, H::Command(BETA, PLANNED)), 5 * SECOND)
        },
        |report| {
            assert_eq!(report.primary, Some(BETA));
            nothing_lost(report);
        },
    );
}

#[test]
fn a_disk_that_fails_in_the_middle_of_a_handover_leaves_the_other_in_charge() {
    for (host, change) in [(ALPHA, 1), (ALPHA, 3), (BETA, 1), (BETA, 3)] {
        tell(
            |plan| {
                let plan = plan.with(SECOND, H::DiskFails(host, change));
                lasting(plan.with(SECOND, H::Command(BETA, PLANNED)), 6 * SECOND)
            },
            |report| assert!(report.primary.is_some()),
        );
    }
}

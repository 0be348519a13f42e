//! Named stories: each is one thing that goes wrong, and what the cluster makes of it. Clients
//! work all the while and the oracle watches; every story is told with several seeds, which differ
//! in delays, in what clients do, and in what a power loss keeps.

mod telling;

use hadrian_protocol::node::{Command, Denied, Done, Note};
use hadrian_protocol::replica::Mode;
use hadrian_sim::plan::Way;
use hadrian_sim::{Happening as H, MS, Plan, SECOND, run};

use telling::*;

#[test]
fn nothing_happens_and_everybody_ends_with_the_same_bytes() {
    for mode in [Mode::Sync, Mode::Nearsync, Mode::Async, Mode::Superasync] {
        tell(|plan| in_mode(plan, mode), nothing_lost);
    }
}

#[test]
fn a_killed_standby_comes_back_and_catches_up() {
    tell(
        |plan| plan.with(SECOND, H::Kill(BETA)).with(SECOND + 300 * MS, H::Start(BETA)),
        |report| {
            nothing_lost(report);
            assert_eq!(report.primary, Some(ALPHA));
        },
    );
}

#[test]
fn a_killed_primary_comes_back_and_leads_again() {
    tell(
        |plan| plan.with(SECOND, H::Kill(ALPHA)).with(SECOND + 300 * MS, H::Start(ALPHA)),
        |report| {
            nothing_lost(report);
            assert_eq!(report.primary, Some(ALPHA));
        },
    );
}

#[test]
fn a_primary_that_loses_power_gets_the_tail_from_its_standby() {
    // Holes, story 5: the tail that only the standby still has was answered.
    tell(
        |plan| plan.with(SECOND, H::PowerLoss(ALPHA)).with(2 * SECOND, H::Start(ALPHA)),
        |report| {
            nothing_lost(report);
            assert_eq!(report.primary, Some(ALPHA));
        },
    );
}

#[test]
fn a_restarted_primary_waits_for_its_standby_and_serves_nobody_meanwhile() {
    tell(
        |plan| {
            let plan =
                plan.with(SECOND, H::PowerLossOfAll).with(SECOND + 200 * MS, H::Start(ALPHA));
            lasting(plan.with(4 * SECOND, H::Start(BETA)), 5 * SECOND)
        },
        |report| {
            let again = report
                .notes
                .iter()
                .filter(|(at, _, note)| *at > SECOND && matches!(note, Note::Leads(_)));
            let first = again.map(|(at, _, _)| *at).next();
            assert!(first > Some(4 * SECOND), "alpha leads before it has heard beta: {first:?}");
        },
    );
}

#[test]
fn the_start_gate_opens_by_an_operators_word() {
    tell(
        |plan| {
            let plan =
                plan.with(SECOND, H::PowerLossOfAll).with(SECOND + 200 * MS, H::Start(ALPHA));
            let plan = plan.with(2 * SECOND, H::Command(ALPHA, Command::StartPrimary));
            lasting(plan.with(4 * SECOND, H::Start(BETA)), 5 * SECOND)
        },
        |report| {
            assert!(matches!(report.replies[..], [(ALPHA, Ok(Done::Leading(_))), ..]));
            assert_eq!(report.primary, Some(ALPHA));
        },
    );
}

#[test]
fn both_lose_power_at_once_and_no_commit_is_lost() {
    for mode in [Mode::Sync, Mode::Nearsync] {
        tell(
            |plan| {
                let plan = in_mode(plan, mode).with(SECOND, H::PowerLossOfAll);
                let plan = plan.with(SECOND + 100 * MS, H::Start(BETA));
                plan.with(SECOND + 400 * MS, H::Start(ALPHA))
            },
            |report| assert_eq!(report.primary, Some(ALPHA)),
        );
    }
}

#[test]
fn a_planned_takeover_moves_service_and_loses_nothing() {
    for mode in [Mode::Sync, Mode::Nearsync, Mode::Async] {
        tell(
            |plan| in_mode(plan, mode).with(SECOND, H::Command(BETA, PLANNED)),
            |report| {
                nothing_lost(report);
                assert!(matches!(report.replies[0], (BETA, Ok(Done::Leading(_)))));
                assert_eq!(report.primary, Some(BETA));
            },
        );
    }
}

#[test]
fn service_goes_there_and_back_again() {
    tell(
        |plan| {
            let plan = plan.with(SECOND, H::Command(BETA, PLANNED));
            plan.with(2 * SECOND, H::Command(ALPHA, PLANNED))
        },
        |report| {
            nothing_lost(report);
            assert_eq!(report.primary, Some(ALPHA));
        },
    );
}

#[test]
fn two_takeovers_asked_for_at_once_leave_one_primary() {
    tell(
        |plan| {
            let plan = of_three(plan).with(SECOND, H::Command(BETA, FORCE));
            plan.with(SECOND, H::Command(GAMMA, FORCE))
        },
        |report| assert!(report.primary.is_some()),
    );
}

#[test]
fn a_standby_out_of_peer_cannot_take_over_without_force() {
    tell(
        |plan| {
            let plan = plan.with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(2500 * MS, H::Command(BETA, PLANNED));
            lasting(plan, 3 * SECOND)
        },
        |report| {
            assert_eq!(report.replies[0], (BETA, Err(Denied::NotFollowing)));
            assert_eq!(report.primary, Some(ALPHA));
        },
    );
}

#[test]
fn a_takeover_of_a_killed_primary_loses_no_answered_write() {
    for mode in [Mode::Sync, Mode::Nearsync] {
        tell(
            |plan| {
                let plan = in_mode(plan, mode).with(SECOND, H::Kill(ALPHA));
                let plan = plan.with(SECOND + 500 * MS, H::Command(BETA, FORCE));
                plan.with(2 * SECOND, H::Start(ALPHA))
            },
            |report| {
                nothing_lost(report);
                assert_eq!(report.primary, Some(BETA));
            },
        );
    }
}

#[test]
fn an_old_primary_returns_by_cutting_what_nobody_was_answered_for() {
    let mut cuts = 0;
    for seed in 0..60 {
        let plan = Plan::quiet(seed).with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
        let plan = plan.with(SECOND + 300 * MS, H::Kill(ALPHA));
        let plan = plan.with(SECOND + 500 * MS, H::Command(BETA, FORCE));
        let plan = plan.with(2 * SECOND, H::Heal(ALPHA, BETA)).with(2 * SECOND, H::Start(ALPHA));
        let report = run(&plan, false);
        assert_eq!(report.violation, None, "seed {seed}");
        assert_eq!(report.primary, Some(BETA), "seed {seed}");
        nothing_lost(&report);
        cuts += usize::from(noted(&report, |note| matches!(note, Note::TailCut { .. })).is_some());
    }
    assert!(cuts > 20, "most old primaries had something to cut: {cuts} of 60");
}

#[test]
fn an_old_primary_that_went_on_alone_has_diverged_and_keeps_everything() {
    // Holes, story 10: not closable without marks; but nothing is discarded in silence.
    tell(
        |plan| {
            let plan = window(plan, 0).with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(2500 * MS, H::Command(BETA, FORCE));
            lasting(plan.with(4 * SECOND, H::Heal(ALPHA, BETA)), 5 * SECOND)
        },
        |report| {
            let cut = noted(report, |note| matches!(note, Note::TailCut { .. }));
            assert_eq!(cut, None);
            assert!(noted(report, |note| matches!(note, Note::Refused { .. })).is_some());
        },
    );
}

#[test]
fn answers_are_held_for_the_window_and_go_on_when_it_ends() {
    tell(
        |plan| {
            let plan = window(plan, SECOND).with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            lasting(plan, 6 * SECOND)
        },
        |report| {
            let held = noted(report, |note| matches!(note, Note::Holding(_)));
            let left = noted(report, |note| matches!(note, Note::LeftOut(_)));
            let (held, left) = (held.expect("alpha holds"), left.expect("alpha goes on"));
            assert!(
                (SECOND - 5 * MS..SECOND + 300 * MS).contains(&(left - held)),
                "{held} to {left}"
            );
            nothing_lost(report);
        },
    );
}

#[test]
fn a_link_that_comes_back_within_the_window_changes_nothing() {
    tell(
        |plan| {
            let plan = window(plan, 3 * SECOND).with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            lasting(plan.with(3 * SECOND, H::Heal(ALPHA, BETA)), 5 * SECOND)
        },
        |report| {
            assert_eq!(noted(report, |note| matches!(note, Note::LeftOut(_))), None);
            nothing_lost(report);
        },
    );
}

#[test]
fn a_link_that_works_one_way_only_is_a_lost_link() {
    for way in [Way::There, Way::Back] {
        tell(
            |plan| {
                let plan = plan.with(SECOND, H::Cut(ALPHA, BETA, way));
                lasting(plan.with(6 * SECOND, H::Heal(ALPHA, BETA)), 7 * SECOND)
            },
            |report| {
                assert!(noted(report, |note| matches!(note, Note::LeftOut(_))).is_some());
                nothing_lost(report);
            },
        );
    }
}

#[test]
fn a_half_open_connection_ends_by_silence_or_by_the_next_call() {
    for (first, second) in [(ALPHA, BETA), (BETA, ALPHA)] {
        tell(
            |plan| lasting(plan.with(SECOND, H::HalfOpen(first, second)), 5 * SECOND),
            nothing_lost,
        );
    }
}

#[test]
fn a_slow_link_slows_and_loses_nothing() {
    tell(
        |plan| {
            let plan = plan.with(SECOND, H::Slow(ALPHA, BETA, 150 * MS));
            lasting(plan.with(3 * SECOND, H::Heal(ALPHA, BETA)), 4 * SECOND)
        },
        nothing_lost,
    );
}

#[test]
fn a_primary_that_stands_still_past_every_timer_loses_nothing() {
    tell(|plan| lasting(plan.with(SECOND, H::Pause(ALPHA, 5 * SECOND)), 7 * SECOND), nothing_lost);
}

#[test]
fn a_standby_that_stands_still_past_every_timer_is_left_out_and_comes_back() {
    tell(
        |plan| lasting(plan.with(SECOND, H::Pause(BETA, 5 * SECOND)), 7 * SECOND),
        |report| {
            assert!(noted(report, |note| matches!(note, Note::LeftOut(_))).is_some());
            nothing_lost(report);
        },
    );
}

#[test]
fn a_deposed_primary_that_wakes_up_answers_nobody() {
    // Holes, story 15, as far as it goes without marks: it hears of the higher epoch and stops.
    tell(
        |plan| {
            let plan = plan.with(SECOND, H::Pause(ALPHA, 3 * SECOND));
            let plan = plan.with(2 * SECOND, H::Command(BETA, FORCE));
            lasting(plan, 6 * SECOND)
        },
        |report| assert_eq!(report.primary, Some(BETA)),
    );
}

#[test]
fn wall_clocks_may_jump_as_they_like() {
    tell(
        |plan| {
            let plan = plan.with(SECOND, H::WallJumps(ALPHA, -7200));
            plan.with(1500 * MS, H::WallJumps(BETA, 3600))
                .with(2 * SECOND, H::Command(BETA, PLANNED))
        },
        |report| {
            nothing_lost(report);
            assert_eq!(report.primary, Some(BETA));
        },
    );
}

#[test]
fn a_hanging_disk_of_the_standby_holds_commits_in_sync_and_loses_nothing() {
    tell(
        |plan| {
            let plan = in_mode(plan, Mode::Sync).with(SECOND, H::DiskHangs(BETA, 2 * SECOND));
            lasting(plan, 4 * SECOND)
        },
        nothing_lost,
    );
}

#[test]
fn a_hanging_disk_of_the_primary_stops_answers_and_loses_nothing() {
    tell(
        |plan| lasting(plan.with(SECOND, H::DiskHangs(ALPHA, 3 * SECOND)), 5 * SECOND),
        nothing_lost,
    );
}

#[test]
fn a_standby_whose_disk_fails_is_left_out_and_clients_go_on() {
    tell(
        |plan| lasting(plan.with(SECOND, H::DiskFails(BETA, 3)), 6 * SECOND),
        |report| {
            assert!(noted(report, |note| matches!(note, Note::LeftOut(_))).is_some());
            assert_eq!(report.primary, Some(ALPHA));
            nothing_lost(report);
        },
    );
}

#[test]
fn a_primary_whose_disk_fails_stops_and_the_standby_takes_over() {
    tell(
        |plan| {
            let plan = plan.with(SECOND, H::DiskFails(ALPHA, 3));
            let plan = plan.with(2 * SECOND, H::Command(BETA, FORCE));
            lasting(
                plan.with(3 * SECOND, H::Kill(ALPHA)).with(3200 * MS, H::Start(ALPHA)),
                4 * SECOND,
            )
        },
        |report| {
            nothing_lost(report);
            assert_eq!(report.primary, Some(BETA));
        },
    );
}

#[test]
fn power_that_goes_again_and_again_while_a_replica_is_opened_harms_nothing() {
    for change in 1..12 {
        let plan = Plan::quiet(change).with(SECOND, H::PowerLoss(ALPHA));
        let plan = plan.with(1200 * MS, H::StartAndLosePower(ALPHA, change));
        let plan = plan.with(1300 * MS, H::StartAndLosePower(ALPHA, change + 1));
        let plan = plan.with(1400 * MS, H::Start(ALPHA));
        let report = run(&plan, false);
        assert_eq!(report.violation, None, "change {change}");
        assert_eq!(report.lost, 0, "change {change}");
    }
}

#[test]
fn an_acknowledged_standby_that_restarts_is_not_in_the_set_any_more() {
    // Holes, story 3: what it had in memory only is gone with its old life.
    tell(
        |plan| {
            let plan = plan.with(SECOND, H::PowerLoss(BETA)).with(1100 * MS, H::Start(BETA));
            plan.with(1600 * MS, H::Kill(ALPHA)).with(2 * SECOND, H::Start(ALPHA))
        },
        nothing_lost,
    );
}

#[test]
fn a_takeover_survives_the_new_primarys_power_loss() {
    // Holes, story 4.
    tell(
        |plan| {
            let plan = plan.with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            // Nobody waits for the silence of the other.
            let plan = plan.with(SECOND, H::Reset(ALPHA, BETA));
            let plan = plan.with(1100 * MS, H::Command(BETA, FORCE));
            let plan = plan.with(1200 * MS, H::PowerLoss(BETA)).with(1500 * MS, H::Start(BETA));
            lasting(plan.with(2 * SECOND, H::Heal(ALPHA, BETA)), 4 * SECOND)
        },
        |report| assert_eq!(report.primary, Some(BETA), "its epoch was owned"),
    );
}

#[test]
fn two_members_never_own_one_epoch() {
    // Holes, story 8: both are forced at the same time, and cannot hear each other.
    tell(
        |plan| {
            let plan = plan.with(SECOND, H::Kill(ALPHA));
            let plan = plan.with(1100 * MS, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(1200 * MS, H::Start(ALPHA));
            let plan = plan.with(1400 * MS, H::Command(ALPHA, Command::StartPrimary));
            let plan = plan.with(1400 * MS, H::Command(BETA, FORCE));
            lasting(plan.with(2 * SECOND, H::Heal(ALPHA, BETA)), 3 * SECOND)
        },
        |report| {
            let epochs = report.notes.iter().filter_map(|(_, _, note)| match note {
                Note::Leads(epoch) => Some(*epoch),
                _ => None,
            });
            let mut epochs: Vec<_> = epochs.collect();
            epochs.sort_unstable();
            assert!(epochs.len() > 2 && epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
            assert_eq!(report.primary, Some(BETA), "the higher of the two epochs");
        },
    );
}

#[test]
fn a_lost_confirmation_of_a_handover_leaves_no_two_standbys() {
    // Holes, story 11: the old primary has confirmed, and both restart.
    for after in 1..12 {
        tell(
            |plan| {
                let at = SECOND + after * 300;
                let plan = plan.with(SECOND, H::Command(BETA, PLANNED));
                let plan = plan.with(at, H::Kill(ALPHA)).with(at, H::Kill(BETA));
                plan.with(1500 * MS, H::Start(ALPHA)).with(1600 * MS, H::Start(BETA))
            },
            |report| {
                nothing_lost(report);
                assert!(leads_last(report).is_some());
            },
        );
    }
}

#[test]
fn a_primary_that_was_alone_restarts_with_a_healthy_member_outside_the_set() {
    // Holes, story 12.
    tell(
        |plan| {
            let plan = window(plan, 0).with(SECOND, H::Kill(BETA));
            let plan = plan.with(1500 * MS, H::Kill(ALPHA)).with(1600 * MS, H::Start(BETA));
            plan.with(1700 * MS, H::Start(ALPHA))
        },
        |report| {
            nothing_lost(report);
            assert_eq!(report.primary, Some(ALPHA));
        },
    );
}

#[test]
fn an_auxiliary_standby_ends_with_the_same_bytes() {
    tell(
        |plan| of_three(plan).with(SECOND, H::Kill(BETA)).with(2 * SECOND, H::Start(BETA)),
        nothing_lost,
    );
}

#[test]
fn an_auxiliary_standby_follows_the_new_primary() {
    tell(
        |plan| of_three(plan).with(SECOND, H::Command(BETA, PLANNED)),
        |report| {
            nothing_lost(report);
            assert_eq!(report.primary, Some(BETA));
        },
    );
}

#[test]
fn rivals_with_one_common_standby_come_to_an_end() {
    tell(
        |plan| {
            let plan = of_three(plan).with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(1300 * MS, H::Command(BETA, FORCE));
            lasting(plan.with(9 * SECOND, H::Heal(ALPHA, BETA)), 10 * SECOND)
        },
        |report| {
            let epochs = report.notes.iter().filter(|(_, _, note)| matches!(note, Note::Leads(_)));
            assert!(epochs.count() < 12, "epochs are not spent by the dozen");
        },
    );
}

#[test]
fn the_mode_changes_on_a_running_resource() {
    tell(
        |plan| {
            let modes = [Mode::Async, Mode::Sync, Mode::Superasync, Mode::Nearsync];
            modes.into_iter().zip(1..).fold(plan, |plan, (mode, step)| {
                plan.with(step * 500 * MS, H::Command(ALPHA, Command::SetMode(mode)))
            })
        },
        |report| {
            assert!(report.replies[..4].iter().all(|(_, reply)| *reply == Ok(Done::ModeSet)));
            nothing_lost(report);
        },
    );
}

#[test]
fn commit_on_write_makes_every_answer_a_commit() {
    for mode in [Mode::Sync, Mode::Nearsync] {
        tell(
            |plan| {
                let mut plan = in_mode(plan, mode).with(SECOND, H::PowerLossOfAll);
                plan.commit_on_write = true;
                plan.with(1200 * MS, H::Start(ALPHA)).with(1300 * MS, H::Start(BETA))
            },
            nothing_lost,
        );
    }
}

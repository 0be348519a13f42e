//! Named stories about members that are taken back to a point of the past, to lead from there
//! (design §6.2, §8.5). That all images are equal in the end, that whatever a member gives up is in
//! quarantine, and that nobody else loses an answered write, the simulator demands of each.

mod telling;

use hadrian_protocol::node::{Command, Denied, Done, Note, Why};
use hadrian_sim::plan::{Host, Way};
use hadrian_sim::{Happening as H, MS, Micros, Plan, Report, SECOND};

use telling::*;

/// Everybody keeps history.
fn with_history(mut plan: Plan) -> Plan {
    plan.history = true;
    plan
}

fn went_back(report: &Report) -> Vec<Host> {
    let went = report.notes.iter().filter(|(_, _, note)| matches!(note, Note::WentBack(_)));
    went.map(|(_, host, _)| *host).collect()
}

fn leads(report: &Report, reply: usize) {
    assert!(matches!(report.replies[reply], (BETA, Ok(Done::Leading(_)))), "{:?}", report.replies);
}

#[test]
fn a_standby_goes_back_and_leads_and_the_old_primary_comes_back_to_it() {
    for part in [0, 300, 700] {
        tell(
            |plan| with_history(plan).with(2 * SECOND, H::GoesBack(BETA, part)),
            |report| {
                leads(report, 0);
                assert_eq!(went_back(report), [BETA]);
                assert_eq!(report.primary, Some(BETA));
                assert!(report.lost > 0, "what was given up is counted");
            },
        );
    }
}

#[test]
fn the_same_when_the_old_primary_is_away_and_comes_back_later() {
    tell(
        |plan| {
            let plan = with_history(plan).with(2 * SECOND, H::Kill(ALPHA));
            let plan = plan.with(2 * SECOND + 100 * MS, H::GoesBack(BETA, 400));
            lasting(plan.with(4 * SECOND, H::Start(ALPHA)), 5 * SECOND)
        },
        |report| {
            leads(report, 0);
            assert_eq!(report.primary, Some(BETA));
        },
    );
}

#[test]
fn all_three_come_together_at_the_branch() {
    tell(
        |plan| with_history(of_three(plan)).with(2 * SECOND, H::GoesBack(BETA, 500)),
        |report| {
            leads(report, 0);
            assert_eq!(report.primary, Some(BETA));
        },
    );
}

#[test]
fn a_member_goes_back_twice_each_time_further() {
    tell(
        |plan| {
            let plan = with_history(plan).with(2 * SECOND, H::GoesBack(BETA, 600));
            let plan = plan.with(2500 * MS, H::Command(ALPHA, Command::Rejoin));
            let plan = plan.with(4 * SECOND, H::Command(ALPHA, FORCE));
            let plan = plan.with(4500 * MS, H::Command(BETA, Command::Rejoin));
            lasting(plan.with(6 * SECOND, H::GoesBack(BETA, 200)), 7 * SECOND)
        },
        |report| assert!(!went_back(report).is_empty()),
    );
}

/// What has not been applied yet is cut, and nothing has to be staged.
#[test]
fn a_point_that_the_image_has_not_reached_is_gone_to_by_a_cut() {
    tell(
        |plan| {
            let mut plan = with_history(plan);
            plan.replay_delay = std::time::Duration::from_millis(1500);
            plan.with(2 * SECOND, H::GoesBack(BETA, 950))
        },
        |report| {
            leads(report, 0);
            assert_eq!(went_back(report), [BETA]);
        },
    );
}

/// Something happens at each of many moments of going back.
fn interrupted(step: Micros, moments: u64, what: impl Fn(Plan, Micros) -> Plan) -> [usize; 2] {
    let mut seen = [0, 0];
    for moment in 0..moments {
        let plan = with_history(Plan::quiet(moment % 7)).with(2 * SECOND, H::GoesBack(BETA, 400));
        let plan = lasting(what(plan, 2 * SECOND + moment * step), 4 * SECOND);
        let report = hadrian_sim::run(&plan, false);
        if let Some(violation) = &report.violation {
            let told = hadrian_sim::run(&plan, true).story.join("\n");
            panic!("moment {moment}: {violation}\n{told}");
        }
        seen[usize::from(!went_back(&report).is_empty())] += 1;
    }
    seen
}

#[test]
fn a_kill_at_any_moment_leaves_the_standby_or_the_point() {
    let seen = interrupted(3100, 40, |plan, at| {
        plan.with(at, H::Kill(BETA)).with(at + 300 * MS, H::Start(BETA))
    });
    assert!(seen.iter().all(|count| *count > 5), "{seen:?}");
}

#[test]
fn so_does_a_loss_of_power_and_one_while_it_is_opened_again() {
    let seen = interrupted(3100, 40, |plan, at| {
        let plan = plan.with(at, H::PowerLoss(BETA));
        let plan = plan.with(at + 200 * MS, H::StartAndLosePower(BETA, 1 + at % 17));
        plan.with(at + 300 * MS, H::Start(BETA))
    });
    assert!(seen.iter().all(|count| *count > 5), "{seen:?}");
}

#[test]
fn so_does_an_order_to_cancel_or_to_stop_and_a_link_that_breaks() {
    interrupted(5300, 20, |plan, at| plan.with(at, H::Command(BETA, Command::CancelTakeover)));
    interrupted(5300, 20, |plan, at| {
        let plan = plan.with(at, H::Command(BETA, Command::Stop));
        plan.with(at + 200 * MS, H::Kill(BETA)).with(at + 300 * MS, H::Start(BETA))
    });
    interrupted(5300, 20, |plan, at| {
        let plan = plan.with(at, H::Cut(ALPHA, BETA, Way::Both));
        plan.with(at + 1500 * MS, H::Heal(ALPHA, BETA))
    });
}

/// The command is given again, as its status says.
#[test]
fn an_interrupted_member_ends_what_it_began_when_it_is_told_again() {
    interrupted(3100, 40, |plan, at| {
        let plan = plan.with(at, H::PowerLoss(BETA)).with(at + 200 * MS, H::Start(BETA));
        plan.with(at + 700 * MS, H::Command(BETA, FORCE))
    });
}

/// Until somebody says so, it follows nobody: what was asked for is not undone in silence.
#[test]
fn an_interrupted_member_follows_nobody_until_it_is_told_to() {
    let mut waited = 0;
    for moment in 0..40 {
        let at = 2 * SECOND + moment * 2900;
        let plan = with_history(Plan::quiet(moment % 7)).with(2 * SECOND, H::GoesBack(BETA, 400));
        let plan = plan.with(at, H::PowerLoss(BETA)).with(at + 200 * MS, H::Start(BETA));
        let report = hadrian_sim::run(&lasting(plan, 6 * SECOND), false);
        assert_eq!(report.violation, None, "moment {moment}");
        let follows = report.notes.iter().find(|(time, host, note)| {
            *host == BETA && *time > at && matches!(note, Note::Follows(..))
        });
        if reigns(&report).iter().all(|(_, host)| *host != BETA) {
            // Nothing was recorded, or everything is mended first, and an operator says rejoin.
            let when = follows.map(|(time, ..)| *time).unwrap();
            assert!(when < at + SECOND || when > 6 * SECOND, "moment {moment}: {when}");
            waited += usize::from(when > 6 * SECOND);
        }
    }
    assert!(waited > 3, "{waited}");
}

#[test]
fn with_a_record_only_a_word_for_the_owner_lets_somebody_go_back() {
    for markers in [0, 1, 3] {
        tell(
            |plan| {
                let mut plan = if markers > 0 { marked(plan, markers) } else { plan };
                plan.record = true;
                // An owner that is not down would take its epoch back.
                let plan = with_history(plan).with(2 * SECOND, H::Kill(ALPHA));
                let plan = plan.with(2 * SECOND + MS, H::GoesBack(BETA, 500));
                lasting(plan.with(5 * SECOND, H::Start(ALPHA)), 6 * SECOND)
            },
            |report| {
                leads(report, 0);
                assert_eq!(report.primary, Some(BETA));
            },
        );
    }
}

#[test]
fn a_primary_does_not_go_back_under_its_clients() {
    tell(
        |plan| with_history(plan).with(2 * SECOND, H::GoesBack(ALPHA, 500)),
        |report| {
            assert_eq!(report.replies[0], (ALPHA, Err(Denied::LeadsYet)));
            nothing_lost(report);
        },
    );
}

#[test]
fn why_it_follows_nobody_is_said() {
    let words = Why::WentBack { to: hadrian_protocol::ids::Lsn::new(4096) }.to_string();
    assert!(words.contains("takeover --force") && words.contains("rejoin"), "{words}");
}

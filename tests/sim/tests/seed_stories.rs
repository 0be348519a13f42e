//! Named stories about copies that are carried by hand (design §8.1): an image as of one position,
//! exported while clients write, and a member that is made of it. That images are equal in the end
//! the simulator demands of each.

mod telling;

use hadrian_protocol::node::{Command, Denied, Done, Note};
use hadrian_protocol::resync::Way as By;
use hadrian_sim::plan::{Anew, Host, Way};
use hadrian_sim::{Happening as H, MS, Micros, Plan, Report, SECOND};

use telling::*;

/// Beta is lost, alpha's image is carried to it, and it is made of that `away` after the export.
fn carried(plan: Plan, of: Host, absent: Option<Host>, away: Micros) -> Plan {
    let plan = plan.with(SECOND, H::Kill(BETA));
    let plan = plan.with(1500 * MS, H::Exports(of, absent));
    let plan = plan.with(1600 * MS + away, H::Imports(BETA, None));
    let plan = plan.with(1610 * MS + away, H::Start(BETA));
    lasting(plan, 4 * SECOND + away)
}

/// By which ways standbys were brought up otherwise than by the log.
fn ways(report: &Report) -> Vec<By> {
    let way = |note: &Note| match note {
        Note::Resyncs { way, .. } => Some(*way),
        _ => None,
    };
    report.notes.iter().filter_map(|(_, _, note)| way(note)).collect()
}

fn exported(report: &Report) -> usize {
    report.replies.iter().filter(|(_, reply)| matches!(reply, Ok(Done::Seeds))).count()
}

/// Clients overrun a log of a mebibyte within seconds.
fn short_log(mut plan: Plan) -> Plan {
    (plan.log_bytes, plan.pace, plan.clients) = (1 << 20, 8 * MS, 2);
    plan
}

#[test]
fn a_member_made_of_a_seed_gets_what_has_changed_since_from_the_log() {
    tell(
        |plan| carried(plan, ALPHA, None, 0),
        |report| {
            assert_eq!((exported(report), ways(report)), (1, vec![]));
            assert_eq!(report.primary, Some(ALPHA));
            nothing_lost(report);
        },
    );
}

/// Alpha is started again when beta is gone, and knows nothing of what that one has.
fn forgetful(plan: Plan) -> Plan {
    let plan = plan.with(1010 * MS, H::Kill(ALPHA)).with(1020 * MS, H::Start(ALPHA));
    plan.with(1200 * MS, H::Command(ALPHA, Command::StartPrimary))
}

#[test]
fn where_the_log_does_not_reach_the_seed_any_more_the_map_or_a_comparison_does() {
    let brought_up = |plan: &dyn Fn(Plan) -> Plan, absent, by: &[By]| {
        tell(
            |it| plan(carried(short_log(it), ALPHA, absent, 8 * SECOND)),
            |report| {
                let found = ways(report);
                assert!(exported(report) == 1 && found.len() == 1, "{found:?}");
                assert!(by.contains(&found[0]), "{found:?}");
                nothing_lost(report);
            },
        );
    };
    brought_up(&|plan| plan, Some(BETA), &[By::Map]);
    brought_up(&forgetful, Some(BETA), &[By::Map]);
    // Something of it may have been noted before.
    brought_up(&forgetful, None, &[By::Map, By::Digests]);
}

#[test]
fn a_standby_that_dies_with_a_log_that_it_has_not_applied_comes_back_by_its_map() {
    for seed in 0..TELLINGS {
        let plan = short_log(Plan::quiet(seed)).with(SECOND + seed * 7 * MS, H::Kill(BETA));
        let plan = lasting(plan.with(9 * SECOND, H::Start(BETA)), 11 * SECOND);
        let report = hadrian_sim::run(&plan, false);
        assert_eq!(report.violation, None, "seed {seed}");
        assert_eq!(ways(&report), [By::Map], "seed {seed}");
    }
}

#[test]
fn a_standby_exports_as_well_and_only_a_primary_notes_what_somebody_lacks() {
    let from_gamma = |plan: Plan, absent| {
        let plan = carried(of_three(plan), GAMMA, absent, 0);
        plan.with(1550 * MS, H::Exports(ALPHA, absent))
    };
    tell(
        |plan| from_gamma(plan, None),
        |report| {
            assert_eq!(exported(report), 2);
            nothing_lost(report);
        },
    );
    tell(
        |plan| from_gamma(plan, Some(BETA)),
        |report| {
            assert_eq!(report.replies[0], (GAMMA, Err(Denied::NotPrimary)));
            assert_eq!(exported(report), 1);
            nothing_lost(report);
        },
    );
}

/// Beta is new, and is brought up in place: until that is done, what it holds is of no position.
#[test]
fn half_an_image_is_exported_by_nobody() {
    let mut refused = 0;
    for seed in 0..3 {
        let brought_up = || {
            let plan = short_log(Plan::quiet(seed)).with(SECOND, H::Kill(BETA));
            let plan = plan.with(8 * SECOND, H::MadeAnew(BETA, Anew::Alike));
            lasting(plan.with(8 * SECOND + 10 * MS, H::Start(BETA)), 10 * SECOND)
        };
        let asks = |note: &Note| matches!(note, Note::AsksForResync { .. });
        let begun = noted(&whole(brought_up(), "resync", seed), asks).unwrap();
        for moment in 0..10 {
            let plan = brought_up().with(begun + moment * MS, H::Exports(BETA, None));
            let report = whole(plan, "export", moment);
            let incomplete = (BETA, Err(Denied::Incomplete));
            refused += report.replies.iter().filter(|reply| **reply == incomplete).count();
        }
    }
    assert!(refused > 6, "{refused}");
}

#[test]
fn an_export_that_its_member_does_not_survive_leaves_the_one_before() {
    for moment in 0..20 {
        for loss in [H::Kill(ALPHA), H::PowerLoss(ALPHA)] {
            let plan = Plan::quiet(moment % 5).with(SECOND, H::Kill(BETA));
            let plan = plan.with(1100 * MS, H::Exports(ALPHA, Some(BETA)));
            let plan = plan.with(1300 * MS, H::Exports(ALPHA, Some(BETA)));
            let at = 1300 * MS + moment * 400;
            let plan = plan.with(at, loss).with(at + 20 * MS, H::Start(ALPHA));
            let plan = plan.with(3 * SECOND, H::Imports(BETA, None));
            whole(lasting(plan.with(3010 * MS, H::Start(BETA)), 5 * SECOND), "export", moment);
        }
    }
}

#[test]
fn an_import_that_loses_power_anywhere_is_done_again_or_left_to_the_daemon() {
    for change in 1..120 {
        let plan = Plan::quiet(change % 5).with(SECOND, H::Kill(BETA));
        let plan = plan.with(1100 * MS, H::Exports(ALPHA, None));
        let plan = plan.with(1500 * MS, H::Imports(BETA, Some(change)));
        whole(lasting(plan.with(1510 * MS, H::Start(BETA)), 3 * SECOND), "import", change);
    }
}

/// Runs it; whoever was made of the seed is with its primary in the end, and nothing was lost.
fn whole(plan: Plan, what: &str, moment: u64) -> Report {
    let report = hadrian_sim::run(&plan, false);
    if let Some(violation) = &report.violation {
        let told = hadrian_sim::run(&plan, true).story.join("\n");
        panic!("{what}, moment {moment}: {violation}\n{told}");
    }
    nothing_lost(&report);
    report
}

#[test]
fn a_seed_of_a_branch_that_was_left_is_what_its_member_goes_back_from() {
    // Alpha goes on alone, beta is forced; gamma's disk is lost, and it is made of alpha's image,
    // which holds what the others never had.
    tell(
        |plan| {
            let plan = window(of_three(plan), 300 * MS);
            let plan = plan.with(SECOND, H::Kill(GAMMA));
            let plan = plan.with(1001 * MS, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(4 * SECOND, H::Exports(ALPHA, None));
            let plan = plan.with(4100 * MS, H::Kill(ALPHA));
            let plan = plan.with(4200 * MS, H::Command(BETA, FORCE));
            let plan = plan.with(4500 * MS, H::Heal(ALPHA, BETA));
            let plan = plan.with(5 * SECOND, H::Imports(GAMMA, None));
            let plan = plan.with(5010 * MS, H::Start(GAMMA)).with(6 * SECOND, H::Start(ALPHA));
            lasting(plan, 8 * SECOND)
        },
        |report| {
            assert_eq!((exported(report), report.primary), (1, Some(BETA)));
            assert!(!ways(report).is_empty(), "two members have come back");
        },
    );
}

#[test]
fn a_member_with_a_seed_that_is_taken_over_by_force_serves_that_position() {
    tell(
        |plan| {
            let plan = carried(plan, ALPHA, None, 0);
            let plan = plan.with(1601 * MS, H::Kill(ALPHA));
            let plan = plan.with(2300 * MS, H::Command(BETA, FORCE));
            plan.with(3 * SECOND, H::Start(ALPHA))
        },
        |report| assert_eq!(report.primary, Some(BETA)),
    );
}

//! Named stories about disks that forget in silence: what a comparison finds, and repairs under
//! everything that can go wrong meanwhile (design §8.4). That images are equal in the end, and that
//! what was replaced is in quarantine, the simulator demands of each.

mod telling;

use hadrian_protocol::ids::MemberId;
use hadrian_protocol::node::{Command, Denied, Done, Note};
use hadrian_sim::plan::{Host, Way};
use hadrian_sim::{Happening as H, MS, Micros, Plan, Report, SECOND};

use telling::*;

fn member(host: Host) -> MemberId {
    MemberId::new(host).unwrap()
}

fn repair(from: Host) -> Command {
    Command::Repair { standby: None, from: member(from) }
}

/// The one that is right when `wrong` has rotted.
const fn other(wrong: Host) -> Host {
    1 - wrong
}

/// With clients that leave a block alone for a while.
fn slowly(mut plan: Plan) -> Plan {
    plan.pace = 150 * MS;
    plan
}

fn verified(report: &Report) -> Vec<(u64, u64)> {
    let found = report.notes.iter().filter_map(|(_, _, note)| match note {
        Note::Verified { differs, repaired, .. } => Some((*differs, *repaired)),
        _ => None,
    });
    found.collect()
}

#[test]
fn a_block_that_has_rotted_is_found_and_repaired_from_the_other_side_while_clients_write() {
    for wrong in [ALPHA, BETA] {
        tell(
            |plan| {
                let plan = slowly(plan).with(SECOND, H::Rots(wrong, 77));
                let plan = plan.with(SECOND + MS, H::Command(ALPHA, repair(other(wrong))));
                plan.with(2 * SECOND, H::Command(ALPHA, Command::Verify(None)))
            },
            |report| {
                assert_eq!(verified(report), [(16 << 10, 16 << 10), (0, 0)], "{wrong}");
                nothing_lost(report);
            },
        );
    }
}

#[test]
fn what_is_not_to_be_repaired_is_told_until_it_is() {
    tell(
        |plan| {
            let plan = slowly(plan).with(SECOND, H::Rots(BETA, 5));
            let plan = plan.with(SECOND + MS, H::Command(ALPHA, Command::Verify(None)));
            plan.with(SECOND + 300 * MS, H::Command(ALPHA, repair(ALPHA)))
        },
        // A client may have written over it in between.
        |report| assert_eq!(verified(report)[0], (16 << 10, 0)),
    );
}

#[test]
fn only_a_primary_and_the_standby_that_it_is_compared_with_can_be_right() {
    tell(
        |plan| {
            let plan = of_three(plan);
            let third = Command::Repair { standby: Some(member(BETA)), from: member(GAMMA) };
            let plan = plan.with(SECOND, H::Command(ALPHA, third));
            plan.with(SECOND + MS, H::Command(BETA, repair(ALPHA)))
        },
        |report| {
            let replies: Vec<_> = report.replies.iter().map(|(_, reply)| *reply).collect();
            assert_eq!(replies[..2], [Err(Denied::NotOfTheTwo), Err(Denied::NotPrimary)]);
        },
    );
}

/// Something goes wrong at each of many moments of a repair; after it everything is repaired again.
fn interrupted(wrong: Host, step: Micros, what: impl Fn(Plan, Micros) -> Plan) {
    for moment in 0..24 {
        let seed = moment % 7;
        let plan = Plan::quiet(seed).with(SECOND, H::Rots(wrong, 77));
        let plan = plan.with(SECOND + MS, H::Command(ALPHA, repair(other(wrong))));
        let plan = what(plan, SECOND + MS + moment * step);
        let again = |plan: Plan, at| {
            // Whoever leads then.
            let plan = plan.with(at, H::Command(ALPHA, repair(other(wrong))));
            plan.with(at, H::Command(BETA, repair(other(wrong))))
        };
        let plan = again(again(plan, 6 * SECOND), 7 * SECOND);
        let report = hadrian_sim::run(&lasting(plan.clone(), 8 * SECOND), false);
        if let Some(violation) = &report.violation {
            let told = hadrian_sim::run(&lasting(plan, 8 * SECOND), true).story.join("\n");
            panic!("moment {moment}, {wrong} has rotted: {violation}\n{told}");
        }
        let ended = verified(&report);
        assert_eq!(ended.last().map(|(_, repaired)| *repaired), Some(0), "moment {moment}");
        nothing_lost(&report);
    }
}

#[test]
fn a_repair_that_a_power_loss_ends_is_done_by_the_next() {
    for wrong in [ALPHA, BETA] {
        interrupted(wrong, 250, |plan, at| {
            plan.with(at, H::PowerLoss(wrong)).with(at + 500 * MS, H::Start(wrong))
        });
    }
}

#[test]
fn a_repair_whose_other_side_dies_is_done_by_the_next() {
    for wrong in [ALPHA, BETA] {
        let right = other(wrong);
        interrupted(wrong, 250, |plan, at| {
            plan.with(at, H::Kill(right)).with(at + 500 * MS, H::Start(right))
        });
    }
}

#[test]
fn an_image_goes_on_behind_a_repair_that_a_lost_link_ends() {
    for wrong in [ALPHA, BETA] {
        interrupted(wrong, 200, |plan, at| plan.with(at, H::Reset(ALPHA, BETA)));
        interrupted(wrong, 200, |plan, at| {
            let plan = plan.with(at, H::Cut(ALPHA, BETA, Way::Both));
            plan.with(at + 300 * MS, H::Heal(ALPHA, BETA))
        });
    }
}

#[test]
fn a_repair_by_a_slow_disk_is_cut_short_and_its_image_goes_on() {
    for wrong in [ALPHA, BETA] {
        interrupted(wrong, 300, |plan, at| plan.with(at, H::DiskHangs(wrong, 2 * SECOND)));
    }
}

#[test]
fn a_repair_does_not_keep_a_takeover_back() {
    for wrong in [ALPHA, BETA] {
        let planned = |report: &Report| {
            report.replies.iter().any(|(_, reply)| matches!(reply, Ok(Done::Leading(_))))
        };
        tell(
            |plan| {
                let plan = plan.with(SECOND, H::Rots(wrong, 77));
                let plan = plan.with(SECOND + MS, H::Command(ALPHA, repair(other(wrong))));
                let plan = plan.with(SECOND + 2 * MS, H::Command(BETA, PLANNED));
                let plan = plan.with(3 * SECOND, H::Command(BETA, repair(other(wrong))));
                lasting(plan, 4 * SECOND)
            },
            |report| {
                assert!(planned(report), "{:?}", report.replies);
                nothing_lost(report);
            },
        );
    }
}

//! Named stories about volumes that are made larger (design §2.4): who must be there, what a crash
//! at each step leaves, and how a member comes back that was away. That every replica ends with the
//! same sizes and bytes, and that nothing goes into a log beyond the end of its volume, the
//! simulator demands of each.

mod telling;

use std::cell::Cell;

use hadrian_protocol::ids::MemberId;
use hadrian_protocol::node::{Command, Denied, Done, Note};
use hadrian_protocol::wire::{CannotGrow, Refusal};
use hadrian_sim::plan::{Anew, Host, Way};
use hadrian_sim::{Happening as H, MS, Micros, Plan, Report, SECOND, run};

use telling::*;

const GROW: H = H::Grow(ALPHA, false);

fn member(host: Host) -> MemberId {
    MemberId::new(host).unwrap()
}

fn answers(report: &Report) -> Vec<Result<Done, Denied>> {
    let ours = |reply: &Result<Done, Denied>| *reply != Ok(Done::Stopped);
    report.replies.iter().map(|(_, reply)| *reply).filter(ours).collect()
}

/// One of many moments, with a seed of its own.
fn tell_one(seed: u64, story: impl Fn(Plan) -> Plan, check: impl Fn(&Report)) {
    let plan = story(Plan::quiet(seed));
    let report = run(&plan, false);
    if let Some(violation) = &report.violation {
        let told = run(&plan, true).story.join("\n");
        panic!("moment {seed}: {violation}\n{told}");
    }
    check(&report);
}

/// How often a member's volumes became larger.
fn grew(report: &Report, host: Host) -> usize {
    let of = |(_, by, note): &&(Micros, Host, Note)| *by == host && *note == Note::Grew;
    report.notes.iter().filter(of).count()
}

#[test]
fn a_volume_grows_on_all_members_while_clients_write_and_again() {
    for three in [false, true] {
        tell(
            |plan| {
                let plan = if three { of_three(plan) } else { plan };
                plan.with(SECOND, GROW).with(SECOND + 500 * MS, GROW)
            },
            |report| {
                assert_eq!(answers(report), [Ok(Done::Grown); 2]);
                for host in [ALPHA, BETA].into_iter().chain(three.then_some(GAMMA)) {
                    assert_eq!(grew(report, host), 2, "{host}");
                }
                nothing_lost(report);
            },
        );
    }
}

#[test]
fn a_question_changes_nothing() {
    tell(
        |plan| plan.with(SECOND, H::Grow(ALPHA, true)).with(SECOND + 100 * MS, GROW),
        |report| {
            assert_eq!(answers(report), [Ok(Done::CouldGrow), Ok(Done::Grown)]);
            assert_eq!(grew(report, ALPHA), 1);
        },
    );
}

#[test]
fn only_a_primary_grows_a_volume_and_only_with_everybody() {
    tell(
        |plan| {
            let plan = plan.with(SECOND, H::Grow(BETA, false));
            let plan = plan.with(SECOND + MS, H::Kill(BETA)).with(SECOND + 2 * MS, GROW);
            plan.with(2 * SECOND, H::Start(BETA))
        },
        |report| {
            let away = Denied::DoesNotFollow { member: member(BETA) };
            assert_eq!(answers(report), [Err(Denied::NotPrimary), Err(away)]);
            assert_eq!(grew(report, ALPHA) + grew(report, BETA), 0);
        },
    );
}

#[test]
fn a_device_that_is_too_small_is_named_and_nobody_grows_until_it_is_larger() {
    for host in [ALPHA, BETA] {
        tell(
            |plan| {
                let plan = plan.with(MS, H::StoreIsDevice(host)).with(SECOND, GROW);
                let plan = plan.with(SECOND + 100 * MS, H::DeviceEnlarged(host));
                plan.with(SECOND + 200 * MS, GROW)
            },
            |report| {
                let why = CannotGrow::DeviceTooSmall { has: 128 * 512, missing: 40 * 512 };
                let small = Denied::CannotGrow { member: member(host), why };
                assert_eq!(answers(report), [Err(small), Ok(Done::Grown)]);
                nothing_lost(report);
            },
        );
    }
}

/// The few milliseconds of a growth, each with a crash of either side in it.
#[test]
fn whoever_crashes_in_the_middle_both_have_one_size_in_the_end() {
    let (grown, refused) = (Cell::new(0), Cell::new(0));
    for (host, moment) in [ALPHA, BETA].into_iter().flat_map(|h| (0..24).map(move |m| (h, m))) {
        for power in [false, true] {
            let crash = if power { H::PowerLoss(host) } else { H::Kill(host) };
            let at = SECOND + moment * 250;
            tell_one(
                moment,
                |plan| {
                    let plan = plan.with(SECOND, GROW).with(at, crash.clone());
                    plan.with(at + 400 * MS, H::Start(host))
                },
                |report| match grew(report, ALPHA).max(grew(report, BETA)) {
                    0 => refused.set(refused.get() + 1),
                    _ => grown.set(grown.get() + 1),
                },
            );
        }
    }
    let (grown, refused) = (grown.get(), refused.get());
    assert!(grown > 0 && refused > 0, "{grown} grew, {refused} did not");
}

#[test]
fn a_link_that_is_cut_in_the_middle_leaves_one_size_in_the_end() {
    for moment in 0..24 {
        let at = SECOND + moment * 250;
        tell_one(
            moment,
            |plan| {
                let plan = plan.with(SECOND, GROW).with(at, H::Cut(ALPHA, BETA, Way::Both));
                plan.with(at + 1500 * MS, H::Heal(ALPHA, BETA))
            },
            |report| {
                let away = Denied::DoesNotFollow { member: member(BETA) };
                let ends = [vec![Ok(Done::Grown)], vec![Err(away)]];
                assert!(ends.contains(&answers(report)), "{:?}", answers(report));
            },
        );
    }
}

/// The superblock of one side is on its way to a disk that hangs, and the two meet again meanwhile.
#[test]
fn a_hello_tells_of_no_size_that_a_crash_could_take_back() {
    let grown = Cell::new(0);
    for (host, moment) in [ALPHA, BETA].into_iter().flat_map(|h| (0..24).map(move |m| (h, m))) {
        let at = SECOND + moment * 250;
        tell_one(
            moment,
            |plan| {
                let plan = plan.with(SECOND, GROW).with(at, H::DiskHangs(host, 3 * SECOND));
                let plan = plan.with(at + MS, H::Reset(ALPHA, BETA));
                lasting(plan.with(at + 2800 * MS, H::PowerLoss(host)), 6 * SECOND)
                    .with(at + 3 * SECOND, H::Start(host))
            },
            |report| grown.set(grown.get() + grew(report, ALPHA).max(grew(report, BETA))),
        );
    }
    assert!(grown.get() > 0);
}

#[test]
fn a_standby_that_takes_over_in_the_middle_serves_one_of_the_two_sizes() {
    for moment in 0..24 {
        let at = SECOND + moment * 250;
        for planned in [false, true] {
            tell_one(
                moment,
                |plan| {
                    let plan = plan.with(SECOND, GROW);
                    match planned {
                        true => plan.with(at, H::Command(BETA, Command::planned())),
                        false => {
                            let plan = plan.with(at, H::PowerLoss(ALPHA));
                            let plan = plan.with(at + MS, H::Command(BETA, Command::forced()));
                            plan.with(at + SECOND, H::Start(ALPHA))
                        }
                    }
                },
                |report| assert!(report.primary.is_some()),
            );
        }
    }
}

#[test]
fn a_standby_that_was_created_anew_with_the_old_size_grows_when_it_meets_its_primary() {
    tell(
        |plan| {
            let plan = plan.with(SECOND, GROW).with(SECOND + 300 * MS, H::Kill(BETA));
            let plan = plan.with(SECOND + 310 * MS, H::MadeAnew(BETA, Anew::Alike));
            plan.with(SECOND + 320 * MS, H::Start(BETA))
        },
        |report| {
            let waits =
                |note: &Note| matches!(note, Note::Refused { refusal: Refusal::Growing, .. });
            assert!(report.notes.iter().any(|(_, host, note)| *host == BETA && waits(note)));
            assert_eq!(grew(report, BETA), 2);
            nothing_lost(report);
        },
    );
}

#[test]
fn a_primary_that_was_put_back_to_before_a_growth_grows_when_it_meets_its_standby() {
    tell(
        |plan| {
            let plan = plan.with(900 * MS, H::Copied(ALPHA)).with(SECOND, GROW);
            let plan = plan.with(SECOND + 300 * MS, H::Kill(ALPHA));
            let plan = plan.with(SECOND + 310 * MS, H::PutBack(ALPHA));
            plan.with(SECOND + 320 * MS, H::Start(ALPHA))
        },
        |report| assert_eq!(grew(report, ALPHA), 2),
    );
}

/// Each side goes its own way, one of them with writes in the new part; whoever comes back has what
/// the other has, whichever of them is larger.
#[test]
fn writes_in_the_new_part_that_are_given_up_are_given_up_like_any_other() {
    tell(
        |plan| {
            let plan = lasting(plan, 8 * SECOND);
            let plan = plan.with(SECOND, GROW).with(1500 * MS, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(5 * SECOND, H::Command(BETA, Command::forced()));
            plan.with(7 * SECOND, H::Heal(ALPHA, BETA))
        },
        |report| assert_eq!(answers(report)[0], Ok(Done::Grown)),
    );
}

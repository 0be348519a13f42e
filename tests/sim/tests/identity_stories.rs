//! Stories of replicas that are not what the rest of the cluster takes them for: of another size,
//! from other content, with another history, older than they were; and of disks that cannot be
//! read.

mod telling;

use std::cell::Cell;

use hadrian_protocol::node::{Command, Denied, Note};
use hadrian_protocol::replica::Mode;
use hadrian_protocol::wire::Refusal;
use hadrian_sim::plan::{Anew, Host, Way};
use hadrian_sim::{Happening as H, MS, Plan, Report, SECOND};

use telling::*;

/// The replica of beta is created again while its daemon is down.
fn beta_made(plan: Plan, anew: Anew) -> Plan {
    let plan = plan.with(SECOND, H::Kill(BETA)).with(1050 * MS, H::MadeAnew(BETA, anew));
    lasting(plan.with(1100 * MS, H::Start(BETA)), 5 * SECOND)
}

/// Whether a member told of this refusal.
fn told(report: &Report, host: Host, is: impl Fn(Refusal) -> bool) -> bool {
    report.notes.iter().any(|(_, of, note)| match note {
        Note::Refused { refusal, .. } => *of == host && is(*refusal),
        _ => false,
    })
}

fn both_tell(report: &Report, is: impl Fn(Refusal) -> bool) {
    for host in [ALPHA, BETA] {
        assert!(told(report, host, &is), "{host} says nothing of it");
    }
}

#[test]
fn a_volume_of_another_size_is_refused_and_both_sides_say_so() {
    tell(
        |plan| beta_made(plan, Anew::Larger),
        |report| {
            both_tell(report, |refusal| refusal == Refusal::GeometryDiffers);
            assert_eq!(report.primary, Some(ALPHA));
            nothing_lost(report);
        },
    );
}

#[test]
fn a_replica_made_from_other_content_is_refused_and_both_sides_say_so() {
    tell(
        |plan| beta_made(plan, Anew::OtherBase),
        |report| {
            both_tell(report, |refusal| refusal == Refusal::BaseDiffers);
            assert_eq!(report.primary, Some(ALPHA));
            nothing_lost(report);
        },
    );
}

#[test]
fn a_replica_with_a_history_of_its_own_is_unrelated_and_both_sides_say_so() {
    tell(
        |plan| {
            let plan = beta_made(plan, Anew::Primary);
            let plan = plan.with(1060 * MS, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(1500 * MS, H::Command(BETA, Command::StartPrimary));
            plan.with(3 * SECOND, H::Heal(ALPHA, BETA))
        },
        |report| both_tell(report, |refusal| refusal == Refusal::Unrelated),
    );
}

#[test]
fn a_replica_made_anew_gets_everything_before_it_counts() {
    tell(
        |mut plan| {
            // The log still reaches back to its start.
            plan.log_bytes = 64 << 20;
            let plan = beta_made(plan, Anew::Alike);
            lasting(plan.with(4 * SECOND, H::Command(BETA, PLANNED)), 5 * SECOND)
        },
        |report| {
            assert_eq!(report.primary, Some(BETA));
            nothing_lost(report);
        },
    );
}

#[test]
fn a_replica_made_anew_is_nobody_that_the_record_names() {
    tell(
        |mut plan| {
            plan.record = true;
            let plan = beta_made(plan, Anew::Alike);
            let plan = plan.with(1060 * MS, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(1500 * MS, H::Command(BETA, FORCE));
            plan.with(4 * SECOND, H::Heal(ALPHA, BETA))
        },
        |report| {
            assert!(matches!(report.replies[0], (BETA, Err(Denied::NotInSet { .. }))));
            assert_eq!(report.primary, Some(ALPHA));
            nothing_lost(report);
        },
    );
}

/// Beta gets back a copy of its disk from before its last life, which has all that was answered.
fn beta_put_back(mut plan: Plan) -> Plan {
    // The log still reaches back to the copy.
    plan.log_bytes = 64 << 20;
    let plan = plan.with(500 * MS, H::Copied(BETA));
    let plan = plan.with(SECOND, H::Kill(BETA)).with(1010 * MS, H::Start(BETA));
    let plan = plan.with(2 * SECOND, H::Kill(BETA)).with(2010 * MS, H::PutBack(BETA));
    lasting(plan.with(2020 * MS, H::Start(BETA)), 5 * SECOND)
}

#[test]
fn a_replica_put_back_from_an_older_copy_catches_up_before_it_counts() {
    tell(
        |plan| beta_put_back(plan).with(4 * SECOND, H::Command(BETA, PLANNED)),
        |report| {
            assert_eq!(report.primary, Some(BETA));
            nothing_lost(report);
        },
    );
}

#[test]
fn a_replica_put_back_from_an_older_copy_is_nobody_that_the_record_names() {
    // The life that it had then comes again; its number must not.
    tell(
        |mut plan| {
            plan.record = true;
            let plan = beta_put_back(plan).with(2015 * MS, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(2500 * MS, H::Command(BETA, FORCE));
            plan.with(4 * SECOND, H::Heal(ALPHA, BETA))
        },
        |report| {
            assert!(matches!(report.replies[0], (BETA, Err(Denied::NotInSet { .. }))));
            assert_eq!(report.primary, Some(ALPHA));
            nothing_lost(report);
        },
    );
}

#[test]
fn what_a_standby_that_was_put_back_does_not_have_any_more_is_shown_as_a_loss() {
    // It catches up slowly, and the primary dies meanwhile.
    tell(
        |plan| {
            let plan = beta_put_back(in_mode(plan, Mode::Superasync));
            let plan = plan.with(2010 * MS, H::Narrow(ALPHA, BETA, 50));
            let plan = plan.with(5 * SECOND, H::Kill(ALPHA));
            let plan = plan.with(5500 * MS, H::Command(BETA, FORCE));
            let plan = plan.with(6 * SECOND, H::Heal(ALPHA, BETA));
            lasting(plan.with(6 * SECOND, H::Start(ALPHA)), 8 * SECOND)
        },
        |report| assert!(report.lost > 0, "beta lacks something"),
    );
}

#[test]
fn a_primary_put_back_from_an_older_copy_fetches_what_its_standby_has() {
    tell(
        |plan| {
            let plan = plan.with(500 * MS, H::Copied(ALPHA)).with(SECOND, H::Kill(ALPHA));
            let plan = plan.with(1010 * MS, H::PutBack(ALPHA)).with(1020 * MS, H::Start(ALPHA));
            lasting(plan, 4 * SECOND)
        },
        |report| {
            assert_eq!(report.primary, Some(ALPHA));
            nothing_lost(report);
        },
    );
}

#[test]
fn a_split_brain_is_told_on_both_sides() {
    tell(
        |plan| {
            let plan = window(plan, 0).with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(2500 * MS, H::Command(BETA, FORCE));
            lasting(plan.with(4 * SECOND, H::Heal(ALPHA, BETA)), 6 * SECOND)
        },
        |report| both_tell(report, |refusal| matches!(refusal, Refusal::Diverged { .. })),
    );
}

#[test]
fn a_read_that_fails_is_an_error_for_its_client_and_for_nobody_else() {
    let failed = Cell::new(0);
    tell(
        |plan| {
            let reads = (0..20).map(|turn| SECOND + turn * 50 * MS);
            reads.fold(plan, |plan, at| plan.with(at, H::ReadFails(ALPHA, 1)))
        },
        |report| {
            failed.set(failed.get() + report.read_errors);
            assert_eq!(noted(report, |note| matches!(note, Note::LeftOut(_))), None);
            assert_eq!(report.primary, Some(ALPHA));
            nothing_lost(report);
        },
    );
    assert!(failed.get() > 50, "clients were told: {failed:?}");
}

#[test]
fn a_replica_that_cannot_be_read_at_its_start_starts_when_it_can() {
    for (host, read) in (1..7).flat_map(|read| [(ALPHA, read), (BETA, read)]) {
        tell(
            |plan| {
                let plan = plan.with(SECOND, H::Kill(host));
                let plan = plan.with(1090 * MS, H::ReadFails(host, read));
                lasting(plan.with(1100 * MS, H::Start(host)), 3 * SECOND)
            },
            |report| {
                assert_eq!(report.primary, Some(ALPHA));
                nothing_lost(report);
            },
        );
    }
}

#[test]
fn a_log_that_cannot_be_read_for_a_standby_is_no_end_of_it() {
    for read in 1..6 {
        tell(
            |plan| {
                let plan = window(plan, 0).with(SECOND, H::Kill(BETA));
                let plan = plan.with(1995 * MS, H::ReadFails(ALPHA, read));
                lasting(plan.with(2 * SECOND, H::Start(BETA)), 4 * SECOND)
            },
            |report| {
                assert_eq!(report.primary, Some(ALPHA));
                nothing_lost(report);
            },
        );
    }
}

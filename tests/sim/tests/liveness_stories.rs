//! Stories of clusters that could go on, and once did not: nobody shall need an operator for what
//! the members know among themselves.

mod telling;

use hadrian_protocol::node::Note;
use hadrian_protocol::replica::Mode;
use hadrian_protocol::wire::Refusal;
use hadrian_sim::plan::{Host, Way};
use hadrian_sim::{Happening as H, MS, Micros, Plan, Report, SECOND};

use telling::*;

/// When a member began to lead after that moment.
fn leads_after(report: &Report, host: Host, moment: Micros) -> Option<Micros> {
    let leads = |(at, of, note): &&(Micros, Host, Note)| {
        *at > moment && *of == host && matches!(note, Note::Leads(_))
    };
    report.notes.iter().find(leads).map(|(at, ..)| *at)
}

#[test]
fn a_restarted_primary_asks_again_who_could_not_promise_just_then() {
    let mut busy = 0;
    for seed in 0..60 {
        let plan = Plan::quiet(seed).with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
        let plan = plan.with(1300 * MS, H::Kill(ALPHA)).with(2 * SECOND, H::Command(BETA, FORCE));
        let plan = plan.with(3 * SECOND, H::Heal(ALPHA, BETA)).with(3 * SECOND, H::Start(ALPHA));
        // Alpha cuts what beta never had, and its disk takes its time.
        let at = 3001 * MS + seed * 50;
        let plan = plan.with(at, H::DiskHangs(ALPHA, SECOND)).with(at + 5 * MS, H::Kill(BETA));
        let plan = lasting(plan.with(at + 10 * MS, H::Start(BETA)), 5 * SECOND);
        let report = hadrian_sim::run(&plan, false);
        assert_eq!(report.violation, None, "seed {seed}");
        let not_now = |note: &Note| matches!(note, Note::Refused { refusal: Refusal::NotNow, .. });
        busy += usize::from(noted(&report, not_now).is_some());
        let again = leads_after(&report, BETA, 3010 * MS);
        assert!(again.is_some_and(|at| at < 5 * SECOND), "seed {seed}: at {again:?}");
    }
    assert!(busy > 5, "alpha was busy: {busy} of 60");
}

#[test]
fn whoever_follows_a_primary_that_was_deposed_promises_to_one_that_owned_a_later_epoch() {
    // Seed 5001028: gamma has not heard that alpha handed over, and beta needs its promise.
    for moment in 0..12 {
        tell(
            |plan| {
                let plan = in_mode(of_three(plan), Mode::Async);
                let plan = plan.with(SECOND, H::Cut(BETA, GAMMA, Way::Both));
                let plan = plan.with(1010 * MS, H::Command(BETA, PLANNED));
                let plan = plan.with(1012 * MS + moment * 500, H::Kill(BETA));
                let plan = plan.with(1500 * MS, H::Heal(BETA, GAMMA));
                lasting(plan.with(1500 * MS, H::Start(BETA)), 6 * SECOND)
            },
            |report| {
                let leads = report.notes.iter().filter(|(at, _, note)| {
                    (1500 * MS..5 * SECOND).contains(at) && matches!(note, Note::Leads(_))
                });
                assert!(report.primary == Some(ALPHA) || leads.count() > 0, "nobody led");
                nothing_lost(report);
            },
        );
    }
}

//! Stories of single rules of the ownership marks (design §7): each goes wrong where the rule is
//! missing, with every seed or at one of the moments that it is told for. Random clusters meet such
//! moments once in thousands; `mutants/table/marks.rs` names the stories as witnesses.

mod telling;

use std::time::Duration;

use hadrian_protocol::node::{Command, How, Limits, Note};
use hadrian_sim::plan::{Host, Way};
use hadrian_sim::{Happening as H, MS, Micros, Plan, Report, SECOND, run};

use telling::*;

/// How long a lease is good for.
const LEASE: Micros = SECOND;
/// Longest from a member's end to the end of the takeover of what it owned, with room for a start.
const BOUND: Micros = 3 * SECOND;

/// Both ends hear at once that the link is gone, and it stays so.
fn parted(plan: Plan, at: Micros) -> Plan {
    plan.with(at, H::Cut(ALPHA, BETA, Way::Both)).with(at, H::Reset(ALPHA, BETA))
}

fn took_over(report: &Report, since: Micros) -> Micros {
    let beta = reigns(report).into_iter().find(|(at, host)| *host == BETA && *at > since);
    beta.unwrap_or_else(|| panic!("nobody takes over: {:?}", reigns(report))).0
}

fn first_of(report: &Report, host: Host, is: impl Fn(&Note) -> bool) -> Option<Micros> {
    let of_host = report.notes.iter().filter(|(_, of, _)| *of == host);
    of_host.filter(|(_, _, note)| is(note)).map(|(at, _, _)| *at).next()
}

#[test]
fn nobody_is_answered_before_the_markers_have_left_the_lost_standby_out() {
    // The window ends while the lease runs on: what alpha answered alone then, beta would not have.
    tell_marked(
        |plan| {
            let plan = parted(cut_from_marks(plan, SECOND, ALPHA), SECOND);
            let plan = plan.with(5 * SECOND, H::RecordHeals(ALPHA));
            lasting(plan.with(5 * SECOND, H::Heal(ALPHA, BETA)), 6 * SECOND)
        },
        |report| {
            took_over(report, SECOND);
            let left_out = first_of(report, ALPHA, |note| matches!(note, Note::LeftOut(_)));
            assert_eq!(left_out, None, "alpha cannot leave anybody out");
            nothing_lost(report);
        },
    );
}

#[test]
fn a_renewal_that_is_confirmed_late_counts_from_before_it_was_written() {
    // Alpha stands still while its renewal, which landed at once, is read back; then its markers
    // fail. It may serve on until a lease after the write, and not after the confirmation.
    for moment in 0..12 {
        tell_moment(
            moment,
            |plan| {
                let hang = SECOND + moment * 9 * MS;
                let mut plan = plan.with(hang + 300 * MS, H::Pause(ALPHA, 600 * MS));
                for marker in 0..3 {
                    plan = plan.with(hang, H::MarkerHangs(ALPHA, marker));
                    plan = plan.with(hang + 400 * MS, H::MarkerHeals(ALPHA, marker));
                    plan = plan.with(hang + 600 * MS, H::MarkerFails(ALPHA, marker));
                    plan = plan.with(6 * SECOND, H::MarkerHeals(ALPHA, marker));
                }
                let plan = plan.with(hang + 100 * MS, H::Cut(ALPHA, BETA, Way::Both));
                lasting(plan.with(6 * SECOND, H::Heal(ALPHA, BETA)), 7 * SECOND)
            },
            nothing_lost,
        );
    }
}

#[test]
fn a_standby_waits_for_the_end_of_what_it_has_told_its_primary() {
    // The lease on the marks is long over when the link breaks, and the standby's word is not.
    tell_marked(
        |plan| {
            let plan = parted(cut_from_marks(plan, SECOND, ALPHA), 4 * SECOND);
            let plan = plan.with(8 * SECOND, H::RecordHeals(ALPHA));
            lasting(plan.with(8 * SECOND, H::Heal(ALPHA, BETA)), 9 * SECOND)
        },
        |report| {
            let shut = first_of(report, ALPHA, |note| matches!(note, Note::LeaseOver)).unwrap();
            let opened = took_over(report, 4 * SECOND);
            assert!(shut > 4 * SECOND && shut < opened, "shut at {shut}, opened at {opened}");
            nothing_lost(report);
        },
    );
}

#[test]
fn an_owner_whose_lease_is_back_serves_nobody_before_the_record_has_named_it_again() {
    // Its lease comes back around the moment at which the other one wins, and after it.
    for moment in 0..24 {
        tell_moment(
            moment,
            |plan| {
                let plan = parted(cut_from_marks(plan, SECOND, ALPHA), SECOND);
                let plan = plan.with(2 * SECOND + moment * 20 * MS, H::RecordHeals(ALPHA));
                lasting(plan.with(5 * SECOND, H::Heal(ALPHA, BETA)), 6 * SECOND)
            },
            nothing_lost,
        );
    }
}

#[test]
fn a_handover_that_comes_to_nothing_after_the_lease_lets_nobody_in() {
    // The link and the markers are lost in the middle of a handover, on a slow link: alpha gives it
    // up when the silence has lasted, and has no right to serve any more by then.
    let limits = Limits { max_quiesce: Duration::from_secs(60), ..Limits::DEFAULT };
    let takeover = Command::Takeover { how: How::Planned(limits), test: false };
    for moment in 0..8 {
        tell_moment(
            moment,
            |plan| {
                let plan = plan.with(SECOND, H::Slow(ALPHA, BETA, 40 * MS));
                let plan = plan.with(2 * SECOND, H::Command(BETA, takeover));
                let lost = 2050 * MS + moment * 4 * MS;
                let plan = cut_from_marks(plan, lost, ALPHA);
                let plan = plan.with(lost, H::Cut(ALPHA, BETA, Way::Both));
                let plan = plan.with(7 * SECOND, H::RecordHeals(ALPHA));
                lasting(plan.with(7 * SECOND, H::Heal(ALPHA, BETA)), 9 * SECOND)
            },
            |report| {
                let shut = first_of(report, ALPHA, |note| matches!(note, Note::LeaseOver)).unwrap();
                let up = first_of(report, ALPHA, |note| matches!(note, Note::GivenUp(_))).unwrap();
                let opened = took_over(report, shut);
                assert!(shut < up && up < opened, "{shut}, {up}, {opened}: the order of the story");
                nothing_lost(report);
            },
        );
    }
}

/// A standby comes back into the set.
fn comes_back(seed: u64) -> Plan {
    let plan = marked(Plan::quiet(seed), 1 + (seed % 2 * 2) as u8);
    lasting(plan.with(SECOND, H::Kill(BETA)).with(2 * SECOND, H::Start(BETA)), 3 * SECOND)
}

#[test]
fn a_standby_whose_entry_may_have_been_decided_holds_answers_when_it_is_left_out_again() {
    // Alpha loses markers and link while they decide: it cannot know whether beta is in, and beta
    // may win by that. It hears of the decision only when it has wished beta out again. Until the
    // loss the same happens as in a run without one.
    let entered = |note: &Note| matches!(note, Note::PeerEntered(_));
    for seed in 0..4 {
        let report = run(&comes_back(seed), false);
        let back = report.notes.iter().find(|(at, _, note)| *at > 2 * SECOND && entered(note));
        let back = back.unwrap_or_else(|| panic!("seed {seed}: it never comes back")).0;
        for moment in 1..25 {
            let lost = back - moment * 300;
            let plan = parted(cut_from_marks(comes_back(seed), lost, ALPHA), lost);
            let plan = plan.with(6 * SECOND, H::RecordHeals(ALPHA));
            let plan = lasting(plan.with(6 * SECOND, H::Heal(ALPHA, BETA)), 7 * SECOND);
            let report = run(&plan, false);
            assert!(report.violation.is_none(), "seed {seed}, {lost}: {:?}", report.violation);
            nothing_lost(&report);
        }
    }
}

#[test]
fn an_owner_that_is_fenced_is_followed_before_its_lease_would_be_over() {
    // The link of a daemon that is killed ends at once. The command takes up to 400 ms, and works
    // mostly; where it does not, the lease is waited out.
    let (mut followed, mut quick) = (0, 0);
    for moment in 0..12 {
        let story = |mut plan: Plan| {
            plan.marks.iter_mut().for_each(|marks| marks.fences = true);
            lasting(plan.with(SECOND, H::Kill(ALPHA)), 6 * SECOND)
        };
        let check = |report: &Report| {
            let took = took_over(report, SECOND) - SECOND;
            assert!(took < BOUND, "{took}");
            nothing_lost(report);
        };
        tell_moment(moment, story, check);
        let report = run(&story(marked(Plan::quiet(moment * 2), 1)), false);
        let asked = noted(&report, |note| matches!(note, Note::Fences(_))).unwrap();
        assert!(asked - SECOND < LEASE * 7 / 10, "asked at {asked}");
        if let Some(fenced) = noted(&report, |note| matches!(note, Note::Fenced(_))) {
            followed += 1;
            let after = took_over(&report, SECOND) - fenced;
            quick += usize::from(after < LEASE * 3 / 10);
        }
    }
    assert!(followed > 6, "{followed} of 12");
    assert!(quick * 4 > followed * 3, "{quick} of {followed} at once");
}

//! Named stories about ownership marks (design §7): what becomes of a resource when a member, its
//! links, its markers, or several of them fail, and who serves then. The numbers are those of the
//! list of scenarios that the fencing layer was designed against.

mod telling;

use hadrian_protocol::ids::{Epoch, MemberId};
use hadrian_protocol::node::{Command, Denied, How, Note};
use hadrian_protocol::replica::Mode;
use hadrian_protocol::wire::Refusal;
use hadrian_sim::plan::{Host, Marks, Way};
use hadrian_sim::{Happening as H, MS, Micros, Plan, Report, SECOND, run};

use telling::*;

/// Longest from a member's end to the end of the takeover of what it owned, with room for a start.
const BOUND: Micros = 3 * SECOND;

/// Nobody takes over but by an operator's word.
fn by_hand(mut plan: Plan, markers: u8) -> Plan {
    plan = marked(plan, markers);
    plan.marks = Some(Marks { markers, auto_takeover: false, fails: false, fences: false });
    plan
}

/// A primary that nobody follows loses power: what no client had flushed may be gone, and the
/// oracle knows what that is.
fn keeps_its_promises(report: &Report) {
    assert!(report.answered > 0 && report.primary.is_some());
}

fn stays_with_alpha(report: &Report) {
    assert!(reigns(report).iter().all(|(_, host)| *host == ALPHA), "{:?}", reigns(report));
    assert_eq!(report.primary, Some(ALPHA));
    nothing_lost(report);
}

/// Beta leads, and does so in time.
fn moves_to_beta(report: &Report, since: Micros) {
    let (at, host) = reigns(report).into_iter().find(|(_, host)| *host == BETA).unwrap();
    assert!(at > since && at - since < BOUND, "{host} leads {} ms after", (at - since) / MS);
    assert_eq!(report.primary, Some(BETA));
    nothing_lost(report);
}

fn last(report: &Report, host: Host, is: impl Fn(&Note) -> bool) -> Option<Micros> {
    let of_host = report.notes.iter().rev().filter(|(_, of, _)| *of == host);
    of_host.filter(|(_, _, note)| is(note)).map(|(at, _, _)| *at).next()
}

#[test]
fn a_primary_that_stands_still_past_its_lease_has_lost_its_resource_and_no_write_when_it_wakes() {
    // 1, 2, 6, 49: wherever it was between looking at its lease and answering.
    for moment in 0..12 {
        tell_moment(
            moment,
            |plan| {
                let plan = plan.with(SECOND + moment * 700, H::Pause(ALPHA, 3 * SECOND));
                lasting(plan, 6 * SECOND)
            },
            |report| moves_to_beta(report, SECOND),
        );
    }
}

#[test]
fn a_short_pause_changes_nothing() {
    // 3: shorter than what is left of a lease at any time.
    tell_marked(
        |plan| {
            let plan = plan.with(SECOND, H::Pause(ALPHA, 80 * MS));
            plan.with(1500 * MS, H::Pause(BETA, 80 * MS))
        },
        |report| {
            stays_with_alpha(report);
            assert_eq!(noted(report, |note| matches!(note, Note::LeaseOver)), None);
        },
    );
}

#[test]
fn a_standby_that_stands_still_is_left_out_and_comes_back() {
    // 4
    tell_marked(
        |plan| lasting(plan.with(SECOND, H::Pause(BETA, 3 * SECOND)), 6 * SECOND),
        |report| {
            stays_with_alpha(report);
            assert!(noted(report, |note| matches!(note, Note::LeftOut(_))).is_some());
        },
    );
}

#[test]
fn wall_clocks_mean_nothing() {
    // 5
    tell_marked(
        |plan| {
            let plan = plan.with(SECOND, H::WallJumps(ALPHA, 3600));
            plan.with(SECOND, H::WallJumps(BETA, -3600))
        },
        stays_with_alpha,
    );
}

#[test]
fn a_hypervisor_that_freezes_a_primary_with_its_clocks_makes_it_lose_no_write() {
    // 7: it may answer a read of the past; every write of it is refused by its standby.
    tell_marked(
        |plan| lasting(plan.with(SECOND, H::Freezes(ALPHA, 4 * SECOND)), 7 * SECOND),
        |report| moves_to_beta(report, SECOND),
    );
}

#[test]
fn clocks_may_differ_as_much_as_the_lease_allows_for() {
    // 8: one percent between the two, either way.
    for drifts in [vec![5, -5], vec![-5, 5]] {
        tell_marked(
            |mut plan| {
                plan.drifts.clone_from(&drifts);
                let plan = cut_from_marks(plan, SECOND, ALPHA);
                let plan = plan.with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
                lasting(plan, 5 * SECOND)
            },
            |report| assert!(reigns(report).iter().any(|(_, host)| *host == BETA)),
        );
    }
}

#[test]
fn clocks_that_differ_more_than_that_cost_no_write() {
    // 8: six percent; two may be open at the same time for a moment, and nothing else is broken.
    for seed in 0..40 {
        let mut plan = marked(Plan::quiet(seed), 1);
        plan.drifts = vec![-30, 30];
        let plan = cut_from_marks(plan, SECOND, ALPHA);
        let plan = plan.with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
        let report = run(&lasting(plan, 5 * SECOND), false);
        let rule = report.violation.as_ref().map(|violation| violation.rule);
        assert!(matches!(rule, None | Some("§7")), "seed {seed}: {:?}", report.violation);
        assert_eq!(report.lost, 0);
    }
}

#[test]
fn markers_that_hang_or_fail_stop_nobody_who_has_a_peer() {
    // 9, 10, 11, 22, 25: late, too late for the lease, and with errors; for one member and for all.
    let times = [(200 * MS, 1), (700 * MS, 1), (4 * SECOND, 1), (4 * SECOND, 2)];
    for (moment, (time, hosts)) in (0..).zip(times) {
        for fault in [H::MarkerHangs, H::MarkerFails] {
            tell_moment(
                moment,
                |mut plan| {
                    for (host, marker) in (0..hosts).flat_map(|host| (0..3).map(move |n| (host, n)))
                    {
                        plan = plan.with(SECOND, fault(host, marker));
                        plan = plan.with(SECOND + time, H::MarkerHeals(host, marker));
                    }
                    lasting(plan, 6 * SECOND)
                },
                |report| {
                    stays_with_alpha(report);
                    let over = noted(report, |note| matches!(note, Note::LeaseOver));
                    assert_eq!(over, None, "the standby's word is enough");
                },
            );
        }
    }
}

#[test]
fn a_standby_without_marks_takes_nothing_over() {
    // 26
    tell_marked(
        |plan| {
            let plan = cut_from_marks(plan, SECOND, BETA).with(2 * SECOND, H::Kill(ALPHA));
            let plan = plan.with(5 * SECOND, H::Command(BETA, FORCE));
            lasting(plan.with(6 * SECOND, H::Start(ALPHA)), 7 * SECOND)
        },
        |report| {
            assert!(matches!(report.replies[0], (BETA, Err(_))), "{:?}", report.replies);
            nothing_lost(report);
        },
    );
}

#[test]
fn a_marker_that_went_back_in_time_is_not_believed_one_of_three_is_not_missed() {
    // 15, 16
    tell_marked(
        |plan| lasting(plan.with(2 * SECOND, H::MarkerForgets(0)), 5 * SECOND),
        stays_with_alpha,
    );
}

#[test]
fn of_two_that_start_at_once_one_leads() {
    // 17
    for jitter in 0..20 {
        tell_moment(
            jitter,
            |plan| {
                let plan = plan.with(SECOND, H::PowerLossOfAll);
                let plan = plan.with(1100 * MS, H::Start(ALPHA));
                lasting(plan.with(1100 * MS + jitter * 300, H::Start(BETA)), 5 * SECOND)
            },
            keeps_its_promises,
        );
    }
}

#[test]
fn a_primary_that_was_followed_returns_as_a_standby() {
    // 19
    tell_marked(
        |plan| {
            let plan = plan.with(SECOND, H::PowerLoss(ALPHA));
            lasting(plan.with(5 * SECOND, H::Start(ALPHA)), 6 * SECOND)
        },
        |report| moves_to_beta(report, SECOND),
    );
}

#[test]
fn a_member_that_the_record_has_left_out_does_not_lead_by_itself_nor_by_mere_force() {
    // 20
    for markers in [1, 3] {
        tell(
            |plan| {
                let plan = marked(plan, markers).with(SECOND, H::PowerLoss(ALPHA));
                let plan = plan.with(5 * SECOND, H::PowerLoss(BETA));
                let plan = plan.with(5 * SECOND, H::Start(ALPHA));
                let plan = plan.with(8 * SECOND, H::Command(ALPHA, FORCE));
                lasting(plan.with(9 * SECOND, H::Start(BETA)), 10 * SECOND)
            },
            |report| {
                let alone = reigns(report).into_iter().filter(|(at, _)| *at > 5 * SECOND);
                assert!(alone.into_iter().all(|(_, host)| host == BETA));
                let denied = &report.replies[0].1;
                let denied =
                    matches!(denied, Err(Denied::NotInSet { .. } | Denied::OwnerLives { .. }));
                assert!(denied, "{:?}", report.replies);
                keeps_its_promises(report);
            },
        );
    }
}

#[test]
fn what_a_dead_life_has_left_on_its_way_to_a_marker_harms_nobody() {
    // 21, 32, 33: power is lost at every moment of a takeover, and of the restart after it.
    for moment in 0..30 {
        tell_moment(
            moment,
            |plan| {
                let plan = plan.with(SECOND, H::PowerLoss(ALPHA));
                let beta = 2050 * MS + moment * 2500;
                let plan = plan.with(beta, H::PowerLoss(BETA)).with(beta + MS, H::Start(BETA));
                let plan = plan.with(beta + 3 * MS, H::Start(ALPHA));
                lasting(plan, 6 * SECOND)
            },
            keeps_its_promises,
        );
    }
}

#[test]
fn without_marks_and_without_links_nobody_serves_and_whoever_served_goes_on_later() {
    // 23
    tell_marked(
        |plan| {
            let plan = cut_from_marks(cut_from_marks(plan, SECOND, ALPHA), SECOND, BETA);
            let plan = plan.with(2 * SECOND, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(6 * SECOND, H::RecordHeals(ALPHA));
            let plan = plan.with(6 * SECOND, H::RecordHeals(BETA));
            lasting(plan.with(8 * SECOND, H::Heal(ALPHA, BETA)), 9 * SECOND)
        },
        |report| {
            let over = last(report, ALPHA, |note| matches!(note, Note::LeaseOver)).unwrap();
            assert!((2 * SECOND..4 * SECOND).contains(&over), "held at {over}");
            let moved =
                reigns(report).into_iter().any(|(at, _)| (2 * SECOND..6 * SECOND).contains(&at));
            assert!(!moved, "nobody takes over without marks");
            nothing_lost(report);
        },
    );
}

#[test]
fn a_link_that_breaks_whichever_way_moves_nothing() {
    // 24, 34
    for way in [Way::Both, Way::There, Way::Back] {
        tell_marked(
            |plan| {
                let plan = plan.with(SECOND, H::Cut(ALPHA, BETA, way));
                let plan = plan.with(3 * SECOND, H::Command(BETA, FORCE));
                lasting(plan.with(4 * SECOND, H::Heal(ALPHA, BETA)), 5 * SECOND)
            },
            |report| {
                assert!(matches!(report.replies[0], (BETA, Err(_))), "{:?}", report.replies);
                stays_with_alpha(report);
            },
        );
    }
}

#[test]
fn a_link_that_flaps_moves_nothing() {
    // 35
    tell_marked(
        |mut plan| {
            for times in 0..50 {
                plan = plan.with(SECOND + times * 60 * MS, H::Reset(ALPHA, BETA));
            }
            lasting(plan, 5 * SECOND)
        },
        |report| {
            stays_with_alpha(report);
            assert_eq!(reigns(report).len(), 1, "one epoch: {:?}", reigns(report));
        },
    );
}

#[test]
fn a_primary_that_is_cut_off_from_everything_is_shut_before_the_other_opens() {
    // 27
    tell_marked(
        |plan| {
            let plan = cut_from_marks(plan, SECOND, ALPHA);
            let plan = plan.with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(5 * SECOND, H::RecordHeals(ALPHA));
            lasting(plan.with(5 * SECOND, H::Heal(ALPHA, BETA)), 6 * SECOND)
        },
        |report| {
            let shut = last(report, ALPHA, |note| matches!(note, Note::LeaseOver)).unwrap();
            let (opened, _) = reigns(report).into_iter().find(|(_, host)| *host == BETA).unwrap();
            assert!(shut < opened, "shut at {shut}, opened at {opened}");
            moves_to_beta(report, SECOND);
        },
    );
}

#[test]
fn members_that_see_different_markers_agree_as_long_as_each_sees_two() {
    // 28
    tell(
        |plan| {
            let plan = marked(plan, 3).with(500 * MS, H::MarkerHangs(ALPHA, 2));
            let plan = plan.with(500 * MS, H::MarkerHangs(BETA, 0));
            lasting(plan.with(2 * SECOND, H::PowerLoss(ALPHA)), 6 * SECOND)
        },
        |report| moves_to_beta(report, 2 * SECOND),
    );
}

#[test]
fn a_member_that_sees_one_marker_of_three_has_no_lease() {
    // 29
    tell(
        |plan| {
            let plan = marked(plan, 3).with(SECOND, H::MarkerHangs(ALPHA, 1));
            let plan = plan.with(SECOND, H::MarkerHangs(ALPHA, 2));
            let plan = plan.with(SECOND, H::MarkerHangs(BETA, 0));
            let plan = plan.with(2 * SECOND, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(6 * SECOND, H::Heal(ALPHA, BETA));
            lasting(plan, 7 * SECOND)
        },
        |report| moves_to_beta(report, 2 * SECOND),
    );
}

#[test]
fn of_leaving_a_standby_out_and_its_takeover_one_is_decided() {
    // 30: the link breaks, and the lease of the primary ends just when its window does.
    for moment in 0..24 {
        tell_moment(
            moment,
            |plan| {
                let plan = window(plan, 900 * MS + moment * 25 * MS);
                let plan = plan.with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
                let plan = cut_from_marks(plan, SECOND, ALPHA);
                let plan = plan.with(2 * SECOND + moment * 10 * MS, H::RecordHeals(ALPHA));
                lasting(plan.with(5 * SECOND, H::Heal(ALPHA, BETA)), 6 * SECOND)
            },
            nothing_lost,
        );
    }
}

#[test]
fn a_standby_that_enters_the_set_counts_from_the_proposal_on() {
    // 31: the primary falls around the moment in which its standby comes back into the set.
    for moment in 0..24 {
        tell_moment(
            moment,
            |plan| {
                let plan = plan.with(SECOND, H::Kill(BETA)).with(2 * SECOND, H::Start(BETA));
                let plan = plan.with(2 * SECOND + moment * 4 * MS, H::PowerLoss(ALPHA));
                lasting(plan.with(5 * SECOND, H::Start(ALPHA)), 6 * SECOND)
            },
            keeps_its_promises,
        );
    }
}

#[test]
fn a_fast_restart_is_a_new_life_and_not_the_old_one_that_stood_still() {
    // 37, 41
    for pause in [1, 100, 600] {
        tell_marked(
            |plan| {
                let plan = plan.with(SECOND, H::Kill(ALPHA));
                lasting(plan.with(SECOND + pause * MS, H::Start(ALPHA)), 5 * SECOND)
            },
            nothing_lost,
        );
    }
}

#[test]
fn a_takeover_needs_a_majority_of_the_markers() {
    // 45: of three, one lost is not missed; with two lost nobody takes over, with all neither.
    for lost in 1..=3 {
        tell(
            |plan| {
                let mut plan = by_hand(plan, 3);
                for marker in 0..lost {
                    plan = plan.with(SECOND, H::MarkerFails(BETA, marker));
                }
                let plan = plan.with(1500 * MS, H::PowerLoss(ALPHA));
                let plan = plan.with(4 * SECOND, H::Command(BETA, FORCE));
                lasting(plan.with(7 * SECOND, H::Start(ALPHA)), 8 * SECOND)
            },
            |report| {
                let took =
                    reigns(report).iter().any(|(at, host)| *host == BETA && *at < 7 * SECOND);
                assert_eq!(took, lost == 1, "{lost} of three are lost: {:?}", report.replies);
                nothing_lost(report);
            },
        );
    }
}

#[test]
fn an_old_primary_that_an_operator_answered_for_has_parted_and_discards_nothing() {
    // 47: beta was left out, and takes over against the record while alpha goes on.
    for markers in [1, 3] {
        tell(
            |plan| {
                let plan = marked(plan, markers).with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
                let plan = plan.with(3 * SECOND, H::Override(BETA));
                lasting(plan.with(5 * SECOND, H::Heal(ALPHA, BETA)), 6 * SECOND)
            },
            |report| {
                assert_eq!(report.primary, Some(BETA));
                let parted = |note: &Note| {
                    matches!(note, Note::Refused { refusal: Refusal::Diverged { .. }, .. })
                };
                assert!(noted(report, parted).is_some(), "what alpha answered alone is kept");
            },
        );
    }
}

#[test]
fn a_handover_that_comes_to_nothing_without_a_lease_lets_clients_in_once_there_is_one() {
    // Seed 194: in async the standby's word is no right to serve.
    for fails in [false, true] {
        tell(
            |plan| {
                let mut plan = in_mode(by_hand(plan, 1), Mode::Async);
                plan.marks.iter_mut().for_each(|marks| marks.fails = fails);
                let plan = plan.with(SECOND, H::MarkerFails(ALPHA, 0));
                let plan = plan.with(2500 * MS, H::Command(BETA, PLANNED));
                lasting(plan.with(2600 * MS, H::MarkerHeals(ALPHA, 0)), 16 * SECOND)
            },
            |report| {
                assert!(noted(report, |note| matches!(note, Note::LeaseOver)).is_some());
                assert!(report.primary.is_some());
                nothing_lost(report);
            },
        );
    }
}

#[test]
fn pauses_and_a_power_failure_together_lose_no_answered_write() {
    // 48, 50
    for moment in 0..12 {
        tell_moment(
            moment,
            |plan| {
                let plan = plan.with(SECOND, H::Pause(BETA, 600 * MS));
                let plan = plan.with(1100 * MS + moment * 50 * MS, H::PowerLoss(ALPHA));
                let plan = plan.with(2500 * MS, H::Pause(BETA, 1500 * MS));
                lasting(plan.with(5 * SECOND, H::Start(ALPHA)), 6 * SECOND)
            },
            nothing_lost,
        );
    }
}

#[test]
fn an_override_that_names_another_owner_than_the_markers_do_is_denied() {
    let how = How::Override { owner: member(BETA), epoch: Epoch::new(1) };
    tell(
        |plan| {
            let plan = by_hand(plan, 1).with(SECOND, H::PowerLoss(ALPHA));
            let command = Command::Takeover { how, test: false };
            let plan = plan.with(1500 * MS, H::Command(BETA, command));
            lasting(plan.with(4 * SECOND, H::Start(ALPHA)), 5 * SECOND)
        },
        |report| assert!(matches!(report.replies[0], (BETA, Err(_))), "{:?}", report.replies),
    );
}

fn member(host: Host) -> MemberId {
    MemberId::new(host).unwrap()
}

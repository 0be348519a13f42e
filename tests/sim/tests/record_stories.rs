//! Named stories about the right to lead: the control record, the peer window and its proof, the
//! word of an operator, and what a restart does to each of them (design §5, §6).

mod telling;

use hadrian_protocol::ids::{Epoch, MemberId};
use hadrian_protocol::node::{Command, Denied, Done, How, Note};
use hadrian_protocol::replica::Mode;
use hadrian_protocol::wire::Refusal;
use hadrian_sim::plan::{Host, Way};
use hadrian_sim::{Happening as H, MS, Micros, Plan, Report, SECOND};

use telling::*;

const BY_PROOF: Command = Command::Takeover { how: How::PeerWindowOnly, test: false };

fn with_record(mut plan: Plan) -> Plan {
    plan.record = true;
    plan
}

fn holding(mut plan: Plan) -> Plan {
    plan.hold = true;
    plan
}

fn was_left_out(report: &Report) -> bool {
    noted(report, |note| matches!(note, Note::LeftOut(_))).is_some()
}

#[test]
fn the_record_gives_the_resource_to_a_standby_of_its_set() {
    tell(
        |plan| {
            let plan = with_record(plan).with(SECOND, H::Kill(ALPHA));
            let plan = plan.with(1500 * MS, H::Command(BETA, FORCE));
            plan.with(2500 * MS, H::Start(ALPHA))
        },
        |report| {
            assert!(matches!(report.replies[0], (BETA, Ok(Done::Leading(_)))));
            assert_eq!(report.primary, Some(BETA));
            nothing_lost(report);
        },
    );
}

#[test]
fn whoever_finds_a_dead_life_of_its_own_in_the_record_asks_its_set_and_leads() {
    // Beta has won the record and dies before it knows.
    for (seed, moment) in (0..4).flat_map(|seed| (0..24).map(move |moment| (seed, moment))) {
        let plan = with_record(Plan::quiet(seed)).with(SECOND, H::Kill(ALPHA));
        let plan = plan.with(1500 * MS, H::Command(BETA, FORCE));
        let plan = plan.with(1500 * MS + moment * 400, H::PowerLoss(BETA));
        let plan = plan.with(1700 * MS, H::Start(BETA)).with(2 * SECOND, H::Start(ALPHA));
        let report = hadrian_sim::run(&lasting(plan, 5 * SECOND), false);
        assert_eq!(report.violation, None, "seed {seed}, moment {moment}");
        let leads = |(at, _, note): &(Micros, Host, Note)| {
            (1700 * MS..5 * SECOND).contains(at) && matches!(note, Note::Leads(_))
        };
        assert!(report.notes.iter().any(leads), "seed {seed}, moment {moment}: nobody leads");
    }
}

#[test]
fn a_standby_that_the_record_has_left_out_is_denied_and_told_who_owns_the_resource() {
    tell(
        |plan| {
            let plan = window(with_record(plan), 300 * MS);
            let plan = plan.with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            lasting(plan.with(4 * SECOND, H::Command(BETA, FORCE)), 5 * SECOND)
        },
        |report| {
            let (host, reply) = report.replies[0];
            let Err(Denied::NotInSet { owner, .. }) = reply else {
                panic!("{host} was answered {reply:?}");
            };
            assert_eq!(Some(owner), MemberId::new(ALPHA));
            assert_eq!(report.primary, Some(ALPHA));
            nothing_lost(report);
        },
    );
}

#[test]
fn an_operator_overrides_the_record_by_naming_its_owner_and_epoch() {
    tell(
        |plan| {
            let plan = window(with_record(plan), 300 * MS);
            let plan = plan.with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(4 * SECOND, H::Kill(ALPHA)).with(5 * SECOND, H::Override(BETA));
            lasting(plan, 6 * SECOND)
        },
        |report| {
            assert!(matches!(report.replies[0], (BETA, Ok(Done::Leading(_)))));
            assert_eq!(report.primary, Some(BETA));
        },
    );
}

#[test]
fn an_override_that_names_another_owner_than_the_record_is_denied() {
    let wrong = How::Override { owner: MemberId::new(BETA).unwrap(), epoch: Epoch::new(1) };
    tell(
        |plan| {
            let plan = window(with_record(plan), 300 * MS);
            let plan = plan.with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            let command = Command::Takeover { how: wrong, test: false };
            lasting(plan.with(4 * SECOND, H::Command(BETA, command)), 5 * SECOND)
        },
        |report| {
            assert!(matches!(report.replies[0], (BETA, Err(Denied::NotInSet { .. }))));
            assert_eq!(report.primary, Some(ALPHA));
        },
    );
}

#[test]
fn an_epoch_won_over_a_record_that_moved_on_is_above_it_all_the_same() {
    // Seed 1002707: the candidate has not heard of two lives that the owner had since.
    tell(
        |plan| {
            let plan = window(with_record(plan), 300 * MS);
            let plan = plan.with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(3 * SECOND, H::RecordCut(BETA));
            let plan = plan.with(3 * SECOND, H::Kill(ALPHA)).with(3010 * MS, H::Start(ALPHA));
            let plan = plan.with(4 * SECOND, H::Kill(ALPHA)).with(4010 * MS, H::Start(ALPHA));
            let plan = plan.with(4900 * MS, H::Kill(ALPHA)).with(5 * SECOND, H::Override(BETA));
            lasting(plan.with(5010 * MS, H::RecordHeals(BETA)), 6 * SECOND)
        },
        |report| {
            assert!(matches!(report.replies[0], (BETA, Ok(Done::Leading(_)))));
            assert_eq!(report.primary, Some(BETA));
        },
    );
}

#[test]
fn an_auxiliary_standby_applies_nothing_that_a_takeover_by_the_set_takes_back() {
    // Seed 4515: gamma has what beta, which is in the set, never received; nobody was answered.
    for moment in 0..4 {
        tell(
            |plan| {
                let plan = window(with_record(of_three(plan)), 2 * SECOND);
                let plan = plan.with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
                let plan = plan.with(SECOND, H::Cut(BETA, GAMMA, Way::Both));
                let plan = plan.with((1300 + 50 * moment) * MS, H::Kill(ALPHA));
                let plan = plan.with(2500 * MS, H::Command(BETA, FORCE));
                let plan = plan.with(3 * SECOND, H::Heal(BETA, GAMMA));
                lasting(plan.with(3500 * MS, H::Start(ALPHA)), 6 * SECOND)
            },
            |report| {
                assert_eq!(leads_last(report), Some(BETA));
                let diverged = |note: &Note| {
                    matches!(note, Note::Refused { refusal: Refusal::Diverged { .. }, .. })
                };
                assert_eq!(noted(report, diverged), None);
                nothing_lost(report);
            },
        );
    }
}

#[test]
fn nobody_is_left_out_while_the_record_cannot_be_asked() {
    // The bug that the record prevents: each side leaves the other out by itself.
    tell(
        |plan| {
            let plan = window(with_record(plan), 300 * MS).with(SECOND, H::RecordCut(ALPHA));
            let plan = plan.with(1100 * MS, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(5 * SECOND, H::Heal(ALPHA, BETA));
            lasting(plan.with(8 * SECOND, H::RecordHeals(ALPHA)), 9 * SECOND)
        },
        |report| {
            assert!(noted(report, |note| matches!(note, Note::Holding(_))).is_some());
            let left = noted(report, |note| matches!(note, Note::LeftOut(_)));
            assert!(left.is_none_or(|at| at >= 8 * SECOND), "the record was not asked: {left:?}");
            nothing_lost(report);
        },
    );
}

#[test]
fn a_connected_pair_does_without_the_record() {
    tell(
        |plan| {
            let plan = with_record(plan).with(SECOND, H::RecordCut(ALPHA));
            let plan = plan.with(SECOND, H::RecordCut(BETA));
            lasting(plan.with(5 * SECOND, H::RecordHeals(ALPHA)), 6 * SECOND)
        },
        |report| {
            assert_eq!(noted(report, |note| matches!(note, Note::Holding(_))), None);
            assert!(report.answered > 300, "clients went on: {}", report.answered);
            nothing_lost(report);
        },
    );
}

#[test]
fn a_takeover_waits_for_a_record_that_cannot_be_reached() {
    tell(
        |plan| {
            let plan = with_record(plan).with(SECOND, H::Kill(ALPHA));
            let plan = plan.with(SECOND, H::RecordCut(BETA));
            let plan = plan.with(1500 * MS, H::Command(BETA, FORCE));
            let plan = plan.with(4 * SECOND, H::RecordHeals(BETA));
            lasting(plan.with(5 * SECOND, H::Start(ALPHA)), 6 * SECOND)
        },
        |report| {
            let leads = report
                .notes
                .iter()
                .find(|(_, host, note)| *host == BETA && matches!(note, Note::Leads(_)));
            assert!(leads.is_none_or(|(at, _, _)| *at >= 4 * SECOND), "not before the record");
            nothing_lost(report);
        },
    );
}

#[test]
fn an_entry_counts_when_the_record_knows_it_and_answers_wait_from_the_proposal_on() {
    // Holes, story 6: the proposal is done already when the primary learns it.
    for moment in 0..10 {
        tell(
            |plan| {
                let plan = window(with_record(plan), 300 * MS).with(SECOND, H::Kill(BETA));
                let plan = plan.with(2 * SECOND, H::Start(BETA));
                let at = 2 * SECOND + moment * MS;
                let plan = plan.with(at + 500, H::RecordCut(ALPHA));
                let plan = plan.with(at + 20 * MS, H::Kill(ALPHA));
                let plan = plan.with(at + 500 * MS, H::Command(BETA, FORCE));
                lasting(plan.with(4 * SECOND, H::Start(ALPHA)), 5 * SECOND)
            },
            nothing_lost,
        );
    }
}

#[test]
fn a_proposal_that_lands_late_names_a_dead_life_and_nobody_steps_down_for_it() {
    // Holes, story 13.
    tell(
        |plan| {
            let plan = with_record(plan).with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(1005 * MS, H::Command(BETA, FORCE));
            let plan = plan.with(1008 * MS, H::RecordCut(BETA));
            let plan = plan.with(1100 * MS, H::PowerLoss(BETA));
            let plan = plan.with(1500 * MS, H::Start(BETA));
            let plan = plan.with(2500 * MS, H::RecordHeals(BETA));
            lasting(plan.with(3 * SECOND, H::Heal(ALPHA, BETA)), 4 * SECOND)
        },
        |report| {
            assert!(report.primary.is_some(), "not two standbys");
            nothing_lost(report);
        },
    );
}

#[test]
fn a_primary_that_slept_learns_from_the_record_that_it_was_deposed() {
    tell(
        |plan| {
            let plan = with_record(plan).with(SECOND, H::Pause(ALPHA, 4 * SECOND));
            let plan = plan.with(1100 * MS, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(2 * SECOND, H::Command(BETA, FORCE));
            lasting(plan.with(8 * SECOND, H::Heal(ALPHA, BETA)), 9 * SECOND)
        },
        |report| {
            assert!(noted(report, |note| matches!(note, Note::Deposed { .. })).is_some());
            assert_eq!(report.primary, Some(BETA));
            nothing_lost(report);
        },
    );
}

#[test]
fn the_record_lets_one_of_two_win() {
    tell(
        |plan| {
            let plan = of_three(with_record(plan)).with(SECOND, H::Kill(ALPHA));
            let plan = plan.with(1500 * MS, H::Command(BETA, FORCE));
            let plan = plan.with(1500 * MS, H::Command(GAMMA, FORCE));
            lasting(plan.with(3 * SECOND, H::Start(ALPHA)), 4 * SECOND)
        },
        |report| {
            assert!(report.primary.is_some());
            nothing_lost(report);
        },
    );
}

#[test]
fn the_record_alone_does_not_open_the_gate_of_a_primary_that_lost_its_memory() {
    // Holes, story 5: its in-sync standby has the tail.
    tell(
        |plan| {
            let plan = with_record(plan).with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(1010 * MS, H::PowerLoss(ALPHA));
            let plan = plan.with(1200 * MS, H::Start(ALPHA));
            lasting(plan.with(4 * SECOND, H::Heal(ALPHA, BETA)), 5 * SECOND)
        },
        |report| {
            let mut again = report.notes.iter().filter(|(at, ..)| *at > 1200 * MS);
            let first = again.find(|(_, _, note)| matches!(note, Note::Leads(_)));
            assert!(first.is_some_and(|(at, ..)| *at >= 4 * SECOND), "{first:?}");
            nothing_lost(report);
        },
    );
}

#[test]
fn a_standby_takes_over_by_proof_within_the_window_and_nothing_is_lost() {
    tell(
        |plan| {
            let plan = window(plan, 4 * SECOND).with(SECOND, H::Kill(ALPHA));
            let plan = plan.with(2 * SECOND, H::Command(BETA, BY_PROOF));
            lasting(plan.with(3 * SECOND, H::Start(ALPHA)), 4 * SECOND)
        },
        |report| {
            assert!(matches!(report.replies[0], (BETA, Ok(Done::Leading(_)))));
            assert_eq!(report.primary, Some(BETA));
            nothing_lost(report);
        },
    );
}

#[test]
fn a_proof_lapses_with_the_window() {
    tell(
        |plan| {
            let plan = plan.with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(3 * SECOND, H::Command(BETA, BY_PROOF));
            lasting(plan, 4 * SECOND)
        },
        |report| {
            assert_eq!(report.replies[0], (BETA, Err(Denied::NoProof)));
            assert_eq!(report.primary, Some(ALPHA));
            nothing_lost(report);
        },
    );
}

#[test]
fn a_word_that_was_long_on_its_way_proves_no_more_than_what_it_confirms() {
    // Beta is not heard any more, and hears alpha half a second late: by then alpha holds already.
    for seed in 0..TELLINGS {
        let plan = window(Plan::quiet(seed), SECOND).with(200 * MS, H::Slow(ALPHA, BETA, 500 * MS));
        let plan = lasting(plan.with(2 * SECOND, H::Cut(ALPHA, BETA, Way::Back)), 7 * SECOND);
        let holds = |note: &Note| matches!(note, Note::Holding(_));
        let held = noted(&hadrian_sim::run(&plan, false), holds).expect("beta is in the set");
        let plan = plan.with(held + 1200 * MS, H::Command(BETA, BY_PROOF));
        let report = hadrian_sim::run(&plan, false);
        assert_eq!(report.violation, None, "seed {seed}");
        assert_eq!(report.replies[0], (BETA, Err(Denied::NoProof)), "seed {seed}");
        nothing_lost(&report);
    }
}

#[test]
fn a_takeover_by_proof_that_takes_longer_than_its_proof_is_given_up() {
    tell(
        |plan| {
            let plan = window(plan, SECOND).with(2 * SECOND, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(2390 * MS, H::DiskHangs(BETA, 3 * SECOND));
            let plan = plan.with(2400 * MS, H::Command(BETA, BY_PROOF));
            // Alpha went on alone meanwhile, and nobody deposes it for what came too late.
            lasting(plan.with(6 * SECOND, H::Heal(ALPHA, BETA)), 9 * SECOND)
        },
        |report| {
            assert!(matches!(report.replies[0], (BETA, Err(_))), "{:?}", report.replies);
            nothing_lost(report);
        },
    );
}

#[test]
fn without_a_window_nothing_can_be_proved() {
    tell(
        |plan| {
            let plan = window(plan, 0).with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            plan.with(1001 * MS, H::Command(BETA, BY_PROOF))
        },
        |report| assert_eq!(report.replies[0], (BETA, Err(Denied::NoProof))),
    );
}

#[test]
fn a_restarted_standby_has_no_proof_any_more() {
    tell(
        |plan| {
            let plan = window(plan, 4 * SECOND).with(SECOND, H::Kill(ALPHA));
            let plan = plan.with(1100 * MS, H::Kill(BETA)).with(1200 * MS, H::Start(BETA));
            let plan = plan.with(2 * SECOND, H::Command(BETA, BY_PROOF));
            lasting(plan.with(3 * SECOND, H::Start(ALPHA)), 4 * SECOND)
        },
        |report| {
            assert_eq!(report.replies[0], (BETA, Err(Denied::NoProof)));
            nothing_lost(report);
        },
    );
}

#[test]
fn an_old_proof_is_worth_nothing_against_a_primary_that_has_started_again() {
    // Holes, story 9: it shakes hands, and the standby takes over by what it was told before.
    for moment in 0..16 {
        tell(
            |plan| {
                let plan = window(plan, 4 * SECOND).with(SECOND, H::Kill(ALPHA));
                let plan = plan.with(1100 * MS, H::Start(ALPHA));
                let at = 1100 * MS + moment * 300;
                lasting(plan.with(at, H::Command(BETA, BY_PROOF)), 3 * SECOND)
            },
            nothing_lost,
        );
    }
}

#[test]
fn a_proof_and_a_forced_gate_do_not_meet_in_one_epoch() {
    // Holes, story 8, with the window's proof on one side.
    for moment in 0..6 {
        tell(
            |plan| {
                let plan = window(plan, 4 * SECOND).with(SECOND, H::Kill(ALPHA));
                let plan = plan.with(1050 * MS, H::Cut(ALPHA, BETA, Way::Both));
                let plan = plan.with(1100 * MS, H::Start(ALPHA));
                let at = 1110 * MS;
                let plan = plan.with(at, H::Command(ALPHA, Command::StartPrimary));
                let plan = plan.with(at + moment * 200, H::Command(BETA, BY_PROOF));
                lasting(plan.with(3 * SECOND, H::Heal(ALPHA, BETA)), 4 * SECOND)
            },
            |report| assert!(report.primary.is_some()),
        );
    }
}

#[test]
fn a_primary_that_holds_leaves_the_way_to_its_standby_and_there_are_never_two() {
    // Holes, story 10, closed by `on_window_end = "hold"`.
    tell(
        |plan| {
            let plan = holding(plan).with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(2 * SECOND, H::Command(BETA, BY_PROOF));
            lasting(plan.with(9 * SECOND, H::Heal(ALPHA, BETA)), 10 * SECOND)
        },
        |report| {
            assert!(
                !report
                    .notes
                    .iter()
                    .any(|(_, host, note)| { *host == ALPHA && matches!(note, Note::LeftOut(_)) })
            );
            assert_eq!(report.primary, Some(BETA));
            nothing_lost(report);
        },
    );
}

#[test]
fn a_primary_that_holds_goes_on_when_the_link_is_back() {
    tell(
        |plan| {
            let plan = window(holding(plan), 300 * MS);
            let plan = plan.with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            lasting(plan.with(5 * SECOND, H::Heal(ALPHA, BETA)), 6 * SECOND)
        },
        |report| {
            assert!(noted(report, |note| matches!(note, Note::HoldsOn(_))).is_some());
            assert!(!was_left_out(report));
            nothing_lost(report);
        },
    );
}

#[test]
fn a_primary_that_holds_goes_on_alone_by_an_operators_word() {
    tell(
        |plan| {
            let plan = window(holding(plan), 300 * MS).with(SECOND, H::Kill(BETA));
            let plan = plan.with(4 * SECOND, H::Command(ALPHA, Command::StartPrimary));
            lasting(plan.with(6 * SECOND, H::Start(BETA)), 7 * SECOND)
        },
        |report| {
            assert_eq!(report.replies[0], (ALPHA, Ok(Done::GoesOnAlone)));
            assert!(was_left_out(report));
            nothing_lost(report);
        },
    );
}

#[test]
fn a_committed_write_of_the_new_primary_is_not_swallowed_by_the_old_one() {
    // Holes, story 14: the new primary waits in its gate when the old one meets its promise.
    tell(
        |plan| {
            let plan = plan.with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(2 * SECOND, H::Command(BETA, BY_PROOF));
            let plan = plan.with(5 * SECOND, H::PowerLoss(BETA));
            let plan = plan.with(5100 * MS, H::Heal(ALPHA, BETA));
            lasting(plan.with(5200 * MS, H::Start(BETA)), 7 * SECOND)
        },
        |report| assert_eq!(report.primary, Some(BETA), "its epoch was owned, and is the later"),
    );
}

#[test]
fn a_restarted_primary_does_not_replay_what_its_standby_never_had() {
    // Holes, story 1: it is in the log only, and the log may be cut there.
    let mut cuts = 0;
    for seed in 0..40 {
        let plan = Plan::quiet(seed).with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
        let plan = plan.with(1300 * MS, H::Kill(ALPHA)).with(1400 * MS, H::Start(ALPHA));
        let plan = plan.with(2 * SECOND, H::Command(BETA, FORCE));
        let plan = lasting(plan.with(3 * SECOND, H::Heal(ALPHA, BETA)), 4 * SECOND);
        let report = hadrian_sim::run(&plan, false);
        assert_eq!(report.violation, None, "seed {seed}");
        assert_eq!(report.primary, Some(BETA), "seed {seed}: alpha came back");
        nothing_lost(&report);
        cuts += usize::from(noted(&report, |note| matches!(note, Note::TailCut { .. })).is_some());
    }
    assert!(cuts > 20, "alpha had something to cut: {cuts} of 40");
}

#[test]
fn a_standby_that_promised_in_vain_takes_frames_of_the_earlier_epoch() {
    // Holes, story 2: the session's epoch decides, not the frame's.
    tell(
        |plan| {
            let plan = with_record(plan).with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(1100 * MS, H::RecordCut(BETA));
            let plan = plan.with(1200 * MS, H::Command(BETA, FORCE));
            let plan = plan.with(1600 * MS, H::Kill(BETA)).with(1700 * MS, H::Start(BETA));
            let plan = plan.with(1800 * MS, H::Heal(ALPHA, BETA));
            lasting(plan.with(2 * SECOND, H::RecordHeals(BETA)), 4 * SECOND)
        },
        |report| {
            assert_eq!(report.primary, Some(ALPHA));
            nothing_lost(report);
        },
    );
}

#[test]
fn a_standby_is_caught_up_when_its_log_is_durable() {
    // Holes, story 7: what was committed alone is in its memory only, and its power goes.
    for moment in 0..20 {
        tell(
            |plan| {
                let plan = in_mode(window(plan, 0), Mode::Sync).with(SECOND, H::Kill(BETA));
                let plan = plan.with(1300 * MS, H::Start(BETA));
                let at = 1300 * MS + moment * 400;
                let plan = plan.with(at, H::PowerLossOfAll).with(at + 100 * MS, H::Start(BETA));
                plan.with(at + 400 * MS, H::Start(ALPHA))
            },
            |report| assert_eq!(report.primary, Some(ALPHA)),
        );
    }
}

#[test]
fn a_log_whose_unsynced_middle_is_gone_ends_there_and_is_not_damaged() {
    // Holes, story 16: the power kept frame 6 and lost frame 5.
    for host in [ALPHA, BETA] {
        tell(
            |plan| {
                let plan = plan.with(SECOND, H::DiskHangs(host, 300 * MS));
                let plan = plan.with(1200 * MS, H::PowerLoss(host));
                plan.with(1500 * MS, H::Start(host))
            },
            |report| assert!(report.primary.is_some()),
        );
    }
}

#[test]
fn a_cut_of_the_tail_that_a_power_loss_interrupts_is_done_again() {
    // Holes, story 17: no old frame reappears behind new ones.
    for moment in 0..24 {
        tell(
            |plan| {
                let plan = plan.with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
                let plan = plan.with(1300 * MS, H::Kill(ALPHA));
                let plan = plan.with(1500 * MS, H::Command(BETA, FORCE));
                let plan = plan.with(2 * SECOND, H::Heal(ALPHA, BETA));
                let plan = plan.with(2 * SECOND, H::Start(ALPHA));
                let at = 2 * SECOND + moment * 400;
                let plan = plan.with(at, H::PowerLoss(ALPHA));
                plan.with(at + 200 * MS, H::Start(ALPHA))
            },
            |report| {
                assert_eq!(report.primary, Some(BETA));
                nothing_lost(report);
            },
        );
    }
}

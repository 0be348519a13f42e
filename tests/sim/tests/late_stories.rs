//! Stories that seeds have met once in thousands: clusters that could go on and did not, and
//! commands of two operators that contradict each other.

mod telling;

use std::cell::Cell;

use hadrian_protocol::node::{Command, Denied, Done, How, Note};
use hadrian_protocol::replica::Mode;
use hadrian_protocol::wire::Refusal;
use hadrian_sim::plan::{Host, Way};
use hadrian_sim::{Happening as H, MS, Micros, Plan, Report, SECOND};

use telling::*;

const BY_PROOF: Command = Command::Takeover { how: How::PeerWindowOnly, test: false };

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

#[test]
fn a_primary_does_not_go_on_alone_while_its_standby_has_a_proof() {
    // Seed 20989: one operator lets the primary go on, another takes over by proof a moment later.
    tell(
        |plan| {
            let plan = window(plan, 4 * SECOND).with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(3 * SECOND, H::Command(ALPHA, Command::StartPrimary));
            let plan = plan.with(4 * SECOND, H::Command(BETA, BY_PROOF));
            lasting(plan.with(8 * SECOND, H::Heal(ALPHA, BETA)), 9 * SECOND)
        },
        |report| {
            let (first, second) = (report.replies[0], report.replies[1]);
            assert!(matches!(first, (ALPHA, Err(Denied::WindowRuns { .. }))), "{first:?}");
            assert!(matches!(second, (BETA, Ok(Done::Leading(_)))), "{second:?}");
            assert_eq!(report.primary, Some(BETA));
        },
    );
}

#[test]
fn who_has_promised_to_another_has_no_proof_any_more() {
    // Seed 20606: gamma lags far behind, is made primary by force and answers; then beta takes over
    // from alpha, which still leads it as far as it knows.
    tell(
        |plan| {
            let mut plan = in_mode(window(of_three(plan), 4 * SECOND), Mode::Sync);
            plan.log_bytes = 1 << 20;
            let plan = plan.with(500 * MS, H::Cut(GAMMA, ALPHA, Way::There));
            let plan = plan.with(5 * SECOND, H::Command(GAMMA, FORCE));
            lasting(plan.with(5060 * MS, H::Command(BETA, BY_PROOF)), 6 * SECOND)
        },
        |report| {
            let by_proof = report.replies.iter().find(|(host, _)| *host == BETA);
            assert_eq!(by_proof, Some(&(BETA, Err(Denied::NoProof))));
        },
    );
}

#[test]
fn a_link_that_doubles_and_swaps_what_it_carries_breaks_no_promise() {
    tell(
        |plan| lasting(plan.with(500 * MS, H::Disorder(ALPHA, BETA)), 4 * SECOND),
        |report| {
            assert!(report.answered > 100, "clients go on: {}", report.answered);
            nothing_lost(report);
        },
    );
}

#[test]
fn a_full_disk_is_a_failed_disk_until_there_is_room() {
    tell(
        |mut plan| {
            // The log still reaches back when beta is called again.
            plan.log_bytes = 16 << 20;
            let plan = plan.with(SECOND, H::DiskFills(BETA, 3));
            let plan = plan.with(1500 * MS, H::Kill(BETA)).with(1600 * MS, H::Start(BETA));
            lasting(plan.with(3 * SECOND, H::DiskHasRoom(BETA)), 5 * SECOND)
        },
        |report| {
            let enters = |(at, _, note): &&(Micros, Host, Note)| {
                *at > 1600 * MS && matches!(note, Note::PeerEntered(_))
            };
            let entered = report.notes.iter().find(enters).map(|(at, ..)| *at);
            assert!(entered.is_some_and(|at| at > 3 * SECOND), "not before: {entered:?}");
            assert_eq!(report.primary, Some(ALPHA));
            nothing_lost(report);
        },
    );
}

#[test]
fn a_log_write_that_went_astray_is_damage_at_the_next_start_and_never_a_shorter_log() {
    tell(
        |plan| {
            let mut plan = plan.with(SECOND, H::WriteGoesAstray(BETA));
            // No checkpoint moves beyond it so soon.
            plan.log_bytes = 16 << 20;
            let plan = plan.with(1150 * MS, H::Kill(BETA)).with(1200 * MS, H::Start(BETA));
            lasting(plan, 3 * SECOND)
        },
        |report| {
            let [(BETA, said)] = &report.damaged[..] else { panic!("{:?}", report.damaged) };
            assert!(said.contains("damage"), "{said}");
            assert_eq!(report.primary, Some(ALPHA));
            nothing_lost(report);
        },
    );
}

#[test]
fn a_log_write_that_went_astray_on_the_primary_is_never_shipped() {
    // Beta was away for long, and would catch up from the very part that is damaged.
    tell(
        |plan| {
            let plan = window(plan, 0).with(SECOND, H::Kill(BETA));
            let plan = plan.with(1500 * MS, H::WriteGoesAstray(ALPHA));
            lasting(plan.with(2500 * MS, H::Start(BETA)), 4 * SECOND)
        },
        |report| {
            let refused = |note: &Note| {
                matches!(note, Note::Refused { refusal: Refusal::LogGone { .. }, .. })
            };
            assert!(noted(report, refused).is_some(), "it cannot be read");
            assert_eq!(report.primary, Some(ALPHA));
        },
    );
}

#[test]
fn what_a_failed_sync_has_lost_is_written_again_before_it_counts_as_durable() {
    // The system still shows it to readers: a restart finds it, and then the power goes.
    for change in 1..16 {
        tell(
            |plan| {
                let plan = in_mode(plan, Mode::Sync).with(SECOND, H::DiskFails(BETA, change));
                let plan = plan.with(1500 * MS, H::Kill(BETA)).with(1510 * MS, H::Start(BETA));
                let plan = plan.with(1530 * MS, H::PowerLoss(BETA));
                lasting(plan.with(1700 * MS, H::Start(BETA)), 3 * SECOND)
            },
            nothing_lost,
        );
    }
}

fn alpha_keeps_what_it_answered(report: &Report) {
    let diverged =
        |note: &Note| matches!(note, Note::Refused { refusal: Refusal::Diverged { .. }, .. });
    // A power loss may have left beta all that it had received: then there is nothing to part them.
    let cut = |note: &Note| matches!(note, Note::TailCut { .. });
    let parted = noted(report, diverged).is_some();
    assert!(parted || noted(report, cut).is_none(), "it is refused, with all that it has");
}

#[test]
fn a_tail_is_judged_by_the_life_in_the_set_and_not_by_a_later_one_of_the_same_member() {
    // Holes, story 3: what beta had received died with its old life, and was answered for.
    tell(
        |plan| {
            let plan = window(plan, 4 * SECOND).with(900 * MS, H::DiskHangs(BETA, 300 * MS));
            let plan = plan.with(SECOND, H::PowerLoss(BETA)).with(1002 * MS, H::Kill(ALPHA));
            let plan = plan.with(1300 * MS, H::Start(BETA));
            let plan = plan.with(1600 * MS, H::Command(BETA, FORCE));
            lasting(plan.with(2500 * MS, H::Start(ALPHA)), 4 * SECOND)
        },
        alpha_keeps_what_it_answered,
    );
}

#[test]
fn an_answered_tail_that_nobody_applied_is_not_cut_for_a_later_life_of_the_standby() {
    // Holes, story 3, where alpha's image says nothing: its disk stood still when it answered.
    tell(
        |plan| {
            let plan = window(plan, 4 * SECOND).with(900 * MS, H::DiskHangs(ALPHA, 300 * MS));
            let plan = plan.with(960 * MS, H::DiskHangs(BETA, 300 * MS));
            let plan = plan.with(SECOND, H::PowerLoss(BETA)).with(1002 * MS, H::Kill(ALPHA));
            let plan = plan.with(1300 * MS, H::Start(BETA));
            let plan = plan.with(1600 * MS, H::Command(BETA, FORCE));
            lasting(plan.with(2500 * MS, H::Start(ALPHA)), 4 * SECOND)
        },
        alpha_keeps_what_it_answered,
    );
}

#[test]
fn a_full_tail_lets_writes_wait_for_the_disk_and_a_kill_loses_nothing() {
    tell(
        |mut plan| {
            (plan.pace, plan.log_bytes) = (3 * MS, 1 << 20);
            let plan = plan.with(900 * MS, H::DiskHangs(ALPHA, 800 * MS));
            let plan = plan.with(1600 * MS, H::Kill(ALPHA));
            lasting(plan.with(2 * SECOND, H::Start(ALPHA)), 4 * SECOND)
        },
        nothing_lost,
    );
}

#[test]
fn a_cut_that_lost_its_power_is_finished_and_the_next_start_finds_all_that_came_behind_it() {
    // Holes, story 17. Where the cut is left as it was, the log seems to end there for ever.
    for seed in 0..4 {
        let plan = Plan::quiet(seed).with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
        let plan = plan.with(1300 * MS, H::Kill(ALPHA)).with(1500 * MS, H::Command(BETA, FORCE));
        let plan = plan.with(2 * SECOND, H::Heal(ALPHA, BETA)).with(2 * SECOND, H::Start(ALPHA));
        let plan = lasting(plan, 5 * SECOND);
        let undisturbed = hadrian_sim::run(&plan, false);
        let cut = noted(&undisturbed, |note| matches!(note, Note::TailCut { .. }));
        let cut = cut.expect("nobody was answered for the tail");
        for moment in 0..12 {
            let at = cut + moment * 200;
            let plan = plan.clone().with(at, H::PowerLoss(ALPHA)).with(at + MS, H::Start(ALPHA));
            let plan = plan.with(at + SECOND, H::PowerLoss(ALPHA));
            let report = hadrian_sim::run(&plan.with(at + 1100 * MS, H::Start(ALPHA)), false);
            assert_eq!(report.violation, None, "seed {seed}, {moment} after the cut began");
            nothing_lost(&report);
        }
    }
}

#[test]
fn a_takeover_that_must_lose_nothing_does_not_open_the_gate() {
    // Seed 4304: with a record it went on as if the operator had said that writes may be lost.
    for with_record in [true, false] {
        let test = Command::Takeover { how: How::Force, test: true };
        tell(
            |mut plan| {
                (plan.record, plan.mode) = (with_record, Mode::Sync);
                let plan = plan.with(SECOND, H::PowerLossOfAll).with(1200 * MS, H::Start(ALPHA));
                let plan = plan.with(2 * SECOND, H::Command(ALPHA, BY_PROOF));
                let plan = plan.with(2100 * MS, H::Command(ALPHA, test));
                lasting(plan.with(4 * SECOND, H::Start(BETA)), 5 * SECOND)
            },
            |report| {
                let replies: Vec<_> = report.replies.iter().map(|(_, reply)| *reply).collect();
                assert_eq!(replies[..2], [Err(Denied::InGate), Ok(Done::WouldLead)]);
                assert!(leads_after(report, ALPHA, SECOND).is_some_and(|at| at > 4 * SECOND));
            },
        );
    }
}

#[test]
fn a_primary_that_begins_again_is_not_rid_of_a_standby_that_can_prove_that_it_is_in_the_set() {
    // Gamma dies over a takeover and keeps its promise; for that, alpha begins a higher epoch
    // while beta is cut off with the proof that it was given in the epoch before.
    let again = Cell::new(0);
    for moment in 0..5 {
        tell(
            |plan| {
                let plan = window(of_three(plan), 4 * SECOND);
                let plan = plan.with(900 * MS, H::Cut(GAMMA, ALPHA, Way::Both));
                let plan = plan.with(900 * MS, H::Cut(GAMMA, BETA, Way::Both));
                let plan = plan.with(1500 * MS, H::Command(GAMMA, FORCE));
                let plan = plan.with(1500 * MS + moment * 200, H::Kill(GAMMA));
                let plan = plan.with(1600 * MS, H::Start(GAMMA));
                let plan = plan.with(2 * SECOND, H::Cut(ALPHA, BETA, Way::Both));
                let plan = plan.with(2010 * MS, H::Heal(GAMMA, ALPHA));
                let plan = plan.with(4 * SECOND, H::Command(BETA, BY_PROOF));
                lasting(plan.with(8 * SECOND, H::Heal(ALPHA, BETA)), 9 * SECOND)
            },
            |report| {
                let in_between =
                    leads_after(report, ALPHA, SECOND).is_some_and(|at| at < 4 * SECOND);
                again.set(again.get() + usize::from(in_between));
                assert!(matches!(report.replies[0], (BETA, Ok(Done::Leading(_)))));
                nothing_lost(report);
            },
        );
    }
    assert!(again.get() > 20, "alpha began again: {again:?} of 60");
}

#[test]
fn a_proof_ends_with_the_next_handshake_though_nothing_else_came_of_it() {
    // Holes, story 9: alpha is heard again, waits for gamma, is cut off, and goes on by force.
    tell(
        |plan| {
            let plan = window(of_three(plan), 6 * SECOND).with(900 * MS, H::Kill(GAMMA));
            let plan = plan.with(SECOND, H::Kill(ALPHA)).with(1010 * MS, H::Start(ALPHA));
            let plan = plan.with(2 * SECOND, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(2100 * MS, H::Command(ALPHA, Command::StartPrimary));
            let plan = plan.with(5 * SECOND, H::Command(BETA, BY_PROOF));
            let plan = plan.with(6 * SECOND, H::Heal(ALPHA, BETA));
            lasting(plan.with(6 * SECOND, H::Start(GAMMA)), 8 * SECOND)
        },
        |report| {
            let replies: Vec<_> = report.replies.iter().map(|(_, reply)| *reply).collect();
            assert!(matches!(replies[..2], [Ok(Done::Leading(_)), Err(Denied::NoProof)]));
            assert_eq!(report.primary, Some(ALPHA));
        },
    );
}

#[test]
fn whoever_takes_over_by_force_leads_above_every_epoch_that_it_knows_of() {
    // Seed 7011790: alpha began below the epoch of beta, met it, and began again over it.
    tell(
        |plan| {
            let plan = in_mode(plan, Mode::Superasync);
            let plan = plan.with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(1100 * MS, H::Command(BETA, FORCE));
            let plan = plan.with(1500 * MS, H::Kill(ALPHA)).with(1600 * MS, H::Start(ALPHA));
            let plan = plan.with(2 * SECOND, H::Heal(ALPHA, BETA));
            let plan = plan.with(3 * SECOND, H::Kill(BETA));
            let plan = plan.with(3500 * MS, H::Command(ALPHA, FORCE));
            lasting(plan.with(4500 * MS, H::Start(BETA)), 6 * SECOND)
        },
        |report| {
            let epochs = report.notes.iter().filter_map(|(_, host, note)| match note {
                Note::Leads(epoch) => Some((*epoch, *host)),
                _ => None,
            });
            let epochs: Vec<_> = epochs.collect();
            assert!(epochs.is_sorted(), "an epoch below one that was owned: {epochs:?}");
            assert_eq!(report.primary, Some(ALPHA), "{epochs:?}");
        },
    );
}

#[test]
fn a_standby_that_cannot_follow_a_new_primary_still_tells_the_old_one() {
    // Seed 7020907: alpha took gamma's epoch for one that nobody owns, and began over it.
    tell(
        |plan| {
            let plan = of_three(plan).with(300 * MS, H::Cut(ALPHA, GAMMA, Way::Both));
            let plan = plan.with(2900 * MS, H::Command(GAMMA, FORCE));
            lasting(plan.with(5 * SECOND, H::Heal(ALPHA, GAMMA)), 6 * SECOND)
        },
        |report| {
            let stepped = |note: &Note| matches!(note, Note::SteppedDown(_));
            let stepped = noted(report, stepped).expect("alpha hears that gamma owns an epoch");
            assert!(stepped < 3 * SECOND, "at {stepped}");
            assert_eq!(report.primary, Some(GAMMA));
        },
    );
}

#[test]
fn a_handover_of_a_primary_that_was_overtaken_by_force_is_void() {
    // Seed 7007972: gamma was handed the resource by alpha, and heard of it when beta led.
    for moment in 0..8 {
        tell(
            |plan| {
                let plan = in_mode(of_three(plan), Mode::Superasync);
                let plan = plan.with(900 * MS, H::Cut(ALPHA, BETA, Way::Both));
                let plan = plan.with(900 * MS, H::Cut(BETA, GAMMA, Way::Both));
                let plan = plan.with(SECOND, H::Command(GAMMA, PLANNED));
                let plan = plan.with(SECOND + moment * 500, H::Cut(ALPHA, GAMMA, Way::Both));
                let plan = plan.with(1200 * MS, H::Kill(ALPHA));
                let plan = plan.with(2500 * MS, H::Command(BETA, FORCE));
                let plan = plan.with(3 * SECOND, H::Heal(BETA, GAMMA));
                let plan = plan.with(4 * SECOND, H::Heal(ALPHA, GAMMA));
                let plan = plan.with(4 * SECOND, H::Heal(ALPHA, BETA));
                lasting(plan.with(4 * SECOND, H::Start(ALPHA)), 6 * SECOND)
            },
            |report| assert!(report.primary.is_some()),
        );
    }
}

#[test]
fn a_commit_that_comes_after_the_change_to_sync_counts_by_sync() {
    // Seed 7033797: the watermark of nearsync was there already, and answered it.
    for moment in 0..16 {
        tell(
            |plan| {
                let plan = in_mode(plan, Mode::Nearsync);
                let plan = plan.with(950 * MS, H::DiskHangs(BETA, 300 * MS));
                let at = SECOND + moment * MS;
                plan.with(at, H::Command(ALPHA, Command::SetMode(Mode::Sync)))
            },
            nothing_lost,
        );
    }
}

#[test]
fn a_deposed_primary_that_sees_neither_record_nor_successor_answers_nothing_that_is_lost() {
    // Holes, story 15, as far as it goes without a lease: alpha serves, does not know that beta
    // owns the resource, and may answer only what beta has.
    tell(
        |mut plan| {
            plan.record = true;
            let plan = window(plan, 4 * SECOND).with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(SECOND, H::RecordCut(ALPHA));
            let plan = plan.with(2 * SECOND, H::Command(BETA, FORCE));
            let plan = plan.with(4 * SECOND, H::RecordHeals(ALPHA));
            lasting(plan.with(6 * SECOND, H::Heal(ALPHA, BETA)), 7 * SECOND)
        },
        |report| {
            assert!(leads_after(report, BETA, 2 * SECOND).is_some_and(|at| at < 4 * SECOND));
            let deposed = noted(report, |note| matches!(note, Note::Deposed { .. }));
            assert!(deposed.is_some_and(|at| at > 4 * SECOND), "alpha reads it: {deposed:?}");
            assert_eq!(report.primary, Some(BETA));
            nothing_lost(report);
        },
    );
}

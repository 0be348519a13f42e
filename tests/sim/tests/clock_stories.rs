//! Stories of clocks that do not run alike: what one member proves by its own must hold by that of
//! the other (design §5.3).

mod telling;

use std::cell::Cell;

use hadrian_protocol::node::{Command, Denied, Done, How, Note};
use hadrian_sim::plan::Way;
use hadrian_sim::{Happening as H, MS, SECOND};

use telling::*;

const BY_PROOF: Command = Command::Takeover { how: How::PeerWindowOnly, test: false };

#[test]
fn a_proof_ends_before_the_window_by_clocks_as_far_apart_as_they_may_be() {
    // The clock of the primary runs fast and its window ends early; that of the standby runs slow.
    let (granted, denied) = (Cell::new(0), Cell::new(0));
    for before in [200, 60, 40, 30, 20, 15, 10, 5, 0] {
        tell(
            |mut plan| {
                plan.drifts = vec![4, -4];
                // The loss is noticed at once: the window counts from the standby's last word.
                let plan = window(plan, 4 * SECOND).with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
                let plan = plan.with(SECOND, H::Reset(ALPHA, BETA));
                let plan = plan.with(5 * SECOND - before * MS, H::Command(BETA, BY_PROOF));
                lasting(plan.with(8 * SECOND, H::Heal(ALPHA, BETA)), 9 * SECOND)
            },
            |report| {
                let count = match report.replies[0].1 {
                    Ok(Done::Leading(_)) => &granted,
                    Err(Denied::NoProof) => &denied,
                    other => panic!("{other:?}"),
                };
                count.set(count.get() + 1);
                nothing_lost(report);
            },
        );
    }
    assert!(granted.get() > 10 && denied.get() > 10, "{granted:?} granted, {denied:?} denied");
}

#[test]
fn an_operator_who_goes_by_the_window_of_a_fast_clock_is_told_what_is_left_of_it() {
    tell(
        |mut plan| {
            plan.drifts = vec![4, -4];
            let plan = window(plan, 4 * SECOND).with(SECOND, H::Cut(ALPHA, BETA, Way::Both));
            let plan = plan.with(4 * SECOND, H::Command(ALPHA, Command::StartPrimary));
            lasting(plan.with(8 * SECOND, H::Heal(ALPHA, BETA)), 9 * SECOND)
        },
        |report| {
            assert!(matches!(report.replies[0], (ALPHA, Err(Denied::WindowRuns { .. }))));
            assert!(noted(report, |note| matches!(note, Note::LeftOut(_))).is_some());
            nothing_lost(report);
        },
    );
}

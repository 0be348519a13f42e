//! Seeds that nobody has looked at: whatever happens, no promise is broken.

use hadrian_sim::{Plan, run, shrink, sweep};

/// Seeds in an ordinary test run; `make sim SEEDS=… FIRST=…` runs any others.
const SEEDS: u64 = 2000;
/// Of clusters with marks, which take longer.
const MARKED_SEEDS: u64 = 250;

#[test]
fn two_thousand_clusters_keep_every_promise() {
    let total = sweep::sweep(Plan::from_seed, (0, SEEDS), false);
    if let Some((seed, violation)) = total.broken.first() {
        let short = shrink::shrink(&Plan::from_seed(*seed), violation.rule);
        let story = run(&short, true).story.join("\n");
        panic!(
            "{} of {SEEDS} seeds break a promise; the first is {seed}: {violation}\n{story}",
            total.broken.len()
        );
    }
    // They take a log that cannot be read at the one moment in which a standby of the set is back
    // and catches up from it. The core's own test of this name makes both, and asserts it:
    // a_standby_of_the_set_that_the_log_cannot_bring_up_within_the_window_is_brought_up_otherwise
    // And a third member that is told to rejoin while it has a proof, which few seeds make:
    // a_standby_with_a_proof_may_be_told_to_rejoin_somebody_else
    let told = ["DisconnectedPeer -> Resync", "Resync -> DisconnectedPeer"];
    let mut missing = total.made.missing();
    missing.retain(|made| !told.iter().any(|told| made.contains(told)));
    assert!(missing.is_empty(), "moves that no seed has made: {missing:#?}");
    assert!(total.answered > 500_000, "clients get answers: {}", total.answered);
}

#[test]
fn clusters_with_marks_keep_every_promise() {
    let total = sweep::sweep(Plan::marked_from_seed, (0, MARKED_SEEDS), false);
    if let Some((seed, violation)) = total.broken.first() {
        let short = shrink::shrink(&Plan::marked_from_seed(*seed), violation.rule);
        let story = run(&short, true).story.join("\n");
        panic!("{} seeds break a promise; the first is {seed}: {violation}\n{story}", {
            total.broken.len()
        });
    }
    assert!(total.answered > 500 * MARKED_SEEDS, "clients get answers: {}", total.answered);
}

#[test]
fn seeds_that_broke_a_promise_once_keep_it() {
    // What was wrong: a handover from a primary that somebody had overtaken by force; a forced
    // epoch below one that was owned, and a new epoch over that; a primary that was not told of an
    // owner by whoever could not follow it; commits of a stricter mode answered by the one before;
    // a change of the record by a former life, taken for an operator's word; a growth that was
    // told by a primary of the past; a resync that was asked for twice in a session. And what the
    // oracle had to learn: who goes on beside a dead winner by force, a move, and that
    // a seed is imported where there is room.
    let seeds = [4304, 4515, 3_007_590, 7_007_972, 7_011_790, 7_020_907, 7_033_221, 7_033_797];
    for seed in seeds.into_iter().chain([7_034_455, 1697, 2447, 2750, 3857, 4310, 5845, 9038]) {
        assert_eq!(run(&Plan::from_seed(seed), false).violation, None, "seed {seed}");
    }
}

#[test]
fn one_seed_is_one_run_byte_for_byte() {
    for seed in [3, 14, 159, 265, 358] {
        let plan = Plan::from_seed(seed);
        let (first, second) = (run(&plan, true), run(&plan, true));
        assert_eq!(first.story, second.story, "seed {seed}");
        assert_eq!(first.digest, second.digest, "seed {seed}");
        assert_eq!(first.digest, run(&plan, false).digest, "seed {seed}, untold");
    }
    assert_ne!(run(&Plan::from_seed(1), false).digest, run(&Plan::from_seed(2), false).digest);
}

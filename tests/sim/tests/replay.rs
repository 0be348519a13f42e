//! Recordings: whatever a core was told, told again, it does the same.

use hadrian_protocol::node::{Difference, Entry, Replay};
use hadrian_sim::{Plan, run_recorded};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

fn entries(lines: &[String]) -> Vec<Entry> {
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Follows a recording to its end; how many actions the core has done again.
fn replay(entries: Vec<Entry>) -> Result<usize, Difference> {
    let mut entries = entries.into_iter();
    let mut replay = Replay::begin(entries.next().unwrap())?;
    let mut actions = 0;
    for entry in entries {
        actions += replay.follow(entry)?.len();
    }
    Ok(actions)
}

#[test]
fn a_recorded_life_is_lived_again_action_by_action() {
    let (mut lives, mut actions) = (0, 0);
    for seed in 0..40 {
        let (report, recordings) = run_recorded(&Plan::from_seed(seed));
        assert_eq!(report.violation, None, "seed {seed}");
        for (life, lines) in recordings.iter().enumerate() {
            let again = replay(entries(lines));
            actions += again.unwrap_or_else(|why| panic!("seed {seed}, life {life}: {why}"));
        }
        lives += recordings.len();
    }
    assert!(lives > 100 && actions > 100_000, "{lives} lives, {actions} actions");
}

#[test]
fn what_a_core_would_not_have_done_is_noticed() {
    let (_, recordings) = run_recorded(&Plan::quiet(1));
    let entries = entries(&recordings[0]);
    assert!(replay(entries.clone()).is_ok());
    let did = entries.iter().position(|entry| matches!(entry, Entry::Did { .. })).unwrap();
    let mut other = entries.clone();
    other[did] = Entry::Did { actions: 1, digest: 0 };
    assert!(matches!(replay(other), Err(Difference::Did { then: 1, .. })));
    // Without what it was told, it would not have sealed what its clients wrote.
    let handled = |entry: &Entry| !matches!(entry, Entry::Handled(..));
    let deaf: Vec<_> = entries.iter().filter(|entry| handled(entry)).cloned().collect();
    assert!(replay(deaf).is_err());
}

#[test]
fn a_recording_holds_nothing_that_clients_wrote() {
    let (_, recordings) = run_recorded(&Plan::quiet(1));
    let appended = entries(&recordings[0]).into_iter().filter_map(|entry| match entry {
        Entry::Appended(_, frame) => Some(frame),
        _ => None,
    });
    let mut bytes = 0;
    for frame in appended {
        let (_, body) = frame.wire_parts();
        bytes += body.len();
        assert!(body.iter().all(|byte| *byte == 0), "{frame:?}");
    }
    assert!(bytes > 10_000, "clients wrote something: {bytes}");
}

#[test]
fn a_recording_that_was_changed_ends_with_a_difference_and_no_panic() {
    let mut rng = SmallRng::seed_from_u64(0xC0FF_EE00);
    let mut differences = 0;
    for seed in 0..12 {
        let (_, recordings) = run_recorded(&Plan::from_seed(seed));
        for lines in &recordings {
            let whole = entries(lines);
            for _ in 0..20 {
                let mut other = whole.clone();
                for _ in 0..rng.random_range(1..4) {
                    change(&mut other, &mut rng);
                }
                differences += usize::from(replay(other).is_err());
            }
        }
    }
    assert!(differences > 200, "{differences}");
}

/// Leaves an entry out, repeats one, or puts one elsewhere; the beginning stays.
fn change(entries: &mut Vec<Entry>, rng: &mut SmallRng) {
    if entries.len() < 4 {
        return;
    }
    let (from, to) = (rng.random_range(1..entries.len()), rng.random_range(1..entries.len()));
    match rng.random_range(0..3) {
        0 => drop(entries.remove(from)),
        1 => entries.insert(to, entries[from].clone()),
        _ => entries.swap(from, to),
    }
}

//! Power lost at every operation over recording, applying, trimming, checkpoints and restarts.

use super::*;

const ALL: [Unsynced; 4] = [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn, Unsynced::Mixed];

/// Some rounds of writing, applying and checkpoints, until the power goes.
fn live(rig: &mut Rig, rounds: usize) -> bool {
    for round in 0..rounds {
        for _ in 0..1 + round % 3 {
            rig.write();
            if rig.is_cut() {
                return false;
            }
        }
        if !rig.apply() || (round % 3 == 2 && !rig.checkpoint()) {
            return false;
        }
    }
    true
}

/// Cuts the power at each operation of a story, one after the other, and looks at every point that
/// is in reach afterwards, and again when the story has gone on.
fn sweep(bytes: u64, unsynced: Unsynced, step: u64) -> (u64, usize) {
    let (mut cut, mut seen) = (1, 0);
    loop {
        let mut rig = Rig::new(cut, unsynced, Some(limits(bytes)));
        assert!(live(&mut rig, 4));
        rig.disk.0.borrow_mut().cut_power_at(cut);
        let is_over = live(&mut rig, 7);
        let before = rig.door().reach();
        rig.power_cycle().unwrap();
        seen += rig.check_all();
        let after = rig.door().reach();
        let (old, new) = (before.newest.at.lsn, after.newest.at.lsn);
        assert!(new >= old, "cut {cut}: a point that was durable is lost");
        let (old, new) = (before.oldest.at.lsn, after.oldest.at.lsn);
        assert!(new <= old || bytes < 1 << 30, "cut {cut}: history began anew");
        assert!(live(&mut rig, 3), "seed {cut}");
        seen += rig.check_all();
        if is_over {
            return (cut, seen);
        }
        cut += step;
    }
}

#[test]
fn after_a_loss_of_power_anywhere_each_point_in_reach_is_what_it_was() {
    for unsynced in ALL {
        let (cuts, seen) = sweep(1 << 30, unsynced, 1);
        assert!(cuts > 80 && seen > 1000, "{cuts} cuts, {seen} images");
    }
}

#[test]
fn the_same_while_the_oldest_segments_are_removed() {
    for unsynced in ALL {
        let (cuts, seen) = sweep(150 << 10, unsynced, 2);
        assert!(cuts > 80 && seen > 200, "{cuts} cuts, {seen} images");
    }
}

/// A process that is killed leaves what it had written; of what was under way the kernel finishes
/// some.
#[test]
fn the_same_where_the_process_is_killed() {
    for seed in 1..60 {
        let mut rig = Rig::new(seed, Unsynced::Mixed, Some(limits(1 << 30)));
        assert!(live(&mut rig, 4));
        rig.write();
        let end = rig.end().lsn;
        assert!(rig.persist(|state| state.apply_limit = end));
        rig.replica().apply_to(end);
        for _ in 0..seed % 13 {
            let Rig { replica: Some(replica), events, .. } = &mut rig else { return };
            replica.poll_once(events);
            replica.engine.wait().unwrap();
        }
        rig.replica = None;
        rig.disk.0.borrow_mut().restart_process();
        rig.open().unwrap();
        rig.check_all();
        // And then the power goes, with whatever the process had not synced.
        rig.power_cycle().unwrap();
        rig.check_all();
    }
}

/// Whatever was applied by a start without history is on no record.
#[test]
fn history_that_was_switched_off_for_a_while_is_never_taken_up_again() {
    for unsynced in ALL {
        for cut in (1..120).step_by(2) {
            let mut rig = Rig::new(cut, unsynced, Some(limits(1 << 30)));
            assert!(live(&mut rig, 4));
            rig.limits = None;
            rig.disk.0.borrow_mut().cut_power_at(cut);
            if rig.open().is_ok() {
                live(&mut rig, 3);
            }
            rig.limits = Some(limits(1 << 30));
            rig.power_cycle().unwrap();
            rig.check_all();
            assert!(live(&mut rig, 2));
            rig.check_all();
        }
    }
}

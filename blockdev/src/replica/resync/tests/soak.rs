//! Many resyncs of two replicas that part again and again, with sinks that are interrupted, killed
//! and robbed of their power at any moment.

use super::*;

/// Interrupts the sink: its session ends, its process is killed, or its power goes.
fn strike(mut pair: Pairing) -> Pairing {
    pair.primary.replica.end_source(1);
    let blow = pair.rng.random_range(0..3);
    if blow == 0 {
        pair.standby.replica.end_sink();
        return pair;
    }
    let mut disk = pair.standby.into_disk();
    if blow == 1 {
        disk.restart_process()
    } else {
        disk.power_on()
    }
    pair.standby = Member::open(disk, 1).unwrap();
    pair
}

/// Frames of either side, applied and durable in the image, as after an orderly life.
fn live(member: &mut Member, edits: &[Edit]) {
    member.write(edits);
    member.apply();
    member.replica.checkpoint();
    member.settle();
    let end = member.end;
    assert!(member.persist(|state| (state.checkpoint, state.apply_limit) = (end, end.lsn)));
}

fn write_meanwhile(pair: &mut Pairing) {
    if pair.rng.random_bool(0.2) && pair.primary.replica.log_room() > MIB {
        let edits = [pair.random_edit()];
        pair.primary.append(&edits);
        pair.primary.replica.sync_log();
    }
    let durable = pair.primary.replica.journal.durable();
    pair.primary.replica.apply_to(durable);
}

/// One resync with as many blows as come; the landing.
fn resync(mut pair: Pairing, scope: Scope, apart: Option<Lsn>) -> Pairing {
    let before = pair.standby.image();
    for _ in 0..pair.rng.random_range(0..4) {
        pair.begin(scope, Takes::Staged, apart);
        for _ in 0..pair.rng.random_range(0..120) {
            pair.step();
            write_meanwhile(&mut pair);
        }
        pair = strike(pair);
        assert!(pair.standby.image() == before, "the image is what it was");
    }
    pair.begin(scope, Takes::Staged, apart);
    pair.copy(write_meanwhile);
    assert!(pair.finish());
    pair.result.take().unwrap().unwrap();
    let landing = pair.landing.unwrap();
    assert!(pair.standby.switch(landing));
    assert!(pair.standby.image() == pair.primary.image());
    pair
}

#[test]
fn replicas_that_part_again_and_again_come_together_each_time() {
    for seed in 0..12 {
        let unsynced = [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn, Unsynced::Mixed];
        let mut pair = Pairing::new(seed + 100, unsynced[seed as usize % 4]);
        for _ in 0..10 {
            let edit = pair.random_edit();
            pair.primary.fill(edit);
        }
        pair = resync(pair, DIGESTS, None);
        for _ in 0..3 {
            let fork = pair.landing.unwrap().lsn;
            let (own, theirs) = (pair.random_edit(), pair.random_edit());
            let parts = pair.rng.random_bool(0.5);
            if parts {
                live(&mut pair.standby, &[own]);
            }
            live(&mut pair.primary, &[theirs]);
            let scope = Scope { way: Way::Log, log_from: fork, ..DIGESTS };
            pair = resync(pair, scope, parts.then_some(fork));
        }
    }
}

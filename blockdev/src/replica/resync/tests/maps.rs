//! Dirty maps: folded, cut short, damaged, and used.

use hadrian_protocol::resync::BlockMap;

use super::*;

fn peer() -> MemberId {
    MemberId::new(1).unwrap()
}

fn folded(member: &mut Member) -> Option<Span> {
    member.settle();
    let event = member.events.iter().rev().find_map(|event| match event {
        ReplicaEvent::Folded { span, .. } => Some(*span),
        _ => None,
    });
    event.flatten()
}

fn map_of(member: &Member) -> Option<(Span, BlockMap)> {
    member.replica.copies.maps.get(&peer()).map(|dirty| (dirty.span, dirty.map.clone()))
}

#[test]
fn a_fold_adds_what_the_log_changed_and_outlives_the_process() {
    let mut member = Member::new(0, 1, Unsynced::Lost);
    let first = member.write(&[(0, 0, 512, 1)]).lsn;
    member.replica.fold(peer(), None, first);
    assert_eq!(folded(&mut member), Some(Span { since: first, to: first }));
    let second = member.write(&[(0, MIB, 20_000, 1), (1, 0, 512, 0)]).lsn;
    member.replica.fold(peer(), Some(first), second);
    let span = Span { since: first, to: second };
    assert_eq!(folded(&mut member), Some(span));
    let (_, map) = map_of(&member).unwrap();
    let runs: Vec<_> = map.runs().map(|(v, r)| (v.index(), r.start(), r.len())).collect();
    assert_eq!(runs, [(0, MIB, 32 << 10), (1, 0, 16 << 10)]);
    let member = member.power_cycle().unwrap();
    assert_eq!(member.replica.maps(), [(peer(), span)]);
    assert_eq!(map_of(&member), Some((span, map)));
}

#[test]
fn a_fold_with_a_gap_before_it_leaves_no_map() {
    let mut member = Member::new(0, 2, Unsynced::Lost);
    let first = member.write(&[(0, 0, 512, 1)]).lsn;
    member.replica.fold(peer(), None, Lsn::START);
    assert!(folded(&mut member).is_some());
    let second = member.write(&[]).lsn;
    member.replica.fold(peer(), Some(first), second);
    assert_eq!(folded(&mut member), None);
    assert!(member.replica.maps().is_empty());
}

#[test]
fn a_cut_at_any_operation_of_a_fold_leaves_the_map_before_or_the_new_one() {
    for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn, Unsynced::Mixed] {
        let mut cut = 1;
        loop {
            let mut member = Member::new(0, 3, unsynced);
            member.replica.fold(peer(), None, Lsn::START);
            assert!(folded(&mut member).is_some());
            let before = map_of(&member).unwrap();
            let end = member.write(&[(0, MIB, 20_000, 1)]).lsn;
            member.disk().cut_power_at(cut);
            member.events.clear();
            member.replica.fold(peer(), Some(Lsn::START), end);
            let told = folded(&mut member);
            let done = !member.disk().is_cut();
            let member = member.power_cycle().unwrap();
            let (span, map) = map_of(&member).expect("one of the two");
            if (span, &map) != (before.0, &before.1) {
                assert_eq!((span.to, map.marked_bytes()), (end, 32 << 10));
            }
            assert!(told.is_none_or(|told| told == span), "what was told is durable");
            if done {
                break;
            }
            cut += 1;
        }
        assert!(cut >= 3);
    }
}

#[test]
fn a_damaged_map_is_not_looked_at() {
    let mut member = Member::new(0, 4, Unsynced::Lost);
    member.replica.fold(peer(), None, Lsn::START);
    assert!(folded(&mut member).is_some());
    member.disk().tamper(&dir().join("maps/1.map"), |file| file[30] ^= 1);
    let member = member.power_cycle().unwrap();
    assert!(member.replica.maps().is_empty());
}

#[test]
fn a_map_that_cannot_be_written_is_gone_and_the_replica_goes_on() {
    let mut member = Member::new(0, 5, Unsynced::Lost);
    member.disk().fail_at(1, crate::engine::double::Fault::Full);
    member.replica.fold(peer(), None, Lsn::START);
    assert_eq!(folded(&mut member), None);
    assert!(member.replica.maps().is_empty());
    member.disk().make_room();
    member.write(&[(0, 0, 512, 1)]);
    member.apply();
}

#[test]
fn by_a_map_only_what_is_marked_in_it_and_in_the_log_behind_is_looked_at() {
    let mut pair = Pairing::new(6, Unsynced::Lost);
    for member in [&mut pair.primary, &mut pair.standby] {
        member.fill((0, 0, 8 * MIB, 9));
    }
    pair.primary.replica.fold(peer(), None, Lsn::START);
    let folded_to = pair.primary.write(&[(0, 0, 512, 1)]).lsn;
    pair.primary.settle();
    pair.primary.replica.fold(peer(), Some(Lsn::START), folded_to);
    pair.primary.settle();
    pair.primary.write(&[(1, 0, 512, 2)]);
    pair.primary.apply();
    let scope = Scope { way: Way::Map, map_of: peer(), log_from: folded_to };
    pair.resync(scope, Takes::Staged, None);
    assert_eq!((pair.traffic.compares, pair.traffic.content_bytes), (0, 2 * (16 << 10)));
    // Without the map everything is compared.
    let scope = Scope { map_of: MemberId::new(2).unwrap(), ..scope };
    pair.resync(scope, Takes::Staged, None);
    assert!(pair.traffic.compares > 0);
}

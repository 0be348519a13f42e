//! The tables of the core, as a person can read them: moves, and every reason and refusal.

use std::collections::BTreeSet;
use std::fmt::Display;

use super::super::{Denied, FailedPart, Why, picture};
use super::cluster::member;
use crate::ids::{Epoch, Lsn};
use crate::wire::{CannotGrow, Refusal};

#[test]
fn the_tables_are_as_they_were_looked_over() {
    insta::assert_snapshot!(picture());
}

/// What follows each reason in the list of all; the compiler asks for a new one's place.
fn after_why(why: Why) -> Option<Why> {
    Some(match why {
        Why::NoConnection => Why::Greeting,
        Why::Greeting => Why::CutsTail,
        Why::CutsTail => Why::GoesBack { to: Lsn::START },
        Why::GoesBack { .. } => Why::WentBack { to: Lsn::START },
        Why::WentBack { .. } => Why::Resyncs,
        Why::Resyncs => Why::Incomplete,
        Why::Incomplete => Why::CatchesUp { bytes: 1 },
        Why::CatchesUp { .. } => Why::Superasync,
        Why::Superasync => Why::Auxiliary,
        Why::Auxiliary => Why::TooSlow { until: Lsn::START },
        Why::TooSlow { .. } => Why::Leaves,
        Why::Leaves => Why::IsStandby,
        Why::IsStandby => Why::NoPrimary,
        Why::NoPrimary => Why::TakesOverTooOften,
        Why::TakesOverTooOften => Why::GoesHomeTooOften,
        Why::GoesHomeTooOften => Why::Gate,
        Why::Gate => Why::NoRecord,
        Why::NoRecord => Why::TakingOver,
        Why::TakingOver => Why::Diverged { fork: Lsn::START },
        Why::Diverged { .. } => Why::Failed(FailedPart::Store),
        Why::Failed(_) => Why::Stops,
        Why::Stops => Why::Starts,
        Why::Starts => Why::PeerWindow { us: 1_500_000 },
        Why::PeerWindow { .. } => Why::HoldsOn,
        Why::HoldsOn => Why::WaitsFor { bytes: 1 },
        Why::WaitsFor { .. } => Why::RecordPending,
        Why::RecordPending => Why::NoLease,
        Why::NoLease => Why::HandsOver,
        Why::HandsOver => Why::Opening { bytes: 1 },
        Why::Opening { .. } => Why::LogFull,
        Why::LogFull => Why::SpoolFull { bytes: 1 },
        Why::SpoolFull { .. } => Why::Delayed { us: 3_600_000_000 },
        // Those of the other side have a list of their own.
        Why::Delayed { .. } | Why::Refused(_) => return None,
    })
}

fn after_refusal(refusal: Refusal) -> Option<Refusal> {
    Some(match refusal {
        Refusal::Diverged { .. } => Refusal::Unrelated,
        Refusal::Unrelated => Refusal::BaseDiffers,
        Refusal::BaseDiffers => Refusal::GeometryDiffers,
        Refusal::GeometryDiffers => Refusal::Growing,
        Refusal::Growing => Refusal::LogGone { start: Lsn::START },
        Refusal::LogGone { .. } => Refusal::Overtaken { promised: Epoch::NONE_YET, owned: false },
        Refusal::Overtaken { .. } => Refusal::NotNow,
        Refusal::NotNow => Refusal::Protocol,
        Refusal::Protocol => return None,
    })
}

fn after_denied(denied: Denied) -> Option<Denied> {
    Some(match denied {
        Denied::AlreadyPrimary => Denied::NotFollowing,
        Denied::NotFollowing => Denied::TookTooLong,
        Denied::TookTooLong => Denied::Cancelled,
        Denied::Cancelled => Denied::NothingToCancel,
        Denied::NothingToCancel => Denied::NoProof,
        Denied::NoProof => Denied::Incomplete,
        Denied::Incomplete => Denied::NothingToRejoin,
        Denied::NothingToRejoin => Denied::NobodyFollows,
        Denied::NobodyFollows => Denied::Delayed,
        Denied::Delayed => Denied::NotOfTheTwo,
        Denied::NotOfTheTwo => Denied::RestedTooLong,
        Denied::RestedTooLong => Denied::Grows,
        Denied::Grows => Denied::NoSuchVolume,
        Denied::NoSuchVolume => Denied::NotLarger { has: 4096 },
        Denied::NotLarger { .. } => Denied::NoSize { block: 512 },
        Denied::NoSize { .. } => Denied::CopyUnderWay,
        Denied::CopyUnderWay => Denied::DoesNotFollow { member: member(0) },
        Denied::DoesNotFollow { .. } => {
            let why = CannotGrow::DeviceTooSmall { has: 4096, missing: 512 };
            Denied::CannotGrow { member: member(0), why }
        }
        Denied::CannotGrow { .. } => Denied::RoomTakesLong { member: member(0) },
        Denied::RoomTakesLong { .. } => Denied::InGate,
        Denied::InGate => Denied::WindowRuns { ms: 1 },
        Denied::WindowRuns { .. } => Denied::NotInSet { owner: member(0), epoch: Epoch::NONE_YET },
        Denied::NotInSet { .. } => Denied::OwnerLives { owner: member(0), epoch: Epoch::NONE_YET },
        Denied::OwnerLives { .. } => {
            Denied::GivesUpSet { owner: member(0), epoch: Epoch::NONE_YET }
        }
        Denied::GivesUpSet { .. } => Denied::LeadsYet,
        Denied::LeadsYet => Denied::NoSuchPoint,
        Denied::NoSuchPoint => Denied::NotRewound,
        Denied::NotRewound => Denied::NoRecord,
        Denied::NoRecord => Denied::GivenUp,
        Denied::GivenUp => Denied::Busy,
        Denied::Busy => Denied::NotPrimary,
        Denied::NotPrimary => Denied::NotInGate,
        Denied::NotInGate => Denied::Unfit,
        Denied::Unfit => Denied::Starting,
        Denied::Starting => Denied::Stopping,
        Denied::Stopping => return None,
    })
}

/// How a sentence tells its reader what to do, or that there is nothing to do.
const WAYS_OUT: &[&str] = &[
    "by itself",
    "hadrian ",
    "--",
    "; see ",
    "start it",
    "start that",
    "ask again",
    "ask there",
    "wait until",
    "wait for",
    "create ",
    "make ",
    "mend ",
    "bring ",
    "decide ",
    "this ends when",
    "put it first",
    "bounds it",
    "nothing to do",
    "use takeover",
];

/// One code each, and a way out in each sentence.
fn check<T: Copy + Display>(
    first: T,
    after: fn(T) -> Option<T>,
    code: fn(T) -> &'static str,
) -> BTreeSet<&'static str> {
    let mut codes = BTreeSet::new();
    for reason in std::iter::successors(Some(first), |reason| after(*reason)) {
        let sentence = reason.to_string();
        assert!(codes.insert(code(reason)), "{} means two things", code(reason));
        assert!(WAYS_OUT.iter().any(|way| sentence.contains(way)), "no way out: {sentence}");
        assert!(!sentence.contains("{ "), "a sentence is for people: {sentence}");
    }
    codes
}

#[test]
fn every_reason_has_a_code_of_its_own_and_a_way_out() {
    let whys = check(Why::NoConnection, after_why, |why| why.code());
    let refusals = check(Refusal::Diverged { fork: Lsn::START }, after_refusal, Refusal::code);
    let both: Vec<_> = whys.intersection(&refusals).collect();
    assert_eq!(both, [&"diverged"], "whoever says so, it is the same thing");
    for refusal in std::iter::successors(Some(Refusal::Unrelated), |one| after_refusal(*one)) {
        assert_eq!(Why::Refused(refusal).code(), refusal.code());
        assert_eq!(Why::Refused(refusal).to_string(), refusal.to_string());
    }
}

#[test]
fn every_denial_has_a_code_of_its_own_and_a_way_out() {
    let codes = check(Denied::AlreadyPrimary, after_denied, Denied::code);
    assert_eq!(codes.len(), 36);
}

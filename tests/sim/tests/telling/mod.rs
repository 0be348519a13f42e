//! How stories are told: plans in a few words, and what to look for at the end.
#![allow(dead_code, reason = "each file of stories uses its part of it")]

use std::time::Duration;

use hadrian_protocol::node::{Command, Note};
use hadrian_protocol::replica::Mode;
use hadrian_sim::plan::{Host, Marks};
use hadrian_sim::{Happening, MS, Micros, Plan, Report, run};

pub(crate) const ALPHA: Host = 0;
pub(crate) const BETA: Host = 1;
pub(crate) const GAMMA: Host = 2;
/// Seeds per story.
pub(crate) const TELLINGS: u64 = 12;

pub(crate) const FORCE: Command = Command::forced();
pub(crate) const PLANNED: Command = Command::planned();

/// Tells a story with every seed; `check` looks at the end of each.
pub(crate) fn tell(story: impl Fn(Plan) -> Plan, check: impl Fn(&Report)) {
    for seed in 0..TELLINGS {
        let plan = story(Plan::quiet(seed));
        let report = run(&plan, false);
        if let Some(violation) = &report.violation {
            let told = run(&plan, true).story.join("\n");
            panic!("seed {seed}: {violation}\n{told}");
        }
        check(&report);
    }
}

pub(crate) fn lasting(mut plan: Plan, length: Micros) -> Plan {
    plan.length = length;
    plan
}

pub(crate) fn in_mode(mut plan: Plan, mode: Mode) -> Plan {
    plan.mode = mode;
    plan
}

pub(crate) fn of_three(mut plan: Plan) -> Plan {
    plan.members = 3;
    plan
}

/// Ownership marks; an in-sync standby takes over by itself.
pub(crate) fn marked(mut plan: Plan, markers: u8) -> Plan {
    plan.record = true;
    plan.marks = Some(Marks { markers, auto_takeover: true, fails: false, fences: false });
    window(plan, 300 * MS)
}

/// The story with one marker, and with three.
pub(crate) fn tell_marked(story: impl Fn(Plan) -> Plan, check: impl Fn(&Report)) {
    for markers in [1, 3] {
        tell(|plan| story(marked(plan, markers)), &check);
    }
}

/// One of many moments, with a seed or two of its own.
pub(crate) fn tell_moment(moment: u64, story: impl Fn(Plan) -> Plan, check: impl Fn(&Report)) {
    for (markers, seed) in [(1, moment * 2), (3, moment * 2 + 1)] {
        let plan = story(marked(Plan::quiet(seed), markers));
        let report = run(&plan, false);
        if let Some(violation) = &report.violation {
            let told = run(&plan, true).story.join("\n");
            panic!("moment {moment}, {markers} markers: {violation}\n{told}");
        }
        check(&report);
    }
}

pub(crate) fn cut_from_marks(plan: Plan, at: Micros, host: Host) -> Plan {
    plan.with(at, Happening::RecordCut(host))
}

/// Whom the notes show as primary, and since when.
pub(crate) fn reigns(report: &Report) -> Vec<(Micros, Host)> {
    let leads = report.notes.iter().filter(|(_, _, note)| matches!(note, Note::Leads(_)));
    leads.map(|(at, host, _)| (*at, *host)).collect()
}

pub(crate) fn window(mut plan: Plan, time: Micros) -> Plan {
    plan.peer_window = Duration::from_micros(time);
    plan
}

pub(crate) fn noted(report: &Report, is: impl Fn(&Note) -> bool) -> Option<Micros> {
    report.notes.iter().find(|(_, _, note)| is(note)).map(|(at, _, _)| *at)
}

pub(crate) fn leads_last(report: &Report) -> Option<Host> {
    let leads = report.notes.iter().rev().find(|(_, _, note)| matches!(note, Note::Leads(_)));
    leads.map(|(_, host, _)| *host)
}

pub(crate) fn nothing_lost(report: &Report) {
    assert_eq!(report.lost, 0, "every answered write is there");
}

//! The shortest plan that still goes wrong: happenings are taken away, and settings made ordinary,
//! while the same rule stays broken.

use std::time::Duration;

use hadrian_protocol::replica::Mode;

use crate::plan::{Happening, Plan};
use crate::{NAMES, SECOND, world};

/// Runs at most that are spent on it.
const TRIES_MAX: u32 = 500;

/// What makes a plan simpler; each is tried on its own.
const SIMPLER: [fn(&mut Plan); 16] = [
    two_members,
    |plan| plan.clients = 1,
    |plan| plan.commit_on_write = false,
    |plan| plan.hold = false,
    |plan| (plan.record, plan.marks) = (false, None),
    |plan| plan.marks.iter_mut().for_each(|marks| marks.auto_takeover = false),
    |plan| plan.marks.iter_mut().for_each(|marks| (marks.fails, marks.fences) = (false, false)),
    |plan| plan.marks.iter_mut().for_each(|marks| marks.markers = 1),
    |plan| plan.degrade.clear(),
    |plan| (plan.peer_wait_limit, plan.replay_delay) = (Duration::ZERO, Duration::ZERO),
    |plan| (plan.spool_limit, plan.spool_memory) = (u64::MAX, u64::MAX),
    |plan| plan.wait_bytes = 0,
    |plan| plan.history = false,
    |plan| plan.log_bytes = 4 << 20,
    |plan| plan.mode = Mode::Nearsync,
    |plan| plan.length = plan.happenings.last().map_or(0, |(at, _)| *at) + SECOND,
];

/// Takes away from `plan` whatever is not needed for breaking `rule`.
#[must_use]
pub fn shrink(plan: &Plan, rule: &str) -> Plan {
    let mut shrinking = Shrinking { best: plan.clone(), rule, tries: 0 };
    loop {
        let before = shrinking.tries;
        let changed = shrinking.without_happenings() | shrinking.with_simpler_settings();
        if !changed || shrinking.tries >= TRIES_MAX || shrinking.tries == before {
            return shrinking.best;
        }
    }
}

struct Shrinking<'a> {
    best: Plan,
    rule: &'a str,
    tries: u32,
}

impl Shrinking<'_> {
    /// Keeps the plan if the rule is broken all the same.
    fn keeps(&mut self, plan: Plan) -> bool {
        self.tries += 1;
        let broken = (self.tries <= TRIES_MAX).then(|| world::run(&plan, false).violation);
        let same = broken.flatten().is_some_and(|broken| broken.rule == self.rule);
        if same {
            self.best = plan;
        }
        same
    }

    /// Halves first, then smaller and smaller pieces.
    fn without_happenings(&mut self) -> bool {
        let before = self.best.happenings.len();
        let mut chunk = before.div_ceil(2);
        while chunk > 0 {
            let mut from = 0;
            while from < self.best.happenings.len() && self.tries < TRIES_MAX {
                let mut shorter = self.best.clone();
                let to = (from + chunk).min(shorter.happenings.len());
                shorter.happenings.drain(from..to);
                if !self.keeps(shorter) {
                    from += chunk;
                }
            }
            chunk /= 2;
        }
        self.best.happenings.len() < before
    }

    fn with_simpler_settings(&mut self) -> bool {
        let mut changed = false;
        for simpler in SIMPLER {
            let mut plan = self.best.clone();
            simpler(&mut plan);
            // What is simple already would be kept for ever.
            changed |= format!("{plan:?}") != format!("{:?}", self.best) && self.keeps(plan);
        }
        changed
    }
}

/// Nothing can happen to a member that is not there.
fn two_members(plan: &mut Plan) {
    let of_two = |happening: &Happening| {
        let words = happening.to_string();
        !NAMES.iter().skip(2).any(|name| words.contains(name))
    };
    plan.happenings.retain(|(_, happening)| of_two(happening));
    plan.members = plan.members.min(2);
}

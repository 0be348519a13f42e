//! The shortest plan that still goes wrong: happenings are taken away while the same rule stays
//! broken.

use crate::plan::Plan;
use crate::world;

/// Runs at most that are spent on it.
const TRIES_MAX: u32 = 400;

/// Takes away from `plan` whatever is not needed for breaking `rule`.
#[must_use]
pub fn shrink(plan: &Plan, rule: &str) -> Plan {
    let mut tries = 0;
    let mut breaks = |plan: &Plan| {
        tries += 1;
        let broken = world::run(plan, false).violation;
        (tries <= TRIES_MAX).then(|| broken.is_some_and(|broken| broken.rule == rule))
    };
    let mut best = plan.clone();
    loop {
        let before = best.happenings.len();
        let mut chunk = (before / 2).max(1);
        while chunk >= 1 {
            let mut from = 0;
            while from < best.happenings.len() {
                let mut shorter = best.clone();
                let to = (from + chunk).min(shorter.happenings.len());
                shorter.happenings.drain(from..to);
                match breaks(&shorter) {
                    Some(true) => best = shorter,
                    Some(false) => from += chunk,
                    None => return best,
                }
            }
            chunk = if chunk == 1 { 0 } else { chunk / 2 };
        }
        let mut fewer = best.clone();
        fewer.clients = 1;
        if best.clients > 1 && breaks(&fewer) == Some(true) {
            best = fewer;
        }
        if best.happenings.len() == before {
            return best;
        }
    }
}

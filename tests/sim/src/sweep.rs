//! Many seeds, on every processor.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use hadrian_protocol::node::Made;

use crate::oracle::Violation;
use crate::plan::Plan;
use crate::world;

/// What came of a range of seeds.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Seeds that broke a promise, in order.
    pub broken: Vec<(u64, Violation)>,
    /// Answered writes of all runs.
    pub answered: u64,
    /// Those that force, or a volatile cache, has thrown away.
    pub lost: u64,
    /// Which moves of the tables were made.
    pub made: Made,
}

/// Runs the plans of `count` seeds from `first` on. Each run is alone on its thread, so its outcome
/// is the same as in any other order. `until_broken`: no run is begun behind the first that breaks
/// a promise.
#[must_use]
pub fn sweep(plan_of: fn(u64) -> Plan, (first, count): (u64, u64), until_broken: bool) -> Sweep {
    let next = AtomicU64::new(first);
    let total = Mutex::new(Sweep::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return;
            }
            let report = world::run(&plan_of(seed), false);
            if until_broken && report.violation.is_some() {
                next.store(u64::MAX / 2, Ordering::Relaxed);
            }
            let Ok(mut total) = total.lock() else { return };
            total.answered += report.answered;
            total.lost += report.lost;
            total.made.merge(&report.made);
            total.broken.extend(report.violation.map(|violation| (seed, violation)));
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        (0..threads).for_each(|_| {
            scope.spawn(work);
        });
    });
    let mut total = total.into_inner().unwrap_or_default();
    total.broken.sort_by_key(|(seed, _)| *seed);
    total
}

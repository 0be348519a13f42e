//! Every interleaving of small clusters, to the depth that is stated with each of them;
//! `make explore DEEPER=…` looks further ahead.

use std::sync::Mutex;
use std::thread;

use hadrian_sim::explore::{explore, markers, settings};

#[test]
fn no_order_of_events_breaks_a_truth() {
    let waiting = Mutex::new(settings::ALL.iter());
    let next = || waiting.lock().ok().and_then(|mut settings| settings.next());
    let work = || {
        while let Some(setting) = next() {
            let found = explore(setting, setting.depth);
            if let Some((what, path)) = found.broken {
                panic!("{}: {what}, after {path:#?}", setting.name);
            }
            assert!(found.states > 1_000, "{}: {} states", setting.name, found.states);
            let to_the_end = setting.detours.is_some();
            assert!(!to_the_end || found.epochs > 1, "{}: nobody takes over", setting.name);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

#[test]
fn no_order_of_events_on_markers_decides_twice_or_tells_of_the_past() {
    for setting in markers::ALL {
        let found = markers::decide(setting);
        if let Some((what, path)) = found.broken {
            panic!("{}: {what}, after {path:#?}", setting.name);
        }
        assert!(found.most > 1, "{}: {} records are decided", setting.name, found.most);
    }
}

//! Fuzz targets: one function each, which takes any bytes and asserts what must hold for them.
//!
//! `make fuzz` searches with libFuzzer (feature `libfuzzer`, which needs a C++ compiler);
//! `cargo test` replays the committed corpus without it. `README.md` says how to add to it.

pub mod configuration;
pub mod control;
pub mod dirty_map;
pub mod frame;
pub mod handshake;
pub mod history;
pub mod journal;
pub mod marks;
mod memory;
mod mend;
pub mod nbd_negotiation;
pub mod nbd_requests;
pub mod quarantine;
pub mod seed;
pub mod seeds;
pub mod staging;
pub mod superblock;

use std::path::PathBuf;

/// A target: its name, as of its program, dictionary and corpus, and what it runs.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name.
    pub name: &'static str,
    /// Runs one input; panics where a property breaks.
    pub run: fn(&[u8]),
    /// Builds the inputs with which the search begins.
    pub seeds: fn() -> Vec<seeds::Seed>,
}

/// All targets.
pub const TARGETS: [Target; 14] = [
    Target { name: "configuration", run: configuration::run, seeds: seeds::configuration },
    Target { name: "control", run: control::run, seeds: seeds::control },
    Target { name: "dirty_map", run: dirty_map::run, seeds: seeds::dirty_map },
    Target { name: "frame", run: frame::run, seeds: seeds::frame },
    Target { name: "handshake", run: handshake::run, seeds: seeds::handshake },
    Target { name: "history", run: history::run, seeds: seeds::history },
    Target { name: "journal", run: journal::run, seeds: seeds::journal },
    Target { name: "marks", run: marks::run, seeds: seeds::marks },
    Target { name: "nbd_negotiation", run: nbd_negotiation::run, seeds: seeds::nbd_negotiation },
    Target { name: "nbd_requests", run: nbd_requests::run, seeds: seeds::nbd_requests },
    Target { name: "quarantine", run: quarantine::run, seeds: seeds::quarantine },
    Target { name: "seed", run: seed::run, seeds: seeds::carried },
    Target { name: "staging", run: staging::run, seeds: seeds::staging },
    Target { name: "superblock", run: superblock::run, seeds: seeds::superblock },
];

impl Target {
    /// Where its inputs are.
    #[must_use]
    pub fn corpus(&self) -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus")).join(self.name)
    }

    /// Its dictionary.
    #[must_use]
    pub fn dictionary(&self) -> PathBuf {
        let file = format!("{}.dict", self.name);
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/dict")).join(file)
    }
}

/// Runs `work` on this thread, without sockets; its clock stands still unless somebody waits.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime without sockets needs nothing");
    }
    RUNTIME.with(|runtime| runtime.block_on(work))
}

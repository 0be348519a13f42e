//! Other people's programs, and our own as cargo has built them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// The folder of `hadriand` and `hadrian`, built if need be.
///
/// # Panics
/// If they do not build.
#[must_use]
pub fn programs() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build).clone()
}

fn build() -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    let folder = test.parent().and_then(Path::parent).unwrap_or(Path::new(".")).to_path_buf();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // As `make test` builds them: with fewer crates, or with no test among what is built, features
    // of what they depend on would differ, and everything would be built once more.
    build.args(["build", "--quiet", "--workspace", "--test", "cli"]);
    build.args(["--bin", "hadriand", "--bin", "hadrian"]);
    // Build scripts of dependencies look at what cargo tells a test of its package, and would build
    // anew each time.
    let told = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(told)) {
        build.env_remove(name);
    }
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let built = build.status().is_ok_and(|status| status.success());
    assert!(built, "the daemons do not build");
    folder
}

/// Stories with short leases that run at a time, at most. Each keeps a quarter of a processor busy
/// and waits else; with many, daemons would be late for their leases.
const AT_A_TIME: usize = 2;
/// How many more may begin.
static ROOM: (Mutex<usize>, Condvar) = (Mutex::new(AT_A_TIME), Condvar::new());

/// Room on this machine for a story with a short lease, as long as it is kept.
#[derive(Debug)]
#[must_use]
pub struct Room(());

/// Waits until there is room. Not for a story that has some: nobody would give any back.
pub fn room() -> Room {
    let (free, given_back) = &ROOM;
    // One that failed has left nothing behind.
    let free = free.lock().unwrap_or_else(PoisonError::into_inner);
    let free = given_back.wait_while(free, |free| *free == 0);
    *free.unwrap_or_else(PoisonError::into_inner) -= 1;
    Room(())
}

impl Drop for Room {
    fn drop(&mut self) {
        let (free, given_back) = &ROOM;
        *free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        given_back.notify_one();
    }
}

/// The machine, for one story that keeps all of it busy.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // One that failed has left nothing behind.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number from the environment.
#[must_use]
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs a program to its end; what it wrote to its standard output.
///
/// # Panics
/// If it is not installed, or fails; with everything that it wrote.
#[must_use]
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; `make tools` installs it"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {text}{errors}");
    text
}

/// Runs a script in the Python of the system with libnbd's binding; `h` is the connection.
///
/// # Panics
/// If it fails.
pub fn nbdsh(uri: &str, script: &str) {
    // The binding belongs to the system's Python, not to one that was built beside it.
    let _ = run("/usr/bin/python3", &["-m", "nbd", "-u", uri, "-c", script]);
}

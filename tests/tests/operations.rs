//! `docs/operations.md` stays true: every runbook is carried out on two daemons, in the state that
//! it is for. One that has no story here fails the test.
#![allow(clippy::print_stderr)] // A machine that cannot mount says so.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::SystemTime;

use hadrian_protocol::replica::Mode;
use hadrian_tests::megabytes::{self, MIB};
use hadrian_tests::mounted::missing;
use hadrian_tests::runbook::{Desk, Runbook, Step, read};
use hadrian_tests::tools::{programs, run};
use hadrian_tests::{Cluster, Side, Spec};

/// One line for each runbook: its test, its heading, the state in which it begins, and what has to
/// happen between its steps.
macro_rules! runbooks {
    ($($test:ident: $title:literal, $before:ident, $meanwhile:ident;)*) => {
        $(
            #[test]
            fn $test() {
                carry_out($title, $before, $meanwhile);
            }
        )*
        const TITLES: &[&str] = &[$($title),*];
    };
}

runbooks! {
    two_questions_come_first: "Operations", healthy, nothing;
    an_existing_disk: "An existing disk is put under replication", with_a_disk_on_alpha, nothing;
    a_new_standby: "A new standby is seeded over the link", without_beta, nothing;
    a_seed: "A new standby begins from a seed", without_beta, nothing;
    a_copy_by_hand: "A new standby begins from a copy carried by hand", without_beta, nothing;
    a_long_absence: "A standby was away for long", with_beta_long_away, nothing;
    a_planned_move: "The primary is moved as planned", healthy, nothing;
    a_dead_primary: "The primary's host is dead", with_alpha_dead, nothing;
    a_diverged_replica: "A replica has diverged", with_alpha_diverged, nothing;
    room: "Quarantine takes room", with_alpha_back, nothing;
    yesterday: "Look at yesterday", with_a_past, nothing;
    a_disaster: "Undo a disaster that was replicated", with_a_past, nothing;
    a_rehearsal: "Rehearse a takeover", with_a_file_system, nothing;
    the_other_side_counts:
        "Both sides have written, and the other one counts", with_alpha_diverged, nothing;
    a_larger_volume: "A volume is made larger", healthy, nothing;
    a_comparison: "The copies are compared", healthy, a_byte_is_flipped;
    a_failed_disk: "A replica's disk is full or has failed", with_betas_disk_full, nothing;
    the_end: "Replication ends", healthy, nothing;
}

fn page() -> Vec<Runbook> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    read(&fs::read_to_string(path).unwrap()).unwrap()
}

fn carry_out(
    title: &str,
    before: fn() -> Option<Desk>,
    meanwhile: fn(&mut Desk, &Step) -> anyhow::Result<()>,
) {
    let all = page();
    let runbook = all.iter().find(|runbook| runbook.title == title);
    let runbook = runbook.unwrap_or_else(|| panic!("there is no runbook {title:?} any more"));
    let Some(mut desk) = before() else { return };
    if let Err(error) = desk.follow(runbook, meanwhile) {
        panic!("docs/operations.md, {title}: {error:?}");
    }
}

#[test]
fn every_runbook_has_a_story_and_something_to_type() {
    let (all, listed) = (page(), fs::read_to_string("../docs/operations.md").unwrap());
    for Runbook { title, steps } in &all {
        assert!(TITLES.contains(&&title[..]), "{title:?} is carried out by no test: add a line");
        assert!(!steps.is_empty(), "{title:?} has no command in a block");
        assert!(title == "Operations" || listed.contains(&format!("| [{title}](#")), "{title:?}");
    }
    assert_eq!(all.len(), TITLES.len());
}

fn desk(spec: Spec) -> Desk {
    Desk::new(Cluster::new(&programs(), spec).unwrap()).unwrap()
}

fn write(desk: &Desk, side: Side, numbers: std::ops::Range<u64>, stamp: u64) {
    megabytes::write(&desk.cluster, side, numbers, stamp).unwrap();
}

#[expect(clippy::unnecessary_wraps, reason = "one of a table")]
fn nothing(_: &mut Desk, _: &Step) -> anyhow::Result<()> {
    Ok(())
}

/// Two members in peer, and something on the volume.
fn healthy() -> Option<Desk> {
    let desk = desk(Spec::new(Mode::Nearsync));
    write(&desk, Side::Alpha, 0..8, 0);
    desk.cluster.await_applied(Side::Alpha).unwrap();
    Some(desk)
}

/// Nobody has a replica, and alpha a disk with a file system on it.
fn with_a_disk_on_alpha() -> Option<Desk> {
    let mut desk = healthy()?;
    [Side::Beta, Side::Alpha].into_iter().for_each(|side| desk.strip(side).unwrap());
    let disk = desk.cluster.store_path(Side::Alpha);
    File::create(&disk).unwrap().set_len(64 * MIB).unwrap();
    let _ = run("mkfs.ext4", &["-q", "-F", disk.to_str().unwrap()]);
    Some(desk)
}

/// alpha serves, and beta has nothing.
fn without_beta() -> Option<Desk> {
    let mut desk = healthy()?;
    desk.strip(Side::Beta).unwrap();
    Some(desk)
}

/// alpha's log has been overrun several times since beta went away.
fn with_beta_long_away() -> Option<Desk> {
    let settings = "log_retention = \"16MiB\"\n".into();
    let mut desk = desk(Spec { settings, ..Spec::new(Mode::Nearsync) });
    write(&desk, Side::Alpha, 0..60, 0);
    desk.cluster.await_applied(Side::Alpha).unwrap();
    desk.cluster.kill(Side::Beta).unwrap();
    (1..6).for_each(|round| write(&desk, Side::Alpha, 10..50, round * 1000));
    Some(desk)
}

fn with_alpha_dead() -> Option<Desk> {
    let mut desk = healthy()?;
    desk.cluster.kill(Side::Alpha).unwrap();
    Some(desk)
}

/// alpha has written alone, beta was made primary by force and has written too, and alpha is back.
fn with_alpha_diverged() -> Option<Desk> {
    let mut desk = healthy()?;
    desk.cluster.kill(Side::Beta).unwrap();
    write(&desk, Side::Alpha, 4..12, 1000);
    desk.cluster.await_applied_here(Side::Alpha).unwrap();
    desk.cluster.kill(Side::Alpha).unwrap();
    desk.cluster.start(Side::Beta).unwrap();
    desk.cluster.await_status(Side::Beta, "standby").unwrap();
    desk.cluster.tool(Side::Beta, &["takeover", "db", "--force", "--yes"]).unwrap();
    write(&desk, Side::Beta, 8..16, 2000);
    desk.cluster.start(Side::Alpha).unwrap();
    desk.cluster.await_status(Side::Alpha, "diverged").unwrap();
    Some(desk)
}

/// What alpha held of its own is in its quarantine, and it is beta's standby.
fn with_alpha_back() -> Option<Desk> {
    let desk = with_alpha_diverged()?;
    desk.cluster.tool(Side::Alpha, &["rejoin", "db", "--yes"]).unwrap();
    desk.cluster.await_peer(Side::Beta).unwrap();
    Some(desk)
}

/// History is kept, and something was written over since the moment that the page names.
fn with_a_past() -> Option<Desk> {
    let settings = "history = \"24h\"\n".into();
    let mut desk = desk(Spec { settings, ..Spec::new(Mode::Nearsync) });
    write(&desk, Side::Alpha, 0..8, 0);
    desk.cluster.await_applied(Side::Alpha).unwrap();
    desk.remember(humantime::format_rfc3339_micros(SystemTime::now()).to_string());
    write(&desk, Side::Alpha, 0..8, 1000);
    desk.cluster.await_applied(Side::Alpha).unwrap();
    Some(desk)
}

/// There is a file system on the volume, and history is kept.
fn with_a_file_system() -> Option<Desk> {
    let settings = "history = \"24h\"\n".into();
    let desk = desk(Spec { settings, ..Spec::new(Mode::Nearsync) });
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(64 * MIB).unwrap();
    let _ = run("mkfs.ext4", &["-q", "-F", image.path().to_str().unwrap()]);
    let image = fs::read(image.path()).unwrap();
    let mut client = desk.cluster.client(Side::Alpha).unwrap();
    for (number, part) in (0..).zip(image.chunks(MIB as usize)) {
        client.write(number * MIB, part).unwrap();
    }
    client.flush().unwrap();
    Some(desk)
}

/// Before the comparison that is to find it.
fn a_byte_is_flipped(desk: &mut Desk, step: &Step) -> anyhow::Result<()> {
    if step.exit == 0 {
        return Ok(());
    }
    let store = File::options().read(true).write(true).open(desk.cluster.store_path(Side::Beta))?;
    let mut byte = [0];
    store.read_exact_at(&mut byte, 5 * MIB)?;
    store.write_all_at(&[byte[0] ^ 1], 5 * MIB)?;
    Ok(store.sync_all()?)
}

/// beta lies on a small disk with something else on it.
fn with_betas_disk_full() -> Option<Desk> {
    if let Some(reason) = missing() {
        eprintln!("not run: {reason}");
        return None;
    }
    let mut desk = desk(Spec::new(Mode::Nearsync));
    desk.give_disk(Side::Beta, 320 * MIB).unwrap();
    desk.cluster.await_peer(Side::Alpha).unwrap();
    let ballast = desk.cluster.store_path(Side::Beta).with_file_name("what-can-go");
    let ballast = File::create(ballast).unwrap();
    let stat = rustix::fs::fstatvfs(&ballast).unwrap();
    let (free, mode) = (stat.f_bavail * stat.f_frsize, rustix::fs::FallocateFlags::empty());
    rustix::fs::fallocate(&ballast, mode, 0, free - 8 * MIB).unwrap();
    // Somewhere in between its store finds no more room.
    write(&desk, Side::Alpha, 0..32, 0);
    Some(desk)
}

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Instant;

use super::program::Ended;
use super::*;

const LONG: Duration = Duration::from_secs(60);

/// A script in a folder of its own, which it runs in.
fn script(dir: &Path, text: &str, timeout: Duration) -> Hook {
    let command = dir.join("script");
    fs::write(&command, format!("#!/bin/sh\ncd {}\n{text}\n", dir.display())).unwrap();
    fs::set_permissions(&command, fs::Permissions::from_mode(0o755)).unwrap();
    Hook { command, timeout }
}

fn vars(event: &str) -> Vars {
    vec![("HADRIAN_EVENT", event.to_owned())]
}

#[test]
fn a_program_finds_its_event_in_its_environment_and_says_how_it_went() {
    let dir = tempfile::tempdir().unwrap();
    let hook = script(dir.path(), "echo \"$HADRIAN_EVENT\" > told; echo words; exit 0", LONG);
    assert!(run(&hook, &vars("leads")).is_success());
    assert_eq!(fs::read_to_string(dir.path().join("told")).unwrap(), "leads\n");
    let hook = script(dir.path(), "exit 3", LONG);
    let ended = run(&hook, &vars("leads"));
    assert!(!ended.is_success());
    assert!(matches!(ended, Ended::Exited(status) if status.code() == Some(3)));
}

#[test]
fn a_program_that_runs_too_long_is_killed_with_all_that_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let text = "sleep 600 & echo $! > child; wait";
    let hook = script(dir.path(), text, Duration::from_millis(500));
    let began = Instant::now();
    let ended = run(&hook, &vars("leads"));
    assert!(matches!(ended, Ended::TimedOut), "{ended:?}");
    assert!(began.elapsed() < LONG);
    let child = fs::read_to_string(dir.path().join("child")).unwrap();
    let state = format!("/proc/{}/stat", child.trim());
    // Gone, or dead and not buried by its new parent yet.
    while fs::read_to_string(&state).is_ok_and(|stat| !stat.contains(") Z")) {
        assert!(began.elapsed() < LONG, "what it started runs on");
    }
}

#[test]
fn a_program_that_says_much_is_not_held_up_and_one_that_is_missing_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let hook = script(dir.path(), "head -c 1000000 /dev/zero", LONG);
    assert!(run(&hook, &vars("leads")).is_success());
    let missing = Hook { command: dir.path().join("none"), timeout: LONG };
    assert!(matches!(run(&missing, &vars("leads")), Ended::Failed(_)));
}

#[test]
fn programs_run_in_order_and_the_oldest_news_are_dropped_where_too_many_wait() {
    let dir = tempfile::tempdir().unwrap();
    // The first waits until all others are in the queue.
    let text = "[ $HADRIAN_EVENT != 0 ] || read -r _ < gate; echo \"$HADRIAN_EVENT $HADRIAN_WHEN\" \
                >> told";
    let hook = script(dir.path(), text, LONG);
    let made = std::process::Command::new("mkfifo").arg(dir.path().join("gate")).status();
    assert!(made.unwrap().success());
    let hooks = Hooks::start("db", Some(hook), None, Vec::new()).unwrap().unwrap();
    hooks.happened(vars("0"));
    // Opened for writing, which waits until it reads: the first is not in the queue any more.
    let mut gate = fs::OpenOptions::new().write(true).open(dir.path().join("gate")).unwrap();
    for event in 1..=queue::WAITING_MAX + 2 {
        hooks.happened(vars(&event.to_string()));
    }
    let (done, told) = channel();
    hooks.announce(vars("last"), Box::new(move |success| done.send(success).unwrap()));
    std::io::Write::write_all(&mut gate, b"go\n").unwrap();
    assert_eq!(told.recv_timeout(LONG), Ok(true));
    let told = fs::read_to_string(dir.path().join("told")).unwrap();
    let told: Vec<_> = told.lines().collect();
    assert_eq!(told[..2], ["0 after", "4 after"], "three were dropped");
    assert_eq!(told.last(), Some(&"last before"));
    assert_eq!(told.len(), 1 + queue::WAITING_MAX);
}

#[test]
fn who_has_no_program_to_fence_has_fenced_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let hook = script(dir.path(), "exit 0", LONG);
    let hooks = Hooks::start("db", Some(hook), None, Vec::new()).unwrap().unwrap();
    let (done, told) = channel();
    hooks.fence(vars("fence"), Box::new(move |success| done.send(success).unwrap()));
    assert_eq!(told.recv_timeout(LONG), Ok(false));
}

//! What scripts rely on: exit codes, help, JSON, pages and completions.

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;

fn hadrian(args: &[&str]) -> Output {
    Command::cargo_bin("hadrian").unwrap().args(args).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A cluster of two on this host, without TLS; `hadrian.toml` in a folder of its own.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        let dir = home.0.path().display();
        let member = |name: &str, port: u16| {
            format!(
                "[[member]]\nname = \"{name}\"\naddress = \"127.0.0.1:{port}\"\n\
                 state_dir = \"{dir}/{name}/state\"\nrun_dir = \"{dir}/{name}/run\"\n"
            )
        };
        let text = format!(
            "cluster = \"orders\"\n[link]\nplaintext = true\n{}{}\
             [[resource]]\nname = \"db\"\nlog_size = \"64MiB\"\n\
             [[resource.volume]]\nname = \"data\"\nsize = \"1MiB\"\n\
             [resource.volume.store]\nalpha = \"{dir}/a.img\"\nbeta = \"{dir}/b.img\"\n",
            member("alpha", 1),
            member("beta", 2),
        );
        std::fs::write(home.config(), text).unwrap();
        home
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("hadrian.toml")
    }

    fn run(&self, args: &[&str]) -> Output {
        let config = self.config();
        let common = ["--config", config.to_str().unwrap(), "--member", "alpha"];
        hadrian(&[&common[..], args].concat())
    }

    fn rewrite(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        assert!(text.contains(from));
        std::fs::write(self.config(), text.replace(from, to)).unwrap();
    }
}

#[test]
fn every_command_explains_itself_and_the_exit_codes_are_documented() {
    let help = stdout(&hadrian(&["--help"]));
    for words in ["0 done", "1 refused", "2 not understood", "3 config", "4 no daemon", "5 needs"] {
        assert!(help.contains(words), "{words:?} is not in {help}");
    }
    let commands = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let names = commands.lines().filter_map(|line| {
        let indented = line.starts_with("  ") && !line.starts_with("   ");
        line.split_whitespace().next().filter(|_| indented)
    });
    let names: Vec<_> = names.filter(|name| *name != "help").collect();
    assert!(names.len() >= 12, "{names:?}");
    for name in names {
        let output = hadrian(&[name, "--help"]);
        assert_eq!(code(&output), 0, "{name}");
        assert!(stdout(&output).contains("--json"), "{name} has no --json");
    }
}

#[test]
fn exit_codes_tell_what_kind_of_failure_it_was() {
    let home = Home::new();
    assert_eq!(code(&home.run(&["check"])), 0);
    assert_eq!(code(&hadrian(&["takeoffer"])), 2);
    let no_daemon = home.run(&["status"]);
    assert_eq!(code(&no_daemon), 4);
    assert!(stderr(&no_daemon).contains("hadriand --config"), "{}", stderr(&no_daemon));
    let unconfirmed = home.run(&["takeover", "db", "--force"]);
    assert_eq!(code(&unconfirmed), 5);
    assert!(stderr(&unconfirmed).contains("--yes"), "{}", stderr(&unconfirmed));
    assert!(stderr(&unconfirmed).contains("cannot be told: no daemon listens"));
    assert_eq!(code(&home.run(&["create", "nothing"])), 1);
    home.rewrite("size = \"1MiB\"", "size = \"1000\"");
    let wrong = home.run(&["check"]);
    assert_eq!(code(&wrong), 3);
    assert!(stderr(&wrong).contains("hadrian.toml:"), "{}", stderr(&wrong));
    let no_file = hadrian(&["--config", "/nonexistent.toml", "check"]);
    assert_eq!(code(&no_file), 3);
}

#[test]
fn a_takeover_is_not_given_more_time_than_anybody_keeps_to() {
    let home = Home::new();
    for (limit, time, most) in [("--max-quiesce", "11m", "10m"), ("--max-total", "25h", "1day")] {
        let refused = home.run(&["takeover", "db", limit, time]);
        assert_eq!(code(&refused), 2, "{limit} {time}");
        assert!(stderr(&refused).contains(&format!("at most {most}")), "{}", stderr(&refused));
    }
}

#[test]
fn the_daemon_tells_a_wrong_configuration_from_a_failure() {
    let home = Home::new();
    let config = home.config();
    let hadriand = |member: &str, log: &str| {
        let args = ["--config", config.to_str().unwrap(), "--member", member, "--log", log];
        Command::cargo_bin("hadriand").unwrap().args(args).output().unwrap()
    };
    let stranger = hadriand("gamma", "info");
    assert_eq!(code(&stranger), 3);
    assert!(stderr(&stranger).contains("members are alpha, beta"), "{}", stderr(&stranger));
    let loud = hadriand("alpha", "loud");
    assert_eq!(code(&loud), 2);
    assert!(stderr(&loud).contains("no level"), "{}", stderr(&loud));
    // What it needs as a folder is a file.
    std::fs::write(home.0.path().join("alpha"), "").unwrap();
    assert_eq!(code(&hadriand("alpha", "info")), 1);
}

#[test]
fn check_follows_a_replica_from_nothing_to_a_changed_size() {
    let home = Home::new();
    let before = stdout(&home.run(&["check"]));
    assert!(before.contains("has no replica here yet"), "{before}");
    assert!(before.contains("two primaries here; not set for db"), "{before}");
    assert_eq!(code(&home.run(&["create", "db"])), 0);
    let again = home.run(&["create", "db"]);
    assert_eq!(code(&again), 1);
    assert!(stderr(&again).contains("exists already"), "{}", stderr(&again));
    let made = stdout(&home.run(&["--json", "check"]));
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    assert_eq!(made["problems"].as_array().unwrap().len(), 0, "{made}");
    home.rewrite("size = \"1MiB\"", "size = \"2MiB\"");
    let larger = home.run(&["check"]);
    assert_eq!(code(&larger), 0, "{}", stdout(&larger));
    let told = stdout(&larger);
    assert!(told.contains("hadrian grow db data --size 2097152B"), "{told}");
    home.rewrite("size = \"2MiB\"", "size = \"512KiB\"");
    let smaller = home.run(&["check"]);
    assert_eq!(code(&smaller), 3);
    let told = stdout(&smaller);
    assert!(told.contains("has 1048576 bytes") && told.contains("volumes only grow"), "{told}");
}

#[test]
fn inspect_shows_a_stopped_replica_and_changes_nothing() {
    let home = Home::new();
    assert_eq!(code(&home.run(&["create", "db"])), 0);
    let output = home.run(&["--json", "inspect", "db"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let first: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let second: serde_json::Value =
        serde_json::from_str(&stdout(&home.run(&["--json", "inspect", "db"]))).unwrap();
    assert_eq!(first, second);
}

#[test]
fn a_page_for_each_command_and_a_script_for_each_shell_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    assert_eq!(code(&hadrian(&["man", "--out", out])), 0);
    for page in ["hadrian.1", "hadrian-status.1", "hadrian-takeover.1"] {
        let text = std::fs::read_to_string(dir.path().join(page)).unwrap();
        assert!(text.contains(".TH"), "{page}");
    }
    assert!(stdout(&hadrian(&["man"])).contains(".TH"));
    for (shell, file) in [("bash", "hadrian.bash"), ("zsh", "_hadrian"), ("fish", "hadrian.fish")] {
        assert!(stdout(&hadrian(&["completions", shell])).contains("takeover"), "{shell}");
        assert_eq!(code(&hadrian(&["completions", shell, "--out", out])), 0);
        assert!(Path::new(out).join(file).exists(), "{file}");
    }
}

#[test]
fn keys_are_made_once_and_checked_against_the_configuration() {
    let home = Home::new();
    let out = home.0.path().to_str().unwrap();
    let made = hadrian(&["--json", "keygen", "--for", "alpha", "--out", out]);
    assert_eq!(code(&made), 0, "{}", stderr(&made));
    let made: serde_json::Value = serde_json::from_str(&stdout(&made)).unwrap();
    assert_eq!(code(&hadrian(&["keygen", "--for", "alpha", "--out", out])), 1);
    let other = hadrian(&["--json", "keygen", "--for", "beta", "--out", out]);
    let other: serde_json::Value = serde_json::from_str(&stdout(&other)).unwrap();
    let lines =
        |print: &serde_json::Value| format!("fingerprint = {print}\nkey_dir = \"{out}\"\nrun_dir");
    home.rewrite("plaintext = true", "plaintext = false");
    // Swapped: each has the key of the other.
    let text = std::fs::read_to_string(home.config()).unwrap();
    let text = text.replacen("run_dir", &lines(&other["fingerprint"]), 1);
    let at = text.rfind("run_dir").unwrap();
    let text =
        text[..at].to_string() + &text[at..].replacen("run_dir", &lines(&made["fingerprint"]), 1);
    std::fs::write(home.config(), text).unwrap();
    let swapped = home.run(&["check"]);
    assert_eq!(code(&swapped), 3);
    assert!(stdout(&swapped).contains("pins"), "{}{}", stdout(&swapped), stderr(&swapped));
}

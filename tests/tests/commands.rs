//! What an administrator asks a running pair, and what it answers.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use hadrian_protocol::replica::Mode;
use hadrian_tests::looks::answer;
use hadrian_tests::tools::programs;
use hadrian_tests::{Cluster, Side, Spec};
use rustix::process::Signal;
use serde_json::Value;

const BLOCK: [u8; 4096] = [7; 4096];

fn pair() -> Cluster {
    let cluster = Cluster::new(&programs(), Spec::new(Mode::Nearsync)).unwrap();
    cluster.client(Side::Alpha).unwrap().write(0, &BLOCK).unwrap();
    cluster
}

fn recorded_pair() -> Cluster {
    let settings = "recording = \"64MiB\"\n".into();
    Cluster::new(&programs(), Spec { settings, ..Spec::new(Mode::Nearsync) }).unwrap()
}

#[test]
fn status_has_the_fields_of_hadr_in_words_and_in_json() {
    let cluster = pair();
    let words = cluster.tool(Side::Alpha, &["status", "--hadr"]).unwrap();
    for field in ["HADR_ROLE", "HADR_STATE", "HADR_LOG_GAP", "STANDBY_RECV_REPLAY_GAP"] {
        assert!(words.contains(field), "{field} is missing in\n{words}");
    }
    let all = answer(&cluster, Side::Alpha, &["status"]);
    let hadr = &all[0]["hadr"][0];
    assert_eq!(hadr["HADR_ROLE"], "PRIMARY");
    assert_eq!(hadr["HADR_STATE"], "PEER");
    assert_eq!(hadr["HADR_SYNCMODE"], "NEARSYNC");
    assert_eq!(hadr["HADR_LOG_GAP_CUR"], 0);
    assert!(hadr["HADR_LOG_GAP"].is_u64(), "a running average, as in DB2: {hadr}");
    assert_eq!(hadr["LOSS_OF_PRIMARY"], "NOTHING");
    assert_eq!(all[0]["node"]["loss"], "nothing");
    let standby = answer(&cluster, Side::Beta, &["status"]);
    assert_eq!(standby[0]["hadr"][0]["HADR_ROLE"], "STANDBY");
    // Both sides know these of the pair.
    for field in [
        "HADR_CONNECT_STATUS_TIME",
        "HADR_TIMEOUT_US",
        "PEER_WAIT_LIMIT_US",
        "PEER_WINDOW_US",
        "HADR_LOG_GAP",
        "HADR_LOG_GAP_AVG_US",
        "HADR_LOG_GAP_CUR",
        "HADR_LOG_GAP_CUR_US",
        "STANDBY_RECV_REPLAY_GAP",
        "STANDBY_RECV_REPLAY_GAP_AVG_US",
        "STANDBY_RECV_REPLAY_GAP_CUR",
        "PRIMARY_LOG_TIME",
        "STANDBY_LOG_TIME",
        "STANDBY_REPLAY_LOG_TIME",
        "STANDBY_REPLAY_DELAY_US",
        "TAKEOVER_ESTIMATE_US",
    ] {
        assert!(!hadr[field].is_null(), "{field} on the primary: {hadr}");
        let there = &standby[0]["hadr"][0];
        assert!(!there[field].is_null(), "{field} on the standby: {there}");
    }
}

#[test]
fn a_delayed_standby_says_so_wherever_its_takeover_is_asked_about() {
    let settings = "replay_delay = \"1h\"\nspool_limit = \"16MiB\"\n".into();
    let cluster =
        Cluster::new(&programs(), Spec { settings, ..Spec::new(Mode::Nearsync) }).unwrap();
    let words = cluster.tool(Side::Beta, &["status"]).unwrap();
    assert!(words.contains("applies 1h later than it receives"), "{words}");
    let told = cluster.tool(Side::Beta, &["explain", "db"]).unwrap();
    assert!(told.contains("behind [delayed]: it applies 3600s later"), "{told}");
    let hadr = answer(&cluster, Side::Beta, &["status"])[0]["hadr"][0].clone();
    assert_eq!(hadr["STANDBY_REPLAY_DELAY_US"], 3_600_000_000_u64);
    assert_eq!(hadr["STANDBY_SPOOL_LIMIT"], 16 << 20);
    let checked = cluster.tool(Side::Beta, &["check"]).unwrap();
    assert!(checked.contains("apply 1h later than they receive"), "{checked}");
}

#[test]
fn a_forced_takeover_says_first_what_may_be_lost_and_does_nothing_unconfirmed() {
    let mut cluster = pair();
    cluster.kill(Side::Alpha).unwrap();
    cluster.await_status(Side::Beta, "disconnected").unwrap();
    let asked = cluster.command(Side::Beta, &["takeover", "db", "--force"]).output().unwrap();
    let told = String::from_utf8(asked.stderr).unwrap();
    assert_eq!(asked.status.code(), Some(5), "it needs --yes: {told}");
    let node = &answer(&cluster, Side::Beta, &["status"])[0]["node"];
    let (own, primary) = (&node["end"], &node["primary_end"]);
    let lines: Vec<_> = told.lines().collect();
    assert!(lines[0].starts_with("The log of this standby ends at "), "{told}");
    assert!(lines[0].contains("that of alpha ended at "), "{own} {primary} {told}");
    assert!(lines[1].starts_with("alpha has not been connected for "), "{told}");
    assert_eq!(answer(&cluster, Side::Beta, &["status"])[0]["hadr"][0]["HADR_ROLE"], "STANDBY");
    let forced = cluster.command(Side::Beta, &["takeover", "db", "--force", "--yes"]).output();
    let forced = forced.unwrap();
    let told = String::from_utf8(forced.stderr).unwrap();
    assert!(forced.status.success() && told.contains("that of alpha ended at"), "{told}");
}

#[test]
fn a_takeover_shows_each_phase_while_it_goes_on() {
    let cluster = pair();
    let output = cluster.command(Side::Beta, &["takeover", "db"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    let place = |text: &str| told.find(text).unwrap_or_else(|| panic!("no {text} in\n{told}"));
    assert!(place("asked to hand over") < place("its epoch begins"), "{told}");
    assert!(place("its epoch begins") < place("primary now, in epoch"), "{told}");
    cluster.await_peer(Side::Beta).unwrap();
    let there = cluster.tool(Side::Alpha, &["events", "db"]).unwrap();
    let place = |text: &str| there.find(text).unwrap_or_else(|| panic!("no {text} in\n{there}"));
    assert!(place("clients are held") < place("becomes a standby; no way back"), "{there}");
    assert!(place("becomes a standby; no way back") < place("follows beta in epoch"), "{there}");
}

#[test]
fn a_takeover_that_waits_for_its_primary_is_cancelled_and_nothing_has_changed() {
    let cluster = pair();
    cluster.signal(Side::Alpha, Signal::STOP).unwrap();
    let takeover = cluster
        .command(Side::Beta, &["takeover", "db", "--max-total", "1h"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    cluster.await_status(Side::Beta, "the primary was asked").unwrap();
    let cancelled = cluster.tool(Side::Beta, &["takeover", "db", "--cancel"]).unwrap();
    assert!(cancelled.contains("given up"), "{cancelled}");
    cluster.signal(Side::Alpha, Signal::CONT).unwrap();
    let output = takeover.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("the takeover was cancelled"), "{told}");
    assert_eq!(answer(&cluster, Side::Alpha, &["status"])[0]["hadr"][0]["HADR_ROLE"], "PRIMARY");
    cluster.client(Side::Alpha).unwrap().write(4096, &BLOCK).unwrap();
    let events = cluster.tool(Side::Beta, &["events", "db"]).unwrap();
    assert!(events.contains("[given_up]"), "{events}");
}

#[test]
fn explain_says_why_not_and_the_way_out() {
    let mut cluster = pair();
    let healthy = cluster.tool(Side::Beta, &["explain", "db"]).unwrap();
    assert!(healthy.contains("it is a standby") && healthy.contains("hadrian takeover"));
    cluster.kill(Side::Beta).unwrap();
    cluster.await_status(Side::Alpha, "disconnected").unwrap();
    let alone = cluster.tool(Side::Alpha, &["explain", "db"]).unwrap();
    assert!(alone.contains("beta"), "{alone}");
    let reasons = answer(&cluster, Side::Alpha, &["status"])[0]["node"]["reasons"].clone();
    assert!(reasons.as_array().is_some_and(|reasons| !reasons.is_empty()), "{reasons}");
}

#[test]
fn events_come_in_order_with_numbers_and_codes() {
    let cluster = pair();
    cluster.tool(Side::Beta, &["takeover", "db"]).unwrap();
    cluster.await_peer(Side::Beta).unwrap();
    let text = cluster.tool(Side::Alpha, &["events", "db", "--json"]).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<_> = events.iter().filter_map(|event| event["number"].as_u64()).collect();
    assert_eq!(numbers.len(), events.len(), "{text}");
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{text}");
    let words = cluster.tool(Side::Alpha, &["events", "db"]).unwrap();
    let place = |code: &str| words.find(code).unwrap_or_else(|| panic!("no {code} in\n{words}"));
    assert!(place("[leads]") < place("[stepped_down]"), "{words}");
    assert!(place("[stepped_down]") < place("[follows]"), "{words}");
    assert!(words.contains("connected with beta") && !words.contains("member 1"), "{words}");
}

#[test]
fn a_takeover_that_is_refused_says_why_and_changes_nothing() {
    let cluster = pair();
    let refused = |args: &[&str]| cluster.tool(Side::Beta, args).unwrap_err().to_string();
    let no_proof = refused(&["takeover", "db", "--peer-window-only", "--yes"]);
    assert!(no_proof.contains("cannot prove"), "without a window: {no_proof}");
    let nothing = refused(&["takeover", "db", "--cancel"]);
    assert!(nothing.contains("no takeover is under way"), "{nothing}");
    cluster.tool(Side::Beta, &["takeover", "db", "--test"]).unwrap();
    assert_eq!(answer(&cluster, Side::Alpha, &["status"])[0]["hadr"][0]["HADR_ROLE"], "PRIMARY");
    cluster.tool(Side::Beta, &["takeover", "db", "--max-total", "30s"]).unwrap();
    assert_eq!(answer(&cluster, Side::Beta, &["status"])[0]["hadr"][0]["HADR_ROLE"], "PRIMARY");
    let mut client = cluster.client(Side::Beta).unwrap();
    assert_eq!(client.read(0, BLOCK.len()).unwrap(), BLOCK);
}

#[test]
fn a_recording_is_run_through_the_core_again() {
    let mut cluster = recorded_pair();
    cluster.client(Side::Alpha).unwrap().write(0, &BLOCK).unwrap();
    cluster.tool(Side::Beta, &["takeover", "db"]).unwrap();
    cluster.await_peer(Side::Beta).unwrap();
    // However a daemon ends, what it was told is there.
    cluster.kill(Side::Alpha).unwrap();
    cluster.terminate(Side::Beta).unwrap();
    for side in [Side::Alpha, Side::Beta] {
        let file = cluster.replica_dir(side).join("recording.jsonl");
        let file = file.to_str().unwrap();
        let words = cluster.tool(side, &["inspect", "--replay", file]).unwrap();
        assert!(words.contains("[leads]") && words.contains("does the same again"), "{words}");
        let told = answer(&cluster, side, &["inspect", "--replay", file]);
        assert_eq!(told["difference"], Value::Null, "{told}");
        assert!(told["actions"].as_u64() > Some(10), "{told}");
    }
}

#[test]
fn a_recording_that_was_changed_is_told_with_the_place() {
    let mut cluster = recorded_pair();
    cluster.kill(Side::Alpha).unwrap();
    let file = cluster.replica_dir(Side::Alpha).join("recording.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    let replay = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let args = ["inspect", "--replay", file.to_str().unwrap()];
        cluster.tool(Side::Alpha, &args).unwrap_err().to_string()
    };
    let linked = text.lines().position(|line| line.contains("\"linked\"")).unwrap();
    let lines = text.lines().enumerate().filter(|(at, _)| *at != linked);
    let deaf = lines.map(|(_, line)| format!("{line}\n")).collect::<String>();
    assert!(replay(&deaf).contains("the core did something else then"), "{}", replay(&deaf));
    let headless = text.split_once('\n').unwrap().1;
    assert!(replay(headless).contains("no whole recording"), "{}", replay(headless));
    let garbled = text.replacen("{\"settled\"", "{\"settles\"", 1);
    assert!(replay(&garbled).contains("cannot be read"), "{}", replay(&garbled));
    assert!(replay("").contains("is empty"));
}

#[test]
fn a_diverged_replica_says_what_its_return_would_lose() {
    let mut cluster = pair();
    cluster.kill(Side::Beta).unwrap();
    cluster.await_status(Side::Alpha, "disconnected").unwrap();
    let mut client = cluster.client(Side::Alpha).unwrap();
    for place in [0, 4096, 40960] {
        client.write(place, &[8; 4096]).unwrap();
    }
    client.flush().unwrap();
    // Applied, not only written: a tail that nobody saw would be cut without a question.
    cluster.terminate(Side::Alpha).unwrap();
    cluster.start(Side::Beta).unwrap();
    cluster.await_status(Side::Beta, "standby").unwrap();
    cluster.tool(Side::Beta, &["takeover", "db", "--force", "--yes"]).unwrap();
    cluster.client(Side::Beta).unwrap().write(0, &BLOCK).unwrap();
    cluster.start(Side::Alpha).unwrap();
    cluster.await_status(Side::Alpha, "12.0 KiB in 2 ranges").unwrap();
    let told = cluster.tool(Side::Alpha, &["explain", "db"]).unwrap();
    assert!(told.contains("[diverged]") && told.contains("db/data: 4.0 KiB at 40960"), "{told}");
    let found = answer(&cluster, Side::Alpha, &["status"])[0]["divergence"].clone();
    assert_eq!(found["ranges"][0]["end"], 8192, "{found}");
    assert!(found["first"].as_u64() <= found["last"].as_u64(), "{found}");
}

/// Name and bytes of every file of a replica.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let entries = entries.filter(|entry| entry.file_type().unwrap().is_file());
    let name = |entry: &fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut files: Vec<_> =
        entries.map(|entry| (name(&entry), fs::read(entry.path()).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn the_replica_of_another_member_or_cluster_is_refused_with_both_labels_and_not_written() {
    let mut cluster = pair();
    let [alphas, betas] = [Side::Alpha, Side::Beta].map(|side| cluster.replica_dir(side));
    for side in [Side::Alpha, Side::Beta] {
        cluster.terminate(side).unwrap();
    }
    let home = alphas.ancestors().nth(3).unwrap();
    fs::rename(&betas, home.join("aside")).unwrap();
    fs::rename(&alphas, &betas).unwrap();
    let (before, store) = (files(&betas), cluster.store(Side::Beta).unwrap());

    cluster.start(Side::Beta).unwrap();
    cluster.await_status(Side::Beta, "belongs to test.alpha").unwrap();
    let told = cluster.tool(Side::Beta, &["status"]).unwrap();
    assert!(told.contains("this is test.beta") && told.contains("nothing was written"), "{told}");
    cluster.terminate(Side::Beta).unwrap();
    assert!(files(&betas) == before && cluster.store(Side::Beta).unwrap() == store);

    // The right replica, in a cluster of another name.
    fs::rename(&betas, &alphas).unwrap();
    let config = home.join("hadrian.toml");
    let text = fs::read_to_string(&config).unwrap().replace("\"test\"", "\"other\"");
    fs::write(&config, text).unwrap();
    cluster.start(Side::Alpha).unwrap();
    cluster.await_status(Side::Alpha, "belongs to test.alpha").unwrap();
    let told = cluster.tool(Side::Alpha, &["status"]).unwrap();
    assert!(told.contains("this is other.alpha"), "{told}");
    cluster.terminate(Side::Alpha).unwrap();
    assert!(files(&alphas) == before, "it is as it was");
    let told = cluster.command(Side::Alpha, &["check"]).output().unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("belongs to test.alpha"), "{told}");
}

#[test]
fn a_command_whose_output_nobody_reads_ends_as_it_would_have_and_says_nothing_of_it() {
    let cluster = pair();
    let commands: [&[&str]; 5] = [
        &["man"],
        &["completions", "bash"],
        &["status", "--watch"],
        &["explain", "db"],
        &["events", "db", "--follow"],
    ];
    for command in commands {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut running = cluster.command(Side::Alpha, command);
        let ended = running.stdin(Stdio::null()).stdout(writer).output().unwrap();
        let told = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success() && told.is_empty(), "{command:?}: {} {told}", ended.status);
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut refused = cluster.command(Side::Alpha, &["takeover", "db"]);
    assert_eq!(refused.stdout(writer).output().unwrap().status.code(), Some(1));
}

#[test]
fn a_primary_gives_a_point_a_name_and_a_standby_says_that_it_cannot() {
    let cluster = pair();
    let named = answer(&cluster, Side::Alpha, &["marker", "before-upgrade"]);
    let written = answer(&cluster, Side::Alpha, &["status"])[0]["node"]["end"].as_u64();
    assert_eq!(
        (&named[0]["resource"], &named[0]["name"]),
        (&"db".into(), &"before-upgrade".into())
    );
    assert_eq!(named[0]["lsn"].as_u64(), written, "{named}");
    let words = cluster.tool(Side::Alpha, &["marker", "again", "db"]).unwrap();
    assert!(words.starts_with("db: again is at "), "{words}");
    for (args, says) in [
        (vec!["marker", "x"], "primary of no resource"),
        (vec!["marker", "x", "db"], "only the primary can do this"),
        (vec!["marker", "1st", "db"], "cannot be the name of a point"),
    ] {
        let failed = cluster.tool(Side::Beta, &args).unwrap_err();
        assert!(failed.to_string().contains(says), "{args:?}: {failed}");
    }
    assert_eq!(cluster.tool(Side::Beta, &["marker", "x", "db", "--if-primary"]).unwrap(), "");
}

/// What clients write is in the store, in the log and in recordings.
#[test]
fn what_clients_write_can_be_read_by_the_owner_of_the_files_only() {
    let cluster = recorded_pair();
    let mut folders = vec![cluster.replica_dir(Side::Alpha)];
    let mut looked = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let (path, meta) = (entry.path(), entry.metadata().unwrap());
            if meta.is_dir() {
                folders.push(path);
                continue;
            }
            assert_eq!(meta.permissions().mode() & 0o077, 0, "{}", path.display());
            looked += 1;
        }
    }
    assert!(looked > 3, "{looked} files");
    let store = fs::metadata(cluster.store_path(Side::Alpha)).unwrap();
    assert_eq!(store.permissions().mode() & 0o077, 0);
}

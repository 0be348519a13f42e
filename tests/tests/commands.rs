//! What an administrator asks a running pair, and what it answers.

use hadrian_protocol::replica::Mode;
use hadrian_tests::tools::programs;
use hadrian_tests::{Cluster, Side, Spec};
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

fn json(cluster: &Cluster, side: Side, args: &[&str]) -> Value {
    let text = cluster.tool(side, &[args, &["--json"]].concat()).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}\n{text}"))
}

#[test]
fn status_has_the_fields_of_hadr_in_words_and_in_json() {
    let cluster = pair();
    let words = cluster.tool(Side::Alpha, &["status", "--hadr"]).unwrap();
    for field in ["HADR_ROLE", "HADR_STATE", "HADR_LOG_GAP", "STANDBY_RECV_REPLAY_GAP"] {
        assert!(words.contains(field), "{field} is missing in\n{words}");
    }
    let all = json(&cluster, Side::Alpha, &["status"]);
    let hadr = &all[0]["hadr"][0];
    assert_eq!(hadr["HADR_ROLE"], "PRIMARY");
    assert_eq!(hadr["HADR_STATE"], "PEER");
    assert_eq!(hadr["HADR_SYNCMODE"], "NEARSYNC");
    assert_eq!(hadr["HADR_LOG_GAP"], 0);
    assert_eq!(all[0]["node"]["loss"], "nothing");
    let standby = json(&cluster, Side::Beta, &["status"]);
    assert_eq!(standby[0]["hadr"][0]["HADR_ROLE"], "STANDBY");
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
    let reasons = json(&cluster, Side::Alpha, &["status"])[0]["node"]["reasons"].clone();
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
    assert_eq!(json(&cluster, Side::Alpha, &["status"])[0]["hadr"][0]["HADR_ROLE"], "PRIMARY");
    cluster.tool(Side::Beta, &["takeover", "db", "--max-total", "30s"]).unwrap();
    assert_eq!(json(&cluster, Side::Beta, &["status"])[0]["hadr"][0]["HADR_ROLE"], "PRIMARY");
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
        let told = json(&cluster, side, &["inspect", "--replay", file]);
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
    let found = json(&cluster, Side::Alpha, &["status"])[0]["divergence"].clone();
    assert_eq!(found["ranges"][0]["end"], 8192, "{found}");
    assert!(found["first"].as_u64() <= found["last"].as_u64(), "{found}");
}

//! A disaster that was replicated, undone with real daemons: a standby goes back to a point of its
//! history and leads from there, and nothing of what is given up is lost (design §6.2, §8.5).

use std::fs;
use std::time::SystemTime;

use hadrian_protocol::replica::Mode;
use hadrian_tests::megabytes::{self, MIB, content};
use hadrian_tests::tools::{programs, run};
use hadrian_tests::{Cluster, Side, Spec};
use serde_json::Value;

fn write(cluster: &Cluster, side: Side, numbers: impl Iterator<Item = u64>, stamp: u64) {
    megabytes::write(cluster, side, numbers, stamp).unwrap();
}

fn pair(settings: &str) -> Cluster {
    let spec = Spec { settings: settings.into(), ..Spec::new(Mode::Nearsync) };
    Cluster::new(&programs(), spec).unwrap()
}

fn answer(cluster: &Cluster, side: Side, args: &[&str]) -> Value {
    let text = cluster.tool(side, &[args, &["--json"]].concat()).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}\n{text}"))
}

/// Megabytes of these numbers, one behind the other.
fn image(size: usize, numbers: impl Iterator<Item = u64>) -> Vec<u8> {
    let mut image: Vec<u8> = numbers.flat_map(content).collect();
    image.resize(size, 0);
    image
}

fn is(found: &[u8], wanted: &[u8]) {
    let chunks = found.chunks(MIB as usize).zip(wanted.chunks(MIB as usize));
    let differ = chunks.filter(|(one, other)| one != other).count();
    assert!(found.len() == wanted.len() && differ == 0, "{differ} megabytes differ");
}

/// What a client reads of the whole volume.
fn served(cluster: &Cluster, side: Side) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let out = path.to_str().unwrap();
    let _ = run("qemu-img", &["convert", "-f", "raw", "-O", "raw", &cluster.uri(side), out]);
    fs::read(path).unwrap()
}

/// The losing image of a member, out of its quarantine.
fn got_back(cluster: &Cluster, side: Side) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let out = path.to_str().unwrap();
    let all = answer(cluster, side, &["quarantine", "list", "db"]);
    let blocks = all.as_array().unwrap().iter().find(|file| file["kind"] == "blocks");
    let name = blocks.unwrap_or_else(|| panic!("no blocks in {all}"))["name"].as_str().unwrap();
    cluster.tool(side, &["quarantine", "export", "db", name, "--out", out]).unwrap();
    fs::read(path).unwrap()
}

/// Both members are together with beta as primary, and equal.
fn are_together(cluster: &Cluster) {
    cluster.await_peer(Side::Beta).unwrap();
    cluster.await_applied(Side::Beta).unwrap();
    let told = cluster.tool(Side::Beta, &["verify", "db"]).unwrap();
    assert!(told.contains("no difference"), "{told}");
}

#[test]
fn a_name_given_before_a_disaster_is_gone_back_to_and_the_disaster_is_in_quarantine() {
    let mut cluster = pair("history = \"24h\"\n");
    let size = cluster.store(Side::Beta).unwrap().len();
    write(&cluster, Side::Alpha, 0..8, 0);
    cluster.tool(Side::Alpha, &["marker", "before-upgrade"]).unwrap();
    write(&cluster, Side::Alpha, 2..12, 1000);
    cluster.await_applied(Side::Alpha).unwrap();
    let (good, bad) = (image(size, 0..8), image(size, (0..2).chain(1002..1012)));
    is(&cluster.store(Side::Beta).unwrap(), &bad);
    cluster.terminate(Side::Alpha).unwrap();

    let args = ["takeover", "db", "--to", "before-upgrade"];
    let refused = cluster.tool(Side::Beta, &args).unwrap_err().to_string();
    assert!(refused.contains("--force") && refused.contains("--test"), "{refused}");
    let test = cluster.tool(Side::Beta, &[&args[..], &["--force", "--dry-run"]].concat()).unwrap();
    assert!(test.contains("called before-upgrade") && test.contains("would be granted"), "{test}");
    let told = answer(&cluster, Side::Beta, &[&args[..], &["--force", "--test"]].concat());
    assert_eq!(told["point"]["name"], "before-upgrade");
    assert!(told["log_bytes"].as_u64().unwrap() > 10 * MIB, "{told}");
    is(&cluster.store(Side::Beta).unwrap(), &bad);

    cluster.tool(Side::Beta, &[&args[..], &["--force", "--yes"]].concat()).unwrap();
    is(&served(&cluster, Side::Beta), &good);
    is(&got_back(&cluster, Side::Beta), &bad);
    write(&cluster, Side::Beta, 4..6, 2000);

    cluster.start(Side::Alpha).unwrap();
    cluster.await_status(Side::Alpha, "diverged").unwrap();
    cluster.tool(Side::Alpha, &["rejoin", "db", "--yes"]).unwrap();
    are_together(&cluster);
    is(&got_back(&cluster, Side::Alpha), &bad);
    let after = image(size, (0..4).chain(2004..2006).chain(6..8));
    for side in [Side::Alpha, Side::Beta] {
        is(&cluster.store(side).unwrap(), &after);
    }
}

#[test]
fn a_moment_is_gone_back_to_under_a_primary_that_serves_and_then_further() {
    let cluster = pair("history = \"24h\"\nrejoin = \"auto\"\n");
    let size = cluster.store(Side::Beta).unwrap().len();
    let mut moments = Vec::new();
    for round in 0..3 {
        write(&cluster, Side::Alpha, 0..6, round * 1000);
        cluster.await_applied(Side::Alpha).unwrap();
        moments.push(humantime::format_rfc3339_micros(SystemTime::now()).to_string());
    }
    for (round, stamp) in [(1, 1000), (0, 0)] {
        let to = ["takeover", "db", "--force", "--yes", "--to", &moments[round]];
        if round == 0 {
            // It is primary itself by now, and has to be a standby first.
            let refused = cluster.tool(Side::Beta, &to).unwrap_err().to_string();
            assert!(refused.contains("let another member take over"), "{refused}");
            cluster.tool(Side::Alpha, &["takeover", "db"]).unwrap();
            cluster.await_peer(Side::Alpha).unwrap();
        }
        cluster.tool(Side::Beta, &to).unwrap();
        is(&served(&cluster, Side::Beta), &image(size, stamp..stamp + 6));
        are_together(&cluster);
        for side in [Side::Alpha, Side::Beta] {
            is(&cluster.store(side).unwrap(), &image(size, stamp..stamp + 6));
        }
    }
}

#[test]
fn what_a_delayed_standby_has_not_applied_yet_is_cut() {
    let cluster = pair("history = \"24h\"\nreplay_delay = \"1h\"\nrejoin = \"auto\"\n");
    let size = cluster.store(Side::Beta).unwrap().len();
    write(&cluster, Side::Alpha, 0..4, 0);
    cluster.tool(Side::Alpha, &["marker", "good"]).unwrap();
    write(&cluster, Side::Alpha, 0..4, 1000);
    cluster.tool(Side::Beta, &["takeover", "db", "--force", "--yes", "--to", "good"]).unwrap();
    is(&served(&cluster, Side::Beta), &image(size, 0..4));
}

/// The daemon dies in the middle of it, again and again: what it finds is the disaster or the
/// point, and in the second case it waits to be told again.
#[test]
fn a_kill_in_the_middle_leaves_the_disaster_or_the_point() {
    let mut cluster = pair("history = \"24h\"\nrejoin = \"auto\"\n");
    let size = cluster.store(Side::Beta).unwrap().len();
    write(&cluster, Side::Alpha, 0..16, 0);
    cluster.tool(Side::Alpha, &["marker", "good"]).unwrap();
    write(&cluster, Side::Alpha, 0..24, 1000);
    cluster.await_applied(Side::Alpha).unwrap();
    cluster.terminate(Side::Alpha).unwrap();
    let to = ["takeover", "db", "--force", "--yes", "--to", "good"];
    let (mut killed, mut ended) = (0, false);
    for round in 0..12_u64 {
        let mut command = cluster.command(Side::Beta, &to);
        let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        // Later each time, so that every step is met; which ones, only the machine knows.
        let deadline = std::time::Instant::now() + std::time::Duration::from_millis(round * 12);
        while std::time::Instant::now() < deadline && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        cluster.kill(Side::Beta).unwrap();
        ended = child.wait().unwrap().success();
        killed += usize::from(!ended);
        cluster.start(Side::Beta).unwrap();
        let node = || cluster.status(Side::Beta).and_then(|status| status.node);
        while node().is_none_or(|node| format!("{:?}", node.standing) == "Starting") {
            std::thread::yield_now();
        }
        if ended {
            break;
        }
        let found = cluster.store(Side::Beta).unwrap();
        let bad = image(size, 1000..1024);
        if found != bad {
            is(&found, &image(size, 0..16));
            let words = cluster.tool(Side::Beta, &["status", "db"]).unwrap();
            assert!(words.contains("takeover --force leads from there"), "{words}");
            break;
        }
    }
    assert!(killed > 0);
    match ended {
        // It was primary, and waits in its gate for alpha.
        true => drop(cluster.tool(Side::Beta, &["start", "db", "--primary", "--force", "--yes"])),
        false => drop(cluster.tool(Side::Beta, &to).unwrap()),
    }
    is(&served(&cluster, Side::Beta), &image(size, 0..16));
    cluster.start(Side::Alpha).unwrap();
    are_together(&cluster);
}

//! Bytes that a disk has lost in silence, with real daemons: found, repaired from either side while
//! clients write, and what was replaced got back (design §8.4).

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use hadrian_protocol::node::Note;
use hadrian_protocol::replica::Mode;
use hadrian_tests::comparisons::{self, Comparisons};
use hadrian_tests::looks::answer;
use hadrian_tests::megabytes::{self, MIB};
use hadrian_tests::tools::programs;
use hadrian_tests::{Cluster, Side, Spec};
use serde_json::Value;

const LEAF: u64 = 16 << 10;

fn write(cluster: &Cluster, numbers: impl Iterator<Item = u64>, stamp: u64) {
    megabytes::write(cluster, Side::Alpha, numbers, stamp).unwrap();
}

fn cluster(settings: &str) -> Cluster {
    let settings = settings.to_owned();
    let spec = Spec { volume_bytes: 256 << 20, settings, ..Spec::new(Mode::Nearsync) };
    let cluster = Cluster::new(&programs(), spec).unwrap();
    write(&cluster, 0..64, 0);
    cluster.await_applied(Side::Alpha).unwrap();
    cluster
}

/// Bytes of a backing store become others.
fn flip(cluster: &Cluster, side: Side, places: &[u64]) {
    let disk = File::options().read(true).write(true).open(cluster.store_path(side)).unwrap();
    for at in places {
        let mut byte = [0];
        disk.read_exact_at(&mut byte, *at).unwrap();
        disk.write_all_at(&[byte[0] ^ 1], *at).unwrap();
    }
    disk.sync_all().unwrap();
}

/// Alpha is primary; what `wrong` has lost is repaired from the other, while a client writes.
fn repaired(wrong: Side, right: Side) {
    let cluster = cluster("");
    let places = [3 * MIB + 5, 37 * MIB + 12_345, 37 * MIB + 2 * LEAF, 63 * MIB];
    flip(&cluster, wrong, &places);
    let held = cluster.store(wrong).unwrap();
    let unsure = cluster.tool(Side::Alpha, &["verify", "db", "--repair"]).unwrap_err();
    assert!(unsure.to_string().contains("--from MEMBER"), "{unsure}");
    std::thread::scope(|scope| {
        // Elsewhere on the volume, all the while.
        scope.spawn(|| write(&cluster, 128..192, 500));
        let args = ["verify", "db", "--repair", "--from", right.name()];
        let said = cluster.tool(Side::Alpha, &args).unwrap();
        let from = format!("64.0 KiB differed, 64.0 KiB repaired from {}", right.name());
        assert!(said.contains(&from), "{said}");
        assert!(
            said.contains(&format!("what {} held there is kept on it", wrong.name())),
            "{said}"
        );
    });
    cluster.await_applied(Side::Alpha).unwrap();
    assert!(cluster.store(Side::Alpha).unwrap() == cluster.store(Side::Beta).unwrap());
    let again = cluster.tool(Side::Alpha, &["verify", "db"]).unwrap();
    assert!(again.contains("no difference"), "{again}");

    // What was replaced is there, leaf for leaf.
    assert_eq!(answer(&cluster, right, &["quarantine", "list", "db"]), serde_json::json!([]));
    let kept = answer(&cluster, wrong, &["quarantine", "list", "db"]);
    let (mut leaves, out) = (0, cluster.replica_dir(wrong).with_extension("got-back"));
    for file in kept.as_array().unwrap() {
        assert_eq!(
            (&file["state"], &file["from"]),
            (&Value::from("whole"), &file["end"]),
            "{file}"
        );
        leaves += file["count"].as_u64().unwrap();
        let args = ["quarantine", "export", "db", file["name"].as_str().unwrap(), "--blocks-only"];
        let to = ["--out", out.to_str().unwrap()];
        cluster.tool(wrong, &[&args[..], &to[..]].concat()).unwrap();
        let found = fs::read(&out).unwrap();
        for at in &places {
            let leaf = (at / LEAF * LEAF) as usize..(at / LEAF * LEAF + LEAF) as usize;
            if found[leaf.clone()].iter().any(|byte| *byte != 0) {
                assert!(found[leaf.clone()] == held[leaf], "{file}: byte {at}");
                leaves -= 1;
            }
        }
        fs::remove_file(&out).unwrap();
    }
    assert_eq!(leaves, 0, "each leaf was kept once, and nothing else: {kept}");
}

#[test]
fn each_lost_byte_is_found_and_nothing_else_while_clients_write_everywhere() {
    let wished = Comparisons { count: 8, time: Duration::ZERO, seed: 20_261_128 };
    let outcome = comparisons::run(&programs(), wished).unwrap();
    assert_eq!(outcome.complaint, None);
    assert_eq!((outcome.compared, outcome.wrong, outcome.flipped, outcome.found), (8, 0, 4, 4));
}

#[test]
fn a_standby_that_has_lost_bytes_is_repaired_from_its_primary_while_clients_write() {
    repaired(Side::Beta, Side::Alpha);
}

#[test]
fn a_primary_that_has_lost_bytes_is_repaired_from_its_standby_while_clients_write() {
    repaired(Side::Alpha, Side::Beta);
}

#[test]
fn a_comparison_by_schedule_begins_by_itself_and_says_what_it_found() {
    let cluster = cluster("verify = \"10s\"\n");
    flip(&cluster, Side::Beta, &[5 * MIB]);
    cluster.await_status(Side::Alpha, "16.0 KiB differ; every 10s").unwrap();
    let told = cluster.told(Side::Alpha).unwrap().into_iter().map(|told| told.note);
    let differs = |note: &Note| matches!(note, Note::Verified { differs: 16384, .. });
    assert!(told.into_iter().any(|note| differs(&note)));
}

#[test]
fn what_the_last_comparison_found_is_known_after_a_restart() {
    let mut cluster = cluster("verify = \"7d\"\n");
    let last =
        |cluster: &Cluster| answer(cluster, Side::Alpha, &["status", "db"])[0]["node"].clone();
    cluster.await_status(Side::Alpha, "not yet; every 7days").unwrap();
    cluster.tool(Side::Alpha, &["verify", "db"]).unwrap();
    let before = last(&cluster)["verified"].clone();
    assert_eq!(before[0]["found"]["differs"], 0);
    cluster.terminate(Side::Alpha).unwrap();
    cluster.start(Side::Alpha).unwrap();
    cluster.await_peer(Side::Alpha).unwrap();
    assert_eq!(last(&cluster)["verified"], before);
    assert_eq!(last(&cluster)["verify"], Value::Null, "it is not repeated");
    cluster.await_status(Side::Alpha, "no difference; every 7days").unwrap();
}

//! Volumes that are made larger, with real daemons and clients: under load, over restarts and
//! takeovers, and refused where it cannot be (design §2.4).
#![allow(clippy::print_stderr)] // A machine without loop devices says so.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use hadrian_protocol::node::Note;
use hadrian_protocol::replica::Mode;
use hadrian_tests::megabytes::{self, MIB, content};
use hadrian_tests::tools::programs;
use hadrian_tests::{Cluster, Side, Spec};
use serde_json::Value;

const BEFORE: u64 = 64;
const AFTER: u64 = 160;

fn cluster(settings: &str) -> Cluster {
    let settings = settings.to_owned();
    let spec = Spec { volume_bytes: BEFORE * MIB, settings, ..Spec::new(Mode::Nearsync) };
    let cluster = Cluster::new(&programs(), spec).unwrap();
    megabytes::write(&cluster, Side::Alpha, 0..8, 0).unwrap();
    cluster
}

fn grow(cluster: &Cluster, side: Side, megabytes: u64) -> Result<String, String> {
    let size = format!("{megabytes}MiB");
    let args = ["grow", "db", "data", "--size", &size];
    cluster.tool(side, &args).map_err(|error| error.to_string())
}

/// Megabytes of the volume, as a member's status has them.
fn size(cluster: &Cluster, side: Side) -> u64 {
    let text = cluster.tool(side, &["status", "db", "--json"]).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    all[0]["volumes"][0].as_u64().unwrap() / MIB
}

fn stores_are_equal(cluster: &Cluster, primary: Side, megabytes: u64) {
    cluster.await_applied(primary).unwrap();
    let stores = [Side::Alpha, Side::Beta].map(|side| cluster.store(side).unwrap());
    assert!(stores[0] == stores[1], "the stores differ");
    assert_eq!(stores[0].len() as u64, megabytes * MIB);
}

fn config(cluster: &Cluster) -> PathBuf {
    // The replicas of both lie in a folder of each, beside it.
    let folder = cluster.log_path(Side::Alpha);
    folder.parent().and_then(Path::parent).unwrap().join("hadrian.toml")
}

#[test]
fn a_volume_grows_while_clients_write_and_keeps_its_size_over_restarts_and_a_takeover() {
    let mut cluster = cluster("");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut client = cluster.client(Side::Alpha).unwrap();
            let mut count = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let place = count % BEFORE;
                client.write(place * MIB, &content(place + count)).unwrap();
                count += 1;
            }
            client.flush().unwrap();
            let beyond = client.write(BEFORE * MIB, &content(1)).unwrap_err();
            assert!(beyond.to_string().contains("the server answers error"), "{beyond}");
            client.flush().unwrap();
            count
        });
        let room = cluster.tool(
            Side::Alpha,
            &["grow", "db", "data", "--size", &format!("{AFTER}MiB"), "--dry-run"],
        );
        assert!(room.unwrap().contains("every member has room"));
        assert_eq!(size(&cluster, Side::Alpha), BEFORE);
        grow(&cluster, Side::Alpha, AFTER).unwrap();
        megabytes::write(&cluster, Side::Alpha, BEFORE..AFTER, 7).unwrap();
        stop.store(true, Ordering::Relaxed);
        assert!(writer.join().unwrap() > 0);
    });
    for side in [Side::Alpha, Side::Beta] {
        assert_eq!(size(&cluster, side), AFTER);
    }
    let verified = cluster.tool(Side::Alpha, &["verify", "db"]).unwrap();
    assert!(verified.contains("no difference"), "{verified}");
    stores_are_equal(&cluster, Side::Alpha, AFTER);

    // The file still says what it was created with.
    for side in [Side::Beta, Side::Alpha] {
        cluster.kill(side).unwrap();
        cluster.start(side).unwrap();
    }
    cluster.await_peer(Side::Alpha).unwrap();
    assert_eq!(size(&cluster, Side::Beta), AFTER);
    let check = cluster.tool(Side::Beta, &["check"]).unwrap();
    assert!(check.contains("db/data has grown to 167772160 bytes"), "{check}");
    cluster.tool(Side::Beta, &["takeover", "db"]).unwrap();
    let mut client = cluster.client(Side::Beta).unwrap();
    let last = client.read((AFTER - 1) * MIB, MIB as usize).unwrap();
    assert!(last == content(AFTER - 1 + 7));
    // It serves before the old primary follows it, and only all members together grow.
    cluster.await_peer(Side::Beta).unwrap();
    grow(&cluster, Side::Beta, AFTER + 1).unwrap();
    megabytes::write(&cluster, Side::Beta, AFTER..AFTER + 1, 9).unwrap();
    stores_are_equal(&cluster, Side::Beta, AFTER + 1);
}

#[test]
fn what_cannot_be_is_refused_with_the_way_out_and_changes_nothing() {
    let mut cluster = cluster("");
    let at_beta = grow(&cluster, Side::Beta, AFTER).unwrap_err();
    assert!(at_beta.contains("beta is not the primary of db; ask on alpha"), "{at_beta}");
    let smaller = grow(&cluster, Side::Alpha, BEFORE - 1).unwrap_err();
    assert!(smaller.contains("has 67108864 bytes already"), "{smaller}");
    let odd = cluster.tool(Side::Alpha, &["grow", "db", "data", "--size", "70000001B"]);
    assert!(odd.unwrap_err().to_string().contains("whole blocks of 512"));
    let other = cluster.tool(Side::Alpha, &["grow", "db", "wal", "--size", "1GiB"]).unwrap_err();
    assert!(other.to_string().contains("no volume \"wal\"; there are data"), "{other}");
    cluster.kill(Side::Beta).unwrap();
    cluster.await_status(Side::Alpha, "disconnected").unwrap();
    let away = grow(&cluster, Side::Alpha, AFTER).unwrap_err();
    assert!(away.contains("beta does not follow this primary"), "{away}");
    cluster.start(Side::Beta).unwrap();
    cluster.await_peer(Side::Alpha).unwrap();
    assert_eq!([Side::Alpha, Side::Beta].map(|side| size(&cluster, side)), [BEFORE; 2]);
}

#[test]
fn a_standby_that_is_created_anew_from_the_old_file_grows_by_itself() {
    let mut cluster = cluster("history = \"1h\"\n");
    grow(&cluster, Side::Alpha, AFTER).unwrap();
    megabytes::write(&cluster, Side::Alpha, AFTER - 8..AFTER, 3).unwrap();
    cluster.terminate(Side::Beta).unwrap();
    cluster.make_anew(Side::Beta, &[]).unwrap();
    cluster.start(Side::Beta).unwrap();
    cluster.await_peer(Side::Alpha).unwrap();
    let grew = |side| cluster.told(side).unwrap().iter().any(|told| told.note == Note::Grew);
    assert!(grew(Side::Beta));
    stores_are_equal(&cluster, Side::Alpha, AFTER);
}

#[test]
fn a_seed_carries_the_size_that_the_volume_has_by_now() {
    let mut cluster = cluster("");
    grow(&cluster, Side::Alpha, AFTER).unwrap();
    megabytes::write(&cluster, Side::Alpha, AFTER - 8..AFTER, 3).unwrap();
    cluster.terminate(Side::Beta).unwrap();
    fs::remove_dir_all(cluster.replica_dir(Side::Beta)).unwrap();
    fs::remove_file(cluster.store_path(Side::Beta)).unwrap();
    let file = cluster.replica_dir(Side::Alpha).with_extension("seed");
    let file = file.to_str().unwrap();
    cluster.tool(Side::Alpha, &["seed", "export", "db", file]).unwrap();
    cluster.tool(Side::Beta, &["seed", "import", "db", file]).unwrap();
    assert_eq!(fs::metadata(cluster.store_path(Side::Beta)).unwrap().len(), AFTER * MIB);
    cluster.start(Side::Beta).unwrap();
    cluster.await_peer(Side::Alpha).unwrap();
    stores_are_equal(&cluster, Side::Alpha, AFTER);
}

#[test]
fn a_larger_size_in_the_file_is_a_wish_and_the_start_says_how_it_comes_true() {
    let mut cluster = cluster("");
    let path = config(&cluster);
    let text = fs::read_to_string(&path).unwrap();
    let (old, new) = (BEFORE * MIB, AFTER * MIB);
    fs::write(
        &path,
        text.replace(&format!("size = \"{old}B\"\nblock"), &format!("size = \"{new}B\"\nblock")),
    )
    .unwrap();
    for side in [Side::Beta, Side::Alpha] {
        cluster.terminate(side).unwrap();
        cluster.start(side).unwrap();
    }
    cluster.await_peer(Side::Alpha).unwrap();
    assert_eq!(size(&cluster, Side::Alpha), BEFORE);
    let way = format!("hadrian grow db data --size {new}B");
    let check = cluster.tool(Side::Alpha, &["check"]).unwrap();
    assert!(check.contains(&way), "{check}");
    assert!(fs::read_to_string(cluster.log_path(Side::Alpha)).unwrap().contains(&way));
    cluster.tool(Side::Alpha, &["grow", "db", "data", "--size", &format!("{new}B")]).unwrap();
    assert_eq!(size(&cluster, Side::Beta), AFTER);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(&format!("\"{new}B\""), "\"1MiB\"")).unwrap();
    cluster.terminate(Side::Beta).unwrap();
    cluster.start(Side::Beta).unwrap();
    cluster.await_peer(Side::Alpha).unwrap();
    assert_eq!(size(&cluster, Side::Beta), AFTER, "nothing shrinks");
}

/// A loop device over a file, which goes with its owner.
struct LoopDevice(PathBuf);

impl LoopDevice {
    fn over(file: &Path) -> Option<Self> {
        let output = Command::new("losetup").args(["--find", "--show"]).arg(file).output();
        match output {
            Ok(output) if output.status.success() => {
                Some(Self(String::from_utf8(output.stdout).unwrap().trim().into()))
            }
            other => {
                eprintln!("not run: losetup: {other:?}");
                None
            }
        }
    }

    fn look_again(&self) {
        let looked = Command::new("losetup").arg("--set-capacity").arg(&self.0).status();
        assert!(looked.unwrap().success());
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

#[test]
fn a_device_that_is_too_small_is_named_with_what_is_missing_and_zeroed_when_it_is_not() {
    let mut cluster = cluster("");
    cluster.await_applied(Side::Alpha).unwrap();
    cluster.terminate(Side::Beta).unwrap();
    let file = cluster.store_path(Side::Beta);
    let Some(device) = LoopDevice::over(&file) else { return };
    let path = config(&cluster);
    let text = fs::read_to_string(&path).unwrap();
    let (from, to) = (file.to_str().unwrap(), device.0.to_str().unwrap());
    fs::write(&path, text.replace(from, to)).unwrap();
    cluster.start(Side::Beta).unwrap();
    cluster.await_peer(Side::Alpha).unwrap();
    let small = grow(&cluster, Side::Alpha, AFTER).unwrap_err();
    let missing = (AFTER - BEFORE) * MIB;
    assert!(small.contains("beta has no room"), "{small}");
    assert!(
        small.contains(&format!("a device of 67108864 bytes, and {missing} are missing")),
        "{small}"
    );
    assert_eq!([Side::Alpha, Side::Beta].map(|side| size(&cluster, side)), [BEFORE; 2]);
    // Whoever makes the device larger leaves in it what was there.
    let under = File::options().write(true).open(&file).unwrap();
    let litter = vec![0xEE; usize::try_from(missing).unwrap()];
    std::os::unix::fs::FileExt::write_all_at(&under, &litter, BEFORE * MIB).unwrap();
    under.sync_all().unwrap();
    device.look_again();
    grow(&cluster, Side::Alpha, AFTER).unwrap();
    megabytes::write(&cluster, Side::Alpha, AFTER - 2..AFTER, 5).unwrap();
    let verified = cluster.tool(Side::Alpha, &["verify", "db"]).unwrap();
    assert!(verified.contains("no difference"), "{verified}");
    cluster.terminate(Side::Beta).unwrap();
    stores_of(&cluster);
}

fn stores_of(cluster: &Cluster) {
    let stores = [Side::Alpha, Side::Beta].map(|side| cluster.store(side).unwrap());
    assert!(stores[0] == stores[1], "the stores differ");
}

//! What a rejoin has set aside, got back with real daemons: listed, shown, as a file and over NBD
//! (design §6.4, I6).

use std::fs;
use std::path::{Path, PathBuf};

use hadrian_protocol::replica::Mode;
use hadrian_tests::looks::{self, Served, answer};
use hadrian_tests::megabytes::{self, MIB, content};
use hadrian_tests::tools::{nbdsh, programs, run};
use hadrian_tests::{Cluster, Side, Spec};
use rustix::process::Signal;
use serde_json::{Value, json};

fn write(cluster: &Cluster, side: Side, numbers: impl Iterator<Item = u64>, stamp: u64) {
    megabytes::write(cluster, side, numbers, stamp).unwrap();
}

/// A pair of which alpha has written what beta never got, and has come back to beta since. With
/// what alpha's volume held at the end.
fn rejoined(settings: &str) -> (Cluster, Vec<u8>) {
    let spec = Spec { settings: settings.into(), ..Spec::new(Mode::Superasync) };
    let size = spec.volume_bytes as usize;
    let mut cluster = Cluster::new(&programs(), spec).unwrap();
    write(&cluster, Side::Alpha, 0..8, 0);
    cluster.await_applied(Side::Alpha).unwrap();
    cluster.signal(Side::Beta, Signal::STOP).unwrap();
    write(&cluster, Side::Alpha, 4..12, 1000);
    cluster.await_applied_here(Side::Alpha).unwrap();
    cluster.kill(Side::Alpha).unwrap();
    // What lies in its socket goes with it: so it has nothing of that.
    cluster.kill(Side::Beta).unwrap();
    cluster.start(Side::Beta).unwrap();
    cluster.await_status(Side::Beta, "standby").unwrap();
    cluster.tool(Side::Beta, &["takeover", "db", "--force", "--yes"]).unwrap();
    write(&cluster, Side::Beta, 8..16, 2000);
    cluster.start(Side::Alpha).unwrap();
    cluster.await_status(Side::Alpha, "diverged").unwrap();
    cluster.tool(Side::Alpha, &["rejoin", "db", "--yes"]).unwrap();
    cluster.await_peer(Side::Beta).unwrap();
    cluster.await_applied(Side::Beta).unwrap();
    let mut image: Vec<u8> = (0..4).flat_map(content).collect();
    image.extend((4..12).flat_map(|number| content(number + 1000)));
    image.resize(size, 0);
    (cluster, image)
}

/// The only file of a kind, as `list` has it.
fn file_of(cluster: &Cluster, kind: &str) -> Value {
    let all = answer(cluster, Side::Alpha, &["quarantine", "list", "db"]);
    let mut of_kind = all.as_array().unwrap().iter().filter(|file| file["kind"] == kind);
    let found = of_kind.next().unwrap_or_else(|| panic!("no {kind} in {all}")).clone();
    assert!(of_kind.next().is_none(), "{all}");
    found
}

/// Names and contents of all that is there.
fn kept(cluster: &Cluster) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = fs::read_dir(cluster.replica_dir(Side::Alpha).join("quarantine")).unwrap();
    let mut paths: Vec<_> = dir.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Whether an export is the volume as alpha had it.
fn are_equal(found: &[u8], wanted: &[u8]) {
    let chunks = found.chunks(4096).zip(wanted.chunks(4096)).enumerate();
    let differ: Vec<_> = chunks.filter(|(_, (one, other))| one != other).collect();
    let at: Vec<_> = differ.iter().map(|(at, (one, _))| (at * 4096, one[..8].to_vec())).collect();
    assert!(found.len() == wanted.len() && at.is_empty(), "{} at {:?}", at.len(), at.first());
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn used(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).unwrap().blocks() * 512
}

#[test]
fn what_the_losing_side_had_written_is_listed_and_comes_back_out_of_quarantine() {
    let (mut cluster, image) = rejoined("");
    let (frames, blocks) = (file_of(&cluster, "frames"), file_of(&cluster, "blocks"));
    for file in [&frames, &blocks] {
        assert_eq!((&file["state"], &file["problem"]), (&"whole".into(), &Value::Null), "{file}");
        assert!(file["count"].as_u64() > Some(0) && file["bytes"].as_u64() > Some(4096), "{file}");
    }
    let lost = frames["changed_bytes"].as_u64().unwrap();
    assert_eq!(lost, 8 * MIB, "{frames}");
    assert!(frames["first_written_us"].as_u64() > Some(0), "{frames}");
    let name = frames["name"].as_str().unwrap();
    let shown = answer(&cluster, Side::Alpha, &["quarantine", "show", "db", name, "--limit", "1"]);
    let range = json!([{ "volume": "data", "offset": 12 * MIB - lost, "length": lost }]);
    assert_eq!(shown["ranges"], range);
    assert_eq!(shown["frames"].as_array().unwrap().len(), 1, "{shown}");
    let more = shown["frames_more"].as_u64().unwrap();
    assert_eq!(more + 1, frames["count"].as_u64().unwrap());
    let words = cluster.tool(Side::Alpha, &["quarantine", "show", "db", name, "--limit", "1"]);
    assert!(words.unwrap().contains(&format!("and {more} more frames")), "{shown}");

    let before = kept(&cluster);
    let (name, dir) = (blocks["name"].as_str().unwrap(), tempfile::tempdir().unwrap());
    let out = dir.path().join("image");
    let export = ["quarantine", "export", "db", name, "--volume", "data", "--out", text(&out)];
    let output = cluster.command(Side::Alpha, &export).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("only where nothing else"), "{told}");
    are_equal(&fs::read(&out).unwrap(), &image);
    let refused = cluster.tool(Side::Alpha, &export).unwrap_err().to_string();
    assert!(refused.contains("not replaced"), "{refused}");

    // With the daemon away it is the same.
    cluster.terminate(Side::Alpha).unwrap();
    let only = dir.path().join("blocks");
    let frames = frames["name"].as_str().unwrap();
    let only_frames = ["quarantine", "export", "db", frames, "--blocks-only", "--out", text(&only)];
    cluster.tool(Side::Alpha, &only_frames).unwrap();
    let found = fs::read(&only).unwrap();
    let first = (12 * MIB - lost) as usize;
    assert!(found[..first].iter().all(|byte| *byte == 0) && found[first..] == image[first..]);
    assert!(used(&only) < 9 * MIB, "{} bytes are filled", used(&only));
    assert!(kept(&cluster) == before, "nothing there was changed");
}

#[test]
fn the_same_view_is_read_over_nbd_and_never_written() {
    let (cluster, image) = rejoined("resync = \"in_place\"\n");
    let blocks = file_of(&cluster, "blocks");
    let dir = tempfile::tempdir().unwrap();
    let (socket, copy) = (dir.path().join("nbd"), dir.path().join("copy"));
    let name = blocks["name"].as_str().unwrap();
    let export = ["quarantine", "export", "db", name, "--socket", text(&socket)];
    let served = Served::new(&cluster, Side::Alpha, &export);
    let uri = served.told["uri"].as_str().unwrap().to_owned();
    let info = run("nbdinfo", &["--json", &uri]);
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["exports"][0]["is_read_only"], true, "{info}");
    looks::copy(&uri, &copy);
    are_equal(&fs::read(&copy).unwrap(), &image);
    // A client that does not look at the flag is refused.
    nbdsh(
        &uri,
        "h.set_strict_mode(0)\ntry:\n h.pwrite(b'x' * 512, 0)\n assert False\n\
                 except nbd.Error as error:\n assert error.errno == 'EPERM', error",
    );
    served.stop();
    assert!(!socket.exists());
}

#[test]
fn what_is_damaged_or_does_not_belong_is_listed_with_what_is_wrong() {
    let (cluster, _) = rejoined("");
    let dir = cluster.replica_dir(Side::Alpha).join("quarantine");
    let blocks = file_of(&cluster, "blocks");
    let (blocks, frames) =
        (dir.join(blocks["name"].as_str().unwrap()), file_of(&cluster, "frames"));
    let whole = fs::read(&blocks).unwrap();
    fs::write(dir.join("cut.blocks"), &whole[..whole.len() - 40_000]).unwrap();
    let tail = fs::read(dir.join(frames["name"].as_str().unwrap())).unwrap();
    fs::write(dir.join("cut.frames"), &tail[..tail.len() / 2]).unwrap();
    let mut damaged = whole;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(dir.join("damaged.blocks"), damaged).unwrap();
    fs::write(dir.join("empty.frames"), "").unwrap();
    fs::write(dir.join("notes.txt"), "who wrote this?").unwrap();
    let all = answer(&cluster, Side::Alpha, &["quarantine", "list", "db"]);
    let state = |name: &str| {
        let file = all.as_array().unwrap().iter().find(|file| file["name"] == name);
        file.unwrap_or_else(|| panic!("no {name} in {all}"))["state"].clone()
    };
    assert_eq!(state("cut.blocks"), "cut_off");
    assert_eq!(state("cut.frames"), "cut_off");
    assert_eq!(state("damaged.blocks"), "damaged");
    assert_eq!(state("empty.frames"), "unusable");
    assert_eq!(state("notes.txt"), "unusable");
    let words = cluster.tool(Side::Alpha, &["quarantine", "list", "db"]).unwrap();
    for part in ["what is before can be used", "ends within its first page", "whole", "notes.txt"] {
        assert!(words.contains(part), "{part}: {words}");
    }
    let refused = cluster.tool(Side::Alpha, &["quarantine", "show", "db", "../superblock"]);
    assert!(refused.unwrap_err().to_string().contains("there is no"));
}

/// `--json` of a removal that must succeed.
fn remove(cluster: &Cluster, names: &[&str]) -> Value {
    let args = [&["quarantine", "remove", "db"], names, &["--yes"]].concat();
    answer(cluster, Side::Alpha, &args)
}

fn refuses(cluster: &Cluster, names: &[&str], why: &str) {
    let before = kept(cluster);
    let args = [&["quarantine", "remove", "db"], names, &["--yes"]].concat();
    let said = cluster.tool(Side::Alpha, &args).unwrap_err().to_string();
    assert!(said.contains(why), "{why}: {said}");
    assert!(kept(cluster) == before, "{why}: something was removed");
}

#[test]
fn what_nobody_asks_for_any_more_is_removed_and_its_room_is_told_before() {
    let (mut cluster, _) = rejoined("");
    let (frames, blocks) = (file_of(&cluster, "frames"), file_of(&cluster, "blocks"));
    let [frames, blocks] = [&frames, &blocks].map(|file| file["name"].as_str().unwrap());
    let room = answer(&cluster, Side::Alpha, &["status", "db"])[0]["quarantine"].clone();
    assert_eq!(room["files"], 2, "{room}");
    assert!(room["bytes"].as_u64() > Some(MIB), "{room}");
    let words = cluster.tool(Side::Alpha, &["status", "db"]).unwrap();
    assert!(words.contains("2 files of ") && words.contains("quarantine list db"), "{words}");
    let checked = cluster.tool(Side::Alpha, &["check"]).unwrap();
    assert!(checked.contains("db: in quarantine, 2 files of "), "{checked}");

    refuses(&cluster, &["../superblock"], "there is no");
    refuses(&cluster, &[frames, "never-there"], "there is no");
    let asked = cluster.command(Side::Alpha, &["quarantine", "remove", "db", frames]).output();
    let asked = asked.unwrap();
    assert_eq!(asked.status.code(), Some(5), "it asks");
    assert!(String::from_utf8_lossy(&asked.stderr).contains("nobody gets it back"));

    // What is exported stays, and so does what is laid over it.
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nbd");
    let export = ["quarantine", "export", "db", blocks, "--socket", text(&socket)];
    let served = Served::new(&cluster, Side::Alpha, &export);
    refuses(&cluster, &[blocks], "is being exported");
    refuses(&cluster, &[frames], "is being exported");
    served.stop();

    // What may still be written stays, until nobody can write.
    let folder = cluster.replica_dir(Side::Alpha).join("quarantine");
    let whole = fs::read(folder.join(blocks)).unwrap();
    fs::write(folder.join("cut.blocks"), &whole[..whole.len() / 2]).unwrap();
    refuses(&cluster, &[frames, "cut.blocks"], "hadriand may be writing it");
    let removed = remove(&cluster, &[frames, blocks]);
    assert_eq!(removed["removed"], json!([frames, blocks]));
    cluster.terminate(Side::Alpha).unwrap();
    let _ = remove(&cluster, &["cut.blocks"]);
    assert_eq!(kept(&cluster), []);
    cluster.start(Side::Alpha).unwrap();
    cluster.await_peer(Side::Beta).unwrap();
    assert_eq!(answer(&cluster, Side::Alpha, &["status", "db"])[0]["quarantine"], Value::Null);
}

#[test]
fn as_long_as_a_rejoin_has_not_ended_nothing_is_removed() {
    let (mut cluster, _) = rejoined("");
    let frames = file_of(&cluster, "frames")["name"].as_str().unwrap().to_owned();
    let path = |side| cluster.replica_dir(side).join("quarantine").join(&frames);
    let (here, there) = (path(Side::Alpha), path(Side::Beta));
    // As a crash in the middle of a resync in place leaves it: an image that is none.
    cluster.terminate(Side::Beta).unwrap();
    fs::remove_dir_all(cluster.replica_dir(Side::Beta)).unwrap();
    cluster.tool(Side::Beta, &["create", "db", "--copy"]).unwrap();
    fs::copy(here, &there).unwrap();
    let remove = ["quarantine", "remove", "db", &frames, "--yes"];
    let refused = cluster.tool(Side::Beta, &remove).unwrap_err().to_string();
    assert!(refused.contains("has not come to its end"), "{refused}");
    assert!(there.exists());
}

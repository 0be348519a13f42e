//! A copy that is carried by hand, with real daemons: exported while clients write, imported where
//! there was nothing, and brought up with what has changed since (design §8.1).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hadrian_protocol::node::Note;
use hadrian_protocol::replica::Mode;
use hadrian_protocol::resync::{Takes, Way};
use hadrian_tests::megabytes::{self, MIB};
use hadrian_tests::tools::programs;
use hadrian_tests::{Cluster, Side, Spec};

fn write(cluster: &Cluster, numbers: impl Iterator<Item = u64>, stamp: u64) {
    megabytes::write(cluster, Side::Alpha, numbers, stamp).unwrap();
}

fn notes(cluster: &Cluster, side: Side) -> Vec<Note> {
    cluster.told(side).unwrap().into_iter().map(|told| told.note).collect()
}

fn ways(cluster: &Cluster) -> Vec<Way> {
    let way = |note: Note| match note {
        Note::Resyncs { way, .. } => Some(way),
        _ => None,
    };
    notes(cluster, Side::Alpha).into_iter().filter_map(way).collect()
}

fn images_are_equal(cluster: &Cluster) {
    cluster.await_applied(Side::Alpha).unwrap();
    let differs = Command::new("cmp")
        .args([cluster.store_path(Side::Alpha), cluster.store_path(Side::Beta)])
        .output()
        .unwrap();
    assert!(differs.status.success(), "{}", String::from_utf8_lossy(&differs.stdout));
}

/// Both have what was written, and then there is no replica on beta any more.
fn alone(settings: &str) -> (Cluster, PathBuf) {
    let settings = settings.to_owned();
    let spec = Spec { volume_bytes: 512 << 20, settings, ..Spec::new(Mode::Nearsync) };
    let mut cluster = Cluster::new(&programs(), spec).unwrap();
    write(&cluster, 0..100, 0);
    cluster.await_applied(Side::Alpha).unwrap();
    empty(&mut cluster);
    let file = cluster.replica_dir(Side::Alpha).with_extension("seed");
    (cluster, file)
}

fn empty(cluster: &mut Cluster) {
    cluster.terminate(Side::Beta).unwrap();
    fs::remove_dir_all(cluster.replica_dir(Side::Beta)).unwrap();
    fs::remove_file(cluster.store_path(Side::Beta)).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn export(cluster: &Cluster, side: Side, file: &Path, more: &[&str]) -> String {
    let args = [&["seed", "export", "db", text(file)][..], more].concat();
    cluster.tool(side, &args).unwrap()
}

fn import(cluster: &mut Cluster, file: &Path) {
    let said = cluster.tool(Side::Beta, &["seed", "import", "db", text(file)]).unwrap();
    assert!(said.contains("replica made"), "{said}");
    cluster.start(Side::Beta).unwrap();
    cluster.await_peer(Side::Alpha).unwrap();
}

/// Bytes of content that alpha has sent in its last resync, by its log.
fn sent(cluster: &Cluster) -> u64 {
    let log = fs::read_to_string(cluster.log_path(Side::Alpha)).unwrap();
    let last = log.lines().rev().find_map(|line| line.split_once("sent_bytes=")).unwrap().1;
    let digits: String = last.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

#[test]
fn a_seed_that_was_exported_under_load_becomes_a_standby_that_only_lacks_the_log_behind_it() {
    let (mut cluster, file) = alone("");
    std::thread::scope(|scope| {
        scope.spawn(|| write(&cluster, (0..60).map(|n| n * 3), 500));
        let said = export(&cluster, Side::Alpha, &file, &[]);
        assert!(said.contains("the image as of"), "{said}");
    });
    let size = fs::metadata(&file).unwrap().len();
    assert!(size < 100 * MIB, "{size} bytes: each megabyte repeats eight bytes");
    write(&cluster, 10..20, 900);
    import(&mut cluster, &file);
    images_are_equal(&cluster);
    assert_eq!(ways(&cluster), [], "the log was enough");
    let again = cluster.tool(Side::Alpha, &["seed", "export", "db", text(&file)]).unwrap_err();
    assert!(again.to_string().contains("it exists and is not replaced"), "{again}");
}

#[test]
fn behind_the_log_only_what_was_noted_for_the_member_is_sent() {
    let (mut cluster, file) = alone("log_retention = \"16MiB\"\n");
    export(&cluster, Side::Alpha, &file, &["--for", "beta"]);
    // The log is overrun several times by what is written to a small part of the volume.
    (0..6).for_each(|round| write(&cluster, 40..80, round * 1000));
    import(&mut cluster, &file);
    images_are_equal(&cluster);
    assert_eq!(ways(&cluster), [Way::Map]);
    let sent = sent(&cluster);
    assert!(sent <= 41 * MIB, "{sent} bytes for 40 MiB that have changed");
    let staged = notes(&cluster, Side::Beta)
        .into_iter()
        .any(|note| matches!(note, Note::AsksForResync { takes: Takes::Staged, .. }));
    assert!(staged, "the seed stays a point in time until everything is there");
}

#[test]
fn where_nothing_was_noted_everything_is_compared_and_only_what_differs_is_sent() {
    let (mut cluster, file) = alone("log_retention = \"16MiB\"\n");
    export(&cluster, Side::Alpha, &file, &[]);
    (0..6).for_each(|round| write(&cluster, 40..80, round * 1000));
    import(&mut cluster, &file);
    images_are_equal(&cluster);
    let sent = sent(&cluster);
    assert!(sent <= 41 * MIB, "{sent} bytes for 40 MiB that have changed");
}

#[test]
fn a_standby_and_a_stopped_member_export_as_well() {
    let spec = Spec { volume_bytes: 256 << 20, ..Spec::new(Mode::Nearsync) };
    let mut cluster = Cluster::new(&programs(), spec).unwrap();
    write(&cluster, 0..40, 0);
    cluster.await_applied(Side::Alpha).unwrap();
    let [live, stopped] =
        ["live", "stopped"].map(|name| cluster.replica_dir(Side::Beta).with_extension(name));
    export(&cluster, Side::Beta, &live, &[]);
    let refused = ["seed", "export", "db", "/nowhere/seed", "--for", "alpha"];
    let refused = cluster.tool(Side::Beta, &refused).unwrap_err().to_string();
    assert!(refused.contains("only the primary can do this"), "{refused}");
    cluster.terminate(Side::Beta).unwrap();
    export(&cluster, Side::Beta, &stopped, &[]);
    write(&cluster, 20..30, 700);
    empty(&mut cluster);
    import(&mut cluster, &live);
    images_are_equal(&cluster);
    assert_eq!(ways(&cluster), [], "the log was enough");
    empty(&mut cluster);
    import(&mut cluster, &stopped);
    images_are_equal(&cluster);
    // beta has had everything meanwhile, so its primary may have given up the log before that.
    if !ways(&cluster).is_empty() {
        let sent = sent(&cluster);
        assert!(sent <= 11 * MIB, "{sent} bytes for 10 MiB that have changed");
    }
}

#[test]
fn of_a_seed_that_is_not_whole_nothing_is_made() {
    let (cluster, file) = alone("");
    export(&cluster, Side::Alpha, &file, &[]);
    let whole = fs::read(&file).unwrap();
    let (dir, store) = (cluster.replica_dir(Side::Beta), cluster.store_path(Side::Beta));
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    let other = vec![7; 100_000];
    let cases = [
        (&whole[..whole.len() - 1], "is not whole"),
        (&damaged, "is damaged at byte"),
        (&other, "this is no seed"),
        (&[], "this is no seed"),
    ];
    for (bytes, reason) in cases {
        fs::write(&file, bytes).unwrap();
        let said = cluster.tool(Side::Beta, &["seed", "import", "db", text(&file)]);
        let said = said.unwrap_err().to_string();
        assert!(said.contains(reason), "{reason}: {said}");
        assert!(!dir.exists() && !store.exists(), "{reason}: something was made");
    }
    fs::write(&file, &whole).unwrap();
    // Where something is it stays.
    fs::write(&store, vec![1; 512 << 20]).unwrap();
    let said = cluster.tool(Side::Beta, &["seed", "import", "db", text(&file)]);
    assert!(said.unwrap_err().to_string().contains("holds data"));
    assert!(fs::read(&store).unwrap().iter().all(|byte| *byte == 1));
}

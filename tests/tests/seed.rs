//! A copy that is carried by hand, with real daemons: exported while clients write, imported where
//! there was nothing, and brought up with what has changed since (design §8.1).

use std::fs;
use std::path::{Path, PathBuf};

use hadrian_protocol::node::Note;
use hadrian_protocol::replica::Mode;
use hadrian_protocol::resync::{Takes, Way};
use hadrian_tests::looks::{images_are_equal, notes, ways};
use hadrian_tests::megabytes::{self, MIB};
use hadrian_tests::tools::programs;
use hadrian_tests::{Cluster, Side, Spec};

fn write(cluster: &Cluster, numbers: impl Iterator<Item = u64>, stamp: u64) {
    megabytes::write(cluster, Side::Alpha, numbers, stamp).unwrap();
}

/// The log of most stories is overrun by what they write; in one of this length all of it stays.
const SHORT_LOG: u64 = 64 << 20;
const LONG_LOG: u64 = 512 << 20;

/// Both have what was written, and then there is no replica on beta any more.
fn alone(settings: &str, log_bytes: u64) -> (Cluster, PathBuf) {
    let settings = settings.to_owned();
    let spec = Spec { volume_bytes: 512 << 20, log_bytes, settings, ..Spec::new(Mode::Nearsync) };
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
    let (mut cluster, file) = alone("", LONG_LOG);
    std::thread::scope(|scope| {
        scope.spawn(|| write(&cluster, (0..60).map(|n| n * 3), 500));
        let said = export(&cluster, Side::Alpha, &file, &[]);
        assert!(said.contains("the image as of"), "{said}");
    });
    let size = fs::metadata(&file).unwrap().len();
    assert!(size < 100 * MIB, "{size} bytes: each megabyte repeats eight bytes");
    write(&cluster, 10..20, 900);
    import(&mut cluster, &file);
    images_are_equal(&cluster, Side::Alpha);
    assert_eq!(ways(&cluster, Side::Alpha), [], "the log was enough");
    let again = cluster.tool(Side::Alpha, &["seed", "export", "db", text(&file)]).unwrap_err();
    assert!(again.to_string().contains("it exists and is not replaced"), "{again}");
}

#[test]
fn behind_the_log_only_what_was_noted_for_the_member_is_sent() {
    let (mut cluster, file) = alone("log_retention = \"16MiB\"\n", SHORT_LOG);
    export(&cluster, Side::Alpha, &file, &["--for", "beta"]);
    // The log is overrun several times by what is written to a small part of the volume.
    (0..6).for_each(|round| write(&cluster, 40..80, round * 1000));
    import(&mut cluster, &file);
    images_are_equal(&cluster, Side::Alpha);
    assert_eq!(ways(&cluster, Side::Alpha), [Way::Map]);
    let sent = sent(&cluster);
    assert!(sent <= 41 * MIB, "{sent} bytes for 40 MiB that have changed");
    let staged = notes(&cluster, Side::Beta)
        .into_iter()
        .any(|note| matches!(note, Note::AsksForResync { takes: Takes::Staged, .. }));
    assert!(staged, "the seed stays a point in time until everything is there");
}

#[test]
fn where_nothing_was_noted_everything_is_compared_and_only_what_differs_is_sent() {
    let (mut cluster, file) = alone("log_retention = \"16MiB\"\n", SHORT_LOG);
    export(&cluster, Side::Alpha, &file, &[]);
    (0..6).for_each(|round| write(&cluster, 40..80, round * 1000));
    import(&mut cluster, &file);
    images_are_equal(&cluster, Side::Alpha);
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
    // What was refused stands in nobody's way.
    let third = live.with_extension("third");
    export(&cluster, Side::Beta, &third, &[]);
    cluster.terminate(Side::Beta).unwrap();
    export(&cluster, Side::Beta, &stopped, &[]);
    write(&cluster, 20..30, 700);
    empty(&mut cluster);
    import(&mut cluster, &live);
    images_are_equal(&cluster, Side::Alpha);
    assert_eq!(ways(&cluster, Side::Alpha), [], "the log was enough");
    empty(&mut cluster);
    import(&mut cluster, &stopped);
    images_are_equal(&cluster, Side::Alpha);
    // beta has had everything meanwhile, so its primary may have given up the log before that.
    if !ways(&cluster, Side::Alpha).is_empty() {
        let sent = sent(&cluster);
        assert!(sent <= 11 * MIB, "{sent} bytes for 10 MiB that have changed");
    }
}

#[test]
fn of_a_seed_that_is_not_whole_nothing_is_made() {
    let (cluster, file) = alone("", SHORT_LOG);
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

#[test]
fn an_import_that_was_interrupted_is_begun_again_by_itself_and_one_that_ended_is_not() {
    let (mut cluster, file) = alone("", LONG_LOG);
    export(&cluster, Side::Alpha, &file, &[]);
    let (dir, store) = (cluster.replica_dir(Side::Beta), cluster.store_path(Side::Beta));
    let mut child =
        cluster.command(Side::Beta, &["seed", "import", "db", text(&file)]).spawn().unwrap();
    // Its superblock is there before anything is written into the store.
    let superblock = dir.join("superblock");
    while !superblock.exists() {
        assert!(child.try_wait().unwrap().is_none(), "it has ended before anybody looked");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What a longer import would have left: bytes that the seed does not name, too.
    let half = fs::File::options().write(true).open(&store).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&half, &[7; 4096], 300 << 20).unwrap();
    let said = cluster.tool(Side::Beta, &["seed", "import", "db", text(&file)]).unwrap();
    assert!(said.contains("was begun and never used; it is begun again"), "{said}");
    assert!(said.contains("replica made"), "{said}");
    let again = cluster.tool(Side::Beta, &["seed", "import", "db", text(&file)]).unwrap_err();
    assert!(again.to_string().contains("holds a replica of db already"), "{again}");
    cluster.start(Side::Beta).unwrap();
    cluster.await_peer(Side::Alpha).unwrap();
    images_are_equal(&cluster, Side::Alpha);
    assert_eq!(ways(&cluster, Side::Alpha), [], "the log was enough");
}

#[test]
fn a_daemon_makes_a_standby_of_an_import_that_was_interrupted() {
    let (mut cluster, file) = alone("", SHORT_LOG);
    export(&cluster, Side::Alpha, &file, &[]);
    let mut child =
        cluster.command(Side::Beta, &["seed", "import", "db", text(&file)]).spawn().unwrap();
    let superblock = cluster.replica_dir(Side::Beta).join("superblock");
    while !superblock.exists() {
        assert!(child.try_wait().unwrap().is_none(), "it has ended before anybody looked");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    cluster.start(Side::Beta).unwrap();
    cluster.await_peer(Side::Alpha).unwrap();
    images_are_equal(&cluster, Side::Alpha);
    assert_eq!(ways(&cluster, Side::Alpha), [Way::Digests]);
}

//! Standbys that the log alone cannot bring up, with real daemons: seeded, away for long, diverged
//! (design §6.4, §8).

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use hadrian_protocol::node::Note;
use hadrian_protocol::replica::Mode;
use hadrian_protocol::resync::{Takes, Way};
use hadrian_tests::looks::{images_are_equal, notes, ways};
use hadrian_tests::megabytes::{self, MIB};
use hadrian_tests::tools::programs;
use hadrian_tests::{Cluster, Side, Spec};
use rustix::process::Signal;

fn write(cluster: &Cluster, side: Side, numbers: impl Iterator<Item = u64>, stamp: u64) {
    megabytes::write(cluster, side, numbers, stamp).unwrap();
}

#[test]
fn a_new_standby_is_seeded_with_what_is_filled_of_a_large_volume() {
    let spec = Spec { volume_bytes: 8 << 30, ..Spec::new(Mode::Nearsync) };
    let mut cluster = Cluster::new(&programs(), spec).unwrap();
    // A twentieth of it, all over the volume, and more than the log holds.
    write(&cluster, Side::Alpha, (0..410).map(|n| n * 19), 0);
    cluster.make_anew(Side::Beta, &[]).unwrap();
    cluster.start(Side::Beta).unwrap();
    cluster.await_peer(Side::Alpha).unwrap();
    images_are_equal(&cluster, Side::Alpha);
    let takes = notes(&cluster, Side::Beta).into_iter().find_map(|note| match note {
        Note::AsksForResync { takes, .. } => Some(takes),
        _ => None,
    });
    assert_eq!(takes, Some(Takes::InPlace), "there was nothing that could be lost");
    let used = |side| {
        use std::os::unix::fs::MetadataExt as _;
        fs::metadata(cluster.store_path(side)).unwrap().blocks() * 512
    };
    let (there, here) = (used(Side::Alpha), used(Side::Beta));
    assert!(here <= there + there / 10, "{here} bytes are filled by {there}");
}

#[test]
fn a_standby_that_was_away_for_longer_than_the_log_gets_what_its_map_says() {
    let settings = "log_retention = \"16MiB\"\n".to_string();
    let spec = Spec { volume_bytes: 512 << 20, settings, ..Spec::new(Mode::Nearsync) };
    let mut cluster = Cluster::new(&programs(), spec).unwrap();
    write(&cluster, Side::Alpha, 0..256, 0);
    cluster.await_applied(Side::Alpha).unwrap();
    cluster.kill(Side::Beta).unwrap();
    // The log is overrun several times by what is written to a small part of the volume.
    (0..6).for_each(|round| write(&cluster, Side::Alpha, 100..140, round * 1000));
    cluster.start(Side::Beta).unwrap();
    cluster.await_peer(Side::Alpha).unwrap();
    images_are_equal(&cluster, Side::Alpha);
    assert_eq!(ways(&cluster, Side::Alpha), [Way::Map]);
}

#[test]
fn a_diverged_replica_comes_back_and_what_was_its_own_is_in_quarantine() {
    let mut cluster = Cluster::new(&programs(), Spec::new(Mode::Superasync)).unwrap();
    write(&cluster, Side::Alpha, 0..8, 0);
    cluster.await_applied(Side::Alpha).unwrap();
    cluster.signal(Side::Beta, Signal::STOP).unwrap();
    write(&cluster, Side::Alpha, 4..12, 1000);
    cluster.kill(Side::Alpha).unwrap();
    cluster.signal(Side::Beta, Signal::CONT).unwrap();
    cluster.tool(Side::Beta, &["takeover", "db", "--force", "--yes"]).unwrap();
    write(&cluster, Side::Beta, 8..16, 2000);
    cluster.start(Side::Alpha).unwrap();
    cluster.await_status(Side::Alpha, "diverged").unwrap();

    let lost = cluster.tool(Side::Alpha, &["rejoin", "db", "--dry-run"]).unwrap();
    assert!(lost.contains("MiB"), "{lost}");
    cluster.tool(Side::Alpha, &["rejoin", "db", "--yes"]).unwrap();
    cluster.await_peer(Side::Beta).unwrap();
    images_are_equal(&cluster, Side::Beta);
    let kept = fs::read_dir(cluster.replica_dir(Side::Alpha).join("quarantine")).unwrap();
    let names: Vec<_> = kept.map(|entry| entry.unwrap().file_name()).collect();
    let has = |end: &str| names.iter().any(|name| name.to_string_lossy().ends_with(end));
    assert!(has(".frames") && has(".blocks"), "{names:?}");
}

#[test]
fn a_disk_with_a_file_system_is_put_under_replication_where_it_is() {
    let spec = Spec { volume_bytes: 256 << 20, ..Spec::new(Mode::Nearsync) };
    let mut cluster = Cluster::new(&programs(), spec).unwrap();
    for side in [Side::Beta, Side::Alpha] {
        cluster.make_anew(side, &[]).unwrap();
    }
    let disk = cluster.store_path(Side::Alpha);
    let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk).status().unwrap();
    assert!(made.success());
    let before = cluster.store(Side::Alpha).unwrap();
    fs::remove_dir_all(cluster.replica_dir(Side::Alpha)).unwrap();
    cluster.tool(Side::Alpha, &["create", "db", "--adopt"]).unwrap();
    cluster.start(Side::Alpha).unwrap();
    cluster.start(Side::Beta).unwrap();
    cluster.await_peer(Side::Alpha).unwrap();
    images_are_equal(&cluster, Side::Alpha);
    assert!(cluster.store(Side::Beta).unwrap() == before);
}

#[test]
fn of_a_copy_that_was_carried_by_hand_only_the_differences_are_sent() {
    let spec = Spec { volume_bytes: 512 << 20, ..Spec::new(Mode::Nearsync) };
    let mut cluster = Cluster::new(&programs(), spec).unwrap();
    write(&cluster, Side::Alpha, 0..200, 0);
    cluster.await_applied(Side::Alpha).unwrap();
    cluster.make_anew(Side::Beta, &[]).unwrap();
    fs::remove_dir_all(cluster.replica_dir(Side::Beta)).unwrap();
    fs::copy(cluster.store_path(Side::Alpha), cluster.store_path(Side::Beta)).unwrap();
    write(&cluster, Side::Alpha, 50..52, 1000);
    cluster.tool(Side::Beta, &["create", "db", "--copy"]).unwrap();
    cluster.start(Side::Beta).unwrap();
    cluster.await_peer(Side::Alpha).unwrap();
    images_are_equal(&cluster, Side::Alpha);
}

#[test]
fn a_flipped_byte_of_a_standby_is_found_while_clients_write() {
    let spec = Spec { volume_bytes: 256 << 20, ..Spec::new(Mode::Nearsync) };
    let cluster = Cluster::new(&programs(), spec).unwrap();
    write(&cluster, Side::Alpha, 0..64, 0);
    cluster.await_applied(Side::Alpha).unwrap();
    let found = cluster.tool(Side::Alpha, &["verify", "db"]).unwrap();
    assert!(found.contains("no difference"), "{found}");

    let at = 37 * MIB + 12_345;
    let disk = fs::File::options().read(true).write(true).open(cluster.store_path(Side::Beta));
    let (disk, mut byte) = (disk.unwrap(), [0]);
    disk.read_exact_at(&mut byte, at).unwrap();
    disk.write_all_at(&[byte[0] ^ 1], at).unwrap();
    disk.sync_all().unwrap();
    std::thread::scope(|scope| {
        // Elsewhere on the volume, all the while.
        scope.spawn(|| write(&cluster, Side::Alpha, 128..192, 500));
        let verify = cluster.command(Side::Alpha, &["verify", "db"]).output().unwrap();
        let text = String::from_utf8_lossy(&verify.stdout).into_owned();
        assert!(!verify.status.success(), "{text}");
        let leaf = at / (16 << 10) * (16 << 10);
        assert!(text.contains(&format!("volume 0: 16384 bytes at offset {leaf}")), "{text}");
    });
}

#[test]
fn a_detached_member_keeps_a_plain_disk_with_everything_on_it() {
    let mut cluster = Cluster::new(&programs(), Spec::new(Mode::Nearsync)).unwrap();
    write(&cluster, Side::Alpha, 0..8, 0);
    images_are_equal(&cluster, Side::Alpha);
    cluster.terminate(Side::Alpha).unwrap();
    cluster.terminate(Side::Beta).unwrap();
    let said = cluster.tool(Side::Beta, &["detach", "db", "--yes"]).unwrap();
    assert!(said.contains("is detached"), "{said}");
    assert!(!cluster.replica_dir(Side::Beta).exists());
    assert!(cluster.replica_dir(Side::Beta).with_extension("detached").exists());
    assert!(cluster.store(Side::Beta).unwrap() == cluster.store(Side::Alpha).unwrap());
    let again = cluster.tool(Side::Beta, &["detach", "db", "--yes"]).unwrap_err().to_string();
    assert!(again.contains("state/db"), "{again}");
}

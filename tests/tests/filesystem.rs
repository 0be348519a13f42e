//! ext4 on the mirrored volume: what was synced is there after the primary is gone.
#![allow(clippy::print_stderr)] // A machine that cannot mount says so.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use hadrian_protocol::replica::Mode;
use hadrian_tests::mounted::{Attached, missing};
use hadrian_tests::tools::programs;
use hadrian_tests::{Cluster, Side, Spec};

/// Writes files and syncs each; stops where the file system fails. The synced ones, with content.
fn write_synced_files(folder: &Path, from: u32, count: u32) -> BTreeMap<String, Vec<u8>> {
    let mut synced = BTreeMap::new();
    for number in from..from + count {
        let name = format!("file-{number}");
        let content = number.to_le_bytes().repeat(1 + number as usize * 37 % 5000);
        let written = File::create(folder.join(&name))
            .and_then(|mut file| file.write_all(&content).and_then(|()| file.sync_all()))
            .and_then(|()| File::open(folder)?.sync_all());
        if written.is_err() {
            break;
        }
        synced.insert(name, content);
    }
    synced
}

#[test]
fn synced_files_are_there_after_the_primary_was_killed_under_a_mounted_ext4() {
    if let Some(reason) = missing() {
        eprintln!("not run: {reason}");
        return;
    }
    let mut cluster = Cluster::new(&programs(), Spec::new(Mode::Nearsync)).unwrap();
    let mut old = Attached::new(&cluster.uri(Side::Alpha)).unwrap();
    old.format().unwrap();
    old.mount().unwrap();
    let mut synced = write_synced_files(&old.folder(), 0, 40);
    assert_eq!(synced.len(), 40, "nothing disturbs the first files");
    // The primary dies somewhere between the next ones.
    let (folder, writer) = (old.folder(), std::thread::spawn);
    let writer = writer(move || write_synced_files(&folder, 40, 10_000));
    while !old.folder().join("file-60").exists() {
        std::thread::yield_now();
    }
    cluster.kill(Side::Alpha).unwrap();
    synced.append(&mut writer.join().unwrap());
    assert!(synced.len() >= 60, "{} files", synced.len());
    drop(old);

    cluster.tool(Side::Beta, &["takeover", "db", "--force", "--yes"]).unwrap();
    drop(cluster.client(Side::Beta).unwrap());
    let mut new = Attached::new(&cluster.uri(Side::Beta)).unwrap();
    // The first mount replays ext4's own journal.
    new.mount().unwrap();
    for (name, content) in &synced {
        let found = fs::read(new.folder().join(name)).unwrap();
        assert!(found == *content, "{name} is not what was synced");
    }
    new.unmount().unwrap();
    new.check().unwrap();
}

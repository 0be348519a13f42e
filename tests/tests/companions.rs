//! Files of the hosts that go where a resource goes, between daemons that each see an `etc` of
//! their own.
#![allow(clippy::print_stderr)] // A machine that cannot have them says so.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use hadrian_protocol::replica::Mode;
use hadrian_replicator::demo::Place;
use hadrian_tests::tools::programs;
use hadrian_tests::{Cluster, Side, Spec, namespaces};
use serde_json::Value;
use tempfile::TempDir;

/// Two hosts, as far as the folder of the companion files goes.
struct Hosts {
    cluster: Cluster,
    folder: TempDir,
}

impl Hosts {
    /// With the files `key` and `hosts`; none is there yet. None: this machine cannot have them.
    fn new() -> Option<Self> {
        if let Some(reason) = namespaces::missing() {
            eprintln!("skipped: {reason}");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |rest: &str| folder.path().join(rest);
        let common = path("etc");
        fs::create_dir(&common).unwrap();
        let place = |side: Side| {
            let own = path(&format!("etc-of-{}", side.name()));
            fs::create_dir(&own).unwrap();
            // A daemon of one host sees the folder of that host in the place of the common one.
            let mount = "mount --bind \"$0\" \"$1\" && shift && exec \"$@\"";
            let words = ["unshare", "--mount", "sh", "-c", mount];
            let mut enter = words.map(String::from).to_vec();
            enter.extend([own.display().to_string(), common.display().to_string()]);
            Place { address: "127.0.0.1".into(), enter }
        };
        let places = Some([Side::Alpha, Side::Beta].map(place));
        let files = ["key", "hosts"].map(|name| common.join(name));
        let settings = format!("companions = {files:?}\n");
        let spec = Spec { settings, places, ..Spec::new(Mode::Nearsync) };
        let cluster = Cluster::new(&programs(), spec).unwrap();
        Some(Self { cluster, folder })
    }

    fn path(&self, side: Side, name: &str) -> PathBuf {
        self.folder.path().join(format!("etc-of-{}", side.name())).join(name)
    }

    /// In one step, as every program should that replaces a file which others read.
    fn write(&self, side: Side, name: &str, content: &str) {
        let part = self.path(side, "part");
        fs::write(&part, content).unwrap();
        fs::set_permissions(&part, fs::Permissions::from_mode(0o400)).unwrap();
        fs::rename(part, self.path(side, name)).unwrap();
    }

    fn text(&self, side: Side, name: &str) -> Option<String> {
        fs::read_to_string(self.path(side, name)).ok()
    }

    /// The primary has written so many sets.
    fn await_set(&self, side: Side, number: u64) {
        self.cluster.await_status(side, &format!("2 files, set {number}")).unwrap();
    }

    fn take_over(&self, side: Side) {
        self.cluster.tool(side, &["takeover", "db"]).unwrap();
    }

    fn companions(&self, side: Side) -> Value {
        let text = self.cluster.tool(side, &["status", "--json"]).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()[0]["companions"].clone()
    }
}

#[test]
fn a_key_goes_with_the_role_and_a_newer_one_comes_back() {
    let Some(hosts) = Hosts::new() else { return };
    hosts.await_set(Side::Alpha, 1);
    hosts.write(Side::Alpha, "key", "first");
    hosts.await_set(Side::Alpha, 2);
    assert_eq!(hosts.text(Side::Beta, "key"), None, "a standby's host stays as it is");
    hosts.take_over(Side::Beta);
    assert_eq!(hosts.text(Side::Beta, "key").as_deref(), Some("first"));
    let placed = fs::metadata(hosts.path(Side::Beta, "key")).unwrap();
    assert_eq!(placed.permissions().mode() & 0o7777, 0o400);
    hosts.write(Side::Beta, "key", "second");
    hosts.await_set(Side::Beta, 3);
    hosts.write(Side::Beta, "hosts", "10.0.0.1 db");
    hosts.await_set(Side::Beta, 4);
    hosts.take_over(Side::Alpha);
    assert_eq!(hosts.text(Side::Alpha, "key").as_deref(), Some("second"));
    assert_eq!(hosts.text(Side::Alpha, "hosts").as_deref(), Some("10.0.0.1 db"));
    assert_eq!(hosts.companions(Side::Alpha)["kept"], Value::Array(vec![]));
}

#[test]
fn after_the_loss_of_the_primary_the_files_are_there_and_nothing_that_differs_is_lost() {
    let Some(mut hosts) = Hosts::new() else { return };
    hosts.await_set(Side::Alpha, 1);
    hosts.write(Side::Alpha, "key", "of alpha");
    hosts.await_set(Side::Alpha, 2);
    hosts.write(Side::Beta, "key", "of beta");
    hosts.cluster.kill(Side::Alpha).unwrap();
    hosts.cluster.tool(Side::Beta, &["takeover", "db", "--force", "--yes"]).unwrap();
    assert_eq!(hosts.text(Side::Beta, "key").as_deref(), Some("of alpha"));
    let kept = hosts.companions(Side::Beta)["kept"][0]["copy"].as_str().unwrap().to_owned();
    assert_eq!(fs::read_to_string(kept).unwrap(), "of beta");
    let told = hosts.cluster.tool(Side::Beta, &["status"]).unwrap();
    assert!(told.contains("what this host had in"), "{told}");
}

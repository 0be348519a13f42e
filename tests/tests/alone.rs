//! What members do by themselves, and what operators' programs hear of it: takeovers with a fence
//! command, programs for events, resources that return to their homes.
#![allow(clippy::print_stdout)] // Where something is missing, the reason is told.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hadrian_protocol::replica::Mode;
use hadrian_replicator::demo::{Cluster, MARKER_BYTES, Side, Spec};
use hadrian_tests::fencing::TIMING;
use hadrian_tests::tools::{Room, programs, room};

const PATIENCE: Duration = Duration::from_secs(60);

/// A pair on this host with one marker, and a folder for programs.
struct Pair {
    cluster: Cluster,
    dir: tempfile::TempDir,
    _room: Room,
}

/// A spec with a marker that both members reach.
fn pair(change: impl FnOnce(&tempfile::TempDir, Spec) -> Spec) -> Pair {
    let (programs, _room) = (programs(), room());
    // Beside the build, where files can be read past the page cache.
    let dir = tempfile::tempdir_in(&programs).unwrap();
    let marker = dir.path().join("marker");
    fs::File::create(&marker).unwrap().set_len(MARKER_BYTES).unwrap();
    let timers = Some((Duration::from_secs(1), Duration::from_secs(1)));
    let markers = vec![marker];
    let spec = Spec { markers, lease: TIMING, timers, ..Spec::new(Mode::Nearsync) };
    let spec = change(&dir, spec);
    Pair { cluster: Cluster::new(&programs, spec).unwrap(), dir, _room }
}

/// A program that writes down what it finds in its environment.
fn program(dir: &tempfile::TempDir, name: &str, words: &str, code: i32) -> PathBuf {
    let (path, told) = (dir.path().join(name), dir.path().join(format!("{name}.told")));
    let text = format!("#!/bin/sh\necho \"{words}\" >> {}\nexit {code}\n", told.display());
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

impl Pair {
    fn told(&self, name: &str) -> Vec<String> {
        let told = fs::read_to_string(self.dir.path().join(format!("{name}.told")));
        told.unwrap_or_default().lines().map(String::from).collect()
    }

    fn await_told(&self, name: &str, line: &str) {
        let began = Instant::now();
        while !self.told(name).iter().any(|told| told == line) {
            assert!(began.elapsed() < PATIENCE, "never {line:?}: {:?}", self.told(name));
            std::thread::yield_now();
        }
    }

    fn write(&self, side: Side, byte: u8) {
        self.cluster.client(side).unwrap().write(0, &[byte; 4096]).unwrap();
    }
}

/// A pair whose fence command ends with `code`.
fn with_fence(code: i32, auto_takeover: bool) -> Pair {
    pair(|dir, spec| {
        let words = "$HADRIAN_RESOURCE $HADRIAN_MEMBER fences $HADRIAN_VICTIM";
        let command = program(dir, "fence", words, code);
        let fencing = format!(", fence = {{ command = \"{}\" }}", command.display());
        let settings = format!("auto_takeover = {auto_takeover}\n");
        Spec { fencing, settings, ..spec }
    })
}

#[test]
fn an_operator_has_the_owner_fenced_and_does_not_wait_for_its_lease() {
    let mut pair = with_fence(0, false);
    pair.write(Side::Alpha, 1);
    pair.cluster.kill(Side::Alpha).unwrap();
    let force = ["takeover", "db", "--force", "--yes"];
    let refused = pair.cluster.tool(Side::Beta, &force).unwrap_err().to_string();
    assert!(refused.contains("its lease on the marks is not over"), "{refused}");
    pair.cluster.tool(Side::Beta, &[&force[..], &["--fence"]].concat()).unwrap();
    assert_eq!(pair.told("fence"), ["db beta fences alpha"]);
    assert_eq!(pair.cluster.client(Side::Beta).unwrap().read(0, 4096).unwrap(), vec![1; 4096]);
}

#[test]
fn an_owner_that_cannot_be_fenced_is_waited_out() {
    let mut pair = with_fence(1, true);
    pair.write(Side::Alpha, 2);
    pair.cluster.kill(Side::Alpha).unwrap();
    let fence = ["takeover", "db", "--force", "--yes", "--fence"];
    let refused = pair.cluster.tool(Side::Beta, &fence).unwrap_err().to_string();
    assert!(refused.contains("alpha is not fenced for certain"), "{refused}");
    pair.await_told("fence", "db beta fences alpha");
    assert_eq!(pair.cluster.client(Side::Beta).unwrap().read(0, 4096).unwrap(), vec![2; 4096]);
}

#[test]
fn a_program_hears_of_a_takeover_before_it_begins_and_when_it_is_done() {
    let mut pair = pair(|dir, spec| {
        let words = "$HADRIAN_MEMBER $HADRIAN_WHEN $HADRIAN_EVENT $HADRIAN_ROLE";
        let command = program(dir, "event", words, 0);
        let settings = format!("auto_takeover = true\non_event = \"{}\"\n", command.display());
        Spec { settings, ..spec }
    });
    pair.write(Side::Alpha, 3);
    pair.await_told("event", "alpha after leads primary");
    pair.cluster.kill(Side::Alpha).unwrap();
    pair.await_told("event", "beta after leads primary");
    let told = pair.told("event");
    let place = |line: &str| told.iter().position(|told| told == line);
    let before = place("beta before takes_over_alone standby");
    assert!(before.is_some() && before < place("beta after leads primary"), "{told:?}");
}

#[test]
fn a_program_that_does_not_end_holds_no_takeover_up_for_longer_than_its_limit() {
    let mut pair = pair(|dir, spec| {
        let command = program(dir, "event", "", 0);
        fs::write(&command, "#!/bin/sh\nexec sleep 600\n").unwrap();
        let command = command.display();
        let settings =
            format!("auto_takeover = true\non_event = \"{command}\"\non_event_timeout = \"2s\"\n");
        Spec { settings, ..spec }
    });
    pair.write(Side::Alpha, 4);
    pair.cluster.kill(Side::Alpha).unwrap();
    let began = Instant::now();
    assert_eq!(pair.cluster.client(Side::Beta).unwrap().read(0, 4096).unwrap(), vec![4; 4096]);
    println!("served after {:?}", began.elapsed());
}

#[test]
fn two_resources_with_two_homes_help_each_other_out_and_return() {
    let mut pair = pair(|_, spec| {
        let settings =
            "auto_takeover = true\nfailback = \"home\"\nfailback_after = \"2s\"\n".into();
        let each = vec![String::new(), "home = \"beta\"\n".into()];
        Spec { resource_count: 2, settings, each, ..spec }
    });
    let homes = [(Side::Alpha, 0), (Side::Beta, 1)];
    // Both begin where the first member is; the second goes home at once.
    for (side, index) in homes {
        let mut client = pair.cluster.client_of(side, index).unwrap();
        client.write(0, &[5; 4096]).unwrap();
    }
    pair.cluster.kill(Side::Alpha).unwrap();
    for index in 0..2 {
        let mut client = pair.cluster.client_of(Side::Beta, index).unwrap();
        assert_eq!(client.read(0, 4096).unwrap(), vec![5; 4096]);
        client.write(4096, &[6; 4096]).unwrap();
    }
    pair.cluster.start(Side::Alpha).unwrap();
    for (side, index) in homes {
        let mut client = pair.cluster.client_of(side, index).unwrap();
        assert_eq!(client.read(4096, 4096).unwrap(), vec![6; 4096]);
    }
    let events = pair.cluster.tool(Side::Alpha, &["events", "db"]).unwrap();
    assert!(events.contains("the resource's home"), "{events}");
}

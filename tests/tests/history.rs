//! The image as it was, with real daemons and clients: looked at, copied to be written to, and a
//! takeover rehearsed on it, while replication goes on (design §8.5).

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use hadrian_protocol::replica::Mode;
use hadrian_tests::looks::{self, Served, answer};
use hadrian_tests::megabytes::{self, MIB, content};
use hadrian_tests::tools::{nbdsh, programs};
use hadrian_tests::{Cluster, Side, Spec};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

fn write(cluster: &Cluster, numbers: impl Iterator<Item = u64>, stamp: u64) {
    megabytes::write(cluster, Side::Alpha, numbers, stamp).unwrap();
    cluster.await_applied(Side::Alpha).unwrap();
}

fn pair(settings: &str) -> Cluster {
    let spec = Spec { settings: settings.into(), ..Spec::new(Mode::Nearsync) };
    Cluster::new(&programs(), spec).unwrap()
}

fn history(cluster: &Cluster, side: Side) -> Value {
    answer(cluster, side, &["history", "db"])[0].clone()
}

/// The newest point of a member's image, as somebody would type it.
fn newest(cluster: &Cluster, side: Side) -> String {
    let lsn = history(cluster, side)["history"]["points"][1]["lsn"].as_u64().unwrap();
    format!("{:X}/{:08X}", lsn >> 32, lsn & 0xFFFF_FFFF)
}

/// The URI of the only volume that is served.
fn uri(served: &Served) -> String {
    served.told["uris"][0].as_str().unwrap().to_owned()
}

/// What a client reads of the whole volume.
fn image_of(served: &Served) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    looks::copy(&uri(served), &path);
    fs::read(path).unwrap()
}

/// Megabytes of these numbers, one behind the other.
fn image(size: usize, numbers: impl Iterator<Item = u64>) -> Vec<u8> {
    let mut image: Vec<u8> = numbers.flat_map(content).collect();
    image.resize(size, 0);
    image
}

fn is(found: &[u8], wanted: &[u8]) {
    let chunks = found.chunks(4096).zip(wanted.chunks(4096));
    let differ = chunks.filter(|(one, other)| one != other).count();
    assert!(found.len() == wanted.len() && differ == 0, "{differ} blocks differ");
}

#[test]
fn yesterday_is_looked_at_on_the_standby_while_replication_goes_on() {
    let cluster = pair("history = \"24h\"\n");
    let size = cluster.store(Side::Beta).unwrap().len();
    write(&cluster, 0..8, 0);
    let (point, wall) = (newest(&cluster, Side::Beta), SystemTime::now());
    let moment = humantime::format_rfc3339_micros(wall).to_string();
    write(&cluster, 4..12, 1000);
    let before = image(size, 0..8);

    let by_lsn = Served::new(&cluster, Side::Beta, &["export", "db", "--at", &point]);
    let by_time = Served::new(&cluster, Side::Beta, &["export", "db", "--at", &moment]);
    let now = Served::new(&cluster, Side::Beta, &["export", "db"]);
    let after = image(size, (0..4).chain(1004..1012));
    is(&image_of(&by_lsn), &before);
    is(&image_of(&by_time), &before);
    is(&image_of(&now), &after);
    // A client that does not look at the flag is refused.
    nbdsh(
        &uri(&by_lsn),
        "h.set_strict_mode(0)\ntry:\n h.pwrite(b'x' * 512, 0)\n assert False\n\
         except nbd.Error as error:\n assert error.errno == 'EPERM', error",
    );

    write(&cluster, 0..16, 2000);
    is(&image_of(&by_lsn), &before);
    is(&image_of(&now), &after);
    let open = history(&cluster, Side::Beta)["views"].as_array().unwrap().len();
    assert_eq!(open, 3);
    let words = cluster.tool(Side::Beta, &["status", "db"]).unwrap();
    assert!(words.contains("history") && words.contains("points from"), "{words}");
    [by_lsn, by_time, now].into_iter().for_each(Served::stop);
    let deadline = Instant::now() + PATIENCE;
    while history(&cluster, Side::Beta)["views"] != Value::Array(Vec::new()) {
        assert!(Instant::now() < deadline, "a view outlives its command");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_name_that_was_given_before_a_change_is_the_point_before_it() {
    let cluster = pair("history = \"24h\"\n");
    let size = cluster.store(Side::Beta).unwrap().len();
    write(&cluster, 0..4, 0);
    cluster.tool(Side::Alpha, &["marker", "before-upgrade"]).unwrap();
    write(&cluster, 0..4, 1000);
    let served = Served::new(&cluster, Side::Beta, &["export", "db", "--at", "before-upgrade"]);
    is(&image_of(&served), &image(size, 0..4));
    served.stop();
    let refused = cluster.tool(Side::Beta, &["export", "db", "--at", "never-named"]);
    assert!(refused.unwrap_err().to_string().contains("is called never-named"));
}

#[test]
fn names_in_reach_are_listed_the_newest_first_and_the_rest_is_counted() {
    let cluster = pair("history = \"24h\"\n");
    let names: Vec<_> = (0..23).map(|number| format!("point-{number}")).collect();
    for (number, name) in (0..).zip(&names) {
        write(&cluster, number..=number, 0);
        cluster.tool(Side::Alpha, &["marker", name]).unwrap();
    }
    cluster.await_applied(Side::Alpha).unwrap();
    let listed = |history: &Value| -> Vec<String> {
        let points = history["named"].as_array().unwrap().iter();
        points.map(|point| point["name"].as_str().unwrap().to_owned()).collect()
    };
    for side in [Side::Alpha, Side::Beta] {
        let newest = history(&cluster, side);
        assert_eq!(newest["named_count"], 23, "{newest}");
        assert!(listed(&newest).iter().eq(names.iter().rev().take(20)), "{newest}");
        let all = answer(&cluster, side, &["history", "db", "--all"])[0].clone();
        assert!(listed(&all).iter().eq(names.iter().rev()), "{all}");
        let lsn = all["named"][22]["lsn"].as_u64().unwrap();
        let at = format!("{:X}/{:08X}", lsn >> 32, lsn & 0xFFFF_FFFF);
        let words = cluster.tool(side, &["history", "db"]).unwrap();
        assert!(words.contains("point-22 is at ") && words.contains("and 3 more"), "{words}");
        let words = cluster.tool(side, &["history", "db", "--all"]).unwrap();
        assert!(words.contains(&format!("  point-0 is at {at} (")), "{words}");
    }
}

#[test]
fn a_name_that_is_still_ahead_of_the_image_is_listed() {
    let cluster = pair("history = \"24h\"\nreplay_delay = \"1h\"\n");
    megabytes::write(&cluster, Side::Alpha, 0..2, 0).unwrap();
    cluster.tool(Side::Alpha, &["marker", "not-yet"]).unwrap();
    megabytes::write(&cluster, Side::Alpha, 2..4, 0).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while history(&cluster, Side::Beta)["named"][0]["name"] != "not-yet" {
        assert!(Instant::now() < deadline, "{}", history(&cluster, Side::Beta));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn history_outlives_a_kill_a_restart_and_a_takeover() {
    let mut cluster = pair("history = \"24h\"\n");
    let size = cluster.store(Side::Beta).unwrap().len();
    write(&cluster, 0..8, 0);
    let point = newest(&cluster, Side::Beta);
    write(&cluster, 0..8, 1000);
    cluster.kill(Side::Beta).unwrap();
    cluster.start(Side::Beta).unwrap();
    cluster.await_peer(Side::Alpha).unwrap();
    write(&cluster, 2..10, 2000);
    cluster.tool(Side::Beta, &["takeover", "db"]).unwrap();
    cluster.await_peer(Side::Beta).unwrap();
    megabytes::write(&cluster, Side::Beta, 0..4, 3000).unwrap();
    cluster.await_applied(Side::Beta).unwrap();
    // The new primary has it, and so has the old one.
    for side in [Side::Beta, Side::Alpha] {
        let served = Served::new(&cluster, side, &["export", "db", "--at", &point]);
        is(&image_of(&served), &image(size, 0..8));
        served.stop();
    }
    let early = cluster.tool(Side::Beta, &["export", "db", "--at", "1990-01-01T00:00:00Z"]);
    let early = early.unwrap_err().to_string();
    assert!(early.contains("older than the oldest point"), "{early}");
}

#[test]
fn a_clone_is_written_to_up_to_its_limit_and_leaves_no_trace() {
    let cluster = pair("history = \"24h\"\n");
    let size = cluster.store(Side::Beta).unwrap().len();
    write(&cluster, 0..8, 0);
    let point = newest(&cluster, Side::Beta);
    write(&cluster, 0..8, 1000);
    let args = ["clone", "db", "--at", &point, "--size-limit", "2MiB"];
    let clone = Served::new(&cluster, Side::Beta, &args);
    nbdsh(
        &uri(&clone),
        "h.pwrite(b'c' * 1048576, 1048576)\nh.flush()\nh.zero(4096, 0)\n\
         assert h.pread(4096, 1048576) == b'c' * 4096\n\
         assert h.pread(4096, 0) == bytes(4096)\n\
         h.pwrite(b'd' * 1048576, 3145728)\n\
         try:\n h.pwrite(b'e' * 4096, 6291456)\n assert False\n\
         except nbd.Error as error:\n assert error.errno == 'ENOSPC', error\n\
         h.pwrite(b'f' * 4096, 1048576)\n",
    );
    let mut wanted = image(size, 0..8);
    let mib = MIB as usize;
    wanted[mib..2 * mib].fill(b'c');
    wanted[mib..mib + 4096].fill(b'f');
    wanted[3 * mib..4 * mib].fill(b'd');
    wanted[..4096].fill(0);
    is(&image_of(&clone), &wanted);
    write(&cluster, 8..10, 0);
    clone.stop();
    let after = image(size, (1000..1008).chain(8..10));
    is(&cluster.store(Side::Beta).unwrap(), &after);
    is(&cluster.store(Side::Alpha).unwrap(), &after);
    let left = fs::read_dir(cluster.replica_dir(Side::Beta).join("clones")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn a_takeover_is_rehearsed_and_the_drill_ends_as_its_command_does() {
    let cluster = pair("history_size = \"64MiB\"\n");
    write(&cluster, 0..4, 0);
    let check = "test \"$HADRIAN_NBD_URI\" = \"$HADRIAN_NBD_URI_DATA\" \
                 && /usr/bin/python3 -m nbd -u \"$HADRIAN_NBD_URI\" -c 'h.pwrite(b\"x\" * 512, 0)'";
    let drill = ["drill", "db", "--json", "--", "sh", "-c", check];
    let told: Value = serde_json::from_str(&cluster.tool(Side::Beta, &drill).unwrap()).unwrap();
    assert_eq!((&told["succeeded"], &told["exit_code"]), (&true.into(), &0.into()), "{told}");
    let drill = cluster.command(Side::Beta, &["drill", "db", "--", "sh", "-c", "exit 7"]);
    let failed = { drill }.output().unwrap();
    assert_eq!(failed.status.code(), Some(7));
    let said = String::from_utf8_lossy(&failed.stdout).into_owned();
    assert!(said.contains("failed after") && said.contains("its clone is gone"), "{said}");
    let size = cluster.store(Side::Beta).unwrap().len();
    is(&cluster.store(Side::Beta).unwrap(), &image(size, 0..4));
}

#[test]
fn what_was_received_and_is_applied_later_can_be_looked_at_before() {
    let cluster = pair("history = \"24h\"\nreplay_delay = \"1h\"\n");
    let size = cluster.store(Side::Beta).unwrap().len();
    megabytes::write(&cluster, Side::Alpha, 0..8, 0).unwrap();
    let now = Served::new(&cluster, Side::Beta, &["export", "db", "--at", "now"]);
    is(&image_of(&now), &image(size, 0..8));
    let applied = Served::new(&cluster, Side::Beta, &["export", "db"]);
    is(&image_of(&applied), &image(size, 0..0));
    [now, applied].into_iter().for_each(Served::stop);
}

#[test]
fn without_history_the_way_to_it_is_told() {
    let cluster = pair("");
    let refused = cluster.tool(Side::Beta, &["export", "db"]).unwrap_err().to_string();
    assert!(refused.contains("history = \"24h\""), "{refused}");
    let words = cluster.tool(Side::Beta, &["history"]).unwrap();
    assert!(words.contains("no history is kept"), "{words}");
}

//! A standby receives far more than it may apply: its log holds it, its memory does not.

use std::fs;

use hadrian_protocol::replica::Mode;
use hadrian_tests::tools::programs;
use hadrian_tests::{Cluster, Compression, Side, Spec};

const MIB: usize = 1 << 20;
/// Written within the delay: several times what a standby keeps in memory.
const WRITTEN_MIB: usize = 320;
/// All that a daemon may ever have had in memory.
const PEAK_MAX_MIB: usize = 224;

fn content(number: usize) -> Vec<u8> {
    let word = (number as u64 + 1).to_le_bytes();
    word.iter().copied().cycle().take(MIB).collect()
}

/// The most memory that a process has had: `VmHWM` of its `status` (proc(5)).
fn peak_mib(pid: u32) -> usize {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() / 1024
}

#[test]
fn an_hour_of_delay_costs_log_and_no_memory_and_a_takeover_has_everything() {
    let spec = Spec {
        volume_bytes: (WRITTEN_MIB * MIB) as u64,
        log_bytes: 512 << 20,
        settings: "replay_delay = \"1h\"\n".into(),
        ..Spec::new(Mode::Nearsync)
    };
    let cluster = Cluster::new(&programs(), spec).unwrap();
    let mut client = cluster.client(Side::Alpha).unwrap();
    for number in 0..WRITTEN_MIB {
        client.write((number * MIB) as u64, &content(number)).unwrap();
    }
    client.flush().unwrap();
    let peak = peak_mib(cluster.pid(Side::Beta).unwrap());
    assert!(peak < PEAK_MAX_MIB, "the standby has had {peak} MiB");
    cluster.tool(Side::Beta, &["takeover", "db"]).unwrap();
    let mut client = cluster.client(Side::Beta).unwrap();
    for number in 0..WRITTEN_MIB {
        let found = client.read((number * MIB) as u64, MIB).unwrap();
        assert!(found == content(number), "MiB {number} is something else");
    }
    let peak = peak_mib(cluster.pid(Side::Beta).unwrap());
    assert!(peak < PEAK_MAX_MIB, "the new primary has had {peak} MiB");
}

#[test]
fn a_burst_of_frames_that_packed_to_nothing_finds_room_in_a_small_log() {
    // What 64 KiB of such a link unpack to would not fit the log of the standby at once.
    let spec = Spec { compression: Compression::Zstd, ..Spec::new(Mode::Async) };
    let mut cluster = Cluster::new(&programs(), spec).unwrap();
    let mut client = cluster.client(Side::Alpha).unwrap();
    for round in 0..2_u8 {
        cluster.kill(Side::Beta).unwrap();
        for megabyte in 0..28_u64 {
            client.write(megabyte << 20, &vec![round + 1; 1 << 20]).unwrap();
        }
        cluster.start(Side::Beta).unwrap();
        cluster.await_peer(Side::Alpha).unwrap();
    }
    cluster.kill(Side::Alpha).unwrap();
    cluster.tool(Side::Beta, &["takeover", "db", "--force", "--yes"]).unwrap();
    let mut client = cluster.client(Side::Beta).unwrap();
    assert!(client.read(27 << 20, 1 << 20).unwrap() == vec![2; 1 << 20]);
}

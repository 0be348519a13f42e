//! Stories of real kernels. `make vm-test` runs all of them; `make test` the short ones. Where the
//! machine cannot boot a guest, they are not run and say so; they never count as passed.
#![allow(clippy::print_stdout)] // The line that says why nothing runs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use hadrian_lab::{Disk, Ended, Guest, Image, Lab, replay};
use hadrian_protocol::frame::Record;
use hadrian_protocol::node::{Entry, Event};
use hadrian_tests::tools::programs;
use libtest_mimic::{Arguments, Failed, Trial};

/// Longest life of a guest; emulation is slow.
const LIMIT: Duration = Duration::from_secs(240);
/// The disk of a guest; a sparse file.
const DISK_BYTES: u64 = 2 << 30;
/// Moments at which a recorded replica is opened: of about 300, as many as three minutes allow.
const MOMENTS_MAX: usize = 150;

const CLUSTER: &str = include_str!("../guest/cluster");
const UBLK_FAILOVER: &str = include_str!("../guest/ublk-failover");
const POWER_CUT_WRITER: &str = include_str!("../guest/power-cut-writer");
const POWER_CUT_CHECK: &str = include_str!("../guest/power-cut-check");
const NBD_FAILOVER: &str = include_str!("../guest/nbd-failover");
const RECORDED: &str = include_str!("../guest/recorded");
const UBLK_REQUESTS: &str = include_str!("../guest/ublk-requests");
const NBD_RESTARTS: &str = include_str!("../guest/nbd-restarts");
const WAN: &str = include_str!("../guest/wan");
const WATCHDOG: &str = include_str!("../guest/watchdog");
const LEASE_END: &str = include_str!("../guest/lease-end");
/// The watchdog's time in its story.
const WATCHDOG_TIME: Duration = Duration::from_secs(10);
/// What a machine that is busy may take longer.
const ROOM: Duration = Duration::from_secs(30);

type Story = fn(&Lab) -> anyhow::Result<()>;

/// Name, whether it is part of every test run, and the story.
const STORIES: [(&str, bool, Story); 19] = [
    ("the_kernel_has_every_device_that_the_stories_need", true, has_every_device),
    ("ext4_on_kernel_nbd_lives_through_a_crash_and_a_failover", true, |lab| {
        nbd_failover(lab, "ext4")
    }),
    ("ext4_on_ublk_lives_through_a_crash_a_restart_and_a_failover", true, |lab| {
        ublk_failover(lab, "ext4")
    }),
    ("xfs_on_ublk_lives_through_a_crash_a_restart_and_a_failover", false, |lab| {
        ublk_failover(lab, "xfs")
    }),
    ("what_was_synced_is_there_after_a_power_cut_in_nearsync", false, |lab| {
        power_cut(lab, "nearsync")
    }),
    ("what_was_synced_is_there_after_a_power_cut_in_sync", false, |lab| power_cut(lab, "sync")),
    ("xfs_on_kernel_nbd_lives_through_a_crash_and_a_failover", false, |lab| {
        nbd_failover(lab, "xfs")
    }),
    ("a_slow_link_costs_a_client_in_sync_its_round_trip_and_no_more", false, |lab| {
        wan(lab, "sync")
    }),
    ("a_slow_link_costs_a_client_in_nearsync_its_round_trip_and_no_more", false, |lab| {
        wan(lab, "nearsync")
    }),
    ("a_slow_link_costs_a_client_in_async_nothing", false, |lab| wan(lab, "async")),
    ("a_slow_link_costs_a_client_in_superasync_nothing", false, |lab| wan(lab, "superasync")),
    ("a_replica_is_whole_at_every_moment_at_which_its_device_may_lose_power", false, recorded),
    ("every_request_of_a_ublk_device_arrives_as_such_by_each_of_its_queues", false, ublk_requests),
    ("a_kernel_nbd_device_stays_over_restarts_and_fails_where_nobody_leads", false, nbd_restarts),
    ("a_watchdog_resets_a_host_whose_daemon_stands_still_and_no_other", false, watchdog),
    ("a_ublk_device_is_gone_before_the_lease_of_its_primary_is_over", false, |lab| {
        lease_end(lab, "ublk", "fail", "20s")
    }),
    ("a_ublk_device_is_gone_before_a_lease_of_the_default_length_is_over", false, |lab| {
        lease_end(lab, "ublk", "fail", "10s")
    }),
    ("a_kernel_nbd_device_is_gone_before_the_lease_of_its_primary_is_over", false, |lab| {
        lease_end(lab, "nbd", "fail", "20s")
    }),
    ("nothing_is_done_at_a_device_that_is_held_once_the_lease_is_over", false, |lab| {
        lease_end(lab, "ublk", "hold", "20s")
    }),
];

fn main() {
    let arguments = Arguments::from_args();
    let lab = Lab::find();
    if let Err(missing) = &lab {
        println!("lab: not run: {missing}");
    }
    let trials = STORIES.into_iter().map(|(name, short, story)| {
        let found = lab.clone();
        let run = move || tell(story, found);
        Trial::test(name, run).with_ignored_flag(lab.is_err() || !short)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn tell(story: Story, lab: Result<Lab, String>) -> Result<(), Failed> {
    story(&lab?).map_err(|error| Failed::from(format!("{error:#}")))
}

/// A guest with both programs, a disk, a driver of block devices, and what makes and checks file
/// systems.
fn two_members<'l>(lab: &'l Lab, driver: &str) -> anyhow::Result<Image<'l>> {
    let mut image = Image::new(lab)?;
    image.modules(&["crc32c_generic", "virtio_blk", "ext4", "xfs", driver])?;
    for program in ["hadriand", "hadrian"] {
        image.program(programs().join(program))?;
    }
    for program in ["mke2fs", "e2fsck", "mkfs.xfs", "xfs_repair"] {
        image.program(program)?;
    }
    image.file("cluster", CLUSTER);
    Ok(image)
}

fn run(lab: &Lab, image: Image<'_>, disks: &[Disk], script: &str) -> anyhow::Result<Ended> {
    let ended = Guest::boot(lab, image, disks, script)?.run_to_end(LIMIT)?;
    ensure!(ended.code == 0, "the script failed:\n{}", ended.text());
    Ok(ended)
}

/// A guest with one disk runs the script to its end.
fn run_with_disk(lab: &Lab, image: Image<'_>, script: &str) -> anyhow::Result<Ended> {
    let dir = tempfile::tempdir()?;
    let disk = Disk::create(&dir.path().join("disk"), DISK_BYTES)?;
    run(lab, image, &[disk], script)
}

fn has_every_device(lab: &Lab) -> anyhow::Result<()> {
    let mut image = Image::new(lab)?;
    image.modules(&["crc32c_generic", "virtio_blk", "ublk_drv", "nbd", "drbd", "sch_netem"])?;
    image.modules(&["dm_flakey", "dm_log_writes", "softdog", "ext4", "xfs", "loop"])?;
    let script = "ls /dev/ublk-control /dev/nbd0 /dev/watchdog /dev/loop-control
        grep -qw ext4 /proc/filesystems && grep -qw xfs /proc/filesystems
        grep -qw drbd /proc/devices";
    run(lab, image, &[], script).map(drop)
}

fn nbd_failover(lab: &Lab, fs: &str) -> anyhow::Result<()> {
    failover(lab, "nbd", fs, NBD_FAILOVER)
}

fn ublk_failover(lab: &Lab, fs: &str) -> anyhow::Result<()> {
    failover(lab, "ublk_drv", fs, UBLK_FAILOVER)
}

fn failover(lab: &Lab, driver: &str, fs: &str, script: &str) -> anyhow::Result<()> {
    let image = two_members(lab, driver)?;
    run_with_disk(lab, image, &format!("fs={fs}\n{script}")).map(drop)
}

fn nbd_restarts(lab: &Lab) -> anyhow::Result<()> {
    let mut image = two_members(lab, "nbd")?;
    image.program("dd")?;
    run_with_disk(lab, image, NBD_RESTARTS).map(drop)
}

fn ublk_requests(lab: &Lab) -> anyhow::Result<()> {
    let mut image = two_members(lab, "ublk_drv")?;
    for program in ["dd", "blkdiscard", "fallocate"] {
        image.program(program)?;
    }
    let ended = run_with_disk(lab, image, UBLK_REQUESTS)?;
    // By each of two processors.
    let expected = [
        ("write", "write", 0),
        ("flush", "", 1),
        // The kernel adds a flush behind it.
        ("forced", "write", 2),
        ("discard", "trim", 0),
        ("zero", "zero", 0),
        // The program adds one.
        ("hole", "trim", 1),
    ];
    let expected = expected.into_iter().flat_map(|(step, changes, durable)| {
        let asked = Asked { changes: changes.into(), durable };
        [(step.to_string(), asked.clone()), (step.to_string(), asked)]
    });
    assert_eq!(asked(&ended.lines)?, expected.collect::<Vec<_>>());
    Ok(())
}

/// What the core was asked for in one step of a guest's script.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Asked {
    /// Each kind of change.
    changes: String,
    /// How often somebody wanted it durable.
    durable: u32,
}

/// Each step that the guest told, with what a member's recording has of it.
fn asked(lines: &[String]) -> anyhow::Result<Vec<(String, Asked)>> {
    let mut steps: Vec<(String, Asked)> = Vec::new();
    for line in lines {
        if let Some(step) = line.strip_prefix("STEP ") {
            steps.push((step.into(), Asked::default()));
        }
        let (Some(kept), Some((_, asked))) = (line.strip_prefix("KEPT "), steps.last_mut()) else {
            continue;
        };
        match serde_json::from_str(kept)? {
            Entry::Handled(_, Event::DurableWanted(_)) => asked.durable += 1,
            Entry::Appended(_, frame) => {
                for kind in frame.records().filter_map(|record| kind(&record)) {
                    if !asked.changes.contains(kind) {
                        asked.changes += kind;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(steps)
}

/// The kind of a change; `None` for what the node writes for itself.
const fn kind(record: &Record) -> Option<&'static str> {
    match record {
        Record::Write { .. } => Some("write"),
        Record::Zero { .. } => Some("zero"),
        Record::Trim { .. } => Some("trim"),
        Record::EpochStart { .. }
        | Record::Handover { .. }
        | Record::Marker
        | Record::Point { .. } => None,
    }
}

/// Two networks with a link like one between distant places.
fn wan(lab: &Lab, mode: &str) -> anyhow::Result<()> {
    let mut image = two_members(lab, "ublk_drv")?;
    image.modules(&["veth", "sch_netem"])?;
    for program in ["ip", "tc", "dd"] {
        image.program(program)?;
    }
    run_with_disk(lab, image, &format!("mode={mode}\n{WAN}")).map(drop)
}

/// The guest is reset in the end, so the story is told from outside.
fn watchdog(lab: &Lab) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let disk = Disk::create(&dir.path().join("disk"), DISK_BYTES)?;
    let mut image = two_members(lab, "ublk_drv")?;
    image.modules(&["softdog"])?;
    let mut guest = Guest::boot(lab, image, std::slice::from_ref(&disk), WATCHDOG)?;
    let _ = guest.await_line("STANDS STILL", LIMIT)?;
    let began = Instant::now();
    let lines = guest.await_gone(WATCHDOG_TIME + ROOM)?;
    let took = began.elapsed();
    let fired = lines.iter().any(|line| line.contains("softdog: Initiating system reboot"));
    ensure!(fired, "the guest ended, and not by its watchdog:\n{}", lines.join("\n"));
    println!("reset {took:?} after its daemon stood still; the watchdog's time: {WATCHDOG_TIME:?}");
    Ok(())
}

/// A primary without marks and links.
fn lease_end(lab: &Lab, front: &str, on_end: &str, lease: &str) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let disk = |name: &str, bytes| Disk::create(&dir.path().join(name), bytes);
    let disks = [disk("disk", DISK_BYTES)?, disk("marker", 32 << 20)?];
    let driver = if front == "nbd" { "nbd" } else { "ublk_drv" };
    let mut image = two_members(lab, driver)?;
    image.modules(&["veth", "sch_netem", "dm_mod"])?;
    for program in ["ip", "tc", "dd", "dmsetup"] {
        image.program(program)?;
    }
    let script = format!("front={front} on_end={on_end} lease={lease}\n{LEASE_END}");
    let ended = run(lab, image, &disks, &script)?;
    let told = |line: &&String| line.contains(" ms before the end");
    ended.lines.iter().filter(told).for_each(|line| println!("{front}, {on_end}, {lease}: {line}"));
    Ok(())
}

/// Everything that goes to the device under a replica is recorded; the replica is opened as it was
/// at each moment.
fn recorded(lab: &Lab) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let disk = |name: &str, bytes| Disk::create(&dir.path().join(name), bytes);
    let disks = [disk("disk", DISK_BYTES)?, disk("device", 144 << 20)?, disk("writes", 8 << 30)?];
    let mut image = two_members(lab, "ublk_drv")?;
    image.modules(&["dm_log_writes"])?;
    for program in ["dmsetup", "dd", "blkdiscard"] {
        image.program(program)?;
    }
    let _ = run(lab, image, &disks, RECORDED)?;
    let replayed = replay(&programs(), disks[2].path(), MOMENTS_MAX)?;
    println!("opened at {} of {} moments", replayed.opened, replayed.moments);
    Ok(())
}

/// The whole guest loses power again and again, with both members in it: what was synced stays.
fn power_cut(lab: &Lab, mode: &str) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    for round in 1..=3 {
        let disk = Disk::create(&dir.path().join(format!("disk-{round}")), DISK_BYTES)?;
        let image = two_members(lab, "ublk_drv")?;
        let script = format!("fs=ext4 mode={mode}\n{POWER_CUT_WRITER}");
        let mut guest = Guest::boot(lab, image, std::slice::from_ref(&disk), &script)?;
        // Another moment in each round: the next file is half written, or the log half applied.
        for _ in 0..25 * round {
            guest.await_line("SYNCED", LIMIT)?;
        }
        let synced = synced(&guest.cut_power());
        ensure!(synced.len() >= 25, "only {} files were synced", synced.len());
        let files: Vec<_> = synced.iter().map(|(number, sum)| format!("{number}:{sum}")).collect();
        let image = two_members(lab, "ublk_drv")?;
        let known = files.join(" ");
        let script = format!("fs=ext4 mode={mode} synced=\"{known}\"\n{POWER_CUT_CHECK}");
        let _ = run(lab, image, &[disk], &script)?;
    }
    Ok(())
}

/// The sum of each file that was synced.
fn synced(lines: &[String]) -> BTreeMap<u32, String> {
    let words = lines.iter().filter_map(|line| line.strip_prefix("SYNCED "));
    let files = words.filter_map(|words| {
        let (number, sum) = words.split_once(' ')?;
        // A line that was cut with the power is no promise.
        (sum.len() == 32).then_some((number.parse().ok()?, sum.to_string()))
    });
    files.collect()
}

//! Stories of real kernels. `make vm-test` runs all of them; `make test` the short ones. Where the
//! machine cannot boot a guest, they are not run and say so; they never count as passed.
#![allow(clippy::print_stdout)] // The line that says why nothing runs.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use hadrian_lab::{Disk, Guest, Image, Lab, replay};
use hadrian_tests::tools::programs;
use libtest_mimic::{Arguments, Failed, Trial};

/// Longest life of a guest; emulation is slow.
const LIMIT: Duration = Duration::from_secs(240);
/// The disk of a guest; a sparse file.
const DISK_BYTES: u64 = 2 << 30;
/// Moments at which a recorded replica is opened.
const MOMENTS_MAX: usize = 150;

const CLUSTER: &str = include_str!("../guest/cluster");
const UBLK_FAILOVER: &str = include_str!("../guest/ublk-failover");
const POWER_CUT_WRITER: &str = include_str!("../guest/power-cut-writer");
const POWER_CUT_CHECK: &str = include_str!("../guest/power-cut-check");
const NBD_FAILOVER: &str = include_str!("../guest/nbd-failover");
const RECORDED: &str = include_str!("../guest/recorded");
const WAN: &str = include_str!("../guest/wan");

type Story = fn(&Lab) -> anyhow::Result<()>;

/// Name, whether it is part of every test run, and the story.
const STORIES: [(&str, bool, Story); 12] = [
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

fn run(lab: &Lab, image: Image<'_>, disks: &[Disk], script: &str) -> anyhow::Result<()> {
    let ended = Guest::boot(lab, image, disks, script)?.run_to_end(LIMIT)?;
    ensure!(ended.code == 0, "the script failed:\n{}", ended.text());
    Ok(())
}

fn has_every_device(lab: &Lab) -> anyhow::Result<()> {
    let mut image = Image::new(lab)?;
    image.modules(&["crc32c_generic", "virtio_blk", "ublk_drv", "nbd", "drbd", "sch_netem"])?;
    image.modules(&["dm_flakey", "dm_log_writes", "softdog", "ext4", "xfs", "loop"])?;
    let script = "ls /dev/ublk-control /dev/nbd0 /dev/watchdog /dev/loop-control
        grep -qw ext4 /proc/filesystems && grep -qw xfs /proc/filesystems
        grep -qw drbd /proc/devices";
    run(lab, image, &[], script)
}

fn nbd_failover(lab: &Lab, fs: &str) -> anyhow::Result<()> {
    failover(lab, "nbd", fs, NBD_FAILOVER)
}

fn ublk_failover(lab: &Lab, fs: &str) -> anyhow::Result<()> {
    failover(lab, "ublk_drv", fs, UBLK_FAILOVER)
}

fn failover(lab: &Lab, driver: &str, fs: &str, script: &str) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let disk = Disk::create(&dir.path().join("disk"), DISK_BYTES)?;
    let image = two_members(lab, driver)?;
    run(lab, image, &[disk], &format!("fs={fs}\n{script}"))
}

/// Two networks with a link like one between distant places.
fn wan(lab: &Lab, mode: &str) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let disk = Disk::create(&dir.path().join("disk"), DISK_BYTES)?;
    let mut image = two_members(lab, "ublk_drv")?;
    image.modules(&["veth", "sch_netem"])?;
    for program in ["ip", "tc", "dd"] {
        image.program(program)?;
    }
    run(lab, image, &[disk], &format!("mode={mode}\n{WAN}"))
}

/// Everything that goes to the device under a replica is recorded; the replica is opened as it was
/// at each moment.
fn recorded(lab: &Lab) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let disk = |name: &str, bytes| Disk::create(&dir.path().join(name), bytes);
    let disks = [disk("disk", DISK_BYTES)?, disk("device", 256 << 20)?, disk("writes", 8 << 30)?];
    let mut image = two_members(lab, "ublk_drv")?;
    image.modules(&["dm_log_writes"])?;
    for program in ["dmsetup", "dd", "blkdiscard"] {
        image.program(program)?;
    }
    run(lab, image, &disks, RECORDED)?;
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
        run(lab, image, &[disk], &script)?;
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

//! Today's NBD clients on a volume that is mirrored for real, before and after it lost its primary.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use hadrian_protocol::replica::Mode;
use hadrian_tests::tools::{nbdsh, programs, run};
use hadrian_tests::{Cluster, Side, Spec};

const SIZE: usize = 64 << 20;

fn cluster() -> Cluster {
    Cluster::new(&programs(), Spec::new(Mode::Nearsync)).unwrap()
}

/// The primary dies; the standby is made primary by force.
fn fail_over(cluster: &mut Cluster) {
    cluster.kill(Side::Alpha).unwrap();
    cluster.tool(Side::Beta, &["takeover", "db", "--force", "--yes"]).unwrap();
    drop(cluster.client(Side::Beta).unwrap());
}

/// An image without a repeated block.
fn image(path: &Path) {
    let blocks = 0..u64::try_from(SIZE / 8).unwrap();
    let bytes: Vec<u8> =
        blocks.flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    fs::write(path, bytes).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn an_image_copied_in_by_nbdcopy_comes_out_of_the_other_member() {
    let (mut cluster, dir) = (cluster(), tempfile::tempdir().unwrap());
    let (source, back) = (dir.path().join("source"), dir.path().join("back"));
    image(&source);
    let connections = "--connections=4";
    let _ = run("nbdcopy", &[connections, "--flush", text(&source), &cluster.uri(Side::Alpha)]);
    let _ = run("nbdcopy", &[connections, &cluster.uri(Side::Alpha), text(&back)]);
    assert!(fs::read(&source).unwrap() == fs::read(&back).unwrap());
    fail_over(&mut cluster);
    fs::remove_file(&back).unwrap();
    let _ = run("nbdcopy", &[connections, &cluster.uri(Side::Beta), text(&back)]);
    assert!(fs::read(&source).unwrap() == fs::read(&back).unwrap());
}

#[test]
fn holes_stay_holes_through_nbdcopy_on_both_members() {
    let (mut cluster, dir) = (cluster(), tempfile::tempdir().unwrap());
    let source = dir.path().join("sparse");
    let file = fs::File::create(&source).unwrap();
    file.set_len(SIZE as u64).unwrap();
    file.write_all_at(&[7; 1 << 20], 8 << 20).unwrap();
    let _ = run("nbdcopy", &["--flush", text(&source), &cluster.uri(Side::Alpha)]);
    let totals =
        |cluster: &Cluster, side| run("nbdinfo", &["--map", "--totals", &cluster.uri(side)]);
    // What is still in the log only reads as zeroes; holes are made when it is applied.
    cluster.await_applied(Side::Alpha).unwrap();
    let map = totals(&cluster, Side::Alpha);
    assert!(map.contains("hole,zero"), "{map}");
    fail_over(&mut cluster);
    assert_eq!(totals(&cluster, Side::Beta), map, "both members have the same holes");
}

#[test]
fn qemu_img_and_qemu_io_find_on_the_standby_what_they_wrote_on_the_primary() {
    let (mut cluster, dir) = (cluster(), tempfile::tempdir().unwrap());
    let (source, inner) = (dir.path().join("source"), dir.path().join("back.qcow2"));
    image(&source);
    let raw = ["-f", "raw", "-O", "raw"];
    let convert = [&["convert", "-n"], &raw[..], &[text(&source), &cluster.uri(Side::Alpha)]];
    let _ = run("qemu-img", &convert.concat());
    let pattern = ["-f", "raw", "-c", "write -f -P 9 1M 64k", "-c", "write -z 2M 64k"];
    let _ = run("qemu-io", &[&pattern[..], &[&cluster.uri(Side::Alpha)]].concat());
    let changed = fs::OpenOptions::new().write(true).open(&source).unwrap();
    changed.write_all_at(&[9; 64 << 10], 1 << 20).unwrap();
    changed.write_all_at(&[0; 64 << 10], 2 << 20).unwrap();
    fail_over(&mut cluster);
    let uri = cluster.uri(Side::Beta);
    let compare = run("qemu-img", &["compare", "-f", "raw", "-F", "raw", text(&source), &uri]);
    assert!(compare.contains("identical"), "{compare}");
    let _ = run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &uri, text(&inner)]);
    let same = ["compare", "-f", "raw", "-F", "qcow2", text(&source), text(&inner)];
    assert!(run("qemu-img", &same).contains("identical"));
    let map = run("qemu-img", &["map", "--output=json", "-f", "raw", &uri]);
    assert!(map.contains("\"data\": true"), "{map}");
}

#[test]
fn fio_verifies_on_the_new_primary_what_it_wrote_on_the_old_one() {
    let (cluster, dir) = (cluster(), tempfile::tempdir().unwrap());
    let fio = |side, how: &[&str]| {
        let uri = format!("--uri={}", cluster.uri(side));
        let aux = format!("--aux-path={}", dir.path().display());
        let job = ["--name=verify", "--ioengine=nbd", "--rw=randwrite", "--bs=4k", "--size=32M"];
        let verify = ["--iodepth=16", "--verify=crc32c", "--verify_fatal=1", "--randseed=7"];
        let quiet = ["--verify_state_save=0", "--end_fsync=1"];
        run("fio", &[&job[..], &verify, &quiet, &[&uri, &aux], how].concat())
    };
    let _ = fio(Side::Alpha, &["--do_verify=0"]);
    cluster.tool(Side::Beta, &["takeover", "db"]).unwrap();
    drop(cluster.client(Side::Beta).unwrap());
    let report = fio(Side::Beta, &["--verify_only"]);
    assert!(report.contains("err= 0"), "{report}");
}

#[test]
fn nbdsh_sees_errors_contexts_and_zeroes_as_the_protocol_wants_them() {
    let mut cluster = cluster();
    let script = "
import errno
def fails(number, call):
    try:
        call()
    except nbd.Error as error:
        assert error.errnum == number, (error.errnum, number)
        return
    raise AssertionError('accepted')
h.set_strict_mode(0)
size = h.get_size()
assert size == 64 << 20
fails(errno.EINVAL, lambda: h.pread(512, size))
fails(errno.ENOSPC, lambda: h.pwrite(b'x' * 512, size))
fails(errno.ENOSPC, lambda: h.zero(65536, size - 512))
fails(errno.EINVAL, lambda: h.trim(512, size))
assert h.can_multi_conn() and h.can_fua() and h.can_cache() and h.can_zero() and h.can_trim()
h.pwrite(b'x' * 65536, 0, nbd.CMD_FLAG_FUA)
h.zero(4096, 4096, nbd.CMD_FLAG_NO_HOLE)
h.trim(8192, 32768)
h.cache(65536, 0)
h.flush()
";
    nbdsh(&cluster.uri(Side::Alpha), script);
    let there = "
data = h.pread(65536, 0)
want = bytearray(b'x' * 65536)
want[4096:8192] = bytes(4096)
want[32768:40960] = bytes(8192)
assert data == want
";
    nbdsh(&cluster.uri(Side::Alpha), there);
    fail_over(&mut cluster);
    nbdsh(&cluster.uri(Side::Beta), there);
}

#[test]
fn block_status_tells_data_from_holes() {
    let cluster = cluster();
    let script = "
h.add_meta_context('base:allocation')
h.connect_uri(URI)
h.pwrite(b'x' * 65536, 1 << 20)
h.flush()
found = []
def seen(context, offset, entries, error):
    found.extend(zip(entries[0::2], entries[1::2]))
h.block_status(64 << 20, 0, seen)
assert found[0] == (1 << 20, 3), found
assert found[1] == (65536, 0), found
assert sum(length for length, flags in found) == 64 << 20, found
";
    let script = script.replace("URI", &format!("'{}'", cluster.uri(Side::Alpha)));
    let _ = run("/usr/bin/python3", &["-m", "nbd", "-c", &script]);
}

#[test]
fn a_volume_of_4_kib_blocks_is_served_over_tcp() {
    let spec = Spec { block_size: 4096, tcp: true, ..Spec::new(Mode::Sync) };
    let cluster = Cluster::new(&programs(), spec).unwrap();
    let uri = cluster.tcp_uri(Side::Alpha).unwrap();
    let info = run("nbdinfo", &["--json", &uri]);
    for fact in ["\"block_size_minimum\": 4096", "\"export-size\": 67108864", "base:allocation"] {
        assert!(info.contains(fact), "{fact} is not in {info}");
    }
    let script = "
import errno
h.set_strict_mode(0)
for call in [lambda: h.pread(512, 0), lambda: h.pwrite(b'x' * 4096, 512)]:
    try:
        call()
    except nbd.Error as error:
        assert error.errnum == errno.EINVAL, error.errnum
    else:
        raise AssertionError('accepted')
h.pwrite(b'x' * 8192, 4096, nbd.CMD_FLAG_FUA)
assert h.pread(16384, 0) == bytes(4096) + b'x' * 8192 + bytes(4096)
";
    nbdsh(&uri, script);
}

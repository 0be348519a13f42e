//! Real clients against the server over a unix socket, and hostile bytes against its parts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;

use proptest::prelude::*;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::task::LocalSet;

use super::*;
use crate::export::*;

mod negotiation;
mod raw;
mod requests;

const SIZE: usize = 8 << 20;

/// Serves a volume in memory on a thread of its own; the socket's path is handed to the story.
fn with_server(story: impl FnOnce(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nbd.sock");
    let path = socket.clone();
    let (tell, told) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async move {
            let mut exports = Exports::new();
            exports.insert("db", Export::new(Rc::new(MemoryBackend::new(SIZE))));
            let listener = UnixListener::bind(path).unwrap();
            tell.send(()).unwrap();
            let slots = Arc::new(Semaphore::new(16));
            let (table, switch) = (Rc::new(exports), CloseHandle::new());
            let serve = serve_unix(listener, table, switch, slots, Limits::default());
            tokio::select! {
                () = serve => {}
                _ = stopped => {}
            }
        });
    });
    told.recv().unwrap();
    story(&socket);
    stop.send(()).unwrap();
    server.join().unwrap();
}

/// Runs a client; a missing one names the package to install.
fn run(program: &str, package: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program} ({error}): install the package {package}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {text}{errors}");
    text
}

fn uri(socket: &Path) -> String {
    format!("nbd+unix:///db?socket={}", socket.display())
}

fn image(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    let bytes: Vec<u8> = (0..SIZE).map(|at| (at / 512 * 7 + at) as u8).collect();
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn nbdinfo_sees_size_flags_and_block_sizes() {
    with_server(|socket| {
        let text = run("nbdinfo", "libnbd-bin", &["--json", &uri(socket)]);
        for fact in ["\"export-size\": 8388608", "\"can_multi_conn\": true", "\"can_fua\": true"] {
            assert!(text.contains(fact), "{fact} is not in {text}");
        }
        assert!(text.contains("base:allocation"), "{text}");
        let list = format!("nbd+unix:///?socket={}", socket.display());
        assert!(run("nbdinfo", "libnbd-bin", &["--list", &list]).contains("db"));
    });
}

#[test]
fn nbdcopy_moves_an_image_both_ways_over_several_connections() {
    with_server(|socket| {
        let dir = tempfile::tempdir().unwrap();
        let source = image(dir.path(), "source");
        let back = dir.path().join("back");
        let (from, to) = (source.to_str().unwrap(), back.to_str().unwrap());
        run("nbdcopy", "libnbd-bin", &["--connections=4", from, &uri(socket)]);
        run("nbdcopy", "libnbd-bin", &["--connections=4", &uri(socket), to]);
        assert!(std::fs::read(&source).unwrap() == std::fs::read(&back).unwrap());
    });
}

#[test]
fn qemu_img_converts_compares_and_maps() {
    with_server(|socket| {
        let dir = tempfile::tempdir().unwrap();
        let source = image(dir.path(), "source");
        let (from, to) = (source.to_str().unwrap(), uri(socket));
        let raw = ["-f", "raw", "-O", "raw"];
        let convert: Vec<&str> =
            ["convert", "-n"].into_iter().chain(raw).chain([from, &to]).collect();
        run("qemu-img", "qemu-utils", &convert);
        let compare = ["compare", "-f", "raw", "-F", "raw", from, &to];
        assert!(run("qemu-img", "qemu-utils", &compare).contains("identical"));
        let map = ["map", "--output=json", "-f", "raw", &to];
        assert!(run("qemu-img", "qemu-utils", &map).contains("\"data\": true"));
    });
}

#[test]
fn qemu_io_writes_zeroes_trims_and_reads_back() {
    with_server(|socket| {
        let commands = [
            "write -P 7 0 1M",
            "write -f -P 8 1M 4k",
            "read -P 7 0 1M",
            "read -P 8 1M 4k",
            "write -z 0 64k",
            "read -P 0 0 64k",
            "read -P 7 64k 64k",
            "discard 64k 64k",
            "flush",
        ];
        let to = uri(socket);
        let mut args = vec!["-f", "raw"];
        commands.iter().for_each(|command| args.extend(["-c", command]));
        args.push(&to);
        let text = run("qemu-io", "qemu-utils", &args);
        assert!(!text.contains("failed"), "{text}");
    });
}

#[test]
fn fio_verifies_what_it_wrote() {
    with_server(|socket| {
        let uri = format!("--uri={}", uri(socket));
        let args = [
            "--name=verify",
            "--ioengine=nbd",
            &uri,
            "--rw=randwrite",
            "--bsrange=4k-256k",
            "--iodepth=16",
            "--size=8M",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--verify_state_save=0",
        ];
        run("fio", "fio", &args);
    });
}

#[test]
fn nbdsh_is_told_the_right_error_numbers() {
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
fails(errno.EINVAL, lambda: h.pread(512, size))
fails(errno.EINVAL, lambda: h.pread(100, 0))
fails(errno.ENOSPC, lambda: h.pwrite(b'x' * 512, size))
fails(errno.ENOSPC, lambda: h.pwrite(b'x' * 65536, size - 512))
fails(errno.EINVAL, lambda: h.trim(512, size))
fails(errno.ENOTSUP, lambda: h.zero(512, 0, nbd.CMD_FLAG_FAST_ZERO))
h.pwrite(b'y' * 65536, 0)
assert h.pread(65536, 0) == b'y' * 65536
big = bytes(range(256)) * 4096 * 4
h.pwrite(big, 0)
assert h.pread(len(big), 0) == big
";
    with_server(|socket| {
        let to = uri(socket);
        // The binding belongs to the system's Python, not to one that was built beside it.
        let args = ["-m", "nbd", "-u", &to, "-c", script];
        run("/usr/bin/python3", "python3-libnbd", &args);
    });
}

proptest! {
    #[test]
    fn no_bytes_make_the_negotiation_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300)
    ) {
        let exports = Exports::new();
        let mut negotiation = Negotiation::new(8);
        let mut output = Vec::new();
        let mut rest = &bytes[..];
        while let Ok(step) = negotiation.step(&exports, rest, &mut output) {
            if step.consumed == 0 {
                break;
            }
            rest = &rest[step.consumed..];
        }
    }

    #[test]
    fn no_stream_of_requests_makes_a_connection_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
        plausible in any::<bool>()
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut input = Vec::new();
        input.extend(3u32.to_be_bytes());
        input.extend(b"IHAVEOPT");
        input.extend(1u32.to_be_bytes());
        input.extend(2u32.to_be_bytes());
        input.extend(b"db");
        if plausible && bytes.len() >= 28 {
            bytes[..4].copy_from_slice(&0x2560_9513_u32.to_be_bytes());
            bytes[6] = 0;
            bytes[7] %= 9;
        }
        input.extend(bytes);
        runtime.block_on(async move {
            let mut exports = Exports::new();
            exports.insert("db", Export::new(Rc::new(MemoryBackend::new(65536))));
            let (mut client, server) = tokio::io::duplex(1 << 20);
            tokio::io::AsyncWriteExt::write_all(&mut client, &input).await.unwrap();
            tokio::io::AsyncWriteExt::shutdown(&mut client).await.unwrap();
            let switch = CloseHandle::new();
            let limits = Limits::default();
            let _ = serve_connection(server, &exports, &switch, limits, None).await;
        });
    }
}

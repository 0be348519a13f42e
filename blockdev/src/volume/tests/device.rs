//! Stores that are block devices, on loop devices of the running kernel.
#![allow(clippy::print_stderr)] // A machine without loop devices says so.

use std::path::PathBuf;
use std::process::Command;

use super::*;

/// A loop device over a file of [`SIZE`] zeroes; goes with its owner.
struct LoopDevice {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl LoopDevice {
    /// `None` where this machine has none to give; then it is said why.
    fn new(block_size: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("under");
        create_store(&file, SIZE as u64).unwrap();
        let output = Command::new("losetup")
            .args(["--find", "--show", "--sector-size", &block_size.to_string()])
            .arg(&file)
            .output();
        match output {
            Ok(output) if output.status.success() => {
                let path = String::from_utf8(output.stdout).unwrap();
                Some(Self { path: path.trim().into(), _dir: dir })
            }
            Ok(output) => {
                eprintln!("not run: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                eprintln!("not run: losetup: {error}");
                None
            }
        }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}

#[test]
fn a_block_device_holds_what_is_written_zeroed_and_trimmed() {
    let Some(device) = LoopDevice::new(512) else { return };
    let mut bench = bench_on(&device.path);
    bench.change(0, 128 << 10, &Change::Write(1));
    bench.change(512, 512, &Change::Write(2));
    bench.change(8192, 16 << 10, &Change::Zero);
    bench.change(1024, 1536, &Change::Zero);
    let end = bench.change(64 << 10, 20 << 10, &Change::Trim);
    assert_eq!(bench.read(0, SIZE), bench.model);
    bench.volumes.apply_to(&mut bench.engine, end);
    bench.volumes.checkpoint(&mut bench.engine);
    bench.settle();
    assert_eq!(bench.volumes.unapplied_bytes(), 0);
    assert_eq!(bench.read(0, SIZE), bench.model);
    assert_eq!(std::fs::read(&device.path).unwrap(), bench.model);
}

#[test]
fn a_device_that_somebody_else_has_claimed_is_refused() {
    let Some(device) = LoopDevice::new(512) else { return };
    let _bench = bench_on(&device.path);
    let mut engine = Uring::new(64).unwrap();
    let second = Store::open(&mut engine, &device.path, geometry(512));
    assert!(matches!(second, Err(StoreError::Busy(_))), "{second:?}");
}

#[test]
fn a_device_with_larger_blocks_than_its_volume_is_refused_with_both_sizes() {
    let Some(device) = LoopDevice::new(4096) else { return };
    let mut engine = Uring::new(64).unwrap();
    let error = Store::open(&mut engine, &device.path, geometry(512)).unwrap_err().to_string();
    assert!(error.contains("4096") && error.contains("512"), "{error}");
    drop(Store::open(&mut engine, &device.path, geometry(4096)).unwrap());
}

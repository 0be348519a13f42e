//! A watchdog of the kernel.
#![allow(unsafe_code, reason = "one call of the kernel for which there is no safe wrapper")]

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use rustix::ioctl::{Updater, ioctl, opcode};

use super::{Device, WatchdogError};

/// `WDIOC_SETTIMEOUT`: takes seconds, gives back what the driver has made of them.
const SET_TIMEOUT: rustix::ioctl::Opcode = opcode::read_write::<i32>(b'W', 6);
/// What is written before a close that is meant.
const MAGIC: &[u8] = b"V";
/// Anything else pets.
const PET: &[u8] = b"p";

/// The kernel's device.
#[derive(Debug)]
pub struct DevWatchdog(File);

impl DevWatchdog {
    /// Opens it, which starts it.
    ///
    /// # Errors
    /// [`WatchdogError`]
    pub fn open(path: &Path) -> Result<Self, WatchdogError> {
        let io = |source| WatchdogError::opening(path, source);
        // Looked at before: a file that is none must not be written to.
        if !std::fs::metadata(path).map_err(io)?.file_type().is_char_device() {
            return Err(WatchdogError::NoWatchdog { path: path.into() });
        }
        OpenOptions::new().write(true).open(path).map(Self).map_err(io)
    }
}

impl Device for DevWatchdog {
    fn set_timeout(&mut self, seconds: u32) -> io::Result<u32> {
        let mut time = i32::try_from(seconds).unwrap_or(i32::MAX);
        // SAFETY: the kernel reads and writes one C int for this code, which is what it is given; a
        // driver that does not know the code touches nothing.
        unsafe { ioctl(&self.0, Updater::<SET_TIMEOUT, i32>::new(&mut time)) }?;
        u32::try_from(time).map_err(|_| io::Error::other(format!("a time of {time} s")))
    }

    fn pet(&mut self) -> io::Result<()> {
        self.0.write_all(PET)
    }

    fn disarm(&mut self) -> io::Result<()> {
        self.0.write_all(MAGIC)
    }
}

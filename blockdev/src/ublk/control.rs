//! Making devices, starting them, and taking them away. Everything here may wait in the kernel.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use libublk::ctrl::{UblkCtrl, UblkCtrlBuilder};
use libublk::io::UblkDev;
use libublk::{UblkError, UblkFlags, sys};

use super::keeper::Opened;
use crate::buffer::BODY_LEN_MAX;

/// Requests under way in each queue at a time.
pub const QUEUE_DEPTH: u16 = 128;
/// Where the kernel takes commands.
const CONTROL: &str = "/dev/ublk-control";
/// Where the kernel lists its devices.
const LIST: &str = "/sys/class/ublk-char";
/// Smallest piece that is worth discarding, in bytes.
const DISCARD_LEN: u32 = 4096;
/// How long a device may still seem to be served after the end of whoever served it.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a device looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// In bytes; a multiple of the block size.
    pub size_bytes: u64,
    /// A power of two from 512 to the page size.
    pub block_size: u32,
    /// Queues; the kernel makes no more than it has processors.
    pub queues: u16,
    /// Requests under way in each at a time.
    pub queue_depth: u16,
    /// By what the volume's device is known again after a restart: another for each volume.
    pub label: u64,
}

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The kernel has no ublk.
    #[error(
        "this kernel has no {CONTROL}; load the module ublk_drv (Linux 6.3 or later), or leave \
         ublk out of the configuration"
    )]
    Missing,
    /// It does not do what was asked.
    #[error(
        "the kernel refuses to {what} a ublk device ({source}); its log says more, and NBD serves \
         the volume all the same"
    )]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Why.
        #[source]
        source: UblkError,
    },
    /// The device is served by somebody.
    #[error("{path} is served by another process; stop that one first")]
    Busy {
        /// The device.
        path: PathBuf,
    },
    /// The device file cannot be used.
    #[error("the ublk device cannot be used ({0}); NBD serves the volume all the same")]
    Io(#[from] io::Error),
}

/// A device that this program serves, or is about to. All of it happens on one thread.
pub(super) struct Device {
    control: UblkCtrl,
    data: UblkDev,
    shape: Shape,
    taken_up: bool,
}

/// Whether this kernel has ublk.
fn is_available() -> bool {
    Path::new(CONTROL).exists()
}

impl Device {
    pub(super) fn open(shape: Shape) -> Result<Self, DeviceError> {
        if !is_available() {
            return Err(DeviceError::Missing);
        }
        if let Some(found) = find_left_over(shape.label)? {
            // A device that is older than a growth stays as large as it was made, for those who
            // have it open; the next one that is made has the new size.
            let size_bytes = size_of_device(&found)?;
            if size_bytes <= shape.size_bytes {
                return Self::take_up(&found, Shape { size_bytes, ..shape });
            }
            remove(&found)?;
        }
        let control = build(shape, -1, UblkFlags::UBLK_DEV_F_ADD_DEV).map_err(refused("make"))?;
        // The kernel makes no more than it has processors.
        let queues = control.dev_info().nr_hw_queues;
        let shape = Shape { queues, ..shape };
        Self::with(control, shape, false)
    }

    fn take_up(found: &UblkCtrl, mut shape: Shape) -> Result<Self, DeviceError> {
        let info = found.dev_info();
        (shape.queues, shape.queue_depth) = (info.nr_hw_queues, info.queue_depth);
        found.start_user_recover().map_err(refused("take up"))?;
        let id = i32::try_from(info.dev_id).unwrap_or(-1);
        let how = UblkFlags::UBLK_DEV_F_RECOVER_DEV;
        let control = build(shape, id, how).map_err(refused("take up"))?;
        Self::with(control, shape, true)
    }

    fn with(control: UblkCtrl, shape: Shape, taken_up: bool) -> Result<Self, DeviceError> {
        // Whatever happens to this program, the device stays until it is taken away on purpose.
        control.disown();
        let name = control.get_name();
        let set = |device: &mut UblkDev| {
            device.tgt.dev_size = shape.size_bytes;
            device.tgt.params = params(&shape);
            Ok(())
        };
        let data = UblkDev::new(name, set, &control).map_err(refused("open"))?;
        Ok(Self { control, data, shape, taken_up })
    }

    /// What whoever serves it needs.
    ///
    /// # Errors
    /// As the system says.
    #[allow(unsafe_code, reason = "borrowing a descriptor that `data` keeps open")]
    pub(super) fn describe(&self) -> Result<Opened, DeviceError> {
        // SAFETY: the file is open for as long as `data` is.
        let file = unsafe { BorrowedFd::borrow_raw(self.data.tgt.fds[0]) };
        let queues = file.try_clone_to_owned()?;
        let path = self.control.get_bdev_path().into();
        Ok(Opened { queues, shape: self.shape, path, taken_up: self.taken_up })
    }

    /// `served_by` is the thread that serves the queues, for whoever lists devices.
    pub(super) fn start(&self, served_by: i32) -> Result<(), DeviceError> {
        for queue in 0..self.shape.queues {
            let told = self.control.configure_queue(&self.data, queue, served_by);
            told.map_err(refused("describe"))?;
        }
        self.control.start_dev(&self.data).map_err(refused("start"))?;
        Ok(())
    }

    pub(super) fn withdraw(&self) -> Result<(), DeviceError> {
        self.control.kill_dev().map_err(refused("stop"))?;
        Ok(())
    }

    pub(super) fn delete(self) -> Result<(), DeviceError> {
        drop(self.data);
        self.control.del_dev_async().map_err(refused("delete"))?;
        Ok(())
    }
}

/// Takes away what waits under `label` and is not served any more; which device, if there was one.
///
/// # Errors
/// [`DeviceError`].
pub fn withdraw_left_over(label: u64) -> Result<Option<PathBuf>, DeviceError> {
    let Some(found) = find_left_over(label)? else { return Ok(None) };
    remove(&found)?;
    Ok(Some(found.get_bdev_path().into()))
}

/// The device with the label that nobody serves any more, if there is one. The kernel takes a
/// moment to notice that whoever served it has ended, and tells nobody when it has.
fn find_left_over(label: u64) -> Result<Option<UblkCtrl>, DeviceError> {
    let patience = Instant::now() + PATIENCE;
    loop {
        let Some(found) = find(label)? else { return Ok(None) };
        if u32::from(found.dev_info().state) == sys::UBLK_S_DEV_QUIESCED {
            return Ok(Some(found));
        }
        if Instant::now() > patience {
            return Err(DeviceError::Busy { path: found.get_bdev_path().into() });
        }
        thread::sleep(LOOK_AGAIN);
    }
}

fn remove(found: &UblkCtrl) -> Result<(), DeviceError> {
    found.kill_dev().map_err(refused("stop"))?;
    // Not later than its last user lets go of it.
    found.del_dev_async().map_err(refused("delete"))?;
    Ok(())
}

/// The device with the label, if there is one. One that was taken away counts no more, though it
/// stays for as long as somebody has it open.
fn find(label: u64) -> Result<Option<UblkCtrl>, DeviceError> {
    let entries = match std::fs::read_dir(LIST) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("ublkc"));
        let Some(id) = number.and_then(|number| number.parse().ok()) else { continue };
        // One that has gone meanwhile, or is another user's.
        let Ok(control) = UblkCtrl::new_simple(id) else { continue };
        let known = control.read_dev_info().is_ok();
        let info = control.dev_info();
        let alive = u32::from(info.state) != sys::UBLK_S_DEV_DEAD;
        if known && alive && info.ublksrv_flags == label {
            return Ok(Some(control));
        }
    }
    Ok(None)
}

fn size_of_device(control: &UblkCtrl) -> Result<u64, DeviceError> {
    let mut params = sys::ublk_params::default();
    control.get_params(&mut params).map_err(refused("describe"))?;
    Ok(params.basic.dev_sectors.saturating_mul(512))
}

fn build(shape: Shape, id: i32, how: UblkFlags) -> Result<UblkCtrl, UblkError> {
    let flags = sys::UBLK_F_USER_COPY
        | sys::UBLK_F_CMD_IOCTL_ENCODE
        | sys::UBLK_F_USER_RECOVERY
        | sys::UBLK_F_USER_RECOVERY_REISSUE;
    UblkCtrlBuilder::default()
        .name("hadrian")
        .id(id)
        .nr_queues(shape.queues)
        .depth(shape.queue_depth)
        .io_buf_bytes(u32::try_from(BODY_LEN_MAX).unwrap_or(u32::MAX))
        .ctrl_flags(flags.into())
        .ctrl_target_flags(shape.label)
        .dev_flags(how)
        .build()
}

/// What the block layer is told.
fn params(shape: &Shape) -> sys::ublk_params {
    let shift = |bytes: u32| u8::try_from(bytes.trailing_zeros()).unwrap_or(9);
    let sectors = u32::try_from(BODY_LEN_MAX >> 9).unwrap_or(u32::MAX);
    let basic = sys::ublk_param_basic {
        attrs: sys::UBLK_ATTR_VOLATILE_CACHE | sys::UBLK_ATTR_FUA,
        logical_bs_shift: shift(shape.block_size),
        physical_bs_shift: shift(shape.block_size.max(4096)),
        io_opt_shift: shift(shape.block_size.max(4096)),
        io_min_shift: shift(shape.block_size.max(4096)),
        max_sectors: sectors,
        dev_sectors: shape.size_bytes >> 9,
        ..Default::default()
    };
    let discard = sys::ublk_param_discard {
        discard_granularity: DISCARD_LEN.max(shape.block_size),
        max_discard_sectors: u32::MAX >> 9,
        max_write_zeroes_sectors: u32::MAX >> 9,
        max_discard_segments: 1,
        ..Default::default()
    };
    let types = sys::UBLK_PARAM_TYPE_BASIC | sys::UBLK_PARAM_TYPE_DISCARD;
    let len = u32::try_from(size_of::<sys::ublk_params>()).unwrap_or(0);
    sys::ublk_params { len, types, basic, discard, ..Default::default() }
}

fn refused(what: &'static str) -> impl Fn(UblkError) -> DeviceError {
    move |source| DeviceError::Refused { what, source }
}

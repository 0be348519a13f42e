//! Volumes as block devices of this kernel, for as long as the resource serves.
//!
//! A device is taken away when this member is no longer primary, so that nobody goes on there. When
//! the resource is only stopped, or this program ends, the device stays and its requests wait for
//! whoever serves the volume next on this host.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use hadrian_blockdev::export::{Backend, Close, CloseHandle};
use hadrian_blockdev::ublk::{
    DeviceError, End, Keeper, Opened, QUEUE_DEPTH, Queues, Shape, withdraw_left_over,
};
use hadrian_fencing::clock::since_boot;
use hadrian_protocol::ids::{MemberId, ResourceId};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use tokio::task::{spawn_blocking, spawn_local};

/// Where devices are found by the names of their volumes.
const BY_NAME: &str = "/dev/hadrian";

/// The devices of one resource.
pub(super) struct Devices {
    volumes: Vec<Rc<Device>>,
    served: Vec<CloseHandle>,
}

/// The device of one volume.
struct Device {
    name: String,
    label: u64,
    queues: u16,
    /// What came before has ended before the next begins.
    turn: Mutex<()>,
}

impl Devices {
    /// The devices of these volumes of a member's replica, in their order, each with so many queues
    /// at most; nothing is made yet.
    pub(super) fn new(of: (ResourceId, MemberId), volumes: &[String], queues: u16) -> Self {
        let device = |(volume, name): (usize, &String)| {
            let (name, label) = (name.clone(), label(of, volume));
            Rc::new(Device { name, label, queues, turn: Mutex::default() })
        };
        Self { volumes: volumes.iter().enumerate().map(device).collect(), served: Vec::new() }
    }

    /// Serves a volume from now on.
    pub(super) fn open(&mut self, volume: usize, backend: Rc<dyn Backend>) {
        let Some(device) = self.volumes.get(volume).cloned() else { return };
        let close = CloseHandle::new();
        self.served.push(close.clone());
        spawn_local(async move {
            let _turn = device.turn.lock().await;
            if let Err(error) = serve(&device, backend, &close).await {
                tracing::error!(volume = %device.name, %error, "the volume is no block device");
            }
        });
    }

    /// Serves no longer. Cut, requests wait for whoever serves the volume here next; else the
    /// devices are taken away.
    pub(super) fn close(&mut self, how: Close) {
        self.served.drain(..).for_each(|close| close.close(how));
    }

    /// Takes away what an earlier life of this program has left: this member leads no more.
    pub(super) fn withdraw_left_over(&self) {
        for device in self.volumes.iter().cloned() {
            spawn_local(async move {
                let _turn = device.turn.lock().await;
                device.withdraw_left_over().await;
            });
        }
    }
}

impl Device {
    async fn withdraw_left_over(&self) {
        let (label, name) = (self.label, &self.name);
        match spawn_blocking(move || withdraw_left_over(label)).await {
            Ok(Ok(Some(path))) => {
                unlink(name, &path);
                tracing::warn!(volume = %name, "the block device is gone: not primary any more");
            }
            Ok(Err(error)) => tracing::warn!(volume = %name, %error, "an old device stays"),
            _ => {}
        }
    }
}

/// By this number a volume's device is known again.
fn label((resource, member): (ResourceId, MemberId), volume: usize) -> u64 {
    let mut hash = Sha256::new();
    hash.update(resource.as_bytes());
    hash.update([member.index()]);
    hash.update((volume as u64).to_le_bytes());
    hash.finalize().iter().take(8).fold(0, |label, byte| label << 8 | u64::from(*byte))
}

async fn serve(
    device: &Device,
    backend: Rc<dyn Backend>,
    close: &CloseHandle,
) -> Result<(), DeviceError> {
    let info = backend.info();
    let (size_bytes, block_size) = (info.size_bytes, info.block_size);
    let (label, queues, queue_depth) = (device.label, device.queues, QUEUE_DEPTH);
    let shape = Shape { size_bytes, block_size, queues, queue_depth, label };
    let (keeper, opened) = Keeper::open(shape).await?;
    let Opened { queues, shape, path, taken_up } = opened;
    let queues = match Queues::open(queues, &shape, backend, close) {
        Ok(queues) => queues,
        Err(error) => return give_up(keeper, taken_up, error.into()).await,
    };
    let served = queues.serve();
    let kept = keep(&keeper, &device.name, &path, taken_up, close);
    tokio::pin!(served);
    let end = tokio::select! {
        end = &mut served => end,
        kept = kept => match kept {
            Ok(()) => served.await,
            Err(error) => return give_up(keeper, taken_up, error).await,
        },
    };
    match end? {
        End::Gone => {
            keeper.delete().await?;
            let at_ms = since_boot().as_millis();
            tracing::info!(volume = %device.name, at_ms, "the block device is gone");
            Ok(())
        }
        End::Cut => Ok(()),
    }
}

/// A device that was just made has been seen by nobody. At one that was there before requests wait:
/// it is left to the next attempt.
async fn give_up(keeper: Keeper, taken_up: bool, error: DeviceError) -> Result<(), DeviceError> {
    if !taken_up {
        keeper.delete().await?;
    }
    Err(error)
}

/// Starts the device, and takes it away when it is time for that.
async fn keep(
    keeper: &Keeper,
    name: &str,
    path: &Path,
    taken_up: bool,
    close: &CloseHandle,
) -> Result<(), DeviceError> {
    keeper.start().await?;
    let linked = link(name, path);
    let (device, by_name) = (path.display(), linked.as_ref().map(|link| link.display()));
    match by_name {
        Ok(link) => tracing::info!(volume = name, %device, %link, taken_up, "it is a block device"),
        Err(error) => tracing::warn!(volume = name, %device, %error, "no link to the device"),
    }
    match close.thrown(None).await {
        Close::Drain => {
            unlink(name, path);
            keeper.withdraw().await?;
        }
        // The device stays; only this program's part in it ends.
        Close::Cut => {}
    }
    Ok(())
}

fn place(name: &str) -> PathBuf {
    Path::new(BY_NAME).join(name)
}

/// `/dev/hadrian/RESOURCE/VOLUME`, which replaces an older one.
fn link(name: &str, path: &Path) -> io::Result<PathBuf> {
    let link = place(name);
    if let Some(dir) = link.parent() {
        fs::create_dir_all(dir)?;
    }
    // Of a device that is gone, most often of none.
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(path, &link)?;
    Ok(link)
}

/// Removes the link, unless it leads to another device by now.
fn unlink(name: &str, path: &Path) {
    let link = place(name);
    if fs::read_link(&link).is_ok_and(|to| to == path) {
        let _ = fs::remove_file(link);
    }
}

//! `hadrian attach nbd`: a volume as a block device of this host's kernel, over its NBD driver.
//!
//! The daemon serves; the kernel is its client, over the same unix socket as any other. This side
//! only sets the device up and watches: when the daemon goes, requests wait in the kernel, and a
//! daemon that comes back gets them over new connections. When the member is no longer primary the
//! device is taken down, and what waits there fails: nobody may believe that it was written.

pub(crate) mod export;
mod netlink;

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hadrian_protocol::node::Standing;
use rustix::event::{PollFd, PollFlags, poll};

use crate::control::{self, Request, Response};
use export::{ExportError, Facts};
use netlink::Driver;

/// Between two looks for a daemon that is away, or for a volume that is not served here.
const PAUSE: Duration = Duration::from_millis(200);

/// What is attached.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// The resource.
    pub resource: String,
    /// The export's name, RESOURCE/VOLUME.
    pub export: String,
    /// The NBD socket of this member.
    pub socket: PathBuf,
    /// The control socket of its daemon.
    pub control: PathBuf,
    /// The number of the device; `None`: the first that is free.
    pub device: Option<u32>,
    /// Connections, at least one: as many requests are read and answered at the same time.
    pub connections: usize,
    /// How long requests wait for a daemon that is away.
    pub hold: Duration,
}

/// What happens to an attachment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Happened {
    /// The device of this number is there.
    Attached(u32),
    /// The daemon is away; requests wait.
    Held(u32),
    /// It is back.
    Resumed(u32),
    /// The member does not serve the volume any more; the device is gone.
    Withdrawn(u32),
    /// The volume is not served here; the device comes when it is.
    Waits,
}

/// Sets a device up whenever the volume is served here, and keeps it for as long as it is; returns
/// when `stop` says so, with the device taken down.
///
/// # Errors
/// If the kernel refuses, or the volume became smaller, as another one under its name may be.
pub fn attach(
    wanted: &Attachment,
    stop: &dyn Fn() -> bool,
    mut tell: impl FnMut(Happened),
) -> anyhow::Result<()> {
    let driver = Driver::open()?;
    let mut device = wanted.device;
    while !stop() {
        let Some((sockets, facts)) = served(wanted, stop, &mut tell) else { return Ok(()) };
        let number = driver.connect(device, facts, &sockets, wanted.hold)?;
        device = Some(number);
        tell(Happened::Attached(number));
        let kept = keep(wanted, &driver, (number, facts), sockets, stop, &mut tell);
        // Why it ends says more than that it could not be taken down.
        let gone = driver.disconnect(number);
        kept.and(gone)?;
        tell(Happened::Withdrawn(number));
    }
    Ok(())
}

/// Waits until this member serves the volume.
fn served(
    wanted: &Attachment,
    stop: &dyn Fn() -> bool,
    tell: &mut dyn FnMut(Happened),
) -> Option<(Vec<UnixStream>, Facts)> {
    let mut told = false;
    while !stop() {
        if let Ok(found) = connections(wanted) {
            return Some(found);
        }
        if !std::mem::replace(&mut told, true) {
            tell(Happened::Waits);
        }
        // A role in another process: it can only be asked again.
        std::thread::sleep(PAUSE);
    }
    None
}

/// Keeps the device until the member does not serve the volume any more.
fn keep(
    wanted: &Attachment,
    driver: &Driver,
    (device, mut facts): (u32, Facts),
    mut sockets: Vec<UnixStream>,
    stop: &dyn Fn() -> bool,
    tell: &mut dyn FnMut(Happened),
) -> anyhow::Result<()> {
    loop {
        if !await_end(&sockets, stop)? {
            return Ok(());
        }
        tell(Happened::Held(device));
        let Some((fresh, now)) = again(wanted, stop) else { return Ok(()) };
        let same = Facts { size_bytes: facts.size_bytes, ..now } == facts;
        if !same || now.size_bytes < facts.size_bytes {
            anyhow::bail!(
                "the volume had {} bytes and has {} now; the device is taken down, attach it again",
                facts.size_bytes,
                now.size_bytes
            );
        }
        driver.reconfigure(device, now.size_bytes, &fresh)?;
        (sockets, facts) = (fresh, now);
        tell(Happened::Resumed(device));
    }
}

/// Connects again after a daemon went away; `None` where the member is not primary any more, or
/// requests have waited long enough.
fn again(wanted: &Attachment, stop: &dyn Fn() -> bool) -> Option<(Vec<UnixStream>, Facts)> {
    let deadline = Instant::now() + wanted.hold;
    while !stop() && Instant::now() < deadline {
        match connections(wanted) {
            Ok(found) => return Some(found),
            // It may be on its way to be primary again.
            Err(ExportError::NotServed(_)) if leads_no_more(wanted) => return None,
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
    None
}

/// Whether the daemon says that this member is not the one to be primary, or that requests are to
/// fail while it has no lease.
fn leads_no_more(wanted: &Attachment) -> bool {
    let request = Request::Status { resource: Some(wanted.resource.clone()) };
    let Ok(Response::Status(all)) = control::ask(&wanted.control, request) else { return false };
    let Some(status) = all.into_iter().next() else { return false };
    status.withdrawn
        || status.node.is_some_and(|node| {
            matches!(node.standing, Standing::Standby | Standing::Failed(_) | Standing::Diverged(_))
        })
}

fn connections(wanted: &Attachment) -> Result<(Vec<UnixStream>, Facts), ExportError> {
    let all: Result<Vec<_>, _> = (0..wanted.connections.max(1))
        .map(|_| export::connect(&wanted.socket, &wanted.export))
        .collect();
    let (sockets, facts): (Vec<_>, Vec<_>) = all?.into_iter().unzip();
    Ok((sockets, facts[0]))
}

/// Waits until one of the connections has ended, or `stop` says so; whether one has.
fn await_end(sockets: &[UnixStream], stop: &dyn Fn() -> bool) -> anyhow::Result<bool> {
    let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
    while !stop() {
        // Only ends are asked for: what comes in is the kernel's, and wakes nobody here.
        let mut watched: Vec<_> =
            sockets.iter().map(|socket| PollFd::new(socket, PollFlags::RDHUP)).collect();
        match poll(&mut watched, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

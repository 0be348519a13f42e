//! `hadrian attach nbd`

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::args::Args;
use super::{configuration, resource};
use crate::attach::{Attachment, Happened, attach};

/// Set by a signal: the device is to be taken down.
static STOP: AtomicBool = AtomicBool::new(false);

/// What was typed of the device.
pub(super) struct Wish<'a> {
    pub(super) volume: &'a str,
    pub(super) device: Option<u32>,
    pub(super) connections: usize,
    pub(super) hold: Duration,
}

pub(super) fn nbd(args: &Args, wish: &Wish<'_>) -> anyhow::Result<()> {
    let (config, me) = configuration(args)?;
    let name = wish.volume.split('/').next().unwrap_or_default();
    let resource = resource(&config, name)?;
    let exports = resource.exports();
    let export = match exports.as_slice() {
        [only] if wish.volume == resource.name => only.clone(),
        all if all.iter().any(|export| export == wish.volume) => wish.volume.to_string(),
        all => bail!("no volume {:?}; there are {}", wish.volume, all.join(", ")),
    };
    let attachment = Attachment {
        resource: resource.name.clone(),
        export: export.clone(),
        socket: me.nbd_socket(resource),
        control: me.control_socket(),
        device: wish.device,
        connections: wish.connections,
        hold: wish.hold,
    };
    stop_on_signals()?;
    attach(&attachment, &|| STOP.load(Ordering::Relaxed), |happened| {
        tell(&export, happened, args.json);
    })
}

/// The two signals that end a service take the device down in order.
fn stop_on_signals() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let inside = runtime.enter();
    let listen = |kind| signal(kind).context("the signals that end this cannot be listened to");
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    drop(inside);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        STOP.store(true, Ordering::Relaxed);
    });
    Ok(())
}

fn tell(export: &str, happened: Happened, as_json: bool) {
    let (code, device, text) = match happened {
        Happened::Attached(device) => ("attached", Some(device), "is"),
        Happened::Held(device) => ("held", Some(device), "waits for the daemon at"),
        Happened::Resumed(device) => ("resumed", Some(device), "goes on at"),
        Happened::Withdrawn(device) => ("withdrawn", Some(device), "is taken from"),
        Happened::Waits => ("waits", None, "is not served by this member yet"),
    };
    let device = device.map(|number| format!("/dev/nbd{number}"));
    if as_json {
        say!("{}", json!({ "event": code, "volume": export, "device": device }));
    } else {
        say!("{export} {text} {}", device.unwrap_or_default());
    }
    if matches!(happened, Happened::Attached(_) | Happened::Waits) {
        // Without systemd nobody waits for the word.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    }
}

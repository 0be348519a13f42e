//! `hadrian takeover`: planned, by proof, by force; tested and given up.

use anyhow::{Context as _, bail};
use hadrian_protocol::ids::{Epoch, MemberId};
use hadrian_protocol::node::{How, Limits};

use super::args::{Args, Takeover};
use super::{ask_within, back, command, configuration, confirm, loss, progress, report, status_of};
use crate::config::Config;
use crate::control::Request;

const FORCE_WARNING: &str = "A forced takeover does not ask the old primary. Without ownership \
marks nothing keeps that one from serving again: make sure that it is down. Writes that this \
standby has not received are lost here; the old primary keeps them until its return is decided.";
const PROOF_WARNING: &str = "This standby takes over only while it can prove that no answered \
write is missing here. That does not keep the old primary from serving again when its peer window \
ends: make sure that it is down, or set on_window_end = \"hold\".";

/// Asks the daemon for a takeover.
pub(super) fn takeover(args: &Args, wish: &Takeover) -> anyhow::Result<()> {
    let resource = wish.resource.clone();
    if wish.cancel {
        return command(args, Request::Cancel { resource });
    }
    let how = how(args, wish)?;
    if let Some(at) = &wish.to {
        return back::take_back(args, wish, (how, at));
    }
    if matches!(how, How::Force | How::Override { .. }) {
        // Before anybody is asked to confirm it, and also where nobody is.
        match status_of(args, &resource) {
            Ok(status) => loss::forecast(&status).iter().for_each(|line| eprintln!("{line}")),
            Err(error) => eprintln!("what may be lost cannot be told: {error:#}"),
        }
    }
    let warning = match how {
        How::Planned(_) => None,
        How::PeerWindowOnly => Some(PROOF_WARNING),
        How::Force | How::Override { .. } => Some(FORCE_WARNING),
    };
    if let Some(warning) = warning.filter(|_| !wish.test) {
        confirm(wish.yes, warning)?;
    }
    fence(args, wish)?;
    let request = Request::Takeover { resource: resource.clone(), how, test: wish.test, to: None };
    if wish.test { command(args, request) } else { progress::follow(args, &resource, request) }
}

/// Has the owner stopped first, where that is wanted.
pub(super) fn fence(args: &Args, wish: &Takeover) -> anyhow::Result<()> {
    if !wish.fence {
        return Ok(());
    }
    // The command has a limit of its own.
    let fence = Request::Fence { resource: wish.resource.clone() };
    report(args, ask_within(args, fence, None)?)
}

fn how(args: &Args, wish: &Takeover) -> anyhow::Result<How> {
    let limits = Limits { max_quiesce: wish.max_quiesce, max_total: wish.max_total };
    Ok(match &wish.r#override {
        Some(text) => {
            let (config, _) = configuration(args)?;
            let (owner, epoch) = owner_and_epoch(&config, text)?;
            How::Override { owner, epoch }
        }
        None if wish.peer_window_only => How::PeerWindowOnly,
        None if wish.force => How::Force,
        None => How::Planned(limits),
    })
}

/// `MEMBER:EPOCH`, as status shows the owner.
fn owner_and_epoch(config: &Config, text: &str) -> anyhow::Result<(MemberId, Epoch)> {
    let parts = text.split_once(':').and_then(|(name, epoch)| {
        let epoch = epoch.parse().ok().and_then(Epoch::from_outside)?;
        Some((name, epoch))
    });
    let (name, epoch) = parts
        .with_context(|| format!("{text:?} is no MEMBER:EPOCH; status shows owner and epoch"))?;
    match config.member(name) {
        Some(member) => Ok((member.id, epoch)),
        None => bail!("{name:?} is no member"),
    }
}

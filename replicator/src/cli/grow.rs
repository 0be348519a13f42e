//! `hadrian grow`: a volume becomes larger on every member, while clients use it.

use anyhow::{Context as _, bail};
use hadrian_protocol::ids::VolumeIndex;
use hadrian_protocol::node::Standing;

use super::args::{Args, Grow};
use super::{ask_within, configuration, resource, status, status_of, words};
use crate::config::Config;
use crate::control::{Request, Response};

/// Asks the primary, and says what became of it.
pub(super) fn grow(args: &Args, wish: &Grow) -> anyhow::Result<()> {
    let (config, _) = configuration(args)?;
    let of = resource(&config, &wish.resource)?;
    let place = of.volumes.iter().position(|volume| volume.name == wish.volume);
    let index = place.and_then(|place| u16::try_from(place).ok()).and_then(VolumeIndex::new);
    let Some(volume) = index else {
        let names: Vec<_> = of.volumes.iter().map(|volume| volume.name.as_str()).collect();
        bail!("{} has no volume {:?}; there are {}", of.name, wish.volume, names.join(", "));
    };
    elsewhere(args, wish)?;
    let request = Request::Grow {
        resource: wish.resource.clone(),
        volume,
        size_bytes: wish.size.as_u64(),
        test: wish.dry_run,
    };
    // A member may have to overwrite a device; the daemons bound how long that is waited for.
    let response = ask_within(args, request, None)?;
    if args.json {
        say!("{}", serde_json::to_string(&response)?);
    }
    match response {
        Response::Done(done) if !args.json => say!("{}", status::done(done)),
        Response::Refused { message, .. } => bail!(named(&config, message)),
        _ => {}
    }
    Ok(())
}

/// Where somebody else is primary, that one is to be asked.
fn elsewhere(args: &Args, wish: &Grow) -> anyhow::Result<()> {
    let status = status_of(args, &wish.resource)?;
    let node = status.node.as_ref().context("the resource does not run here; start it first")?;
    if let Some(primary) = node.leader.filter(|_| node.standing != Standing::Primary) {
        bail!(
            "{} is not the primary of {}; ask on {}, the same way",
            status.member,
            wish.resource,
            words::name(&status, primary)
        );
    }
    Ok(())
}

/// Members are numbers to a daemon's core.
fn named(config: &Config, message: String) -> String {
    let members = config.members.iter();
    members.fold(message, |text, member| text.replace(&member.id.to_string(), &member.name))
}

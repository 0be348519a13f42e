//! `hadrian verify`: whether a standby holds what its primary does, and making it so.

use std::time::Duration;

use anyhow::{Context as _, bail};
use hadrian_protocol::node::{VerifyState, VerifyStatus};
use indicatif::{ProgressBar, ProgressStyle};

use super::args::Args;
use super::{ask, configuration, status_of, words};
use crate::control::{Request, ResourceStatus, Response};

const LOOK: Duration = Duration::from_millis(100);

/// What is to be compared, and whose bytes are right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'a> {
    pub(super) resource: &'a str,
    pub(super) standby: Option<&'a str>,
    pub(super) from: Option<&'a str>,
}

/// Begins a comparison and follows it to its end.
pub(super) fn verify(args: &Args, wish: Wish<'_>, repair: bool) -> anyhow::Result<()> {
    let Wish { resource, standby, from } = wish;
    let (config, _) = configuration(args)?;
    let id = |name: &str| {
        config
            .member(name)
            .map(|member| member.id)
            .with_context(|| format!("{name:?} is no member"))
    };
    let (standby, from) = (standby.map(id).transpose()?, from.map(id).transpose()?);
    if repair && from.is_none() {
        bail!(
            "--repair has to know whose bytes are right, and nothing was compared: see where the \
             two differ with hadrian verify {resource}, find out which side is right, and name it \
             with --from MEMBER"
        );
    }
    let request = Request::Verify { resource: resource.to_owned(), standby, from };
    if let Response::Refused { message, .. } = ask(args, request)? {
        bail!(message);
    }
    let (status, found) = follow(args, resource)?;
    if args.json {
        say!("{}", serde_json::to_string(&found)?);
    } else {
        say!("{}", words::verify(&status, &found));
        words::differing(&found).iter().for_each(|line| say!("{line}"));
        if let Some(line) = words::where_kept(&status, &found) {
            say!("{line}");
        }
    }
    match (found.state, found.differs.is_empty() || found.right.is_some()) {
        (VerifyState::Done, true) => Ok(()),
        (VerifyState::Done, false) => bail!("the two images differ"),
        _ => bail!("the comparison did not come to its end"),
    }
}

fn follow(args: &Args, resource: &str) -> anyhow::Result<(ResourceStatus, VerifyStatus)> {
    let bar = if args.json { ProgressBar::hidden() } else { bar() };
    loop {
        let status = status_of(args, resource)?;
        let found = status.node.as_ref().and_then(|node| node.verify.clone());
        let Some(found) = found else { bail!("the daemon was started anew; begin again") };
        bar.set_length(found.total);
        bar.set_position(found.done);
        if found.state != VerifyState::Running {
            bar.finish_and_clear();
            return Ok((status, found));
        }
        // Polling is all that can be done to another process.
        std::thread::sleep(LOOK);
    }
}

fn bar() -> ProgressBar {
    let form = "comparing {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
    let style = ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}

//! `hadrian explain` and `hadrian events`: why it is as it is, and how it came to be so.

use std::time::Duration;

use anyhow::bail;
use hadrian_protocol::node::{About, Reason};

use super::args::Args;
use super::{ask, status_of, words};
use crate::control::{Request, ResourceStatus, Response, ToldEvent};
use crate::out;

/// Answers why a resource is not in peer, not primary, or holds its answers.
pub(super) fn explain(args: &Args, resource: &str) -> anyhow::Result<()> {
    let status = &status_of(args, resource)?;
    let reasons = status.node.as_ref().map_or(&[][..], |node| &node.reasons);
    if args.json {
        let values: Vec<_> = reasons.iter().map(|reason| json(status, reason)).collect();
        say!("{}", serde_json::to_string(&values)?);
        return Ok(());
    }
    if let Some(stopped) = &status.stopped {
        say!("{resource} does not run: {stopped}; start it with: hadrian start {resource}");
    } else if reasons.is_empty() {
        say!("{resource} is primary, its standbys are in peer, and no answer is held");
    }
    for reason in reasons {
        say!("{}", sentence(status, reason));
    }
    if let Some(found) = &status.divergence {
        say!("a return to the primary's history {}", words::divergence(found));
        words::divergent_ranges(status, found).iter().for_each(|line| say!("{line}"));
    }
    Ok(())
}

fn json(status: &ResourceStatus, reason: &Reason) -> serde_json::Value {
    serde_json::json!({
        "about": reason.about,
        "member": reason.member.map(|member| words::name(status, member)),
        "code": reason.why.code(),
        "sentence": reason.why.to_string(),
    })
}

fn sentence(status: &ResourceStatus, reason: &Reason) -> String {
    let about = match reason.about {
        About::NotInPeer => "not in peer",
        About::NotPrimary => "not primary",
        About::HoldsAnswers => "holds answers",
        About::Behind => "behind",
    };
    let member = reason.member.map(|member| format!(", {}", words::name(status, member)));
    let (member, code) = (member.unwrap_or_default(), reason.why.code());
    format!("{about}{member} [{code}]: {}", reason.why)
}

/// How often a follower asks for more.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// Prints what happened, oldest first; goes on for ever if asked to.
pub(super) fn events(args: &Args, resource: &str, follow: bool) -> anyhow::Result<()> {
    let mut after = 0;
    loop {
        let request = Request::Events { resource: resource.to_string(), after };
        let events = match ask(args, request)? {
            Response::Events(events) => events,
            Response::Refused { message, .. } => bail!(message),
            _ => bail!("the daemon answered something else"),
        };
        for event in &events {
            after = event.number;
            match args.json {
                true => say!("{}", serde_json::to_string(event)?),
                false => say!("{}", line(event)),
            }
        }
        if !follow || out::is_over() {
            return Ok(());
        }
        std::thread::sleep(FOLLOW_EVERY);
    }
}

fn line(event: &ToldEvent) -> String {
    let at = humantime::format_rfc3339_millis(words::moment(event.wall_us));
    format!("{at} {:>4} [{}] {}", event.number, event.code, event.text)
}

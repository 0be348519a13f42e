//! `hadrian takeover --force --to`: a takeover whose history goes on from a point of the past, to
//! undo what was written on every member since (design §6.2, §8.5).

use anyhow::bail;
use hadrian_protocol::node::{How, NodeStatus};
use serde_json::json;

use super::args::{Args, Takeover};
use super::{ask, confirm, history, progress, status_of, takeover, words};
use crate::control::{At, FoundPoint, Request, ResourceStatus, Response};

const WARNING: &str = "What was written behind this point is given up on every member. Here it, \
and what the blocks held, goes to quarantine first; each other member keeps what it has until its \
return is decided, and then it goes to quarantine there. Without ownership marks nothing keeps the \
old primary from serving again: make sure that it is down.";

/// Says what would be given up, and then does it.
pub(super) fn take_back(args: &Args, wish: &Takeover, (how, at): (How, &At)) -> anyhow::Result<()> {
    let resource = wish.resource.clone();
    let by_force = matches!(how, How::Force | How::Override { .. });
    if !by_force && !wish.test {
        bail!(
            "to go back gives up what was written since the point, on every member: add --test to \
             see how much that is, and --force to do it"
        );
    }
    let how = if by_force { how } else { How::Force };
    let found = match ask(args, Request::Find { resource: resource.clone(), at: at.clone() })? {
        Response::Found(found) => found,
        Response::Refused { message, .. } => bail!(message),
        _ => bail!("the daemon answered something else"),
    };
    let status = status_of(args, &resource)?;
    let lines = given_up(&status, &found);
    // The very point that was found, whatever is written meanwhile.
    let to = Some(At::Lsn(found.point.lsn));
    let request = Request::Takeover { resource: resource.clone(), how, test: wish.test, to };
    if wish.test {
        return test(args, request, (&status, &found), &lines);
    }
    lines.iter().for_each(|line| eprintln!("{line}"));
    confirm(wish.yes, WARNING)?;
    takeover::fence(args, wish)?;
    progress::follow(args, &resource, request)
}

fn test(
    args: &Args,
    request: Request,
    (status, found): (&ResourceStatus, &FoundPoint),
    lines: &[String],
) -> anyhow::Result<()> {
    let answer = ask(args, request)?;
    if args.json {
        let behind = status.node.as_ref().map(|node| own_log(node, found));
        let told = json!({
            "point": found.point,
            "is_ahead": found.is_ahead,
            "log_bytes": behind.map(|(bytes, _)| bytes),
            "log_us": behind.and_then(|(_, us)| us),
            "primary_log_bytes": status.node.as_ref().and_then(|node| {
                Some(node.primary_end?.since(found.point.lsn))
            }),
            "answer": answer,
        });
        say!("{told}");
    } else {
        lines.iter().for_each(|line| say!("{line}"));
    }
    match answer {
        Response::Refused { message, .. } => bail!(message),
        Response::Done(_) if !args.json => say!("the takeover would be granted"),
        _ => {}
    }
    Ok(())
}

/// Bytes of this member's log behind the point, and over what time they were written, where that is
/// known.
fn own_log(node: &NodeStatus, found: &FoundPoint) -> (u64, Option<u64>) {
    let bytes = node.end.since(found.point.lsn);
    let us = node.log_wall_us.zip(found.point.wall_us);
    (bytes, us.map(|(last, point)| last.saturating_sub(point)))
}

/// Everything that an operator should know first, one sentence a line.
fn given_up(status: &ResourceStatus, found: &FoundPoint) -> Vec<String> {
    let called = found.point.name.as_ref().map_or(String::new(), |name| format!(", called {name}"));
    let mut lines = vec![format!("It goes back to {}{called}.", history::point(&found.point))];
    let Some(node) = &status.node else { return lines };
    let (bytes, us) = own_log(node, found);
    let work = us.map_or(String::new(), |us| format!(", the work of {}", words::time(us)));
    lines.push(format!(
        "The log of this member ends at {}: {} of it{work}, are given up and go to quarantine \
         here.",
        node.end,
        words::bytes(bytes)
    ));
    let leader = node.leader.filter(|leader| *leader != node.member);
    let name = leader.map_or("the primary", |leader| words::name(status, leader));
    lines.push(match node.primary_end {
        Some(end) => format!(
            "The log of {name} ended at {end} when it last said so: {} of it are given up.",
            words::bytes(end.since(found.point.lsn))
        ),
        None => format!(
            "How far the log of {name} goes is not known: this member was told nothing since it \
             was started. All of it behind the point is given up."
        ),
    });
    lines.push(
        "Every other member diverges at the point, and comes back by hadrian rejoin there.".into(),
    );
    lines
}

#[cfg(test)]
mod tests {
    use hadrian_protocol::ids::Lsn;

    use super::super::loss::tests::beta;
    use super::*;
    use crate::control::PointStatus;

    fn found(lsn: u64, wall_us: Option<u64>) -> FoundPoint {
        let name = Some("before-upgrade".into());
        FoundPoint { point: PointStatus { name, lsn: Lsn::new(lsn), wall_us }, is_ahead: false }
    }

    #[test]
    fn what_is_given_up_is_said_of_this_member_and_of_the_primary() {
        let mut status = beta();
        let node = status.node.as_mut().unwrap();
        node.end = Lsn::new(4096 + (5 << 20));
        node.primary_end = Some(Lsn::new(4096 + (7 << 20)));
        node.log_wall_us = Some(1_790_000_061_000_000);
        let told = given_up(&status, &found(4096, Some(1_790_000_000_000_000))).join("\n");
        assert!(told.contains("goes back to 0/00001000 (2026-"), "{told}");
        assert!(told.contains("called before-upgrade"), "{told}");
        assert!(told.contains("5.0 MiB of it, the work of 1m 1s, are given up"), "{told}");
        assert!(told.contains("alpha ended at 0/00701000 when it last said so: 7.0 MiB"), "{told}");
    }

    #[test]
    fn what_cannot_be_known_is_not_guessed() {
        let told = given_up(&beta(), &found(4096, None)).join("\n");
        assert!(told.contains("How far the log of alpha goes is not known"), "{told}");
        assert!(!told.contains("the work of"), "{told}");
    }
}

//! `hadrian marker`: a name for the point that the history is at now.

use anyhow::bail;
use hadrian_protocol::node::Standing;
use hadrian_protocol::point::PointName;

use super::args::Args;
use super::{all_status, ask, words};
use crate::control::{NamedPoint, Request, Response};

/// Names the point of each of `resources`; of all of which this member is the primary, if none is
/// given. Where `if_primary`, a resource that is somebody else's is no failure.
pub(super) fn marker(
    args: &Args,
    name: &PointName,
    resources: &[String],
    if_primary: bool,
) -> anyhow::Result<()> {
    let mut own = Vec::new();
    for status in all_status(args, None)? {
        let leads = status.node.is_some_and(|node| node.standing == Standing::Primary);
        if leads {
            own.push(status.resource);
        }
    }
    let wanted = match (resources, if_primary) {
        ([], _) => own,
        (named, true) => named.iter().filter(|one| own.contains(one)).cloned().collect(),
        (named, false) => named.to_vec(),
    };
    if wanted.is_empty() && !if_primary {
        bail!("this member is the primary of no resource, and only a primary can name a point");
    }
    let mut points = Vec::new();
    for resource in wanted {
        points.push((resource.clone(), name_point(args, name, resource)?));
    }
    show(args, &points)
}

fn name_point(args: &Args, name: &PointName, resource: String) -> anyhow::Result<NamedPoint> {
    let shown = resource.clone();
    match ask(args, Request::Point { resource, name: name.clone() })? {
        Response::Named(point) => Ok(point),
        Response::Refused { message, .. } => bail!("{shown}: {message}"),
        _ => bail!("the daemon answered something else"),
    }
}

fn show(args: &Args, points: &[(String, NamedPoint)]) -> anyhow::Result<()> {
    if args.json {
        let values = points.iter().map(|(resource, point)| {
            let NamedPoint { name, lsn, wall } = point;
            let us = wall.as_micros();
            serde_json::json!({ "resource": resource, "name": name, "lsn": lsn, "wall_us": us })
        });
        say!("{}", serde_json::to_string(&values.collect::<Vec<_>>())?);
    } else {
        for (resource, NamedPoint { name, lsn, wall }) in points {
            say!("{resource}: {name} is at {lsn}, {}", words::wall_time(*wall));
        }
    }
    Ok(())
}

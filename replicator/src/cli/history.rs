//! `hadrian history`, `export`, `clone` and `drill`: the image as it was, listed, looked at, tried
//! out.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use hadrian_protocol::ids::Lsn;
use hadrian_protocol::point::PointName;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::args::{Args, Clone, Drill, Export};
use super::{Ended, Exit, ask, status_of, words};
use crate::control::{
    At, HistoryStatus, PointStatus, Request, ResourceStatus, Response, ViewStatus,
};

/// How often the daemon is told that a view is still needed.
const KEEP: Duration = Duration::from_secs(5);

/// Points with a name that are listed, unless all of them are wanted.
const NAMES: u32 = 20;

/// Shows how far back each image can be read, or that of one resource, and by which names.
pub(super) fn list(args: &Args, resource: Option<&str>, names: bool) -> anyhow::Result<()> {
    let request = Request::Status { resource: resource.map(str::to_owned) };
    let all = match ask(args, request)? {
        Response::Status(all) => all,
        Response::Refused { message, .. } => bail!(message),
        _ => bail!("the daemon answered something else"),
    };
    if let Some(name) = resource.filter(|_| all.is_empty()) {
        bail!("no resource {name:?}");
    }
    let most = if names { u32::MAX } else { NAMES };
    let named = all.iter().map(|status| named_points(args, status, most));
    let named: Vec<_> = named.collect::<anyhow::Result<_>>()?;
    if args.json {
        let one = |(status, (points, count)): (&ResourceStatus, &(Vec<PointStatus>, u64))| {
            json!({ "resource": status.resource, "member": status.member,
                "history": status.history, "views": status.views,
                "named": points, "named_count": count })
        };
        say!("{}", all.iter().zip(&named).map(one).collect::<serde_json::Value>());
        return Ok(());
    }
    for (status, (points, count)) in all.iter().zip(&named) {
        say!("{} on {}: {}", status.resource, status.member, in_words(status.history.as_ref()));
        for named in points {
            say!("  {} is at {}", named.name.as_deref().unwrap_or_default(), point(named));
        }
        match count.saturating_sub(points.len() as u64) {
            0 => {}
            more if names => say!("  and {more} more, all older"),
            more => say!("  and {more} more, all older; --all lists them"),
        }
        for view in &status.views {
            let kind = if view.size_limit.is_some() { "clone" } else { "export" };
            let (at, uris) = (point(&view.point), view.uris().join(" "));
            say!("  {kind} {} at {at}: {uris}", view.id);
        }
    }
    Ok(())
}

/// The newest points that have a name, and how many have one.
fn named_points(
    args: &Args,
    status: &ResourceStatus,
    most: u32,
) -> anyhow::Result<(Vec<PointStatus>, u64)> {
    if status.history.as_ref().is_none_or(|history| history.points.is_empty()) {
        return Ok((Vec::new(), 0));
    }
    match ask(args, Request::NamedPoints { resource: status.resource.clone(), most })? {
        Response::NamedPoints { points, count } => Ok((points, count)),
        Response::Refused { message, .. } => bail!("{}: {message}", status.resource),
        _ => bail!("the daemon answered something else"),
    }
}

/// One line on the history of an image.
pub(super) fn in_words(history: Option<&HistoryStatus>) -> String {
    let Some(history) = history else {
        return "no history is kept (history = \"24h\" in the configuration keeps one)".into();
    };
    let (bytes, most) = (words::bytes(history.bytes), words::bytes(history.bytes_max));
    let age = history.age_max_us.map_or(String::new(), |us| format!(" and {}", words::time(us)));
    match (history.points.as_slice(), &history.ended) {
        ([oldest, .., newest], _) => format!(
            "{} points from {} to {}, {bytes} (at most {most}{age})",
            history.point_count,
            point(oldest),
            point(newest)
        ),
        (_, Some(why)) => format!("ended, and begins anew at the next start of hadriand: {why}"),
        _ => "none at the moment: it begins when the image is a point in time again".into(),
    }
}

/// A point as people read it.
pub(super) fn point(point: &PointStatus) -> String {
    let wall = point.wall_us.map(|us| {
        let time = humantime::format_rfc3339_millis(words::moment(us));
        format!(" ({time})")
    });
    format!("{}{}", point.lsn, wall.unwrap_or_default())
}

/// Reads what an operator types as a point: a position, a moment, or how long ago.
pub(super) fn at(text: &str) -> Result<At, String> {
    if text == "now" {
        return Ok(At::End);
    }
    if let Some(ago) = text.strip_suffix("ago") {
        let ago = humantime::parse_duration(ago.trim());
        let ago = ago.map_err(|error| format!("{text:?}: {error}; write 10m ago"))?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let then = now.unwrap_or_default().saturating_sub(ago);
        return Ok(At::WallUs(hadrian_protocol::time::micros(then)));
    }
    if let Ok(lsn) = text.parse::<Lsn>() {
        return Ok(At::Lsn(lsn));
    }
    if let Ok(name) = text.parse::<PointName>() {
        return Ok(At::Name(name));
    }
    let ways = "write the name of a point, an LSN such as 0/0001A000, a moment such as \
                2026-11-28T09:30:00Z, \"10m ago\" or now";
    let moment =
        text.parse::<jiff::Timestamp>().map_err(|_| format!("{text:?} is no point; {ways}"));
    let us =
        u64::try_from(moment?.as_microsecond()).map_err(|_| format!("{text:?} is too early"))?;
    Ok(At::WallUs(us))
}

/// A view that is ended with whoever asked for it.
struct Held<'a> {
    args: &'a Args,
    view: ViewStatus,
}

impl<'a> Held<'a> {
    fn open(args: &'a Args, request: Request) -> anyhow::Result<Self> {
        match ask(args, request)? {
            Response::View(view) => Ok(Self { args, view: *view }),
            Response::Refused { message, .. } => bail!(message),
            _ => bail!("the daemon answered something else"),
        }
    }

    /// Says that it is still needed; whether it is still there.
    fn keep(&self) -> anyhow::Result<()> {
        match ask(self.args, Request::KeepView { id: self.view.id })? {
            Response::Refused { message, .. } => bail!(message),
            _ => Ok(()),
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // A daemon that is gone has taken it along.
        let _ = ask(self.args, Request::EndView { id: self.view.id });
    }
}

/// Serves the image as it was, until this is stopped.
pub(super) fn export(args: &Args, wish: &Export) -> anyhow::Result<()> {
    let Export { resource, at, socket } = wish;
    let at = at.clone().unwrap_or(At::Applied);
    let (resource, socket) = (resource.clone(), absolute(socket.as_ref())?);
    serve(args, Request::View { resource, at, size_limit: None, socket })
}

/// Serves a copy of it that may be written to, until this is stopped.
pub(super) fn clone(args: &Args, wish: &Clone) -> anyhow::Result<()> {
    let Clone { resource, at, size_limit, socket } = wish;
    let (at, size_limit) = (at.clone().unwrap_or(At::Applied), Some(size_limit.as_u64()));
    let (resource, socket) = (resource.clone(), absolute(socket.as_ref())?);
    serve(args, Request::View { resource, at, size_limit, socket })
}

/// The daemon's directory is another one than that of whoever types.
fn absolute(socket: Option<&PathBuf>) -> anyhow::Result<Option<PathBuf>> {
    socket.map(|path| std::path::absolute(path).context("the socket")).transpose()
}

fn serve(args: &Args, request: Request) -> anyhow::Result<()> {
    let held = Held::open(args, request)?;
    let (view, uris) = (&held.view, held.view.uris());
    if args.json {
        say!("{}", json!({ "event": "serving", "view": view, "uris": uris }));
    } else {
        let kind = if view.size_limit.is_some() { "writable, thrown away" } else { "read-only" };
        say!("{} at {} is served until this is stopped; {kind}", view.resource, point(&view.point));
        uris.iter().for_each(|uri| say!("{uri}"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut int, mut term) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        loop {
            tokio::select! {
                _ = int.recv() => return Ok(()),
                _ = term.recv() => return Ok(()),
                () = tokio::time::sleep(KEEP) => held.keep()?,
            }
        }
    })
}

/// Runs a command on a clone, and ends as it does.
pub(super) fn drill(args: &Args, wish: &Drill) -> anyhow::Result<()> {
    let [program, words @ ..] = wish.command.as_slice() else { bail!("no command was given") };
    let (resource, at) = (wish.resource.clone(), wish.at.clone().unwrap_or(At::End));
    let size_limit = Some(wish.size_limit.as_u64());
    let request = Request::View { resource, at, size_limit, socket: None };
    let held = Held::open(args, request)?;
    let began = std::time::Instant::now();
    let mut command = Command::new(program);
    command.args(words).envs(variables(&status_of(args, &wish.resource)?, &held.view));
    let child = command.spawn().with_context(|| format!("{program} cannot be run"))?;
    let ended = follow(child, &held)?;
    let took = began.elapsed();
    report(args, &held.view, (ended, took));
    match ended.code() {
        Some(0) => Ok(()),
        Some(code) => {
            let exit = Exit::AsTheCommand(u8::try_from(code).unwrap_or(1));
            Err(Ended { exit, text: format!("{program} ended with {code}") }.into())
        }
        None => bail!("{program} was ended by a signal"),
    }
}

/// What the command finds in its environment.
fn variables(status: &ResourceStatus, view: &ViewStatus) -> Vec<(String, String)> {
    let uris = view.uris();
    let mut all = vec![
        ("HADRIAN_RESOURCE".into(), view.resource.clone()),
        ("HADRIAN_POINT".into(), view.point.lsn.to_string()),
        ("HADRIAN_NBD_SOCKET".into(), view.socket.display().to_string()),
        ("HADRIAN_NBD_URI".into(), uris.first().cloned().unwrap_or_default()),
    ];
    if let Some(us) = view.point.wall_us {
        let time = humantime::format_rfc3339_micros(words::moment(us));
        all.push(("HADRIAN_POINT_TIME".into(), time.to_string()));
    }
    for (export, uri) in status.exports.iter().zip(uris) {
        let name = export.rsplit_once('/').map_or(export.as_str(), |(_, name)| name);
        let name = name.to_uppercase().replace('-', "_");
        all.push((format!("HADRIAN_NBD_URI_{name}"), uri));
    }
    all
}

/// Waits for the command, and says meanwhile that the clone is needed. Who stops this stops it.
fn follow(child: Child, held: &Held<'_>) -> anyhow::Result<ExitStatus> {
    let pid = rustix::process::Pid::from_child(&child);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let (mut int, mut term) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut child = child;
        let mut waiting = tokio::task::spawn_blocking(move || child.wait());
        loop {
            tokio::select! {
                ended = &mut waiting => return Ok(ended??),
                // Typed at a terminal, the command has got it itself.
                _ = int.recv() => {}
                _ = term.recv() => {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                }
                () = tokio::time::sleep(KEEP) => held.keep()?,
            }
        }
    });
    if result.is_err() {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    result
}

fn report(args: &Args, view: &ViewStatus, (ended, took): (ExitStatus, Duration)) {
    let took_us = hadrian_protocol::time::micros(took);
    if args.json {
        let (resource, point, code) = (&view.resource, &view.point, ended.code());
        say!(
            "{}",
            json!({ "resource": resource, "point": point, "exit_code": code,
                "succeeded": ended.success(), "took_us": took_us })
        );
        return;
    }
    let outcome = if ended.success() { "succeeded" } else { "failed" };
    let (at, took) = (point(&view.point), words::time(took_us));
    say!("the drill of {} at {at} {outcome} after {took}; its clone is gone", view.resource);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_a_position_a_moment_or_how_long_ago() {
        assert_eq!(at("0/0001A000"), Ok(At::Lsn(Lsn::new(0x1a000))));
        assert_eq!(at("1970-01-01T00:00:02.5Z"), Ok(At::WallUs(2_500_000)));
        assert_eq!(at("1970-01-01T01:00:02+01:00"), Ok(At::WallUs(2_000_000)));
        assert_eq!(at("now"), Ok(At::End));
        assert_eq!(at("before-upgrade"), Ok(At::Name("before-upgrade".parse().unwrap())));
        let At::WallUs(us) = at("10m ago").unwrap() else { panic!("it is a moment") };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let ago = hadrian_protocol::time::micros(now) - us;
        assert!((600_000_000..660_000_000).contains(&ago), "{ago}");
        for wrong in ["", "ago", "5 minutes", "0/xyz", "1969-01-01T00:00:00Z", "-5m ago"] {
            assert!(at(wrong).is_err(), "{wrong}");
        }
    }
}

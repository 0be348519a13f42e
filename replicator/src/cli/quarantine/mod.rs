//! `hadrian quarantine`: what was set aside on this member, listed, shown, got back, and removed in
//! the end. Works on the files alone, and changes none of them.

mod export;
mod remove;
mod show;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hadrian_blockdev::engine::{AnyEngine, EngineChoice};
use hadrian_blockdev::quarantine::{Kind, Summary, Walk, summarize};
use hadrian_protocol::divergence::Changed;
use hadrian_protocol::time::WallTime;
use serde_json::{Value, json};

use super::args::{Args, Quarantine};
use super::words::{self, wall_time};
use crate::config::{Config, Member, Resource};

pub(super) fn quarantine(args: &Args, what: &Quarantine) -> anyhow::Result<()> {
    let (config, me) = super::configuration(args)?;
    match what {
        Quarantine::List { resource } => list(&Place::of(&config, &me, resource)?, args.json),
        Quarantine::Show { resource, name, limit } => {
            let limit = usize::try_from(*limit)?;
            show::show(&Place::of(&config, &me, resource)?, name, limit, args.json)
        }
        Quarantine::Remove { resource, names, yes } => {
            remove::remove(&Place::of(&config, &me, resource)?, names, *yes, args.json)
        }
        Quarantine::Export(wish) => {
            let place = Place::of(&config, &me, &wish.resource)?;
            export::export(&place, &me, wish, args.json)
        }
    }
}

/// The quarantine of a resource on this member.
struct Place<'a> {
    resource: &'a Resource,
    replica_dir: PathBuf,
    dir: PathBuf,
}

impl<'a> Place<'a> {
    fn of(config: &'a Config, me: &Member, name: &str) -> anyhow::Result<Self> {
        let resource = super::resource(config, name)?;
        let replica = me.replica_dir(resource);
        if !replica.is_dir() {
            bail!(
                "{} does not exist: {} has no replica of {name}, so nothing was set aside here",
                replica.display(),
                me.name
            );
        }
        Ok(Self { resource, dir: replica.join("quarantine"), replica_dir: replica })
    }

    /// The names of all that is there, in order.
    fn names(&self) -> anyhow::Result<Vec<String>> {
        let dir = || format!("{} cannot be read", self.dir.display());
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.with_context(dir)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry.with_context(dir)?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// The path of a file of this name, which somebody typed.
    fn path(&self, name: &str) -> anyhow::Result<PathBuf> {
        let names = self.names()?;
        if names.iter().any(|known| known == name) {
            return Ok(self.dir.join(name));
        }
        let dir = self.dir.display();
        match names.len() {
            0 => bail!("there is no {name:?}: nothing is in {dir}"),
            _ => bail!("there is no {name:?} in {dir}; there are {}", names.join(", ")),
        }
    }

    /// Opens a file of this resource.
    fn open(&self, engine: &mut AnyEngine, path: &Path) -> anyhow::Result<Walk> {
        // A pipe of a fitting name would be waited for.
        if !fs::metadata(path).is_ok_and(|found| found.is_file()) {
            bail!("{} is no file", path.display());
        }
        let walk = Walk::open(engine, path)?;
        if walk.resource != self.resource.id {
            bail!(
                "{} is of another resource ({}) than {}; move it to where it belongs",
                path.display(),
                walk.resource,
                self.resource.name
            );
        }
        Ok(walk)
    }

    /// The name of a volume, for people.
    fn volume(&self, changed: &Changed) -> &str {
        let volume = self.resource.volumes.get(usize::from(changed.volume.index()));
        volume.map_or("?", |volume| &volume.name)
    }
}

fn engine() -> anyhow::Result<AnyEngine> {
    Ok(AnyEngine::choose(EngineChoice::Plain, 1)?)
}

fn list(place: &Place<'_>, as_json: bool) -> anyhow::Result<()> {
    let names = place.names()?;
    let mut engine = engine()?;
    let mut all = Vec::new();
    for name in &names {
        let found = look(place, &mut engine, name);
        if as_json {
            all.push(match &found {
                Ok((walk, summary)) => as_value(name, walk, summary),
                Err(error) => json!({ "name": name, "state": "unusable",
                    "problem": format!("{error:#}") }),
            });
        } else {
            match &found {
                Ok((walk, summary)) => line(name, walk, summary),
                Err(error) => say!("{name}\n  cannot be used: {error:#}"),
            }
        }
        if let Ok((walk, _)) = found {
            walk.close(&mut engine);
        }
    }
    if as_json {
        say!("{}", Value::Array(all));
    } else if names.is_empty() {
        say!("nothing of {} is in quarantine on this member", place.resource.name);
    }
    Ok(())
}

fn look(place: &Place<'_>, engine: &mut AnyEngine, name: &str) -> anyhow::Result<(Walk, Summary)> {
    let path = place.dir.join(name);
    let mut walk = place.open(engine, &path)?;
    let read = summarize(engine, &mut walk, &mut |_| {});
    let summary = read.with_context(|| format!("{} cannot be read", path.display()))?;
    Ok((walk, summary))
}

/// Two lines for each file: the name can be long, and is copied from here.
fn line(name: &str, walk: &Walk, summary: &Summary) {
    let count = match (walk.kind, summary.count) {
        (Kind::Frames, 1) => "1 frame".into(),
        (Kind::Frames, count) => format!("{count} frames"),
        (Kind::Blocks, 1) => "1 block".into(),
        (Kind::Blocks, count) => format!("{count} blocks"),
    };
    let (len, of) = (words::bytes(walk.len), words::bytes(summary.changed.changed_bytes()));
    let span = match walk.from == walk.end {
        true => format!("replaced by a repair at {}", walk.from),
        false => format!("log from {} to {}", walk.from, walk.end),
    };
    say!("{name}");
    say!(
        "  {count} of {of} in {len}, {span}{}; {}{}",
        written(summary),
        summary.ending,
        part(name)
    );
}

/// When it was written, as far as that is known.
fn written(summary: &Summary) -> String {
    match (summary.changed.first, summary.changed.last) {
        (Some(first), Some(last)) => {
            format!(", written {} to {}", wall_time(first), wall_time(last))
        }
        _ => String::new(),
    }
}

fn part(name: &str) -> &'static str {
    match Kind::of_name(name) {
        Some((_, true)) => {
            "; it is still being written, or a crash has ended that: log and image still have all \
             of it, and the next attempt begins it anew"
        }
        _ => "",
    }
}

fn as_value(name: &str, walk: &Walk, summary: &Summary) -> Value {
    let is_part = Kind::of_name(name).is_some_and(|(_, is_part)| is_part);
    let ending = &summary.ending;
    json!({
        "name": name, "kind": walk.kind.name(), "from": walk.from, "end": walk.end,
        "bytes": walk.len, "count": summary.count,
        "changed_bytes": summary.changed.changed_bytes(),
        "first_written_us": summary.changed.first.map(WallTime::as_micros),
        "last_written_us": summary.changed.last.map(WallTime::as_micros),
        "is_part": is_part, "state": ending.name(),
        "problem": (ending.name() != "whole").then(|| ending.to_string()),
    })
}

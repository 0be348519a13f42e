//! `hadrian seed export`: by the daemon where it runs the resource, from the files otherwise.

use std::io::BufWriter;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hadrian_blockdev::engine::EngineChoice;
use hadrian_blockdev::replica::{Replica, ReplicaEvent};
use hadrian_blockdev::superblock::Whose;
use hadrian_protocol::frame::LogPosition;
use hadrian_protocol::ids::{Lsn, MemberId};
use hadrian_protocol::replica::{Image, ReplicaState};
use hadrian_protocol::resync::seed::Sink;
use hadrian_protocol::resync::{CopyProgress, Scope, Way};
use indicatif::{ProgressBar, ProgressStyle};

use super::super::args::Args;
use super::super::{configuration, resource as resource_of, status_of, words};
use crate::config::{Config, Member};
use crate::control::{self, AskError, Request, Response, SeedState};
use crate::driver::seed_files;
use crate::seed::{Header, SeedWriter};

const LOOK: Duration = Duration::from_millis(100);
/// The number of the only source of a replica that nobody serves.
const ONLY: u64 = 1;

/// Writes the image of a resource into a file.
pub(super) fn export(
    args: &Args,
    name: &str,
    file: &Path,
    absent: Option<&str>,
) -> anyhow::Result<()> {
    let (config, me) = configuration(args)?;
    resource_of(&config, name)?;
    let path = std::path::absolute(file).with_context(|| file.display().to_string())?;
    let id = |name: &str| {
        let member = config.member(name).filter(|member| member.id != me.id);
        member.map(|member| member.id).with_context(|| format!("{name:?} is no other member"))
    };
    let absent = absent.map(id).transpose()?;
    let (lsn, bytes) = match begin(&me, name, &path, absent)? {
        true => follow(args, name)?,
        false if absent.is_some() => bail!(
            "--for is for the primary, whose daemon notes what a member lacks; start it, or leave \
             --for out: what differs is found by comparing then"
        ),
        false => offline(args, (&config, &me), name, &path)?,
    };
    let shown = path.display();
    if args.json {
        let said = serde_json::json!({ "resource": name, "file": path, "as_of": lsn,
            "bytes": bytes });
        say!("{said}");
        return Ok(());
    }
    say!("{name}: the image as of {lsn} is in {shown}, {}", words::bytes(bytes));
    say!("carry it to the other host, and there: hadrian seed import {name} FILE");
    Ok(())
}

/// Asks the daemon to begin; false: it does not run this resource, and holds none of its files.
fn begin(me: &Member, name: &str, path: &Path, absent: Option<MemberId>) -> anyhow::Result<bool> {
    let (resource, path) = (name.to_owned(), path.to_path_buf());
    let request = Request::SeedExport { resource, path, absent };
    match control::ask(&me.control_socket(), request) {
        Ok(Response::Refused { code, .. }) if code == "not_running" => Ok(false),
        Ok(Response::Refused { message, .. }) => bail!(message),
        Ok(_) => Ok(true),
        Err(AskError::NoDaemon(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Waits for the daemon's end of it.
fn follow(args: &Args, name: &str) -> anyhow::Result<(Lsn, u64)> {
    let bar = bar(args.json);
    loop {
        let status = status_of(args, name)?;
        let Some(seed) = status.seed else { bail!("the daemon was started anew; begin again") };
        show(&bar, seed.progress);
        match seed.state {
            SeedState::Running => {}
            SeedState::Done { lsn, bytes } => {
                bar.finish_and_clear();
                return Ok((lsn, bytes));
            }
            SeedState::Failed { why } => {
                bar.finish_and_clear();
                bail!("no seed was written: {why}");
            }
        }
        // Polling is all that can be done to another process.
        std::thread::sleep(LOOK);
    }
}

fn bar(is_hidden: bool) -> ProgressBar {
    if is_hidden {
        return ProgressBar::hidden();
    }
    let form = "reading {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
    let style = ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}

fn show(bar: &ProgressBar, progress: CopyProgress) {
    bar.set_length(progress.total);
    bar.set_position(progress.done);
}

/// From the files of a replica that nobody serves: it is opened as its daemon would open it, which
/// brings everything that may be applied into its image.
fn offline(
    args: &Args,
    (config, me): (&Config, &Member),
    name: &str,
    path: &Path,
) -> anyhow::Result<(Lsn, u64)> {
    let resource = resource_of(config, name)?;
    let (dir, stores) = (me.replica_dir(resource), resource.stores(me.id));
    let whose = Whose { resource: resource.id, label: config.label(me)? };
    let (mut replica, state, _) = Replica::open(&dir, &whose, &stores, EngineChoice::Plain)?;
    if state.image == Image::Incomplete {
        bail!(
            "the image of {name} is incomplete: a resync in place has not come to its end. Let it \
             come to its end, or export on another member"
        );
    }
    let part = seed_files::part_of(path);
    let shown = || path.display().to_string();
    let file = seed_files::create(path, &part).with_context(shown)?;
    let header = Header { resource: state.resource, volumes: state.volumes.clone() };
    let written = SeedWriter::begin(BufWriter::new(file), &header)
        .map_err(anyhow::Error::from)
        .and_then(|writer| read_all(&mut replica, &state, writer, &bar(args.json)))
        .and_then(|written| Ok(seed_files::name_it(&part, path).map(|()| written)?));
    if written.is_err() {
        // Nobody needs it, and the first error says more than a second.
        let _ = std::fs::remove_file(&part);
    }
    written.with_context(shown)
}

fn read_all(
    replica: &mut Replica,
    state: &ReplicaState,
    mut writer: SeedWriter<BufWriter<std::fs::File>>,
    bar: &ProgressBar,
) -> anyhow::Result<(Lsn, u64)> {
    let scope = Scope { way: Way::Digests, map_of: state.member, log_from: Lsn::START };
    let mut sink = Sink::new(&state.volumes);
    replica.source(ONLY, scope);
    let (mut events, mut at) = (Vec::new(), None);
    while at.is_none() {
        while let Some(answer) = sink.answer() {
            replica.copying(ONLY, answer)?;
        }
        replica.kick();
        replica.poll(&mut events);
        for event in events.drain(..) {
            if let Some(found) = take(replica, event, (&mut sink, &mut writer))? {
                at = Some(found);
            }
        }
        show(bar, replica.copy_progress(ONLY).unwrap_or_default());
    }
    bar.finish_and_clear();
    let at = at.context("the replica was not read to its end")?;
    let (out, bytes) = writer.finish(&state.seeded_at(at))?;
    let file = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok((at.lsn, bytes))
}

/// Does what an event asks for; the position, when everything was read.
fn take(
    replica: &mut Replica,
    event: ReplicaEvent,
    (sink, writer): (&mut Sink, &mut SeedWriter<BufWriter<std::fs::File>>),
) -> anyhow::Result<Option<LogPosition>> {
    match event {
        ReplicaEvent::Copying { message, .. } => {
            if let Some(content) = sink.hear(message)? {
                writer.add(&content)?;
                sink.has_taken(1);
            }
        }
        ReplicaEvent::SourceNearEnd { .. } => replica.finish_source(ONLY),
        ReplicaEvent::SourceDone { at, .. } => return Ok(Some(at)),
        ReplicaEvent::SourceFailed { error, .. } => {
            return Err(error).context("the image cannot be read");
        }
        ReplicaEvent::Failed(part, error) => {
            return Err(error).with_context(|| format!("the {} failed", part.name()));
        }
        _ => {}
    }
    Ok(None)
}

//! `hadrian check`: the configuration as such, and what only this host can tell: its stores, its
//! keys, its replicas, its markers.

mod marks;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use hadrian_blockdev::replica::{Found, ReplicaError, read_state};
use hadrian_blockdev::superblock::{self, SuperblockError, Whose};
use hadrian_blockdev::volume::{StoreError, check_store, check_store_in_use};
use hadrian_fencing::watchdog::{SYS, WatchdogError, WatchdogSettings, look};
use hadrian_protocol::node::OnWindowEnd;
use hadrian_protocol::replica::describe;
use rustix::fs::{Access, access};
use serde::Serialize;

use super::args::Args;
use super::{Ended, Exit, words};
use crate::config::{Config, Fencing, Member, Resource};
use crate::control::QuarantineStatus;
use crate::daemon::{DaemonError, load_keys};
use crate::driver::{of_configuration, sizes_in_words};
use crate::tls::TlsError;

/// What design §5.3 wants everybody to know who runs without marks.
const NO_MARKS: &str = "there are no ownership marks: after a forced takeover the old primary, if \
it still runs, may go on alone when its peer window ends. Make sure that it is down first, or set \
on_window_end = \"hold\", which alone excludes two primaries here; not set for";

/// What was found.
#[derive(Default, Debug, Serialize)]
struct Findings {
    member: String,
    /// Each keeps this member from running.
    problems: Vec<String>,
    /// To be done or to be known.
    notes: Vec<String>,
}

/// Prints everything that was found; fails if any of it keeps this member from running.
pub(super) fn check(args: &Args) -> anyhow::Result<()> {
    let (config, me) = super::configuration(args)?;
    let mut findings = Findings { member: me.name.clone(), ..Findings::default() };
    findings.notes.extend(config.warnings.iter().map(ToString::to_string));
    findings.look_at_keys(&config, &me);
    for resource in &config.resources {
        findings.look_at_stores(resource, &me);
        findings.look_at_replica(&config, resource, &me);
    }
    match &config.fencing {
        Fencing::Marks(marks) => {
            findings.look_at_marks(&config, marks, &me);
            if let Some(watchdog) = &marks.watchdog {
                findings.look_at_watchdog(watchdog);
            }
        }
        Fencing::None { .. } => findings.look_at_windows(&config),
    }
    findings.look_at_delays(&config);
    findings.look_at_programs(&config);
    if args.json {
        say!("{}", serde_json::to_string(&findings)?);
    } else {
        findings.problems.iter().for_each(|problem| say!("problem: {problem}"));
        findings.notes.iter().for_each(|note| say!("note: {note}"));
    }
    if findings.problems.is_empty() {
        if !args.json {
            say!("{} can be used by {}", args.config.display(), me.name);
        }
        return Ok(());
    }
    let count = findings.problems.len();
    let plural = if count == 1 { "" } else { "s" };
    let text = format!("{count} problem{plural}; {} cannot run like this", me.name);
    Err(Ended { exit: Exit::Configuration, text }.into())
}

impl Findings {
    /// Whether there is one; it is not opened, which would start it.
    fn look_at_watchdog(&mut self, settings: &WatchdogSettings) {
        match look(&settings.device, Path::new(SYS)) {
            Ok(shown) => self.notes.extend(super::watchdog::words(settings, &shown)),
            Err(error) => {
                self.problems.push(WatchdogError::opening(&settings.device, error).to_string());
            }
        }
    }

    /// Whether the programs that this member runs are there.
    fn look_at_programs(&mut self, config: &Config) {
        let fence = config.fencing.marks().and_then(|marks| marks.fence.as_ref());
        let events = config.resources.iter().filter_map(|resource| resource.on_event.as_ref());
        let programs: BTreeSet<_> = fence.into_iter().chain(events).map(|it| &it.command).collect();
        for path in programs {
            if let Err(error) = access(path, Access::EXEC_OK) {
                let shown = path.display();
                self.problems.push(format!("{shown} cannot be run: {error}; see on_event, fence"));
            }
        }
    }

    /// Who could have two primaries by nobody's mistake.
    fn look_at_windows(&mut self, config: &Config) {
        let going_on = config.resources.iter();
        let going_on = going_on.filter(|resource| resource.pace.on_window_end != OnWindowEnd::Hold);
        let names: Vec<_> = going_on.map(|resource| resource.name.as_str()).collect();
        if !names.is_empty() {
            self.notes.push(format!("{NO_MARKS} {}", names.join(", ")));
        }
    }

    /// Every standby may be asked to take over, and a delayed one takes its time.
    fn look_at_delays(&mut self, config: &Config) {
        let delayed =
            config.resources.iter().filter(|resource| !resource.pace.replay_delay.is_zero());
        let notes = delayed.map(|resource| {
            let delay = humantime::format_duration(resource.pace.replay_delay);
            format!(
                "the standbys of {} apply {delay} later than they receive (replay_delay): a \
                 takeover applies that first, and its log must hold what is written meanwhile",
                resource.name
            )
        });
        self.notes.extend(notes);
    }

    fn look_at_keys(&mut self, config: &Config, me: &Member) {
        match load_keys(config, me) {
            Ok(_) => {}
            Err(DaemonError::Keys(TlsError::File { path, source }))
                if source.kind() == io::ErrorKind::NotFound =>
            {
                let name = &me.name;
                let text =
                    format!("{} does not exist; run hadrian keygen --for {name}", path.display());
                self.problems.push(text);
            }
            Err(error) => self.problems.push(error.to_string()),
        }
    }

    fn look_at_stores(&mut self, resource: &Resource, me: &Member) {
        let found = read_state(&me.replica_dir(resource)).ok().map(|found| found.state.volumes);
        // A replica knows how large its volumes are; before there is one, the file has to.
        let is_made = found.is_some();
        let volumes = found.unwrap_or_else(|| resource.geometry());
        for (path, geometry) in resource.stores(me.id).iter().zip(volumes) {
            let fits = match is_made {
                true => check_store_in_use(path, geometry),
                false => check_store(path, geometry),
            };
            match fits {
                Ok(()) => {}
                Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    let (name, shown) = (&resource.name, path.display());
                    let text =
                        format!("store {shown} does not exist; hadrian create {name} makes it");
                    self.notes.push(text);
                }
                Err(error) => self.problems.push(error.to_string()),
            }
        }
    }

    fn look_at_replica(&mut self, config: &Config, resource: &Resource, me: &Member) {
        let name = &resource.name;
        let dir = me.replica_dir(resource);
        let Found { state, label, other_copy, .. } = match read_state(&dir) {
            Ok(found) => found,
            Err(error) if is_missing(&error) => {
                self.notes.push(format!("{name} has no replica here yet; hadrian create {name}"));
                return;
            }
            Err(error) => return self.problems.push(error.to_string()),
        };
        if let Some(fault) = other_copy {
            let shown = dir.display();
            let text = format!("one copy of the superblock in {shown} is not whole: {fault}");
            self.notes.push(text);
        }
        let found = Whose { resource: state.resource, label };
        let expected = config.label(me).map(|label| Whose { resource: resource.id, label });
        match expected {
            Ok(expected) if found != expected => {
                let path = dir.join(superblock::FILE_NAME);
                let (found, expected) = (Box::new(found), Box::new(expected));
                let error = SuperblockError::Foreign { path, found, expected };
                self.problems.push(error.to_string());
            }
            Ok(_) if state.member != me.id => {
                let (has, says) = (state.member, me.id);
                let error = ReplicaError::Member { has, says };
                self.problems.push(format!("{name}: {error}"));
            }
            Ok(_) => {}
            Err(error) => self.problems.push(error.to_string()),
        }
        if let Some(kept) = QuarantineStatus::of(&dir) {
            let text = format!("{name}: in quarantine, {}", words::quarantine(kept, name));
            self.notes.push(text);
        }
        if of_configuration(&state, &resource.geometry()) {
            let notes = sizes_in_words(&state, &resource.geometry(), &resource.exports());
            self.notes.extend(notes);
        } else {
            let (has, says) = (describe(&state.volumes), describe(&resource.geometry()));
            let text = ReplicaError::Geometry { has, says }.to_string();
            let text = format!("{name}: {text}");
            self.problems.push(text);
        }
    }
}

fn is_missing(error: &ReplicaError) -> bool {
    let source = match error {
        ReplicaError::Io { source, .. } => source,
        ReplicaError::Superblock(SuperblockError::Io { source, .. }) => source,
        _ => return false,
    };
    source.kind() == io::ErrorKind::NotFound
}

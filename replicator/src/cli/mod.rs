//! The command line: what can be typed, and what becomes of it.
#![allow(clippy::print_stderr)] // Printing is what it is for.

mod args;
mod attach;
mod back;
mod check;
mod create;
mod detach;
mod explain;
mod grow;
mod hadr;
mod history;
mod inspect;
mod loss;
mod mark;
mod marker;
mod pages;
mod progress;
mod quarantine;
mod rejoin;
mod replay;
mod seed;
mod status;
mod takeover;
mod verify;
mod watchdog;
mod words;

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser as _;

use crate::config::{Config, Member};
use crate::control::{self, AskError, Request, ResourceStatus, Response};
use crate::{out, tls};
use args::{Args, Front, Verb};

/// How a command ends, for scripts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Done.
    Ok,
    /// Refused or failed; standard error says why.
    Failed,
    /// The configuration cannot be used.
    Configuration,
    /// No daemon answers.
    NoDaemon,
    /// It needs `--yes`.
    NeedsYes,
    /// A command that was run ended with this.
    AsTheCommand(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        // 2 is clap's, for a command line that cannot be understood.
        ExitCode::from(match exit {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Configuration => 3,
            Exit::NoDaemon => 4,
            Exit::NeedsYes => 5,
            Exit::AsTheCommand(code) => code,
        })
    }
}

/// A failure that has an exit code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Ended {
    exit: Exit,
    text: String,
}

/// Runs what was typed.
#[must_use]
pub fn run() -> ExitCode {
    match (carry_out(Args::parse()), out::failure()) {
        (Ok(()), None) => Exit::Ok.into(),
        (Ok(()), Some(error)) => {
            eprintln!("hadrian: standard output: {error}");
            Exit::Failed.into()
        }
        (Err(error), _) => {
            eprintln!("hadrian: {error:#}");
            error.downcast_ref::<Ended>().map_or(Exit::Failed, |ended| ended.exit).into()
        }
    }
}

fn carry_out(args: Args) -> anyhow::Result<()> {
    let json = args.json;
    match &args.verb {
        Verb::Keygen { member, out } => keygen(member, out, json),
        Verb::Completions { shell, out } => pages::completions(*shell, out.as_deref()),
        Verb::Man { out } => pages::manual(out.as_deref()),
        Verb::Demo => crate::demo::run(json),
        Verb::Check => check::check(&args),
        Verb::Create { resource, adopt, copy } => {
            let (config, me) = configuration(&args)?;
            let holds = match (*adopt, *copy) {
                (true, _) => create::Holds::TheData,
                (_, true) => create::Holds::ACopy,
                _ => create::Holds::Nothing,
            };
            create::create(&config, &me, resource, holds, json)
        }
        Verb::Inspect { replay: Some(file), .. } => replay::replay(file, json),
        Verb::Inspect { resource, replay: None } => {
            let resource = resource.as_deref().unwrap_or_default();
            let (config, me) = configuration(&args)?;
            inspect::inspect(&config, &me, resource, json)
        }
        Verb::Status { resource, watch, hadr } => {
            status::status(&args, resource.clone(), *watch, *hadr)
        }
        Verb::Explain { resource } => explain::explain(&args, resource),
        Verb::Events { resource, follow } => explain::events(&args, resource, *follow),
        Verb::Attach { front: Front::Nbd { volume, device, connections, hold } } => {
            let (device, hold) = (*device, *hold);
            let connections = usize::try_from(*connections)?;
            attach::nbd(&args, &attach::Wish { volume, device, connections, hold })
        }
        Verb::Mark { what } => mark::mark(&args, what),
        Verb::Quarantine { what } => quarantine::quarantine(&args, what),
        Verb::Watchdog => watchdog::watchdog(&args),
        Verb::Takeover(wish) => takeover::takeover(&args, wish),
        Verb::Mode { resource, mode } => {
            command(&args, Request::Mode { resource: resource.clone(), mode: (*mode).into() })
        }
        Verb::Marker { name, resources, if_primary } => {
            marker::marker(&args, name, resources, *if_primary)
        }
        Verb::Verify { resource, standby, repair, from } => {
            let wish =
                verify::Wish { resource, standby: standby.as_deref(), from: from.as_deref() };
            verify::verify(&args, wish, *repair)
        }
        Verb::Grow(wish) => grow::grow(&args, wish),
        Verb::Seed { what } => seed::seed(&args, what),
        Verb::Rejoin { resource, dry_run, yes } => rejoin::rejoin(&args, resource, *dry_run, *yes),
        Verb::History { resource, all } => history::list(&args, resource.as_deref(), *all),
        Verb::Export(wish) => history::export(&args, wish),
        Verb::Clone(wish) => history::clone(&args, wish),
        Verb::Drill(wish) => history::drill(&args, wish),
        Verb::Detach { resource, discard_log, yes } => {
            detach::detach(&args, resource, *discard_log, *yes)
        }
        Verb::Stop { resource } => command(&args, Request::Stop { resource: resource.clone() }),
        Verb::Start { resource, primary, force, yes } => {
            start(&args, resource, *primary, (*force, *yes))
        }
    }
}

/// Starts a stopped resource; as primary without the others, where that is forced.
fn start(
    args: &Args,
    resource: &str,
    primary: bool,
    (force, yes): (bool, bool),
) -> anyhow::Result<()> {
    if primary {
        if !force {
            bail!(
                "start --primary leaves the start gate without the members that cannot be heard; \
                 add --force"
            );
        }
        confirm(yes, GATE_WARNING)?;
    }
    command(args, Request::Start { resource: resource.to_owned(), primary })
}

const GATE_WARNING: &str = "Starting as primary without hearing the other members can lose writes \
that only they have, and makes two primaries if one of them serves. Make sure that none does.";

fn confirm(yes: bool, warning: &str) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    eprintln!("{warning}");
    if !std::io::stdin().is_terminal() {
        let text = "this needs a confirmation; add --yes".to_string();
        return Err(Ended { exit: Exit::NeedsYes, text }.into());
    }
    eprint!("Type yes to go on: ");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    if line.trim() == "yes" { Ok(()) } else { bail!("not confirmed; nothing was done") }
}

fn configuration(args: &Args) -> anyhow::Result<(Config, Member)> {
    let config = Config::load(&args.config)
        .map_err(|error| Ended { exit: Exit::Configuration, text: error.to_string() })?;
    let name = match &args.member {
        Some(name) => name.clone(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let Some(me) = config.member(&name).cloned() else {
        let names: Vec<_> = config.members.iter().map(|member| member.name.as_str()).collect();
        let text =
            format!("{name:?} is no member; say which with --member, one of {}", names.join(", "));
        return Err(Ended { exit: Exit::Configuration, text }.into());
    };
    Ok((config, me))
}

fn keygen(member: &str, out: &Path, json: bool) -> anyhow::Result<()> {
    let fingerprint = tls::generate(out, member)?;
    if json {
        say!("{}", serde_json::json!({ "member": member, "fingerprint": fingerprint.to_string() }));
    } else {
        say!("fingerprint = \"{fingerprint}\"");
        eprintln!(
            "paste this line into the [[member]] {member:?} of the configuration, everywhere"
        );
    }
    Ok(())
}

fn ask(args: &Args, request: Request) -> anyhow::Result<Response> {
    ask_within(args, request, Some(control::ANSWER))
}

fn ask_within(args: &Args, request: Request, limit: Option<Duration>) -> anyhow::Result<Response> {
    let (_, me) = configuration(args)?;
    control::ask_within(&me.control_socket(), request, limit).map_err(|error| match error {
        AskError::NoDaemon(_) => {
            let (config, member) = (args.config.display(), &me.name);
            let text =
                format!("{error}; start it with: hadriand --config {config} --member {member}");
            Ended { exit: Exit::NoDaemon, text }.into()
        }
        other => other.into(),
    })
}

/// The status of every resource, or of one.
fn all_status(args: &Args, resource: Option<String>) -> anyhow::Result<Vec<ResourceStatus>> {
    match ask(args, Request::Status { resource })? {
        Response::Status(all) => Ok(all),
        Response::Refused { message, .. } => bail!(message),
        _ => bail!("the daemon answered something else"),
    }
}

/// The status of one resource.
fn status_of(args: &Args, resource: &str) -> anyhow::Result<ResourceStatus> {
    let all = all_status(args, Some(resource.to_string()))?;
    all.into_iter().next().with_context(|| format!("no resource {resource:?}"))
}

fn command(args: &Args, request: Request) -> anyhow::Result<()> {
    let response = ask(args, request)?;
    report(args, response)
}

/// Prints what became of a command.
fn report(args: &Args, response: Response) -> anyhow::Result<()> {
    if args.json {
        say!("{}", serde_json::to_string(&response)?);
    }
    match response {
        Response::Done(done) if !args.json => say!("{}", status::done(done)),
        Response::Refused { message, .. } => bail!(message),
        _ => {}
    }
    Ok(())
}

/// Finds a resource by name, or says which there are.
fn resource<'a>(config: &'a Config, name: &str) -> anyhow::Result<&'a crate::config::Resource> {
    let names: Vec<_> = config.resources.iter().map(|resource| resource.name.as_str()).collect();
    config
        .resource(name)
        .with_context(|| format!("no resource {name:?}; there are {}", names.join(", ")))
}

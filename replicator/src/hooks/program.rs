//! One program, from its start to its end or to its limit.

use std::io::{self, PipeReader, Read as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::{Hook, Vars};

/// So much of what it says is kept for the log.
const OUTPUT_MAX: usize = 16 << 10;

/// How a program ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// By itself.
    Exited(ExitStatus),
    /// It ran for longer than it may, and was killed.
    TimedOut,
    /// It could not be started, or not be watched.
    Failed(io::Error),
}

impl Ended {
    /// It has said that all is well.
    pub(crate) fn is_success(&self) -> bool {
        matches!(self, Self::Exited(status) if status.success())
    }

    fn in_words(&self, hook: &Hook) -> String {
        match self {
            Self::Exited(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("ended with {code}"),
                (None, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
            },
            Self::TimedOut => format!("ran for more than {:?} and was killed", hook.timeout),
            Self::Failed(error) => format!("could not be run: {error}"),
        }
    }
}

/// Runs a program to its end and tells the log of it; returns after its limit at the latest.
pub(crate) fn run(hook: &Hook, vars: &Vars) -> Ended {
    let mut output = Output::default();
    let ended = spawn(hook, vars).and_then(|(child, said)| watch(hook, child, said, &mut output));
    let ended = ended.unwrap_or_else(Ended::Failed);
    let (command, text) = (hook.command.display(), ended.in_words(hook));
    let event = vars.iter().find(|(name, _)| *name == "HADRIAN_EVENT");
    let event = event.map_or("", |(_, event)| event.as_str());
    let said = String::from_utf8_lossy(&output.kept);
    match ended.is_success() {
        true => tracing::info!(%command, event, said = said.trim(), "{text}"),
        false => tracing::warn!(%command, event, said = said.trim(), "{text}"),
    }
    ended
}

fn spawn(hook: &Hook, vars: &Vars) -> io::Result<(Child, PipeReader)> {
    let (said, into) = io::pipe()?;
    let mut command = Command::new(&hook.command);
    command.envs(vars.iter().map(|(name, value)| (*name, value.as_str())));
    command.stdin(Stdio::null()).stdout(into.try_clone()?).stderr(into);
    // What it starts is killed with it.
    Ok((command.process_group(0).spawn()?, said))
}

fn watch(
    hook: &Hook,
    mut child: Child,
    mut said: PipeReader,
    output: &mut Output,
) -> io::Result<Ended> {
    let pid = Pid::from_child(&child);
    let ended = match await_end(pid, hook.timeout, &mut said, output) {
        Ok(true) => child.wait().map(Ended::Exited),
        Ok(false) => Ok(Ended::TimedOut),
        Err(error) => Err(error),
    };
    if !matches!(ended, Ok(Ended::Exited(_))) {
        // It may have gone this very moment.
        let _ = kill_process_group(pid, Signal::KILL);
        child.wait()?;
    }
    ended
}

/// Waits for the end, or for the limit; whether it has ended.
fn await_end(
    pid: Pid,
    limit: Duration,
    said: &mut PipeReader,
    output: &mut Output,
) -> io::Result<bool> {
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let deadline = Instant::now() + limit;
    let mut is_open = true;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let left = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let (ends, speaks) = {
            let mut fds = vec![PollFd::new(&process, PollFlags::IN)];
            if is_open {
                fds.push(PollFd::new(&*said, PollFlags::IN));
            }
            match poll(&mut fds, Some(&left)) {
                Err(rustix::io::Errno::INTR) => continue,
                polled => polled?,
            };
            let is_ready = |fd: Option<&PollFd<'_>>| fd.is_some_and(|fd| !fd.revents().is_empty());
            (is_ready(fds.first()), is_ready(fds.get(1)))
        };
        // What it said before its end is read before its end is seen.
        match (speaks, ends) {
            (true, _) => is_open = output.take(said)?,
            (false, true) => return Ok(true),
            (false, false) => {}
        }
    }
}

/// The first words of a program.
#[derive(Default)]
struct Output {
    kept: Vec<u8>,
}

impl Output {
    /// Takes what is there; whether more may come.
    fn take(&mut self, said: &mut PipeReader) -> io::Result<bool> {
        let mut bytes = [0; 4096];
        let len = said.read(&mut bytes)?;
        let room = OUTPUT_MAX - self.kept.len();
        self.kept.extend(bytes.iter().take(len.min(room)));
        Ok(len > 0)
    }
}

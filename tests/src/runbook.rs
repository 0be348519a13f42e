//! Runbooks of `docs/operations.md`, read and carried out: each command is typed on the member that
//! its prompt names, and what the page says of its answer must be in there.
//!
//! A block of commands is one whose first line is a prompt, `alpha# `. Lines without a prompt are
//! what the command before answers: a part of a line, from its beginning, with `…` for whatever
//! stands there; or `(exit code N)`, where that is not 0.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::mounted::Disk;
use crate::{Cluster, Side};

/// How long somebody looks at `hadrian status` before something must be wrong.
const PATIENCE: Duration = Duration::from_secs(60);
/// Commands that only show something, and are typed again until they show it.
const LOOKS: [&str; 3] = ["hadrian status", "hadrian events", "hadrian explain"];
/// The moment that the page looks back to.
const MOMENT: &str = "2026-11-27T09:30:00Z";
/// hadrian ends so where it wants to be confirmed and nobody is there to ask.
const NEEDS_YES: i32 = 5;

/// A chapter of the page.
#[derive(Debug)]
pub struct Runbook {
    /// Its heading.
    pub title: String,
    /// Its commands, in their order.
    pub steps: Vec<Step>,
}

/// A command of a runbook.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Where in the page it stands.
    pub line: usize,
    /// Where it is typed.
    pub side: Side,
    /// What is typed.
    pub command: String,
    /// What must be in its answer.
    pub expected: Vec<String>,
    /// How it ends.
    pub exit: i32,
}

/// The runbooks of a page; what comes before the first has the heading of the page.
///
/// # Errors
/// With the line that is no command and no answer.
pub fn read(page: &str) -> anyhow::Result<Vec<Runbook>> {
    let mut runbooks: Vec<Runbook> = Vec::new();
    let mut lines = page.lines().enumerate().peekable();
    while let Some((_, line)) = lines.next() {
        let heading = line.strip_prefix("## ").or_else(|| line.strip_prefix("# "));
        if let Some(title) = heading {
            runbooks.push(Runbook { title: title.into(), steps: Vec::new() });
        } else if line.starts_with("```") {
            let block = lines.by_ref().take_while(|(_, line)| !line.starts_with("```"));
            let steps = steps(&block.collect::<Vec<_>>())?;
            let runbook = runbooks.last_mut().context("a block before the first heading")?;
            runbook.steps.extend(steps);
        }
    }
    Ok(runbooks)
}

/// The commands of a block; of none where it begins otherwise.
fn steps(block: &[(usize, &str)]) -> anyhow::Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    let mut goes_on = false;
    for (at, line) in block {
        let step = steps.last_mut();
        if let Some((side, command)) = prompt(line) {
            let command = command.to_owned();
            steps.push(Step { line: at + 1, side, command, expected: Vec::new(), exit: 0 });
        } else if let Some(step) = step {
            let exit = line.strip_prefix("(exit code ").and_then(|rest| rest.strip_suffix(')'));
            match exit {
                _ if goes_on => step.command += line.trim_start(),
                Some(code) => step.exit = code.parse().context("an exit code is a number")?,
                None => step.expected.push((*line).to_owned()),
            }
        } else {
            return Ok(steps);
        }
        let Some(step) = steps.last_mut() else { continue };
        goes_on = step.command.ends_with('\\') && step.expected.is_empty();
        if goes_on {
            step.command.pop();
        }
    }
    ensure!(!goes_on, "line {}: the command goes on and does not", block[block.len() - 1].0 + 1);
    Ok(steps)
}

fn prompt(line: &str) -> Option<(Side, &str)> {
    let (name, command) = line.split_once("# ")?;
    let side = [Side::Alpha, Side::Beta].into_iter().find(|side| side.name() == name)?;
    Some((side, command))
}

/// Where runbooks are carried out. Everything goes with it.
#[derive(Debug)]
pub struct Desk {
    /// Commands that go on until they are stopped.
    served: Vec<Child>,
    /// Mounted in the folder of a member: it goes before that does.
    disk: Option<Disk>,
    /// The members.
    pub cluster: Cluster,
    /// `/mnt`, and hadrian as each member types it.
    scratch: tempfile::TempDir,
    /// What stands here for the moment on the page.
    moment: String,
}

impl Desk {
    /// A desk for these two members.
    ///
    /// # Errors
    /// As the system says.
    pub fn new(cluster: Cluster) -> anyhow::Result<Self> {
        let scratch = tempfile::tempdir()?;
        for name in ["usb", "spare"] {
            std::fs::create_dir(scratch.path().join(name))?;
        }
        let desk = Self { served: Vec::new(), disk: None, cluster, scratch, moment: MOMENT.into() };
        [Side::Alpha, Side::Beta].into_iter().try_for_each(|side| desk.give_hadrian(side))?;
        Ok(desk)
    }

    /// Gives all that a member has a disk of its own, of so many bytes.
    ///
    /// # Errors
    /// With what the tools say.
    pub fn give_disk(&mut self, side: Side, bytes: u64) -> anyhow::Result<()> {
        self.cluster.terminate(side)?;
        let store = self.cluster.store_path(side);
        self.disk = Some(Disk::over(store.parent().context("it lies in a folder")?, bytes)?);
        self.cluster.start(side)
    }

    /// The page's moment was this one.
    pub fn remember(&mut self, moment: String) {
        self.moment = moment;
    }

    /// Throws away what a member has of its replica, with its store.
    ///
    /// # Errors
    /// As the system says.
    pub fn strip(&mut self, side: Side) -> anyhow::Result<()> {
        self.cluster.terminate(side)?;
        std::fs::remove_dir_all(self.cluster.replica_dir(side))?;
        Ok(std::fs::remove_file(self.cluster.store_path(side))?)
    }

    /// Carries out a runbook; before each step, `meanwhile` may do what the step is about.
    ///
    /// # Errors
    /// With the line of the page that is not true.
    pub fn follow(
        &mut self,
        runbook: &Runbook,
        mut meanwhile: impl FnMut(&mut Self, &Step) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        for step in &runbook.steps {
            let Step { line, side, command, .. } = step;
            let place = || format!("line {line}: {}# {command}", side.name());
            meanwhile(self, step).with_context(place)?;
            let taken = self.take(step);
            taken.with_context(|| self.last_words()).with_context(place)?;
        }
        Ok(())
    }

    /// What the daemons have written last.
    fn last_words(&self) -> String {
        let of = |side: Side| {
            let home = self.cluster.store_path(side).with_file_name("log");
            let log = std::fs::read_to_string(home).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(20)..].join("\n");
            let seen = self.cluster.tool(side, &["status"]);
            let seen = seen.unwrap_or_else(|error| error.to_string());
            format!("{}, and the end of its log:\n{seen}{last}", side.name())
        };
        [Side::Alpha, Side::Beta].map(of).join("\n")
    }

    fn take(&mut self, step: &Step) -> anyhow::Result<()> {
        let Step { side, expected, exit, .. } = step;
        let command = self.with_paths(*side, &step.command)?;
        if let Some(words) = command.strip_prefix("systemctl ") {
            return self.systemctl(words);
        }
        if let Some(command) = command.strip_suffix(" &") {
            return self.serve(*side, command);
        }
        let deadline = Instant::now() + PATIENCE;
        let looks = LOOKS.iter().any(|look| command.starts_with(look));
        loop {
            let (text, code) = self.type_in(*side, &command)?;
            let missing = expected.iter().find(|line| !answers(&text, line));
            match missing {
                None if code == *exit => return Ok(()),
                _ if looks && Instant::now() < deadline => {}
                None => bail!("ends with {code}:\n{text}"),
                Some(line) => bail!("ends with {code} and does not say {line:?}:\n{text}"),
            }
            // Another process can only be asked again.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Types a command, and confirms it where it asks.
    fn type_in(&self, side: Side, command: &str) -> anyhow::Result<(String, i32)> {
        let mut ended = self.shell(side, command).output()?;
        if ended.status.code() == Some(NEEDS_YES) {
            ended = self.shell(side, &format!("{command} --yes")).output()?;
        }
        let text = [ended.stdout, ended.stderr].concat();
        let code = ended.status.code().context("a signal ended it")?;
        Ok((String::from_utf8_lossy(&text).into_owned(), code))
    }

    /// Begins a command that serves, and waits until it says so.
    fn serve(&mut self, side: Side, command: &str) -> anyhow::Result<()> {
        let mut shell = self.shell(side, &format!("exec {command}"));
        let mut child = shell.stdout(Stdio::piped()).spawn()?;
        let said = child.stdout.take().map(BufReader::new);
        self.served.push(child);
        let first = said.and_then(|said| said.lines().next()).transpose()?;
        first.map(drop).context("it ended and said nothing")
    }

    fn shell(&self, side: Side, command: &str) -> Command {
        let mut shell = Command::new("sh");
        let own = self.scratch.path().join(side.name());
        let others = std::env::var("PATH").unwrap_or_default();
        shell.args(["-c", command]).env("PATH", format!("{}:{others}", own.display()));
        shell.stdin(Stdio::null());
        shell
    }

    /// systemd has no part in this: the cluster is the one that starts and stops daemons.
    fn systemctl(&mut self, words: &str) -> anyhow::Result<()> {
        let (verb, unit) = words.split_once(' ').context("systemctl VERB UNIT")?;
        let name = unit.strip_prefix("hadriand@").context("units are hadriand@MEMBER")?;
        let side = [Side::Alpha, Side::Beta].into_iter().find(|side| side.name() == name);
        let side = side.context("no such member")?;
        if matches!(verb, "stop" | "restart") {
            self.cluster.terminate(side)?;
        }
        if matches!(verb, "start" | "restart") {
            self.cluster.start(side)?;
            // The unit is started when the daemon says that it is.
            self.cluster.await_status(side, "db on")?;
        }
        ensure!(matches!(verb, "start" | "stop" | "restart"), "nobody knows systemctl {verb}");
        Ok(())
    }

    /// hadrian as it is typed on a member, where configuration and name are found by themselves.
    fn give_hadrian(&self, side: Side) -> anyhow::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let command = self.cluster.command(side, &[]);
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
        let folder = self.scratch.path().join(side.name());
        std::fs::create_dir(&folder)?;
        let script = folder.join("hadrian");
        std::fs::write(&script, format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" ")))?;
        Ok(std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o755))?)
    }

    /// The command with the paths that the member has here.
    fn with_paths(&self, side: Side, command: &str) -> anyhow::Result<String> {
        let above = |path: PathBuf| {
            let folder = path.parent().map(PathBuf::from).context("it lies in a folder")?;
            anyhow::Ok(format!("{}/", folder.display()))
        };
        let (store, cluster) = (self.cluster.store_path(side), &self.cluster);
        let mut text = command.replace("/srv/hadrian/db.img", &store.display().to_string());
        text = text.replace(MOMENT, &self.moment);
        for (here, there) in [
            ("/srv/hadrian/", above(store)?),
            ("/var/lib/hadrian/", above(cluster.replica_dir(side))?),
            ("/run/hadrian/", above(cluster.nbd_socket(side))?),
            ("/mnt/", format!("{}/", self.scratch.path().display())),
        ] {
            text = text.replace(here, &there);
        }
        for (begin, end) in [("tail-", ".frames"), ("image-", ".blocks")] {
            let is_named = |word: &&str| word.starts_with(begin) && word.ends_with(end);
            if let Some(word) = command.split_whitespace().find(is_named) {
                text = text.replace(word, &self.set_aside(side, end)?);
            }
        }
        Ok(text)
    }

    /// The name of a file in quarantine; on the page there is that of another one.
    fn set_aside(&self, side: Side, end: &str) -> anyhow::Result<String> {
        let folder = self.cluster.replica_dir(side).join("quarantine");
        let names = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name()));
        let names: Vec<_> = names.collect::<std::io::Result<_>>()?;
        let name = names.iter().map(|name| name.to_string_lossy()).find(|name| name.ends_with(end));
        Ok(name.with_context(|| format!("no {end} in {names:?}"))?.into_owned())
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        for mut child in self.served.drain(..) {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            // One that has ended by itself needs no signal.
            let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
            let _ = child.wait();
        }
    }
}

/// Whether a line of the answer begins with what is expected, and has its other parts behind it.
fn answers(text: &str, expected: &str) -> bool {
    let plain = |line: &str| format!(" {} ", line.split_whitespace().collect::<Vec<_>>().join(" "));
    text.lines().any(|line| {
        let (mut rest, mut first) = (plain(line), true);
        expected.split('…').all(|part| {
            let part = part.trim();
            let found = rest.match_indices(part).map(|(at, _)| at).find(|at| {
                let end = at + part.len();
                is_whole(&rest, *at, end) && (!first || part.is_empty() || *at == 1)
            });
            first = false;
            found.map(|at| rest.drain(..at + part.len())).is_some()
        })
    })
}

/// Whether what lies between the two is no part of a longer word: `peer` is not in
/// `disconnected_peer`.
fn is_whole(text: &str, start: usize, end: usize) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    let joins = |before: Option<char>, after: Option<char>| {
        before.is_some_and(in_word) && after.is_some_and(in_word)
    };
    let part = &text[start..end];
    !joins(text[..start].chars().next_back(), part.chars().next())
        && !joins(part.chars().next_back(), text[end..].chars().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_as_commands_and_their_answers() {
        let page = "# Page\n\n```toml\nno = 1\n```\n\n## One\n\n```\nalpha# hadrian x \\\n   y &\n\
                    beta# z\nit … is\n(exit code 3)\n```\n";
        let all = read(page).unwrap();
        let titles: Vec<_> = all.iter().map(|runbook| &runbook.title[..]).collect();
        assert_eq!(titles, ["Page", "One"]);
        assert!(all[0].steps.is_empty(), "{all:?}");
        let [one, two] = &all[1].steps[..] else { panic!("{all:?}") };
        assert_eq!((one.side, &one.command[..]), (Side::Alpha, "hadrian x y &"));
        assert_eq!(
            (two.side, two.exit, &two.expected[..]),
            (Side::Beta, 3, &["it … is".into()][..])
        );
    }

    #[test]
    fn an_answer_has_the_parts_of_the_line_in_their_order_and_whole() {
        let text = "db on beta   standby, peer\n  alpha  connected for 3s, disconnected_peer, 0\n";
        for line in ["db on beta … standby, peer", "db on", "alpha … connected", "… 3s"] {
            assert!(answers(text, line), "{line}");
        }
        for line in ["on beta", "alpha … peer", "db … beta on", "standby", "db on bet"] {
            assert!(!answers(text, line), "{line}");
        }
    }
}

//! `hadrian inspect --replay`: what a recorded core was told, told again.

use std::path::Path;

use anyhow::{Context as _, bail};
use hadrian_protocol::node::{Action, Entry, Note, Replay};
use hadrian_protocol::time::Clock;
use serde_json::{Value, json};

use super::words;
use crate::recording;

/// What was seen on the way.
#[derive(Debug, Default)]
struct Seen {
    entries: u64,
    actions: u64,
    clock: Clock,
    notes: Vec<Value>,
    /// The last line is not whole.
    cut: bool,
}

/// Follows the recording to its end, or to where the core does something else today.
pub(super) fn replay(path: &Path, json: bool) -> anyhow::Result<()> {
    let name = path.display();
    let mut entries = recording::read(path).with_context(|| format!("{name}"))?;
    let broken = |place: u64| format!("{name}: entry {place} cannot be read");
    let first = entries.next().with_context(|| format!("{name} is empty"))?;
    let first = first.with_context(|| broken(1))?;
    let head = beginning(&first);
    let mut replay = Replay::begin(first).with_context(|| format!("{name}"))?;
    let mut seen = Seen { entries: 1, ..Seen::default() };
    if let (Some(head), false) = (&head, json) {
        say!("recording   {name}, written by {}", head["program"].as_str().unwrap_or("?"));
        say!("replica     member {}, incarnation {}", head["member"], head["incarnation"]);
    }
    let mut difference = None;
    for entry in entries {
        let entry = match entry {
            Err(error) if error.is_eof() => {
                seen.cut = true;
                break;
            }
            entry => entry.with_context(|| broken(seen.entries + 1))?,
        };
        seen.entries += 1;
        seen.clock = clock_of(&entry).unwrap_or(seen.clock);
        match replay.follow(entry) {
            Ok(actions) => actions.into_iter().for_each(|action| seen.take(action, json)),
            Err(why) => {
                difference = Some(why.to_string());
                break;
            }
        }
    }
    tell_end(&replay, &seen, head, difference.as_deref(), json)?;
    match difference {
        Some(why) => bail!("entry {}: {why}", seen.entries),
        None => Ok(()),
    }
}

fn beginning(entry: &Entry) -> Option<Value> {
    let Entry::Started(start) = entry else { return None };
    Some(json!({
        "program": start.program,
        "member": start.state.member,
        "incarnation": start.state.incarnation.next_at(start.clock.wall),
    }))
}

fn clock_of(entry: &Entry) -> Option<Clock> {
    match entry {
        Entry::Handled(clock, _) | Entry::Appended(clock, _) | Entry::Settled(clock) => {
            Some(*clock)
        }
        _ => None,
    }
}

impl Seen {
    fn take(&mut self, action: Action, json: bool) {
        self.actions += 1;
        if let Action::Note(note) = action {
            if !json {
                let at = words::moment(self.clock.wall.as_micros());
                say!("{} [{}] {note}", humantime::format_rfc3339_millis(at), note.code());
            }
            self.notes.push(told(self.clock, &note));
        }
    }
}

fn told(clock: Clock, note: &Note) -> Value {
    json!({ "wall_us": clock.wall, "code": note.code(), "note": note })
}

fn tell_end(
    replay: &Replay,
    seen: &Seen,
    head: Option<Value>,
    difference: Option<&str>,
    json: bool,
) -> anyhow::Result<()> {
    let status = replay.node().status();
    if json {
        let told = json!({
            "start": head, "entries": seen.entries, "actions": seen.actions,
            "notes": seen.notes, "end": status, "full": replay.is_full(), "cut": seen.cut,
            "difference": difference,
        });
        say!("{}", serde_json::to_string(&told)?);
        return Ok(());
    }
    let lasted = words::time(seen.clock.now.as_micros());
    let why = match (replay.is_full(), seen.cut) {
        (true, _) => "; then it was full",
        (_, true) => "; its last line is cut",
        _ => "",
    };
    say!("length      {} entries in {lasted}{why}", seen.entries);
    say!("at the end  {:?}, log to {}", status.standing, status.end);
    if difference.is_none() {
        say!("verdict     the core does the same again: {} actions", seen.actions);
    }
    Ok(())
}

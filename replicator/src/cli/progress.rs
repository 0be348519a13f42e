//! A takeover as it goes on: each phase is shown when it begins.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::args::Args;
use super::{ask, ask_within, report, status_of, words};
use crate::control::{Request, Response};

/// How often the daemon is asked what it has come to.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Events that belong to a takeover.
const TOLD: [&str; 5] = ["phase", "leads", "given_up", "goes_back", "went_back"];

/// Asks for something that goes on for as long as the operator lets it, and says on standard error
/// how far it is, until it is done.
pub(super) fn follow(args: &Args, resource: &str, request: Request) -> anyhow::Result<()> {
    let mut seen = Seen { resource, after: newest(args, resource), opens: false };
    let (sender, answer) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // Who looks on has gone only if the whole command has.
            let _ = sender.send(ask_within(args, request, None));
        });
        loop {
            let answer = answer.recv_timeout(LOOK_EVERY);
            if !args.json {
                seen.look(args, matches!(answer, Err(RecvTimeoutError::Timeout)));
            }
            match answer {
                Ok(response) => return report(args, response?),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the question was not asked"),
            }
        }
    })
}

/// What was shown already.
struct Seen<'a> {
    resource: &'a str,
    after: u64,
    /// It leads, and has said that clients wait.
    opens: bool,
}

impl Seen<'_> {
    /// Shows what happened since the last look. A look that fails costs a line, not the takeover.
    fn look(&mut self, args: &Args, waits: bool) {
        let request = Request::Events { resource: self.resource.to_string(), after: self.after };
        let Ok(Response::Events(events)) = ask(args, request) else { return };
        let mut leads = false;
        for event in events {
            self.after = event.number;
            if TOLD.contains(&event.code.as_str()) {
                eprintln!("{}", event.text);
                leads |= event.code == "leads";
            }
        }
        if (leads || self.opens) && waits {
            self.show_opening(args);
        }
    }

    fn show_opening(&mut self, args: &Args) {
        let opening = status_of(args, self.resource).ok().and_then(|status| status.opening_bytes);
        if let Some(bytes) = opening {
            eprintln!("clients wait until {} more are applied", words::bytes(bytes));
        }
        self.opens = opening.is_some();
    }
}

/// The number of the newest event, so that only later ones are shown.
fn newest(args: &Args, resource: &str) -> u64 {
    let request = Request::Events { resource: resource.to_string(), after: 0 };
    match ask(args, request) {
        Ok(Response::Events(events)) => events.last().map_or(0, |event| event.number),
        _ => 0,
    }
}

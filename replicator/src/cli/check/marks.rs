//! What `hadrian check` says of markers: whether each is one, how fast it is, and whether the
//! members mean the same by them.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use hadrian_fencing::making::header_of;
use hadrian_fencing::medium::{Concern, EtcdSource, Medium, Source};
use hadrian_fencing::show::{ShownMember, show};
use hadrian_protocol::marks::layout::Run;
use hadrian_protocol::marks::lease::{LeaseState, Timing};
use hadrian_protocol::time::micros;

use super::Findings;
use crate::config::{Config, Marks, Member};
use crate::marks::replicated;

/// Reads, and writes, of a marker that are timed.
const TRIES: u32 = 16;

impl Findings {
    pub(super) fn look_at_marks(&mut self, config: &Config, marks: &Marks, me: &Member) {
        self.problems.extend(replicated(config, marks, me));
        for source in &marks.sources() {
            self.look_at_password(source);
            match header_of(source, &config.cluster) {
                Ok((mut marker, _)) => {
                    self.look_at_speed(source, marker.as_mut(), marks.timing.io);
                    self.look_at_leases(source, config, marks.timing);
                }
                Err(error) => self.problems.push(error.to_string()),
            }
        }
    }

    /// Where there is one, in a file that is not for everybody.
    fn look_at_password(&mut self, source: &Source) {
        let Source::Etcd(EtcdSource { login: Some((_, path)), .. }) = source else { return };
        let mode = path.metadata().map(|about| about.permissions().mode());
        if mode.is_ok_and(|mode| mode & 0o077 != 0) {
            let path = path.display();
            self.notes.push(format!(
                "{path} holds a password and is not for its owner only: chmod 600 {path}"
            ));
        }
    }

    fn look_at_speed(&mut self, shown: &Source, marker: &mut dyn Medium, limit: Duration) {
        if !marker.is_shared() {
            self.notes.push(format!(
                "{shown} cannot be used past the page cache: it is good for members on one host \
                 only"
            ));
        }
        let read = |marker: &mut dyn Medium| Some(marker.read(Run::leases()).map(drop));
        self.look_at_times(shown, "read", slowest(marker, read), limit);
        self.look_at_times(shown, "write", slowest(marker, |marker| marker.try_write()), limit);
        match marker.concerns() {
            Ok(concerns) => {
                for concern in concerns {
                    match concern {
                        Concern::Problem(text) => self.problems.push(format!("{shown}: {text}")),
                        Concern::Note(text) => self.notes.push(format!("{shown}: {text}")),
                    }
                }
            }
            Err(error) => self.notes.push(format!("{shown} does not tell how it is: {error}")),
        }
    }

    fn look_at_times(
        &mut self,
        shown: &Source,
        what: &str,
        slowest: io::Result<Duration>,
        limit: Duration,
    ) {
        match slowest {
            Ok(slowest) if slowest > limit => self.problems.push(format!(
                "{shown} took {slowest:?} for a {what}, more than fencing.io_timeout, {limit:?}; \
                 make that longer, and the lease with it"
            )),
            Ok(slowest) if slowest * 4 > limit => self.notes.push(format!(
                "{shown} took {slowest:?} for a {what}, and fencing.io_timeout is {limit:?}: \
                 little is left for a busy moment"
            )),
            Ok(_) => {}
            Err(error) => self.problems.push(format!("{shown}: a {what} fails: {error}")),
        }
    }

    /// Whoever watches a lease takes its times from there; but members whose files differ in one
    /// thing may differ in others.
    fn look_at_leases(&mut self, source: &Source, config: &Config, timing: Timing) {
        let Ok(shown) = show(source, &config.cluster) else { return };
        let (here, here_out) = (micros(timing.lease), micros(timing.wait_out()));
        let differs = |member: &&ShownMember| {
            let there = (member.lease_ms, member.wait_out_ms);
            member.state == LeaseState::Joined.name() && there != (here / 1000, here_out / 1000)
        };
        for member in shown.members.iter().filter(differs) {
            let name = config.members.get(usize::from(member.member));
            let name = name.map_or("a member that the file does not have", |member| &member.name);
            let (lease, out) = (member.lease_ms, member.wait_out_ms);
            self.notes.push(format!(
                "the lease of {name} on {source} lasts {lease} ms and is waited out for {out} ms; \
                 this file says {} and {}: give every member the same file",
                here / 1000,
                here_out / 1000
            ));
        }
    }
}

/// The slowest of a few; zero where there is nothing to be timed.
fn slowest(
    marker: &mut dyn Medium,
    order: impl Fn(&mut dyn Medium) -> Option<io::Result<()>>,
) -> io::Result<Duration> {
    let mut slowest = Duration::ZERO;
    for _ in 0..TRIES {
        let began = Instant::now();
        match order(marker) {
            Some(done) => done?,
            None => return Ok(Duration::ZERO),
        }
        slowest = slowest.max(began.elapsed());
    }
    Ok(slowest)
}

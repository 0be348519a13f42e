//! This daemon's hold on the ownership marks: one service for all of its resources.

use std::sync::Arc;
use std::time::Duration;

use hadrian_fencing::service::{Heard, Service, Settings, Snapshot};
use hadrian_protocol::ids::MemberId;
use hadrian_protocol::time::micros;

use crate::config::{Config, Marks, Member};
use crate::control::FencingStatus;
use crate::driver::{Mailbox, MarksDoor};

/// Longest that an orderly stop waits until the marks say that this member is down.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);

/// The service, and a door for each resource.
#[derive(Debug)]
pub(crate) struct Keeping {
    service: Arc<Service>,
    mailboxes: Vec<Arc<Mailbox>>,
}

impl Keeping {
    /// Starts to keep this member's lease, where the configuration has marks.
    pub(crate) fn start(config: &Config, me: &Member) -> std::io::Result<Option<Self>> {
        let Some(marks) = config.fencing.marks() else { return Ok(None) };
        let mailboxes: Vec<_> =
            config.resources.iter().map(|_| Arc::new(Mailbox::default())).collect();
        let posts = mailboxes.clone();
        let listener = move |heard: Heard| match &heard {
            Heard::Said(resource, _) => {
                if let Some(mailbox) = posts.get(*resource) {
                    mailbox.put(heard);
                }
            }
            _ => posts.iter().for_each(|mailbox| mailbox.put(heard.clone())),
        };
        let service = Service::start(settings(config, marks, me), Box::new(listener))?;
        Ok(Some(Self { service: Arc::new(service), mailboxes }))
    }

    /// The door of the resource with this number.
    pub(crate) fn door(&self, resource: usize) -> Option<MarksDoor> {
        let mailbox = self.mailboxes.get(resource)?.clone();
        Some(MarksDoor { service: self.service.clone(), resource, mailbox })
    }

    /// What people see.
    pub(crate) fn status(&self, marks: &Marks, name: impl Fn(MemberId) -> String) -> FencingStatus {
        let Snapshot { term, sights, markers, trouble } = self.service.snapshot();
        let now = hadrian_fencing::clock::now().now;
        FencingStatus::Marks {
            lease_us: term.map(|term| micros(term.until.since(now))),
            members: sights.into_iter().map(|(member, sight)| (name(member), sight)).collect(),
            markers: marks.sources().iter().map(ToString::to_string).zip(markers).collect(),
            trouble,
        }
    }

    /// Leaves in order; nothing is served any more.
    pub(crate) fn leave(&self) {
        if !self.service.leave(LEAVE_LIMIT) {
            tracing::warn!("the marks cannot be told that this member is down; others wait it out");
        }
    }
}

fn settings(config: &Config, marks: &Marks, me: &Member) -> Settings {
    Settings {
        cluster: config.cluster.clone(),
        me: me.id,
        members: u8::try_from(config.members.len()).unwrap_or(u8::MAX),
        markers: marks.sources(),
        timing: marks.timing,
        resources: config.resources.iter().map(|resource| resource.id).collect(),
        nonce: rand::random(),
        host_id: host_id(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
    }
}

/// The identity that this installation of a system has; a random one where it has none, so that
/// a former life of this member is waited out as if it were on another host.
fn host_id() -> u64 {
    let text = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let digits = text.trim().get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    digits.unwrap_or_else(rand::random)
}

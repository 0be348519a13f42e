//! This daemon's hold on the ownership marks: one service for all of its resources.

use std::sync::Arc;
use std::time::Duration;

use hadrian_fencing::exposure::Exposure;
use hadrian_fencing::service::{Heard, LastResort, Service, Settings, Snapshot};
use hadrian_fencing::watchdog::{Watchdog, WatchdogError, WatchdogSettings};
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
    exposures: Vec<Exposure>,
    has_watchdog: bool,
}

/// Why this member's lease cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// There is no thread for it.
    #[error("marks: {0}")]
    Io(#[from] std::io::Error),
    /// The watchdog that the configuration names.
    #[error(transparent)]
    Watchdog(#[from] WatchdogError),
}

impl Keeping {
    /// Starts to keep this member's lease, where the configuration has marks.
    pub(crate) fn start(config: &Config, me: &Member) -> Result<Option<Self>, KeepError> {
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
        let exposures: Vec<_> = mailboxes.iter().map(|_| Exposure::default()).collect();
        let watchdog = marks.watchdog.as_ref().map(arm).transpose()?;
        let has_watchdog = watchdog.is_some();
        let last = LastResort { watchdog, exposures: exposures.clone() };
        let service = Service::start(settings(config, marks, me), last, Box::new(listener))?;
        let service = Arc::new(service);
        Ok(Some(Self { service, mailboxes, exposures, has_watchdog }))
    }

    /// The door of the resource with this number.
    pub(crate) fn door(&self, resource: usize) -> Option<MarksDoor> {
        let mailbox = self.mailboxes.get(resource)?.clone();
        let exposure = self.exposures.get(resource)?.clone();
        Some(MarksDoor { service: self.service.clone(), resource, mailbox, exposure })
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
        if self.has_watchdog && !self.service.disarm(LEAVE_LIMIT) {
            tracing::error!("the watchdog was not stopped in time: it resets this host");
        }
    }
}

fn arm(settings: &WatchdogSettings) -> Result<Watchdog, WatchdogError> {
    let watchdog = Watchdog::arm(settings)?;
    let (device, timeout) = (settings.device.display(), watchdog.timeout());
    tracing::info!(%device, ?timeout, "the watchdog runs: it resets this host if it is not petted");
    Ok(watchdog)
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

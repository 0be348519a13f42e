//! This daemon's hold on the ownership marks: one service for all of its resources.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
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
    /// A marker that is replicated itself.
    #[error("{0}")]
    Replicated(String),
}

impl Keeping {
    /// Starts to keep this member's lease, where the configuration has marks.
    pub(crate) fn start(config: &Config, me: &Member) -> Result<Option<Self>, KeepError> {
        let Some(marks) = config.fencing.marks() else { return Ok(None) };
        if let Some(wrong) = replicated(config, marks, me).into_iter().next() {
            return Err(KeepError::Replicated(wrong));
        }
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

/// Markers that are themselves replicated: a mark must not move with what it is to guard. One line
/// for each, with the way out.
pub(crate) fn replicated(config: &Config, marks: &Marks, me: &Member) -> Vec<String> {
    let is_one = |one: &Path, other: &Path| {
        let same = |(one, other): (Metadata, Metadata)| match one.file_type().is_block_device() {
            true => other.file_type().is_block_device() && one.rdev() == other.rdev(),
            false => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        };
        one == other || one.metadata().ok().zip(other.metadata().ok()).is_some_and(same)
    };
    let mut found = Vec::new();
    for resource in &config.resources {
        for store in resource.stores(me.id) {
            let markers = marks.paths.iter().filter(|marker| is_one(marker, &store));
            found.extend(markers.map(|marker| {
                let (marker, name) = (marker.display(), &resource.name);
                format!(
                    "{marker} is a marker and a store of {name}: a marker must not be replicated; \
                     give it a device of its own"
                )
            }));
        }
    }
    found
}

/// The identity that this installation of a system has; a random one where it has none, so that
/// a former life of this member is waited out as if it were on another host.
fn host_id() -> u64 {
    let text = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let digits = text.trim().get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    digits.unwrap_or_else(rand::random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_that_is_replicated_under_another_name_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("store"), b"x").unwrap();
        std::fs::write(at("marker"), b"x").unwrap();
        std::os::unix::fs::symlink(at("store"), at("alias")).unwrap();
        let found = |marker: &str| {
            let text = format!(
                "cluster = \"orders\"\nfencing = {{ marks = [{:?}] }}\n[link]\nplaintext = true\n\
                 [[member]]\nname = \"alpha\"\naddress = \"10.0.0.1:7400\"\n\
                 [[member]]\nname = \"beta\"\naddress = \"10.0.0.2:7400\"\n\
                 [[resource]]\nname = \"db\"\n[[resource.volume]]\nname = \"data\"\n\
                 size = \"1GiB\"\nstore = {{ alpha = {:?}, beta = \"/dev/vg0/db\" }}\n",
                at(marker),
                at("store")
            );
            let config = Config::parse(&text, Path::new("hadrian.toml")).unwrap();
            let marks = config.fencing.marks().unwrap();
            replicated(&config, marks, config.member("alpha").unwrap())
        };
        assert_eq!(found("marker"), Vec::<String>::new());
        let lines = found("alias");
        assert!(lines[0].contains("alias") && lines[0].contains("db"), "{lines:?}");
    }
}

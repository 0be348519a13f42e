//! A resource's door to the marks: what it asks goes to their thread, what is heard of them comes
//! back through a mailbox of fixed size.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use hadrian_fencing::exposure::Exposure;
use hadrian_fencing::service::{Heard, Service};
use hadrian_protocol::ids::MemberId;
use hadrian_protocol::marks::proposer::Said;
use hadrian_protocol::marks::watch::Sight;
use hadrian_protocol::node::Event;
use hadrian_protocol::record::ControlRecord;
use hadrian_protocol::time::Now;
use tokio::sync::Notify;

/// What is heard of the marks until the resource's thread takes it: of everything the newest.
#[derive(Debug, Default)]
pub struct Mailbox {
    // Held for a moment by the thread of the marks and by that of the resource; not for requests.
    mail: Mutex<Mail>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Mail {
    lease: Option<Option<Now>>,
    sights: BTreeMap<MemberId, (Sight, Now)>,
    /// The core asks one thing of a kind at a time.
    said: Vec<Said>,
    /// What the operator's programs have done; the core asks for one thing of a kind at a time.
    told: Vec<Event>,
}

impl Mailbox {
    /// Takes what was heard; never waits for the resource.
    pub fn put(&self, heard: Heard) {
        if let Ok(mut mail) = self.mail.lock() {
            match heard {
                Heard::Said(_, said) => mail.said.push(said),
                Heard::Lease(term) => mail.lease = Some(Some(term.until)),
                Heard::LeaseLost => mail.lease = Some(None),
                Heard::Sight(member, sight, as_of) => {
                    mail.sights.insert(member, (sight, as_of));
                }
            }
        }
        self.news.notify_one();
    }

    /// Takes what another thread has to tell the core.
    pub fn tell(&self, event: Event) {
        if let Ok(mut mail) = self.mail.lock() {
            mail.told.push(event);
        }
        self.news.notify_one();
    }

    /// Forgets what a former life of the resource has asked; leases are what they are.
    pub(super) fn forget_answers(&self) {
        if let Ok(mut mail) = self.mail.lock() {
            mail.said.clear();
            mail.told.clear();
        }
    }

    /// Waits for news; what there is of them, for the core.
    pub(super) async fn events(&self) -> Vec<Event> {
        self.news.notified().await;
        let mail = self.mail.lock().map(|mut mail| std::mem::take(&mut *mail)).unwrap_or_default();
        let lease = mail.lease.map(Event::Lease);
        let sights = mail.sights.into_iter().map(|(member, (sight, as_of))| Event::Sighted {
            member,
            sight,
            as_of,
        });
        let said = mail.said.into_iter().map(|said| match said {
            Said::Read(record) => Event::RecordRead(record),
            Said::Decided(record) => Event::Decided(record),
        });
        lease.into_iter().chain(sights).chain(said).chain(mail.told).collect()
    }
}

/// One resource's door.
#[derive(Clone)]
pub struct MarksDoor {
    /// The threads that read and write the marks.
    pub service: Arc<Service>,
    /// The number that the resource has there.
    pub resource: usize,
    /// What is heard.
    pub mailbox: Arc<Mailbox>,
    /// What the resource says of itself to whoever pets the watchdog.
    pub exposure: Exposure,
}

impl fmt::Debug for MarksDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MarksDoor({})", self.resource)
    }
}

impl MarksDoor {
    pub(super) fn read(&self) {
        self.service.read(self.resource);
    }

    pub(super) fn propose(&self, record: ControlRecord) {
        self.service.change(self.resource, record);
    }

    /// Says until when clients may be answered; none: nobody is served.
    pub(super) fn expose(&self, until: Option<Now>) {
        match until {
            Some(until) => self.exposure.open(until),
            None => self.exposure.close(),
        }
    }
}

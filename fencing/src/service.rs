//! The threads that keep this member's lease and change control records.
//!
//! One thread runs the rules; each marker has one that reads and writes it, so a marker that hangs
//! wedges its own thread alone. Nothing here waits for a resource: what is heard goes to a
//! [`Listener`], which must not block.

mod finding;
mod worker;

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hadrian_protocol::ids::{ClusterId, Incarnation, MemberId, ResourceId};
use hadrian_protocol::marks::keeper::{Action, Event, Health, Keeper, Setup};
use hadrian_protocol::marks::lease::Timing;
use hadrian_protocol::marks::proposer::Said;
use hadrian_protocol::marks::tenure::Term;
use hadrian_protocol::marks::watch::Sight;
use hadrian_protocol::record::ControlRecord;
use hadrian_protocol::time::Now;

use crate::clock;
use crate::exposure::Exposure;
use crate::medium::Source;
use crate::watchdog::{Guard, Watchdog};
use finding::{Finding, Places};
use worker::{Job, Outcome, Worker};

/// Longest that the thread of the rules sleeps.
const NAP: Duration = Duration::from_secs(1);

/// What a service is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster's name.
    pub cluster: String,
    /// This member.
    pub me: MemberId,
    /// How many members there are.
    pub members: u8,
    /// The markers, in the order of the configuration.
    pub markers: Vec<Source>,
    /// How this member times its lease.
    pub timing: Timing,
    /// The resources, in the order in which they are numbered here.
    pub resources: Vec<ResourceId>,
    /// Drawn at random.
    pub nonce: u64,
    /// This host, by an identity that no other has.
    pub host_id: u64,
    /// Its name.
    pub host: String,
}

/// What a listener hears.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// The answer to a wish of one resource.
    Said(usize, Said),
    /// The lease of this member is good until then.
    Lease(Term),
    /// It has ended.
    LeaseLost,
    /// What is known of another member, as of then.
    Sight(MemberId, Sight, Now),
}

/// Who hears it; called on the thread of the rules, and must not block.
pub type Listener = Box<dyn Fn(Heard) + Send>;

/// What people see of this member's fencing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// The term that holds.
    pub term: Option<Term>,
    /// The others.
    pub sights: Vec<(MemberId, Sight)>,
    /// What is wrong with each marker, if anything is.
    pub markers: Vec<Option<String>>,
    /// Why nothing is kept, if so.
    pub trouble: Option<String>,
}

enum Input {
    Outcome(usize, Outcome),
    Read(usize),
    Change(usize, ControlRecord),
    Leave(Sender<()>),
    Disarm(Sender<()>),
}

/// What resets this host where a resource cannot be kept from answering.
#[derive(Debug, Default)]
pub struct LastResort {
    /// The watchdog, where there is one; it is petted from the service's start on.
    pub watchdog: Option<Watchdog>,
    /// What each resource says of itself.
    pub exposures: Vec<Exposure>,
}

/// A running service; dropped, its threads end when their markers let them.
#[derive(Debug)]
pub struct Service {
    inputs: Sender<Input>,
    snapshot: Arc<Mutex<Snapshot>>,
}

impl Service {
    /// Starts the threads.
    ///
    /// # Errors
    /// Where the system has no thread for it.
    pub fn start(
        settings: Settings,
        last: LastResort,
        listener: Listener,
    ) -> std::io::Result<Self> {
        let (inputs, outcomes) = channel();
        let markers = vec![Some("not read yet".to_owned()); settings.markers.len()];
        let snapshot = Arc::new(Mutex::new(Snapshot { markers, ..Snapshot::default() }));
        let mut workers = Vec::new();
        for (index, source) in settings.markers.iter().enumerate() {
            let inputs = inputs.clone();
            let tell = move |outcome| inputs.send(Input::Outcome(index, outcome)).is_ok();
            workers.push(Worker::start(source.clone(), settings.cluster.clone(), tell)?);
        }
        let failures = vec![String::new(); settings.markers.len()];
        let guard = Guard::new(last.watchdog, last.exposures);
        let (seen, leaving) = (snapshot.clone(), Vec::new());
        let rules = Rules { settings, workers, listener, snapshot: seen, failures, leaving, guard };
        let thread = std::thread::Builder::new().name("marks".into());
        thread.spawn(move || rules.run(&outcomes))?;
        Ok(Self { inputs, snapshot })
    }

    /// Asks what the record of a resource holds.
    pub fn read(&self, resource: usize) {
        self.send(Input::Read(resource));
    }

    /// Asks for a change of it.
    pub fn change(&self, resource: usize, record: ControlRecord) {
        self.send(Input::Change(resource, record));
    }

    /// Leaves in order: this member serves nothing any more. Waits until the markers say so, or
    /// for this long.
    pub fn leave(&self, longest: Duration) -> bool {
        let (done, left) = channel();
        self.send(Input::Leave(done));
        left.recv_timeout(longest).is_ok()
    }

    /// Stops the watchdog, if every resource has said that it is closed. Waits until that is done,
    /// or for this long.
    pub fn disarm(&self, longest: Duration) -> bool {
        let (done, disarmed) = channel();
        self.send(Input::Disarm(done));
        disarmed.recv_timeout(longest).is_ok()
    }

    /// What people see.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.lock().map(|snapshot| snapshot.clone()).unwrap_or_default()
    }

    fn send(&self, input: Input) {
        // The thread ends with this handle only.
        let _ = self.inputs.send(input);
    }
}

/// What the thread of the rules has.
struct Rules {
    settings: Settings,
    workers: Vec<Worker>,
    listener: Listener,
    snapshot: Arc<Mutex<Snapshot>>,
    /// What each marker said when an order failed last.
    failures: Vec<String>,
    leaving: Vec<Sender<()>>,
    guard: Guard,
}

impl Rules {
    fn run(mut self, inputs: &Receiver<Input>) {
        let mut early = Vec::new();
        let Some(places) = self.find(inputs, &mut early) else { return };
        let mut keeper = Keeper::new(self.setup(places), clock::now());
        early.into_iter().for_each(|input| self.take(&mut keeper, input));
        loop {
            self.carry_out(&mut keeper);
            let now = clock::now();
            self.guard.turn(now.now);
            let due = keeper.deadline().map_or(NAP, |at| at.since(now.now));
            match inputs.recv_timeout(due.min(NAP)) {
                Ok(input) => self.take(&mut keeper, input),
                Err(RecvTimeoutError::Timeout) => keeper.handle(clock::now(), Event::Tick),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Waits until a majority of the markers says where the resources have their places.
    fn find(&mut self, inputs: &Receiver<Input>, early: &mut Vec<Input>) -> Option<Places> {
        let mut finding = Finding::new(self.workers.len());
        loop {
            let now = clock::now().now;
            self.guard.turn(now);
            for index in finding.due(now) {
                self.send(index, Job::Look);
            }
            match inputs.recv_timeout(NAP) {
                Ok(Input::Outcome(index, outcome)) => finding.saw(index, outcome, now),
                Ok(Input::Leave(done)) => {
                    // Nothing was begun, so there is nothing to leave.
                    let _ = done.send(());
                }
                Ok(Input::Disarm(done)) => self.disarm(&done),
                Ok(input) => early.push(input),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
            if let Some(places) = finding.places(&self.settings.resources) {
                self.change_snapshot(|snapshot| snapshot.trouble = None);
                return Some(places);
            }
            let trouble = finding.trouble();
            self.change_snapshot(|snapshot| snapshot.trouble = Some(trouble));
        }
    }

    fn setup(&self, places: Places) -> Setup {
        let settings = &self.settings;
        Setup {
            cluster: ClusterId::derive(&settings.cluster),
            me: settings.me,
            members: settings.members,
            markers: settings.markers.len(),
            timing: settings.timing,
            places,
            incarnation: Incarnation::default().next_at(clock::now().wall),
            nonce: settings.nonce,
            host_id: settings.host_id,
            host: settings.host.clone(),
        }
    }

    fn take(&mut self, keeper: &mut Keeper, input: Input) {
        let clock = clock::now();
        match input {
            Input::Outcome(marker, Outcome::Read(bytes)) => {
                keeper.handle(clock, Event::Done { marker, bytes: &bytes });
            }
            Input::Outcome(marker, Outcome::Failed(error)) => {
                tracing::warn!(marker, %error, "a marker cannot be read or written");
                if let Some(last) = self.failures.get_mut(marker) {
                    *last = error;
                }
                keeper.handle(clock, Event::Failed { marker });
            }
            // A look that was late.
            Input::Outcome(_, Outcome::Places(_)) => {}
            Input::Read(resource) => keeper.handle(clock, Event::Read(resource)),
            Input::Change(resource, record) => {
                keeper.handle(clock, Event::Change(resource, record));
            }
            Input::Leave(done) => {
                self.leaving.push(done);
                keeper.handle(clock, Event::Leave);
            }
            Input::Disarm(done) => self.disarm(&done),
        }
    }

    fn disarm(&mut self, done: &Sender<()>) {
        self.guard.end();
        // Who waited may have given up.
        let _ = done.send(());
    }

    fn carry_out(&mut self, keeper: &mut Keeper) {
        while let Some(action) = keeper.poll() {
            match action {
                Action::Order { marker, write, read } => {
                    self.send(marker, Job::Order { write, read });
                }
                Action::Said(resource, said) => (self.listener)(Heard::Said(resource, said)),
                Action::Lease(term) => {
                    self.guard.lease(Some(term));
                    self.change_snapshot(|snapshot| snapshot.term = Some(term));
                    (self.listener)(Heard::Lease(term));
                }
                Action::LeaseLost => {
                    if self.leaving.is_empty() {
                        tracing::warn!("this member's lease on the marks has ended");
                    }
                    self.guard.lease(None);
                    self.change_snapshot(|snapshot| snapshot.term = None);
                    (self.listener)(Heard::LeaseLost);
                }
                Action::Sight(member, sight, as_of) => {
                    tracing::debug!(%member, sight = sight.name(), "seen on the marks");
                    self.change_snapshot(|snapshot| {
                        snapshot.sights.retain(|(known, _)| *known != member);
                        snapshot.sights.push((member, sight));
                    });
                    (self.listener)(Heard::Sight(member, sight, as_of));
                }
                Action::Marker(index, health) => self.tell_health(index, &health),
                Action::Joined(writer) => {
                    let life = writer.incarnation.get();
                    tracing::info!(life, "this member keeps a lease on the marks");
                }
                Action::Refused(block) => self.refuse(&block.lease.host),
                Action::Left => self.leaving.drain(..).for_each(|done| {
                    // Who waited may have given up.
                    let _ = done.send(());
                }),
            }
        }
    }

    fn refuse(&self, host: &str) {
        let text = format!(
            "another host, {host:?}, keeps a lease in this member's name; two daemons run as one \
             member: stop one of them, or correct --member"
        );
        tracing::error!("{text}");
        self.change_snapshot(|snapshot| snapshot.trouble = Some(text));
    }

    fn tell_health(&self, index: usize, health: &Health) {
        let wrong = match health {
            Health::Unknown => Some("not read yet".to_owned()),
            Health::Good => None,
            Health::Late => Some("does not answer in time".to_owned()),
            Health::Failed => {
                let why = self.failures.get(index).map_or("", String::as_str);
                Some(format!("cannot be read or written: {why}"))
            }
            Health::Unread(unread) => Some(unread.to_string()),
            Health::Overwritten(what) => {
                Some(format!("{what}; it is not used until hadriand is started again"))
            }
        };
        let place = self.settings.markers.get(index).map(Source::to_string).unwrap_or_default();
        match &wrong {
            None => tracing::info!(marker = place, "the marker does what it is told"),
            Some(wrong) => tracing::warn!(marker = place, "{wrong}"),
        }
        self.change_snapshot(|snapshot| {
            if let Some(marker) = snapshot.markers.get_mut(index) {
                *marker = wrong;
            }
        });
    }

    fn change_snapshot(&self, change: impl FnOnce(&mut Snapshot)) {
        if let Ok(mut snapshot) = self.snapshot.lock() {
            change(&mut snapshot);
        }
    }

    fn send(&self, index: usize, job: Job) {
        if let Some(worker) = self.workers.get(index) {
            worker.send(job);
        }
    }
}

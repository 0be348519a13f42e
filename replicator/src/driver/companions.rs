//! Companion files of a running resource: put in place before clients come, and watched while this
//! member serves (see [`crate::companions`]).

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hadrian_protocol::ids::VolumeIndex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;

use super::resource::{Inner, Shared};
use crate::companions::{
    BroughtOut, Companions, FileSet, Found, Kept, Look, SLOT_BYTES, SetError, Trouble, slot_of,
};

/// How often a primary looks whether a file was changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Longest that clients wait for files that are put in their place.
const PLACING_MAX: Duration = Duration::from_secs(30);
/// Kept copies that are told of.
const TOLD_MAX: usize = 64;

/// What a resource is started with, where it has companions.
#[derive(Clone, Debug)]
pub struct CompanionsStart {
    /// Which files, and where this member's notes on them are.
    pub companions: Companions,
    /// The volume that carries them.
    pub volume: VolumeIndex,
}

/// What people see of the companions of a resource.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CompanionsStatus {
    /// How many files there are to be.
    pub files: usize,
    /// Number of the newest set that this member has written or put in place as primary; 0: none.
    pub generation: u64,
    /// Files that were replaced here although this host had changed them, or that are gone.
    pub kept: Vec<Kept>,
    /// What cannot be done, and the way out.
    pub troubles: Vec<Trouble>,
}

/// The companions as the pump knows them.
pub(super) struct Carried {
    start: Arc<CompanionsStart>,
    phase: Phase,
    /// Service that has begun so far: what was begun in one is no affair of the next.
    era: u64,
    set: FileSet,
    look: Option<Look>,
    kept: Vec<Kept>,
    troubles: Vec<Trouble>,
    wake: Rc<Notify>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// This member serves nobody.
    Away,
    /// It is about to: the files are to be put in place first.
    Due,
    /// They are being put in place.
    Placing,
    /// They are in place, as far as possible.
    Out,
}

impl Carried {
    pub(super) fn new(start: &CompanionsStart) -> Self {
        Self {
            start: Arc::new(start.clone()),
            phase: Phase::Away,
            era: 0,
            set: FileSet::default(),
            look: None,
            kept: Vec::new(),
            troubles: Vec::new(),
            wake: Rc::default(),
        }
    }

    /// Service begins or ends.
    pub(super) fn serve(&mut self, serve: bool) {
        self.era += 1;
        self.look = None;
        self.phase = if serve { Phase::Due } else { Phase::Away };
    }

    /// Everything else is ready for clients: whether the files are, too.
    pub(super) fn ready(&mut self) -> bool {
        if self.phase == Phase::Due {
            self.phase = Phase::Placing;
            self.wake.notify_one();
        }
        self.phase == Phase::Out
    }

    pub(super) fn status(&self) -> CompanionsStatus {
        CompanionsStatus {
            files: self.start.companions.paths.len(),
            generation: self.set.generation,
            kept: self.kept.clone(),
            troubles: self.troubles.clone(),
        }
    }
}

impl Inner {
    fn carried(&mut self, era: u64) -> Option<&mut Carried> {
        self.companions.as_mut().filter(|carried| carried.era == era)
    }

    /// Troubles that are not known yet are told of.
    fn told_troubles(&mut self, era: u64, troubles: Vec<Trouble>) {
        let Some(carried) = self.carried(era) else { return };
        let before = std::mem::replace(&mut carried.troubles, troubles.clone());
        for trouble in troubles.iter().filter(|trouble| !before.contains(trouble)) {
            let text = format!("the companion file {trouble}");
            tracing::warn!(resource = %self.name, "{text}");
            self.tell_hook_of("companion_trouble", text);
        }
    }

    fn told_placed(&mut self, era: u64, done: &BroughtOut) {
        for path in &done.placed {
            tracing::info!(resource = %self.name, path = %path.display(), "a file is in place");
        }
        for Kept { path, copy } in &done.kept {
            let (path, copy) = (path.display(), copy.display());
            let text = format!(
                "the companion file {path} was changed on this host and elsewhere, or is gone \
                 elsewhere: the other's counts, and what was here is in {copy}"
            );
            tracing::warn!(resource = %self.name, "{text}");
            self.tell_hook_of("companion_kept", text);
        }
        let Some(carried) = self.carried(era) else { return };
        carried.kept.extend(done.kept.iter().cloned());
        let more = carried.kept.len().saturating_sub(TOLD_MAX);
        carried.kept.drain(..more);
    }
}

/// Runs for as long as the resource does.
pub(super) async fn carry(shared: Rc<Shared>) {
    let Some(wake) = shared.inner.borrow().companions.as_ref().map(|it| it.wake.clone()) else {
        return;
    };
    loop {
        let _ = tokio::time::timeout(LOOK_EVERY, wake.notified()).await;
        let Some((era, phase, start)) = shared.carried_now() else { return };
        match phase {
            Phase::Placing => shared.place_companions(era, &start).await,
            Phase::Out => shared.watch_companions(era, &start).await,
            Phase::Away | Phase::Due => {}
        }
    }
}

impl Shared {
    fn carried_now(&self) -> Option<(u64, Phase, Arc<CompanionsStart>)> {
        let inner = self.inner.borrow();
        let carried = inner.companions.as_ref().filter(|_| !self.stopped.get())?;
        Some((carried.era, carried.phase, carried.start.clone()))
    }

    /// Puts the files of the newest set in their places. Whatever goes wrong with that, clients are
    /// let in: the volumes are what they wait for.
    async fn place_companions(&self, era: u64, start: &CompanionsStart) {
        let (set, mut troubles) = self.newest_set(start).await;
        let (companions, placed) = (start.companions.clone(), set.clone());
        let placing = spawn_blocking(move || companions.bring_out(&placed));
        let done = match tokio::time::timeout(PLACING_MAX, placing).await {
            Ok(Ok(done)) => done,
            _ => {
                let why = "the files were not put in place within 30 s; see the disk that they lie \
                           on. Clients are let in without them";
                let path = start.companions.dir.clone();
                troubles.push(Trouble { path, why: why.into() });
                BroughtOut::default()
            }
        };
        let mut inner = self.inner.borrow_mut();
        inner.told_placed(era, &done);
        troubles.extend(done.troubles);
        inner.told_troubles(era, troubles);
        if let Some(carried) = inner.carried(era) {
            carried.set = set;
            carried.phase = Phase::Out;
            // It is looked at them at once: what was changed here while nobody served goes out.
            carried.wake.notify_one();
        }
        drop(inner);
        self.wake.notify_one();
    }

    /// The newer whole set of the two.
    async fn newest_set(&self, start: &CompanionsStart) -> (FileSet, Vec<Trouble>) {
        let (mut newest, mut wrong) = (FileSet::default(), Vec::new());
        let len = u32::try_from(SLOT_BYTES).unwrap_or(u32::MAX);
        for at in [slot_of(0), slot_of(1)] {
            let trouble = |why: String| {
                let path = start.companions.dir.clone();
                Trouble { path, why: format!("a set of files in the log cannot be read: {why}") }
            };
            match self.read_own(start.volume, at, len).await.map(|slot| FileSet::decode(&slot)) {
                Ok(Ok(set)) if set.generation > newest.generation => newest = set,
                // The log may end between the files of a set and its head.
                Ok(Ok(_) | Err(SetError::Empty | SetError::Torn)) => {}
                Ok(Err(error)) => wrong.push(trouble(error.to_string())),
                Err(error) => wrong.push(trouble(format!("{error:?}"))),
            }
        }
        (newest, wrong)
    }

    /// Writes the set anew, if a file was changed.
    async fn watch_companions(self: &Rc<Self>, era: u64, start: &CompanionsStart) {
        let companions = start.companions.clone();
        let Ok(look) = spawn_blocking(move || companions.look()).await else { return };
        let set = {
            let mut inner = self.inner.borrow_mut();
            let Some(carried) = inner.carried(era) else { return };
            if carried.look.as_ref() == Some(&look) {
                return;
            }
            carried.set.clone()
        };
        let companions = start.companions.clone();
        let looked = spawn_blocking(move || {
            let found = companions.find();
            (companions.next_set(&set, &found), found)
        });
        let Ok((next, found)) = looked.await else { return };
        let mut troubles: Vec<_> =
            found.iter().filter_map(|found| found.file.clone().err()).collect();
        let mut is_settled = true;
        if let Some(next) = next {
            match self.write_set(start, &next, found).await {
                Ok(()) => self.wrote_set(era, next),
                Err(Failed::Set(error)) => {
                    let path = start.companions.dir.clone();
                    troubles.push(Trouble { path, why: error.to_string() });
                }
                // Service has ended, or clients are held; it is tried again.
                Err(Failed::Log) => is_settled = false,
            }
        }
        let mut inner = self.inner.borrow_mut();
        is_settled &= troubles.iter().all(|trouble| !trouble.is_passing());
        inner.told_troubles(era, troubles);
        if let Some(carried) = inner.carried(era).filter(|_| is_settled) {
            carried.look = Some(look);
        }
    }

    /// The files first, then the head that makes them count; then this member's note.
    async fn write_set(
        self: &Rc<Self>,
        start: &CompanionsStart,
        set: &FileSet,
        found: Vec<Found>,
    ) -> Result<(), Failed> {
        let slot = set.encode().map_err(Failed::Set)?;
        for (at, bytes) in [slot.files, slot.head] {
            self.write_own(start.volume, at, &bytes).await.map_err(|_| Failed::Log)?;
        }
        let (companions, set) = (start.companions.clone(), set.clone());
        let noted = spawn_blocking(move || companions.was_written(&set, &found)).await;
        if let Ok(Err(error)) = noted {
            let dir = start.companions.dir.display();
            tracing::warn!(%dir, %error, "what was written of the companions is not noted");
        }
        Ok(())
    }

    fn wrote_set(&self, era: u64, set: FileSet) {
        let mut inner = self.inner.borrow_mut();
        let (generation, count) = (set.generation, set.files.len());
        tracing::info!(resource = %inner.name, generation, count, "the companions are in the log");
        if let Some(carried) = inner.carried(era) {
            carried.set = set;
        }
    }
}

enum Failed {
    Set(SetError),
    Log,
}

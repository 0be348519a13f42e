//! A watchdog: it resets this host when nobody has petted it for as long as it was told.
//!
//! It is the last rung of the ladder: where this member's clients cannot be held before its lease
//! ends, because a thread of it stands still, the host goes down instead. Others wait for that, as
//! the lease tells them to. It is petted by the thread of the marks alone, and only while nobody
//! can be answered against the rules.

mod device;
mod shown;

pub use device::DevWatchdog;
pub use shown::{SYS, Shown, look};

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hadrian_protocol::marks::tenure::Term;
use hadrian_protocol::time::Now;

use crate::exposure::Exposure;

/// The shortest time that a driver may make of what it was asked for: below, a busy moment resets
/// the host.
pub const TIMEOUT_MIN: Duration = Duration::from_secs(5);
/// So often within its time a watchdog is petted.
const PETS: u32 = 5;

/// Which watchdog, and its time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatchdogSettings {
    /// The device, such as `/dev/watchdog`.
    pub device: PathBuf,
    /// Within which the host is reset when nobody pets it; whole seconds.
    pub timeout: Duration,
}

/// What a driver of a watchdog is asked.
pub trait Device: Send + fmt::Debug {
    /// Sets the time, in seconds; what the driver has made of it.
    ///
    /// # Errors
    /// As the system says.
    fn set_timeout(&mut self, seconds: u32) -> io::Result<u32>;

    /// Puts the reset off.
    ///
    /// # Errors
    /// As the system says.
    fn pet(&mut self) -> io::Result<()>;

    /// Announces that the close that follows is meant (magic close).
    ///
    /// # Errors
    /// As the system says.
    fn disarm(&mut self) -> io::Result<()>;
}

/// Why a watchdog cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WatchdogError {
    /// There is none.
    #[error(
        "{}: there is no such watchdog; load its driver (softdog where the host has none: \
         modprobe softdog), or name another in fencing.watchdog", .path.display()
    )]
    Missing {
        /// The device.
        path: PathBuf,
    },
    /// A watchdog has one owner.
    #[error(
        "{}: another program has this watchdog; sbd, wdmd, watchdog and systemd \
         (RuntimeWatchdogSec) are known to take it: keep them off, or name another device in \
         fencing.watchdog", .path.display()
    )]
    Busy {
        /// The device.
        path: PathBuf,
    },
    /// A file or a disk is none.
    #[error("{}: this is no watchdog; name one in fencing.watchdog", .path.display())]
    NoWatchdog {
        /// The path.
        path: PathBuf,
    },
    /// The driver made more of it: others would take over before the reset.
    #[error(
        "{}: its driver makes {got:?} of fencing.watchdog.timeout, {asked:?}; others would not \
         wait that long: write {got:?} there, or a time that the driver takes", .path.display()
    )]
    Longer {
        /// The device.
        path: PathBuf,
        /// What was asked for.
        asked: Duration,
        /// What the driver made of it.
        got: Duration,
    },
    /// The driver made so little of it that a busy moment would reset the host.
    #[error(
        "{}: its driver makes {got:?} of fencing.watchdog.timeout, {asked:?}, and less than \
         {TIMEOUT_MIN:?} resets a host that is only busy; write a time that the driver takes",
        .path.display()
    )]
    Shorter {
        /// The device.
        path: PathBuf,
        /// What was asked for.
        asked: Duration,
        /// What the driver made of it.
        got: Duration,
    },
    /// Anything else.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The device.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl WatchdogError {
    /// What the system's answer to looking at, or opening, `path` means.
    #[must_use]
    pub fn opening(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path },
            io::ErrorKind::ResourceBusy => Self::Busy { path },
            // The device file of a driver that is not loaded.
            _ if source.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error())
                || source.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) =>
            {
                Self::Missing { path }
            }
            _ => Self::Io { path, source },
        }
    }
}

/// A watchdog that runs. Dropped without [`Watchdog::disarm`], as by the end of this process, it
/// runs on and resets the host, unless somebody opens it in time.
#[derive(Debug)]
pub struct Watchdog {
    device: Box<dyn Device>,
    path: PathBuf,
    timeout: Duration,
    petted_at: Option<Now>,
    is_failing: bool,
}

impl Watchdog {
    /// Opens the device, which starts it, and gives it its time.
    ///
    /// # Errors
    /// [`WatchdogError`]; the watchdog does not run then, where its driver can be stopped.
    pub fn arm(settings: &WatchdogSettings) -> Result<Self, WatchdogError> {
        Self::begin(Box::new(DevWatchdog::open(&settings.device)?), settings)
    }

    /// Gives an open device its time.
    ///
    /// # Errors
    /// [`WatchdogError`], after it was stopped.
    pub fn begin(
        mut device: Box<dyn Device>,
        settings: &WatchdogSettings,
    ) -> Result<Self, WatchdogError> {
        let WatchdogSettings { device: path, timeout: asked } = settings.clone();
        let seconds = u32::try_from(asked.as_secs()).unwrap_or(u32::MAX);
        let error = match device.set_timeout(seconds).map(|got| Duration::from_secs(got.into())) {
            Ok(got) if got > asked => WatchdogError::Longer { path, asked, got },
            Ok(got) if got < TIMEOUT_MIN => WatchdogError::Shorter { path, asked, got },
            Ok(timeout) => {
                let (petted_at, is_failing) = (None, false);
                return Ok(Self { device, path, timeout, petted_at, is_failing });
            }
            Err(source) if is_no_watchdog(&source) => WatchdogError::NoWatchdog { path },
            Err(source) => WatchdogError::Io { path, source },
        };
        // What cannot be used must not reset the host either; one that cannot be stopped was
        // running before.
        let _ = device.disarm();
        Err(error)
    }

    /// Within which it resets the host, as its driver says; at most what was asked for.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    fn is_due(&self, now: Now) -> bool {
        self.petted_at.is_none_or(|at| now.since(at) >= self.timeout / PETS)
    }

    fn pet(&mut self, now: Now) {
        let petted = self.device.pet();
        match &petted {
            Ok(()) => self.petted_at = Some(now),
            Err(error) if !self.is_failing => {
                let device = self.path.display();
                tracing::error!(%device, %error, "the watchdog cannot be petted");
            }
            Err(_) => {}
        }
        self.is_failing = petted.is_err();
    }

    /// Stops it: nothing is served here any more.
    pub fn disarm(mut self) {
        let device = self.path.display();
        let stays = look(&self.path, Path::new(SYS)).ok().and_then(|shown| shown.nowayout);
        match (self.device.disarm(), stays) {
            (Ok(()), Some(true)) => tracing::warn!(
                %device,
                timeout = ?self.timeout,
                "the watchdog's driver cannot be stopped (nowayout): this host is reset after its \
                 time, unless hadriand or another program opens the device again"
            ),
            (Ok(()), _) => tracing::info!(%device, "the watchdog is stopped"),
            (Err(error), _) => tracing::error!(%device, %error, "the watchdog cannot be stopped"),
        }
    }
}

fn is_no_watchdog(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NOTTY.raw_os_error())
}

/// Decides whether the watchdog is petted. On the thread of the marks: where that stands still,
/// nobody pets.
#[derive(Debug)]
pub(crate) struct Guard {
    watchdog: Option<Watchdog>,
    exposures: Vec<Exposure>,
    term: Option<Term>,
    /// It was petted the last time that it could have been.
    pets: bool,
}

impl Guard {
    pub(crate) fn new(watchdog: Option<Watchdog>, exposures: Vec<Exposure>) -> Self {
        Self { watchdog, exposures, term: None, pets: true }
    }

    /// The lease is good until then, or there is none.
    pub(crate) fn lease(&mut self, term: Option<Term>) {
        self.term = term;
    }

    /// Pets, if it is time and nobody can be answered against the rules: the lease holds, or each
    /// resource has said that it is closed, or that every other in-sync member's word still
    /// stands. So the last time that it is petted lies before the end of the right to serve, and
    /// the reset comes within the watchdog's time of that end: others wait so long.
    pub(crate) fn turn(&mut self, now: Now) {
        let safe = self.is_safe(now);
        let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| watchdog.is_due(now)) else {
            return;
        };
        if safe {
            watchdog.pet(now);
        } else if self.pets {
            let (device, timeout) = (watchdog.path.display(), watchdog.timeout);
            tracing::error!(
                %device, ?timeout,
                "there is no lease, and a resource has not said that its clients are held: the \
                 watchdog is not petted until it does, and resets this host"
            );
        } else {
            return;
        }
        if safe && !self.pets {
            tracing::warn!("the watchdog is petted again");
        }
        self.pets = safe;
    }

    fn is_safe(&self, now: Now) -> bool {
        let holds = self.term.is_some_and(|term| now < term.until);
        holds || self.exposures.iter().all(|exposure| exposure.is_safe(now))
    }

    /// Stops the watchdog, where every resource is closed; else it is left to reset the host.
    pub(crate) fn end(&mut self) {
        let Some(watchdog) = self.watchdog.take() else { return };
        if self.exposures.iter().all(Exposure::is_closed) {
            return watchdog.disarm();
        }
        tracing::error!(
            "a resource is not closed: the watchdog is not stopped, and resets this host"
        );
    }
}

#[cfg(test)]
mod tests;

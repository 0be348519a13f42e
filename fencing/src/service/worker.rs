//! The thread of one marker: does one job after the other, and may hang in any of them.

use std::io;
use std::sync::mpsc::{Sender, channel};

use hadrian_protocol::ids::ClusterId;
use hadrian_protocol::marks::block::Block;
use hadrian_protocol::marks::header::{Header, Label};
use hadrian_protocol::marks::layout::{BlockIndex, Place, Run};

use crate::making;
use crate::medium::{Medium, Source};

/// What the thread is to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Says which marker it is, and which resources have places.
    Look,
    /// Writes, then reads.
    Order { write: Option<(BlockIndex, Block)>, read: Run },
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Outcome {
    Places(Result<(Header, Vec<(Place, Label)>), String>),
    Read(Vec<u8>),
    Failed(String),
}

#[derive(Debug)]
pub(super) struct Worker {
    jobs: Sender<Job>,
}

impl Worker {
    /// `tell` says whether anybody still listens.
    pub(super) fn start(
        source: Source,
        cluster: String,
        tell: impl Fn(Outcome) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, todo) = channel();
        let thread = std::thread::Builder::new().name("marker".into());
        thread.spawn(move || {
            let mut hand = Hand { source, cluster, medium: None, has_failed: false };
            for job in todo {
                if !tell(hand.work(job)) {
                    return;
                }
            }
        })?;
        Ok(Self { jobs })
    }

    pub(super) fn send(&self, job: Job) {
        // The thread ends only when this handle does.
        let _ = self.jobs.send(job);
    }
}

/// What the thread has.
#[derive(Debug)]
struct Hand {
    source: Source,
    cluster: String,
    /// It is kept when something failed: it knows what it has tried to write.
    medium: Option<Box<dyn Medium>>,
    has_failed: bool,
}

impl Hand {
    fn work(&mut self, job: Job) -> Outcome {
        match job {
            Job::Look => Outcome::Places(self.look()),
            Job::Order { write, read } => match self.order(write.as_ref(), read) {
                Ok(bytes) => Outcome::Read(bytes),
                Err(error) => {
                    self.has_failed = true;
                    Outcome::Failed(error.to_string())
                }
            },
        }
    }

    fn look(&self) -> Result<(Header, Vec<(Place, Label)>), String> {
        let Self { source, cluster, .. } = self;
        let (mut marker, header) =
            making::header_of(source, cluster).map_err(|error| error.to_string())?;
        if !marker.is_shared() {
            tracing::warn!(
                marker = %source,
                "cannot be used past the page cache: it is good for members on one host only"
            );
        }
        let places = making::places(marker.as_mut(), (ClusterId::derive(cluster), &header))
            .map_err(|error| format!("{source}: {error}"))?;
        Ok((header, places))
    }

    fn order(&mut self, write: Option<&(BlockIndex, Block)>, read: Run) -> io::Result<Vec<u8>> {
        let medium = match &mut self.medium {
            Some(medium) => medium,
            None => self.medium.insert(self.source.open(&self.cluster).map_err(io::Error::other)?),
        };
        if self.has_failed {
            medium.reopen().map_err(io::Error::other)?;
            self.has_failed = false;
        }
        medium.order(write, read)
    }
}

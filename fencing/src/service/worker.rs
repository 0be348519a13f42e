//! The thread of one marker: does one job after the other, and may hang in any of them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};

use hadrian_protocol::ids::ClusterId;
use hadrian_protocol::marks::block::Block;
use hadrian_protocol::marks::header::{Header, Label};
use hadrian_protocol::marks::layout::{BlockIndex, Place, Run};

use crate::making;
use crate::marker::Marker;

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
        path: PathBuf,
        cluster: String,
        tell: impl Fn(Outcome) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, todo) = channel();
        let thread = std::thread::Builder::new().name("marker".into());
        thread.spawn(move || {
            let mut marker = None;
            for job in todo {
                if !tell(work(&path, &cluster, &mut marker, job)) {
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

fn work(path: &Path, cluster: &str, open: &mut Option<Marker>, job: Job) -> Outcome {
    match job {
        Job::Look => Outcome::Places(look(path, cluster)),
        Job::Order { write, read } => match order(path, open, write.as_ref(), read) {
            Ok(bytes) => Outcome::Read(bytes),
            Err(error) => {
                // A device that was away may come back under a new handle.
                *open = None;
                Outcome::Failed(error.to_string())
            }
        },
    }
}

fn look(path: &Path, cluster: &str) -> Result<(Header, Vec<(Place, Label)>), String> {
    let (mut marker, header) =
        making::header_of(path, cluster).map_err(|error| error.to_string())?;
    if !marker.is_direct() {
        tracing::warn!(
            marker = %path.display(),
            "cannot be used past the page cache: it is good for members on one host only"
        );
    }
    let places = making::places(&mut marker, (ClusterId::derive(cluster), &header))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((header, places))
}

fn order(
    path: &Path,
    open: &mut Option<Marker>,
    write: Option<&(BlockIndex, Block)>,
    read: Run,
) -> io::Result<Vec<u8>> {
    let marker = match open {
        Some(marker) => marker,
        None => open.insert(Marker::open(path).map_err(io::Error::other)?),
    };
    if let Some((index, block)) = write {
        marker.write(*index, block)?;
    }
    Ok(marker.read(read)?.to_vec())
}

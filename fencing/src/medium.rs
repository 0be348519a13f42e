//! What holds the blocks of the marks: a device or file ([`crate::marker`]), or etcd.
//!
//! The rules know nothing of it. They ask for one block to be written and a run to be read, one
//! such order at a time, and are safe whatever becomes of an order that failed, as long as a
//! medium keeps one promise: a write that failed, and may still land, never lands after a later
//! write to the same block.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hadrian_protocol::marks::block::Block;
use hadrian_protocol::marks::layout::{BlockIndex, Run};

use crate::marker::Marker;

/// Whether this program was built to speak to etcd.
pub const HAS_ETCD: bool = cfg!(feature = "etcd");

/// Something that holds blocks, reached; shown as where it is. Every call waits until it is done.
pub trait Medium: fmt::Debug + fmt::Display + Send {
    /// What stands in these blocks; zeroes where nothing was ever written.
    ///
    /// # Errors
    /// The system's; a medium that ends before is one.
    fn read(&mut self, run: Run) -> io::Result<Vec<u8>>;

    /// Writes one block, durably.
    ///
    /// # Errors
    /// The system's; then nobody knows what stands there.
    fn write(&mut self, index: BlockIndex, block: &Block) -> io::Result<()>;

    /// Writes a block, if there is one, and reads when that is done.
    ///
    /// # Errors
    /// As those of [`Medium::write`] and [`Medium::read`].
    fn order(&mut self, write: Option<&(BlockIndex, Block)>, read: Run) -> io::Result<Vec<u8>> {
        if let Some((index, block)) = write {
            self.write(*index, block)?;
        }
        self.read(read)
    }

    /// Several runs, in this order.
    ///
    /// # Errors
    /// As those of [`Medium::read`].
    fn read_each(&mut self, runs: &[Run]) -> io::Result<Vec<Vec<u8>>> {
        runs.iter().map(|run| self.read(*run)).collect()
    }

    /// Makes sure of everything, also where there is a cache on the way.
    ///
    /// # Errors
    /// The system's.
    fn sync(&mut self) -> io::Result<()>;

    /// How many bytes it has; none: as many as are asked for.
    ///
    /// # Errors
    /// The system's.
    fn size_bytes(&self) -> io::Result<Option<u64>>;

    /// Whether other hosts see what is written, and this one what they write: without, it is good
    /// for members on one host only.
    fn is_shared(&self) -> bool;

    /// Reaches it anew, after something had failed: what was away may come back under another
    /// handle.
    ///
    /// # Errors
    /// [`OpenError`]
    fn reopen(&mut self) -> Result<(), OpenError>;

    /// Writes something that nobody reads, as large as a block, and takes it away again: so that
    /// who looks knows that it can be written, and how long that takes. None: it has no place for
    /// that.
    fn try_write(&mut self) -> Option<io::Result<()>> {
        None
    }

    /// What an operator should know of its state, beside whether it answers.
    ///
    /// # Errors
    /// Where it does not say.
    fn concerns(&mut self) -> io::Result<Vec<Concern>> {
        Ok(Vec::new())
    }

    /// The command with which an operator blanks its first so many blocks.
    fn how_to_blank(&self, blocks: u64) -> String;
}

/// What is wrong with a medium, or will be, and what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Concern {
    /// It keeps members from having a lease.
    Problem(String),
    /// It will, some day.
    Note(String),
}

/// Where a medium is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A block device or a file.
    File(PathBuf),
    /// Keys of an etcd.
    Etcd(EtcdSource),
}

/// How an etcd is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EtcdSource {
    /// Its client addresses, each with its scheme; the members of one etcd.
    pub endpoints: Vec<String>,
    /// The certificate of the authority that signed those of the members, for https.
    pub ca: Option<PathBuf>,
    /// The certificate and the key that this client shows, for https.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The user that it knows this client as, and the file that holds the password.
    pub login: Option<(String, PathBuf)>,
    /// Longest that an order may take.
    pub limit: Duration,
}

/// Why a medium cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refuses.
    #[error("{place}: {source}; see that it exists and that this host reaches it")]
    Io {
        /// Which medium, or a file that it needs.
        place: String,
        /// What the system says.
        source: io::Error,
    },
    /// It is neither a device nor a file.
    #[error("{place} is no block device and no file; name one of either")]
    Kind {
        /// What was named.
        place: String,
    },
    /// This program does not speak to etcd.
    #[error("{place}: this program was built without etcd; build it with --features etcd")]
    WithoutEtcd {
        /// What was named.
        place: String,
    },
}

/// Least time that an operator's command gives to an order.
const PATIENCE: Duration = Duration::from_secs(10);

impl Source {
    /// The same for an operator's command, on whose orders no lease waits.
    #[must_use]
    pub fn patiently(self) -> Self {
        match self {
            Self::Etcd(source) => {
                Self::Etcd(EtcdSource { limit: source.limit.max(PATIENCE), ..source })
            }
            file @ Self::File(_) => file,
        }
    }

    /// Reaches it, for the blocks of the cluster of this name.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(&self, cluster: &str) -> Result<Box<dyn Medium>, OpenError> {
        match self {
            Self::File(path) => Ok(Box::new(Marker::open(path)?)),
            #[cfg(feature = "etcd")]
            Self::Etcd(source) => Ok(Box::new(crate::etcd::Etcd::open(source, cluster)?)),
            #[cfg(not(feature = "etcd"))]
            Self::Etcd(_) => {
                let _ = cluster;
                Err(OpenError::WithoutEtcd { place: self.to_string() })
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Etcd(source) => write!(f, "etcd at {}", source.endpoints.join(", ")),
        }
    }
}

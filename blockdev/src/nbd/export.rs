//! What is served by name: a backend with the switch that ends its connections, and their table.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::export::{BLOCK_SIZE_MAX, Backend, CloseHandle, ExportInfo, PAYLOAD_LEN_MAX};

use super::proto::transmission;

/// Advertised preferred block size, in bytes (more where the volume's own block size is more).
pub const BLOCK_SIZE_PREFERRED: u32 = 4096;

/// The transmission flags to advertise; `DF` only makes sense with structured replies.
pub(super) fn transmission_flags(info: &ExportInfo, structured: bool) -> u16 {
    use transmission as flag;
    let mut flags = flag::HAS_FLAGS
        | flag::SEND_FLUSH
        | flag::SEND_FUA
        | flag::CAN_MULTI_CONN
        | flag::SEND_CACHE;
    if info.read_only {
        flags |= flag::READ_ONLY;
    } else {
        flags |= flag::SEND_TRIM | flag::SEND_WRITE_ZEROES | flag::SEND_FAST_ZERO;
    }
    if structured {
        flags |= flag::SEND_DF;
    }
    flags
}

/// Minimum, preferred and maximum block size to advertise, in bytes.
pub(super) fn block_sizes(info: &ExportInfo) -> (u32, u32, u32) {
    (info.block_size, BLOCK_SIZE_PREFERRED.max(info.block_size), PAYLOAD_LEN_MAX)
}

/// A backend together with the switch that ends its connections. Cloning shares both.
#[derive(Clone)]
pub struct Export {
    backend: Rc<dyn Backend>,
    close: CloseHandle,
}

impl Export {
    /// An export that serves until its [`CloseHandle`] says otherwise.
    ///
    /// # Panics
    /// If the backend's block size is no power of two up to [`BLOCK_SIZE_MAX`].
    #[must_use]
    pub fn new(backend: Rc<dyn Backend>) -> Self {
        let block_size = backend.info().block_size;
        assert!(
            block_size.is_power_of_two() && block_size <= BLOCK_SIZE_MAX,
            "a block size of {block_size} bytes cannot be exported"
        );
        Self { backend, close: CloseHandle::new() }
    }

    /// The same export for clients that come from here on, who find another size: it ends with this
    /// one, whose clients keep what they were told.
    #[must_use]
    pub fn with_backend(&self, backend: Rc<dyn Backend>) -> Self {
        Self { backend, close: self.close.clone() }
    }

    /// What serves the requests.
    #[must_use]
    pub fn backend(&self) -> &Rc<dyn Backend> {
        &self.backend
    }

    /// Ends this export's connections and refuses new ones, for good: to serve again, put a new
    /// `Export` of the backend into the table.
    #[must_use]
    pub fn close_handle(&self) -> &CloseHandle {
        &self.close
    }

    /// Whether new connections are taken.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        !self.close.is_closed()
    }
}

/// The exports of a server by name. Asked anew by every option of every client, so that the
/// owner may change the table at any time.
pub trait ExportTable {
    /// The export with the given name; the empty name asks for a default.
    fn find(&self, name: &str) -> Option<Found>;

    /// All names with their descriptions, in a stable order.
    fn list(&self) -> Vec<Listed>;
}

/// An export found, under its canonical name.
#[derive(Clone)]
pub struct Found {
    /// The name as it stands in the table.
    pub name: String,
    /// The export.
    pub export: Export,
}

/// One line of the list of exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// At most 4096 bytes.
    pub name: String,
    /// At most 4096 bytes; empty for none.
    pub description: String,
}

/// The plain table: a map, where the empty name means the only export if there is just one.
#[derive(Clone, Default)]
pub struct Exports {
    by_name: BTreeMap<String, Export>,
}

impl Exports {
    /// No exports.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an export; the one that had the name before is returned, its connections go on.
    pub fn insert(&mut self, name: impl Into<String>, export: Export) -> Option<Export> {
        self.by_name.insert(name.into(), export)
    }

    /// Takes an export out of the table; its connections go on until its handle closes them.
    pub fn remove(&mut self, name: &str) -> Option<Export> {
        self.by_name.remove(name)
    }
}

impl ExportTable for Exports {
    fn find(&self, name: &str) -> Option<Found> {
        let only = || (name.is_empty() && self.by_name.len() == 1).then(|| self.by_name.iter());
        let (name, export) = self.by_name.get_key_value(name).or_else(|| only()?.next())?;
        Some(Found { name: name.clone(), export: export.clone() })
    }

    fn list(&self) -> Vec<Listed> {
        let line = |(name, export): (&String, &Export)| Listed {
            name: name.clone(),
            description: export.backend.info().description,
        };
        self.by_name.iter().map(line).collect()
    }
}

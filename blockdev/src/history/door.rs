//! What readers on other threads are given.

use std::path::PathBuf;
use std::rc::Rc;

use hadrian_protocol::ids::ResourceId;
use hadrian_protocol::replica::{VOLUME_BYTES_MAX, VolumeGeometry};

use super::book::{Reach, Shelf};
use super::{DIR, Kept};

/// The history of a running replica, for those who read it.
#[derive(Clone, Debug)]
pub struct Door {
    pub(super) shelf: Shelf,
    pub(super) replica_dir: PathBuf,
    pub(super) dir: PathBuf,
    pub(super) resource: ResourceId,
    pub(super) volumes: Vec<VolumeGeometry>,
}

impl Door {
    pub(crate) fn new(kept: &Kept, shelf: Shelf) -> Self {
        Self {
            shelf,
            dir: kept.replica_dir.join(DIR),
            replica_dir: kept.replica_dir.clone(),
            resource: kept.resource,
            volumes: kept.volumes.clone(),
        }
    }

    /// What a record may name: whoever reads it may know of smaller volumes than it was written
    /// for, because they have grown meanwhile.
    pub(super) fn bounds(&self) -> Rc<[VolumeGeometry]> {
        let bound = |of: &VolumeGeometry| VolumeGeometry { size_bytes: VOLUME_BYTES_MAX, ..*of };
        self.volumes.iter().map(bound).collect()
    }

    /// How far back the image can be read.
    #[must_use]
    pub fn reach(&self) -> Reach {
        self.shelf.book().reach()
    }

    /// The volumes.
    #[must_use]
    pub fn volumes(&self) -> &[VolumeGeometry] {
        &self.volumes
    }
}

//! What clients find: the volumes of a resource, there only while it serves.

use std::rc::Rc;

use hadrian_blockdev::export::{Close, CloseHandle, ExportInfo};
use hadrian_blockdev::nbd::{Export, ExportTable, Exports, Found, Listed};
use hadrian_protocol::ids::VolumeIndex;
use hadrian_protocol::node::Standing;
use hadrian_protocol::replica::VolumeGeometry;

use super::clients::VolumeBackend;
use super::resource::Shared;

/// The exports of a resource: there only while it serves.
pub(super) struct ExportBook(pub(super) Rc<Shared>);

impl ExportTable for ExportBook {
    fn find(&self, name: &str) -> Option<Found> {
        self.0.exports.borrow().find(name)
    }

    fn list(&self) -> Vec<Listed> {
        self.0.exports.borrow().list()
    }
}

impl Shared {
    pub(super) fn open_exports(self: &Rc<Self>, volumes: &[(String, VolumeGeometry)]) {
        let mut exports = self.exports.borrow_mut();
        for (index, (name, geometry)) in volumes.iter().enumerate() {
            let Some(volume) = u16::try_from(index).ok().and_then(VolumeIndex::new) else { return };
            let info = ExportInfo::new(geometry.size_bytes, geometry.block_size);
            let backend = Rc::new(VolumeBackend { resource: self.clone(), volume, info });
            exports.insert(name.clone(), Export::new(backend.clone()));
            if let Some(devices) = &self.devices {
                devices.borrow_mut().open(index, backend);
            }
        }
    }

    pub(super) fn close_exports(&self) {
        let handles: Vec<CloseHandle> = {
            let exports = self.exports.borrow();
            let names: Vec<_> = exports.list().into_iter().map(|listed| listed.name).collect();
            let found = names.iter().filter_map(|name| exports.find(name));
            found.map(|found| found.export.close_handle().clone()).collect()
        };
        *self.exports.borrow_mut() = Exports::new();
        // First the cut, then the answers that are dropped: nobody sees an error in between.
        handles.iter().for_each(|handle| handle.close(Close::Cut));
        if let Some(devices) = &self.devices {
            let stops = self.inner.borrow().node.status().standing == Standing::Stopping;
            devices.borrow_mut().close(if stops { Close::Cut } else { Close::Drain });
        }
        self.inner.borrow_mut().drop_clients();
    }
}

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
    pub(super) fn open_exports(self: &Rc<Self>) {
        let mut exports = self.exports.borrow_mut();
        for (index, (name, backend)) in self.backends().into_iter().enumerate() {
            exports.insert(name, Export::new(backend.clone()));
            if let Some(devices) = &self.devices {
                devices.borrow_mut().open(index, backend);
            }
        }
    }

    /// Clients that connect from here on find the volumes as they are now. Those that are there
    /// keep what they were told, and so do block devices.
    pub(super) fn resize_exports(self: &Rc<Self>) {
        let mut exports = self.exports.borrow_mut();
        for (name, backend) in self.backends() {
            if let Some(found) = exports.find(&name) {
                exports.insert(name, found.export.with_backend(backend));
            }
        }
    }

    /// What serves each volume, under its name.
    fn backends(self: &Rc<Self>) -> Vec<(String, Rc<VolumeBackend>)> {
        let inner = self.inner.borrow();
        let named = (0..).zip(self.export_names.iter().zip(&inner.sizes));
        let backend = |(index, (name, geometry)): (u16, (&String, &VolumeGeometry))| {
            let volume = VolumeIndex::new(index)?;
            let info = ExportInfo::new(geometry.size_bytes, geometry.block_size);
            Some((name.clone(), Rc::new(VolumeBackend { resource: self.clone(), volume, info })))
        };
        named.filter_map(backend).collect()
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

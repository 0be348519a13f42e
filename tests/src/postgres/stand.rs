//! All that stands on a mirrored volume at one member: a block device, ext4, PostgreSQL, clients.

use std::path::PathBuf;

use super::{Ledger, Load, Server, check_checksums};
use crate::mounted::Attached;
use crate::{Cluster, Side};

/// Times a hundred thousand accounts, of about 15 MiB.
const SCALE: &str = "16";

/// It goes with its owner, from the top down, whatever is left of it.
#[derive(Debug)]
pub struct Stand {
    // Clients hear of the end from their server, so that is the first to go.
    server: Option<Server>,
    load: Option<Load>,
    disk: Attached,
}

impl Stand {
    /// Makes a file system and a database on the volume of a side that serves.
    ///
    /// # Errors
    /// With what the programs say.
    pub fn build(cluster: &Cluster, side: Side) -> anyhow::Result<Self> {
        let mut disk = attach(cluster, side)?;
        disk.format()?;
        disk.mount()?;
        let server = Server::create(&disk.folder())?;
        server.run("pgbench", &["-i", "-q", "-s", SCALE])?;
        server.session()?.ask("CREATE TABLE ledger (n bigint PRIMARY KEY)")?;
        Ok(Self { server: Some(server), load: None, disk })
    }

    /// Mounts and starts what is on the volume, as soon as a side serves it; after a crash, both
    /// file system and database recover first.
    ///
    /// # Errors
    /// With what the programs say.
    pub fn rise(cluster: &Cluster, side: Side) -> anyhow::Result<Self> {
        let mut disk = attach(cluster, side)?;
        disk.mount()?;
        let server = Server::start(&disk.folder())?;
        Ok(Self { server: Some(server), load: None, disk })
    }

    /// The server.
    ///
    /// # Panics
    /// If it was stopped.
    #[must_use]
    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("it is stopped by leaving only")
    }

    /// Its clients.
    ///
    /// # Panics
    /// If there are none.
    #[must_use]
    pub fn load(&self) -> &Load {
        self.load.as_ref().expect("the story begins them first")
    }

    /// The folders that everything here has in its name: of the mount, and of the server.
    #[must_use]
    pub fn folders(&self) -> Vec<PathBuf> {
        vec![self.disk.folder(), self.server().folder().to_path_buf()]
    }

    /// Begins clients, or lets those go on that there are.
    ///
    /// # Errors
    /// The server's.
    pub fn work(&mut self, ledger: &Ledger) -> anyhow::Result<()> {
        if self.load.is_none() {
            self.load = Some(Load::begin(self.server(), ledger)?);
        }
        Ok(())
    }

    /// Ends the clients, who were not disturbed until now.
    ///
    /// # Errors
    /// If they were.
    pub fn rest(&mut self) -> anyhow::Result<()> {
        self.load.take().map_or(Ok(()), Load::end)
    }

    /// Stops everything in order, and checks what was stopped: each page's checksum, and the file
    /// system.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn leave(mut self) -> anyhow::Result<()> {
        self.rest()?;
        if let Some(server) = self.server.take() {
            server.stop()?;
        }
        check_checksums(&self.disk.folder())?;
        self.disk.unmount()?;
        self.disk.check().map(drop)
    }
}

fn attach(cluster: &Cluster, side: Side) -> anyhow::Result<Attached> {
    // Only for the wait until it serves.
    drop(cluster.client(side)?);
    Attached::new(&cluster.uri(side))
}

//! Pairs on this host with ownership marks that both members reach directly.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hadrian_protocol::replica::Mode;
use hadrian_replicator::demo::{Cluster, MARKER_BYTES, Side, Spec};
use serde_json::Value;

use crate::etcd::Etcd;
use crate::fencing::TIMING;

/// Two members in peer, and what holds their marks.
#[derive(Debug)]
pub struct Pair {
    /// The members.
    pub cluster: Cluster,
    /// The etcd, where that is what holds them.
    pub etcd: Option<Etcd>,
    _marker: Option<tempfile::NamedTempFile>,
}

impl Pair {
    /// With one marker.
    ///
    /// # Errors
    /// With what went wrong.
    pub fn with_marker(programs: &Path, auto_takeover: bool) -> anyhow::Result<Self> {
        // Beside the build, where files can be read past the page cache.
        let marker = tempfile::NamedTempFile::new_in(programs)?;
        marker.as_file().set_len(MARKER_BYTES)?;
        let spec = Spec { markers: vec![marker.path().to_owned()], ..spec(auto_takeover) };
        let cluster = Cluster::new(programs, spec)?;
        Ok(Self { cluster, etcd: None, _marker: Some(marker) })
    }

    /// With an etcd.
    ///
    /// # Errors
    /// With what went wrong.
    pub fn with_etcd(programs: &Path, auto_takeover: bool) -> anyhow::Result<Self> {
        let etcd = Etcd::new()?;
        let spec = Spec { etcd: vec![etcd.endpoint()], ..spec(auto_takeover) };
        Ok(Self { cluster: Cluster::new(programs, spec)?, etcd: Some(etcd), _marker: None })
    }

    /// The etcd.
    ///
    /// # Errors
    /// Where there is none.
    pub fn etcd(&mut self) -> anyhow::Result<&mut Etcd> {
        self.etcd.as_mut().context("the marks are on a marker")
    }

    /// What the marks hold of the resource.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn record(&self) -> anyhow::Result<Value> {
        let shown = self.cluster.tool(Side::Alpha, &["mark", "show", "--json"])?;
        let shown: Value = serde_json::from_str(&shown)?;
        Ok(shown[0]["resources"][0]["record"].clone())
    }

    /// A number in it.
    ///
    /// # Errors
    /// If it is not there.
    pub fn number(&self, path: &str) -> anyhow::Result<u64> {
        let record = self.record()?;
        record.pointer(path).and_then(Value::as_u64).with_context(|| format!("{path} of {record}"))
    }

    /// Which member owns the resource, by the record.
    ///
    /// # Errors
    /// If nobody does.
    pub fn owner(&self) -> anyhow::Result<u64> {
        self.number("/owner/member")
    }

    /// Writes this byte to the first block.
    ///
    /// # Errors
    /// The client's.
    pub fn write(&self, side: Side, byte: u8) -> anyhow::Result<()> {
        Ok(self.cluster.client(side)?.write(0, &[byte; 4096])?)
    }

    /// Sees that it is there.
    ///
    /// # Errors
    /// If it is not.
    pub fn reads(&self, side: Side, byte: u8) -> anyhow::Result<()> {
        let found = self.cluster.client(side)?.read(0, 4096)?;
        ensure!(found == [byte; 4096], "{byte} is not what {side:?} reads: {}", found[0]);
        Ok(())
    }
}

fn spec(auto_takeover: bool) -> Spec {
    Spec {
        lease: TIMING,
        settings: format!("auto_takeover = {auto_takeover}\n"),
        timers: Some((Duration::from_secs(1), Duration::from_secs(1))),
        ..Spec::new(Mode::Nearsync)
    }
}

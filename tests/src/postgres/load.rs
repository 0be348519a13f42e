//! What PostgreSQL is kept busy with: pgbench, and a client that remembers each answer.

use std::collections::BTreeSet;
use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::Server;

/// Longer than a standby may hold an answer before it is given up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Numbered rows whose commit was answered, over all servers that the volume had.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Book>);

#[derive(Debug, Default)]
struct Book {
    pages: Mutex<Pages>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Pages {
    next: u64,
    answered: BTreeSet<u64>,
    /// The client is to end, or has ended.
    closed: bool,
}

impl Ledger {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows that were answered so far.
    #[must_use]
    pub fn answered(&self) -> BTreeSet<u64> {
        self.pages().answered.clone()
    }

    /// What follows rests on a state without these rows.
    pub fn forget(&self, rows: &BTreeSet<u64>) {
        self.pages().answered.retain(|row| !rows.contains(row));
    }

    /// The answered rows that a server does not have.
    ///
    /// # Errors
    /// The server's.
    pub fn missing(&self, server: &Server) -> anyhow::Result<BTreeSet<u64>> {
        let found = server.session()?.ask("SELECT n FROM ledger")?;
        let found = found.iter().map(|n| n.parse()).collect::<Result<BTreeSet<u64>, _>>()?;
        Ok(self.pages().answered.difference(&found).copied().collect())
    }

    /// Inserts one row after the other until it is told to end or the server fails.
    fn write(&self, mut session: super::Session) {
        loop {
            let row = {
                let mut pages = self.pages();
                if pages.closed {
                    return;
                }
                pages.next += 1;
                pages.next
            };
            let inserted = session.ask(&format!("INSERT INTO ledger VALUES ({row})"));
            let mut pages = self.pages();
            match inserted {
                Ok(_) => drop(pages.answered.insert(row)),
                Err(_) => pages.closed = true,
            }
            self.0.more.notify_all();
        }
    }
}

/// Clients at work. They end with it.
#[derive(Debug)]
pub struct Load {
    pgbench: Child,
    ledger: Ledger,
    writer: Option<JoinHandle<()>>,
}

impl Load {
    /// Begins pgbench and the client of the ledger.
    ///
    /// # Errors
    /// The server's.
    pub fn begin(server: &Server, ledger: &Ledger) -> anyhow::Result<Self> {
        let session = server.session()?;
        ledger.pages().closed = false;
        let client = ledger.clone();
        let writer = std::thread::spawn(move || client.write(session));
        let rounds = ["-n", "-c", "2", "-T", "3600"];
        let pgbench = server.tool("pgbench", &rounds).spawn();
        Ok(Self { pgbench: pgbench?, ledger: ledger.clone(), writer: Some(writer) })
    }

    /// Waits until so many more rows were answered, of transactions that began from here on.
    ///
    /// # Errors
    /// If they do not come.
    pub fn await_rows(&self, count: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut pages = self.ledger.pages();
        let wanted = pages.next + count;
        while pages.answered.last().is_none_or(|last| *last < wanted) {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "{count} rows are not answered in {PATIENCE:?}");
            if pages.closed {
                bail!("the server fails its clients");
            }
            pages = self
                .ledger
                .0
                .more
                .wait_timeout(pages, left)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(pages, _)| pages);
        }
        Ok(())
    }

    /// Ends it while the server runs.
    ///
    /// # Errors
    /// If pgbench has ended before: nobody disturbed it then.
    pub fn end(mut self) -> anyhow::Result<()> {
        let ended = self.pgbench.try_wait().context("pgbench")?;
        ensure!(ended.is_none(), "pgbench ended by itself: {ended:?}");
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ledger.pages().closed = true;
        // One that is gone already needs no killing.
        let _ = self.pgbench.kill();
        let _ = self.pgbench.wait();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}
